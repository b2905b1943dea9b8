/*
 * gate: the process that talks to the network: both engines, the SA database
 * and the control socket; no privileges, no files, no long-term secrets.
 */
#ifndef DAEMON_GATE_H
#define DAEMON_GATE_H

#include "common/log.h"

/* Serves on the link PROC_FD until the parent ends it. Confined already.
 * Returns the exit code. */
int gate_run(struct log *log);

#endif
