/* IKEv1 and those who are in between: what was said once, said again or sent
 * back, and what several connections may share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/wire.h"
#include "ikev1/info.h"
#include "ikev1/state.h"
#include "tests/play/play.h"

#define MANY    80 /* connections */
#define TYPE_AT 18 /* of the exchange, in the header (RFC 2408 3.1) */

struct pair {
	struct play *play;
	struct gateway *left, *right;
};

static void
begin(struct pair *pair, uint64_t seed)
{
	pair->play = play_new(seed);
	play_pair(pair->play, &pair->left, &pair->right, KEYEX_IKEV1);
}

static bool
both_up(void *arg)
{
	struct pair *pair = arg;

	return gateway_child_count(pair->left, NULL) > 0 &&
	       gateway_child_count(pair->right, NULL) > 0;
}

static void
up(struct pair *pair)
{
	assert_int_equal(gateway_up(pair->left, "net", 0), OK);
	assert_true(play_until(pair->play, both_up, pair, 60000));
	play_run(pair->play, 2000);
}

/* The last message of a kind that was sent by one of them. */
struct spy {
	struct gateway *of;
	uint8_t type; /* of exchange */
	unsigned take;
	unsigned taken;
	bool back;    /* each is sent back to its sender */
	bool swallow; /* and goes no further */
	struct endpoint from, to;
	bool natt;
	size_t len;
	uint8_t octets[4096];
};

static bool
on_tap(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct spy *spy = arg;

	if (from != spy->of || packet->octets.len < WIRE_HEADER ||
	    octets[TYPE_AT] != spy->type)
		return true;
	if (spy->take == 0 || spy->taken < spy->take) {
		spy->taken++;
		spy->from = packet->local;
		spy->to = packet->remote;
		spy->natt = packet->natt;
		spy->len = packet->octets.len;
		memcpy(spy->octets, octets, spy->len);
	}
	if (spy->back)
		play_inject(play, &packet->remote, &packet->local, packet->natt,
		    view_of(octets, packet->octets.len));
	return !spy->swallow;
}

static void
spy_on(struct pair *pair, struct spy *spy)
{
	pair->play->tap = on_tap;
	pair->play->tap_arg = spy;
}

static void
ask_often(struct gateway *gw)
{
	gw->building[0]->dpd_action = DPD_CLEAR;
	gw->building[0]->dpd_delay_ms = 10000;
	gw->building[0]->dpd_timeout_ms = 30000;
}

/* HASH(1) is made with one key at both ends: our question, sent back, proves
 * nothing. */
static void
test_reflected_question(void **state)
{
	struct spy spy = { .type = EXCH_INFORMATIONAL_V1, .back = true };
	struct pair pair;

	(void)state;
	begin(&pair, 1);
	ask_often(pair.left);
	up(&pair);
	gateway_silence(pair.right, true);
	spy.of = pair.left;
	spy_on(&pair, &spy);
	play_run(pair.play, 55000);
	assert_true(spy.taken > 2);
	assert_int_equal(pair.left->events[EVENT_PEER_DEAD], 1);
	play_free(pair.play);
}

/* ... nor does it spoil the sequence of the peer's. */
static void
test_reflected_beside(void **state)
{
	struct spy spy = { .type = EXCH_INFORMATIONAL_V1, .back = true };
	struct pair pair;

	(void)state;
	begin(&pair, 2);
	ask_often(pair.left);
	ask_often(pair.right);
	up(&pair);
	spy.of = pair.left;
	spy_on(&pair, &spy);
	play_run(pair.play, 100000);
	pair.play->tap = NULL;
	play_run(pair.play, 100000);
	assert_int_equal(pair.left->events[EVENT_PEER_DEAD], 0);
	assert_int_equal(pair.right->events[EVENT_PEER_DEAD], 0);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	play_free(pair.play);
}

/* An old acknowledgement does not answer a new question. */
static void
test_replayed_answer(void **state)
{
	struct spy spy = { .type = EXCH_INFORMATIONAL_V1 };
	struct pair pair;

	(void)state;
	begin(&pair, 3);
	ask_often(pair.left);
	up(&pair);
	spy.of = pair.right;
	spy_on(&pair, &spy);
	play_run(pair.play, 30000);
	assert_true(spy.taken > 0);
	gateway_silence(pair.right, true);
	for (unsigned i = 0; i < 60; i++) {
		play_inject(pair.play, &spy.from, &spy.to, spy.natt,
		    view_of(spy.octets, spy.len));
		play_run(pair.play, 1000);
	}
	assert_int_equal(pair.left->events[EVENT_PEER_DEAD], 1);
	play_free(pair.play);
}

/* An old refusal does not refuse another Quick Mode. */
static void
test_replayed_refusal(void **state)
{
	struct spy spy = { .type = EXCH_INFORMATIONAL_V1 };
	struct conn *conn;
	struct pair pair;

	(void)state;
	begin(&pair, 4);
	conn = gateway_conn(
	    pair.left, "bad", "192.0.2.2", "10.1.0.0/16", "10.77.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	gateway_load(pair.left);
	up(&pair);
	spy.of = pair.right;
	spy_on(&pair, &spy);
	assert_int_equal(gateway_up(pair.left, "bad", 0), OK);
	play_run(pair.play, 5000);
	assert_true(spy.taken >= 1);
	assert_int_equal(pair.left->events[EVENT_CHILD_FAILED], 1);
	gateway_silence(pair.right, true);
	assert_int_equal(gateway_ike(pair.left)->engine->child_rekey(
	                     gateway_child(pair.left)),
	    OK);
	play_run(pair.play, 1000);
	play_inject(pair.play, &spy.from, &spy.to, spy.natt,
	    view_of(spy.octets, spy.len));
	play_run(pair.play, 1000);
	gateway_silence(pair.right, false);
	play_run(pair.play, 20000);
	assert_int_equal(pair.left->events[EVENT_CHILD_FAILED], 1);
	assert_int_equal(pair.left->events[EVENT_CHILD_REKEYED], 1);
	play_free(pair.play);
}

/* Whoever takes the fifth message and passes it on from elsewhere is not the
 * peer: no NAT was found between the ends. */
static void
test_stolen_fifth(void **state)
{
	struct spy spy = { .type = EXCH_IDENTITY_PROTECTION };
	struct endpoint thief = { .port = IKE_PORT };
	struct pair pair;

	(void)state;
	begin(&pair, 5);
	assert_true(addr_parse(&thief.addr, "198.51.100.66"));
	spy.of = pair.left;
	spy_on(&pair, &spy);
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	while (spy.taken < 2)
		play_run(pair.play, 1);
	spy.swallow = true;
	while (spy.taken < 3)
		play_run(pair.play, 1);
	play_inject(
	    pair.play, &thief, &spy.to, spy.natt, view_of(spy.octets, spy.len));
	pair.play->tap = NULL;
	play_run(pair.play, 60000);
	assert_non_null(gateway_ike(pair.right));
	assert_true(addr_equal(
	    &gateway_ike(pair.right)->remote.addr, &pair.left->addr));
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	play_free(pair.play);
}

/* Two connections of one peer with other lists, both of which have what was
 * agreed: children of both live below one SA. */
static void
share(const char *list, bool shared)
{
	struct pair pair;
	struct conn *conn;

	begin(&pair, 6);
	conn = gateway_conn(
	    pair.left, "more", "192.0.2.2", "10.5.0.0/16", "10.6.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	conn = gateway_conn(
	    pair.right, "more", "192.0.2.1", "10.6.0.0/16", "10.5.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	conn_set_ike(conn, list);
	gateway_load(pair.left);
	gateway_load(pair.right);
	up(&pair);
	assert_int_equal(gateway_up(pair.left, "more", 0), OK);
	play_run(pair.play, 5000);
	assert_int_equal(gateway_child_count(pair.right, "more"), shared);
	assert_int_equal(gateway_ike_count(pair.left), 1);
	play_free(pair.play);
}

static void
test_shared_sa(void **state)
{
	(void)state;
	share("aes256-sha512-ecp384,aes128-sha256-curve25519", true);
	share("aes256-sha512-ecp384", false);
}

/* The identity decides, however many wait at any address. */
static void
test_many_identities(void **state)
{
	struct play *play = play_new(7);
	struct gateway *left = play_gateway(play, "left", "192.0.2.1");
	struct gateway *right = play_gateway(play, "right", "192.0.2.2");
	struct conn *conn;
	char name[32], id[32];

	(void)state;
	/* More than are looked at without an identity; ours is the last. */
	for (unsigned i = 0; i < MANY; i++) {
		bool last = i == MANY - 1;

		snprintf(name, sizeof(name), "c%u", i);
		snprintf(id, sizeof(id), "@c%u.example", i);
		conn = gateway_conn(
		    right, name, NULL, "10.2.0.0/16", "10.1.0.0/16");
		conn->keyexchange = KEYEX_IKEV1;
		conn_set_ids(conn, "@right.example", id);
		if (last) {
			gateway_psk(left, id, "@right.example", "secret");
			gateway_psk(right, id, "@right.example", "secret");
			conn = gateway_conn(left, "net", "192.0.2.2",
			    "10.1.0.0/16", "10.2.0.0/16");
			conn->keyexchange = KEYEX_IKEV1;
			conn_set_ids(conn, id, "@right.example");
		}
	}
	gateway_load(left);
	gateway_load(right);
	assert_int_equal(gateway_up(left, "net", 0), OK);
	play_run(play, 5000);
	assert_int_equal(gateway_child_count(right, name), 1);
	play_free(play);
}

/* Two hosts share identity and key, as uniqueids=no allows: one deletes what is
 * its own, not what is the other's. */
static void
foreign_delete(bool unique)
{
	struct play *play = play_new(8);
	struct gateway *gate = play_gateway(play, "gate", "192.0.2.9");
	struct gateway *host[2] = { play_gateway(play, "one", "192.0.2.1"),
		play_gateway(play, "two", "192.0.2.2") };
	struct conn *conn;
	uint32_t spi;

	conn = gateway_conn(gate, "net", NULL, "10.9.0.0/16", NULL);
	conn->keyexchange = KEYEX_IKEV1;
	conn_set_ids(conn, "@gate.example", "@group.example");
	gateway_psk(gate, "@gate.example", "@group.example", "secret");
	gateway_load(gate);
	for (unsigned i = 0; i < 2; i++) {
		conn = gateway_conn(
		    host[i], "net", "192.0.2.9", NULL, "10.9.0.0/16");
		conn->keyexchange = KEYEX_IKEV1;
		conn_set_ids(conn, "@group.example", "@gate.example");
		gateway_psk(
		    host[i], "@gate.example", "@group.example", "secret");
		gateway_load(host[i]);
	}
	gate->env.policy->uniqueids = false; /* while they come up */
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(gateway_up(host[i], "net", 0), OK);
		play_run(play, 2000);
	}
	assert_int_equal(gateway_child_count(gate, "net"), 2);
	gate->env.policy->uniqueids = unique;
	spi = gateway_child(host[0])->spi_in;
	v1_info_delete_children(v1_sa(gateway_ike(host[1])), &spi, 1);
	play_run(play, 5000);
	assert_int_equal(gateway_child_count(gate, "net"), unique ? 1 : 2);
	play_free(play);
}

static void
test_foreign_delete(void **state)
{
	(void)state;
	foreign_delete(false);
	foreign_delete(true);
}

/* Two such hosts behind one NAT: each keeps its SAs and its port. */
static void
test_shared_nat(void **state)
{
	static const char *const inside[] = { "192.168.7.2", "192.168.7.3" };
	static const char *const subnet[] = { "10.1.0.0/16", "10.2.0.0/16" };
	static const char *const name[] = { "one", "two" };
	struct play *play = play_new(9);
	struct gateway *gate = play_gateway(play, "gate", "192.0.2.9");
	struct gateway *host[2];
	struct conn *conn;
	uint16_t port[2] = { 0, 0 };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		host[i] = play_gateway(play, name[i], inside[i]);
		play_nat(play, inside[i], "198.51.100.9")->next_port =
		    (uint16_t)(21000 + 1000 * i);
		conn =
		    gateway_conn(gate, name[i], NULL, "10.9.0.0/16", subnet[i]);
		conn->keyexchange = KEYEX_IKEV1;
		conn_set_ids(conn, "@gate.example", "@group.example");
		conn = gateway_conn(
		    host[i], "net", "192.0.2.9", subnet[i], "10.9.0.0/16");
		conn->keyexchange = KEYEX_IKEV1;
		conn_set_ids(conn, "@group.example", "@gate.example");
		gateway_psk(
		    host[i], "@gate.example", "@group.example", "secret");
		gateway_load(host[i]);
	}
	gateway_psk(gate, "@gate.example", "@group.example", "secret");
	gateway_load(gate);
	gate->env.policy->uniqueids = false;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(gateway_up(host[i], "net", 0), OK);
		play_run(play, 2000);
		assert_int_equal(gateway_child_count(gate, name[i]), 1);
	}
	play_run(play, 20000);
	assert_int_equal(gateway_ike_count(gate), 2);
	for (struct ike_sa *sa = gate->env.sadb->first; sa != NULL;
	     sa = sa->next)
		for (struct child_sa *child = sa->children; child != NULL;
		     child = child->next)
			port[strcmp(child->conn->name, "two") == 0] =
			    child->remote.port;
	assert_in_range(port[0], 21000, 21999);
	assert_in_range(port[1], 22000, 22999);
	play_free(play);
}

/* One peer gets so many children and no more. */
static void
test_many_children(void **state)
{
	static const char *const name[] = { "a", "b" };
	static const char *const subnet[] = { "10.1.1.0/24", "10.1.2.0/24" };
	const size_t there = V1_CHILDREN - 2; /* and the first */
	struct conn *conn;
	struct pair pair;

	(void)state;
	begin(&pair, 10);
	for (unsigned i = 0; i < 2; i++) {
		conn = gateway_conn(
		    pair.left, name[i], "192.0.2.2", subnet[i], "10.2.0.0/16");
		conn->keyexchange = KEYEX_IKEV1;
	}
	gateway_load(pair.left);
	up(&pair);
	gateway_ike(pair.right)->child_count += there;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(gateway_up(pair.left, name[i], 0), OK);
		play_run(pair.play, 5000);
	}
	gateway_ike(pair.right)->child_count -= there;
	assert_int_equal(gateway_child_count(pair.left, "a"), 1);
	assert_int_equal(gateway_child_count(pair.left, "b"), 0);
	assert_true(play_settled(pair.left, pair.right, 1, 2));
	play_free(pair.play);
}

/* A peer that makes SA after SA and deletes none leaves no heap of them. */
static void
test_undeleted(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 11);
	pair.right->env.policy->uniqueids = false;
	up(&pair);
	for (unsigned i = 0; i < 5; i++) {
		sa_kill(&v1_sa(gateway_ike(pair.left))->ike, OK, true, "gone");
		assert_int_equal(gateway_up(pair.left, "net", 0), OK);
		play_run(pair.play, 5000);
		assert_int_equal(gateway_ike_count(pair.right), 1);
	}
	assert_int_equal(pair.right->env.sadb->count, 6);
	play_run(pair.play, 300000);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	assert_int_equal(pair.right->env.sadb->count, 1);
	play_free(pair.play);
}

static bool
keep_port(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	(void)play;
	(void)octets;
	if (from == arg) {
		packet->natt = false;
		packet->local.port = packet->remote.port = IKE_PORT;
	}
	return true;
}

/* Who speaks of a NAT and stays on port 500 gets no ESP in UDP there. */
static void
test_no_float(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 12);
	pair.left->building[0]->forceencaps = true;
	pair.play->tap = keep_port;
	pair.play->tap_arg = pair.left;
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(pair.play, 5000);
	assert_int_equal(gateway_ike_count(pair.right), 1);
	assert_false(gateway_ike(pair.right)->natt);
	assert_int_equal(gateway_child_count(pair.right, NULL), 0);
	assert_int_equal(pair.left->events[EVENT_CHILD_FAILED], 1);
	play_free(pair.play);
}

/* What the vault is asked after the fifth message of a peer that has a key of
 * the group's, but another's name, or nobody's. */
static size_t
work_before_refusal(bool known)
{
	struct spy spy = { .type = EXCH_IDENTITY_PROTECTION };
	struct play *play = play_new(11);
	struct pair pair = { play, play_gateway(play, "left", "203.0.113.5"),
		play_gateway(play, "right", "192.0.2.2") };
	struct conn *conn;
	size_t most = 0;

	conn = gateway_conn(pair.left, "net", "192.0.2.2", NULL, "10.2.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	conn_set_ids(conn, "@boss", "@gate");
	gateway_psk(pair.left, NULL, NULL, "everybody's");
	conn = gateway_conn(pair.right, "net", NULL, "10.2.0.0/16", NULL);
	conn->keyexchange = KEYEX_IKEV1;
	conn_set_ids(conn, "@gate", known ? "@boss" : "@clerk");
	gateway_psk(pair.right, "@gate", "@clerk", "everybody's");
	gateway_load(pair.left);
	gateway_load(pair.right);
	spy.of = pair.left;
	spy_on(&pair, &spy);
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	for (unsigned ms = 0; ms < 5000; ms++) {
		play_run(play, 1);
		if (spy.taken >= 3 && pair.right->vault.pending > most)
			most = pair.right->vault.pending;
	}
	assert_int_equal(pair.left->events[EVENT_IKE_FAILED], 1);
	assert_int_equal(pair.right->events[EVENT_IKE_UP], 0);
	assert_int_equal(pair.right->events[EVENT_EXPLAIN], !known);
	play_free(play);
	return most;
}

/* The time until a refusal does not tell which names there are. */
static void
test_unknown_name(void **state)
{
	(void)state;
	assert_int_equal(work_before_refusal(true), 1);
	assert_int_equal(work_before_refusal(false), 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reflected_question),
		cmocka_unit_test(test_reflected_beside),
		cmocka_unit_test(test_replayed_answer),
		cmocka_unit_test(test_replayed_refusal),
		cmocka_unit_test(test_stolen_fifth),
		cmocka_unit_test(test_shared_sa),
		cmocka_unit_test(test_many_identities),
		cmocka_unit_test(test_foreign_delete),
		cmocka_unit_test(test_shared_nat),
		cmocka_unit_test(test_many_children),
		cmocka_unit_test(test_undeleted),
		cmocka_unit_test(test_no_float),
		cmocka_unit_test(test_unknown_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
