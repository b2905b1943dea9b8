#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <sys/mman.h>

#include "common/map.h"

#define THINGS 1000

struct thing {
	unsigned number;
	struct map_node node;
	unsigned visits;
};

static const uint64_t seed[2] = { 0x0706050403020100ULL,
	0x0f0e0d0c0b0a0908ULL };

static struct thing *
find(const struct map *map, unsigned number)
{
	struct map_node *node = map_find(map, map_hash_u64(map, number));

	for (; node != NULL; node = map_next_same(node)) {
		struct thing *thing = map_entry(node, struct thing, node);

		if (thing->number == number)
			return thing;
	}
	return NULL;
}

static void
test_insert_find_remove(void **state)
{
	struct thing *things = calloc(THINGS, sizeof(*things));
	struct map map;

	(void)state;
	assert_non_null(things);
	map_init(&map, seed);
	assert_null(find(&map, 1));
	assert_false(map_remove(&map, &things[0].node));
	for (unsigned i = 0; i < THINGS; i++) {
		things[i].number = i;
		map_insert(&map, &things[i].node, map_hash_u64(&map, i));
		assert_int_equal(map.count, i + 1);
		assert_true(map.slot_count >= map.count);
	}
	for (unsigned i = 0; i < THINGS; i++)
		assert_ptr_equal(find(&map, i), &things[i]);
	assert_null(find(&map, THINGS));
	for (unsigned i = 0; i < THINGS; i += 2) {
		assert_true(map_remove(&map, &things[i].node));
		assert_false(map_remove(&map, &things[i].node));
	}
	assert_int_equal(map.count, THINGS / 2);
	for (unsigned i = 0; i < THINGS; i++)
		assert_ptr_equal(find(&map, i), i % 2 ? &things[i] : NULL);
	map_fini(&map);
	free(things);
}

static void
test_same_hash(void **state)
{
	struct thing things[20], other = { .number = 99 };
	struct map_node *node;
	unsigned found = 0, count = 0;
	struct map map;

	(void)state;
	map_init(&map, seed);
	for (unsigned i = 0; i < 20; i++) {
		things[i].number = i;
		map_insert(&map, &things[i].node, 5);
		/* In the same slot for as long as the table is small. */
		if (i == 10)
			map_insert(&map, &other.node, 5 + ((uint64_t)1 << 60));
	}
	for (node = map_find(&map, 5); node != NULL;
	     node = map_next_same(node)) {
		found |= 1U << map_entry(node, struct thing, node)->number;
		count++;
	}
	assert_int_equal(count, 20);
	assert_int_equal(found, (1U << 20) - 1);
	map_fini(&map);
}

/* Thousands of SAs may have one remote identity. One of them goes, and nothing
 * but its neighbours is looked at: the others cannot even be read. */
static void
test_remove_among_same(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t each = page / sizeof(struct thing), i;
	struct map_node *node, *before = NULL, *victim = NULL;
	struct thing *things[3];
	struct map map;
	uint8_t *at;

	(void)state;
	at = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(at != MAP_FAILED);
	map_init(&map, seed);
	for (i = 0; i < 3 * each; i++) {
		things[i / each] =
		    (struct thing *)(void *)(at + i / each * page);
		map_insert(&map, &things[i / each][i % each].node, 5);
	}
	/* One in the middle page with both its neighbours. */
	for (node = map_find(&map, 5); node && !victim; node = node->next) {
		if (before && node->next &&
		    (size_t)((uint8_t *)before - at) / page == 1 &&
		    (size_t)((uint8_t *)node - at) / page == 1 &&
		    (size_t)((uint8_t *)node->next - at) / page == 1)
			victim = node;
		before = node;
	}
	assert_non_null(victim);
	assert_int_equal(mprotect(at, page, PROT_NONE), 0);
	assert_int_equal(mprotect(at + 2 * page, page, PROT_NONE), 0);
	assert_true(map_remove(&map, victim));
	assert_false(map_remove(&map, victim));
	assert_int_equal(mprotect(at, 3 * page, PROT_READ | PROT_WRITE), 0);
	for (i = 0; (node = map_find(&map, 5)) != NULL; i++) {
		assert_ptr_not_equal(node, victim);
		assert_true(map_remove(&map, node));
	}
	assert_int_equal(i, 3 * each - 1);
	assert_int_equal(map.count, 0);
	map_fini(&map);
	munmap(at, 3 * page);
}

struct walk {
	struct map *map;
	unsigned visited;
	bool remove;
};

static void
visit(struct map_node *node, void *arg)
{
	struct walk *walk = arg;

	walk->visited++;
	map_entry(node, struct thing, node)->visits++;
	if (walk->remove)
		assert_true(map_remove(walk->map, node));
}

static void
test_each(void **state)
{
	struct thing *things = calloc(THINGS, sizeof(*things));
	struct map map;
	struct walk walk = { .map = &map };

	(void)state;
	assert_non_null(things);
	map_init(&map, seed);
	map_each(&map, visit, &walk);
	assert_int_equal(walk.visited, 0);
	for (unsigned i = 0; i < THINGS; i++)
		map_insert(&map, &things[i].node, map_hash_u64(&map, i));
	map_each(&map, visit, &walk);
	assert_int_equal(walk.visited, THINGS);
	walk.remove = true;
	map_each(&map, visit, &walk);
	for (unsigned i = 0; i < THINGS; i++)
		assert_int_equal(things[i].visits, 2);
	assert_int_equal(map.count, 0);
	map_fini(&map);
	free(things);
}

/* When there is no memory for a table, chains get longer and nothing fails. */
static void
test_without_memory(void **state)
{
	struct thing *things = calloc(THINGS, sizeof(*things));
	struct map map;

	(void)state;
	assert_non_null(things);
	map_init(&map, seed);
	/* As map_insert() leaves it when the first table cannot be had. */
	map.slots = &map.one;
	map.slot_count = 1;
	for (unsigned i = 0; i < THINGS; i++) {
		things[i].number = i;
		map_insert(&map, &things[i].node, map_hash_u64(&map, i));
		/* Every node from before the growth is still there. */
		assert_ptr_equal(find(&map, 0), &things[0]);
		assert_ptr_equal(find(&map, i), &things[i]);
	}
	assert_true(map.slots != &map.one);
	assert_null(map.one);
	map_fini(&map);

	map_init(&map, seed);
	map.slots = &map.one;
	map.slot_count = 1;
	map_fini(&map);
	free(things);
}

/* SipHash-1-3 of its authors' test key: octets 00 01 02 ... of each length.
 * A number's hash is that of its eight octets, lowest first. */
static void
test_hash(void **state)
{
	uint8_t key[64];
	uint64_t hashes[64];
	const uint64_t other_seed[2] = { 1, 2 };
	struct map map, other;

	(void)state;
	map_init(&map, seed);
	map_init(&other, other_seed);
	for (unsigned i = 0; i < 64; i++)
		key[i] = (uint8_t)i;
	for (unsigned i = 0; i < 64; i++) {
		hashes[i] = map_hash(&map, view_of(key, i));
		assert_true(hashes[i] != map_hash(&other, view_of(key, i)));
		for (unsigned k = 0; k < i; k++)
			assert_true(hashes[i] != hashes[k]);
	}
	assert_true(map_hash(&map, view_of(NULL, 0)) == hashes[0]);
	assert_true(map_hash_u64(&map, 0x0706050403020100ULL) == hashes[8]);
	assert_true(hashes[0] == 0xabac0158050fc4dcULL);
	assert_true(hashes[1] == 0xc9f49bf37d57ca93ULL);
	/* Trailing zeros count. */
	memset(key, 0, sizeof(key));
	for (unsigned i = 0; i < 63; i++)
		assert_true(map_hash(&map, view_of(key, i)) !=
		            map_hash(&map, view_of(key, i + 1)));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_insert_find_remove),
		cmocka_unit_test(test_same_hash),
		cmocka_unit_test(test_remove_among_same),
		cmocka_unit_test(test_each),
		cmocka_unit_test(test_without_memory),
		cmocka_unit_test(test_hash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
