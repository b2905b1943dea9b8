/*
 * keep: one connection that is, or was, to be kept up or routed. For keeper
 * and its parts (attempt, keeper_plane) only: nobody else includes this.
 *
 * A keep's state follows from what is true when its act timer fires; events
 * only make it fire, and note why an attempt failed.
 */
#ifndef DAEMON_KEEP_H
#define DAEMON_KEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/env.h"
#include "common/map.h"
#include "common/policy.h"
#include "common/timer.h"
#include "daemon/keeper.h"

#define KEEP_WATCH_MS 10000 /* an attempt's SA is looked after so often */

enum keep_state {
	KEEP_DOWN,
	KEEP_QUEUED, /* waits for its turn, or for another's IKE SA */
	KEEP_RESOLVING,
	KEEP_NEGOTIATING,
	KEEP_UP,
	KEEP_WAITING, /* for the next try */
	KEEP_GIVEN_UP
};

struct keep {
	struct keeper *keeper;
	struct map_node by_name, by_reqid;
	struct keep *next, *prev; /* all */
	struct keep *queue_next;
	struct conn *conn; /* owned reference: the newest of that name */
	uint8_t state;
	bool wanted;  /* up, and again after a loss */
	bool trapped; /* a trap is in the data plane */
	bool trap;    /* it should be */
	bool again;   /* dpdaction=restart: at once */
	bool anew;    /* what it has is stale and gets a successor */
	unsigned tries;
	unsigned alternative; /* which of the peer's addresses is next */
	uint64_t sa, child;   /* serials; 0: none */
	uint64_t up_ms;       /* when it came up */
	uint64_t acquired_ms; /* the last acquire that was acted on, or 0 */
	struct endpoint last; /* the peer as a dead SA knew it */
	struct addr remote;   /* of the attempt */
	struct timer act, retry;
	enum err failure; /* noted from events; OK: none */
	char *reason;     /* its text, or NULL */
	struct keeper_wait *waits;
};

struct keeper {
	struct env *env;
	struct keeper_names names;
	struct names *watch; /* of host names */
	struct map by_name, by_reqid;
	struct keep *first;
	size_t count;
	size_t trying; /* RESOLVING or NEGOTIATING */
	struct keep *queue_first, *queue_last;
	struct timer queue_timer;
	struct timer orphan_timer; /* SAs of connections that have gone */
	struct timer stale_timer;  /* SAs that are not renewed */
	bool stale;                /* there may be some */

	uint64_t *lost; /* serials of children without keys */
	size_t lost_count, lost_at;
	struct timer lost_timer;

	bool closing;
	uint64_t closing_until;
	struct timer closing_timer;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* NULL: there is none. */
struct keep *keep_find(struct keeper *keeper, const char *name);
struct keep *keep_by_reqid(struct keeper *keeper, uint32_t reqid);
/* Finds or makes it. NULL: out of memory. */
struct keep *keep_get(struct keeper *keeper, const struct conn *conn);
void keep_free(struct keep *keep);

/* The one place where the state changes. */
void keep_enter(struct keep *keep, enum keep_state state);
/* Out of the queue, nothing under way, no failure noted. */
void keep_rest(struct keep *keep, enum keep_state state);
/* Looks at what is true as soon as nothing else runs. */
void keep_act(struct keep *keep);
void keep_untrap(struct keep *keep);

/* Serial numbers of all IKE SAs, oldest first: SAs may go while others are
 * closed; whoever walks looks each one up. The caller frees. NULL: out of
 * memory, and *count 0. */
uint64_t *keep_serials(const struct sadb *db, size_t *count);

/* keeper_stale.c: a timer's function; begins successors of what is stale, and
 * closes what has one, or what nobody here wants again. */
void keeper_stale(void *keeper);

/* In line for an attempt; see AT_ONCE in attempt.c. */
void keep_queue_join(struct keep *keep);
void keep_queue_leave(struct keep *keep);

/* The first failure of an attempt is the one that counts. text may be NULL. */
void keep_note_failure(struct keep *keep, enum err err, const char *text);
void keep_forget_failure(struct keep *keep);

/* A line for those who wait; the outcome, after which nobody waits. */
void keep_progress(struct keep *keep, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void keep_tell(struct keep *keep, enum err err, const char *text);

#endif
