/*
 * One gateway, both versions: at the same time, under one connection, behind
 * one NAT, over IPv6, and never taken for each other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/play/play.h"

#define PSK "correct horse battery staple"

struct world {
	struct play *play;
	struct gateway *gate, *one, *two; /* IKEv1's peer, IKEv2's */
};

static void
begin(struct world *world, uint64_t seed, const char *gate, const char *one,
    const char *two)
{
	world->play = play_new(seed);
	world->gate = play_gateway(world->play, "gate", gate);
	world->one = play_gateway(world->play, "one", one);
	world->two = play_gateway(world->play, "two", two);
	gateway_psk(world->gate, NULL, NULL, PSK);
	gateway_psk(world->one, NULL, NULL, PSK);
	gateway_psk(world->two, NULL, NULL, PSK);
}

static struct conn *
add(struct gateway *gw, const char *name, const char *remote,
    const char *local_subnet, const char *remote_subnet,
    enum policy_keyexchange keyexchange)
{
	struct conn *conn =
	    gateway_conn(gw, name, remote, local_subnet, remote_subnet);

	conn->keyexchange = (uint8_t)keyexchange;
	return conn;
}

static void
load(struct world *world)
{
	gateway_load(world->gate);
	gateway_load(world->one);
	gateway_load(world->two);
}

/* A connection for each peer, with subnets behind both ends. */
static void
connections(
    struct world *world, const char *gate, const char *one, const char *two)
{
	add(world->gate, "one", one, "10.0.0.0/16", "10.1.0.0/16", KEYEX_IKEV1);
	add(world->gate, "two", two, "10.0.0.0/16", "10.2.0.0/16", KEYEX_IKEV2);
	add(world->one, "one", gate, "10.1.0.0/16", "10.0.0.0/16", KEYEX_IKEV1);
	add(world->two, "two", gate, "10.2.0.0/16", "10.0.0.0/16", KEYEX_IKEV2);
	load(world);
}

static void
usual(struct world *world, uint64_t seed)
{
	begin(world, seed, "192.0.2.1", "192.0.2.11", "192.0.2.12");
	connections(world, "192.0.2.1", "192.0.2.11", "192.0.2.12");
}

static bool
both_up(void *arg)
{
	struct world *world = arg;

	return gateway_child_count(world->gate, NULL) >= 2 &&
	       gateway_child_count(world->one, NULL) >= 1 &&
	       gateway_child_count(world->two, NULL) >= 1;
}

static bool
quiet(void *arg)
{
	struct world *world = arg;

	return gateway_idle(world->gate) && gateway_idle(world->one) &&
	       gateway_idle(world->two) &&
	       world->gate->kernel.sa_count ==
	           2 * gateway_child_count(world->gate, NULL) &&
	       world->one->kernel.sa_count ==
	           2 * gateway_child_count(world->one, NULL) &&
	       world->two->kernel.sa_count ==
	           2 * gateway_child_count(world->two, NULL);
}

/* The gate's only established SA of a version. */
static struct ike_sa *
sa_of(struct gateway *gw, unsigned version)
{
	struct ike_sa *sa, *found = NULL;

	for (sa = gw->env.sadb->first; sa != NULL; sa = sa->next) {
		if (sa->state != IKE_ESTABLISHED ||
		    sa->engine->version != version)
			continue;
		assert_null(found);
		found = sa;
	}
	return found;
}

static bool
flows(struct gateway *a, struct gateway *b, const char *src, const char *dst)
{
	return play_traffic(a, b, src, dst) && play_traffic(b, a, dst, src);
}

static void
expect_traffic(struct world *world)
{
	assert_true(flows(world->gate, world->one, "10.0.0.5", "10.1.0.5"));
	assert_true(flows(world->gate, world->two, "10.0.0.5", "10.2.0.5"));
}

static void
show(struct gateway *gw)
{
	const struct child_sa *child;
	const struct exchange *x;
	const struct ike_sa *sa;

	print_error(
	    "%s: %zu SAs in the kernel\n", gw->name, gw->kernel.sa_count);
	for (sa = gw->env.sadb->first; sa != NULL; sa = sa->next) {
		print_error("  %s[%llu] IKEv%u %s\n",
		    sa->conn == NULL ? "?" : sa->conn->name,
		    (unsigned long long)sa->serial, sa->engine->version,
		    ike_state_text((enum ike_state)sa->state));
		for (child = sa->children; child != NULL; child = child->next)
			print_error("    child %08x/%08x %s\n", child->spi_in,
			    child->spi_out,
			    child_state_text((enum child_state)child->state));
		for (x = sa->exchanges; x != NULL; x = x->next)
			print_error("    exchange %u state %u%s\n", x->type,
			    x->state, x->waiting ? ", waits" : "");
	}
}

static void
settle(struct world *world, size_t ikes, size_t children)
{
	if (!play_until(world->play, quiet, world, 600000) ||
	    world->gate->env.sadb->count != ikes) {
		show(world->gate);
		show(world->one);
		show(world->two);
		fail_msg("things go on for ever");
	}
	assert_int_equal(world->gate->env.sadb->count, ikes);
	assert_int_equal(world->gate->env.sadb->child_count, children);
	assert_int_equal(world->gate->kernel.sa_count, 2 * children);
	assert_int_equal(world->gate->kernel.spi_count, 0);
}

/* Side by side ---------------------------------------------------------- */

static void
test_side_by_side(void **state)
{
	struct world world;

	(void)state;
	usual(&world, 1);
	assert_int_equal(gateway_up(world.one, "one", 0), OK);
	assert_int_equal(gateway_up(world.two, "two", 0), OK);
	assert_true(play_until(world.play, both_up, &world, 5000));
	settle(&world, 2, 2);
	assert_non_null(sa_of(world.gate, 1));
	assert_non_null(sa_of(world.gate, 2));
	assert_int_equal(world.gate->env.counter[COUNTER_V1_IKE_UP], 1);
	assert_int_equal(world.gate->env.counter[COUNTER_V2_IKE_UP], 1);
	expect_traffic(&world);
	play_free(world.play);
}

/* The gateway asks for both itself. */
static void
test_gate_begins(void **state)
{
	struct world world;

	(void)state;
	usual(&world, 2);
	assert_int_equal(gateway_up(world.gate, "one", 0), OK);
	assert_int_equal(gateway_up(world.gate, "two", 0), OK);
	assert_true(play_until(world.play, both_up, &world, 5000));
	settle(&world, 2, 2);
	assert_true(sa_of(world.gate, 1)->initiator);
	assert_true(sa_of(world.gate, 2)->initiator);
	expect_traffic(&world);
	play_free(world.play);
}

/* What one version does leaves the other's SAs alone. */
static void
test_independence(void **state)
{
	struct world world;
	uint64_t serial;
	uint32_t spi;

	(void)state;
	usual(&world, 3);
	assert_int_equal(gateway_up(world.one, "one", 0), OK);
	assert_int_equal(gateway_up(world.two, "two", 0), OK);
	assert_true(play_until(world.play, both_up, &world, 5000));
	settle(&world, 2, 2);
	serial = sa_of(world.gate, 1)->serial;
	spi = sa_of(world.gate, 1)->children->spi_in;
	sa_of(world.gate, 2)->engine->rekey(sa_of(world.gate, 2));
	play_run(world.play, 2000);
	settle(&world, 2, 2);
	sa_of(world.two, 2)->engine->close(sa_of(world.two, 2));
	play_run(world.play, 2000);
	settle(&world, 1, 1);
	assert_int_equal(sa_of(world.gate, 1)->serial, serial);
	assert_int_equal(sa_of(world.gate, 1)->children->spi_in, spi);
	assert_true(flows(world.gate, world.one, "10.0.0.5", "10.1.0.5"));
	/* And the other way round. */
	assert_int_equal(gateway_up(world.two, "two", 0), OK);
	assert_true(play_until(world.play, both_up, &world, 5000));
	settle(&world, 2, 2);
	serial = sa_of(world.gate, 2)->serial;
	spi = sa_of(world.gate, 2)->children->spi_in;
	sa_of(world.one, 1)->engine->child_close(sa_of(world.one, 1)->children);
	sa_of(world.one, 1)->engine->close(sa_of(world.one, 1));
	play_run(world.play, 10000);
	settle(&world, 1, 1);
	assert_int_equal(sa_of(world.gate, 2)->serial, serial);
	assert_int_equal(sa_of(world.gate, 2)->children->spi_in, spi);
	assert_true(flows(world.gate, world.two, "10.0.0.5", "10.2.0.5"));
	play_free(world.play);
}

static void
test_rekeys_meet(void **state)
{
	struct world world;
	struct ike_sa *sa;

	(void)state;
	for (uint64_t seed = 100; seed < 110; seed++) {
		usual(&world, seed);
		assert_int_equal(gateway_up(world.one, "one", 0), OK);
		assert_int_equal(gateway_up(world.two, "two", 0), OK);
		assert_true(play_until(world.play, both_up, &world, 5000));
		settle(&world, 2, 2);
		for (unsigned version = 1; version <= 2; version++) {
			sa = sa_of(world.gate, version);
			sa->engine->child_rekey(sa->children);
			sa->engine->rekey(sa);
		}
		play_run(world.play, 60000);
		settle(&world, 2, 2);
		expect_traffic(&world);
		play_free(world.play);
	}
}

static void
test_weather(void **state)
{
	struct world world;

	(void)state;
	for (uint64_t seed = 1000; seed < 1020; seed++) {
		usual(&world, seed);
		world.play->weather.loss_permille = 100;
		world.play->weather.duplicate_permille = 50;
		world.play->weather.reorder_permille = 100;
		assert_int_equal(gateway_up(world.one, "one", 0), OK);
		assert_int_equal(gateway_up(world.gate, "two", 0), OK);
		assert_true(play_until(world.play, both_up, &world, 300000));
		play_run(world.play, 300000);
		settle(&world, 2, 2);
		expect_traffic(&world);
		play_free(world.play);
	}
}

/* keyexchange=ike ------------------------------------------------------- */

static void
test_one_connection_for_both(void **state)
{
	struct world world;

	(void)state;
	begin(&world, 4, "192.0.2.1", "192.0.2.11", "192.0.2.12");
	add(world.gate, "all", NULL, "10.0.0.0/16", NULL, KEYEX_IKE);
	add(world.one, "gate", "192.0.2.1", NULL, "10.0.0.0/16", KEYEX_IKEV1);
	add(world.two, "gate", "192.0.2.1", NULL, "10.0.0.0/16", KEYEX_IKEV2);
	load(&world);
	assert_int_equal(gateway_up(world.one, "gate", 0), OK);
	assert_int_equal(gateway_up(world.two, "gate", 0), OK);
	assert_true(play_until(world.play, both_up, &world, 5000));
	settle(&world, 2, 2);
	assert_string_equal(sa_of(world.gate, 1)->conn->name, "all");
	assert_string_equal(sa_of(world.gate, 2)->conn->name, "all");
	assert_true(flows(world.gate, world.one, "10.0.0.5", "192.0.2.11"));
	assert_true(flows(world.gate, world.two, "10.0.0.5", "192.0.2.12"));
	play_free(world.play);
}

static void
test_ike_begins_with_v2(void **state)
{
	struct world world;

	(void)state;
	begin(&world, 5, "192.0.2.1", "192.0.2.11", "192.0.2.12");
	add(world.gate, "two", "192.0.2.12", "10.0.0.0/16", "10.2.0.0/16",
	    KEYEX_IKE);
	add(world.two, "two", "192.0.2.1", "10.2.0.0/16", "10.0.0.0/16",
	    KEYEX_IKE);
	load(&world);
	assert_int_equal(gateway_up(world.gate, "two", 0), OK);
	play_run(world.play, 5000);
	settle(&world, 1, 1);
	assert_non_null(sa_of(world.gate, 2));
	assert_true(flows(world.gate, world.two, "10.0.0.5", "10.2.0.5"));
	play_free(world.play);
}

/* keyexchange=ikev1 and ikev2 accept nothing else. */
static void
test_the_other_version_is_refused(void **state)
{
	struct world world;

	(void)state;
	begin(&world, 6, "192.0.2.1", "192.0.2.11", "192.0.2.12");
	add(world.gate, "one", "192.0.2.11", "10.0.0.0/16", "10.1.0.0/16",
	    KEYEX_IKEV2);
	add(world.gate, "two", "192.0.2.12", "10.0.0.0/16", "10.2.0.0/16",
	    KEYEX_IKEV1);
	add(world.one, "one", "192.0.2.1", "10.1.0.0/16", "10.0.0.0/16",
	    KEYEX_IKEV1);
	add(world.two, "two", "192.0.2.1", "10.2.0.0/16", "10.0.0.0/16",
	    KEYEX_IKEV2);
	load(&world);
	assert_int_equal(gateway_up(world.one, "one", 0), OK);
	assert_int_equal(gateway_up(world.two, "two", 0), OK);
	play_run(world.play, 600000);
	assert_int_equal(gateway_ike_count(world.gate), 0);
	assert_int_equal(world.gate->env.sadb->count, 0);
	assert_int_equal(world.one->events[EVENT_IKE_UP], 0);
	assert_int_equal(world.two->events[EVENT_IKE_UP], 0);
	assert_int_equal(world.one->events[EVENT_IKE_FAILED], 1);
	assert_int_equal(world.two->events[EVENT_IKE_FAILED], 1);
	assert_int_equal(world.one->env.sadb->count, 0);
	assert_int_equal(world.two->env.sadb->count, 0);
	play_free(world.play);
}

/* One peer speaks both, for different networks: neither handshake ends what
 * the other made, though both authenticate the same identity. */
static void
test_one_peer_with_both(void **state)
{
	struct world world;

	(void)state;
	begin(&world, 7, "192.0.2.1", "192.0.2.11", "192.0.2.12");
	add(world.gate, "old", "192.0.2.11", "10.0.0.0/16", "10.1.0.0/16",
	    KEYEX_IKEV1);
	add(world.gate, "new", "192.0.2.11", "10.0.0.0/16", "10.2.0.0/16",
	    KEYEX_IKEV2);
	add(world.one, "old", "192.0.2.1", "10.1.0.0/16", "10.0.0.0/16",
	    KEYEX_IKEV1);
	add(world.one, "new", "192.0.2.1", "10.2.0.0/16", "10.0.0.0/16",
	    KEYEX_IKEV2);
	load(&world);
	assert_int_equal(gateway_up(world.one, "old", 1), OK);
	play_run(world.play, 5000);
	settle(&world, 1, 1);
	assert_int_equal(gateway_up(world.one, "new", 2), OK);
	play_run(world.play, 5000);
	settle(&world, 2, 2);
	assert_true(flows(world.gate, world.one, "10.0.0.5", "10.1.0.5"));
	assert_true(flows(world.gate, world.one, "10.0.0.5", "10.2.0.5"));
	assert_true(play_settled(world.gate, world.one, 2, 2));
	play_free(world.play);
}

/* Credentials ----------------------------------------------------------- */

/* Each peer has a PSK of its own, found by identities in both versions. */
static void
test_psk_of_each(void **state)
{
	struct world world;
	struct conn *conn;

	(void)state;
	world.play = play_new(8);
	world.gate = play_gateway(world.play, "gate", "192.0.2.1");
	world.one = play_gateway(world.play, "one", "192.0.2.11");
	world.two = play_gateway(world.play, "two", "192.0.2.12");
	gateway_psk(world.gate, NULL, NULL, "a key for nobody at all");
	gateway_psk(world.gate, "gate.example", "192.0.2.11", "the first key");
	gateway_psk(world.gate, "gate.example", "two.example", "second key");
	gateway_psk(world.one, "192.0.2.11", "gate.example", "the first key");
	gateway_psk(world.two, "two.example", "gate.example", "second key");
	conn = add(world.gate, "one", "192.0.2.11", "10.0.0.0/16",
	    "10.1.0.0/16", KEYEX_IKEV1);
	conn_set_ids(conn, "gate.example", "192.0.2.11");
	conn = add(
	    world.gate, "two", NULL, "10.0.0.0/16", "10.2.0.0/16", KEYEX_IKEV2);
	conn_set_ids(conn, "gate.example", "two.example");
	conn = add(world.one, "one", "192.0.2.1", "10.1.0.0/16", "10.0.0.0/16",
	    KEYEX_IKEV1);
	conn_set_ids(conn, "192.0.2.11", "gate.example");
	conn = add(world.two, "two", "192.0.2.1", "10.2.0.0/16", "10.0.0.0/16",
	    KEYEX_IKEV2);
	conn_set_ids(conn, "two.example", "gate.example");
	load(&world);
	assert_int_equal(gateway_up(world.one, "one", 0), OK);
	assert_int_equal(gateway_up(world.two, "two", 0), OK);
	assert_true(play_until(world.play, both_up, &world, 5000));
	settle(&world, 2, 2);
	expect_traffic(&world);
	play_free(world.play);
}

/* Addresses ------------------------------------------------------------- */

static void
test_ipv6(void **state)
{
	struct world world;

	(void)state;
	begin(&world, 9, "2001:db8::1", "2001:db8::11", "2001:db8::12");
	connections(&world, "2001:db8::1", "2001:db8::11", "2001:db8::12");
	/* IPv4 in IPv6, and below the same IKE SAs IPv6 in IPv6. */
	add(world.gate, "one6", "2001:db8::11", "2001:db8:0::/48",
	    "2001:db8:1::/48", KEYEX_IKEV1);
	add(world.gate, "two6", "2001:db8::12", "2001:db8:0::/48",
	    "2001:db8:2::/48", KEYEX_IKEV2);
	add(world.one, "one6", "2001:db8::1", "2001:db8:1::/48",
	    "2001:db8:0::/48", KEYEX_IKEV1);
	add(world.two, "two6", "2001:db8::1", "2001:db8:2::/48",
	    "2001:db8:0::/48", KEYEX_IKEV2);
	load(&world);
	assert_int_equal(gateway_up(world.one, "one", 0), OK);
	assert_int_equal(gateway_up(world.two, "two", 0), OK);
	assert_true(play_until(world.play, both_up, &world, 5000));
	settle(&world, 2, 2);
	expect_traffic(&world);
	assert_int_equal(gateway_up(world.one, "one6", 0), OK);
	assert_int_equal(gateway_up(world.gate, "two6", 0), OK);
	play_run(world.play, 5000);
	settle(&world, 2, 4);
	expect_traffic(&world);
	assert_true(
	    flows(world.gate, world.one, "2001:db8:0::5", "2001:db8:1::5"));
	assert_true(
	    flows(world.gate, world.two, "2001:db8:0::5", "2001:db8:2::5"));
	play_free(world.play);
}

/* Both behind one NAT: the gate sees one address and two ports. */
static void
test_behind_one_nat(void **state)
{
	struct world world;
	struct ike_sa *v1, *v2;

	(void)state;
	begin(&world, 10, "192.0.2.1", "10.9.0.11", "10.9.0.12");
	play_nat(world.play, "10.9.0.11", "198.51.100.1");
	play_nat(world.play, "10.9.0.12", "198.51.100.1")->next_port = 40001;
	add(world.gate, "one", NULL, "10.0.0.0/16", "10.1.0.0/16", KEYEX_IKEV1);
	add(world.gate, "two", NULL, "10.0.0.0/16", "10.2.0.0/16", KEYEX_IKEV2);
	add(world.one, "one", "192.0.2.1", "10.1.0.0/16", "10.0.0.0/16",
	    KEYEX_IKEV1);
	add(world.two, "two", "192.0.2.1", "10.2.0.0/16", "10.0.0.0/16",
	    KEYEX_IKEV2);
	load(&world);
	assert_int_equal(gateway_up(world.one, "one", 0), OK);
	assert_int_equal(gateway_up(world.two, "two", 0), OK);
	assert_true(play_until(world.play, both_up, &world, 10000));
	settle(&world, 2, 2);
	v1 = sa_of(world.gate, 1);
	v2 = sa_of(world.gate, 2);
	assert_true(v1->nat_remote && v2->nat_remote);
	assert_true(v1->encap && v2->encap);
	assert_true(addr_equal(&v1->remote.addr, &v2->remote.addr));
	assert_int_not_equal(v1->remote.port, v2->remote.port);
	expect_traffic(&world);
	/* Keepalives, from behind the NAT only. */
	play_run(world.play, 61000);
	assert_int_equal(world.gate->net.keepalives, 0);
	assert_in_range(world.one->net.keepalives, 2, 4);
	assert_in_range(world.two->net.keepalives, 2, 4);
	play_free(world.play);
}

/* Confusion ------------------------------------------------------------- */

/* A message that names the SA of one version and is of the other changes
 * nothing, and is answered by nothing that says there is such an SA. */
static void
test_versions_are_not_mixed(void **state)
{
	static const uint8_t exchanges[] = { EXCH_IDENTITY_PROTECTION,
		EXCH_INFORMATIONAL_V1, EXCH_QUICK, EXCH_IKE_SA_INIT,
		EXCH_IKE_AUTH, EXCH_CREATE_CHILD_SA, EXCH_INFORMATIONAL };
	struct world world;
	struct ike_sa *sa;
	uint8_t octets[128];
	struct buf buf;

	(void)state;
	usual(&world, 11);
	assert_int_equal(gateway_up(world.one, "one", 0), OK);
	assert_int_equal(gateway_up(world.two, "two", 0), OK);
	assert_true(play_until(world.play, both_up, &world, 5000));
	settle(&world, 2, 2);
	for (unsigned i = 0; i < 2 * 7 * 4; i++) {
		sa = sa_of(world.gate, 1 + i % 2);
		struct wire_header header = {
			.spi_i = sa->spi_i,
			.spi_r = sa->spi_r,
			.next = i % 3 == 0 ? P1_HASH : P2_SK,
			.major = i % 2 == 0 ? 2 : 1,
			.exchange = exchanges[i / 2 % 7],
			.flags = (uint8_t)(i / 14 % 2 == 0 ? FLAG_INITIATOR
			                                   : FLAG_RESPONSE),
			.id = i / 28,
			.length = 28 + 68,
		};

		buf_init(&buf, octets, sizeof(octets));
		wire_header_write(&buf, &header);
		buf_u8(&buf, 0);
		buf_u8(&buf, 0);
		buf_u16(&buf, 68);
		buf_zero(&buf, 64);
		play_inject(world.play, &sa->remote, &sa->local, sa->natt,
		    buf_done(&buf));
		play_run(world.play, 100);
	}
	play_run(world.play, 60000);
	settle(&world, 2, 2);
	expect_traffic(&world);
	play_free(world.play);
}

/* Higher versions are refused in words of ours, if the question was as long as
 * the answer; they open nothing. */
static void
test_other_versions(void **state)
{
	struct world world;
	struct endpoint src, dst;
	uint8_t octets[64] = { 0 };
	uint64_t sent;

	(void)state;
	usual(&world, 12);
	src.addr = world.one->addr;
	dst.addr = world.gate->addr;
	src.port = dst.port = 500;
	for (unsigned major = 0; major < 16; major++) {
		struct wire_header header = { .spi_i = 7,
			.major = (uint8_t)(major & 15),
			.exchange = EXCH_IKE_SA_INIT,
			.flags = FLAG_INITIATOR,
			.length = sizeof(octets) };
		struct buf buf;

		buf_init(&buf, octets, sizeof(octets));
		wire_header_write(&buf, &header);
		buf_zero(&buf, sizeof(octets) - buf.len);
		sent = world.gate->net.sent;
		play_inject(world.play, &src, &dst, false, buf_done(&buf));
		play_run(world.play, 10);
		if (major == 0 || major > 2)
			assert_int_equal(
			    world.gate->net.sent - sent, major > 2);
		assert_int_equal(world.gate->env.sadb->count, 0);
	}
	play_free(world.play);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_side_by_side),
		cmocka_unit_test(test_gate_begins),
		cmocka_unit_test(test_independence),
		cmocka_unit_test(test_rekeys_meet),
		cmocka_unit_test(test_weather),
		cmocka_unit_test(test_one_connection_for_both),
		cmocka_unit_test(test_ike_begins_with_v2),
		cmocka_unit_test(test_the_other_version_is_refused),
		cmocka_unit_test(test_one_peer_with_both),
		cmocka_unit_test(test_psk_of_each),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_behind_one_nat),
		cmocka_unit_test(test_versions_are_not_mixed),
		cmocka_unit_test(test_other_versions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
