/*
 * Thousands of connections at one gateway that wait at %any and differ in the
 * peer's identity, or in the subnets of one peer: the right one serves, in
 * both versions.
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

#define MANY 5000
#define NETS 200 /* of one peer */

struct world {
	struct play *play;
	struct gateway *gate, *peer;
	const char *wanted; /* the connection at the gate */
};

static bool
is_up(void *arg)
{
	struct world *world = arg;

	return gateway_child_count(world->gate, world->wanted) == 1 &&
	       gateway_child_count(world->peer, "net") == 1;
}

static void
at_gate(struct world *world, unsigned number, unsigned version, const char *ike,
    const char *subnet, const char *who)
{
	char name[16];
	struct conn *conn;

	snprintf(name, sizeof(name), "c%u", number);
	conn = gateway_conn(world->gate, name, NULL, "10.2.0.0/16", subnet);
	conn->keyexchange = (uint8_t)version;
	conn_set_ike(conn, ike);
	conn_set_ids(conn, "gate.example", who);
}

static struct world
world_of(unsigned version, const char *subnet, const char *who)
{
	struct world world = { .play = play_new(version) };
	struct conn *conn;

	world.gate = play_gateway(world.play, "gate", "192.0.2.2");
	world.peer = play_gateway(world.play, "peer", "192.0.2.1");
	conn =
	    gateway_conn(world.peer, "net", "192.0.2.2", subnet, "10.2.0.0/16");
	conn->keyexchange = (uint8_t)version;
	conn_set_ids(conn, who, "gate.example");
	gateway_psk(world.gate, NULL, NULL, "correct horse battery staple");
	gateway_psk(world.peer, NULL, NULL, "correct horse battery staple");
	return world;
}

static void
expect(struct world *world, const char *wanted)
{
	gateway_load(world->gate);
	gateway_load(world->peer);
	world->wanted = wanted;
	assert_int_equal(gateway_up(world->peer, "net", 0), OK);
	assert_true(play_until(world->play, is_up, world, 60000));
	play_run(world->play, 2000);
	assert_true(play_settled(world->gate, world->peer, 1, 1));
	play_free(world->play);
}

/* The first connections do not even accept the IKE proposal; of the other
 * thousands all do, and one knows the identity. */
static void
test_identities(void **state)
{
	static const char *const others[] = { "aes256-sha512-ecp521",
		"aes192-sha384-ecp384", "aes256-sha512-modp2048" };
	char who[32];

	(void)state;
	for (unsigned version = 1; version <= 2; version++) {
		struct world world =
		    world_of(version, "10.1.0.0/16", "n4321.example");

		for (unsigned i = 0; i < MANY; i++) {
			snprintf(who, sizeof(who), "n%u.example", i);
			at_gate(&world, i, version,
			    i < 300 ? others[i % 3]
			            : "aes128-sha256-curve25519",
			    "10.1.0.0/16", who);
		}
		expect(&world, "c4321");
	}
}

/* An identity that none of them names is refused. */
static void
test_stranger(void **state)
{
	char who[32];

	(void)state;
	for (unsigned version = 1; version <= 2; version++) {
		struct world world =
		    world_of(version, "10.1.0.0/16", "stranger.example");

		for (unsigned i = 0; i < NETS; i++) {
			snprintf(who, sizeof(who), "n%u.example", i);
			at_gate(&world, i, version, "aes128-sha256-curve25519",
			    "10.1.0.0/16", who);
		}
		gateway_load(world.gate);
		gateway_load(world.peer);
		assert_int_equal(gateway_up(world.peer, "net", 0), OK);
		play_run(world.play, 300000);
		assert_int_equal(gateway_ike_count(world.gate), 0);
		assert_int_equal(gateway_child_count(world.gate, NULL), 0);
		play_free(world.play);
	}
}

/* One peer, a connection for each of its subnets. */
static void
test_subnets(void **state)
{
	char subnet[32];

	(void)state;
	for (unsigned version = 1; version <= 2; version++) {
		struct world world =
		    world_of(version, "10.1.199.0/24", "peer.example");

		for (unsigned i = 0; i < NETS; i++) {
			snprintf(subnet, sizeof(subnet), "10.1.%u.0/24", i);
			at_gate(&world, i, version, "aes128-sha256-curve25519",
			    subnet, "peer.example");
		}
		expect(&world, "c199");
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identities),
		cmocka_unit_test(test_stranger),
		cmocka_unit_test(test_subnets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
