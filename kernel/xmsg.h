/*
 * xmsg: NETLINK_XFRM messages, written and read through libnl-3's core.
 *
 * Pure: no sockets. Writers return a message that the caller wipes and frees
 * with xmsg_free() (many hold keys), or NULL when memory is short. Sequence
 * numbers are set by whoever sends. Readers copy out of the message, which may
 * be aligned to 4 octets only, and check every length.
 */
#ifndef KERNEL_XMSG_H
#define KERNEL_XMSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/err.h"
#include "kernel/kmsg.h"

struct nl_msg;
struct nlmsghdr;
struct xfrm_selector;

/* How far a moved outbound SA's counter jumps: more packets than can leave
 * between reading its state and removing it, so that no sequence number (and
 * no IV that comes from it) is used twice. */
#define XMSG_MOVE_JUMP 65536

/* Answered by the new state, not by an acknowledgement. */
struct nl_msg *xmsg_spi(const struct kmsg_sa *sa);

/* update: in the place of the larval state that holds the SPI. *err:
 * ERR_UNSUPPORTED: no name in this kernel for an algorithm. */
struct nl_msg *xmsg_sa(const struct kmsg_sa *sa, bool update, enum err *err);
/* The SA is named by its destination and SPI. */
struct nl_msg *xmsg_sa_delete(const struct addr *dst, uint32_t spi);
/* Answered by the state. */
struct nl_msg *xmsg_sa_get(const struct addr *dst, uint32_t spi);

/* state as the kernel reported it, with sa's outer addresses and ports.
 * in_place: only the ports change; else the state is to be deleted before.
 * now_s: wall clock, seconds. *err: ERR_SYNTAX, ERR_REFUSED (the kernel does
 * not show keys), ERR_LIMIT (its counter ends). */
struct nl_msg *xmsg_sa_moved(const struct nlmsghdr *state,
    const struct kmsg_sa *sa, bool in_place, uint64_t now_s, enum err *err);
/* Does sa differ from state by no more than the ports? */
bool
xmsg_same_addresses(const struct nlmsghdr *state, const struct kmsg_sa *sa);

struct nl_msg *xmsg_policy(
    const struct kmsg_policy *policy, const struct xfrm_selector *selector);
struct nl_msg *
xmsg_policy_delete(uint8_t direction, const struct xfrm_selector *selector);

/* Everything of a kind, for nl_send_auto(). */
struct nl_msg *xmsg_dump(bool policies);
/* From a dump: the message that deletes this item if its reqid is in our
 * range. False: not ours, or no memory. */
bool xmsg_orphan(const struct nlmsghdr *item, struct nl_msg **removal);

enum err xmsg_read_spi(const struct nlmsghdr *state, uint32_t *spi);
enum err xmsg_read_use(
    const struct nlmsghdr *state, uint64_t now_s, struct kmsg_use *use);
/* What the kernel reports by itself. False: not for us. */
bool xmsg_read_event(const struct nlmsghdr *message, struct kmsg_event *event);
/* An acknowledgement (OK) or refusal. *number is the errno; text gets words. */
enum err xmsg_read_error(
    const struct nlmsghdr *message, int *number, char *text, size_t size);

void xmsg_free(struct nl_msg *msg); /* wipes; accepts NULL */

#endif
