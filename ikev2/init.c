#include "ikev2/init.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/explain.h"
#include "common/limit.h"
#include "common/natt.h"
#include "ikev2/message.h"
#include "ikev2/rules.h"
#include "ikev2/v2.h"

#define REFUSED_MS 5000 /* how long a better answer than a refusal may take */

/* Connections ----------------------------------------------------------- */

enum err
v2_conns_find(struct v2_conns *conns, const struct env *env,
    const struct addr *local, const struct addr *remote,
    const struct ident *own, const struct ident *peer)
{
	const struct policy *policy = env->policy;
	size_t max = sizeof(conns->few) / sizeof(conns->few[0]);

	conns->conn = conns->few;
	for (;;) {
		conns->count = peer == NULL
		                   ? policy_distinct(policy, local, remote, 2,
		                         conns->conn, max)
		                   : policy_by_identity(policy, local, remote,
		                         2, own, peer, conns->conn, max);
		if (conns->count < max || max >= policy->count)
			return OK;
		/* There may be more. */
		v2_conns_free(conns);
		max *= 8;
		conns->conn = calloc(max, sizeof(*conns->conn));
		if (conns->conn == NULL) {
			conns->conn = conns->few;
			conns->count = 0;
			return ERR_NOMEM;
		}
	}
}

void
v2_conns_free(struct v2_conns *conns)
{
	if (conns->conn != conns->few)
		free(conns->conn);
}

/* NAT detection (RFC 7296 2.23) ------------------------------------------ */

static void
put_hash(struct wire_out *out, uint16_t type, uint64_t spi_i, uint64_t spi_r,
    const struct endpoint *endpoint)
{
	uint8_t hash[NATT_HASH_MAX];
	size_t len = 0;

	if (natt_hash(NULL, spi_i, spi_r, endpoint, hash, &len) == OK)
		v2_notify_put(out, type, view_of(hash, len));
}

/* forced: our source is told so that it never matches, and the peer believes
 * that a NAT stands before us. */
static void
put_natt(
    struct wire_out *out, const struct ike_sa *sa, uint64_t spi_r, bool forced)
{
	struct endpoint source = sa->local;

	if (forced)
		source.port = 0;
	put_hash(out, N_NAT_DETECTION_SOURCE_IP, sa->spi_i, spi_r, &source);
	put_hash(
	    out, N_NAT_DETECTION_DESTINATION_IP, sa->spi_i, spi_r, &sa->remote);
}

static bool
any_equal(const struct msg *msg, enum kind kind, struct view hash)
{
	const struct payload *payload;
	unsigned i;

	for (i = 0; (payload = msg_payload(msg, kind, i)) != NULL; i++)
		if (view_equal(payload->notify.data, hash))
			return true;
	return false;
}

/* What the peer's hashes say. Without them it knows no NAT traversal. */
static void
detect(struct ike_sa *sa, const struct msg *msg, bool forced)
{
	uint8_t hash[NATT_HASH_MAX];
	size_t len = 0;
	uint64_t spi_i = msg->header.spi_i, spi_r = msg->header.spi_r;

	if (!msg_has(msg, KIND_N_NAT_SOURCE) ||
	    !msg_has(msg, KIND_N_NAT_DESTINATION))
		return;
	if (natt_hash(NULL, spi_i, spi_r, &sa->remote, hash, &len) == OK)
		sa->nat_remote =
		    !any_equal(msg, KIND_N_NAT_SOURCE, view_of(hash, len));
	if (natt_hash(NULL, spi_i, spi_r, &sa->local, hash, &len) == OK)
		sa->nat_local =
		    !any_equal(msg, KIND_N_NAT_DESTINATION, view_of(hash, len));
	sa->encap = sa->nat_remote || sa->nat_local || forced;
}

static void
set_fragmentation(
    struct v2_sa *v2, const struct conn *conn, const struct msg *msg)
{
	v2->fragments = conn->fragmentation != FRAG_NO &&
	                msg_has(msg, KIND_N_FRAGMENTATION);
	v2->fragment_out = v2->fragments && conn->fragmentation != FRAG_ACCEPT;
}

bool
v2_init_keys(struct v2_sa *v2)
{
	struct v2_setup *setup = v2->setup;
	struct v2_key_input input;

	if (v2->keys.len > 0)
		return true;
	if (setup == NULL || setup->shared.len == 0)
		return false;
	input.shared = secret_view(&setup->shared);
	input.nonce_i = secret_view(&setup->nonce_i);
	input.nonce_r = secret_view(&setup->nonce_r);
	input.spi_i = v2->sa.spi_i;
	input.spi_r = v2->sa.spi_r;
	if (v2_key_derive(&v2->sa.suite, &input, &v2->keys) != OK)
		return false;
	secret_free(&setup->shared);
	return true;
}

/* Responder ------------------------------------------------------------- */

/* A request on its way to becoming an SA. */
struct request {
	struct env *env;
	const struct packet *packet;
	const struct wire_header *header;
	struct msg *msg;
	struct v2_conns conns;
	struct conn *conn; /* whose proposals fit; borrowed */
	struct offer *offers;
	size_t offer_count;
	struct choice choice;
};

static void
answer(const struct request *request, uint16_t notify, struct view data,
    bool limited)
{
	v2_answer_clear(request->env, request->packet, request->header, notify,
	    data, limited);
}

static void
junk(struct request *request, const char *text)
{
	char peer[ENDPOINT_TEXT];

	env_count(request->env, COUNTER_PACKETS_MALFORMED);
	if (limit_log(request->env->limit))
		env_log(request->env, LOG_LEVEL_DEBUG,
		    "%s: IKE_SA_INIT dropped: %s",
		    endpoint_text(&request->packet->remote, peer), text);
}

/* The same request again is answered by the same octets (RFC 7296 2.1). True
 * if it was one, or comes too late to matter. */
static bool
repeated(struct env *env, const struct packet *packet,
    const struct wire_header *header)
{
	struct ike_sa *sa =
	    sa_by_peer(env->sadb, &packet->remote, header->spi_i, 2);
	struct v2_setup *setup;

	if (sa == NULL || sa->engine != &v2_engine)
		return false;
	setup = v2_of(sa)->setup;
	if (sa->state <= IKE_HALF_OPEN && setup != NULL &&
	    !view_equal(secret_view(&setup->init_i),
	        view_of(packet->octets.at, header->length)))
		return false;
	env_count(env, COUNTER_PACKETS_REPEATED);
	if (sa->state <= IKE_HALF_OPEN && setup != NULL &&
	    setup->init_r.len > 0)
		net_send(env->net, &packet->local, &packet->remote,
		    packet->natt, secret_view(&setup->init_r));
	return true;
}

/* Does the table know this message? Asked before there is an SA. */
static bool
readable(struct request *request)
{
	struct ike_sa nobody = { .state = IKE_NEW };
	struct exchange nothing = {
		.type = EXCH_IKE_SA_INIT,
		.role = ROLE_RESPONDER,
		.state = V2_IDLE,
	};
	struct msg *msg;
	struct view rest;
	const struct payload *nonce;
	char text[160];
	uint8_t critical;
	enum err err;

	if (msg_new(&request->msg, request->packet->octets) != OK)
		return false;
	msg = request->msg;
	rest = msg->whole;
	err = view_skip(&rest, WIRE_HEADER)
	          ? wire_payloads_read(msg, 2, msg->header.next, rest, false)
	          : ERR_SHORT;
	if (err != OK) {
		junk(request, err_text(err));
		return false;
	}
	if (msg->unknown_critical != 0) {
		/* RFC 7296 2.5 */
		critical = msg->unknown_critical;
		answer(request, N_UNSUPPORTED_CRITICAL_PAYLOAD,
		    view_of(&critical, 1), true);
		return false;
	}
	if (fsm_match(&v2_fsm, &nobody, &nothing, msg, &err, text,
	        sizeof(text)) == NULL) {
		junk(request, text);
		return false;
	}
	nonce = msg_payload(msg, KIND_NONCE, 0);
	if (nonce->body.len < V2_NONCE_MIN || nonce->body.len > V2_NONCE_MAX) {
		junk(request, "a nonce of the wrong size");
		return false;
	}
	return true;
}

/* RFC 7296 2.6: under load, nothing is kept for a peer that has not shown that
 * it receives at its address. */
static bool
cookie_holds(struct request *request)
{
	struct env *env = request->env;
	const struct endpoint *remote = &request->packet->remote;
	const struct payload *first = &request->msg->payload[0];
	struct view nonce = msg_payload(request->msg, KIND_NONCE, 0)->body;
	uint8_t cookie[LIMIT_COOKIE_LEN];

	if (!limit_want_cookie(env->limit, &remote->addr))
		return true;
	if (first->kind == KIND_N_COOKIE &&
	    limit_cookie_valid(env->limit, remote, request->header->spi_i,
	        nonce, first->notify.data))
		return true;
	if (limit_cookie(env->limit, remote, request->header->spi_i, nonce,
	        cookie) != OK)
		return false;
	env_count(env, COUNTER_COOKIES_SENT);
	answer(request, N_COOKIE, view_of(cookie, sizeof(cookie)), false);
	return false;
}

/* The first connection, best first, that accepts one of the offers. */
static bool
choose(struct request *request)
{
	struct env *env = request->env;
	const struct packet *packet = request->packet;
	const struct payload *sa = msg_payload(request->msg, KIND_SA, 0);
	size_t i;
	enum err err;

	if (v2_conns_find(&request->conns, env, &packet->local.addr,
	        &packet->remote.addr, NULL, NULL) != OK)
		return false;
	if (request->conns.count == 0) {
		if (limit_log(env->limit))
			explain_no_conn(
			    env, &packet->local, &packet->remote, 2);
		answer(request, N_NO_PROPOSAL_CHOSEN, view_of(NULL, 0), true);
		return false;
	}
	err = v2_sapay_read(sa->body, PROTO_IKE, 0, false, &request->offers,
	    &request->offer_count);
	if (err != OK) {
		junk(request, err_text(err));
		return false;
	}
	for (i = 0; i < request->conns.count; i++) {
		request->conn = request->conns.conn[i];
		if (proposals_choose(&request->conn->ike, request->offers,
		        request->offer_count, false, false,
		        &request->choice) == OK)
			return true;
	}
	if (limit_log(env->limit))
		explain_proposal(env, NULL, &packet->remote,
		    request->conns.conn, request->conns.count, PROTO_IKE,
		    request->offers, request->offer_count);
	answer(request, N_NO_PROPOSAL_CHOSEN, view_of(NULL, 0), true);
	return false;
}

/* RFC 7296 1.2, 3.4: the KE payload is of the chosen group, or the initiator
 * is told which. */
static bool
group_fits(struct request *request)
{
	const struct alg *kex = request->choice.suite.kex;
	uint16_t group;
	uint8_t wanted[2];
	struct view value;
	struct buf buf;

	if (v2_ke_read(msg_payload(request->msg, KIND_KE, 0)->body, &group,
	        &value) != OK)
		return false;
	if (group == kex->ikev2 && value.len == kex->public_len)
		return true;
	if (group == kex->ikev2) {
		junk(request, "a KE payload of the wrong size");
		answer(request, N_INVALID_SYNTAX, view_of(NULL, 0), true);
		return false;
	}
	buf_init(&buf, wanted, sizeof(wanted));
	buf_u16(&buf, kex->ikev2);
	answer(request, N_INVALID_KE_PAYLOAD, buf_done(&buf), false);
	return false;
}

/* From here on the request has an SA. */
static void
admit(struct request *request)
{
	struct env *env = request->env;
	const struct packet *packet = request->packet;
	struct v2_exchange *x;
	struct v2_sa *v2;
	enum err err;

	if (request->header->length > LIMIT_FIRST_MAX ||
	    limit_half_open(env->limit) >=
	        limit_config(env->limit)->half_open_max) {
		env_count(env, COUNTER_HALF_OPEN_REFUSED);
		return;
	}
	v2 = v2_sa_new(env, false, request->header->spi_i, &packet->local,
	    &packet->remote, packet->natt, &err);
	if (v2 == NULL)
		return;
	v2->setup = calloc(1, sizeof(*v2->setup));
	x = v2_exchange_new(v2, EXCH_IKE_SA_INIT, ROLE_RESPONDER, V2_IDLE, 0);
	if (v2->setup == NULL || x == NULL ||
	    sa_count_half_open(&v2->sa, LIMIT_V2) != OK ||
	    secret_set(&v2->setup->init_i, request->msg->whole) != OK) {
		env_count(env, COUNTER_HALF_OPEN_REFUSED);
		v2_sa_drop(v2);
		return;
	}
	x->local = packet->local;
	x->remote = packet->remote;
	x->natt = packet->natt;
	v2->next_in = 1;
	v2->sa.suite = request->choice.suite;
	v2->setup->proposal = request->offers[request->choice.chosen].number;
	v2->setup->nat_asked = msg_has(request->msg, KIND_N_NAT_SOURCE);
	detect(&v2->sa, request->msg, request->conn->forceencaps);
	set_fragmentation(v2, request->conn, request->msg);
	timer_set(env->timers, &v2->sa.expire_timer,
	    limit_config(env->limit)->half_open_ms);
	fsm_deliver(&v2_fsm, &x->x, request->msg);
	request->msg = NULL;
}

void
v2_init_request(struct env *env, const struct packet *packet,
    const struct wire_header *header)
{
	struct request request = {
		.env = env,
		.packet = packet,
		.header = header,
	};

	request.conns.conn = request.conns.few;
	/* RFC 7296 2.2, 2.6, 3.1: ID 0, no SPIr yet, I set. */
	if (header->spi_r != 0 || header->id != 0 ||
	    (header->flags & FLAG_INITIATOR) == 0) {
		junk(&request, "a header that is none of a first message");
		return;
	}
	if (repeated(env, packet, header))
		return;
	if (readable(&request) && cookie_holds(&request) && choose(&request) &&
	    group_fits(&request))
		admit(&request);
	free(request.offers);
	v2_conns_free(&request.conns);
	msg_free(request.msg);
}

enum verdict
v2_init_r_begin(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_setup *setup = v2_of(sa)->setup;
	struct view value;
	uint16_t group;
	enum err err;

	sa_set_state(sa, IKE_HALF_OPEN);
	err = v2_nonce_read(msg, sa->suite.prf, &setup->nonce_i);
	if (err == OK)
		err = v2_nonce_draw(sa->env, &setup->nonce_r);
	if (err == OK)
		err = v2_ke_read(
		    msg_payload(msg, KIND_KE, 0)->body, &group, &value);
	if (err == OK)
		err = v2_ask(x, dh_both(sa->env->workers, sa->suite.kex, value,
		                    sa_ticket(sa, exchange, NULL), v2_dh_done));
	if (err != OK)
		return fsm_fail(
		    exchange, err, 0, "IKE_SA_INIT: %s", err_text(err));
	return v2_wait(x);
}

enum verdict
v2_init_r_answer(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_sa *v2 = v2_of(sa);
	struct v2_setup *setup = v2->setup;
	uint8_t octets[2048];
	struct wire_out out;
	struct buf buf;
	enum err err = x->asked;

	/* RFC 6989 2: a value that breaks the rules ends it. */
	if (err != OK || x->kex == NULL)
		return fsm_fail(exchange, err == OK ? ERR_CRYPTO : err, 0,
		    "key exchange: %s", err_text(err));
	secret_move(&setup->shared, &x->shared);
	buf_init(&buf, octets, sizeof(octets));
	v2_clear_begin(&out, &buf, sa, sa->spi_r, true);
	v2_sapay_put_chosen(
	    &out, setup->proposal, PROTO_IKE, &sa->suite, view_of(NULL, 0));
	v2_ke_put(&out, sa->suite.kex, kex_public(x->kex));
	wire_payload(&out, P2_NONCE, secret_view(&setup->nonce_r));
	if (setup->nat_asked)
		put_natt(&out, sa, sa->spi_r,
		    sa->encap && !sa->nat_local && !sa->nat_remote);
	if (v2->fragments)
		v2_notify_put(
		    &out, N_IKEV2_FRAGMENTATION_SUPPORTED, view_of(NULL, 0));
	wire_finish(&out);
	(void)msg;
	if (buf.full)
		return fsm_fail(exchange, ERR_LONG, 0, "IKE_SA_INIT too long");
	err = secret_set(&setup->init_r, buf_done(&buf));
	if (err != OK)
		return fsm_fail(exchange, err, 0, "%s", err_text(err));
	net_send(sa->env->net, &x->local, &x->remote, x->natt,
	    secret_view(&setup->init_r));
	return DONE;
}

/* Initiator ------------------------------------------------------------- */

static const struct alg *
first_group(const struct proposals *proposals)
{
	unsigned i;

	for (i = 0; i < proposals->count; i++)
		if (proposals->item[i].count[ALG_KEX] > 0)
			return proposal_alg(&proposals->item[i], ALG_KEX, 0);
	return NULL;
}

static bool
offers_group(const struct proposals *proposals, const struct alg *group)
{
	unsigned i, j;

	for (i = 0; i < proposals->count; i++)
		for (j = 0; j < proposals->item[i].count[ALG_KEX]; j++)
			if (proposal_alg(&proposals->item[i], ALG_KEX, j) ==
			    group)
				return true;
	return false;
}

enum err
v2_init_initiate(struct env *env, struct conn *conn,
    const struct endpoint *local, const struct endpoint *remote,
    struct ike_sa **sa)
{
	struct v2_exchange *x;
	struct v2_setup *setup;
	struct v2_sa *v2;
	enum err err;

	if (first_group(&conn->ike) == NULL)
		return ERR_NO_PROPOSAL;
	v2 = v2_sa_new(env, true, 0, local, remote,
	    local->port == net_port(env->net, true), &err);
	if (v2 == NULL)
		return err;
	setup = v2->setup = calloc(1, sizeof(*setup));
	x = v2_exchange_new(v2, EXCH_IKE_SA_INIT, ROLE_INITIATOR, V2_START, 0);
	if (setup == NULL || x == NULL) {
		v2_sa_drop(v2);
		return ERR_NOMEM;
	}
	err = v2_nonce_draw(env, &setup->nonce_i);
	if (err != OK) {
		v2_sa_drop(v2);
		return err;
	}
	v2->opener = true;
	setup->conn = conn_ref(conn);
	setup->group = first_group(&conn->ike);
	sa_set_conn(&v2->sa, conn);
	sa_set_state(&v2->sa, IKE_HALF_OPEN);
	*sa = &v2->sa;
	fsm_begin(&v2_fsm, &x->x, v2_rules_begin_init());
	return OK;
}

static enum verdict
draw_key(struct ike_sa *sa, struct v2_exchange *x)
{
	enum err err;

	err = v2_ask(x, dh_generate(sa->env->workers, v2_of(sa)->setup->group,
	                    sa_ticket(sa, &x->x, NULL), v2_dh_done));
	if (err != OK)
		return fsm_fail(&x->x, err, 0, "key pair: %s", err_text(err));
	return v2_wait(x);
}

enum verdict
v2_init_i_begin(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	(void)msg;
	sa_log(sa, LOG_LEVEL_INFO, "initiates IKEv2");
	return draw_key(sa, v2_x(exchange));
}

enum verdict
v2_init_i_send(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_setup *setup = v2_of(sa)->setup;
	uint8_t octets[V2_SK_CHAIN];
	struct wire_out out;
	struct buf buf;
	enum err err = x->asked;

	(void)msg;
	if (x->kex != NULL) {
		kex_free(setup->kex);
		setup->kex = x->kex;
		x->kex = NULL;
	}
	if (err != OK || setup->kex == NULL)
		return fsm_fail(
		    exchange, ERR_CRYPTO, 0, "key pair: %s", err_text(err));
	buf_init(&buf, octets, sizeof(octets));
	v2_clear_begin(&out, &buf, sa, 0, false);
	/* RFC 7296 2.6: the cookie first, the rest unchanged. */
	if (setup->cookie_len > 0)
		v2_notify_put(
		    &out, N_COOKIE, view_of(setup->cookie, setup->cookie_len));
	v2_sapay_put(&out, &sa->conn->ike, view_of(NULL, 0), false);
	v2_ke_put(&out, setup->group, kex_public(setup->kex));
	wire_payload(&out, P2_NONCE, secret_view(&setup->nonce_i));
	put_natt(&out, sa, 0, sa->conn->forceencaps);
	if (sa->conn->fragmentation != FRAG_NO)
		v2_notify_put(
		    &out, N_IKEV2_FRAGMENTATION_SUPPORTED, view_of(NULL, 0));
	wire_finish(&out);
	if (buf.full)
		return fsm_fail(exchange, ERR_LONG, 0, "IKE_SA_INIT too long");
	rexmit_stop(&exchange->rexmit);
	flight_clear(&exchange->rexmit.flight);
	err = secret_set(&setup->init_i, buf_done(&buf));
	if (err == OK)
		err = flight_add(&exchange->rexmit.flight, buf_done(&buf));
	if (err != OK)
		return fsm_fail(exchange, ERR_NOMEM, 0, "%s", err_text(err));
	x->sent = true;
	exchange->rexmit.config = rexmit_defaults;
	rexmit_start(&exchange->rexmit, &sa->local, &sa->remote, sa->natt);
	return DONE;
}

enum verdict
v2_init_i_cookie(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_setup *setup = v2_of(sa)->setup;
	struct view cookie = msg_payload(msg, KIND_N_COOKIE, 0)->notify.data;

	/* RFC 7296 2.6: 1 to 64 octets. The same one again is a repeat. */
	if (cookie.len == 0 || cookie.len > V2_COOKIE_MAX ||
	    view_equal(cookie, view_of(setup->cookie, setup->cookie_len)))
		return IGNORE;
	if (setup->cookie_rounds >= V2_ROUNDS)
		return fsm_fail(exchange, ERR_LIMIT, 0,
		    "the peer wants one cookie after the other");
	setup->cookie_rounds++;
	memcpy(setup->cookie, cookie.at, cookie.len);
	setup->cookie_len = (uint8_t)cookie.len;
	v2_x(exchange)->asked = OK;
	return DONE;
}

enum verdict
v2_init_i_group(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_setup *setup = v2_of(sa)->setup;
	struct view data = msg_payload(msg, KIND_N_INVALID_KE, 0)->notify.data;
	const struct alg *group;
	uint16_t number;

	if (!view_u16(&data, &number) || data.len != 0)
		return IGNORE;
	group = alg_by_ikev2(ALG_KEX, number, 0);
	if (group != NULL && group == setup->group)
		return IGNORE;
	/* RFC 7296 1.2: the whole proposal goes again, and a group that was
	 * not in it is nothing that we use: else anybody on the way could
	 * choose it for us. */
	if (group == NULL || !offers_group(&sa->conn->ike, group))
		return fsm_fail(exchange, ERR_KE, 0,
		    "the peer wants group %u, which was not offered", number);
	if (setup->ke_rounds >= V2_ROUNDS)
		return fsm_fail(exchange, ERR_LIMIT, 0,
		    "the peer wants one group after the other");
	setup->ke_rounds++;
	setup->group = group;
	return draw_key(sa, v2_x(exchange));
}

enum verdict
v2_init_i_error(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_setup *setup = v2_of(sa)->setup;
	const struct payload *error = msg_error(msg);

	if (error == NULL)
		return IGNORE;
	/* RFC 7296 2.21.1: anybody can say this. A better answer may still
	 * come, and our request may be lost: only the wait is cut short, and
	 * we ask but once more. */
	if (setup->why == OK) {
		exchange->rexmit.config.tries =
		    (uint8_t)(exchange->rexmit.sent + 1);
		setup->why = ERR_PEER;
		snprintf(setup->text, sizeof(setup->text),
		    "the peer answered %s (%u)",
		    kind_text((enum kind)error->kind), error->notify.type);
		sa_log(sa, LOG_LEVEL_WARNING, "%s", setup->text);
		explain_refused(
		    sa->env, sa, sa->conn, false, (enum kind)error->kind);
		timer_set(sa->env->timers, &sa->expire_timer, REFUSED_MS);
	}
	return IGNORE;
}

/* The answer's one proposal, which must be among ours. */
static enum err
accept_suite(struct ike_sa *sa, const struct msg *msg, struct suite *suite)
{
	struct offer *offers = NULL;
	size_t count = 0;
	enum err err;

	err = v2_sapay_read(msg_payload(msg, KIND_SA, 0)->body, PROTO_IKE, 0,
	    true, &offers, &count);
	if (err == OK && count != 1)
		err = ERR_SYNTAX;
	if (err == OK)
		err =
		    proposals_accept(&sa->conn->ike, &offers[0], false, suite);
	free(offers);
	return err;
}

enum verdict
v2_init_i_accept(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_setup *setup = v2_of(sa)->setup;
	struct view value;
	uint16_t group = 0;
	enum err err;

	if (msg->header.spi_r == 0 || setup->kex == NULL)
		return IGNORE;
	err = accept_suite(sa, msg, &x->suite);
	if (err != OK)
		return fsm_fail(exchange, err, 0,
		    "the peer's choice is none that was offered (%s)",
		    err_text(err));
	err = v2_ke_read(msg_payload(msg, KIND_KE, 0)->body, &group, &value);
	if (err == OK &&
	    (x->suite.kex != setup->group || group != setup->group->ikev2))
		err = ERR_KE;
	if (err == OK)
		err = v2_nonce_read(msg, x->suite.prf, &x->nonce_r);
	if (err == OK)
		err = v2_ask(x, dh_derive(sa->env->workers, setup->kex, value,
		                    sa_ticket(sa, exchange, NULL), v2_dh_done));
	if (err != OK)
		return fsm_fail(
		    exchange, err, 0, "the peer's answer: %s", err_text(err));
	setup->kex = NULL;
	return v2_wait(x);
}

/* RFC 7296 2.23: to port 4500 when there is a NAT; it is left at 500 when
 * there is none. */
static void
float_port(struct ike_sa *sa)
{
	if (!sa->encap || sa->natt)
		return;
	sa->natt = true;
	sa->local.port = net_port(sa->env->net, true);
	sa->remote.port = NATT_PORT;
}

enum verdict
v2_init_i_keys(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_sa *v2 = v2_of(sa);
	struct v2_setup *setup = v2->setup;
	enum err err = x->asked;

	if (err != OK) {
		/* A forged value ends nothing: the pair waits for another. */
		setup->kex = x->kex;
		x->kex = NULL;
		return fsm_fail(
		    exchange, err, 0, "key exchange: %s", err_text(err));
	}
	rexmit_stop(&exchange->rexmit);
	timer_stop(sa->env->timers, &sa->expire_timer);
	sa_set_peer_spi(sa, msg->header.spi_r);
	sa->suite = x->suite;
	secret_move(&setup->nonce_r, &x->nonce_r);
	secret_move(&setup->shared, &x->shared);
	err = secret_set(&setup->init_r, msg->whole);
	if (err != OK || !v2_init_keys(v2))
		return fsm_fail(exchange, ERR_CRYPTO, 0, "no keys");
	detect(sa, msg, sa->conn->forceencaps);
	set_fragmentation(v2, sa->conn, msg);
	float_port(sa);
	v2->next_out = 1;
	return DONE;
}
