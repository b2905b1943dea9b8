#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/engine.h"
#include "common/fsm.h"
#include "common/sa.h"
#include "ikev1/state.h"
#include "ikev2/rules.h"

#define K(name)  KIND_BIT(name)
#define IN(name) IKE_STATE_BIT(IKE_##name)
#define TEXT     160

/* A toy engine ---------------------------------------------------------- */

enum { BEGIN, MIDDLE, END, ELSEWHERE };

struct world {
	struct env env;
	struct timers timers;
	uint64_t chance;
	struct ike_sa *sa;
	struct exchange *x; /* NULL once freed */
	unsigned sa_freed, x_freed;
	/* What the table's callbacks were told. */
	unsigned refused, failed, ignored, moved;
	enum err refused_err;
	char refused_text[TEXT];
	/* What steps did, as letters in order, and what they shall do. */
	char trace[64];
	enum verdict verdict; /* of step "b" */
	uint8_t wanted;
	bool kill_x, kill_sa, deliver_again;
	bool kill_x_after, kill_sa_after; /* in the callbacks */
};

static struct world *world;

static bool
chance(void *arg, void *octets, size_t len)
{
	struct world *w = arg;
	uint8_t *at = octets;

	for (size_t i = 0; i < len; i++) {
		w->chance =
		    w->chance * 6364136223846793005u + 1442695040888963407u;
		at[i] = (uint8_t)(w->chance >> 56);
	}
	return true;
}

static void
toy_free(struct ike_sa *sa)
{
	world->sa_freed++;
	world->sa = NULL;
	free(sa);
}

static void
toy_exchange_free(struct exchange *x)
{
	world->x_freed++;
	if (world->x == x)
		world->x = NULL;
	free(x);
}

static const struct engine toy = {
	.version = 2,
	.name = "toy",
	.free = toy_free,
	.exchange_free = toy_exchange_free,
};

static void
trace(char letter)
{
	size_t len = strlen(world->trace);

	assert_true(len + 1 < sizeof(world->trace));
	world->trace[len] = letter;
	world->trace[len + 1] = '\0';
}

static struct msg *message(const enum kind *kinds, size_t count, bool sealed);
static const struct fsm table;

static enum verdict
step_a(struct ike_sa *sa, struct exchange *x, struct msg *msg)
{
	(void)sa;
	(void)x;
	(void)msg;
	trace('a');
	return DONE;
}

static enum verdict
step_b(struct ike_sa *sa, struct exchange *x, struct msg *msg)
{
	enum kind nonce = KIND_NONCE;

	assert_true(x->running);
	assert_ptr_equal(x->msg, msg);
	trace('b');
	if (world->wanted != 0)
		x->wanted = world->wanted;
	if (world->deliver_again)
		assert_false(fsm_deliver(&table, x, message(&nonce, 1, false)));
	if (world->kill_x)
		exchange_end(x);
	if (world->kill_sa)
		sa_kill(sa, ERR_CANCELLED, false, "test");
	if (world->verdict == FAIL)
		return fsm_fail(x, ERR_TS, 38, "no %s", "selector");
	return world->verdict;
}

static enum verdict
step_c(struct ike_sa *sa, struct exchange *x, struct msg *msg)
{
	(void)sa;
	(void)x;
	(void)msg;
	trace('c');
	return DONE;
}

static enum verdict
step_other(struct ike_sa *sa, struct exchange *x, struct msg *msg)
{
	(void)sa;
	(void)x;
	(void)msg;
	trace('o');
	return DONE;
}

static enum verdict
step_late(struct ike_sa *sa, struct exchange *x, struct msg *msg)
{
	(void)sa;
	(void)x;
	assert_null(msg);
	trace('l');
	return DONE;
}

#define ROW(must_, ...)                                                        \
	{                                                                      \
		.shows = "toy", .cites = "none",                               \
		.exchange = EXCH_INFORMATIONAL, .role = ROLE_RESPONDER,        \
		.guard = IN(NEW) | IN(HALF_OPEN), .cover = COVER_CLEAR,        \
		.must = (must_), __VA_ARGS__                                   \
	}

static const struct rule rules[] = {
	/* 0: a more special row stands before a more general one */
	ROW(K(NONCE) | K(N_REKEY_SA), .state = BEGIN, .steps = { step_other },
	    .next = { END }, .next_count = 1),
	/* 1 */
	ROW(K(NONCE), .state = BEGIN, .may = K(KE), .many = K(CERTREQ),
	    .not = K(DELETE), .pair = K(ID),
	    .steps = { step_a, step_b, step_c }, .next = { MIDDLE, END },
	    .next_count = 2),
	/* 2: must come first */
	ROW(K(HASH) | K(DELETE), .first = KIND_HASH, .state = BEGIN,
	    .may = K(CERTREQ), .many = K(CERTREQ) | K(DELETE),
	    .steps = { step_other }, .next = { END }, .next_count = 1),
	/* 3: another state */
	ROW(K(NONCE), .state = MIDDLE, .steps = { step_c }, .next = { END },
	    .next_count = 1),
	/* 4: another role, sealed only, established only */
	{ .shows = "toy",
	    .cites = "none",
	    .exchange = EXCH_INFORMATIONAL,
	    .role = ROLE_INITIATOR,
	    .state = BEGIN,
	    .guard = IN(ESTABLISHED),
	    .cover = COVER_SEALED,
	    .must = K(NONCE),
	    .steps = { step_other },
	    .next = { END },
	    .next_count = 1 },
	/* 5: begins without a message */
	{ .shows = "(begins)",
	    .cites = "none",
	    .exchange = EXCH_CREATE_CHILD_SA,
	    .role = ROLE_INITIATOR,
	    .state = BEGIN,
	    .steps = { step_late, step_b, step_late },
	    .next = { MIDDLE },
	    .next_count = 1 },
	/* 6: every step that fits into a row, and no successor: it stays */
	ROW(K(KE), .state = ELSEWHERE,
	    .steps = { step_a, step_a, step_a, step_a, step_a, step_a, step_a,
	        step_a, step_a, step_a, step_a, step_a }),
};

static void
after(struct ike_sa *sa, struct exchange *x)
{
	/* Whatever a callback does, the row and message are gone already. */
	assert_null(x->rule);
	assert_null(x->msg);
	assert_false(x->waiting);
	if (world->kill_x_after)
		exchange_end(x);
	if (world->kill_sa_after)
		sa_kill(sa, ERR_CANCELLED, false, "test");
}

static void
refused(struct ike_sa *sa, struct exchange *x, const struct msg *msg,
    enum err err, const char *text)
{
	assert_non_null(msg);
	world->refused++;
	world->refused_err = err;
	snprintf(world->refused_text, sizeof(world->refused_text), "%s", text);
	after(sa, x);
}

static void
failed(struct ike_sa *sa, struct exchange *x)
{
	world->failed++;
	assert_int_not_equal(x->error.err, OK);
	after(sa, x);
}

static void
ignored(struct ike_sa *sa, struct exchange *x)
{
	world->ignored++;
	after(sa, x);
}

static void
moved(struct ike_sa *sa, struct exchange *x)
{
	world->moved++;
	after(sa, x);
}

static const struct fsm table = {
	.rules = rules,
	.count = sizeof(rules) / sizeof(rules[0]),
	.anywhere = K(VID) | K(N_STATUS),
	.refused = refused,
	.failed = failed,
	.ignored = ignored,
	.moved = moved,
};

/* As wire_payloads_read() leaves it. */
static struct msg *
message(const enum kind *kinds, size_t count, bool sealed)
{
	struct msg *msg = calloc(1, sizeof(*msg));
	kind_set bit;

	assert_non_null(msg);
	assert_true(count <= WIRE_PAYLOADS);
	msg->sealed = sealed;
	for (size_t i = 0; i < count; i++) {
		bit = kind_bit(kinds[i]);
		msg->payload[i].kind = (uint8_t)kinds[i];
		if ((msg->seen & bit) != 0)
			msg->repeated |= bit;
		msg->seen |= bit;
	}
	msg->count = count;
	return msg;
}

#define SEND(...)                                                              \
	deliver((const enum kind[]){ __VA_ARGS__ },                            \
	    sizeof((const enum kind[]){ __VA_ARGS__ }) / sizeof(enum kind))

static bool
deliver(const enum kind *kinds, size_t count)
{
	return fsm_deliver(&table, world->x, message(kinds, count, false));
}

static struct exchange *
exchange(uint8_t type, enum role role, uint8_t state)
{
	struct exchange *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	x->type = type;
	x->role = (uint8_t)role;
	x->state = state;
	exchange_begin(world->sa, x);
	return x;
}

static int
setup(void **state)
{
	struct endpoint local = { .port = 500 }, remote = { .port = 500 };

	world = calloc(1, sizeof(*world));
	assert_non_null(world);
	timers_init(&world->timers, 1000);
	world->env.timers = &world->timers;
	world->env.random = chance;
	world->env.random_arg = world;
	assert_int_equal(sadb_new(&world->env), OK);
	assert_true(addr_parse(&local.addr, "192.0.2.1"));
	assert_true(addr_parse(&remote.addr, "192.0.2.2"));
	world->sa = calloc(1, sizeof(*world->sa));
	assert_non_null(world->sa);
	assert_int_equal(sa_init(&world->env, world->sa, &toy, false, 77,
	                     &local, &remote, false),
	    OK);
	world->x = exchange(EXCH_INFORMATIONAL, ROLE_RESPONDER, BEGIN);
	*state = world;
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	sadb_free(world->env.sadb);
	assert_int_equal(world->sa_freed, 1);
	assert_null(world->x);
	free(world);
	world = NULL;
	return 0;
}

/* Matching -------------------------------------------------------------- */

static const struct rule *
match(const enum kind *kinds, size_t count, bool sealed, enum err *err)
{
	struct msg *msg = message(kinds, count, sealed);
	const struct rule *rule;
	char text[TEXT] = "";

	rule = fsm_match(
	    &table, world->sa, world->x, msg, err, text, sizeof(text));
	assert_true((rule == NULL) == (*err != OK));
	assert_true((rule == NULL) == (text[0] != '\0'));
	snprintf(world->refused_text, sizeof(world->refused_text), "%s", text);
	msg_free(msg);
	return rule;
}

#define MATCH(err, ...)                                                        \
	match((const enum kind[]){ __VA_ARGS__ },                              \
	    sizeof((const enum kind[]){ __VA_ARGS__ }) / sizeof(enum kind),    \
	    false, err)

static void
test_first_row_wins(void **state)
{
	enum err err;

	(void)state;
	assert_ptr_equal(MATCH(&err, KIND_NONCE, KIND_N_REKEY_SA), &rules[0]);
	assert_ptr_equal(MATCH(&err, KIND_NONCE), &rules[1]);
	assert_ptr_equal(MATCH(&err, KIND_NONCE, KIND_KE), &rules[1]);
	world->x->state = MIDDLE;
	assert_ptr_equal(MATCH(&err, KIND_NONCE, KIND_N_REKEY_SA), &rules[3]);
}

static void
test_must_and_not(void **state)
{
	enum err err;

	(void)state;
	assert_null(MATCH(&err, KIND_KE));
	assert_int_equal(err, ERR_SYNTAX);
	assert_non_null(strstr(world->refused_text, "is missing"));
	assert_null(match(NULL, 0, false, &err));
	assert_int_equal(err, ERR_SYNTAX);
	/* DELETE keeps row 1 out, and row 2 wants HASH. */
	assert_null(MATCH(&err, KIND_NONCE, KIND_DELETE));
	assert_int_equal(err, ERR_SYNTAX);
	/* What must not stand there is named when nothing is missing. */
	world->x->state = MIDDLE;
	assert_ptr_equal(MATCH(&err, KIND_NONCE, KIND_DELETE), &rules[3]);
}

static void
test_first_payload(void **state)
{
	enum err err;

	(void)state;
	assert_ptr_equal(MATCH(&err, KIND_HASH, KIND_DELETE), &rules[2]);
	assert_null(MATCH(&err, KIND_DELETE, KIND_HASH));
	assert_int_equal(err, ERR_SYNTAX);
	assert_non_null(strstr(world->refused_text, "must come first"));
	/* Not even a payload that may stand anywhere goes before it. */
	assert_null(MATCH(&err, KIND_VID, KIND_HASH, KIND_DELETE));
}

static void
test_repeats(void **state)
{
	enum err err;

	(void)state;
	/* A second nonce or KE where one belongs is an error. */
	assert_null(MATCH(&err, KIND_NONCE, KIND_NONCE));
	assert_int_equal(err, ERR_SYNTAX);
	assert_non_null(strstr(world->refused_text, "more than once"));
	assert_null(MATCH(&err, KIND_NONCE, KIND_KE, KIND_KE));
	assert_null(
	    MATCH(&err, KIND_HASH, KIND_HASH, KIND_DELETE, KIND_DELETE));
	/* What the row lists in many, or not at all, or may stand anywhere. */
	assert_non_null(MATCH(&err, KIND_HASH, KIND_DELETE, KIND_DELETE,
	    KIND_CERTREQ, KIND_CERTREQ, KIND_CERTREQ));
	assert_non_null(MATCH(&err, KIND_NONCE, KIND_CERT, KIND_CERT));
	assert_non_null(MATCH(&err, KIND_VID, KIND_NONCE, KIND_VID,
	    KIND_N_STATUS, KIND_N_STATUS));
}

static void
test_pairs(void **state)
{
	enum err err;

	(void)state;
	assert_non_null(MATCH(&err, KIND_NONCE));
	assert_null(MATCH(&err, KIND_NONCE, KIND_ID));
	assert_int_equal(err, ERR_SYNTAX);
	assert_non_null(strstr(world->refused_text, "twice or not at all"));
	assert_non_null(MATCH(&err, KIND_ID, KIND_NONCE, KIND_ID));
	assert_null(MATCH(&err, KIND_NONCE, KIND_ID, KIND_ID, KIND_ID));
}

static void
test_guard_cover_role(void **state)
{
	enum kind nonce = KIND_NONCE;
	enum err err;

	(void)state;
	/* Sealed where only clear text may stand. */
	assert_null(match(&nonce, 1, true, &err));
	assert_int_equal(err, ERR_WRONG_STATE);
	sa_set_state(world->sa, IKE_HALF_OPEN);
	assert_non_null(match(&nonce, 1, false, &err));
	sa_set_state(world->sa, IKE_CLOSING);
	assert_null(match(&nonce, 1, false, &err));
	assert_int_equal(err, ERR_WRONG_STATE);
	world->x->role = ROLE_INITIATOR;
	assert_null(match(&nonce, 1, true, &err));
	world->sa->state = IKE_ESTABLISHED;
	assert_null(match(&nonce, 1, false, &err));
	assert_ptr_equal(match(&nonce, 1, true, &err), &rules[4]);
	world->x->type = EXCH_IKE_AUTH;
	assert_null(match(&nonce, 1, true, &err));
	world->sa->state = IKE_CLOSING;
}

/* Running --------------------------------------------------------------- */

static void
test_steps_in_order(void **state)
{
	(void)state;
	assert_true(SEND(KIND_NONCE));
	assert_string_equal(world->trace, "abc");
	assert_int_equal(world->moved, 1);
	assert_int_equal(world->x->state, MIDDLE); /* the first successor */
	assert_true(SEND(KIND_NONCE));
	assert_string_equal(world->trace, "abcc");
	assert_int_equal(world->x->state, END);
	/* No row for this state. */
	assert_false(SEND(KIND_NONCE));
	assert_int_equal(world->refused, 1);
	assert_int_equal(world->refused_err, ERR_WRONG_STATE);
	assert_int_equal(world->x->state, END);
	assert_string_equal(world->trace, "abcc");
}

static void
test_full_row(void **state)
{
	(void)state;
	world->x->state = ELSEWHERE;
	assert_true(SEND(KIND_KE));
	assert_string_equal(world->trace, "aaaaaaaaaaaa");
	assert_int_equal(world->x->state, ELSEWHERE);
	assert_int_equal(world->moved, 1);
}

static void
test_chosen_successor(void **state)
{
	(void)state;
	world->wanted = END;
	assert_true(SEND(KIND_NONCE));
	assert_int_equal(world->x->state, END);
	assert_int_equal(world->failed, 0);
}

static void
test_forbidden_successor(void **state)
{
	(void)state;
	world->wanted = ELSEWHERE;
	assert_true(SEND(KIND_NONCE));
	assert_string_equal(world->trace, "abc");
	assert_int_equal(world->moved, 0);
	assert_int_equal(world->failed, 1);
	assert_int_equal(world->x->error.err, ERR_BUG);
	assert_int_equal(world->x->state, BEGIN);
}

static void
test_wait_and_resume(void **state)
{
	struct exchange *x = world->x;
	uint64_t *repeated = &world->env.counter[COUNTER_PACKETS_REPEATED];

	(void)state;
	world->verdict = WAIT;
	/* Resuming what does not wait is nothing. */
	fsm_resume(&table, x, OK);
	assert_string_equal(world->trace, "");
	assert_true(SEND(KIND_NONCE));
	assert_string_equal(world->trace, "ab");
	assert_true(x->waiting);
	assert_non_null(x->msg);
	assert_int_equal(x->state, BEGIN);
	/* Meanwhile further messages are dropped, whatever they are. */
	assert_int_equal(*repeated, 0);
	assert_false(SEND(KIND_NONCE));
	assert_false(SEND(KIND_HASH, KIND_DELETE));
	assert_int_equal(*repeated, 2);
	assert_int_equal(world->refused, 0);
	fsm_begin(&table, x, &rules[5]);
	assert_string_equal(world->trace, "ab");
	fsm_resume(&table, x, OK);
	assert_string_equal(world->trace, "abc");
	assert_int_equal(x->state, MIDDLE);
	assert_false(x->waiting);
	assert_null(x->msg);
	/* A second answer finds nobody. */
	fsm_resume(&table, x, OK);
	assert_string_equal(world->trace, "abc");
	assert_int_equal(world->moved, 1);
}

static void
test_resume_with_error(void **state)
{
	(void)state;
	world->verdict = WAIT;
	assert_true(SEND(KIND_NONCE));
	fsm_resume(&table, world->x, ERR_KE);
	assert_string_equal(world->trace, "ab");
	assert_int_equal(world->failed, 1);
	assert_int_equal(world->x->error.err, ERR_KE);
	assert_string_equal(world->x->error.text, err_text(ERR_KE));
	assert_int_equal(world->x->state, BEGIN);
	/* The caller's own words stay. */
	assert_true(SEND(KIND_NONCE));
	assert_int_equal(world->x->error.err, OK);
	fsm_fail(world->x, ERR_AUTH, 24, "because");
	fsm_resume(&table, world->x, ERR_KE);
	assert_int_equal(world->x->error.err, ERR_AUTH);
	assert_int_equal(world->x->error.notify, 24);
	assert_string_equal(world->x->error.text, "because");
}

static void
test_resume_kills(void **state)
{
	(void)state;
	world->verdict = WAIT;
	world->kill_sa_after = true;
	assert_true(SEND(KIND_NONCE));
	fsm_resume(&table, world->x, ERR_KE);
	assert_null(world->x);
	assert_int_equal(world->sa_freed, 1);
}

static void
test_ignore(void **state)
{
	(void)state;
	world->verdict = IGNORE;
	assert_true(SEND(KIND_NONCE));
	assert_string_equal(world->trace, "ab");
	assert_int_equal(world->ignored, 1);
	assert_int_equal(world->moved + world->failed, 0);
	assert_int_equal(world->x->state, BEGIN);
	/* As if it had never come. */
	world->verdict = DONE;
	assert_true(SEND(KIND_NONCE));
	assert_int_equal(world->x->state, MIDDLE);
}

static void
test_fail(void **state)
{
	(void)state;
	world->verdict = FAIL;
	assert_true(SEND(KIND_NONCE));
	assert_string_equal(world->trace, "ab");
	assert_int_equal(world->failed, 1);
	assert_int_equal(world->x->error.err, ERR_TS);
	assert_int_equal(world->x->error.notify, 38);
	assert_string_equal(world->x->error.text, "no selector");
	assert_int_equal(world->x->state, BEGIN);
	/* The next message begins without the last one's error. */
	world->verdict = DONE;
	assert_true(SEND(KIND_NONCE));
	assert_int_equal(world->x->error.err, OK);
}

static void
test_begin_without_message(void **state)
{
	struct exchange *x =
	    exchange(EXCH_CREATE_CHILD_SA, ROLE_INITIATOR, BEGIN);

	(void)state;
	world->verdict = WAIT;
	fsm_begin(&table, x, &rules[5]);
	assert_string_equal(world->trace, "lb");
	assert_int_equal(x->state, BEGIN);
	fsm_resume(&table, x, OK);
	assert_string_equal(world->trace, "lbl");
	assert_int_equal(x->state, MIDDLE);
}

/* Ends ------------------------------------------------------------------ */

static void
test_exchange_killed_by_its_step(void **state)
{
	static const enum verdict verdicts[] = { DONE, WAIT, IGNORE, FAIL };

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		world->verdict = verdicts[i];
		world->kill_x = true;
		world->trace[0] = '\0';
		assert_true(SEND(KIND_NONCE));
		assert_string_equal(world->trace, "ab");
		assert_null(world->x);
		assert_int_equal(world->x_freed, i + 1);
		assert_int_equal(world->sa->exchange_count, 0);
		/* No callback is told of what has gone. */
		assert_int_equal(
		    world->moved + world->failed + world->ignored, 0);
		world->x = exchange(EXCH_INFORMATIONAL, ROLE_RESPONDER, BEGIN);
	}
	assert_int_equal(world->sa->holds, 0);
}

static void
test_sa_killed_by_a_step(void **state)
{
	(void)state;
	world->kill_sa = true;
	exchange(EXCH_CREATE_CHILD_SA, ROLE_INITIATOR, BEGIN);
	assert_true(SEND(KIND_NONCE));
	assert_string_equal(world->trace, "ab");
	assert_int_equal(world->x_freed, 2);
	assert_int_equal(world->sa_freed, 1);
	assert_int_equal(world->moved, 0);
}

static void
test_killed_by_callbacks(void **state)
{
	static const enum verdict verdicts[] = { DONE, IGNORE, FAIL };

	(void)state;
	world->kill_x_after = true;
	for (size_t i = 0; i < 3; i++) {
		world->verdict = verdicts[i];
		assert_true(SEND(KIND_NONCE));
		assert_null(world->x);
		world->x = exchange(EXCH_INFORMATIONAL, ROLE_RESPONDER, BEGIN);
	}
	assert_false(SEND(KIND_KE));
	assert_int_equal(world->refused, 1);
	assert_null(world->x);
	world->x = exchange(EXCH_INFORMATIONAL, ROLE_RESPONDER, BEGIN);
	world->kill_sa_after = true;
	assert_false(SEND(KIND_KE));
	assert_int_equal(world->sa_freed, 1);
}

static void
test_sa_killed_by_moved(void **state)
{
	(void)state;
	world->kill_sa_after = true;
	assert_true(SEND(KIND_NONCE));
	assert_int_equal(world->sa_freed, 1);
	assert_null(world->x);
}

/* Killed from elsewhere while an answer is out: the answer finds nothing. */
static void
test_killed_while_waiting(void **state)
{
	struct ticket ticket = sa_ticket(world->sa, world->x, NULL);

	(void)state;
	world->verdict = WAIT;
	assert_true(SEND(KIND_NONCE));
	assert_ptr_equal(exchange_by_ticket(&world->env, ticket), world->x);
	exchange_end(world->x);
	assert_null(world->x);
	assert_null(exchange_by_ticket(&world->env, ticket));
	world->x = exchange(EXCH_INFORMATIONAL, ROLE_RESPONDER, BEGIN);
	assert_null(exchange_by_ticket(&world->env, ticket));
	ticket = sa_ticket(world->sa, world->x, NULL);
	assert_true(SEND(KIND_NONCE));
	sa_kill(world->sa, ERR_CANCELLED, false, "test");
	assert_null(exchange_by_ticket(&world->env, ticket));
	assert_int_equal(world->sa_freed, 1);
}

static void
test_delivery_from_a_step(void **state)
{
	(void)state;
	world->deliver_again = true;
	assert_true(SEND(KIND_NONCE));
	assert_string_equal(world->trace, "abc");
	assert_int_equal(world->moved, 1);
	assert_int_equal(world->env.counter[COUNTER_PACKETS_REPEATED], 1);
}

static void
test_finding_exchanges(void **state)
{
	struct exchange *x = world->x, *second;

	(void)state;
	second = exchange(EXCH_INFORMATIONAL, ROLE_INITIATOR, BEGIN);
	second->id = x->id = 5;
	assert_int_equal(world->sa->exchange_count, 2);
	assert_ptr_equal(
	    exchange_find(world->sa, EXCH_INFORMATIONAL, ROLE_RESPONDER, 5), x);
	assert_ptr_equal(
	    exchange_find(world->sa, EXCH_INFORMATIONAL, ROLE_INITIATOR, 5),
	    second);
	assert_null(
	    exchange_find(world->sa, EXCH_CREATE_CHILD_SA, ROLE_INITIATOR, 5));
	assert_null(
	    exchange_find(world->sa, EXCH_INFORMATIONAL, ROLE_INITIATOR, 6));
	assert_ptr_equal(exchange_by_serial(world->sa, second->serial), second);
	assert_int_not_equal(x->serial, second->serial);
	assert_null(exchange_by_serial(world->sa, 0));
	exchange_end(second);
	assert_int_equal(world->sa->exchange_count, 1);
	assert_null(
	    exchange_find(world->sa, EXCH_INFORMATIONAL, ROLE_INITIATOR, 5));
}

/* Both engines' tables -------------------------------------------------- */

static uint64_t
draw(uint64_t bound)
{
	uint64_t value;

	chance(world, &value, sizeof(value));
	return value % bound;
}

static unsigned
popcount(kind_set set)
{
	return (unsigned)__builtin_popcountll((uint64_t)set) +
	       (unsigned)__builtin_popcountll((uint64_t)(set >> 64));
}

/* Rows that begin an exchange of ours are taken by fsm_begin(), without a
 * message. */
static bool
begins(const struct rule *rule)
{
	return rule->guard == 0 || strncmp(rule->shows, "-> ", 3) == 0;
}

/* A row promises nothing that cannot be. */
static void
check_row(const struct fsm *fsm, const struct rule *rule)
{
	kind_set must = rule->must;
	unsigned i;

	assert_non_null(rule->shows);
	assert_non_null(strstr(rule->cites, "RFC"));
	assert_true(rule->next_count <= FSM_NEXT);
	assert_non_null(rule->steps[0]);
	if (begins(rule)) {
		assert_int_equal(must, 0);
		return;
	}
	assert_int_not_equal(rule->cover, 0);
	assert_true((must & rule->not ) == 0);
	assert_true((must & rule->pair) == 0);
	assert_true((rule->pair & rule->many) == 0);
	assert_true((rule->not &(rule->may | rule->pair)) == 0);
	assert_true((rule->not &fsm->anywhere) == 0);
	assert_true((rule->many & ~(must | rule->may | fsm->anywhere)) == 0);
	if (rule->first != KIND_NONE)
		assert_true((must & kind_bit((enum kind)rule->first)) != 0);
	/* Steps stand without holes. */
	for (i = 1; i < FSM_STEPS; i++)
		assert_true(
		    rule->steps[i] == NULL || rule->steps[i - 1] != NULL);
}

/* The definition of a row's winning, written a second time and apart. */
static const struct rule *
expected(const struct fsm *fsm, const struct ike_sa *sa,
    const struct exchange *x, const struct msg *msg, enum err *err)
{
	unsigned count[KIND_COUNT] = { 0 };
	const struct rule *rule;
	bool any = false;

	for (size_t i = 0; i < msg->count; i++)
		count[msg->payload[i].kind]++;
	for (size_t i = 0; i < fsm->count; i++) {
		bool fits = true, holds = true;

		rule = &fsm->rules[i];
		if (rule->exchange != x->type || rule->role != x->role ||
		    rule->state != x->state ||
		    !(rule->guard & (1u << sa->state)) ||
		    !(rule->cover & (msg->sealed ? 2 : 1)))
			continue;
		any = true;
		for (unsigned k = 1; k < KIND_COUNT; k++) {
			kind_set bit = kind_bit((enum kind)k);
			bool lone = ((rule->must | rule->may) & bit) != 0 ||
			            rule->first == k;

			if ((rule->must & bit) != 0 && count[k] == 0)
				fits = false;
			if ((rule->not &bit) != 0 && count[k] > 0)
				fits = false;
			if ((rule->pair & bit) != 0 && count[k] != 0 &&
			    count[k] != 2)
				holds = false;
			if (lone && count[k] > 1 &&
			    !((rule->many | rule->pair | fsm->anywhere) & bit))
				holds = false;
		}
		if (rule->first != KIND_NONE &&
		    (msg->count == 0 || msg->payload[0].kind != rule->first))
			holds = false;
		if (!fits)
			continue;
		*err = holds ? OK : ERR_SYNTAX;
		return holds ? rule : NULL;
	}
	*err = any ? ERR_SYNTAX : ERR_WRONG_STATE;
	return NULL;
}

struct tally {
	unsigned messages, won[128];
};

static void
check_message(const struct fsm *fsm, const struct msg *msg, struct tally *tally)
{
	const struct rule *wanted, *found;
	enum err wanted_err, err = ERR_BUG;
	char text[TEXT] = "";

	wanted = expected(fsm, world->sa, world->x, msg, &wanted_err);
	found =
	    fsm_match(fsm, world->sa, world->x, msg, &err, text, sizeof(text));
	if (found != wanted || err != wanted_err) {
		print_error("exchange %u role %u state %u: %s, not %s\n",
		    world->x->type, world->x->role, world->x->state,
		    found == NULL ? err_text(err) : found->shows,
		    wanted == NULL ? err_text(wanted_err) : wanted->shows);
		fail();
	}
	assert_true((found == NULL) == (text[0] != '\0'));
	tally->messages++;
	if (found != NULL)
		tally->won[found - fsm->rules]++;
}

/* Kinds that decide anything in this exchange and role. */
static size_t
deciding(const struct fsm *fsm, uint8_t type, uint8_t role,
    enum kind kinds[KIND_COUNT])
{
	const struct rule *rule;
	kind_set set = 0;
	size_t count = 0;

	for (size_t i = 0; i < fsm->count; i++) {
		rule = &fsm->rules[i];
		if (rule->exchange != type || rule->role != role)
			continue;
		set |= rule->must | rule->not | rule->pair;
		if (rule->first != KIND_NONE)
			set |= kind_bit((enum kind)rule->first);
	}
	for (unsigned k = 1; k < KIND_COUNT; k++)
		if ((set & kind_bit((enum kind)k)) != 0)
			kinds[count++] = (enum kind)k;
	return count;
}

/* All subsets of what decides, as long as they are not too many, each in an
 * order, with repeats and with strangers among them. */
static void
check_state(const struct fsm *fsm, struct tally *tally)
{
	enum kind kinds[KIND_COUNT], chosen[WIRE_PAYLOADS], swap;
	size_t count, i, n;
	uint64_t subsets, subset;
	struct msg *msg;
	bool all;

	count = deciding(fsm, world->x->type, world->x->role, kinds);
	all = count <= 8;
	subsets = all ? 4u << count : 512;
	for (uint64_t s = 0; s < subsets; s++) {
		subset = all ? s / 4 : draw(1ull << count);
		/* Few rather than many: that is where rows win. */
		if (!all && s % 2 == 0)
			subset &= draw(1ull << count) & draw(1ull << count);
		n = 0;
		for (i = 0; i < count; i++) {
			if ((subset >> i & 1) == 0)
				continue;
			chosen[n++] = kinds[i];
			if (draw(6) == 0)
				chosen[n++] = kinds[i];
			if (n + 4 > WIRE_PAYLOADS)
				break;
		}
		if (draw(4) == 0)
			chosen[n++] = (enum kind)(1 + draw(KIND_COUNT - 1));
		/* HASH leads where it stands, mostly; else any order. */
		for (i = 1; i < n && s % 4 != 0; i++)
			if (chosen[i] == KIND_HASH) {
				chosen[i] = chosen[0];
				chosen[0] = KIND_HASH;
			}
		for (i = 1; i < n && draw(4) == 0; i++) {
			size_t other = draw(n);

			swap = chosen[i];
			chosen[i] = chosen[other];
			chosen[other] = swap;
		}
		for (unsigned sealed = 0; sealed < 2; sealed++) {
			msg = message(chosen, n, sealed);
			check_message(fsm, msg, tally);
			msg_free(msg);
		}
	}
}

/* A row must be able to win: with what it demands and nothing else. */
static void
check_reachable(const struct fsm *fsm, const struct rule *rule)
{
	enum kind kinds[WIRE_PAYLOADS];
	struct msg *msg;
	char text[TEXT];
	size_t n = 0;
	enum err err;
	bool won = false;

	if (begins(rule))
		return;
	if (rule->first != KIND_NONE)
		kinds[n++] = (enum kind)rule->first;
	for (unsigned k = 1; k < KIND_COUNT; k++)
		if ((rule->must & kind_bit((enum kind)k)) != 0 &&
		    k != rule->first)
			kinds[n++] = (enum kind)k;
	assert_int_equal(n, popcount(rule->must));
	world->x->type = rule->exchange;
	world->x->role = rule->role;
	world->x->state = rule->state;
	for (unsigned state = IKE_NEW; state < IKE_DEAD; state++) {
		world->sa->state = (uint8_t)state;
		for (unsigned sealed = 0; sealed < 2; sealed++) {
			msg = message(kinds, n, sealed);
			won |= fsm_match(fsm, world->sa, world->x, msg, &err,
			           text, sizeof(text)) == rule;
			msg_free(msg);
		}
	}
	if (!won) {
		print_error("no message ever reaches %s\n", rule->shows);
		fail();
	}
}

static void
check_table(const struct fsm *fsm)
{
	static const uint8_t types[] = { EXCH_IDENTITY_PROTECTION,
		EXCH_AGGRESSIVE, EXCH_INFORMATIONAL_V1, EXCH_QUICK,
		EXCH_IKE_SA_INIT, EXCH_IKE_AUTH, EXCH_CREATE_CHILD_SA,
		EXCH_INFORMATIONAL, 0, 255 };
	struct tally tally = { 0 };
	uint8_t states = 0;

	assert_true(fsm->count > 0 && fsm->count <= 128);
	for (size_t i = 0; i < fsm->count; i++) {
		const struct rule *rule = &fsm->rules[i];

		check_row(fsm, rule);
		check_reachable(fsm, rule);
		if (rule->state >= states)
			states = (uint8_t)(rule->state + 1);
		for (unsigned n = 0; n < rule->next_count; n++)
			if (rule->next[n] >= states)
				states = (uint8_t)(rule->next[n] + 1);
	}
	for (size_t t = 0; t < sizeof(types); t++) {
		world->x->type = types[t];
		for (uint8_t role = 0; role < 2; role++) {
			world->x->role = role;
			for (uint8_t s = 0; s <= states; s++) {
				world->x->state = s;
				for (uint8_t ike = IKE_NEW; ike < IKE_DEAD;
				     ike++) {
					world->sa->state = ike;
					check_state(fsm, &tally);
				}
			}
		}
	}
	world->sa->state = IKE_HALF_OPEN;
	for (size_t i = 0; i < fsm->count; i++) {
		if (begins(&fsm->rules[i]) || tally.won[i] > 0)
			continue;
		print_error("never won: %s\n", fsm->rules[i].shows);
		fail();
	}
	print_message(
	    "%u messages decided by %zu rows\n", tally.messages, fsm->count);
}

static void
test_v1_table(void **state)
{
	(void)state;
	check_table(&v1_fsm);
}

static void
test_v2_table(void **state)
{
	(void)state;
	check_table(&v2_fsm);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_first_row_wins),
		TEST(test_must_and_not),
		TEST(test_first_payload),
		TEST(test_repeats),
		TEST(test_pairs),
		TEST(test_guard_cover_role),
		TEST(test_steps_in_order),
		TEST(test_full_row),
		TEST(test_chosen_successor),
		TEST(test_forbidden_successor),
		TEST(test_wait_and_resume),
		TEST(test_resume_with_error),
		TEST(test_resume_kills),
		TEST(test_ignore),
		TEST(test_fail),
		TEST(test_begin_without_message),
		TEST(test_exchange_killed_by_its_step),
		TEST(test_sa_killed_by_a_step),
		TEST(test_killed_by_callbacks),
		TEST(test_sa_killed_by_moved),
		TEST(test_killed_while_waiting),
		TEST(test_delivery_from_a_step),
		TEST(test_finding_exchanges),
		TEST(test_v1_table),
		TEST(test_v2_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
