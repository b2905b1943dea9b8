#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/ident.h"

static struct ident *
parse(const char *text)
{
	const char *problem = NULL;
	struct ident *ident = NULL;

	if (ident_parse(&ident, text, &problem) != OK)
		fail_msg("%s: %s", text, problem);
	return ident;
}

static void
test_parse(void **state)
{
	static const struct {
		const char *text;
		uint8_t type;
		const char *octets;
		size_t len;
		const char *printed; /* NULL: as text */
	} rows[] = {
		{ "%any", ID_ANY, "", 0, NULL },
		{ "192.0.2.1", ID_IPV4_ADDR, "\xc0\0\2\1", 4, NULL },
		{ "2001:db8::1", ID_IPV6_ADDR,
		    "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 16, NULL },
		{ "gw.example.org", ID_FQDN, "gw.example.org", 14, NULL },
		{ "moon", ID_FQDN, "moon", 4, NULL },
		{ "@gw.example.org", ID_FQDN, "gw.example.org", 14,
		    "gw.example.org" },
		{ "@192.0.2.1", ID_FQDN, "192.0.2.1", 9, NULL },
		{ "fqdn:my gateway", ID_FQDN, "my gateway", 10, "my gateway" },
		{ "carol@example.org", ID_USER_FQDN, "carol@example.org", 17,
		    NULL },
		{ "@@carol@example.org", ID_USER_FQDN, "carol@example.org", 17,
		    "carol@example.org" },
		{ "email:carol@example.org", ID_USER_FQDN, "carol@example.org",
		    17, "carol@example.org" },
		{ "RFC822:carol@example.org", ID_USER_FQDN, "carol@example.org",
		    17, "carol@example.org" },
		{ "userfqdn:a@b", ID_USER_FQDN, "a@b", 3, "a@b" },
		{ "@#0a1B", ID_KEY_ID, "\x0a\x1b", 2, "@#0a1b" },
		{ "@#0a:1b:FF", ID_KEY_ID, "\x0a\x1b\xff", 3, "@#0a1bff" },
		{ "keyid:group", ID_KEY_ID, "group", 5, NULL },
		{ "keyid:#00ff", ID_KEY_ID, "\0\xff", 2, "@#00ff" },
		{ "ipv4:192.0.2.1", ID_IPV4_ADDR, "\xc0\0\2\1", 4,
		    "192.0.2.1" },
		{ "ipv6:::1", ID_IPV6_ADDR, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1",
		    16, "::1" },
		{ "asn1dn:#3000", ID_DER_ASN1_DN, "\x30\0", 2, NULL },
	};
	char text[IDENT_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ident *ident = parse(rows[i].text), *again;

		assert_int_equal(ident->type, rows[i].type);
		assert_true(view_equal(
		    ident_view(ident), view_of(rows[i].octets, rows[i].len)));
		ident_text(ident, text);
		assert_string_equal(text,
		    rows[i].printed != NULL ? rows[i].printed : rows[i].text);
		/* What is printed can be read again, spaces excepted. */
		if (strchr(text, ' ') == NULL) {
			again = parse(text);
			assert_true(ident_equal(ident, again));
			ident_unref(again);
		}
		ident_unref(ident);
	}
}

static void
test_parse_errors(void **state)
{
	static const char *const bad[] = { "", "%some", "@", "@@", "@#", "@#1",
		"@#1g", "@#12:", "@#12::34", "1.2.3", "10.0.0.256", "1.2.3.4.5",
		"two words", "a@", "@@a", "@@a@", "email:a", "email:@b",
		"ipv4:::1", "ipv6:1.2.3.4",
		"ipv4:", "fqdn:", "keyid:", "asn1dn:C=CH", "C=CH, O=Orthrus",
		"caf\xc3\xa9", "@caf\xc3\xa9", "keyid:\x01", "fe80::1::2",
		"a/b", "*", "*@example.org", "@*.example.org" };
	char longest[2 * IDENT_MAX + 10];
	const char *problem;
	struct ident *ident;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		problem = NULL;
		ident = NULL;
		if (ident_parse(&ident, bad[i], &problem) != ERR_SYNTAX)
			fail_msg("'%s' was taken", bad[i]);
		assert_null(ident);
		assert_non_null(problem);
		assert_non_null(strstr(problem, "expected"));
	}
	/* N and N + 1 octets, as text and in hexadecimal. */
	memset(longest, 'a', sizeof(longest));
	longest[IDENT_MAX] = '\0';
	ident_unref(parse(longest));
	longest[IDENT_MAX] = 'a';
	longest[IDENT_MAX + 1] = '\0';
	assert_int_equal(ident_parse(&ident, longest, &problem), ERR_SYNTAX);
	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "@#", 2);
	longest[2 + 2 * IDENT_MAX] = '\0';
	ident_unref(parse(longest));
	longest[2 + 2 * IDENT_MAX] = 'a';
	longest[4 + 2 * IDENT_MAX] = '\0';
	assert_int_equal(ident_parse(&ident, longest, &problem), ERR_SYNTAX);
}

static void
test_new(void **state)
{
	static const struct {
		uint8_t type;
		size_t len;
	} fixed[] = { { ID_IPV4_ADDR, 4 }, { ID_IPV6_ADDR, 16 },
		{ ID_IPV4_ADDR_SUBNET, 8 }, { ID_IPV6_ADDR_SUBNET, 32 },
		{ ID_IPV4_ADDR_RANGE, 8 }, { ID_IPV6_ADDR_RANGE, 32 } };
	uint8_t octets[IDENT_MAX + 1] = { 0 };
	struct addr none = { 0 };
	struct ident *ident;

	(void)state;
	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		for (size_t len = 0; len < 40; len++) {
			ident = ident_new(fixed[i].type, view_of(octets, len));
			assert_int_equal(ident != NULL, len == fixed[i].len);
			ident_unref(ident);
		}
	}
	ident = ident_new(ID_KEY_ID, view_of(octets, IDENT_MAX));
	assert_non_null(ident);
	assert_ptr_equal(ident_ref(ident), ident);
	assert_int_equal(ident->refs, 2);
	ident_unref(ident);
	ident_unref(ident);
	assert_null(ident_new(ID_KEY_ID, view_of(octets, IDENT_MAX + 1)));
	assert_null(ident_from_addr(&none));
	assert_null(ident_ref(NULL));
	ident_unref(NULL);
}

static void
test_equal(void **state)
{
	static const struct {
		const char *a, *b;
		bool equal;
	} rows[] = {
		{ "gw.example.org", "GW.Example.ORG", true },
		{ "gw.example.org", "gw.example.com", false },
		{ "gw.example.org", "gw.example.orgs", false },
		/* The local part is the recipient's own affair. */
		{ "carol@Example.org", "carol@example.ORG", true },
		{ "Carol@example.org", "carol@example.org", false },
		{ "email:a@B@example.org", "email:a@b@example.org", false },
		/* Types differ. */
		{ "192.0.2.1", "@192.0.2.1", false },
		{ "gw", "keyid:gw", false },
		/* KEY_ID is octets. */
		{ "keyid:Group", "keyid:group", false },
		{ "192.0.2.1", "192.0.2.1", true },
		{ "192.0.2.1", "192.0.2.2", false },
	};
	uint8_t key_a[IDENT_MAX + 1], key_b[IDENT_MAX + 1];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ident *a = parse(rows[i].a), *b = parse(rows[i].b);
		size_t len_a = ident_key(a, key_a), len_b = ident_key(b, key_b);

		assert_int_equal(ident_equal(a, b), rows[i].equal);
		assert_int_equal(ident_equal(b, a), rows[i].equal);
		assert_int_equal(
		    view_equal(view_of(key_a, len_a), view_of(key_b, len_b)),
		    rows[i].equal);
		assert_int_equal(ident_fits(a, b), rows[i].equal ? 2 : 0);
		ident_unref(a);
		ident_unref(b);
	}
}

/* A name with a NUL inside is another name, however it may be printed. */
static void
test_embedded_nul(void **state)
{
	struct ident *a = ident_new(ID_FQDN, view_of("gw\0evil", 7));
	struct ident *b = ident_new(ID_FQDN, view_of("gw", 2));
	char text[IDENT_TEXT];

	(void)state;
	assert_non_null(a);
	assert_non_null(b);
	assert_false(ident_equal(a, b));
	assert_string_equal(ident_text(a, text), "gw\\x00evil");
	ident_unref(a);
	ident_unref(b);
}

static void
test_fits(void **state)
{
	struct ident *any = parse("%any"), *gw = parse("gw");

	(void)state;
	assert_int_equal(ident_fits(NULL, gw), 1);
	assert_int_equal(ident_fits(any, gw), 1);
	assert_int_equal(ident_fits(gw, gw), 2);
	assert_int_equal(ident_fits(gw, NULL), 0);
	assert_int_equal(ident_fits(any, NULL), 1);
	/* A peer that calls itself "any" is nobody's match. */
	assert_int_equal(ident_fits(gw, any), 0);
	assert_false(ident_equal(gw, NULL));
	assert_true(ident_equal(NULL, NULL));
	ident_unref(any);
	ident_unref(gw);
}

static void
test_text(void **state)
{
	static const struct {
		uint8_t type;
		const char *octets;
		size_t len;
		const char *text;
	} rows[] = {
		{ ID_IPV4_ADDR_SUBNET, "\x0a\0\0\0\xff\0\0\0", 8,
		    "10.0.0.0/8" },
		{ ID_IPV4_ADDR_SUBNET, "\x0a\0\0\0\xff\0\xff\0", 8,
		    "10.0.0.0/255.0.255.0" },
		{ ID_IPV4_ADDR_SUBNET, "\0\0\0\0\0\0\0\0", 8, "0.0.0.0/0" },
		{ ID_IPV4_ADDR_RANGE, "\x0a\0\0\1\x0a\0\0\x09", 8,
		    "10.0.0.1-10.0.0.9" },
		{ ID_FQDN, "a\nb\033", 4, "a\\x0ab\\x1b" },
		{ ID_KEY_ID, "", 0, "@#" },
		{ 77, "\1\2", 2, "type 77: 0102" },
	};
	uint8_t octets[IDENT_MAX];
	char text[IDENT_TEXT + 1];
	struct ident *ident;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ident = ident_new(
		    rows[i].type, view_of(rows[i].octets, rows[i].len));
		assert_non_null(ident);
		assert_string_equal(ident_text(ident, text), rows[i].text);
		ident_unref(ident);
	}
	assert_string_equal(ident_text(NULL, text), "%any");
	memset(octets, 'x', sizeof(octets));
	for (size_t len = IDENT_TEXT - 3; len <= IDENT_MAX; len++) {
		ident = ident_new(ID_FQDN, view_of(octets, len));
		assert_non_null(ident);
		text[IDENT_TEXT] = '!';
		ident_text(ident, text);
		assert_int_equal(text[IDENT_TEXT], '!');
		if (len < IDENT_TEXT)
			assert_int_equal(strlen(text), len);
		else
			assert_string_equal(text + IDENT_TEXT - 5, "x...");
		ident_unref(ident);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_parse_errors),
		cmocka_unit_test(test_new),
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_embedded_nul),
		cmocka_unit_test(test_fits),
		cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
