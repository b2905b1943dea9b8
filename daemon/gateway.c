#include "daemon/gateway.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/dns.h"
#include "common/engine.h"
#include "common/limit.h"
#include "common/policy.h"
#include "common/proposal.h"
#include "common/sa.h"
#include "common/selftest.h"
#include "common/vault.h"
#include "common/worker.h"
#include "ikev1/v1.h"
#include "ikev2/v2.h"
#include "kernel/install.h"
#include "kernel/kernel.h"

static void
selftest_failed(const struct alg *alg, void *arg)
{
	log_write(arg, LOG_LEVEL_ERROR,
	    "self-test of %s failed: it is not offered", alg->name);
}

static void
tell(struct env *env, const struct event *event)
{
	struct gateway *gateway = env->event_arg;

	if (gateway->keeper != NULL)
		keeper_event(gateway->keeper, event);
	if (gateway->control != NULL)
		control_event(gateway->control, event);
}

static void
stray(struct env *env, const struct packet *packet)
{
	struct gateway *gateway = env->event_arg;

	if (gateway->stray != NULL)
		gateway->stray(env, packet);
}

static void
set_clock(struct env *env)
{
	struct timespec now;

	if (clock_gettime(CLOCK_REALTIME, &now) == 0)
		env->wall_s = (uint64_t)now.tv_sec - env_now(env) / 1000;
}

enum err
gateway_new(struct gateway **made, struct loop *loop, struct log *log,
    const struct gateway_config *config)
{
	struct gateway *gateway = calloc(1, sizeof(*gateway));
	const char *missing = "memory";
	struct env *env;

	if (gateway == NULL)
		return ERR_NOMEM;
	env = &gateway->env;
	gateway->loop = loop;
	env->timers = loop_timers(loop);
	env->random = env_random_openssl;
	env->event = tell;
	env->event_arg = gateway;
	env->child_gone = install_remove;
	env->log = log;
	env->engine[1] = &v1_engine;
	env->engine[2] = &v2_engine;
	set_clock(env);
	selftest_run(&env->usable, selftest_failed, log);
	env->net = net_new(env, loop, &config->sockets, engine_dispatch, stray);
	if (env->net == NULL)
		goto fail;
	missing = "the database of SAs";
	if (sadb_new(env) != OK)
		goto fail;
	missing = "the budgets";
	env->limit = limit_new(env, &limit_defaults);
	if (env->limit == NULL)
		goto fail;
	missing = "worker threads";
	env->workers = workers_new(env, loop, config->threads);
	if (env->workers == NULL)
		goto fail;
	missing = "memory";
	gateway->keeper = keeper_new(env, NULL);
	if (gateway->keeper == NULL)
		goto fail;
	*made = gateway;
	return OK;
fail:
	log_write(log, LOG_LEVEL_ERROR, "cannot start: no %s", missing);
	gateway_free(gateway);
	return ERR_NOMEM;
}

enum err
gateway_start(struct gateway *gateway, const struct gateway_config *config)
{
	struct env *env = &gateway->env;

	env->kernel->events.acquire = keeper_acquire;
	env->kernel->events.expire = keeper_expire;
	env->kernel->events.mapping = keeper_mapping;
	env->kernel->events.lost = keeper_lost;
	if (config->listener < 0)
		return OK;
	gateway->control = control_new(env, gateway->loop, gateway->keeper,
	    config->listener, &config->host);
	env->control = gateway->control;
	return gateway->control != NULL ? OK : ERR_NOMEM;
}

void
gateway_free(struct gateway *gateway)
{
	struct env *env;

	if (gateway == NULL)
		return;
	env = &gateway->env;
	env->event = NULL;
	control_free(gateway->control);
	keeper_free(gateway->keeper);
	/* Jobs that are under way look for their SAs: these go after them. */
	if (env->workers != NULL)
		workers_free(env->workers);
	if (env->sadb != NULL)
		sadb_free(env->sadb);
	env->sadb = NULL;
	kernel_free(env);
	if (env->vault != NULL)
		env->vault->ops->free(env->vault);
	if (env->limit != NULL)
		limit_free(env->limit);
	dns_free(gateway->dns);
	if (env->net != NULL)
		env->net->ops->free(env->net);
	policy_unref(env->policy);
	free(gateway);
}

static enum err
name_resolve(void *names, const char *name, uint8_t family,
    void (*done)(void *arg, enum err err, const struct addr *addrs,
        size_t count, uint32_t ttl_s),
    void *arg)
{
	return dns_resolve(names, name, family, done, arg);
}

static void
name_cancel(void *names, void *arg)
{
	dns_cancel(names, arg);
}

void
gateway_names(struct gateway *gateway, const char *resolv, const char *hosts)
{
	struct dns *old = gateway->dns;
	struct keeper_names names = { name_resolve, name_cancel, NULL };

	gateway->dns = dns_new(&gateway->env, gateway->loop, resolv, hosts);
	names.names = gateway->dns;
	keeper_set_names(gateway->keeper, gateway->dns != NULL ? &names : NULL);
	dns_free(old);
	if (gateway->dns == NULL)
		env_log(&gateway->env, LOG_LEVEL_ERROR,
		    "host names cannot be resolved: %s", err_text(ERR_NOMEM));
}

/* What failed its self-test is not offered. The connections are this policy's
 * own still: nobody else has seen them. */
static void
limit_conn(struct env *env, struct conn *conn)
{
	proposals_limit(&conn->ike, &env->usable);
	proposals_limit(&conn->esp, &env->usable);
	if (conn->ike.count == 0 || conn->esp.count == 0)
		env_log(env, LOG_LEVEL_ERROR,
		    "%s (%s): none of its algorithms passed the self-test",
		    conn->name, conn->source != NULL ? conn->source : "");
}

void
gateway_policy(
    struct gateway *gateway, struct policy *next, char *text, size_t size)
{
	struct env *env = &gateway->env;
	struct keeper_difference d;

	for (size_t i = 0; i < next->count; i++)
		limit_conn(env, next->conns[i]);
	keeper_policy(gateway->keeper, next, &d);
	snprintf(text, size,
	    "%zu connection%s: %u new, %u changed, %u gone, %u unchanged",
	    next->count, next->count == 1 ? "" : "s", d.added, d.changed,
	    d.gone, d.same);
	env_log(env, LOG_LEVEL_INFO, "configuration: %s", text);
	for (size_t i = 0; i < next->count; i++)
		if (next->conns[i]->weak[0] != '\0')
			env_log(env, LOG_LEVEL_WARNING,
			    "%s: allows weak algorithms: %s",
			    next->conns[i]->name, next->conns[i]->weak);
}
