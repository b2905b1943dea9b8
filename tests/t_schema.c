#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/schema.h"

static struct option_use use;
static bool uniqueids;

/* Gives one keyword a value. */
static enum err
set(struct conn *conn, const char *name, const char *value)
{
	bool setup = conn == NULL;
	unsigned end;

	memset(&use, 0, sizeof use);
	use.option = option_find(setup, DIALECT_STRONGSWAN, name, &end);
	if (use.option == NULL)
		fail_msg("no row %s", name);
	use.conn = conn;
	use.value = value;
	use.uniqueids = &uniqueids;
	if (conn != NULL)
		use.end = end == 0 ? &conn->local : &conn->remote;
	return option_set(&use);
}

/* Every default in the table is what a new connection has, so that the manual
 * tells the truth. */
static void
test_defaults(void **state)
{
	struct conn *fresh = conn_new("x");

	(void)state;
	for (size_t i = 0; i < option_count; i++) {
		const struct option *option = &options[i];
		struct conn *conn;
		char name[64];

		if (option->status != OPTION_DONE ||
		    option->fallback[0] == '\0' ||
		    option->section == SECTION_SETUP)
			continue;
		conn = conn_new("x");
		option_name(option, "right", name, sizeof name);
		assert_int_equal(set(conn, name, option->fallback), OK);
		if (!conn_equal(conn, fresh))
			fail_msg(
			    "%s=%s is not the default", name, option->fallback);
		conn_unref(conn);
	}
	conn_unref(fresh);
}

static void
test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < option_count; i++) {
		const struct option *option = &options[i];
		bool setup = option->section == SECTION_SETUP;
		char name[64];
		unsigned end;

		assert_non_null(option->values);
		assert_non_null(option->fallback);
		assert_non_null(option->aliases);
		assert_non_null(option->help);
		if (option->status != OPTION_GONE)
			assert_true(option->help[0] != '\0');
		option_name(option, "right", name, sizeof name);
		assert_ptr_equal(
		    option_find(setup, DIALECT_STRONGSWAN, name, &end), option);
		assert_int_equal(end, option->section == SECTION_END);
		option_name(option, "left", name, sizeof name);
		assert_ptr_equal(
		    option_find(setup, DIALECT_STRONGSWAN, name, &end), option);
		assert_int_equal(end, 0);
	}
	assert_true(option_count * 2 <= 256);
}

static void
test_finding(void **state)
{
	const struct option *option;
	char text[64];
	unsigned end;

	(void)state;
	option = option_find(false, DIALECT_STRONGSWAN, "keylife", &end);
	assert_string_equal(option->name, "lifetime");
	option = option_find(false, DIALECT_STRONGSWAN, "rightid", &end);
	assert_string_equal(option->name, "id");
	assert_int_equal(end, 1);
	assert_null(option_find(false, DIALECT_STRONGSWAN, "id", &end));
	assert_null(option_find(false, DIALECT_STRONGSWAN, "", &end));
	assert_null(option_find(false, DIALECT_STRONGSWAN, "uniqueids", &end));
	assert_null(option_find(true, DIALECT_STRONGSWAN, "left", &end));
	assert_null(option_find(false, DIALECT_LIBRESWAN, "left", &end));
	assert_string_equal(option_similar(false, DIALECT_STRONGSWAN,
	                        "leftsubent", text, sizeof text),
	    "leftsubnet");
	assert_string_equal(option_similar(false, DIALECT_STRONGSWAN, "RightID",
	                        text, sizeof text),
	    "rightid");
	assert_string_equal(option_similar(true, DIALECT_STRONGSWAN, "uniqeids",
	                        text, sizeof text),
	    "uniqueids");
	assert_null(option_similar(
	    false, DIALECT_STRONGSWAN, "zzzzzzzz", text, sizeof text));
	assert_null(
	    option_similar(false, DIALECT_STRONGSWAN, "q", text, sizeof text));
}

/* N - 1, N, N + 1 of the ranges, and what is no value at all. */
static void
test_values(void **state)
{
	static const struct {
		const char *name, *value;
		bool good;
	} cases[] = {
		{ "lifetime", "9s", false },
		{ "lifetime", "10s", true },
		{ "lifetime", "10", true },
		{ "lifetime", "31d", true },
		{ "lifetime", "744h", true },
		{ "lifetime", "2678401", false },
		{ "lifetime", "1w", false },
		{ "lifetime", "1hh", false },
		{ "lifetime", "h", false },
		{ "lifetime", "-1h", false },
		{ "lifetime", "99999999999", false },
		{ "margintime", "0", true },
		{ "rekeyfuzz", "0%", true },
		{ "rekeyfuzz", "1000%", true },
		{ "rekeyfuzz", "1001%", false },
		{ "rekeyfuzz", "50", true },
		{ "rekeyfuzz", "%", false },
		{ "rekeyfuzz", "5%%", false },
		{ "keyingtries", "%forever", true },
		{ "keyingtries", "0", true },
		{ "keyingtries", "1000000", true },
		{ "keyingtries", "1000001", false },
		{ "replay_window", "-1", true },
		{ "replay_window", "0", true },
		{ "replay_window", "4096", true },
		{ "replay_window", "4097", false },
		{ "replay_window", "-2", false },
		{ "auto", "start", true },
		{ "auto", "Start", false },
		{ "auto", "st", false },
		{ "auto", "add route", false },
		{ "rekey", "yes", true },
		{ "rekey", "0", true },
		{ "rekey", "maybe", false },
		{ "type", "transport", true },
		{ "type", "beet", false },
		{ "authby", "psk", true },
		{ "authby", "secret", true },
		{ "authby", "pubkey", false },
		{ "leftauth", "psk", true },
		{ "leftauth", "secret", false },
		{ "rightauth", "eap", false },
		{ "rightikeport", "0", false },
		{ "rightikeport", "1", true },
		{ "rightikeport", "65535", true },
		{ "rightikeport", "65536", false },
		{ "closeaction", "none", true },
		{ "closeaction", "hold", false },
		{ "closeaction", "restart", true },
		{ "closeaction", "x", false },
		{ "dpddelay", "0", true },
		{ "dpdtimeout", "0", false },
		{ "fragmentation", "force", true },
		{ "leftallowany", "yes", true },
		{ "leftallowany", "x", false },
		{ "leftid", "@vpn.example.org", true },
		{ "leftid", "%any", true },
		{ "leftid", "%carol", true },
		{ "leftid", "%fromcert", false },
		{ "leftid", "@#xyz", false },
		{ "leftid", "*@example.org", false },
		{ "leftsubnet", "10.0.0.0/8", true },
		{ "leftsubnet", "10.0.0.0/33", false },
		{ "leftsubnet", "10.0.0.0/8,x", false },
		{ "ike", "aes256-sha256-modp2048", true },
		{ "ike", "aes256-sha256-modp2048!", true },
		{ "ike", "aes257-sha256-modp2048", false },
		{ "ike", "des-md5-modp768", false },
		{ "esp", "aes128gcm16", true },
		{ "esp", ",", false },
		{ "left", "10.0.0.1", true },
		{ "left", "%any6", true },
		{ "left", "%defaultroute", true },
		{ "left", "::1/64", true },
		{ "left", "10.0.0.0/33", false },
		{ "left", "10.0.0.0/", false },
		{ "left", "10.0.0.1-10.0.0.9", true },
		{ "left", "10.0.0.9-10.0.0.1", false },
		{ "left", "10.0.0.1-::1", false },
		{ "left", "vpn-1.example.org", true },
		{ "left", "%vpn.example.org", true },
		{ "left", "%group", false },
		{ "left", "%defaultrout", false },
		{ "left", "10.0.0.256", false },
		{ "left", "a..b", false },
		{ "left", "a b", false },
		{ "left", "10.0.0.1,", true },
		{ "left", ",", false },
		{ "left", "a,b,c,d,e,f,g,h", true },
		{ "left", "a,b,c,d,e,f,g,h,i", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct conn *conn = conn_new("x");
		enum err err = set(conn, cases[i].name, cases[i].value);

		if ((err == OK) != cases[i].good)
			fail_msg("%s=%s gives %d", cases[i].name,
			    cases[i].value, (int)err);
		if (err != OK) {
			assert_int_equal(err, ERR_SYNTAX);
			assert_true(use.expected[0] != '\0');
			assert_true(use.at <= strlen(cases[i].value));
		}
		conn_unref(conn);
	}
}

static void
test_effects(void **state)
{
	struct conn *conn = conn_new("x");

	(void)state;
	assert_int_equal(set(conn, "lifetime", "90m"), OK);
	assert_int_equal(conn->lifetime_ms, 5400000);
	assert_int_equal(set(conn, "rekeyfuzz", "33%"), OK);
	assert_int_equal(conn->rekeyfuzz_percent, 33);
	assert_int_equal(set(conn, "keyingtries", "%forever"), OK);
	assert_int_equal(conn->keyingtries, 0);
	assert_int_equal(set(conn, "dpdaction", "restart"), OK);
	assert_int_equal(conn->dpd_action, DPD_RESTART);
	assert_int_equal(set(conn, "fragmentation", "accept"), OK);
	assert_int_equal(conn->fragmentation, FRAG_ACCEPT);
	assert_int_equal(set(conn, "keyexchange", "ikev2"), OK);
	assert_int_equal(conn->keyexchange, KEYEX_IKEV2);
	assert_int_equal(set(conn, "auto", "route"), OK);
	assert_int_equal(conn->autostart, AUTO_ROUTE);
	assert_int_equal(set(conn, "type", "transport"), OK);
	assert_int_equal(conn->mode, MODE_TRANSPORT);
	assert_int_equal(set(conn, "forceencaps", "yes"), OK);
	assert_true(conn->forceencaps);
	assert_int_equal(set(conn, "rightikeport", "4321"), OK);
	assert_int_equal(conn->remote.ike_port, 4321);
	/* The limit is the data plane's, and whoever exceeds it is told. */
	assert_int_equal(set(conn, "replay_window", "4097"), ERR_SYNTAX);
	assert_string_equal(
	    use.expected, "-1 (the default) or a number from 0 to 4096");
	assert_int_equal(set(conn, "ike", "3des-sha1-modp1024"), OK);
	assert_non_null(strstr(use.note, "modp1024"));
	assert_non_null(strstr(conn->weak, "3des"));
	conn_unref(conn);
	uniqueids = true;
	assert_int_equal(set(NULL, "uniqueids", "never"), OK);
	assert_false(uniqueids);
	assert_int_equal(set(NULL, "uniqueids", "keep"), OK);
	assert_true(uniqueids);
	assert_true(use.note[0] != '\0');
	conn = conn_new("x");
	assert_int_equal(set(conn, "replay_window", "0"), OK);
	assert_non_null(strstr(use.note, "taken again"));
	conn_unref(conn);
	assert_int_equal(set(NULL, "uniqueids", "x"), ERR_SYNTAX);
	assert_string_equal(use.expected, "yes, no, never, replace or keep");
}

static void
test_hosts(void **state)
{
	struct conn *conn = conn_new("x");
	struct conn_end *end = &conn->remote;

	(void)state;
	assert_int_equal(
	    set(conn, "right", "10.0.0.1, %vpn.example.org ,10.1.0.0/24,%any6"),
	    OK);
	assert_int_equal(end->host_count, 5);
	assert_int_equal(end->host[0].kind, HOST_ADDR);
	assert_int_equal(end->host[1].kind, HOST_NAME);
	assert_string_equal(end->host[1].name, "vpn.example.org");
	assert_int_equal(end->host[2].kind, HOST_ANY);
	assert_int_equal(end->host[3].kind, HOST_RANGE);
	assert_int_equal(end->host[3].last.octets[3], 255);
	assert_int_equal(end->host[4].kind, HOST_ANY);
	assert_int_equal(end->host[4].addr.family, ADDR_V6);
	assert_int_equal(set(conn, "right", "0.0.0.0"), OK);
	assert_int_equal(end->host_count, 1);
	assert_int_equal(end->host[0].kind, HOST_ANY);
	assert_int_equal(end->host[0].addr.family, ADDR_V4);
	assert_int_equal(
	    set(conn, "right", "10.0.0.1,10.0.0.0/99"), ERR_SYNTAX);
	assert_int_equal(use.at, 9);
	assert_int_equal(use.len, 11);
	conn_unref(conn);
}

static void
test_quiet(void **state)
{
	unsigned end;

	(void)state;
	assert_true(option_is_quiet(
	    option_find(false, DIALECT_STRONGSWAN, "mobike", &end), "no"));
	assert_false(option_is_quiet(
	    option_find(false, DIALECT_STRONGSWAN, "mobike", &end), "yes"));
	assert_false(option_is_quiet(
	    option_find(false, DIALECT_STRONGSWAN, "mobike", &end), "n"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_finding),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_effects),
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_quiet),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
