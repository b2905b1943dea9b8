#include "ikev2/sk.h"

#include <stdlib.h>
#include <string.h>

#include "common/cipher.h"
#include "common/prf.h"

#define GENERIC    4  /* octets of a payload's header */
#define SKF_FIELDS 4  /* octets of fragment number and total */
#define IV_MAX     16 /* octets */
#define ICV_MAX    64 /* octets */
#define PACKET_MAX (V2_SK_CHAIN + WIRE_HEADER + 2 * IV_MAX + ICV_MAX + 16)

static size_t
icv_len(const struct suite *suite)
{
	return suite->integ != NULL ? suite->integ->icv : suite->encr->icv;
}

/* Padding and its length octet for len octets of text. RFC 7296 3.14: up to
 * the cipher's block; an AEAD needs none (RFC 5282 3). */
static size_t
pad_len(const struct suite *suite, size_t len)
{
	size_t block = suite->encr->block;

	if (block <= 1)
		return 1;
	return block - len % block;
}

/* Encrypts len octets at text, in place, and computes the ICV that follows. */
static enum err
protect(const struct v2_sk_keys *keys, const struct buf *buf, uint8_t *iv,
    uint8_t *text, size_t len, uint8_t *icv)
{
	const struct suite *suite = keys->suite;
	struct view whole;
	enum err err;

	if (alg_is_aead(suite->encr))
		/* RFC 5282 5.1: what is authenticated besides ends before the
		 * IV. */
		return cipher_aead_seal(suite->encr, keys->encr, iv,
		    view_of(buf->at, (size_t)(iv - buf->at)),
		    view_of(text, len), text, icv);
	err = cipher_cbc_encrypt(
	    suite->encr, keys->encr, iv, view_of(text, len), text);
	if (err != OK)
		return err;
	whole = view_of(buf->at, (size_t)(icv - buf->at));
	return prf_mac(suite->integ, keys->integ, &whole, 1, icv);
}

/* RFC 5282 4: a counter never repeats; RFC 7296 3.14: CBC's IV cannot be
 * foretold. */
static bool
fill_iv(
    struct env *env, const struct suite *suite, uint64_t *counter, uint8_t *iv)
{
	struct buf buf;

	if (!alg_is_aead(suite->encr))
		return env_random(env, iv, suite->encr->iv);
	if (*counter == UINT64_MAX)
		return false;
	buf_init(&buf, iv, suite->encr->iv);
	buf_u64(&buf, ++*counter);
	return !buf.full;
}

static enum err
seal_one(struct env *env, const struct v2_sk_keys *keys, uint64_t *counter,
    const struct wire_header *header, const struct v2_sk_part *part,
    struct view text, struct flight *flight)
{
	const struct suite *suite = keys->suite;
	uint8_t packet[PACKET_MAX];
	uint8_t *iv, *room, *icv;
	struct wire_out out;
	struct buf buf;
	size_t pad = pad_len(suite, text.len), at;
	enum err err;

	buf_init(&buf, packet, sizeof(packet));
	wire_start(&out, &buf, header);
	at = buf.len;
	wire_begin(&out, part->total == 0 ? P2_SK : P2_SKF, false);
	if (part->total != 0) {
		buf_u16(&buf, part->number);
		buf_u16(&buf, part->total);
	}
	iv = buf_room(&buf, suite->encr->iv);
	room = buf_room(&buf, text.len + pad);
	icv = buf_room(&buf, icv_len(suite));
	wire_end(&out);
	wire_finish(&out);
	if (buf.full || iv == NULL || room == NULL || icv == NULL)
		return ERR_LONG;
	/* RFC 7296 3.14: the payload's "next" names the first one inside. */
	packet[at] = part->first;
	if (!fill_iv(env, suite, counter, iv))
		return ERR_CRYPTO;
	if (text.len > 0)
		memcpy(room, text.at, text.len);
	memset(room + text.len, 0, pad);
	room[text.len + pad - 1] = (uint8_t)(pad - 1);
	err = protect(keys, &buf, iv, room, text.len + pad, icv);
	if (err == OK)
		err = flight_add(flight, buf_done(&buf));
	else
		mem_wipe(packet, sizeof(packet));
	return err;
}

/* Octets of text that fit into one fragment of limit octets; 0: none. */
static size_t
fragment_text(const struct suite *suite, size_t limit)
{
	size_t over = WIRE_HEADER + GENERIC + SKF_FIELDS + suite->encr->iv +
	              icv_len(suite);
	size_t block = suite->encr->block == 0 ? 1 : suite->encr->block;

	if (limit < over + block + 1)
		return 0;
	return (limit - over) / block * block - 1;
}

enum err
v2_sk_seal(struct env *env, const struct v2_sk_keys *keys, uint64_t *iv,
    const struct wire_header *header, uint8_t first, struct view chain,
    size_t limit, struct flight *flight)
{
	const struct suite *suite = keys->suite;
	struct v2_sk_part part = { .first = first };
	struct view text = { NULL, 0 };
	size_t whole, each;
	enum err err = OK;

	if (chain.len > V2_SK_CHAIN)
		return ERR_LONG;
	whole = WIRE_HEADER + GENERIC + suite->encr->iv + chain.len +
	        pad_len(suite, chain.len) + icv_len(suite);
	each = limit == 0 ? 0 : fragment_text(suite, limit);
	if (limit == 0 || whole <= limit || each == 0)
		return seal_one(env, keys, iv, header, &part, chain, flight);
	/* RFC 7383 2.5.1: the first fragment alone names the first payload. */
	part.total = (uint16_t)((chain.len + each - 1) / each);
	while (chain.len > 0 && err == OK) {
		part.number++;
		if (!view_take(
		        &chain, chain.len < each ? chain.len : each, &text))
			return ERR_BUG;
		err = seal_one(env, keys, iv, header, &part, text, flight);
		part.first = 0;
	}
	return err;
}

static const struct payload *
sealed_payload(const struct msg *msg)
{
	const struct payload *payload;

	if (msg->count == 0)
		return NULL;
	payload = &msg->payload[msg->count - 1];
	if (payload->kind != KIND_SK && payload->kind != KIND_SKF)
		return NULL;
	return payload;
}

uint16_t
v2_sk_fragment(const struct msg *msg)
{
	const struct payload *payload = sealed_payload(msg);
	struct view body;
	uint16_t number;

	if (payload == NULL || payload->kind != KIND_SKF)
		return 0;
	body = payload->body;
	return view_u16(&body, &number) ? number : 0;
}

static enum err
verify_and_decrypt(const struct v2_sk_keys *keys, const struct msg *msg,
    struct view iv, struct view text, struct view icv, uint8_t *plain)
{
	const struct suite *suite = keys->suite;
	uint8_t mac[ICV_MAX];
	struct view whole;
	enum err err;

	if (alg_is_aead(suite->encr))
		return cipher_aead_open(suite->encr, keys->encr, iv.at,
		    view_of(msg->whole.at, (size_t)(iv.at - msg->whole.at)),
		    text, icv.at, plain);
	/* RFC 7296 3.14: the ICV is checked before anything is decrypted. */
	whole = view_of(msg->whole.at, (size_t)(icv.at - msg->whole.at));
	err = prf_mac(suite->integ, keys->integ, &whole, 1, mac);
	if (err == OK && !mem_equal_secret(view_of(mac, icv.len), icv))
		err = ERR_AUTH;
	if (err == OK)
		err = cipher_cbc_decrypt(
		    suite->encr, keys->encr, iv.at, text, plain);
	return err;
}

/* Cuts the padding off; any content is allowed (RFC 7296 3.14). */
static enum err
cut_padding(uint8_t *plain, size_t *len)
{
	size_t pad = (size_t)plain[*len - 1] + 1;

	if (pad > *len)
		return ERR_SYNTAX;
	*len -= pad;
	return OK;
}

enum err
v2_sk_open(
    const struct v2_sk_keys *keys, struct msg *msg, struct v2_sk_part *part)
{
	const struct suite *suite = keys->suite;
	const struct payload *payload = sealed_payload(msg);
	struct view body, iv, text;
	uint8_t *plain;
	size_t len;
	enum err err;

	memset(part, 0, sizeof(*part));
	if (payload == NULL)
		return ERR_NOT_FOUND;
	body = payload->body;
	/* RFC 7296 3.14, RFC 7383 2.5: it is the last payload. */
	if (body.at + body.len != msg->whole.at + msg->whole.len)
		return ERR_AUTH;
	part->first = payload->whole.at[0];
	if (payload->kind == KIND_SKF &&
	    (!view_u16(&body, &part->number) || !view_u16(&body, &part->total)))
		return ERR_AUTH;
	if (!view_take(&body, suite->encr->iv, &iv) ||
	    body.len < icv_len(suite) + 1 ||
	    !view_take(&body, body.len - icv_len(suite), &text) ||
	    (suite->encr->block > 1 && text.len % suite->encr->block != 0))
		return ERR_AUTH;
	len = text.len;
	plain = malloc(len);
	if (plain == NULL)
		return ERR_NOMEM;
	err = verify_and_decrypt(keys, msg, iv, text, body, plain);
	if (err != OK) {
		mem_wipe(plain, len);
		free(plain);
		return err == ERR_NOMEM ? err : ERR_AUTH;
	}
	if (msg->opened != NULL) {
		mem_wipe(msg->opened, msg->opened_len);
		free(msg->opened);
	}
	msg->opened = plain;
	err = cut_padding(plain, &len);
	msg->opened_len = len;
	if (err != OK)
		return err;
	/* RFC 7383 2.5: numbers from 1 to the total, never 0. */
	if (payload->kind == KIND_SKF &&
	    (part->number == 0 || part->number > part->total))
		return ERR_SYNTAX;
	return OK;
}
