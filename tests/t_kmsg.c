#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/alg.h"
#include "common/policy.h"
#include "kernel/kernel.h"
#include "kernel/kmsg.h"

static struct endpoint
endpoint(const char *text, uint16_t port)
{
	struct endpoint made = { .port = port };

	assert_true(addr_parse(&made.addr, text));
	return made;
}

static struct ts
ts(const char *text)
{
	const char *problem = NULL;
	struct ts made;

	assert_int_equal(ts_parse(&made, text, &problem), OK);
	return made;
}

static void
full_sa(struct kmsg *request, bool v6)
{
	struct kmsg_sa *sa = &request->sa;
	unsigned i;

	memset(request, 0, sizeof(*request));
	request->op = KMSG_SA_ADD;
	sa->spi = 0xfedcba98;
	sa->spi_in = 0x01020304;
	sa->direction = KMSG_OUT;
	sa->mode = MODE_TRANSPORT;
	sa->encap = sa->esn = true;
	sa->encr = ALG_AES256_CBC;
	sa->integ = ALG_SHA512_256;
	sa->conn = 0x123456;
	sa->reqid = 0xabcdef;
	sa->replay_window = 4096;
	sa->src = endpoint(v6 ? "2001:db8::1" : "192.0.2.1", 4500);
	sa->dst = endpoint(v6 ? "2001:db8::2" : "192.0.2.2", 65535);
	sa->natoa_dst = endpoint("10.0.0.9", 0);
	sa->hard_ms = 0x123456789abcdefull;
	sa->encr_key_len = 32;
	sa->integ_key_len = 64;
	for (i = 0; i < KMSG_KEY; i++)
		sa->key[i] = (uint8_t)(i + 1);
	for (i = 0; i < TS_MAX; i++) {
		assert_int_equal(
		    ts_list_add(&sa->ts_src,
		        &(struct ts[1]){ ts(v6 ? "2001:db8:1::/48[tcp/80]"
		                               : "10.1.0.0/16[tcp/80]") }[0]),
		    OK);
		assert_int_equal(
		    ts_list_add(&sa->ts_dst,
		        &(struct ts[1]){ ts(v6 ? "::/0" : "0.0.0.0/0") }[0]),
		    OK);
	}
}

static struct view
pack(const struct kmsg *request, uint8_t octets[static KMSG_OCTETS])
{
	struct buf buf;

	buf_init(&buf, octets, KMSG_OCTETS);
	kmsg_put(&buf, request);
	assert_false(buf.full);
	return buf_done(&buf);
}

/* The largest request goes through unchanged, both families. */
static void
requests_survive(void **state)
{
	uint8_t octets[KMSG_OCTETS];
	struct kmsg sent, got;
	unsigned i;

	(void)state;
	for (i = 0; i < 2; i++) {
		full_sa(&sent, i == 1);
		assert_int_equal(kmsg_get(pack(&sent, octets), &got), OK);
		assert_memory_equal(sent.sa.key, got.sa.key, KMSG_KEY);
		assert_int_equal(got.sa.spi, sent.sa.spi);
		assert_int_equal(got.sa.spi_in, sent.sa.spi_in);
		assert_int_equal(got.sa.direction, KMSG_OUT);
		assert_int_equal(got.sa.mode, MODE_TRANSPORT);
		assert_true(got.sa.encap && got.sa.esn);
		assert_int_equal(got.sa.conn, sent.sa.conn);
		assert_int_equal(got.sa.reqid, sent.sa.reqid);
		assert_int_equal(got.sa.replay_window, 4096);
		assert_true(endpoint_equal(&got.sa.src, &sent.sa.src));
		assert_true(endpoint_equal(&got.sa.dst, &sent.sa.dst));
		assert_true(
		    endpoint_equal(&got.sa.natoa_dst, &sent.sa.natoa_dst));
		assert_int_equal(got.sa.natoa_src.addr.family, ADDR_NONE);
		assert_true(got.sa.hard_ms == sent.sa.hard_ms);
		assert_true(ts_list_equal(&got.sa.ts_src, &sent.sa.ts_src));
		assert_true(ts_list_equal(&got.sa.ts_dst, &sent.sa.ts_dst));
	}
}

static void
policies_survive(void **state)
{
	uint8_t octets[KMSG_OCTETS];
	struct kmsg sent = { .op = KMSG_POLICY_ADD }, got;
	struct kmsg_policy *policy = &sent.policy;

	(void)state;
	policy->direction = KMSG_FWD;
	policy->mode = MODE_TRANSPORT;
	policy->trap = true;
	policy->conn = 6;
	policy->reqid = 7;
	policy->src = ts("10.0.0.0/8");
	policy->dst = ts("192.168.0.1-192.168.0.7[udp/53]");
	policy->tunnel_src = endpoint("2001:db8::1", 0).addr;
	assert_int_equal(kmsg_get(pack(&sent, octets), &got), OK);
	assert_int_equal(got.policy.direction, KMSG_FWD);
	assert_int_equal(got.policy.mode, MODE_TRANSPORT);
	assert_true(got.policy.trap);
	assert_false(got.policy.replace);
	assert_int_equal(got.policy.conn, 6);
	assert_int_equal(got.policy.reqid, 7);
	assert_true(ts_equal(&got.policy.src, &policy->src));
	assert_true(ts_equal(&got.policy.dst, &policy->dst));
	assert_true(addr_equal(&got.policy.tunnel_src, &policy->tunnel_src));
	assert_int_equal(got.policy.tunnel_dst.family, ADDR_NONE);
}

/* A back end in another process must find what it is to move. */
static void
a_move_tells_from_where(void **state)
{
	uint8_t octets[KMSG_OCTETS];
	struct kmsg sent, got;

	(void)state;
	full_sa(&sent, true);
	sent.op = KMSG_SA_MOVE;
	sent.sa.old_src = endpoint("192.0.2.7", 0);
	sent.sa.old_dst = endpoint("2001:db8::8", 0);
	assert_int_equal(kmsg_get(pack(&sent, octets), &got), OK);
	assert_true(endpoint_equal(&got.sa.old_src, &sent.sa.old_src));
	assert_true(endpoint_equal(&got.sa.old_dst, &sent.sa.old_dst));
}

/* What a request needs no key for carries none. */
static void
keys_travel_only_to_be_installed(void **state)
{
	uint8_t octets[KMSG_OCTETS];
	struct kmsg sent, got;
	struct view packed;
	uint8_t op;

	(void)state;
	for (op = KMSG_SPI; op <= KMSG_SA_QUERY; op++) {
		full_sa(&sent, true);
		sent.op = op;
		packed = pack(&sent, octets);
		assert_int_equal(kmsg_get(packed, &got), OK);
		assert_int_equal(got.op, op);
		assert_int_equal(got.sa.spi, sent.sa.spi);
		if (op == KMSG_SA_ADD)
			continue;
		assert_true(packed.len < 70);
		assert_int_equal(got.sa.key[0], 0);
		assert_int_equal(got.sa.ts_src.count, 0);
	}
}

/* Every cut is refused, and so is every octet too many. */
static void
cuts_are_refused(void **state)
{
	uint8_t octets[KMSG_OCTETS], exact[KMSG_OCTETS];
	struct kmsg sent, got;
	struct view packed;
	uint8_t *copy;
	size_t len;

	(void)state;
	full_sa(&sent, false);
	packed = pack(&sent, octets);
	for (len = 0; len < packed.len; len++) {
		copy = malloc(len ? len : 1); /* for the sanitizer's eyes */
		assert_non_null(copy);
		memcpy(copy, octets, len);
		assert_int_not_equal(kmsg_get(view_of(copy, len), &got), OK);
		free(copy);
	}
	memcpy(exact, octets, packed.len);
	exact[packed.len] = 0;
	assert_int_equal(
	    kmsg_get(view_of(exact, packed.len + 1), &got), ERR_LONG);
}

/* Whatever the octets are: refused, or within all bounds. */
static void
any_octets_are_read_safely(void **state)
{
	uint8_t octets[KMSG_OCTETS];
	struct kmsg sent, got;
	struct view packed;
	uint32_t chance = 1;
	unsigned round, i;

	(void)state;
	for (round = 0; round < 20000; round++) {
		full_sa(&sent, round & 1);
		if (round % 3 == 0)
			sent.op = KMSG_SA_MOVE;
		packed = pack(&sent, octets);
		for (i = 0; i < 1 + round % 4; i++) {
			chance = chance * 1664525u + 1013904223u;
			octets[(chance >> 8) % packed.len] =
			    (uint8_t)(chance >> 24);
		}
		if (kmsg_get(packed, &got) != OK)
			continue;
		assert_true(got.op > KMSG_NONE && got.op < KMSG_OPS);
		if (got.op == KMSG_POLICY_ADD || got.op == KMSG_POLICY_REMOVE)
			continue;
		assert_true(
		    got.sa.encr_key_len + got.sa.integ_key_len <= KMSG_KEY);
		assert_true(got.sa.ts_src.count <= TS_MAX);
		assert_true(got.sa.ts_dst.count <= TS_MAX);
		assert_true(got.sa.encr < ALG_COUNT);
	}
}

static void
bounds_are_kept(void **state)
{
	uint8_t octets[KMSG_OCTETS];
	struct kmsg sent, got;
	struct view packed;
	struct buf buf;

	(void)state;
	full_sa(&sent, false);
	packed = pack(&sent, octets);
	octets[0] = KMSG_OPS;
	assert_int_equal(kmsg_get(packed, &got), ERR_SYNTAX);
	octets[0] = KMSG_NONE;
	assert_int_equal(kmsg_get(packed, &got), ERR_SYNTAX);
	octets[0] = KMSG_SA_ADD;
	octets[17] = KMSG_FWD; /* the direction */
	assert_int_equal(kmsg_get(packed, &got), ERR_SYNTAX);
	octets[17] = KMSG_OUT;
	octets[19] = 2; /* encap */
	assert_int_equal(kmsg_get(packed, &got), ERR_SYNTAX);
	octets[19] = 1;
	assert_int_equal(kmsg_get(packed, &got), OK);
	/* A key that does not fit is not written. */
	sent.sa.integ_key_len = KMSG_KEY - 32 + 1;
	buf_init(&buf, octets, sizeof(octets));
	kmsg_put(&buf, &sent);
	assert_true(buf.full);
}

static void
answers_survive(void **state)
{
	uint8_t octets[KMSG_ANSWER_OCTETS];
	struct kmsg_answer sent = { .op = KMSG_SA_QUERY,
		.err = ERR_REFUSED,
		.spi = 5,
		.use = { 1, 2, UINT64_MAX } },
	                   got;
	struct buf buf;
	size_t len;

	(void)state;
	memset(sent.text, 'x', sizeof(sent.text) - 1);
	buf_init(&buf, octets, sizeof(octets));
	kmsg_answer_put(&buf, &sent);
	assert_false(buf.full);
	assert_int_equal(kmsg_answer_get(buf_done(&buf), &got), OK);
	assert_int_equal(got.err, ERR_REFUSED);
	assert_int_equal(got.spi, 5);
	assert_true(got.use.octets == 1 && got.use.packets == 2);
	assert_true(got.use.idle_ms == UINT64_MAX);
	assert_string_equal(got.text, sent.text);
	for (len = 0; len < buf.len; len++)
		assert_int_not_equal(
		    kmsg_answer_get(view_of(octets, len), &got), OK);
	octets[1] = ERR_COUNT;
	assert_int_equal(kmsg_answer_get(buf_done(&buf), &got), ERR_SYNTAX);
}

static void
events_survive(void **state)
{
	uint8_t octets[KMSG_EVENT_OCTETS];
	struct kmsg_event sent = { .kind = KEVENT_ACQUIRE, .reqid = 3 }, got;
	struct buf buf;
	size_t len;

	(void)state;
	sent.packet[0] = ts("2001:db8::1[tcp/1024]");
	sent.packet[1] = ts("2001:db8::2[tcp/22]");
	sent.remote = endpoint("2001:db8::3", 4500);
	buf_init(&buf, octets, sizeof(octets));
	kmsg_event_put(&buf, &sent);
	assert_false(buf.full);
	assert_int_equal(kmsg_event_get(buf_done(&buf), &got), OK);
	assert_true(ts_equal(&got.packet[1], &sent.packet[1]));
	assert_true(endpoint_equal(&got.remote, &sent.remote));
	for (len = 0; len < buf.len; len++)
		assert_int_not_equal(
		    kmsg_event_get(view_of(octets, len), &got), OK);
	octets[0] = KEVENT_LOST + 1;
	assert_int_equal(kmsg_event_get(buf_done(&buf), &got), ERR_SYNTAX);
}

/* Who waits ------------------------------------------------------------- */

static unsigned calls;
static uint64_t last;

static void
count_call(struct env *env, void *arg, const struct kmsg_answer *answer)
{
	(void)env;
	assert_ptr_equal(arg, &calls);
	calls++;
	last = answer->sequence;
}

static void
waiting(void **state)
{
	struct kernel_wait wait;
	struct kmsg_answer answer = { .sequence = 0 };
	uint64_t sequence, i;
	const uint64_t many = 1000;

	(void)state;
	calls = 0;
	kernel_wait_init(&wait);
	assert_int_equal(kernel_wait_add(&wait, NULL, NULL, &sequence), OK);
	assert_true(sequence == 0);
	assert_false(kernel_wait_answer(&wait, NULL, &answer));
	for (i = 1; i <= many; i++) {
		assert_int_equal(
		    kernel_wait_add(&wait, count_call, &calls, &sequence), OK);
		assert_true(sequence == i);
	}
	/* Any order; nobody is called twice. */
	for (i = many; i > 0; i--) {
		answer.sequence = i;
		assert_true(kernel_wait_answer(&wait, NULL, &answer));
		assert_true(last == i);
		assert_false(kernel_wait_answer(&wait, NULL, &answer));
	}
	assert_int_equal(calls, many);
	assert_true(wait.first == wait.next);
	answer.sequence = many + 1;
	assert_false(kernel_wait_answer(&wait, NULL, &answer));
	assert_int_equal(
	    kernel_wait_add(&wait, count_call, &calls, &sequence), OK);
	kernel_wait_drop(&wait, sequence);
	answer.sequence = sequence;
	assert_false(kernel_wait_answer(&wait, NULL, &answer));
	/* The bound. */
	for (i = 0; i < KERNEL_WAIT_MAX; i++)
		assert_int_equal(
		    kernel_wait_add(&wait, count_call, &calls, &sequence), OK);
	assert_int_equal(
	    kernel_wait_add(&wait, count_call, &calls, &sequence), ERR_LIMIT);
	kernel_wait_fini(&wait);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_survive),
		cmocka_unit_test(policies_survive),
		cmocka_unit_test(a_move_tells_from_where),
		cmocka_unit_test(keys_travel_only_to_be_installed),
		cmocka_unit_test(cuts_are_refused),
		cmocka_unit_test(any_octets_are_read_safely),
		cmocka_unit_test(bounds_are_kept),
		cmocka_unit_test(answers_survive),
		cmocka_unit_test(events_survive),
		cmocka_unit_test(waiting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
