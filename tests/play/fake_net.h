#ifndef PLAY_FAKE_NET_H
#define PLAY_FAKE_NET_H

#endif
