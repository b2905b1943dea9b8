#include "ikev2/key.h"

#include <string.h>

#include "common/prf.h"

size_t
v2_key_len(const struct suite *suite, enum v2_key which)
{
	switch (which) {
	case V2_SK_D:
	case V2_SK_PI:
	case V2_SK_PR:
		/* RFC 7296 2.13: the preferred key of HMAC is as long as its
		 * output. */
		return suite->prf->out;
	case V2_SK_AI:
	case V2_SK_AR:
		/* RFC 5282 7.1: none with an AEAD. */
		return suite->integ == NULL ? 0 : alg_keymat(suite->integ);
	case V2_SK_EI:
	case V2_SK_ER:
		return alg_keymat(suite->encr);
	default:
		return 0;
	}
}

static size_t
total_len(const struct suite *suite)
{
	size_t len = 0;
	int which;

	for (which = 0; which < V2_KEYS; which++)
		len += v2_key_len(suite, (enum v2_key)which);
	return len;
}

struct view
v2_key(const struct suite *suite, const struct secret *keys, enum v2_key which)
{
	size_t at = 0;
	int i;

	if (keys->octets == NULL)
		return view_of(NULL, 0);
	for (i = 0; i < (int)which; i++)
		at += v2_key_len(suite, (enum v2_key)i);
	return view_of(keys->octets + at, v2_key_len(suite, which));
}

/* RFC 7296 2.14: {SK_d | ... | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr).
 */
static enum err
expand(const struct suite *suite, struct view skeyseed,
    const struct v2_key_input *input, struct secret *keys)
{
	uint8_t spis[16];
	struct buf buf;
	struct view parts[3];
	enum err err;

	buf_init(&buf, spis, sizeof(spis));
	buf_u64(&buf, input->spi_i);
	buf_u64(&buf, input->spi_r);
	parts[0] = input->nonce_i;
	parts[1] = input->nonce_r;
	parts[2] = buf_done(&buf);
	err = secret_new(keys, total_len(suite));
	if (err != OK)
		return err;
	err = prf_plus(suite->prf, skeyseed, parts, 3, keys);
	if (err != OK)
		secret_free(keys);
	return err;
}

enum err
v2_key_derive(const struct suite *suite, const struct v2_key_input *input,
    struct secret *keys)
{
	uint8_t skeyseed[PRF_MAX];
	uint8_t nonces[512];
	struct buf buf;
	enum err err;

	buf_init(&buf, nonces, sizeof(nonces));
	buf_view(&buf, input->nonce_i);
	buf_view(&buf, input->nonce_r);
	if (buf.full)
		return ERR_LONG;
	err = prf(suite->prf, buf_done(&buf), &input->shared, 1, skeyseed);
	if (err == OK)
		err = expand(
		    suite, view_of(skeyseed, suite->prf->out), input, keys);
	mem_wipe(skeyseed, sizeof(skeyseed));
	return err;
}

enum err
v2_key_rederive(const struct suite *suite, const struct alg *old_prf,
    struct view old_sk_d, const struct v2_key_input *input, struct secret *keys)
{
	uint8_t skeyseed[PRF_MAX];
	struct view parts[3] = { input->shared, input->nonce_i,
		input->nonce_r };
	enum err err;

	err = prf(old_prf, old_sk_d, parts, 3, skeyseed);
	if (err == OK)
		err =
		    expand(suite, view_of(skeyseed, old_prf->out), input, keys);
	mem_wipe(skeyseed, sizeof(skeyseed));
	return err;
}

enum err
v2_key_child(const struct alg *prf, struct view sk_d, struct view shared,
    struct view nonce_i, struct view nonce_r, const struct suite *child,
    bool initiator, struct secret *keys_in, struct secret *keys_out)
{
	struct secret keymat = { NULL, 0 };
	struct view parts[3] = { shared, nonce_i, nonce_r };
	size_t half = alg_keymat(child->encr);
	enum err err;

	if (child->integ != NULL)
		half += alg_keymat(child->integ);
	err = secret_new(&keymat, 2 * half);
	if (err == OK)
		err = prf_plus(prf, sk_d, parts, 3, &keymat);
	if (err == OK)
		err = secret_set(initiator ? keys_out : keys_in,
		    view_of(keymat.octets, half));
	if (err == OK)
		err = secret_set(initiator ? keys_in : keys_out,
		    view_of(keymat.octets + half, half));
	secret_free(&keymat);
	if (err != OK) {
		secret_free(keys_in);
		secret_free(keys_out);
	}
	return err;
}

int
v2_nonce_compare(struct view a, struct view b)
{
	size_t len = a.len < b.len ? a.len : b.len;
	int order = len == 0 ? 0 : memcmp(a.at, b.at, len);

	if (order != 0 || a.len == b.len)
		return order;
	return a.len < b.len ? -1 : 1;
}
