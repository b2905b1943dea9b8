#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/engine.h"
#include "common/env.h"
#include "common/explain.h"
#include "common/limit.h"
#include "common/timer.h"

struct fixture {
	struct env env;
	struct log log;
	struct ike_sa sa;
	struct endpoint local, remote;
	char line[LOG_LINE], told[LOG_LINE];
	unsigned lines, events;
};

static void
take_line(struct log *log, enum log_level level, const char *line)
{
	struct fixture *f = log->arg;

	assert_int_equal(level, LOG_LEVEL_WARNING);
	snprintf(f->line, sizeof f->line, "%s", line);
	f->lines++;
}

static void
take_event(struct env *env, const struct event *event)
{
	struct fixture *f = env->event_arg;

	assert_int_equal(event->kind, EVENT_EXPLAIN);
	snprintf(f->told, sizeof f->told, "%s", event->text);
	f->events++;
}

static void
begin(struct fixture *f)
{
	memset(f, 0, sizeof *f);
	f->log.level = LOG_LEVEL_DEBUG;
	f->log.write = take_line;
	f->log.arg = f;
	f->env.log = &f->log;
	f->env.event = take_event;
	f->env.event_arg = f;
	assert_true(addr_parse(&f->local.addr, "192.0.2.1"));
	assert_true(addr_parse(&f->remote.addr, "203.0.113.9"));
	f->sa.env = &f->env;
	f->sa.serial = 7;
	f->sa.local = f->local;
	f->sa.remote = f->remote;
	f->sa.state = IKE_HALF_OPEN;
}

static struct conn *
conn(const char *name, const char *ike, const char *esp)
{
	struct conn *made = conn_new(name);
	const char *problem;
	bool strict;
	size_t at;

	made->autostart = AUTO_ADD;
	assert_int_equal(
	    proposals_parse(&made->ike, PROTO_IKE, ike, &strict, &at, &problem),
	    OK);
	assert_int_equal(
	    proposals_parse(&made->esp, PROTO_ESP, esp, &strict, &at, &problem),
	    OK);
	return made;
}

/* An offer of these algorithms; a number beyond the table is unknown. */
static struct offer
offer(enum ipsec_protocol protocol, const enum alg_id *ids, size_t count)
{
	struct offer made = { .number = 1, .protocol = (uint8_t)protocol };

	for (size_t i = 0; i < count; i++) {
		struct transform *transform = &made.transform[made.count++];
		const struct alg *alg = alg_get(ids[i]);

		transform->alg = alg;
		transform->kind = alg == NULL ? ALG_ENCR : alg->kind;
		transform->number = alg == NULL ? 20 : alg->ikev2;
		transform->key_bits = alg == NULL ? 256 : alg->key_bits;
	}
	return made;
}

static void
assert_has(const struct fixture *f, const char *part)
{
	if (strstr(f->line, part) == NULL)
		fail_msg("no \"%s\" in\n%s", part, f->line);
	assert_string_equal(f->line, f->told);
}

static void
test_proposal(void **state)
{
	static const enum alg_id old[] = { ALG_3DES_CBC, ALG_PRF_SHA1,
		ALG_SHA1_96, ALG_MODP1024 };
	static const enum alg_id close[] = { ALG_AES256_CBC, ALG_PRF_SHA256,
		ALG_SHA256_128, ALG_MODP1024 };
	struct fixture f;
	struct conn *conns[2] = {
		conn("far", "aes128gcm16-prfsha384-ecp384", "aes128gcm16"),
		conn("office", "aes256-sha256-modp2048", "aes256-sha256"),
	};
	struct offer offers[2] = { offer(PROTO_IKE, old, 4),
		offer(PROTO_IKE, close, 4) };

	(void)state;
	begin(&f);
	f.sa.conn = conns[1];
	explain_proposal(
	    &f.env, &f.sa, &f.remote, conns, 2, PROTO_IKE, offers, 2);
	assert_int_equal(f.lines, 1);
	assert_int_equal(f.events, 1);
	assert_has(&f, "office[7] 203.0.113.9: no acceptable IKE proposal\n");
	assert_has(&f, "\n    offered     3des");
	assert_has(&f, "\n    configured  far: ");
	assert_has(&f, "\n                office: aes256");
	assert_has(&f, "\n    nearest     office: differs in group");
	assert_has(&f,
	    "\n    remedy      add modp1024 (legacy) to ike= of \"office\", "
	    "or enable modp2048 at the peer");
	conn_unref(conns[0]);
	conn_unref(conns[1]);
}

static void
test_unknown_algorithm(void **state)
{
	static const enum alg_id strange[] = { ALG_COUNT, ALG_SHA256_128 };
	struct fixture f;
	struct conn *conns[1] = { conn(
	    "a", "aes256-sha256-modp2048", "aes256-sha256") };
	struct offer offers[1] = { offer(PROTO_ESP, strange, 2) };

	(void)state;
	begin(&f);
	explain_proposal(
	    &f.env, NULL, &f.remote, conns, 1, PROTO_ESP, offers, 1);
	assert_has(&f, "203.0.113.9: no acceptable ESP proposal");
	assert_has(&f, "encr#20/256");
	assert_has(&f, "enable aes256 at the peer");
	conn_unref(conns[0]);
}

static void
test_no_offer(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f);
	explain_proposal(&f.env, &f.sa, &f.remote, NULL, 0, PROTO_IKE, NULL, 0);
	assert_has(&f, "offered     nothing");
	assert_has(&f, "configured  no connection");
}

/* Many offers of many transforms: the block is cut, not overrun. */
static void
test_long_offers(void **state)
{
	struct fixture f;
	struct conn *conns[8];
	struct offer *offers = calloc(OFFERS_MAX, sizeof *offers);

	(void)state;
	assert_non_null(offers);
	for (size_t i = 0; i < 8; i++)
		conns[i] = conn("a-rather-lengthy-name-of-a-connection",
		    "aes256-sha256-modp2048", "aes256-sha256");
	for (size_t i = 0; i < OFFERS_MAX; i++) {
		offers[i].protocol = PROTO_IKE;
		offers[i].count = OFFER_TRANSFORMS;
		for (size_t j = 0; j < OFFER_TRANSFORMS; j++)
			offers[i].transform[j].number = 65535;
	}
	begin(&f);
	explain_proposal(
	    &f.env, &f.sa, &f.remote, conns, 8, PROTO_IKE, offers, OFFERS_MAX);
	assert_has(&f, "...");
	assert_has(&f, "and 4 more");
	assert_has(&f, "remedy");
	for (size_t i = 0; i < 8; i++)
		conn_unref(conns[i]);
	free(offers);
}

static void
no_conn(struct fixture *f, struct conn *one, unsigned version)
{
	struct policy *policy = policy_new(&one, one == NULL ? 0 : 1);

	f->env.policy = policy;
	explain_no_conn(&f->env, &f->local, &f->remote, version);
	f->env.policy = NULL;
	policy_unref(policy);
}

static void
test_no_conn(void **state)
{
	struct fixture f;
	struct conn *c;

	(void)state;
	begin(&f);
	no_conn(&f, NULL, 2);
	assert_has(&f, "asked       IKEv2, from 203.0.113.9 to 192.0.2.1");
	assert_has(&f, "a conn with right=203.0.113.9 or right=%any");
	c = conn("v1", "aes256-sha256-modp2048", "aes256-sha256");
	c->keyexchange = KEYEX_IKEV1;
	no_conn(&f, c, 2);
	assert_has(&f, "v1: keyexchange allows IKEv1 only");
	c = conn("off", "aes256-sha256-modp2048", "aes256-sha256");
	c->autostart = AUTO_IGNORE;
	no_conn(&f, c, 2);
	assert_has(&f, "off: auto=ignore leaves it alone");
	c = conn("here", "aes256-sha256-modp2048", "aes256-sha256");
	c->local.host[0].kind = HOST_ADDR;
	c->local.host[0].addr = f.remote.addr;
	no_conn(&f, c, 2);
	assert_has(&f, "here: its local address is another one");
	c = conn("there", "aes256-sha256-modp2048", "aes256-sha256");
	c->remote.host[0].kind = HOST_ADDR;
	c->remote.host[0].addr = f.local.addr;
	no_conn(&f, c, 2);
	assert_null(strstr(f.line, "nearest"));
	/* No policy at all. */
	explain_no_conn(&f.env, &f.local, &f.remote, 1);
	assert_has(&f, "configured  0 connections");
}

static void
test_identity(void **state)
{
	struct fixture f;
	struct conn *conns[1] = { conn(
	    "office", "aes256-sha256-modp2048", "aes256-sha256") };
	const char *problem;
	struct ident *claimed, *asked;

	(void)state;
	begin(&f);
	assert_int_equal(
	    ident_parse(&conns[0]->remote.id, "office.example", &problem), OK);
	claimed = ident_new(ID_FQDN, view_text("evil\n\x1b[31m"));
	assert_int_equal(ident_parse(&asked, "other-gw", &problem), OK);
	explain_identity(&f.env, &f.sa, conns, 1, asked, claimed);
	assert_has(&f, "office: the peer's identity differs");
	assert_has(&f, "asks for other-gw");
	/* The peer's octets are escaped. */
	assert_null(strchr(f.line, '\x1b'));
	assert_null(strstr(f.line, "evil\n"));
	explain_identity(&f.env, &f.sa, conns, 1, asked, conns[0]->remote.id);
	assert_has(&f, "office: our own identity differs");
	explain_identity(&f.env, &f.sa, conns, 0, NULL, claimed);
	assert_has(&f, "configured  no connection");
	ident_unref(claimed);
	ident_unref(asked);
	conn_unref(conns[0]);
}

static void
test_ts(void **state)
{
	struct fixture f;
	struct conn *conns[1] = { conn(
	    "office", "aes256-sha256-modp2048", "aes256-sha256") };
	struct ts_list local = { 0 }, remote = { 0 };
	const char *problem;
	struct ts ts;

	(void)state;
	begin(&f);
	assert_int_equal(ts_parse(&ts, "10.0.0.0/8", &problem), OK);
	ts_list_add(&local, &ts);
	assert_int_equal(ts_parse(&ts, "203.0.113.0/24", &problem), OK);
	ts_list_add(&remote, &ts);
	explain_ts(&f.env, &f.sa, conns, 1, &local, &remote);
	assert_has(&f, "offered     10.0.0.0/8 here, 203.0.113.0/24 there");
	assert_has(&f, "office: our side has nothing in common");
	conn_unref(conns[0]);
}

/* What differs in more than one place is said as a suite. */
static void
test_whole_suite(void **state)
{
	static const enum alg_id old[] = { ALG_3DES_CBC, ALG_SHA1_96,
		ALG_PRF_SHA1, ALG_MODP1024 };
	static const enum alg_id aead[] = { ALG_AES128_GCM16 };
	struct fixture f;
	struct conn *conns[1] = { conn(
	    "office", "aes256-sha256-modp2048", "aes256-sha256") };
	struct offer offers[1] = { offer(PROTO_IKE, old, 4) };

	(void)state;
	begin(&f);
	explain_proposal(
	    &f.env, &f.sa, &f.remote, conns, 1, PROTO_IKE, offers, 1);
	assert_has(&f, "add the suite 3des-");
	assert_has(&f, "modp1024 (legacy) to ike= of \"office\", or enable "
	               "aes256-sha256-prfsha256-modp2048 at the peer");
	offers[0] = offer(PROTO_ESP, aead, 1);
	explain_proposal(
	    &f.env, &f.sa, &f.remote, conns, 1, PROTO_ESP, offers, 1);
	assert_has(&f, "add the suite aes128gcm16");
	assert_has(&f, "to esp= of \"office\", or enable aes256-sha256 at");
	conn_unref(conns[0]);
}

/* Algorithms and selectors fit: it is the mode. */
static void
test_mode(void **state)
{
	static const enum alg_id good[] = { ALG_AES256_CBC, ALG_SHA256_128 };
	struct fixture f;
	struct conn *conns[1] = { conn(
	    "office", "aes256-sha256-modp2048", "aes256-sha256") };
	struct offer offers[1] = { offer(PROTO_ESP, good, 2) };
	struct ts_list ours, theirs;

	(void)state;
	begin(&f);
	conns[0]->mode = MODE_TRANSPORT;
	explain_proposal(
	    &f.env, &f.sa, &f.remote, conns, 1, PROTO_ESP, offers, 1);
	assert_has(&f, "office: differs in mode: allowed transport");
	conn_ts(&conns[0]->local, &f.local.addr, &ours);
	conn_ts(&conns[0]->remote, &f.remote.addr, &theirs);
	explain_ts(&f.env, &f.sa, conns, 1, &ours, &theirs);
	assert_has(&f, "office: differs in mode: allowed transport");
	assert_has(&f, "type=tunnel in \"office\", or type=transport at the");
	conn_unref(conns[0]);
}

static void
test_key(void **state)
{
	struct ident *claimed = ident_new(ID_FQDN, view_text("bob"));
	struct fixture f;

	(void)state;
	begin(&f);
	f.sa.conn = conn("office", "aes256-sha256-modp2048", "aes256-sha256");
	explain_key(&f.env, &f.sa, claimed, false);
	assert_has(&f, "office[7] 203.0.113.9: the peer does not have our");
	assert_has(&f, "offered     the peer is bob");
	assert_has(&f, "configured  office: we are 192.0.2.1, the peer is ");
	assert_has(&f, "office: the pre-shared keys differ");
	assert_has(&f, "the same key for 192.0.2.1 and bob in ipsec.secrets");
	explain_key(&f.env, &f.sa, NULL, true);
	assert_has(&f, "nothing in ipsec.secrets is for these two");
	assert_null(strstr(f.line, "offered"));
	ident_unref(claimed);
	conn_unref(f.sa.conn);
}

static void
test_refused(void **state)
{
	static const struct engine v1 = { .version = 1 }, v2 = { .version = 2 };
	static const struct {
		enum kind answer;
		bool in_child;
		const char *offered, *remedy;
	} cases[] = {
		{ KIND_N_NO_PROPOSAL, false, "aes256-sha256-modp2048",
		    "algorithms in ike= of \"office\"" },
		{ KIND_N_NO_PROPOSAL, true, "aes128gcm16",
		    "algorithms in esp= of \"office\"" },
		{ KIND_N_AUTH_FAILED, false, "we are 192.0.2.1, the peer is ",
		    "the same pre-shared key at both ends" },
		{ KIND_N_TS_UNACCEPTABLE, true, "tunnel, 192.0.2.1/32 here, ",
		    "the same networks and the same type=" },
		{ KIND_N_INVALID_ID, true, "tunnel, 192.0.2.1/32 here, ",
		    "the same networks and the same type=" },
	};
	struct conn *one =
	    conn("office", "aes256-sha256-modp2048", "aes128gcm16");
	struct fixture f;

	(void)state;
	begin(&f);
	f.sa.conn = one;
	f.sa.engine = &v2;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		explain_refused(
		    &f.env, &f.sa, one, cases[i].in_child, cases[i].answer);
		assert_has(&f, cases[i].in_child
		                   ? ": the peer refuses the child SA: N("
		                   : ": the peer refuses the IKE SA: N(");
		assert_has(&f, cases[i].offered);
		assert_has(&f, cases[i].remedy);
	}
	explain_refused(&f.env, &f.sa, one, true, KIND_N_ERROR);
	assert_has(&f, "the peer's log may say more");
	assert_null(strstr(f.line, "type="));
	f.sa.engine = &v1;
	explain_refused(&f.env, &f.sa, one, true, KIND_N_NO_PROPOSAL);
	assert_has(&f, "offered     aes128gcm16, tunnel");
	assert_has(&f, "and the same type= at both ends");
	explain_refused(&f.env, &f.sa, NULL, true, KIND_N_ERROR);
	assert_int_equal(f.lines, 7);
	conn_unref(one);
}

/* Strangers are told about at a bounded rate; we ourselves always are. */
static void
test_rate(void **state)
{
	struct timers timers;
	struct fixture f;

	(void)state;
	begin(&f);
	timers_init(&timers, 0);
	f.env.timers = &timers;
	f.env.random = env_random_openssl;
	f.env.limit = limit_new(&f.env, &limit_defaults);
	assert_non_null(f.env.limit);
	for (unsigned i = 0; i < 1000; i++)
		explain_no_conn(&f.env, &f.local, &f.remote, 2);
	assert_in_range(f.lines, 1, 500);
	f.lines = 0;
	f.sa.initiator = true;
	for (unsigned i = 0; i < 10; i++)
		explain_proposal(
		    &f.env, &f.sa, &f.remote, NULL, 0, PROTO_IKE, NULL, 0);
	assert_int_equal(f.lines, 10);
	limit_free(f.env.limit);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_proposal),
		cmocka_unit_test(test_unknown_algorithm),
		cmocka_unit_test(test_no_offer),
		cmocka_unit_test(test_long_offers),
		cmocka_unit_test(test_no_conn),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_ts),
		cmocka_unit_test(test_whole_suite),
		cmocka_unit_test(test_mode),
		cmocka_unit_test(test_key),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_rate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
