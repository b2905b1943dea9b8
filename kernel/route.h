/*
 * route: leads traffic into the TUN device of the userland data plane.
 *
 * A routing table of our own holds a route for each remote selector; a rule for
 * each family sends everything there that does not carry our mark, which all
 * of our own sockets set: so ESP and IKE never enter the device again. The
 * routes end with the device; rules that a dead predecessor left are removed, and
 * what others take away of ours is made anew.
 * Speaks rtnetlink through libnl-3's core. Needs CAP_NET_ADMIN.
 */
#ifndef KERNEL_ROUTE_H
#define KERNEL_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/log.h"
#include "common/ts.h"

struct loop;
struct route;

#define ROUTE_MARK     0x0172 /* of our own sockets */
#define ROUTE_TABLE    4500
#define ROUTE_PRIORITY 4500 /* of the rules */

/* index: of the device. NULL: why (size octets) says what failed. */
struct route *route_new(
    struct loop *loop, struct log *log, int index, char *why, size_t size);
/* Removes the rules. Accepts NULL. */
void route_free(struct route *route);

/* Traffic to remote goes to the device, from an address within local if this
 * host has one. Counted: as many removals as additions. ERR_NOMEM. */
enum err
route_add(struct route *route, const struct ts *local, const struct ts *remote);
void route_remove(struct route *route, const struct ts *remote);

/* The device is another one now: all routes are made anew. */
void route_device(struct route *route, int index);

/* Is there an interface that takes packets only from where this host would send
 * them to (rp_filter=1, RFC 3704 2.2)? It drops what comes from a peer whose own
 * address is led into the device. name: of the first. IPv4. */
bool route_strict(const struct route *route, char name[static 16]);

/* All additions are void, but the routes stay for some time, so that nothing
 * leaves in the clear while new SAs are negotiated. */
void route_void(struct route *route);

#endif
