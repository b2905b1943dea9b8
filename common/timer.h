/*
 * timer: the clock and the timers of one event loop, real or simulated.
 *
 * struct timers is an intrusive pairing heap and the current time, in
 * milliseconds of a clock that never goes back. The loop (common/loop) sets
 * the time once a turn and runs what is due; a simulation sets it by hand.
 * Setting a timer needs no memory and cannot fail. Timers due at the same
 * millisecond fire in the order in which they were set.
 */
#ifndef COMMON_TIMER_H
#define COMMON_TIMER_H

#include <stdbool.h>
#include <stdint.h>

struct timer {
	uint64_t at_ms;
	uint64_t order;
	void (*fire)(void *arg);
	void *arg;
	struct timer *child, *next, *prev; /* prev: parent or left sibling */
	bool armed;
};

struct timers {
	uint64_t now_ms;
	uint64_t order;
	struct timer *root;
};

void timers_init(struct timers *timers, uint64_t now_ms);

/* A timer that is not armed. fire runs with the timer already disarmed. */
void timer_init(struct timer *timer, void (*fire)(void *arg), void *arg);

/* Arms, or moves, to now + delay_ms. */
void timer_set(struct timers *timers, struct timer *timer, uint64_t delay_ms);
void timer_stop(struct timers *timers, struct timer *timer);
bool timer_armed(const struct timer *timer);

/* Time of the earliest timer; UINT64_MAX if none is armed. */
uint64_t timers_next(const struct timers *timers);

/* Moves the clock to now_ms (never back) and fires what is due, at most limit
 * timers. Returns how many fired. */
unsigned timers_run(struct timers *timers, uint64_t now_ms, unsigned limit);

#endif
