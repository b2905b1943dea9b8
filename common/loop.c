#include <event2/event.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

#include "common/loop.h"

/*
 * A turn: wait, callbacks of descriptors and signals, timers, flush. One
 * libevent timer stands for the earliest of ours. It is only ever moved
 * forward: when the earliest timer is stopped, as nearly all are, the old
 * alarm stays and wakes us once for nothing, which is cheaper than moving it
 * with each packet.
 */

/* Timers fired in one turn, so that packets are not kept waiting. */
#define TIMERS_A_TURN 256

struct loop_watch {
	struct loop *loop;
	struct event *read, *write; /* NULL without a callback */
	void (*readable)(void *arg);
	void (*writable)(void *arg);
	void *arg;
};

struct loop_signal {
	struct loop_signal *next;
	struct loop *loop;
	struct event *event;
	void (*fn)(int number, void *arg);
	void *arg;
};

struct loop_flush {
	void (*fn)(void *arg); /* NULL: taken back while flushing */
	void *arg;
};

struct loop {
	struct event_base *base;
	struct event *alarm;
	uint64_t alarm_ms; /* UINT64_MAX: not set */
	struct timers timers;
	bool ticked; /* the clock has been read in this turn */
	bool stop;
	bool flushing;
	struct loop_signal *signals;
	struct loop_flush *flush;
	size_t flush_count;
};

static uint64_t
clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Callbacks of a turn must not see the time before the wait. */
static void
tick(struct loop *loop)
{
	uint64_t now;

	if (loop->ticked)
		return;
	now = clock_ms();
	if (now > loop->timers.now_ms)
		loop->timers.now_ms = now;
	loop->ticked = true;
}

static void
alarm_rings(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;

	(void)fd;
	(void)what;
	loop->alarm_ms = UINT64_MAX;
}

struct loop *
loop_new(void)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	struct event_config *config = event_config_new();

	if (loop == NULL || config == NULL)
		goto fail;
	if (event_config_set_flag(config,
	        EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV) != 0)
		goto fail;
	loop->base = event_base_new_with_config(config);
	if (loop->base == NULL)
		goto fail;
	loop->alarm = event_new(loop->base, -1, 0, alarm_rings, loop);
	if (loop->alarm == NULL)
		goto fail;
	loop->alarm_ms = UINT64_MAX;
	timers_init(&loop->timers, clock_ms());
	event_config_free(config);
	return loop;
fail:
	if (config != NULL)
		event_config_free(config);
	loop_free(loop);
	return NULL;
}

void
loop_free(struct loop *loop)
{
	struct loop_signal *signal;

	if (loop == NULL)
		return;
	while ((signal = loop->signals) != NULL) {
		loop->signals = signal->next;
		event_free(signal->event);
		free(signal);
	}
	if (loop->alarm != NULL)
		event_free(loop->alarm);
	if (loop->base != NULL)
		event_base_free(loop->base);
	free(loop->flush);
	free(loop);
}

struct timers *
loop_timers(struct loop *loop)
{
	return &loop->timers;
}

/* Calls what was registered, in order, and forgets what was taken back. */
static void
run_flush(struct loop *loop)
{
	size_t kept = 0;

	loop->flushing = true;
	for (size_t i = 0; i < loop->flush_count; i++) {
		if (loop->flush[i].fn != NULL)
			loop->flush[i].fn(loop->flush[i].arg);
	}
	loop->flushing = false;
	for (size_t i = 0; i < loop->flush_count; i++) {
		if (loop->flush[i].fn != NULL)
			loop->flush[kept++] = loop->flush[i];
	}
	loop->flush_count = kept;
}

static void
set_alarm(struct loop *loop)
{
	uint64_t next = timers_next(&loop->timers);
	uint64_t delay;
	struct timeval wait;

	if (next >= loop->alarm_ms)
		return;
	delay = next > loop->timers.now_ms ? next - loop->timers.now_ms : 0;
	/* Longer than any timeout that libevent and epoll take is as good. */
	if (delay > 86400000)
		delay = 86400000;
	wait.tv_sec = (time_t)(delay / 1000);
	wait.tv_usec = (suseconds_t)(delay % 1000 * 1000);
	if (event_add(loop->alarm, &wait) == 0)
		loop->alarm_ms = loop->timers.now_ms + delay;
}

void
loop_run(struct loop *loop)
{
	for (;;) {
		timers_run(&loop->timers, clock_ms(), TIMERS_A_TURN);
		run_flush(loop);
		if (loop->stop)
			break;
		set_alarm(loop);
		loop->ticked = false;
		if (event_base_loop(
		        loop->base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY) < 0)
			break;
	}
	loop->stop = false;
}

void
loop_stop(struct loop *loop)
{
	loop->stop = true;
}

/* Nothing is touched after the callback: it may have freed the watch. */
static void
ready_to_read(evutil_socket_t fd, short what, void *arg)
{
	struct loop_watch *watch = arg;

	(void)fd;
	(void)what;
	tick(watch->loop);
	watch->readable(watch->arg);
}

static void
ready_to_write(evutil_socket_t fd, short what, void *arg)
{
	struct loop_watch *watch = arg;

	(void)fd;
	(void)what;
	tick(watch->loop);
	watch->writable(watch->arg);
}

struct loop_watch *
loop_watch(struct loop *loop, int fd, void (*readable)(void *arg),
    void (*writable)(void *arg), void *arg)
{
	struct loop_watch *watch = calloc(1, sizeof(*watch));

	if (watch == NULL)
		return NULL;
	watch->loop = loop;
	watch->readable = readable;
	watch->writable = writable;
	watch->arg = arg;
	if (readable != NULL) {
		watch->read = event_new(
		    loop->base, fd, EV_READ | EV_PERSIST, ready_to_read, watch);
		if (watch->read == NULL || event_add(watch->read, NULL) != 0)
			goto fail;
	}
	if (writable != NULL) {
		watch->write = event_new(loop->base, fd, EV_WRITE | EV_PERSIST,
		    ready_to_write, watch);
		if (watch->write == NULL)
			goto fail;
	}
	return watch;
fail:
	loop_unwatch(watch);
	return NULL;
}

static void
enable(struct event *event, bool enabled)
{
	if (event == NULL)
		return;
	if (enabled)
		event_add(event, NULL);
	else
		event_del(event);
}

void
loop_watch_write(struct loop_watch *watch, bool enabled)
{
	enable(watch->write, enabled);
}

void
loop_watch_read(struct loop_watch *watch, bool enabled)
{
	enable(watch->read, enabled);
}

void
loop_unwatch(struct loop_watch *watch)
{
	if (watch == NULL)
		return;
	if (watch->read != NULL)
		event_free(watch->read);
	if (watch->write != NULL)
		event_free(watch->write);
	free(watch);
}

static void
signalled(evutil_socket_t number, short what, void *arg)
{
	struct loop_signal *signal = arg;

	(void)what;
	tick(signal->loop);
	signal->fn((int)number, signal->arg);
}

bool
loop_signal(struct loop *loop, int number, void (*fn)(int, void *), void *arg)
{
	struct loop_signal *signal = calloc(1, sizeof(*signal));

	if (signal == NULL)
		return false;
	signal->loop = loop;
	signal->fn = fn;
	signal->arg = arg;
	signal->event = event_new(
	    loop->base, number, EV_SIGNAL | EV_PERSIST, signalled, signal);
	if (signal->event == NULL || event_add(signal->event, NULL) != 0) {
		if (signal->event != NULL)
			event_free(signal->event);
		free(signal);
		return false;
	}
	signal->next = loop->signals;
	loop->signals = signal;
	return true;
}

bool
loop_flush(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct loop_flush *grown =
	    reallocarray(loop->flush, loop->flush_count + 1, sizeof(*grown));

	if (grown == NULL)
		return false;
	loop->flush = grown;
	loop->flush[loop->flush_count].fn = fn;
	loop->flush[loop->flush_count].arg = arg;
	loop->flush_count++;
	return true;
}

void
loop_unflush(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	for (size_t i = 0; i < loop->flush_count; i++) {
		struct loop_flush *flush = &loop->flush[i];

		if (flush->fn != fn || flush->arg != arg)
			continue;
		/* While flushing, positions must stay. */
		flush->fn = NULL;
		if (loop->flushing)
			return;
		for (; i + 1 < loop->flush_count; i++)
			loop->flush[i] = loop->flush[i + 1];
		loop->flush_count--;
		return;
	}
}
