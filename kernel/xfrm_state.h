/*
 * xfrm_state: what the back end knows, for its parts only: xfrm.c (requests),
 * xfrm_socket (sockets, reports), xfrm_start (what is done once). Nobody else
 * includes this.
 */
#ifndef KERNEL_XFRM_STATE_H
#define KERNEL_XFRM_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/kserve.h"
#include "kernel/xfrm.h"

struct nl_msg;
struct nl_sock;

#define XFRM_SLOTS   64    /* netlink messages in one datagram */
#define XFRM_RECEIVE 32768 /* octets of one answer or report, at most */
#define XFRM_TEXT    120

/* One netlink message of the datagram that is being filled. */
struct slot {
	struct nl_msg *msg;
	uint32_t sequence;
	uint8_t task;
	bool answered;
	enum err err;
};

/* One request of kserve's, made of one slot or more. */
struct task {
	uint64_t sequence;
	uint8_t op, direction;
	bool replace; /* a policy of ours was there */
	bool retry;   /* UPDSA, to be said as NEWSA if the larval is gone */
	uint32_t spi; /* of an SA, or drawn */
	struct addr dst;
	enum err err;
	struct kmsg_use use;
	char text[XFRM_TEXT];
};

/* Where the kernel reports what nobody asked for. */
struct ear {
	struct xfrm *xfrm;
	struct nl_sock *sock;
	struct loop_watch *watch;
	uint64_t quiet_ms; /* no line about losses before */
};

/* A peer's packets can make mapping changes, one each: they must not take the
 * room of expiries, which the kernel does not report again. */
enum { EAR_EXPIRIES, EAR_OTHERS, EARS };

struct xfrm {
	struct kserve_backend backend;
	struct loop *loop;
	struct log *log;
	struct nl_sock *ask;
	struct ear ear[EARS];
	struct slot slot[XFRM_SLOTS];
	struct task task[XFRM_SLOTS];
	unsigned slots, tasks;
	bool adds; /* an SA is among them */
	bool answering;
	uint32_t sequence;
	uint8_t *receive; /* XFRM_RECEIVE octets */
};

/* Bound, with room for many answers. NULL: why (size octets) says. */
struct nl_sock *xfrm_socket(char *why, size_t size);
/* One datagram from the kernel. Its length in octets; 0: none is there; -1:
 * something was lost. octets: room for XFRM_RECEIVE. */
int xfrm_read(struct nl_sock *sock, uint8_t *octets);
/* Sends one message by itself, takes it over and, for a state that was asked
 * for, leaves the answer in xfrm->receive. text (XFRM_TEXT) gets words. */
enum err xfrm_transact(
    struct xfrm *xfrm, struct nl_msg *msg, bool wants_state, char *text);
/* Begins to hear what the kernel reports. False: why says. */
bool xfrm_listen(struct xfrm *xfrm, char *why, size_t size);
void xfrm_unlisten(struct xfrm *xfrm);

/* What a dead predecessor left goes. False: why says. */
bool xfrm_clear_orphans(struct log *log, char *why, size_t size);

#endif
