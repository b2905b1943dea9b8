#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/hold.h"

/* What came back: the first octet of each packet. */
struct taken {
	struct hold *hold;
	uint8_t first[HOLD_MAX + 1];
	size_t count;
	uint64_t now_ms;
};

static void
take(void *arg, const uint8_t *octets, size_t len)
{
	struct taken *taken = arg;

	assert_true(len > 0 && taken->count < sizeof(taken->first));
	taken->first[taken->count++] = octets[0];
}

/* Keeps it at once, as the data plane does where no SA fits. */
static void
take_and_keep(void *arg, const uint8_t *octets, size_t len)
{
	struct taken *taken = arg;

	take(arg, octets, len);
	hold_keep(taken->hold, taken, 7, octets, len, taken->now_ms);
}

static void
keep(struct hold *hold, const void *owner, uint32_t reqid, uint8_t first,
    size_t len, uint64_t now_ms)
{
	uint8_t octets[HOLD_OCTETS + 1];

	memset(octets, first, len);
	hold_keep(hold, owner, reqid, octets, len, now_ms);
}

static void
releases(void **state)
{
	struct taken taken = { .hold = hold_new() };
	int a, b, c;

	(void)state;
	assert_non_null(taken.hold);
	keep(taken.hold, &a, 7, 1, 100, 1000);
	keep(taken.hold, &b, 8, 2, 100, 1000);
	keep(taken.hold, &c, 7, 3, 100, 1001);
	keep(taken.hold, &a, 7, 4, 100, 1002); /* has one */
	hold_release(taken.hold, 9, 1003, take, &taken);
	assert_int_equal(taken.count, 0);
	hold_release(taken.hold, 7, 1003, take_and_keep, &taken);
	assert_int_equal(taken.count, 2);
	assert_int_equal(taken.first[0], 1);
	assert_int_equal(taken.first[1], 3);
	/* Kept anew, by one owner: the first one. */
	hold_release(taken.hold, 7, 1003, take, &taken);
	assert_int_equal(taken.count, 3);
	assert_int_equal(taken.first[2], 1);
	hold_forget(taken.hold, &b);
	hold_release(taken.hold, 8, 1003, take, &taken);
	assert_int_equal(taken.count, 3);
	hold_free(taken.hold);
}

static void
bounds(void **state)
{
	struct taken taken = { .hold = hold_new() };
	char owners[HOLD_MAX + 1];
	size_t i;

	(void)state;
	assert_non_null(taken.hold);
	keep(taken.hold, &owners[0], 7, 1, HOLD_OCTETS + 1, 0);
	hold_release(taken.hold, 7, 0, take, &taken);
	assert_int_equal(taken.count, 0);
	keep(taken.hold, &owners[0], 7, 1, HOLD_OCTETS, 0);
	for (i = 1; i <= HOLD_MAX; i++)
		keep(taken.hold, &owners[i], 7, 2, 20, 1);
	/* The oldest is too old, and made no room in time for the last. */
	hold_release(taken.hold, 7, HOLD_MS, take, &taken);
	assert_int_equal(taken.count, HOLD_MAX - 1);
	assert_int_equal(taken.first[0], 2);
	keep(taken.hold, &owners[0], 7, 1, 20, HOLD_MS);
	hold_free(taken.hold);
	hold_free(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(releases),
		cmocka_unit_test(bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
