/*
 * host: what has to be opened with privileges before anything else: the lock
 * against a second daemon, the control socket, IKE's sockets, the data plane.
 */
#ifndef DAEMON_HOST_H
#define DAEMON_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/log.h"
#include "common/net.h"

struct kserve_backend;
struct loop;

/* The command line. */
struct options {
	bool foreground, no_privsep;
	const char *conf, *secrets, *control, *user;
	const char *data_plane; /* "auto", "xfrm", "userland", "none" */
	enum log_level level;
	uint16_t ike_port, natt_port;
	unsigned threads; /* of gate's pool; 0: see workers_new() */
	int ready;        /* a pipe's end: one octet when all serves; or -1 */
};

struct host {
	const char *control; /* path of the control socket */
	int lock, listener;  /* -1: not open */
	struct net_sockets sockets;
	struct kserve_backend *backend; /* until somebody takes it */
	/* The same if it is kernel/userland's, also after it was taken; its
	 * process is still to be started. NULL: another. */
	struct kserve_backend *userland;
	const char *data_plane; /* what was chosen; static */
};

/* Opens everything. On failure says on log what is in the way, and nothing is
 * left open. */
enum err host_open(struct host *host, const struct options *options,
    struct loop *loop, struct log *log);
/* What is open still; removes the control socket's name. */
void host_close(struct host *host);

#endif
