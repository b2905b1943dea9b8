/*
 * state: what the modules of the IKEv1 engine share: its SA, its exchanges,
 * the states that the rule table speaks of, and how messages are sent.
 *
 * struct v1_sa begins with struct ike_sa, struct v1_exchange with struct
 * exchange. What only phase 1 needs hangs from struct v1_main and is wiped and
 * freed when it ends; what only a Quick Mode needs, from struct v1_quick.
 * Internal to ikev1/.
 */
#ifndef IKEV1_STATE_H
#define IKEV1_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/dh.h"
#include "common/fsm.h"
#include "common/policy.h"
#include "common/sa.h"
#include "common/vault.h"
#include "common/wire.h"
#include "ikev1/key.h"
#include "ikev1/sapay.h"

#define V1_NONCE_MIN   8 /* RFC 2409 5 */
#define V1_NONCE_MAX   256
#define V1_DIGEST      20
#define V1_MESSAGE_MAX 4096 /* octets of a message of ours */
#define V1_CONNS       256  /* connections looked at for one peer */
#define V1_QUICK_MAX   64   /* Quick Modes of the peer at once, per SA */
#define V1_QUICK_BATCH 2    /* Quick Modes of ours at once, per SA */
#define V1_CHILDREN    512  /* below one SA: the peer gets no more */
#define V1_SEEN_MAX    256  /* message IDs remembered, per SA */
#define V1_LINGER_MS                                                           \
	240000                    /* the last message stays for repeats: longer
                                 * than a peer asks for it (rexmit_defaults) */
#define V1_CHILD_LINGER_MS  10000 /* a replaced child's inbound half */
#define V1_LIFETIME_FLOOR_S 60    /* a peer's shorter wish counts as this */

/* States of an exchange, by type and role. */
enum v1_state {
	V1_MAIN_BEGIN, /* initiator: nothing sent; responder: MM1 awaited */
	V1_MAIN_SENT1, /* awaits MM2, and so on */
	V1_MAIN_SENT2,
	V1_MAIN_SENT3,
	V1_MAIN_SENT4,
	V1_MAIN_SENT5,
	V1_MAIN_DONE,
	V1_QUICK_BEGIN,
	V1_QUICK_SENT1,
	V1_QUICK_SENT2,
	V1_QUICK_DONE,
	V1_INFO_BEGIN,
	V1_INFO_DONE,
	V1_STATE_COUNT
};

/* Extensions that the peer announced. */
enum v1_vendor {
	V1_VENDOR_NATT = 1,        /* RFC 3947 */
	V1_VENDOR_NATT_DRAFTS = 2, /* one of its drafts only: tolerated */
	V1_VENDOR_DPD = 4          /* RFC 3706 */
};

/* Phase 1 in progress. */
struct v1_main {
	uint8_t *sa_body; /* SAi_b: the initiator's, whole (RFC 2409 5) */
	size_t sa_body_len;
	uint64_t nonce; /* the vault's handle of our nonce; 0: none */
	uint8_t own_nonce[VAULT_NONCE];
	uint8_t peer_nonce[V1_NONCE_MAX];
	uint16_t peer_nonce_len;
	uint16_t peer_public_len;
	uint8_t *peer_public;
	uint8_t *own_public; /* kept when kex has gone */
	uint16_t own_public_len;
	struct kex *kex;
	struct secret shared;
	struct vault_skeyid_answer skeyid; /* candidates, best first; wiped */
	unsigned chosen;       /* the candidate whose keys opened the message */
	unsigned failures;     /* MM5s that no candidate opened */
	uint64_t try_at_ms;    /* no further one is looked at before */
	uint32_t late;         /* enum vendors that the peer announced in MM3 */
	bool initial_contact;  /* the peer's, to be obeyed when established */
	struct ident *claimed; /* by the peer, not proven yet */
	bool nobody;           /* ... and no connection's */
	struct auth_proof proof;
};

struct v1_sa {
	struct ike_sa ike;
	struct v1_keys keys;      /* empty before MM4, and of a husk */
	uint8_t iv[V1_BLOCK_MAX]; /* last ciphertext block of phase 1 */
	struct v1_main *main;     /* until phase 1 ends */
	uint32_t seconds;         /* lifetime that was offered; 0: not stated */
	uint32_t vendors;         /* enum v1_vendor */
	uint64_t replaces;        /* serial of the SA that this one renews */
	uint64_t renewed_by;      /* serial of the one that renews it */
	uint64_t rival;           /* ... that it has lost to, both still up */
	bool husk;        /* its ISAKMP SA has gone, its children have not */
	bool first_child; /* a Quick Mode follows phase 1 */
	bool deleting;    /* its Delete is out */
	bool contacted;   /* an INITIAL-CONTACT was obeyed: once only */
	bool dpd_in_known;
	uint8_t refused; /* an error notify that anybody may have sent, or 0 */
	uint8_t batch; /* Quick Modes of ours begun since none was under way */
	uint32_t dpd_out, dpd_in; /* sequence numbers, RFC 3706 5.4 */
	uint32_t dpd_first;       /* our first one */
	uint32_t dpd_acked;       /* the last one that was acknowledged */
	uint64_t dpd_asked_ms;    /* since when an answer is missing; 0: none */
	bool dpd_judged;          /* too long: is there traffic at least? */
	uint32_t *seen;           /* message IDs that count once, a ring */
	uint16_t seen_count, seen_room, seen_at;
};

/* A Quick Mode in progress. */
struct v1_quick {
	uint64_t child;  /* serial */
	uint64_t rekeys; /* serial of the child that it renews; 0: none */
	uint8_t *offer;  /* our SA body, as initiator */
	size_t offer_len;
	uint8_t nonce_i[V1_NONCE_MAX], nonce_r[V1_NONCE_MAX];
	uint16_t nonce_i_len, nonce_r_len;
	struct kex *kex;
	struct secret shared; /* with PFS */
	struct ts local, remote;
	uint64_t begun_ms; /* initiator; 0: waits for its turn */
	bool ids;          /* identities stand in the messages */
	bool natoa;
	/* Responder. */
	struct v1_transform chosen; /* its views borrow from the message */
	uint32_t offered; /* the initiator's SPI in the first proposal */
	bool tell_lifetime;
};

struct v1_exchange {
	struct exchange x;
	uint8_t iv[V1_BLOCK_MAX];
	bool iv_set;
	bool arriving; /* a message is being worked on */
	bool digested;
	uint8_t digest[V1_DIGEST];     /* of the message last taken */
	uint8_t arrived[V1_DIGEST];    /* of the one being worked on */
	struct endpoint local, remote; /* where that came from */
	bool natt;
	unsigned pending; /* answers awaited */
	enum err pending_err;
	struct timer linger;
	struct v1_quick *quick;
};

extern const struct fsm v1_fsm; /* rules.c */

static inline struct v1_sa *
v1_sa(struct ike_sa *sa)
{
	return (struct v1_sa *)sa;
}

static inline struct v1_exchange *
v1_exchange(struct exchange *x)
{
	return (struct v1_exchange *)x;
}

/* Making and freeing (v1.c) --------------------------------------------- */

/* A new SA in the maps; NULL when out of memory or random numbers. */
struct v1_sa *v1_sa_new(struct env *env, bool initiator, uint64_t peer_spi,
    const struct endpoint *local, const struct endpoint *remote, bool natt);
void v1_main_free(struct env *env, struct v1_main *main); /* wipes */
/* A new exchange below sa; NULL when out of memory. */
struct v1_exchange *v1_exchange_new(struct ike_sa *sa, uint8_t type,
    enum role role, enum v1_state state, uint32_t id);
void v1_quick_free(struct v1_quick *quick); /* wipes */
/* Our own message ID, never 0, never used before on this SA; 0: none could
 * be drawn. */
uint32_t v1_message_id(struct v1_sa *v1);
/* Was this message ID used on this SA? v1_see() remembers one. */
bool v1_seen(const struct v1_sa *v1, uint32_t id);
void v1_see(struct v1_sa *v1, uint32_t id);

/* Waiting for several answers at once ----------------------------------- */

/* The live, waiting exchange that an answer is for, or NULL. */
struct v1_exchange *v1_awaiting(struct env *env, struct ticket ticket);
/* One of the answers that x waits for is in: the last one resumes it. */
void v1_landed(struct v1_exchange *x, enum err err);

/* Sending (v1.c) -------------------------------------------------------- */

/* A message under construction. */
struct v1_out {
	uint8_t octets[V1_MESSAGE_MAX];
	struct buf buf;
	struct wire_out wire;
	size_t rest_at; /* offset of what follows the HASH payload */
};
void v1_out_begin(
    struct v1_out *out, const struct ike_sa *sa, uint8_t exchange, uint32_t id);
/* Ends the message, sends it and keeps it in x for repeats; timed: again and
 * again until x sends the next. sealed: encrypted under x's IV, which moves
 * on. ERR_LONG if it did not fit. */
enum err
v1_out_send(struct v1_out *out, struct v1_exchange *x, bool sealed, bool timed);
/* Writes a HASH payload whose octets are filled in later, when all that
 * follows it stands: by v1_out_hash1(), or at v1_out_hash_at() over
 * v1_out_rest(). */
void v1_out_hash(struct v1_out *out, const struct v1_sa *v1);
uint8_t *v1_out_hash_at(struct v1_out *out, const struct v1_sa *v1);
struct view v1_out_rest(const struct v1_out *out);
/* Before the hash of a message that begins with HASH: see env->impair. */
void v1_out_impair(struct v1_out *out, struct env *env);
enum err v1_out_hash1(struct v1_out *out, const struct v1_sa *v1, uint32_t id);
/* Where x's message goes, and those of its repeats, from now on. */
void v1_repeat(struct v1_exchange *x);

/* Endpoints (peer.c) ---------------------------------------------------- */

/* Follows the peer to where an authenticated, fresh message came from:
 * floated is true for the fifth and sixth message of phase 1, where the peer
 * may go to the NAT-T port (RFC 3947 4); later only a peer behind NAT is
 * followed (RFC 3947 6). */
void v1_follow(struct v1_sa *v1, const struct endpoint *local,
    const struct endpoint *remote, bool natt, bool floated);

/* For steps: a failure that lies with us, not with the peer. */
static inline bool
v1_own_failure(enum err err)
{
	return err == ERR_NOMEM || err == ERR_CRYPTO || err == ERR_LIMIT ||
	       err == ERR_IO || err == ERR_NO_SECRET || err == ERR_NOT_FOUND ||
	       err == ERR_REFUSED || err == ERR_BUG;
}

#endif
