/*
 * world: two gateways that speak IKEv2, as play_pair() makes them, and what the
 * plays of that engine ask of them again and again.
 */
#ifndef TESTS_PLAY_WORLD_H
#define TESTS_PLAY_WORLD_H

#include "tests/play/play.h"

struct world {
	struct play *play;
	struct gateway *left, *right;
};

/* A new play of this seed; play_free(world.play) ends it. */
struct world world_v2(uint64_t seed);
/* Puts in force what was built, on both. */
void world_reload(struct world *world);
/* Is nothing under way any more, and nothing left in the kernels? For
 * play_until(): world is a struct world. */
bool world_quiet(void *world);
/* Waits until nothing is under way any more, probes of liveness included: have
 * both so many IKE SAs and children, and the same? */
bool world_settles(struct world *world, size_t ikes, size_t children);
/* Does traffic pass both ways through the connection "net"? */
bool world_flows(const struct world *world);

#endif
