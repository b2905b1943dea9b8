/*
 * kmsg: typed requests to the data plane, and its answers.
 *
 * A request names one SA or one policy and what to do with it; kserve checks
 * it against the loaded policy before a back end sees it. Plain values without
 * pointers. Between processes they travel packed: what a request does not use
 * is left out, and what is read back is checked octet by octet, because the
 * asker may have fallen to an attacker.
 */
#ifndef KERNEL_KMSG_H
#define KERNEL_KMSG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/ts.h"

enum kmsg_op {
	KMSG_NONE,
	KMSG_SPI,      /* allocate an inbound SPI -> answer.spi */
	KMSG_SPI_DROP, /* give it back */
	KMSG_SA_ADD,   /* install one direction */
	KMSG_SA_REMOVE,
	KMSG_SA_MOVE,    /* new outer endpoints */
	KMSG_SA_QUERY,   /* -> answer.use */
	KMSG_POLICY_ADD, /* one pair of selectors, one direction; a rekey may
	                  * add what is there: it is replaced */
	KMSG_POLICY_REMOVE,
	KMSG_OPS
};

enum kmsg_direction { KMSG_IN = 1, KMSG_OUT = 2, KMSG_FWD = 3 };

#define KMSG_KEY 96 /* octets: AES-256 + SHA-512's key, or key + salt */

/* conn: the number of the connection that a request belongs to, for kserve's
 * checks. reqid: what SAs and policies are tied together by in the data plane;
 * children of one connection with the same selectors share one. */
struct kmsg_sa {
	uint32_t spi;      /* host order */
	uint32_t spi_in;   /* of KMSG_OUT: its inbound partner's SPI */
	uint8_t direction; /* KMSG_IN or KMSG_OUT */
	uint8_t mode;      /* enum policy_mode */
	bool encap, esn;
	uint8_t encr, integ; /* enum alg_id; integ ALG_NONE with an AEAD */
	uint32_t conn, replay_window;
	uint32_t reqid;           /* KMSG_SA_ADD; of others kserve knows it */
	struct endpoint src, dst; /* outer; ports are used when encap */
	struct endpoint old_src, old_dst; /* KMSG_SA_MOVE; set by kserve, which
	                                   * knows the addresses (no ports) */
	struct endpoint natoa_src, natoa_dst; /* transport mode behind NAT:
	                                  * addresses before NAT; or family 0 */
	uint64_t hard_ms;                     /* lifetime; 0: none */
	uint8_t encr_key_len, integ_key_len;  /* octets */
	uint8_t key[KMSG_KEY];         /* encr key + salt, then integ key */
	struct ts_list ts_src, ts_dst; /* what the inner packets may be: for
	                                * checks and the userland data plane */
};

struct kmsg_policy {
	uint8_t direction; /* enum kmsg_direction */
	uint8_t mode;      /* enum policy_mode */
	bool trap;         /* no SA yet: its first packet is an acquire */
	bool replace;      /* set by kserve: one of ours is there already */
	uint32_t conn;
	uint32_t reqid; /* of a trap: conn */
	struct ts src, dst;
	struct addr tunnel_src, tunnel_dst; /* outer */
};

struct kmsg {
	uint8_t op;        /* enum kmsg_op */
	uint64_t sequence; /* set by the transport; 0: no answer is wanted */
	union {
		struct kmsg_sa sa; /* SPI: src, dst (dst is ours), conn, mode */
		struct kmsg_policy policy;
	};
};

struct kmsg_use {
	uint64_t octets, packets;
	uint64_t idle_ms; /* since the last packet; UINT64_MAX: none so far */
};

struct kmsg_answer {
	uint64_t sequence;
	uint8_t op;
	uint8_t err;    /* enum err */
	char text[120]; /* for a person when err is not OK: what was refused */
	uint32_t spi;
	struct kmsg_use use;
};

/* What comes unasked. A back end names the SA of EXPIRE by spi and its
 * destination (remote.addr); kserve turns that into the inbound SPI. */
enum kmsg_event_kind {
	KEVENT_ACQUIRE = 1,
	KEVENT_EXPIRE,
	KEVENT_MAPPING,
	KEVENT_LOST
};
struct kmsg_event {
	uint8_t kind;
	bool hard;
	uint32_t reqid, spi;
	struct endpoint remote;
	struct ts packet[2]; /* local, remote */
};

/* Frames between gate and parent (ipc; range IPC_KERNEL). The sequence is the
 * frame's serial. */
enum kmsg_frame { KFRAME_REQUEST = 200, KFRAME_ANSWER, KFRAME_EVENT };

#define KMSG_OCTETS        2048 /* a packed request, at most */
#define KMSG_ANSWER_OCTETS 256  /* a packed answer, at most */
#define KMSG_EVENT_OCTETS  128  /* a packed event, at most */

/* Appends the packed form, which holds keys for KMSG_SA_ADD: wipe it. */
void kmsg_put(struct buf *buf, const struct kmsg *request);
/* ERR_SHORT, ERR_LONG (octets left over), ERR_SYNTAX. On OK everything is
 * within the bounds that the types have: enumerations, counts, families,
 * selectors. request is zeroed first and must be wiped by the caller. */
enum err kmsg_get(struct view octets, struct kmsg *request);

void kmsg_answer_put(struct buf *buf, const struct kmsg_answer *answer);
enum err kmsg_answer_get(struct view octets, struct kmsg_answer *answer);
void kmsg_event_put(struct buf *buf, const struct kmsg_event *event);
enum err kmsg_event_get(struct view octets, struct kmsg_event *event);

/* Selectors as short keys (14 or 38 octets each) for maps. */
#define KMSG_TS_OCTETS   38
#define KMSG_PAIR_OCTETS (2 * KMSG_TS_OCTETS)
void kmsg_put_ts(struct buf *buf, const struct ts *ts);
void
kmsg_put_pair(struct buf *buf, const struct ts *local, const struct ts *remote);
enum err
kmsg_get_pair(struct view *octets, struct ts *local, struct ts *remote);
void kmsg_put_addr(struct buf *buf, const struct addr *addr);
enum err kmsg_get_addr(struct view *octets, struct addr *addr);

const char *kmsg_op_text(uint8_t op); /* static */
/* "inbound", "outbound", "forward"; static. */
const char *kmsg_direction_text(uint8_t direction);

#endif
