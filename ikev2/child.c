#include "ikev2/child.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/explain.h"
#include "ikev2/auth.h"
#include "ikev2/init.h"
#include "ikev2/task.h"
#include "kernel/install.h"

#define POLL_MS  500   /* to the first look for traffic on a rekeyed child */
#define AGAIN_MS 4000  /* least patience after TEMPORARY_FAILURE */
#define RETRY_MS 30000 /* until a failed rekey is tried again */

static struct child_sa *
child_of(const struct v2_exchange *x)
{
	return child_by_serial(x->x.sa->env->sadb, x->child);
}

static struct child_sa *
old_of(const struct v2_exchange *x)
{
	return child_by_serial(x->x.sa->env->sadb, x->old_child);
}

static bool
in_auth(const struct v2_exchange *x)
{
	return x->x.type == EXCH_IKE_AUTH;
}

static struct child_sa *
child_make(struct v2_exchange *x, struct conn *conn, bool initiator)
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

/* A live SA keeps its old policy until it is rekeyed; from then on, what is in
 * force under the same name counts. */
static struct conn *
conn_now(const struct ike_sa *sa, const struct child_sa *old)
{
	struct conn *now = policy_conn(sa->env->policy, old->conn->name);

	if (now == NULL || !conn_same_peer(sa->conn, now))
		return old->conn;
	return now;
}

/* Transport mode and NAT (RFC 7296 2.23.1) -------------------------------- */

static enum err
substitute(
    struct ts_list *list, const struct addr *addr, struct endpoint *original)
{
	unsigned i;

	for (i = 0; i < list->count; i++)
		if (!addr_equal(&list->item[i].first, &list->item[i].last))
			return ERR_TS;
	original->addr = list->item[0].first;
	for (i = 0; i < list->count; i++)
		list->item[i].first = list->item[i].last = *addr;
	return OK;
}

/* The addresses that each end means are not those that the other sees: ours of
 * the IKE SA take their place; the originals are kept for checksums. */
static enum err
undo_nat(const struct ike_sa *sa, struct ts_list *local, struct ts_list *remote,
    struct endpoint *natoa_local, struct endpoint *natoa_remote)
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

static enum err
make_keys(struct v2_exchange *x, struct child_sa *child)
{
	struct v2_sa *v2 = v2_of(x->x.sa);
	const struct v2_setup *setup = v2->setup;
	const struct secret *nonce_i = &x->nonce_i, *nonce_r = &x->nonce_r;
	struct view shared = secret_view(&x->shared);

	/* RFC 7296 2.17: the first child lives off the nonces of
	 * IKE_SA_INIT; PFS adds g^ir. */
	if (in_auth(x)) {
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

static uint32_t
spi_of(const struct offer *offer)
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
	struct child_sa *child = child_make(x, conn, true);

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
	struct child_sa *child = child_of(x);
	uint8_t spi[4];
	struct buf buf;

	if (child == NULL)
		return ERR_CANCELLED;
	buf_init(&buf, spi, sizeof(spi));
	buf_u32(&buf, child->spi_in);
	if (x->transport)
		v2_notify_put(out, N_USE_TRANSPORT_MODE, view_of(NULL, 0));
	v2_sapay_put(out, &child->conn->esp, buf_done(&buf), in_auth(x));
	if (!in_auth(x))
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
			return conn->esp.item[i].alg[ALG_KEX][0];
	return NULL;
}

/* May this child still be rekeyed by us? */
static bool
rekeyable(const struct v2_exchange *x, const struct child_sa *old)
{
	return old != NULL && old->sa == x->x.sa && old->rekeyed_by == 0 &&
	       (old->state == CHILD_UP || old->state == CHILD_INBOUND) &&
	       !v2_task_queued(v2_of(x->x.sa), WANT_CHILD_DELETE, old->serial);
}

enum verdict
v2_child_i_begin(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct conn *conn = x->task->conn;
	struct child_sa *old = NULL;
	enum err err;

	(void)msg;
	if (x->task->want == WANT_CHILD_REKEY) {
		x->old_child = x->task->child;
		old = old_of(x);
		if (!rekeyable(x, old))
			return IGNORE;
		conn = conn_now(sa, old);
	}
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
	struct child_sa *old = old_of(x);
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
		if (!rekeyable(x, old))
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

/* A child that the peer has made and we do not want: it is told, and the IKE
 * SA stays (RFC 7296 1.2, 1.4.1). */
static enum verdict
refuse_answer(struct v2_exchange *x, enum err err, const char *text)
{
	struct child_sa *child = child_of(x);
	struct ike_sa *sa = x->x.sa;

	sa_log(sa, LOG_LEVEL_WARNING, "child refused: %s", text);
	x->child = 0;
	if (child == NULL)
		return DONE;
	v2_task_delete_spi(v2_of(sa), child->spi_in);
	child_kill(child, err, false, text);
	return DONE;
}

static enum err
read_selectors(struct v2_exchange *x, struct child_sa *child,
    const struct msg *msg, const char **text)
{
	struct ike_sa *sa = x->x.sa;
	struct ts_list local = { 0 }, remote = { 0 };
	struct child_sa *old = old_of(x);
	enum err err;

	*text = "malformed selectors";
	err = v2_ts_read(msg_payload(msg, KIND_TSI, 0)->body, &local);
	if (err == OK)
		err = v2_ts_read(msg_payload(msg, KIND_TSR, 0)->body, &remote);
	if (err == OK && x->transport)
		err = undo_nat(sa, &local, &remote, &child->natoa_local,
		    &child->natoa_remote);
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
		err = proposals_accept(
		    &child->conn->esp, &offers[0], in_auth(x), &child->suite);
	if (err == OK) {
		child->spi_out = spi_of(&offers[0]);
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

	if (in_auth(x) || child->suite.kex == NULL)
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
	struct child_sa *child = child_of(x);
	const struct payload *error = msg_error(msg);
	char text[80];
	const char *problem = "the nonce has a wrong size";
	enum err err = OK;

	x->asked = OK;
	if (child == NULL)
		return refuse_answer(x, ERR_CANCELLED, "it is gone");
	if (in_auth(x) && error != NULL) {
		snprintf(text, sizeof(text), "the peer answered %s (%u)",
		    kind_text((enum kind)error->kind), error->notify.type);
		sa_log(sa, LOG_LEVEL_WARNING, "child refused: %s", text);
		x->child = 0;
		child_kill(child, ERR_PEER, true, text);
		return DONE;
	}
	if (!msg_has(msg, KIND_SA) || !msg_has(msg, KIND_TSI) ||
	    !msg_has(msg, KIND_TSR))
		return refuse_answer(
		    x, ERR_SYNTAX, "an answer without a child");
	if (!in_auth(x))
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

/* RFC 7296 2.8.1: both rekeyed the same child; the exchange with the lowest of
 * the four nonces made the redundant one. */
static bool
lost(const struct v2_exchange *x)
{
	struct view i = secret_view(&x->nonce_i), r = secret_view(&x->nonce_r);
	struct view own = v2_nonce_compare(i, r) < 0 ? i : r;

	return x->rival != 0 &&
	       v2_nonce_compare(own, secret_view(&x->rival_nonce)) < 0;
}

enum verdict
v2_child_i_install(
    struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct child_sa *child = child_of(x);
	struct ticket ticket = sa_ticket(sa, exchange, child);
	enum err err = x->asked;

	(void)msg;
	if (x->child == 0)
		return DONE;
	if (child == NULL)
		return refuse_answer(x, ERR_CANCELLED, "it is gone");
	if (err == OK)
		err = make_keys(x, child);
	if (err != OK)
		return refuse_answer(x, err, err_text(err));
	/* The redundant one may carry what the peer sends until our Delete
	 * arrives, and nothing of ours. */
	err = lost(x) ? install_inbound(sa->env, child, ticket, v2_install_done)
	              : install_both(sa->env, child, ticket, v2_install_done);
	if (v2_ask(x, err) != OK)
		return refuse_answer(x, err, err_text(err));
	return v2_wait(x);
}

/* The old child has a successor; who began the rekey deletes it (2.8). */
static void
replace(struct v2_exchange *x, struct child_sa *old, uint64_t by)
{
	struct ike_sa *sa = x->x.sa;

	old->state = CHILD_REKEYED;
	old->rekeyed_by = by;
	timer_stop(sa->env->timers, &old->rekey_timer);
	timer_set(sa->env->timers, &old->expire_timer, V2_DELETE_MS);
}

static void
log_child(const struct child_sa *child, const char *verb)
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

enum verdict
v2_child_i_done(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct child_sa *child = child_of(x), *old = old_of(x), *rival;
	bool unwanted;

	(void)msg;
	if (x->child == 0)
		return DONE;
	if (child == NULL || x->asked != OK)
		return refuse_answer(x,
		    child == NULL ? ERR_CANCELLED : x->asked,
		    x->asked_text[0] != '\0' ? x->asked_text
		                             : "the kernel refused it");
	x->child = 0;
	if (lost(x)) {
		env_count(sa->env, COUNTER_COLLISIONS);
		child->state = CHILD_REKEYED;
		child->rekeyed_by = x->rival;
		v2_task_add(v2_of(sa), WANT_CHILD_DELETE, child, NULL, NULL);
		return DONE;
	}
	child_set_lifetime(child, child->conn->lifetime_ms, true);
	log_child(child, x->old_child != 0 ? "rekeyed" : "up");
	child_up(child, x->old_child != 0 ? child : NULL);
	rival = child_by_serial(sa->env->sadb, x->rival);
	if (x->rival != 0)
		env_count(sa->env, COUNTER_COLLISIONS);
	/* The peer deletes its redundant one itself. */
	if (rival != NULL)
		replace(x, rival, child->serial);
	if (old == NULL)
		return DONE;
	/* Who wished the old one gone meanwhile means its successor too. */
	unwanted = v2_task_queued(v2_of(sa), WANT_CHILD_DELETE, old->serial);
	replace(x, old, child->serial);
	v2_task_add(v2_of(sa), WANT_CHILD_DELETE, old, NULL, NULL);
	if (unwanted)
		v2_child_close(child);
	return DONE;
}

/* What is left of our try goes, quietly, and the wish stays. */
static void
wish_again(struct v2_exchange *x, uint64_t delay_ms)
{
	struct child_sa *child = child_of(x);
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
	struct child_sa *child = child_of(x);
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
			offered =
			    offered || esp->item[i].alg[ALG_KEX][j] == group;
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

	if (!rekeyable(x, old))
		return;
	conn = conn_ref(conn_now(sa, old));
	sa_log(sa, LOG_LEVEL_INFO, "the peer has lost the child; a new one");
	child_kill(old, ERR_NOT_FOUND, true, "the peer has lost it");
	v2_task_add(v2_of(sa), WANT_CHILD, NULL, conn, NULL);
	conn_unref(conn);
}

enum verdict
v2_child_i_refused(
    struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	const struct payload *error = msg_error(msg);
	struct child_sa *old = old_of(x);

	if (v2_fatal(sa, msg))
		return DONE;
	if (error == NULL)
		return fsm_fail(
		    exchange, ERR_SYNTAX, 0, "an answer without a child");
	if (x->old_child != 0 && !rekeyable(x, old))
		return DONE; /* settled otherwise: 2.25.1 */
	if (error->kind == KIND_N_TEMPORARY_FAILURE) {
		wish_again(x, AGAIN_MS);
		return DONE;
	}
	if (error->kind == KIND_N_CHILD_NOT_FOUND && old != NULL) {
		begin_anew(x, old);
		return DONE;
	}
	return fsm_fail(exchange, ERR_PEER, 0,
	    "child refused: the peer answered %s (%u)",
	    kind_text((enum kind)error->kind), error->notify.type);
}

void
v2_child_gave_up(struct v2_exchange *x)
{
	struct ike_sa *sa = x->x.sa;
	struct child_sa *child = child_of(x), *old = old_of(x);

	x->child = 0;
	if (x->old_child == 0) {
		if (child != NULL)
			child_kill(
			    child, x->x.error.err, x->sent, x->x.error.text);
		return;
	}
	if (child != NULL)
		v2_child_drop(child);
	if (old != NULL && old->rekeyed_by == 0)
		timer_set(sa->env->timers, &old->rekey_timer, RETRY_MS);
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

void
v2_child_retire(struct child_sa *child, bool by_peer)
{
	struct sadb *sadb = child->sa->env->sadb;
	struct child_sa *heir = child_by_serial(sadb, child->rekeyed_by);
	struct v2_exchange *own = v2_own_exchange(v2_of(child->sa));

	/* The peer has counted the nonces before us and takes back what it
	 * made (RFC 7296 2.8.1). */
	if (own != NULL && own->rival == child->serial)
		child->rekeyed_by = child->serial;
	if (heir != NULL && heir != child)
		activate(heir);
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

/* Responder -------------------------------------------------------------- */

/* Refuses the child; in IKE_AUTH the IKE SA goes on without it. */
static enum verdict
refuse(struct v2_exchange *x, enum err err, uint16_t notify, const char *text)
{
	struct ike_sa *sa = x->x.sa;
	struct child_sa *child = child_of(x);

	if (!in_auth(x))
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
v2_child_r_guard(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
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
	struct ts_list local, remote; /* as the peer sent them */
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
	if (err == OK)
		err = v2_ts_read(
		    msg_payload(msg, KIND_TSI, 0)->body, &wish->remote);
	if (err == OK)
		err = v2_ts_read(
		    msg_payload(msg, KIND_TSR, 0)->body, &wish->local);
	wish->transport = msg_has(msg, KIND_N_TRANSPORT);
	return err;
}

static enum err
narrow(const struct ike_sa *sa, const struct conn *conn,
    const struct child_sa *old, struct wish *wish)
{
	struct ts_list local = wish->local, remote = wish->remote;
	struct ts_list own, peer;
	enum err err = OK;

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
		err = undo_nat(sa, &local, &remote, &wish->natoa_local,
		    &wish->natoa_remote);
	if (err != OK)
		return err;
	conn_ts(&conn->local, &sa->local.addr, &own);
	conn_ts(&conn->remote, &sa->remote.addr, &peer);
	err = ts_narrow(&local, &own, &wish->ts_local);
	if (err == OK)
		err = ts_narrow(&remote, &peer, &wish->ts_remote);
	if (old == NULL ||
	    (err == OK && ts_list_within(&old->ts_local, &wish->ts_local) &&
	        ts_list_within(&old->ts_remote, &wish->ts_remote)))
		return err;
	/* RFC 7296 2.9.2: the policy may have changed since, but a rekeyed
	 * child is never narrower than the old one. */
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
	    !in_auth(x), in_auth(x), &wish->choice);
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
	struct child_sa *old = old_of(x);
	struct v2_conns conns;
	enum err err, first = OK;
	size_t i;

	if (old != NULL) {
		*conn = conn_now(sa, old);
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

	if (in_auth(x))
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
	child = child_make(x, conn, false);
	if (child == NULL)
		return refuse(
		    x, ERR_NOMEM, N_TEMPORARY_FAILURE, "out of memory");
	x->proposal = wish->offers[wish->choice.chosen].number;
	x->transport = wish->mode == MODE_TRANSPORT;
	child->mode = wish->mode;
	child->suite = wish->choice.suite;
	child->spi_out = spi_of(&wish->offers[wish->choice.chosen]);
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
v2_child_r_choose(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
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
		else if (spi_of(&wish.offers[wish.choice.chosen]) == 0)
			verdict =
			    refuse(x, ERR_SYNTAX, N_INVALID_SYNTAX, "SPI 0");
		else
			verdict = prepare(x, conn, &wish, msg);
	}
	/* The first child's connection gives the SA its name. */
	if (in_auth(x) && x->child != 0 && conn != NULL)
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
v2_child_r_install(
    struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct child_sa *child = child_of(x);
	struct ticket ticket = sa_ticket(sa, exchange, child);
	enum err err = x->asked;

	(void)msg;
	if (x->child == 0)
		return DONE;
	if (child == NULL)
		return refuse(
		    x, ERR_CANCELLED, N_TEMPORARY_FAILURE, "it is gone");
	if (err == OK)
		err = make_keys(x, child);
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
v2_child_settle(struct v2_exchange *x)
{
	if (x->child != 0 && x->asked != OK)
		(void)refuse_kernel(x, x->asked);
	else if (x->child != 0 && child_of(x) == NULL)
		(void)refuse(
		    x, ERR_CANCELLED, N_TEMPORARY_FAILURE, "it is gone");
}

void
v2_child_answer(struct v2_exchange *x, struct wire_out *out)
{
	struct child_sa *child = child_of(x);
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
	if (!in_auth(x))
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
v2_child_announce(struct v2_exchange *x)
{
	struct child_sa *child = child_of(x), *old = old_of(x);

	if (child == NULL)
		return;
	x->child = 0;
	child_set_lifetime(child, child->conn->lifetime_ms, true);
	log_child(child, x->old_child != 0 ? "rekeyed" : "up");
	if (x->old_child == 0 || old == NULL) {
		child_up(child, NULL);
		return;
	}
	child->state = CHILD_INBOUND;
	note_rival(x, child, old);
	replace(x, old, child->serial);
	v2_tick_in(v2_of(x->x.sa), POLL_MS);
}

enum verdict
v2_child_r_answer(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_writer writer;
	enum err err;

	(void)sa;
	(void)msg;
	if (x->asked != OK)
		return refuse_kernel(x, x->asked);
	if (child_of(x) == NULL)
		return refuse(
		    x, ERR_CANCELLED, N_TEMPORARY_FAILURE, "it is gone");
	/* RFC 7296 2.25.1: our own rekey or Delete was faster. */
	if (x->old_child != 0 && !rekeyable(x, old_of(x)))
		return refuse(x, ERR_WRONG_STATE, N_TEMPORARY_FAILURE,
		    "the old one is on its way out");
	v2_writer_init(&writer);
	v2_child_answer(x, &writer.out);
	err = v2_respond(x, &writer);
	if (err != OK)
		return refuse(x, err, N_TEMPORARY_FAILURE, err_text(err));
	v2_child_announce(x);
	return DONE;
}
