/*
 * none: the back end that draws SPIs and says yes. For benchmarks and for
 * trying out negotiations: requests cross to the parent and its checks as
 * ever; only the kernel is left out.
 */
#ifndef KERNEL_NONE_H
#define KERNEL_NONE_H

#include <stdbool.h>
#include <stddef.h>

#include "kernel/kserve.h"

/* random fills octets (see struct env). NULL: out of memory. */
struct kserve_backend *
none_new(bool (*random)(void *arg, void *octets, size_t len), void *arg);

#endif
