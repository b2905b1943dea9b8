#ifndef KERNEL_USERLAND_H
#define KERNEL_USERLAND_H

#endif
