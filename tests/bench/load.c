/*
 * load: an initiator that negotiates one IKE SA with a child after the other,
 * a given number at once, from several addresses of its own.
 *
 *	load --conf FILE --secrets FILE --conn NAME --local ADDR[,ADDR...]
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

#include "conf/conf.h"
#include "conf/load.h"
#include "conf/secrets.h"
#include "daemon/gateway.h"
#include "daemon/keyring.h"
#include "daemon/vault_local.h"
#include "kernel/kserve.h"
#include "kernel/local.h"
#include "kernel/none.h"

#define SOURCES 64

struct load {
	struct loop *loop;
	struct gateway *gateway;
	struct conn *conn;
	struct addr source[SOURCES];
	size_t sources, next_source;
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
		local.addr = load->source[load->next_source++ % load->sources];
		local.port = remote.port = IKE_PORT;
		remote.addr = *to;
		load->started++;
		if (env->engine[load->conn->keyexchange == KEYEX_IKEV1 ? 1 : 2]
			->initiate(env, load->conn, &local, &remote, &sa) != OK)
			load->failed++;
	}
	if (load->up + load->failed < load->count ||
	    timer_armed(&load->end))
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
drop_line(struct log *log, enum log_level level, const char *line)
{
	(void)log;
	fprintf(stderr, "load: %s: %s\n", log_level_text(level), line);
}

static struct policy *
read_conf(const char *path)
{
	struct conf_options options = { .path = path };
	struct bundle bundle;
	struct diags diags;
	struct policy *policy;

	bundle_init(&bundle, bundle_read_files, NULL);
	diags_init(&diags);
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
	struct secrets *secrets;
	struct bundle bundle;
	struct diags diags;

	bundle_init(&bundle, bundle_read_files, NULL);
	diags_init(&diags);
	secrets = secrets_load(&bundle, path, 1, &diags);
	diags_fini(&diags);
	bundle_fini(&bundle);
	if (secrets == NULL || secrets_count(secrets) == 0)
		die("no secrets");
	return secrets;
}

static void
set_sources(struct load *load, char *text)
{
	char *word, *rest;

	for (word = strtok_r(text, ",", &rest);
	     word != NULL && load->sources < SOURCES;
	     word = strtok_r(NULL, ",", &rest))
		if (!addr_parse(&load->source[load->sources++], word))
			die("--local wants addresses");
	if (load->sources == 0)
		die("--local is missing");
}
