#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/env.h"
#include "common/net.h"
#include "common/rexmit.h"

struct world {
	struct env env;
	struct timers timers;
	struct net net;
	unsigned packets;
	struct endpoint local, remote; /* of the last packet */
	bool natt;
	uint64_t at_ms[64]; /* of each packet */
	uint8_t last[64];
	size_t last_len;
	uint32_t chance;
	bool dry;
	unsigned gave_up;
	struct rexmit *freed_when_given_up;
};

static void
keep(struct net *net, const struct endpoint *local,
    const struct endpoint *remote, bool natt, struct view octets)
{
	struct world *world =
	    (struct world *)(void *)((char *)net - offsetof(struct world, net));

	assert_true(octets.len <= sizeof(world->last));
	if (octets.len > 0)
		memcpy(world->last, octets.at, octets.len);
	world->last_len = octets.len;
	world->local = *local;
	world->remote = *remote;
	world->natt = natt;
	if (world->packets < 64)
		world->at_ms[world->packets] = world->timers.now_ms;
	world->packets++;
}

static const struct net_ops ops = { .send = keep };

static bool
chance(void *arg, void *octets, size_t len)
{
	struct world *world = arg;

	if (world->dry)
		return false;
	memset(octets, 0, len);
	memcpy(octets, &world->chance,
	    len < sizeof(world->chance) ? len : sizeof(world->chance));
	return true;
}

static void
give_up(void *arg)
{
	struct world *world = arg;

	world->gave_up++;
	if (world->freed_when_given_up != NULL) {
		rexmit_fini(world->freed_when_given_up);
		free(world->freed_when_given_up);
	}
}

static void
world_init(struct world *world)
{
	memset(world, 0, sizeof(*world));
	timers_init(&world->timers, 1000);
	world->net.ops = &ops;
	world->env.timers = &world->timers;
	world->env.net = &world->net;
	world->env.random = chance;
	world->env.random_arg = world;
}

static struct endpoint
endpoint(const char *text, uint16_t port)
{
	struct endpoint value = { .port = port };

	assert_true(addr_parse(&value.addr, text));
	return value;
}

/* Lets time pass until nothing is armed. */
static void
run_out(struct world *world)
{
	while (timers_next(&world->timers) != UINT64_MAX)
		(void)timers_run(
		    &world->timers, timers_next(&world->timers), 1);
}

static void
test_flight(void **state)
{
	struct endpoint here = endpoint("192.0.2.1", 500);
	struct endpoint there = endpoint("192.0.2.2", 4500);
	struct flight flight = { 0 };
	uint8_t *big = calloc(1, 65536);
	struct world world;

	(void)state;
	assert_non_null(big);
	world_init(&world);
	assert_int_equal(flight_first(&flight).len, 0);
	flight_send(&flight, &world.env, &here, &there, false);
	assert_int_equal(world.packets, 0);
	assert_int_equal(flight_add(&flight, view_text("first")), OK);
	assert_int_equal(flight_add(&flight, view_of(NULL, 0)), OK);
	assert_int_equal(flight_add(&flight, view_text("third one")), OK);
	assert_int_equal(flight.count, 3);
	assert_true(view_equal(flight_first(&flight), view_text("first")));
	flight_send(&flight, &world.env, &here, &there, true);
	assert_int_equal(world.packets, 3);
	assert_int_equal(world.last_len, 9);
	assert_memory_equal(world.last, "third one", 9);
	assert_true(world.natt);
	assert_true(endpoint_equal(&world.local, &here));
	assert_true(endpoint_equal(&world.remote, &there));
	/* The largest datagram, and one beyond. */
	assert_int_equal(flight_add(&flight, view_of(big, 65536)), ERR_LONG);
	assert_int_equal(flight.count, 3);
	assert_int_equal(flight_add(&flight, view_of(big, 65535)), OK);
	assert_int_equal(flight.count, 4);
	flight_clear(&flight);
	flight_clear(&flight);
	assert_int_equal(flight_first(&flight).len, 0);
	assert_int_equal(flight.count, 0);
	free(big);
}

static void
test_schedule(void **state)
{
	static const uint64_t waits[] = { 1000, 1600, 2560, 4096, 6553, 10484,
		16774, 26838, 30000, 30000, 30000, 30000 };
	struct endpoint here = endpoint("192.0.2.1", 500);
	struct endpoint there = endpoint("192.0.2.2", 500);
	struct world world;
	struct rexmit rexmit;
	uint64_t expected = 1000;

	(void)state;
	world_init(&world);
	rexmit_init(&rexmit, &world.env, &rexmit_defaults, give_up, &world);
	assert_int_equal(flight_add(&rexmit.flight, view_text("question")), OK);
	assert_int_equal(world.packets, 0);
	rexmit_start(&rexmit, &here, &there, false);
	assert_int_equal(world.packets, 1);
	run_out(&world);
	assert_int_equal(world.packets, rexmit_defaults.tries);
	assert_int_equal(rexmit.sent, rexmit_defaults.tries);
	assert_int_equal(world.gave_up, 1);
	assert_int_equal(
	    world.env.counter[COUNTER_RETRANSMITS], rexmit_defaults.tries - 1);
	for (unsigned i = 0; i < rexmit_defaults.tries; i++) {
		assert_true(world.at_ms[i] == expected);
		expected += waits[i];
	}
	/* Given up only after the last try's wait. */
	assert_true(world.timers.now_ms == expected);
	/* A start anew counts from the beginning. */
	rexmit_start(&rexmit, &here, &there, false);
	assert_int_equal(rexmit.sent, 1);
	rexmit_fini(&rexmit);
}

/* Jitter only ever adds, and at most its share. */
static void
test_jitter(void **state)
{
	struct endpoint here = endpoint("192.0.2.1", 500);
	struct world world;
	struct rexmit rexmit;

	(void)state;
	for (uint32_t n = 0; n < 1000; n++) {
		uint64_t next;

		world_init(&world);
		world.chance = n * 4294967;
		rexmit_init(
		    &rexmit, &world.env, &rexmit_defaults, give_up, &world);
		rexmit_start(&rexmit, &here, &here, false);
		next = timers_next(&world.timers);
		assert_true(next >= 2000);
		assert_true(next <= 2100);
		assert_true(next == 2000 + world.chance % 101);
		rexmit_fini(&rexmit);
	}
	/* No chance, no jitter, but all else. */
	world_init(&world);
	world.dry = true;
	rexmit_init(&rexmit, &world.env, &rexmit_defaults, give_up, &world);
	rexmit_start(&rexmit, &here, &here, false);
	assert_true(timers_next(&world.timers) == 2000);
	rexmit_fini(&rexmit);
}

static void
test_stop_and_move(void **state)
{
	struct endpoint here = endpoint("192.0.2.1", 500);
	struct endpoint there = endpoint("192.0.2.2", 500);
	struct endpoint moved = endpoint("2001:db8::2", 4500);
	struct world world;
	struct rexmit rexmit;

	(void)state;
	world_init(&world);
	rexmit_init(&rexmit, &world.env, &rexmit_defaults, give_up, &world);
	rexmit_stop(&rexmit);
	assert_int_equal(flight_add(&rexmit.flight, view_text("question")), OK);
	rexmit_start(&rexmit, &here, &there, false);
	assert_true(endpoint_equal(&world.remote, &there));
	rexmit_move(&rexmit, &here, &moved, true);
	assert_int_equal(world.packets, 1);
	assert_int_equal(timers_run(&world.timers, 2000, 10), 1);
	assert_int_equal(world.packets, 2);
	assert_true(endpoint_equal(&world.remote, &moved));
	assert_true(world.natt);
	rexmit_stop(&rexmit);
	run_out(&world);
	assert_int_equal(world.packets, 2);
	assert_int_equal(world.gave_up, 0);
	/* What was sent stays until it is cleared. */
	assert_true(
	    view_equal(flight_first(&rexmit.flight), view_text("question")));
	rexmit_fini(&rexmit);
	assert_int_equal(rexmit.flight.count, 0);
	rexmit_fini(&rexmit);
	memset(&rexmit, 0, sizeof(rexmit));
	rexmit_fini(&rexmit);
}

/* Whoever is told that it is over may free everything. */
static void
test_freed_at_the_end(void **state)
{
	struct rexmit_config config = rexmit_defaults;
	struct endpoint here = endpoint("192.0.2.1", 500);
	struct rexmit *rexmit = malloc(sizeof(*rexmit));
	struct world world;

	(void)state;
	assert_non_null(rexmit);
	world_init(&world);
	config.tries = 1;
	world.freed_when_given_up = rexmit;
	rexmit_init(rexmit, &world.env, &config, give_up, &world);
	assert_int_equal(flight_add(&rexmit->flight, view_text("once")), OK);
	rexmit_start(rexmit, &here, &here, false);
	run_out(&world);
	assert_int_equal(world.gave_up, 1);
	assert_int_equal(world.packets, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flight),
		cmocka_unit_test(test_schedule),
		cmocka_unit_test(test_jitter),
		cmocka_unit_test(test_stop_and_move),
		cmocka_unit_test(test_freed_at_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
