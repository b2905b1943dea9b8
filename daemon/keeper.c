#include "daemon/keeper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/engine.h"
#include "common/sa.h"
#include "daemon/attempt.h"
#include "daemon/keep.h"
#include "daemon/names.h"

#define SHUTDOWN_MS 20   /* between looks at what is left */
#define ORPHAN_MS   1000 /* before SAs of a connection that has gone close */

/* Events ---------------------------------------------------------------- */

static void
peer_dead(struct keeper *keeper, const struct ike_sa *sa)
{
	const struct child_sa *child;

	for (child = sa->children; child != NULL; child = child->next) {
		const struct conn *conn = child->conn;
		struct keep *keep = keep_find(keeper, conn->name);

		if (conn->dpd_action == DPD_RESTART ||
		    conn->dpd_action == DPD_HOLD) {
			if (keep == NULL)
				keep = keep_get(keeper, conn);
			if (keep == NULL)
				continue;
			keep->last = sa->remote;
			if (conn->dpd_action == DPD_RESTART) {
				keep->wanted = keep->again = true;
				keep->tries = 0;
			} else {
				keep->wanted = keep->anew = false;
				keep->trap = true;
			}
		} else if (conn->dpd_action == DPD_CLEAR && keep != NULL) {
			keep->wanted = keep->anew = false;
		}
		if (keep != NULL)
			keep_act(keep);
	}
}

static bool
gone(const struct keeper *keeper, const struct conn *conn)
{
	const struct policy *policy = keeper->env->policy;

	return policy != NULL && policy_conn(policy, conn->name) == NULL;
}

/* Something happens to SAs of a connection that is no longer there. */
static bool
orphaned(const struct keeper *keeper, const struct event *event)
{
	return event->sa != NULL && event->sa->conn != NULL &&
	       (gone(keeper, event->sa->conn) ||
	           (event->conn != NULL && gone(keeper, event->conn)));
}

void
keeper_event(struct keeper *keeper, const struct event *event)
{
	struct keep *keep;

	if (event->kind == EVENT_PEER_DEAD && event->sa != NULL)
		peer_dead(keeper, event->sa);
	if (event->kind != EVENT_EXPLAIN && orphaned(keeper, event))
		timer_set(
		    keeper->env->timers, &keeper->orphan_timer, ORPHAN_MS);
	if (event->kind == EVENT_STALE) {
		keeper->stale = true;
		timer_set(keeper->env->timers, &keeper->stale_timer, 0);
	}
	if (keeper->count == 0 || event->conn == NULL)
		return;
	/* Others may wait for this IKE SA, or for its failure. */
	if (event->kind == EVENT_IKE_UP && keeper->queue_first != NULL)
		timer_set(keeper->env->timers, &keeper->queue_timer, 0);
	keep = keep_find(keeper, event->conn->name);
	if (keep == NULL)
		return;
	switch (event->kind) {
	case EVENT_IKE_UP:
		if (keep->state == KEEP_NEGOTIATING && event->sa != NULL &&
		    event->sa->serial == keep->sa)
			keep_progress(
			    keep, "%s: IKE SA established", keep->conn->name);
		break;
	case EVENT_IKE_FAILED:
	case EVENT_IKE_DOWN:
		if (keep->state == KEEP_NEGOTIATING && event->sa != NULL &&
		    event->sa->serial == keep->sa)
			keep_note_failure(keep, event->err, event->text);
		break;
	case EVENT_CHILD_FAILED:
		if (keep->state == KEEP_NEGOTIATING)
			keep_note_failure(keep, event->err, event->text);
		break;
	case EVENT_CHILD_UP:
		if (keep->state == KEEP_NEGOTIATING)
			keep_progress(
			    keep, "%s: child SA established", keep->conn->name);
		keep_act(keep);
		break;
	case EVENT_CHILD_REKEYED:
		if (keep->state == KEEP_UP && event->child != NULL)
			keep->child = event->child->serial;
		break;
	case EVENT_CHILD_DOWN:
		keep_act(keep);
		break;
	case EVENT_EXPLAIN:
		if (event->text != NULL)
			keep_progress(keep, "%s", event->text);
		break;
	case EVENT_IKE_REKEYED:
	case EVENT_STALE:
	case EVENT_PEER_DEAD:
		break;
	}
}
/* What the administrator asks ------------------------------------------- */

static void close_orphans(void *arg);

struct keeper *
keeper_new(struct env *env, const struct keeper_names *names)
{
	struct keeper *keeper = calloc(1, sizeof(*keeper));
	uint64_t seed[2] = { 0, 0 };

	if (keeper == NULL)
		return NULL;
	keeper->env = env;
	if (names != NULL)
		keeper->names = *names;
	/* Names and numbers of our own: an attacker does not choose them. */
	map_init(&keeper->by_name, seed);
	map_init(&keeper->by_reqid, seed);
	timer_init(&keeper->queue_timer, attempt_queue, keeper);
	timer_init(&keeper->orphan_timer, close_orphans, keeper);
	timer_init(&keeper->stale_timer, keeper_stale, keeper);
	keeper->watch = names_new(keeper);
	if (keeper->watch == NULL) {
		map_fini(&keeper->by_name);
		map_fini(&keeper->by_reqid);
		free(keeper);
		return NULL;
	}
	env->keeper = keeper;
	return keeper;
}

void
keeper_set_names(struct keeper *keeper, const struct keeper_names *names)
{
	/* Questions under way die with the old names: ask again. */
	for (struct keep *keep = keeper->first; keep != NULL; keep = keep->next)
		if (keep->state == KEEP_RESOLVING) {
			keep_rest(keep, KEEP_WAITING);
			timer_set(keeper->env->timers, &keep->retry, 0);
		}
	names_policy(keeper->watch, NULL);
	memset(&keeper->names, 0, sizeof(keeper->names));
	if (names != NULL)
		keeper->names = *names;
	names_policy(keeper->watch, keeper->env->policy);
}

void
keeper_free(struct keeper *keeper)
{
	struct env *env;

	if (keeper == NULL)
		return;
	env = keeper->env;
	while (keeper->first != NULL)
		keep_free(keeper->first);
	names_free(keeper->watch);
	timer_stop(env->timers, &keeper->queue_timer);
	timer_stop(env->timers, &keeper->orphan_timer);
	timer_stop(env->timers, &keeper->stale_timer);
	timer_stop(env->timers, &keeper->lost_timer);
	timer_stop(env->timers, &keeper->closing_timer);
	map_fini(&keeper->by_name);
	map_fini(&keeper->by_reqid);
	free(keeper->lost);
	env->keeper = NULL;
	free(keeper);
}

enum err
keeper_up(struct keeper *keeper, const char *name, struct keeper_wait *wait)
{
	const struct policy *policy = keeper->env->policy;
	struct conn *conn = policy != NULL ? policy_conn(policy, name) : NULL;
	struct keep *keep;

	if (conn == NULL)
		return ERR_NOT_FOUND;
	keep = keep_get(keeper, conn);
	if (keep == NULL)
		return ERR_NOMEM;
	if (attempt_child(keep) != NULL)
		return ERR_EXISTS;
	if (!attempt_reachable(keep) &&
	    sa_for_conn(keeper->env->sadb, keep->conn) == NULL)
		return ERR_REFUSED;
	keep->wanted = keep->wanted || conn->autostart == AUTO_START;
	if (keep->state == KEEP_WAITING || keep->state == KEEP_GIVEN_UP) {
		keep->tries = 0;
		keep_rest(keep, KEEP_DOWN);
	}
	wait->next = keep->waits;
	wait->keep = keep;
	keep->waits = wait;
	if (keep->state == KEEP_DOWN) {
		keep_enter(keep, KEEP_WAITING);
		timer_set(keeper->env->timers, &keep->retry, 0);
	}
	return OK;
}

void
keeper_wait_cancel(struct keeper *keeper, struct keeper_wait *wait)
{
	struct keeper_wait **at;

	(void)keeper;
	if (wait->keep == NULL)
		return;
	for (at = &wait->keep->waits; *at != NULL; at = &(*at)->next)
		if (*at == wait) {
			*at = wait->next;
			break;
		}
	wait->keep = NULL;
}

size_t
keeper_remaining(struct keeper *keeper, const char *name, uint64_t before)
{
	size_t count = 0;

	for (const struct ike_sa *sa = keeper->env->sadb->first; sa != NULL;
	     sa = sa->next) {
		count += sa->state == IKE_CLOSING && sa->conn != NULL &&
		         sa->serial < before &&
		         strcmp(sa->conn->name, name) == 0;
		for (const struct child_sa *child = sa->children; child != NULL;
		     child = child->next)
			count += child->serial < before &&
			         strcmp(child->conn->name, name) == 0;
	}
	return count;
}

/* Closes what an IKE SA has of this connection: all of it, if nothing else
 * lives there. */
static size_t
close_below(struct ike_sa *sa, const char *name)
{
	struct env *env = sa->env;
	size_t of_name = 0, closed = 0, serial_count = 0;
	uint64_t *serials;
	struct child_sa *child;

	for (child = sa->children; child != NULL; child = child->next)
		of_name += strcmp(child->conn->name, name) == 0;
	if (of_name == sa->child_count &&
	    (of_name > 0 ||
	        (sa->conn != NULL && strcmp(sa->conn->name, name) == 0))) {
		/* In IKEv1 children outlive their IKE SA; and a peer may think
		 * that one is up of which we do not know it yet. */
		if (sa->state <= IKE_ESTABLISHED ||
		    (sa->state == IKE_REKEYED && of_name > 0))
			sa->engine->close(sa);
		return of_name;
	}
	if (of_name == 0)
		return 0;
	serials = calloc(of_name, sizeof(*serials));
	if (serials == NULL)
		return 0;
	for (child = sa->children; child != NULL; child = child->next)
		if (strcmp(child->conn->name, name) == 0)
			serials[serial_count++] = child->serial;
	for (size_t i = 0; i < serial_count; i++) {
		child = child_by_serial(env->sadb, serials[i]);
		if (child != NULL && child->state != CHILD_CLOSING) {
			sa->engine->child_close(child);
			closed++;
		}
	}
	free(serials);
	return closed;
}

uint64_t *
keep_serials(const struct sadb *db, size_t *count)
{
	uint64_t *serials = calloc(db->count + 1, sizeof(*serials));
	const struct ike_sa *sa;

	*count = 0;
	for (sa = db->first; serials != NULL && sa != NULL; sa = sa->next)
		serials[(*count)++] = sa->serial;
	return serials;
}

static size_t
close_all(struct keeper *keeper, const char *name)
{
	struct sadb *db = keeper->env->sadb;
	size_t count, closed = 0;
	uint64_t *serials = keep_serials(db, &count);

	for (size_t i = 0; i < count; i++) {
		struct ike_sa *sa = sa_by_serial(db, serials[i]);

		if (sa == NULL)
			continue;
		sa_hold(sa);
		closed += close_below(sa, name);
		sa_release(sa);
	}
	free(serials);
	return closed;
}

/* A child whose connection has gone: a copy of the name, or NULL. */
static char *
orphan_name(const struct keeper *keeper)
{
	const struct child_sa *child;
	const struct ike_sa *sa;

	for (sa = keeper->env->sadb->first; sa != NULL; sa = sa->next)
		for (child = sa->children; child != NULL; child = child->next)
			if (child->state <= CHILD_REKEYED &&
			    gone(keeper, child->conn))
				return strdup(child->conn->name);
	return NULL;
}

/* What came up, or was left alone, when its connection had gone already: an
 * exchange was under way during the reload, or another connection's child
 * kept the IKE SA. */
static void
close_orphans(void *arg)
{
	struct keeper *keeper = arg;
	struct sadb *db = keeper->env->sadb;
	char *name = orphan_name(keeper);
	uint64_t *serials;
	size_t count;

	if (name != NULL) {
		close_all(keeper, name);
		timer_set(
		    keeper->env->timers, &keeper->orphan_timer, ORPHAN_MS);
	}
	free(name);
	serials = keep_serials(db, &count);
	for (size_t i = 0; i < count; i++) {
		struct ike_sa *sa = sa_by_serial(db, serials[i]);

		if (sa != NULL && sa->state == IKE_ESTABLISHED &&
		    sa->child_count == 0 && sa->conn != NULL &&
		    gone(keeper, sa->conn))
			sa->engine->close(sa);
	}
	free(serials);
}

enum err
keeper_down(struct keeper *keeper, const char *name, size_t *closed)
{
	const struct policy *policy = keeper->env->policy;
	bool known = policy != NULL && policy_conn(policy, name) != NULL;
	struct keep *keep = keep_find(keeper, name);

	if (keep != NULL) {
		keep->wanted = keep->again = keep->anew = false;
		keep_tell(keep, ERR_CANCELLED, "closed by the administrator");
		keep_rest(keep, KEEP_DOWN);
	}
	*closed = close_all(keeper, name);
	return known || keep != NULL || *closed > 0 ? OK : ERR_NOT_FOUND;
}

const char *
keeper_state(struct keeper *keeper, const char *name)
{
	static const char *const words[] = {
		[KEEP_DOWN] = "down",
		[KEEP_QUEUED] = "queued",
		[KEEP_RESOLVING] = "resolving",
		[KEEP_NEGOTIATING] = "negotiating",
		[KEEP_UP] = "up",
		[KEEP_WAITING] = "waiting",
		[KEEP_GIVEN_UP] = "given up",
	};
	const struct keep *keep = keep_find(keeper, name);

	if (keep == NULL)
		return NULL;
	if (keep->state == KEEP_DOWN && keep->trapped)
		return "routed";
	return words[keep->state];
}

/* Reload ---------------------------------------------------------------- */

struct reload {
	struct keeper *keeper;
	struct keeper_difference *difference;
};

/* What auto says of a connection that is new or has changed. */
static void
take_up(struct keeper *keeper, struct conn *conn)
{
	struct env *env = keeper->env;
	struct keep *keep = keep_find(keeper, conn->name);
	bool wanted;

	if (keep == NULL && conn->autostart != AUTO_START &&
	    conn->autostart != AUTO_ROUTE)
		return;
	if (keep == NULL)
		keep = keep_get(keeper, conn);
	if (keep == NULL) {
		env_log(env, LOG_LEVEL_ERROR, "%s: %s", conn->name,
		    err_text(ERR_NOMEM));
		return;
	}
	keep->wanted = conn->autostart == AUTO_START;
	keep->trap = conn->autostart == AUTO_ROUTE;
	keep->tries = 0;
	if ((keep->wanted || keep->trap) && !attempt_reachable(keep)) {
		env_log(env, LOG_LEVEL_WARNING,
		    "%s (%s): auto=%s needs an address in right=", conn->name,
		    conn->source != NULL ? conn->source : "",
		    keep->wanted ? "start" : "route");
		keep->wanted = keep->trap = keep->anew = false;
		return;
	}
	wanted = keep->wanted || keep->anew;
	if (wanted &&
	    (keep->state == KEEP_DOWN || keep->state == KEEP_WAITING ||
	        keep->state == KEEP_GIVEN_UP)) {
		keep_rest(keep, KEEP_WAITING);
		timer_set(env->timers, &keep->retry, 0);
	} else if (!wanted && (keep->state == KEEP_WAITING ||
	                          keep->state == KEEP_GIVEN_UP)) {
		keep_rest(keep, KEEP_DOWN);
	}
	if (keep->trap)
		keep_act(keep);
}

static void
take_gone(struct keeper *keeper, const struct conn *conn)
{
	struct keep *keep = keep_find(keeper, conn->name);

	if (keep != NULL) {
		keep_untrap(keep);
		keep_tell(keep, ERR_NOT_FOUND,
		    "the connection is no longer in the configuration");
		keep_free(keep);
	}
	close_all(keeper, conn->name);
}

static void
take(enum policy_change change, struct conn *old_conn, struct conn *new_conn,
    void *arg)
{
	struct reload *reload = arg;
	struct keeper *keeper = reload->keeper;
	struct keep *keep;

	switch (change) {
	case CHANGE_SAME:
		reload->difference->same++;
		break;
	case CHANGE_CHANGED:
		reload->difference->changed++;
		keep = keep_find(keeper, new_conn->name);
		if (keep != NULL) {
			keep_untrap(keep);
			map_remove(&keeper->by_reqid, &keep->by_reqid);
			conn_unref(keep->conn);
			keep->conn = conn_ref(new_conn);
			keep->alternative = 0;
			map_insert(&keeper->by_reqid, &keep->by_reqid,
			    map_hash_u64(&keeper->by_reqid, new_conn->reqid));
		}
		take_up(keeper, new_conn);
		break;
	case CHANGE_GONE:
		reload->difference->gone++;
		take_gone(keeper, old_conn);
		break;
	case CHANGE_NEW:
		reload->difference->added++;
		take_up(keeper, new_conn);
		break;
	}
}

void
keeper_policy(struct keeper *keeper, struct policy *next,
    struct keeper_difference *difference)
{
	struct env *env = keeper->env;
	struct policy *old = env->policy;
	struct reload reload = { keeper, difference };

	memset(difference, 0, sizeof(*difference));
	env->policy = policy_ref(next);
	policy_diff(old, next, take, &reload);
	names_policy(keeper->watch, next);
	if (difference->gone > 0)
		timer_set(env->timers, &keeper->orphan_timer, ORPHAN_MS);
	policy_unref(old);
}

/* The end --------------------------------------------------------------- */

static void
closing_look(void *arg)
{
	struct keeper *keeper = arg;
	struct env *env = keeper->env;
	struct sadb *db = env->sadb;

	if (db->count > 0 && env_now(env) < keeper->closing_until) {
		timer_set(env->timers, &keeper->closing_timer, SHUTDOWN_MS);
		return;
	}
	while (db->first != NULL)
		sa_kill(db->first, ERR_CANCELLED, false, "shutting down");
	keeper->closed(keeper->closed_arg);
}

void
keeper_shutdown(struct keeper *keeper, uint64_t limit_ms,
    void (*done)(void *arg), void *arg)
{
	struct env *env = keeper->env;
	struct sadb *db = env->sadb;
	uint64_t *serials;
	size_t count;

	if (keeper->closing)
		return;
	keeper->closing = true;
	keeper->closed = done;
	keeper->closed_arg = arg;
	keeper->closing_until = env_now(env) + limit_ms;
	for (struct keep *keep = keeper->first; keep != NULL;
	     keep = keep->next) {
		keep_untrap(keep);
		keep->wanted = keep->trap = keep->again = keep->anew = false;
		keep_tell(keep, ERR_CANCELLED, "shutting down");
		keep_rest(keep, KEEP_DOWN);
	}
	serials = keep_serials(db, &count);
	for (size_t i = 0; i < count; i++) {
		struct ike_sa *sa = sa_by_serial(db, serials[i]);

		if (sa == NULL)
			continue;
		sa_hold(sa);
		if (sa->state <= IKE_ESTABLISHED)
			sa->engine->close(sa);
		sa_release(sa);
	}
	free(serials);
	timer_init(&keeper->closing_timer, closing_look, keeper);
	timer_set(env->timers, &keeper->closing_timer, 0);
}
