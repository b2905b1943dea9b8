#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/ipc.h"
#include "common/loop.h"

/* Both ends of a link in one loop; one end may be a bare socket that plays the
 * enemy. */
enum {
	T_TEXT = IPC_PROC,
	T_ONCE,
	T_LATER,
	T_FD,
	T_ANSWER,
	T_FREE,
	T_BAD,
	T_UNKNOWN
};

struct end {
	struct ipc *ipc;
	unsigned count;
	uint64_t serials; /* sum */
	size_t octets;
	uint64_t last;
	bool ordered;
	bool answer;
	int kept;
	unsigned closed;
	enum err err;
	const char *why;
	bool free_in_closed;
};

static enum err
on_text(void *arg, const struct ipc_frame *frame)
{
	struct end *end = arg;

	assert_int_equal((uintptr_t)frame->body.at % 8, 0);
	if (frame->serial <= end->last && end->count)
		end->ordered = false;
	end->last = frame->serial;
	end->count++;
	end->serials += frame->serial;
	end->octets += frame->body.len;
	if (end->answer)
		assert_int_equal(ipc_send(end->ipc, T_ANSWER, frame->serial,
		                     frame->body.at, frame->body.len),
		    OK);
	return OK;
}

static enum err
on_fd(void *arg, const struct ipc_frame *frame)
{
	struct end *end = arg;

	end->count++;
	end->octets += frame->fd_count;
	end->kept = frame->fds[0];
	frame->fds[0] = -1;
	return OK;
}

static enum err
on_free(void *arg, const struct ipc_frame *frame)
{
	struct end *end = arg;

	(void)frame;
	end->count++;
	ipc_free(end->ipc);
	end->ipc = NULL;
	return OK;
}

static enum err
on_bad(void *arg, const struct ipc_frame *frame)
{
	(void)arg;
	(void)frame;
	return ERR_SYNTAX;
}

static void
on_closed(void *arg, enum err err, const char *why)
{
	struct end *end = arg;

	end->closed++;
	end->err = err;
	end->why = why;
	if (end->free_in_closed) {
		ipc_free(end->ipc);
		end->ipc = NULL;
	}
}

static const struct ipc_permit asker[] = {
	{ T_TEXT, IPC_OUT, 0, IPC_BODY, 0, NULL },
	{ T_ONCE, IPC_OUT, 0, 8, 0, NULL },
	{ T_LATER, IPC_OUT, 0, 8, 0, NULL },
	{ T_FD, IPC_OUT | IPC_FD, 0, 8, 0, NULL },
	{ T_FREE, IPC_OUT, 0, 0, 0, NULL },
	{ T_BAD, IPC_OUT, 0, 0, 0, NULL },
	{ T_UNKNOWN, IPC_OUT, 0, 0, 0, NULL },
	{ T_ANSWER, IPC_IN, 0, IPC_BODY, 0, on_text },
};

static const struct ipc_permit server[] = {
	{ T_TEXT, IPC_IN, 4, IPC_BODY, 0, on_text },
	{ T_ONCE, IPC_IN | IPC_ONCE, 0, 8, 0, on_text },
	{ T_LATER, IPC_IN, 0, 8, 1u << 3, on_text },
	{ T_FD, IPC_IN | IPC_FD, 0, 8, 0, on_fd },
	{ T_FREE, IPC_IN, 0, 0, 0, on_free },
	{ T_BAD, IPC_IN, 0, 0, 0, on_bad },
	{ T_ANSWER, IPC_OUT, 0, IPC_BODY, 0, NULL },
};

struct scene {
	struct loop *loop;
	struct end a, b;
	int raw; /* the other end of b, when a has no link */
};

static void
stop(void *arg)
{
	loop_stop(arg);
}

/* Lets the loop run for a few turns. */
static void
spin(struct scene *s)
{
	struct timer timer;

	/* Turns, not milliseconds: a busy machine may eat those. */
	for (unsigned turn = 0; turn < 8; turn++) {
		timer_init(&timer, stop, s->loop);
		timer_set(loop_timers(s->loop), &timer, 1);
		loop_run(s->loop);
	}
}

static void
scene_open(struct scene *s, bool raw)
{
	int pair[2];

	memset(s, 0, sizeof(*s));
	s->raw = -1;
	s->a.ordered = s->b.ordered = true;
	s->a.kept = s->b.kept = -1;
	s->loop = loop_new();
	assert_non_null(s->loop);
	assert_int_equal(ipc_pair(pair), OK);
	s->b.ipc = ipc_new(s->loop, pair[1], server,
	    sizeof(server) / sizeof(server[0]), on_closed, &s->b);
	assert_non_null(s->b.ipc);
	if (raw) {
		s->raw = pair[0];
		return;
	}
	s->a.ipc = ipc_new(s->loop, pair[0], asker,
	    sizeof(asker) / sizeof(asker[0]), on_closed, &s->a);
	assert_non_null(s->a.ipc);
}

static void
scene_close(struct scene *s)
{
	ipc_free(s->a.ipc);
	ipc_free(s->b.ipc);
	if (s->raw >= 0)
		close(s->raw);
	if (s->b.kept >= 0)
		close(s->b.kept);
	loop_free(s->loop);
}

static void
batch_arrives_in_order(void **state)
{
	struct scene s;
	uint8_t body[100] = { 1 };
	uint64_t sum = 0;
	unsigned i;

	(void)state;
	scene_open(&s, false);
	s.b.answer = true;
	for (i = 1; i <= 5000; i++) {
		assert_int_equal(
		    ipc_send(s.a.ipc, T_TEXT, i, body, 4 + i % 90), OK);
		sum += i;
	}
	spin(&s);
	spin(&s);
	assert_int_equal(s.b.count, 5000);
	assert_int_equal(s.b.serials, sum);
	assert_true(s.b.ordered);
	assert_int_equal(s.a.count, 5000);
	assert_int_equal(s.a.serials, sum);
	assert_int_equal(s.a.octets, s.b.octets);
	assert_true(s.a.ordered);
	assert_int_equal(ipc_queued(s.a.ipc), 0);
	scene_close(&s);
}

static void
one_turn_is_one_datagram(void **state)
{
	struct scene s;
	struct end a = { 0 };
	uint8_t octets[4096];
	unsigned i;
	int pair[2];

	(void)state;
	scene_open(&s, true);
	assert_int_equal(ipc_pair(pair), OK);
	a.ipc = ipc_new(s.loop, pair[0], asker,
	    sizeof(asker) / sizeof(asker[0]), on_closed, &a);
	for (i = 0; i < 16; i++)
		assert_int_equal(ipc_send(a.ipc, T_TEXT, i, "12345", 5), OK);
	assert_int_equal(ipc_queued(a.ipc), 16 * (16 + 8));
	assert_int_equal(
	    recv(pair[1], octets, sizeof(octets), MSG_DONTWAIT), -1);
	spin(&s);
	assert_int_equal(
	    recv(pair[1], octets, sizeof(octets), MSG_DONTWAIT), 16 * (16 + 8));
	assert_int_equal(
	    recv(pair[1], octets, sizeof(octets), MSG_DONTWAIT), -1);
	ipc_free(a.ipc);
	close(pair[1]);
	scene_close(&s);
}

static void
bounds_of_a_body(void **state)
{
	struct scene s;
	uint8_t *body = calloc(1, IPC_BODY + 1);
	uint8_t *room;

	(void)state;
	scene_open(&s, false);
	assert_int_equal(
	    ipc_send(s.a.ipc, T_TEXT, 1, body, IPC_BODY + 1), ERR_BUG);
	assert_int_equal(ipc_send(s.a.ipc, T_TEXT, 1, body, IPC_BODY), OK);
	assert_int_equal(ipc_send(s.a.ipc, T_TEXT, 2, body, IPC_BODY - 1), OK);
	assert_int_equal(ipc_room(s.a.ipc, T_TEXT, 3, 40, &room), OK);
	assert_int_equal((uintptr_t)room % 8, 0);
	assert_memory_equal(room, body, 40);
	spin(&s);
	assert_int_equal(s.b.count, 3);
	assert_int_equal(s.b.octets, 2 * IPC_BODY - 1 + 40);
	/* Not ours to send: an answer, and what has no row. */
	assert_int_equal(ipc_send(s.a.ipc, T_ANSWER, 1, body, 4), ERR_BUG);
	assert_int_equal(ipc_send(s.a.ipc, 399, 1, body, 4), ERR_BUG);
	assert_int_equal(ipc_send(s.a.ipc, 65535, 1, body, 4), ERR_BUG);
	assert_int_equal(ipc_send(s.a.ipc, T_FD, 1, body, 4), ERR_BUG);
	free(body);
	scene_close(&s);
}

static void
descriptors_pass(void **state)
{
	struct scene s;
	int pipes[2], fds[2];
	char octet = 0;

	(void)state;
	scene_open(&s, false);
	assert_int_equal(pipe(pipes), 0);
	fds[0] = pipes[1];
	fds[1] = pipes[0];
	assert_int_equal(ipc_send(s.a.ipc, T_TEXT, 1, "before", 6), OK);
	assert_int_equal(ipc_send_fds(s.a.ipc, T_FD, 2, "x", 1, fds, 2), OK);
	assert_int_equal(ipc_send(s.a.ipc, T_TEXT, 3, "after", 5), OK);
	close(pipes[1]); /* ipc has its own */
	spin(&s);
	assert_int_equal(s.b.count, 3);
	assert_true(s.b.ordered);
	assert_int_equal(s.b.octets, 6 + 2 + 5);
	assert_true(s.b.kept >= 0);
	assert_true(fcntl(s.b.kept, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(write(s.b.kept, "y", 1), 1);
	assert_int_equal(read(pipes[0], &octet, 1), 1);
	assert_int_equal(octet, 'y');
	close(pipes[0]);
	/* The one not kept was closed: nobody reads any more. */
	assert_int_equal(send(s.b.kept, "z", 1, MSG_NOSIGNAL), -1);
	scene_close(&s);
}

static void
queue_is_bounded(void **state)
{
	struct scene s;
	static uint8_t body[IPC_BODY];
	unsigned sent = 0;
	enum err err;

	(void)state;
	scene_open(&s, false);
	/* Nobody reads: the loop does not run. */
	while ((err = ipc_send(
	            s.a.ipc, T_TEXT, sent + 1, body, sizeof(body))) == OK)
		sent++;
	assert_int_equal(err, ERR_LIMIT);
	assert_true(ipc_queued(s.a.ipc) <= IPC_QUEUE);
	assert_true(ipc_queued(s.a.ipc) > IPC_QUEUE - IPC_DATAGRAM);
	while (s.b.count < sent && !s.b.closed)
		spin(&s);
	assert_int_equal(s.b.count, sent);
	assert_true(s.b.ordered);
	assert_int_equal(ipc_queued(s.a.ipc), 0);
	assert_int_equal(ipc_send(s.a.ipc, T_TEXT, sent + 1, body, 4), OK);
	spin(&s);
	assert_int_equal(s.b.count, sent + 1);
	scene_close(&s);
}

/* What a peer may not do ---------------------------------------------------- */

struct raw_frame {
	uint16_t type, flags;
	uint32_t len;
	uint64_t serial;
	uint8_t body[16];
};

static void
expect_refused(struct scene *s, const char *why)
{
	spin(s);
	assert_int_equal(s->b.closed, 1);
	assert_int_equal(s->b.err, ERR_REFUSED);
	assert_string_equal(s->b.why, why);
	assert_int_equal(
	    ipc_send(s->b.ipc, T_ANSWER, 1, "", 0), ERR_WRONG_STATE);
	scene_close(s);
}

static void
strange_frames_close(void **state)
{
	static const struct {
		struct raw_frame frame;
		size_t len;
		const char *why;
	} row[] = {
		{ { T_TEXT, 0, 4, 1, { 0 } }, 15,
		    "a datagram that ends in a header" },
		{ { T_TEXT, 0, 4, 1, { 0 } }, 23,
		    "a datagram that ends in a message" },
		{ { T_TEXT, 0, 9, 1, { 0 } }, 24,
		    "a datagram that ends in a message" },
		{ { T_TEXT, 0, 0xfffffff9, 1, { 0 } }, 32,
		    "a datagram that ends in a message" },
		{ { T_TEXT, 0, IPC_BODY + 1, 1, { 0 } }, 32,
		    "a datagram that ends in a message" },
		{ { T_TEXT, 0, 4, 1, { 0 } }, 25,
		    "a datagram that ends in a header" },
		{ { T_TEXT, 0, 3, 1, { 0 } }, 24,
		    "a message that is too short" },
		{ { T_ONCE, 0, 9, 1, { 0 } }, 32,
		    "a message that is too long" },
		{ { T_UNKNOWN, 0, 0, 1, { 0 } }, 16,
		    "a message of a type that is not accepted" },
		{ { 0, 0, 0, 1, { 0 } }, 16,
		    "a message of a type that is not accepted" },
		{ { 65535, 0, 0, 1, { 0 } }, 16,
		    "a message of a type that is not accepted" },
		{ { T_ANSWER, 0, 0, 1, { 0 } }, 16,
		    "a message of a type that is not accepted" },
		{ { T_LATER, 0, 0, 1, { 0 } }, 16,
		    "a message that is not accepted in this state" },
		{ { T_TEXT, 1, 4, 1, { 0 } }, 24,
		    "a message with the wrong flags" },
		{ { T_FD, IPC_FD, 4, 1, { 0 } }, 24,
		    "a message with or without descriptors that should not" },
		{ { T_BAD, 0, 0, 1, { 0 } }, 16,
		    "a message whose content makes no sense" },
	};
	struct scene s;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		scene_open(&s, true);
		assert_int_equal(
		    send(s.raw, &row[i].frame, row[i].len, 0), row[i].len);
		expect_refused(&s, row[i].why);
	}
}

static void
too_large_a_datagram_closes(void **state)
{
	struct scene s;
	uint8_t *octets = calloc(1, IPC_DATAGRAM + 1);

	(void)state;
	scene_open(&s, true);
	assert_int_equal(
	    send(s.raw, octets, IPC_DATAGRAM + 1, 0), IPC_DATAGRAM + 1);
	free(octets);
	expect_refused(&s, "a datagram that is too large");
}

static void
once_is_once(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, false);
	assert_int_equal(ipc_send(s.a.ipc, T_ONCE, 1, "", 0), OK);
	spin(&s);
	assert_int_equal(s.b.closed, 0);
	assert_int_equal(ipc_send(s.a.ipc, T_ONCE, 2, "", 0), OK);
	spin(&s);
	assert_int_equal(s.b.count, 1);
	assert_int_equal(s.a.closed, 1); /* the peer of a closed link knows */
	assert_int_equal(s.a.err, ERR_IO);
	expect_refused(&s, "a message that is accepted only once");
}

static void
states_gate(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, false);
	ipc_state(s.b.ipc, 3);
	assert_int_equal(ipc_send(s.a.ipc, T_LATER, 1, "", 0), OK);
	spin(&s);
	assert_int_equal(s.b.closed, 0);
	assert_int_equal(s.b.count, 1);
	ipc_state(s.b.ipc, 4);
	assert_int_equal(ipc_send(s.a.ipc, T_LATER, 2, "", 0), OK);
	expect_refused(&s, "a message that is not accepted in this state");
}

/* Descriptors where none belong are closed, and so is the link. */
static void
unasked_descriptors_close(void **state)
{
	struct raw_frame frame = { T_TEXT, 0, 4, 1, { 0 } };
	union {
		struct cmsghdr header;
		uint8_t octets[CMSG_SPACE(20 * sizeof(int))];
	} control;
	struct iovec vec = { &frame, 24 };
	struct msghdr msg = { .msg_iov = &vec, .msg_iovlen = 1 };
	struct scene s;
	int pipes[2], count, i, turn;
	char octet;

	(void)state;
	for (turn = 0; turn < 4; turn++) {
		/* Also with nothing beside them, as at the end of a link. */
		vec.iov_len = turn & 1 ? 0 : 24;
		count = turn & 2 ? 20 : 1;
		scene_open(&s, true);
		assert_int_equal(pipe(pipes), 0);
		memset(&control, 0, sizeof(control));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
		for (i = 0; i < count; i++)
			memcpy(CMSG_DATA(&control.header) +
			           (size_t)i * sizeof(int),
			    &pipes[1], sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
		assert_int_equal(sendmsg(s.raw, &msg, 0), vec.iov_len);
		close(pipes[1]);
		spin(&s);
		assert_int_equal(s.b.closed, 1);
		assert_int_equal(s.b.err, ERR_REFUSED);
		assert_int_equal(s.b.count, 0);
		/* No writer is left: every copy was closed. */
		assert_int_equal(read(pipes[0], &octet, 1), 0);
		close(pipes[0]);
		scene_close(&s);
	}
}

static void
death_is_noticed(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, false);
	s.b.free_in_closed = true;
	assert_int_equal(ipc_send(s.a.ipc, T_TEXT, 7, "last words", 10), OK);
	ipc_free(s.a.ipc);
	s.a.ipc = NULL;
	spin(&s);
	assert_int_equal(s.b.count, 1); /* what was queued still came */
	assert_int_equal(s.b.closed, 1);
	assert_int_equal(s.b.err, ERR_IO);
	assert_null(s.b.ipc);
	scene_close(&s);
}

static void
words_before_death_are_read(void **state)
{
	struct raw_frame frame = { T_TEXT, 0, 4, 9, { 0 } };
	struct scene s;

	(void)state;
	scene_open(&s, true);
	assert_int_equal(send(s.raw, &frame, 24, 0), 24);
	close(s.raw);
	s.raw = -1;
	/* Sending fails first; what came before is handled all the same. */
	assert_int_equal(ipc_send(s.b.ipc, T_ANSWER, 1, "", 0), OK);
	ipc_flush(s.b.ipc);
	assert_int_equal(
	    ipc_send(s.b.ipc, T_ANSWER, 1, "", 0), ERR_WRONG_STATE);
	spin(&s);
	assert_int_equal(s.b.count, 1);
	assert_int_equal(s.b.closed, 1);
	assert_int_equal(s.b.err, ERR_IO);
	scene_close(&s);
}

static void
refusal_to_send_is_the_end(void **state)
{
	static const uint8_t body[IPC_BODY];
	const int small = 1; /* the system's least: some thousand octets */
	struct scene s;
	int pair[2];

	(void)state;
	scene_open(&s, false);
	ipc_free(s.b.ipc);
	assert_int_equal(ipc_pair(pair), OK);
	assert_int_equal(
	    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)),
	    0);
	s.b.ipc = ipc_new(s.loop, pair[0], server,
	    sizeof(server) / sizeof(server[0]), on_closed, &s.b);
	s.b.free_in_closed = true;
	assert_int_equal(
	    ipc_send(s.b.ipc, T_ANSWER, 1, body, sizeof(body)), OK);
	ipc_flush(s.b.ipc);
	assert_int_equal(s.b.closed, 0); /* not from inside */
	spin(&s);
	assert_int_equal(s.b.closed, 1);
	assert_int_equal(s.b.err, ERR_IO);
	assert_string_equal(s.b.why, "the system refused to send");
	close(pair[1]);
	scene_close(&s);
}

static void
handler_may_free(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, false);
	assert_int_equal(ipc_send(s.a.ipc, T_FREE, 1, "", 0), OK);
	assert_int_equal(ipc_send(s.a.ipc, T_TEXT, 2, "late", 4), OK);
	spin(&s);
	assert_int_equal(s.b.count, 1);
	assert_int_equal(s.b.closed, 0);
	assert_null(s.b.ipc);
	assert_int_equal(s.a.closed, 1);
	scene_close(&s);
}

static void
tables_are_checked(void **state)
{
	static const struct ipc_permit no_handler[] = { { T_TEXT, IPC_IN, 0, 8,
	    0, NULL } };
	static const struct ipc_permit too_long[] = { { T_TEXT, IPC_OUT, 0,
	    IPC_BODY + 1, 0, NULL } };
	static const struct ipc_permit no_type[] = { { IPC_TYPES, IPC_OUT, 0, 8,
	    0, NULL } };
	struct loop *loop = loop_new();
	int pair[2];

	(void)state;
	assert_int_equal(ipc_pair(pair), OK);
	assert_null(ipc_new(loop, dup(pair[0]), no_handler, 1, on_closed, 0));
	assert_null(ipc_new(loop, dup(pair[0]), too_long, 1, on_closed, 0));
	assert_null(ipc_new(loop, dup(pair[0]), no_type, 1, on_closed, 0));
	assert_null(ipc_new(loop, pair[0], asker, IPC_ROWS + 1, on_closed, 0));
	close(pair[1]);
	ipc_free(NULL);
	loop_free(loop);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(batch_arrives_in_order),
		cmocka_unit_test(one_turn_is_one_datagram),
		cmocka_unit_test(bounds_of_a_body),
		cmocka_unit_test(descriptors_pass),
		cmocka_unit_test(queue_is_bounded),
		cmocka_unit_test(strange_frames_close),
		cmocka_unit_test(too_large_a_datagram_closes),
		cmocka_unit_test(once_is_once),
		cmocka_unit_test(states_gate),
		cmocka_unit_test(unasked_descriptors_close),
		cmocka_unit_test(death_is_noticed),
		cmocka_unit_test(words_before_death_are_read),
		cmocka_unit_test(refusal_to_send_is_the_end),
		cmocka_unit_test(handler_may_free),
		cmocka_unit_test(tables_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
