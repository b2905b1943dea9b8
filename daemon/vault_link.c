#include "daemon/vault_link.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/loop.h"
#include "conf/load.h"

/* Patterns of one load; each include is one. */
#define FETCHES_MAX 1024

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

/* Where the directory that path stands in ends: behind its last slash. */
static size_t
dir_len(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash + 1 - path) : 0;
}

/* A directory such as /etc holds other people's secrets as well: there, what
 * belongs to us has a directory of its own. */
static bool
is_shared(const char *path, size_t len)
{
	return len <= 1 ||
	       (len >= 5 && memcmp(path + len - 5, "/etc/", 5) == 0);
}

static bool
is_beneath(const struct vault_link *link, const char *path)
{
	static const char own[] = "ipsec.d/";
	size_t len = dir_len(link->path);

	if (strncmp(path, link->path, len) != 0 || (len == 0 && path[0] == '/'))
		return false;
	return !is_shared(link->path, len) ||
	       strncmp(path + len, own, strlen(own)) == 0;
}

/* Why the vault may not have this file, or NULL. It parses what others have
 * written, and must not turn into a reader of any file here. Takes patterns
 * too: what they match is looked at again. */
static const char *
forbidden(const struct vault_link *link, const char *path)
{
	size_t len = dir_len(path);

	if (strcmp(path, link->path) == 0)
		return NULL;
	if (strstr(path, "/../") || strncmp(path, "../", 3) == 0 ||
	    strcmp(path + len, "..") == 0)
		return "a path with .. in it";
	if (strcspn(path, "*?[") < len && access(path, F_OK) != 0)
		return "a pattern in the name of a directory";
	if (!is_beneath(link, path) && !strstr(path + len, ".secrets"))
		return "neither beside ipsec.secrets nor named *.secrets";
	return NULL;
}

/* Opens without looking inside. */
static enum err
send_file(struct vault_link *link, const char *path)
{
	const char *problem = forbidden(link, path);
	struct stat stat;
	enum err err;
	int fd;

	if (strlen(path) >= VAULTD_PATH)
		return OK; /* no such path can be opened */
	if (problem)
		return send_problem(link, path, problem);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return send_problem(link, path, strerror(errno));
	if (fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode)) {
		close(fd);
		return send_problem(link, path, "not a regular file");
	}
	/* The file itself was named by root; what it includes is the vault's
	 * word only. */
	if (strcmp(path, link->path) != 0 && stat.st_uid != 0 &&
	    stat.st_uid != geteuid()) {
		close(fd);
		return send_problem(link, path, "not owned by root");
	}
	err = ipc_send_fds(
	    link->ipc, VAULTD_FILE, link->serial, path, strlen(path), &fd, 1);
	close(fd);
	return err;
}

static enum err
send_files(struct vault_link *link, const char *pattern)
{
	const char *problem = forbidden(link, pattern);
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
	if (++link->fetches > FETCHES_MAX)
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
