#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>

#include "common/cipher.h"
#include "common/mem.h"

/*
 * One context per row and thread, made at first use and keyed at each call. A
 * context takes about a kilobyte, so SAs keep raw keys only.
 */

#define FIRST ALG_AES128_CBC
#define ROWS  (ALG_3DES_CBC - ALG_AES128_CBC + 1)

#define NONCE_MAX 12

/* Fetched once in a process; NULL: the library does not have it. */
static EVP_CIPHER *fetched[ROWS];
static pthread_key_t thread_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static _Thread_local EVP_CIPHER_CTX *contexts[ROWS];

static void
thread_ends(void *arg)
{
	EVP_CIPHER_CTX **mine = arg;

	for (int i = 0; i < ROWS; i++) {
		EVP_CIPHER_CTX_free(mine[i]);
		mine[i] = NULL;
	}
}

static void
fetch(void)
{
	for (int i = 0; i < ROWS; i++) {
		const struct alg *alg = alg_get((enum alg_id)(FIRST + i));

		fetched[i] = EVP_CIPHER_fetch(NULL, alg->openssl, NULL);
	}
	ERR_clear_error();
	(void)pthread_key_create(&thread_key, thread_ends);
}

/* This thread's context for an ENCR row, or NULL. */
static EVP_CIPHER_CTX *
context(const struct alg *alg)
{
	int row = alg->id - FIRST;
	EVP_CIPHER_CTX *ctx = contexts[row];

	if (ctx != NULL)
		return ctx;
	pthread_once(&once, fetch);
	if (fetched[row] == NULL)
		return NULL;
	ctx = EVP_CIPHER_CTX_new();
	if (ctx == NULL)
		return NULL;
	if (EVP_CipherInit_ex2(ctx, fetched[row], NULL, NULL, 1, NULL) != 1 ||
	    EVP_CIPHER_CTX_set_padding(ctx, 0) != 1) {
		EVP_CIPHER_CTX_free(ctx);
		return NULL;
	}
	(void)pthread_setspecific(thread_key, contexts);
	contexts[row] = ctx;
	return ctx;
}

/* Wrong sizes are our own bugs; they must still not be memory errors. */
static bool
fits(const struct alg *alg, bool aead, struct view key, struct view text)
{
	return alg != NULL && alg->kind == ALG_ENCR &&
	       alg_is_aead(alg) == aead && key.len == alg_keymat(alg) &&
	       text.len <= INT_MAX / 2;
}

static enum err
cbc(const struct alg *alg, struct view key, const uint8_t *iv, struct view text,
    uint8_t *out, int encrypt)
{
	EVP_CIPHER_CTX *ctx;
	int len = 0;

	if (!fits(alg, false, key, text) || text.len % alg->block != 0)
		return ERR_BUG;
	ctx = context(alg);
	if (ctx == NULL)
		return ERR_CRYPTO;
	if (text.len == 0)
		return OK;
	if (EVP_CipherInit_ex2(ctx, NULL, key.at, iv, encrypt, NULL) != 1 ||
	    EVP_CipherUpdate(ctx, out, &len, text.at, (int)text.len) != 1 ||
	    (size_t)len != text.len)
		return ERR_CRYPTO;
	return OK;
}

enum err
cipher_cbc_encrypt(const struct alg *alg, struct view key, const uint8_t *iv,
    struct view text, uint8_t *out)
{
	return cbc(alg, key, iv, text, out, 1);
}

enum err
cipher_cbc_decrypt(const struct alg *alg, struct view key, const uint8_t *iv,
    struct view text, uint8_t *out)
{
	return cbc(alg, key, iv, text, out, 0);
}

/* RFC 4106 4, RFC 7634 2: the nonce is salt | IV. Keys the context and feeds
 * it the additional data. */
static EVP_CIPHER_CTX *
aead_start(const struct alg *alg, struct view key, const uint8_t *iv,
    struct view aad, int encrypt)
{
	EVP_CIPHER_CTX *ctx = context(alg);
	uint8_t nonce[NONCE_MAX];
	size_t key_len = alg->key_bits / 8;
	int len;
	bool good;

	if (ctx == NULL || aad.len > INT_MAX)
		return NULL;
	memcpy(nonce, key.at + key_len, alg->salt);
	memcpy(nonce + alg->salt, iv, alg->iv);
	good = EVP_CipherInit_ex2(ctx, NULL, key.at, nonce, encrypt, NULL) == 1;
	if (good && aad.len != 0)
		good = EVP_CipherUpdate(
		           ctx, NULL, &len, aad.at, (int)aad.len) == 1;
	mem_wipe(nonce, sizeof(nonce));
	return good ? ctx : NULL;
}

static bool
aead_text(EVP_CIPHER_CTX *ctx, struct view text, uint8_t *out)
{
	int len = 0;

	return text.len == 0 ||
	       (EVP_CipherUpdate(ctx, out, &len, text.at, (int)text.len) == 1 &&
	           (size_t)len == text.len);
}

enum err
cipher_aead_seal(const struct alg *alg, struct view key, const uint8_t *iv,
    struct view aad, struct view text, uint8_t *out, uint8_t *tag)
{
	EVP_CIPHER_CTX *ctx;
	uint8_t rest[EVP_MAX_BLOCK_LENGTH];
	int len;

	if (!fits(alg, true, key, text))
		return ERR_BUG;
	ctx = aead_start(alg, key, iv, aad, 1);
	if (ctx == NULL || !aead_text(ctx, text, out) ||
	    EVP_CipherFinal_ex(ctx, rest, &len) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, alg->icv, tag) != 1)
		return ERR_CRYPTO;
	return OK;
}

enum err
cipher_aead_open(const struct alg *alg, struct view key, const uint8_t *iv,
    struct view aad, struct view text, const uint8_t *tag, uint8_t *out)
{
	EVP_CIPHER_CTX *ctx;
	uint8_t rest[EVP_MAX_BLOCK_LENGTH];
	uint8_t expected[EVP_MAX_BLOCK_LENGTH];
	int len;

	if (!fits(alg, true, key, text))
		return ERR_BUG;
	memcpy(expected, tag, alg->icv);
	ctx = aead_start(alg, key, iv, aad, 0);
	if (ctx == NULL || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG,
	                       alg->icv, expected) != 1)
		return ERR_CRYPTO;
	if (!aead_text(ctx, text, out) ||
	    EVP_CipherFinal_ex(ctx, rest, &len) != 1) {
		mem_wipe(out, text.len);
		ERR_clear_error();
		return ERR_AUTH;
	}
	return OK;
}
