/*
 * xfrm: the back end that has Linux do ESP (RFC 4303, RFC 3948).
 *
 * Speaks NETLINK_XFRM through libnl-3's core. Requests of one turn of the loop
 * leave in one datagram; the kernel works them off before sendmsg() returns,
 * so that their answers are read at once. Nothing waits.
 *
 * Ownership: everything of ours has a reqid from REQID_FIRST to REQID_LAST
 * (common/policy); what a dead predecessor left is removed at start, and
 * nobody else's is touched. Needs CAP_NET_ADMIN.
 */
#ifndef KERNEL_XFRM_H
#define KERNEL_XFRM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/log.h"
#include "kernel/kserve.h"

struct loop;

/* Can this kernel do ESP? Makes an SA on the loopback address and removes it.
 * why (size octets) gets the reason if not. Blocks for as long as the kernel
 * takes to load its modules. */
bool xfrm_probe(char *why, size_t size);

/* Opens the sockets and removes orphans. NULL: why (size octets) says what
 * failed. */
struct kserve_backend *
xfrm_new(struct loop *loop, struct log *log, char *why, size_t size);

#endif
