#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/env.h"
#include "common/limit.h"
#include "common/worker.h"

#define ENTRIES 400

/* Half-open SAs of a test. */
static struct limit_entry entries[ENTRIES];

struct world {
	struct env env;
	struct timers timers;
	struct workers workers;
	struct limit *limit;
	uint8_t chance;
	bool dry; /* no random octets to be had */
};

static size_t queue_length;

static size_t
queued(const struct workers *workers)
{
	(void)workers;
	return queue_length;
}

static const struct workers_ops ops = { .queued = queued };

static bool
counting(void *arg, void *octets, size_t len)
{
	struct world *world = arg;
	uint8_t *at = octets;

	if (world->dry)
		return false;
	for (size_t i = 0; i < len; i++)
		at[i] = world->chance++;
	return true;
}

static void
world_init(struct world *world, const struct limit_config *config)
{
	memset(world, 0, sizeof(*world));
	memset(entries, 0, sizeof(entries));
	queue_length = 0;
	timers_init(&world->timers, 5000);
	world->workers.ops = &ops;
	world->env.timers = &world->timers;
	world->env.workers = &world->workers;
	world->env.random = counting;
	world->env.random_arg = world;
	world->limit = limit_new(&world->env, config);
	assert_non_null(world->limit);
}

static struct addr
addr(const char *text)
{
	struct addr value;

	assert_true(addr_parse(&value, text));
	return value;
}

static struct addr
addr_number(unsigned number)
{
	struct addr value = addr("10.0.0.0");

	value.octets[1] = (uint8_t)(number >> 16);
	value.octets[2] = (uint8_t)(number >> 8);
	value.octets[3] = (uint8_t)number;
	return value;
}

static enum err
add(struct world *world, size_t n, struct addr peer, enum limit_class class)
{
	memset(&entries[n], 0, sizeof(entries[n]));
	return limit_half_open_add(world->limit, &entries[n], &peer, class);
}

static void
drop(struct world *world, size_t n)
{
	limit_half_open_drop(world->limit, &entries[n]);
}

static enum err
room(struct world *world, const char *peer, enum limit_class class,
    struct limit_entry **victim)
{
	struct addr at = addr(peer);

	return limit_half_open_room(world->limit, &at, class, victim);
}

static void
test_half_open_budget(void **state)
{
	struct limit_config config = limit_defaults;
	struct addr one = addr("192.0.2.1");
	struct limit_entry *victim;
	struct world world;

	(void)state;
	config.half_open_max = 320;
	world_init(&world, &config);
	assert_int_equal(limit_config(world.limit)->half_open_max, 320);
	/* All but an eighth is IKEv2's, if it comes first. */
	for (unsigned i = 0; i < 280; i++) {
		assert_int_equal(add(&world, i, addr_number(i), LIMIT_V2), OK);
		assert_int_equal(limit_half_open(world.limit), i + 1);
	}
	assert_int_equal(add(&world, 300, one, LIMIT_V2), ERR_LIMIT);
	assert_int_equal(add(&world, 300, one, LIMIT_V1), ERR_LIMIT);
	assert_int_equal(
	    room(&world, "192.0.2.1", LIMIT_V1, &victim), ERR_LIMIT);
	assert_int_equal(limit_half_open(world.limit), 280);
	/* That eighth is for those whom connections name. */
	for (unsigned i = 280; i < 320; i++)
		assert_int_equal(
		    add(&world, i, addr_number(i), LIMIT_V1_NAMED), OK);
	assert_int_equal(add(&world, 320, one, LIMIT_V1_NAMED), ERR_LIMIT);
	for (unsigned i = 0; i < 320; i++)
		drop(&world, i);
	assert_int_equal(limit_half_open(world.limit), 0);
	assert_int_equal(add(&world, 0, one, LIMIT_V2), OK);
	/* Whoever drops too often gets no negative count. */
	drop(&world, 0);
	drop(&world, 0);
	assert_int_equal(limit_half_open(world.limit), 0);
	limit_free(world.limit);
	limit_free(NULL);
}

/* One network cannot take all that IKEv1 has; another is not touched. Its
 * newcomers take the places of its own. */
static void
test_prefix_budget(void **state)
{
	struct addr v6 = addr("2001:db8:1:2::1");
	unsigned max = limit_defaults.per_prefix_max;
	struct limit_entry *victim;
	struct world world;

	(void)state;
	world_init(&world, &limit_defaults);
	for (unsigned i = 0; i < max; i++) {
		struct addr peer = addr("192.0.2.0");

		peer.octets[3] = (uint8_t)i;
		assert_int_equal(add(&world, i, peer, LIMIT_V1), OK);
		assert_int_equal(add(&world, max + i, v6, LIMIT_V1), OK);
	}
	assert_int_equal(room(&world, "192.0.3.1", LIMIT_V1, &victim), OK);
	assert_null(victim);
	/* ... when those have had the time to answer. */
	world.timers.now_ms += limit_defaults.answer_ms - 1;
	assert_int_equal(
	    room(&world, "192.0.2.200", LIMIT_V1, &victim), ERR_LIMIT);
	assert_null(victim);
	world.timers.now_ms += limit_defaults.answer_ms + 1;
	assert_int_equal(room(&world, "192.0.2.200", LIMIT_V1, &victim), OK);
	assert_ptr_equal(victim, &entries[0]);
	assert_int_equal(
	    room(&world, "2001:db8:1:2:ffff::1", LIMIT_V1, &victim), OK);
	assert_ptr_equal(victim, &entries[max]);
	assert_int_equal(
	    room(&world, "2001:db8:1:3::1", LIMIT_V1, &victim), OK);
	assert_null(victim);
	assert_int_equal(
	    add(&world, 2 * max, addr("192.0.2.200"), LIMIT_V1), ERR_LIMIT);
	/* IKEv2 has its cookies, and who is named is no stranger. */
	assert_int_equal(
	    add(&world, 2 * max, addr("192.0.2.200"), LIMIT_V2), OK);
	assert_int_equal(
	    add(&world, 2 * max + 1, addr("192.0.2.200"), LIMIT_V1_NAMED), OK);
	/* Who has shown that he receives keeps his place. */
	for (unsigned i = 0; i < max; i++) {
		if (i != 7)
			limit_half_open_shown(world.limit, &entries[i]);
	}
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(
		    room(&world, "192.0.2.200", LIMIT_V1, &victim), OK);
		assert_ptr_equal(victim, &entries[7]);
	}
	limit_half_open_shown(world.limit, &entries[7]);
	limit_half_open_shown(world.limit, &entries[7]);
	assert_int_equal(
	    room(&world, "192.0.2.200", LIMIT_V1, &victim), ERR_LIMIT);
	drop(&world, 3);
	assert_int_equal(room(&world, "192.0.2.200", LIMIT_V1, &victim), OK);
	assert_null(victim);
	for (unsigned i = 0; i < 2 * max + 2; i++)
		drop(&world, i);
	assert_int_equal(limit_half_open(world.limit), 0);
	limit_free(world.limit);
}

/* When all is full, the oldest that has not shown that it receives has to go,
 * and nobody else. */
static void
test_victims(void **state)
{
	struct limit_config config = limit_defaults;
	unsigned strangers = 120, named = 40, class;
	size_t oldest[LIMIT_CLASSES] = { 0, 1, 120 };
	struct limit_entry *victim;
	struct world world;

	(void)state;
	config.half_open_max = 320;
	config.per_prefix_max = 3;
	world_init(&world, &config);
	for (unsigned i = 0; i < strangers; i++)
		assert_int_equal(
		    add(&world, i, addr_number(i << 7), LIMIT_V1), OK);
	for (unsigned i = strangers; i < strangers + named; i++)
		assert_int_equal(
		    add(&world, i, addr("192.0.2.1"), LIMIT_V1_NAMED), OK);
	for (unsigned i = 0; i < strangers; i += 3)
		limit_half_open_shown(world.limit, &entries[i]);
	world.timers.now_ms += 2 * limit_defaults.answer_ms;
	for (unsigned i = 0; i < 60; i++) {
		class = i % 2 ? LIMIT_V1 : LIMIT_V1_NAMED;
		assert_int_equal(
		    room(&world, "198.51.100.1", class, &victim), OK);
		assert_ptr_equal(victim, &entries[oldest[class]]);
		drop(&world, oldest[class]);
		/* The newcomer is the youngest. */
		assert_int_equal(
		    add(&world, 200 + i, addr_number(i << 8), class), OK);
		do
			oldest[class]++;
		while (class == LIMIT_V1 && oldest[class] % 3 == 0);
	}
	for (unsigned i = 0; i < ENTRIES; i++)
		drop(&world, i);
	assert_int_equal(limit_half_open(world.limit), 0);
	limit_free(world.limit);
}

static void
test_want_cookie(void **state)
{
	struct addr one = addr("192.0.2.1"), other = addr("198.51.100.1");
	struct world world;

	(void)state;
	world_init(&world, &limit_defaults);
	/* So many from one address: it alone is asked. */
	for (unsigned i = 0; i < limit_defaults.cookie_per_peer; i++) {
		assert_false(limit_want_cookie(world.limit, &one));
		assert_int_equal(add(&world, i, one, LIMIT_V2), OK);
	}
	assert_true(limit_want_cookie(world.limit, &one));
	assert_false(limit_want_cookie(world.limit, &other));
	drop(&world, 0);
	assert_false(limit_want_cookie(world.limit, &one));
	/* So many in all: everybody is. */
	for (unsigned i = limit_half_open(world.limit);
	     i < limit_defaults.cookie_half_open; i++) {
		assert_false(limit_want_cookie(world.limit, &other));
		assert_int_equal(
		    add(&world, 100 + i, addr_number(i), LIMIT_V2), OK);
	}
	assert_true(limit_want_cookie(world.limit, &other));
	drop(&world, 1);
	assert_false(limit_want_cookie(world.limit, &other));
	/* So many jobs. */
	queue_length = limit_defaults.cookie_queue - 1;
	assert_false(limit_want_cookie(world.limit, &other));
	queue_length++;
	assert_true(limit_want_cookie(world.limit, &other));
	limit_free(world.limit);
}

static void
test_cookie(void **state)
{
	struct endpoint peer = { .addr = addr("192.0.2.1"), .port = 500 };
	struct endpoint other;
	struct view nonce = view_text("0123456789abcdef");
	uint8_t cookie[LIMIT_COOKIE_LEN], again[LIMIT_COOKIE_LEN];
	struct view view = view_of(cookie, sizeof(cookie));
	struct world world;

	(void)state;
	world_init(&world, &limit_defaults);
	/* Before the first was made there is nothing to guess. */
	memset(cookie, 0, sizeof(cookie));
	assert_false(limit_cookie_valid(world.limit, &peer, 7, nonce, view));
	assert_int_equal(
	    limit_cookie(world.limit, &peer, 7, nonce, cookie), OK);
	assert_int_equal(limit_cookie(world.limit, &peer, 7, nonce, again), OK);
	assert_memory_equal(cookie, again, sizeof(cookie));
	assert_true(limit_cookie_valid(world.limit, &peer, 7, nonce, view));

	/* Bound to address, port, SPI and nonce. */
	other = peer;
	other.addr = addr("192.0.2.2");
	assert_false(limit_cookie_valid(world.limit, &other, 7, nonce, view));
	other = peer;
	other.port = 501;
	assert_false(limit_cookie_valid(world.limit, &other, 7, nonce, view));
	assert_false(limit_cookie_valid(world.limit, &peer, 8, nonce, view));
	assert_false(limit_cookie_valid(
	    world.limit, &peer, 7, view_text("0123456789abcdeg"), view));
	/* Every bit counts, and the length. */
	for (size_t bit = 0; bit < sizeof(cookie) * 8; bit++) {
		cookie[bit / 8] ^= (uint8_t)(1U << bit % 8);
		assert_false(
		    limit_cookie_valid(world.limit, &peer, 7, nonce, view));
		cookie[bit / 8] ^= (uint8_t)(1U << bit % 8);
	}
	for (size_t len = 0; len < sizeof(cookie); len++)
		assert_false(limit_cookie_valid(
		    world.limit, &peer, 7, nonce, view_of(cookie, len)));
	limit_free(world.limit);
}

static void
test_cookie_rotation(void **state)
{
	struct endpoint peer = { .addr = addr("2001:db8::1"), .port = 500 };
	struct view nonce = view_text("0123456789abcdef");
	uint8_t cookie[LIMIT_COOKIE_LEN], later[LIMIT_COOKIE_LEN];
	struct view view = view_of(cookie, sizeof(cookie));
	struct world world;

	(void)state;
	world_init(&world, &limit_defaults);
	assert_int_equal(
	    limit_cookie(world.limit, &peer, 7, nonce, cookie), OK);
	world.timers.now_ms += limit_defaults.secret_ms - 1;
	assert_int_equal(limit_cookie(world.limit, &peer, 7, nonce, later), OK);
	assert_memory_equal(cookie, later, sizeof(cookie));
	world.timers.now_ms++;
	assert_int_equal(limit_cookie(world.limit, &peer, 7, nonce, later), OK);
	assert_memory_not_equal(cookie, later, 4);
	assert_memory_not_equal(cookie + 4, later + 4, 24);
	/* The previous secret's is good for one more period. */
	assert_true(limit_cookie_valid(world.limit, &peer, 7, nonce, view));
	assert_true(limit_cookie_valid(
	    world.limit, &peer, 7, nonce, view_of(later, sizeof(later))));
	world.timers.now_ms += limit_defaults.secret_ms;
	assert_false(limit_cookie_valid(world.limit, &peer, 7, nonce, view));
	assert_true(limit_cookie_valid(
	    world.limit, &peer, 7, nonce, view_of(later, sizeof(later))));
	/* After long idleness none is. */
	world.timers.now_ms += 2 * limit_defaults.secret_ms;
	assert_false(limit_cookie_valid(
	    world.limit, &peer, 7, nonce, view_of(later, sizeof(later))));
	limit_free(world.limit);
}

static void
test_without_chance(void **state)
{
	struct endpoint peer = { .addr = addr("192.0.2.1"), .port = 500 };
	struct view nonce = view_text("0123456789abcdef");
	uint8_t cookie[LIMIT_COOKIE_LEN];
	struct world world;

	(void)state;
	world_init(&world, &limit_defaults);
	world.dry = true;
	assert_int_equal(
	    limit_cookie(world.limit, &peer, 7, nonce, cookie), ERR_CRYPTO);
	assert_null(limit_new(&world.env, &limit_defaults));
	world.dry = false;
	assert_int_equal(
	    limit_cookie(world.limit, &peer, 7, nonce, cookie), OK);
	/* An old secret is better than none. */
	world.dry = true;
	world.timers.now_ms += 10 * limit_defaults.secret_ms;
	assert_true(limit_cookie_valid(
	    world.limit, &peer, 7, nonce, view_of(cookie, sizeof(cookie))));
	limit_free(world.limit);
}

static void
test_answers(void **state)
{
	struct limit_config config = limit_defaults;
	struct addr one = addr("192.0.2.1"), near = addr("192.0.2.99");
	struct addr far = addr("192.0.4.1");
	struct world world;

	(void)state;
	config.answers_burst = 3;
	config.answers_per_s = 2;
	world_init(&world, &config);
	assert_true(limit_answer(world.limit, &one));
	assert_true(limit_answer(world.limit, &near));
	assert_true(limit_answer(world.limit, &one));
	assert_false(limit_answer(world.limit, &one));
	assert_false(limit_answer(world.limit, &near));
	assert_true(limit_answer(world.limit, &far));
	world.timers.now_ms += 499;
	assert_false(limit_answer(world.limit, &one));
	world.timers.now_ms += 1;
	assert_true(limit_answer(world.limit, &one));
	assert_false(limit_answer(world.limit, &one));
	/* A pause fills the bucket and no more. */
	world.timers.now_ms += (uint64_t)1 << 60;
	for (unsigned i = 0; i < 3; i++)
		assert_true(limit_answer(world.limit, &one));
	assert_false(limit_answer(world.limit, &one));
	limit_free(world.limit);
}

static void
test_log(void **state)
{
	struct world world;
	unsigned lines = 0;

	(void)state;
	world_init(&world, &limit_defaults);
	for (unsigned i = 0; i < 1000; i++)
		lines += limit_log(world.limit);
	assert_true(lines > 0);
	assert_true(lines < 100);
	world.timers.now_ms += 1000;
	assert_true(limit_log(world.limit));
	limit_free(world.limit);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_half_open_budget),
		cmocka_unit_test(test_prefix_budget),
		cmocka_unit_test(test_victims),
		cmocka_unit_test(test_want_cookie),
		cmocka_unit_test(test_cookie),
		cmocka_unit_test(test_cookie_rotation),
		cmocka_unit_test(test_without_chance),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
