/*
 * parent: the process that stays root.
 *
 * It reads ipsec.conf, opens the sockets and keeps them open for its lifetime,
 * starts and watches gate, vault and (for the userland data plane) esp, and
 * serves their requests to the data plane after checking them against the
 * loaded policy. It parses nothing that comes from the network, and no
 * secrets: the vault gets the open files.
 */
#ifndef DAEMON_PARENT_H
#define DAEMON_PARENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/log.h"

/* The command line. */
struct options {
	bool foreground, check, no_privsep;
	const char *conf, *secrets, *control, *user;
	bool secrets_given;     /* -s: must be there */
	const char *data_plane; /* "auto", "xfrm", "userland", "none" */
	enum log_level level;
	uint16_t ike_port, natt_port;
	unsigned threads;
	int ready; /* a pipe's end: one octet when the gate serves; or -1 */
};

/* Until SIGTERM or SIGINT. log is the sink of this process; what the children
 * get follows from options. Returns the exit code. */
int parent_run(const struct options *options, struct log *log);

#endif
