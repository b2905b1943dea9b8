#include "daemon/attempt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/engine.h"
#include "common/net.h"
#include "common/sa.h"
#include "daemon/names.h"
#include "kernel/install.h"

#define RETRY_MIN_MS 2000 /* after the first failure; doubles */
#define RETRY_MAX_MS 300000
#define STEADY_MS    30000 /* up so long: the count of tries starts anew */
#define AGAIN_MS     1000  /* after a loss */
#define AT_ONCE      100   /* attempts under way */
#define REASON_MAX   512

static const struct ts no_packet[2];

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

/* An IKE SA that was made for a child that nobody wants any more. */
static void
close_unused(struct keep *keep)
{
	struct ike_sa *sa = sa_by_serial(keep->keeper->env->sadb, keep->sa);

	if (keep->wanted || keep->anew || keep->sa == 0 || sa == NULL ||
	    !sa->initiator || sa->state != IKE_ESTABLISHED ||
	    sa->child_count > 0 || sa->conn == NULL ||
	    strcmp(sa->conn->name, keep->conn->name) != 0)
		return;
	sa_hold(sa);
	sa->engine->close(sa);
	sa_release(sa);
}

static void
attempt_failed(struct keep *keep, enum err err, const char *text)
{
	struct keeper *keeper = keep->keeper;
	struct env *env = keeper->env;
	char reason[REASON_MAX + 1];
	bool wanted = keep->wanted || keep->anew;
	uint64_t ms;

	snprintf(
	    reason, sizeof(reason), "%s", text != NULL ? text : err_text(err));
	keep->tries++;
	/* A peer that cannot be reached may be at its next address. */
	if (err == ERR_TIMEOUT || err == ERR_IO || err == ERR_NOT_FOUND)
		keep->alternative++;
	close_unused(keep);
	keep_rest(keep, KEEP_DOWN);
	if ((wanted || (keep->trap && !keep->trapped)) && !keeper->closing) {
		if (wanted && keep->conn->keyingtries != 0 &&
		    keep->tries >= keep->conn->keyingtries) {
			keep->wanted = keep->anew = false;
			keep_enter(keep, KEEP_GIVEN_UP);
			env_log(env, LOG_LEVEL_WARNING,
			    "%s: given up after %u tries: %s. \"orthrus up "
			    "%s\" tries again.",
			    keep->conn->name, keep->tries, reason,
			    keep->conn->name);
		} else {
			ms = retry_ms(keep);
			keep_enter(keep, KEEP_WAITING);
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
	keep_enter(keep, KEEP_NEGOTIATING);
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
	keep_enter(keep, KEEP_NEGOTIATING);
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
	struct conn_end *end = &keep->conn->local;

	(void)ttl_s;
	if (err != OK || count == 0) {
		attempt_failed(keep, err != OK ? err : ERR_NOT_FOUND,
		    "our own name cannot be resolved");
		return;
	}
	for (size_t i = 0; i < end->host_count; i++)
		if (end->host[i].kind == HOST_NAME)
			names_learn(&end->host[i], &addrs[0]);
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

/* The hosts that one can go to, in turn; *turns: how often all of them have
 * had their turn. */
static struct conn_host *
remote_host(const struct keep *keep, size_t *turns)
{
	struct conn_end *end = &keep->conn->remote;
	struct conn_host *host[HOSTS_MAX];
	size_t count = 0;

	for (size_t i = 0; i < end->host_count && count < HOSTS_MAX; i++)
		if (end->host[i].kind == HOST_ADDR ||
		    end->host[i].kind == HOST_NAME)
			host[count++] = &end->host[i];
	if (count == 0)
		return NULL;
	*turns = keep->alternative / count;
	return host[keep->alternative % count];
}

static void
remote_named(void *arg, enum err err, const struct addr *addrs, size_t count,
    uint32_t ttl_s)
{
	struct keep *keep = arg;
	struct conn_host *host;
	size_t turns = 0;
	char reason[300];

	(void)ttl_s;
	if (err != OK || count == 0) {
		snprintf(reason, sizeof(reason),
		    "the peer's name cannot be resolved: %s",
		    err_text(err != OK ? err : ERR_NOT_FOUND));
		attempt_failed(keep, err != OK ? err : ERR_NOT_FOUND, reason);
		return;
	}
	host = remote_host(keep, &turns);
	keep->remote = addrs[turns % count];
	if (host != NULL && host->kind == HOST_NAME)
		names_learn(host, &keep->remote);
	resolve_local(keep);
}

bool
attempt_reachable(const struct keep *keep)
{
	size_t turns;

	return remote_host(keep, &turns) != NULL || keep->last.addr.family != 0;
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
	size_t turns = 0;
	const struct conn_host *host = remote_host(keep, &turns);
	enum err err;

	keep_enter(keep, KEEP_RESOLVING);
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

struct child_sa *
attempt_child(struct keep *keep)
{
	struct sadb *db = keep->keeper->env->sadb;
	struct child_sa *child = NULL;
	struct ike_sa *sa;

	if (keep->child != 0)
		child = child_by_serial(db, keep->child);
	if (child != NULL && child->state == CHILD_UP && !child->stale &&
	    !child->sa->stale)
		return child;
	if (keep->sa == 0 || (sa = sa_by_serial(db, keep->sa)) == NULL ||
	    sa->state != IKE_ESTABLISHED || sa->stale)
		sa = sa_for_conn(db, keep->conn);
	if (sa == NULL)
		return NULL;
	for (child = sa->children; child != NULL; child = child->next)
		if (child->state == CHILD_UP && !child->stale &&
		    strcmp(child->conn->name, keep->conn->name) == 0)
			return child;
	return NULL;
}

static void
attempt_came_up(struct keep *keep, const struct child_sa *child)
{
	keep->child = child->serial;
	keep->sa = child->sa->serial;
	if (keep->state != KEEP_UP) {
		if (keep->state == KEEP_QUEUED)
			keep_queue_leave(keep);
		keep_enter(keep, KEEP_UP);
	}
	keep->anew = false;
	keep_forget_failure(keep);
	keep_tell(keep, OK, NULL);
	if (keep->keeper->stale)
		timer_set(
		    keep->keeper->env->timers, &keep->keeper->stale_timer, 0);
}

/* Up if it is not, without asking why. */
void
attempt_begin(struct keep *keep)
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
	child = attempt_child(keep);
	if (child != NULL) {
		attempt_came_up(keep, child);
		return;
	}
	sa = sa_for_conn(keeper->env->sadb, keep->conn);
	if (sa != NULL)
		begin_child(keep, sa);
	else if (must_queue(keep))
		keep_queue_join(keep);
	else
		resolve_remote(keep);
}

void
attempt_queue(void *arg)
{
	struct keeper *keeper = arg;
	struct keep *keep = keeper->queue_first, *next;

	keeper->queue_first = keeper->queue_last = NULL;
	for (; keep != NULL; keep = next) {
		next = keep->queue_next;
		keep->queue_next = NULL;
		keep_enter(keep, KEEP_DOWN);
		attempt_begin(keep); /* joins again if it must */
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
	if ((!keep->wanted && !keep->anew) || keep->keeper->closing)
		return;
	keep_enter(keep, KEEP_WAITING);
	timer_set(env->timers, &keep->retry,
	    again    ? 0
	    : steady ? AGAIN_MS
	             : retry_ms(keep));
	if (!steady)
		keep->tries++;
}

void
attempt_look(void *arg)
{
	struct keep *keep = arg;
	struct sadb *db = keep->keeper->env->sadb;
	struct child_sa *child = attempt_child(keep);
	enum err err = keep->failure;
	char *reason;

	if (child != NULL) {
		attempt_came_up(keep, child);
		return;
	}
	if (keep->state == KEEP_UP) {
		lost(keep);
	} else if (keep->state == KEEP_NEGOTIATING) {
		if (err == OK && sa_by_serial(db, keep->sa) != NULL) {
			timer_set(keep->keeper->env->timers, &keep->retry,
			    KEEP_WATCH_MS);
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
		attempt_begin(keep);
		return;
	}
	/* dpdaction=hold: the trap comes when the SA has gone. */
	if (keep->trap && !keep->trapped && keep->state == KEEP_DOWN &&
	    !keep->keeper->closing && attempt_reachable(keep))
		resolve_remote(keep);
}

void
attempt_retry(void *arg)
{
	struct keep *keep = arg;

	/* An attempt's watch, or the time for the next one. */
	if (keep->state == KEEP_WAITING)
		attempt_begin(keep);
	else
		attempt_look(keep);
}
