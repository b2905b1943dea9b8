#include "ikev1/sapay.h"

#include <string.h>

#include "common/iana.h"

#define DOI_IPSEC     1 /* RFC 2407 4 */
#define SIT_IDENTITY  1 /* RFC 2407 4.2.1: SIT_IDENTITY_ONLY */
#define KEY_IKE       1 /* RFC 2407 4.4.2 */
#define LIFE_SECONDS  1
#define LIFE_KILOBYTE 2
#define ATTRIBUTE_TV  0x8000

/* RFC 2409 appendix A. */
enum phase1_attribute {
	A1_ENCR = 1,
	A1_HASH = 2,
	A1_AUTH = 3,
	A1_GROUP = 4,
	A1_GROUP_TYPE = 5,
	A1_LIFE_TYPE = 11,
	A1_LIFE_DURATION = 12,
	A1_KEY_LENGTH = 14
};

/* RFC 2407 4.5; 11: RFC 4304. */
enum phase2_attribute {
	A2_LIFE_TYPE = 1,
	A2_LIFE_DURATION = 2,
	A2_GROUP = 3,
	A2_MODE = 4,
	A2_AUTH = 5,
	A2_KEY_LENGTH = 6,
	A2_ESN = 11
};

struct attributes_reader {
	struct v1_transform *transform;
	uint64_t seen;      /* bits of attribute types below 64 */
	uint16_t life_type; /* 0: none stated yet */
};

/* A value of TV or TLV form; TLV values longer than 8 octets saturate. */
static bool
attribute_take(struct view *from, uint16_t *type, uint64_t *value)
{
	uint16_t af_type, low;
	struct view octets;

	if (!view_u16(from, &af_type) || !view_u16(from, &low))
		return false;
	*type = (uint16_t)(af_type & ~ATTRIBUTE_TV);
	*value = low;
	if (af_type & ATTRIBUTE_TV)
		return true;
	if (!view_take(from, low, &octets))
		return false;
	*value = 0;
	for (size_t i = 0; i < octets.len; i++) {
		if (*value >> 56 != 0)
			*value = UINT64_MAX;
		else
			*value = *value << 8 | octets.at[i];
	}
	return true;
}

/* Life type and duration come in pairs, more than once. Interop: a duration
 * without a type counts as seconds. */
static bool
life_put(struct attributes_reader *reader, bool duration, uint64_t value)
{
	uint32_t *into;

	if (!duration) {
		reader->life_type = value == LIFE_SECONDS    ? LIFE_SECONDS
		                    : value == LIFE_KILOBYTE ? LIFE_KILOBYTE
		                                             : 0;
		return reader->life_type != 0;
	}
	into = reader->life_type == LIFE_KILOBYTE
	           ? &reader->transform->kilobytes
	           : &reader->transform->seconds;
	if (*into != 0)
		return false;
	*into = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
	return true;
}

static bool
u16_put(struct attributes_reader *reader, uint16_t type, uint16_t *into,
    uint64_t value)
{
	if (reader->seen >> type & 1 || value > UINT16_MAX)
		return false;
	reader->seen |= (uint64_t)1 << type;
	*into = (uint16_t)value;
	return true;
}

static bool
phase1_put(struct attributes_reader *reader, uint16_t type, uint64_t value)
{
	struct v1_transform *t = reader->transform;
	uint16_t group_type;

	switch (type) {
	case A1_ENCR:
		return u16_put(reader, type, &t->encr, value);
	case A1_HASH:
		return u16_put(reader, type, &t->hash, value);
	case A1_AUTH:
		return u16_put(reader, type, &t->auth, value);
	case A1_GROUP:
		return u16_put(reader, type, &t->group, value);
	case A1_GROUP_TYPE:
		/* Redundant beside a group's number: MODP 1, ECP 2. */
		return u16_put(reader, type, &group_type, value) &&
		       (value == 1 || value == 2);
	case A1_LIFE_TYPE:
		return life_put(reader, false, value);
	case A1_LIFE_DURATION:
		return life_put(reader, true, value);
	case A1_KEY_LENGTH:
		return u16_put(reader, type, &t->key_bits, value);
	default:
		return false;
	}
}

static bool
phase2_put(struct attributes_reader *reader, uint16_t type, uint64_t value)
{
	struct v1_transform *t = reader->transform;
	uint16_t esn;

	switch (type) {
	case A2_LIFE_TYPE:
		return life_put(reader, false, value);
	case A2_LIFE_DURATION:
		return life_put(reader, true, value);
	case A2_GROUP:
		return u16_put(reader, type, &t->group, value);
	case A2_MODE:
		return u16_put(reader, type, &t->mode, value);
	case A2_AUTH:
		return u16_put(reader, type, &t->auth, value);
	case A2_KEY_LENGTH:
		return u16_put(reader, type, &t->key_bits, value);
	case A2_ESN:
		/* RFC 4304: 1 means 64-bit sequence numbers. */
		t->esn = value == 1;
		return u16_put(reader, type, &esn, value) && value == 1;
	default:
		return false;
	}
}

static enum err
attributes_read(struct v1_transform *transform, enum ipsec_protocol protocol)
{
	struct attributes_reader reader = { transform, 0, 0 };
	struct view rest = transform->attributes;
	uint16_t type;
	uint64_t value;
	bool known;

	while (rest.len > 0) {
		if (!attribute_take(&rest, &type, &value))
			return ERR_SHORT;
		known = protocol == PROTO_IKE
		            ? phase1_put(&reader, type, value)
		            : phase2_put(&reader, type, value);
		/* RFC 2408 4.2: what is not understood is not chosen. */
		if (!known)
			transform->usable = false;
	}
	return OK;
}

uint32_t
v1_sapay_lifetime(struct view attributes)
{
	struct v1_transform transform = { .seconds = 0 };
	struct attributes_reader reader = { &transform, 0, 0 };
	uint16_t type;
	uint64_t value;

	/* Interop: FortiGate sends malformed ones. */
	while (attribute_take(&attributes, &type, &value)) {
		bool duration = type == A2_LIFE_DURATION;

		if ((type == A2_LIFE_TYPE || duration) &&
		    !life_put(&reader, duration, value))
			break;
	}
	return transform.seconds;
}

struct proposal_header {
	uint8_t number, protocol, transforms;
	uint32_t spi;
	bool usable;
	struct view body; /* transforms */
};

/* One payload of the inner chains: next, RESERVED, length, then the body. */
static enum err
inner_take(struct view *from, uint8_t more, bool *last, struct view *body)
{
	uint8_t next, reserved;
	uint16_t len;

	if (!view_u8(from, &next) || !view_u8(from, &reserved) ||
	    !view_u16(from, &len))
		return ERR_SHORT;
	/* RFC 2408 5.3: RESERVED must be zero. 3.5, 3.6: more or none. */
	if (reserved != 0 || len < 4 || (next != 0 && next != more))
		return ERR_SYNTAX;
	*last = next == 0;
	return view_take(from, len - 4u, body) ? OK : ERR_SHORT;
}

static enum err
proposal_take(struct view *from, bool *last, enum ipsec_protocol protocol,
    struct proposal_header *proposal)
{
	uint8_t spi_len;
	struct view spi;
	enum err err = inner_take(from, P1_P, last, &proposal->body);

	if (err != OK)
		return err;
	if (!view_u8(&proposal->body, &proposal->number) ||
	    !view_u8(&proposal->body, &proposal->protocol) ||
	    !view_u8(&proposal->body, &spi_len) ||
	    !view_u8(&proposal->body, &proposal->transforms) ||
	    !view_take(&proposal->body, spi_len, &spi))
		return ERR_SHORT;
	proposal->spi = 0;
	proposal->usable = proposal->protocol == protocol;
	if (protocol == PROTO_IKE)
		return OK; /* RFC 2408 3.5: an SPI is ignored here */
	if (spi_len != 4 || !view_u32(&spi, &proposal->spi) ||
	    proposal->spi < 256) /* RFC 4303 2.1 */
		proposal->usable = false;
	return OK;
}

static enum err
transforms_read(struct v1_sapay *sapay, struct proposal_header *proposal,
    enum ipsec_protocol protocol)
{
	bool last = false;
	unsigned count = 0;
	enum err err;

	while (!last) {
		struct v1_transform *item, over;
		struct view body;
		uint16_t reserved;

		err = inner_take(&proposal->body, P1_T, &last, &body);
		if (err != OK)
			return err;
		item = sapay->count < V1_TRANSFORMS ? &sapay->item[sapay->count]
		                                    : &over;
		memset(item, 0, sizeof(*item));
		if (!view_u8(&body, &item->number) ||
		    !view_u8(&body, &item->id) || !view_u16(&body, &reserved))
			return ERR_SHORT;
		if (reserved != 0)
			return ERR_SYNTAX;
		item->proposal = proposal->number;
		item->spi = proposal->spi;
		item->usable = proposal->usable;
		if (protocol == PROTO_IKE && item->id != KEY_IKE)
			item->usable = false;
		item->attributes = body;
		err = attributes_read(item, protocol);
		if (err != OK)
			return err;
		if (item != &over)
			sapay->count++;
		count++;
	}
	if (proposal->body.len != 0 || count != proposal->transforms)
		return ERR_SYNTAX;
	return OK;
}

/* RFC 2408 4.2: proposals of one number, wherever they stand, are wanted
 * together, as AH and ESP would be, or ESP and IPCOMP. We do one protocol only:
 * half of what was asked for is nothing. */
static void
void_bundle(struct v1_sapay *sapay, struct proposal_header *proposal)
{
	for (size_t i = 0; i < sapay->count; i++)
		if (sapay->item[i].proposal == proposal->number)
			sapay->item[i].usable = false;
	proposal->usable = false;
}

enum err
v1_sapay_read(
    struct v1_sapay *sapay, struct view body, enum ipsec_protocol protocol)
{
	struct proposal_header proposal;
	bool numbers[UINT8_MAX + 1] = { false };
	uint32_t doi, situation;
	unsigned count = 0;
	bool last = false;
	enum err err;

	sapay->count = 0;
	if (!view_u32(&body, &doi) || !view_u32(&body, &situation))
		return ERR_SHORT;
	if (doi != DOI_IPSEC || situation != SIT_IDENTITY)
		return ERR_UNSUPPORTED;
	while (!last) {
		err = proposal_take(&body, &last, protocol, &proposal);
		if (err != OK)
			return err;
		if (count++ > 0 && protocol == PROTO_IKE)
			return ERR_SYNTAX; /* RFC 2409 5: one proposal */
		if (numbers[proposal.number])
			void_bundle(sapay, &proposal);
		numbers[proposal.number] = true;
		err = transforms_read(sapay, &proposal, protocol);
		if (err != OK)
			return err;
	}
	return body.len == 0 ? OK : ERR_SYNTAX;
}

static void
offer_put(struct offer *offer, enum alg_kind kind, uint16_t number,
    uint16_t key_bits, const struct alg *alg)
{
	struct transform *transform = &offer->transform[offer->count++];

	transform->kind = (uint8_t)kind;
	transform->number = number;
	transform->key_bits = key_bits;
	transform->broken = false;
	transform->alg = alg;
}

static void
offer_phase1(struct offer *offer, const struct v1_transform *t)
{
	const struct alg *hash = alg_by_phase1(ALG_PRF, t->hash, 0);

	offer_put(offer, ALG_ENCR, t->encr, t->key_bits,
	    alg_by_phase1(ALG_ENCR, t->encr, t->key_bits));
	/* One attribute names what IKEv2 names by two. */
	offer_put(offer, ALG_PRF, t->hash, 0, hash);
	offer_put(offer, ALG_INTEG, t->hash, 0,
	    hash != NULL ? alg_integ_of_prf(hash) : NULL);
	offer_put(
	    offer, ALG_KEX, t->group, 0, alg_by_phase1(ALG_KEX, t->group, 0));
}

static void
offer_phase2(struct offer *offer, const struct v1_transform *t)
{
	const struct alg *encr = alg_by_phase2(ALG_ENCR, t->id, t->key_bits);

	offer_put(offer, ALG_ENCR, t->id, t->key_bits, encr);
	if (t->auth != 0 && (encr == NULL || !alg_is_aead(encr)))
		offer_put(offer, ALG_INTEG, t->auth, 0,
		    alg_by_phase2(ALG_INTEG, t->auth, 0));
	if (t->group != 0)
		offer_put(offer, ALG_KEX, t->group, 0,
		    alg_by_phase2(ALG_KEX, t->group, 0));
	offer_put(offer, ALG_KINDS, t->esn, 0, NULL);
}

size_t
v1_sapay_offers(const struct v1_sapay *sapay, enum ipsec_protocol protocol,
    struct offer *offers,
    bool (*want)(const struct v1_transform *transform, const void *arg),
    const void *arg)
{
	size_t count = 0;

	for (size_t i = 0; i < sapay->count; i++) {
		const struct v1_transform *t = &sapay->item[i];
		struct offer *offer = &offers[count];

		if (!t->usable || (want != NULL && !want(t, arg)))
			continue;
		offer->number = protocol == PROTO_IKE ? t->number : t->proposal;
		offer->protocol = (uint8_t)protocol;
		offer->spi_len = 0;
		offer->count = 0;
		offer->tag = (uint16_t)i;
		if (protocol == PROTO_IKE)
			offer_phase1(offer, t);
		else
			offer_phase2(offer, t);
		count++;
	}
	return count;
}

enum err
v1_sapay_suite(const struct v1_transform *t, enum ipsec_protocol protocol,
    struct suite *suite)
{
	memset(suite, 0, sizeof(*suite));
	if (protocol == PROTO_IKE) {
		suite->encr = alg_by_phase1(ALG_ENCR, t->encr, t->key_bits);
		suite->prf = alg_by_phase1(ALG_PRF, t->hash, 0);
		suite->kex = alg_by_phase1(ALG_KEX, t->group, 0);
		if (suite->encr == NULL || suite->prf == NULL ||
		    suite->kex == NULL)
			return ERR_NO_PROPOSAL;
		suite->integ = alg_integ_of_prf(suite->prf);
		return OK;
	}
	suite->encr = alg_by_phase2(ALG_ENCR, t->id, t->key_bits);
	suite->esn = t->esn;
	if (suite->encr == NULL)
		return ERR_NO_PROPOSAL;
	if (!alg_is_aead(suite->encr)) {
		suite->integ = alg_by_phase2(ALG_INTEG, t->auth, 0);
		if (suite->integ == NULL)
			return ERR_NO_PROPOSAL;
	}
	if (t->group != 0) {
		suite->kex = alg_by_phase2(ALG_KEX, t->group, 0);
		if (suite->kex == NULL)
			return ERR_NO_PROPOSAL;
	}
	return OK;
}

/* Writing -------------------------------------------------------------- */

struct writer {
	struct buf *buf;
	size_t proposal_at, count_at; /* offsets */
	size_t transform_at, next_at;
	uint8_t count;
};

/* DOI, situation, and the only proposal's header. */
static void
write_begin(struct writer *writer, struct buf *buf, uint8_t number,
    enum ipsec_protocol protocol, uint32_t spi)
{
	writer->buf = buf;
	writer->count = 0;
	buf_u32(buf, DOI_IPSEC);
	buf_u32(buf, SIT_IDENTITY);
	writer->proposal_at = buf->len;
	buf_u8(buf, 0);
	buf_u8(buf, 0);
	buf_u16(buf, 0);
	buf_u8(buf, number);
	buf_u8(buf, (uint8_t)protocol);
	buf_u8(buf, spi != 0 ? 4 : 0);
	writer->count_at = buf->len;
	buf_u8(buf, 0);
	if (spi != 0)
		buf_u32(buf, spi);
}

static void
write_transform(struct writer *writer, uint8_t number, uint8_t id)
{
	/* The transform before is not the last one. */
	if (writer->count > 0 && !writer->buf->full)
		writer->buf->at[writer->transform_at] = P1_T;
	writer->transform_at = writer->buf->len;
	buf_u8(writer->buf, 0);
	buf_u8(writer->buf, 0);
	buf_u16(writer->buf, 0);
	buf_u8(writer->buf, number);
	buf_u8(writer->buf, id);
	buf_u16(writer->buf, 0);
	writer->count++;
}

static void
write_transform_end(struct writer *writer)
{
	if (!writer->buf->full)
		buf_patch_u16(writer->buf, writer->transform_at + 2,
		    (uint16_t)(writer->buf->len - writer->transform_at));
}

static void
write_end(struct writer *writer)
{
	if (writer->buf->full)
		return;
	writer->buf->at[writer->count_at] = writer->count;
	buf_patch_u16(writer->buf, writer->proposal_at + 2,
	    (uint16_t)(writer->buf->len - writer->proposal_at));
}

static void
put_tv(struct buf *buf, uint16_t type, uint16_t value)
{
	buf_u16(buf, (uint16_t)(type | ATTRIBUTE_TV));
	buf_u16(buf, value);
}

/* RFC 2407 4.5: as TV where it fits, else as four octets. */
static void
put_seconds(struct buf *buf, uint16_t type, uint32_t seconds)
{
	put_tv(buf, type, LIFE_SECONDS);
	if (seconds <= UINT16_MAX) {
		put_tv(buf, (uint16_t)(type + 1), (uint16_t)seconds);
	} else {
		buf_u16(buf, (uint16_t)(type + 1));
		buf_u16(buf, 4);
		buf_u32(buf, seconds);
	}
}

void
v1_sapay_answer(
    struct buf *buf, const struct v1_transform *chosen, uint32_t spi)
{
	struct writer writer;

	write_begin(&writer, buf, chosen->proposal,
	    spi != 0 ? PROTO_ESP : PROTO_IKE, spi);
	write_transform(&writer, chosen->number, chosen->id);
	buf_view(buf, chosen->attributes);
	write_transform_end(&writer);
	write_end(&writer);
}

static bool
transform_equal(const struct v1_transform *a, const struct v1_transform *b)
{
	return a->id == b->id && a->encr == b->encr && a->hash == b->hash &&
	       a->group == b->group && a->auth == b->auth &&
	       a->key_bits == b->key_bits && a->mode == b->mode &&
	       a->esn == b->esn && a->seconds == b->seconds &&
	       a->kilobytes == b->kilobytes;
}

/* RFC 2408 4.2: the answer must be one of our transforms; that it keeps their
 * numbers is a courtesy (SHOULD). */
enum err
v1_sapay_accept(const struct v1_sapay *offered, const struct v1_sapay *answer,
    const struct v1_transform **chosen)
{
	const struct v1_transform *given = &answer->item[0];

	if (answer->count != 1 || !given->usable)
		return ERR_NO_PROPOSAL;
	for (size_t i = 0; i < offered->count; i++)
		if (transform_equal(&offered->item[i], given)) {
			*chosen = &offered->item[i];
			return OK;
		}
	return ERR_NO_PROPOSAL;
}

static bool
ike_sayable(const struct alg_set *usable, const struct alg *encr,
    const struct alg *hash, const struct alg *kex)
{
	return encr->phase1 != 0 && hash->phase1 != 0 && kex->phase1 != 0 &&
	       alg_set_has(usable, encr) && alg_set_has(usable, hash) &&
	       alg_set_has(usable, kex);
}

/* IKEv1 has one hash for what is PRF and integrity in IKEv2. */
static bool
hash_in(const struct proposal *proposal, const struct alg *hash)
{
	for (unsigned i = 0; i < proposal->count[ALG_INTEG]; i++)
		if (alg_prf_of_integ(proposal_alg(proposal, ALG_INTEG, i)) ==
		    hash)
			return true;
	return false;
}

static void
ike_transform(struct writer *writer, const struct alg *encr,
    const struct alg *hash, const struct alg *kex, uint32_t seconds)
{
	struct buf *buf = writer->buf;

	write_transform(writer, (uint8_t)(writer->count + 1), KEY_IKE);
	put_tv(buf, A1_ENCR, encr->phase1);
	if (encr->key_attr)
		put_tv(buf, A1_KEY_LENGTH, encr->key_bits);
	put_tv(buf, A1_HASH, hash->phase1);
	put_tv(buf, A1_AUTH, V1_AUTH_PSK);
	put_tv(buf, A1_GROUP, kex->phase1);
	put_seconds(buf, A1_LIFE_TYPE, seconds);
	write_transform_end(writer);
}

/* Calls for every (encr, hash, kex) of a proposal, in order of preference. */
static void
ike_proposal(struct writer *writer, const struct proposal *p,
    const struct alg_set *usable, uint32_t seconds)
{
	for (unsigned k = 0; k < p->count[ALG_KEX]; k++)
		for (unsigned e = 0; e < p->count[ALG_ENCR]; e++)
			for (unsigned h = 0; h < p->count[ALG_PRF]; h++) {
				const struct alg *encr =
				    proposal_alg(p, ALG_ENCR, e);
				const struct alg *hash =
				    proposal_alg(p, ALG_PRF, h);
				const struct alg *kex =
				    proposal_alg(p, ALG_KEX, k);

				if (writer->count < V1_OFFERED &&
				    hash_in(p, hash) &&
				    ike_sayable(usable, encr, hash, kex))
					ike_transform(
					    writer, encr, hash, kex, seconds);
			}
}

size_t
v1_sapay_offer_ike(struct buf *buf, const struct proposals *ours,
    const struct alg_set *usable, uint32_t seconds)
{
	struct writer writer;

	write_begin(&writer, buf, 1, PROTO_IKE, 0);
	for (unsigned i = 0; i < ours->count; i++)
		ike_proposal(&writer, &ours->item[i], usable, seconds);
	write_end(&writer);
	return writer.count;
}

const struct alg *
v1_sapay_pfs(const struct proposals *ours)
{
	if (ours->count == 0 || ours->item[0].count[ALG_KEX] == 0)
		return NULL;
	return proposal_alg(&ours->item[0], ALG_KEX, 0);
}

static void
esp_transform(struct writer *writer, const struct v1_esp_offer *offer,
    const struct alg *encr, const struct alg *integ, bool esn)
{
	struct buf *buf = writer->buf;

	if (writer->count >= V1_OFFERED)
		return;
	write_transform(
	    writer, (uint8_t)(writer->count + 1), (uint8_t)encr->phase2);
	if (encr->key_attr)
		put_tv(buf, A2_KEY_LENGTH, encr->key_bits);
	if (integ != NULL)
		put_tv(buf, A2_AUTH, integ->phase2);
	if (offer->group != NULL)
		put_tv(buf, A2_GROUP, offer->group->phase2);
	put_tv(buf, A2_MODE, (uint16_t)offer->mode);
	if (esn)
		put_tv(buf, A2_ESN, 1);
	put_seconds(buf, A2_LIFE_TYPE, offer->seconds);
	write_transform_end(writer);
}

static bool
esp_sayable(const struct v1_esp_offer *offer, const struct alg *alg)
{
	return alg->phase2 != 0 && alg_set_has(offer->usable, alg);
}

/* RFC 2409 5.5: with PFS, the group stands in every transform; so proposals
 * without it are left out, and without PFS those that ask for it. */
static bool
esp_group_fits(const struct proposal *p, const struct alg *group)
{
	if (group == NULL)
		return p->count[ALG_KEX] == 0;
	for (unsigned k = 0; k < p->count[ALG_KEX]; k++)
		if (proposal_alg(p, ALG_KEX, k) == group)
			return true;
	return false;
}

static void
esp_proposal(struct writer *writer, const struct v1_esp_offer *offer,
    const struct proposal *p, bool esn)
{
	for (unsigned e = 0; e < p->count[ALG_ENCR]; e++) {
		const struct alg *encr = proposal_alg(p, ALG_ENCR, e);

		if (!esp_sayable(offer, encr))
			continue;
		if (alg_is_aead(encr)) {
			esp_transform(writer, offer, encr, NULL, esn);
			continue;
		}
		for (unsigned a = 0; a < p->count[ALG_INTEG]; a++)
			if (esp_sayable(offer, proposal_alg(p, ALG_INTEG, a)))
				esp_transform(writer, offer, encr,
				    proposal_alg(p, ALG_INTEG, a), esn);
	}
}

size_t
v1_sapay_offer_esp(struct buf *buf, const struct v1_esp_offer *offer)
{
	struct writer writer;

	write_begin(&writer, buf, 1, PROTO_ESP, offer->spi);
	for (unsigned i = 0; i < offer->ours->count; i++) {
		const struct proposal *p = &offer->ours->item[i];

		if (!esp_group_fits(p, offer->group))
			continue;
		/* Interop: attribute 11 is unknown to old peers, some of
		 * which then refuse all. It stands only where nothing else
		 * will do. */
		esp_proposal(&writer, offer, p, !(p->esn & ESN_NO));
	}
	write_end(&writer);
	return writer.count;
}
