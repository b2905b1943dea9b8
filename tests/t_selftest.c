#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "common/selftest.h"

static void
report(const struct alg *alg, void *arg)
{
	unsigned *failures = arg;

	(void)alg;
	(*failures)++;
}

static void
test_all_rows_pass(void **state)
{
	struct alg_set usable = { 0 };
	unsigned failures = 0;

	(void)state;
	selftest_run(&usable, report, &failures);
	assert_int_equal(failures, 0);
	for (int id = 1; id < ALG_COUNT; id++)
		assert_true(alg_set_has(&usable, alg_get((enum alg_id)id)));
	/* Nothing besides the rows, and no report needed. */
	assert_true(usable.bits >> ALG_COUNT == 0);
	assert_true((usable.bits & 1) == 0);
	selftest_run(&usable, NULL, NULL);
	assert_true(alg_set_has(&usable, alg_get(ALG_AES128_CBC)));
}

/* A library that has nothing of what is asked for: every row fails, and each
 * is reported. In a process of its own, before anything was fetched there. */
static void
test_nothing_passes(void **state)
{
	pid_t child = fork();
	int status;

	(void)state;
	assert_true(child >= 0);
	if (child == 0) {
		struct alg_set usable = { ~(uint64_t)0 };
		unsigned failures = 0;

		if (EVP_set_default_properties(NULL, "provider=none") != 1)
			_exit(2);
		selftest_run(&usable, report, &failures);
		_exit(usable.bits == 0 && failures == ALG_COUNT - 1 ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_passes),
		cmocka_unit_test(test_all_rows_pass),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
