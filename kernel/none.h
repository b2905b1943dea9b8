#ifndef KERNEL_NONE_H
#define KERNEL_NONE_H

#endif
