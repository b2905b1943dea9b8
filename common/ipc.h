/*
 * ipc: the link between two of our processes.
 *
 * Typed, bounded messages over a pair of SOCK_SEQPACKET sockets. A message is
 * a frame: a header and a body. What is queued during one turn of the loop
 * leaves at its end in as few datagrams as it takes, so that one system call
 * carries a batch; nothing here ever blocks. Both ends are the same binary,
 * therefore bodies may be plain structs in host order, but what arrives is
 * checked as if it came from a stranger: every type that a process accepts or
 * sends has a row in its permit table, and whatever fits no row closes the
 * link. All octets are wiped after use, since many of them are keys.
 *
 * Descriptors travel with a frame (SCM_RIGHTS), which then has a datagram of
 * its own; order among frames is kept all the same.
 */
#ifndef COMMON_IPC_H
#define COMMON_IPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

struct ipc;
struct loop;

#define IPC_DATAGRAM 61440 /* octets of one datagram, at most */
#define IPC_HEADER   16    /* octets before each body */
#define IPC_BODY     (IPC_DATAGRAM - IPC_HEADER)
#define IPC_FDS      16         /* descriptors with one frame, at most */
#define IPC_QUEUE    (16 << 20) /* octets that may wait for a slow peer */
#define IPC_EXTRA    (4 << 20)  /* behind so many what can be left out is */
#define IPC_ROWS     64         /* rows of one permit table, at most */

/* Message types: one range per purpose. The types themselves stand in the
 * header of whoever serves them. */
enum ipc_range {
	IPC_PROC = 1,     /* 1 to 99: processes and their control */
	IPC_VAULT = 100,  /* 100 to 199: secrets */
	IPC_KERNEL = 200, /* 200 to 299: the data plane's requests */
	IPC_ESP = 300,    /* 300 to 399: the userland data plane */
	IPC_TYPES = 400
};

struct ipc_frame {
	uint16_t type;
	uint64_t serial;  /* the asker's; answers carry it back */
	struct view body; /* 8-aligned; valid during the call, wiped after it */
	int *fds;         /* the handler sets those to -1 that it keeps; the
	                   * others are closed after it. Close-on-exec. */
	size_t fd_count;
};

/* Takes descriptor number at of those that came along over. */
int ipc_keep_fd(const struct ipc_frame *frame, size_t at);

#define IPC_IN   1 /* we accept it */
#define IPC_OUT  2 /* we send it */
#define IPC_FD   4 /* carries descriptors: at least one */
#define IPC_ONCE 8 /* accepted once in the life of the link */

struct ipc_permit {
	uint16_t type;
	uint16_t flags;    /* IPC_IN, ... */
	uint32_t min, max; /* octets of the body; max is at most IPC_BODY */
	uint32_t states;   /* accepted in state n if 1 << n is set; 0: in all */
	/* NULL for rows that are sent only. An error closes the link: it is for
	 * bodies that break the format. May call ipc_free(). */
	enum err (*handle)(void *arg, const struct ipc_frame *frame);
};

/* A connected pair with large buffers, close-on-exec, non-blocking. ERR_IO
 * with errno. Either end may be handed to another process. */
enum err ipc_pair(int pair[2]);

/* Takes fd over (and closes it when freed, also on failure). rows must outlive
 * the link. closed is called once, from the loop, when the peer has gone
 * (ERR_IO) or broke the rules (ERR_REFUSED; why says which, static); after it
 * nothing is sent or received, and the owner calls ipc_free(), from inside if
 * it likes. NULL: out of memory, or a table that breaks the bounds above. */
struct ipc *ipc_new(struct loop *loop, int fd, const struct ipc_permit *rows,
    size_t row_count, void (*closed)(void *arg, enum err err, const char *why),
    void *arg);
/* Tries once to send what is queued, then closes. Accepts NULL. */
void ipc_free(struct ipc *ipc);

/* The state that rows refer to, 0 to 31; 0 at first. */
void ipc_state(struct ipc *ipc, unsigned state);

/* Queues a copy. ERR_LIMIT: the queue is full (the peer is too slow);
 * ERR_WRONG_STATE: the link is closed; ERR_BUG: no row permits sending this;
 * ERR_NOMEM. */
enum err ipc_send(struct ipc *ipc, uint16_t type, uint64_t serial,
    const void *body, size_t len);
/* The same without a copy: *room is where len octets of the body are to be
 * written (zero at first, 8-aligned), before the next call on this link. */
enum err ipc_room(struct ipc *ipc, uint16_t type, uint64_t serial, size_t len,
    uint8_t **room);
/* With 1 to IPC_FDS descriptors, which stay the caller's: ipc duplicates. */
enum err ipc_send_fds(struct ipc *ipc, uint16_t type, uint64_t serial,
    const void *body, size_t len, const int *fds, size_t fd_count);

/* Sends what is queued now instead of at the end of the turn. */
void ipc_flush(struct ipc *ipc);
/* Octets that wait for the peer. */
size_t ipc_queued(const struct ipc *ipc);
/* The same with what the system holds for it, some hundred octets for each
 * datagram besides its own: whoever asks and reads no answers is told from it
 * before the descriptors in them use up ours. */
size_t ipc_unread(const struct ipc *ipc);

#endif
