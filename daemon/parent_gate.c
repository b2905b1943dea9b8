#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/parent_state.h"
#include "daemon/vault_link.h"
#include "kernel/userland.h"

#define UNREAD_MAX (256 << 10) /* octets before gate that it must read first */

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

void
parent_facts(struct parent *parent)
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
	parent_facts(parent);
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
	proc_detach(STDERR_FILENO);
}

enum err
parent_send_policy(struct parent *parent, uint64_t asker)
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
	struct parent *parent = arg;

	if (frame->serial == 0)
		return ERR_SYNTAX;
	/* Each answer takes a descriptor along. */
	if (ipc_unread(parent->gate_link) > UNREAD_MAX)
		parent_reload_refuse(
		    parent, frame->serial, "gate is busy with the last ones");
	else
		parent_reload(parent, frame->serial);
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

	/* A gate that was captured may have left them deaf. */
	net_sockets_hear_all(sockets);
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

void
parent_gate_started(struct parent *parent, int fd)
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
		parent_link_vault(parent);
	parent_give_vault(parent);
	parent_send_policy(parent, 0);
}
