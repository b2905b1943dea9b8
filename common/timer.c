#include "common/timer.h"

#include <stddef.h>

/*
 * A pairing heap. child is the first of a node's children, next the sibling to
 * the right, prev the sibling to the left or, for a first child, the parent.
 * Nothing recurses: the heap's depth is in the hands of whoever sets timers.
 */

static bool
earlier(const struct timer *a, const struct timer *b)
{
	if (a->at_ms != b->at_ms)
		return a->at_ms < b->at_ms;
	return a->order < b->order;
}

/* Both are roots: neither has siblings or a parent. Either may be NULL. */
static struct timer *
merge(struct timer *a, struct timer *b)
{
	if (a == NULL)
		return b;
	if (b == NULL)
		return a;
	if (earlier(b, a)) {
		struct timer *swap = a;

		a = b;
		b = swap;
	}
	b->prev = a;
	b->next = a->child;
	if (a->child != NULL)
		a->child->prev = b;
	a->child = b;
	return a;
}

/* One heap from a list of siblings: pairs from left to right, then all pairs
 * from right to left. */
static struct timer *
merge_all(struct timer *first)
{
	struct timer *pairs = NULL, *root = NULL;

	while (first != NULL) {
		struct timer *a = first, *b = a->next, *pair;

		first = b != NULL ? b->next : NULL;
		a->prev = a->next = NULL;
		if (b != NULL)
			b->prev = b->next = NULL;
		pair = merge(a, b);
		pair->next = pairs;
		pairs = pair;
	}
	while (pairs != NULL) {
		struct timer *pair = pairs;

		pairs = pair->next;
		pair->next = NULL;
		root = merge(root, pair);
	}
	return root;
}

void
timers_init(struct timers *timers, uint64_t now_ms)
{
	timers->now_ms = now_ms;
	timers->order = 0;
	timers->root = NULL;
}

void
timer_init(struct timer *timer, void (*fire)(void *arg), void *arg)
{
	timer->at_ms = 0;
	timer->order = 0;
	timer->fire = fire;
	timer->arg = arg;
	timer->child = timer->next = timer->prev = NULL;
	timer->armed = false;
}

void
timer_set(struct timers *timers, struct timer *timer, uint64_t delay_ms)
{
	timer_stop(timers, timer);
	timer->at_ms = timers->now_ms + delay_ms;
	/* Beyond the end of time is at its end. */
	if (timer->at_ms < delay_ms || timer->at_ms == UINT64_MAX)
		timer->at_ms = UINT64_MAX - 1;
	timer->order = timers->order++;
	timer->armed = true;
	timers->root = merge(timers->root, timer);
}

void
timer_stop(struct timers *timers, struct timer *timer)
{
	struct timer *below;

	if (!timer->armed)
		return;
	if (timer == timers->root) {
		timers->root = NULL;
	} else {
		if (timer->prev->child == timer)
			timer->prev->child = timer->next;
		else
			timer->prev->next = timer->next;
		if (timer->next != NULL)
			timer->next->prev = timer->prev;
	}
	below = timer->child;
	timer->child = timer->next = timer->prev = NULL;
	timer->armed = false;
	timers->root = merge(timers->root, merge_all(below));
}

bool
timer_armed(const struct timer *timer)
{
	return timer->armed;
}

uint64_t
timers_next(const struct timers *timers)
{
	return timers->root != NULL ? timers->root->at_ms : UINT64_MAX;
}

unsigned
timers_run(struct timers *timers, uint64_t now_ms, unsigned limit)
{
	unsigned fired = 0;

	if (now_ms > timers->now_ms)
		timers->now_ms = now_ms;
	while (fired < limit && timers->root != NULL &&
	       timers->root->at_ms <= timers->now_ms) {
		struct timer *timer = timers->root;

		timer_stop(timers, timer);
		fired++;
		/* The handler may free the timer. */
		timer->fire(timer->arg);
	}
	return fired;
}
