#include "daemon/parent.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/ipc.h"
#include "common/loop.h"
#include "common/policy.h"
#include "daemon/confine.h"
#include "daemon/control.h"
#include "daemon/host.h"
#include "daemon/proc.h"
#include "daemon/setup.h"
#include "daemon/vault_link.h"
#include "kernel/kserve.h"
#include "kernel/userland.h"

#define EMPTY_DIR   RUNSTATEDIR "/orthrus/empty"
#define DELETES_MS  2000 /* for the peers' answers to our Deletes */
#define SHUTDOWN_MS 3000 /* for gate to say that it is done */
#define END_MS      1000 /* for the children to end by themselves */
#define FAILURES    4    /* of children before all serves: then we end */

/* A reload goes through both: first the secrets, then the policy. */
struct reload {
	bool under_way;
	uint64_t asker; /* serial of the control client; 0: SIGHUP */
	struct setup setup;
	struct policy *policy;
};

struct parent {
	const struct options *options;
	struct log *log;
	struct loop *loop;
	struct host host;
	struct procs *procs;
	struct proc *gate, *vault, *esp; /* esp: NULL unless userland */
	struct ipc *gate_link;
	struct vault_link *vault_link;
	int gate_vault; /* gate's end of its link to the vault; -1: given */
	struct kserve *kserve;
	struct setup setup; /* what is in force */
	struct policy *policy;
	struct reload reload;
	uint64_t load_serial; /* of the secrets that the vault reads */
	bool secrets_read;    /* by this vault */
	bool ready, stopping;
	unsigned failures;
	struct control_facts facts;
	struct timer stop_timer;
	int ready_fd;
	int code;
};

static void start_gate(struct parent *parent);

/* What status tells ----------------------------------------------------- */

static void
add_fact(struct control_facts *facts, const char *role, int32_t pid,
    uint32_t restarts)
{
	struct control_process *process;

	if (facts->process_count == CONTROL_PROCESSES)
		return;
	process = &facts->process[facts->process_count++];
	snprintf(process->role, sizeof(process->role), "%s", role);
	process->pid = pid;
	process->restarts = restarts;
}

static void
send_facts(struct parent *parent)
{
	struct control_facts *facts = &parent->facts;
	const struct proc *proc[] = { parent->gate, parent->vault,
		parent->esp };

	facts->process_count = 0;
	snprintf(facts->data_plane, sizeof(facts->data_plane), "%s",
	    parent->host.data_plane);
	add_fact(facts, "parent", (int32_t)getpid(), 0);
	for (size_t i = 0; i < sizeof(proc) / sizeof(proc[0]); i++)
		if (proc[i] != NULL)
			add_fact(facts, proc_role(proc[i]), proc_pid(proc[i]),
			    proc_restarts(proc[i]));
	if (parent->gate_link != NULL)
		ipc_send(
		    parent->gate_link, PROC_FACTS, 0, facts, sizeof(*facts));
}

static void
now_ready(struct parent *parent)
{
	int null;

	send_facts(parent);
	if (parent->ready)
		return;
	parent->ready = true;
	log_write(parent->log, LOG_LEVEL_INFO, "ready");
	if (parent->ready_fd < 0)
		return;
	/* Whoever started us goes on; the terminal is not ours any more. */
	if (write(parent->ready_fd, "", 1) != 1)
		log_write(parent->log, LOG_LEVEL_DEBUG,
		    "nobody waits for us to be ready");
	close(parent->ready_fd);
	parent->ready_fd = -1;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		for (int fd = 0; fd <= 2; fd++)
			dup2(null, fd);
		close(null);
	}
}

/* Links between the children -------------------------------------------- */

/* Gate and vault get the ends of a new link; gate's is held back until the
 * vault has read its secrets. */
static void
link_vault(struct parent *parent)
{
	int pair[2];

	if (parent->vault_link == NULL || ipc_pair(pair) != OK)
		return;
	if (vault_link_gate(parent->vault_link, pair[0]) != OK) {
		close(pair[0]);
		close(pair[1]);
		return;
	}
	close(pair[0]);
	if (parent->gate_vault >= 0)
		close(parent->gate_vault);
	parent->gate_vault = pair[1];
}

static void
give_vault(struct parent *parent)
{
	if (parent->gate_link == NULL || parent->gate_vault < 0 ||
	    !parent->secrets_read)
		return;
	ipc_send_fds(
	    parent->gate_link, PROC_VAULT, 0, NULL, 0, &parent->gate_vault, 1);
	close(parent->gate_vault);
	parent->gate_vault = -1;
}

/* Reload ---------------------------------------------------------------- */

static void
reload_end(struct parent *parent)
{
	setup_fini(&parent->reload.setup);
	policy_unref(parent->reload.policy);
	memset(&parent->reload, 0, sizeof(parent->reload));
}

static void
reload_refuse(struct parent *parent, uint64_t asker, const char *text)
{
	size_t len = strlen(text);

	log_write(parent->log, LOG_LEVEL_WARNING,
	    "not reloaded, the configuration in force stays:\n%s", text);
	if (asker != 0 && parent->gate_link != NULL)
		ipc_send(parent->gate_link, PROC_RELOADED, asker, text,
		    len < PROC_TEXT ? len : PROC_TEXT);
}

/* Sends the setup in force to gate, as the answer to asker. */
static enum err
send_policy(struct parent *parent, uint64_t asker)
{
	int fd;
	enum err err = setup_send(&parent->setup, &fd);

	if (err == OK) {
		err = ipc_send_fds(
		    parent->gate_link, PROC_POLICY, asker, NULL, 0, &fd, 1);
		close(fd);
	}
	if (err != OK)
		log_write(parent->log, LOG_LEVEL_ERROR,
		    "the configuration cannot be given to gate: %s",
		    err_text(err));
	return err;
}

/* The secrets are in force: so is the rest now. */
static void
reload_adopt(struct parent *parent)
{
	struct reload *reload = &parent->reload;
	struct policy *next = reload->policy;
	enum err err;

	policy_diff(parent->policy, next, NULL, NULL);
	err = kserve_policy(parent->kserve, next);
	if (err != OK) {
		reload_refuse(parent, reload->asker, err_text(err));
		reload_end(parent);
		return;
	}
	policy_unref(parent->policy);
	parent->policy = policy_ref(next);
	setup_fini(&parent->setup);
	parent->setup = reload->setup;
	memset(&reload->setup, 0, sizeof(reload->setup));
	if (parent->gate_link != NULL)
		send_policy(parent, reload->asker);
	reload_end(parent);
}

static enum err
load_secrets(struct parent *parent)
{
	if (parent->vault_link == NULL)
		return ERR_WRONG_STATE;
	return vault_link_load(parent->vault_link, ++parent->load_serial);
}

static void
log_diags(struct parent *parent, const struct diags *diags)
{
	char line[1024];

	for (size_t i = 0; i < diags->count; i++)
		log_write(parent->log,
		    diags->item[i].level == DIAG_ERROR ? LOG_LEVEL_ERROR
		                                       : LOG_LEVEL_WARNING,
		    "%s", diag_text(&diags->item[i], line, sizeof(line)));
}

static void
reload_begin(struct parent *parent, uint64_t asker)
{
	struct reload *reload = &parent->reload;
	struct diags diags = { 0 };
	char *text;

	if (reload->under_way || parent->stopping) {
		reload_refuse(parent, asker, "a reload is under way");
		return;
	}
	reload->under_way = true;
	reload->asker = asker;
	setup_read(&reload->setup, parent->options->conf, false, &diags,
	    &reload->policy);
	if (reload->policy == NULL) {
		text = setup_diags_text(&diags);
		reload_refuse(
		    parent, asker, text != NULL ? text : err_text(ERR_NOMEM));
		free(text);
		reload_end(parent);
	} else {
		log_diags(parent, &diags);
		/* Without a vault the next one reads them. */
		if (load_secrets(parent) != OK)
			reload_adopt(parent);
	}
	diags_fini(&diags);
}

/* Messages from the vault ----------------------------------------------- */

static void
secrets_loaded(void *arg, uint64_t serial, const struct vaultd_loaded *loaded)
{
	struct parent *parent = arg;
	const char *text = loaded->text;

	if (serial != parent->load_serial)
		return;
	if (text[0] != '\0')
		log_write(parent->log,
		    loaded->errors > 0 ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING,
		    "%s", text);
	if (loaded->err == OK)
		log_write(
		    parent->log, LOG_LEVEL_INFO, "%u secrets", loaded->count);
	parent->secrets_read = true;
	give_vault(parent);
	if (parent->gate == NULL)
		start_gate(parent);
	if (!parent->reload.under_way)
		return;
	if (loaded->err == OK) {
		reload_adopt(parent);
	} else {
		reload_refuse(parent, parent->reload.asker,
		    text[0] != '\0' ? text : err_text((enum err)loaded->err));
		reload_end(parent);
	}
}

static void
vault_closed(void *arg, enum err err, const char *why)
{
	struct parent *parent = arg;

	if (err == ERR_REFUSED)
		log_write(parent->log, LOG_LEVEL_ERROR,
		    "vault broke the rules of its link: %s", why);
	vault_link_free(parent->vault_link);
	parent->vault_link = NULL;
	if (!parent->stopping)
		proc_kill(parent->vault);
}

static void
vault_started(struct parent *parent, int fd)
{
	const struct vault_link_events events = { secrets_loaded, vault_closed,
		parent };

	parent->vault_link =
	    vault_link_new(parent->loop, fd, parent->options->secrets, &events);
	parent->secrets_read = false;
	if (parent->vault_link == NULL)
		return;
	link_vault(parent);
	load_secrets(parent);
}

/* Messages from gate ---------------------------------------------------- */

static enum err
handle_ready(void *arg, const struct ipc_frame *frame)
{
	(void)frame;
	now_ready(arg);
	return OK;
}

static enum err
handle_reload(void *arg, const struct ipc_frame *frame)
{
	if (frame->serial == 0)
		return ERR_SYNTAX;
	reload_begin(arg, frame->serial);
	return OK;
}

static enum err
handle_level(void *arg, const struct ipc_frame *frame)
{
	struct parent *parent = arg;
	uint32_t level;

	memcpy(&level, frame->body.at, sizeof(level));
	if (level > LOG_LEVEL_DEBUG)
		return ERR_SYNTAX;
	parent->log->level = (enum log_level)level;
	if (parent->vault_link != NULL)
		vault_link_level(parent->vault_link, parent->log->level);
	if (parent->host.userland != NULL)
		userland_level(parent->host.userland, parent->log->level);
	return OK;
}

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

static enum err
handle_done(void *arg, const struct ipc_frame *frame)
{
	struct parent *parent = arg;

	(void)frame;
	if (!parent->stopping)
		return ERR_SYNTAX;
	timer_set(loop_timers(parent->loop), &parent->stop_timer, 0);
	return OK;
}

static const struct ipc_permit gate_rows[] = {
	{ PROC_START, IPC_OUT | IPC_FD, sizeof(struct proc_start),
	    sizeof(struct proc_start), 0, NULL },
	{ PROC_KERNEL, IPC_OUT | IPC_FD, 0, 0, 0, NULL },
	{ PROC_VAULT, IPC_OUT | IPC_FD, 0, 0, 0, NULL },
	{ PROC_POLICY, IPC_OUT | IPC_FD, 0, 0, 0, NULL },
	{ PROC_FACTS, IPC_OUT, sizeof(struct control_facts),
	    sizeof(struct control_facts), 0, NULL },
	{ PROC_RELOADED, IPC_OUT, 0, PROC_TEXT, 0, NULL },
	{ PROC_SHUTDOWN, IPC_OUT, sizeof(uint32_t), sizeof(uint32_t), 0, NULL },
	{ PROC_STRAY, IPC_OUT, sizeof(struct proc_stray), IPC_BODY, 0, NULL },
	{ PROC_LEVEL, IPC_IN | IPC_OUT, sizeof(uint32_t), sizeof(uint32_t), 0,
	    handle_level },
	{ PROC_READY, IPC_IN | IPC_ONCE, 0, 0, 0, handle_ready },
	{ PROC_RELOAD, IPC_IN, 0, 0, 0, handle_reload },
	{ PROC_DONE, IPC_IN, 0, 0, 0, handle_done },
};

static void
gate_closed(void *arg, enum err err, const char *why)
{
	struct parent *parent = arg;

	if (err == ERR_REFUSED)
		log_write(parent->log, LOG_LEVEL_ERROR,
		    "gate broke the rules of its link: %s", why);
	ipc_free(parent->gate_link);
	parent->gate_link = NULL;
	if (!parent->stopping)
		proc_kill(parent->gate);
}

static enum err
send_sockets(struct parent *parent)
{
	const struct net_sockets *sockets = &parent->host.sockets;
	const int slot[PROC_SOCKETS] = {
		[PROC_SOCKET_IKE4] = sockets->ike4,
		[PROC_SOCKET_IKE6] = sockets->ike6,
		[PROC_SOCKET_NATT4] = sockets->natt4,
		[PROC_SOCKET_NATT6] = sockets->natt6,
		[PROC_SOCKET_PROBE4] = sockets->probe4,
		[PROC_SOCKET_PROBE6] = sockets->probe6,
		[PROC_SOCKET_CONTROL] = parent->host.listener,
	};
	struct proc_start start = {
		.threads = parent->options->threads,
		.ike_port = sockets->ike_port,
		.natt_port = sockets->natt_port,
	};
	int fds[PROC_SOCKETS];
	size_t count = 0;

	for (unsigned i = 0; i < PROC_SOCKETS; i++)
		if (slot[i] >= 0) {
			start.sockets |= 1u << i;
			fds[count++] = slot[i];
		}
	return ipc_send_fds(parent->gate_link, PROC_START, 0, &start,
	    sizeof(start), fds, count);
}

/* The link over which gate asks the data plane. */
static enum err
send_kernel(struct parent *parent)
{
	int pair[2];
	enum err err = ipc_pair(pair);

	if (err != OK)
		return err;
	err = kserve_serve(parent->kserve, parent->loop, pair[0]);
	if (err == OK)
		err = ipc_send_fds(
		    parent->gate_link, PROC_KERNEL, 0, NULL, 0, &pair[1], 1);
	close(pair[1]);
	return err;
}

/* A new gate numbers its connections from the first again: so do we. */
static enum err
renumber(struct parent *parent)
{
	struct policy *policy = setup_policy(&parent->setup);
	enum err err;

	if (policy == NULL)
		return ERR_NOMEM;
	policy_diff(NULL, policy, NULL, NULL);
	err = kserve_policy(parent->kserve, policy);
	if (err != OK) {
		policy_unref(policy);
		return err;
	}
	policy_unref(parent->policy);
	parent->policy = policy;
	return OK;
}

static void
gate_started(struct parent *parent, int fd)
{
	enum err err;

	parent->gate_link = ipc_new(parent->loop, fd, gate_rows,
	    sizeof(gate_rows) / sizeof(gate_rows[0]), gate_closed, parent);
	if (parent->gate_link == NULL)
		return;
	err = send_sockets(parent);
	if (err == OK)
		err = send_kernel(parent);
	if (err == OK)
		err = renumber(parent);
	if (err != OK) {
		log_write(parent->log, LOG_LEVEL_ERROR,
		    "gate cannot be set up: %s", err_text(err));
		proc_kill(parent->gate);
		return;
	}
	/* The first vault's link waits for it; a dead gate's cannot be used
	 * again. */
	if (parent->gate_vault < 0)
		link_vault(parent);
	give_vault(parent);
	send_policy(parent, 0);
}

/* The userland data plane's process -------------------------------------- */

/* We do not look into it: it goes where it should have gone. */
static void
esp_stray(void *arg, const struct endpoint *local,
    const struct endpoint *remote, struct view octets)
{
	struct parent *parent = arg;
	struct proc_stray from;
	uint8_t *room;

	memset(&from, 0, sizeof(from));
	from.local = *local;
	from.remote = *remote;
	if (parent->gate_link == NULL || sizeof(from) + octets.len > IPC_BODY ||
	    ipc_room(parent->gate_link, PROC_STRAY, 0,
	        sizeof(from) + octets.len, &room) != OK)
		return;
	memcpy(room, &from, sizeof(from));
	memcpy(room + sizeof(from), octets.at, octets.len);
}

static void
esp_broken(void *arg, const char *why)
{
	struct parent *parent = arg;

	(void)why; /* logged already */
	if (!parent->stopping)
		proc_kill(parent->esp);
}

static void
esp_started(struct parent *parent, int fd)
{
	enum err err =
	    userland_serve(parent->host.userland, fd, esp_broken, parent);

	if (err == OK)
		return;
	log_write(parent->log, LOG_LEVEL_ERROR, "esp cannot be set up: %s",
	    err_text(err));
	proc_kill(parent->esp);
}

/* Processes ------------------------------------------------------------- */

static void
child_started(void *arg, struct proc *proc, int fd)
{
	struct parent *parent = arg;

	if (strcmp(proc_role(proc), "vault") == 0) {
		parent->vault = proc;
		vault_started(parent, fd);
	} else if (strcmp(proc_role(proc), "esp") == 0) {
		parent->esp = proc;
		esp_started(parent, fd);
	} else {
		parent->gate = proc;
		gate_started(parent, fd);
	}
	if (parent->ready)
		send_facts(parent);
}

static void
child_ended(void *arg, struct proc *proc, const char *why)
{
	struct parent *parent = arg;

	if (proc == parent->vault) {
		vault_link_free(parent->vault_link);
		parent->vault_link = NULL;
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
		reload_adopt(parent);
	else if (proc == parent->gate && parent->reload.under_way)
		parent->reload.asker = 0;
	if (!parent->ready && ++parent->failures == FAILURES) {
		log_write(parent->log, LOG_LEVEL_ERROR, "cannot start: %s %s",
		    proc_role(proc), why);
		parent->code = 1;
		loop_stop(parent->loop);
	}
	send_facts(parent);
}

static void
start_gate(struct parent *parent)
{
	if (proc_start(parent->procs, "gate") == NULL) {
		parent->code = 1;
		loop_stop(parent->loop);
	}
}

/* Signals and the end --------------------------------------------------- */

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
	reload_begin(parent, 0);
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

	log_diags(parent, &diags);
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
		userland_stray(parent->host.userland, esp_stray, parent);
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
	if (parent_open(&parent) == OK)
		parent_serve(&parent);
	if (parent.gate_vault >= 0)
		close(parent.gate_vault);
	reload_end(&parent);
	kserve_free(parent.kserve);
	if (parent.host.control != NULL)
		host_close(&parent.host);
	policy_unref(parent.policy);
	setup_fini(&parent.setup);
	loop_free(parent.loop);
	return parent.code;
}
