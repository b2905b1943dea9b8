#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/lex.h"

static struct lex_item item;

/* All items of a text, in one line. */
static const char *
lex(enum dialect dialect, struct view text)
{
	static char out[20000];
	static const char *const kinds[] = { "end", "section", "include", "set",
		"bad" };
	struct lex_cursor cursor;
	size_t used = 0;

	lex_begin(&cursor, text);
	out[0] = '\0';
	do {
		lex_next(&cursor, dialect, &item);
		used += (size_t)snprintf(out + used, sizeof out - used,
		    "%s%s@%u:%u", used > 0 ? " " : "", kinds[item.kind],
		    item.line, item.column);
		if (item.kind == LEX_SETTING || item.kind == LEX_SECTION ||
		    item.kind == LEX_INCLUDE)
			used += (size_t)snprintf(out + used, sizeof out - used,
			    "<%s|%s>", item.key, item.value);
		assert_true(used < sizeof out);
	} while (item.kind != LEX_END);
	return out;
}

#define STRONG(text, expected)                                                 \
	assert_string_equal(lex(DIALECT_STRONGSWAN, view_text(text)), expected)
#define LIBRE(text, expected)                                                  \
	assert_string_equal(lex(DIALECT_LIBRESWAN, view_text(text)), expected)

static void
test_items(void **state)
{
	(void)state;
	STRONG("", "end@1:1");
	STRONG("\xef\xbb\xbf# only\n\n  \n", "end@4:1");
	STRONG("config setup\n\tuniqueids=no\nconn a\n  left = 10.0.0.1 # us\n",
	    "section@1:1<config|setup> set@2:2<uniqueids|no> "
	    "section@3:1<conn|a> set@4:3<left|10.0.0.1> end@5:1");
	STRONG("include /etc/x/*.conf # all\r\ninclude \"a b\"",
	    "include@1:1<include|/etc/x/*.conf> include@2:1<include|a b> "
	    "end@2:14");
	STRONG("conn\nversion 2\n",
	    "section@1:1<conn|> section@2:1<version|2> end@3:1");
	STRONG("  conn indented\n", "section@1:3<conn|indented> end@2:1");
	STRONG("a=1", "set@1:1<a|1> end@1:4");
	STRONG(" a=\n b= \n", "set@1:2<a|> set@2:2<b|> end@3:1");
}

static void
test_strongswan_values(void **state)
{
	(void)state;
	STRONG(" a= one   two\tthree \n", "set@1:2<a|one two three> end@2:1");
	STRONG(" a=\"one   two\"\n", "set@1:2<a|one   two> end@2:1");
	STRONG(" a=\"q\\\"q\\\\\\n\"\n", "set@1:2<a|q\"q\\\n> end@2:1");
	STRONG(" a=\"one\\\ntwo\"\n", "set@1:2<a|onetwo> end@3:1");
	STRONG(" a=x#y\n", "set@1:2<a|x> end@2:1");
	STRONG(" a=@#0bad # c\n", "set@1:2<a|@#0bad> end@2:1");
	STRONG(" a=\"x#y\"#z\n", "set@1:2<a|x#y> end@2:1");
	STRONG(" a=b=c\n", "set@1:2<a|b=c> end@2:1");
	STRONG(" a=x\"y z\"w\n", "set@1:2<a|xy zw> end@2:1");
	STRONG(" a=caf\xc3\xa9\n", "set@1:2<a|caf\xc3\xa9> end@2:1");
}

static void
test_libreswan_values(void **state)
{
	(void)state;
	LIBRE(" a=x#y # c\n", "set@1:2<a|x#y> end@2:1");
	LIBRE(" a={x y}\n", "set@1:2<a|x y> end@2:1");
	LIBRE(" a=\"x\\\" # c\n", "set@1:2<a|x\\> end@2:1");
	LIBRE(" a=x y\n b=1\n", "bad@1:6 set@2:2<b|1> end@3:1");
	LIBRE(" a={x y\n b=1\n", "bad@1:4 set@2:2<b|1> end@3:1");
}

static void
test_bad_lines(void **state)
{
	(void)state;
	STRONG(" a=\"open\n b=1\n", "bad@1:4 set@2:2<b|1> end@3:1");
	STRONG(" a=x \"open\n b=1\n", "bad@1:6 set@2:2<b|1> end@3:1");
	STRONG(" =1\n b=1\n", "bad@1:2 set@2:2<b|1> end@3:1");
	STRONG(" word\n b=1\n", "bad@1:2 set@2:2<b|1> end@3:1");
	STRONG("conn a b\n b=1\n", "bad@1:1 set@2:2<b|1> end@3:1");
	STRONG(" a=x\001y\n b=1\n", "bad@1:5 set@2:2<b|1> end@3:1");
	STRONG("\001\n b=1\n", "bad@1:1 set@2:2<b|1> end@3:1");
	STRONG(" a=\"\\", "bad@1:4 end@1:6");
	assert_string_equal(
	    lex(DIALECT_STRONGSWAN, view_of(" a=x\0y\n b=1\n", 12)),
	    "bad@1:5 set@2:2<b|1> end@3:1");
}

/* The longest value and key, and one octet more. */
static void
test_lengths(void **state)
{
	static char text[LEX_VALUE + 20];

	(void)state;
	for (size_t len = LEX_VALUE - 2; len <= LEX_VALUE; len++) {
		struct lex_cursor cursor;

		memcpy(text, " a=", 3);
		memset(text + 3, 'v', len);
		lex_begin(&cursor, view_of(text, 3 + len));
		lex_next(&cursor, DIALECT_STRONGSWAN, &item);
		assert_int_equal(
		    item.kind, len < LEX_VALUE ? LEX_SETTING : LEX_BAD);
		if (item.kind == LEX_SETTING) {
			assert_int_equal(strlen(item.value), len);
			assert_int_equal(item.at[len].column, 4 + len);
		}
		memset(text, 'k', len);
		memcpy(text + len, "=1", 2);
		lex_begin(&cursor, view_of(text, len + 2));
		lex_next(&cursor, DIALECT_STRONGSWAN, &item);
		assert_int_equal(
		    item.kind, len < LEX_VALUE ? LEX_SETTING : LEX_BAD);
	}
}

static void
test_columns(void **state)
{
	struct lex_cursor cursor;

	(void)state;
	lex_begin(&cursor, view_text(" key =  ab \"c\\\nd\"  e\n"));
	lex_next(&cursor, DIALECT_STRONGSWAN, &item);
	assert_string_equal(item.value, "ab cd e");
	assert_int_equal(item.at[0].column, 9);
	assert_int_equal(item.at[1].column, 10);
	assert_int_equal(item.at[3].column, 13);
	assert_int_equal(item.at[4].line, 2);
	assert_int_equal(item.at[4].column, 1);
	assert_int_equal(item.at[6].column, 5);
}

static void
test_distance(void **state)
{
	(void)state;
	assert_int_equal(lex_distance("leftsubnet", "leftSubnet"), 0);
	assert_int_equal(lex_distance("leftsubent", "leftsubnet"), 1);
	assert_int_equal(lex_distance("lefsubnet", "leftsubnet"), 1);
	assert_int_equal(lex_distance("leftsubnets", "leftsubnet"), 1);
	assert_int_equal(lex_distance("", "abc"), 3);
	assert_int_equal(lex_distance("kitten", "sitting"), 3);
	assert_true(lex_distance(
	                "0123456789012345678901234567890123456789", "x") <= 31);
}

/* Whatever the octets: every call moves on, and the end is reached. */
static void
test_hostile(void **state)
{
	static const char pieces[] = "conigl \t\n\r=\"\\{}#@%\x01\xff";
	uint32_t seed = 7;

	(void)state;
	for (size_t round = 0; round < 4000; round++) {
		uint8_t text[80];
		size_t len = round % sizeof text, items = 0;
		struct lex_cursor cursor;

		for (size_t i = 0; i < len; i++) {
			seed = seed * 1664525u + 1013904223u;
			text[i] = (uint8_t)pieces[(seed >> 16) % sizeof pieces];
		}
		lex_begin(&cursor, view_of(text, len));
		do {
			lex_next(&cursor,
			    round % 2 == 0 ? DIALECT_STRONGSWAN
			                   : DIALECT_LIBRESWAN,
			    &item);
			assert_true(++items <= len + 1);
			assert_true(
			    memchr(item.value, '\0', LEX_VALUE) != NULL);
		} while (item.kind != LEX_END);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_items),
		cmocka_unit_test(test_strongswan_values),
		cmocka_unit_test(test_libreswan_values),
		cmocka_unit_test(test_bad_lines),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_columns),
		cmocka_unit_test(test_distance),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
