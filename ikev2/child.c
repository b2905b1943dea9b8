#include "ikev2/child.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/explain.h"
#include "common/terms.h"
#include "ikev2/task.h"
#include "kernel/install.h"

#define AGAIN_MS 4000  /* least patience after TEMPORARY_FAILURE */
#define RETRY_MS 30000 /* until a failed rekey is tried again */

struct child_sa *
v2_child_of(const struct v2_exchange *x)
{
	return child_by_serial(x->x.sa->env->sadb, x->child);
}

struct child_sa *
v2_child_old(const struct v2_exchange *x)
{
	return child_by_serial(x->x.sa->env->sadb, x->old_child);
}

bool
v2_child_in_auth(const struct v2_exchange *x)
{
	return x->x.type == EXCH_IKE_AUTH;
}

struct v2_exchange *
v2_child_awaited(struct v2_sa *v2)
{
	struct v2_exchange *own = v2_own_exchange(v2);

	return own != NULL && own->sent && own->child != 0 ? own : NULL;
}

struct child_sa *
v2_child_make(struct v2_exchange *x, struct conn *conn, bool initiator)
{
	struct ike_sa *sa = x->x.sa;
	struct child_sa *child = child_new(sa, conn, initiator);

	if (child == NULL)
		return NULL;
	timer_init(&child->rekey_timer, v2_child_rekey_due, child);
	timer_init(&child->expire_timer, v2_child_expired, child);
	/* Port 500 carries no ESP. */
	child->encap = sa->encap && sa->natt;
	x->child = child->serial;
	return child;
}

void
v2_child_drop(struct child_sa *child)
{
	/* A replaced child goes without an event. */
	child->state = CHILD_REKEYED;
	child->rekeyed_by = child->serial;
	child_kill(child, OK, false, NULL);
}

struct conn *
v2_child_conn(const struct ike_sa *sa, struct conn *conn)
{
	return conn_now(sa->env->policy, conn, 2);
}

void
v2_child_end_terms(struct child_sa *child)
{
	/* It goes with its IKE SA, where that is not allowed either. */
	if (terms_sa(child->sa))
		terms_end_child(child);
	else
		terms_end_sa(child->sa, TERMS_PEER);
}

/* Transport mode and NAT (RFC 7296 2.23.1) -------------------------------- */

static enum err
substitute(
    struct ts_list *list, const struct addr *addr, struct endpoint *original)
{
	unsigned i;

	for (i = 0; i < list->count; i++)
		if (list->item[i].first.family != addr->family ||
		    !addr_equal(&list->item[i].first, &list->item[i].last))
			return ERR_TS;
	original->addr = list->item[0].first;
	for (i = 0; i < list->count; i++)
		list->item[i].first = list->item[i].last = *addr;
	return OK;
}

/* The addresses that each end means are not those that the other sees: ours of
 * the IKE SA take their place; the originals are kept for checksums. */
enum err
v2_child_undo_nat(const struct ike_sa *sa, struct ts_list *local,
    struct ts_list *remote, struct endpoint *natoa_local,
    struct endpoint *natoa_remote)
{
	enum err err = OK;

	memset(natoa_local, 0, sizeof(*natoa_local));
	memset(natoa_remote, 0, sizeof(*natoa_remote));
	if (local->count == 0 || remote->count == 0)
		return ERR_TS;
	if (sa->nat_local || sa->nat_remote) {
		err = substitute(local, &sa->local.addr, natoa_local);
		if (err == OK)
			err =
			    substitute(remote, &sa->remote.addr, natoa_remote);
	}
	return err;
}

/* Keys ------------------------------------------------------------------- */

enum err
v2_child_keys(struct v2_exchange *x, struct child_sa *child)
{
	struct v2_sa *v2 = v2_of(x->x.sa);
	const struct v2_setup *setup = v2->setup;
	const struct secret *nonce_i = &x->nonce_i, *nonce_r = &x->nonce_r;
	struct view shared = secret_view(&x->shared);

	/* RFC 7296 2.17: the first child lives off the nonces of
	 * IKE_SA_INIT; PFS adds g^ir. */
	if (v2_child_in_auth(x)) {
		nonce_i = &setup->nonce_i;
		nonce_r = &setup->nonce_r;
	}
	if (child->suite.kex == NULL)
		shared = view_of(NULL, 0);
	return v2_key_child(v2->sa.suite.prf,
	    v2_key(&v2->sa.suite, &v2->keys, V2_SK_D), shared,
	    secret_view(nonce_i), secret_view(nonce_r), &child->suite,
	    child->initiator, &child->keys_in, &child->keys_out);
}

uint32_t
v2_child_spi(const struct offer *offer)
{
	struct view view = view_of(offer->spi, 4);
	uint32_t spi = 0;

	return view_u32(&view, &spi) ? spi : 0;
}

/* Initiator -------------------------------------------------------------- */

/* RFC 7296 2.9: the packet that asked for the child comes first. */
static void
lead_with(struct ts_list *list, const struct ts *packet)
{
	struct ts_list with = { 0 };
	unsigned i;

	if (packet->first.family == ADDR_NONE)
		return;
	for (i = 0; i < list->count; i++)
		if (ts_within(packet, &list->item[i]))
			break;
	if (i == list->count || ts_list_add(&with, packet) != OK)
		return;
	for (i = 0; i < list->count; i++)
		ts_list_add(&with, &list->item[i]);
	*list = with;
}

enum err
v2_child_begin(struct v2_exchange *x, struct conn *conn, struct child_sa *old)
{
	struct ike_sa *sa = x->x.sa;
	struct child_sa *child = v2_child_make(x, conn, true);

	if (child == NULL)
		return ERR_NOMEM;
	x->transport = conn->mode == MODE_TRANSPORT;
	if (old != NULL) {
		/* RFC 7296 2.9.2: never narrower than before. */
		child->ts_local = old->ts_local;
		child->ts_remote = old->ts_remote;
		child->mode = old->mode;
		x->transport = old->mode == MODE_TRANSPORT;
	} else {
		conn_ts(&conn->local, &sa->local.addr, &child->ts_local);
		conn_ts(&conn->remote, &sa->remote.addr, &child->ts_remote);
		if (x->task != NULL) {
			lead_with(&child->ts_local, &x->task->packet[0]);
			lead_with(&child->ts_remote, &x->task->packet[1]);
		}
	}
	return v2_ask(x, install_spi(sa->env, child,
	                     sa_ticket(sa, &x->x, child), v2_install_done));
}

enum err
v2_child_offer(struct v2_exchange *x, struct wire_out *out)
{
	struct child_sa *child = v2_child_of(x);
	uint8_t spi[4];
	struct buf buf;

	if (child == NULL)
		return ERR_CANCELLED;
	buf_init(&buf, spi, sizeof(spi));
	buf_u32(&buf, child->spi_in);
	if (x->transport)
		v2_notify_put(out, N_USE_TRANSPORT_MODE, view_of(NULL, 0));
	v2_sapay_put(
	    out, &child->conn->esp, buf_done(&buf), v2_child_in_auth(x));
	if (!v2_child_in_auth(x))
		wire_payload(out, P2_NONCE, secret_view(&x->nonce_i));
	if (x->kex != NULL)
		v2_ke_put(out, x->group, kex_public(x->kex));
	v2_ts_put(out, P2_TSI, &child->ts_local);
	v2_ts_put(out, P2_TSR, &child->ts_remote);
	return OK;
}

static const struct alg *
pfs_group(const struct v2_exchange *x, const struct conn *conn)
{
	unsigned i;

	if (x->task->group != ALG_NONE)
		return alg_get((enum alg_id)x->task->group);
	for (i = 0; i < conn->esp.count; i++)
		if (conn->esp.item[i].count[ALG_KEX] > 0)
			return proposal_alg(&conn->esp.item[i], ALG_KEX, 0);
	return NULL;
}

/* May this child still be rekeyed by us? */
bool
v2_child_rekeyable(const struct v2_exchange *x, const struct child_sa *old)
{
	return old != NULL && old->sa == x->x.sa && old->rekeyed_by == 0 &&
	       (old->state == CHILD_UP || old->state == CHILD_INBOUND) &&
	       !v2_task_queued(v2_of(x->x.sa), WANT_CHILD_DELETE, old->serial);
}

enum verdict
v2_child_i_begin(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct child_sa *old = NULL;
	struct conn *conn;
	enum err err;

	(void)msg;
	if (x->task->want == WANT_CHILD_REKEY) {
		x->old_child = x->task->child;
		old = v2_child_old(x);
		if (!v2_child_rekeyable(x, old))
			return IGNORE;
		if (!terms_child(old, &old->ts_local, &old->ts_remote)) {
			v2_child_end_terms(old);
			return IGNORE;
		}
	}
	conn = v2_child_conn(sa, old != NULL ? old->conn : x->task->conn);
	x->group = pfs_group(x, conn);
	err = v2_nonce_draw(sa->env, &x->nonce_i);
	if (err == OK && x->group != NULL)
		err = v2_ask(x, dh_generate(sa->env->workers, x->group,
		                    sa_ticket(sa, exchange, NULL), v2_dh_done));
	if (err == OK)
		err = v2_child_begin(x, conn, old);
	if (err != OK)
		return fsm_fail(exchange, err, 0, "child: %s", err_text(err));
	return v2_wait(x);
}

enum verdict
v2_child_i_send(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct child_sa *old = v2_child_old(x);
	struct v2_writer writer;
	uint8_t spi[4];
	struct buf buf;
	enum err err = x->asked;

	(void)sa;
	(void)msg;
	if (err != OK)
		return fsm_fail(exchange, err, 0, "child: %s",
		    x->asked_text[0] != '\0' ? x->asked_text : err_text(err));
	v2_writer_init(&writer);
	if (x->old_child != 0) {
		/* The peer's rekey or Delete may have been faster. */
		if (!v2_child_rekeyable(x, old))
			return IGNORE;
		buf_init(&buf, spi, sizeof(spi));
		buf_u32(&buf, old->spi_in);
		wire_notify_v2(&writer.out, PROTO_ESP, buf_done(&buf),
		    N_REKEY_SA, view_of(NULL, 0));
	}
	err = v2_child_offer(x, &writer.out);
	if (err == OK)
		err = v2_request(x, &writer);
	if (err != OK)
		return fsm_fail(exchange, err, 0, "child: %s", err_text(err));
	return DONE;
}

/* After a rekey that failed. */
static void
rekey_later(struct child_sa *old)
{
	if (old != NULL && old->rekeyed_by == 0 && !old->stale)
		timer_set(old->sa->env->timers, &old->rekey_timer, RETRY_MS);
}

/* A child that the peer has made and we do not want: it is told, and the IKE
 * SA stays (RFC 7296 1.2, 1.4.1). */
static enum verdict
refuse_answer(struct v2_exchange *x, enum err err, const char *text)
{
	struct child_sa *child = v2_child_of(x);
	struct ike_sa *sa = x->x.sa;

	sa_log(sa, LOG_LEVEL_WARNING, "child refused: %s", text);
	x->child = 0;
	if (child == NULL)
		return DONE;
	v2_task_delete_spi(v2_of(sa), child->spi_in);
	if (x->old_child == 0) {
		child_kill(child, err, false, text);
		return DONE;
	}
	/* Of a rekey that failed nobody hears: the old child is there. */
	v2_child_drop(child);
	rekey_later(v2_child_old(x));
	return DONE;
}

static enum err
read_selectors(struct v2_exchange *x, struct child_sa *child,
    const struct msg *msg, const char **text)
{
	struct ike_sa *sa = x->x.sa;
	struct ts_list local = { 0 }, remote = { 0 };
	struct child_sa *old = v2_child_old(x);
	enum err err;

	*text = "malformed selectors";
	err = v2_ts_read(msg_payload(msg, KIND_TSI, 0)->body, NULL, &local);
	if (err == OK)
		err = v2_ts_read(
		    msg_payload(msg, KIND_TSR, 0)->body, NULL, &remote);
	if (err == OK && x->transport)
		err = v2_child_undo_nat(sa, &local, &remote,
		    &child->natoa_local, &child->natoa_remote);
	if (err != OK)
		return err;
	*text = "the peer widened the selectors";
	if (local.count == 0 || remote.count == 0 ||
	    !ts_list_within(&local, &child->ts_local) ||
	    !ts_list_within(&remote, &child->ts_remote))
		return ERR_TS;
	if (old != NULL && (!ts_list_within(&old->ts_local, &local) ||
	                       !ts_list_within(&old->ts_remote, &remote)))
		sa_log(sa, LOG_LEVEL_WARNING,
		    "the peer narrowed the selectors in a rekey");
	child->ts_local = local;
	child->ts_remote = remote;
	return OK;
}

static enum err
read_choice(struct v2_exchange *x, struct child_sa *child,
    const struct msg *msg, const char **text)
{
	struct offer *offers = NULL;
	size_t count = 0;
	enum err err;

	*text = "the peer's choice is none that was offered";
	err = v2_sapay_read(msg_payload(msg, KIND_SA, 0)->body, PROTO_ESP, 4,
	    true, &offers, &count);
	if (err == OK && count != 1)
		err = ERR_SYNTAX;
	if (err == OK)
		err = proposals_accept(&child->conn->esp, &offers[0],
		    v2_child_in_auth(x), &child->suite);
	if (err == OK) {
		child->spi_out = v2_child_spi(&offers[0]);
		if (child->spi_out == 0)
			err = ERR_SYNTAX;
	}
	free(offers);
	return err;
}

/* RFC 7296 1.3.1: a KE of the chosen group, which is the one that we sent. */
static enum err
derive(
    struct v2_exchange *x, const struct child_sa *child, const struct msg *msg)
{
	const struct payload *ke = msg_payload(msg, KIND_KE, 0);
	struct ike_sa *sa = x->x.sa;
	struct view value;
	uint16_t group;
	enum err err;

	if (v2_child_in_auth(x) || child->suite.kex == NULL)
		return OK;
	if (ke == NULL || x->kex == NULL || child->suite.kex != x->group)
		return ERR_KE;
	err = v2_ke_read(ke->body, &group, &value);
	if (err == OK && group != x->group->ikev2)
		err = ERR_KE;
	if (err == OK)
		err = v2_ask(x, dh_derive(sa->env->workers, x->kex, value,
		                    sa_ticket(sa, &x->x, NULL), v2_dh_done));
	if (err == OK)
		x->kex = NULL;
	return err;
}

enum verdict
v2_child_i_accept(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct child_sa *child = v2_child_of(x);
	const struct payload *error = msg_error(msg);
	char text[80];
	const char *problem = "the nonce has a wrong size";
	enum err err = OK;

	x->asked = OK;
	if (child == NULL)
		return refuse_answer(x, ERR_CANCELLED, "it is gone");
	if (v2_child_in_auth(x) && error != NULL) {
		snprintf(text, sizeof(text), "the peer answered %s (%u)",
		    kind_text((enum kind)error->kind), error->notify.type);
		sa_log(sa, LOG_LEVEL_WARNING, "child refused: %s", text);
		explain_refused(
		    sa->env, sa, child->conn, true, (enum kind)error->kind);
		x->child = 0;
		child_kill(child, ERR_PEER, true, text);
		return DONE;
	}
	/* RFC 7296 3.10.1: beside an error that we do not know, nothing
	 * counts. */
	if (error != NULL)
		return refuse_answer(x, ERR_PEER, "an answer with an error");
	if (!msg_has(msg, KIND_SA) || !msg_has(msg, KIND_TSI) ||
	    !msg_has(msg, KIND_TSR))
		return refuse_answer(
		    x, ERR_SYNTAX, "an answer without a child");
	if (!v2_child_in_auth(x))
		err = v2_nonce_read(msg, sa->suite.prf, &x->nonce_r);
	/* RFC 7296 1.3.1: the peer may decline transport mode; then the child
	 * is deleted, for we did not ask for a tunnel. */
	if (err == OK && x->transport != msg_has(msg, KIND_N_TRANSPORT)) {
		problem = "the peer wants another mode";
		err = ERR_REFUSED;
	}
	if (err == OK)
		err = read_choice(x, child, msg, &problem);
	if (err == OK)
		err = read_selectors(x, child, msg, &problem);
	if (err == OK) {
		problem = "the KE payload does not fit";
		err = derive(x, child, msg);
	}
	if (err != OK)
		return refuse_answer(x, err, problem);
	return v2_wait(x);
}

enum verdict
v2_child_i_install(
    struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct child_sa *child = v2_child_of(x);
	struct ticket ticket = sa_ticket(sa, exchange, child);
	enum err err = x->asked;

	(void)msg;
	if (x->child == 0)
		return DONE;
	if (child == NULL)
		return refuse_answer(x, ERR_CANCELLED, "it is gone");
	if (err == OK)
		err = v2_child_keys(x, child);
	if (err != OK)
		return refuse_answer(x, err, err_text(err));
	/* The redundant one may carry what the peer sends until our Delete
	 * arrives, and nothing of ours. */
	err = v2_rekey_lost(x)
	          ? install_inbound(sa->env, child, ticket, v2_install_done)
	          : install_both(sa->env, child, ticket, v2_install_done);
	if (v2_ask(x, err) != OK)
		return refuse_answer(x, err, err_text(err));
	return v2_wait(x);
}

/* The old child has a successor; who began the rekey deletes it (2.8). */
void
v2_child_replace(struct v2_exchange *x, struct child_sa *old, uint64_t by)
{
	struct ike_sa *sa = x->x.sa;

	old->state = CHILD_REKEYED;
	old->rekeyed_by = by;
	timer_stop(sa->env->timers, &old->rekey_timer);
	timer_set(sa->env->timers, &old->expire_timer, V2_DELETE_MS);
}

void
v2_child_log(const struct child_sa *child, const char *verb)
{
	char suite[SUITE_TEXT], local[256], remote[256];
	const struct log *log = child->sa->env->log;

	if (log == NULL || log->level < LOG_LEVEL_INFO)
		return;
	sa_log(child->sa, LOG_LEVEL_INFO,
	    "child %s: %s, %s === %s, SPIs %08x in, %08x out", verb,
	    suite_text(&child->suite, suite),
	    ts_list_text(&child->ts_local, local, sizeof(local)),
	    ts_list_text(&child->ts_remote, remote, sizeof(remote)),
	    child->spi_in, child->spi_out);
}

static void
settle(struct v2_exchange *x, struct child_sa *child)
{
	struct ike_sa *sa = x->x.sa;
	struct child_sa *old = v2_child_old(x), *rival;
	bool unwanted;

	child_set_lifetime(child, child->conn->lifetime_ms, true);
	v2_child_log(child, x->old_child != 0 ? "rekeyed" : "up");
	child_up(child, x->old_child != 0 ? child : NULL);
	rival = child_by_serial(sa->env->sadb, x->rival);
	if (x->rival != 0)
		env_count(sa->env, COUNTER_COLLISIONS);
	/* The peer deletes its redundant one itself. */
	if (rival != NULL)
		v2_child_replace(x, rival, child->serial);
	if (old == NULL)
		return;
	/* Who wished the old one gone meanwhile means its successor too. */
	unwanted = v2_task_queued(v2_of(sa), WANT_CHILD_DELETE, old->serial);
	v2_child_replace(x, old, child->serial);
	v2_task_add(v2_of(sa), WANT_CHILD_DELETE, old, NULL, NULL);
	if (unwanted)
		v2_child_close(child);
}

enum verdict
v2_child_i_done(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct child_sa *child = v2_child_of(x);
	uint64_t serial = x->child;

	(void)msg;
	if (x->child == 0)
		return DONE;
	if (child == NULL || x->asked != OK)
		return refuse_answer(x,
		    child == NULL ? ERR_CANCELLED : x->asked,
		    x->asked_text[0] != '\0' ? x->asked_text
		                             : "the kernel refused it");
	x->child = 0;
	if (v2_rekey_lost(x)) {
		env_count(sa->env, COUNTER_COLLISIONS);
		child->state = CHILD_REKEYED;
		/* Its end says nothing about the rival, whose response the
		 * peer may not have got yet: the old one's Delete does. */
		child->rekeyed_by = child->serial;
		v2_task_add(v2_of(sa), WANT_CHILD_DELETE, child, NULL, NULL);
		return DONE;
	}
	settle(x, child);
	/* Whoever heard of it may have done anything. */
	child = child_by_serial(sa->env->sadb, serial);
	if (child != NULL && child->spi_out == x->gone_spi)
		v2_child_retire(child, true);
	return DONE;
}

/* What is left of our try goes, quietly, and the wish stays. */
static void
wish_again(struct v2_exchange *x, uint64_t delay_ms)
{
	struct child_sa *child = v2_child_of(x);
	struct v2_task *task = x->task;

	x->child = 0;
	if (child != NULL)
		v2_child_drop(child);
	x->task = NULL;
	v2_task_again(v2_of(x->x.sa), task, delay_ms);
}

enum verdict
v2_child_i_group(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct child_sa *child = v2_child_of(x);
	struct view data = msg_payload(msg, KIND_N_INVALID_KE, 0)->notify.data;
	const struct alg *group = NULL;
	const struct proposals *esp;
	bool offered = false;
	uint16_t number = 0;
	unsigned i, j;

	(void)sa;
	if (view_u16(&data, &number))
		group = alg_by_ikev2(ALG_KEX, number, 0);
	esp = child == NULL ? NULL : &child->conn->esp;
	for (i = 0; esp != NULL && i < esp->count; i++)
		for (j = 0; j < esp->item[i].count[ALG_KEX]; j++)
			offered = offered || proposal_alg(&esp->item[i],
			                         ALG_KEX, j) == group;
	/* RFC 7296 1.3: again with the group that the peer wants, which must
	 * be one of those that we offered. */
	if (group == NULL || !offered || x->task->ke_rounds >= V2_ROUNDS)
		return fsm_fail(exchange, ERR_KE, 0,
		    "the peer wants group %u for the child", number);
	x->task->ke_rounds++;
	x->task->group = group->id;
	wish_again(x, 0);
	return DONE;
}

/* RFC 7296 2.25: the peer has no such child, so neither have we; the traffic
 * needs a new one. */
static void
begin_anew(struct v2_exchange *x, struct child_sa *old)
{
	struct ike_sa *sa = x->x.sa;
	struct conn *conn;
	bool allowed;

	if (!v2_child_rekeyable(x, old))
		return;
	allowed = terms_child(old, &old->ts_local, &old->ts_remote);
	conn = conn_ref(v2_child_conn(sa, old->conn));
	sa_log(sa, LOG_LEVEL_INFO, "the peer has lost the child%s",
	    allowed ? "; a new one" : "");
	child_kill(old, ERR_NOT_FOUND, true, "the peer has lost it");
	if (allowed)
		v2_task_add(v2_of(sa), WANT_CHILD, NULL, conn, NULL);
	conn_unref(conn);
}

enum verdict
v2_child_i_refused(
    struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	const struct payload *error = msg_error(msg);
	struct child_sa *old = v2_child_old(x);

	if (v2_fatal(sa, msg))
		return DONE;
	if (error == NULL)
		return fsm_fail(
		    exchange, ERR_SYNTAX, 0, "an answer without a child");
	if (x->old_child != 0 && !v2_child_rekeyable(x, old))
		return DONE; /* settled otherwise: 2.25.1 */
	if (error->kind == KIND_N_TEMPORARY_FAILURE) {
		wish_again(x, AGAIN_MS);
		return DONE;
	}
	if (error->kind == KIND_N_CHILD_NOT_FOUND && old != NULL) {
		begin_anew(x, old);
		return DONE;
	}
	if (v2_child_of(x) != NULL)
		explain_refused(sa->env, sa, v2_child_of(x)->conn, true,
		    (enum kind)error->kind);
	return fsm_fail(exchange, ERR_PEER, 0,
	    "child refused: the peer answered %s (%u)",
	    kind_text((enum kind)error->kind), error->notify.type);
}

void
v2_child_gave_up(struct v2_exchange *x)
{
	struct child_sa *child = v2_child_of(x), *old = v2_child_old(x);

	x->child = 0;
	if (x->old_child == 0) {
		if (child != NULL)
			child_kill(
			    child, x->x.error.err, x->sent, x->x.error.text);
		return;
	}
	if (child != NULL)
		v2_child_drop(child);
	rekey_later(old);
}

/* The end of a replaced child -------------------------------------------- */

static void
outbound_done(
    struct env *env, struct ticket ticket, enum err err, const char *text)
{
	struct child_sa *child = child_by_serial(env->sadb, ticket.child);

	if (child == NULL || err == OK)
		return;
	sa_log(child->sa, LOG_LEVEL_ERROR,
	    "the kernel refused the outbound SA: %s",
	    text != NULL ? text : err_text(err));
	v2_child_close(child);
}

/* From now on the child sends, too. */
static void
activate(struct child_sa *child)
{
	struct env *env = child->sa->env;
	enum err err;

	if (child->state != CHILD_INBOUND)
		return;
	child_up(child, child);
	err = install_outbound(
	    env, child, sa_ticket(child->sa, NULL, child), outbound_done);
	if (err != OK)
		outbound_done(
		    env, sa_ticket(child->sa, NULL, child), err, NULL);
}

/* The child that heir replaced, as long as it has not been deleted. */
static struct child_sa *
replaced_by(const struct child_sa *heir)
{
	struct child_sa *child;

	for (child = heir->sa->children; child != NULL; child = child->next)
		if (child != heir && child->state == CHILD_REKEYED &&
		    child->rekeyed_by == heir->serial &&
		    !v2_task_queued(
		        v2_of(heir->sa), WANT_CHILD_DELETE, child->serial))
			return child;
	return NULL;
}

/* The peer, who began the rekey, could not use what came of it, and deletes
 * that before the old child: which serves on, as if nothing had been. */
static void
reinstate(struct child_sa *old, struct child_sa *heir)
{
	struct env *env = old->sa->env;
	uint64_t now = env_now(env);

	sa_log(old->sa, LOG_LEVEL_INFO,
	    "the peer takes the rekey back: child %08x in, %08x out stays",
	    old->spi_in, old->spi_out);
	old->state = CHILD_UP;
	old->rekeyed_by = 0;
	timer_set(env->timers, &old->expire_timer,
	    old->expire_at_ms > now ? old->expire_at_ms - now : 0);
	if (old->conn->rekey)
		timer_set(env->timers, &old->rekey_timer, 2 * RETRY_MS);
	/* Whoever was told of the heir knows that it goes. */
	if (heir->state == CHILD_UP)
		sa_event(old->sa, old, EVENT_CHILD_REKEYED, OK, true, NULL);
	heir->rekeyed_by = heir->serial;
}

void
v2_child_retire(struct child_sa *child, bool by_peer)
{
	struct sadb *sadb = child->sa->env->sadb;
	struct child_sa *heir = child_by_serial(sadb, child->rekeyed_by);
	struct child_sa *old = by_peer ? replaced_by(child) : NULL;
	struct v2_exchange *own = v2_own_exchange(v2_of(child->sa));

	/* The peer has counted the nonces before us and takes back what it
	 * made (RFC 7296 2.8.1). */
	if (own != NULL && own->rival == child->serial)
		child->rekeyed_by = child->serial;
	if (heir != NULL && heir != child)
		activate(heir);
	if (old != NULL && child->rekeyed_by == 0)
		reinstate(old, child);
	if (child->rekeyed_by != 0) {
		child->state = CHILD_REKEYED;
		child_linger(child, V2_LINGER_MS);
		return;
	}
	child_kill(child, OK, by_peer, "deleted");
}

static void
poll_done(struct env *env, struct ticket ticket, enum err err,
    const struct install_use *use)
{
	struct child_sa *child = child_by_serial(env->sadb, ticket.child);

	if (child != NULL && err == OK && use->packets_in > 0)
		activate(child);
}

void
v2_child_poll(struct child_sa *child)
{
	/* A failure is no answer; the next look, or the Delete, decides. */
	(void)install_query(child->sa->env, child,
	    sa_ticket(child->sa, NULL, child), poll_done);
}
