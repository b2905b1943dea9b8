/*
 * What the data plane reports to the keeper.
 */
#include <stdlib.h>

#include "common/engine.h"
#include "common/sa.h"
#include "daemon/attempt.h"
#include "daemon/keep.h"

#define ACQUIRE_MS   3000 /* between children that acquires ask for */
#define LOST_AT_ONCE 32   /* children negotiated anew in one go ... */
#define LOST_MS      50   /* ... and the pause after it */

static const struct ts no_packet[2];

void
keeper_acquire(struct env *env, uint32_t reqid, const struct ts packet[2])
{
	struct keeper *keeper = env->keeper;
	struct keep *keep =
	    keeper != NULL ? keep_by_reqid(keeper, reqid) : NULL;
	struct ike_sa *sa;
	char from[TS_TEXT], to[TS_TEXT];
	uint64_t now = env_now(env);

	if (keep == NULL || keeper->closing)
		return;
	if (keep->acquired_ms != 0 && now - keep->acquired_ms < ACQUIRE_MS)
		return;
	if (keep->state != KEEP_DOWN && keep->state != KEEP_UP &&
	    keep->state != KEEP_GIVEN_UP)
		return;
	keep->acquired_ms = now;
	env_log(env, LOG_LEVEL_INFO, "%s: traffic from %s to %s asks for it",
	    keep->conn->name, ts_text(&packet[0], from),
	    ts_text(&packet[1], to));
	sa = sa_for_conn(env->sadb, keep->conn);
	if (sa == NULL) {
		if (keep->state == KEEP_UP)
			keep_rest(keep, KEEP_DOWN);
		attempt_begin(keep);
		return;
	}
	sa_hold(sa);
	if (sa->engine->child(sa, keep->conn, packet) == OK &&
	    keep->state != KEEP_UP) {
		keep_forget_failure(keep);
		keep->sa = sa->serial;
		keep_enter(keep, KEEP_NEGOTIATING);
	}
	sa_release(sa);
}

void
keeper_expire(struct env *env, uint32_t spi_in, bool hard)
{
	struct child_sa *child = child_by_spi_in(env->sadb, spi_in);
	struct ike_sa *sa;

	if (child == NULL || child->state != CHILD_UP)
		return;
	sa = child->sa;
	sa_hold(sa);
	if (hard)
		sa->engine->child_close(child);
	else if (child->conn->rekey)
		sa->engine->child_rekey(child);
	sa_release(sa);
}

void
keeper_mapping(struct env *env, uint32_t spi_in, const struct endpoint *remote)
{
	struct child_sa *child = child_by_spi_in(env->sadb, spi_in);
	struct ike_sa *sa;

	if (child == NULL)
		return;
	sa = child->sa;
	sa_hold(sa);
	sa->engine->mapping(sa, remote);
	sa_release(sa);
}

/* RFC 4106 3.1, RFC 7296 2.8: a key whose counter was lost is never used
 * again. The child is negotiated anew before the old one is closed. */
static void
renew(struct keeper *keeper, struct child_sa *child)
{
	struct ike_sa *sa = child->sa;
	uint64_t serial = child->serial;
	struct keep *keep = keep_find(keeper, child->conn->name);
	enum err err;

	if (sa->state != IKE_ESTABLISHED ||
	    (child->state != CHILD_UP && child->state != CHILD_INBOUND))
		return;
	sa_hold(sa);
	err = sa->engine->child(sa, child->conn, no_packet);
	if (err == OK && keep != NULL && keep->child == serial) {
		keep_rest(keep, KEEP_NEGOTIATING);
		keep->sa = sa->serial;
	}
	if (err != OK)
		sa_log(sa, LOG_LEVEL_WARNING,
		    "child %llu cannot be negotiated anew: %s",
		    (unsigned long long)serial, err_text(err));
	child = child_by_serial(keeper->env->sadb, serial);
	if (child != NULL)
		sa->engine->child_close(child);
	sa_release(sa);
}

static void
lost_run(void *arg)
{
	struct keeper *keeper = arg;
	struct sadb *db = keeper->env->sadb;

	for (unsigned i = 0;
	     i < LOST_AT_ONCE && keeper->lost_at < keeper->lost_count; i++) {
		struct child_sa *child =
		    child_by_serial(db, keeper->lost[keeper->lost_at++]);

		if (child != NULL)
			renew(keeper, child);
	}
	if (keeper->lost_at < keeper->lost_count)
		timer_set(keeper->env->timers, &keeper->lost_timer, LOST_MS);
}

void
keeper_lost(struct env *env)
{
	struct keeper *keeper = env->keeper;
	size_t count = 0;
	uint64_t *serials;

	if (keeper == NULL || keeper->closing)
		return;
	/* The traps are gone, too. */
	for (struct keep *keep = keeper->first; keep != NULL;
	     keep = keep->next) {
		keep->trapped = false;
		if (keep->trap)
			keep_act(keep);
	}
	serials = calloc(env->sadb->child_count + 1, sizeof(*serials));
	if (serials == NULL) {
		env_log(env, LOG_LEVEL_ERROR,
		    "children without keys cannot be renewed: %s",
		    err_text(ERR_NOMEM));
		return;
	}
	for (const struct ike_sa *sa = env->sadb->first; sa != NULL;
	     sa = sa->next)
		for (const struct child_sa *child = sa->children;
		     child != NULL && count < env->sadb->child_count;
		     child = child->next)
			serials[count++] = child->serial;
	free(keeper->lost);
	keeper->lost = serials;
	keeper->lost_count = count;
	keeper->lost_at = 0;
	env_log(env, LOG_LEVEL_WARNING,
	    "the data plane lost its keys: %zu child SAs are negotiated anew",
	    count);
	/* The loss before may not be made good yet. */
	timer_stop(env->timers, &keeper->lost_timer);
	timer_init(&keeper->lost_timer, lost_run, keeper);
	timer_set(env->timers, &keeper->lost_timer, 0);
}
