#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/policy.h"

#define MANY 10000

static struct addr
addr(const char *text)
{
	struct addr addr;

	assert_true(addr_parse(&addr, text));
	return addr;
}

static struct ident *
id(const char *text)
{
	struct ident *ident;
	const char *problem;

	assert_int_equal(ident_parse(&ident, text, &problem), OK);
	return ident;
}

/* "*" any, "-" a name without address, "=A" a name at A, "A-B" a range. */
static void
set_host(struct conn_end *end, const char *text)
{
	struct conn_host *host = &end->host[end->host_count++];
	const char *dash = strchr(text, '-');
	char first[ADDR_TEXT];

	memset(host, 0, sizeof *host);
	if (strcmp(text, "*") == 0) {
		host->kind = HOST_ANY;
	} else if (text[0] == '=' || strcmp(text, "-") == 0) {
		host->kind = HOST_NAME;
		host->name = strdup("name.example");
		if (text[0] == '=')
			host->addr = addr(text + 1);
	} else if (dash != NULL) {
		host->kind = HOST_RANGE;
		snprintf(first, sizeof first, "%.*s", (int)(dash - text), text);
		host->addr = addr(first);
		host->last = addr(dash + 1);
	} else {
		host->kind = HOST_ADDR;
		host->addr = addr(text);
	}
}

static struct conn *
conn(const char *name, const char *local, const char *remote, const char *ours,
    const char *theirs)
{
	struct conn *made = conn_new(name);

	assert_non_null(made);
	made->autostart = AUTO_ADD;
	made->local.host_count = 0;
	made->remote.host_count = 0;
	set_host(&made->local, local);
	set_host(&made->remote, remote);
	made->local.id = ours == NULL ? NULL : id(ours);
	made->remote.id = theirs == NULL ? NULL : id(theirs);
	return made;
}

static struct policy *
policy(struct conn **conns, size_t count)
{
	struct policy *made = policy_new(conns, count);

	assert_non_null(made);
	return made;
}

static const char *
names(struct conn **found, size_t count)
{
	static char text[600];
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < count; i++)
		used += (size_t)snprintf(text + used, sizeof text - used,
		    "%s%s", i > 0 ? " " : "", found[i]->name);
	return text;
}

static const char *
candidates(const struct policy *p, const char *local, const char *remote,
    unsigned version, size_t max)
{
	struct conn *found[16];
	struct addr ours = addr(local), theirs = addr(remote);
	size_t count =
	    policy_candidates(p, &ours, &theirs, version, found, max);

	assert_in_range(count, 0, max);
	return names(found, count);
}

static void
test_defaults(void **state)
{
	struct conn *c = conn_new("x");

	(void)state;
	assert_int_equal(c->ike_lifetime_ms, 3 * 3600 * 1000);
	assert_int_equal(c->local.ike_port, 500);
	assert_int_equal(c->remote.subnets.count, 1);
	assert_true(c->remote.subnets.item[0].dynamic);
	assert_true(c->ike.count > 0);
	assert_true(c->esp.count > 0);
	assert_false(proposals_weak(&c->ike, c->weak, sizeof c->weak));
	assert_true(conn_allows(c, 1));
	assert_true(conn_allows(c, 2));
	assert_false(conn_allows(c, 3));
	conn_unref(c);
	conn_unref(NULL);
}

static void
test_candidates(void **state)
{
	struct conn *c[] = {
		conn("any", "*", "*", NULL, NULL),
		conn("any-local", "192.0.2.1", "*", NULL, NULL),
		conn("range", "*", "203.0.113.0-203.0.113.255", NULL, NULL),
		conn("name", "*", "=203.0.113.9", NULL, NULL),
		conn("unknown", "*", "-", NULL, NULL),
		conn("addr", "*", "203.0.113.9", NULL, NULL),
		conn("addr-local", "192.0.2.1", "203.0.113.9", NULL, NULL),
		conn("other-local", "192.0.2.2", "203.0.113.9", NULL, NULL),
		conn("v1", "*", "203.0.113.8", NULL, NULL),
		conn("ignored", "*", "203.0.113.9", NULL, NULL),
		conn("both", "*", "203.0.113.7", NULL, NULL),
	};
	struct policy *p;

	(void)state;
	c[8]->keyexchange = KEYEX_IKEV1;
	c[9]->autostart = AUTO_IGNORE;
	set_host(&c[10]->remote, "203.0.113.7");
	set_host(&c[10]->remote, "*");
	p = policy(c, sizeof c / sizeof c[0]);
	assert_string_equal(candidates(p, "192.0.2.1", "203.0.113.9", 2, 16),
	    "addr-local addr name range any-local any both");
	assert_string_equal(candidates(p, "192.0.2.1", "203.0.113.9", 2, 3),
	    "addr-local addr name");
	assert_string_equal(
	    candidates(p, "192.0.2.1", "203.0.113.9", 2, 0), "");
	assert_string_equal(candidates(p, "192.0.2.2", "203.0.113.9", 2, 16),
	    "other-local addr name range any both");
	assert_string_equal(candidates(p, "192.0.2.3", "203.0.113.8", 1, 16),
	    "v1 range any both");
	assert_string_equal(
	    candidates(p, "192.0.2.3", "203.0.113.8", 2, 16), "range any both");
	assert_string_equal(
	    candidates(p, "192.0.2.3", "203.0.113.7", 2, 16), "both range any");
	assert_string_equal(
	    candidates(p, "2001:db8::1", "2001:db8::2", 2, 16), "any both");
	assert_ptr_equal(policy_conn(p, "range"), c[2]);
	assert_ptr_equal(policy_conn(p, "ignored"), c[9]);
	assert_null(policy_conn(p, "nobody"));
	policy_unref(p);
}

/* An address by itself or by a name, not one of many. */
static void
test_named(void **state)
{
	struct addr peer = addr("192.0.2.7");
	struct conn *conns[] = { conn("one", "*", "192.0.2.7", NULL, NULL),
		conn("name", "*", "=192.0.2.7", NULL, NULL),
		conn("unresolved", "*", "-", NULL, NULL),
		conn("range", "*", "192.0.2.7-192.0.2.7", NULL, NULL),
		conn("any", "*", "*", NULL, NULL) };

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		assert_int_equal(
		    conn_end_names(&conns[i]->remote, &peer), i < 2);
		conn_unref(conns[i]);
	}
}

static void
test_identify(void **state)
{
	struct conn *c[] = {
		conn("any", "*", "*", NULL, NULL),
		conn("local", "*", "*", "gw", "%any"),
		conn("remote", "*", "*", "other-gw", "carol"),
		conn("wrong", "*", "*", "gw", "dave"),
		conn("both", "*", "*", "gw", "carol"),
		conn("addr", "*", "203.0.113.9", NULL, NULL),
	};
	struct conn *found[6];
	struct ident *gw = id("gw"), *carol = id("CAROL"),
	             *their = id("203.0.113.9");
	struct addr us = addr("192.0.2.1"), them = addr("203.0.113.9");
	struct policy *p = policy(c, 6);
	size_t count;

	(void)state;
	memcpy(found, c, sizeof found);
	count = policy_identify(found, 6, gw, &us, carol, &them);
	assert_string_equal(names(found, count), "both local");
	memcpy(found, c, sizeof found);
	count = policy_identify(found, 6, NULL, &us, carol, &them);
	assert_string_equal(names(found, count), "remote both any local");
	memcpy(found, c, sizeof found);
	count = policy_identify(found, 6, NULL, &us, their, &them);
	assert_string_equal(names(found, count), "addr any local");
	memcpy(found, c, sizeof found);
	count = policy_identify(found, 6, gw, &us, NULL, &them);
	assert_string_equal(names(found, count), "local wrong both");
	count = policy_identify(found, 0, gw, &us, NULL, &them);
	assert_int_equal(count, 0);
	ident_unref(gw);
	ident_unref(carol);
	ident_unref(their);
	policy_unref(p);
}

static void
test_identities_of_an_end(void **state)
{
	struct conn *any = conn("a", "*", "*", NULL, NULL);
	struct conn *one = conn("b", "*", "203.0.113.9", "%any", "%any");
	struct conn *at = conn("c", "*", "203.0.113.9", NULL, NULL);
	struct addr us = addr("192.0.2.1"), them = addr("203.0.113.9");
	struct ident *ident = conn_local_id(any, &us);

	(void)state;
	assert_int_equal(ident->type, ID_IPV4_ADDR);
	ident_unref(ident);
	ident = conn_local_id(one, &us);
	assert_int_equal(ident->type, ID_IPV4_ADDR);
	ident_unref(ident);
	assert_null(conn_remote_id(any, &them));
	assert_null(conn_remote_id(one, &them));
	ident = conn_remote_id(at, &them);
	assert_int_equal(ident->type, ID_IPV4_ADDR);
	ident_unref(ident);
	conn_unref(any);
	conn_unref(one);
	conn_unref(at);
}

/* Thousands at %any, told apart by identity alone, and thousands of exact
 * addresses: what matters is found whatever stands before it. */
static void
test_many(void **state)
{
	struct conn **c = calloc(2 * MANY + 1, sizeof *c);
	struct addr us = addr("192.0.2.1");
	struct policy *p;
	char name[32], who[32];

	(void)state;
	assert_non_null(c);
	for (size_t i = 0; i < MANY; i++) {
		snprintf(name, sizeof name, "id%zu", i);
		snprintf(who, sizeof who, "n%zu.example.org", i);
		c[i] = conn(name, "*", "*", NULL, who);
		snprintf(name, sizeof name, "addr%zu", i);
		snprintf(who, sizeof who, "10.0.%zu.%zu", i / 256, i % 256);
		c[MANY + i] = conn(name, "*", who, NULL, NULL);
	}
	c[2 * MANY] = conn("loose", "*", "*", NULL, NULL);
	p = policy(c, 2 * MANY + 1);
	for (size_t i = 0; i < 2000; i++) {
		size_t n = i * 7919 % MANY;
		struct conn *found[4];
		struct addr them;
		struct ident *ident;
		size_t count;

		snprintf(who, sizeof who, "10.0.%zu.%zu", n / 256, n % 256);
		snprintf(name, sizeof name, "addr%zu", n);
		them = addr(who);
		count = policy_candidates(p, &us, &them, 2, found, 1);
		assert_string_equal(names(found, count), name);
		snprintf(who, sizeof who, "n%zu.example.org", n);
		snprintf(name, sizeof name, "id%zu loose", n);
		ident = id(who);
		them = addr("198.51.100.7");
		count =
		    policy_by_identity(p, &us, &them, 2, NULL, ident, found, 4);
		assert_string_equal(names(found, count), name);
		ident_unref(ident);
	}
	policy_unref(p);
	free(c);
}

/* Before the identity is known, those alike count as one: the first. */
static void
test_distinct(void **state)
{
	struct addr us = addr("192.0.2.1"), them = addr("203.0.113.9");
	struct conn *c[10], *found[10];
	struct policy *p;
	bool strict;
	const char *problem;
	size_t count, at;

	(void)state;
	c[0] = conn("ignored", "*", "*", NULL, "z");
	c[0]->autostart = AUTO_IGNORE;
	c[1] = conn("a", "*", "*", NULL, "a");
	c[2] = conn("b", "*", "*", NULL, "b");
	c[3] = conn("v2", "*", "*", NULL, "c");
	c[3]->keyexchange = KEYEX_IKEV2;
	c[4] = conn("ike", "*", "*", NULL, "d");
	assert_int_equal(proposals_parse(&c[4]->ike, PROTO_IKE,
	                     "aes256-sha512-ecp521", &strict, &at, &problem),
	    OK);
	c[5] = conn("ours", "192.0.2.1", "*", NULL, "e");
	c[6] = conn("ours too", "192.0.2.1", "*", NULL, "f");
	c[7] = conn("exact", "*", "203.0.113.9", NULL, "g");
	c[8] = conn("exact too", "*", "203.0.113.9", NULL, "h");
	c[9] = conn("range", "*", "203.0.113.0-203.0.113.255", NULL, "i");
	p = policy(c, 10);
	count = policy_distinct(p, &us, &them, 2, found, 10);
	assert_string_equal(names(found, count), "exact range ours a v2 ike");
	count = policy_distinct(p, &us, &them, 1, found, 10);
	assert_string_equal(names(found, count), "exact range ours a ike");
	count = policy_distinct(p, &us, &them, 1, found, 2);
	assert_string_equal(names(found, count), "exact range");
	policy_unref(p);
}

/* Microseconds of CPU of one responder's lookups among so many at %any. */
static double
lookup_us(size_t conns)
{
	struct conn **c = calloc(conns, sizeof *c), *found[32];
	struct addr us = addr("192.0.2.1"), them = addr("203.0.113.9");
	struct timespec begin, end;
	struct ident *last;
	struct policy *p;
	char name[32];

	assert_non_null(c);
	for (size_t i = 0; i < conns; i++) {
		snprintf(name, sizeof name, "n%zu.example", i);
		c[i] = conn(name, "*", "*", NULL, name);
	}
	p = policy(c, conns);
	last = id(name);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
	for (unsigned i = 0; i < 2000; i++) {
		assert_int_equal(
		    policy_distinct(p, &us, &them, 2, found, 32), 1);
		assert_int_equal(
		    policy_by_identity(p, &us, &them, 2, NULL, last, found, 32),
		    1);
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
	ident_unref(last);
	policy_unref(p);
	free(c);
	return (double)(end.tv_sec - begin.tv_sec) * 1e6 +
	       (double)(end.tv_nsec - begin.tv_nsec) / 1e3;
}

/* Linear would be a factor of 100. */
static void
test_lookup_cost(void **state)
{
	double few, many;

	(void)state;
	few = lookup_us(50);
	many = lookup_us(5000);
	assert_true(many < 25 * few);
}

/* However many: none is forgotten, and the order stays. */
static void
test_identify_many(void **state)
{
	enum { COUNT = 300 };
	struct conn *c[COUNT], *found[COUNT];
	struct addr us = addr("192.0.2.1"), them = addr("203.0.113.9");
	struct ident *carol = id("carol");
	struct policy *p;
	size_t count;
	char name[16];

	(void)state;
	for (size_t i = 0; i < COUNT; i++) {
		snprintf(name, sizeof name, "c%zu", i);
		c[i] = conn(name, "*", "*", NULL,
		    i % 3 == 0   ? "dave"
		    : i % 3 == 1 ? "%any"
		                 : "carol");
	}
	p = policy(c, COUNT);
	memcpy(found, c, sizeof found);
	count = policy_identify(found, COUNT, NULL, &us, carol, &them);
	assert_int_equal(count, 200);
	for (size_t i = 0; i < 100; i++) {
		assert_ptr_equal(found[i], c[3 * i + 2]);
		assert_ptr_equal(found[100 + i], c[3 * i + 1]);
	}
	ident_unref(carol);
	policy_unref(p);
}

/* All names with what became of them. */
struct seen {
	char text[400];
	size_t used;
};

static void
see(enum policy_change change, struct conn *old_conn, struct conn *new_conn,
    void *arg)
{
	static const char *const words[] = { "same", "changed", "gone", "new" };
	struct seen *seen = arg;

	assert_int_equal(change == CHANGE_NEW, old_conn == NULL);
	assert_int_equal(change == CHANGE_GONE, new_conn == NULL);
	if (change == CHANGE_SAME)
		assert_ptr_equal(old_conn, new_conn);
	if (change == CHANGE_CHANGED)
		assert_int_equal(old_conn->reqid, new_conn->reqid);
	seen->used += (size_t)snprintf(seen->text + seen->used,
	    sizeof seen->text - seen->used, "%s:%s ",
	    (new_conn != NULL ? new_conn : old_conn)->name, words[change]);
}

static void
test_diff(void **state)
{
	struct conn *first[] = { conn("a", "*", "10.0.0.1", NULL, "x"),
		conn("b", "*", "10.0.0.2", NULL, NULL),
		conn("c", "*", "=10.0.0.3", NULL, NULL) };
	struct conn *second[] = { conn("d", "*", "10.0.0.4", NULL, NULL),
		conn("c", "*", "-", NULL, NULL),
		conn("a", "*", "10.0.0.1", NULL, "X") };
	struct conn *third[] = { conn("b", "*", "10.0.0.2", NULL, NULL),
		conn("a", "*", "10.0.0.1", NULL, "y") };
	struct policy *p = policy(first, 3), *q = policy(second, 3),
	              *r = policy(third, 2);
	struct seen seen = { .used = 0 };

	(void)state;
	policy_diff(NULL, p, see, &seen);
	assert_string_equal(seen.text, "a:new b:new c:new ");
	assert_int_equal(first[0]->reqid, REQID_FIRST);
	assert_int_equal(first[2]->reqid, REQID_FIRST + 2);
	seen.used = 0;
	policy_diff(p, q, see, &seen);
	assert_string_equal(seen.text, "b:gone d:new c:same a:same ");
	assert_ptr_equal(q->conns[2], first[0]);
	assert_ptr_equal(policy_conn(q, "a"), first[0]);
	assert_int_equal(q->conns[0]->reqid, REQID_FIRST + 3);
	/* The name's last address lives on, and with it the lookup. */
	assert_string_equal(candidates(q, "192.0.2.1", "10.0.0.3", 2, 4), "c");
	policy_unref(p);
	seen.used = 0;
	policy_diff(q, r, see, &seen);
	assert_string_equal(seen.text, "d:gone c:gone b:new a:changed ");
	assert_int_equal(policy_conn(r, "b")->reqid, REQID_FIRST + 4);
	assert_int_equal(policy_conn(r, "a")->reqid, REQID_FIRST);
	policy_unref(q);
	seen.used = 0;
	policy_diff(r, NULL, see, &seen);
	assert_string_equal(seen.text, "b:gone a:gone ");
	policy_diff(NULL, r, NULL, NULL);
	policy_unref(r);
}

/* Whatever changes makes a difference, and IKE's part a different peer. */
static void
test_equal(void **state)
{
	struct conn *a = conn("a", "*", "10.0.0.1", "x", "y"), *b;
	const char *problem;
	struct ts ts;
	bool strict;
	size_t at;

	(void)state;
#define CHANGED(same_peer, change)                                             \
	do {                                                                   \
		b = conn("a", "*", "10.0.0.1", "x", "y");                      \
		assert_true(conn_equal(a, b));                                 \
		change;                                                        \
		assert_false(conn_equal(a, b));                                \
		b->name[0] = 'b';                                              \
		assert_int_equal(conn_same_peer(a, b), same_peer);             \
		conn_unref(b);                                                 \
	} while (0)
	assert_true(conn_equal(a, a));
	CHANGED(true, b->name[0] = 'b');
	CHANGED(true, b->autostart = AUTO_START);
	CHANGED(true, b->mode = MODE_TRANSPORT);
	CHANGED(true, b->dpd_action = DPD_CLEAR);
	CHANGED(true, b->fragmentation = FRAG_NO);
	CHANGED(true, b->rekey = false);
	CHANGED(true, b->lifetime_ms++);
	CHANGED(true, b->margin_ms++);
	CHANGED(true, b->rekeyfuzz_percent++);
	CHANGED(true, b->keyingtries++);
	CHANGED(true, b->dpd_delay_ms++);
	CHANGED(true, b->dpd_timeout_ms++);
	CHANGED(true, b->replay_window++);
	CHANGED(true, ts_parse(&ts, "10.0.0.0/8", &problem);
	        b->local.subnets.item[0] = ts);
	CHANGED(true, proposals_parse(&b->esp, PROTO_ESP, "aes128-sha256",
	                  &strict, &at, &problem));
	CHANGED(false, proposals_parse(&b->ike, PROTO_IKE,
	                   "aes128-sha256-modp2048", &strict, &at, &problem));
	CHANGED(false, b->keyexchange = KEYEX_IKEV1);
	CHANGED(false, b->forceencaps = true);
	CHANGED(false, b->ike_lifetime_ms++);
	CHANGED(false, b->remote.ike_port++);
	CHANGED(false, b->remote.host[0].addr.octets[3]++);
	CHANGED(false, set_host(&b->remote, "*"));
	CHANGED(false, ident_unref(b->remote.id); b->remote.id = NULL);
	CHANGED(false, ident_unref(b->local.id); b->local.id = id("z"));
	conn_unref(a);
}

/* What a renewal is made from, after a reload. */
static void
test_now(void **state)
{
	struct conn *old = conn("a", "*", "10.0.0.1", "x", "y");
	struct conn *changed = conn("a", "*", "10.0.0.1", "x", "y");
	struct conn *other = conn("b", "*", "10.0.0.1", "x", "y");
	struct conn *both[] = { changed, other };
	struct policy *p;

	(void)state;
	changed->ike_lifetime_ms++;
	p = policy(both, 2);
	assert_ptr_equal(conn_now(NULL, old, 2), old);
	assert_ptr_equal(conn_now(p, old, 2), changed);
	assert_ptr_equal(conn_now(p, changed, 2), changed);
	assert_ptr_equal(conn_now(p, other, 1), other);
	/* The new one does not speak this version any more. */
	changed->keyexchange = KEYEX_IKEV1;
	assert_ptr_equal(conn_now(p, old, 2), old);
	assert_ptr_equal(conn_now(p, old, 1), changed);
	/* It is for somebody else. */
	changed->remote.host[0].addr.octets[3]++;
	assert_ptr_equal(conn_now(p, old, 1), old);
	policy_unref(p);
	conn_unref(old);
}

static void
test_rekey_times(void **state)
{
	static const struct {
		uint64_t lifetime, margin;
		uint32_t fuzz;
		uint64_t least, most;
	} cases[] = {
		{ 3600000, 540000, 100, 2520000, 3060000 },
		{ 3600000, 540000, 0, 3060000, 3060000 },
		{ 3600000, 0, 100, 3600000, 3600000 },
		{ 1200000, 540000, 100, 600000, 660000 },
		{ 60000, 540000, 0, 30000, 30000 },
		{ 60000, 540000, 100, 30000, 37500 },
		{ 10000, UINT64_MAX / 2, 1000, 5000, 6250 },
		{ 0, 540000, 100, 0, 0 },
	};
	struct conn *c = conn_new("x");

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint64_t lifetime = cases[i].lifetime;

		c->margin_ms = cases[i].margin;
		c->rekeyfuzz_percent = cases[i].fuzz;
		assert_int_equal(conn_rekey_ms(c, lifetime, 0), cases[i].most);
		assert_in_range(conn_rekey_ms(c, lifetime, UINT32_MAX),
		    cases[i].least, cases[i].least + 1);
		assert_true(
		    conn_rekey_ms(c, lifetime, 1u << 31) >= lifetime / 2);
	}
	conn_unref(c);
}

static void
test_selectors(void **state)
{
	struct conn *c = conn_new("x");
	struct addr us = addr("192.0.2.1");
	struct ts_list list;
	const char *problem;
	struct ts ts;

	(void)state;
	assert_int_equal(ts_parse(&ts, "10.0.0.0/24", &problem), OK);
	ts_list_add(&c->local.subnets, &ts);
	conn_ts(&c->local, &us, &list);
	assert_int_equal(list.count, 2);
	assert_true(addr_equal(&list.item[0].first, &us));
	assert_true(addr_equal(&list.item[0].last, &us));
	assert_false(list.item[0].dynamic);
	assert_true(ts_equal(&list.item[1], &ts));
	conn_unref(c);
}

static void
test_empty(void **state)
{
	struct policy *p = policy(NULL, 0);

	(void)state;
	assert_string_equal(candidates(p, "10.0.0.1", "10.0.0.2", 2, 4), "");
	assert_null(policy_conn(p, "x"));
	assert_ptr_equal(policy_ref(p), p);
	policy_unref(p);
	policy_unref(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_candidates),
		cmocka_unit_test(test_named),
		cmocka_unit_test(test_identify),
		cmocka_unit_test(test_identities_of_an_end),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_identify_many),
		cmocka_unit_test(test_distinct),
		cmocka_unit_test(test_lookup_cost),
		cmocka_unit_test(test_diff),
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_now),
		cmocka_unit_test(test_rekey_times),
		cmocka_unit_test(test_selectors),
		cmocka_unit_test(test_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
