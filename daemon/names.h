/*
 * names: keeps the addresses of peers (and ends of ours) that are named by
 * host names up to date, so that they are known when they call: a
 * connection's HOST_NAME carries its last answer in addr, the only part of a
 * loaded connection that ever changes. A part of keeper.
 */
#ifndef DAEMON_NAMES_H
#define DAEMON_NAMES_H

#include "daemon/keeper.h"

struct names;

/* NULL: out of memory. */
struct names *names_new(struct keeper *keeper);
void names_free(struct names *names); /* accepts NULL */

/* Looks after the names of this policy's connections, and no others. Those
 * that keeper starts by itself are looked up by its attempts first. policy may
 * be NULL. */
void names_policy(struct names *names, const struct policy *policy);

/* The answer that an attempt got. */
void names_learn(struct conn_host *host, const struct addr *addr);

#endif
