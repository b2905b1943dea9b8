/*
 * env: the world as an engine sees it. Time, chance, the network, the kernel,
 * the vault and the policy are reached through this struct only, so that a
 * test runs several gateways in one process.
 */
#ifndef COMMON_ENV_H
#define COMMON_ENV_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/alg.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/event.h"
#include "common/log.h"
#include "common/timer.h"

struct child_sa;
struct control;
struct engine;
struct keeper;
struct kernel;
struct limit;
struct net;
struct policy;
struct sadb;
struct vault;
struct workers;

struct env {
	const char *name; /* of this gateway, in logs of simulations; or NULL */
	struct timers *timers;
	struct net *net;
	struct kernel *kernel;
	struct vault *vault;
	struct workers *workers;
	struct sadb *sadb;
	struct limit *limit;
	struct policy *policy; /* the snapshot in force; owns a reference */
	const struct engine *engine[3]; /* by major version */
	struct alg_set usable;

	bool (*random)(void *arg, void *octets, size_t len);
	void *random_arg;

	/* What happened, for whoever watches (control, keeper, tests). May be
	 * NULL. Must not free SAs. */
	void (*event)(struct env *env, const struct event *event);
	void *event_arg;
	/* Takes a child out of the data plane (kernel/install's, set by whoever
	 * assembles the gateway: common/ lies below kernel/). May be NULL. */
	void (*child_gone)(
	    struct env *env, struct child_sa *child, uint64_t linger_ms);
	/* A test tool, NULL in production: may change the payloads of a message
	 * of ours before it is sealed (IKEv1: and before its HASH is computed),
	 * within plaintext's capacity. *first is the first payload's type. */
	void (*impair)(struct env *env, uint8_t *first, struct buf *plaintext);
	void *impair_arg;
	struct log *log;
	struct keeper *keeper; /* the daemon's own, as the next; or NULL */
	struct control *control;

	uint64_t serial; /* the last serial number given out */
	uint64_t wall_s; /* wall clock minus timers->now_ms / 1000, or 0 */
	uint64_t counter[COUNTER_COUNT];
	uint64_t weak_used[64]; /* by enum alg_id: SAs made with weak rows */
};

/* Random octets from env->random. False if there were none to be had: the
 * caller gives up what it was doing. */
bool env_random(struct env *env, void *octets, size_t len);
uint32_t env_random_u32(struct env *env); /* for jitter: 0 on failure */
uint64_t env_serial(struct env *env);     /* never 0, never twice */
uint64_t env_now(const struct env *env);  /* ms */
void env_count(struct env *env, enum counter counter);

/* A line to env->log. For lines about an SA see sa_log(). */
void env_log(struct env *env, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Fills random with OpenSSL's generator. */
bool env_random_openssl(void *arg, void *octets, size_t len);

#endif
