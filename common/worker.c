#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/loop.h"
#include "common/worker.h"

/*
 * Submitted jobs wait until the end of the loop's turn and cross to the
 * threads together; a thread takes several, hands them back together and
 * takes the next under the same lock. The loop is woken only if it has not
 * been woken already. Locks and wake-ups then cost per batch, not per job.
 */

#define BATCH       8
#define THREADS_MAX 64

/* Enough for OpenSSL; the default of 8 MiB would count against limits. */
#define STACK ((size_t)512 * 1024)

struct list {
	struct job *first, *last;
	size_t count;
};

struct pool {
	struct workers workers;
	struct env *env;
	struct loop *loop;
	struct loop_watch *watch;
	int wake; /* eventfd that the threads write to */

	/* Of the loop thread. */
	struct list fresh; /* submitted in this turn */
	size_t queued;
	bool flushes; /* loop_flush() was called */

	/* Under the lock. */
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct list todo;
	struct list finished;
	unsigned idle; /* threads that wait */
	bool stop;

	unsigned threads;
	pthread_t thread[THREADS_MAX];
};

void
worker_submit(struct workers *workers, struct job *job)
{
	workers->ops->submit(workers, job);
}

size_t
worker_queued(const struct workers *workers)
{
	return workers->ops->queued(workers);
}

void
workers_free(struct workers *workers)
{
	if (workers != NULL)
		workers->ops->free(workers);
}

static void
list_append(struct list *list, struct job *job)
{
	job->next = NULL;
	if (list->last == NULL)
		list->first = job;
	else
		list->last->next = job;
	list->last = job;
	list->count++;
}

/* Appends all of from, which is empty afterwards. */
static void
list_join(struct list *list, struct list *from)
{
	if (from->first == NULL)
		return;
	if (list->last == NULL)
		list->first = from->first;
	else
		list->last->next = from->first;
	list->last = from->last;
	list->count += from->count;
	*from = (struct list){ 0 };
}

static struct job *
list_pop(struct list *list)
{
	struct job *job = list->first;

	if (job == NULL)
		return NULL;
	list->first = job->next;
	if (list->first == NULL)
		list->last = NULL;
	list->count--;
	job->next = NULL;
	return job;
}

/* A fair share of what waits, eight at most. */
static void
grab(struct pool *pool, struct list *mine)
{
	size_t share = (pool->todo.count + pool->threads - 1) / pool->threads;

	if (share > BATCH)
		share = BATCH;
	while (share-- > 0)
		list_append(mine, list_pop(&pool->todo));
}

static void
ring(const struct pool *pool)
{
	const uint64_t one = 1;
	ssize_t written;

	/* A full counter means that the loop is woken anyway. */
	do
		written = write(pool->wake, &one, sizeof(one));
	while (written < 0 && errno == EINTR);
}

static void *
thread_main(void *arg)
{
	struct pool *pool = arg;
	struct list mine = { 0 };
	bool first;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		while (pool->todo.count == 0 && !pool->stop) {
			pool->idle++;
			pthread_cond_wait(&pool->more, &pool->lock);
			pool->idle--;
		}
		if (pool->stop)
			break;
		grab(pool, &mine);
		pthread_mutex_unlock(&pool->lock);
		for (struct job *job = mine.first; job != NULL; job = job->next)
			job->work(job);
		pthread_mutex_lock(&pool->lock);
		first = pool->finished.count == 0;
		list_join(&pool->finished, &mine);
		if (first)
			ring(pool);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static void
pool_submit(struct workers *workers, struct job *job)
{
	struct pool *pool = (struct pool *)workers;

	list_append(&pool->fresh, job);
	pool->queued++;
}

static size_t
pool_queued(const struct workers *workers)
{
	return ((const struct pool *)workers)->queued;
}

/* The end of a turn: hands over what was submitted in it. */
static void
hand_over(void *arg)
{
	struct pool *pool = arg;
	size_t wake;

	if (pool->fresh.count == 0)
		return;
	pthread_mutex_lock(&pool->lock);
	wake = pool->fresh.count < pool->idle ? pool->fresh.count : pool->idle;
	list_join(&pool->todo, &pool->fresh);
	pthread_mutex_unlock(&pool->lock);
	while (wake-- > 0)
		pthread_cond_signal(&pool->more);
}

static void
call_done(struct pool *pool, struct list *list)
{
	struct job *job;

	while ((job = list_pop(list)) != NULL) {
		pool->queued--;
		job->done(pool->env, job);
	}
}

static void
collect(void *arg)
{
	struct pool *pool = arg;
	struct list finished = { 0 };
	uint64_t count;

	if (read(pool->wake, &count, sizeof(count)) < 0 && errno != EAGAIN &&
	    errno != EINTR)
		return;
	pthread_mutex_lock(&pool->lock);
	list_join(&finished, &pool->finished);
	pthread_mutex_unlock(&pool->lock);
	call_done(pool, &finished);
}

static void
pool_free(struct workers *workers)
{
	struct pool *pool = (struct pool *)workers;

	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_mutex_unlock(&pool->lock);
	pthread_cond_broadcast(&pool->more);
	for (unsigned i = 0; i < pool->threads; i++)
		pthread_join(pool->thread[i], NULL);

	/* done() may submit; what it submits is not worked on either. */
	while (pool->queued > 0) {
		call_done(pool, &pool->finished);
		call_done(pool, &pool->todo);
		call_done(pool, &pool->fresh);
	}
	if (pool->flushes)
		loop_unflush(pool->loop, hand_over, pool);
	loop_unwatch(pool->watch);
	if (pool->wake >= 0)
		close(pool->wake);
	pthread_cond_destroy(&pool->more);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

static const struct workers_ops pool_ops = {
	.submit = pool_submit,
	.queued = pool_queued,
	.free = pool_free,
};

static unsigned
cores(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) != 0)
		return 1;
	return (unsigned)CPU_COUNT(&set);
}

/* Threads take no signals: those are the loop's. Fewer threads than asked for
 * will do. */
static void
start_threads(struct pool *pool, unsigned threads)
{
	pthread_attr_t attr;
	sigset_t all, before;

	if (pthread_attr_init(&attr) != 0)
		return;
	(void)pthread_attr_setstacksize(&attr, STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* The threads read the count: they must not see it grow. */
	pthread_mutex_lock(&pool->lock);
	while (pool->threads < threads &&
	       pthread_create(
	           &pool->thread[pool->threads], &attr, thread_main, pool) == 0)
		pool->threads++;
	pthread_mutex_unlock(&pool->lock);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
}

struct workers *
workers_new(struct env *env, struct loop *loop, unsigned threads)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (pool == NULL)
		return NULL;
	pool->workers.ops = &pool_ops;
	pool->env = env;
	pool->loop = loop;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->more, NULL);
	pool->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (pool->wake < 0)
		goto fail;
	pool->watch = loop_watch(loop, pool->wake, collect, NULL, pool);
	if (pool->watch == NULL)
		goto fail;
	pool->flushes = loop_flush(loop, hand_over, pool);
	if (!pool->flushes)
		goto fail;
	/* The loop keeps a core busy by itself; a thread that competes with it
	 * for one costs more wake-ups than it saves. */
	if (threads == 0 && cores() > 1)
		threads = cores() - 1;
	if (threads == 0)
		threads = 1;
	start_threads(pool, threads < THREADS_MAX ? threads : THREADS_MAX);
	if (pool->threads == 0)
		goto fail;
	return &pool->workers;
fail:
	pool_free(&pool->workers);
	return NULL;
}
