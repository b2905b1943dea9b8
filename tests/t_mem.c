#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"

/* Asked by AddressSanitizer, where it is built in: memory may run out. */
const char *__asan_default_options(void);

const char *
__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

static void
test_secret(void **state)
{
	struct secret secret = { NULL, 0 }, other = { NULL, 0 };

	(void)state;
	secret_free(&secret);
	assert_int_equal(secret_new(&secret, 4), OK);
	assert_int_equal(secret.len, 4);
	assert_memory_equal(secret.octets, "\0\0\0\0", 4);
	assert_int_equal(secret_set(&secret, view_text("hello")), OK);
	assert_true(view_equal(secret_view(&secret), view_text("hello")));
	/* A part of itself. */
	assert_int_equal(
	    secret_set(&secret, view_of(secret.octets + 1, 3)), OK);
	assert_true(view_equal(secret_view(&secret), view_text("ell")));
	assert_int_equal(secret_set(&other, view_text("old")), OK);
	secret_move(&other, &secret);
	assert_int_equal(secret.len, 0);
	assert_null(secret.octets);
	assert_true(view_equal(secret_view(&other), view_text("ell")));
	secret_move(&other, &other);
	assert_int_equal(other.len, 3);
	assert_int_equal(secret_set(&other, view_of(NULL, 0)), OK);
	assert_int_equal(other.len, 0);
	secret_free(&other);
	secret_free(&other);
}

static void
test_secret_without_memory(void **state)
{
	struct secret secret = { NULL, 0 };

	(void)state;
	assert_int_equal(secret_set(&secret, view_text("key")), OK);
	/* What stood there before went first, as the contract says. */
	assert_int_equal(secret_new(&secret, PTRDIFF_MAX), ERR_NOMEM);
	assert_int_equal(secret.len, 0);
	assert_null(secret.octets);
	assert_int_equal(secret_new(&secret, 0), OK);
	secret_free(&secret);
}

static void
test_equal(void **state)
{
	(void)state;
	assert_true(mem_equal_secret(view_text("abc"), view_text("abc")));
	assert_true(mem_equal_secret(view_of(NULL, 0), view_text("")));
	assert_false(mem_equal_secret(view_text("abc"), view_text("abd")));
	assert_false(mem_equal_secret(view_text("bbc"), view_text("abc")));
	assert_false(mem_equal_secret(view_text("abc"), view_text("abcd")));
	assert_false(mem_equal_secret(view_of(NULL, 0), view_text("a")));
}

static void
test_wipe_and_dup(void **state)
{
	char octets[8] = "secrets";
	char *copy;

	(void)state;
	copy = mem_dup(octets, sizeof(octets));
	assert_non_null(copy);
	assert_string_equal(copy, "secrets");
	mem_wipe(octets + 1, 3);
	assert_memory_equal(octets, "s\0\0\0ets", 8);
	mem_wipe(NULL, 0);
	free(copy);
	copy = mem_dup(NULL, 0);
	assert_non_null(copy);
	free(copy);
}

static void
test_errors_have_words(void **state)
{
	(void)state;
	for (int err = OK; err < ERR_COUNT; err++) {
		const char *text = err_text((enum err)err);

		assert_non_null(text);
		assert_true(strlen(text) > 0);
		for (int other = OK; other < err; other++)
			assert_string_not_equal(
			    text, err_text((enum err)other));
	}
	assert_string_equal(err_text(ERR_COUNT), "unknown error");
	assert_string_equal(err_text((enum err) - 1), "unknown error");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_secret),
		cmocka_unit_test(test_secret_without_memory),
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_wipe_and_dup),
		cmocka_unit_test(test_errors_have_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
