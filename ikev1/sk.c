#include "ikev1/sk.h"

#include <stdlib.h>
#include <string.h>

#include "common/cipher.h"

#define FLAGS_AT 19 /* offset of the header's flags (RFC 2408 3.1) */

enum err
v1_sk_seal(const struct v1_keys *keys, struct buf *message,
    uint8_t iv[static V1_BLOCK_MAX])
{
	size_t block = keys->encr->block, len;
	uint8_t *body;
	enum err err;

	if (message->full || message->len <= WIRE_HEADER)
		return ERR_LONG;
	buf_zero(
	    message, (block - (message->len - WIRE_HEADER) % block) % block);
	if (message->full)
		return ERR_LONG;
	body = message->at + WIRE_HEADER;
	len = message->len - WIRE_HEADER;
	err = cipher_cbc_encrypt(
	    keys->encr, v1_key_encr(keys), iv, view_of(body, len), body);
	if (err != OK)
		return err;
	message->at[FLAGS_AT] |= FLAG_V1_ENCRYPTION;
	memcpy(iv, body + len - block, block);
	return OK;
}

enum err
v1_sk_open(const struct v1_keys *keys, struct msg *msg,
    const uint8_t iv[static V1_BLOCK_MAX], uint8_t next[static V1_BLOCK_MAX])
{
	size_t block = keys->encr->block;
	struct view body = msg->whole;
	enum err err;

	if (!view_skip(&body, WIRE_HEADER) || body.len == 0 ||
	    body.len % block != 0)
		return ERR_SYNTAX;
	if (msg->opened == NULL) {
		msg->opened = malloc(body.len);
		if (msg->opened == NULL)
			return ERR_NOMEM;
		msg->opened_len = body.len;
	}
	err = cipher_cbc_decrypt(
	    keys->encr, v1_key_encr(keys), iv, body, msg->opened);
	if (err != OK)
		return err;
	err = wire_payloads_read(
	    msg, 1, msg->header.next, view_of(msg->opened, body.len), true);
	if (err != OK)
		return err;
	msg->sealed = true;
	memset(next, 0, V1_BLOCK_MAX);
	memcpy(next, body.at + body.len - block, block);
	return OK;
}

struct view
v1_sk_rest(const struct msg *msg)
{
	const struct payload *first, *last;
	const uint8_t *begin, *end;

	if (msg->count < 2)
		return view_of(NULL, 0);
	first = &msg->payload[1];
	last = &msg->payload[msg->count - 1];
	begin = first->whole.at;
	end = last->whole.at + last->whole.len;
	return view_of(begin, (size_t)(end - begin));
}
