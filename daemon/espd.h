/*
 * espd: the process of the userland data plane (kernel/plane): no privileges,
 * no files, seccomp. Its TUN device and sockets come open over its link, and so
 * do requests (kernel/userland has the other end).
 */
#ifndef DAEMON_ESPD_H
#define DAEMON_ESPD_H

#include "common/log.h"

struct espd;
struct loop;

/* Serves on fd, its end of the link, until the other end has gone. Confined
 * already. Returns the exit code. */
int espd_run(struct log *log, int fd);

/* The same within another process' loop (--no-privsep). ended is called when
 * the link is over. NULL: out of memory. */
struct espd *espd_new(struct loop *loop, struct log *log, int fd,
    void (*ended)(void *arg), void *arg);
void espd_free(struct espd *espd); /* accepts NULL */

#endif
