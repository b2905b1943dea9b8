/*
 * keeper: sees to it that what the administrator wants up is up.
 *
 * It acts on auto=start and auto=route, on up and down, on dpdaction, on lost
 * children and on what the data plane reports, and looks host names up before
 * initiating. It knows no protocol: it asks the engines and hears the events.
 * It needs env and its timers only (names may be NULL), so that it lives in
 * simulations too. Events are noted when they come and acted on from a timer,
 * because an engine is in the middle of something when it tells one.
 */
#ifndef DAEMON_KEEPER_H
#define DAEMON_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/env.h"
#include "common/err.h"
#include "common/policy.h"

struct keeper;

/* Looks up host names: common/dns, or a test's list. Contracts as in
 * common/dns.h. */
struct keeper_names {
	enum err (*resolve)(void *names, const char *name, uint8_t family,
	    void (*done)(void *arg, enum err err, const struct addr *addrs,
	        size_t count, uint32_t ttl_s),
	    void *arg);
	void (*cancel)(void *names, void *arg);
	void *names;
};

/* Sets env->keeper. names is copied; NULL: host names cannot be used. NULL:
 * out of memory. */
struct keeper *keeper_new(struct env *env, const struct keeper_names *names);
void keeper_free(struct keeper *keeper); /* accepts NULL; sends nothing */

/* From now on names are looked up by these. */
void keeper_set_names(struct keeper *keeper, const struct keeper_names *names);

/* Takes next into force (takes a reference; env->policy changes). What did not
 * change is not touched; live SAs of changed connections keep what they were
 * made from until they are renewed; connections that have gone are closed;
 * new and changed ones are routed or started as auto says. */
struct keeper_difference {
	unsigned same, changed, gone, added;
};
void keeper_policy(struct keeper *keeper, struct policy *next,
    struct keeper_difference *difference);

/* One who waits for an outcome. Zero it, set the functions. progress may be
 * NULL. Neither is called from inside keeper_up() or keeper_down(); done is
 * called once. text may be NULL. */
struct keeper_wait {
	void (*progress)(struct keeper_wait *wait, const char *line);
	void (*done)(struct keeper_wait *wait, enum err err, const char *text);
	void *arg;
	struct keeper_wait *next;
	struct keep *keep; /* keeper's own */
};

/* Brings a connection up, and tells wait about the first attempt's outcome.
 * ERR_NOT_FOUND: no such connection; ERR_EXISTS: it is up; ERR_REFUSED: it has
 * no address to go to; ERR_NOMEM. On errors wait is not used. */
enum err
keeper_up(struct keeper *keeper, const char *name, struct keeper_wait *wait);
/* Closes all SAs of a connection and wants it up no longer. *closed: how many
 * children. ERR_NOT_FOUND: neither a connection nor an SA of that name. */
enum err keeper_down(struct keeper *keeper, const char *name, size_t *closed);
/* Child SAs of this name that are there still, and IKE SAs that close: those
 * with a serial number below before. */
size_t
keeper_remaining(struct keeper *keeper, const char *name, uint64_t before);
/* The one who waits goes away. */
void keeper_wait_cancel(struct keeper *keeper, struct keeper_wait *wait);

/* "up", "negotiating", "waiting", "routed", "down", ... for list conns. */
const char *keeper_state(struct keeper *keeper, const char *name);

/* Closes every IKE SA with a Delete, starts nothing any more, takes the traps
 * back. done is called when nothing is left, or after limit_ms. */
void keeper_shutdown(struct keeper *keeper, uint64_t limit_ms,
    void (*done)(void *arg), void *arg);

/* For env->event. */
void keeper_event(struct keeper *keeper, const struct event *event);

/* For env->kernel->events: they find the keeper in env. */
void keeper_acquire(struct env *env, uint32_t reqid, const struct ts packet[2]);
void keeper_expire(struct env *env, uint32_t spi_in, bool hard);
void
keeper_mapping(struct env *env, uint32_t spi_in, const struct endpoint *remote);
void keeper_lost(struct env *env);

#endif
