#include "daemon/single.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/engine.h"
#include "common/ipc.h"
#include "common/loop.h"
#include "common/policy.h"
#include "conf/secretpath.h"
#include "conf/secrets.h"
#include "daemon/espd.h"
#include "daemon/gateway.h"
#include "daemon/host.h"
#include "daemon/proc.h"
#include "daemon/setup.h"
#include "daemon/vault_local.h"
#include "kernel/kserve.h"
#include "kernel/local.h"
#include "kernel/userland.h"

#define DELETES_MS   2000
#define CHANGES_TEXT 256

struct single {
	const struct options *options;
	struct log *log;
	struct loop *loop;
	struct host host;
	struct gateway *gateway;
	struct kserve *kserve; /* the gateway's kernel owns it */
	struct espd *espd;     /* NULL: another data plane */
	struct keyring *keyring;
	uint32_t generation; /* of the secrets */
	struct control_facts facts;
};

static enum err
read_secrets(struct single *single, bool first, char **text)
{
	const char *path = single->options->secrets;
	struct bundle bundle;
	struct diags diags = { 0 };
	struct secrets *secrets;
	enum err err = ERR_NOMEM;

	bundle_init(&bundle, secretpath_read, (void *)(uintptr_t)path);
	secrets = secrets_load(&bundle, path, ++single->generation, &diags);
	bundle_fini(&bundle);
	setup_log_diags(single->log, &diags);
	if (secrets != NULL && diags.errors > 0 && !first) {
		*text = setup_diags_text(&diags);
		secrets_unref(secrets);
		err = ERR_SYNTAX;
	} else if (secrets != NULL) {
		log_write(single->log, LOG_LEVEL_INFO, "%zu secrets",
		    secrets_count(secrets));
		keyring_use(single->keyring, secrets);
		err = OK;
	}
	diags_fini(&diags);
	return err;
}

/* Reads all files and takes them into force; text (to be freed) says what
 * changed or what is wrong. */
static enum err
take_files(struct single *single, bool first, char **text)
{
	struct diags diags = { 0 };
	struct policy *policy = NULL;
	struct setup setup;
	char changes[CHANGES_TEXT] = "";
	enum err err =
	    setup_read(&setup, single->options->conf, first, &diags, &policy);

	if (err == OK || first)
		setup_log_diags(single->log, &diags);
	if (err != OK)
		*text = setup_diags_text(&diags);
	if (err == OK)
		err = read_secrets(single, first, text);
	if (err == OK) {
		/* Numbers first: the checks go by them. */
		policy_diff(single->gateway->env.policy, policy, NULL, NULL);
		err = kserve_policy(single->kserve, policy);
	}
	if (err == OK) {
		gateway_names(single->gateway, setup.resolv, setup.hosts);
		gateway_policy(
		    single->gateway, policy, changes, sizeof(changes));
		setup_warnings_text(&setup, changes, sizeof(changes));
		*text = strdup(changes);
	}
	policy_unref(policy);
	setup_fini(&setup);
	diags_fini(&diags);
	return err;
}

static void
reload(void *arg, uint64_t serial)
{
	struct single *single = arg;
	char *text = NULL;
	enum err err = take_files(single, false, &text);

	if (err != OK)
		log_write(single->log, LOG_LEVEL_WARNING,
		    "not reloaded, the configuration in force stays:\n%s",
		    text != NULL ? text : err_text(err));
	if (serial != 0 && single->gateway->control != NULL)
		control_reloaded(single->gateway->control, serial, err,
		    text != NULL ? text : err_text(err));
	free(text);
}

static void
on_reload(int number, void *arg)
{
	(void)number;
	reload(arg, 0);
}

static void
stopped(void *arg)
{
	struct single *single = arg;

	loop_stop(single->loop);
}

static void
on_stop(int number, void *arg)
{
	struct single *single = arg;

	(void)number;
	log_write(single->log, LOG_LEVEL_INFO, "shutting down");
	keeper_shutdown(single->gateway->keeper, DELETES_MS, stopped, single);
}

/* The userland data plane, over a link from this process to itself --------- */

static void
esp_stray(void *arg, const struct endpoint *local,
    const struct endpoint *remote, struct view octets)
{
	struct single *single = arg;
	struct packet packet = { *local, *remote, true, octets };

	engine_dispatch(&single->gateway->env, &packet);
}

static void
esp_ended(void *arg)
{
	struct single *single = arg;

	loop_stop(single->loop);
}

static enum err
start_esp(struct single *single)
{
	struct kserve_backend *userland = single->host.userland;
	int pair[2];
	enum err err;

	if (userland == NULL)
		return OK;
	userland_stray(userland, esp_stray, single);
	err = ipc_pair(pair);
	if (err != OK)
		return err;
	single->espd =
	    espd_new(single->loop, single->log, pair[1], esp_ended, single);
	err = userland_serve(userland, pair[0], NULL, NULL);
	return single->espd != NULL ? err : ERR_NOMEM;
}

/* A gateway over this process's own vault and data plane. */
static enum err
assemble(struct single *single)
{
	struct gateway_config config = {
		.sockets = single->host.sockets,
		.threads = single->options->threads,
		.listener = single->host.listener,
		.host = { .reload = reload, .arg = single },
	};
	struct net_sockets *sockets = &single->host.sockets;
	struct env *env;
	enum err err;

	/* Theirs from now on, also on failure. */
	sockets->ike4 = sockets->ike6 = sockets->natt4 = sockets->natt6 = -1;
	sockets->probe4 = sockets->probe6 = -1;
	err = gateway_new(&single->gateway, single->loop, single->log, &config);
	if (err != OK)
		return err;
	env = &single->gateway->env;
	single->kserve = kserve_new(
	    loop_timers(single->loop), single->log, single->host.backend);
	single->host.backend = NULL;
	if (single->kserve == NULL)
		return ERR_NOMEM;
	err = start_esp(single);
	if (err != OK) {
		kserve_free(single->kserve);
		return err;
	}
	env->kernel = local_new(env, single->kserve, true);
	if (env->kernel == NULL) {
		kserve_free(single->kserve);
		return ERR_NOMEM;
	}
	single->keyring = keyring_new(env->random, env->random_arg);
	if (single->keyring == NULL)
		return ERR_NOMEM;
	env->vault = vault_local_new(env, single->keyring);
	if (env->vault == NULL)
		return ERR_NOMEM;
	err = gateway_start(single->gateway, &config);
	/* The name of the socket is removed by us, the socket is control's. */
	if (err == OK)
		single->host.listener =
		    fcntl(single->host.listener, F_DUPFD_CLOEXEC, 3);
	return err;
}

static void
tell_ready(struct single *single)
{
	struct control_facts *facts = &single->facts;

	snprintf(facts->data_plane, sizeof(facts->data_plane), "%s",
	    single->host.data_plane);
	snprintf(facts->process[0].role, sizeof(facts->process[0].role),
	    "all in one");
	facts->process[0].pid = (int32_t)getpid();
	facts->process_count = 1;
	control_facts(single->gateway->control, facts);
	log_write(single->log, LOG_LEVEL_INFO, "ready");
	if (single->options->ready < 0)
		return;
	if (write(single->options->ready, "", 1) == 1)
		close(single->options->ready);
	proc_detach(STDERR_FILENO);
}

static bool
watch(struct single *single)
{
	return loop_signal(single->loop, SIGTERM, on_stop, single) &&
	       loop_signal(single->loop, SIGINT, on_stop, single) &&
	       loop_signal(single->loop, SIGHUP, on_reload, single);
}

int
single_run(const struct options *options, struct log *log)
{
	struct single single = { .options = options, .log = log };
	char *text = NULL;
	int code = 1;

	single.facts.started_s = (uint64_t)time(NULL);
	single.loop = loop_new();
	if (single.loop == NULL)
		return code;
	log_write(log, LOG_LEVEL_WARNING,
	    "all in one process: a bug in the packet parser can read keys");
	if (host_open(&single.host, options, single.loop, log) == OK) {
		if (assemble(&single) == OK &&
		    take_files(&single, true, &text) == OK && watch(&single)) {
			tell_ready(&single);
			loop_run(single.loop);
			code = 0;
		}
		free(text);
		gateway_free(single.gateway);
		espd_free(single.espd);
		host_close(&single.host);
	}
	loop_free(single.loop);
	return code;
}
