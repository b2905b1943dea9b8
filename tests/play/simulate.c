/*
 * simulate: handshakes, rekeying and closing of both versions between two
 * whole gateways, on a network that loses, repeats and reorders, one run a
 * seed.
 *
 *	simulate [--seeds N] [--seed N] [--loss PERMILLE]
 *
 * Ends with 0 only if every handshake was established, exactly one SA set was
 * left on each side at every checkpoint, and nothing at the end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/play/play.h"

#define MINUTE_MS 60000ull
#define HOUR_MS   (60 * MINUTE_MS)

struct figures {
	unsigned runs, established, failed;
	uint64_t handshake_ms, handshake_max_ms, packets;
};

struct pair {
	struct gateway *left, *right;
	size_t ikes, children;
};

static bool
both_up(void *arg)
{
	struct pair *pair = arg;

	return gateway_child_count(pair->left, NULL) >= 1 &&
	       gateway_child_count(pair->right, NULL) >= 1;
}

/* Cheap first: this is asked after every event. */
static bool
quiet(void *arg)
{
	struct pair *pair = arg;

	return pair->left->env.sadb->count == pair->ikes &&
	       pair->right->env.sadb->count == pair->ikes &&
	       pair->left->env.sadb->child_count == pair->children &&
	       pair->right->env.sadb->child_count == pair->children &&
	       pair->left->kernel.sa_count == 2 * pair->children &&
	       pair->right->kernel.sa_count == 2 * pair->children &&
	       gateway_idle(pair->left) && gateway_idle(pair->right);
}

static bool
settle(struct play *play, struct pair *pair, const char *stage)
{
	if (play_until(play, quiet, pair, 5 * HOUR_MS) &&
	    play_settled(pair->left, pair->right, pair->ikes, pair->children))
		return true;
	play_settled(pair->left, pair->right, pair->ikes, pair->children);
	fprintf(stderr, "seed %llu: not settled after %s\n",
	    (unsigned long long)play->seed, stage);
	return false;
}

static bool
traffic(struct pair *pair)
{
	return play_traffic(pair->left, pair->right, "10.1.0.1", "10.2.0.1") &&
	       play_traffic(pair->right, pair->left, "10.2.0.1", "10.1.0.1");
}

static bool
flows(struct play *play, struct pair *pair, const char *stage)
{
	if (traffic(pair))
		return true;
	fprintf(stderr, "seed %llu: no traffic after %s\n",
	    (unsigned long long)play->seed, stage);
	return false;
}

/* Rekeys the child, then the IKE SA, from a side that the seed chooses; in a
 * quarter of the runs from both sides at once. */
static bool
rekeys(struct play *play, struct pair *pair)
{
	struct gateway *one = pair->left, *other = pair->right, *swap;
	bool both = play_below(play, 4) == 0;

	if (play_below(play, 2) == 0) {
		swap = one;
		one = other;
		other = swap;
	}
	one->env.sadb->first->engine->child_rekey(gateway_child(one));
	if (both)
		other->env.sadb->first->engine->child_rekey(
		    gateway_child(other));
	play_run(play, 1000);
	if (!settle(play, pair, "child rekey") ||
	    !flows(play, pair, "child rekey"))
		return false;
	one->env.sadb->first->engine->rekey(gateway_ike(one));
	if (both)
		other->env.sadb->first->engine->rekey(gateway_ike(other));
	play_run(play, 1000);
	return settle(play, pair, "IKE rekey") &&
	       flows(play, pair, "IKE rekey");
}

static bool
closes(struct play *play, struct pair *pair)
{
	struct gateway *gw =
	    play_below(play, 2) == 0 ? pair->left : pair->right;
	struct child_sa *child = gateway_child(gw);

	/* IKEv1 closes children by their own Delete (RFC 2408 3.15). */
	if (gw->env.sadb->first->engine->version == 1 && child != NULL)
		gw->env.sadb->first->engine->child_close(child);
	if (gateway_ike(gw) != NULL)
		gw->env.sadb->first->engine->close(gateway_ike(gw));
	pair->ikes = pair->children = 0;
	play_run(play, 1000);
	return settle(play, pair, "close");
}

/* The lifetimes are short, so that what a lost IKEv1 Delete leaves behind
 * heals within the run. */
static void
shorten(struct gateway *gw)
{
	struct conn *conn = gw->building[0];

	conn->ike_lifetime_ms = 3 * HOUR_MS;
	conn->lifetime_ms = HOUR_MS;
	conn->rekey = false;
	gateway_load(gw);
}

static bool
run(uint64_t seed, unsigned version, unsigned loss, struct figures *figures)
{
	struct play *play = play_new(seed);
	struct pair pair = { .ikes = 1, .children = 1 };
	uint64_t began, took;
	bool good;

	play->weather.delay_max_ms = 100;
	play_pair(play, &pair.left, &pair.right,
	    version == 1 ? KEYEX_IKEV1 : KEYEX_IKEV2);
	shorten(pair.left);
	shorten(pair.right);
	play->weather.loss_permille = loss;
	play->weather.duplicate_permille = 50;
	play->weather.reorder_permille = 100;
	began = play->timers.now_ms;
	figures->runs++;
	good = gateway_up(pair.left, "net", version) == OK &&
	       play_until(play, both_up, &pair, 10 * MINUTE_MS);
	if (!good)
		fprintf(stderr, "seed %llu: IKEv%u not established: %s\n",
		    (unsigned long long)seed, version, pair.left->failed);
	if (good) {
		took = play->timers.now_ms - began;
		figures->established++;
		figures->handshake_ms += took;
		if (took > figures->handshake_max_ms)
			figures->handshake_max_ms = took;
		figures->packets += play->packets;
		good = settle(play, &pair, "handshake") &&
		       flows(play, &pair, "handshake") && rekeys(play, &pair) &&
		       closes(play, &pair);
	}
	if (!good)
		figures->failed++;
	play_free(play);
	return good;
}

static void
print(const char *name, const struct figures *figures)
{
	unsigned n = figures->established == 0 ? 1 : figures->established;

	printf("%-6s %6u %12u %7u %14.3f %14.3f %10.1f\n", name, figures->runs,
	    figures->established, figures->failed,
	    (double)figures->handshake_ms / n / 1000,
	    (double)figures->handshake_max_ms / 1000,
	    (double)figures->packets / n);
}

int
main(int argc, char **argv)
{
	struct figures figures[3] = { 0 };
	uint64_t first = 1, last = 200, seed;
	unsigned loss = 100, version;
	bool good = true;
	int i;

	for (i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--seeds") == 0)
			last = strtoull(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--seed") == 0)
			first = last = strtoull(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--loss") == 0)
			loss = (unsigned)strtoul(argv[i + 1], NULL, 10);
		else
			break;
	}
	if (i < argc) {
		fprintf(stderr, "usage: simulate [--seeds N] [--seed N] "
		                "[--loss PERMILLE]\n");
		return 2;
	}
	for (seed = first; seed <= last; seed++) {
		for (version = 1; version <= 2; version++)
			good &= run(seed, version, loss, &figures[version]);
		if (isatty(2) && seed % 50 == 0)
			fprintf(stderr, "\r%llu of %llu seeds ",
			    (unsigned long long)seed, (unsigned long long)last);
	}
	printf("%.1f%% loss, 5%% duplicates, 10%% reordering\n", loss / 10.0);
	printf("%-6s %6s %12s %7s %14s %14s %10s\n", "kind", "runs",
	    "established", "failed", "mean time/s", "max time/s", "packets");
	print("IKEv1", &figures[1]);
	print("IKEv2", &figures[2]);
	return good ? 0 : 1;
}
