#ifndef KERNEL_REMOTE_H
#define KERNEL_REMOTE_H

#endif
