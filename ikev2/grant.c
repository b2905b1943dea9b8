#include "ikev2/grant.h"

#include <stdlib.h>
#include <string.h>

#include "common/explain.h"
#include "common/terms.h"
#include "ikev2/auth.h"
#include "ikev2/child.h"
#include "ikev2/init.h"
#include "ikev2/task.h"
#include "kernel/install.h"

#define POLL_MS 500 /* to the first look for traffic on a rekeyed child */

/* Refuses the child; in IKE_AUTH the IKE SA goes on without it (RFC 7296 1.2),
 * except after a syntax error, which is fatal (2.21.3). */
static enum verdict
refuse(struct v2_exchange *x, enum err err, uint16_t notify, const char *text)
{
	struct ike_sa *sa = x->x.sa;
	struct child_sa *child = v2_child_of(x);

	if (!v2_child_in_auth(x) || notify == N_INVALID_SYNTAX)
		return fsm_fail(&x->x, err, notify, "child refused: %s", text);
	sa_log(sa, LOG_LEVEL_WARNING, "child refused: %s", text);
	x->child_error = notify;
	x->child = 0;
	if (child != NULL)
		child_kill(child, err, false, text);
	else
		sa_event(sa, NULL, EVENT_CHILD_FAILED, err, false, text);
	return DONE;
}

/* RFC 7296 2.25.1, 2.25.2: what does not go together with what we do. */
static const char *
busy(struct v2_sa *v2)
{
	const struct v2_exchange *own = v2_own_exchange(v2);

	if (v2->sa.state != IKE_ESTABLISHED)
		return "the IKE SA is being closed or was replaced";
	if (own != NULL && own->task != NULL && own->task->want == WANT_REKEY)
		return "the IKE SA is being rekeyed";
	if (v2->predecessor != 0)
		return "which IKE SA survives is not decided yet";
	return NULL;
}

enum verdict
v2_grant_guard(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_sa *v2 = v2_of(sa);
	const struct payload *rekey = msg_payload(msg, KIND_N_REKEY_SA, 0);
	const char *why = busy(v2);
	struct child_sa *old;
	struct view view;
	uint32_t spi;

	if (why != NULL)
		return fsm_fail(exchange, ERR_WRONG_STATE, N_TEMPORARY_FAILURE,
		    "child refused: %s", why);
	if (sa->child_count >= V2_CHILDREN)
		return fsm_fail(exchange, ERR_LIMIT, N_NO_ADDITIONAL_SAS,
		    "child refused: there are %zu already", sa->child_count);
	if (rekey == NULL)
		return DONE;
	view = rekey->notify.spi;
	if (!view_u32(&view, &spi) || view.len != 0)
		return fsm_fail(exchange, ERR_SYNTAX, N_INVALID_SYNTAX,
		    "REKEY_SA without an SPI");
	old = rekey->notify.protocol == PROTO_ESP && spi != 0
	          ? child_by_spi_out(sa, spi)
	          : NULL;
	/* It may be what our own request makes, whose answer is on its way. */
	if (old == NULL && v2_child_awaited(v2))
		return fsm_fail(exchange, ERR_WRONG_STATE, N_TEMPORARY_FAILURE,
		    "the peer rekeys a child that is not here yet");
	if (old == NULL) {
		x->peer_spi = spi;
		return fsm_fail(exchange, ERR_NOT_FOUND, N_CHILD_SA_NOT_FOUND,
		    "the peer rekeys a child that is not here");
	}
	if (old->state == CHILD_CLOSING || old->state == CHILD_REKEYED ||
	    v2_task_queued(v2, WANT_CHILD_DELETE, old->serial))
		return fsm_fail(exchange, ERR_WRONG_STATE, N_TEMPORARY_FAILURE,
		    "the peer rekeys a child that is on its way out");
	x->old_child = old->serial;
	return DONE;
}

/* What the request says, before a connection is chosen. */
struct wish {
	struct offer *offers;
	size_t offer_count;
	struct view tsr, tsi;         /* as the peer sent them */
	struct ts_list local, remote; /* read without regard to a connection */
	bool transport;
	struct choice choice; /* once chosen: */
	struct ts_list ts_local, ts_remote;
	struct endpoint natoa_local, natoa_remote;
	uint8_t mode;
};

static enum err
read_wish(const struct msg *msg, struct wish *wish)
{
	enum err err;

	err = v2_sapay_read(msg_payload(msg, KIND_SA, 0)->body, PROTO_ESP, 4,
	    false, &wish->offers, &wish->offer_count);
	wish->tsi = msg_payload(msg, KIND_TSI, 0)->body;
	wish->tsr = msg_payload(msg, KIND_TSR, 0)->body;
	if (err == OK)
		err = v2_ts_read(wish->tsi, NULL, &wish->remote);
	if (err == OK)
		err = v2_ts_read(wish->tsr, NULL, &wish->local);
	wish->transport = msg_has(msg, KIND_N_TRANSPORT);
	return err;
}

/* No packet is of two families. */
static bool
family_in_common(const struct ts_list *local, const struct ts_list *remote)
{
	unsigned i, j;

	for (i = 0; i < local->count; i++)
		for (j = 0; j < remote->count; j++)
			if (local->item[i].first.family ==
			    remote->item[j].first.family)
				return true;
	return false;
}

static enum err
narrow(const struct ike_sa *sa, const struct conn *conn,
    const struct child_sa *old, struct wish *wish)
{
	struct ts_list local, remote, own, peer;
	enum err err;

	conn_ts(&conn->local, &sa->local.addr, &own);
	conn_ts(&conn->remote, &sa->remote.addr, &peer);
	err = v2_ts_read(wish->tsr, &own, &local);
	if (err == OK)
		err = v2_ts_read(wish->tsi, &peer, &remote);
	if (err != OK)
		return err;
	if (local.count == 0 || remote.count == 0)
		return ERR_TS;
	/* RFC 7296 1.3.1: a responder may decline transport mode. A tunnel in
	 * place of transport is not what the connection says. */
	wish->mode = conn->mode;
	if (conn->mode == MODE_TRANSPORT && !wish->transport)
		return ERR_TS;
	memset(&wish->natoa_local, 0, sizeof(wish->natoa_local));
	memset(&wish->natoa_remote, 0, sizeof(wish->natoa_remote));
	if (conn->mode == MODE_TRANSPORT)
		err = v2_child_undo_nat(sa, &local, &remote, &wish->natoa_local,
		    &wish->natoa_remote);
	if (err != OK)
		return err;
	err = ts_narrow(&local, &own, &wish->ts_local);
	if (err == OK)
		err = ts_narrow(&remote, &peer, &wish->ts_remote);
	if (err == OK && !family_in_common(&wish->ts_local, &wish->ts_remote))
		err = ERR_TS;
	if (old == NULL ||
	    (err == OK && ts_list_within(&old->ts_local, &wish->ts_local) &&
	        ts_list_within(&old->ts_remote, &wish->ts_remote)))
		return err;
	/* RFC 7296 2.9.2: the address that a dynamic selector stands for may
	 * have changed since, but a rekeyed child is never narrower than the
	 * old one. What the policy does not allow any more has not come here.
	 */
	err = ts_narrow(&local, &old->ts_local, &wish->ts_local);
	if (err == OK)
		err = ts_narrow(&remote, &old->ts_remote, &wish->ts_remote);
	return err;
}

static enum err
try_conn(const struct v2_exchange *x, const struct conn *conn,
    const struct child_sa *old, struct wish *wish)
{
	enum err err;

	err = proposals_choose(&conn->esp, wish->offers, wish->offer_count,
	    !v2_child_in_auth(x), v2_child_in_auth(x), &wish->choice);
	if (err != OK)
		return err;
	return narrow(x->x.sa, conn, old, wish);
}

/* The connection that the child is for: of a rekey, the old one's; else the
 * best of those that this peer may use. */
static enum err
choose_conn(struct v2_exchange *x, struct wish *wish, struct conn **conn)
{
	struct ike_sa *sa = x->x.sa;
	struct child_sa *old = v2_child_old(x);
	struct v2_conns conns;
	enum err err, first = OK;
	size_t i;

	if (old != NULL && !terms_child(old, &old->ts_local, &old->ts_remote)) {
		/* RFC 7296 2.9.2: not rekeyed, and not narrowed either. */
		v2_child_end_terms(old);
		return ERR_TS;
	}
	if (old != NULL) {
		*conn = v2_child_conn(sa, old->conn);
		return try_conn(x, *conn, old, wish);
	}
	err = v2_auth_conns(sa, &conns);
	if (err != OK)
		return err;
	err = ERR_NO_CONN;
	for (i = 0; i < conns.count; i++) {
		*conn = conns.conn[i];
		err = try_conn(x, *conn, NULL, wish);
		if (err == OK)
			break;
		if (first == OK || err == ERR_TS)
			first = err;
	}
	if (err != OK && first != OK)
		err = first;
	if (err == ERR_TS)
		explain_ts(sa->env, sa, conns.conn, conns.count, &wish->local,
		    &wish->remote);
	else if (err == ERR_NO_PROPOSAL)
		explain_proposal(sa->env, sa, &sa->remote, conns.conn,
		    conns.count, PROTO_ESP, wish->offers, wish->offer_count);
	v2_conns_free(&conns);
	return err;
}

/* PFS, and the nonces of CREATE_CHILD_SA. Sets *verdict when it refuses. */
static bool
read_keys(struct v2_exchange *x, const struct msg *msg, const struct alg *group,
    enum verdict *verdict)
{
	struct ike_sa *sa = x->x.sa;
	const struct payload *ke = msg_payload(msg, KIND_KE, 0);
	struct view value;
	uint16_t number = 0;
	struct buf buf;
	enum err err;

	if (v2_child_in_auth(x))
		return true;
	err = v2_nonce_read(msg, sa->suite.prf, &x->nonce_i);
	if (err != OK) {
		*verdict = refuse(x, err, N_INVALID_SYNTAX, "its nonce");
		return false;
	}
	err = v2_nonce_draw(sa->env, &x->nonce_r);
	if (err != OK) {
		*verdict = refuse(x, err, N_TEMPORARY_FAILURE, err_text(err));
		return false;
	}
	if (group == NULL)
		return true;
	/* RFC 7296 1.3: the group of the KE payload must be the chosen one. */
	if (ke == NULL || v2_ke_read(ke->body, &number, &value) != OK ||
	    number != group->ikev2) {
		buf_init(&buf, x->x.error.data, sizeof(x->x.error.data));
		buf_u16(&buf, group->ikev2);
		x->x.error.data_len = 2;
		*verdict = refuse(
		    x, ERR_KE, N_INVALID_KE_PAYLOAD, "another group is wanted");
		return false;
	}
	err = v2_ask(x, dh_both(sa->env->workers, group, value,
	                    sa_ticket(sa, &x->x, NULL), v2_dh_done));
	if (err != OK) {
		*verdict = refuse(x, err, N_TEMPORARY_FAILURE, err_text(err));
		return false;
	}
	return true;
}

static uint16_t
notify_of(enum err err)
{
	switch (err) {
	case ERR_TS:
	case ERR_NO_CONN:
		return N_TS_UNACCEPTABLE;
	case ERR_NO_PROPOSAL:
		return N_NO_PROPOSAL_CHOSEN;
	default:
		return N_TEMPORARY_FAILURE;
	}
}

static enum verdict
prepare(struct v2_exchange *x, struct conn *conn, const struct wish *wish,
    const struct msg *msg)
{
	struct ike_sa *sa = x->x.sa;
	struct child_sa *child;
	enum verdict verdict = DONE;
	enum err err;

	if (!read_keys(x, msg, wish->choice.suite.kex, &verdict))
		return verdict;
	child = v2_child_make(x, conn, false);
	if (child == NULL)
		return refuse(
		    x, ERR_NOMEM, N_TEMPORARY_FAILURE, "out of memory");
	x->proposal = wish->offers[wish->choice.chosen].number;
	x->transport = wish->mode == MODE_TRANSPORT;
	child->mode = wish->mode;
	child->suite = wish->choice.suite;
	child->spi_out = v2_child_spi(&wish->offers[wish->choice.chosen]);
	child->ts_local = wish->ts_local;
	child->ts_remote = wish->ts_remote;
	child->natoa_local = wish->natoa_local;
	child->natoa_remote = wish->natoa_remote;
	err = v2_ask(x, install_spi(sa->env, child, sa_ticket(sa, &x->x, child),
	                    v2_install_done));
	if (err != OK)
		return refuse(x, err, N_NO_ADDITIONAL_SAS, err_text(err));
	return v2_wait(x);
}

enum verdict
v2_grant_choose(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct wish wish = { 0 };
	struct conn *conn = NULL;
	enum verdict verdict;
	enum err err;

	x->asked = OK;
	err = read_wish(msg, &wish);
	if (err != OK) {
		verdict = refuse(x, err, N_INVALID_SYNTAX, err_text(err));
	} else {
		err = choose_conn(x, &wish, &conn);
		if (err != OK)
			verdict = refuse(x, err, notify_of(err), err_text(err));
		else if (v2_child_spi(&wish.offers[wish.choice.chosen]) == 0)
			verdict =
			    refuse(x, ERR_SYNTAX, N_INVALID_SYNTAX, "SPI 0");
		else
			verdict = prepare(x, conn, &wish, msg);
	}
	/* The first child's connection gives the SA its name. */
	if (v2_child_in_auth(x) && x->child != 0 && conn != NULL)
		sa_set_conn(sa, conn);
	free(wish.offers);
	return verdict;
}

static enum verdict
refuse_kernel(struct v2_exchange *x, enum err err)
{
	uint16_t notify =
	    x->old_child != 0 ? N_TEMPORARY_FAILURE : N_NO_ADDITIONAL_SAS;

	if (err == ERR_KE) /* RFC 6989 */
		notify = N_INVALID_SYNTAX;
	return refuse(x, err, notify,
	    x->asked_text[0] != '\0' ? x->asked_text : err_text(err));
}

enum verdict
v2_grant_install(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct child_sa *child = v2_child_of(x);
	struct ticket ticket = sa_ticket(sa, exchange, child);
	enum err err = x->asked;

	(void)msg;
	if (x->child == 0)
		return DONE;
	if (child == NULL)
		return refuse(
		    x, ERR_CANCELLED, N_TEMPORARY_FAILURE, "it is gone");
	if (err == OK)
		err = v2_child_keys(x, child);
	if (err != OK)
		return refuse_kernel(x, err);
	/* A rekeyed child sends when the peer has shown that it uses it; the
	 * kernel would at once prefer the newest. */
	err = x->old_child != 0
	          ? install_inbound(sa->env, child, ticket, v2_install_done)
	          : install_both(sa->env, child, ticket, v2_install_done);
	if (v2_ask(x, err) != OK)
		return refuse_kernel(x, err);
	return v2_wait(x);
}

void
v2_grant_settle(struct v2_exchange *x)
{
	if (x->child != 0 && x->asked != OK)
		(void)refuse_kernel(x, x->asked);
	else if (x->child != 0 && v2_child_of(x) == NULL)
		(void)refuse(
		    x, ERR_CANCELLED, N_TEMPORARY_FAILURE, "it is gone");
}

void
v2_grant_write(struct v2_exchange *x, struct wire_out *out)
{
	struct child_sa *child = v2_child_of(x);
	uint8_t spi[4];
	struct buf buf;

	if (child == NULL) {
		v2_notify_put(out, x->child_error, view_of(NULL, 0));
		return;
	}
	buf_init(&buf, spi, sizeof(spi));
	buf_u32(&buf, child->spi_in);
	if (x->transport)
		v2_notify_put(out, N_USE_TRANSPORT_MODE, view_of(NULL, 0));
	v2_sapay_put_chosen(
	    out, x->proposal, PROTO_ESP, &child->suite, buf_done(&buf));
	if (!v2_child_in_auth(x))
		wire_payload(out, P2_NONCE, secret_view(&x->nonce_r));
	if (x->kex != NULL && child->suite.kex != NULL)
		v2_ke_put(out, child->suite.kex, kex_public(x->kex));
	v2_ts_put(out, P2_TSI, &child->ts_remote);
	v2_ts_put(out, P2_TSR, &child->ts_local);
}

/* The peer rekeys old. If we do too, the nonces will decide when our answer
 * comes (RFC 7296 2.8.1). */
static void
note_rival(struct v2_exchange *x, struct child_sa *child, struct child_sa *old)
{
	struct v2_exchange *own = v2_own_exchange(v2_of(x->x.sa));
	struct view i = secret_view(&x->nonce_i), r = secret_view(&x->nonce_r);

	if (own != NULL && own->old_child == old->serial &&
	    secret_set(&own->rival_nonce, v2_nonce_compare(i, r) < 0 ? i : r) ==
	        OK)
		own->rival = child->serial;
}

void
v2_grant_announce(struct v2_exchange *x)
{
	struct child_sa *child = v2_child_of(x), *old = v2_child_old(x);

	if (child == NULL)
		return;
	x->child = 0;
	child_set_lifetime(child, child->conn->lifetime_ms, true);
	v2_child_log(child, x->old_child != 0 ? "rekeyed" : "up");
	if (x->old_child == 0 || old == NULL) {
		child_up(child, NULL);
		return;
	}
	child->state = CHILD_INBOUND;
	note_rival(x, child, old);
	v2_child_replace(x, old, child->serial);
	v2_tick_in(v2_of(x->x.sa), POLL_MS);
}

enum verdict
v2_grant_respond(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_writer writer;
	enum err err;

	(void)sa;
	(void)msg;
	if (x->asked != OK)
		return refuse_kernel(x, x->asked);
	if (v2_child_of(x) == NULL)
		return refuse(
		    x, ERR_CANCELLED, N_TEMPORARY_FAILURE, "it is gone");
	/* RFC 7296 2.25.1: our own rekey or Delete was faster. */
	if (x->old_child != 0 && !v2_child_rekeyable(x, v2_child_old(x)))
		return refuse(x, ERR_WRONG_STATE, N_TEMPORARY_FAILURE,
		    "the old one is on its way out");
	v2_writer_init(&writer);
	v2_grant_write(x, &writer.out);
	err = v2_respond(x, &writer);
	if (err != OK)
		return refuse(x, err, N_TEMPORARY_FAILURE, err_text(err));
	v2_grant_announce(x);
	return DONE;
}
