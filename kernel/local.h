#ifndef KERNEL_LOCAL_H
#define KERNEL_LOCAL_H

#endif
