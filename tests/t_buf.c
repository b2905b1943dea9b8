#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"

static void
test_take(void **state)
{
	const uint8_t octets[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
	struct view view = view_of(octets, sizeof(octets)), taken;
	uint64_t u64;
	uint32_t u32;
	uint16_t u16;
	uint8_t u8, copy[4];

	(void)state;
	assert_true(view_u8(&view, &u8));
	assert_int_equal(u8, 1);
	assert_true(view_u64(&view, &u64));
	assert_true(u64 == 0x0203040506070809ULL);
	assert_int_equal(view.len, 0);
	assert_false(view_u8(&view, &u8));
	assert_true(view_take(&view, 0, &taken));

	view = view_of(octets, sizeof(octets));
	assert_true(view_u16(&view, &u16));
	assert_int_equal(u16, 0x0102);
	assert_true(view_u32(&view, &u32));
	assert_int_equal(u32, 0x03040506);
	assert_true(view_copy(&view, copy, 2));
	assert_memory_equal(copy, octets + 6, 2);
	assert_int_equal(view.len, 1);
	assert_true(view_skip(&view, 1));
	assert_false(view_skip(&view, 1));
}

/* A failed take changes neither the view nor what it should have filled. */
static void
test_take_too_much(void **state)
{
	const uint8_t octets[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	uint64_t u64 = 77;
	uint32_t u32 = 77;
	uint16_t u16 = 77;
	uint8_t copy[8] = { 0 };

	(void)state;
	for (size_t len = 0; len <= 8; len++) {
		struct view view = view_of(octets, len), before = view, taken;

		assert_false(view_take(&view, len + 1, &taken));
		assert_false(view_take(&view, SIZE_MAX, &taken));
		assert_false(view_copy(&view, copy, len + 1));
		if (len < 8)
			assert_false(view_u64(&view, &u64));
		if (len < 4)
			assert_false(view_u32(&view, &u32));
		if (len < 2)
			assert_false(view_u16(&view, &u16));
		assert_ptr_equal(view.at, before.at);
		assert_int_equal(view.len, before.len);
	}
	assert_int_equal(u64, 77);
	assert_int_equal(u32, 77);
	assert_int_equal(u16, 77);
	assert_int_equal(copy[0], 0);
}

static void
test_empty(void **state)
{
	struct view none = view_of(NULL, 0), taken;
	struct buf buf;

	(void)state;
	assert_true(view_take(&none, 0, &taken));
	assert_true(view_equal(none, view_of("", 0)));
	assert_true(view_equal(view_text("ab"), view_of("abc", 2)));
	assert_false(view_equal(view_text("ab"), view_text("ac")));
	assert_false(view_equal(view_text("ab"), view_text("abc")));
	buf_init(&buf, NULL, 0);
	buf_put(&buf, NULL, 0);
	buf_zero(&buf, 0);
	buf_view(&buf, none);
	assert_false(buf.full);
	buf_u8(&buf, 1);
	assert_true(buf.full);
}

static void
test_write(void **state)
{
	uint8_t octets[20];
	const uint8_t expected[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
		14, 15, 0, 0, 'a', 'b' };
	struct buf buf;

	(void)state;
	memset(octets, 0xee, sizeof(octets));
	buf_init(&buf, octets, sizeof(expected));
	buf_u8(&buf, 1);
	buf_u16(&buf, 0x0203);
	buf_u32(&buf, 0x04050607);
	buf_u64(&buf, 0x08090a0b0c0d0e0fULL);
	buf_zero(&buf, 2);
	buf_view(&buf, view_text("ab"));
	assert_false(buf.full);
	assert_true(
	    view_equal(buf_done(&buf), view_of(expected, sizeof(expected))));
	buf_patch_u16(&buf, 0, 0xfffe);
	buf_patch_u32(&buf, sizeof(expected) - 4, 0xaabbccdd);
	assert_int_equal(octets[0], 0xff);
	assert_int_equal(octets[1], 0xfe);
	assert_int_equal(octets[18], 0xdd);
	/* Beyond what was written: nothing. */
	buf_patch_u16(&buf, sizeof(expected) - 1, 0);
	buf_patch_u32(&buf, sizeof(expected) - 3, 0);
	buf_patch_u32(&buf, SIZE_MAX, 0);
	assert_int_equal(octets[18], 0xdd);
	assert_int_equal(octets[19], 0xee);
}

static void
test_overflow_is_sticky(void **state)
{
	uint8_t octets[4] = { 0 };
	struct buf buf;

	(void)state;
	buf_init(&buf, octets, 3);
	buf_u16(&buf, 0x0102);
	buf_u16(&buf, 0x0304);
	assert_true(buf.full);
	assert_int_equal(buf.len, 2);
	/* One octet would fit, but what came before it did not. */
	buf_u8(&buf, 5);
	assert_int_equal(buf.len, 2);
	assert_int_equal(octets[2], 0);
	assert_null(buf_room(&buf, 1));

	buf_init(&buf, octets, 3);
	assert_non_null(buf_room(&buf, 3));
	assert_false(buf.full);
	assert_null(buf_room(&buf, 1));
	buf_init(&buf, octets, 3);
	assert_null(buf_room(&buf, SIZE_MAX));
}

static void
test_escape(void **state)
{
	const uint8_t octets[] = { 'a', '"', '\\', '\n', 0xc3, 0x7f, '~', ' ' };
	struct view view = view_of(octets, sizeof(octets));
	char text[64];

	(void)state;
	assert_string_equal(
	    buf_escape(text, sizeof(text), view), "a\"\\x5c\\x0a\\xc3\\x7f~ ");
	assert_string_equal(buf_escape_json(text, sizeof(text), view),
	    "a\\u0022\\u005c\\u000a\\u00c3\\u007f~ ");
	assert_string_equal(
	    buf_hex(text, sizeof(text), view), "61225c0ac37f7e20");
	/* NUL is an octet like others, not the end. */
	assert_string_equal(
	    buf_escape(text, sizeof(text), view_of("\0b", 2)), "\\x00b");
	assert_string_equal(
	    buf_escape_json(text, sizeof(text), view_of("\0b", 2)), "\\u0000b");
}

/* Cut at every size: no escape is ever cut in two, nothing is written beyond. */
static void
test_escape_cut(void **state)
{
	const uint8_t octets[] = { 'a', 1, 'b', 2 };
	struct view view = view_of(octets, sizeof(octets));
	const char *const expected[] = { "", "a", "a", "a", "a", "a\\x01",
		"a\\x01b", "a\\x01b", "a\\x01b", "a\\x01b", "a\\x01b\\x02" };
	const char *const expected_hex[] = { "", "6", "61", "610", "6101" };

	(void)state;
	for (size_t size = 1; size <= 11; size++) {
		char text[12];

		memset(text, '!', sizeof(text));
		assert_string_equal(
		    buf_escape(text, size, view), expected[size - 1]);
		assert_int_equal(text[size], '!');
		if (size <= 5) {
			memset(text, '!', sizeof(text));
			assert_string_equal(
			    buf_hex(text, size, view), expected_hex[size - 1]);
			assert_int_equal(text[size], '!');
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_take),
		cmocka_unit_test(test_take_too_much),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_overflow_is_sticky),
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_escape_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
