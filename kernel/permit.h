/*
 * permit: which requests the loaded policy allows.
 *
 * A request for an SA or a policy must belong to a connection, lie between
 * addresses that the connection allows, protect nothing outside its subnets
 * ("dynamic" being the outer address) and use algorithms that it permits, with
 * keys of their lengths. Host names and the default route stand for every
 * address: the parent, which checks, looks nothing up. RFC 4301 4.4.
 */
#ifndef KERNEL_PERMIT_H
#define KERNEL_PERMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/map.h"
#include "common/policy.h"
#include "kernel/kmsg.h"

/* Connections of a policy that was replaced are good for so long: what was
 * under negotiation at that moment may come to its end. */
#define PERMIT_GRACE_MS 300000

struct permit {
	struct map conns; /* by reqid */
};

void permit_init(struct permit *permit, const uint64_t seed[static 2]);
void permit_fini(struct permit *permit);

/* From now on policy counts; its connections must have reqids. ERR_NOMEM
 * leaves the old one in force. */
enum err permit_policy(
    struct permit *permit, const struct policy *policy, uint64_t now_ms);

/* Is there, or was there a moment ago, a connection of this number? */
bool permit_knows(const struct permit *permit, uint32_t conn, uint64_t now_ms);

/* NULL: it is allowed; else in words why not (static). request is any that
 * speaks of an SA, with conn and mode; KMSG_SA_ADD is looked at in full. */
const char *permit_sa(
    const struct permit *permit, const struct kmsg *request, uint64_t now_ms);
const char *permit_selectors(
    const struct permit *permit, const struct kmsg *request, uint64_t now_ms);

#endif
