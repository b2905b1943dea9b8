/*
 * spd: the outbound policies of the userland data plane, and which packets
 * belong to which selectors. RFC 4301 4.4.1, 5.1, 5.2.
 *
 * Policies lie in hash tables by the shape of their selectors (prefix lengths
 * of the least prefixes around both address ranges), the most specific shape
 * first; there are as many tables as shapes in use, so that neither a request
 * nor a packet walks the policies. Inbound packets are held against their SA's
 * own selectors, and need no policy.
 */
#ifndef KERNEL_SPD_H
#define KERNEL_SPD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/map.h"
#include "common/ts.h"
#include "kernel/inner.h"

struct spd;
struct spd_shape;

/* Whoever adds it embeds it. */
struct spd_policy {
	struct map_node node;
	struct spd_shape *shape;
	struct ts src, dst;
};

struct spd *spd_new(void); /* NULL: out of memory */
/* Calls gone for each policy that is left, which may free it. Accepts NULL. */
void spd_free(struct spd *spd, void (*gone)(struct spd_policy *policy));

/* src and dst are set. The same pair must not be there. ERR_NOMEM. */
enum err spd_add(struct spd *spd, struct spd_policy *policy);
void spd_remove(struct spd *spd, struct spd_policy *policy);
/* With exactly these selectors, or NULL. */
struct spd_policy *
spd_find(const struct spd *spd, const struct ts *src, const struct ts *dst);
/* The most specific one that the packet matches, or NULL. */
struct spd_policy *spd_match(const struct spd *spd, const struct inner *inner);
size_t spd_shapes(const struct spd *spd);

/* Does one end of a packet match a selector? Where has_port is false, only
 * selectors of any port or OPAQUE do (RFC 4301 4.4.1.1). */
bool spd_ts_matches(const struct ts *ts, const struct addr *addr, uint8_t proto,
    bool has_port, uint16_t port);
/* One selector of each list. RFC 4301 5.2 step 4. */
bool spd_packet_within(const struct inner *inner, const struct ts *src,
    size_t src_count, const struct ts *dst, size_t dst_count);

#endif
