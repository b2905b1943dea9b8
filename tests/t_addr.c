#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/addr.h"

static struct addr
addr(const char *text)
{
	struct addr value;

	assert_true(addr_parse(&value, text));
	return value;
}

static void
test_text(void **state)
{
	static const char *const good[] = { "0.0.0.0", "192.0.2.1",
		"255.255.255.255", "::", "2001:db8::1",
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" };
	static const char *const bad[] = { "", "1.2.3", "1.2.3.4.5",
		"1.2.3.256", "localhost", "1.2.3.4 ", " 1.2.3.4",
		":::", "1::2::3", "fe80::1%eth0", "[::1]", "0x7f.1",
		"1.2.3.4/24" };
	char text[ADDR_TEXT];
	struct addr none = { 0 }, value;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		value = addr(good[i]);
		assert_string_equal(addr_text(&value, text), good[i]);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(addr_parse(&value, bad[i]));
	assert_string_equal(addr_text(&none, text), "none");
}

static void
test_values(void **state)
{
	struct addr v4 = addr("192.0.2.1"), v6 = addr("2001:db8::1"), none;
	struct addr other;

	(void)state;
	memset(&none, 0, sizeof(none));
	assert_int_equal(addr_len(&none), 0);
	assert_int_equal(addr_len(&v4), 4);
	assert_int_equal(addr_len(&v6), 16);
	assert_int_equal(addr_view(&v4).len, 4);
	assert_true(addr_from_view(&other, addr_view(&v4)));
	assert_true(addr_equal(&v4, &other));
	assert_true(addr_from_view(&other, addr_view(&v6)));
	assert_true(addr_equal(&v6, &other));
	for (size_t len = 0; len <= 17; len++)
		assert_int_equal(
		    addr_from_view(&other, view_of("0123456789abcdefg", len)),
		    len == 4 || len == 16);
	assert_true(addr_equal(&none, &none));
	assert_false(addr_equal(&none, &v4));
	assert_false(addr_equal(&v4, &v6));
	other = addr("192.0.2.2");
	assert_true(addr_compare(&v4, &other) < 0);
	assert_true(addr_compare(&other, &v4) > 0);
	other = addr("0.0.0.0");
	assert_true(addr_is_any(&other));
	other = addr_any(ADDR_V6);
	assert_true(addr_is_any(&other));
	assert_int_equal(other.family, ADDR_V6);
	assert_true(addr_is_any(&none));
	assert_false(addr_is_any(&v4));
}

static void
check_range(
    const char *text, unsigned bits, const char *first, const char *last)
{
	struct addr value = addr(text), low, high;
	char low_text[ADDR_TEXT], high_text[ADDR_TEXT];

	addr_prefix_range(&value, bits, &low, &high);
	assert_string_equal(addr_text(&low, low_text), first);
	assert_string_equal(addr_text(&high, high_text), last);
	assert_int_equal(addr_range_prefix(&low, &high), bits);
}

static void
test_ranges(void **state)
{
	struct addr a = addr("10.0.0.0"), b = addr("10.0.0.2");
	struct addr v6 = addr("2001:db8::1"), low, high;

	(void)state;
	check_range("10.1.2.3", 0, "0.0.0.0", "255.255.255.255");
	check_range("10.1.2.3", 1, "0.0.0.0", "127.255.255.255");
	check_range("10.1.2.3", 8, "10.0.0.0", "10.255.255.255");
	check_range("10.1.2.3", 23, "10.1.2.0", "10.1.3.255");
	check_range("10.1.2.3", 31, "10.1.2.2", "10.1.2.3");
	check_range("10.1.2.3", 32, "10.1.2.3", "10.1.2.3");
	check_range(
	    "2001:db8::1", 64, "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff");
	check_range("2001:db8::1", 127, "2001:db8::", "2001:db8::1");
	check_range("2001:db8::1", 128, "2001:db8::1", "2001:db8::1");
	check_range(
	    "2001:db8::1", 0, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
	assert_int_equal(addr_range_prefix(&a, &b), -1);
	assert_int_equal(addr_range_prefix(&b, &a), -1);
	assert_int_equal(addr_range_prefix(&a, &v6), -1);
	for (unsigned bits = 0; bits <= 128; bits++) {
		addr_prefix_range(&v6, bits, &low, &high);
		assert_int_equal(addr_range_prefix(&low, &high), bits);
		assert_true(addr_compare(&low, &v6) <= 0);
		assert_true(addr_compare(&high, &v6) >= 0);
	}
}

static void
test_next(void **state)
{
	struct addr value = addr("10.0.255.255"), expected = addr("10.1.0.0");
	struct addr none = { 0 };

	(void)state;
	assert_true(addr_next(&value));
	assert_true(addr_equal(&value, &expected));
	value = expected = addr("255.255.255.255");
	assert_false(addr_next(&value));
	assert_true(addr_equal(&value, &expected));
	value = addr("2001:db8::ffff");
	expected = addr("2001:db8::1:0");
	assert_true(addr_next(&value));
	assert_true(addr_equal(&value, &expected));
	assert_false(addr_next(&none));
}

static void
test_endpoints(void **state)
{
	static const char *const texts[] = { "192.0.2.1", "2001:db8::1" };
	struct sockaddr_storage storage;
	struct sockaddr *generic = (struct sockaddr *)&storage;
	struct endpoint endpoint = { .port = 4500 }, back;
	char text[ENDPOINT_TEXT];
	unsigned len;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		endpoint.addr = addr(texts[i]);
		len = endpoint_to_sockaddr(&endpoint, &storage);
		assert_true(len > 0);
		assert_true(endpoint_from_sockaddr(&back, generic, len));
		assert_true(endpoint_equal(&endpoint, &back));
		assert_false(endpoint_from_sockaddr(&back, generic, len - 1));
		back.port++;
		assert_false(endpoint_equal(&endpoint, &back));
	}
	assert_string_equal(
	    endpoint_text(&endpoint, text), "[2001:db8::1]:4500");
	endpoint.addr = addr("255.255.255.255");
	endpoint.port = 65535;
	assert_string_equal(
	    endpoint_text(&endpoint, text), "255.255.255.255:65535");
	endpoint.addr = addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
	assert_string_equal(endpoint_text(&endpoint, text),
	    "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");

	/* What a socket for both families says of an IPv4 peer. */
	endpoint.addr = addr("::ffff:192.0.2.1");
	len = endpoint_to_sockaddr(&endpoint, &storage);
	assert_true(endpoint_from_sockaddr(&back, generic, len));
	endpoint.addr = addr("192.0.2.1");
	assert_true(endpoint_equal(&endpoint, &back));

	memset(&endpoint, 0, sizeof(endpoint));
	assert_int_equal(endpoint_to_sockaddr(&endpoint, &storage), 0);
	storage.ss_family = AF_UNIX;
	assert_false(
	    endpoint_from_sockaddr(&back, generic, sizeof(struct sockaddr_un)));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_next),
		cmocka_unit_test(test_endpoints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
