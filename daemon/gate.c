#include "daemon/gate.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/engine.h"
#include "common/ipc.h"
#include "common/loop.h"
#include "common/policy.h"
#include "common/vault.h"
#include "daemon/gateway.h"
#include "daemon/proc.h"
#include "daemon/setup.h"
#include "kernel/kernel.h"
#include "kernel/remote.h"

#define CHANGES_TEXT 256

struct gate {
	struct log *log;
	struct loop *loop;
	struct ipc *parent;
	struct gateway *gateway; /* NULL until everything is there */
	struct gateway_config config;
	struct control_facts facts;
	int kernel_fd, vault_fd; /* -1: not come yet, or handed on */
	bool started;            /* PROC_START has come */
};

/* What control asks of the parent */

static void
ask_reload(void *arg, uint64_t serial)
{
	struct gate *gate = arg;

	if (ipc_send(gate->parent, PROC_RELOAD, serial, NULL, 0) != OK)
		control_reloaded(gate->gateway->control, serial, ERR_LIMIT,
		    "the parent process is busy");
}

static void
tell_level(void *arg, enum log_level level)
{
	struct gate *gate = arg;
	uint32_t value = level;

	ipc_send(gate->parent, PROC_LEVEL, 0, &value, sizeof(value));
}

/* Links ----------------------------------------------------------------- */

static void
vault_lost(struct env *env, enum err err, const char *why)
{
	const struct gateway *gateway = env->event_arg;

	if (gateway->ending)
		return;
	/* The parent sends a link to the next one; requests wait for it. */
	env_log(env, LOG_LEVEL_WARNING, "no vault for now: %s",
	    why != NULL ? why : err_text(err));
}

static void
kernel_closed(struct env *env, const char *why)
{
	struct gateway *gateway = env->event_arg;

	/* The parent is going, and we with it. */
	if (!gateway->ending)
		env_log(env, LOG_LEVEL_WARNING,
		    "the data plane's server is gone%s%s",
		    why != NULL ? ": " : "", why != NULL ? why : "");
	loop_stop(gateway->loop);
}

static void
parent_closed(void *arg, enum err err, const char *why)
{
	struct gate *gate = arg;

	if (err != ERR_IO)
		log_write(gate->log, LOG_LEVEL_ERROR,
		    "the link to the parent: %s", why);
	loop_stop(gate->loop);
}

/* Messages from the parent ---------------------------------------------- */

static enum err
handle_start(void *arg, const struct ipc_frame *frame)
{
	struct gate *gate = arg;
	struct net_sockets *sockets = &gate->config.sockets;
	int *const slot[PROC_SOCKETS] = {
		[PROC_SOCKET_IKE4] = &sockets->ike4,
		[PROC_SOCKET_IKE6] = &sockets->ike6,
		[PROC_SOCKET_NATT4] = &sockets->natt4,
		[PROC_SOCKET_NATT6] = &sockets->natt6,
		[PROC_SOCKET_PROBE4] = &sockets->probe4,
		[PROC_SOCKET_PROBE6] = &sockets->probe6,
		[PROC_SOCKET_CONTROL] = &gate->config.listener,
	};
	struct proc_start start;
	size_t at = 0;

	memcpy(&start, frame->body.at, sizeof(start));
	for (unsigned i = 0; i < PROC_SOCKETS; i++) {
		*slot[i] = -1;
		if ((start.sockets & 1u << i) == 0)
			continue;
		if (at == frame->fd_count)
			return ERR_SHORT;
		*slot[i] = ipc_keep_fd(frame, at++);
	}
	sockets->ike_port = start.ike_port;
	sockets->natt_port = start.natt_port;
	gate->config.threads = start.threads;
	gate->started = true;
	return OK;
}

static enum err
handle_kernel(void *arg, const struct ipc_frame *frame)
{
	struct gate *gate = arg;

	gate->kernel_fd = ipc_keep_fd(frame, 0);
	return OK;
}

static enum err
handle_vault(void *arg, const struct ipc_frame *frame)
{
	struct gate *gate = arg;
	int fd = ipc_keep_fd(frame, 0);
	enum err err;

	if (gate->gateway == NULL) {
		if (gate->vault_fd >= 0)
			close(gate->vault_fd);
		gate->vault_fd = fd;
		return OK;
	}
	err = vault_remote_relink(gate->gateway->env.vault, fd);
	if (err != OK)
		log_write(gate->log, LOG_LEVEL_ERROR,
		    "the new vault cannot be used: %s", err_text(err));
	return OK;
}

/* Everything is there: the gateway comes into being. */
static enum err
gate_open(struct gate *gate)
{
	struct gateway *gateway;
	struct env *env;
	enum err err;

	if (!gate->started || gate->kernel_fd < 0)
		return ERR_WRONG_STATE;
	err = gateway_new(&gateway, gate->loop, gate->log, &gate->config);
	if (err != OK)
		return err;
	gate->gateway = gateway;
	env = &gateway->env;
	env->kernel =
	    remote_new(env, gate->loop, gate->kernel_fd, kernel_closed);
	gate->kernel_fd = -1;
	env->vault =
	    vault_remote_new(env, gate->loop, gate->vault_fd, vault_lost);
	gate->vault_fd = -1;
	if (env->kernel == NULL || env->vault == NULL)
		return ERR_NOMEM;
	err = gateway_start(gateway, &gate->config);
	if (err == OK && gateway->control != NULL)
		control_facts(gateway->control, &gate->facts);
	return err;
}

static enum err
take_policy(struct gate *gate, int fd, char *text, size_t size)
{
	struct setup setup;
	struct policy *policy;
	enum err err = setup_receive(&setup, fd);

	if (err != OK)
		return err;
	policy = setup_policy(&setup);
	if (policy != NULL) {
		gateway_names(gate->gateway, setup.resolv, setup.hosts);
		gateway_policy(gate->gateway, policy, text, size);
		setup_warnings_text(&setup, text, size);
		policy_unref(policy);
	} else {
		err = ERR_NOMEM;
	}
	setup_fini(&setup);
	return err;
}

static enum err
handle_policy(void *arg, const struct ipc_frame *frame)
{
	struct gate *gate = arg;
	char text[CHANGES_TEXT] = "";
	bool first = gate->gateway == NULL;
	enum err err = OK;

	if (first)
		err = gate_open(gate);
	if (err == OK)
		err = take_policy(gate, frame->fds[0], text, sizeof(text));
	if (err != OK) {
		log_write(gate->log, LOG_LEVEL_ERROR,
		    "the configuration cannot be taken over: %s",
		    err_text(err));
		if (first) {
			loop_stop(gate->loop);
			return OK;
		}
	}
	if (frame->serial != 0 && gate->gateway->control != NULL)
		control_reloaded(gate->gateway->control, frame->serial, err,
		    err == OK ? text : err_text(err));
	if (first)
		ipc_send(gate->parent, PROC_READY, 0, NULL, 0);
	return OK;
}

static enum err
handle_facts(void *arg, const struct ipc_frame *frame)
{
	struct gate *gate = arg;

	memcpy(&gate->facts, frame->body.at, sizeof(gate->facts));
	if (gate->gateway != NULL && gate->gateway->control != NULL)
		control_facts(gate->gateway->control, &gate->facts);
	return OK;
}

static enum err
handle_reloaded(void *arg, const struct ipc_frame *frame)
{
	struct gate *gate = arg;
	char text[PROC_TEXT + 1];

	if (gate->gateway == NULL || gate->gateway->control == NULL)
		return OK;
	memcpy(text, frame->body.at, frame->body.len);
	text[frame->body.len] = '\0';
	control_reloaded(
	    gate->gateway->control, frame->serial, ERR_SYNTAX, text);
	return OK;
}

static void
shut_down(void *arg)
{
	struct gate *gate = arg;

	ipc_send(gate->parent, PROC_DONE, 0, NULL, 0);
}

static enum err
handle_shutdown(void *arg, const struct ipc_frame *frame)
{
	struct gate *gate = arg;
	uint32_t limit_ms;

	memcpy(&limit_ms, frame->body.at, sizeof(limit_ms));
	if (gate->gateway == NULL)
		shut_down(gate);
	else
		keeper_shutdown(
		    gate->gateway->keeper, limit_ms, shut_down, gate);
	return OK;
}

static enum err
handle_level(void *arg, const struct ipc_frame *frame)
{
	struct gate *gate = arg;
	uint32_t level;

	memcpy(&level, frame->body.at, sizeof(level));
	if (level > LOG_LEVEL_DEBUG)
		return ERR_SYNTAX;
	gate->log->level = (enum log_level)level;
	return OK;
}

/* Came to the other socket of the NAT-T port; without its marker. */
static enum err
handle_stray(void *arg, const struct ipc_frame *frame)
{
	struct gate *gate = arg;
	struct packet packet = { .natt = true, .octets = frame->body };
	struct proc_stray from;

	if (!view_copy(&packet.octets, &from, sizeof(from)))
		return ERR_SHORT;
	packet.local = from.local;
	packet.remote = from.remote;
	if (gate->gateway != NULL)
		engine_dispatch(&gate->gateway->env, &packet);
	return OK;
}

static const struct ipc_permit rows[] = {
	{ PROC_START, IPC_IN | IPC_FD | IPC_ONCE, sizeof(struct proc_start),
	    sizeof(struct proc_start), 0, handle_start },
	{ PROC_KERNEL, IPC_IN | IPC_FD | IPC_ONCE, 0, 0, 0, handle_kernel },
	{ PROC_VAULT, IPC_IN | IPC_FD, 0, 0, 0, handle_vault },
	{ PROC_POLICY, IPC_IN | IPC_FD, 0, 0, 0, handle_policy },
	{ PROC_FACTS, IPC_IN, sizeof(struct control_facts),
	    sizeof(struct control_facts), 0, handle_facts },
	{ PROC_RELOADED, IPC_IN, 0, PROC_TEXT, 0, handle_reloaded },
	{ PROC_SHUTDOWN, IPC_IN, sizeof(uint32_t), sizeof(uint32_t), 0,
	    handle_shutdown },
	{ PROC_STRAY, IPC_IN, sizeof(struct proc_stray), IPC_BODY, 0,
	    handle_stray },
	{ PROC_LEVEL, IPC_IN | IPC_OUT, sizeof(uint32_t), sizeof(uint32_t), 0,
	    handle_level },
	{ PROC_READY, IPC_OUT, 0, 0, 0, NULL },
	{ PROC_RELOAD, IPC_OUT, 0, 0, 0, NULL },
	{ PROC_DONE, IPC_OUT, 0, 0, 0, NULL },
};

int
gate_run(struct log *log)
{
	struct gate gate = { .log = log, .kernel_fd = -1, .vault_fd = -1 };
	int code = 1;

	gate.config.listener = -1;
	gate.config.host.reload = ask_reload;
	gate.config.host.log_level = tell_level;
	gate.config.host.arg = &gate;
	gate.loop = loop_new();
	if (gate.loop == NULL)
		return code;
	gate.parent = ipc_new(gate.loop, PROC_FD, rows,
	    sizeof(rows) / sizeof(rows[0]), parent_closed, &gate);
	if (gate.parent != NULL) {
		loop_run(gate.loop);
		code = 0;
	}
	gateway_free(gate.gateway);
	if (gate.kernel_fd >= 0)
		close(gate.kernel_fd);
	if (gate.vault_fd >= 0)
		close(gate.vault_fd);
	ipc_free(gate.parent);
	loop_free(gate.loop);
	return code;
}
