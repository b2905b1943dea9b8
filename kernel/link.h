#ifndef KERNEL_LINK_H
#define KERNEL_LINK_H

#endif
