/*
 * map: hash table with nodes embedded in the things it holds.
 *
 * Hashing is keyed with octets drawn at start, so that a peer who picks its
 * own SPIs or identities cannot build a long chain. Duplicate keys are
 * allowed; map_next_same() walks them, and removing one of thousands is as
 * cheap as of one. The table grows by doubling, and when memory for that is
 * short it goes on with longer chains: inserting never fails.
 */
#ifndef COMMON_MAP_H
#define COMMON_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

/* Zeroed before it is first used. */
struct map_node {
	struct map_node *next;
	struct map_node **at; /* what points here; NULL: in no map */
	uint64_t hash;
};

struct map {
	struct map_node **slots;
	size_t slot_count; /* a power of two, or 0 before the first insert */
	size_t count;      /* nodes held */
	uint64_t seed[2];
	struct map_node *one; /* the only slot until memory for more is there */
};

/* The thing that embeds node as the given member. */
#define map_entry(node, type, member)                                          \
	((type *)(void *)((char *)(node)-offsetof(type, member)))

void map_init(struct map *map, const uint64_t seed[static 2]);
void map_fini(struct map *map); /* frees the table, not the things */

uint64_t map_hash(const struct map *map, struct view key);
uint64_t map_hash_u64(const struct map *map, uint64_t key);

void map_insert(struct map *map, struct map_node *node, uint64_t hash);
/* True if node was in the map. */
bool map_remove(struct map *map, struct map_node *node);

/* First node with this hash (the caller compares keys), then the next. */
struct map_node *map_find(const struct map *map, uint64_t hash);
struct map_node *map_next_same(const struct map_node *node);

/* Walks all nodes. The visitor may remove the node that it is given. */
void
map_each(struct map *map, void (*visit)(struct map_node *, void *), void *arg);

#endif
