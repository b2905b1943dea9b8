/*
 * keeper under a clock of its own, with an engine that does as it is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/engine.h"
#include "common/limit.h"
#include "common/net.h"
#include "common/sa.h"
#include "daemon/keeper.h"
#include "kernel/install.h"
#include "kernel/kernel.h"

#define ROUND_MS 10 /* the fake engine's answers take so long */
#define ANSWERS  256

enum outcome {
	COMES_UP,
	FAILS_AT_ONCE,
	FAILS_LATER,
	NEVER_ANSWERS,
	WITHOUT_CHILD
};

struct world {
	struct env env;
	struct timers timers;
	struct net net;
	struct kernel kernel;
	struct keeper *keeper;
	struct policy *policy;
	enum outcome outcome;
	enum err error;   /* of FAILS_LATER */
	bool no_children; /* the next asked for below an SA fail */
	unsigned initiated, children, closed, child_closed, rekeyed, mapped;
	struct endpoint to;
	uint64_t chance;
	/* requests to the data plane, answered by a timer */
	unsigned asked[KMSG_OPS], traps;
	struct {
		kernel_done *done;
		void *arg;
		struct kmsg_answer answer;
	} waiting[ANSWERS];
	size_t waiting_count;
	struct timer answer_timer;
	/* names */
	void (*named)(void *arg, enum err err, const struct addr *addrs,
	    size_t count, uint32_t ttl_s);
	void *named_arg;
	unsigned asked_names, cancelled;
	char name[64];
};

static struct world *world; /* of the test that runs */

/* An engine ------------------------------------------------------------- */

struct fake_sa {
	struct ike_sa sa;
	struct conn *conn;
	struct timer timer;
	enum outcome outcome;
	enum err error;
};

static struct child_sa *
child_make(struct ike_sa *sa, struct conn *conn)
{
	static uint32_t spi = 0x1000;
	struct child_sa *child = child_new(sa, conn, true);

	assert_non_null(child);
	child_set_spi_in(child, ++spi);
	child_up(child, NULL);
	return child;
}

static void
fake_answer(void *arg)
{
	struct fake_sa *fake = arg;
	struct ike_sa *sa = &fake->sa;
	const uint8_t mac[16] = { 1 };
	struct addr peer = sa->remote.addr;
	struct auth_proof proof;

	if (fake->outcome == FAILS_LATER) {
		sa_kill(sa, fake->error, true, "the peer says no");
		return;
	}
	if (fake->outcome == NEVER_ANSWERS) {
		sa_kill(sa, ERR_TIMEOUT, false, NULL);
		return;
	}
	sa->id_remote = ident_from_addr(&peer);
	assert_true(proof_by_mac(
	    &proof, sa, view_of(mac, sizeof(mac)), view_of(mac, sizeof(mac))));
	assert_int_equal(sa_establish(sa, &proof), OK);
	sa_event(sa, NULL, EVENT_IKE_UP, OK, false, NULL);
	if (fake->outcome == WITHOUT_CHILD)
		child_kill(child_new(sa, fake->conn, true), ERR_TS, true, NULL);
	else if (fake->conn != NULL)
		child_make(sa, fake->conn);
}

static const struct engine fake_engine;

static enum err
fake_initiate(struct env *env, struct conn *conn, const struct endpoint *local,
    const struct endpoint *remote, struct ike_sa **sa)
{
	struct fake_sa *fake;

	world->initiated++;
	world->to = *remote;
	if (world->outcome == FAILS_AT_ONCE)
		return ERR_NO_SECRET;
	fake = calloc(1, sizeof(*fake));
	assert_non_null(fake);
	assert_int_equal(sa_init(env, &fake->sa, &fake_engine, true, 0, local,
	                     remote, false),
	    OK);
	sa_set_conn(&fake->sa, conn);
	fake->conn = conn;
	fake->outcome = world->outcome;
	fake->error = world->error;
	timer_init(&fake->timer, fake_answer, fake);
	timer_set(env->timers, &fake->timer,
	    world->outcome == NEVER_ANSWERS ? 100000 : ROUND_MS);
	*sa = &fake->sa;
	return OK;
}

static enum err
fake_child(struct ike_sa *sa, struct conn *conn, const struct ts packet[2])
{
	(void)packet;
	world->children++;
	if (world->no_children) {
		child_kill(
		    child_new(sa, conn, true), ERR_TS, true, "TS_UNACCEPTABLE");
		return OK;
	}
	child_make(sa, conn);
	return OK;
}

static enum err
fake_close(struct ike_sa *sa)
{
	world->closed++;
	sa_kill(sa, OK, false, NULL);
	return OK;
}

static enum err
fake_child_close(struct child_sa *child)
{
	world->child_closed++;
	child_kill(child, OK, false, NULL);
	return OK;
}

static enum err
fake_child_rekey(struct child_sa *child)
{
	(void)child;
	world->rekeyed++;
	return OK;
}

static void
fake_mapping(struct ike_sa *sa, const struct endpoint *remote)
{
	(void)sa;
	world->mapped++;
	world->to = *remote;
}

static void
fake_free(struct ike_sa *sa)
{
	struct fake_sa *fake = (struct fake_sa *)(void *)sa;

	timer_stop(sa->env->timers, &fake->timer);
	free(fake);
}

static const struct engine fake_engine = {
	.version = 2,
	.name = "IKEv2",
	.initiate = fake_initiate,
	.child = fake_child,
	.close = fake_close,
	.child_close = fake_child_close,
	.child_rekey = fake_child_rekey,
	.mapping = fake_mapping,
	.free = fake_free,
};

/* The rest of the world ------------------------------------------------- */

static bool
fake_random(void *arg, void *octets, size_t len)
{
	uint8_t *at = octets;

	(void)arg;
	while (len-- > 0) {
		world->chance = world->chance * 6364136223846793005u + 1;
		*at++ = (uint8_t)(world->chance >> 33);
	}
	return true;
}

static bool
net_source(struct net *net, const struct addr *remote, struct addr *local)
{
	(void)net;
	*local = addr_any((enum addr_family)remote->family);
	local->octets[addr_len(remote) - 1] = 9;
	return true;
}

static uint16_t
net_port_of(const struct net *net, bool natt)
{
	(void)net;
	return natt ? 4500 : 500;
}

static const struct net_ops net_ops = {
	.source = net_source,
	.port = net_port_of,
};

static void
kernel_answers(void *arg)
{
	(void)arg;
	while (world->waiting_count > 0) {
		size_t at = --world->waiting_count;

		world->waiting[at].done(&world->env, world->waiting[at].arg,
		    &world->waiting[at].answer);
	}
}

static enum err
kernel_submit(struct kernel *kernel, const struct kmsg *request,
    kernel_done *done, void *arg)
{
	(void)kernel;
	world->asked[request->op]++;
	if (request->op == KMSG_POLICY_ADD && request->policy.trap)
		world->traps++;
	if (done == NULL)
		return OK;
	assert_true(world->waiting_count < ANSWERS);
	world->waiting[world->waiting_count].done = done;
	world->waiting[world->waiting_count].arg = arg;
	world->waiting[world->waiting_count++].answer =
	    (struct kmsg_answer){ .op = request->op };
	timer_set(&world->timers, &world->answer_timer, 1);
	return OK;
}

static void
kernel_free_nothing(struct kernel *kernel)
{
	(void)kernel;
}

static const struct kernel_ops kernel_ops = { kernel_submit,
	kernel_free_nothing };

static enum err
name_resolve(void *names, const char *name, uint8_t family,
    void (*done)(void *arg, enum err err, const struct addr *addrs,
        size_t count, uint32_t ttl_s),
    void *arg)
{
	(void)names;
	(void)family;
	world->asked_names++;
	snprintf(world->name, sizeof(world->name), "%s", name);
	world->named = done;
	world->named_arg = arg;
	return OK;
}

static void
name_cancel(void *names, void *arg)
{
	(void)names;
	if (world->named_arg == arg && world->named != NULL) {
		world->cancelled++;
		world->named = NULL;
	}
}

static void
answer_name(enum err err, const char *first, const char *second)
{
	void (*done)(void *arg, enum err err, const struct addr *addrs,
	    size_t count, uint32_t ttl_s) = world->named;
	struct addr addrs[2];
	size_t count = 0;

	assert_non_null(done);
	world->named = NULL;
	if (first != NULL)
		assert_true(addr_parse(&addrs[count++], first));
	if (second != NULL)
		assert_true(addr_parse(&addrs[count++], second));
	done(world->named_arg, err, addrs, count, 60);
}

static void
tell(struct env *env, const struct event *event)
{
	keeper_event(env->keeper, event);
}

static int
setup(void **state)
{
	static const struct keeper_names names = { name_resolve, name_cancel,
		NULL };
	struct env *env;

	world = calloc(1, sizeof(*world));
	*state = world;
	env = &world->env;
	timers_init(&world->timers, 1000000);
	timer_init(&world->answer_timer, kernel_answers, NULL);
	world->net.ops = &net_ops;
	world->kernel.ops = &kernel_ops;
	env->timers = &world->timers;
	env->net = &world->net;
	env->kernel = &world->kernel;
	env->random = fake_random;
	env->engine[1] = env->engine[2] = &fake_engine;
	env->event = tell;
	assert_int_equal(sadb_new(env), OK);
	env->limit = limit_new(env, &limit_defaults);
	world->keeper = keeper_new(env, &names);
	assert_non_null(world->keeper);
	return 0;
}

static int
teardown(void **state)
{
	struct env *env = &world->env;

	(void)state;
	env->event = NULL;
	keeper_free(world->keeper);
	sadb_free(env->sadb);
	kernel_free(env);
	limit_free(env->limit);
	policy_unref(env->policy);
	free(world);
	return 0;
}

static void
pass(uint64_t ms)
{
	uint64_t until = world->timers.now_ms + ms, next;

	while ((next = timers_next(&world->timers)) <= until)
		timers_run(&world->timers, next, 1);
	timers_run(&world->timers, until, 1);
}

static struct conn *
make(const char *name, const char *remote, enum policy_auto automatic)
{
	struct conn *conn = conn_new(name);

	assert_non_null(conn);
	conn->autostart = (uint8_t)automatic;
	conn->keyexchange = KEYEX_IKEV2;
	conn->keyingtries = 3;
	conn->local.host_count = 1;
	conn->local.host[0].kind = HOST_DEFAULTROUTE;
	conn->remote.host_count = 1;
	if (strcmp(remote, "%any") == 0) {
		conn->remote.host[0].kind = HOST_ANY;
	} else if (addr_parse(&conn->remote.host[0].addr, remote)) {
		conn->remote.host[0].kind = HOST_ADDR;
	} else {
		conn->remote.host[0].kind = HOST_NAME;
		conn->remote.host[0].name = strdup(remote);
	}
	return conn;
}

static struct keeper_difference
load(struct conn *first, struct conn *second)
{
	struct conn *conns[2] = { first, second };
	struct policy *policy = policy_new(conns, first == NULL    ? 0
	                                          : second == NULL ? 1
	                                                           : 2);
	struct keeper_difference difference;

	assert_non_null(policy);
	keeper_policy(world->keeper, policy, &difference);
	policy_unref(policy);
	return difference;
}

static void
is_state(const char *name, const char *state)
{
	assert_string_equal(keeper_state(world->keeper, name), state);
}

/* Somebody who waits */

struct waiter {
	struct keeper_wait wait;
	unsigned lines, dones;
	enum err err;
	char text[256];
};

static void
waiter_line(struct keeper_wait *wait, const char *line)
{
	struct waiter *waiter = wait->arg;

	assert_true(line[0] != '\0');
	waiter->lines++;
}

static void
waiter_done(struct keeper_wait *wait, enum err err, const char *text)
{
	struct waiter *waiter = wait->arg;

	waiter->dones++;
	waiter->err = err;
	snprintf(
	    waiter->text, sizeof(waiter->text), "%s", text != NULL ? text : "");
}

static enum err
up(struct waiter *waiter, const char *name)
{
	memset(waiter, 0, sizeof(*waiter));
	waiter->wait.progress = waiter_line;
	waiter->wait.done = waiter_done;
	waiter->wait.arg = waiter;
	return keeper_up(world->keeper, name, &waiter->wait);
}

/* Tests ----------------------------------------------------------------- */

static void
test_start(void **state)
{
	(void)state;
	load(make("a", "192.0.2.1", AUTO_START), NULL);
	assert_int_equal(world->initiated, 0); /* not from inside */
	pass(ROUND_MS * 2);
	assert_int_equal(world->initiated, 1);
	assert_int_equal(world->to.port, 500);
	is_state("a", "up");
	pass(600000);
	assert_int_equal(world->initiated, 1);
}

static void
test_add_does_nothing(void **state)
{
	(void)state;
	load(make("a", "192.0.2.1", AUTO_ADD), NULL);
	pass(60000);
	assert_int_equal(world->initiated, 0);
	assert_null(keeper_state(world->keeper, "a"));
}

static void
test_tries(void **state)
{
	struct waiter waiter;

	(void)state;
	world->outcome = FAILS_LATER;
	world->error = ERR_NO_PROPOSAL;
	load(make("a", "192.0.2.1", AUTO_START), NULL);
	pass(100);
	assert_int_equal(world->initiated, 1);
	is_state("a", "waiting");
	pass(1800); /* not before two seconds */
	assert_int_equal(world->initiated, 1);
	pass(1000);
	assert_int_equal(world->initiated, 2);
	pass(10000);
	assert_int_equal(world->initiated, 3);
	is_state("a", "given up");
	pass(3600000);
	assert_int_equal(world->initiated, 3);
	/* By hand it starts anew. */
	world->outcome = COMES_UP;
	assert_int_equal(up(&waiter, "a"), OK);
	assert_int_equal(waiter.dones, 0);
	pass(100);
	assert_int_equal(waiter.dones, 1);
	assert_int_equal(waiter.err, OK);
	assert_true(waiter.lines >= 2);
	is_state("a", "up");
}

static void
test_for_ever(void **state)
{
	struct conn *conn = make("a", "192.0.2.1", AUTO_START);

	(void)state;
	conn->keyingtries = 0;
	world->outcome = FAILS_AT_ONCE;
	load(conn, NULL);
	pass(3600000);
	/* 2, 4, 8 ... 300 s and then every five minutes or a little more */
	assert_in_range(world->initiated, 15, 20);
}

static void
test_up_refusals(void **state)
{
	struct waiter waiter, second;

	(void)state;
	load(make("a", "192.0.2.1", AUTO_ADD), make("any", "%any", AUTO_ADD));
	assert_int_equal(up(&waiter, "nobody"), ERR_NOT_FOUND);
	assert_int_equal(up(&waiter, "any"), ERR_REFUSED);
	assert_int_equal(up(&waiter, "a"), OK);
	assert_int_equal(up(&second, "a"), OK);
	pass(100);
	assert_int_equal(waiter.dones, 1);
	assert_int_equal(second.dones, 1);
	assert_int_equal(world->initiated, 1);
	assert_int_equal(up(&waiter, "a"), ERR_EXISTS);
}

static void
test_up_fails(void **state)
{
	struct waiter waiter;

	(void)state;
	world->outcome = FAILS_LATER;
	world->error = ERR_AUTH;
	load(make("a", "192.0.2.1", AUTO_ADD), NULL);
	assert_int_equal(up(&waiter, "a"), OK);
	pass(100);
	assert_int_equal(waiter.dones, 1);
	assert_int_equal(waiter.err, ERR_AUTH);
	assert_string_equal(waiter.text, "the peer says no");
	pass(600000); /* auto=add: nobody wants it any more */
	assert_int_equal(world->initiated, 1);
	/* Who goes away is not called. */
	assert_int_equal(up(&waiter, "a"), OK);
	keeper_wait_cancel(world->keeper, &waiter.wait);
	pass(100);
	assert_int_equal(waiter.dones, 0);
}

static void
test_same_peer(void **state)
{
	(void)state;
	load(make("a", "192.0.2.1", AUTO_START),
	    make("b", "192.0.2.1", AUTO_START));
	pass(1000);
	assert_int_equal(world->initiated, 1);
	assert_int_equal(world->children, 1);
	assert_int_equal(world->env.sadb->count, 1);
	is_state("a", "up");
	is_state("b", "up");
}

static void
test_same_peer_fails(void **state)
{
	(void)state;
	world->outcome = FAILS_LATER;
	world->error = ERR_AUTH;
	load(make("a", "192.0.2.1", AUTO_START),
	    make("b", "192.0.2.1", AUTO_START));
	pass(100);
	/* The second does not wait for ever behind the first. */
	assert_int_equal(world->initiated, 2);
}

static void
test_child_refused(void **state)
{
	struct waiter waiter;

	(void)state;
	load(make("a", "192.0.2.1", AUTO_START),
	    make("b", "192.0.2.1", AUTO_ADD));
	pass(100);
	world->no_children = true;
	assert_int_equal(up(&waiter, "b"), OK);
	pass(100);
	assert_int_equal(waiter.dones, 1);
	assert_int_equal(waiter.err, ERR_TS);
	assert_string_equal(waiter.text, "TS_UNACCEPTABLE");
	is_state("a", "up");
}

static void
test_loss(void **state)
{
	(void)state;
	load(make("a", "192.0.2.1", AUTO_START), NULL);
	pass(60000);
	sa_kill(world->env.sadb->first, OK, true, NULL);
	pass(500);
	assert_int_equal(world->initiated, 1);
	pass(1000);
	assert_int_equal(world->initiated, 2);
	is_state("a", "up");
	/* A peer that closes at once is not asked in a tight circle. */
	for (unsigned i = 0; i < 4; i++) {
		if (world->env.sadb->first != NULL)
			sa_kill(world->env.sadb->first, OK, true, NULL);
		pass(1000);
	}
	assert_in_range(world->initiated, 2, 4);
}

static struct conn *
make_dpd(const char *remote, enum policy_dpd action)
{
	struct conn *conn = make("a", remote, AUTO_ADD);

	conn->dpd_action = (uint8_t)action;
	return conn;
}

static void
die(void)
{
	struct ike_sa *sa = world->env.sadb->first;

	assert_non_null(sa);
	sa_event(sa, NULL, EVENT_PEER_DEAD, ERR_TIMEOUT, false, NULL);
	sa_kill(sa, ERR_TIMEOUT, false, NULL);
}

static void
test_dpd_restart(void **state)
{
	struct waiter waiter;

	(void)state;
	load(make_dpd("192.0.2.1", DPD_RESTART), NULL);
	assert_int_equal(up(&waiter, "a"), OK);
	pass(100);
	die();
	pass(100);
	assert_int_equal(world->initiated, 2);
	is_state("a", "up");
}

static void
test_dpd_clear(void **state)
{
	struct conn *conn = make_dpd("192.0.2.1", DPD_CLEAR);

	(void)state;
	conn->autostart = AUTO_START;
	load(conn, NULL);
	pass(100);
	die();
	pass(600000);
	assert_int_equal(world->initiated, 1);
	is_state("a", "down");
}

static void
test_dpd_hold(void **state)
{
	const struct ts packet[2] = { 0 };
	struct waiter waiter;

	(void)state;
	load(make_dpd("192.0.2.1", DPD_HOLD), NULL);
	assert_int_equal(up(&waiter, "a"), OK);
	pass(100);
	assert_int_equal(world->traps, 0);
	die();
	pass(1000);
	assert_int_equal(world->initiated, 1);
	assert_true(world->traps > 0);
	is_state("a", "routed");
	keeper_acquire(&world->env, world->env.policy->conns[0]->reqid, packet);
	pass(100);
	assert_int_equal(world->initiated, 2);
}

/* A responder's peer at no fixed address: back to where it was. */
static void
test_dpd_restart_any(void **state)
{
	struct endpoint local = { .port = 500 }, remote = { .port = 4500 };
	struct ike_sa *sa = NULL;

	(void)state;
	assert_true(addr_parse(&local.addr, "192.0.2.9"));
	assert_true(addr_parse(&remote.addr, "198.51.100.7"));
	load(make_dpd("%any", DPD_RESTART), NULL);
	assert_int_equal(fake_initiate(&world->env, world->env.policy->conns[0],
	                     &local, &remote, &sa),
	    OK);
	pass(100);
	die();
	pass(100);
	assert_int_equal(world->initiated, 2);
	assert_true(addr_equal(&world->to.addr, &remote.addr));
}

static void
test_down(void **state)
{
	struct waiter waiter;
	size_t closed;

	(void)state;
	load(make("a", "192.0.2.1", AUTO_START),
	    make("b", "192.0.2.1", AUTO_START));
	pass(1000);
	assert_int_equal(keeper_remaining(world->keeper, "a", UINT64_MAX), 1);
	assert_int_equal(keeper_down(world->keeper, "a", &closed), OK);
	assert_int_equal(closed, 1);
	assert_int_equal(world->child_closed, 1);
	assert_int_equal(world->closed, 0); /* b lives below it */
	assert_int_equal(keeper_down(world->keeper, "b", &closed), OK);
	assert_int_equal(world->closed, 1);
	pass(600000);
	assert_int_equal(world->initiated, 1);
	assert_int_equal(keeper_remaining(world->keeper, "a", UINT64_MAX), 0);
	assert_int_equal(
	    keeper_down(world->keeper, "c", &closed), ERR_NOT_FOUND);
	/* Down while it is on its way up tells those who wait. */
	world->outcome = NEVER_ANSWERS;
	assert_int_equal(up(&waiter, "a"), OK);
	pass(100);
	assert_int_equal(keeper_down(world->keeper, "a", &closed), OK);
	assert_int_equal(waiter.dones, 1);
	assert_int_equal(waiter.err, ERR_CANCELLED);
	assert_int_equal(world->env.sadb->count, 0);
}

static void
test_route(void **state)
{
	const struct ts packet[2] = { 0 };
	uint32_t reqid;
	unsigned traps;

	(void)state;
	load(make("a", "192.0.2.1", AUTO_ROUTE), NULL);
	pass(100);
	assert_int_equal(world->initiated, 0);
	assert_true(world->traps > 0);
	traps = world->traps;
	is_state("a", "routed");
	reqid = world->env.policy->conns[0]->reqid;
	keeper_acquire(&world->env, reqid + 1, packet);
	assert_int_equal(world->initiated, 0);
	keeper_acquire(&world->env, reqid, packet);
	keeper_acquire(&world->env, reqid, packet);
	pass(100);
	assert_int_equal(world->initiated, 1);
	is_state("a", "up");
	/* Other traffic: another child, but not one for each packet. */
	pass(10000);
	keeper_acquire(&world->env, reqid, packet);
	keeper_acquire(&world->env, reqid, packet);
	assert_int_equal(world->children, 1);
	/* Lost: waits for traffic. */
	sa_kill(world->env.sadb->first, OK, true, NULL);
	pass(600000);
	assert_int_equal(world->initiated, 1);
	is_state("a", "routed");
	assert_int_equal(world->traps, traps);
}

static void
test_names(void **state)
{
	struct endpoint first;

	(void)state;
	load(make("a", "vpn.example.org", AUTO_START), NULL);
	pass(100);
	assert_int_equal(world->asked_names, 1);
	assert_string_equal(world->name, "vpn.example.org");
	assert_int_equal(world->initiated, 0);
	answer_name(ERR_NOT_FOUND, NULL, NULL);
	is_state("a", "waiting");
	pass(5000);
	assert_int_equal(world->asked_names, 2);
	/* One address does not answer: the other is tried. */
	world->outcome = NEVER_ANSWERS;
	answer_name(OK, "192.0.2.1", "2001:db8::1");
	assert_int_equal(world->initiated, 1);
	first = world->to;
	world->outcome = COMES_UP;
	pass(110000);
	assert_int_equal(world->asked_names, 3);
	answer_name(OK, "192.0.2.1", "2001:db8::1");
	pass(100);
	assert_int_equal(world->initiated, 2);
	assert_false(addr_equal(&world->to.addr, &first.addr));
	is_state("a", "up");
}

/* RFC 7296 1.2: the IKE SA stands although its child failed. */
static void
test_unused_ike_sa(void **state)
{
	struct waiter waiter;

	(void)state;
	world->outcome = WITHOUT_CHILD;
	load(make("a", "192.0.2.1", AUTO_ADD), NULL);
	assert_int_equal(up(&waiter, "a"), OK);
	pass(100);
	assert_int_equal(waiter.err, ERR_TS);
	assert_int_equal(world->closed, 1);
	assert_int_equal(world->env.sadb->count, 0);
	/* Who tries again keeps it. */
	load(make("a", "192.0.2.1", AUTO_START), NULL);
	pass(100);
	assert_int_equal(world->env.sadb->count, 1);
	pass(5000);
	assert_int_equal(world->initiated, 2);
	assert_int_equal(world->children, 1);
	is_state("a", "up");
}

/* A peer that calls must be known by then, and be found again. */
static void
test_names_watched(void **state)
{
	struct conn_host *host;
	struct addr want;

	(void)state;
	load(make("a", "vpn.example.org", AUTO_ADD), NULL);
	pass(1);
	assert_int_equal(world->asked_names, 1);
	answer_name(OK, "192.0.2.7", NULL);
	host = &world->env.policy->conns[0]->remote.host[0];
	assert_true(addr_parse(&want, "192.0.2.7"));
	assert_true(addr_equal(&host->addr, &want));
	pass(59000);
	assert_int_equal(world->asked_names, 1);
	pass(2000); /* its time to live is a minute */
	assert_int_equal(world->asked_names, 2);
	answer_name(OK, "192.0.2.8", "192.0.2.7");
	assert_true(addr_equal(&host->addr, &want));
	pass(61000);
	answer_name(ERR_TIMEOUT, NULL, NULL);
	assert_true(addr_equal(&host->addr, &want));
	pass(61000);
	answer_name(OK, "192.0.2.8", NULL);
	assert_false(addr_equal(&host->addr, &want));
	/* A reload in the middle of a question */
	pass(61000);
	assert_non_null(world->named);
	load(NULL, NULL);
	assert_null(world->named);
}

static void
test_names_cancelled(void **state)
{
	size_t closed;

	(void)state;
	load(make("a", "vpn.example.org", AUTO_START), NULL);
	pass(100);
	assert_int_equal(keeper_down(world->keeper, "a", &closed), OK);
	assert_int_equal(world->cancelled, 1);
	assert_null(world->named);
}

static void
test_reload(void **state)
{
	struct keeper_difference d;
	struct conn *changed;

	(void)state;
	d = load(make("a", "192.0.2.1", AUTO_START),
	    make("b", "192.0.2.2", AUTO_START));
	assert_int_equal(d.added, 2);
	pass(100);
	assert_int_equal(world->env.sadb->count, 2);
	/* The same again: nothing moves. */
	d = load(make("a", "192.0.2.1", AUTO_START),
	    make("b", "192.0.2.2", AUTO_START));
	assert_int_equal(d.same, 2);
	pass(10000);
	assert_int_equal(world->initiated, 2);
	assert_int_equal(world->closed, 0);
	/* a changes and keeps its SA; b goes. */
	changed = make("a", "192.0.2.1", AUTO_START);
	changed->lifetime_ms /= 2;
	d = load(changed, make("c", "192.0.2.3", AUTO_ADD));
	assert_int_equal(d.changed, 1);
	assert_int_equal(d.gone, 1);
	assert_int_equal(d.added, 1);
	pass(10000);
	assert_int_equal(world->initiated, 2);
	assert_int_equal(world->closed, 1);
	assert_int_equal(world->env.sadb->count, 1);
	is_state("a", "up");
	assert_null(keeper_state(world->keeper, "b"));
	/* Everything goes. */
	d = load(NULL, NULL);
	assert_int_equal(d.gone, 2);
	assert_int_equal(world->env.sadb->count, 0);
}

static void
test_reload_in_attempt(void **state)
{
	struct waiter waiter;

	(void)state;
	world->outcome = NEVER_ANSWERS;
	load(make("a", "192.0.2.1", AUTO_ADD), NULL);
	assert_int_equal(up(&waiter, "a"), OK);
	pass(100);
	load(NULL, NULL);
	assert_int_equal(waiter.dones, 1);
	assert_int_equal(waiter.err, ERR_NOT_FOUND);
	pass(200000);
	assert_int_equal(world->env.sadb->count, 0);
}

static void
test_lost(void **state)
{
	(void)state;
	load(make("a", "192.0.2.1", AUTO_START),
	    make("b", "192.0.2.1", AUTO_START));
	pass(1000);
	assert_int_equal(world->children, 1);
	/* Once more before the first loss is dealt with. */
	keeper_lost(&world->env);
	keeper_lost(&world->env);
	pass(100);
	assert_int_equal(world->children, 3);
	assert_int_equal(world->child_closed, 2);
	assert_int_equal(world->initiated, 1);
	assert_int_equal(world->env.sadb->child_count, 2);
	is_state("a", "up");
	is_state("b", "up");
}

static void
test_plane_events(void **state)
{
	struct endpoint from = { .port = 4501 };
	uint32_t spi;

	(void)state;
	assert_true(addr_parse(&from.addr, "198.51.100.9"));
	load(make("a", "192.0.2.1", AUTO_START), NULL);
	pass(100);
	spi = world->env.sadb->first->children->spi_in;
	keeper_expire(&world->env, spi + 1, false);
	keeper_mapping(&world->env, spi + 1, &from);
	assert_int_equal(world->rekeyed + world->mapped, 0);
	keeper_expire(&world->env, spi, false);
	assert_int_equal(world->rekeyed, 1);
	keeper_mapping(&world->env, spi, &from);
	assert_int_equal(world->mapped, 1);
	assert_true(endpoint_equal(&world->to, &from));
	keeper_expire(&world->env, spi, true);
	assert_int_equal(world->child_closed, 1);
}

static void
count_done(void *arg)
{
	(*(unsigned *)arg)++;
}

static void
test_shutdown(void **state)
{
	unsigned done = 0;

	(void)state;
	load(make("a", "192.0.2.1", AUTO_START),
	    make("b", "vpn.example.org", AUTO_START));
	pass(1000);
	keeper_shutdown(world->keeper, 2000, count_done, &done);
	assert_int_equal(done, 0);
	pass(100);
	assert_int_equal(done, 1);
	assert_int_equal(world->closed, 1);
	assert_int_equal(world->cancelled, 1);
	pass(600000);
	assert_int_equal(world->initiated, 1);
	assert_int_equal(done, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_start),
		TEST(test_add_does_nothing),
		TEST(test_tries),
		TEST(test_for_ever),
		TEST(test_up_refusals),
		TEST(test_up_fails),
		TEST(test_same_peer),
		TEST(test_same_peer_fails),
		TEST(test_child_refused),
		TEST(test_loss),
		TEST(test_dpd_restart),
		TEST(test_dpd_clear),
		TEST(test_dpd_hold),
		TEST(test_dpd_restart_any),
		TEST(test_down),
		TEST(test_route),
		TEST(test_names),
		TEST(test_names_cancelled),
		TEST(test_names_watched),
		TEST(test_unused_ike_sa),
		TEST(test_reload),
		TEST(test_reload_in_attempt),
		TEST(test_lost),
		TEST(test_plane_events),
		TEST(test_shutdown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
