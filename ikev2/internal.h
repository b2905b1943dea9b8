/*
 * internal: what the modules of the IKEv2 engine share: its SA, its exchanges,
 * and the functions by which a step sends, waits and fails.
 */
#ifndef IKEV2_INTERNAL_H
#define IKEV2_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/dh.h"
#include "common/engine.h"
#include "common/fsm.h"
#include "common/mem.h"
#include "common/prf.h"
#include "common/proposal.h"
#include "common/rexmit.h"
#include "common/sa.h"
#include "common/wire.h"
#include "ikev2/frag.h"
#include "ikev2/key.h"
#include "ikev2/sapay.h"
#include "ikev2/sk.h"

#define V2_NONCE      32   /* octets of ours; at least half of any PRF's key */
#define V2_NONCE_MIN  16   /* RFC 7296 2.10 */
#define V2_NONCE_MAX  256  /* RFC 7296 3.9 */
#define V2_COOKIE_MAX 64   /* RFC 7296 2.6 */
#define V2_ROUNDS     2    /* of COOKIE, and of INVALID_KE_PAYLOAD */
#define V2_TASKS      512  /* waiting for the window of one IKE SA */
#define V2_CHILDREN   512  /* below one IKE SA: then NO_ADDITIONAL_SAS */
#define V2_LINGER_MS  5000 /* a replaced inbound SA's last packets */
/* How long a replaced SA waits for its Delete: longer than the peer may go on
 * asking for what we have answered (rexmit_defaults). */
#define V2_DELETE_MS    360000
#define V2_REDUNDANT_MS 30000 /* between looks at a redundant IKE SA */

/* States of an exchange. */
enum v2_state {
	V2_IDLE,  /* responder: the request is here */
	V2_START, /* initiator: nothing is sent yet */
	V2_AWAIT_INIT,
	V2_AWAIT_AUTH,
	V2_AWAIT_CHILD, /* a new child */
	V2_AWAIT_REKEY, /* a child's rekey */
	V2_AWAIT_HEIR,  /* the IKE SA's rekey */
	V2_AWAIT_INFO,
	V2_DONE
};

/* What we want of the peer, one request each, as the window allows. */
enum v2_want {
	WANT_PROBE,
	WANT_CHILD,
	WANT_CHILD_REKEY,
	WANT_CHILD_DELETE,
	WANT_REKEY,
	WANT_DELETE
};

struct v2_task {
	struct v2_task *next;
	uint8_t want;  /* enum v2_want */
	uint8_t tries; /* TEMPORARY_FAILUREs so far */
	uint8_t ke_rounds;
	uint8_t group;  /* enum alg_id that INVALID_KE_PAYLOAD asked for */
	uint32_t spi;   /* WANT_CHILD_DELETE: our inbound SPI */
	uint64_t child; /* serial, for those that concern one */
	uint64_t not_before_ms;
	struct conn *conn;   /* WANT_CHILD: owned reference */
	struct ts packet[2]; /* what caused it: local, remote; or family 0 */
};

/* From IKE_SA_INIT to the end of IKE_AUTH; then dropped. */
struct v2_setup {
	struct secret init_i, init_r; /* both messages, for AUTH */
	struct secret nonce_i, nonce_r;
	struct kex *kex;
	struct secret shared; /* g^ir until the keys are made */
	const struct alg *group;
	struct conn *conn; /* of the first child; owned reference */
	uint8_t cookie[V2_COOKIE_MAX];
	uint8_t cookie_len, cookie_rounds, ke_rounds;
	uint8_t proposal; /* the number that was chosen */
	bool nat_asked;   /* the peer sent NAT detection */
	bool failed;      /* IKE_AUTH was refused: we only repeat that */
	enum err why;     /* of a refusal, with its text */
	char text[160];
};

struct v2_sa {
	struct ike_sa sa;
	struct secret keys; /* SK_d ... SK_pr; empty until there are any */
	uint32_t next_out, next_in; /* message IDs of the next requests */
	uint64_t iv;                /* packets sealed by an AEAD key */
	struct flight answer;       /* to request next_in - 1 */
	struct v2_frag *frag[2];    /* of requests, of responses */
	struct v2_task *tasks;
	struct v2_setup *setup;
	struct timer tick; /* delayed tasks; children that wait for traffic */
	uint64_t predecessor; /* serial of the IKE SA that it would replace, as
	                       * long as a collision is undecided */
	uint64_t elder;       /* serial of the IKE SA that the peer rekeyed */
	uint64_t redundant; /* serial of the IKE SA that another heir replaced:
	                     * this one lost the collision */
	uint64_t probed_ms; /* last probe that a stranger's word caused */
	uint16_t task_count;
	bool opener;       /* we began the first of this line of IKE SAs */
	bool fragments;    /* both support RFC 7383 */
	bool fragment_out; /* ... and policy lets us send them */
	bool pumping;
	bool heard; /* the peer has used it */
	bool
	    close_later; /* as soon as the rekey or IKE_AUTH under way is over */
	bool deleted;    /* by the peer, and as above */
};

struct v2_exchange {
	struct exchange x;
	struct v2_task *task; /* owned; exchanges of ours below an SA */
	uint8_t asks;         /* answers that the next step awaits */
	enum err asked;       /* the first error among them */
	char asked_text[96];
	struct endpoint local, remote; /* where the request came to and from */
	bool natt;

	struct secret nonce_i, nonce_r;
	struct kex *kex;
	struct secret shared;
	const struct alg *group; /* of our KE payload */
	struct suite suite;      /* of the SA that is being made */
	uint8_t proposal;        /* number of the chosen one */
	uint64_t peer_spi;
	uint64_t child;     /* serial of the child that is being made */
	uint64_t old_child; /* serial of the one that it replaces */
	uint64_t heir;      /* serial of the IKE SA that is being made */
	uint32_t
	    gone_spi; /* the peer has deleted it; our answer may bring it */
	uint16_t child_error; /* notify that refuses the child, and no more */
	uint8_t error_data[2], error_data_len;
	bool transport;
	bool sent; /* the request has left: its message ID is used */

	/* The peer's rekey of the same SA, under way together with ours. */
	uint64_t rival;            /* serial of what it made; 0: none */
	struct secret rival_nonce; /* the lower of its two */

	/* IKE_AUTH */
	struct ident *peer_id; /* claimed, not proven */
	bool nobody;           /* no connection has these identities */
	uint8_t mac_own[PRF_MAX], mac_peer[PRF_MAX];
};

static inline struct v2_sa *
v2_of(struct ike_sa *sa)
{
	return (struct v2_sa *)(void *)sa;
}

static inline struct v2_exchange *
v2_x(struct exchange *x)
{
	return (struct v2_exchange *)(void *)x;
}

/* A chain of payloads being written. */
struct v2_writer {
	struct buf buf;
	struct wire_out out;
	uint8_t octets[V2_SK_CHAIN];
};
void v2_writer_init(struct v2_writer *writer);

/* v2.c ------------------------------------------------------------------- */

/* A zeroed SA that sa_init() has entered, with its timers; NULL: *err. */
struct v2_sa *v2_sa_new(struct env *env, bool initiator, uint64_t peer_spi,
    const struct endpoint *local, const struct endpoint *remote, bool natt,
    enum err *err);
void v2_setup_free(struct v2_setup *setup);
/* Kills without an event: what a rekey replaced, or never finished. */
void v2_sa_drop(struct v2_sa *v2);
/* Timers of an SA that has just been established. */
void v2_sa_live(struct v2_sa *v2);

struct v2_exchange *v2_exchange_new(
    struct v2_sa *v2, uint8_t type, enum role role, uint8_t state, uint32_t id);
/* Our exchange that is under way, or NULL (the window is one). */
struct v2_exchange *v2_own_exchange(struct v2_sa *v2);
struct v2_exchange *v2_by_ticket(struct env *env, struct ticket ticket);
/* RFC 7296 2.8.1, 2.8.2: both rekeyed the same SA, and this exchange of ours,
 * with the lowest of the four nonces, made the redundant one. */
bool v2_rekey_lost(const struct v2_exchange *x);

/* Steps that ask: counts one more answer to wait for, if err is OK. */
enum err v2_ask(struct v2_exchange *x, enum err err);
/* An answer came: the last one awaited resumes the exchange. Its next step
 * looks at x->asked. */
void v2_asked(struct v2_exchange *x, enum err err, const char *text);
/* WAIT while answers are out, else DONE. */
enum verdict v2_wait(const struct v2_exchange *x);
/* The done functions of dh and install, for v2_asked(). */
void
v2_dh_done(struct env *env, struct ticket ticket, struct dh_result *result);
void v2_install_done(
    struct env *env, struct ticket ticket, enum err err, const char *text);

/* A message without encryption (IKE_SA_INIT): writes its header; the caller
 * appends payloads and calls wire_finish(). */
void v2_clear_begin(struct wire_out *out, struct buf *buf,
    const struct ike_sa *sa, uint64_t spi_r, bool response);
/* Seals writer's chain as x's request and sends it until it is answered. */
enum err v2_request(struct v2_exchange *x, struct v2_writer *writer);
/* Seals writer's chain as the answer to x's request, keeps and sends it. */
enum err v2_respond(struct v2_exchange *x, struct v2_writer *writer);
/* An answer that is one notify, unprotected, to a message that has no SA, if
 * the rate allows (limited). RFC 7296 1.5, 2.21.1. */
void v2_answer_clear(struct env *env, const struct packet *packet,
    const struct wire_header *asked, uint16_t notify, struct view data,
    bool limited);
/* RFC 7296 2.21.3: an answer with INVALID_SYNTAX ends the IKE SA. True if this
 * is one, and it did. */
bool v2_fatal(struct ike_sa *sa, const struct msg *msg);
/* What a person should know of a failure. */
void v2_give_up(struct v2_exchange *x);

/* rules.c's callbacks, in v2.c. */
void v2_refused(struct ike_sa *sa, struct exchange *x, const struct msg *msg,
    enum err err, const char *text);
void v2_failed(struct ike_sa *sa, struct exchange *x);
void v2_ignored(struct ike_sa *sa, struct exchange *x);
void v2_moved(struct ike_sa *sa, struct exchange *x);

/* Reads a Nonce payload into to: 16 to 256 octets (RFC 7296 2.10). */
enum err
v2_nonce_read(const struct msg *msg, const struct alg *prf, struct secret *to);
/* Draws ours. */
enum err v2_nonce_draw(struct env *env, struct secret *to);

#endif
