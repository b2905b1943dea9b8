/*
 * worker: a pool of threads for what is slow.
 *
 * A job owns copies of its inputs and its outputs. work() runs on a pool
 * thread and touches the job only; done() runs on the loop and frees the job.
 * A worker takes up to eight jobs at once and reports them once. The only lock
 * is in the queue. In simulations neither runs inside submit: done fires at
 * now + cost_us + jitter.
 */
#ifndef COMMON_WORKER_H
#define COMMON_WORKER_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/ticket.h"

struct env;
struct loop;

struct job {
	void (*work)(struct job *job);
	void (*done)(struct env *env, struct job *job);
	struct ticket ticket;
	uint32_t cost_us; /* an estimate, for simulations */
	struct job *next; /* the pool's */
};

struct workers;

struct workers_ops {
	void (*submit)(struct workers *workers, struct job *job);
	/* Jobs submitted and not done: the load that turns on cookies. */
	size_t (*queued)(const struct workers *workers);
	void (*free)(struct workers *workers);
};

struct workers {
	const struct workers_ops *ops;
};

/* Never fails and never calls back from inside. */
void worker_submit(struct workers *workers, struct job *job);
size_t worker_queued(const struct workers *workers);

/* The real pool: threads (0: one for each core but one) that report through loop. NULL if
 * threads cannot be made. Free waits for running jobs; jobs not done get
 * done() called so that they are freed. */
struct workers *
workers_new(struct env *env, struct loop *loop, unsigned threads);
void workers_free(struct workers *workers);

#endif
