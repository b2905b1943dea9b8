#include "ikev2/rekey.h"

#include <stdlib.h>
#include <string.h>

#include "common/explain.h"
#include "common/terms.h"
#include "ikev2/task.h"
#include "ikev2/v2.h"

#define AGAIN_MS 4000  /* least patience after TEMPORARY_FAILURE */
#define RETRY_MS 30000 /* until a failed rekey is tried again */

static struct v2_sa *
sa_named(const struct ike_sa *sa, uint64_t serial)
{
	struct ike_sa *found =
	    serial == 0 ? NULL : sa_by_serial(sa->env->sadb, serial);

	return found == NULL ? NULL : v2_of(found);
}

/* The heir is who the old SA was: same peer, same way, same NAT. */
static enum err
make_heir(struct v2_exchange *x, bool initiator, uint64_t peer_spi)
{
	struct v2_sa *old = v2_of(x->x.sa), *heir;
	struct ike_sa *sa = &old->sa;
	struct conn *conn = conn_now(sa->env->policy, sa->conn, 2);
	enum err err;

	heir = v2_sa_new(sa->env, initiator, peer_spi, &sa->local, &sa->remote,
	    sa->natt, &err);
	if (heir == NULL)
		return err;
	/* What is in force under the same name counts from now on. */
	sa_set_conn(&heir->sa, conn);
	heir->sa.id_local = ident_ref(sa->id_local);
	heir->sa.id_remote = ident_ref(sa->id_remote);
	heir->sa.nat_local = sa->nat_local;
	heir->sa.nat_remote = sa->nat_remote;
	heir->sa.encap = sa->encap;
	heir->opener = old->opener;
	heir->fragments = old->fragments;
	heir->fragment_out = old->fragment_out;
	if (!initiator)
		heir->elder = sa->serial;
	x->heir = heir->sa.serial;
	return OK;
}

/* RFC 7296 2.18: keys from the old SK_d, IDs from 0, and the old SA's word for
 * who the peer is. */
static enum err
enthrone(struct v2_exchange *x, struct v2_sa *heir)
{
	struct v2_sa *old = v2_of(x->x.sa);
	struct auth_proof proof;
	struct v2_key_input input = {
		.shared = secret_view(&x->shared),
		.nonce_i = secret_view(&x->nonce_i),
		.nonce_r = secret_view(&x->nonce_r),
		.spi_i = heir->sa.spi_i,
		.spi_r = heir->sa.spi_r,
	};
	enum err err;

	heir->sa.suite = x->suite;
	err = v2_key_rederive(&heir->sa.suite, old->sa.suite.prf,
	    v2_key(&old->sa.suite, &old->keys, V2_SK_D), &input, &heir->keys);
	if (err != OK)
		return err;
	if (!proof_by_rekey(&proof, &heir->sa, &old->sa))
		return ERR_WRONG_STATE;
	return sa_establish(&heir->sa, &proof);
}

/* It was replaced, or lost: only its Delete may still come, or go. */
static void
retire(struct v2_sa *v2)
{
	struct timers *timers = v2->sa.env->timers;

	sa_set_state(&v2->sa, IKE_REKEYED);
	v2->predecessor = 0;
	timer_stop(timers, &v2->sa.rekey_timer);
	timer_stop(timers, &v2->sa.dpd_timer);
	timer_stop(timers, &v2->sa.keepalive_timer);
	timer_set(timers, &v2->sa.expire_timer, V2_DELETE_MS);
}

/* RFC 7296 2.8: the children move. */
static void
inherit(struct v2_sa *old, struct v2_sa *heir)
{
	while (old->sa.children != NULL)
		child_move(old->sa.children, &heir->sa);
	v2_tasks_move(old, heir);
	retire(old);
	heir->predecessor = 0;
	sa_log(&heir->sa, LOG_LEVEL_INFO, "rekeyed");
	sa_event(&heir->sa, NULL, EVENT_IKE_REKEYED, OK, false, NULL);
	v2_tick_in(heir, 0);
	if (old->close_later)
		v2_close(&heir->sa);
}

/* Initiator -------------------------------------------------------------- */

static const struct alg *
first_group(const struct v2_exchange *x, const struct conn *conn)
{
	unsigned i;

	if (x->task->group != ALG_NONE)
		return alg_get((enum alg_id)x->task->group);
	for (i = 0; i < conn->ike.count; i++)
		if (conn->ike.item[i].count[ALG_KEX] > 0)
			return proposal_alg(&conn->ike.item[i], ALG_KEX, 0);
	return NULL;
}

enum verdict
v2_rekey_i_begin(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_sa *heir;
	enum err err;

	(void)msg;
	if (sa->stale)
		return IGNORE;
	if (!terms_sa(sa)) {
		terms_end_sa(sa, TERMS_PEER);
		return IGNORE;
	}
	err = make_heir(x, true, 0);
	if (err == OK)
		err = v2_nonce_draw(sa->env, &x->nonce_i);
	heir = sa_named(sa, x->heir);
	if (err == OK && heir != NULL) {
		x->group = first_group(x, heir->sa.conn);
		err = x->group == NULL
		          ? ERR_NO_PROPOSAL
		          : v2_ask(x,
		                dh_generate(sa->env->workers, x->group,
		                    sa_ticket(sa, exchange, NULL), v2_dh_done));
	}
	if (err != OK)
		return fsm_fail(
		    exchange, err, 0, "IKE rekey: %s", err_text(err));
	return v2_wait(x);
}

enum verdict
v2_rekey_i_send(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_sa *heir = sa_named(sa, x->heir);
	struct v2_writer writer;
	uint8_t spi[8];
	struct buf buf;
	enum err err = x->asked;

	(void)msg;
	/* The peer's rekey or Delete may have been faster. */
	if (sa->state != IKE_ESTABLISHED || heir == NULL)
		return IGNORE;
	if (err != OK || x->kex == NULL)
		return fsm_fail(
		    exchange, ERR_CRYPTO, 0, "IKE rekey: %s", err_text(err));
	buf_init(&buf, spi, sizeof(spi));
	buf_u64(&buf, sa_own_spi(&heir->sa));
	v2_writer_init(&writer);
	v2_sapay_put(&writer.out, &heir->sa.conn->ike, buf_done(&buf), false);
	wire_payload(&writer.out, P2_NONCE, secret_view(&x->nonce_i));
	v2_ke_put(&writer.out, x->group, kex_public(x->kex));
	err = v2_request(x, &writer);
	if (err != OK)
		return fsm_fail(
		    exchange, err, 0, "IKE rekey: %s", err_text(err));
	return DONE;
}

static uint64_t
spi_of(const struct offer *offer)
{
	struct view view = view_of(offer->spi, 8);
	uint64_t spi = 0;

	return view_u64(&view, &spi) ? spi : 0;
}

static enum err
read_choice(struct v2_exchange *x, struct v2_sa *heir, const struct msg *msg)
{
	struct offer *offers = NULL;
	size_t count = 0;
	uint64_t spi = 0;
	enum err err;

	err = v2_sapay_read(msg_payload(msg, KIND_SA, 0)->body, PROTO_IKE, 8,
	    true, &offers, &count);
	if (err == OK && count != 1)
		err = ERR_SYNTAX;
	if (err == OK)
		err = proposals_accept(
		    &heir->sa.conn->ike, &offers[0], false, &x->suite);
	if (err == OK)
		spi = spi_of(&offers[0]);
	free(offers);
	if (err == OK && (spi == 0 || x->suite.kex != x->group))
		err = ERR_SYNTAX;
	if (err == OK)
		sa_set_peer_spi(&heir->sa, spi);
	return err;
}

enum verdict
v2_rekey_i_accept(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_sa *heir = sa_named(sa, x->heir);
	struct view value;
	uint16_t group = 0;
	enum err err;

	if (heir == NULL || x->kex == NULL)
		return fsm_fail(exchange, ERR_CANCELLED, 0, "IKE rekey: gone");
	/* RFC 7296 3.10.1: beside an error that we do not know, nothing
	 * counts. */
	if (msg_error(msg) != NULL)
		return fsm_fail(exchange, ERR_PEER, 0,
		    "IKE rekey: an answer with an error");
	err = read_choice(x, heir, msg);
	if (err == OK)
		err = v2_nonce_read(msg, x->suite.prf, &x->nonce_r);
	if (err == OK)
		err = v2_ke_read(
		    msg_payload(msg, KIND_KE, 0)->body, &group, &value);
	if (err == OK && group != x->group->ikev2)
		err = ERR_KE;
	if (err == OK)
		err = v2_ask(x, dh_derive(sa->env->workers, x->kex, value,
		                    sa_ticket(sa, exchange, NULL), v2_dh_done));
	if (err != OK)
		return fsm_fail(exchange, err, 0,
		    "IKE rekey: the peer's answer: %s", err_text(err));
	x->kex = NULL;
	return v2_wait(x);
}

bool
v2_rekey_lost(const struct v2_exchange *x)
{
	struct view i = secret_view(&x->nonce_i), r = secret_view(&x->nonce_r);
	struct view own = v2_nonce_compare(i, r) < 0 ? i : r;

	return x->rival != 0 &&
	       v2_nonce_compare(own, secret_view(&x->rival_nonce)) < 0;
}

enum verdict
v2_rekey_i_done(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_sa *old = v2_of(sa), *heir = sa_named(sa, x->heir);
	struct v2_sa *rival = sa_named(sa, x->rival);
	enum err err = x->asked;

	(void)msg;
	if (err == OK && heir == NULL)
		err = ERR_CANCELLED;
	if (err == OK)
		err = enthrone(x, heir);
	if (err != OK)
		return fsm_fail(
		    exchange, err, 0, "IKE rekey: %s", err_text(err));
	x->heir = 0;
	if (x->rival != 0)
		env_count(sa->env, COUNTER_COLLISIONS);
	if (v2_rekey_lost(x) && rival != NULL) {
		/* Ours is redundant and deleted by us; the old one by the
		 * peer. */
		retire(heir);
		v2_close(&heir->sa);
		inherit(old, rival);
		if (old->deleted)
			sa_kill(sa, OK, true, NULL);
		return DONE;
	}
	if (rival != NULL) {
		/* The peer deletes what it made, if it ever hears our answer
		 * before the old SA goes. */
		retire(rival);
		rival->redundant = sa->serial;
		timer_set(
		    sa->env->timers, &rival->sa.expire_timer, V2_REDUNDANT_MS);
	}
	v2_sa_live(heir);
	inherit(old, heir);
	/* RFC 7296 2.8: who began the rekey deletes the old SA. */
	if (old->deleted)
		sa_kill(sa, OK, true, NULL);
	else
		v2_task_add(old, WANT_DELETE, NULL, NULL, NULL);
	return DONE;
}

/* RFC 7296 2.8.2: ours is refused, and the peer has made an heir meanwhile:
 * that one takes over, and ours is forgotten. */
static bool
yields(const struct v2_exchange *x)
{
	struct v2_sa *rival = sa_named(x->x.sa, x->rival);

	if (rival == NULL)
		return false;
	inherit(v2_of(x->x.sa), rival);
	return true;
}

enum verdict
v2_rekey_i_group(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_sa *heir = sa_named(sa, x->heir);
	struct view data = msg_payload(msg, KIND_N_INVALID_KE, 0)->notify.data;
	const struct alg *group = NULL;
	const struct proposals *ike = NULL;
	struct v2_task *task;
	bool offered = false;
	uint16_t number = 0;
	unsigned i, j;

	if (yields(x))
		return DONE;
	if (view_u16(&data, &number))
		group = alg_by_ikev2(ALG_KEX, number, 0);
	if (heir != NULL)
		ike = &heir->sa.conn->ike;
	for (i = 0; ike != NULL && i < ike->count; i++)
		for (j = 0; j < ike->item[i].count[ALG_KEX]; j++)
			offered = offered || proposal_alg(&ike->item[i],
			                         ALG_KEX, j) == group;
	if (group == NULL || !offered || x->task->ke_rounds >= V2_ROUNDS)
		return fsm_fail(exchange, ERR_KE, 0,
		    "the peer wants group %u for the IKE rekey", number);
	task = x->task;
	x->task = NULL;
	task->ke_rounds++;
	task->group = group->id;
	v2_task_again(v2_of(sa), task, 0);
	return DONE;
}

enum verdict
v2_rekey_i_refused(
    struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	const struct payload *error = msg_error(msg);
	struct v2_task *task;

	if (v2_fatal(sa, msg))
		return DONE;
	if (yields(x))
		return DONE;
	if (error != NULL && error->kind == KIND_N_TEMPORARY_FAILURE) {
		if (v2_of(sa)->close_later) {
			v2_close_now(sa);
			return DONE;
		}
		task = x->task;
		x->task = NULL;
		v2_task_again(v2_of(sa), task, AGAIN_MS);
		return DONE;
	}
	/* RFC 7296 4: one that does not rekey wants a new IKE SA. */
	if (error != NULL && error->kind == KIND_N_NO_ADDITIONAL_SAS &&
	    !v2_of(sa)->close_later) {
		terms_end_sa(sa, "the peer answered NO_ADDITIONAL_SAS");
		return DONE;
	}
	return fsm_fail(exchange, ERR_PEER, 0,
	    "IKE rekey refused: the peer answered %s (%u)",
	    error == NULL ? "nothing" : kind_text((enum kind)error->kind),
	    error == NULL ? 0u : error->notify.type);
}

void
v2_rekey_gave_up(struct v2_exchange *x)
{
	struct ike_sa *sa = x->x.sa;
	struct v2_sa *rival = sa_named(sa, x->rival);

	if (rival != NULL)
		inherit(v2_of(sa), rival);
	if (v2_of(sa)->deleted)
		sa_kill(sa, OK, true, "the peer closed it");
	else if (rival != NULL)
		return;
	else if (v2_of(sa)->close_later)
		v2_close_now(sa);
	else if (sa->state == IKE_ESTABLISHED)
		timer_set(sa->env->timers, &sa->rekey_timer, RETRY_MS);
}

bool
v2_rekey_deleted(struct v2_sa *v2)
{
	struct v2_exchange *own = v2_own_exchange(v2);
	struct v2_sa *rival;

	if (own == NULL || own->task == NULL || own->task->want != WANT_REKEY)
		return true;
	if (own->sent && own->x.waiting) {
		v2->deleted = true;
		return false;
	}
	rival = sa_named(&v2->sa, own->rival);
	if (rival != NULL)
		inherit(v2, rival);
	return true;
}

/* Responder -------------------------------------------------------------- */

/* RFC 7296 2.25.2: what does not go together with what we do. */
static const char *
busy(struct v2_sa *v2)
{
	const struct v2_exchange *own = v2_own_exchange(v2);

	if (v2->sa.state != IKE_ESTABLISHED)
		return "it is being closed or was replaced";
	if (v2->predecessor != 0)
		return "it is not decided yet that it survives";
	if (own == NULL || own->task == NULL)
		return NULL;
	switch (own->task->want) {
	case WANT_CHILD:
	case WANT_CHILD_REKEY:
	case WANT_CHILD_DELETE:
		return "a child is being made, rekeyed or deleted";
	case WANT_REKEY:
		return own->rival != 0 ? "the peer rekeys it already" : NULL;
	default:
		return NULL;
	}
}

static enum verdict
refuse(struct v2_exchange *x, enum err err, uint16_t notify, const char *text)
{
	return fsm_fail(&x->x, err, notify, "IKE rekey refused: %s", text);
}

/* The suite, from what is in force under the connection's name. */
static enum err
choose(struct v2_exchange *x, const struct msg *msg)
{
	struct ike_sa *sa = x->x.sa;
	struct conn *conn = conn_now(sa->env->policy, sa->conn, 2);
	struct offer *offers = NULL;
	struct choice choice;
	size_t count = 0;
	enum err err;

	err = v2_sapay_read(msg_payload(msg, KIND_SA, 0)->body, PROTO_IKE, 8,
	    false, &offers, &count);
	if (err != OK)
		return err;
	err =
	    proposals_choose(&conn->ike, offers, count, false, false, &choice);
	if (err == OK) {
		x->suite = choice.suite;
		x->proposal = offers[choice.chosen].number;
		x->peer_spi = spi_of(&offers[choice.chosen]);
		if (x->peer_spi == 0)
			err = ERR_SYNTAX;
	} else {
		explain_proposal(sa->env, sa, &sa->remote, &conn, 1, PROTO_IKE,
		    offers, count);
	}
	free(offers);
	return err;
}

enum verdict
v2_rekey_r_choose(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	const char *why = busy(v2_of(sa));
	struct view value;
	uint16_t group = 0;
	struct buf buf;
	enum err err;

	if (why != NULL)
		return refuse(x, ERR_WRONG_STATE, N_TEMPORARY_FAILURE, why);
	/* RFC 7296 4: the answer that asks for a new IKE SA in its place. Our
	 * own time for it comes, too. */
	if (!terms_sa(sa))
		return refuse(x, ERR_REFUSED, N_NO_ADDITIONAL_SAS, TERMS_PEER);
	err = choose(x, msg);
	if (err == ERR_NO_PROPOSAL)
		return refuse(x, err, N_NO_PROPOSAL_CHOSEN, err_text(err));
	if (err == OK)
		err = v2_nonce_read(msg, x->suite.prf, &x->nonce_i);
	if (err == OK)
		err = v2_ke_read(
		    msg_payload(msg, KIND_KE, 0)->body, &group, &value);
	if (err != OK)
		return refuse(x, err, N_INVALID_SYNTAX, err_text(err));
	if (group != x->suite.kex->ikev2) {
		buf_init(
		    &buf, exchange->error.data, sizeof(exchange->error.data));
		buf_u16(&buf, x->suite.kex->ikev2);
		exchange->error.data_len = 2;
		return refuse(
		    x, ERR_KE, N_INVALID_KE_PAYLOAD, "another group is wanted");
	}
	err = v2_nonce_draw(sa->env, &x->nonce_r);
	if (err == OK)
		err = make_heir(x, false, x->peer_spi);
	if (err == OK)
		err = v2_ask(x, dh_both(sa->env->workers, x->suite.kex, value,
		                    sa_ticket(sa, exchange, NULL), v2_dh_done));
	if (err != OK)
		return refuse(x, err, N_TEMPORARY_FAILURE, err_text(err));
	return v2_wait(x);
}

/* Our own rekey is under way too: the nonces decide when it is answered, and
 * the children stay where they are until then. */
static bool
note_rival(struct v2_exchange *x, struct v2_sa *heir)
{
	struct v2_sa *old = v2_of(x->x.sa);
	struct v2_exchange *own = v2_own_exchange(old);
	struct view i = secret_view(&x->nonce_i), r = secret_view(&x->nonce_r);

	if (own == NULL || own->task == NULL || own->task->want != WANT_REKEY ||
	    !own->sent)
		return false;
	if (secret_set(&own->rival_nonce, v2_nonce_compare(i, r) < 0 ? i : r) !=
	    OK)
		return false;
	own->rival = heir->sa.serial;
	heir->predecessor = old->sa.serial;
	return true;
}

enum verdict
v2_rekey_r_answer(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_sa *heir = sa_named(sa, x->heir);
	struct v2_writer writer;
	uint8_t spi[8];
	struct buf buf;
	enum err err = x->asked;

	(void)msg;
	if (err == ERR_KE) /* RFC 6989 */
		return refuse(x, err, N_INVALID_SYNTAX, err_text(err));
	if (err == OK && (heir == NULL || x->kex == NULL))
		err = ERR_CANCELLED;
	/* RFC 7296 2.8.2: our own rekey, answered meanwhile, was faster. */
	if (err == OK && sa->state != IKE_ESTABLISHED)
		err = ERR_WRONG_STATE;
	if (err == OK)
		err = enthrone(x, heir);
	if (err != OK)
		return refuse(x, err, N_TEMPORARY_FAILURE, err_text(err));
	buf_init(&buf, spi, sizeof(spi));
	buf_u64(&buf, sa_own_spi(&heir->sa));
	v2_writer_init(&writer);
	v2_sapay_put_chosen(
	    &writer.out, x->proposal, PROTO_IKE, &x->suite, buf_done(&buf));
	wire_payload(&writer.out, P2_NONCE, secret_view(&x->nonce_r));
	v2_ke_put(&writer.out, x->suite.kex, kex_public(x->kex));
	err = v2_respond(x, &writer);
	x->heir = 0;
	if (err != OK) {
		v2_sa_drop(heir);
		return refuse(x, err, N_TEMPORARY_FAILURE, err_text(err));
	}
	v2_sa_live(heir);
	if (!note_rival(x, heir))
		inherit(v2_of(sa), heir);
	return DONE;
}
