#include "daemon/vaultd.h"

#include <stdlib.h>
#include <string.h>

#include "common/env.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/vaultmsg.h"
#include "conf/secrets.h"
#include "daemon/keyring.h"

/* How long IKEv1 handshakes may go on with the secrets before a reload. */
#define FORGET_MS 60000

struct vaultd {
	struct log *log;
	struct loop *loop;
	struct ipc *parent, *gate; /* gate may be NULL */
	struct keyring *keyring;
	struct timer forget;
	int exit_code;

	/* A load under way. */
	bool loading;
	uint64_t serial;
	uint32_t generation;
	size_t in_force; /* secrets */
	struct bundle bundle;
	char path[VAULTD_PATH];
	char fetching[VAULTD_PATH]; /* the pattern that the parent looks up */
	bool fetched_any;
};

/* Without memory nothing can be answered, and nobody asks a second time: but
 * the next vault is asked again by itself. */
static void
give_up(struct vaultd *vaultd)
{
	log_write(vaultd->log, LOG_LEVEL_ERROR,
	    "vault: the gate cannot be answered: %s", err_text(ERR_NOMEM));
	vaultd->exit_code = 1;
	loop_stop(vaultd->loop);
}

/* Requests of the gate ----------------------------------------------------- */

/* An honest gate never asks for more than the queue takes: whoever does loses
 * its link. */
static enum err
answer_gate(struct vaultd *vaultd, uint16_t type, uint64_t serial,
    const void *body, size_t len)
{
	enum err err = ipc_send(vaultd->gate, type, serial, body, len);

	if (err == ERR_NOMEM)
		give_up(vaultd);
	return err == ERR_LIMIT ? err : OK;
}

static enum err
on_psk_auth(void *arg, const struct ipc_frame *frame)
{
	struct vaultd *vaultd = arg;
	struct vault_psk_auth ask;
	struct vaultmsg_psk_auth answer = { 0 };
	enum err err;

	err = vaultmsg_get_psk_auth(frame->body, &ask);
	if (err)
		return err;
	answer.err = keyring_psk_auth(vaultd->keyring, &ask, &answer.answer);
	vaultmsg_done(ask.local, ask.remote);
	return answer_gate(vaultd, VAULT_PSK_AUTH_ANSWER, frame->serial,
	    &answer, sizeof(answer));
}

static enum err
on_nonces(void *arg, const struct ipc_frame *frame)
{
	struct vaultd *vaultd = arg;
	struct vaultmsg_nonces answer = { 0 };
	uint32_t wanted;
	enum err err;

	memcpy(&wanted, frame->body.at, sizeof(wanted));
	if (wanted < 1 || wanted > VAULTMSG_NONCES)
		return ERR_SYNTAX;
	while (answer.count < wanted && !answer.err) {
		answer.err =
		    keyring_nonce(vaultd->keyring, &answer.item[answer.count]);
		if (!answer.err)
			answer.count++;
	}
	err = answer_gate(vaultd, VAULT_NONCES_ANSWER, frame->serial, &answer,
	    offsetof(struct vaultmsg_nonces, item) +
	        answer.count * sizeof(answer.item[0]));
	mem_wipe(&answer, sizeof(answer));
	return err;
}

static enum err
on_nonce_drop(void *arg, const struct ipc_frame *frame)
{
	struct vaultd *vaultd = arg;
	uint64_t handle;

	memcpy(&handle, frame->body.at, sizeof(handle));
	keyring_nonce_drop(vaultd->keyring, handle);
	return OK;
}

static enum err
on_skeyid(void *arg, const struct ipc_frame *frame)
{
	struct vaultd *vaultd = arg;
	struct vault_skeyid ask;
	struct vaultmsg_skeyid answer = { 0 };
	enum err err;

	err = vaultmsg_get_skeyid(frame->body, &ask);
	if (err)
		return err;
	answer.err = keyring_skeyid(vaultd->keyring, &ask, &answer.answer);
	vaultmsg_done(ask.local, ask.remote);
	err = answer_gate(vaultd, VAULT_SKEYID_ANSWER, frame->serial, &answer,
	    sizeof(answer));
	mem_wipe(&answer, sizeof(answer));
	return err;
}

static enum err
on_permits(void *arg, const struct ipc_frame *frame)
{
	struct vaultd *vaultd = arg;
	struct vault_permits ask;
	uint32_t answer;
	enum err err;

	err = vaultmsg_get_permits(frame->body, &ask);
	if (err)
		return err;
	answer = keyring_permits(vaultd->keyring, &ask);
	vaultmsg_done(ask.local, ask.remote);
	return answer_gate(vaultd, VAULT_PERMITS_ANSWER, frame->serial, &answer,
	    sizeof(answer));
}

static const struct ipc_permit gate_rows[] = {
	{ VAULT_PSK_AUTH, IPC_IN, 1, VAULTMSG_MAX, 0, on_psk_auth },
	{ VAULT_PSK_AUTH_ANSWER, IPC_OUT, sizeof(struct vaultmsg_psk_auth),
	    sizeof(struct vaultmsg_psk_auth), 0, NULL },
	{ VAULT_NONCES, IPC_IN, 4, 4, 0, on_nonces },
	{ VAULT_NONCES_ANSWER, IPC_OUT, offsetof(struct vaultmsg_nonces, item),
	    sizeof(struct vaultmsg_nonces), 0, NULL },
	{ VAULT_NONCE_DROP, IPC_IN, 8, 8, 0, on_nonce_drop },
	{ VAULT_SKEYID, IPC_IN, 1, VAULTMSG_ENDS + 256 + 16, 0, on_skeyid },
	{ VAULT_SKEYID_ANSWER, IPC_OUT, sizeof(struct vaultmsg_skeyid),
	    sizeof(struct vaultmsg_skeyid), 0, NULL },
	{ VAULT_PERMITS, IPC_IN, 1, VAULTMSG_ENDS + 16, 0, on_permits },
	{ VAULT_PERMITS_ANSWER, IPC_OUT, 4, 4, 0, NULL },
};

static void
on_gate_closed(void *arg, enum err err, const char *why)
{
	struct vaultd *vaultd = arg;

	/* The parent sees the gate die, and sends a link to the next one. */
	if (err != ERR_IO) {
		log_write(vaultd->log, LOG_LEVEL_ERROR,
		    "vault: the gate sent %s: its link is closed", why);
		(void)ipc_send(vaultd->parent, VAULTD_BROKEN, 0, NULL, 0);
	}
	ipc_free(vaultd->gate);
	vaultd->gate = NULL;
}

static enum err
on_gate(void *arg, const struct ipc_frame *frame)
{
	struct vaultd *vaultd = arg;

	if (frame->fd_count != 1)
		return ERR_SYNTAX;
	ipc_free(vaultd->gate);
	vaultd->gate = ipc_new(vaultd->loop, ipc_keep_fd(frame, 0), gate_rows,
	    sizeof(gate_rows) / sizeof(gate_rows[0]), on_gate_closed, vaultd);
	if (!vaultd->gate)
		give_up(vaultd);
	return OK;
}

/* Loading secrets ----------------------------------------------------------
 * The parser is run until no text is missing: each run asks for the first one
 * that is, and the parent opens it. */

static void
load_end(struct vaultd *vaultd)
{
	if (!vaultd->loading)
		return;
	bundle_fini(&vaultd->bundle);
	vaultd->loading = false;
}

static void
loaded_text(struct vaultd_loaded *loaded, const struct diags *diags)
{
	size_t i, len = 0, room;

	for (i = 0; i < diags->count; i++) {
		char line[512];

		diag_text(&diags->item[i], line, sizeof(line));
		room = sizeof(loaded->text) - len;
		if (strlen(line) + 1 > room)
			break;
		memcpy(loaded->text + len, line, strlen(line));
		len += strlen(line);
		loaded->text[len++] = '\n';
	}
	loaded->text_len = (uint32_t)(len ? len - 1 : 0);
}

static void
load_report(struct vaultd *vaultd, enum err err, size_t count,
    const struct diags *diags)
{
	struct vaultd_loaded loaded = { .err = err, .count = (uint32_t)count };

	if (diags) {
		loaded.errors = (uint32_t)diags->errors;
		loaded.warnings = (uint32_t)diags->warnings;
		loaded_text(&loaded, diags);
	}
	if (ipc_send(vaultd->parent, VAULTD_LOADED, vaultd->serial, &loaded,
	        sizeof(loaded)) != OK)
		log_write(vaultd->log, LOG_LEVEL_ERROR,
		    "vault: cannot tell the parent about the secrets");
}

/* The parser wants a text that is not here. False: it will never come. */
static bool
load_fetch(struct vaultd *vaultd)
{
	const char *missing = vaultd->bundle.missing;
	size_t len = strlen(missing);

	/* What was looked up once is remembered: the same again would be an
	 * endless loop. */
	if (len == 0 || len >= sizeof(vaultd->fetching) ||
	    strcmp(missing, vaultd->fetching) == 0)
		return false;
	memcpy(vaultd->fetching, missing, len + 1);
	vaultd->fetched_any = false;
	return ipc_send(vaultd->parent, VAULTD_FETCH, vaultd->serial, missing,
	           len) == OK;
}

static void
load_go(struct vaultd *vaultd)
{
	struct diags diags = { 0 };
	struct secrets *secrets;
	enum err err = OK;
	size_t count;

	secrets = secrets_load(
	    &vaultd->bundle, vaultd->path, vaultd->generation, &diags);
	if (!secrets && vaultd->bundle.missing && load_fetch(vaultd)) {
		diags_fini(&diags);
		return;
	}
	count = secrets ? secrets_count(secrets) : 0;
	if (!secrets) {
		err = vaultd->bundle.missing ? ERR_BUG : ERR_NOMEM;
	} else if (diags.errors && vaultd->in_force) {
		/* A slip of the pen must not cost a key that was in use: all
		 * that was in force stays. */
		secrets_unref(secrets);
		err = ERR_SYNTAX;
	} else {
		keyring_use(vaultd->keyring, secrets);
		vaultd->in_force = count;
		timer_set(
		    loop_timers(vaultd->loop), &vaultd->forget, FORGET_MS);
	}
	load_report(vaultd, err, count, &diags);
	diags_fini(&diags);
	load_end(vaultd);
}

static enum err
on_load(void *arg, const struct ipc_frame *frame)
{
	struct vaultd *vaultd = arg;

	if (memchr(frame->body.at, 0, frame->body.len))
		return ERR_SYNTAX;
	if (vaultd->loading)
		load_report(vaultd, ERR_CANCELLED, 0, NULL);
	load_end(vaultd);
	memset(vaultd->path, 0, sizeof(vaultd->path));
	memcpy(vaultd->path, frame->body.at, frame->body.len);
	vaultd->fetching[0] = '\0';
	vaultd->serial = frame->serial;
	vaultd->generation++;
	bundle_init(&vaultd->bundle, NULL, NULL);
	vaultd->loading = true;
	load_go(vaultd);
	return OK;
}

/* Does this frame answer what we are waiting for? Answers to a load that was
 * given up may still come. */
static bool
expected(const struct vaultd *vaultd, const struct ipc_frame *frame)
{
	return vaultd->loading && frame->serial == vaultd->serial &&
	       vaultd->fetching[0];
}

static enum err
on_file(void *arg, const struct ipc_frame *frame)
{
	struct vaultd *vaultd = arg;
	char path[VAULTD_PATH] = "";

	if (frame->fd_count != 1 || memchr(frame->body.at, 0, frame->body.len))
		return ERR_SYNTAX;
	if (!expected(vaultd, frame))
		return OK;
	memcpy(path, frame->body.at, frame->body.len);
	vaultd->fetched_any = true;
	if (bundle_add_fd(
	        &vaultd->bundle, vaultd->fetching, path, frame->fds[0]) != OK)
		log_write(vaultd->log, LOG_LEVEL_ERROR,
		    "vault: no memory for %s", path);
	return OK;
}

static enum err
on_problem(void *arg, const struct ipc_frame *frame)
{
	struct vaultd *vaultd = arg;
	char text[VAULTD_PATH + 256] = "";
	const char *problem;

	memcpy(text, frame->body.at, frame->body.len);
	problem = memchr(text, 0, frame->body.len);
	if (!problem || strlen(problem + 1) !=
	                    frame->body.len - (size_t)(problem + 1 - text))
		return ERR_SYNTAX;
	if (!expected(vaultd, frame))
		return OK;
	vaultd->fetched_any = true;
	if (bundle_add_problem(
	        &vaultd->bundle, vaultd->fetching, text, problem + 1) != OK)
		log_write(vaultd->log, LOG_LEVEL_ERROR,
		    "vault: no memory for %s", text);
	return OK;
}

static enum err
on_fetched(void *arg, const struct ipc_frame *frame)
{
	struct vaultd *vaultd = arg;

	if (!expected(vaultd, frame))
		return OK;
	/* Nothing matched: remembered as such. */
	if (!vaultd->fetched_any)
		(void)bundle_add_problem(
		    &vaultd->bundle, vaultd->fetching, "", "");
	load_go(vaultd);
	return OK;
}

static enum err
on_level(void *arg, const struct ipc_frame *frame)
{
	struct vaultd *vaultd = arg;
	uint32_t level;

	memcpy(&level, frame->body.at, sizeof(level));
	if (level > LOG_LEVEL_DEBUG)
		return ERR_SYNTAX;
	vaultd->log->level = (enum log_level)level;
	return OK;
}

/* The process -------------------------------------------------------------- */

static const struct ipc_permit parent_rows[] = {
	{ VAULTD_GATE, IPC_IN | IPC_FD, 0, 0, 0, on_gate },
	{ VAULTD_LOAD, IPC_IN, 1, VAULTD_PATH - 1, 0, on_load },
	{ VAULTD_FILE, IPC_IN | IPC_FD, 1, VAULTD_PATH - 1, 0, on_file },
	{ VAULTD_PROBLEM, IPC_IN, 1, VAULTD_PATH + 255, 0, on_problem },
	{ VAULTD_FETCHED, IPC_IN, 0, 0, 0, on_fetched },
	{ VAULTD_LEVEL, IPC_IN, 4, 4, 0, on_level },
	{ VAULTD_FETCH, IPC_OUT, 1, VAULTD_PATH - 1, 0, NULL },
	{ VAULTD_LOADED, IPC_OUT, sizeof(struct vaultd_loaded),
	    sizeof(struct vaultd_loaded), 0, NULL },
	{ VAULTD_BROKEN, IPC_OUT, 0, 0, 0, NULL },
};

static void
on_parent_closed(void *arg, enum err err, const char *why)
{
	struct vaultd *vaultd = arg;

	if (err != ERR_IO) {
		log_write(vaultd->log, LOG_LEVEL_ERROR,
		    "vault: the parent sent %s", why);
		vaultd->exit_code = 1;
	}
	loop_stop(vaultd->loop);
}

static void
forget(void *arg)
{
	struct vaultd *vaultd = arg;

	keyring_forget(vaultd->keyring);
}

int
vaultd_run(struct log *log, int fd)
{
	struct vaultd *vaultd = calloc(1, sizeof(*vaultd));
	int exit_code = 1;

	if (!vaultd)
		return 1;
	vaultd->log = log;
	timer_init(&vaultd->forget, forget, vaultd);
	vaultd->loop = loop_new();
	vaultd->keyring = keyring_new(env_random_openssl, NULL);
	if (vaultd->loop && vaultd->keyring)
		vaultd->parent = ipc_new(vaultd->loop, fd, parent_rows,
		    sizeof(parent_rows) / sizeof(parent_rows[0]),
		    on_parent_closed, vaultd);
	if (vaultd->parent) {
		loop_run(vaultd->loop);
		exit_code = vaultd->exit_code;
	} else {
		log_write(log, LOG_LEVEL_ERROR, "vault: cannot start");
	}
	load_end(vaultd);
	ipc_free(vaultd->gate);
	ipc_free(vaultd->parent);
	keyring_free(vaultd->keyring);
	loop_free(vaultd->loop);
	mem_wipe(vaultd, sizeof(*vaultd));
	free(vaultd);
	return exit_code;
}
