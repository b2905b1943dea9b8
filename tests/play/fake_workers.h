#ifndef PLAY_FAKE_WORKERS_H
#define PLAY_FAKE_WORKERS_H

#endif
