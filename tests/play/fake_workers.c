#include "tests/play/fake_workers.h"

#include <stdlib.h>
#include <string.h>

#include "tests/play/play.h"

struct pending_job {
	struct fake_workers *workers;
	struct job *job;
	struct timer timer;
	struct pending_job *next;
};

static void
finish(struct pending_job *pending)
{
	struct fake_workers *workers = pending->workers;
	struct pending_job **at;

	for (at = &workers->first; *at != pending; at = &(*at)->next)
		;
	*at = pending->next;
	workers->queued--;
	pending->job->work(pending->job);
	pending->job->done(&workers->gateway->env, pending->job);
	free(pending);
}

static void
due(void *arg)
{
	finish(arg);
}

static void
fake_submit(struct workers *base, struct job *job)
{
	struct fake_workers *workers = (struct fake_workers *)base;
	struct play *play = workers->gateway->play;
	struct pending_job *pending = calloc(1, sizeof(*pending));

	if (pending == NULL)
		abort();
	pending->workers = workers;
	pending->job = job;
	pending->next = workers->first;
	workers->first = pending;
	workers->queued++;
	timer_init(&pending->timer, due, pending);
	timer_set(&play->timers, &pending->timer,
	    1 + job->cost_us / 1000 + play_below(play, 4));
}

static size_t
fake_queued(const struct workers *base)
{
	return ((const struct fake_workers *)base)->queued;
}

static void
fake_free(struct workers *base)
{
	(void)base;
}

void
fake_workers_init(struct fake_workers *workers, struct gateway *gateway)
{
	static const struct workers_ops ops = {
		.submit = fake_submit,
		.queued = fake_queued,
		.free = fake_free,
	};

	memset(workers, 0, sizeof(*workers));
	workers->workers.ops = &ops;
	workers->gateway = gateway;
}

void
fake_workers_fini(struct fake_workers *workers)
{
	while (workers->first != NULL) {
		timer_stop(
		    &workers->gateway->play->timers, &workers->first->timer);
		finish(workers->first);
	}
}
