#include "common/fsm.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/engine.h"

/* What applies to every row besides its own sets. */
static kind_set
allowed(const struct fsm *fsm, const struct rule *rule)
{
	return rule->must | rule->may | rule->pair | fsm->anywhere |
	       (rule->first == KIND_NONE ? 0 : kind_bit(rule->first));
}

static bool
applies(const struct rule *rule, const struct ike_sa *sa,
    const struct exchange *x, const struct msg *msg)
{
	return rule->exchange == x->type && rule->role == x->role &&
	       rule->state == x->state &&
	       (rule->guard & IKE_STATE_BIT(sa->state)) != 0 &&
	       (rule->cover & (msg->sealed ? COVER_SEALED : COVER_CLEAR)) != 0;
}

static enum kind
first_kind(kind_set set)
{
	unsigned kind;

	for (kind = 1; kind < KIND_COUNT; kind++)
		if ((set & kind_bit((enum kind)kind)) != 0)
			return (enum kind)kind;
	return KIND_NONE;
}

/* Counts beyond one: only for pairs, so rare that a walk is cheap. */
static unsigned
count_kind(const struct msg *msg, enum kind kind)
{
	unsigned count = 0;

	while (msg_payload(msg, kind, count) != NULL)
		count++;
	return count;
}

/* The sets of the row that won. What a row does not list is ignored by its
 * handlers; what it lists stands once, unless it says otherwise. */
static bool
sets_hold(const struct fsm *fsm, const struct rule *rule, const struct msg *msg,
    char *text, size_t size)
{
	kind_set repeated, pairs;
	enum kind kind;

	if (rule->first != KIND_NONE &&
	    (msg->count == 0 || msg->payload[0].kind != rule->first)) {
		snprintf(text, size, "%s must come first",
		    kind_text((enum kind)rule->first));
		return false;
	}
	repeated = msg->repeated & allowed(fsm, rule) &
	           ~(rule->many | rule->pair | fsm->anywhere);
	if (repeated != 0) {
		snprintf(text, size, "%s stands more than once",
		    kind_text(first_kind(repeated)));
		return false;
	}
	pairs = rule->pair & msg->seen;
	while (pairs != 0) {
		kind = first_kind(pairs);
		pairs &= ~kind_bit(kind);
		if (count_kind(msg, kind) != 2) {
			snprintf(text, size,
			    "%s must stand twice or not at all",
			    kind_text(kind));
			return false;
		}
	}
	return true;
}

const struct rule *
fsm_match(const struct fsm *fsm, const struct ike_sa *sa,
    const struct exchange *x, const struct msg *msg, enum err *err, char *text,
    size_t size)
{
	const struct rule *rule, *nearest = NULL;
	kind_set missing;
	size_t i;

	for (i = 0; i < fsm->count; i++) {
		rule = &fsm->rules[i];
		if (!applies(rule, sa, x, msg))
			continue;
		nearest = rule;
		if ((msg->seen & rule->must) != rule->must ||
		    (msg->seen & rule->not ) != 0)
			continue;
		if (!sets_hold(fsm, rule, msg, text, size)) {
			*err = ERR_SYNTAX;
			return NULL;
		}
		*err = OK;
		return rule;
	}
	if (nearest == NULL) {
		*err = ERR_WRONG_STATE;
		snprintf(text, size, "not expected now");
		return NULL;
	}
	*err = ERR_SYNTAX;
	missing = nearest->must & ~msg->seen;
	if (missing != 0)
		snprintf(text, size, "%s is missing (expected %s)",
		    kind_text(first_kind(missing)), nearest->shows);
	else
		snprintf(text, size, "%s must not stand here (expected %s)",
		    kind_text(first_kind(nearest->not &msg->seen)),
		    nearest->shows);
	return NULL;
}

void
exchange_begin(struct ike_sa *sa, struct exchange *x)
{
	x->sa = sa;
	x->serial = env_serial(sa->env);
	x->next = sa->exchanges;
	sa->exchanges = x;
	sa->exchange_count++;
}

struct exchange *
exchange_find(struct ike_sa *sa, uint8_t type, enum role role, uint32_t id)
{
	struct exchange *x;

	for (x = sa->exchanges; x != NULL; x = x->next)
		if (!x->ended && x->type == type && x->role == role &&
		    x->id == id)
			return x;
	return NULL;
}

struct exchange *
exchange_by_serial(struct ike_sa *sa, uint64_t serial)
{
	struct exchange *x;

	for (x = sa->exchanges; x != NULL; x = x->next)
		if (!x->ended && x->serial == serial)
			return x;
	return NULL;
}

struct exchange *
exchange_by_ticket(struct env *env, struct ticket ticket)
{
	struct ike_sa *sa = sa_by_serial(env->sadb, ticket.sa);

	return sa == NULL ? NULL : exchange_by_serial(sa, ticket.exchange);
}

static void
exchange_release(struct exchange *x)
{
	msg_free(x->msg);
	x->msg = NULL;
	x->sa->engine->exchange_free(x);
}

void
exchange_end(struct exchange *x)
{
	struct exchange **at;
	struct ike_sa *sa = x->sa;

	if (x->ended)
		return;
	x->ended = true;
	for (at = &sa->exchanges; *at != NULL; at = &(*at)->next) {
		if (*at != x)
			continue;
		*at = x->next;
		sa->exchange_count--;
		break;
	}
	/* A rexmit that was never begun is all zero and holds nothing. */
	if (x->rexmit.env != NULL)
		rexmit_fini(&x->rexmit);
	if (!x->running)
		exchange_release(x);
}

enum verdict
fsm_fail(
    struct exchange *x, enum err err, uint16_t notify, const char *format, ...)
{
	va_list args;

	x->error.err = err;
	x->error.notify = notify;
	va_start(args, format);
	vsnprintf(x->error.text, sizeof(x->error.text), format, args);
	va_end(args);
	return FAIL;
}

/* All steps are done: the only place where an exchange's state changes. */
static bool
assign_state(struct exchange *x)
{
	const struct rule *rule = x->rule;
	unsigned i;

	if (rule->next_count == 0)
		return true;
	if (x->wanted == FSM_FIRST_NEXT) {
		x->state = rule->next[0];
		return true;
	}
	for (i = 0; i < rule->next_count; i++) {
		if (rule->next[i] == x->wanted) {
			x->state = x->wanted;
			return true;
		}
	}
	fsm_fail(x, ERR_BUG, 0, "state %u may not follow state %u (%s)",
	    x->wanted, x->state, rule->shows);
	return false;
}

/* The message and row go before the table's callback, which may begin or end
 * anything. */
static void
leave(const struct fsm *fsm, struct exchange *x, enum verdict verdict)
{
	struct ike_sa *sa = x->sa;

	x->waiting = false;
	x->step = 0;
	if (verdict == DONE && !assign_state(x))
		verdict = FAIL;
	x->rule = NULL;
	msg_free(x->msg);
	x->msg = NULL;
	if (verdict == DONE)
		fsm->moved(sa, x);
	else if (verdict == IGNORE)
		fsm->ignored(sa, x);
	else
		fsm->failed(sa, x);
}

static void
run(const struct fsm *fsm, struct exchange *x)
{
	struct ike_sa *sa = x->sa;
	enum verdict verdict = DONE;
	fsm_step *step;

	sa_hold(sa);
	x->running = true;
	x->waiting = false;
	while (verdict == DONE && !x->ended && x->step < FSM_STEPS &&
	       (step = x->rule->steps[x->step]) != NULL) {
		x->step++;
		verdict = step(sa, x, x->msg);
	}
	if (!x->ended) {
		if (verdict == WAIT)
			x->waiting = true;
		else
			leave(fsm, x, verdict);
	}
	x->running = false;
	if (x->ended)
		exchange_release(x);
	sa_release(sa);
}

static void
start(const struct fsm *fsm, struct exchange *x, const struct rule *rule,
    struct msg *msg)
{
	x->rule = rule;
	x->step = 0;
	x->wanted = FSM_FIRST_NEXT;
	x->msg = msg;
	memset(&x->error, 0, sizeof(x->error));
	run(fsm, x);
}

bool
fsm_deliver(const struct fsm *fsm, struct exchange *x, struct msg *msg)
{
	char text[160];
	const struct rule *rule;
	enum err err;

	if (x->ended || x->running || x->waiting) {
		env_count(x->sa->env, COUNTER_PACKETS_REPEATED);
		msg_free(msg);
		return false;
	}
	rule = fsm_match(fsm, x->sa, x, msg, &err, text, sizeof(text));
	if (rule == NULL) {
		struct ike_sa *sa = x->sa;

		sa_hold(sa);
		fsm->refused(sa, x, msg, err, text);
		sa_release(sa);
		msg_free(msg);
		return false;
	}
	start(fsm, x, rule, msg);
	return true;
}

void
fsm_begin(const struct fsm *fsm, struct exchange *x, const struct rule *rule)
{
	if (x->ended || x->running || x->waiting)
		return;
	start(fsm, x, rule, NULL);
}

void
fsm_resume(const struct fsm *fsm, struct exchange *x, enum err err)
{
	struct ike_sa *sa = x->sa;

	if (x->ended || !x->waiting)
		return;
	if (err == OK) {
		run(fsm, x);
		return;
	}
	if (x->error.err == OK)
		fsm_fail(x, err, 0, "%s", err_text(err));
	sa_hold(sa);
	x->running = true;
	leave(fsm, x, FAIL);
	x->running = false;
	if (x->ended)
		exchange_release(x);
	sa_release(sa);
}
