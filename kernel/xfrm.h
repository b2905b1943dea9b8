#ifndef KERNEL_XFRM_H
#define KERNEL_XFRM_H

#endif
