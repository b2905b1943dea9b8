#include "common/mem.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

enum err
secret_new(struct secret *secret, size_t len)
{
	secret_free(secret);
	if (len == 0)
		return OK;
	secret->octets = calloc(1, len);
	if (secret->octets == NULL)
		return ERR_NOMEM;
	secret->len = len;
	return OK;
}

enum err
secret_set(struct secret *secret, struct view octets)
{
	struct secret copy = { NULL, 0 };
	enum err err;

	/* octets may be a view of the very secret that is replaced. */
	err = secret_new(&copy, octets.len);
	if (err != OK)
		return err;
	if (octets.len > 0)
		memcpy(copy.octets, octets.at, octets.len);
	secret_move(secret, &copy);
	return OK;
}

void
secret_free(struct secret *secret)
{
	if (secret->octets != NULL) {
		mem_wipe(secret->octets, secret->len);
		free(secret->octets);
	}
	secret->octets = NULL;
	secret->len = 0;
}

void
secret_move(struct secret *to, struct secret *from)
{
	if (to == from)
		return;
	secret_free(to);
	*to = *from;
	from->octets = NULL;
	from->len = 0;
}

struct view
secret_view(const struct secret *secret)
{
	return view_of(secret->octets, secret->len);
}

bool
mem_equal_secret(struct view a, struct view b)
{
	if (a.len != b.len)
		return false;
	return a.len == 0 || CRYPTO_memcmp(a.at, b.at, a.len) == 0;
}

void
mem_wipe(void *octets, size_t len)
{
	if (len > 0)
		OPENSSL_cleanse(octets, len);
}

void *
mem_dup(const void *octets, size_t len)
{
	/* malloc(0) may be NULL, which here means that memory is short. */
	void *copy = malloc(len > 0 ? len : 1);

	if (copy != NULL && len > 0)
		memcpy(copy, octets, len);
	return copy;
}
