/*
 * mem: memory that holds keys, and a few allocation helpers.
 *
 * Key octets live only in struct secret: it owns its octets, wipes them when
 * freed and compares in constant time. A zeroed struct secret is empty and
 * valid. Nothing here aborts: exhaustion is ERR_NOMEM.
 */
#ifndef COMMON_MEM_H
#define COMMON_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

struct secret {
	uint8_t *octets;
	size_t len; /* octets */
};

/* Allocates len zeroed octets (len may be 0). Frees what was held before. */
enum err secret_new(struct secret *secret, size_t len);

/* Replaces the content by a copy of octets. */
enum err secret_set(struct secret *secret, struct view octets);

/* Wipes and frees; the struct is empty afterwards. Accepts an empty one. */
void secret_free(struct secret *secret);

/* Moves ownership; to's old content is wiped, from is empty afterwards. */
void secret_move(struct secret *to, struct secret *from);

/* A borrowed view of the octets; valid until the secret changes. */
struct view secret_view(const struct secret *secret);

/* Constant time in the content; lengths are not secret. */
bool mem_equal_secret(struct view a, struct view b);

/* Overwrites octets in a way that the compiler may not remove. */
void mem_wipe(void *octets, size_t len);

/* Copies into fresh memory; NULL when out of memory. mem_dup(_, 0) is valid. */
void *mem_dup(const void *octets, size_t len);

#endif
