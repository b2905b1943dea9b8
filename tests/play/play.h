#ifndef PLAY_PLAY_H
#define PLAY_PLAY_H

#endif
