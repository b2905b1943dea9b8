#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/ts.h"

static struct ts
ts(const char *text)
{
	const char *problem = NULL;
	struct ts value;

	if (ts_parse(&value, text, &problem) != OK)
		fail_msg("%s: %s", text, problem);
	assert_true(ts_valid(&value));
	return value;
}

/* A list from text with single spaces. */
static struct ts_list
list(const char *text)
{
	struct ts_list list = { .count = 0 };
	char copy[1024], *rest = copy, *word;

	snprintf(copy, sizeof(copy), "%s", text);
	while ((word = strtok_r(rest, " ", &rest)) != NULL) {
		struct ts value = ts(word);

		assert_int_equal(ts_list_add(&list, &value), OK);
	}
	return list;
}

static struct addr
addr(const char *text)
{
	struct addr value;

	assert_true(addr_parse(&value, text));
	return value;
}

static void
test_parse(void **state)
{
	static const char *const rows[][2] = {
		{ "10.0.0.0/8", "10.0.0.0/8" },
		{ "10.1.2.3/8", "10.0.0.0/8" },
		{ "10.1.2.3", "10.1.2.3/32" },
		{ "0.0.0.0/0", "0.0.0.0/0" },
		{ "::/0", "::/0" },
		{ "2001:db8::1", "2001:db8::1/128" },
		{ "10.1.1.1-10.1.1.9", "10.1.1.1-10.1.1.9" },
		{ "10.1.1.0-10.1.1.255", "10.1.1.0/24" },
		{ "%dynamic", "%dynamic" },
		{ "%dynamic[17/1701]", "%dynamic[udp/1701]" },
		{ "[udp/l2tp]", "%dynamic[udp/1701]" },
		{ "10.0.0.0/8[tcp/80]", "10.0.0.0/8[tcp/80]" },
		{ "10.0.0.0/8[6/http]", "10.0.0.0/8[tcp/80]" },
		{ "10.0.0.0/8[TCP]", "10.0.0.0/8[tcp]" },
		{ "10.0.0.0/8[tcp/%any]", "10.0.0.0/8[tcp]" },
		{ "10.0.0.0/8[tcp/1024-65535]", "10.0.0.0/8[tcp/1024-65535]" },
		{ "10.0.0.0/8[tcp/%opaque]", "10.0.0.0/8[tcp/%opaque]" },
		{ "10.0.0.0/8[udp/ipsec-nat-t]", "10.0.0.0/8[udp/4500]" },
		{ "10.0.0.0/8[/53]", "10.0.0.0/8[%any/53]" },
		{ "10.0.0.0/8[%any/53]", "10.0.0.0/8[%any/53]" },
		{ "10.0.0.0/8[0]", "10.0.0.0/8" },
		{ "10.0.0.0/8[255]", "10.0.0.0/8[255]" },
		/* ICMP: below 256 a type with all codes, above both. */
		{ "10.0.0.0/8[icmp/8]", "10.0.0.0/8[icmp/8]" },
		{ "10.0.0.0/8[icmp/2048-2303]", "10.0.0.0/8[icmp/8]" },
		{ "10.0.0.0/8[icmp/2049]", "10.0.0.0/8[icmp/2049]" },
		{ "10.0.0.0/8[icmp/3-3]", "10.0.0.0/8[icmp/3-3]" },
		{ "::/0[ipv6-icmp]", "::/0[ipv6-icmp]" },
	};
	char text[TS_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ts value = ts(rows[i][0]), again;

		assert_string_equal(ts_text(&value, text), rows[i][1]);
		again = ts(text);
		assert_true(ts_equal(&value, &again));
	}
}

static void
test_parse_errors(void **state)
{
	static const char *const bad[] = { "", "10.0.0.0/33", "::/129",
		"10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8x", "10.0.0/8",
		"10.0.0.9-10.0.0.1", "10.0.0.1-", "10.0.0.1-::1",
		"10.0.0.1-10.0.0.9-10.0.0.12", "host", "10.0.0.0/8[tcp/80",
		"10.0.0.0/8]", "10.0.0.0/8[tcp]x", "10.0.0.0/8[]",
		"10.0.0.0/8[256]", "10.0.0.0/8[nothing]",
		"10.0.0.0/8[tcp/65536]", "10.0.0.0/8[tcp/]",
		"10.0.0.0/8[tcp/9-1]", "10.0.0.0/8[tcp/x-y]", "%any",
		"10.0.0.0/8[tcp/80/90]", "10.0.0.0/8[tcp/99999999999999]" };
	char longest[TS_TEXT + 1];
	const char *problem;
	struct ts value;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		problem = NULL;
		if (ts_parse(&value, bad[i], &problem) != ERR_SYNTAX)
			fail_msg("'%s' was taken", bad[i]);
		assert_non_null(strstr(problem, "expected"));
	}
	for (size_t len = TS_TEXT - 1; len <= TS_TEXT; len++) {
		memset(longest, '0', len);
		longest[len] = '\0';
		assert_int_equal(
		    ts_parse(&value, longest, &problem), ERR_SYNTAX);
	}
}

static void
test_valid(void **state)
{
	struct ts value = ts("10.0.0.1-10.0.0.9");

	(void)state;
	value.last = addr("10.0.0.0");
	assert_false(ts_valid(&value));
	value.last = addr("::1");
	assert_false(ts_valid(&value));
	value = ts("10.0.0.0/8[tcp/80]");
	value.first_port = 81;
	assert_false(ts_valid(&value));
	value.first_port = 65535;
	assert_false(ts_valid(&value));
	value.last_port = 0; /* OPAQUE */
	assert_true(ts_valid(&value));
	memset(&value, 0, sizeof(value));
	assert_false(ts_valid(&value));
}

static void
test_algebra(void **state)
{
	static const char *const rows[][3] = {
		{ "10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16" },
		{ "10.0.0.0/8", "192.168.0.0/16", NULL },
		{ "10.0.0.0/8", "::/0", NULL },
		{ "10.0.0.0-10.0.0.9", "10.0.0.5-10.0.0.20",
		    "10.0.0.5-10.0.0.9" },
		{ "10.0.0.0-10.0.0.9", "10.0.0.9-10.0.0.20", "10.0.0.9/32" },
		{ "10.0.0.0-10.0.0.9", "10.0.0.10-10.0.0.20", NULL },
		{ "10.0.0.0/8[tcp]", "10.0.0.0/8", "10.0.0.0/8[tcp]" },
		{ "10.0.0.0/8[tcp]", "10.0.0.0/8[udp]", NULL },
		{ "10.0.0.0/8[tcp/80]", "10.0.0.0/8[tcp]",
		    "10.0.0.0/8[tcp/80]" },
		{ "10.0.0.0/8[tcp/80-90]", "10.0.0.0/8[tcp/85-99]",
		    "10.0.0.0/8[tcp/85-90]" },
		{ "10.0.0.0/8[tcp/80]", "10.0.0.0/8[tcp/81]", NULL },
		/* RFC 4301 4.4.1.1: ANY includes OPAQUE, ranges do not. */
		{ "10.0.0.0/8[tcp/%opaque]", "10.0.0.0/8",
		    "10.0.0.0/8[tcp/%opaque]" },
		{ "10.0.0.0/8[tcp/%opaque]", "10.0.0.0/8[tcp/%opaque]",
		    "10.0.0.0/8[tcp/%opaque]" },
		{ "10.0.0.0/8[tcp/%opaque]", "10.0.0.0/8[tcp/0-65534]", NULL },
		/* What it stands for is not known here. */
		{ "%dynamic", "10.0.0.0/8", NULL },
	};
	char text[TS_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ts a = ts(rows[i][0]), b = ts(rows[i][1]), common;
		bool any = ts_intersect(&a, &b, &common);

		assert_int_equal(any, rows[i][2] != NULL);
		assert_int_equal(ts_intersect(&b, &a, &common), any);
		if (!any)
			continue;
		assert_string_equal(ts_text(&common, text), rows[i][2]);
		assert_true(ts_within(&common, &a));
		assert_true(ts_within(&common, &b));
		assert_int_equal(ts_within(&a, &b), ts_equal(&a, &common));
		assert_int_equal(ts_within(&b, &a), ts_equal(&b, &common));
	}
}

static void
test_contains_and_resolve(void **state)
{
	struct ts web = ts("10.0.0.0/8[tcp/80-81]"), all = ts("10.0.0.0/8");
	struct ts dynamic = ts("%dynamic[udp/1701]"), opaque, host;
	struct addr in = addr("10.255.255.255"), out = addr("11.0.0.0");
	struct addr v6 = addr("::1");
	char text[TS_TEXT];

	(void)state;
	assert_true(ts_contains(&web, &in, 6, 80));
	assert_true(ts_contains(&web, &in, 6, 81));
	assert_false(ts_contains(&web, &in, 6, 79));
	assert_false(ts_contains(&web, &in, 6, 82));
	assert_false(ts_contains(&web, &in, 17, 80));
	assert_false(ts_contains(&web, &out, 6, 80));
	assert_false(ts_contains(&web, &v6, 6, 80));
	assert_true(ts_contains(&all, &in, 1, 0));
	opaque = ts("10.0.0.0/8[tcp/%opaque]");
	assert_false(ts_contains(&opaque, &in, 6, 0));
	assert_false(ts_contains(&dynamic, &in, 17, 1701));
	host = ts_resolve(&dynamic, &in);
	assert_string_equal(
	    ts_text(&host, text), "10.255.255.255/32[udp/1701]");
	assert_true(ts_contains(&host, &in, 17, 1701));
	host = ts_resolve(&web, &out);
	assert_true(ts_equal(&host, &web));
	host = ts_from_addr(&v6);
	assert_string_equal(ts_text(&host, text), "::1/128");
}

static void
test_lists(void **state)
{
	struct ts_list a = list("10.0.0.0/8 192.168.0.0/16[tcp]"), b = a;
	struct ts_list inner = list("10.1.0.0/16 10.2.0.0/16");
	struct ts_list empty = { .count = 0 };
	char text[64];

	(void)state;
	assert_true(ts_list_equal(&a, &b));
	b.count--;
	assert_false(ts_list_equal(&a, &b));
	assert_true(ts_list_within(&inner, &a));
	assert_false(ts_list_within(&a, &inner));
	assert_true(ts_list_within(&empty, &inner));
	assert_string_equal(ts_list_text(&a, text, sizeof(text)),
	    "10.0.0.0/8 192.168.0.0/16[tcp]");
	assert_string_equal(
	    ts_list_text(&a, text, 31), "10.0.0.0/8 192.168.0.0/16[tcp]");
	assert_string_equal(ts_list_text(&a, text, 30), "10.0.0.0/8 ...");
	assert_string_equal(ts_list_text(&a, text, 15), "10.0.0.0/8 ...");
	assert_string_equal(ts_list_text(&a, text, 14), "...");
	assert_string_equal(ts_list_text(&a, text, 1), "");
	assert_string_equal(ts_list_text(&empty, text, sizeof(text)), "");
	while (a.count < TS_MAX)
		assert_int_equal(ts_list_add(&a, &inner.item[0]), OK);
	assert_int_equal(ts_list_add(&a, &inner.item[0]), ERR_LONG);
	assert_int_equal(a.count, TS_MAX);
}

static void
test_narrow(void **state)
{
	static const char *const rows[][3] = {
		/* offered, policy, result */
		{ "10.0.0.0/8", "10.0.0.0/8", "10.0.0.0/8" },
		{ "0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/8" },
		{ "10.1.0.0/16", "10.0.0.0/8", "10.1.0.0/16" },
		{ "192.168.0.0/16", "10.0.0.0/8", NULL },
		{ "0.0.0.0/0 ::/0", "::/0", "::/0" },
		{ "0.0.0.0/0 ::/0", "::/0 10.0.0.0/8", "10.0.0.0/8 ::/0" },
		{ "0.0.0.0/0", "10.1.0.0/16 10.2.0.0/16",
		    "10.1.0.0/16 10.2.0.0/16" },
		{ "10.1.0.0/16 10.2.0.0/16", "0.0.0.0/0",
		    "10.1.0.0/16 10.2.0.0/16" },
		/* The packet first: the part with it comes first. */
		{ "10.2.0.5/32[tcp/80] 10.0.0.0/8", "10.1.0.0/16 10.2.0.0/16",
		    "10.2.0.0/16 10.1.0.0/16" },
		{ "10.2.0.5/32 10.1.0.0/16 10.2.0.0/16", "0.0.0.0/0",
		    "10.2.0.0/16 10.1.0.0/16" },
		/* ... unless policy has no place for it. */
		{ "10.3.0.5/32 10.0.0.0/8", "10.1.0.0/16 10.2.0.0/16",
		    "10.1.0.0/16 10.2.0.0/16" },
		/* A single host of its own is no trigger. */
		{ "10.9.0.5/32 10.1.0.0/16", "10.0.0.0/8",
		    "10.9.0.5/32 10.1.0.0/16" },
		/* Nothing twice. */
		{ "10.0.0.0/8 10.0.0.0/8 10.1.0.0/16", "0.0.0.0/0",
		    "10.0.0.0/8" },
		{ "10.0.0.0/8[tcp/80]", "10.0.0.0/8[udp]", NULL },
	};
	char text[512];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ts_list offered = list(rows[i][0]), result = offered;
		struct ts_list policy = list(rows[i][1]);
		enum err err = ts_narrow(&offered, &policy, &result);

		assert_int_equal(err, rows[i][2] != NULL ? OK : ERR_TS);
		if (err != OK)
			continue;
		assert_string_equal(
		    ts_list_text(&result, text, sizeof(text)), rows[i][2]);
	}
}

/* Random lists: never wider than either, and nothing common is left out while
 * there is room. */
static void
test_narrow_is_a_subset(void **state)
{
	uint32_t chance = 4711;

	(void)state;
	for (unsigned round = 0; round < 3000; round++) {
		struct ts_list side[2], result;
		bool common = false;

		for (unsigned s = 0; s < 2; s++) {
			side[s].count = 0;
			chance = chance * 1664525 + 1013904223;
			for (unsigned n = 1 + (chance >> 24) % TS_MAX; n > 0;
			     n--) {
				struct ts value = ts("10.0.0.0/8");

				chance = chance * 1664525 + 1013904223;
				value.first.octets[3] =
				    (uint8_t)((chance >> 8) & 0x7f);
				value.last = value.first;
				value.last.octets[3] =
				    (uint8_t)(value.last.octets[3] +
				              ((chance >> 16) & 0x3f));
				value.proto = (chance >> 30) == 0 ? 6 : 0;
				(void)ts_list_add(&side[s], &value);
			}
		}
		for (uint8_t i = 0; i < side[0].count; i++) {
			for (uint8_t k = 0; k < side[1].count; k++) {
				struct ts part;

				if (ts_intersect(&side[0].item[i],
				        &side[1].item[k], &part))
					common = true;
			}
		}
		assert_int_equal(ts_narrow(&side[0], &side[1], &result),
		    common ? OK : ERR_TS);
		if (!common)
			continue;
		assert_true(ts_list_within(&result, &side[0]));
		assert_true(ts_list_within(&result, &side[1]));
		for (uint8_t i = 0; i < side[0].count && result.count < TS_MAX;
		     i++) {
			for (uint8_t k = 0; k < side[1].count; k++) {
				struct ts_list part = { .count = 1 };

				if (ts_intersect(&side[0].item[i],
				        &side[1].item[k], &part.item[0]))
					assert_true(
					    ts_list_within(&part, &result));
			}
		}
	}
}

static void
test_narrow_empty(void **state)
{
	struct ts_list empty = { .count = 0 }, all = list("0.0.0.0/0"), result;

	(void)state;
	assert_int_equal(ts_narrow(&empty, &all, &result), ERR_TS);
	assert_int_equal(ts_narrow(&all, &empty, &result), ERR_TS);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_parse_errors),
		cmocka_unit_test(test_valid),
		cmocka_unit_test(test_algebra),
		cmocka_unit_test(test_contains_and_resolve),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_narrow),
		cmocka_unit_test(test_narrow_is_a_subset),
		cmocka_unit_test(test_narrow_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
