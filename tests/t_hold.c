#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/hold.h"

/* What came back: the first octet of each packet. */
struct taken {
	uint8_t first[HOLD_MAX + 1];
	size_t count;
	uint8_t refused; /* the one that has to wait on; 0: none */
};

static bool
take(void *arg, const uint8_t *octets, size_t len)
{
	struct taken *taken = arg;

	assert_true(len > 0 && taken->count < sizeof(taken->first));
	if (octets[0] == taken->refused)
		return false;
	taken->first[taken->count++] = octets[0];
	return true;
}

static void
keep(struct hold *hold, const void *owner, uint8_t first, size_t len,
    uint64_t now_ms)
{
	uint8_t octets[HOLD_OCTETS + 1];

	memset(octets, first, len);
	hold_keep(hold, owner, octets, len, now_ms);
}

static void
releases(void **state)
{
	struct hold *hold = hold_new();
	struct taken taken = { .refused = 2 };
	char owners[4];

	(void)state;
	assert_non_null(hold);
	keep(hold, &owners[0], 1, 100, 1000);
	keep(hold, &owners[1], 2, 100, 1000);
	keep(hold, &owners[2], 3, 100, 1001);
	keep(hold, &owners[3], 4, 100, 1001);
	keep(hold, &owners[0], 5, 100, 1002); /* has one */
	hold_forget(hold, &owners[3]);
	hold_release(hold, 1003, take, &taken);
	assert_int_equal(taken.count, 2);
	assert_int_equal(taken.first[0], 1);
	assert_int_equal(taken.first[1], 3);
	taken.refused = 0;
	hold_release(hold, 1003, take, &taken);
	assert_int_equal(taken.count, 3);
	assert_int_equal(taken.first[2], 2);
	hold_release(hold, 1003, take, &taken);
	assert_int_equal(taken.count, 3);
	hold_free(hold);
}

static void
bounds(void **state)
{
	struct hold *hold = hold_new();
	struct taken taken = { .refused = 0 };
	char owners[HOLD_MAX + 1];
	size_t i;

	(void)state;
	assert_non_null(hold);
	keep(hold, &owners[0], 1, HOLD_OCTETS + 1, 0);
	hold_release(hold, 0, take, &taken);
	assert_int_equal(taken.count, 0);
	keep(hold, &owners[0], 1, HOLD_OCTETS, 0);
	for (i = 1; i <= HOLD_MAX; i++)
		keep(hold, &owners[i], 2, 20, 1);
	/* The first is too old, and left no room in time for the last. */
	hold_release(hold, HOLD_MS, take, &taken);
	assert_int_equal(taken.count, HOLD_MAX - 1);
	assert_int_equal(taken.first[0], 2);
	keep(hold, &owners[0], 1, 20, HOLD_MS);
	hold_free(hold);
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
