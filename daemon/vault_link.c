#include "daemon/vault_link.h"

#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/loop.h"
#include "conf/load.h"
#include "conf/secretpath.h"

/* Patterns of one load; each include is one. */
#define FETCHES_MAX 1024
#define UNREAD_MAX  (64 << 10) /* octets before the vault when it asks */

enum link_state { LINK_IDLE, LINK_LOADING };

struct vault_link {
	struct ipc *ipc;
	struct vault_link_events events;
	char *path;
	uint64_t serial;  /* of the last load */
	unsigned pending; /* loads not answered */
	unsigned fetches; /* of the last load */
};

static enum err
send_problem(struct vault_link *link, const char *path, const char *problem)
{
	char text[VAULTD_PATH + 256];
	size_t path_len = strlen(path), len = strlen(problem);

	if (path_len >= VAULTD_PATH || len > 255)
		return ERR_LONG;
	memcpy(text, path, path_len + 1);
	memcpy(text + path_len + 1, problem, len);
	return ipc_send(
	    link->ipc, VAULTD_PROBLEM, link->serial, text, path_len + 1 + len);
}

/* Opens without looking inside. */
static enum err
send_file(struct vault_link *link, const char *path)
{
	const char *problem;
	enum err err;
	int fd;

	if (strlen(path) >= VAULTD_PATH)
		return OK; /* no such path can be opened */
	fd = secretpath_open(link->path, path, &problem);
	if (fd < 0)
		return send_problem(link, path, problem);
	err = ipc_send_fds(
	    link->ipc, VAULTD_FILE, link->serial, path, strlen(path), &fd, 1);
	close(fd);
	return err;
}

static enum err
send_files(struct vault_link *link, const char *pattern)
{
	const char *problem = secretpath_problem(link->path, pattern);
	glob_t found = { 0 };
	enum err err = OK;
	size_t i;

	if (problem)
		return send_problem(link, pattern, problem);
	if (!strpbrk(pattern, "*?[") || access(pattern, F_OK) == 0)
		return send_file(link, pattern);
	if (glob(pattern, 0, NULL, &found) != 0)
		return OK; /* nothing matches */
	for (i = 0; i < found.gl_pathc && i < BUNDLE_FILES && !err; i++)
		err = send_file(link, found.gl_pathv[i]);
	globfree(&found);
	return err;
}

static enum err
on_fetch(void *arg, const struct ipc_frame *frame)
{
	struct vault_link *link = arg;
	char pattern[VAULTD_PATH] = "";
	enum err err;

	if (memchr(frame->body.at, 0, frame->body.len))
		return ERR_SYNTAX;
	if (frame->serial != link->serial)
		return OK; /* of a load that was given up */
	memcpy(pattern, frame->body.at, frame->body.len);
	/* It has read the last answer before it asks again. */
	if (++link->fetches > FETCHES_MAX || ipc_unread(link->ipc) > UNREAD_MAX)
		err = send_problem(link, pattern, "too many files");
	else
		err = send_files(link, pattern);
	if (err)
		err = send_problem(link, "", err_text(err));
	if (err)
		return err;
	return ipc_send(link->ipc, VAULTD_FETCHED, link->serial, NULL, 0);
}

static enum err
on_loaded(void *arg, const struct ipc_frame *frame)
{
	struct vault_link *link = arg;
	struct vaultd_loaded loaded;

	memcpy(&loaded, frame->body.at, sizeof(loaded));
	if (loaded.err >= ERR_COUNT || loaded.text_len >= sizeof(loaded.text))
		return ERR_SYNTAX;
	loaded.text[loaded.text_len] = '\0';
	if (--link->pending == 0)
		ipc_state(link->ipc, LINK_IDLE);
	link->events.loaded(link->events.arg, frame->serial, &loaded);
	return OK;
}

static enum err
on_broken(void *arg, const struct ipc_frame *frame)
{
	struct vault_link *link = arg;

	(void)frame;
	link->events.broken(link->events.arg);
	return OK;
}

static const struct ipc_permit rows[] = {
	{ VAULTD_GATE, IPC_OUT | IPC_FD, 0, 0, 0, NULL },
	{ VAULTD_LOAD, IPC_OUT, 1, VAULTD_PATH - 1, 0, NULL },
	{ VAULTD_FILE, IPC_OUT | IPC_FD, 1, VAULTD_PATH - 1, 0, NULL },
	{ VAULTD_PROBLEM, IPC_OUT, 1, VAULTD_PATH + 255, 0, NULL },
	{ VAULTD_FETCHED, IPC_OUT, 0, 0, 0, NULL },
	{ VAULTD_LEVEL, IPC_OUT, 4, 4, 0, NULL },
	{ VAULTD_FETCH, IPC_IN, 1, VAULTD_PATH - 1, 1u << LINK_LOADING,
	    on_fetch },
	{ VAULTD_LOADED, IPC_IN, sizeof(struct vaultd_loaded),
	    sizeof(struct vaultd_loaded), 1u << LINK_LOADING, on_loaded },
	{ VAULTD_BROKEN, IPC_IN, 0, 0, 0, on_broken },
};

static void
on_closed(void *arg, enum err err, const char *why)
{
	struct vault_link *link = arg;

	link->events.closed(link->events.arg, err, why);
}

struct vault_link *
vault_link_new(struct loop *loop, int fd, const char *path,
    const struct vault_link_events *events)
{
	struct vault_link *link = calloc(1, sizeof(*link));

	if (link)
		link->path = strdup(path);
	if (!link || !link->path) {
		free(link);
		close(fd);
		return NULL;
	}
	link->events = *events;
	link->ipc = ipc_new(
	    loop, fd, rows, sizeof(rows) / sizeof(rows[0]), on_closed, link);
	if (!link->ipc) {
		free(link->path);
		free(link);
		return NULL;
	}
	return link;
}

void
vault_link_free(struct vault_link *link)
{
	if (!link)
		return;
	ipc_free(link->ipc);
	free(link->path);
	free(link);
}

enum err
vault_link_load(struct vault_link *link, uint64_t serial)
{
	enum err err = ipc_send(
	    link->ipc, VAULTD_LOAD, serial, link->path, strlen(link->path));

	if (err)
		return err;
	link->serial = serial;
	link->fetches = 0;
	link->pending++;
	ipc_state(link->ipc, LINK_LOADING);
	return OK;
}

enum err
vault_link_gate(struct vault_link *link, int fd)
{
	return ipc_send_fds(link->ipc, VAULTD_GATE, 0, NULL, 0, &fd, 1);
}

enum err
vault_link_level(struct vault_link *link, enum log_level level)
{
	uint32_t octets = level;

	return ipc_send(link->ipc, VAULTD_LEVEL, 0, &octets, sizeof(octets));
}
