#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/dh.h"
#include "common/env.h"
#include "common/loop.h"

static struct scene {
	struct env env;
	struct loop *loop;
	struct workers *workers;
	struct dh_result last; /* taken over */
	struct ticket ticket;
	unsigned answers, expected;
} scene;

/* Takes what came out. */
static void
take(struct env *env, struct ticket ticket, struct dh_result *result)
{
	assert_ptr_equal(env, &scene.env);
	scene.ticket = ticket;
	scene.last.err = result->err;
	kex_free(scene.last.own);
	scene.last.own = result->own;
	result->own = NULL;
	secret_move(&scene.last.shared, &result->shared);
	if (++scene.answers == scene.expected)
		loop_stop(scene.loop);
}

/* Leaves it, as when the SA has gone. */
static void
leave(struct env *env, struct ticket ticket, struct dh_result *result)
{
	(void)env;
	(void)ticket;
	scene.last.err = result->err;
	if (++scene.answers == scene.expected)
		loop_stop(scene.loop);
}

static void
wait_for(unsigned answers)
{
	scene.answers = 0;
	scene.expected = answers;
	loop_run(scene.loop);
}

static int
setup(void **state)
{
	(void)state;
	scene = (struct scene){ .loop = loop_new() };
	if (scene.loop == NULL)
		return -1;
	scene.workers = workers_new(&scene.env, scene.loop, 2);
	return scene.workers == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
	(void)state;
	workers_free(scene.workers);
	loop_free(scene.loop);
	kex_free(scene.last.own);
	secret_free(&scene.last.shared);
	return 0;
}

static const struct ticket ticket = { .sa = 7, .exchange = 8, .child = 9 };

static void
test_initiator_and_responder(void **state)
{
	static const enum alg_id groups[] = { ALG_CURVE25519, ALG_ECP256,
		ALG_MODP2048 };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		const struct alg *alg = alg_get(groups[i]);
		struct kex *own, *other;
		struct secret shared = { 0 };

		assert_int_equal(
		    dh_generate(scene.workers, alg, ticket, take), OK);
		wait_for(1);
		assert_int_equal(scene.last.err, OK);
		assert_int_equal(scene.ticket.sa, 7);
		assert_int_equal(scene.ticket.exchange, 8);
		assert_int_equal(scene.ticket.child, 9);
		own = scene.last.own;
		scene.last.own = NULL;
		assert_non_null(own);
		assert_null(scene.last.shared.octets);

		assert_int_equal(
		    dh_both(scene.workers, alg, kex_public(own), ticket, take),
		    OK);
		wait_for(1);
		assert_int_equal(scene.last.err, OK);
		other = scene.last.own;
		scene.last.own = NULL;
		secret_move(&shared, &scene.last.shared);

		assert_int_equal(dh_derive(scene.workers, own,
		                     kex_public(other), ticket, take),
		    OK);
		wait_for(1);
		assert_int_equal(scene.last.err, OK);
		assert_ptr_equal(scene.last.own, own);
		assert_true(mem_equal_secret(
		    secret_view(&shared), secret_view(&scene.last.shared)));
		secret_free(&shared);
		kex_free(other);
	}
}

static void
test_bad_value(void **state)
{
	static const uint8_t zeros[70000];
	const size_t lengths[] = { 0, 63, 64, 65, sizeof(zeros) };
	const struct alg *alg = alg_get(ALG_ECP256);

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		struct kex *own;

		assert_int_equal(dh_both(scene.workers, alg,
		                     view_of(zeros, lengths[i]), ticket, take),
		    OK);
		wait_for(1);
		assert_int_equal(scene.last.err, ERR_KE);
		assert_null(scene.last.own);
		assert_null(scene.last.shared.octets);

		assert_int_equal(kex_new(alg, &own), OK);
		assert_int_equal(dh_derive(scene.workers, own,
		                     view_of(zeros, lengths[i]), ticket, take),
		    OK);
		wait_for(1);
		assert_int_equal(scene.last.err, ERR_KE);
		assert_ptr_equal(scene.last.own, own);
	}
}

/* The peer's value is copied; what nobody takes is freed. */
static void
test_copies_and_frees(void **state)
{
	const struct alg *alg = alg_get(ALG_CURVE25519);
	uint8_t value[32];
	struct kex *other;

	(void)state;
	assert_int_equal(kex_new(alg, &other), OK);
	memcpy(value, kex_public(other).at, sizeof(value));
	for (int i = 0; i < 20; i++)
		assert_int_equal(
		    dh_both(scene.workers, alg, view_of(value, sizeof(value)),
		        ticket, leave),
		    OK);
	memset(value, 0, sizeof(value));
	wait_for(20);
	assert_int_equal(scene.last.err, OK);
	kex_free(other);
}

static void
test_cancelled(void **state)
{
	struct kex *own;

	(void)state;
	assert_int_equal(kex_new(alg_get(ALG_ECP256), &own), OK);
	assert_int_equal(
	    dh_derive(scene.workers, own, view_of("", 0), ticket, leave), OK);
	workers_free(scene.workers);
	scene.workers = NULL;
	assert_int_equal(scene.answers, 1);
	assert_int_equal(scene.last.err, ERR_CANCELLED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_initiator_and_responder),
		TEST(test_bad_value),
		TEST(test_copies_and_frees),
		TEST(test_cancelled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
