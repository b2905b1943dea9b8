#include "daemon/names.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/keep.h"

#define AT_ONCE  16      /* questions under way */
#define PAUSE_MS 100     /* when there are so many */
#define SOON_MS  60000   /* after a failure; the shortest time to live */
#define LATE_MS  3600000 /* the longest */

struct name {
	struct names *names;
	struct conn *conn; /* owned reference */
	struct conn_host *host;
	struct timer timer;
	bool asked;
};

struct names {
	struct keeper *keeper;
	struct name *name;
	size_t count, asked;
};

void
names_learn(struct conn_host *host, const struct addr *addr)
{
	host->addr = *addr;
}

static void
named(void *arg, enum err err, const struct addr *addrs, size_t count,
    uint32_t ttl_s)
{
	struct name *name = arg;
	struct env *env = name->names->keeper->env;
	uint64_t ms = SOON_MS;
	bool known = false;

	name->asked = false;
	name->names->asked--;
	if (err == OK && count > 0) {
		/* Where several are right, the one in use stays. */
		for (size_t i = 0; i < count; i++)
			known |= addr_equal(&addrs[i], &name->host->addr);
		if (!known)
			names_learn(name->host, &addrs[0]);
		ms = (uint64_t)ttl_s * 1000;
		if (ms < SOON_MS)
			ms = SOON_MS;
		if (ms > LATE_MS)
			ms = LATE_MS;
	}
	timer_set(env->timers, &name->timer, ms);
}

static void
name_due(void *arg)
{
	struct name *name = arg;
	struct names *names = name->names;
	struct keeper *keeper = names->keeper;
	const struct keep *keep = keep_find(keeper, name->conn->name);

	if (names->asked >= AT_ONCE) {
		timer_set(keeper->env->timers, &name->timer, PAUSE_MS);
		return;
	}
	/* An attempt that is under way has asked itself. */
	if (keeper->names.resolve == NULL ||
	    (keep != NULL && (keep->state == KEEP_RESOLVING ||
	                         keep->state == KEEP_NEGOTIATING)) ||
	    keeper->names.resolve(
	        keeper->names.names, name->host->name, 0, named, name) != OK) {
		timer_set(keeper->env->timers, &name->timer, SOON_MS);
		return;
	}
	name->asked = true;
	names->asked++;
}

struct names *
names_new(struct keeper *keeper)
{
	struct names *names = calloc(1, sizeof(*names));

	if (names != NULL)
		names->keeper = keeper;
	return names;
}

static void
forget(struct names *names)
{
	struct keeper *keeper = names->keeper;

	for (size_t i = 0; i < names->count; i++) {
		struct name *name = &names->name[i];

		if (name->asked && keeper->names.cancel != NULL)
			keeper->names.cancel(keeper->names.names, name);
		timer_stop(keeper->env->timers, &name->timer);
		conn_unref(name->conn);
	}
	free(names->name);
	names->name = NULL;
	names->count = names->asked = 0;
}

void
names_free(struct names *names)
{
	if (names == NULL)
		return;
	forget(names);
	free(names);
}

static size_t
count_names(const struct policy *policy)
{
	size_t count = 0;

	for (size_t i = 0; policy != NULL && i < policy->count; i++) {
		const struct conn *conn = policy->conns[i];

		for (size_t n = 0; n < HOSTS_MAX; n++) {
			count += n < conn->local.host_count &&
			         conn->local.host[n].kind == HOST_NAME;
			count += n < conn->remote.host_count &&
			         conn->remote.host[n].kind == HOST_NAME;
		}
	}
	return count;
}

static void
add_end(struct names *names, struct conn *conn, struct conn_end *end)
{
	bool started =
	    conn->autostart == AUTO_START || conn->autostart == AUTO_ROUTE;

	for (size_t i = 0; i < end->host_count; i++) {
		struct conn_host *host = &end->host[i];
		struct name *name;

		if (host->kind != HOST_NAME)
			continue;
		name = &names->name[names->count++];
		name->names = names;
		name->conn = conn_ref(conn);
		name->host = host;
		timer_init(&name->timer, name_due, name);
		timer_set(names->keeper->env->timers, &name->timer,
		    started ? SOON_MS : 0);
	}
}

void
names_policy(struct names *names, const struct policy *policy)
{
	size_t count = count_names(policy);

	forget(names);
	if (count == 0)
		return;
	names->name = calloc(count, sizeof(*names->name));
	if (names->name == NULL) {
		env_log(names->keeper->env, LOG_LEVEL_ERROR,
		    "host names are not looked up: %s", err_text(ERR_NOMEM));
		return;
	}
	for (size_t i = 0; i < policy->count; i++) {
		add_end(names, policy->conns[i], &policy->conns[i]->local);
		add_end(names, policy->conns[i], &policy->conns[i]->remote);
	}
}
