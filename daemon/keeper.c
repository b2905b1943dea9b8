/*
 * A struct keep stands for one connection that is, or was, to be kept up or
 * routed. Its state follows from what is true when its act timer fires; the
 * events only make it fire and note why an attempt failed.
 */
#include "daemon/keeper.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/engine.h"
#include "common/net.h"
#include "common/sa.h"
#include "kernel/install.h"

#define RETRY_MIN_MS 2000 /* after the first failure; doubles */
#define RETRY_MAX_MS 300000
#define STEADY_MS    30000 /* up so long: the count of tries starts anew */
#define AGAIN_MS     1000  /* after a loss */
#define WATCH_MS     10000 /* an attempt's SA is looked after so often */
#define ACQUIRE_MS   3000  /* between children that acquires ask for */
#define AT_ONCE      100   /* attempts under way */
#define LOST_AT_ONCE 32    /* children negotiated anew in one go ... */
#define LOST_MS      50    /* ... and the pause after it */
#define SHUTDOWN_MS  20    /* between looks at what is left */
#define REASON_MAX   512

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
	struct map by_name, by_reqid;
	struct keep *first;
	size_t count;
	size_t trying; /* RESOLVING or NEGOTIATING */
	struct keep *queue_first, *queue_last;
	struct timer queue_timer;

	uint64_t *lost; /* serials of children without keys */
	size_t lost_count, lost_at;
	struct timer lost_timer;

	bool closing;
	uint64_t closing_until;
	struct timer closing_timer;
	void (*closed)(void *arg);
	void *closed_arg;
};

static void act(void *arg);
static void begin(struct keep *keep);

static const struct ts no_packet[2];

/* Keeps and their waiters ----------------------------------------------- */

static struct keep *
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

static void
keep_act(struct keep *keep)
{
	timer_set(keep->keeper->env->timers, &keep->act, 0);
}

/* The one place where the state changes. */
static void
keep_state(struct keep *keep, enum keep_state state)
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
		timer_set(keeper->env->timers, &keep->retry, WATCH_MS);
	else if (state != KEEP_WAITING)
		timer_stop(keeper->env->timers, &keep->retry);
}

static void __attribute__((format(printf, 2, 3)))
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
static void
keep_tell(struct keep *keep, enum err err, const char *text)
{
	while (keep->waits != NULL) {
		struct keeper_wait *wait = keep->waits;

		keep->waits = wait->next;
		wait->keep = NULL;
		wait->done(wait, err, text);
	}
}

static void
keep_forget_failure(struct keep *keep)
{
	keep->failure = OK;
	free(keep->reason);
	keep->reason = NULL;
}

static void
keep_note_failure(struct keep *keep, enum err err, const char *text)
{
	if (keep->failure == OK) {
		keep->failure = err != OK ? err : ERR_CANCELLED;
		keep->reason = text != NULL ? strndup(text, REASON_MAX) : NULL;
	}
	keep_act(keep);
}

static void
keep_retry(void *arg)
{
	struct keep *keep = arg;

	/* An attempt's watch, or the time for the next one. */
	if (keep->state == KEEP_WAITING)
		begin(keep);
	else
		act(keep);
}

static struct keep *
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
	timer_init(&keep->act, act, keep);
	timer_init(&keep->retry, keep_retry, keep);
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

static void
queue_leave(struct keep *keep)
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

static void
queue_join(struct keep *keep)
{
	struct keeper *keeper = keep->keeper;

	keep_state(keep, KEEP_QUEUED);
	keep->queue_next = NULL;
	if (keeper->queue_last != NULL)
		keeper->queue_last->queue_next = keep;
	else
		keeper->queue_first = keep;
	keeper->queue_last = keep;
}

static void
keep_untrap(struct keep *keep)
{
	if (keep->trapped)
		install_untrap(keep->keeper->env, keep->conn);
	keep->trapped = false;
}

/* Back to rest, whatever it was doing. */
static void
keep_rest(struct keep *keep, enum keep_state state)
{
	if (keep->state == KEEP_QUEUED)
		queue_leave(keep);
	keep_state(keep, state);
	keep_forget_failure(keep);
	keep->sa = keep->child = 0;
}

static void
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

/* Attempts -------------------------------------------------------------- */

static uint64_t
retry_ms(struct keep *keep)
{
	uint64_t ms = RETRY_MIN_MS;

	for (unsigned i = 1; i < keep->tries && ms < RETRY_MAX_MS; i++)
		ms *= 2;
	if (ms > RETRY_MAX_MS)
		ms = RETRY_MAX_MS;
	/* Up to a quarter more, so that many do not come back together. */
	return ms + env_random_u32(keep->keeper->env) % (ms / 4);
}

static void
attempt_failed(struct keep *keep, enum err err, const char *text)
{
	struct keeper *keeper = keep->keeper;
	struct env *env = keeper->env;
	char reason[REASON_MAX + 1];
	uint64_t ms;

	snprintf(
	    reason, sizeof(reason), "%s", text != NULL ? text : err_text(err));
	keep->tries++;
	/* A peer that cannot be reached may be at its next address. */
	if (err == ERR_TIMEOUT || err == ERR_IO || err == ERR_NOT_FOUND)
		keep->alternative++;
	keep_rest(keep, KEEP_DOWN);
	if ((keep->wanted || (keep->trap && !keep->trapped)) &&
	    !keeper->closing) {
		if (keep->wanted && keep->conn->keyingtries != 0 &&
		    keep->tries >= keep->conn->keyingtries) {
			keep->wanted = false;
			keep_state(keep, KEEP_GIVEN_UP);
			env_log(env, LOG_LEVEL_WARNING,
			    "%s: given up after %u tries: %s. \"orthrus up "
			    "%s\" tries again.",
			    keep->conn->name, keep->tries, reason,
			    keep->conn->name);
		} else {
			ms = retry_ms(keep);
			keep_state(keep, KEEP_WAITING);
			timer_set(env->timers, &keep->retry, ms);
			env_log(env, LOG_LEVEL_INFO, "%s: %s; next try in %u s",
			    keep->conn->name, reason,
			    (unsigned)((ms + 999) / 1000));
		}
	}
	keep_tell(keep, err, reason);
}

static void
begin_child(struct keep *keep, struct ike_sa *sa)
{
	enum err err;

	keep->sa = sa->serial;
	keep_forget_failure(keep);
	keep_state(keep, KEEP_NEGOTIATING);
	keep_progress(keep, "%s: asking for a child SA below IKE SA %llu",
	    keep->conn->name, (unsigned long long)sa->serial);
	sa_hold(sa);
	err = sa->engine->child(sa, keep->conn, no_packet);
	sa_release(sa);
	if (err != OK)
		keep_note_failure(keep, err, NULL);
}

static void
begin_ike(
    struct keep *keep, const struct addr *local, const struct addr *remote)
{
	struct env *env = keep->keeper->env;
	struct conn *conn = keep->conn;
	const struct engine *engine =
	    env->engine[conn->keyexchange == KEYEX_IKEV1 ? 1 : 2];
	struct endpoint from = { *local, net_port(env->net, false) };
	struct endpoint to = { *remote, conn->remote.ike_port };
	char text[ENDPOINT_TEXT];
	struct ike_sa *sa = NULL;
	enum err err;

	keep_forget_failure(keep);
	keep_state(keep, KEEP_NEGOTIATING);
	if (engine == NULL) {
		keep_note_failure(keep, ERR_UNSUPPORTED, NULL);
		return;
	}
	keep_progress(keep, "%s: initiating %s to %s", conn->name, engine->name,
	    endpoint_text(&to, text));
	env_log(env, LOG_LEVEL_INFO, "%s: initiating %s to %s", conn->name,
	    engine->name, endpoint_text(&to, text));
	err = engine->initiate(env, conn, &from, &to, &sa);
	if (err != OK)
		keep_note_failure(keep, err, NULL);
	else if (sa != NULL)
		keep->sa = sa->serial;
}

/* The address that we send from. False: none of that family, no route, or a
 * name, which *name then is. */
static bool
local_addr(struct keep *keep, const struct addr *remote, struct addr *local,
    const char **name)
{
	const struct conn_end *end = &keep->conn->local;
	struct net *net = keep->keeper->env->net;

	*name = NULL;
	for (size_t i = 0; i < end->host_count; i++) {
		const struct conn_host *host = &end->host[i];

		if (host->kind == HOST_ADDR &&
		    host->addr.family == remote->family) {
			*local = host->addr;
			return true;
		}
		if (host->kind == HOST_NAME && *name == NULL)
			*name = host->name;
	}
	if (*name != NULL)
		return false;
	for (size_t i = 0; i < end->host_count; i++)
		if (end->host[i].kind == HOST_ANY ||
		    end->host[i].kind == HOST_DEFAULTROUTE)
			return net->ops->source(net, remote, local);
	return end->host_count == 0 && net->ops->source(net, remote, local);
}

/* Both addresses are known: routes, or initiates. */
static void
resolved(struct keep *keep, const struct addr *local)
{
	struct env *env = keep->keeper->env;
	char text[ADDR_TEXT];
	enum err err;

	if (keep->trap && !keep->trapped) {
		err = install_trap(env, keep->conn, local, &keep->remote);
		keep->trapped = err == OK;
		env_log(env, err == OK ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING,
		    err == OK ? "%s: routed: traffic to %s will start it%s"
		              : "%s: cannot be routed to %s: %s",
		    keep->conn->name, addr_text(&keep->remote, text),
		    err == OK ? "" : err_text(err));
		if (!keep->wanted && keep->waits == NULL) {
			keep_rest(keep, KEEP_DOWN);
			return;
		}
	}
	begin_ike(keep, local, &keep->remote);
}

static void
local_named(void *arg, enum err err, const struct addr *addrs, size_t count,
    uint32_t ttl_s)
{
	struct keep *keep = arg;

	(void)ttl_s;
	if (err != OK || count == 0) {
		attempt_failed(keep, err != OK ? err : ERR_NOT_FOUND,
		    "our own name cannot be resolved");
		return;
	}
	resolved(keep, &addrs[0]);
}

static void
resolve_local(struct keep *keep)
{
	struct keeper *keeper = keep->keeper;
	char text[ADDR_TEXT], reason[128];
	const char *name;
	struct addr local;
	enum err err;

	if (local_addr(keep, &keep->remote, &local, &name)) {
		resolved(keep, &local);
		return;
	}
	if (name == NULL || keeper->names.resolve == NULL) {
		snprintf(reason, sizeof(reason),
		    "no address of ours to reach %s from",
		    addr_text(&keep->remote, text));
		attempt_failed(keep, ERR_IO, reason);
		return;
	}
	err = keeper->names.resolve(
	    keeper->names.names, name, keep->remote.family, local_named, keep);
	if (err != OK)
		attempt_failed(keep, err, NULL);
}

static void
remote_named(void *arg, enum err err, const struct addr *addrs, size_t count,
    uint32_t ttl_s)
{
	struct keep *keep = arg;
	char reason[300];

	(void)ttl_s;
	if (err != OK || count == 0) {
		snprintf(reason, sizeof(reason),
		    "the peer's name cannot be resolved: %s",
		    err_text(err != OK ? err : ERR_NOT_FOUND));
		attempt_failed(keep, err != OK ? err : ERR_NOT_FOUND, reason);
		return;
	}
	keep->remote = addrs[keep->alternative % count];
	resolve_local(keep);
}

/* The hosts that one can go to, in turn. */
static const struct conn_host *
remote_host(const struct keep *keep)
{
	const struct conn_end *end = &keep->conn->remote;
	const struct conn_host *host[HOSTS_MAX];
	size_t count = 0;

	for (size_t i = 0; i < end->host_count && count < HOSTS_MAX; i++)
		if (end->host[i].kind == HOST_ADDR ||
		    end->host[i].kind == HOST_NAME)
			host[count++] = &end->host[i];
	return count == 0 ? NULL : host[keep->alternative % count];
}

static bool
reachable(const struct keep *keep)
{
	return remote_host(keep) != NULL || keep->last.addr.family != 0;
}

/* Names answer families that one of our addresses has. */
static uint8_t
name_family(const struct conn_end *local)
{
	uint8_t family = 0;

	for (size_t i = 0; i < local->host_count; i++) {
		uint8_t of = local->host[i].addr.family;

		if (local->host[i].kind == HOST_NAME ||
		    local->host[i].kind == HOST_DEFAULTROUTE || of == 0 ||
		    (family != 0 && family != of))
			return 0;
		family = of;
	}
	return family;
}

static void
resolve_remote(struct keep *keep)
{
	struct keeper *keeper = keep->keeper;
	const struct conn_host *host = remote_host(keep);
	enum err err;

	keep_state(keep, KEEP_RESOLVING);
	if (host == NULL && keep->last.addr.family != 0) {
		keep->remote = keep->last.addr;
		resolve_local(keep);
	} else if (host == NULL) {
		attempt_failed(keep, ERR_REFUSED,
		    "the peer has no address to go to (right=%any)");
	} else if (host->kind == HOST_ADDR) {
		keep->remote = host->addr;
		resolve_local(keep);
	} else if (keeper->names.resolve == NULL) {
		attempt_failed(keep, ERR_UNSUPPORTED,
		    "host names cannot be resolved here");
	} else {
		keep_progress(
		    keep, "%s: looking up %s", keep->conn->name, host->name);
		err = keeper->names.resolve(keeper->names.names, host->name,
		    name_family(&keep->conn->local), remote_named, keep);
		if (err != OK)
			attempt_failed(keep, err, NULL);
	}
}

/* It wants its trap, not to be up. */
static bool
only_trap(const struct keep *keep)
{
	return keep->trap && !keep->trapped && !keep->wanted &&
	       keep->waits == NULL;
}

/* Is an IKE SA for the same peer under way, below which this child belongs? */
static bool
must_queue(const struct keep *keep)
{
	const struct keeper *keeper = keep->keeper;
	const struct keep *other;

	if (keeper->trying >= AT_ONCE)
		return true;
	for (other = keeper->first; other != NULL; other = other->next)
		if (other != keep &&
		    (other->state == KEEP_NEGOTIATING ||
		        (other->state == KEEP_RESOLVING &&
		            !only_trap(other))) &&
		    conn_same_peer(other->conn, keep->conn))
			return true;
	return false;
}

static struct child_sa *
child_up_of(struct keep *keep)
{
	struct sadb *db = keep->keeper->env->sadb;
	struct child_sa *child = NULL;
	struct ike_sa *sa;

	if (keep->child != 0)
		child = child_by_serial(db, keep->child);
	if (child != NULL && child->state == CHILD_UP)
		return child;
	if (keep->sa == 0 || (sa = sa_by_serial(db, keep->sa)) == NULL ||
	    sa->state != IKE_ESTABLISHED)
		sa = sa_for_conn(db, keep->conn);
	if (sa == NULL)
		return NULL;
	for (child = sa->children; child != NULL; child = child->next)
		if (child->state == CHILD_UP &&
		    strcmp(child->conn->name, keep->conn->name) == 0)
			return child;
	return NULL;
}

static void
came_up(struct keep *keep, const struct child_sa *child)
{
	keep->child = child->serial;
	keep->sa = child->sa->serial;
	if (keep->state != KEEP_UP) {
		if (keep->state == KEEP_QUEUED)
			queue_leave(keep);
		keep_state(keep, KEEP_UP);
	}
	keep_forget_failure(keep);
	keep_tell(keep, OK, NULL);
}

/* Up if it is not, without asking why. */
static void
begin(struct keep *keep)
{
	struct keeper *keeper = keep->keeper;
	struct child_sa *child;
	struct ike_sa *sa;

	if (keeper->closing || keep->state == KEEP_QUEUED ||
	    keep->state == KEEP_RESOLVING || keep->state == KEEP_NEGOTIATING)
		return;
	if (only_trap(keep)) {
		resolve_remote(keep);
		return;
	}
	child = child_up_of(keep);
	if (child != NULL) {
		came_up(keep, child);
		return;
	}
	sa = sa_for_conn(keeper->env->sadb, keep->conn);
	if (sa != NULL)
		begin_child(keep, sa);
	else if (must_queue(keep))
		queue_join(keep);
	else
		resolve_remote(keep);
}

static void
queue_run(void *arg)
{
	struct keeper *keeper = arg;
	struct keep *keep = keeper->queue_first, *next;

	keeper->queue_first = keeper->queue_last = NULL;
	for (; keep != NULL; keep = next) {
		next = keep->queue_next;
		keep->queue_next = NULL;
		keep_state(keep, KEEP_DOWN);
		begin(keep); /* joins again if it must */
	}
}

/* What is true now ------------------------------------------------------ */

static void
lost(struct keep *keep)
{
	struct env *env = keep->keeper->env;
	bool steady = env_now(env) - keep->up_ms >= STEADY_MS;
	bool again = keep->again;

	keep->again = false;
	keep_rest(keep, KEEP_DOWN);
	if (steady)
		keep->tries = 0;
	if (!keep->wanted || keep->keeper->closing)
		return;
	keep_state(keep, KEEP_WAITING);
	timer_set(env->timers, &keep->retry,
	    again    ? 0
	    : steady ? AGAIN_MS
	             : retry_ms(keep));
	if (!steady)
		keep->tries++;
}

static void
act(void *arg)
{
	struct keep *keep = arg;
	struct sadb *db = keep->keeper->env->sadb;
	struct child_sa *child = child_up_of(keep);
	enum err err = keep->failure;
	char *reason;

	if (child != NULL) {
		came_up(keep, child);
		return;
	}
	if (keep->state == KEEP_UP) {
		lost(keep);
	} else if (keep->state == KEEP_NEGOTIATING) {
		if (err == OK && sa_by_serial(db, keep->sa) != NULL) {
			timer_set(
			    keep->keeper->env->timers, &keep->retry, WATCH_MS);
			return;
		}
		reason = keep->reason;
		keep->reason = NULL;
		attempt_failed(keep, err != OK ? err : ERR_CANCELLED, reason);
		free(reason);
	} else if (keep->again && keep->state != KEEP_RESOLVING &&
	           keep->state != KEEP_QUEUED) {
		keep->again = false;
		keep_rest(keep, KEEP_DOWN);
		begin(keep);
		return;
	}
	/* dpdaction=hold: the trap comes when the SA has gone. */
	if (keep->trap && !keep->trapped && keep->state == KEEP_DOWN &&
	    !keep->keeper->closing && reachable(keep))
		resolve_remote(keep);
}

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
				keep->wanted = false;
				keep->trap = true;
			}
		} else if (conn->dpd_action == DPD_CLEAR && keep != NULL) {
			keep->wanted = false;
		}
		if (keep != NULL)
			keep_act(keep);
	}
}

void
keeper_event(struct keeper *keeper, const struct event *event)
{
	struct keep *keep;

	if (event->kind == EVENT_PEER_DEAD && event->sa != NULL)
		peer_dead(keeper, event->sa);
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
	case EVENT_PEER_DEAD:
		break;
	}
}

/* What the administrator asks ------------------------------------------- */

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
	timer_init(&keeper->queue_timer, queue_run, keeper);
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
	memset(&keeper->names, 0, sizeof(keeper->names));
	if (names != NULL)
		keeper->names = *names;
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
	timer_stop(env->timers, &keeper->queue_timer);
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
	if (child_up_of(keep) != NULL)
		return ERR_EXISTS;
	if (!reachable(keep) &&
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
		keep_state(keep, KEEP_WAITING);
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
keeper_remaining(struct keeper *keeper, const char *name)
{
	size_t count = 0;

	for (const struct ike_sa *sa = keeper->env->sadb->first; sa != NULL;
	     sa = sa->next) {
		count += sa->state == IKE_CLOSING && sa->conn != NULL &&
		         strcmp(sa->conn->name, name) == 0;
		for (const struct child_sa *child = sa->children; child != NULL;
		     child = child->next)
			count += strcmp(child->conn->name, name) == 0;
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
		if (sa->state == IKE_ESTABLISHED)
			sa->engine->close(sa);
		else if (sa->state < IKE_ESTABLISHED)
			sa_kill(sa, ERR_CANCELLED, false,
			    "closed by the administrator");
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

static size_t
close_all(struct keeper *keeper, const char *name)
{
	struct sadb *db = keeper->env->sadb;
	uint64_t *serials = calloc(db->count + 1, sizeof(*serials));
	size_t count = 0, closed = 0;

	if (serials == NULL)
		return 0;
	for (const struct ike_sa *sa = db->first; sa != NULL; sa = sa->next)
		serials[count++] = sa->serial;
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

enum err
keeper_down(struct keeper *keeper, const char *name, size_t *closed)
{
	const struct policy *policy = keeper->env->policy;
	bool known = policy != NULL && policy_conn(policy, name) != NULL;
	struct keep *keep = keep_find(keeper, name);

	if (keep != NULL) {
		keep->wanted = keep->again = false;
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
	if ((keep->wanted || keep->trap) && !reachable(keep)) {
		env_log(env, LOG_LEVEL_WARNING,
		    "%s (%s): auto=%s needs an address in right=", conn->name,
		    conn->source != NULL ? conn->source : "",
		    keep->wanted ? "start" : "route");
		keep->wanted = keep->trap = false;
		return;
	}
	if (keep->wanted &&
	    (keep->state == KEEP_DOWN || keep->state == KEEP_WAITING ||
	        keep->state == KEEP_GIVEN_UP)) {
		keep_rest(keep, KEEP_WAITING);
		timer_set(env->timers, &keep->retry, 0);
	} else if (!keep->wanted && (keep->state == KEEP_WAITING ||
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
	policy_unref(old);
}

/* What the data plane reports ------------------------------------------- */

static struct keep *
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
		begin(keep);
		return;
	}
	sa_hold(sa);
	if (sa->engine->child(sa, keep->conn, packet) == OK &&
	    keep->state != KEEP_UP) {
		keep_forget_failure(keep);
		keep->sa = sa->serial;
		keep_state(keep, KEEP_NEGOTIATING);
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
	timer_init(&keeper->lost_timer, lost_run, keeper);
	timer_set(env->timers, &keeper->lost_timer, 0);
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
	size_t count = 0;

	if (keeper->closing)
		return;
	keeper->closing = true;
	keeper->closed = done;
	keeper->closed_arg = arg;
	keeper->closing_until = env_now(env) + limit_ms;
	for (struct keep *keep = keeper->first; keep != NULL;
	     keep = keep->next) {
		keep_untrap(keep);
		keep->wanted = keep->trap = keep->again = false;
		keep_tell(keep, ERR_CANCELLED, "shutting down");
		keep_rest(keep, KEEP_DOWN);
	}
	serials = calloc(db->count + 1, sizeof(*serials));
	for (const struct ike_sa *sa = db->first; serials != NULL && sa != NULL;
	     sa = sa->next)
		serials[count++] = sa->serial;
	for (size_t i = 0; i < count; i++) {
		struct ike_sa *sa = sa_by_serial(db, serials[i]);

		if (sa == NULL)
			continue;
		sa_hold(sa);
		if (sa->state == IKE_ESTABLISHED)
			sa->engine->close(sa);
		else if (sa->state < IKE_ESTABLISHED)
			sa_kill(sa, ERR_CANCELLED, false, "shutting down");
		sa_release(sa);
	}
	free(serials);
	timer_init(&keeper->closing_timer, closing_look, keeper);
	timer_set(env->timers, &keeper->closing_timer, 0);
}
