#ifndef KERNEL_SPD_H
#define KERNEL_SPD_H

#endif
