#include "ikev1/v1.h"

#include <stdlib.h>
#include <string.h>

#include "common/limit.h"
#include "ikev1/auth.h"
#include "ikev1/child.h"
#include "ikev1/info.h"
#include "ikev1/life.h"
#include "ikev1/peer.h"
#include "ikev1/phase1.h"
#include "ikev1/quick.h"
#include "ikev1/sk.h"
#include "ikev1/state.h"

#define NEXT_AT 16 /* where the header names the first payload */

/* Making and freeing ---------------------------------------------------- */

struct v1_sa *
v1_sa_new(struct env *env, bool initiator, uint64_t peer_spi,
    const struct endpoint *local, const struct endpoint *remote, bool natt)
{
	struct v1_sa *v1 = calloc(1, sizeof(*v1));

	if (v1 == NULL)
		return NULL;
	v1->main = calloc(1, sizeof(*v1->main));
	if (v1->main == NULL || sa_init(env, &v1->ike, &v1_engine, initiator,
	                            peer_spi, local, remote, natt) != OK) {
		free(v1->main);
		free(v1);
		return NULL;
	}
	v1_life_init(v1);
	return v1;
}

void
v1_main_free(struct env *env, struct v1_main *main)
{
	if (main == NULL)
		return;
	if (main->nonce != 0)
		vault_nonce_drop(env->vault, main->nonce);
	free(main->sa_body);
	free(main->peer_public);
	free(main->own_public);
	kex_free(main->kex);
	secret_free(&main->shared);
	ident_unref(main->claimed);
	mem_wipe(main, sizeof(*main));
	free(main);
}

static void
sa_free(struct ike_sa *sa)
{
	struct v1_sa *v1 = v1_sa(sa);

	v1_main_free(sa->env, v1->main);
	v1_key_free(&v1->keys);
	free(v1->seen);
	free(v1);
}

static void
linger_over(void *arg)
{
	struct v1_exchange *x = arg;

	if (x->quick != NULL && x->quick->begun_ms == 0 &&
	    x->x.role == ROLE_INITIATOR)
		v1_quick_turn(x);
	else
		exchange_end(&x->x);
}

struct v1_exchange *
v1_exchange_new(struct ike_sa *sa, uint8_t type, enum role role,
    enum v1_state state, uint32_t id)
{
	struct v1_exchange *x = calloc(1, sizeof(*x));

	if (x == NULL)
		return NULL;
	x->x.type = type;
	x->x.role = (uint8_t)role;
	x->x.state = (uint8_t)state;
	x->x.id = id;
	x->local = sa->local;
	x->remote = sa->remote;
	x->natt = sa->natt;
	timer_init(&x->linger, linger_over, &x->x);
	exchange_begin(sa, &x->x);
	return x;
}

void
v1_quick_free(struct v1_quick *quick)
{
	if (quick == NULL)
		return;
	free(quick->offer);
	kex_free(quick->kex);
	secret_free(&quick->shared);
	mem_wipe(quick, sizeof(*quick));
	free(quick);
}

static void
v1_exchange_free(struct exchange *base)
{
	struct v1_exchange *x = v1_exchange(base);

	timer_stop(base->sa->env->timers, &x->linger);
	v1_quick_free(x->quick);
	free(x);
}

/* Message IDs ----------------------------------------------------------- */

bool
v1_seen(const struct v1_sa *v1, uint32_t id)
{
	for (unsigned i = 0; i < v1->seen_count; i++)
		if (v1->seen[i] == id)
			return true;
	return false;
}

/* The ring grows to V1_SEEN_MAX, then forgets the oldest. Without memory to
 * grow it forgets earlier. */
void
v1_see(struct v1_sa *v1, uint32_t id)
{
	if (v1->seen_count == v1->seen_room && v1->seen_room < V1_SEEN_MAX) {
		uint16_t room =
		    v1->seen_room == 0 ? 4 : (uint16_t)(2 * v1->seen_room);
		uint32_t *grown = realloc(v1->seen, room * sizeof(v1->seen[0]));

		if (grown != NULL) {
			v1->seen = grown;
			v1->seen_room = room;
		}
	}
	if (v1->seen_room == 0)
		return;
	if (v1->seen_count < v1->seen_room) {
		v1->seen[v1->seen_count++] = id;
		return;
	}
	v1->seen[v1->seen_at] = id;
	v1->seen_at = (uint16_t)((v1->seen_at + 1) % v1->seen_room);
}

/* RFC 2408 3.1: random, and unique for an ISAKMP SA. */
uint32_t
v1_message_id(struct v1_sa *v1)
{
	uint32_t id;

	for (unsigned tries = 0; tries < 8; tries++) {
		if (!env_random(v1->ike.env, &id, sizeof(id)))
			return 0;
		if (id != 0 && !v1_seen(v1, id))
			return id;
	}
	return 0;
}

/* Answers from elsewhere ------------------------------------------------ */

struct v1_exchange *
v1_awaiting(struct env *env, struct ticket ticket)
{
	struct exchange *x = exchange_by_ticket(env, ticket);

	return x != NULL && x->waiting ? v1_exchange(x) : NULL;
}

void
v1_landed(struct v1_exchange *x, enum err err)
{
	if (err != OK && x->pending_err == OK)
		x->pending_err = err;
	if (x->pending > 0 && --x->pending > 0)
		return;
	err = x->pending_err;
	x->pending_err = OK;
	fsm_resume(&v1_fsm, &x->x, err);
}

/* Sending --------------------------------------------------------------- */

void
v1_out_begin(
    struct v1_out *out, const struct ike_sa *sa, uint8_t exchange, uint32_t id)
{
	struct wire_header header = { .spi_i = sa->spi_i,
		.spi_r = sa->spi_r,
		.major = 1,
		.exchange = exchange,
		.id = id };

	buf_init(&out->buf, out->octets, sizeof(out->octets));
	wire_start(&out->wire, &out->buf, &header);
	out->rest_at = out->buf.len;
}

void
v1_out_hash(struct v1_out *out, const struct v1_sa *v1)
{
	wire_begin(&out->wire, P1_HASH, false);
	buf_zero(&out->buf, v1->keys.prf->out);
	wire_end(&out->wire);
	out->rest_at = out->buf.len;
}

uint8_t *
v1_out_hash_at(struct v1_out *out, const struct v1_sa *v1)
{
	return out->octets + out->rest_at - v1->keys.prf->out;
}

struct view
v1_out_rest(const struct v1_out *out)
{
	return view_of(out->octets + out->rest_at, out->buf.len - out->rest_at);
}

/* What begins at an offset, whose first payload's type stands at another. */
static void
impair(struct v1_out *out, struct env *env, size_t type_at, size_t begin)
{
	struct buf rest;

	if (env->impair == NULL || out->buf.full)
		return;
	buf_init(&rest, out->octets + begin, out->buf.cap - begin);
	rest.len = out->buf.len - begin;
	env->impair(env, &out->octets[type_at], &rest);
	out->buf.len = begin + rest.len;
}

void
v1_out_impair(struct v1_out *out, struct env *env)
{
	impair(out, env, WIRE_HEADER, out->rest_at);
}

enum err
v1_out_hash1(struct v1_out *out, const struct v1_sa *v1, uint32_t id)
{
	uint8_t hash[PRF_MAX];
	enum err err;

	v1_out_impair(out, v1->ike.env);
	if (out->buf.full)
		return ERR_LONG;
	err = v1_key_hash1(&v1->keys, id, v1_out_rest(out), hash);
	if (err == OK)
		memcpy(v1_out_hash_at(out, v1), hash, v1->keys.prf->out);
	return err;
}

/* After the last try: no answer in minutes. */
static void
gave_up(void *arg)
{
	struct v1_exchange *x = arg;

	if (x->x.type == EXCH_QUICK)
		v1_quick_timeout(x);
	else if (x->x.type == EXCH_INFORMATIONAL_V1)
		v1_life_deleted(x);
	else
		v1_life_unanswered(v1_sa(x->x.sa));
}

/* A Delete is answered by nothing: it goes out four times, and that is it. */
static const struct rexmit_config delete_config = {
	.first_ms = 200,
	.max_ms = 1000,
	.factor_percent = 160,
	.jitter_percent = 10,
	.tries = 4,
};

enum err
v1_out_send(struct v1_out *out, struct v1_exchange *x, bool sealed, bool timed)
{
	struct ike_sa *sa = x->x.sa;
	struct rexmit *rexmit = &x->x.rexmit;
	enum err err;

	if (out->buf.full)
		return ERR_LONG;
	if (sealed) {
		impair(out, sa->env, NEXT_AT, WIRE_HEADER);
		err = v1_sk_seal(&v1_sa(sa)->keys, &out->buf, x->iv);
		if (err != OK)
			return err;
	}
	wire_finish(&out->wire);
	if (rexmit->env == NULL)
		rexmit_init(rexmit, sa->env,
		    x->x.type == EXCH_INFORMATIONAL_V1 ? &delete_config
		                                       : &rexmit_defaults,
		    gave_up, x);
	rexmit_stop(rexmit);
	flight_clear(&rexmit->flight);
	err = flight_add(&rexmit->flight, buf_done(&out->buf));
	if (err != OK)
		return err;
	sa->last_out_ms = env_now(sa->env);
	if (timed)
		rexmit_start(rexmit, &sa->local, &sa->remote, sa->natt);
	else
		flight_send(&rexmit->flight, sa->env, &sa->local, &sa->remote,
		    sa->natt);
	return OK;
}

void
v1_repeat(struct v1_exchange *x)
{
	struct ike_sa *sa = x->x.sa;

	if (x->x.rexmit.env != NULL && x->x.rexmit.flight.count > 0)
		flight_send(&x->x.rexmit.flight, sa->env, &sa->local,
		    &sa->remote, sa->natt);
}

/* Receiving ------------------------------------------------------------- */

static void
strange(struct env *env, const struct packet *packet, enum counter counter,
    const char *text)
{
	char peer[ENDPOINT_TEXT];

	env_count(env, counter);
	if (limit_log(env->limit))
		env_log(env, LOG_LEVEL_DEBUG, "%s: IKEv1: %s",
		    endpoint_text(&packet->remote, peer), text);
}

static struct v1_sa *
own(struct ike_sa *sa, bool initiator)
{
	return sa != NULL && sa->engine == &v1_engine &&
	               sa->initiator == initiator
	           ? v1_sa(sa)
	           : NULL;
}

/* The SA that the cookies name, checked against both (RFC 2408 5.2). */
static struct v1_sa *
find(struct env *env, const struct packet *packet,
    const struct wire_header *header)
{
	struct v1_sa *v1;

	if (header->spi_r == 0) {
		v1 = own(
		    sa_by_peer(env->sadb, &packet->remote, header->spi_i, 1),
		    false);
		if (v1 != NULL)
			return v1;
		return own(sa_by_spi(env->sadb, header->spi_i), true);
	}
	v1 = own(sa_by_spi(env->sadb, header->spi_r), false);
	if (v1 != NULL)
		return v1->ike.spi_i == header->spi_i ? v1 : NULL;
	v1 = own(sa_by_spi(env->sadb, header->spi_i), true);
	if (v1 == NULL ||
	    (v1->ike.spi_r != 0 && v1->ike.spi_r != header->spi_r))
		return NULL;
	return v1;
}

/* Notes where a message came from and what it looks like. */
static void
arrive(struct v1_exchange *x, const struct packet *packet,
    const uint8_t digest[static V1_DIGEST])
{
	memcpy(x->arrived, digest, V1_DIGEST);
	x->arriving = true;
	x->local = packet->local;
	x->remote = packet->remote;
	x->natt = packet->natt;
}

/* Main Mode knows its repeats by digest. Only a responder answers them: the
 * initiator has a timer of its own. */
static bool
repeated(struct v1_exchange *x, const uint8_t digest[static V1_DIGEST])
{
	if (!x->digested || memcmp(x->digest, digest, V1_DIGEST) != 0)
		return false;
	env_count(x->x.sa->env, COUNTER_PACKETS_REPEATED);
	if (x->x.waiting || x->x.running)
		return true;
	/* QM2 again: QM3 was lost. */
	if (x->x.role == ROLE_RESPONDER || x->x.state == V1_QUICK_DONE)
		v1_repeat(x);
	return true;
}

static bool
busy(struct v1_exchange *x)
{
	if (!x->x.waiting && !x->x.running)
		return false;
	env_count(x->x.sa->env, COUNTER_PACKETS_REPEATED);
	return true;
}

/* RFC 2408 3: messages are aligned at 4 octets, so that, under protection or
 * not, padding may follow the last payload. */
static enum err
read_clear(struct msg *msg)
{
	struct view octets = msg->whole;

	view_skip(&octets, WIRE_HEADER);
	return wire_payloads_read(msg, 1, msg->header.next, octets, true);
}

static void
receive_main(struct v1_sa *v1, const struct packet *packet,
    const struct wire_header *header, const uint8_t digest[static V1_DIGEST])
{
	struct ike_sa *sa = &v1->ike;
	struct exchange *base = exchange_find(sa, EXCH_IDENTITY_PROTECTION,
	    sa->initiator ? ROLE_INITIATOR : ROLE_RESPONDER, 0);
	struct v1_exchange *x = v1_exchange(base);
	struct msg *msg;
	enum err err;

	if (base == NULL || header->id != 0) {
		strange(sa->env, packet, COUNTER_PACKETS_REPEATED,
		    "Main Mode message after its end");
		return;
	}
	if (repeated(x, digest) || busy(x))
		return;
	if (msg_new(&msg, packet->octets) != OK)
		return;
	if (header->flags & FLAG_V1_ENCRYPTION)
		err = v1_auth_open(v1, x, msg);
	else
		err = read_clear(msg);
	if (err != OK) {
		strange(sa->env, packet,
		    err == ERR_AUTH ? COUNTER_PACKETS_FORGED
		                    : COUNTER_PACKETS_MALFORMED,
		    "Main Mode message that cannot be read");
		msg_free(msg);
		return;
	}
	arrive(x, packet, digest);
	fsm_deliver(&v1_fsm, &x->x, msg);
}

/* The HASH that must lead a message of phase 2, by its exchange's state. */
static enum err
expected_hash(struct v1_sa *v1, struct v1_exchange *x, const struct msg *msg,
    uint8_t out[static PRF_MAX])
{
	uint32_t id = msg->header.id;
	struct v1_quick *quick = x != NULL ? x->quick : NULL;
	struct view nonce_i, nonce_r;

	if (quick == NULL)
		return v1_key_hash1(&v1->keys, id, v1_sk_rest(msg), out);
	nonce_i = view_of(quick->nonce_i, quick->nonce_i_len);
	nonce_r = view_of(quick->nonce_r, quick->nonce_r_len);
	if (x->x.state == V1_QUICK_SENT1)
		return v1_key_hash2(
		    &v1->keys, id, nonce_i, v1_sk_rest(msg), out);
	if (x->x.state == V1_QUICK_SENT2)
		return v1_key_hash3(&v1->keys, id, nonce_i, nonce_r, out);
	return ERR_WRONG_STATE;
}

/* Decrypts a message of phase 2 and verifies its HASH: nothing inside has been
 * looked at before. next is the exchange's IV from then on. */
static enum err
open_phase2(struct v1_sa *v1, struct v1_exchange *x, struct msg *msg,
    uint8_t next[static V1_BLOCK_MAX])
{
	uint8_t iv[V1_BLOCK_MAX], hash[PRF_MAX];
	enum err err = OK;

	if (x != NULL && x->iv_set)
		memcpy(iv, x->iv, sizeof(iv));
	else
		err = v1_key_iv_phase2(&v1->keys, v1->iv, msg->header.id, iv);
	if (err != OK)
		return err;
	err = v1_sk_open(&v1->keys, msg, iv, next);
	if (err != OK)
		return ERR_AUTH;
	if (msg->count == 0 || msg->payload[0].kind != KIND_HASH)
		return ERR_AUTH;
	err = expected_hash(v1, x, msg, hash);
	if (err != OK)
		return err;
	return mem_equal_secret(
	           view_of(hash, v1->keys.prf->out), msg->payload[0].body)
	           ? OK
	           : ERR_AUTH;
}

/* A Quick Mode that the peer begins: only once for each message ID, so that a
 * replay creates nothing and moves no IV. */
static struct v1_exchange *
quick_new(struct v1_sa *v1, uint32_t id)
{
	struct ike_sa *sa = &v1->ike;
	struct v1_exchange *x;
	unsigned count = 0;

	for (struct exchange *e = sa->exchanges; e != NULL; e = e->next)
		count += e->type == EXCH_QUICK && e->role == ROLE_RESPONDER;
	if (count >= V1_QUICK_MAX)
		return NULL;
	x = v1_exchange_new(sa, EXCH_QUICK, ROLE_RESPONDER, V1_QUICK_BEGIN, id);
	if (x != NULL)
		v1_see(v1, id);
	return x;
}

static void
receive_quick(struct v1_sa *v1, const struct packet *packet,
    const struct wire_header *header, const uint8_t digest[static V1_DIGEST])
{
	struct ike_sa *sa = &v1->ike;
	struct v1_exchange *x;
	uint8_t next[V1_BLOCK_MAX];
	struct msg *msg;
	enum err err;

	x = v1_exchange(
	    exchange_find(sa, EXCH_QUICK, ROLE_INITIATOR, header->id));
	if (x == NULL)
		x = v1_exchange(
		    exchange_find(sa, EXCH_QUICK, ROLE_RESPONDER, header->id));
	if (x == NULL && v1_seen(v1, header->id)) {
		env_count(sa->env, COUNTER_PACKETS_REPEATED);
		return;
	}
	if (x != NULL && (repeated(x, digest) || busy(x)))
		return;
	if (!(header->flags & FLAG_V1_ENCRYPTION) || v1->keys.octets.len == 0 ||
	    sa->established_ms == 0 || header->id == 0 ||
	    (x == NULL && (v1->deleting || v1->husk))) {
		strange(sa->env, packet, COUNTER_PACKETS_STRANGE,
		    "Quick Mode message in the clear or out of time");
		return;
	}
	if (msg_new(&msg, packet->octets) != OK)
		return;
	err = open_phase2(v1, x, msg, next);
	if (err == OK && x == NULL) {
		x = quick_new(v1, header->id);
		err = x == NULL ? ERR_LIMIT : OK;
	}
	if (err != OK) {
		strange(sa->env, packet, COUNTER_PACKETS_FORGED,
		    "Quick Mode message whose HASH is wrong");
		msg_free(msg);
		return;
	}
	memcpy(x->iv, next, sizeof(x->iv));
	x->iv_set = true;
	sa->last_in_ms = env_now(sa->env);
	arrive(x, packet, digest);
	v1_follow(v1, &packet->local, &packet->remote, packet->natt, false);
	v1_life_received(v1);
	fsm_deliver(&v1_fsm, &x->x, msg);
}

/* What is said once and may not count again. Deletes may: nothing that they
 * name comes back, and what they speak of may be on its way still. So may the
 * questions of RFC 3706, which have numbers of their own. */
static bool
counts_once(const struct msg *msg)
{
	return msg->sealed && !msg_has(msg, KIND_DELETE) &&
	       !msg_has(msg, KIND_N_R_U_THERE) &&
	       !msg_has(msg, KIND_N_R_U_THERE_ACK);
}

/* Each Informational is an exchange of its own: message ID and IV of its own
 * (RFC 2409 5.7). */
static void
receive_info(struct v1_sa *v1, const struct packet *packet,
    const struct wire_header *header, const uint8_t digest[static V1_DIGEST])
{
	struct ike_sa *sa = &v1->ike;
	struct v1_exchange *x;
	uint8_t next[V1_BLOCK_MAX];
	struct msg *msg;
	enum err err;

	if (msg_new(&msg, packet->octets) != OK)
		return;
	if (!(header->flags & FLAG_V1_ENCRYPTION))
		err = read_clear(msg);
	else if (v1->keys.octets.len == 0 || header->id == 0)
		err = ERR_AUTH;
	else
		err = open_phase2(v1, NULL, msg, next);
	if (err == OK && v1->husk && !msg_has(msg, KIND_DELETE))
		err = ERR_WRONG_STATE;
	if (err == OK && counts_once(msg)) {
		if (v1_seen(v1, header->id))
			err = ERR_EXISTS;
		else
			v1_see(v1, header->id);
	}
	x = err != OK ? NULL
	              : v1_exchange_new(sa, EXCH_INFORMATIONAL_V1,
	                    ROLE_RESPONDER, V1_INFO_BEGIN, header->id);
	if (x == NULL) {
		strange(sa->env, packet,
		    err == ERR_AUTH ? COUNTER_PACKETS_FORGED
		                    : COUNTER_PACKETS_MALFORMED,
		    "Informational that cannot be read");
		msg_free(msg);
		return;
	}
	if (msg->sealed)
		v1_life_received(v1);
	arrive(x, packet, digest);
	/* One message is all there is to it: the table's callbacks end x. */
	fsm_deliver(&v1_fsm, &x->x, msg);
}

static void
receive_sa(struct v1_sa *v1, const struct packet *packet,
    const struct wire_header *header)
{
	struct env *env = v1->ike.env;
	uint8_t digest[V1_DIGEST];
	struct view whole = view_of(packet->octets.at, header->length);

	if (prf_sha1(&whole, 1, digest) != OK)
		return;
	if (v1->husk && ((header->exchange != EXCH_INFORMATIONAL_V1 &&
	                     header->exchange != EXCH_QUICK) ||
	                    !(header->flags & FLAG_V1_ENCRYPTION))) {
		/* The peer's half is gone; only its last Deletes matter, and
		 * third messages that they have overtaken. */
		strange(env, packet, COUNTER_PACKETS_STRANGE,
		    "message for an SA that was deleted");
		return;
	}
	switch (header->exchange) {
	case EXCH_IDENTITY_PROTECTION:
		receive_main(v1, packet, header, digest);
		break;
	case EXCH_QUICK:
		receive_quick(v1, packet, header, digest);
		break;
	case EXCH_INFORMATIONAL_V1:
		receive_info(v1, packet, header, digest);
		break;
	default:
		/* Transaction, New Group and the unassigned: silence. */
		strange(env, packet, COUNTER_PACKETS_STRANGE,
		    "exchange type that is not spoken here");
		break;
	}
}

static void
v1_receive(struct env *env, const struct packet *packet,
    const struct wire_header *header)
{
	struct v1_sa *v1;

	if (header->spi_i == 0) {
		strange(env, packet, COUNTER_PACKETS_MALFORMED,
		    "initiator cookie is zero");
		return;
	}
	/* RFC 2408 3.1: SHOULD never accept a minor version above our own. */
	if (header->minor != 0) {
		strange(env, packet, COUNTER_PACKETS_MALFORMED,
		    "minor version that nobody has defined");
		return;
	}
	if (header->exchange == EXCH_AGGRESSIVE) {
		/* Its PSK could be guessed off-line by whoever asks. */
		strange(env, packet, COUNTER_AGGRESSIVE_IGNORED,
		    "Aggressive Mode is not answered");
		return;
	}
	v1 = find(env, packet, header);
	if (v1 != NULL) {
		sa_hold(&v1->ike);
		receive_sa(v1, packet, header);
		sa_release(&v1->ike);
	} else if (header->exchange == EXCH_IDENTITY_PROTECTION &&
	           header->spi_r == 0 && header->id == 0 &&
	           !(header->flags & FLAG_V1_ENCRYPTION)) {
		v1_main_first(env, packet, header);
	} else {
		strange(env, packet, COUNTER_PACKETS_STRANGE,
		    "message without an SA");
	}
}

/* A responder hands the first message to the SA that it made for it. */
void
v1_deliver_first(struct v1_sa *v1, const struct packet *packet,
    const struct wire_header *header)
{
	sa_hold(&v1->ike);
	receive_sa(v1, packet, header);
	sa_release(&v1->ike);
}

/* The engine ------------------------------------------------------------ */

static enum err
v1_initiate(struct env *env, struct conn *conn, const struct endpoint *local,
    const struct endpoint *remote, struct ike_sa **sa)
{
	struct v1_sa *v1;
	enum err err = v1_main_begin(env, conn, local, remote,
	    local->port == net_port(env->net, true), 0, true, &v1);

	if (err == OK)
		*sa = &v1->ike;
	return err;
}

const struct engine v1_engine = {
	.version = 1,
	.name = "IKEv1",
	.receive = v1_receive,
	.initiate = v1_initiate,
	.child = v1_quick_conn,
	.close = v1_life_close,
	.child_close = v1_child_close,
	.rekey = v1_life_renew,
	.child_rekey = v1_quick_rekey,
	.probe = v1_info_probe,
	.mapping = v1_peer_mapping,
	.free = sa_free,
	.exchange_free = v1_exchange_free,
};
