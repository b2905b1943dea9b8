/*
 * whole: puts this host's own fragments together again. Transport mode takes
 * whole datagrams only (RFC 4303 3.1.1, RFC 4301 7), but what is larger than the
 * TUN device's MTU was cut by the system before we see it.
 *
 * The fragments of a datagram come out of one queue, in order: one that does not
 * follow the last is the end of its datagram. A few at the same time.
 */
#ifndef KERNEL_WHOLE_H
#define KERNEL_WHOLE_H

#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "kernel/inner.h"

#define WHOLE_SLOTS 8    /* datagrams at the same time */
#define WHOLE_MS    1000 /* for so long we wait for the rest */

struct whole;

struct whole *whole_new(void);        /* NULL: out of memory */
void whole_free(struct whole *whole); /* accepts NULL */

/* Begins with a copy of a datagram's first fragment. ERR_UNSUPPORTED: it is no
 * first one, or IPv6 extension headers stand before the fragment header.
 * ERR_NOMEM. */
enum err whole_begin(struct whole *whole, const uint8_t *packet,
    const struct inner *inner, uint64_t now_ms);
/* Takes a later fragment of a datagram that was begun. OK: *datagram is what
 * the device would have given, virtio header and all, valid until the next
 * call; or empty while there is more to come or where nothing fits any more.
 * ERR_NOT_FOUND: it is of no such datagram. */
enum err whole_continue(struct whole *whole, const uint8_t *packet,
    const struct inner *inner, uint64_t now_ms, struct view *datagram);

#endif
