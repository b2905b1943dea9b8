/*
 * single: the whole gateway in one process (--no-privsep), through the same
 * interfaces, for debuggers and simulations. No privilege is given up.
 */
#ifndef DAEMON_SINGLE_H
#define DAEMON_SINGLE_H

#include "common/log.h"

struct options;

/* Until SIGTERM or SIGINT. Returns the exit code. */
int single_run(const struct options *options, struct log *log);

#endif
