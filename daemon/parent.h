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

#include "common/log.h"

struct options;

/* Until SIGTERM or SIGINT. log is the sink of this process; what the children
 * get follows from options. Returns the exit code. */
int parent_run(const struct options *options, struct log *log);

#endif
