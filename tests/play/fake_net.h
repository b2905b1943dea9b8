/*
 * fake_net: the network of a play: delay, loss, duplicates, reordering, NAT.
 */
#ifndef TESTS_PLAY_FAKE_NET_H
#define TESTS_PLAY_FAKE_NET_H

#include "common/addr.h"
#include "common/net.h"
#include "common/timer.h"

struct gateway;
struct play;

struct net_weather {
	unsigned loss_permille, duplicate_permille, reorder_permille;
	unsigned delay_min_ms, delay_max_ms; /* one way */
	unsigned reorder_ms;                 /* extra delay of the unlucky */
};

struct fake_net {
	struct net net;
	struct gateway *gateway;
	bool silent; /* everything to and from it vanishes */
	uint64_t sent, received, keepalives;
};

#define FAKE_NATS     4
#define FAKE_MAPPINGS 64

/* One inside address behind one outside address; ports are mapped. */
struct fake_nat {
	struct addr inside, outside;
	uint16_t next_port;
	struct {
		struct endpoint inside, peer;
		uint16_t port;
	} mapping[FAKE_MAPPINGS];
	size_t count;
};

struct flying {
	struct play *play;
	struct timer timer;
	struct flying *next, *prev;
	struct endpoint src, dst;
	bool natt, keepalive;
	size_t len;
	uint8_t octets[];
};

void fake_net_init(struct fake_net *net, struct gateway *gateway);
/* A NAT between inside and the rest of the world. */
struct fake_nat *
play_nat(struct play *play, const char *inside, const char *outside);
/* The box forgets its mappings: the next packets get new ports. */
void fake_nat_rebind(struct fake_nat *nat);
/* Puts a packet on the wire as if src had sent it (no weather, no NAT). */
void play_inject(struct play *play, const struct endpoint *src,
    const struct endpoint *dst, bool natt, struct view octets);
void play_drop_flying(struct play *play);

#endif
