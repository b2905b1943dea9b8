#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/loop.h"

struct scene {
	struct loop *loop;
	struct loop_watch *watch;
	struct timer timer, other;
	int fds[2];
	unsigned reads, writes, flushes, fires;
	uint64_t fired_ms;
	uint64_t read_ms;
};

static int
setup(void **state)
{
	static struct scene scene;

	scene = (struct scene){ .loop = loop_new() };
	if (scene.loop == NULL ||
	    socketpair(AF_UNIX, SOCK_DGRAM, 0, scene.fds) != 0)
		return -1;
	*state = &scene;
	return 0;
}

static int
teardown(void **state)
{
	struct scene *scene = *state;

	loop_unwatch(scene->watch);
	loop_free(scene->loop);
	close(scene->fds[0]);
	close(scene->fds[1]);
	return 0;
}

static void
stop(void *arg)
{
	struct scene *scene = arg;

	scene->fires++;
	scene->fired_ms = loop_timers(scene->loop)->now_ms;
	loop_stop(scene->loop);
}

static void
count_flush(void *arg)
{
	struct scene *scene = arg;

	scene->flushes++;
}

static void
read_one(void *arg)
{
	struct scene *scene = arg;
	char octet;

	assert_int_equal(read(scene->fds[0], &octet, 1), 1);
	scene->reads++;
	scene->read_ms = loop_timers(scene->loop)->now_ms;
	loop_stop(scene->loop);
}

static void
write_one(void *arg)
{
	struct scene *scene = arg;

	if (++scene->writes == 3)
		loop_watch_write(scene->watch, false);
}

static void
test_timer_fires_in_time(void **state)
{
	struct scene *scene = *state;
	uint64_t start = loop_timers(scene->loop)->now_ms;

	timer_init(&scene->timer, stop, scene);
	timer_set(loop_timers(scene->loop), &scene->timer, 30);
	/* A later one that is stopped leaves no trace. */
	timer_init(&scene->other, stop, scene);
	timer_set(loop_timers(scene->loop), &scene->other, 10);
	timer_stop(loop_timers(scene->loop), &scene->other);
	loop_run(scene->loop);
	assert_int_equal(scene->fires, 1);
	assert_true(scene->fired_ms >= start + 30);
	assert_true(scene->fired_ms < start + 1000);
}

static void
test_stop_before_run(void **state)
{
	struct scene *scene = *state;

	assert_true(loop_flush(scene->loop, count_flush, scene));
	loop_stop(scene->loop);
	loop_run(scene->loop);
	assert_int_equal(scene->flushes, 1);
}

static void
test_read_and_write(void **state)
{
	struct scene *scene = *state;

	scene->watch =
	    loop_watch(scene->loop, scene->fds[0], read_one, write_one, scene);
	assert_non_null(scene->watch);
	assert_int_equal(write(scene->fds[1], "ab", 1), 1);
	loop_run(scene->loop);
	assert_int_equal(scene->reads, 1);
	assert_int_equal(scene->writes, 0);

	/* Reading off: writable only, until it turns itself off. */
	loop_watch_read(scene->watch, false);
	loop_watch_write(scene->watch, true);
	assert_int_equal(write(scene->fds[1], "b", 1), 1);
	timer_init(&scene->timer, stop, scene);
	timer_set(loop_timers(scene->loop), &scene->timer, 20);
	loop_run(scene->loop);
	assert_int_equal(scene->writes, 3);
	assert_int_equal(scene->reads, 1);

	loop_watch_read(scene->watch, true);
	loop_run(scene->loop);
	assert_int_equal(scene->reads, 2);
}

/* A callback must see the time after the wait, not before. */
static void
test_clock_after_idle(void **state)
{
	struct scene *scene = *state;
	uint64_t start = loop_timers(scene->loop)->now_ms;
	struct timespec pause = { 0, 30000000 };

	scene->watch =
	    loop_watch(scene->loop, scene->fds[0], read_one, NULL, scene);
	assert_int_equal(write(scene->fds[1], "a", 1), 1);
	nanosleep(&pause, NULL);
	loop_run(scene->loop);
	assert_true(scene->read_ms >= start + 30);
}

static void
unwatch_self(void *arg)
{
	struct scene *scene = arg;

	loop_unwatch(scene->watch);
	scene->watch = NULL;
	scene->reads++;
	loop_stop(scene->loop);
}

static void
test_unwatch_inside(void **state)
{
	struct scene *scene = *state;

	/* Both are ready; the one that comes first frees the watch. */
	scene->watch = loop_watch(
	    scene->loop, scene->fds[0], unwatch_self, unwatch_self, scene);
	loop_watch_write(scene->watch, true);
	assert_int_equal(write(scene->fds[1], "a", 1), 1);
	loop_run(scene->loop);
	assert_int_equal(scene->reads, 1);
	loop_unwatch(NULL);
}

static void
flush_once(void *arg)
{
	struct scene *scene = arg;

	scene->flushes += 100;
	loop_unflush(scene->loop, flush_once, scene);
}

static void
test_flush(void **state)
{
	struct scene *scene = *state;

	assert_true(loop_flush(scene->loop, flush_once, scene));
	assert_true(loop_flush(scene->loop, count_flush, scene));
	loop_unflush(scene->loop, stop, scene);
	for (int i = 0; i < 2; i++) {
		loop_stop(scene->loop);
		loop_run(scene->loop);
	}
	assert_int_equal(scene->flushes, 102);
	loop_unflush(scene->loop, count_flush, scene);
	loop_stop(scene->loop);
	loop_run(scene->loop);
	assert_int_equal(scene->flushes, 102);
}

static void
caught(int number, void *arg)
{
	struct scene *scene = arg;

	scene->fires = (unsigned)number;
	loop_stop(scene->loop);
}

static void
test_signal(void **state)
{
	struct scene *scene = *state;

	assert_true(loop_signal(scene->loop, SIGUSR1, caught, scene));
	assert_int_equal(raise(SIGUSR1), 0);
	loop_run(scene->loop);
	assert_int_equal(scene->fires, SIGUSR1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_timer_fires_in_time),
		TEST(test_stop_before_run),
		TEST(test_read_and_write),
		TEST(test_clock_after_idle),
		TEST(test_unwatch_inside),
		TEST(test_flush),
		TEST(test_signal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
