#include "ikev2/auth.h"

#include <stdlib.h>
#include <string.h>

#include "common/explain.h"
#include "common/vault.h"
#include "ikev2/child.h"
#include "ikev2/grant.h"
#include "ikev2/init.h"
#include "ikev2/message.h"
#include "ikev2/rules.h"
#include "ikev2/task.h"
#include "kernel/install.h"

#define METHOD_SHARED_KEY 2 /* RFC 7296 3.8 */

/* What is authenticated -------------------------------------------------- */

/* RFC 7296 2.15: RealMessage | the other side's nonce | prf(SK_p, ID'), where
 * ID' is the ID payload's body as it was sent, its reserved octets included. */
static enum err
signed_octets(const struct v2_sa *v2, bool by_initiator, struct view id,
    struct secret *to)
{
	const struct v2_setup *setup = v2->setup;
	const struct alg *alg = v2->sa.suite.prf;
	const struct secret *real =
	    by_initiator ? &setup->init_i : &setup->init_r;
	const struct secret *nonce =
	    by_initiator ? &setup->nonce_r : &setup->nonce_i;
	struct view key = v2_key(
	    &v2->sa.suite, &v2->keys, by_initiator ? V2_SK_PI : V2_SK_PR);
	uint8_t maced[PRF_MAX];
	struct buf buf;
	enum err err;

	err = prf(alg, key, &id, 1, maced);
	if (err == OK)
		err = secret_new(to, real->len + nonce->len + alg->out);
	if (err != OK)
		return err;
	buf_init(&buf, to->octets, to->len);
	buf_view(&buf, secret_view(real));
	buf_view(&buf, secret_view(nonce));
	buf_put(&buf, maced, alg->out);
	return buf.full ? ERR_BUG : OK;
}

/* Asks the vault for one side's MAC. */
static enum err
ask_mac(struct v2_exchange *x, bool by_initiator, struct view id,
    const struct ident *peer, vault_psk_auth_done *done)
{
	struct ike_sa *sa = x->x.sa;
	struct secret octets = { NULL, 0 };
	struct vault_psk_auth ask = {
		.prf = sa->suite.prf,
		.local = sa->id_local,
		.remote = peer,
		.local_addr = sa->local.addr,
		.remote_addr = sa->remote.addr,
	};
	enum err err = signed_octets(v2_of(sa), by_initiator, id, &octets);

	if (err == OK && octets.len > VAULT_OCTETS)
		err = ERR_LONG;
	if (err == OK) {
		ask.octets = secret_view(&octets);
		err = vault_psk_auth(
		    sa->env->vault, &ask, sa_ticket(sa, &x->x, NULL), done);
	}
	secret_free(&octets);
	return v2_ask(x, err);
}

static void
own_done(struct env *env, struct ticket ticket, enum err err,
    const struct vault_psk_auth_answer *answer)
{
	struct v2_exchange *x = v2_by_ticket(env, ticket);

	if (x == NULL)
		return;
	if (err == OK)
		memcpy(x->mac_own, answer->mac, sizeof(x->mac_own));
	v2_asked(x, err, err == OK ? NULL : err_text(err));
}

static void
peer_done(struct env *env, struct ticket ticket, enum err err,
    const struct vault_psk_auth_answer *answer)
{
	struct v2_exchange *x = v2_by_ticket(env, ticket);

	if (x == NULL)
		return;
	if (err == OK)
		memcpy(x->mac_peer, answer->mac, sizeof(x->mac_peer));
	v2_asked(x, err, err == OK ? NULL : err_text(err));
}

/* The body of our ID payload, as v2_id_put() writes it. */
static struct view
own_id_body(const struct ident *ident, uint8_t octets[static IDENT_MAX + 4])
{
	struct buf buf;

	buf_init(&buf, octets, IDENT_MAX + 4);
	buf_u8(&buf, ident->type);
	buf_zero(&buf, 3);
	buf_view(&buf, ident_view(ident));
	return buf_done(&buf);
}

static void
put_auth(struct wire_out *out, const struct v2_exchange *x)
{
	wire_begin(out, P2_AUTH, false);
	buf_u8(out->buf, METHOD_SHARED_KEY);
	buf_zero(out->buf, 3);
	buf_put(out->buf, x->mac_own, x->x.sa->suite.prf->out);
	wire_end(out);
}

/* The MAC in an AUTH payload; false if it was made by another method. */
static bool
read_auth(const struct msg *msg, struct view *mac)
{
	uint8_t method;

	*mac = msg_payload(msg, KIND_AUTH, 0)->body;
	return view_u8(mac, &method) && view_skip(mac, 3) &&
	       method == METHOD_SHARED_KEY;
}

/* Establishment ---------------------------------------------------------- */

/* Another SA between the same two identities, from before sa began. */
static struct ike_sa *
leftover(const struct ike_sa *sa)
{
	struct ike_sa *other = NULL;

	while (
	    (other = sa_by_remote(sa->env->sadb, sa->id_remote, other)) != NULL)
		if (other != sa && other->id_local != NULL &&
		    ident_equal(other->id_local, sa->id_local) &&
		    other->established_ms < sa->created_ms)
			break;
	return other;
}

/* RFC 7296 2.4, 3.10.1: the peer has no other SA between these two identities;
 * those that we have are leftovers. Not so what came up while sa was on its
 * way: both ends began at once. Each end tells people, who may do anything:
 * the search begins anew. */
static void
obey_initial_contact(struct ike_sa *sa, const struct msg *msg)
{
	struct ike_sa *other;

	if (!msg_has(msg, KIND_N_INITIAL_CONTACT) ||
	    !sa->env->policy->uniqueids)
		return;
	while ((other = leftover(sa)) != NULL) {
		sa_log(other, LOG_LEVEL_INFO,
		    "the peer began anew (INITIAL_CONTACT)");
		sa_kill(other, OK, true, "the peer began anew");
	}
}

/* The proof is in: the SA is the peer's. */
static enum err
establish(struct v2_exchange *x, const struct auth_proof *proof,
    const struct msg *msg)
{
	struct ike_sa *sa = x->x.sa;
	char peer[IDENT_TEXT];
	enum err err;

	ident_unref(sa->id_remote);
	sa->id_remote = x->peer_id;
	x->peer_id = NULL;
	/* Port 500 carries no ESP. */
	sa->encap = sa->encap && sa->natt;
	err = sa_establish(sa, proof);
	if (err != OK)
		return err;
	if (sa->env->log != NULL && sa->env->log->level >= LOG_LEVEL_INFO)
		sa_log(sa, LOG_LEVEL_INFO, "established with %s",
		    ident_text(sa->id_remote, peer));
	obey_initial_contact(sa, msg);
	v2_sa_live(v2_of(sa));
	return OK;
}

static void
drop_setup(struct v2_sa *v2)
{
	v2_setup_free(v2->setup);
	v2->setup = NULL;
}

/* Initiator -------------------------------------------------------------- */

void
v2_auth_begin(struct v2_sa *v2)
{
	struct v2_exchange *x =
	    v2_exchange_new(v2, EXCH_IKE_AUTH, ROLE_INITIATOR, V2_START, 1);

	if (x == NULL) {
		sa_kill(&v2->sa, ERR_NOMEM, false, "out of memory");
		return;
	}
	fsm_begin(&v2_fsm, &x->x, v2_rules_begin_auth());
}

enum verdict
v2_auth_i_begin(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	uint8_t octets[IDENT_MAX + 4];
	struct ident *peer;
	enum err err = OK;

	(void)msg;
	sa->id_local = conn_local_id(sa->conn, &sa->local.addr);
	if (sa->id_local == NULL)
		return fsm_fail(exchange, ERR_NOMEM, 0, "no identity of ours");
	peer = conn_remote_id(sa->conn, &sa->remote.addr);
	err =
	    ask_mac(x, true, own_id_body(sa->id_local, octets), peer, own_done);
	ident_unref(peer);
	if (err == OK)
		err = v2_child_begin(x, v2_of(sa)->setup->conn, NULL);
	if (err != OK)
		return fsm_fail(
		    exchange, err, 0, "cannot authenticate: %s", err_text(err));
	return v2_wait(x);
}

/* RFC 7296 2.4: only where it is true. A peer that may have any identity is
 * known by its address. */
static bool
first_contact(const struct ike_sa *sa, const struct ident *peer)
{
	const struct ike_sa *other = sa->env->sadb->first;

	if (peer != NULL)
		return sa_by_remote(sa->env->sadb, peer, NULL) == NULL;
	while (other != NULL &&
	       (other->state != IKE_ESTABLISHED ||
	           !addr_equal(&other->remote.addr, &sa->remote.addr)))
		other = other->next;
	return other == NULL;
}

enum verdict
v2_auth_i_send(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct ident *peer;
	struct v2_writer writer;
	enum err err = x->asked;

	(void)msg;
	if (err == ERR_NO_SECRET)
		explain_key(sa->env, sa, NULL, true);
	if (err != OK)
		return fsm_fail(exchange, err, 0, "cannot authenticate: %s",
		    x->asked_text[0] != '\0' ? x->asked_text : err_text(err));
	peer = conn_remote_id(sa->conn, &sa->remote.addr);
	v2_writer_init(&writer);
	v2_id_put(&writer.out, P2_IDI, sa->id_local);
	if (first_contact(sa, peer))
		v2_notify_put(&writer.out, N_INITIAL_CONTACT, view_of(NULL, 0));
	if (peer != NULL)
		v2_id_put(&writer.out, P2_IDR, peer);
	ident_unref(peer);
	put_auth(&writer.out, x);
	err = v2_child_offer(x, &writer.out);
	if (err == OK)
		err = v2_request(x, &writer);
	if (err != OK)
		return fsm_fail(
		    exchange, err, 0, "IKE_AUTH: %s", err_text(err));
	return DONE;
}

enum verdict
v2_auth_i_refused(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	const struct payload *error = msg_error(msg);

	/* RFC 7296 2.21.2: the IKE SA is not made. */
	if (error == NULL)
		return fsm_fail(exchange, ERR_SYNTAX, 0,
		    "an answer to IKE_AUTH without AUTH");
	if (sa->conn != NULL)
		explain_refused(
		    sa->env, sa, sa->conn, false, (enum kind)error->kind);
	return fsm_fail(exchange, ERR_PEER, 0, "the peer answered %s (%u)",
	    kind_text((enum kind)error->kind), error->notify.type);
}

/* A responder that cannot prove itself; it thinks that the SA is up, and is
 * told (RFC 7296 2.21.2). */
static enum verdict
distrust(struct exchange *exchange, enum err err, const char *text)
{
	v2_last_word(v2_of(exchange->sa), N_AUTHENTICATION_FAILED);
	return fsm_fail(exchange, err, 0, "%s", text);
}

/* RFC 7296 1.2: the failures that leave the IKE SA. Any other, and one that we
 * do not know, is the whole request's (3.10.1). */
static bool
child_alone(uint16_t notify)
{
	switch (notify) {
	case N_NO_PROPOSAL_CHOSEN:
	case N_SINGLE_PAIR_REQUIRED:
	case N_NO_ADDITIONAL_SAS:
	case N_INTERNAL_ADDRESS_FAILURE:
	case N_FAILED_CP_REQUIRED:
	case N_TS_UNACCEPTABLE:
	case N_TEMPORARY_FAILURE:
		return true;
	default:
		return false;
	}
}

static const struct payload *
fatal_error(const struct msg *msg)
{
	size_t i;

	for (i = 0; i < msg->count; i++)
		if (kind_is_error(msg->payload[i].kind) &&
		    !child_alone(msg->payload[i].notify.type))
			return &msg->payload[i];
	return NULL;
}

enum verdict
v2_auth_i_check(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	const struct payload *idr = msg_payload(msg, KIND_IDR, 0);
	const struct payload *error = fatal_error(msg);
	struct conn *conn = sa->conn;
	struct view mac;
	enum err err;

	if (error != NULL) {
		/* It may think that the SA is up. */
		v2_last_word(v2_of(sa), 0);
		return fsm_fail(exchange, ERR_PEER, 0,
		    "the peer answered %s (%u)",
		    kind_text((enum kind)error->kind), error->notify.type);
	}
	err = v2_id_read(idr->body, &x->peer_id);
	if (err != OK)
		return distrust(exchange, err, "an IDr that is no identity");
	if (!read_auth(msg, &mac))
		return distrust(exchange, ERR_AUTH,
		    "the peer authenticates by another method than PSK");
	/* Who answers must be who was meant. */
	if (policy_identify(&conn, 1, sa->id_local, &sa->local.addr, x->peer_id,
	        &sa->remote.addr) == 0) {
		explain_identity(
		    sa->env, sa, &sa->conn, 1, sa->id_local, x->peer_id);
		return distrust(exchange, ERR_NO_CONN,
		    "the peer has another identity than wanted");
	}
	err = ask_mac(x, false, idr->body, x->peer_id, peer_done);
	if (err != OK)
		return distrust(exchange, err, err_text(err));
	return v2_wait(x);
}

enum verdict
v2_auth_i_establish(
    struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct auth_proof proof;
	struct view mac;
	enum err err = x->asked;

	if (err != OK)
		return distrust(exchange, err,
		    x->asked_text[0] != '\0' ? x->asked_text : err_text(err));
	if (!read_auth(msg, &mac) ||
	    !proof_by_mac(
	        &proof, sa, view_of(x->mac_peer, sa->suite.prf->out), mac)) {
		explain_key(sa->env, sa, x->peer_id, false);
		return distrust(exchange, ERR_AUTH,
		    "the peer's AUTH is wrong: the PSKs differ");
	}
	err = establish(x, &proof, msg);
	if (err != OK)
		return fsm_fail(exchange, err, 0, "%s", err_text(err));
	sa_event(sa, NULL, EVENT_IKE_UP, OK, false, NULL);
	return DONE;
}

enum verdict
v2_auth_i_finish(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	(void)exchange;
	(void)msg;
	drop_setup(v2_of(sa));
	return DONE;
}

/* Responder -------------------------------------------------------------- */

/* Of the connections that fit both identities, best first, those whose
 * proposals allow what IKE_SA_INIT has chosen: a switch never weakens
 * anything. */
static enum err
fitting(struct ike_sa *sa, struct v2_conns *conns, const struct ident *own,
    const struct ident *peer)
{
	size_t i, count = 0;
	enum err err = v2_conns_find(
	    conns, sa->env, &sa->local.addr, &sa->remote.addr, own, peer);

	if (err != OK)
		return err;
	for (i = 0; i < conns->count; i++)
		if (proposals_allow(&conns->conn[i]->ike, &sa->suite))
			conns->conn[count++] = conns->conn[i];
	conns->count = count;
	return OK;
}

/* What was proven is what this connection would have asked for; addresses,
 * identities and proposals have been held against it already. */
static bool
same_proof(const struct conn *a, const struct conn *b)
{
	return a->local.auth == b->local.auth &&
	       a->remote.auth == b->remote.auth;
}

enum err
v2_auth_conns(struct ike_sa *sa, struct v2_conns *conns)
{
	size_t i, count = 0;
	enum err err;

	if (sa->id_remote == NULL)
		return ERR_WRONG_STATE;
	err = fitting(sa, conns, sa->id_local, sa->id_remote);
	if (err != OK)
		return err;
	for (i = 0; i < conns->count; i++)
		if (same_proof(conns->conn[i], sa->conn))
			conns->conn[count++] = conns->conn[i];
	conns->count = count;
	return OK;
}

static void
explain_nobody(
    struct ike_sa *sa, const struct ident *own, const struct ident *peer)
{
	struct conn *near[32];
	size_t count = policy_candidates(sa->env->policy, &sa->local.addr,
	    &sa->remote.addr, 2, near, sizeof(near) / sizeof(near[0]));

	explain_identity(sa->env, sa, near, count, own, peer);
}

/* Nobody here has these identities. That is found out like a wrong key, by the
 * same work: a stranger must not learn from the clock whom we know. */
static enum verdict
pick_nobody(struct ike_sa *sa, struct v2_exchange *x, struct ident *own)
{
	x->nobody = true;
	ident_unref(sa->id_local);
	sa->id_local =
	    own != NULL ? ident_ref(own) : ident_from_addr(&sa->local.addr);
	return sa->id_local != NULL ? DONE
	                            : fsm_fail(&x->x, ERR_NOMEM,
	                                  N_TEMPORARY_FAILURE, "out of memory");
}

static enum verdict
pick_conn(struct ike_sa *sa, struct v2_exchange *x, struct ident *own)
{
	struct v2_conns conns;
	enum verdict verdict = DONE;

	if (fitting(sa, &conns, own, x->peer_id) != OK)
		return fsm_fail(
		    &x->x, ERR_NOMEM, N_TEMPORARY_FAILURE, "out of memory");
	if (conns.count == 0) {
		verdict = pick_nobody(sa, x, own);
	} else {
		x->nobody = false;
		sa_set_conn(sa, conns.conn[0]);
		ident_unref(sa->id_local);
		sa->id_local = conn_local_id(sa->conn, &sa->local.addr);
		if (sa->id_local == NULL)
			verdict = fsm_fail(&x->x, ERR_NOMEM,
			    N_TEMPORARY_FAILURE, "out of memory");
	}
	v2_conns_free(&conns);
	return verdict;
}

enum verdict
v2_auth_r_identify(
    struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	const struct payload *idi = msg_payload(msg, KIND_IDI, 0);
	const struct payload *idr = msg_payload(msg, KIND_IDR, 0);
	struct ident *own = NULL;
	uint8_t octets[IDENT_MAX + 4];
	struct view mac;
	enum verdict verdict;
	enum err err;

	err = v2_id_read(idi->body, &x->peer_id);
	if (err == OK && idr != NULL)
		err = v2_id_read(idr->body, &own);
	if (err != OK)
		return fsm_fail(exchange, err, N_INVALID_SYNTAX,
		    "an ID payload that is no identity");
	if (!read_auth(msg, &mac)) {
		ident_unref(own);
		return fsm_fail(exchange, ERR_UNSUPPORTED,
		    N_AUTHENTICATION_FAILED,
		    "the peer authenticates by another method than PSK");
	}
	verdict = pick_conn(sa, x, own);
	ident_unref(own);
	if (verdict != DONE)
		return verdict;
	err = ask_mac(x, true, idi->body, x->peer_id, peer_done);
	if (err == OK)
		err = ask_mac(x, false, own_id_body(sa->id_local, octets),
		    x->peer_id, own_done);
	/* One of the two may be out: its answer will find x gone. */
	if (err != OK)
		return fsm_fail(exchange, err, N_TEMPORARY_FAILURE,
		    "cannot authenticate: %s", err_text(err));
	return v2_wait(x);
}

enum verdict
v2_auth_r_verify(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	char peer[IDENT_TEXT];
	struct auth_proof proof;
	struct view mac;
	enum err err = x->asked;

	if (x->nobody) {
		explain_nobody(sa, msg_has(msg, KIND_IDR) ? sa->id_local : NULL,
		    x->peer_id);
		return fsm_fail(exchange, ERR_NO_CONN, N_AUTHENTICATION_FAILED,
		    "no connection fits the identities");
	}
	if (err == ERR_NO_SECRET && sa->conn != NULL)
		explain_key(sa->env, sa, x->peer_id, true);
	if (err != OK)
		return fsm_fail(exchange, err, N_AUTHENTICATION_FAILED,
		    "%s: %s", ident_text(x->peer_id, peer),
		    x->asked_text[0] != '\0' ? x->asked_text : err_text(err));
	if (!read_auth(msg, &mac) ||
	    !proof_by_mac(
	        &proof, sa, view_of(x->mac_peer, sa->suite.prf->out), mac)) {
		if (sa->conn != NULL)
			explain_key(sa->env, sa, x->peer_id, false);
		return fsm_fail(exchange, ERR_AUTH, N_AUTHENTICATION_FAILED,
		    "%s: AUTH is wrong: the PSKs differ",
		    ident_text(x->peer_id, peer));
	}
	err = establish(x, &proof, msg);
	if (err != OK)
		return fsm_fail(exchange, err, N_AUTHENTICATION_FAILED, "%s",
		    err_text(err));
	return DONE;
}

enum verdict
v2_auth_r_answer(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_writer writer;
	enum err err;

	(void)msg;
	v2_grant_settle(x);
	v2_writer_init(&writer);
	v2_id_put(&writer.out, P2_IDR, sa->id_local);
	put_auth(&writer.out, x);
	v2_grant_write(x, &writer.out);
	err = v2_respond(x, &writer);
	if (err != OK) {
		sa_kill(sa, err, false, "IKE_AUTH cannot be answered");
		return DONE;
	}
	drop_setup(v2_of(sa));
	sa_event(sa, NULL, EVENT_IKE_UP, OK, false, NULL);
	v2_grant_announce(x);
	return DONE;
}

enum verdict
v2_auth_r_without(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	(void)sa;
	(void)msg;
	/* RFC 7296 2.16: the peer wants EAP, which no connection asks for. */
	return fsm_fail(exchange, ERR_UNSUPPORTED, N_AUTHENTICATION_FAILED,
	    "the peer wants EAP");
}
