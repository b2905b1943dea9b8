#include "daemon/parent.h"

#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/confine.h"
#include "daemon/parent_state.h"
#include "daemon/vault_link.h"
#include "kernel/userland.h"

#define EMPTY_DIR   RUNSTATEDIR "/orthrus/empty"
#define DELETES_MS  2000 /* for the peers' answers to our Deletes */
#define SHUTDOWN_MS 3000 /* for gate to say that it is done */
#define END_MS      1000 /* for the children to end by themselves */
#define FAILURES    4    /* of children before all serves: then we end */

/* Processes ------------------------------------------------------------- */

static void
child_started(void *arg, struct proc *proc, int fd)
{
	struct parent *parent = arg;

	if (strcmp(proc_role(proc), "vault") == 0) {
		parent->vault = proc;
		parent_vault_started(parent, fd);
	} else if (strcmp(proc_role(proc), "esp") == 0) {
		parent->esp = proc;
		parent_esp_started(parent, fd);
	} else {
		parent->gate = proc;
		parent_gate_started(parent, fd);
	}
	if (parent->ready)
		parent_facts(parent);
}

static void
child_ended(void *arg, struct proc *proc, const char *why)
{
	struct parent *parent = arg;

	if (proc == parent->vault) {
		vault_link_free(parent->vault_link);
		parent->vault_link = NULL;
		timer_stop(loop_timers(parent->loop), &parent->load_timer);
	} else if (proc == parent->esp) {
		userland_ended(parent->host.userland);
	} else {
		ipc_free(parent->gate_link);
		parent->gate_link = NULL;
	}
	if (parent->stopping) {
		if (procs_running(parent->procs) == 0)
			loop_stop(parent->loop);
		return;
	}
	/* Those who wait for a reload get their answer from what is left. */
	if (proc == parent->vault && parent->reload.under_way)
		parent_reload_adopt(parent);
	else if (proc == parent->gate && parent->reload.under_way)
		parent->reload.asker = 0;
	if (!parent->ready && ++parent->failures == FAILURES) {
		log_write(parent->log, LOG_LEVEL_ERROR, "cannot start: %s %s",
		    proc_role(proc), why);
		parent->code = 1;
		loop_stop(parent->loop);
	}
	parent_facts(parent);
}

void
parent_start_gate(struct parent *parent)
{
	/* Also one that could not be started yet: it will be, and once. */
	parent->gate = proc_start(parent->procs, "gate");
	if (parent->gate == NULL) {
		parent->code = 1;
		loop_stop(parent->loop);
	}
}

/* Signals and the end --------------------------------------------------- */

static void
end_children(struct parent *parent)
{
	struct ipc *gate = parent->gate_link;
	struct vault_link *vault = parent->vault_link;

	/* They end when their links do. */
	parent->gate_link = NULL;
	parent->vault_link = NULL;
	ipc_free(gate);
	vault_link_free(vault);
	if (parent->host.userland != NULL)
		userland_ended(parent->host.userland);
	if (procs_running(parent->procs) == 0)
		loop_stop(parent->loop);
	else
		timer_set(
		    loop_timers(parent->loop), &parent->stop_timer, END_MS);
}

static void
stop_due(void *arg)
{
	struct parent *parent = arg;

	if (parent->gate_link != NULL || parent->vault_link != NULL)
		end_children(parent);
	else
		loop_stop(parent->loop);
}

static void
on_stop(int number, void *arg)
{
	struct parent *parent = arg;
	uint32_t limit_ms = DELETES_MS;

	(void)number;
	if (parent->stopping) { /* again: at once */
		loop_stop(parent->loop);
		return;
	}
	log_write(parent->log, LOG_LEVEL_INFO, "shutting down");
	parent->stopping = true;
	procs_stop(parent->procs);
	if (parent->gate_link == NULL ||
	    ipc_send(parent->gate_link, PROC_SHUTDOWN, 0, &limit_ms,
	        sizeof(limit_ms)) != OK) {
		end_children(parent);
		return;
	}
	timer_set(loop_timers(parent->loop), &parent->stop_timer, SHUTDOWN_MS);
}

static void
on_reload(int number, void *arg)
{
	struct parent *parent = arg;

	(void)number;
	log_write(parent->log, LOG_LEVEL_INFO, "reloading");
	parent_reload(parent, 0);
}

/* What every child is told on its command line. */
struct arguments {
	char uid[16], gid[16], level[16];
	const char *list[12];
};

static void
find_user(struct parent *parent, struct arguments *arguments)
{
	const char *name = parent->options->user;
	const struct passwd *user = getpwnam(name);

	if (user == NULL || user->pw_uid == 0) {
		user = getpwnam("nobody");
		log_write(parent->log, LOG_LEVEL_WARNING,
		    "there is no user %s: the processes run as %s", name,
		    user != NULL ? "nobody" : "65534");
	}
	snprintf(arguments->uid, sizeof(arguments->uid), "%u",
	    user != NULL ? user->pw_uid : 65534);
	snprintf(arguments->gid, sizeof(arguments->gid), "%u",
	    user != NULL ? user->pw_gid : 65534);
}

static enum err
child_arguments(struct parent *parent, struct arguments *arguments)
{
	size_t count = 0;
	const char **list = arguments->list;

	if (geteuid() == 0) {
		find_user(parent, arguments);
		if (confine_empty_dir(EMPTY_DIR) != OK) {
			log_write(parent->log, LOG_LEVEL_ERROR,
			    "%s must be an empty directory of root's",
			    EMPTY_DIR);
			return ERR_REFUSED;
		}
		list[count++] = "--uid";
		list[count++] = arguments->uid;
		list[count++] = "--gid";
		list[count++] = arguments->gid;
		list[count++] = "--root";
		list[count++] = EMPTY_DIR;
	} else {
		log_write(parent->log, LOG_LEVEL_WARNING,
		    "not root: the processes keep user and file system");
	}
	list[count++] = "--log";
	snprintf(arguments->level, sizeof(arguments->level), "%s",
	    log_level_text(parent->log->level));
	list[count++] = arguments->level;
	if (parent->options->foreground)
		list[count++] = "-f";
	list[count] = NULL;
	return OK;
}

/* Reads and opens what there is to read and open. */
static enum err
parent_open(struct parent *parent)
{
	struct diags diags = { 0 };
	enum err err = setup_read(&parent->setup, parent->options->conf, true,
	    &diags, &parent->policy);

	setup_log_diags(parent->log, &diags);
	diags_fini(&diags);
	if (err != OK)
		return err;
	policy_diff(NULL, parent->policy, NULL, NULL);
	err = host_open(
	    &parent->host, parent->options, parent->loop, parent->log);
	if (err != OK)
		return err;
	parent->kserve = kserve_new(
	    loop_timers(parent->loop), parent->log, parent->host.backend);
	parent->host.backend = NULL;
	if (parent->kserve == NULL)
		return ERR_NOMEM;
	return kserve_policy(parent->kserve, parent->policy);
}

static enum err
parent_watch(struct parent *parent)
{
	struct loop *loop = parent->loop;

	return loop_signal(loop, SIGTERM, on_stop, parent) &&
	               loop_signal(loop, SIGINT, on_stop, parent) &&
	               loop_signal(loop, SIGHUP, on_reload, parent)
	           ? OK
	           : ERR_NOMEM;
}

static void
parent_serve(struct parent *parent)
{
	struct proc_events events = { child_started, child_ended, parent };
	struct arguments arguments;

	if (child_arguments(parent, &arguments) != OK ||
	    (geteuid() == 0 && confine_parent(parent->log) != OK) ||
	    parent_watch(parent) != OK)
		return;
	parent->procs = procs_new(parent->loop, parent->log, "/proc/self/exe",
	    arguments.list, &events);
	if (parent->procs == NULL)
		return;
	parent->code = 0;
	if (parent->host.userland != NULL) {
		parent_esp_hear(parent);
		if (proc_start(parent->procs, "esp") == NULL)
			parent->code = 1;
	}
	if (parent->code == 0 && proc_start(parent->procs, "vault") != NULL)
		loop_run(parent->loop);
	ipc_free(parent->gate_link);
	vault_link_free(parent->vault_link);
	if (parent->host.userland != NULL)
		userland_ended(parent->host.userland);
	procs_free(parent->procs);
}

int
parent_run(const struct options *options, struct log *log)
{
	struct parent parent = {
		.options = options,
		.log = log,
		.gate_vault = -1,
		.ready_fd = options->ready,
		.code = 1,
	};

	parent.facts.started_s = (uint64_t)time(NULL);
	parent.loop = loop_new();
	if (parent.loop == NULL)
		return 1;
	timer_init(&parent.stop_timer, stop_due, &parent);
	timer_init(&parent.load_timer, parent_vault_late, &parent);
	if (parent_open(&parent) == OK)
		parent_serve(&parent);
	if (parent.gate_vault >= 0)
		close(parent.gate_vault);
	parent_reload_end(&parent);
	kserve_free(parent.kserve);
	if (parent.host.control != NULL)
		host_close(&parent.host);
	policy_unref(parent.policy);
	setup_fini(&parent.setup);
	loop_free(parent.loop);
	return parent.code;
}
