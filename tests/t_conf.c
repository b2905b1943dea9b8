#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/mem.h"
#include "conf/conf.h"
#include "conf/print.h"

struct fixture {
	struct bundle bundle;
	struct diags diags;
	struct policy *policy;
};

static void
load_bundle(struct fixture *f, bool keep_going)
{
	struct addr own;
	struct conf_options options = { .path = "/etc/ipsec.conf",
		.own = &own,
		.own_count = 1,
		.keep_going = keep_going };

	assert_true(addr_parse(&own, "192.0.2.1"));
	memset(&f->diags, 0, sizeof f->diags);
	f->policy = conf_load(&f->bundle, &options, &f->diags);
}

static void
put(struct fixture *f, const char *pattern, const char *path, const char *text)
{
	assert_int_equal(
	    bundle_add(&f->bundle, pattern, path, view_text(text)), OK);
}

static void
load(struct fixture *f, bool keep_going, const char *text)
{
	bundle_init(&f->bundle, NULL, NULL);
	put(f, "/etc/ipsec.conf", "/etc/ipsec.conf", text);
	load_bundle(f, keep_going);
}

static void
done(struct fixture *f)
{
	policy_unref(f->policy);
	diags_fini(&f->diags);
	bundle_fini(&f->bundle);
}

/* "2:3 part of the text" of one diagnostic. */
static void
assert_diag(const struct fixture *f, enum diag_level level, const char *at,
    const char *part)
{
	char place[32];

	for (size_t i = 0; i < f->diags.count; i++) {
		const struct diag *diag = &f->diags.item[i];

		snprintf(
		    place, sizeof place, "%u:%u", diag->line, diag->column);
		if (diag->level == level && strcmp(place, at) == 0 &&
		    strstr(diag->text, part) != NULL)
			return;
	}
	for (size_t i = 0; i < f->diags.count; i++)
		fprintf(stderr, "%u:%u: %s\n", f->diags.item[i].line,
		    f->diags.item[i].column, f->diags.item[i].text);
	fail_msg("nothing like %s %s", at, part);
}

static const char *
names(const struct policy *policy)
{
	static char text[400];
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; policy != NULL && i < policy->count; i++)
		used += (size_t)snprintf(text + used, sizeof text - used,
		    "%s%s", i > 0 ? " " : "", policy->conns[i]->name);
	return text;
}

#define PSK "\tauthby=psk\n\tauto=add\n"

static void
test_plain(void **state)
{
	struct fixture f;
	struct conn *conn;
	char text[200];

	(void)state;
	load(&f, false,
	    "config setup\n\tuniqueids=no\n"
	    "conn office\n" PSK "\tleft=192.0.2.1\n\tright=203.0.113.9\n"
	    "\tleftid=@gw\n\tleftsubnet=10.0.0.0/24,10.1.0.0/24\n"
	    "\tkeyexchange=ikev2\n\tdpdaction=clear\n");
	assert_non_null(f.policy);
	assert_int_equal(f.diags.count, 0);
	assert_false(f.policy->uniqueids);
	conn = policy_conn(f.policy, "office");
	assert_string_equal(conn->source, "/etc/ipsec.conf:3");
	assert_string_equal(
	    conf_hosts_text(&conn->remote, text, sizeof text), "203.0.113.9");
	assert_int_equal(conn->local.subnets.count, 2);
	assert_true(conn->remote.subnets.item[0].dynamic);
	assert_int_equal(conn->keyexchange, KEYEX_IKEV2);
	assert_int_equal(conn->dpd_delay_ms, 30000);
	assert_int_equal(conn->local.auth, AUTH_PSK);
	assert_int_equal(conn->reqid, 0);
	done(&f);
}

/* What is written where decides. */
static void
test_precedence(void **state)
{
	struct fixture f;
	struct conn *a;

	(void)state;
	load(&f, false,
	    "conn a\n\talso=one\n\talso=two\n\tmargintime=4m\n"
	    "\trekeyfuzz=\n"
	    "conn one\n\tmargintime=1m\n\tlifetime=21m\n\tikelifetime=31m\n"
	    "\tkeyingtries=5\n\talso=deep\n"
	    "conn two\n\tlifetime=22m\n"
	    "conn deep\n\tikelifetime=33m\n\tdpddelay=44s\n"
	    "conn %default\n\tright=203.0.113.9\n\tkeyingtries=7\n"
	    "\tdpdtimeout=99s\n\trekeyfuzz=50%\n\tdpdaction=hold\n" PSK
	    "conn a\n\treplay_window=64\n");
	if (f.policy == NULL)
		fail_msg("%s", f.diags.item[0].text);
	a = policy_conn(f.policy, "a");
	assert_int_equal(a->margin_ms, 240000);           /* its own */
	assert_int_equal(a->lifetime_ms, 22 * 60000);     /* the later also */
	assert_int_equal(a->ike_lifetime_ms, 31 * 60000); /* one's own */
	assert_int_equal(a->dpd_delay_ms, 44000);         /* one's also */
	assert_int_equal(a->keyingtries, 5);         /* also before %default */
	assert_int_equal(a->dpd_timeout_ms, 99000);  /* %default */
	assert_int_equal(a->rekeyfuzz_percent, 100); /* taken back */
	assert_int_equal(a->replay_window, 64);      /* the section again */
	done(&f);
}

static void
test_bad_values(void **state)
{
	static const char text[] =
	    "conn good\n" PSK "\tright=203.0.113.9\n"
	    "conn bad\n" PSK "\tright=203.0.113.8\n"
	    "\tlifetime=1x\n"
	    "conn worse\n" PSK "\tleftsubnet=10.0.0.0/8, 10.0.0.0/40\n";
	struct fixture f;

	(void)state;
	load(&f, false, text);
	assert_null(f.policy);
	assert_int_equal(f.diags.errors, 2);
	assert_diag(&f, DIAG_ERROR, "9:11", "lifetime: found \"1x\"");
	assert_diag(&f, DIAG_ERROR, "13:25", "\"10.0.0.0/40\"");
	done(&f);
	load(&f, true, text);
	assert_string_equal(names(f.policy), "good");
	assert_int_equal(f.diags.errors, 2);
	done(&f);
}

/* Said once, although every connection inherits it. */
static void
test_inherited_error(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, true,
	    "conn %default\n\tlifetime=never\n\tmobike=yes\n"
	    "conn a\n" PSK "conn b\n" PSK);
	assert_int_equal(f.diags.errors, 1);
	assert_int_equal(f.diags.warnings, 1);
	assert_string_equal(names(f.policy), "");
	done(&f);
}

static void
test_unknown(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, false,
	    "version 2\n"
	    "config setup\n\tfoo=1\n\tcharondebug=\"ike 2\"\n\tleft=1\n"
	    "ca my\n\tcacert=x\n\tanything=y\n"
	    "conn a\n" PSK "\tx-mine=1\n\tx_mine=2\n\tlefsubnet=10.0.0.0/8\n"
	    "\tuniqueids=no\n\tpfs=yes\n\tmobike=no\n\treauth=yes\n");
	assert_int_equal(f.diags.errors, 0);
	assert_string_equal(names(f.policy), "a");
	assert_diag(&f, DIAG_WARNING, "3:2", "unknown keyword foo");
	assert_diag(&f, DIAG_WARNING, "4:15", "charondebug");
	assert_diag(&f, DIAG_WARNING, "5:2", "left belongs in a conn section");
	assert_diag(&f, DIAG_WARNING, "6:1", "ca my");
	assert_diag(&f, DIAG_WARNING, "14:2", "did you mean leftsubnet?");
	assert_diag(&f, DIAG_WARNING, "15:2", "config setup");
	assert_diag(&f, DIAG_WARNING, "16:6", "pfs");
	assert_diag(&f, DIAG_WARNING, "18:9", "reauth");
	assert_int_equal(f.diags.warnings, 8);
	done(&f);
}

static void
test_refused(void **state)
{
	static const char *const lines[] = { "aggressive=yes", "ah=sha256",
		"xauth_identity=carol", "rightsourceip=10.3.0.0/24", "mark=42",
		"leftauth=pubkey", "rightauth=eap-mschapv2", "authby=rsasig",
		"leftprotoport=tcp", "installpolicy=no", "type=passthrough",
		"tfc=%mtu", "lifebytes=1000000", "lifepackets=1000",
		"right=%ani", "rightid=*@example.org" };

	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		struct fixture f;
		char text[300];

		snprintf(text, sizeof text, "conn a\n" PSK "\t%s\nconn b\n" PSK,
		    lines[i]);
		load(&f, true, text);
		if (f.diags.errors != 1)
			fail_msg("%s: %zu errors", lines[i], f.diags.errors);
		assert_string_equal(names(f.policy), "b");
		done(&f);
	}
}

/* Traffic that is to be held is not let go. */
static void
test_close(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, true,
	    "conn %default\n\tauthby=psk\n\tright=192.0.2.9\n"
	    "conn a\n\tcloseaction=hold\n\tauto=add\n"
	    "conn b\n\tcloseaction=hold\n\tauto=route\n"
	    "conn c\n\tcloseaction=restart\n\tauto=start\n"
	    "conn d\n\tcloseaction=restart\n\tauto=add\n");
	assert_string_equal(names(f.policy), "b c d");
	assert_int_equal(f.diags.errors, 1);
	assert_int_equal(f.diags.warnings, 1);
	assert_diag(&f, DIAG_ERROR, "5:14", "or beside it auto=route");
	assert_diag(&f, DIAG_WARNING, "14:14", "stays closed");
	done(&f);
}

/* A connection with a line that cannot be read would be wider than written. */
static void
test_broken_sections(void **state)
{
	static const struct {
		const char *text, *left;
	} cases[] = {
		{ "conn a\n" PSK "\trightid=\"alice\nconn b\n" PSK, "b" },
		{ "conn a\n" PSK "\trightid=al\001ice\nconn b\n" PSK, "b" },
		{ "conn a\n" PSK "\trightid alice\nconn b\n" PSK, "b" },
		/* A setting that is not indented, and those behind it. */
		{ "conn a\n" PSK "rightid alice\n\tike=aes256-sha256-modp2048\n"
		  "conn b\n" PSK,
		    "b" },
		{ "conn a\n" PSK "=x\n\trightid=alice\nconn b\n" PSK, "b" },
		/* What follows a bad header is not the section before. */
		{ "conn a\n" PSK "\tright=192.0.2.9\nconn \"b\n\tright=%any\n",
		    "a" },
		{ "conn a\n" PSK "\tinclude nowhere\nconn b\n" PSK, "b" },
		{ "conn a\n" PSK "\tinclude\nconn b\n" PSK, "b" },
		/* Whatever draws on it. */
		{ "conn a\n" PSK "\talso=c\nconn b\n" PSK
		  "conn c\n\trightid=\"x\n",
		    "b" },
		{ "conn %default\n\trightid=\"x\nconn a\n" PSK, "" },
		{ "config setup\n\tuniqueids=\"no\nconn b\n" PSK, "b" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct fixture f;
		struct conn *a;

		load(&f, true, cases[i].text);
		if (f.diags.errors == 0 ||
		    strcmp(names(f.policy), cases[i].left) != 0)
			fail_msg("%s: \"%s\" is left", cases[i].text,
			    names(f.policy));
		a = policy_conn(f.policy, "a");
		if (a != NULL)
			assert_int_equal(a->remote.host[0].kind, HOST_ADDR);
		done(&f);
	}
}

static void
test_also(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, true,
	    "conn a\n" PSK "\talso=b\nconn b\n" PSK "\talso=c\n"
	    "conn c\n" PSK "\talso=a\n"
	    "conn self\n" PSK "\talso=self\n"
	    "conn lost\n" PSK "\talso=nowhere\n"
	    "conn fine\n" PSK);
	assert_string_equal(names(f.policy), "fine");
	assert_int_equal(f.diags.errors, 5);
	assert_diag(&f, DIAG_ERROR, "16:7", "drawing on itself");
	assert_diag(&f, DIAG_ERROR, "20:7", "none of this name");
	done(&f);
}

/* Doubling chains of also= end at a bound, in no time. */
static void
test_also_bomb(void **state)
{
	char text[8000];
	size_t used = 0;
	struct fixture f;

	(void)state;
	for (unsigned i = 0; i < 60; i++)
		used += (size_t)snprintf(text + used, sizeof text - used,
		    "conn c%u\n\talso=c%u\n\talso=c%u\n", i, i + 1, i + 1);
	snprintf(text + used, sizeof text - used, "conn c60\n" PSK);
	load(&f, true, text);
	assert_true(f.diags.errors > 0);
	done(&f);
}

/* Sections that only serve others need not be whole. */
static void
test_templates(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, false,
	    "conn base\n\tike=aes256-sha256-modp2048\n"
	    "conn a\n\talso=base\n" PSK
	    "conn quiet\n\tauthby=psk\n\tauto=ignore\n"
	    "conn forgotten\n\tauthby=psk\n");
	assert_string_equal(names(f.policy), "a quiet forgotten");
	assert_int_equal(f.diags.warnings, 1);
	assert_diag(&f, DIAG_WARNING, "10:1", "auto is not given");
	done(&f);
}

static void
test_auth_must_be_said(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, true,
	    "conn a\n\tauto=add\n"
	    "conn b\n\tauto=add\n\tleftauth=psk\n"
	    "conn c\n\tauto=add\n\tleftauth=psk\n\trightauth=psk\n");
	assert_string_equal(names(f.policy), "c");
	assert_diag(&f, DIAG_ERROR, "1:1", "authby=psk is missing");
	assert_diag(&f, DIAG_ERROR, "3:1", "rightauth is missing");
	done(&f);
}

static void
test_sides(void **state)
{
	struct fixture f;
	struct conn *conn;

	(void)state;
	load(&f, false,
	    "conn l\n" PSK "\tleft=192.0.2.1\n\tright=203.0.113.9\n"
	    "conn r\n" PSK "\tleft=203.0.113.9\n\tright=192.0.2.1\n"
	    "\tleftsubnet=10.1.0.0/16\n\trightid=@us\n"
	    "conn n\n" PSK "\tleft=198.51.100.1\n\tright=203.0.113.9\n"
	    "conn d\n" PSK "\tleft=vpn.example.org\n\tright=%defaultroute\n"
	    "conn b\n" PSK "\tleft=%defaultroute\n\tright=192.0.2.1\n"
	    "conn any\n" PSK);
	assert_non_null(f.policy);
	conn = policy_conn(f.policy, "l");
	assert_int_equal(conn->local.host[0].addr.octets[0], 192);
	conn = policy_conn(f.policy, "r");
	assert_int_equal(conn->local.host[0].addr.octets[0], 192);
	assert_non_null(conn->local.id);
	assert_false(conn->remote.subnets.item[0].dynamic);
	conn = policy_conn(f.policy, "n");
	assert_int_equal(conn->local.host[0].addr.octets[0], 198);
	conn = policy_conn(f.policy, "d");
	assert_int_equal(conn->local.host[0].kind, HOST_DEFAULTROUTE);
	/* The default of an identity is what stands in left or right. */
	assert_int_equal(conn->remote.id->type, ID_FQDN);
	assert_null(conn->local.id);
	conn = policy_conn(f.policy, "b");
	assert_int_equal(conn->local.host[0].kind, HOST_DEFAULTROUTE);
	conn = policy_conn(f.policy, "any");
	assert_null(conn->remote.id);
	done(&f);
}

static void
test_sense(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, true,
	    "conn same\n" PSK "\tleft=192.0.2.1\n\tright=192.0.2.1\n"
	    "conn mixed\n" PSK "\tleft=192.0.2.1\n\tright=2001:db8::1\n"
	    "conn v1\n" PSK "\tkeyexchange=ikev1\n"
	    "\tike=aes128gcm16-prfsha256-modp2048\n");
	assert_string_equal(names(f.policy), "");
	assert_diag(&f, DIAG_ERROR, "1:1", "the same address");
	assert_diag(&f, DIAG_ERROR, "6:1", "IPv6");
	assert_diag(&f, DIAG_ERROR, "11:1", "IKEv1");
	done(&f);
	load(&f, false,
	    "conn start\n\tauthby=psk\n\tauto=start\n"
	    "conn short\n" PSK "\tlifetime=10m\n"
	    "conn dpd\n" PSK "\tdpdaction=clear\n\tdpddelay=1h\n"
	    "conn weak\n" PSK "\tike=aes128-sha1-modp1024\n\tesp=3des-sha1\n"
	    "conn transport\n" PSK "\ttype=transport\n"
	    "\tleftsubnet=10.0.0.0/8\n"
	    "conn v1\n" PSK "\tkeyexchange=ikev1\n");
	assert_non_null(f.policy);
	assert_diag(&f, DIAG_WARNING, "1:1", "auto=start needs");
	assert_diag(&f, DIAG_WARNING, "4:1", "margintime");
	assert_diag(&f, DIAG_WARNING, "8:1", "dpdtimeout");
	assert_diag(&f, DIAG_WARNING, "16:6", "modp1024");
	assert_diag(&f, DIAG_WARNING, "17:6", "3des");
	assert_diag(&f, DIAG_WARNING, "18:1", "transport");
	assert_int_equal(f.diags.warnings, 6);
	assert_int_equal(policy_conn(f.policy, "start")->autostart, AUTO_ADD);
	/* dpdaction=none: nobody is asked. */
	assert_int_equal(policy_conn(f.policy, "start")->dpd_delay_ms, 0);
	assert_non_null(
	    strstr(policy_conn(f.policy, "weak")->weak, "modp1024"));
	assert_string_equal(policy_conn(f.policy, "weak")->weak,
	    "prfsha1, sha1, modp1024, 3des");
	done(&f);
}

/* What exists in IKEv1 and what does not. */
static void
test_v1_suites(void **state)
{
	static const struct {
		const char *line;
		bool good;
	} cases[] = {
		{ "ike=aes256-sha1-modp1024", true },
		{ "ike=3des-sha1-modp1536", true },
		{ "ike=aes128-sha256-ecp256,aes128gcm16-prfsha256-ecp256",
		    true },
		{ "ike=aes128gcm16-prfsha256-ecp256", false },
		{ "ike=aes128gcm16-aes256gcm16-prfsha256-ecp256", false },
		{ "ike=aes128-aes256-sha256-curve25519-ecp256", true },
		{ "rekey=yes", true }, /* the defaults */
		{ "esp=aes256-sha256-modp2048", true },
		{ "esp=aes256gcm16", true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct fixture f;
		char text[200];

		snprintf(text, sizeof text,
		    "conn a\n" PSK "\tkeyexchange=ikev1\n\t%s\n",
		    cases[i].line);
		load(&f, false, text);
		if ((f.policy != NULL) != cases[i].good)
			fail_msg("%s", cases[i].line);
		done(&f);
	}
}

static void
test_structure(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, true,
	    "\tauthby=psk\n"
	    "con a\n\tauthby=psk\n"
	    "conn %foo\n\tauthby=psk\n"
	    "conn\n"
	    "config other\n"
	    "conn twice\n" PSK "\tlifetime=1h\n\tlifetime=2h\n"
	    "conn --json\n" PSK "\trightid alice\n");
	assert_diag(&f, DIAG_ERROR, "1:2", "outside of a section");
	assert_diag(&f, DIAG_ERROR, "2:1", "found \"con a\"");
	assert_diag(&f, DIAG_ERROR, "4:1", "%foo");
	assert_diag(&f, DIAG_ERROR, "6:1", "expected a name");
	assert_diag(&f, DIAG_ERROR, "7:1", "config other");
	assert_diag(&f, DIAG_WARNING, "12:11", "second time");
	assert_diag(&f, DIAG_ERROR, "13:1", "--json");
	assert_diag(&f, DIAG_ERROR, "16:2", "found \"rightid\" alone");
	assert_int_equal(f.diags.errors, 7);
	assert_string_equal(names(f.policy), "twice");
	assert_int_equal(policy_conn(f.policy, "twice")->lifetime_ms, 7200000);
	done(&f);
}

static void
test_no_file(void **state)
{
	struct fixture f;

	(void)state;
	bundle_init(&f.bundle, NULL, NULL);
	load_bundle(&f, true);
	assert_null(f.policy);
	assert_int_equal(f.diags.errors, 1);
	assert_string_equal(f.bundle.missing, "/etc/ipsec.conf");
	done(&f);
	load(&f, false, "");
	assert_non_null(f.policy);
	assert_int_equal(f.policy->count, 0);
	done(&f);
}

static void
test_include(void **state)
{
	struct fixture f, g;
	uint8_t *octets;
	size_t len;

	(void)state;
	bundle_init(&f.bundle, NULL, NULL);
	put(&f, "/etc/ipsec.conf", "/etc/ipsec.conf",
	    "conn a\n" PSK "include d/*.conf\n\tlifetime=2h\n"
	    "include none*\ninclude absent\ninclude closed\n");
	put(&f, "/etc/d/*.conf", "/etc/d/1.conf",
	    "\tdpddelay=7s\n"
	    "\tdpdaction=clear\n");
	put(&f, "/etc/d/*.conf", "/etc/d/2.conf",
	    "\tbad=1\nconn b\n" PSK "include loop.conf\n");
	put(&f, "/etc/d/loop.conf", "/etc/d/loop.conf", "include loop.conf\n");
	bundle_add_problem(&f.bundle, "/etc/none*", "", "");
	bundle_add_problem(
	    &f.bundle, "/etc/absent", "/etc/absent", BUNDLE_ABSENT);
	bundle_add_problem(
	    &f.bundle, "/etc/closed", "/etc/closed", "Permission denied");
	assert_int_equal(bundle_pack(&f.bundle, &octets, &len), OK);
	load_bundle(&f, true);
	assert_string_equal(names(f.policy), "a b");
	/* The section goes on across files, until another one begins. */
	assert_int_equal(policy_conn(f.policy, "a")->dpd_delay_ms, 7000);
	assert_int_equal(policy_conn(f.policy, "b")->lifetime_ms, 7200000);
	assert_diag(&f, DIAG_WARNING, "1:2", "unknown keyword bad");
	assert_diag(&f, DIAG_ERROR, "1:1", "at most 10");
	assert_diag(&f, DIAG_WARNING, "7:1", BUNDLE_ABSENT);
	assert_diag(&f, DIAG_ERROR, "8:1", "Permission denied");
	assert_int_equal(f.diags.errors, 2);

	/* Packed and unpacked, it says the same. */
	assert_int_equal(bundle_unpack(&g.bundle, view_of(octets, len)), OK);
	load_bundle(&g, true);
	assert_string_equal(names(g.policy), "a b");
	assert_int_equal(g.diags.count, f.diags.count);
	for (size_t i = 0; i < g.diags.count; i++) {
		char a[1200], b[1200];

		assert_string_equal(diag_text(&f.diags.item[i], a, sizeof a),
		    diag_text(&g.diags.item[i], b, sizeof b));
	}
	for (size_t i = 0; i < 2; i++)
		assert_true(conn_equal(f.policy->conns[i], g.policy->conns[i]));
	done(&f);
	done(&g);
	free(octets);
}

/* Truncated, bent and inflated bundles. */
static void
test_hostile_bundle(void **state)
{
	struct bundle bundle, back;
	uint8_t *octets;
	uint32_t seed = 3;
	size_t len;

	(void)state;
	bundle_init(&bundle, NULL, NULL);
	bundle_add(&bundle, "p", "/x/p", view_text("conn a\n"));
	bundle_add(&bundle, "q*", "/x/q1", view_of("a\0b", 3));
	bundle_add_problem(&bundle, "r", "", "nothing");
	assert_int_equal(bundle_pack(&bundle, &octets, &len), OK);
	for (size_t i = 0; i < len; i++) {
		assert_int_not_equal(
		    bundle_unpack(&back, view_of(octets, i)), OK);
		bundle_fini(&back);
	}
	for (size_t i = 0; i < 20000; i++) {
		uint8_t *bent = mem_dup(octets, len);

		for (unsigned j = 0; j < 3; j++) {
			seed = seed * 1664525u + 1013904223u;
			bent[(seed >> 8) % len] = (uint8_t)(seed >> 24);
		}
		if (bundle_unpack(&back, view_of(bent, len)) == OK)
			assert_true(back.count <= 3);
		bundle_fini(&back);
		free(bent);
	}
	assert_int_equal(bundle_unpack(&back, view_of(octets, len)), OK);
	assert_int_equal(back.count, 3);
	assert_int_equal(back.octets, bundle.octets);
	assert_int_equal(back.file[1].len, 3);
	assert_string_equal(back.file[2].problem, "nothing");
	bundle_fini(&back);
	free(octets);
	bundle_fini(&bundle);
}

static void
write_file(const char *folder, const char *name, const char *text)
{
	char path[300];
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void
test_real_files(void **state)
{
	char folder[] = "/tmp/t_conf.XXXXXX", path[300];
	struct conf_options options = { .path = path };
	struct bundle bundle;
	struct diags diags = { 0 };
	struct policy *policy;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/[odd].conf", folder);
	write_file(folder, "[odd].conf", "include *.inc\ninclude no*.inc\n");
	write_file(folder, "b.inc", "conn b\n" PSK);
	write_file(folder, "a.inc", "conn a\n" PSK);
	bundle_init(&bundle, bundle_read_files, NULL);
	policy = conf_load(&bundle, &options, &diags);
	assert_string_equal(names(policy), "a b");
	assert_int_equal(diags.count, 0);
	policy_unref(policy);
	bundle_fini(&bundle);
	/* A folder is no file. */
	options.path = folder;
	bundle_init(&bundle, bundle_read_files, NULL);
	assert_null(conf_load(&bundle, &options, &diags));
	assert_int_equal(diags.errors, 1);
	bundle_fini(&bundle);
	/* Nor is a pipe, which would keep us waiting. */
	unlink(path);
	options.path = path;
	assert_int_equal(mkfifo(path, 0600), 0);
	bundle_init(&bundle, bundle_read_files, NULL);
	assert_null(conf_load(&bundle, &options, &diags));
	assert_int_equal(diags.errors, 2);
	bundle_fini(&bundle);
	diags_fini(&diags);
	unlink(path);
	snprintf(path, sizeof path, "%s/a.inc", folder);
	unlink(path);
	snprintf(path, sizeof path, "%s/b.inc", folder);
	unlink(path);
	rmdir(folder);
}

static void
test_include_paths(void **state)
{
	char path[BUNDLE_PATH], lengthy[BUNDLE_PATH + 1];

	(void)state;
	assert_true(include_path("/etc/ipsec.conf", "a/*.conf", path));
	assert_string_equal(path, "/etc/a/*.conf");
	assert_true(include_path("/etc/ipsec.conf", "/b", path));
	assert_string_equal(path, "/b");
	assert_true(include_path("ipsec.conf", "b", path));
	assert_string_equal(path, "b");
	for (size_t len = BUNDLE_PATH - 2; len <= BUNDLE_PATH; len++) {
		memset(lengthy, 'x', len);
		lengthy[len] = '\0';
		assert_int_equal(
		    include_path("f", lengthy, path), len < BUNDLE_PATH);
	}
}

static void
test_print(void **state)
{
	struct fixture f;
	char *text = NULL;
	size_t size;
	FILE *out;

	(void)state;
	load(&f, true,
	    "conn a\n" PSK "\tright=%any\nconn b\n\tlifetime=\"\"x\\\"\n");
	out = open_memstream(&text, &size);
	conf_print(out, &f.diags, f.policy);
	fclose(out);
	assert_non_null(strstr(text, "/etc/ipsec.conf:6:"));
	assert_non_null(strstr(text, "a  (/etc/ipsec.conf:1)  auto=add"));
	assert_non_null(strstr(text, "1 connection, "));
	free(text);
	out = open_memstream(&text, &size);
	conf_print_json(out, &f.diags, f.policy);
	fclose(out);
	assert_non_null(strstr(text, "\"connections\":[{\"name\":\"a\""));
	assert_int_equal(text[0], '{');
	free(text);
	done(&f);
}

static void
test_many(void **state)
{
	const size_t count = 10000, size = count * 120;
	char *text = malloc(size);
	size_t used = 0;
	struct fixture f;

	(void)state;
	assert_non_null(text);
	used = (size_t)snprintf(text, size, "conn %%default\n" PSK);
	for (size_t i = 0; i < count; i++)
		used += (size_t)snprintf(text + used, size - used,
		    "conn c%zu\n\tright=10.0.%zu.%zu\n\trightid=@n%zu\n", i,
		    i / 256, i % 256, i);
	load(&f, false, text);
	assert_non_null(f.policy);
	assert_int_equal(f.policy->count, count);
	assert_non_null(policy_conn(f.policy, "c9999"));
	done(&f);
	free(text);
}

/* Sentences made of the language's own words, at random. */
static void
test_hostile_text(void **state)
{
	static const char *const words[] = { "conn ", "config setup",
		"%default", "a", "b", "\n", "\n\t", "=", "also=", "left",
		"right", "id=", "subnet=", "10.0.0.0/8", ",", "\"", "#", "@",
		"\\", "include ", "ike=", "aes256-sha256", "!",
		"auto=", "start", "%any", "lifetime=", "1h", "x-", "authby=psk",
		"ca ", "-", "::1", "\x80", "/" };
	uint32_t seed = 11;

	(void)state;
	for (size_t round = 0; round < 1500; round++) {
		char text[600];
		size_t used = 0;
		struct fixture f;

		text[0] = '\0';
		for (size_t i = 0; i < round % 50; i++) {
			seed = seed * 1664525u + 1013904223u;
			used += (size_t)snprintf(text + used,
			    sizeof text - used, "%s",
			    words[(seed >> 16) %
			          (sizeof words / sizeof words[0])]);
		}
		load(&f, round % 2 == 0, text);
		assert_true(f.policy != NULL || f.diags.errors > 0);
		done(&f);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_precedence),
		cmocka_unit_test(test_bad_values),
		cmocka_unit_test(test_inherited_error),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_broken_sections),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_also),
		cmocka_unit_test(test_also_bomb),
		cmocka_unit_test(test_templates),
		cmocka_unit_test(test_auth_must_be_said),
		cmocka_unit_test(test_sides),
		cmocka_unit_test(test_sense),
		cmocka_unit_test(test_v1_suites),
		cmocka_unit_test(test_structure),
		cmocka_unit_test(test_no_file),
		cmocka_unit_test(test_include),
		cmocka_unit_test(test_hostile_bundle),
		cmocka_unit_test(test_real_files),
		cmocka_unit_test(test_include_paths),
		cmocka_unit_test(test_print),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_hostile_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
