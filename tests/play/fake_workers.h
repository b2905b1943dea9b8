/*
 * fake_workers: jobs that finish later, at virtual time now + cost + jitter.
 */
#ifndef TESTS_PLAY_FAKE_WORKERS_H
#define TESTS_PLAY_FAKE_WORKERS_H

#include "common/timer.h"
#include "common/worker.h"

struct gateway;

struct fake_workers {
	struct workers workers;
	struct gateway *gateway;
	size_t queued;
	struct pending_job *first;
};

void fake_workers_init(struct fake_workers *workers, struct gateway *gateway);
/* Finishes what is queued, so that it is freed. */
void fake_workers_fini(struct fake_workers *workers);

#endif
