#include "ikev2/v2.h"

#include <stdlib.h>
#include <string.h>

#include "common/limit.h"
#include "common/natt.h"
#include "ikev2/auth.h"
#include "ikev2/child.h"
#include "ikev2/init.h"
#include "ikev2/internal.h"
#include "ikev2/message.h"
#include "ikev2/rekey.h"
#include "ikev2/rules.h"
#include "ikev2/task.h"
#include "kernel/install.h"

/* SAs ------------------------------------------------------------------- */

struct v2_sa *
v2_sa_new(struct env *env, bool initiator, uint64_t peer_spi,
    const struct endpoint *local, const struct endpoint *remote, bool natt,
    enum err *err)
{
	struct v2_sa *v2 = calloc(1, sizeof(*v2));
	struct ike_sa *sa;

	if (v2 == NULL) {
		*err = ERR_NOMEM;
		return NULL;
	}
	sa = &v2->sa;
	*err = sa_init(
	    env, sa, &v2_engine, initiator, peer_spi, local, remote, natt);
	if (*err != OK) {
		free(v2);
		return NULL;
	}
	timer_init(&v2->tick, v2_tick, v2);
	timer_init(&sa->rekey_timer, v2_rekey_due, v2);
	timer_init(&sa->expire_timer, v2_expired, v2);
	timer_init(&sa->dpd_timer, v2_dpd_due, v2);
	timer_init(&sa->keepalive_timer, v2_keepalive_due, v2);
	return v2;
}

void
v2_setup_free(struct v2_setup *setup)
{
	if (setup == NULL)
		return;
	secret_free(&setup->init_i);
	secret_free(&setup->init_r);
	secret_free(&setup->nonce_i);
	secret_free(&setup->nonce_r);
	secret_free(&setup->shared);
	kex_free(setup->kex);
	conn_unref(setup->conn);
	free(setup);
}

static void
sa_free(struct ike_sa *sa)
{
	struct v2_sa *v2 = v2_of(sa);

	timer_stop(sa->env->timers, &v2->tick);
	v2_tasks_free(v2);
	v2_setup_free(v2->setup);
	v2_frag_free(v2->frag[0]);
	v2_frag_free(v2->frag[1]);
	flight_clear(&v2->answer);
	secret_free(&v2->keys);
	free(v2);
}

void
v2_sa_drop(struct v2_sa *v2)
{
	sa_set_state(&v2->sa, IKE_REKEYED);
	sa_kill(&v2->sa, OK, false, NULL);
}

void
v2_sa_live(struct v2_sa *v2)
{
	struct ike_sa *sa = &v2->sa;
	struct timers *timers = sa->env->timers;

	sa_set_lifetime(sa, sa->conn->ike_lifetime_ms, true);
	if (sa->conn->dpd_delay_ms > 0)
		timer_set(timers, &sa->dpd_timer, sa->conn->dpd_delay_ms);
	if (sa->nat_local && sa->natt)
		timer_set(timers, &sa->keepalive_timer, NATT_KEEPALIVE_MS);
}

/* Exchanges ------------------------------------------------------------- */

/* Nobody answers: RFC 7296 2.4. */
static void
gave_up(void *arg)
{
	struct v2_exchange *x = arg;
	struct ike_sa *sa = x->x.sa;

	if (sa->state <= IKE_HALF_OPEN) {
		v2_expired(v2_of(sa));
		return;
	}
	sa_hold(sa);
	if (sa->state == IKE_ESTABLISHED) {
		sa_event(
		    sa, NULL, EVENT_PEER_DEAD, ERR_TIMEOUT, false, "no answer");
		sa_kill(sa, ERR_TIMEOUT, false, "the peer does not answer");
	} else {
		sa_kill(sa, OK, false, "closed without an answer");
	}
	sa_release(sa);
}

struct v2_exchange *
v2_exchange_new(
    struct v2_sa *v2, uint8_t type, enum role role, uint8_t state, uint32_t id)
{
	struct v2_exchange *x = calloc(1, sizeof(*x));

	if (x == NULL)
		return NULL;
	x->x.type = type;
	x->x.role = (uint8_t)role;
	x->x.state = state;
	x->x.id = id;
	x->remote = v2->sa.remote;
	x->local = v2->sa.local;
	x->natt = v2->sa.natt;
	rexmit_init(&x->x.rexmit, v2->sa.env, &rexmit_defaults, gave_up, x);
	exchange_begin(&v2->sa, &x->x);
	return x;
}

/* What an exchange that ends early leaves behind goes quietly; whoever had
 * something to say about it has said it. */
static void
exchange_free(struct exchange *exchange)
{
	struct v2_exchange *x = v2_x(exchange);
	struct env *env = exchange->sa->env;
	struct child_sa *child = child_by_serial(env->sadb, x->child);
	struct ike_sa *heir =
	    x->heir == 0 ? NULL : sa_by_serial(env->sadb, x->heir);

	if (child != NULL && child->state == CHILD_NEW)
		v2_child_drop(child);
	if (heir != NULL && heir->state < IKE_ESTABLISHED)
		v2_sa_drop(v2_of(heir));
	v2_task_free(x->task);
	secret_free(&x->nonce_i);
	secret_free(&x->nonce_r);
	secret_free(&x->shared);
	secret_free(&x->rival_nonce);
	kex_free(x->kex);
	ident_unref(x->peer_id);
	mem_wipe(x->mac_own, sizeof(x->mac_own));
	mem_wipe(x->mac_peer, sizeof(x->mac_peer));
	free(x);
}

struct v2_exchange *
v2_own_exchange(struct v2_sa *v2)
{
	struct exchange *x;

	for (x = v2->sa.exchanges; x != NULL; x = x->next)
		if (!x->ended && x->role == ROLE_INITIATOR)
			return v2_x(x);
	return NULL;
}

struct v2_exchange *
v2_by_ticket(struct env *env, struct ticket ticket)
{
	struct exchange *x = exchange_by_ticket(env, ticket);

	return x == NULL ? NULL : v2_x(x);
}

enum err
v2_ask(struct v2_exchange *x, enum err err)
{
	if (x->asks == 0) {
		x->asked = OK;
		x->asked_text[0] = '\0';
	}
	if (err == OK)
		x->asks++;
	return err;
}

void
v2_asked(struct v2_exchange *x, enum err err, const char *text)
{
	if (x->asked == OK && err != OK) {
		x->asked = err;
		if (text != NULL) {
			strncpy(x->asked_text, text, sizeof(x->asked_text) - 1);
			x->asked_text[sizeof(x->asked_text) - 1] = '\0';
		}
	}
	if (x->asks > 0 && --x->asks == 0)
		fsm_resume(&v2_fsm, &x->x, OK);
}

enum verdict
v2_wait(const struct v2_exchange *x)
{
	return x->asks > 0 ? WAIT : DONE;
}

void
v2_dh_done(struct env *env, struct ticket ticket, struct dh_result *result)
{
	struct v2_exchange *x = v2_by_ticket(env, ticket);

	if (x == NULL)
		return;
	kex_free(x->kex);
	x->kex = result->own;
	result->own = NULL;
	secret_move(&x->shared, &result->shared);
	v2_asked(x, result->err, NULL);
}

void
v2_install_done(
    struct env *env, struct ticket ticket, enum err err, const char *text)
{
	struct v2_exchange *x = v2_by_ticket(env, ticket);

	if (x != NULL)
		v2_asked(x, err, text);
}

enum err
v2_nonce_draw(struct env *env, struct secret *to)
{
	enum err err = secret_new(to, V2_NONCE);

	if (err == OK && !env_random(env, to->octets, to->len))
		err = ERR_CRYPTO;
	return err;
}

enum err
v2_nonce_read(const struct msg *msg, const struct alg *prf, struct secret *to)
{
	const struct payload *nonce = msg_payload(msg, KIND_NONCE, 0);

	/* RFC 7296 2.10: at least half of the PRF's key. */
	if (nonce == NULL || nonce->body.len < V2_NONCE_MIN ||
	    nonce->body.len > V2_NONCE_MAX || nonce->body.len < prf->out / 2u)
		return ERR_SYNTAX;
	return secret_set(to, nonce->body);
}

/* What the rule table calls --------------------------------------------- */

static bool
responds(const struct exchange *x)
{
	return x->role == ROLE_RESPONDER;
}

/* An IKE_AUTH that failed: the answer is kept for repeats until the half-open
 * SA's time is over (RFC 7296 2.21.2). */
static void
fail_setup(struct v2_sa *v2, const struct failure *error)
{
	v2->setup->failed = true;
	v2->setup->why = error->err;
	memcpy(v2->setup->text, error->text, sizeof(v2->setup->text) - 1);
}

static void
respond_error(struct v2_exchange *x)
{
	const struct failure *error = &x->x.error;
	struct v2_writer writer;
	uint8_t spi[4];
	struct buf buf;

	v2_writer_init(&writer);
	if (error->notify == N_CHILD_SA_NOT_FOUND) {
		/* RFC 7296 3.10.1: it names the SPI. */
		buf_init(&buf, spi, sizeof(spi));
		buf_u32(&buf, (uint32_t)x->peer_spi);
		wire_notify_v2(&writer.out, PROTO_ESP, buf_done(&buf),
		    error->notify, view_of(NULL, 0));
	} else {
		v2_notify_put(&writer.out, error->notify,
		    view_of(error->data, error->data_len));
	}
	v2_respond(x, &writer);
}

/* The text lies in an exchange that goes down with its SA. */
static void
kill_for(struct ike_sa *sa, const struct failure *error, bool by_peer)
{
	struct failure copy = *error;

	sa_kill(sa, copy.err, by_peer, copy.text);
}

static void
responder_failed(struct v2_sa *v2, struct v2_exchange *x)
{
	struct ike_sa *sa = &v2->sa;
	struct failure *error = &x->x.error;
	struct child_sa *child = child_by_serial(sa->env->sadb, x->child);

	/* Strangers come as fast as the line is. */
	if (x->x.type != EXCH_IKE_SA_INIT || limit_log(sa->env->limit))
		sa_log(sa, LOG_LEVEL_WARNING, "%s", error->text);
	if (x->x.type == EXCH_IKE_SA_INIT) {
		kill_for(sa, error, true);
		return;
	}
	if (error->notify == 0)
		error->notify = N_TEMPORARY_FAILURE;
	respond_error(x);
	/* Of a rekey that failed nobody hears: the old child is there. */
	if (child != NULL && x->old_child != 0)
		v2_child_drop(child);
	else if (child != NULL)
		child_kill(child, error->err, false, error->text);
	x->child = 0;
	if (sa->state <= IKE_HALF_OPEN) {
		if (v2->setup != NULL)
			fail_setup(v2, error);
		exchange_end(&x->x);
		return;
	}
	/* RFC 7296 2.21.3: after the initial exchanges, a syntax error is the
	 * end of the IKE SA. */
	if (error->notify == N_INVALID_SYNTAX) {
		kill_for(sa, error, true);
		return;
	}
	exchange_end(&x->x);
	v2_pump(v2);
}

static void
initiator_failed(struct v2_sa *v2, struct v2_exchange *x)
{
	struct ike_sa *sa = &v2->sa;
	struct failure *error = &x->x.error;
	bool closing = x->task != NULL && x->task->want == WANT_DELETE;

	switch (x->x.type) {
	case EXCH_IKE_SA_INIT:
		/* RFC 7296 2.21.1: what nobody authenticated ends nothing. */
		if (x->x.state == V2_AWAIT_INIT && error->err != ERR_NOMEM &&
		    error->err != ERR_CRYPTO) {
			if (limit_log(sa->env->limit))
				sa_log(
				    sa, LOG_LEVEL_WARNING, "%s", error->text);
			return;
		}
		kill_for(sa, error, false);
		return;
	case EXCH_IKE_AUTH:
		sa_log(sa, LOG_LEVEL_WARNING, "%s", error->text);
		kill_for(sa, error, x->sent);
		return;
	default:
		v2_give_up(x);
		/* It may have been the SA's last; x went with it. */
		if (sa->state == IKE_DEAD)
			return;
		/* Whatever the answer to our Delete was, we go. */
		if (closing) {
			sa_kill(sa, OK, false, "closed");
			return;
		}
		exchange_end(&x->x);
		v2_pump(v2);
		return;
	}
}

void
v2_failed(struct ike_sa *sa, struct exchange *x)
{
	sa_hold(sa);
	if (responds(x))
		responder_failed(v2_of(sa), v2_x(x));
	else
		initiator_failed(v2_of(sa), v2_x(x));
	sa_release(sa);
}

bool
v2_fatal(struct ike_sa *sa, const struct msg *msg)
{
	if (!msg_has(msg, KIND_N_INVALID_SYNTAX))
		return false;
	sa_log(sa, LOG_LEVEL_WARNING,
	    "the peer found a syntax error in a request of ours");
	sa_kill(sa, ERR_PEER, true, "INVALID_SYNTAX");
	return true;
}

/* One of our CREATE_CHILD_SA or INFORMATIONAL exchanges failed. */
void
v2_give_up(struct v2_exchange *x)
{
	struct ike_sa *sa = x->x.sa;

	sa_log(sa, LOG_LEVEL_WARNING, "%s", x->x.error.text);
	if (x->x.type != EXCH_CREATE_CHILD_SA)
		return;
	if (x->task != NULL && x->task->want == WANT_REKEY)
		v2_rekey_gave_up(x);
	else
		v2_child_gave_up(x);
}

void
v2_refused(struct ike_sa *sa, struct exchange *x, const struct msg *msg,
    enum err err, const char *text)
{
	(void)msg;
	fsm_fail(x, err, responds(x) ? N_INVALID_SYNTAX : 0,
	    "%s exchange %u: %s", responds(x) ? "request" : "response", x->type,
	    text);
	v2_failed(sa, x);
}

void
v2_ignored(struct ike_sa *sa, struct exchange *x)
{
	if (x->state == V2_AWAIT_INIT)
		return;
	exchange_end(x);
	v2_pump(v2_of(sa));
}

void
v2_moved(struct ike_sa *sa, struct exchange *x)
{
	struct v2_sa *v2 = v2_of(sa);
	bool init = x->type == EXCH_IKE_SA_INIT && !responds(x);
	bool auth = x->type == EXCH_IKE_AUTH && !responds(x);

	if (x->state != V2_DONE)
		return;
	exchange_end(x);
	if (init)
		v2_auth_begin(v2);
	else if (auth && v2->close_later)
		v2_close_now(sa);
	else
		v2_pump(v2);
}

/* Verbs ----------------------------------------------------------------- */

static enum err
new_child(struct ike_sa *sa, struct conn *conn, const struct ts packet[2])
{
	return v2_task_add(v2_of(sa), WANT_CHILD, NULL, conn, packet);
}

static enum err
rekey(struct ike_sa *sa)
{
	return v2_task_add(v2_of(sa), WANT_REKEY, NULL, NULL, NULL);
}

static enum err
child_rekey(struct child_sa *child)
{
	if (child->state != CHILD_UP && child->state != CHILD_INBOUND)
		return ERR_WRONG_STATE;
	return v2_task_add(
	    v2_of(child->sa), WANT_CHILD_REKEY, child, NULL, NULL);
}

static enum err
probe(struct ike_sa *sa)
{
	return v2_task_add(v2_of(sa), WANT_PROBE, NULL, NULL, NULL);
}

static void
mapping(struct ike_sa *sa, const struct endpoint *remote)
{
	/* The kernel believes a packet whose ICV it verified. */
	if (sa->state == IKE_ESTABLISHED && sa->natt)
		v2_follow(v2_of(sa), &sa->local, remote, true);
}

const struct engine v2_engine = {
	.version = 2,
	.name = "IKEv2",
	.receive = v2_receive,
	.initiate = v2_init_initiate,
	.child = new_child,
	.close = v2_close,
	.child_close = v2_child_close,
	.rekey = rekey,
	.child_rekey = child_rekey,
	.probe = probe,
	.mapping = mapping,
	.free = sa_free,
	.exchange_free = exchange_free,
};
