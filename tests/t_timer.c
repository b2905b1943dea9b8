#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/timer.h"

#define MANY 20000

static unsigned fired[MANY + 1];
static unsigned fired_count;

struct numbered {
	struct timer timer;
	unsigned number;
};

static void
note(void *arg)
{
	struct numbered *numbered = arg;

	assert_false(timer_armed(&numbered->timer));
	if (fired_count < MANY)
		fired[fired_count++] = numbered->number;
}

static void
prepare(struct numbered *numbered, unsigned count)
{
	fired_count = 0;
	for (unsigned i = 0; i < count; i++) {
		numbered[i].number = i;
		timer_init(&numbered[i].timer, note, &numbered[i]);
	}
}

static void
test_order(void **state)
{
	static const uint64_t delays[] = { 50, 10, 30, 10, 0, 30, 30, 20 };
	static const unsigned expected[] = { 4, 1, 3, 7, 2, 5, 6, 0 };
	struct numbered numbered[8];
	struct timers timers;

	(void)state;
	timers_init(&timers, 1000);
	assert_true(timers_next(&timers) == UINT64_MAX);
	prepare(numbered, 8);
	for (unsigned i = 0; i < 8; i++)
		timer_set(&timers, &numbered[i].timer, delays[i]);
	assert_true(timers_next(&timers) == 1000);
	assert_int_equal(timers_run(&timers, 1009, 100), 1);
	assert_true(timers_next(&timers) == 1010);
	assert_int_equal(timers_run(&timers, 1010, 100), 2);
	assert_int_equal(timers_run(&timers, 1049, 100), 4);
	assert_int_equal(timers_run(&timers, 1050, 100), 1);
	assert_true(timers_next(&timers) == UINT64_MAX);
	assert_memory_equal(fired, expected, sizeof(expected));
}

static void
test_limit_and_clock(void **state)
{
	struct numbered numbered[5];
	struct timers timers;

	(void)state;
	timers_init(&timers, 100);
	prepare(numbered, 5);
	for (unsigned i = 0; i < 5; i++)
		timer_set(&timers, &numbered[i].timer, 10);
	assert_int_equal(timers_run(&timers, 200, 0), 0);
	assert_int_equal(timers_run(&timers, 200, 3), 3);
	/* The clock never goes back. */
	assert_int_equal(timers_run(&timers, 50, 10), 2);
	assert_true(timers.now_ms == 200);
	assert_int_equal(fired_count, 5);
}

static void
test_move_and_stop(void **state)
{
	struct numbered numbered[4];
	struct timers timers;

	(void)state;
	timers_init(&timers, 0);
	prepare(numbered, 4);
	for (unsigned i = 0; i < 4; i++)
		timer_set(&timers, &numbered[i].timer, 10 * (i + 1));
	timer_stop(&timers, &numbered[0].timer);
	timer_stop(&timers, &numbered[0].timer);
	assert_false(timer_armed(&numbered[0].timer));
	assert_true(timers_next(&timers) == 20);
	timer_set(&timers, &numbered[3].timer, 5);
	assert_true(timers_next(&timers) == 5);
	timer_set(&timers, &numbered[1].timer, 100);
	assert_int_equal(timers_run(&timers, 1000, 10), 3);
	assert_int_equal(fired[0], 3);
	assert_int_equal(fired[1], 2);
	assert_int_equal(fired[2], 1);
	/* Longer than the clock lasts. */
	timer_set(&timers, &numbered[0].timer, UINT64_MAX);
	assert_true(timer_armed(&numbered[0].timer));
	assert_int_equal(timers_run(&timers, 1U << 30, 10), 0);
}

/* Against an array searched from end to end: random sets, moves, stops. */
static void
test_against_model(void **state)
{
	enum { COUNT = 200 };
	struct numbered numbered[COUNT];
	uint64_t due[COUNT], order[COUNT], orders = 0;
	struct timers timers;
	uint32_t chance = 12345;

	(void)state;
	timers_init(&timers, 0);
	prepare(numbered, COUNT);
	memset(due, 0xff, sizeof(due));
	memset(order, 0, sizeof(order));
	for (unsigned round = 0; round < 20000; round++) {
		unsigned pick, best = COUNT;

		chance = chance * 1664525 + 1013904223;
		pick = (chance >> 8) % COUNT;
		if ((chance >> 28) < 9) {
			timer_set(&timers, &numbered[pick].timer,
			    (chance >> 20) % 64);
			due[pick] = timers.now_ms + (chance >> 20) % 64;
			order[pick] = orders++;
		} else if ((chance >> 28) < 11) {
			timer_stop(&timers, &numbered[pick].timer);
			due[pick] = UINT64_MAX;
		} else {
			for (unsigned i = 0; i < COUNT; i++)
				if (due[i] != UINT64_MAX &&
				    (best == COUNT || due[i] < due[best] ||
				        (due[i] == due[best] &&
				            order[i] < order[best])))
					best = i;
			if (best == COUNT) {
				assert_true(timers_next(&timers) == UINT64_MAX);
				continue;
			}
			assert_true(timers_next(&timers) == due[best]);
			fired_count = 0;
			assert_int_equal(timers_run(&timers, due[best], 1), 1);
			assert_int_equal(fired[0], best);
			due[best] = UINT64_MAX;
		}
	}
}

/* A long list of children, then a deep heap: nothing may recurse. */
static void
test_many(void **state)
{
	struct numbered *numbered = calloc(MANY, sizeof(*numbered));
	struct timers timers;

	(void)state;
	assert_non_null(numbered);
	for (unsigned turn = 0; turn < 2; turn++) {
		timers_init(&timers, 0);
		prepare(numbered, MANY);
		for (unsigned i = 0; i < MANY; i++)
			timer_set(&timers, &numbered[i].timer,
			    turn == 0 ? 1 + i : 1 + MANY - i);
		assert_int_equal(timers_run(&timers, MANY + 1, MANY), MANY);
		for (unsigned i = 0; i < MANY; i++)
			assert_int_equal(
			    fired[i], turn == 0 ? i : MANY - 1 - i);
	}
	free(numbered);
}

struct again {
	struct timers *timers;
	struct timer timer;
	unsigned count;
};

static void
set_again(void *arg)
{
	struct again *again = arg;

	again->count++;
	timer_set(again->timers, &again->timer, 0);
}

/* A timer that arms itself for "now" cannot hold the loop beyond the limit. */
static void
test_self_arming(void **state)
{
	struct timers timers;
	struct again again = { .timers = &timers };

	(void)state;
	timers_init(&timers, 0);
	timer_init(&again.timer, set_again, &again);
	timer_set(&timers, &again.timer, 0);
	assert_int_equal(timers_run(&timers, 0, 7), 7);
	assert_int_equal(again.count, 7);
	assert_true(timer_armed(&again.timer));
}

static void
free_it(void *arg)
{
	free(arg);
}

static void
test_free_in_handler(void **state)
{
	struct timer *timer = malloc(sizeof(*timer));
	struct timers timers;

	(void)state;
	assert_non_null(timer);
	timers_init(&timers, 0);
	timer_init(timer, free_it, timer);
	timer_set(&timers, timer, 1);
	assert_int_equal(timers_run(&timers, 1, 10), 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_limit_and_clock),
		cmocka_unit_test(test_move_and_stop),
		cmocka_unit_test(test_against_model),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_self_arming),
		cmocka_unit_test(test_free_in_handler),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
