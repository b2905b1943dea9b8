#include "ikev1/key.h"

#include <string.h>

static void
put_u64(uint8_t out[static 8], uint64_t value)
{
	for (int i = 7; i >= 0; i--, value >>= 8)
		out[i] = (uint8_t)value;
}

static void
put_u32(uint8_t out[static 4], uint32_t value)
{
	for (int i = 3; i >= 0; i--, value >>= 8)
		out[i] = (uint8_t)value;
}

static size_t
encr_key_len(const struct alg *encr)
{
	return encr->key_bits / 8u;
}

struct view
v1_key_d(const struct v1_keys *keys)
{
	return view_of(keys->octets.octets, keys->prf->out);
}

struct view
v1_key_a(const struct v1_keys *keys)
{
	return view_of(keys->octets.octets + keys->prf->out, keys->prf->out);
}

struct view
v1_key_encr(const struct v1_keys *keys)
{
	return view_of(keys->octets.octets + 2u * keys->prf->out,
	    encr_key_len(keys->encr));
}

/* RFC 2409 appendix B: SKEYID_e is cut, or, where it is too short, stretched:
 * K1 = prf(SKEYID_e, 0), K2 = prf(SKEYID_e, K1), ... */
static enum err
stretch(
    const struct alg *prf_alg, struct view skeyid_e, uint8_t *key, size_t len)
{
	uint8_t block[PRF_MAX];
	static const uint8_t zero[1];
	struct view part = view_of(zero, 1);
	enum err err = OK;

	if (skeyid_e.len >= len) {
		memcpy(key, skeyid_e.at, len);
		return OK;
	}
	while (len > 0) {
		size_t take = len < prf_alg->out ? len : prf_alg->out;

		err = prf(prf_alg, skeyid_e, &part, 1, block);
		if (err != OK)
			break;
		memcpy(key, block, take);
		key += take;
		len -= take;
		part = view_of(block, prf_alg->out);
	}
	mem_wipe(block, sizeof(block));
	return err;
}

enum err
v1_key_derive(struct v1_keys *keys, const struct suite *suite,
    struct view skeyid, struct view shared, uint64_t spi_i, uint64_t spi_r)
{
	const struct alg *alg = suite->prf;
	size_t out = alg->out;
	struct secret octets = { NULL, 0 };
	uint8_t skeyid_e[PRF_MAX], cookies[16], number;
	struct view parts[4];
	enum err err;

	if (out > PRF_MAX)
		return ERR_BUG;
	err = secret_new(&octets, 2 * out + encr_key_len(suite->encr));
	if (err != OK)
		return err;
	put_u64(cookies, spi_i);
	put_u64(cookies + 8, spi_r);
	/* RFC 2409 5: SKEYID_d has no predecessor, _a and _e have. */
	parts[0] = view_of(octets.octets, 0);
	parts[1] = shared;
	parts[2] = view_of(cookies, sizeof(cookies));
	parts[3] = view_of(&number, 1);
	number = 0;
	err = prf(alg, skeyid, parts, 4, octets.octets);
	if (err != OK)
		goto out;
	number = 1;
	parts[0] = view_of(octets.octets, out);
	err = prf(alg, skeyid, parts, 4, octets.octets + out);
	if (err != OK)
		goto out;
	number = 2;
	parts[0] = view_of(octets.octets + out, out);
	err = prf(alg, skeyid, parts, 4, skeyid_e);
	if (err != OK)
		goto out;
	err = stretch(alg, view_of(skeyid_e, out), octets.octets + 2 * out,
	    encr_key_len(suite->encr));
	if (err != OK)
		goto out;
	keys->prf = alg;
	keys->encr = suite->encr;
	secret_move(&keys->octets, &octets);
out:
	mem_wipe(skeyid_e, sizeof(skeyid_e));
	secret_free(&octets);
	return err;
}

void
v1_key_free(struct v1_keys *keys)
{
	secret_free(&keys->octets);
	keys->prf = keys->encr = NULL;
}

enum err
v1_key_hash_phase1(const struct v1_hash_phase1 *in, bool initiator,
    uint8_t out[static PRF_MAX])
{
	uint8_t cookies[16];
	struct view parts[5];

	put_u64(cookies, initiator ? in->spi_i : in->spi_r);
	put_u64(cookies + 8, initiator ? in->spi_r : in->spi_i);
	parts[0] = initiator ? in->public_i : in->public_r;
	parts[1] = initiator ? in->public_r : in->public_i;
	parts[2] = view_of(cookies, sizeof(cookies));
	parts[3] = in->sa_body;
	parts[4] = in->id_body;
	return prf(in->prf, in->skeyid, parts, 5, out);
}

enum err
v1_key_iv_phase1(const struct suite *suite, struct view public_i,
    struct view public_r, uint8_t iv[static V1_BLOCK_MAX])
{
	struct view parts[2] = { public_i, public_r };
	uint8_t digest[PRF_MAX];
	enum err err = prf_hash(suite->prf, parts, 2, digest);

	if (err == OK)
		memcpy(iv, digest, V1_BLOCK_MAX);
	return err;
}

enum err
v1_key_iv_phase2(const struct v1_keys *keys,
    const uint8_t last[static V1_BLOCK_MAX], uint32_t id,
    uint8_t iv[static V1_BLOCK_MAX])
{
	uint8_t octets[4], digest[PRF_MAX];
	struct view parts[2] = { view_of(last, keys->encr->block),
		view_of(octets, 4) };
	enum err err;

	put_u32(octets, id);
	err = prf_hash(keys->prf, parts, 2, digest);
	if (err == OK)
		memcpy(iv, digest, V1_BLOCK_MAX);
	return err;
}

enum err
v1_key_hash1(const struct v1_keys *keys, uint32_t id, struct view rest,
    uint8_t out[static PRF_MAX])
{
	uint8_t octets[4];
	struct view parts[2] = { view_of(octets, 4), rest };

	put_u32(octets, id);
	return prf(keys->prf, v1_key_a(keys), parts, 2, out);
}

enum err
v1_key_hash2(const struct v1_keys *keys, uint32_t id, struct view nonce_i,
    struct view rest, uint8_t out[static PRF_MAX])
{
	uint8_t octets[4];
	struct view parts[3] = { view_of(octets, 4), nonce_i, rest };

	put_u32(octets, id);
	return prf(keys->prf, v1_key_a(keys), parts, 3, out);
}

enum err
v1_key_hash3(const struct v1_keys *keys, uint32_t id, struct view nonce_i,
    struct view nonce_r, uint8_t out[static PRF_MAX])
{
	uint8_t octets[5] = { 0 }; /* RFC 2409 5.5: a leading zero octet */
	struct view parts[3] = { view_of(octets, 5), nonce_i, nonce_r };

	put_u32(octets + 1, id);
	return prf(keys->prf, v1_key_a(keys), parts, 3, out);
}

enum err
v1_key_mat(const struct v1_keys *keys, struct view shared, uint8_t protocol,
    uint32_t spi, struct view nonce_i, struct view nonce_r,
    struct secret *keymat)
{
	uint8_t octets[5], block[PRF_MAX];
	struct view parts[5];
	size_t done = 0, out = keys->prf->out;
	enum err err = OK;

	if (keymat->len > 255 * out)
		return ERR_LONG;
	octets[0] = protocol;
	put_u32(octets + 1, spi);
	/* RFC 2409 5.5: K1 = prf(SKEYID_d, seed), K2 = prf(SKEYID_d, K1 |
	 * seed), ... */
	parts[0] = view_of(block, 0);
	parts[1] = shared;
	parts[2] = view_of(octets, 5);
	parts[3] = nonce_i;
	parts[4] = nonce_r;
	while (done < keymat->len) {
		size_t take = keymat->len - done;

		err = prf(keys->prf, v1_key_d(keys), parts, 5, block);
		if (err != OK)
			break;
		if (take > out)
			take = out;
		memcpy(keymat->octets + done, block, take);
		done += take;
		parts[0] = view_of(block, out);
	}
	mem_wipe(block, sizeof(block));
	return err;
}
