/*
 * proposal: what we are willing to use, what the peer offers, and the choice.
 *
 * struct proposal is policy: for each kind of algorithm, alternatives in order
 * of preference. struct offer is what a peer sent, reduced to a form common to
 * both versions; transforms that we do not know stay in it, by number, so that
 * a mismatch can be explained. The choice is a struct suite.
 * RFC 7296 3.3, 2.7; RFC 2408 4.2; RFC 2409 5.
 */
#ifndef COMMON_PROPOSAL_H
#define COMMON_PROPOSAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/alg.h"
#include "common/err.h"

#define PROPOSAL_ALTERNATIVES 12 /* algorithms of one kind in one proposal */
#define PROPOSALS_MAX         16 /* proposals of one connection */

enum ipsec_protocol {
	PROTO_NONE = 0,
	PROTO_IKE = 1,
	PROTO_AH = 2,
	PROTO_ESP = 3
};

enum esn { ESN_NONE = 0, ESN_NO = 1, ESN_YES = 2 }; /* a set of bits */

/* What lies beyond a count is zero in everything that is made here. */
struct proposal {
	uint8_t protocol; /* PROTO_IKE or PROTO_ESP */
	uint8_t esn;      /* ESP: which of ESN_NO, ESN_YES we accept */
	uint8_t count[ALG_KINDS];
	uint8_t alg[ALG_KINDS][PROPOSAL_ALTERNATIVES]; /* enum alg_id */
};

struct proposals {
	uint8_t count;
	struct proposal item[PROPOSALS_MAX];
};

/* The at-th alternative of a kind; NULL if there are not so many. */
const struct alg *
proposal_alg(const struct proposal *proposal, enum alg_kind kind, size_t at);

/* One algorithm of each kind; NULL where the protocol has none (integ with an
 * AEAD; kex of a child without PFS; prf of ESP). A plain value. */
struct suite {
	const struct alg *encr, *prf, *integ, *kex;
	bool esn;
};

#define OFFER_TRANSFORMS 64 /* in one proposal; the rest is not looked at */
#define OFFERS_MAX       64

struct transform {
	uint8_t kind; /* enum alg_kind, or ALG_KINDS for ESN (IKEv2 type 5) */
	uint16_t number; /* as on the wire; ESN: 0 or 1 */
	uint16_t key_bits;
	bool broken;           /* unknown attribute: void (RFC 7296 3.3.6) */
	const struct alg *alg; /* NULL: none of ours */
};

struct offer {
	uint8_t number; /* proposal number (v1 phase 1: transform number) */
	uint8_t protocol;
	uint8_t spi_len;
	uint8_t spi[8];
	uint8_t count;
	uint16_t tag; /* the engine's own: index into what it decoded */
	struct transform transform[OFFER_TRANSFORMS];
};

/* Reads "aes256-sha256-modp2048,aes128gcm16-prfsha256-ecp256!" of ike= or
 * esp=. *strict tells whether a final "!" stood there. On ERR_SYNTAX, *at is
 * the octet in text where the wrong word begins and *problem says what was
 * expected. */
enum err
proposals_parse(struct proposals *proposals, enum ipsec_protocol protocol,
    const char *text, bool *strict, size_t *at, const char **problem);

/* The modern tier, as proposed when ike= or esp= says nothing. */
void
proposals_default(struct proposals *proposals, enum ipsec_protocol protocol);
/* Takes out what did not pass its self-test; proposals left empty vanish. */
void proposals_limit(struct proposals *proposals, const struct alg_set *usable);
/* True if any algorithm of a tier above modern is there; text names them,
 * separated by commas. */
bool proposals_weak(const struct proposals *proposals, char *text, size_t size);

/* RFC 7296 2.7 and 3.3: takes our proposals in order and, for each, the peer's
 * in order: exactly one transform a kind. kex_optional: a child negotiation,
 * where an offer with and one without a group both fit whatever we configured
 * as PFS (Interop: Apple and Windows rekey without). first_child: IKE_AUTH's
 * child, where groups are left out of account (RFC 7296 1.2). ERR_NO_PROPOSAL
 * when nothing fits. *chosen is an index into offers. */
struct choice {
	struct suite suite;
	size_t chosen;
};
enum err
proposals_choose(const struct proposals *ours, const struct offer *offers,
    size_t count, bool kex_optional, bool first_child, struct choice *choice);

/* Is the answer's single offer one of the choices in what we proposed? Fills
 * suite. ERR_NO_PROPOSAL if not (RFC 7296 2.7: initiator verifies). */
enum err proposals_accept(const struct proposals *ours,
    const struct offer *answer, bool first_child, struct suite *suite);

bool suite_equal(const struct suite *a, const struct suite *b);
/* Would proposals have allowed this suite? For a switch of connection. */
bool
proposals_allow(const struct proposals *proposals, const struct suite *suite);

#define SUITE_TEXT 128
char *suite_text(const struct suite *suite, char text[static SUITE_TEXT]);
char *proposal_text(const struct proposal *proposal, char *text, size_t size);
char *
proposals_text(const struct proposals *proposals, char *text, size_t size);
/* Unknown transforms print as "encr#20/256". */
char *offer_text(const struct offer *offer, char *text, size_t size);

/* In words, what kept the nearest pair of (ours, offered) apart: "group:
 * offered modp1024; allowed modp2048, ecp256". Returns how many kinds differ in the
 * nearest pair (0: a match). */
unsigned
proposals_explain(const struct proposals *ours, const struct offer *offers,
    size_t count, bool first_child, char *text, size_t size);

#endif
