#include "tests/play/world.h"

#define SETTLE_MS 600000ull /* longer than any probe */

struct world
world_v2(uint64_t seed)
{
	struct world world = { .play = play_new(seed) };

	play_pair(world.play, &world.left, &world.right, KEYEX_IKEV2);
	return world;
}

void
world_reload(struct world *world)
{
	gateway_load(world->left);
	gateway_load(world->right);
}

bool
world_quiet(void *arg)
{
	struct world *world = arg;

	return gateway_idle(world->left) && gateway_idle(world->right) &&
	       world->left->kernel.sa_count ==
	           2 * gateway_child_count(world->left, NULL) &&
	       world->right->kernel.sa_count ==
	           2 * gateway_child_count(world->right, NULL);
}

bool
world_settles(struct world *world, size_t ikes, size_t children)
{
	play_until(world->play, world_quiet, world, SETTLE_MS);
	return play_settled(world->left, world->right, ikes, children);
}

bool
world_flows(const struct world *world)
{
	return play_traffic(
	           world->left, world->right, "10.1.0.1", "10.2.0.1") &&
	       play_traffic(world->right, world->left, "10.2.0.1", "10.1.0.1");
}
