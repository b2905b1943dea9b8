#ifndef KERNEL_KSERVE_H
#define KERNEL_KSERVE_H

#endif
