#include "daemon/keep.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "daemon/attempt.h"
#include "kernel/install.h"

#define REASON_MAX 512

/* Keeps and their waiters ----------------------------------------------- */

struct keep *
keep_find(struct keeper *keeper, const char *name)
{
	uint64_t hash = map_hash(&keeper->by_name, view_text(name));
	struct map_node *node;

	for (node = map_find(&keeper->by_name, hash); node != NULL;
	     node = map_next_same(node)) {
		struct keep *keep = map_entry(node, struct keep, by_name);

		if (strcmp(keep->conn->name, name) == 0)
			return keep;
	}
	return NULL;
}

void
keep_act(struct keep *keep)
{
	timer_set(keep->keeper->env->timers, &keep->act, 0);
}

void
keep_enter(struct keep *keep, enum keep_state state)
{
	struct keeper *keeper = keep->keeper;
	bool was =
	    keep->state == KEEP_RESOLVING || keep->state == KEEP_NEGOTIATING;
	bool is = state == KEEP_RESOLVING || state == KEEP_NEGOTIATING;

	if (was && !is) {
		keeper->trying--;
		if (keeper->queue_first != NULL)
			timer_set(keeper->env->timers, &keeper->queue_timer, 0);
	} else if (!was && is) {
		keeper->trying++;
	}
	if (keep->state == KEEP_RESOLVING && state != KEEP_RESOLVING &&
	    keeper->names.cancel != NULL)
		keeper->names.cancel(keeper->names.names, keep);
	keep->state = (uint8_t)state;
	if (state == KEEP_UP)
		keep->up_ms = env_now(keeper->env);
	if (state == KEEP_NEGOTIATING)
		timer_set(keeper->env->timers, &keep->retry, KEEP_WATCH_MS);
	else if (state != KEEP_WAITING)
		timer_stop(keeper->env->timers, &keep->retry);
}

void __attribute__((format(printf, 2, 3)))
keep_progress(struct keep *keep, const char *format, ...)
{
	char line[LOG_LINE];
	va_list args;

	if (keep->waits == NULL)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	for (struct keeper_wait *w = keep->waits, *next; w != NULL; w = next) {
		next = w->next;
		if (w->progress != NULL)
			w->progress(w, line);
	}
}

/* Tells everybody who waits. A waiter may free itself. */
void
keep_tell(struct keep *keep, enum err err, const char *text)
{
	while (keep->waits != NULL) {
		struct keeper_wait *wait = keep->waits;

		keep->waits = wait->next;
		wait->keep = NULL;
		wait->done(wait, err, text);
	}
}

void
keep_forget_failure(struct keep *keep)
{
	keep->failure = OK;
	free(keep->reason);
	keep->reason = NULL;
}

void
keep_note_failure(struct keep *keep, enum err err, const char *text)
{
	if (keep->failure == OK) {
		keep->failure = err != OK ? err : ERR_CANCELLED;
		keep->reason = text != NULL ? strndup(text, REASON_MAX) : NULL;
	}
	keep_act(keep);
}

struct keep *
keep_get(struct keeper *keeper, const struct conn *conn)
{
	struct keep *keep = keep_find(keeper, conn->name);

	if (keep != NULL)
		return keep;
	keep = calloc(1, sizeof(*keep));
	if (keep == NULL)
		return NULL;
	keep->keeper = keeper;
	keep->conn = conn_ref(conn);
	timer_init(&keep->act, attempt_look, keep);
	timer_init(&keep->retry, attempt_retry, keep);
	map_insert(&keeper->by_name, &keep->by_name,
	    map_hash(&keeper->by_name, view_text(conn->name)));
	map_insert(&keeper->by_reqid, &keep->by_reqid,
	    map_hash_u64(&keeper->by_reqid, conn->reqid));
	keep->next = keeper->first;
	if (keep->next != NULL)
		keep->next->prev = keep;
	keeper->first = keep;
	keeper->count++;
	return keep;
}

void
keep_queue_leave(struct keep *keep)
{
	struct keeper *keeper = keep->keeper;
	struct keep **at = &keeper->queue_first, *last = NULL;

	while (*at != NULL && *at != keep) {
		last = *at;
		at = &(*at)->queue_next;
	}
	if (*at == NULL)
		return;
	*at = keep->queue_next;
	if (keeper->queue_last == keep)
		keeper->queue_last = last;
	keep->queue_next = NULL;
}

void
keep_queue_join(struct keep *keep)
{
	struct keeper *keeper = keep->keeper;

	keep_enter(keep, KEEP_QUEUED);
	keep->queue_next = NULL;
	if (keeper->queue_last != NULL)
		keeper->queue_last->queue_next = keep;
	else
		keeper->queue_first = keep;
	keeper->queue_last = keep;
}

void
keep_untrap(struct keep *keep)
{
	if (keep->trapped)
		install_untrap(keep->keeper->env, keep->conn);
	keep->trapped = false;
}

/* Back to rest, whatever it was doing. */
void
keep_rest(struct keep *keep, enum keep_state state)
{
	if (keep->state == KEEP_QUEUED)
		keep_queue_leave(keep);
	keep_enter(keep, state);
	keep_forget_failure(keep);
	keep->sa = keep->child = 0;
}

void
keep_free(struct keep *keep)
{
	struct keeper *keeper = keep->keeper;

	keep_tell(keep, ERR_CANCELLED, NULL);
	keep_rest(keep, KEEP_DOWN);
	timer_stop(keeper->env->timers, &keep->act);
	timer_stop(keeper->env->timers, &keep->retry);
	map_remove(&keeper->by_name, &keep->by_name);
	map_remove(&keeper->by_reqid, &keep->by_reqid);
	if (keep->prev != NULL)
		keep->prev->next = keep->next;
	else
		keeper->first = keep->next;
	if (keep->next != NULL)
		keep->next->prev = keep->prev;
	keeper->count--;
	conn_unref(keep->conn);
	free(keep);
}

struct keep *
keep_by_reqid(struct keeper *keeper, uint32_t reqid)
{
	struct map_node *node;

	for (node = map_find(
	         &keeper->by_reqid, map_hash_u64(&keeper->by_reqid, reqid));
	     node != NULL; node = map_next_same(node)) {
		struct keep *keep = map_entry(node, struct keep, by_reqid);

		if (keep->conn->reqid == reqid)
			return keep;
	}
	return NULL;
}
