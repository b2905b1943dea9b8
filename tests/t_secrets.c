#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf/secretpath.h"
#include "conf/secrets.h"

struct fixture {
	struct bundle bundle;
	struct diags diags;
	struct secrets *secrets;
};

static void
load(struct fixture *f, const char *text)
{
	memset(f, 0, sizeof *f);
	bundle_init(&f->bundle, NULL, NULL);
	assert_int_equal(bundle_add(&f->bundle, "s", "s", view_text(text)), OK);
	f->secrets = secrets_load(&f->bundle, "s", 7, &f->diags);
	assert_non_null(f->secrets);
}

static void
done(struct fixture *f)
{
	secrets_unref(f->secrets);
	bundle_fini(&f->bundle);
	diags_fini(&f->diags);
}

static struct addr
addr(const char *text)
{
	struct addr addr = { 0 };

	if (text != NULL)
		assert_true(addr_parse(&addr, text));
	return addr;
}

static struct ident *
id(const char *text)
{
	struct ident *ident;
	const char *problem;

	if (text == NULL)
		return NULL;
	assert_int_equal(ident_parse(&ident, text, &problem), OK);
	return ident;
}

/* The PSK that is found, as a string; "" if none. */
static const char *
best(const struct fixture *f, const char *local, const char *remote,
    const char *local_addr, const char *remote_addr)
{
	static char text[600];
	struct ident *ours = id(local), *theirs = id(remote);
	struct addr our = addr(local_addr), their = addr(remote_addr);
	const struct secrets_entry *entry =
	    secrets_find_best(f->secrets, ours, theirs, &our, &their);

	text[0] = '\0';
	if (entry != NULL) {
		assert_true(secret_permits(entry, ours, theirs, &our, &their));
		snprintf(text, sizeof text, "%.*s", (int)entry->psk.len,
		    (const char *)entry->psk.octets);
	}
	ident_unref(ours);
	ident_unref(theirs);
	return text;
}

/* All candidates, separated by blanks. */
static const char *
all(const struct fixture *f, const char *local, const char *remote,
    const char *local_addr, const char *remote_addr, size_t max)
{
	static char text[600];
	const struct secrets_entry *found[16];
	struct ident *ours = id(local), *theirs = id(remote);
	struct addr our = addr(local_addr), their = addr(remote_addr);
	size_t used = 0, count;

	count = secrets_candidates(
	    f->secrets, ours, theirs, &our, &their, found, max);
	assert_in_range(count, 0, max);
	text[0] = '\0';
	for (size_t i = 0; i < count; i++)
		used += (size_t)snprintf(text + used, sizeof text - used,
		    "%s%.*s", i > 0 ? " " : "", (int)found[i]->psk.len,
		    (const char *)found[i]->psk.octets);
	ident_unref(ours);
	ident_unref(theirs);
	return text;
}

static void
test_forms(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, "# a comment\n"
	         "a.example : PSK \"quoted # text\"\n"
	         "b.example :PSK 'it is \"so\"'   # behind\n"
	         "c.example: PSK 0x414243_44\n"
	         "d.example : psk 0sQUJDRA==\n"
	         "e.example : PSK 0tABCDE\n"
	         "f.example : PSK bare#word\r\n"
	         "@g.example user@example.org\n"
	         "\t@#0badcafe # more selectors\n"
	         "\t: PSK\n"
	         "\t\"seven\"\n"
	         "2001:db8::1 : PSK \"v6\"\n"
	         "\t::2 : PSK \"indented\"\n"
	         ": PSK \"last\"");
	assert_int_equal(f.diags.errors, 0);
	assert_int_equal(secrets_count(f.secrets), 10);
	assert_string_equal(
	    best(&f, NULL, "a.example", NULL, NULL), "quoted # text");
	assert_string_equal(
	    best(&f, NULL, "b.example", NULL, NULL), "it is \"so\"");
	assert_string_equal(best(&f, NULL, "c.example", NULL, NULL), "ABCD");
	assert_string_equal(best(&f, NULL, "d.example", NULL, NULL), "ABCD");
	assert_string_equal(best(&f, NULL, "e.example", NULL, NULL), "ABCDE");
	assert_string_equal(
	    best(&f, NULL, "f.example", NULL, NULL), "bare#word");
	assert_string_equal(
	    best(&f, "@#0badcafe", "user@example.org", NULL, NULL), "seven");
	assert_string_equal(best(&f, NULL, NULL, NULL, "2001:db8::1"), "v6");
	assert_string_equal(best(&f, NULL, NULL, NULL, "::2"), "indented");
	assert_string_equal(best(&f, "x", "y", NULL, NULL), "last");
	done(&f);
}

static void
test_bad_lines(void **state)
{
	static const char *const bad[] = {
		"a : PSK \"SECRET\n",
		"a PSK \"SECRET\"\n",
		"a : \"SECRET\"\n",
		"a : SECRET\n",
		"a : PSK\n",
		"a : PSK \"\"\n",
		"a : PSK 0xSECRET\n",
		"a : PSK 0x5EC\n",
		"a : PSK 0x\n",
		"a : PSK 0sSECRET=SECRET\n",
		"a : PSK 0sSECRE\n",
		"a : PSK \"x\" SECRET\n",
		"a : PSK x SECRET\n",
		"a :\n",
		"a b c\n",
		"@#SECRET : PSK \"x\"\n",
		"a : PSK \"SEC\001RET\"\n",
		"include\t\n",
		"include \"\"\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct fixture f;
		char text[200];

		snprintf(text, sizeof text,
		    "before : PSK \"b\"\n%safter : PSK \"a\"\n", bad[i]);
		load(&f, text);
		if (f.diags.errors != 1)
			fail_msg("%zu errors in %s", f.diags.errors, bad[i]);
		assert_string_equal(best(&f, NULL, "before", NULL, NULL), "b");
		assert_string_equal(best(&f, NULL, "after", NULL, NULL), "a");
		assert_int_equal(secrets_count(f.secrets), 2);
		for (size_t j = 0; j < f.diags.count; j++) {
			assert_null(strstr(f.diags.item[j].text, "SEC"));
			if (f.diags.item[j].level == DIAG_ERROR)
				assert_int_equal(f.diags.item[j].line, 2);
		}
		done(&f);
	}
}

/* The rest of an entry that was given up is nobody's key. */
static void
test_bad_continued(void **state)
{
	static const char *const bad[] = {
		"@#xyz\n\t: PSK \"k\"\n",
		"@#xyz\n\tbob\n\t: PSK \"k\"\n",
		"  @#xyz\n  : PSK \"k\"\n",
		"a :\n\tPSKK\n\t: PSK \"k\"\n",
		"a : PSK 0x\n # comment\n\t: PSK \"k\"\n",
		"a : XAUTH\n\t\"k\"\n\t: PSK \"k\"\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct fixture f;
		char text[200];

		snprintf(text, sizeof text, "%safter : PSK \"a\"\n", bad[i]);
		load(&f, text);
		if (secrets_count(f.secrets) != 1)
			fail_msg("%zu secrets in %s", secrets_count(f.secrets),
			    bad[i]);
		assert_string_equal(best(&f, NULL, "after", NULL, NULL), "a");
		done(&f);
	}
}

static void
test_quoted_selectors(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, "\"a.example\" \"carol@example.org\": PSK \"k\"\n"
	         "\"C=CH, CN=x\" : RSA key.pem\n"
	         "\"C=CH, CN=x\" : PSK \"x\"\n"
	         "\"open : PSK \"x\"\n");
	assert_string_equal(
	    best(&f, "a.example", "carol@example.org", NULL, NULL), "k");
	assert_int_equal(secrets_count(f.secrets), 1);
	/* What is no identity of ours matters for a PSK only. */
	assert_int_equal(f.diags.errors, 2);
	assert_int_equal(f.diags.item[f.diags.count - 2].line, 3);
	assert_int_equal(f.diags.item[f.diags.count - 1].line, 4);
	done(&f);
}

/* The rules of the daemon for what ipsec.secrets includes. */
static void
test_real_files(void **state)
{
	char folder[] = "/tmp/t_secrets.XXXXXX", path[100];
	struct bundle bundle;
	struct diags diags = { 0 };
	struct secrets *secrets;
	FILE *file;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/s", folder);
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file, "include /etc/passwd\n"
	              "include /etc/pass*\n"
	              "include ../../etc/passwd\n"
	              "include missing\n"
	              "include .\n"
	              "a : PSK \"a long and random key 4711\"\n");
	fclose(file);
	bundle_init(&bundle, secretpath_read, path);
	secrets = secrets_load(&bundle, path, 1, &diags);
	assert_int_equal(secrets_count(secrets), 1);
	assert_int_equal(diags.errors, 4);
	assert_int_equal(diags.warnings, 1);
	for (size_t i = 0; i < diags.count; i++)
		assert_int_equal(diags.item[i].line, i + 1);
	secrets_unref(secrets);
	bundle_fini(&bundle);
	diags_fini(&diags);
	unlink(path);
	rmdir(folder);
}

static void
test_other_kinds(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, ": RSA key.pem \"passphrase\"\n"
	         "carol : XAUTH \"p\"\n"
	         "carol : EAP \"p\"\n"
	         "carol : PSK \"k\"\n");
	assert_int_equal(f.diags.errors, 0);
	/* Three kinds, and a weak PSK. */
	assert_int_equal(f.diags.warnings, 4);
	assert_string_equal(best(&f, NULL, "carol", NULL, NULL), "k");
	done(&f);
}

static void
test_columns(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, "\n  alice : PSK \"open\n");
	assert_int_equal(f.diags.errors, 1);
	assert_int_equal(f.diags.item[0].line, 2);
	assert_int_equal(f.diags.item[0].column, 15);
	done(&f);
}

static void
test_lengths(void **state)
{
	char text[SECRET_OCTETS + 100], value[SECRET_OCTETS + 2];
	struct fixture f;

	(void)state;
	for (size_t len = SECRET_OCTETS - 1; len <= SECRET_OCTETS + 1; len++) {
		memset(value, 'v', len);
		value[len] = '\0';
		snprintf(text, sizeof text, ": PSK \"%s\"\n", value);
		load(&f, text);
		assert_int_equal(f.diags.errors, len > SECRET_OCTETS);
		assert_int_equal(
		    secrets_count(f.secrets), len <= SECRET_OCTETS);
		done(&f);
	}
}

static void
test_selector_count(void **state)
{
	for (size_t count = SECRET_SELECTORS; count <= SECRET_SELECTORS + 1;
	     count++) {
		char text[1000];
		size_t used = 0;
		struct fixture f;

		(void)state;
		for (size_t i = 0; i < count; i++)
			used += (size_t)snprintf(
			    text + used, sizeof text - used, "n%zu ", i);
		snprintf(text + used, sizeof text - used, ": PSK \"k\"\n");
		load(&f, text);
		assert_int_equal(
		    secrets_count(f.secrets), count <= SECRET_SELECTORS);
		done(&f);
	}
}

static void
test_best(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, ": PSK none\n"
	         "%any : PSK any\n"
	         "gw : PSK local\n"
	         "192.0.2.1 : PSK local-addr\n"
	         "203.0.113.9 : PSK remote-addr\n"
	         "office : PSK remote\n"
	         "192.0.2.1 203.0.113.9 : PSK addrs\n"
	         "gw 203.0.113.9 : PSK id-addr\n"
	         "office 192.0.2.1 : PSK addr-id\n"
	         "gw office : PSK both\n"
	         "gw office : PSK both-again\n"
	         "%any lab : PSK any-lab\n"
	         "p q r : PSK group\n");
	assert_string_equal(
	    best(&f, "gw", "office", "192.0.2.1", "203.0.113.9"), "both");
	assert_string_equal(
	    best(&f, "office", "gw", "192.0.2.1", "203.0.113.9"), "both");
	assert_string_equal(
	    best(&f, "other", "office", "192.0.2.1", "203.0.113.9"), "addr-id");
	assert_string_equal(
	    best(&f, "gw", "other", "192.0.2.1", "203.0.113.9"), "id-addr");
	assert_string_equal(
	    best(&f, "x", "y", "192.0.2.1", "203.0.113.9"), "addrs");
	assert_string_equal(
	    best(&f, "x", "office", "192.0.2.2", "203.0.113.7"), "remote");
	assert_string_equal(
	    best(&f, "x", "y", "192.0.2.2", "203.0.113.9"), "remote-addr");
	assert_string_equal(
	    best(&f, "gw", "y", "192.0.2.2", "203.0.113.7"), "local");
	assert_string_equal(
	    best(&f, "x", "y", "192.0.2.1", "203.0.113.7"), "local-addr");
	assert_string_equal(best(&f, "x", "y", NULL, NULL), "none");
	assert_string_equal(best(&f, "x", "lab", NULL, NULL), "any-lab");
	assert_string_equal(best(&f, "r", "p", NULL, NULL), "group");
	assert_string_equal(best(&f, "x", "p", NULL, NULL), "none");
	/* FQDNs know no case. */
	assert_string_equal(best(&f, "GW", "Office", NULL, NULL), "both");
	done(&f);
	/* Whose key is for an address cannot pass for a name that has a key of
	 * its own, however well the other end is named beside the address. */
	load(&f, "gw 203.0.113.9 : PSK site\n"
	         "192.0.2.1 203.0.113.9 : PSK sites\n"
	         "carol : PSK carol\n");
	assert_string_equal(
	    best(&f, "gw", "carol", "192.0.2.1", "203.0.113.9"), "carol");
	assert_string_equal(
	    best(&f, "gw", "dave", "192.0.2.1", "203.0.113.9"), "site");
	done(&f);
}

static void
test_candidates(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, "carol : PSK carol\n"
	         "dave : PSK dave\n"
	         "%any : PSK any\n"
	         "203.0.113.9 : PSK addr\n"
	         "gw eve : PSK eve\n"
	         "192.0.2.1 frank : PSK frank\n");
	assert_string_equal(all(&f, NULL, NULL, "192.0.2.1", "203.0.113.9", 16),
	    "addr any frank carol dave eve");
	assert_string_equal(
	    all(&f, NULL, NULL, "192.0.2.1", "203.0.113.9", 2), "addr any");
	/* Our identity is known: eve's PSK is for another one of ours. */
	assert_string_equal(
	    all(&f, "other", NULL, NULL, NULL, 16), "any carol dave addr");
	assert_string_equal(all(&f, "gw", "eve", NULL, NULL, 16), "eve any");
	assert_string_equal(
	    all(&f, NULL, NULL, "192.0.2.1", "203.0.113.9", 0), "");
	done(&f);
}

static void
test_permits(void **state)
{
	struct fixture f;
	const struct secrets_entry *carol, *pair;
	struct ident *gw = id("gw"), *ids[2] = { id("carol"), id("dave") };
	struct addr none = { 0 };

	(void)state;
	load(&f, "carol : PSK carol\ngw dave : PSK pair\n");
	carol = secrets_by_number(f.secrets, (7ull << 32) + 1);
	pair = secrets_by_number(f.secrets, (7ull << 32) + 2);
	assert_non_null(carol);
	assert_non_null(pair);
	assert_int_equal(carol->line, 1);
	assert_int_equal(pair->number, (7ull << 32) + 2);
	assert_true(secret_permits(carol, gw, ids[0], &none, &none));
	assert_false(secret_permits(carol, gw, ids[1], &none, &none));
	assert_false(secret_permits(pair, gw, ids[0], &none, &none));
	assert_true(secret_permits(pair, gw, ids[1], &none, &none));
	/* One selector does not stand for both ends. */
	assert_false(secret_permits(pair, gw, gw, &none, &none));
	assert_null(secrets_by_number(f.secrets, (7ull << 32) + 3));
	assert_null(secrets_by_number(f.secrets, 7ull << 32));
	assert_null(secrets_by_number(f.secrets, (8ull << 32) + 1));
	ident_unref(gw);
	ident_unref(ids[0]);
	ident_unref(ids[1]);
	done(&f);
}

static void
test_include(void **state)
{
	struct bundle bundle;
	struct diags diags = { 0 };
	struct secrets *secrets;

	(void)state;
	bundle_init(&bundle, NULL, NULL);
	assert_int_equal(bundle_add(&bundle, "/e/s", "/e/s",
	                     view_text("include s.d/*\n: PSK \"a\"\n")),
	    OK);
	assert_null(secrets_load(&bundle, "/e/s", 1, &diags));
	assert_string_equal(bundle.missing, "/e/s.d/*");
	diags_fini(&diags);
	assert_int_equal(bundle_add(&bundle, "/e/s.d/*", "/e/s.d/1",
	                     view_text("x : PSK \"b\"\ninclude /e/s\n")),
	    OK);
	assert_int_equal(
	    bundle_add_problem(&bundle, "/e/s.d/*", "/e/s.d/2", "no way"), OK);
	secrets = secrets_load(&bundle, "/e/s", 1, &diags);
	assert_non_null(secrets);
	/* The loop ends at the tenth file; what cannot be read is said. */
	assert_true(secrets_count(secrets) >= 2);
	assert_true(secrets_count(secrets) <= 20);
	assert_true(diags.errors >= 2);
	secrets_unref(secrets);
	diags_fini(&diags);
	bundle_fini(&bundle);
}

static void
test_entropy(void **state)
{
	static const char *const weak[] = { "", "secret", "password123",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "correcthorsebattery",
		"1234567890123456", "abcdefghijklmnopqrstuvwxyz",
		"mysecretpresharedkey" };
	static const char *const strong[] = { "tNkAvc+5iGxvY7Qd2wkq0w==",
		"9f86d081884c7d659a2feaa0c55ad015", "Zr4!kq9_Lw2xPe7u" };

	(void)state;
	for (size_t i = 0; i < sizeof weak / sizeof weak[0]; i++)
		if (secret_entropy(view_text(weak[i])) >= 64)
			fail_msg("%s", weak[i]);
	for (size_t i = 0; i < sizeof strong / sizeof strong[0]; i++)
		if (secret_entropy(view_text(strong[i])) < 64)
			fail_msg("%s", strong[i]);
}

/* Ten thousand entries that all name us: the pair is still found at once. */
static void
test_many(void **state)
{
	size_t size = 10000 * 60, used = 0;
	char *text = malloc(size);
	struct fixture f;
	char name[32], expected[32];

	(void)state;
	assert_non_null(text);
	for (size_t i = 0; i < 10000; i++)
		used += (size_t)snprintf(text + used, size - used,
		    "gw.example.org n%zu.example.org : PSK \"k%zu\"\n", i, i);
	load(&f, text);
	for (size_t i = 0; i < 20000; i++) {
		size_t n = i * 7919 % 10000;

		snprintf(name, sizeof name, "n%zu.example.org", n);
		snprintf(expected, sizeof expected, "k%zu", n);
		assert_string_equal(best(&f, "gw.example.org", name,
		                        "192.0.2.1", "203.0.113.9"),
		    expected);
	}
	done(&f);
	free(text);
}

/* Whatever the octets: no crash, and an end. */
static void
test_hostile(void **state)
{
	static const char pieces[] = " \t\n\r:\"'#@%0xsPSKinclude ./a*\\,\x80";
	uint32_t seed = 1;

	(void)state;
	for (size_t round = 0; round < 3000; round++) {
		char text[64];
		size_t len = round % sizeof text;
		struct fixture f;

		for (size_t i = 0; i < len; i++) {
			seed = seed * 1664525u + 1013904223u;
			text[i] = pieces[(seed >> 16) % sizeof pieces];
		}
		memset(&f, 0, sizeof f);
		bundle_init(&f.bundle, NULL, NULL);
		bundle_add(&f.bundle, "s", "s", view_of(text, len));
		f.secrets = secrets_load(&f.bundle, "s", 1, &f.diags);
		assert_true(f.secrets != NULL || f.bundle.missing != NULL);
		done(&f);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_bad_lines),
		cmocka_unit_test(test_bad_continued),
		cmocka_unit_test(test_quoted_selectors),
		cmocka_unit_test(test_real_files),
		cmocka_unit_test(test_other_kinds),
		cmocka_unit_test(test_columns),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_selector_count),
		cmocka_unit_test(test_best),
		cmocka_unit_test(test_candidates),
		cmocka_unit_test(test_permits),
		cmocka_unit_test(test_include),
		cmocka_unit_test(test_entropy),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
