/*
 * local: struct kernel in the same process as kserve (--no-privsep), through
 * the same checks. Answers come from a timer, never from inside submit.
 */
#ifndef KERNEL_LOCAL_H
#define KERNEL_LOCAL_H

#include "common/env.h"
#include "kernel/kernel.h"

struct kserve;

/* Becomes kserve's client. kserve is borrowed, unless owned: then it is freed
 * with the result. env->timers must be set. NULL: out of memory. */
struct kernel *local_new(struct env *env, struct kserve *kserve, bool owned);

#endif
