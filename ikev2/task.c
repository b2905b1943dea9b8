#include "ikev2/task.h"

#include <stdlib.h>
#include <string.h>

#include "common/natt.h"
#include "ikev2/child.h"
#include "ikev2/message.h"
#include "ikev2/rules.h"

#define POLL_MS   500   /* between looks at a child that waits for traffic */
#define POLL_FOR  15000 /* ... so long after its creation */
#define HELD_MS   1000  /* between looks at what may not be asked yet */
#define AGAIN_MAX 24    /* tries: some four minutes (RFC 7296 2.25) */

/* A Delete that nobody answers is not worth minutes; a probe is as stubborn as
 * any request, but waits less: a dead peer is found in a minute and a half. */
static const struct rexmit_config delete_rexmit = {
	.first_ms = 1000,
	.max_ms = 8000,
	.factor_percent = 160,
	.jitter_percent = 10,
	.tries = 7,
};
static const struct rexmit_config probe_rexmit = {
	.first_ms = 1000,
	.max_ms = 10000,
	.factor_percent = 160,
	.jitter_percent = 10,
	.tries = 12,
};

/* The queue ------------------------------------------------------------- */

void
v2_task_free(struct v2_task *task)
{
	if (task == NULL)
		return;
	conn_unref(task->conn);
	free(task);
}

void
v2_tasks_free(struct v2_sa *v2)
{
	struct v2_task *task;

	while ((task = v2->tasks) != NULL) {
		v2->tasks = task->next;
		v2_task_free(task);
	}
	v2->task_count = 0;
}

static void
append(struct v2_sa *v2, struct v2_task *task)
{
	struct v2_task **at = &v2->tasks;

	while (*at != NULL)
		at = &(*at)->next;
	task->next = NULL;
	*at = task;
	v2->task_count++;
}

bool
v2_task_queued(const struct v2_sa *v2, enum v2_want want, uint64_t child)
{
	const struct v2_task *task;

	for (task = v2->tasks; task != NULL; task = task->next)
		if (task->want == want && task->child == child)
			return true;
	return false;
}

static bool
wanted(struct v2_sa *v2, const struct v2_task *task)
{
	const struct v2_task *other;
	struct v2_exchange *x = v2_own_exchange(v2);

	/* A probe asks nothing that another request does not ask too. */
	if (task->want == WANT_PROBE && (x != NULL || v2->tasks != NULL))
		return true;
	if (x != NULL && x->task != NULL && x->task->want == task->want &&
	    x->task->want != WANT_CHILD && x->task->child == task->child &&
	    x->task->spi == task->spi)
		return true;
	for (other = v2->tasks; other != NULL; other = other->next)
		if (other->want == task->want && other->child == task->child &&
		    other->conn == task->conn && other->spi == task->spi &&
		    task->packet[0].first.family == ADDR_NONE)
			return true;
	return false;
}

static enum err
queue(struct v2_sa *v2, const struct v2_task *wish)
{
	struct v2_task *task;

	if (wanted(v2, wish))
		return OK;
	if (v2->task_count >= V2_TASKS && wish->want != WANT_DELETE)
		return ERR_LIMIT;
	task = malloc(sizeof(*task));
	if (task == NULL)
		return ERR_NOMEM;
	*task = *wish;
	task->conn = wish->conn == NULL ? NULL : conn_ref(wish->conn);
	append(v2, task);
	v2_pump(v2);
	return OK;
}

enum err
v2_task_add(struct v2_sa *v2, enum v2_want want, struct child_sa *child,
    struct conn *conn, const struct ts packet[2])
{
	struct v2_task wish = { .want = (uint8_t)want, .conn = conn };

	if (v2->sa.state < IKE_ESTABLISHED || v2->sa.state == IKE_DEAD ||
	    (v2->sa.state != IKE_ESTABLISHED && want != WANT_DELETE))
		return ERR_WRONG_STATE;
	if (child != NULL) {
		wish.child = child->serial;
		if (want == WANT_CHILD_DELETE)
			wish.spi = child->spi_in;
	}
	if (packet != NULL)
		memcpy(wish.packet, packet, sizeof(wish.packet));
	return queue(v2, &wish);
}

enum err
v2_task_delete_spi(struct v2_sa *v2, uint32_t spi_in)
{
	struct v2_task wish = { .want = WANT_CHILD_DELETE, .spi = spi_in };

	if (v2->sa.state != IKE_ESTABLISHED)
		return ERR_WRONG_STATE;
	return queue(v2, &wish);
}

void
v2_task_again(struct v2_sa *v2, struct v2_task *task, uint64_t delay_ms)
{
	if (delay_ms > 0) {
		/* RFC 7296 2.25: never at once; jitter keeps both sides from
		 * meeting again; and after minutes it is no longer temporary.
		 */
		if (++task->tries > AGAIN_MAX) {
			v2_task_free(task);
			sa_log(&v2->sa, LOG_LEVEL_WARNING,
			    "the peer has been busy for too long; closing");
			v2_close(&v2->sa);
			return;
		}
		delay_ms += env_random_u32(v2->sa.env) % delay_ms;
		task->not_before_ms = env_now(v2->sa.env) + delay_ms;
	}
	append(v2, task);
	v2_pump(v2);
}

void
v2_tasks_move(struct v2_sa *from, struct v2_sa *to)
{
	struct v2_task *task;

	while ((task = from->tasks) != NULL) {
		from->tasks = task->next;
		from->task_count--;
		if (task->want == WANT_REKEY || task->want == WANT_PROBE ||
		    (task->want == WANT_DELETE))
			v2_task_free(task);
		else
			append(to, task);
	}
}

/* The peer rekeys the IKE SA, and our answer waits for a job: what we ask now
 * would meet an SA that has been replaced (RFC 7296 2.25.2). */
static bool
replaced_soon(const struct v2_sa *v2)
{
	const struct exchange *x;

	for (x = v2->sa.exchanges; x != NULL; x = x->next)
		if (!x->ended && x->role == ROLE_RESPONDER &&
		    ((const struct v2_exchange *)(const void *)x)->heir != 0)
			return true;
	return false;
}

/* The peer rekeyed, and has shown neither that it uses this heir nor, by
 * deleting the old SA, that it knows it: our answer may be lost, and what we
 * ask now would find nobody. */
static bool
unconfirmed(const struct v2_sa *v2)
{
	return v2->elder != 0 && !v2->heard &&
	       sa_by_serial(v2->sa.env->sadb, v2->elder) != NULL;
}

/* What this state of the IKE SA allows to ask. */
static bool
may_ask(const struct v2_sa *v2, const struct v2_task *task)
{
	if (task->want == WANT_DELETE)
		return true;
	return v2->sa.state == IKE_ESTABLISHED && !replaced_soon(v2) &&
	       !unconfirmed(v2) && v2->predecessor == 0;
}

/* Takes the next task that is due out of the queue; NULL if none is. */
static struct v2_task *
take(struct v2_sa *v2)
{
	uint64_t now = env_now(v2->sa.env), soonest = UINT64_MAX;
	struct v2_task **at, **found = NULL, *task;

	for (at = &v2->tasks; *at != NULL; at = &(*at)->next) {
		if (!may_ask(v2, *at)) {
			if (v2->sa.state == IKE_ESTABLISHED &&
			    now + HELD_MS < soonest)
				soonest = now + HELD_MS;
			continue;
		}
		if ((*at)->not_before_ms > now) {
			if ((*at)->not_before_ms < soonest)
				soonest = (*at)->not_before_ms;
			continue;
		}
		/* The end of all comes before anything else. */
		if (found == NULL || (*at)->want == WANT_DELETE)
			found = at;
	}
	if (found == NULL) {
		if (soonest != UINT64_MAX)
			v2_tick_in(v2, soonest - now);
		return NULL;
	}
	task = *found;
	*found = task->next;
	v2->task_count--;
	return task;
}

static const uint8_t exchange_of[] = {
	[WANT_PROBE] = EXCH_INFORMATIONAL,
	[WANT_CHILD] = EXCH_CREATE_CHILD_SA,
	[WANT_CHILD_REKEY] = EXCH_CREATE_CHILD_SA,
	[WANT_CHILD_DELETE] = EXCH_INFORMATIONAL,
	[WANT_REKEY] = EXCH_CREATE_CHILD_SA,
	[WANT_DELETE] = EXCH_INFORMATIONAL,
};

void
v2_pump(struct v2_sa *v2)
{
	struct v2_exchange *x;
	struct v2_task *task;

	if (v2->pumping || v2->sa.state < IKE_ESTABLISHED)
		return;
	v2->pumping = true;
	sa_hold(&v2->sa);
	while (v2->sa.state != IKE_DEAD && v2_own_exchange(v2) == NULL &&
	       (task = take(v2)) != NULL) {
		/* RFC 7296 2.2: IDs never wrap. */
		x = v2->next_out == UINT32_MAX
		        ? NULL
		        : v2_exchange_new(v2, exchange_of[task->want],
		              ROLE_INITIATOR, V2_START, v2->next_out);
		if (x == NULL) {
			v2_task_free(task);
			break;
		}
		x->task = task;
		if (task->want == WANT_DELETE)
			x->x.rexmit.config = delete_rexmit;
		else if (task->want == WANT_PROBE)
			x->x.rexmit.config = probe_rexmit;
		fsm_begin(&v2_fsm, &x->x, v2_rules_begin(task->want));
	}
	v2->pumping = false;
	sa_release(&v2->sa);
}

/* Timers ---------------------------------------------------------------- */

void
v2_tick_in(struct v2_sa *v2, uint64_t delay_ms)
{
	struct env *env = v2->sa.env;

	if (!timer_armed(&v2->tick) || v2->tick.at_ms > env_now(env) + delay_ms)
		timer_set(env->timers, &v2->tick, delay_ms);
}

/* A rekeyed child whose outbound half waits for the peer's first packet, or
 * for the old one's Delete. */
static bool
polls(const struct child_sa *child)
{
	return child->state == CHILD_INBOUND &&
	       env_now(child->sa->env) - child->created_ms < POLL_FOR;
}

void
v2_tick(void *arg)
{
	struct v2_sa *v2 = arg;
	struct child_sa *child;
	bool again = false;

	sa_hold(&v2->sa);
	for (child = v2->sa.children; child != NULL; child = child->next) {
		if (!polls(child))
			continue;
		v2_child_poll(child);
		again = true;
	}
	if (again)
		v2_tick_in(v2, POLL_MS);
	v2_pump(v2);
	sa_release(&v2->sa);
}

void
v2_rekey_due(void *arg)
{
	struct v2_sa *v2 = arg;

	if (v2_task_add(v2, WANT_REKEY, NULL, NULL, NULL) == OK)
		sa_log(&v2->sa, LOG_LEVEL_DEBUG, "it is time to rekey");
}

void
v2_expired(void *arg)
{
	struct v2_sa *v2 = arg;
	struct ike_sa *sa = &v2->sa;
	struct v2_setup *setup = v2->setup;
	char text[sizeof(setup->text)] = "no answer in time";
	enum err why = ERR_TIMEOUT;

	if (sa->state <= IKE_HALF_OPEN) {
		if (setup != NULL && setup->why != OK) {
			why = setup->why;
			memcpy(text, setup->text, sizeof(text));
		}
		sa_kill(sa, why, false, text);
		return;
	}
	if (sa->state == IKE_REKEYED && v2->redundant != 0) {
		/* The peer may still learn that it lost, and delete it, as
		 * long as the old SA carries our answer. */
		if (sa_by_serial(sa->env->sadb, v2->redundant) != NULL)
			timer_set(sa->env->timers, &sa->expire_timer,
			    V2_REDUNDANT_MS);
		else
			v2_sa_drop(v2);
		return;
	}
	if (sa->state == IKE_ESTABLISHED)
		sa_log(sa, LOG_LEVEL_INFO, "its lifetime has ended");
	v2_close(sa);
}

void
v2_dpd_due(void *arg)
{
	struct v2_sa *v2 = arg;
	struct ike_sa *sa = &v2->sa;
	uint64_t delay = sa->conn->dpd_delay_ms;
	uint64_t idle = env_now(sa->env) - sa->last_in_ms;

	if (delay == 0 || sa->state != IKE_ESTABLISHED)
		return;
	/* RFC 7296 2.4: only when nothing has been heard for a while. */
	if (idle >= delay) {
		v2_task_add(v2, WANT_PROBE, NULL, NULL, NULL);
		idle = 0;
	}
	timer_set(sa->env->timers, &sa->dpd_timer, delay - idle);
}

void
v2_keepalive_due(void *arg)
{
	struct v2_sa *v2 = arg;
	struct ike_sa *sa = &v2->sa;
	struct net *net = sa->env->net;

	/* RFC 3948 4: only from behind the NAT. */
	if (!sa->nat_local || !sa->natt)
		return;
	net->ops->keepalive(net, &sa->local, &sa->remote);
	timer_set(sa->env->timers, &sa->keepalive_timer, NATT_KEEPALIVE_MS);
}

void
v2_child_rekey_due(void *arg)
{
	struct child_sa *child = arg;

	if (child->state != CHILD_UP && child->state != CHILD_INBOUND)
		return;
	v2_task_add(v2_of(child->sa), WANT_CHILD_REKEY, child, NULL, NULL);
}

void
v2_child_expired(void *arg)
{
	struct child_sa *child = arg;

	if (v2_child_close(child) != OK)
		child_kill(child, ERR_TIMEOUT, false, "its lifetime has ended");
}

/* Closing --------------------------------------------------------------- */

enum err
v2_close(struct ike_sa *sa)
{
	struct v2_exchange *own = v2_own_exchange(v2_of(sa));

	/* Our rekey is out: the peer may have the heir already, and it is the
	 * heir that must be closed. */
	if (sa->state == IKE_ESTABLISHED && own != NULL && own->sent &&
	    own->task != NULL && own->task->want == WANT_REKEY) {
		v2_of(sa)->close_later = true;
		return OK;
	}
	return v2_close_now(sa);
}

enum err
v2_close_now(struct ike_sa *sa)
{
	struct v2_sa *v2 = v2_of(sa);
	struct v2_exchange *own = v2_own_exchange(v2);

	switch (sa->state) {
	case IKE_NEW:
	case IKE_HALF_OPEN:
		/* The heir of a rekey of ours: the one that it replaces sees to
		 * it when the answer is here. */
		if (sa->initiator && v2->setup == NULL)
			return OK;
		/* The peer may think that it is up: a Delete can be answered
		 * only after IKE_AUTH is (RFC 7296 2.3). */
		if (own != NULL && own->sent && own->x.type == EXCH_IKE_AUTH) {
			v2->close_later = true;
			return OK;
		}
		sa_kill(sa, ERR_CANCELLED, false, "given up");
		return OK;
	case IKE_ESTABLISHED:
		sa_set_state(sa, IKE_CLOSING);
		break;
	case IKE_REKEYED:
	case IKE_CLOSING:
		break;
	default:
		return ERR_WRONG_STATE;
	}
	if (v2_task_add(v2, WANT_DELETE, NULL, NULL, NULL) != OK)
		sa_kill(sa, OK, false, "closed");
	return OK;
}

enum err
v2_child_close(struct child_sa *child)
{
	struct v2_sa *v2 = v2_of(child->sa);
	enum err err;

	if (child->state == CHILD_NEW || child->spi_in == 0) {
		child_kill(child, ERR_CANCELLED, false, "given up");
		return OK;
	}
	if (child->state == CHILD_CLOSING)
		return OK;
	err = v2_task_add(v2, WANT_CHILD_DELETE, child, NULL, NULL);
	return err;
}
