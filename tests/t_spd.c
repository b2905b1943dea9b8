#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/spd.h"

#define MANY 2000

static struct ts
ts(const char *text)
{
	const char *problem = NULL;
	struct ts ts;

	assert_int_equal(ts_parse(&ts, text, &problem), OK);
	return ts;
}

static struct spd_policy *
add(struct spd *spd, const char *src, const char *dst)
{
	struct spd_policy *policy = calloc(1, sizeof(*policy));

	assert_non_null(policy);
	policy->src = ts(src);
	policy->dst = ts(dst);
	assert_int_equal(spd_add(spd, policy), OK);
	return policy;
}

static void
gone(struct spd_policy *policy)
{
	free(policy);
}

/* A packet as selectors see it; ports -1: it has none. */
static struct inner
packet(
    const char *src, const char *dst, uint8_t proto, int src_port, int dst_port)
{
	struct inner inner;

	memset(&inner, 0, sizeof(inner));
	assert_true(addr_parse(&inner.src, src));
	assert_true(addr_parse(&inner.dst, dst));
	inner.version = inner.src.family;
	inner.proto = proto;
	inner.has_ports = src_port >= 0;
	if (inner.has_ports) {
		inner.src_port = (uint16_t)src_port;
		inner.dst_port = (uint16_t)dst_port;
	}
	return inner;
}

static struct spd_policy *
match(struct spd *spd, const char *src, const char *dst, uint8_t proto,
    int src_port, int dst_port)
{
	struct inner inner = packet(src, dst, proto, src_port, dst_port);

	return spd_match(spd, &inner);
}

static void
most_specific_first(void **state)
{
	struct spd *spd = spd_new();
	struct spd_policy *all, *net, *host, *web, *web_port;

	(void)state;
	assert_non_null(spd);
	all = add(spd, "10.1.0.0/16", "0.0.0.0/0");
	host = add(spd, "10.1.0.0/16", "10.2.0.9/32");
	net = add(spd, "10.1.0.0/16", "10.2.0.0/24");
	web = add(spd, "10.1.0.0/16[tcp]", "10.2.0.0/24[tcp]");
	web_port = add(spd, "10.1.0.0/16[tcp]", "10.2.0.0/24[tcp/80]");
	assert_int_equal(spd_shapes(spd), 3);
	assert_ptr_equal(match(spd, "10.1.2.3", "8.8.8.8", 17, 5, 6), all);
	assert_ptr_equal(match(spd, "10.1.2.3", "10.2.0.9", 6, 5, 80), host);
	assert_ptr_equal(match(spd, "10.1.2.3", "10.2.0.8", 17, 5, 80), net);
	assert_ptr_equal(match(spd, "10.1.2.3", "10.2.0.8", 6, 5, 81), web);
	assert_ptr_equal(
	    match(spd, "10.1.2.3", "10.2.0.8", 6, 5, 80), web_port);
	/* RFC 4301 4.4.1.1: no ports, no selector with ports. */
	assert_ptr_equal(match(spd, "10.1.2.3", "10.2.0.8", 6, -1, 0), web);
	assert_null(match(spd, "10.3.2.3", "10.2.0.8", 6, 5, 80));
	assert_null(match(spd, "2001:db8::1", "2001:db8::2", 6, 5, 80));
	spd_remove(spd, web_port);
	free(web_port);
	assert_ptr_equal(match(spd, "10.1.2.3", "10.2.0.8", 6, 5, 80), web);
	spd_remove(spd, host);
	free(host);
	assert_int_equal(spd_shapes(spd), 2);
	assert_ptr_equal(match(spd, "10.1.2.3", "10.2.0.9", 17, 5, 80), net);
	spd_free(spd, gone);
}

/* A range lies in the least prefix around it. */
static void
ranges(void **state)
{
	struct spd *spd = spd_new();
	struct spd_policy *range =
	    add(spd, "10.1.0.250-10.1.1.5", "2.0.0.1-2.0.0.2");
	struct ts src = range->src, dst = range->dst;

	(void)state;
	assert_ptr_equal(match(spd, "10.1.0.250", "2.0.0.1", 1, 0, 0), range);
	assert_ptr_equal(match(spd, "10.1.1.5", "2.0.0.2", 1, 0, 0), range);
	assert_null(match(spd, "10.1.0.249", "2.0.0.1", 1, 0, 0));
	assert_null(match(spd, "10.1.1.6", "2.0.0.1", 1, 0, 0));
	assert_null(match(spd, "10.1.1.5", "2.0.0.3", 1, 0, 0));
	assert_null(match(spd, "10.1.1.5", "2.0.0.0", 1, 0, 0));
	assert_ptr_equal(spd_find(spd, &src, &dst), range);
	assert_null(spd_find(spd, &dst, &src));
	dst.last_port = 80;
	assert_null(spd_find(spd, &src, &dst));
	spd_free(spd, gone);
}

static void
many(void **state)
{
	static struct spd_policy *policies[MANY];
	struct spd *spd = spd_new();
	char text[32], host[32];
	unsigned i;

	(void)state;
	for (i = 0; i < MANY; i++) {
		snprintf(text, sizeof(text), "10.%u.%u.%u/32", i >> 12,
		    i >> 6 & 63, i & 63);
		policies[i] = add(spd, "192.0.2.0/24", text);
	}
	assert_int_equal(spd_shapes(spd), 1);
	for (i = 0; i < MANY; i++) {
		snprintf(host, sizeof(host), "10.%u.%u.%u", i >> 12,
		    i >> 6 & 63, i & 63);
		assert_ptr_equal(
		    match(spd, "192.0.2.7", host, 17, 1, 2), policies[i]);
	}
	for (i = 0; i < MANY; i += 2) {
		spd_remove(spd, policies[i]);
		free(policies[i]);
	}
	assert_null(match(spd, "192.0.2.7", "10.0.0.0", 17, 1, 2));
	assert_ptr_equal(
	    match(spd, "192.0.2.7", "10.0.0.1", 17, 1, 2), policies[1]);
	spd_free(spd, gone);
}

static void
selectors(void **state)
{
	struct ts any = ts("10.0.0.0/8"), udp = ts("10.0.0.0/8[udp/53]");
	struct ts opaque = udp, six = ts("2001:db8::/32");
	struct addr addr;

	(void)state;
	opaque.first_port = UINT16_MAX;
	opaque.last_port = 0;
	assert_true(addr_parse(&addr, "10.9.9.9"));
	assert_true(spd_ts_matches(&any, &addr, 6, true, 1));
	assert_true(spd_ts_matches(&any, &addr, 6, false, 0));
	assert_true(spd_ts_matches(&udp, &addr, 17, true, 53));
	assert_false(spd_ts_matches(&udp, &addr, 17, true, 52));
	assert_false(spd_ts_matches(&udp, &addr, 17, true, 54));
	assert_false(spd_ts_matches(&udp, &addr, 6, true, 53));
	assert_false(spd_ts_matches(&udp, &addr, 17, false, 53));
	/* RFC 4301 4.4.1.1: OPAQUE is for packets without. */
	assert_true(spd_ts_matches(&opaque, &addr, 17, false, 0));
	assert_false(spd_ts_matches(&opaque, &addr, 17, true, 53));
	assert_false(spd_ts_matches(&six, &addr, 17, true, 53));
	any.dynamic = true;
	assert_false(spd_ts_matches(&any, &addr, 6, true, 1));
}

/* RFC 4301 5.2: any pair of the lists, but both ends. */
static void
within(void **state)
{
	struct ts src[2] = { ts("10.1.0.0/24"), ts("10.3.0.0/24") };
	struct ts dst[2] = { ts("10.2.0.0/24[icmp]"), ts("10.4.0.0/24") };
	struct inner inner = packet("10.3.0.1", "10.2.0.1", 1, 0x800, 0x800);

	(void)state;
	assert_true(spd_packet_within(&inner, src, 2, dst, 2));
	assert_false(spd_packet_within(&inner, src, 1, dst, 2));
	assert_false(spd_packet_within(&inner, src, 2, dst + 1, 1));
	assert_false(spd_packet_within(&inner, src, 2, dst, 0));
	inner.proto = 17;
	assert_false(spd_packet_within(&inner, src, 2, dst, 2));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(most_specific_first),
		cmocka_unit_test(ranges),
		cmocka_unit_test(many),
		cmocka_unit_test(selectors),
		cmocka_unit_test(within),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
