/*
 * play: whole gateways in simulated time.
 *
 * A struct play is a world with one virtual clock, a seed, a network with loss,
 * duplication, reordering, delay and NATs, and gateways: each a complete struct
 * env with both engines, a simulated kernel, a simulated vault and workers that
 * finish later. Nothing happens inside a call; a run is repeatable from its
 * seed (OpenSSL's generator is replaced as well).
 */
#ifndef TESTS_PLAY_PLAY_H
#define TESTS_PLAY_PLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/engine.h"
#include "common/env.h"
#include "common/fsm.h"
#include "common/limit.h"
#include "common/policy.h"
#include "common/sa.h"
#include "common/timer.h"
#include "tests/play/fake_kernel.h"
#include "tests/play/fake_net.h"
#include "tests/play/fake_vault.h"
#include "tests/play/fake_workers.h"

#define PLAY_GATEWAYS 8
#define PLAY_CONNS    5008

struct gateway {
	struct play *play;
	char name[24];
	struct addr addr;
	struct env env;
	struct log log;
	struct fake_net net;
	struct fake_kernel kernel;
	struct fake_vault vault;
	struct fake_workers workers;

	struct conn *building[PLAY_CONNS]; /* for the next gateway_load() */
	size_t building_count;

	unsigned events[EVENT_EXPLAIN + 1]; /* how often each happened */
	enum err last_err;
	char explained[4096]; /* text of the last EVENT_EXPLAIN */
	char failed[512];     /* text of the last failure */
};

struct play {
	struct timers timers;
	uint64_t seed, state; /* of the generator */
	struct net_weather weather;
	struct gateway *gateway[PLAY_GATEWAYS];
	size_t gateway_count;
	struct fake_nat nat[FAKE_NATS];
	size_t nat_count;
	struct flying *flying; /* packets on their way */

	/* Sees every packet that a gateway sends, before NAT and weather; false
	 * drops it. May change octets (at most its own length). */
	bool (*tap)(struct play *play, struct gateway *from,
	    struct packet *packet, uint8_t *octets, void *arg);
	void *tap_arg;
	uint64_t packets, octets_sent;
};

/* Sets the seed of everything. Verbose when the environment has PLAY_LOG=info
 * or debug: log lines go to stderr with virtual time. */
struct play *play_new(uint64_t seed);
/* Frees all; asserts that no gateway leaks SAs, and that its kernel is empty
 * once all SAs are gone. */
void play_free(struct play *play);

uint64_t play_random(struct play *play);
/* A random number below bound. */
uint64_t play_below(struct play *play, uint64_t bound);

/* Runs the clock for so many milliseconds, firing what falls due. */
void play_run(struct play *play, uint64_t ms);
/* Runs until test() holds or max_ms have passed. Returns whether it held. */
bool play_until(
    struct play *play, bool (*test)(void *arg), void *arg, uint64_t max_ms);

/* A gateway at an address (text, "192.0.2.1" or IPv6) with no connections. */
struct gateway *
play_gateway(struct play *play, const char *name, const char *addr);
/* The power fails and comes back: all state is lost, nobody is told; policy
 * and secrets are loaded again. */
void gateway_restart(struct gateway *gw);
/* A peer that is gone: packets to it vanish. */
void gateway_silence(struct gateway *gw, bool silent);

/* A connection with test defaults (AES-128, SHA-256, Curve25519, PSK, subnets
 * given as text or NULL for dynamic; identities NULL: addresses), to be
 * changed at will and put in force by gateway_load(). remote NULL: %any. */
struct conn *gateway_conn(struct gateway *gw, const char *name,
    const char *remote, const char *local_subnet, const char *remote_subnet);
void conn_set_ike(struct conn *conn, const char *text);
void conn_set_esp(struct conn *conn, const char *text);
void conn_set_ids(struct conn *conn, const char *local, const char *remote);
/* Puts what was built in force, as a reload does. */
void gateway_load(struct gateway *gw);
/* identities as in ipsec.secrets, NULL: any. */
void gateway_psk(
    struct gateway *gw, const char *one, const char *other, const char *psk);

/* Two gateways "left" 192.0.2.1 (10.1.0.0/16) and "right" 192.0.2.2
 * (10.2.0.0/16), each with a connection "net" to the other, of this key
 * exchange, and a common PSK. Change gw->building[0] and load again. */
void play_pair(struct play *play, struct gateway **left, struct gateway **right,
    enum policy_keyexchange keyexchange);

/* As an administrator or a trap would: a new IKE SA, or a child below one that
 * is there. version 0: by the connection. */
enum err gateway_up(struct gateway *gw, const char *conn, unsigned version);

/* The only IKE SA (established, rekeyed ones and closing ones not counted), or
 * NULL; the only child that is up. */
struct ike_sa *gateway_ike(struct gateway *gw);
struct child_sa *gateway_child(struct gateway *gw);
size_t gateway_ike_count(struct gateway *gw); /* established */
size_t gateway_child_count(struct gateway *gw, const char *conn); /* up */
/* Exchanges in progress, half-open SAs, jobs, kernel requests: none left. */
bool gateway_idle(struct gateway *gw);
/* Both have exactly ikes established IKE SAs and children children up, the same
 * SPIs and keys in both kernels, and nothing else. False, and why on stderr. */
bool play_settled(
    struct gateway *a, struct gateway *b, size_t ikes, size_t children);

/* One packet through the tunnel, from and to these inner addresses: policy,
 * newest outbound SA, the peer's inbound SA with the same SPI and key. */
bool play_traffic(
    struct gateway *from, struct gateway *to, const char *src, const char *dst);

#endif
