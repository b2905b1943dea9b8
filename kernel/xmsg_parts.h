/*
 * xmsg_parts: what xmsg's parts share: xmsg.c (writing), xmsg_read, xmsg_move.
 * Nobody else includes this.
 */
#ifndef KERNEL_XMSG_PARTS_H
#define KERNEL_XMSG_PARTS_H

#include "kernel/xmsg.h"

struct nlattr;
struct xfrm_usersa_info;

#define XMSG_SPI_MIN 0x100u /* RFC 4303 2.1 */

/* A message with len octets of zeroed payload, which *payload points to. */
struct nl_msg *xmsg_new(int type, int flags, size_t len, void *payload);
bool xmsg_put_encap(struct nl_msg *msg, const struct kmsg_sa *sa);
/* A state; attrs (XFRMA_MAX + 1) may be NULL. False: it is none. */
bool xmsg_read_state(const struct nlmsghdr *state,
    struct xfrm_usersa_info *info, struct nlattr *attrs[]);

#endif
