/*
 * selector: from pairs of traffic selectors to what Linux' policies can say.
 *
 * A traffic selector is a range of addresses and ports (RFC 7296 3.13.1); the
 * kernel knows prefixes, and ports below a mask. A range becomes as few of
 * those as cover it exactly; narrower ones come before wider ones by priority
 * (RFC 4301 4.4.1: the SPD is ordered).
 */
#ifndef KERNEL_SELECTOR_H
#define KERNEL_SELECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <netinet/in.h>
#include <linux/xfrm.h>

#include "common/addr.h"
#include "common/err.h"
#include "common/ts.h"

#define SELECTOR_MAX 32 /* that one pair may become */

/* Fills list (SELECTOR_MAX). ERR_UNSUPPORTED: OPAQUE ports, ICMP types in a
 * range, or two families; ERR_LONG: more than SELECTOR_MAX. */
enum err selector_expand(const struct ts *src, const struct ts *dst,
    struct xfrm_selector *list, size_t *count);

/* The kernel's policy priority: the narrower, the lower. */
uint32_t selector_priority(const struct xfrm_selector *selector);

/* The one packet of an acquire; ports of ICMP are type and code. */
enum err selector_packet(
    const struct xfrm_selector *selector, struct ts *src, struct ts *dst);

void selector_addr_put(const struct addr *addr, xfrm_address_t *to);
/* family is AF_INET or AF_INET6; false (and none) for others. */
bool selector_addr_get(
    const xfrm_address_t *from, uint16_t family, struct addr *addr);
uint16_t selector_family(const struct addr *addr); /* AF_INET, ... or 0 */

#endif
