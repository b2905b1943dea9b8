/*
 * loop: the event loop of one process, over libevent.
 */
#ifndef COMMON_LOOP_H
#define COMMON_LOOP_H

#include <stdbool.h>

#include "common/timer.h"

struct event_base;
struct loop;
struct loop_watch;

struct loop *loop_new(void); /* NULL: out of memory or no kernel support */
void loop_free(struct loop *loop);

/* The clock and timers that this loop runs. */
struct timers *loop_timers(struct loop *loop);

/* Runs until loop_stop(). */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* Calls readable, writable (either may be NULL) when fd is; level-triggered.
 * fd stays the caller's. NULL: out of memory. */
struct loop_watch *loop_watch(struct loop *loop, int fd,
    void (*readable)(void *arg), void (*writable)(void *arg), void *arg);
/* writable is called only while enabled; off at first. */
void loop_watch_write(struct loop_watch *watch, bool enabled);
void loop_watch_read(struct loop_watch *watch, bool enabled);
void loop_unwatch(struct loop_watch *watch); /* accepts NULL */

/* Calls fn on a signal. */
bool
loop_signal(struct loop *loop, int number, void (*fn)(int, void *), void *arg);

/* Calls fn once at the end of every turn of the loop, after all callbacks of
 * that turn: where batches are flushed. False: out of memory. */
bool loop_flush(struct loop *loop, void (*fn)(void *arg), void *arg);
/* Not any more; may be called from inside fn. Unknown pairs are ignored. */
void loop_unflush(struct loop *loop, void (*fn)(void *arg), void *arg);

#endif
