#include "daemon/host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/env.h"
#include "kernel/kserve.h"
#include "kernel/none.h"
#include "kernel/route.h"
#include "kernel/userland.h"
#include "kernel/xfrm.h"

#define LISTEN_QUEUE 64
#define WHY_MAX      256

/* One daemon for one control socket. The lock's file stays: to remove it would
 * let two daemons lock two files of one name. */
static enum err
open_lock(struct host *host, struct log *log)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 8];
	char pid[16] = "";
	ssize_t len;

	snprintf(path, sizeof(path), "%s.lock", host->control);
	host->lock =
	    open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (host->lock < 0) {
		log_write(
		    log, LOG_LEVEL_ERROR, "%s: %s", path, strerror(errno));
		return ERR_IO;
	}
	if (flock(host->lock, LOCK_EX | LOCK_NB) != 0) {
		len = pread(host->lock, pid, sizeof(pid) - 1, 0);
		if (len > 0)
			pid[strspn(pid, "0123456789")] = '\0';
		log_write(log, LOG_LEVEL_ERROR,
		    "another orthrusd (process %s) holds %s", pid, path);
		return ERR_EXISTS;
	}
	len = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(host->lock, 0) != 0 ||
	    pwrite(host->lock, pid, (size_t)len, 0) != len) {
		log_write(
		    log, LOG_LEVEL_ERROR, "%s: %s", path, strerror(errno));
		return ERR_IO;
	}
	return OK;
}

/* A socket that a dead daemon left is removed: we hold the lock. */
static enum err
open_control(struct host *host, struct log *log)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	struct stat stat;
	mode_t mask;
	int failed;

	memcpy(name.sun_path, host->control, strlen(host->control));
	if (lstat(host->control, &stat) == 0) {
		if (!S_ISSOCK(stat.st_mode)) {
			log_write(log, LOG_LEVEL_ERROR,
			    "%s is there and is no socket", host->control);
			return ERR_EXISTS;
		}
		unlink(host->control);
	}
	host->listener =
	    socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	mask = umask(0177);
	failed =
	    host->listener < 0 ||
	    bind(host->listener, (struct sockaddr *)&name, sizeof(name)) != 0 ||
	    listen(host->listener, LISTEN_QUEUE) != 0;
	umask(mask);
	if (failed) {
		log_write(log, LOG_LEVEL_ERROR, "%s: %s", host->control,
		    strerror(errno));
		return ERR_IO;
	}
	return OK;
}

/* After IKE's: the order in the group of the NAT-T port counts. */
static enum err
open_userland_sockets(struct host *host, struct log *log)
{
	char why[WHY_MAX] = "";
	enum err err = userland_sockets(host->userland, host->sockets.natt_port,
	    host->sockets.natt4 >= 0, host->sockets.natt6 >= 0, why,
	    sizeof(why));

	if (err != OK)
		log_write(log, LOG_LEVEL_ERROR, "data plane userland: %s", why);
	return err;
}

static enum err
open_sockets(struct host *host, const struct options *options, struct log *log)
{
	bool root = geteuid() == 0, xfrm = false;
	struct net_listen listen = {
		.ike_port = options->ike_port,
		.natt_port = options->natt_port,
	};
	const char *what = "";
	enum err err;

	xfrm = strcmp(host->data_plane, "xfrm") == 0;
	listen.encap = xfrm;
	listen.bypass = root;
	listen.share = host->userland != NULL;
	listen.mark = host->userland != NULL ? ROUTE_MARK : 0;
	err = net_sockets_open(&host->sockets, &listen, &what);
	if (err != OK)
		log_write(log, LOG_LEVEL_ERROR,
		    "sockets for ports %u and %u: %s: %s%s", options->ike_port,
		    options->natt_port, what, strerror(errno),
		    errno == EADDRINUSE
		        ? " (another IKE daemon runs: stop it first, such as "
		          "strongswan, strongswan-starter or ipsec)"
		        : "");
	if (err == OK && host->userland != NULL)
		err = open_userland_sockets(host, log);
	return err;
}

static enum err
open_xfrm(struct host *host, const struct options *options, struct loop *loop,
    struct log *log)
{
	char why[WHY_MAX] = "";

	/* A module that does it may still be loaded. */
	if (strcmp(options->data_plane, "xfrm") == 0 &&
	    !xfrm_probe(why, sizeof(why)))
		log_write(log, LOG_LEVEL_WARNING,
		    "data plane xfrm: no child SA will come up: %s", why);
	host->backend = xfrm_new(loop, log, why, sizeof(why));
	if (host->backend == NULL) {
		log_write(log, LOG_LEVEL_ERROR, "data plane xfrm: %s", why);
		return ERR_IO;
	}
	host->data_plane = "xfrm";
	return OK;
}

static enum err
open_userland(struct host *host, const struct options *options,
    struct loop *loop, struct log *log)
{
	char why[WHY_MAX] = "";

	(void)options;
	host->backend =
	    userland_new(loop, log, env_random_openssl, NULL, why, sizeof(why));
	if (host->backend == NULL) {
		log_write(log, LOG_LEVEL_ERROR, "data plane userland: %s%s",
		    why,
		    access("/dev/net/tun", F_OK) != 0
		        ? " (modprobe tun; a container must be given it)"
		        : "");
		return ERR_IO;
	}
	host->userland = host->backend;
	host->data_plane = "userland";
	return OK;
}

static enum err
open_none(struct host *host, const struct options *options, struct loop *loop,
    struct log *log)
{
	(void)options;
	(void)loop;
	host->backend = none_new(env_random_openssl, NULL);
	if (host->backend == NULL)
		return ERR_NOMEM;
	host->data_plane = "none";
	log_write(log, LOG_LEVEL_WARNING,
	    "data plane none: SAs are negotiated, but no traffic passes");
	return OK;
}

static const struct plane {
	const char *name;
	enum err (*open)(struct host *host, const struct options *options,
	    struct loop *loop, struct log *log);
} planes[] = {
	{ "xfrm", open_xfrm },
	{ "userland", open_userland },
	{ "none", open_none },
};

static enum err
open_plane(struct host *host, const struct options *options, struct loop *loop,
    struct log *log)
{
	const char *wanted = options->data_plane;
	char why[WHY_MAX] = "";

	if (strcmp(wanted, "auto") == 0) {
		wanted = xfrm_probe(why, sizeof(why)) ? "xfrm" : "userland";
		log_write(log, LOG_LEVEL_INFO, "data plane: %s%s%s", wanted,
		    why[0] != '\0' ? ": " : "", why);
	}
	for (size_t i = 0; i < sizeof(planes) / sizeof(planes[0]); i++)
		if (strcmp(planes[i].name, wanted) == 0)
			return planes[i].open(host, options, loop, log);
	log_write(log, LOG_LEVEL_ERROR, "there is no data plane %s", wanted);
	return ERR_UNSUPPORTED;
}

static void
clear(struct host *host)
{
	memset(host, 0, sizeof(*host));
	host->lock = host->listener = -1;
	host->sockets.ike4 = host->sockets.ike6 = -1;
	host->sockets.natt4 = host->sockets.natt6 = -1;
	host->sockets.probe4 = host->sockets.probe6 = -1;
}

enum err
host_open(struct host *host, const struct options *options, struct loop *loop,
    struct log *log)
{
	enum err err;

	clear(host);
	host->control = options->control;
	if (strlen(options->control) >=
	    sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
		log_write(log, LOG_LEVEL_ERROR,
		    "%s is too long for a socket's name", options->control);
		return ERR_LONG;
	}
	err = open_lock(host, log);
	/* Before the control socket: what follows belongs to the lock's
	 * holder. */
	if (err == OK)
		err = open_plane(host, options, loop, log);
	if (err == OK)
		err = open_sockets(host, options, log);
	if (err == OK)
		err = open_control(host, log);
	if (err != OK && geteuid() != 0)
		log_write(log, LOG_LEVEL_ERROR, "orthrusd is started by root");
	if (err != OK)
		host_close(host);
	return err;
}

void
host_close(struct host *host)
{
	if (host->backend != NULL)
		host->backend->ops->free(host->backend);
	net_sockets_close(&host->sockets);
	if (host->listener >= 0) {
		close(host->listener);
		unlink(host->control);
	}
	if (host->lock >= 0)
		close(host->lock);
	clear(host);
}
