#ifndef PLAY_FAKE_KERNEL_H
#define PLAY_FAKE_KERNEL_H

#endif
