/*
 * remote: struct kernel whose requests go to kserve in another process.
 *
 * Requests that are made during one turn of the loop leave together, and are
 * answered together. Request and answer travel packed (kmsg), over a link of
 * their own.
 */
#ifndef KERNEL_REMOTE_H
#define KERNEL_REMOTE_H

#include "common/env.h"
#include "kernel/kernel.h"

struct loop;

/* fd is our end of the link (kserve_serve() has the other) and becomes the
 * result's, also on failure. closed (may be NULL) is called when the other
 * end has gone; what was asked is then answered with ERR_CANCELLED, and submit
 * fails with ERR_WRONG_STATE. NULL: out of memory. */
struct kernel *remote_new(struct env *env, struct loop *loop, int fd,
    void (*closed)(struct env *env, const char *why));

#endif
