/*
 * sapay: the SA payload of IKEv1, read and written.
 *
 * Every transform of every proposal becomes one struct v1_transform, which
 * keeps its octets (an answer echoes them unchanged) beside what they mean.
 * RFC 2408 3.4 to 3.6, 4.2; RFC 2407 4.4 and 4.5; RFC 2409 5 and appendix A;
 * RFC 3602, RFC 4106, RFC 4304 (attribute 11), RFC 4868, RFC 3947.
 */
#ifndef IKEV1_SAPAY_H
#define IKEV1_SAPAY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/proposal.h"

#define V1_TRANSFORMS OFFERS_MAX /* looked at in one SA payload */
#define V1_OFFERED    48 /* transforms that we offer ourselves, at most */

/* Encapsulation modes (RFC 2407 4.5, RFC 3947 5.1, and its drafts). */
enum v1_mode {
	V1_MODE_NONE = 0,
	V1_MODE_TUNNEL = 1,
	V1_MODE_TRANSPORT = 2,
	V1_MODE_UDP_TUNNEL = 3,
	V1_MODE_UDP_TRANSPORT = 4,
	V1_MODE_DRAFT_UDP_TUNNEL = 61443,
	V1_MODE_DRAFT_UDP_TRANSPORT = 61444
};

#define V1_AUTH_PSK 1 /* RFC 2409 appendix A: pre-shared key */

struct v1_transform {
	uint8_t proposal; /* number */
	uint8_t number;   /* of the transform */
	uint8_t id;       /* KEY_IKE, or the ESP transform */
	/* Nothing here forbids it: a single protocol, which is the one asked
	 * for, a legal SPI, and every attribute known and stated once. */
	bool usable;
	uint32_t spi;                     /* of its proposal, ESP */
	struct view attributes;           /* as received */
	uint16_t encr, hash, group, auth; /* 0: not stated. encr: phase 1 */
	uint16_t key_bits, mode;
	bool esn;
	/* RFC 2407 4.5: 0 where none is stated. Saturates. */
	uint32_t seconds, kilobytes;
};

struct v1_sapay {
	size_t count;
	struct v1_transform item[V1_TRANSFORMS];
};

/* Reads the body of an SA payload (from the DOI on) of phase 1 (PROTO_IKE) or
 * Quick Mode (PROTO_ESP). Views point into body. Structural errors void all of
 * it: ERR_SHORT, ERR_SYNTAX (RFC 2408 5.3 to 5.6); ERR_UNSUPPORTED for another
 * DOI or situation (RFC 2407 4.2). Unknown things void their transform only.
 * Transforms beyond V1_TRANSFORMS are not looked at. */
enum err v1_sapay_read(
    struct v1_sapay *sapay, struct view body, enum ipsec_protocol protocol);

/* The seconds that phase 2 attributes state, as in RESPONDER-LIFETIME (RFC 2407
 * 4.6.3.1); 0: none. Reads until something is malformed or unknown. */
uint32_t v1_sapay_lifetime(struct view attributes);

/* The usable transforms as offers, tag being the index into item; offers has
 * room for sapay->count. want: only those for which it answers true, NULL for
 * all. Returns their number. */
size_t v1_sapay_offers(const struct v1_sapay *sapay,
    enum ipsec_protocol protocol, struct offer *offers,
    bool (*want)(const struct v1_transform *transform, const void *arg),
    const void *arg);

/* Writes the body of an answer: the chosen transform, octets unchanged, with
 * its numbers (RFC 2408 4.2, RFC 2409 5), under our SPI (spi 0: phase 1,
 * none). */
void v1_sapay_answer(
    struct buf *buf, const struct v1_transform *chosen, uint32_t spi);

/* The transform of offered that the answer repeats, under whatever number:
 * ERR_NO_PROPOSAL unless the answer holds exactly one, and one of ours has the
 * same attributes (RFC 2409 5: altered attributes are rejected). */
enum err v1_sapay_accept(const struct v1_sapay *offered,
    const struct v1_sapay *answer, const struct v1_transform **chosen);

/* The suite of a transform; ERR_NO_PROPOSAL if it holds what we do not
 * know. */
enum err v1_sapay_suite(const struct v1_transform *transform,
    enum ipsec_protocol protocol, struct suite *suite);

/* Writes an offer's body: one proposal with what IKEv1 can say of ours, at
 * most V1_OFFERED transforms. Returns their number. */
size_t v1_sapay_offer_ike(struct buf *buf, const struct proposals *ours,
    const struct alg_set *usable, uint32_t seconds);

/* group: the one of PFS, named in every transform, or NULL; spi ours. */
struct v1_esp_offer {
	const struct proposals *ours;
	const struct alg_set *usable;
	const struct alg *group;
	uint32_t spi;
	enum v1_mode mode;
	uint32_t seconds;
};
size_t v1_sapay_offer_esp(struct buf *buf, const struct v1_esp_offer *offer);
/* The group that an initiator uses for PFS: the first of the first proposal;
 * NULL without. */
const struct alg *v1_sapay_pfs(const struct proposals *ours);

#endif
