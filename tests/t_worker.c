#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/env.h"
#include "common/loop.h"
#include "common/worker.h"

/* The loop and the pool of a test, and what came back. env is never looked
 * into by the pool: any address will do to see that it is passed on. */
static struct scene {
	struct env env;
	struct loop *loop;
	struct workers *workers;
	size_t expected, done, worked;
	unsigned resubmits;
	pthread_t loop_thread;
} scene;

struct count_job {
	struct job job;
	bool worked;
	pthread_t thread;
};

static void
count_work(struct job *job)
{
	struct count_job *mine = (struct count_job *)job;

	mine->worked = true;
	mine->thread = pthread_self();
}

static void submit_one(void);

static void
count_done(struct env *env, struct job *job)
{
	struct count_job *mine = (struct count_job *)job;

	assert_ptr_equal(env, &scene.env);
	assert_true(pthread_equal(pthread_self(), scene.loop_thread));
	if (mine->worked) {
		assert_false(pthread_equal(mine->thread, scene.loop_thread));
		scene.worked++;
	}
	scene.done++;
	free(job);
	if (scene.resubmits > 0) {
		scene.resubmits--;
		submit_one();
	}
	if (scene.done == scene.expected)
		loop_stop(scene.loop);
}

static void
submit_one(void)
{
	struct count_job *job = calloc(1, sizeof(*job));

	assert_non_null(job);
	job->job.work = count_work;
	job->job.done = count_done;
	worker_submit(scene.workers, &job->job);
}

static int
setup(void **state)
{
	(void)state;
	scene = (struct scene){ .loop = loop_new() };
	scene.loop_thread = pthread_self();
	return scene.loop == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
	(void)state;
	loop_free(scene.loop);
	return 0;
}

/* Around the size of a batch and well beyond, with one thread and several. */
static void
test_all_come_back(void **state)
{
	static const size_t counts[] = { 1, 7, 8, 9, 1000 };

	(void)state;
	for (unsigned threads = 0; threads <= 4; threads++) {
		scene.workers = workers_new(&scene.env, scene.loop, threads);
		assert_non_null(scene.workers);
		for (size_t i = 0; i < 5; i++) {
			scene.done = scene.worked = 0;
			scene.expected = counts[i];
			for (size_t n = 0; n < counts[i]; n++)
				submit_one();
			assert_int_equal(
			    worker_queued(scene.workers), counts[i]);
			/* Nothing may call back from inside submit. */
			assert_int_equal(scene.done, 0);
			loop_run(scene.loop);
			assert_int_equal(scene.done, counts[i]);
			assert_int_equal(scene.worked, counts[i]);
			assert_int_equal(worker_queued(scene.workers), 0);
		}
		workers_free(scene.workers);
	}
}

/* done() may submit the next step. */
static void
test_chain(void **state)
{
	(void)state;
	scene.workers = workers_new(&scene.env, scene.loop, 2);
	assert_non_null(scene.workers);
	scene.resubmits = 500;
	scene.expected = 510;
	for (int i = 0; i < 10; i++)
		submit_one();
	loop_run(scene.loop);
	assert_int_equal(scene.worked, 510);
	workers_free(scene.workers);
}

/* Jobs that never crossed, or were not begun, are still given back. */
static void
test_free_gives_back(void **state)
{
	(void)state;
	scene.workers = workers_new(&scene.env, scene.loop, 1);
	assert_non_null(scene.workers);
	for (int i = 0; i < 100; i++)
		submit_one();
	workers_free(scene.workers);
	assert_int_equal(scene.done, 100);
	assert_int_equal(scene.worked, 0);

	/* In mid-run: each is given back once, worked on or not. */
	scene.done = 0;
	scene.workers = workers_new(&scene.env, scene.loop, 2);
	scene.expected = 20;
	for (int i = 0; i < 1000; i++)
		submit_one();
	scene.resubmits = 3;
	loop_run(scene.loop);
	workers_free(scene.workers);
	assert_int_equal(scene.done, 1003);
	workers_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_all_come_back),
		TEST(test_chain),
		TEST(test_free_gives_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
