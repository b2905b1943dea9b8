#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>

#include "common/prf.h"

/*
 * HMAC stands here on top of the digests (RFC 2104 2), because EVP_MAC copies
 * the key into fresh memory at each keying and keeps it there until the next
 * one. With SHA-256 and 64 octets of text: 0.28 us this way, 0.40 us with
 * EVP_MAC keyed anew, 1.13 us with HMAC().
 */

enum { SHA1, SHA256, SHA384, SHA512, DIGESTS };

#define BLOCK_MAX 128

struct digest {
	const char *name;
	size_t block, out; /* octets */
};

static const struct digest digests[DIGESTS] = {
	[SHA1] = { "SHA1", 64, 20 },
	[SHA256] = { "SHA256", 64, 32 },
	[SHA384] = { "SHA384", 128, 48 },
	[SHA512] = { "SHA512", 128, 64 },
};

/* Fetched once in a process; NULL: the library does not have it. */
static EVP_MD *fetched[DIGESTS];
static pthread_key_t thread_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* This thread's contexts. */
static _Thread_local EVP_MD_CTX *contexts[DIGESTS];

static void
thread_ends(void *arg)
{
	EVP_MD_CTX **mine = arg;

	for (int i = 0; i < DIGESTS; i++) {
		EVP_MD_CTX_free(mine[i]);
		mine[i] = NULL;
	}
}

static void
fetch(void)
{
	for (int i = 0; i < DIGESTS; i++)
		fetched[i] = EVP_MD_fetch(NULL, digests[i].name, NULL);
	ERR_clear_error();
	(void)pthread_key_create(&thread_key, thread_ends);
}

/* A context ready for digest which, or NULL. */
static EVP_MD_CTX *
context(int which)
{
	EVP_MD_CTX *ctx = contexts[which];

	if (ctx != NULL)
		return ctx;
	pthread_once(&once, fetch);
	if (fetched[which] == NULL)
		return NULL;
	ctx = EVP_MD_CTX_new();
	if (ctx == NULL)
		return NULL;
	if (EVP_DigestInit_ex2(ctx, fetched[which], NULL) != 1) {
		EVP_MD_CTX_free(ctx);
		return NULL;
	}
	(void)pthread_setspecific(thread_key, contexts);
	contexts[which] = ctx;
	return ctx;
}

/* An HMAC under way. */
struct hmac {
	EVP_MD_CTX *ctx;
	const struct digest *digest;
	EVP_MD *md;
	uint8_t pad[BLOCK_MAX]; /* key xor ipad */
};

static bool
update(EVP_MD_CTX *ctx, const void *octets, size_t len)
{
	return len == 0 || EVP_DigestUpdate(ctx, octets, len) == 1;
}

static bool
update_parts(EVP_MD_CTX *ctx, const struct view *parts, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!update(ctx, parts[i].at, parts[i].len))
			return false;
	}
	return true;
}

/* RFC 2104 2: a key longer than a block is hashed first. */
static bool
hmac_key(struct hmac *hmac, int which, struct view key)
{
	hmac->digest = &digests[which];
	hmac->ctx = context(which);
	if (hmac->ctx == NULL)
		return false;
	hmac->md = fetched[which];
	memset(hmac->pad, 0, sizeof(hmac->pad));
	if (key.len > hmac->digest->block) {
		if (EVP_DigestInit_ex2(hmac->ctx, hmac->md, NULL) != 1 ||
		    !update(hmac->ctx, key.at, key.len) ||
		    EVP_DigestFinal_ex(hmac->ctx, hmac->pad, NULL) != 1)
			return false;
	} else if (key.len != 0) {
		memcpy(hmac->pad, key.at, key.len);
	}
	for (size_t i = 0; i < hmac->digest->block; i++)
		hmac->pad[i] ^= 0x36;
	return true;
}

static bool
hmac_start(struct hmac *hmac)
{
	return EVP_DigestInit_ex2(hmac->ctx, hmac->md, NULL) == 1 &&
	       update(hmac->ctx, hmac->pad, hmac->digest->block);
}

/* Writes digest->out octets to out. */
static bool
hmac_end(struct hmac *hmac, uint8_t *out)
{
	uint8_t inner[PRF_MAX];
	uint8_t pad[BLOCK_MAX];
	size_t block = hmac->digest->block;
	bool good;

	for (size_t i = 0; i < block; i++)
		pad[i] = hmac->pad[i] ^ 0x36 ^ 0x5c;
	good = EVP_DigestFinal_ex(hmac->ctx, inner, NULL) == 1 &&
	       EVP_DigestInit_ex2(hmac->ctx, hmac->md, NULL) == 1 &&
	       update(hmac->ctx, pad, block) &&
	       update(hmac->ctx, inner, hmac->digest->out) &&
	       EVP_DigestFinal_ex(hmac->ctx, out, NULL) == 1;
	mem_wipe(pad, block);
	mem_wipe(inner, sizeof(inner));
	return good;
}

/* The digest of a PRF or INTEG row; -1 for another row. */
static int
digest_of(const struct alg *alg, enum alg_kind kind)
{
	if (alg == NULL || alg->kind != kind)
		return -1;
	return alg->id - (kind == ALG_PRF ? ALG_PRF_SHA1 : ALG_SHA1_96);
}

_Static_assert(ALG_PRF_SHA512 - ALG_PRF_SHA1 == SHA512, "same order");
_Static_assert(ALG_SHA512_256 - ALG_SHA1_96 == SHA512, "same order");

static enum err
hmac_whole(int which, struct view key, const struct view *parts, size_t count,
    uint8_t *out)
{
	struct hmac hmac;
	bool good;

	if (which < 0)
		return ERR_BUG;
	good = hmac_key(&hmac, which, key) && hmac_start(&hmac) &&
	       update_parts(hmac.ctx, parts, count) && hmac_end(&hmac, out);
	mem_wipe(hmac.pad, sizeof(hmac.pad));
	return good ? OK : ERR_CRYPTO;
}

enum err
prf(const struct alg *alg, struct view key, const struct view *parts,
    size_t count, uint8_t *out)
{
	return hmac_whole(digest_of(alg, ALG_PRF), key, parts, count, out);
}

enum err
prf_plus(const struct alg *alg, struct view key, const struct view *parts,
    size_t count, struct secret *out)
{
	int which = digest_of(alg, ALG_PRF);
	struct hmac hmac;
	uint8_t block[PRF_MAX];
	size_t size, done = 0;
	enum err err = ERR_CRYPTO;

	if (which < 0)
		return ERR_BUG;
	size = digests[which].out;
	/* RFC 7296 2.13: the counter is one octet and must not overflow. */
	if (out->len > 255 * size)
		return ERR_LONG;
	if (!hmac_key(&hmac, which, key))
		goto out;
	for (uint8_t round = 1; done < out->len; round++) {
		size_t take = out->len - done;

		/* T1 = prf(K, S | 1), Tn = prf(K, Tn-1 | S | n). */
		if (!hmac_start(&hmac) ||
		    (round > 1 && !update(hmac.ctx, block, size)) ||
		    !update_parts(hmac.ctx, parts, count) ||
		    !update(hmac.ctx, &round, 1) || !hmac_end(&hmac, block))
			goto out;
		if (take > size)
			take = size;
		memcpy(out->octets + done, block, take);
		done += take;
	}
	err = OK;
out:
	mem_wipe(block, sizeof(block));
	mem_wipe(hmac.pad, sizeof(hmac.pad));
	return err;
}

enum err
prf_mac(const struct alg *alg, struct view key, const struct view *parts,
    size_t count, uint8_t *out)
{
	uint8_t whole[PRF_MAX];
	enum err err;

	err = hmac_whole(digest_of(alg, ALG_INTEG), key, parts, count, whole);
	if (err == OK)
		memcpy(out, whole, alg->icv);
	mem_wipe(whole, sizeof(whole));
	return err;
}

static enum err
digest_whole(int which, const struct view *parts, size_t count, uint8_t *out)
{
	EVP_MD_CTX *ctx;

	if (which < 0)
		return ERR_BUG;
	ctx = context(which);
	if (ctx == NULL || EVP_DigestInit_ex2(ctx, fetched[which], NULL) != 1 ||
	    !update_parts(ctx, parts, count) ||
	    EVP_DigestFinal_ex(ctx, out, NULL) != 1)
		return ERR_CRYPTO;
	return OK;
}

enum err
prf_hash(
    const struct alg *alg, const struct view *parts, size_t count, uint8_t *out)
{
	return digest_whole(digest_of(alg, ALG_PRF), parts, count, out);
}

enum err
prf_sha1(const struct view *parts, size_t count, uint8_t out[20])
{
	return digest_whole(SHA1, parts, count, out);
}
