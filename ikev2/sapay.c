#include "ikev2/sapay.h"

#include <stdlib.h>
#include <string.h>

/* RFC 7296 3.3.2: transform types. */
enum {
	TYPE_ENCR = 1,
	TYPE_PRF = 2,
	TYPE_INTEG = 3,
	TYPE_KEX = 4,
	TYPE_ESN = 5
};

#define ATTR_KEY_LENGTH 14      /* RFC 7296 3.3.5 */
#define ATTR_TV         0x8000u /* the value stands in place of a length */
#define MORE_PROPOSALS  2       /* RFC 7296 3.3.1 */
#define MORE_TRANSFORMS 3       /* RFC 7296 3.3.2 */

/* Writing --------------------------------------------------------------- */

/* A proposal being written. */
struct draft {
	struct buf *buf;
	size_t at;      /* offset of its first octet */
	size_t last_at; /* offset of its last transform */
	uint8_t transforms;
};

static void
draft_begin(struct draft *draft, struct buf *buf, uint8_t number,
    uint8_t protocol, struct view spi)
{
	draft->buf = buf;
	draft->at = buf->len;
	draft->last_at = 0;
	draft->transforms = 0;
	buf_u8(buf, 0);
	buf_u8(buf, 0);
	buf_u16(buf, 0);
	buf_u8(buf, number);
	buf_u8(buf, protocol);
	buf_u8(buf, (uint8_t)spi.len);
	buf_u8(buf, 0);
	buf_view(buf, spi);
}

static void
draft_transform(
    struct draft *draft, uint8_t type, uint16_t number, uint16_t key_bits)
{
	struct buf *buf = draft->buf;

	draft->last_at = buf->len;
	draft->transforms++;
	buf_u8(buf, MORE_TRANSFORMS);
	buf_u8(buf, 0);
	buf_u16(buf, key_bits == 0 ? 8 : 12);
	buf_u8(buf, type);
	buf_u8(buf, 0);
	buf_u16(buf, number);
	if (key_bits != 0) {
		buf_u16(buf, ATTR_TV | ATTR_KEY_LENGTH);
		buf_u16(buf, key_bits);
	}
}

static void
draft_alg(struct draft *draft, const struct alg *alg)
{
	static const uint8_t types[ALG_KINDS] = {
		[ALG_ENCR] = TYPE_ENCR,
		[ALG_PRF] = TYPE_PRF,
		[ALG_INTEG] = TYPE_INTEG,
		[ALG_KEX] = TYPE_KEX,
	};

	draft_transform(draft, types[alg->kind], alg->ikev2,
	    alg->key_attr ? alg->key_bits : 0);
}

static void
draft_end(struct draft *draft, bool last)
{
	struct buf *buf = draft->buf;

	if (buf->full)
		return;
	buf->at[draft->at] = last ? 0 : MORE_PROPOSALS;
	buf_patch_u16(buf, draft->at + 2, (uint16_t)(buf->len - draft->at));
	buf->at[draft->at + 7] = draft->transforms;
	if (draft->transforms > 0)
		buf->at[draft->last_at] = 0;
}

static bool
has_cipher(const struct proposal *proposal, bool aead)
{
	unsigned i;

	for (i = 0; i < proposal->count[ALG_ENCR]; i++)
		if (alg_is_aead(proposal_alg(proposal, ALG_ENCR, i)) == aead)
			return true;
	return false;
}

/* The half of a proposal with AEAD ciphers, or with the others. */
static void
put_half(struct buf *buf, const struct proposal *proposal, uint8_t number,
    struct view spi, bool without_kex, bool aead, bool last)
{
	struct draft draft;
	unsigned kind, i;
	const struct alg *alg;

	draft_begin(&draft, buf, number, proposal->protocol, spi);
	for (kind = 0; kind < ALG_KINDS; kind++) {
		/* RFC 5282 8: no integrity algorithm beside an AEAD. */
		if ((kind == ALG_INTEG && aead) ||
		    (kind == ALG_KEX && without_kex))
			continue;
		for (i = 0; i < proposal->count[kind]; i++) {
			alg = proposal_alg(proposal, kind, i);
			if (kind == ALG_ENCR && alg_is_aead(alg) != aead)
				continue;
			draft_alg(&draft, alg);
		}
	}
	if (proposal->protocol == PROTO_ESP) {
		/* RFC 7296 3.3.3: mandatory in ESP. */
		if ((proposal->esn & ESN_YES) != 0)
			draft_transform(&draft, TYPE_ESN, 1, 0);
		if ((proposal->esn & ESN_NO) != 0 || proposal->esn == ESN_NONE)
			draft_transform(&draft, TYPE_ESN, 0, 0);
	}
	draft_end(&draft, last);
}

void
v2_sapay_put(struct wire_out *out, const struct proposals *proposals,
    struct view spi, bool without_kex)
{
	const struct proposal *proposal;
	uint8_t number = 0;
	unsigned i;
	bool first, other, last;

	wire_begin(out, P2_SA, false);
	for (i = 0; i < proposals->count; i++) {
		proposal = &proposals->item[i];
		last = i + 1u == proposals->count;
		/* The kind of cipher that is named first leads. */
		first = proposal->count[ALG_ENCR] > 0 &&
		        alg_is_aead(proposal_alg(proposal, ALG_ENCR, 0));
		other = has_cipher(proposal, !first);
		put_half(out->buf, proposal, ++number, spi, without_kex, first,
		    last && !other);
		if (other)
			put_half(out->buf, proposal, ++number, spi, without_kex,
			    !first, last);
	}
	wire_end(out);
}

void
v2_sapay_put_chosen(struct wire_out *out, uint8_t number,
    enum ipsec_protocol protocol, const struct suite *suite, struct view spi)
{
	struct draft draft;

	wire_begin(out, P2_SA, false);
	draft_begin(&draft, out->buf, number, (uint8_t)protocol, spi);
	draft_alg(&draft, suite->encr);
	if (suite->prf != NULL)
		draft_alg(&draft, suite->prf);
	if (suite->integ != NULL)
		draft_alg(&draft, suite->integ);
	if (suite->kex != NULL)
		draft_alg(&draft, suite->kex);
	if (protocol == PROTO_ESP)
		draft_transform(&draft, TYPE_ESN, suite->esn ? 1 : 0, 0);
	draft_end(&draft, true);
	wire_end(out);
}

/* Reading --------------------------------------------------------------- */

/* RFC 7296 3.3.5, 3.3.6: key length is the only attribute; another one makes
 * the transform, and only it, void. */
static enum err
read_attributes(struct view attributes, struct transform *transform)
{
	uint16_t type, value;

	while (attributes.len > 0) {
		if (!view_u16(&attributes, &type) ||
		    !view_u16(&attributes, &value))
			return ERR_SHORT;
		if ((type & ATTR_TV) == 0 && !view_skip(&attributes, value))
			return ERR_SHORT;
		if (type == (ATTR_TV | ATTR_KEY_LENGTH) && value != 0 &&
		    transform->key_bits == 0)
			transform->key_bits = value;
		else
			transform->broken = true;
	}
	return OK;
}

/* False for a type that does not exist. */
static bool
set_kind(struct transform *transform, uint8_t type)
{
	switch (type) {
	case TYPE_ENCR:
		transform->kind = ALG_ENCR;
		break;
	case TYPE_PRF:
		transform->kind = ALG_PRF;
		break;
	case TYPE_INTEG:
		transform->kind = ALG_INTEG;
		break;
	case TYPE_KEX:
		transform->kind = ALG_KEX;
		break;
	case TYPE_ESN:
		transform->kind = ALG_KINDS;
		return true;
	default:
		return false;
	}
	if (!transform->broken)
		transform->alg = alg_by_ikev2((enum alg_kind)transform->kind,
		    transform->number, transform->key_bits);
	return true;
}

static enum err
read_transform(struct view *from, struct offer *offer, bool *last)
{
	struct transform transform;
	struct view rest = *from, body;
	uint8_t more, reserved, type;
	uint16_t len;
	enum err err;

	memset(&transform, 0, sizeof(transform));
	if (!view_u8(&rest, &more) || !view_u8(&rest, &reserved) ||
	    !view_u16(&rest, &len))
		return ERR_SHORT;
	if (len < 8 || (more != 0 && more != MORE_TRANSFORMS))
		return ERR_SYNTAX;
	if (!view_skip(from, 4) || !view_take(from, len - 4u, &body) ||
	    !view_u8(&body, &type) || !view_u8(&body, &reserved) ||
	    !view_u16(&body, &transform.number))
		return ERR_SHORT;
	err = read_attributes(body, &transform);
	if (err != OK)
		return err;
	*last = more == 0;
	if (!set_kind(&transform, type)) {
		offer->protocol = PROTO_NONE;
		return OK;
	}
	/* RFC 7296 3.3.2: NONE beside an AEAD says what its absence says. */
	if (transform.kind == ALG_INTEG && transform.number == 0)
		return OK;
	if (offer->count < OFFER_TRANSFORMS)
		offer->transform[offer->count++] = transform;
	return OK;
}

static enum err
read_proposal(struct view *from, enum ipsec_protocol protocol, size_t spi_len,
    struct offer *offer, bool *last)
{
	struct view rest = *from, body, spi;
	uint8_t more, reserved, size, transforms, i;
	uint16_t len;
	bool done = false;
	enum err err;

	if (!view_u8(&rest, &more) || !view_u8(&rest, &reserved) ||
	    !view_u16(&rest, &len))
		return ERR_SHORT;
	if (len < 8 || (more != 0 && more != MORE_PROPOSALS))
		return ERR_SYNTAX;
	if (!view_skip(from, 4) || !view_take(from, len - 4u, &body) ||
	    !view_u8(&body, &offer->number) ||
	    !view_u8(&body, &offer->protocol) || !view_u8(&body, &size) ||
	    !view_u8(&body, &transforms) || !view_take(&body, size, &spi))
		return ERR_SHORT;
	if (offer->protocol != protocol || spi.len != spi_len)
		offer->protocol = PROTO_NONE;
	else if (!view_copy(&spi, offer->spi, spi_len))
		return ERR_SHORT;
	offer->spi_len = (uint8_t)spi_len;
	for (i = 0; i < transforms; i++) {
		if (done)
			return ERR_SYNTAX;
		err = read_transform(&body, offer, &done);
		if (err != OK)
			return err;
	}
	if (body.len != 0 || (transforms > 0 && !done))
		return ERR_SYNTAX;
	*last = more == 0;
	return OK;
}

/* How many proposals stand in body, by their lengths alone. */
static size_t
count_proposals(struct view body)
{
	struct view rest;
	uint16_t len;
	size_t count = 0;

	while (body.len > 0) {
		rest = body;
		if (!view_skip(&rest, 2) || !view_u16(&rest, &len) || len < 8 ||
		    !view_skip(&body, len))
			return 0;
		count++;
	}
	return count;
}

enum err
v2_sapay_read(struct view body, enum ipsec_protocol protocol, size_t spi_len,
    bool answer, struct offer **offers, size_t *count)
{
	struct offer *item;
	size_t total = count_proposals(body), i;
	bool last = false;
	enum err err = OK;

	if (total == 0 || spi_len > sizeof(item->spi))
		return ERR_SYNTAX;
	if (total > OFFERS_MAX)
		return ERR_LONG;
	item = calloc(total, sizeof(*item));
	if (item == NULL)
		return ERR_NOMEM;
	for (i = 0; i < total && err == OK; i++) {
		err = last ? ERR_SYNTAX
		           : read_proposal(
		                 &body, protocol, spi_len, &item[i], &last);
		item[i].tag = (uint16_t)i;
		/* RFC 7296 3.3.1: the first is 1, each next one more. */
		if (err == OK && !answer && item[i].number != i + 1)
			err = ERR_SYNTAX;
	}
	if (err == OK && !last)
		err = ERR_SYNTAX;
	if (err != OK) {
		free(item);
		return err;
	}
	*offers = item;
	*count = total;
	return OK;
}

/* Traffic selectors ----------------------------------------------------- */

enum { TS_IPV4_ADDR_RANGE = 7, TS_IPV6_ADDR_RANGE = 8 };

void
v2_ts_put(struct wire_out *out, uint8_t type, const struct ts_list *list)
{
	struct buf *buf = out->buf;
	const struct ts *ts;
	unsigned i;

	wire_begin(out, type, false);
	buf_u8(buf, list->count);
	buf_zero(buf, 3);
	for (i = 0; i < list->count; i++) {
		ts = &list->item[i];
		buf_u8(buf, ts->first.family == ADDR_V4 ? TS_IPV4_ADDR_RANGE
		                                        : TS_IPV6_ADDR_RANGE);
		buf_u8(buf, ts->proto);
		buf_u16(buf, (uint16_t)(8 + 2 * addr_len(&ts->first)));
		buf_u16(buf, ts->first_port);
		buf_u16(buf, ts->last_port);
		buf_view(buf, addr_view(&ts->first));
		buf_view(buf, addr_view(&ts->last));
	}
	wire_end(out);
}

static bool
in_common(const struct ts *ts, const struct ts_list *policy)
{
	struct ts common;
	unsigned i;

	for (i = 0; i < policy->count; i++)
		if (ts_intersect(ts, &policy->item[i], &common))
			return true;
	return false;
}

static enum err
read_selector(
    struct view *from, const struct ts_list *policy, struct ts_list *list)
{
	struct ts ts;
	struct view rest = *from, body, first, last;
	uint8_t type;
	uint16_t len;
	size_t octets;

	memset(&ts, 0, sizeof(ts));
	if (!view_u8(&rest, &type) || !view_u8(&rest, &ts.proto) ||
	    !view_u16(&rest, &len))
		return ERR_SHORT;
	if (len < 8)
		return ERR_SYNTAX;
	if (!view_skip(from, 4) || !view_take(from, len - 4u, &body))
		return ERR_SHORT;
	if (type != TS_IPV4_ADDR_RANGE && type != TS_IPV6_ADDR_RANGE)
		return OK;
	octets = type == TS_IPV4_ADDR_RANGE ? 4 : 16;
	if (!view_u16(&body, &ts.first_port) ||
	    !view_u16(&body, &ts.last_port) ||
	    !view_take(&body, octets, &first) ||
	    !view_take(&body, octets, &last) || body.len != 0)
		return ERR_SYNTAX;
	/* RFC 7296 3.13.1: start <= end, or OPAQUE. */
	if (!addr_from_view(&ts.first, first) ||
	    !addr_from_view(&ts.last, last) || !ts_valid(&ts))
		return ERR_SYNTAX;
	if (list->count < TS_MAX && (policy == NULL || in_common(&ts, policy)))
		list->item[list->count++] = ts;
	return OK;
}

enum err
v2_ts_read(struct view body, const struct ts_list *policy, struct ts_list *list)
{
	uint8_t count, i;
	enum err err;

	list->count = 0;
	if (!view_u8(&body, &count) || !view_skip(&body, 3))
		return ERR_SHORT;
	if (count == 0)
		return ERR_SYNTAX;
	for (i = 0; i < count; i++) {
		err =
		    read_selector(&body, count > TS_MAX ? policy : NULL, list);
		if (err != OK)
			return err;
	}
	return body.len == 0 ? OK : ERR_SYNTAX;
}

/* The rest -------------------------------------------------------------- */

void
v2_ke_put(
    struct wire_out *out, const struct alg *group, struct view public_value)
{
	wire_begin(out, P2_KE, false);
	buf_u16(out->buf, group->ikev2);
	buf_u16(out->buf, 0);
	buf_view(out->buf, public_value);
	wire_end(out);
}

enum err
v2_ke_read(struct view body, uint16_t *group, struct view *public_value)
{
	if (!view_u16(&body, group) || !view_skip(&body, 2))
		return ERR_SHORT;
	*public_value = body;
	return OK;
}

void
v2_id_put(struct wire_out *out, uint8_t type, const struct ident *ident)
{
	wire_begin(out, type, false);
	buf_u8(out->buf, ident->type);
	buf_zero(out->buf, 3);
	buf_view(out->buf, ident_view(ident));
	wire_end(out);
}

enum err
v2_id_read(struct view body, struct ident **ident)
{
	uint8_t type;

	if (!view_u8(&body, &type) || !view_skip(&body, 3))
		return ERR_SHORT;
	/* RFC 7296 3.5; the numbers in between are Quick Mode's alone. */
	switch (type) {
	case ID_IPV4_ADDR:
	case ID_FQDN:
	case ID_USER_FQDN:
	case ID_IPV6_ADDR:
	case ID_DER_ASN1_DN:
	case ID_DER_ASN1_GN:
	case ID_KEY_ID:
		break;
	default:
		return ERR_SYNTAX;
	}
	if (body.len > IDENT_MAX)
		return ERR_LONG;
	*ident = ident_new(type, body);
	return *ident == NULL ? ERR_SYNTAX : OK;
}

void
v2_delete_put(struct wire_out *out, const uint32_t *spis, size_t count)
{
	size_t i;

	wire_begin(out, P2_D, false);
	buf_u8(out->buf, count == 0 ? PROTO_IKE : PROTO_ESP);
	buf_u8(out->buf, count == 0 ? 0 : 4);
	buf_u16(out->buf, (uint16_t)count);
	for (i = 0; i < count; i++)
		buf_u32(out->buf, spis[i]);
	wire_end(out);
}

enum err
v2_delete_read(
    struct view body, uint8_t *protocol, uint16_t *count, struct view *spis)
{
	uint8_t spi_len;

	if (!view_u8(&body, protocol) || !view_u8(&body, &spi_len) ||
	    !view_u16(&body, count))
		return ERR_SHORT;
	/* RFC 7296 3.11: the IKE SA is named by the header; IPsec SAs have
	 * SPIs of four octets. */
	if (*protocol == PROTO_IKE
	        ? spi_len != 0 || *count != 0 || body.len != 0
	        : spi_len != 4 || body.len != 4u * (size_t)*count)
		return ERR_SYNTAX;
	*spis = body;
	return OK;
}

void
v2_notify_put(struct wire_out *out, uint16_t type, struct view data)
{
	wire_notify_v2(out, 0, view_of(NULL, 0), type, data);
}
