/*
 * load: an initiator that negotiates one IKE SA with a child after the other,
 * a given number at once, each from an address of its own: a new SA from an
 * old address would be a renewal.
 *
 *	load --conf FILE --secrets FILE --conn NAME --local FIRST-ADDRESS
 *	    --count N [--flight N] [--hold SECONDS]
 *
 * Prints "established N failed N seconds S", then, with --hold, keeps the SAs
 * for so long. Ends with 0 if none failed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/engine.h"
#include "conf/conf.h"
#include "conf/print.h"
#include "conf/load.h"
#include "conf/secrets.h"
#include "daemon/gateway.h"
#include "daemon/keyring.h"
#include "daemon/vault_local.h"
#include "kernel/kserve.h"
#include "kernel/local.h"
#include "kernel/none.h"

struct load {
	struct loop *loop;
	struct gateway *gateway;
	struct conn *conn;
	struct addr source; /* of the next handshake */
	uint64_t count, flight, started, up, failed;
	uint64_t hold_ms, began_ms;
	struct timer turn, end;
};

static void
die(const char *what)
{
	fprintf(stderr, "load: %s\n", what);
	exit(1);
}

static void
finish(void *arg)
{
	struct load *load = arg;

	loop_stop(load->loop);
}

/* Events come from inside the engines: what follows is begun from a timer. */
static void
turn(void *arg)
{
	struct load *load = arg;
	struct env *env = &load->gateway->env;
	const struct addr *to = &load->conn->remote.host[0].addr;
	struct endpoint local, remote;
	struct ike_sa *sa;

	while (load->started < load->count &&
	       load->started - load->up - load->failed < load->flight) {
		local.addr = load->source;
		if (!addr_next(&load->source))
			die("no more addresses");
		local.port = remote.port = IKE_PORT;
		remote.addr = *to;
		load->started++;
		if (env->engine[load->conn->keyexchange == KEYEX_IKEV1 ? 1 : 2]
		        ->initiate(env, load->conn, &local, &remote, &sa) != OK)
			load->failed++;
	}
	if (load->up + load->failed < load->count || timer_armed(&load->end))
		return;
	printf("established %" PRIu64 " failed %" PRIu64 " seconds %.3f\n",
	    load->up, load->failed,
	    (double)(env_now(env) - load->began_ms) / 1000);
	fflush(stdout);
	timer_set(env->timers, &load->end, load->hold_ms);
}

static void
on_event(struct env *env, const struct event *event)
{
	struct gateway *gateway = env->event_arg;
	struct load *load = gateway->env.log->arg;

	if (event->kind == EVENT_CHILD_UP)
		load->up++;
	else if (event->kind == EVENT_CHILD_FAILED ||
	         event->kind == EVENT_IKE_FAILED)
		load->failed++;
	else
		return;
	if (event->err != OK && event->text != NULL)
		fprintf(stderr, "load: %s\n", event->text);
	timer_set(env->timers, &load->turn, 0);
}

static void
write_line(struct log *log, enum log_level level, const char *line)
{
	(void)log;
	fprintf(stderr, "load: %s: %s\n", log_level_text(level), line);
}

static struct policy *
read_conf(const char *path)
{
	struct conf_options options = { .path = path };
	struct diags diags = { 0 };
	struct bundle bundle;
	struct policy *policy;

	bundle_init(&bundle, bundle_read_files, NULL);
	policy = conf_load(&bundle, &options, &diags);
	if (policy == NULL)
		conf_print(stderr, &diags, NULL);
	diags_fini(&diags);
	bundle_fini(&bundle);
	if (policy == NULL)
		die("no configuration");
	return policy;
}

static struct secrets *
read_secrets(const char *path)
{
	struct diags diags = { 0 };
	struct secrets *secrets;
	struct bundle bundle;

	bundle_init(&bundle, bundle_read_files, NULL);
	secrets = secrets_load(&bundle, path, 1, &diags);
	diags_fini(&diags);
	bundle_fini(&bundle);
	if (secrets == NULL || secrets_count(secrets) == 0)
		die("no secrets");
	return secrets;
}

static void
no_change(enum policy_change change, struct conn *old_conn,
    struct conn *new_conn, void *arg)
{
	(void)change;
	(void)old_conn;
	(void)new_conn;
	(void)arg;
}

/* A gateway in one process, without data plane and control socket. */
static void
assemble(
    struct load *load, struct log *log, const char *conf, const char *secrets)
{
	struct net_listen listen = { .ike_port = IKE_PORT,
		.natt_port = NATT_PORT };
	struct gateway_config config = { .listener = -1, .threads = 1 };
	struct policy *policy = read_conf(conf);
	struct keyring *keyring;
	struct kserve_backend *backend;
	struct kserve *kserve;
	struct env *env;
	const char *what = "";

	if (net_sockets_open(&config.sockets, &listen, &what) != OK)
		die(what);
	load->loop = loop_new();
	if (load->loop == NULL ||
	    gateway_new(&load->gateway, load->loop, log, &config) != OK)
		die("the gateway cannot be assembled");
	env = &load->gateway->env;
	keyring = keyring_new(env_random_openssl, NULL);
	backend = none_new(env_random_openssl, NULL);
	if (keyring == NULL || backend == NULL)
		die("out of memory");
	keyring_use(keyring, read_secrets(secrets));
	kserve = kserve_new(env->timers, log, backend);
	env->vault = vault_local_new(env, keyring);
	if (kserve == NULL || env->vault == NULL)
		die("out of memory");
	env->kernel = local_new(env, kserve, true);
	if (env->kernel == NULL || gateway_start(load->gateway, &config) != OK)
		die("the gateway does not start");
	policy_diff(NULL, policy, no_change, NULL);
	if (kserve_policy(kserve, policy) != OK)
		die("out of memory");
	gateway_policy(load->gateway, policy, NULL, 0);
	env->event = on_event;
}

int
main(int argc, char **argv)
{
	struct log log = { .level = LOG_LEVEL_WARNING, .write = write_line };
	const char *conf = NULL, *secrets = NULL, *name = NULL;
	struct load load = { .flight = 64 };
	bool good = false;
	int i;

	for (i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--conf") == 0)
			conf = argv[i + 1];
		else if (strcmp(argv[i], "--secrets") == 0)
			secrets = argv[i + 1];
		else if (strcmp(argv[i], "--conn") == 0)
			name = argv[i + 1];
		else if (strcmp(argv[i], "--local") == 0)
			good = addr_parse(&load.source, argv[i + 1]);
		else if (strcmp(argv[i], "--count") == 0)
			load.count = strtoull(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--flight") == 0)
			load.flight = strtoull(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--hold") == 0)
			load.hold_ms = strtoull(argv[i + 1], NULL, 10) * 1000;
		else
			break;
	}
	if (i < argc || conf == NULL || secrets == NULL || name == NULL ||
	    !good || load.count == 0)
		die("usage: load --conf FILE --secrets FILE --conn NAME "
		    "--local FIRST-ADDRESS --count N [--flight N] "
		    "[--hold SECONDS]");
	log.arg = &load;
	assemble(&load, &log, conf, secrets);
	load.conn = policy_conn(load.gateway->env.policy, name);
	if (load.conn == NULL)
		die("no such connection");
	timer_init(&load.turn, turn, &load);
	timer_init(&load.end, finish, &load);
	load.began_ms = env_now(&load.gateway->env);
	timer_set(load.gateway->env.timers, &load.turn, 0);
	loop_run(load.loop);
	return load.failed == 0 ? 0 : 1;
}
