#ifndef KERNEL_TUN_H
#define KERNEL_TUN_H

#endif
