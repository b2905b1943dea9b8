#ifndef COMMON_IPC_H
#define COMMON_IPC_H

#endif
