#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "tests/play/play.h"
static void
handshake(void **state)
{
	struct play *play = play_new(1);
	struct gateway *left, *right;
	(void)state;
	play_pair(play, &left, &right, KEYEX_IKEV2);
	assert_int_equal(gateway_up(left, "net", 0), OK);
	play_run(play, 3000);
	assert_true(play_settled(left, right, 1, 1));
	assert_true(play_traffic(left, right, "10.1.0.1", "10.2.0.1"));
	play_free(play);
}
int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(handshake) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
