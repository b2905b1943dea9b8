#include "common/map.h"

#include <stdlib.h>

#define FIRST_SLOTS 16

/* SipHash-1-3 (Aumasson, Bernstein 2012): one round a word, three at the
 * end, which is what hash tables need. */
struct sip {
	uint64_t v0, v1, v2, v3;
};

static uint64_t
rotate(uint64_t word, unsigned bits)
{
	return word << bits | word >> (64 - bits);
}

static void
sip_round(struct sip *sip)
{
	sip->v0 += sip->v1;
	sip->v1 = rotate(sip->v1, 13) ^ sip->v0;
	sip->v0 = rotate(sip->v0, 32);
	sip->v2 += sip->v3;
	sip->v3 = rotate(sip->v3, 16) ^ sip->v2;
	sip->v0 += sip->v3;
	sip->v3 = rotate(sip->v3, 21) ^ sip->v0;
	sip->v2 += sip->v1;
	sip->v1 = rotate(sip->v1, 17) ^ sip->v2;
	sip->v2 = rotate(sip->v2, 32);
}

static void
sip_init(struct sip *sip, const uint64_t seed[static 2])
{
	sip->v0 = seed[0] ^ 0x736f6d6570736575ULL;
	sip->v1 = seed[1] ^ 0x646f72616e646f6dULL;
	sip->v2 = seed[0] ^ 0x6c7967656e657261ULL;
	sip->v3 = seed[1] ^ 0x7465646279746573ULL;
}

static void
sip_word(struct sip *sip, uint64_t word)
{
	sip->v3 ^= word;
	sip_round(sip);
	sip->v0 ^= word;
}

static uint64_t
sip_end(struct sip *sip)
{
	sip->v2 ^= 0xff;
	sip_round(sip);
	sip_round(sip);
	sip_round(sip);
	return sip->v0 ^ sip->v1 ^ sip->v2 ^ sip->v3;
}

uint64_t
map_hash(const struct map *map, struct view key)
{
	struct sip sip;
	uint64_t word = 0;

	sip_init(&sip, map->seed);
	for (size_t i = 0; i < key.len; i++) {
		word |= (uint64_t)key.at[i] << i % 8 * 8;
		if (i % 8 == 7) {
			sip_word(&sip, word);
			word = 0;
		}
	}
	/* The last word carries the length, so that "a" and "a\0" differ. */
	sip_word(&sip, word | (uint64_t)key.len << 56);
	return sip_end(&sip);
}

uint64_t
map_hash_u64(const struct map *map, uint64_t key)
{
	struct sip sip;

	sip_init(&sip, map->seed);
	sip_word(&sip, key);
	sip_word(&sip, (uint64_t)sizeof(key) << 56);
	return sip_end(&sip);
}

void
map_init(struct map *map, const uint64_t seed[static 2])
{
	map->slots = NULL;
	map->slot_count = 0;
	map->count = 0;
	map->seed[0] = seed[0];
	map->seed[1] = seed[1];
	map->one = NULL;
}

void
map_fini(struct map *map)
{
	if (map->slots != &map->one)
		free(map->slots);
	map->slots = NULL;
	map->slot_count = 0;
	map->count = 0;
	map->one = NULL;
}

static struct map_node **
slot_of(const struct map *map, uint64_t hash)
{
	return &map->slots[hash & (map->slot_count - 1)];
}

static void
push(struct map_node **slot, struct map_node *node)
{
	node->next = *slot;
	node->at = slot;
	if (node->next != NULL)
		node->next->at = &node->next;
	*slot = node;
}

/* Doubles the table if there is memory, and leaves it as it is if not. */
static void
grow(struct map *map)
{
	size_t old_count = map->slot_count;
	size_t count = old_count < FIRST_SLOTS ? FIRST_SLOTS : old_count * 2;
	struct map_node **old = map->slots;
	struct map_node **slots = calloc(count, sizeof(struct map_node *));

	if (slots == NULL)
		return;
	map->slots = slots;
	map->slot_count = count;
	for (size_t i = 0; i < old_count; i++) {
		struct map_node *node = old[i], *next;

		for (; node != NULL; node = next) {
			next = node->next;
			push(slot_of(map, node->hash), node);
		}
	}
	if (old != &map->one)
		free(old);
	map->one = NULL;
}

void
map_insert(struct map *map, struct map_node *node, uint64_t hash)
{
	if (map->slot_count == 0) {
		map->slots = &map->one;
		map->slot_count = 1;
		grow(map);
	} else if (map->count >= map->slot_count) {
		grow(map);
	}
	node->hash = hash;
	push(slot_of(map, hash), node);
	map->count++;
}

bool
map_remove(struct map *map, struct map_node *node)
{
	if (node->at == NULL)
		return false;
	*node->at = node->next;
	if (node->next != NULL)
		node->next->at = node->at;
	node->next = NULL;
	node->at = NULL;
	map->count--;
	return true;
}

struct map_node *
map_find(const struct map *map, uint64_t hash)
{
	struct map_node *node;

	if (map->slot_count == 0)
		return NULL;
	node = *slot_of(map, hash);
	while (node != NULL && node->hash != hash)
		node = node->next;
	return node;
}

struct map_node *
map_next_same(const struct map_node *node)
{
	uint64_t hash = node->hash;
	struct map_node *next = node->next;

	while (next != NULL && next->hash != hash)
		next = next->next;
	return next;
}

void
map_each(struct map *map, void (*visit)(struct map_node *, void *), void *arg)
{
	for (size_t i = 0; i < map->slot_count; i++) {
		struct map_node *node = map->slots[i], *next;

		for (; node != NULL; node = next) {
			next = node->next;
			visit(node, arg);
		}
	}
}
