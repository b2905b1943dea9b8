/*
 * link: what the system knows of its own addresses and routes.
 *
 * Tunnels need no routes of their own with Linux' policies, only that a route
 * to the peer and to the inner addresses exists; nothing is changed here.
 */
#ifndef KERNEL_LINK_H
#define KERNEL_LINK_H

#include <stdbool.h>
#include <stddef.h>

#include "common/addr.h"
#include "common/err.h"

struct link;
struct loop;

/* The system's own unicast addresses, those of link scope (fe80::/10) left
 * out; the first max of them. ERR_IO with errno. */
enum err link_addresses(struct addr *list, size_t max, size_t *count);
bool link_is_own(const struct addr *addr);

/* The address from which the system would send to remote, as its routes are
 * now. False: no route. */
bool link_source(const struct addr *remote, struct addr *local);

/* Calls changed, from the loop, after addresses or routes have changed: once
 * for whatever changed within a turn. NULL: no netlink or no memory. */
struct link *link_new(struct loop *loop, void (*changed)(void *arg), void *arg);
void link_free(struct link *link); /* accepts NULL */

#endif
