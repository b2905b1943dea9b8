/*
 * hold: the packets that made the userland data plane ask for an SA, until
 * there is one. RFC 4301 4.4.1 leaves open what becomes of them; lost, they
 * cost whoever waits for an answer a second or more.
 *
 * The first packet of each policy; few and small ones in all, and not for long:
 * an old packet has been sent again by then.
 */
#ifndef KERNEL_HOLD_H
#define KERNEL_HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HOLD_MAX    64   /* packets in all */
#define HOLD_OCTETS 2048 /* of one, at most */
#define HOLD_MS     5000

struct hold;

struct hold *hold_new(void);       /* NULL: out of memory */
void hold_free(struct hold *hold); /* accepts NULL */

/* Keeps a copy of len octets unless owner has a packet here. Best effort: what
 * is too long, or one too many, is not kept. */
void hold_keep(struct hold *hold, const void *owner, const uint8_t *octets,
    size_t len, uint64_t now_ms);
/* Of owner, nothing is kept any more. */
void hold_forget(struct hold *hold, const void *owner);
/* Offers the packets that are not too old, oldest first: those that take says
 * it has taken are held no more. take keeps nothing. */
void hold_release(struct hold *hold, uint64_t now_ms,
    bool (*take)(void *arg, const uint8_t *octets, size_t len), void *arg);

#endif
