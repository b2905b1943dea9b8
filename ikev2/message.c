#include "ikev2/message.h"

#include <stdlib.h>
#include <string.h>

#include "common/limit.h"
#include "ikev2/init.h"
#include "ikev2/rules.h"
#include "ikev2/task.h"
#include "ikev2/v2.h"
#include "kernel/install.h"

/* RFC 7383 2.5.2: packets of ours stay below the IPv6 minimum MTU. */
#define PACKET_MAX 1280

/* Sending --------------------------------------------------------------- */

void
v2_writer_init(struct v2_writer *writer)
{
	buf_init(&writer->buf, writer->octets, sizeof(writer->octets));
	wire_start_chain(&writer->out, &writer->buf);
}

static struct v2_sk_keys
direction(const struct v2_sa *v2, bool by_initiator)
{
	const struct suite *suite = &v2->sa.suite;
	struct v2_sk_keys keys = {
		.suite = suite,
		.encr = v2_key(
		    suite, &v2->keys, by_initiator ? V2_SK_EI : V2_SK_ER),
		.integ = v2_key(
		    suite, &v2->keys, by_initiator ? V2_SK_AI : V2_SK_AR),
	};

	return keys;
}

/* Octets of an IKE message that need no fragmentation; 0: never fragment. */
static size_t
message_limit(const struct v2_sa *v2)
{
	size_t over = v2->sa.remote.addr.family == ADDR_V6 ? 40 + 8 : 20 + 8;

	if (!v2->fragment_out)
		return 0;
	return PACKET_MAX - over - (v2->sa.natt ? 4 : 0);
}

static struct wire_header
header_of(const struct v2_sa *v2, uint8_t exchange, bool response, uint32_t id)
{
	struct wire_header header = {
		.spi_i = v2->sa.spi_i,
		.spi_r = v2->sa.spi_r,
		.major = 2,
		.exchange = exchange,
		.id = id,
	};

	/* RFC 7296 3.1: I is the original initiator's, in every message. */
	if (v2->sa.initiator)
		header.flags |= FLAG_INITIATOR;
	if (response)
		header.flags |= FLAG_RESPONSE;
	return header;
}

static enum err
seal(struct v2_sa *v2, const struct wire_header *header,
    struct v2_writer *writer, struct flight *flight)
{
	struct env *env = v2->sa.env;
	struct v2_sk_keys keys = direction(v2, v2->sa.initiator);
	uint8_t first = wire_chain_first(&writer->out);

	if (writer->buf.full)
		return ERR_LONG;
	if (keys.encr.len == 0)
		return ERR_WRONG_STATE;
	if (env->impair != NULL)
		env->impair(env, &first, &writer->buf);
	return v2_sk_seal(env, &keys, &v2->iv, header, first,
	    buf_done(&writer->buf), message_limit(v2), flight);
}

static void
log_packet(
    const struct v2_sa *v2, const char *verb, const char *what, uint32_t id)
{
	const struct log *log = v2->sa.env->log;

	if (log != NULL && log->level >= LOG_LEVEL_DEBUG)
		sa_log(&v2->sa, LOG_LEVEL_DEBUG, "%s %s %u", verb, what, id);
}

enum err
v2_request(struct v2_exchange *x, struct v2_writer *writer)
{
	struct v2_sa *v2 = v2_of(x->x.sa);
	struct wire_header header =
	    header_of(v2, x->x.type, false, v2->next_out);
	enum err err;

	flight_clear(&x->x.rexmit.flight);
	err = seal(v2, &header, writer, &x->x.rexmit.flight);
	if (err != OK)
		return err;
	log_packet(v2, "sends", "request", header.id);
	x->x.id = header.id;
	x->sent = true;
	v2->next_out++;
	v2->sa.last_out_ms = env_now(v2->sa.env);
	rexmit_start(&x->x.rexmit, &v2->sa.local, &v2->sa.remote, v2->sa.natt);
	return OK;
}

enum err
v2_respond(struct v2_exchange *x, struct v2_writer *writer)
{
	struct v2_sa *v2 = v2_of(x->x.sa);
	struct wire_header header = header_of(v2, x->x.type, true, x->x.id);
	enum err err;

	flight_clear(&v2->answer);
	err = seal(v2, &header, writer, &v2->answer);
	if (err != OK) {
		flight_clear(&v2->answer);
		return err;
	}
	log_packet(v2, "sends", "response", header.id);
	v2->sa.last_out_ms = env_now(v2->sa.env);
	/* RFC 7296 2.11: to where the request came from. */
	flight_send(&v2->answer, v2->sa.env, &x->local, &x->remote, x->natt);
	return OK;
}

void
v2_last_word(struct v2_sa *v2, uint16_t notify)
{
	struct wire_header header =
	    header_of(v2, EXCH_INFORMATIONAL, false, v2->next_out);
	struct v2_writer writer;
	struct flight flight = { NULL, 0, 0 };

	v2_writer_init(&writer);
	if (notify == 0)
		v2_delete_put(&writer.out, NULL, 0);
	else
		v2_notify_put(&writer.out, notify, view_of(NULL, 0));
	if (seal(v2, &header, &writer, &flight) == OK)
		flight_send(&flight, v2->sa.env, &v2->sa.local, &v2->sa.remote,
		    v2->sa.natt);
	flight_clear(&flight);
}

void
v2_clear_begin(struct wire_out *out, struct buf *buf, const struct ike_sa *sa,
    uint64_t spi_r, bool response)
{
	struct wire_header header = {
		.spi_i = sa->spi_i,
		.spi_r = spi_r,
		.major = 2,
		.exchange = EXCH_IKE_SA_INIT,
		.flags = response ? FLAG_RESPONSE : FLAG_INITIATOR,
	};

	wire_start(out, buf, &header);
}

void
v2_answer_clear(struct env *env, const struct packet *packet,
    const struct wire_header *asked, uint16_t notify, struct view data,
    bool limited)
{
	/* RFC 7296 1.5: SPIs, exchange type and message ID are the request's. */
	struct wire_header header = *asked;
	uint8_t octets[WIRE_HEADER + 8 + V2_COOKIE_MAX];
	struct wire_out out;
	struct buf buf;

	if (limited && !limit_answer(env->limit, &packet->remote.addr))
		return;
	header.minor = 0;
	header.flags = FLAG_RESPONSE;
	if ((asked->flags & FLAG_INITIATOR) == 0)
		header.flags |= FLAG_INITIATOR;
	buf_init(&buf, octets, sizeof(octets));
	wire_start(&out, &buf, &header);
	v2_notify_put(&out, notify, data);
	wire_finish(&out);
	/* The address may be forged: never more than was asked. */
	if (!buf.full && buf.len <= packet->octets.len)
		net_send(env->net, &packet->local, &packet->remote,
		    packet->natt, buf_done(&buf));
}

/* Where the peer is ----------------------------------------------------- */

static void
move_children(struct v2_sa *v2)
{
	struct child_sa *child;

	for (child = v2->sa.children; child != NULL; child = child->next) {
		if (!child->encap)
			continue;
		child->local = v2->sa.local;
		child->remote = v2->sa.remote;
		/* What is on its way into the kernel has the old address. */
		if (child->installed != 0)
			install_move(v2->sa.env, child);
	}
}

void
v2_follow(struct v2_sa *v2, const struct endpoint *local,
    const struct endpoint *remote, bool natt)
{
	struct ike_sa *sa = &v2->sa;
	struct v2_exchange *x;

	if (endpoint_equal(&sa->remote, remote) && sa->natt == natt &&
	    endpoint_equal(&sa->local, local))
		return;
	if (sa->state == IKE_HALF_OPEN) {
		/* The first message under the new keys: the peer may float to
		 * port 4500 with or without a NAT (RFC 7296 2.23). */
		if (sa->initiator)
			return;
	} else if (!sa->nat_remote || (sa->nat_local && v2->opener)) {
		/* Only a peer behind NAT moves by itself; and if both are, only
		 * the side that the peer had to find stays put. */
		return;
	} else if (sa->natt && !natt) {
		/* Port 500 carries no ESP: there is no way back to it. */
		return;
	}
	if (sa->state != IKE_HALF_OPEN)
		sa_log(sa, LOG_LEVEL_INFO,
		    "the peer's address behind NAT has changed");
	sa->local = *local;
	sa->remote = *remote;
	sa->natt = natt;
	x = v2_own_exchange(v2);
	if (x != NULL && x->sent)
		rexmit_move(&x->x.rexmit, local, remote, natt);
	move_children(v2);
}

/* Receiving ------------------------------------------------------------- */

/* A message for an SA that is not here. RFC 7296 1.5, 2.21.4. */
static void
stranger(struct env *env, const struct packet *packet,
    const struct wire_header *header)
{
	char peer[ENDPOINT_TEXT];

	env_count(env, COUNTER_PACKETS_STRANGE);
	if (limit_log(env->limit))
		env_log(env, LOG_LEVEL_DEBUG,
		    "%s: a message for an unknown IKE SA",
		    endpoint_text(&packet->remote, peer));
	if ((header->flags & FLAG_RESPONSE) == 0)
		v2_answer_clear(env, packet, header, N_INVALID_IKE_SPI,
		    view_of(NULL, 0), true);
}

/* An unprotected word about an SA of ours, such as INVALID_IKE_SPI, proves
 * nothing (RFC 7296 2.4, 2.21.4): at most it makes us ask the peer. */
static void
suspect(struct v2_sa *v2, const struct msg *msg)
{
	const struct ike_sa *sa = &v2->sa;
	uint64_t now = env_now(sa->env);

	env_count(sa->env, COUNTER_PACKETS_FORGED);
	if (sa->state != IKE_ESTABLISHED ||
	    (!msg_has(msg, KIND_N_INVALID_IKE_SPI) &&
	        !msg_has(msg, KIND_N_INVALID_SPI)) ||
	    (v2->probed_ms != 0 && now - v2->probed_ms < 10000))
		return;
	v2->probed_ms = now == 0 ? 1 : now;
	v2_task_add(v2, WANT_PROBE, NULL, NULL, NULL);
}

/* The outer chain of a datagram. */
static struct msg *
read_outer(struct env *env, const struct packet *packet,
    const struct wire_header *header)
{
	struct msg *msg = NULL;
	struct view rest;
	enum err err;

	if (msg_new(&msg, packet->octets) != OK)
		return NULL;
	rest = msg->whole;
	err = view_skip(&rest, WIRE_HEADER)
	          ? wire_payloads_read(msg, 2, header->next, rest, false)
	          : ERR_SHORT;
	if (err == OK)
		return msg;
	env_count(env, COUNTER_PACKETS_MALFORMED);
	msg_free(msg);
	return NULL;
}

/* RFC 7296 2.1: the same request again, answered by the same octets. Of a
 * fragmented one, the first fragment alone (RFC 7383 2.6.1). */
static void
repeat_answer(struct v2_sa *v2, const struct packet *packet,
    const struct v2_sk_part *part)
{
	env_count(v2->sa.env, COUNTER_PACKETS_REPEATED);
	if (part->number > 1 || v2->answer.count == 0)
		return;
	log_packet(v2, "repeats", "response", v2->next_in - 1);
	flight_send(&v2->answer, v2->sa.env, &packet->local, &packet->remote,
	    packet->natt);
}

static void
refuse_critical(struct v2_exchange *x, const struct msg *msg)
{
	x->x.error.data[0] = msg->unknown_critical;
	x->x.error.data_len = 1;
	fsm_fail(&x->x, ERR_UNSUPPORTED, N_UNSUPPORTED_CRITICAL_PAYLOAD,
	    "critical payload of unknown type %u", msg->unknown_critical);
	v2_failed(x->x.sa, &x->x);
}

/* A request that is whole, new and the peer's. Takes msg over. */
static void
serve(struct v2_sa *v2, const struct packet *packet, struct msg *msg,
    enum err parsed)
{
	struct v2_exchange *x = v2_exchange_new(
	    v2, msg->header.exchange, ROLE_RESPONDER, V2_IDLE, msg->header.id);

	if (x == NULL) {
		msg_free(msg);
		return;
	}
	/* RFC 7296 2.3: with a window of one, this request says that the
	 * answer to the one before has arrived. */
	v2->next_in = msg->header.id + 1;
	flight_clear(&v2->answer);
	x->local = packet->local;
	x->remote = packet->remote;
	x->natt = packet->natt;
	if (parsed == OK && msg->unknown_critical == 0) {
		fsm_deliver(&v2_fsm, &x->x, msg);
		return;
	}
	if (parsed != OK)
		v2_refused(&v2->sa, &x->x, msg, ERR_SYNTAX, err_text(parsed));
	else
		refuse_critical(x, msg);
	msg_free(msg);
}

/* A response that is whole and the peer's. Takes msg over. */
static void
answered(
    struct v2_sa *v2, struct v2_exchange *x, struct msg *msg, enum err parsed)
{
	rexmit_stop(&x->x.rexmit);
	if (parsed == OK && msg->unknown_critical == 0) {
		fsm_deliver(&v2_fsm, &x->x, msg);
		return;
	}
	if (parsed != OK)
		fsm_fail(&x->x, ERR_SYNTAX, 0, "malformed response (%s)",
		    err_text(parsed));
	else
		fsm_fail(&x->x, ERR_UNSUPPORTED, 0,
		    "critical payload of unknown type %u in the response",
		    msg->unknown_critical);
	v2_failed(&v2->sa, &x->x);
	msg_free(msg);
}

/* Is a request of the peer's being served? With a window of one it may not ask
 * for anything else yet (RFC 7296 2.3), and what it would change, such as the
 * identity that is being proven, must not change under our hands. */
static bool
serving(const struct v2_sa *v2)
{
	const struct exchange *x;

	for (x = v2->sa.exchanges; x != NULL; x = x->next)
		if (!x->ended && x->role == ROLE_RESPONDER)
			return true;
	return false;
}

/* Is the message ID one that may come now? RFC 7296 2.2, 2.3. */
static bool
in_window(struct v2_sa *v2, const struct wire_header *header,
    struct v2_exchange **x, bool *repeat)
{
	*repeat = false;
	*x = NULL;
	if ((header->flags & FLAG_RESPONSE) != 0) {
		*x = v2_own_exchange(v2);
		return *x != NULL && (*x)->sent && (*x)->x.id == header->id &&
		       (*x)->x.type == header->exchange && !(*x)->x.waiting;
	}
	/* RFC 7296 2.2: IDs never wrap; this one would lead back to 0. */
	if (header->id == UINT32_MAX)
		return false;
	*repeat = header->id + 1 == v2->next_in;
	/* No identity is proven yet: nothing but IKE_AUTH is looked at. */
	if (v2->sa.state < IKE_ESTABLISHED &&
	    (header->exchange != EXCH_IKE_AUTH || v2->sa.initiator ||
	        v2->setup == NULL))
		return false;
	if (*repeat)
		return true;
	/* One AUTH is all that a half-open SA takes: who failed begins anew. */
	if (v2->setup != NULL && v2->setup->failed)
		return false;
	return header->id == v2->next_in && !serving(v2);
}

/* Would the message that this fragment is of grow too large for a peer that has
 * not proven who it is? All of them but the last are of one size. */
static bool
too_much(const struct v2_sa *v2, const struct msg *msg,
    const struct v2_sk_part *part)
{
	return v2->sa.state < IKE_ESTABLISHED &&
	       msg->opened_len > V2_FRAGMENT_STRANGER / part->total;
}

/* Opens a message of an SA's peer; true when it is whole, with the type of its
 * first payload in part. */
static bool
open_message(struct v2_sa *v2, const struct packet *packet, struct msg *msg,
    bool repeat, struct v2_sk_part *part, enum err *parsed)
{
	struct v2_sk_keys keys = direction(v2, !v2->sa.initiator);
	bool response = (msg->header.flags & FLAG_RESPONSE) != 0;
	bool whole = true;
	enum err err = v2_sk_open(&keys, msg, part);

	if (err == ERR_NOT_FOUND) {
		suspect(v2, msg);
		return false;
	}
	if (err != OK && err != ERR_SYNTAX) {
		/* Forged, or damaged: the SA lives on, half-open or not. */
		env_count(v2->sa.env, COUNTER_PACKETS_FORGED);
		return false;
	}
	v2->sa.last_in_ms = env_now(v2->sa.env);
	if (repeat) {
		repeat_answer(v2, packet, part);
		return false;
	}
	*parsed = err;
	if (err != OK || part->total == 0)
		return true;
	/* RFC 7383 2.3: only where both have said that they can. */
	if (!v2->fragments || too_much(v2, msg, part) ||
	    v2_frag_add(&v2->frag[response], msg, part, &whole) != OK)
		return false;
	return whole;
}

static void
sealed(struct v2_sa *v2, const struct packet *packet,
    const struct wire_header *header)
{
	struct v2_exchange *x;
	struct v2_sk_part part;
	struct msg *msg;
	enum err parsed = OK;
	uint8_t critical;
	bool repeat;

	if (!in_window(v2, header, &x, &repeat)) {
		env_count(v2->sa.env, COUNTER_PACKETS_REPEATED);
		return;
	}
	if (!v2_init_keys(v2))
		return;
	msg = read_outer(v2->sa.env, packet, header);
	if (msg == NULL)
		return;
	if (!open_message(v2, packet, msg, repeat, &part, &parsed)) {
		msg_free(msg);
		return;
	}
	v2_frag_free(v2->frag[x != NULL]);
	v2->frag[x != NULL] = NULL;
	v2_follow(v2, &packet->local, &packet->remote, packet->natt);
	msg->sealed = true;
	v2->heard = true;
	/* RFC 7296 2.5: one that stands before SK counts, too. */
	critical = msg->unknown_critical;
	if (parsed == OK)
		parsed = wire_payloads_read(msg, 2, part.first,
		    view_of(msg->opened, msg->opened_len), false);
	if (msg->unknown_critical == 0)
		msg->unknown_critical = critical;
	log_packet(
	    v2, "receives", x != NULL ? "response" : "request", header->id);
	if (x != NULL)
		answered(v2, x, msg, parsed);
	else
		serve(v2, packet, msg, parsed);
}

/* The answer to our IKE_SA_INIT: nothing protects it. */
static void
init_response(struct env *env, const struct packet *packet,
    const struct wire_header *header)
{
	struct ike_sa *sa = sa_by_spi(env->sadb, header->spi_i);
	struct v2_exchange *x;
	struct msg *msg;

	if (sa == NULL || sa->engine != &v2_engine || !sa->initiator ||
	    (header->flags & FLAG_INITIATOR) != 0 || header->id != 0) {
		env_count(env, COUNTER_PACKETS_STRANGE);
		return;
	}
	x = v2_own_exchange(v2_of(sa));
	if (x == NULL || x->x.type != EXCH_IKE_SA_INIT || x->x.waiting) {
		env_count(env, COUNTER_PACKETS_REPEATED);
		return;
	}
	msg = read_outer(env, packet, header);
	if (msg == NULL)
		return;
	if (msg->unknown_critical != 0) {
		msg_free(msg);
		return;
	}
	fsm_deliver(&v2_fsm, &x->x, msg);
}

void
v2_receive(struct env *env, const struct packet *packet,
    const struct wire_header *header)
{
	bool from_initiator = (header->flags & FLAG_INITIATOR) != 0;
	uint64_t own = from_initiator ? header->spi_r : header->spi_i;
	uint64_t other = from_initiator ? header->spi_i : header->spi_r;
	struct ike_sa *sa;

	/* RFC 7296 2.6: SPIi is never zero. 2.5: the minor version and flags
	 * without meaning are ignored. */
	if (header->spi_i == 0) {
		env_count(env, COUNTER_PACKETS_MALFORMED);
		return;
	}
	if (header->exchange == EXCH_IKE_SA_INIT) {
		if ((header->flags & FLAG_RESPONSE) != 0)
			init_response(env, packet, header);
		else
			v2_init_request(env, packet, header);
		return;
	}
	sa = own == 0 ? NULL : sa_by_spi(env->sadb, own);
	if (sa == NULL || sa->engine != &v2_engine ||
	    sa->initiator == from_initiator || sa_peer_spi(sa) != other) {
		stranger(env, packet, header);
		return;
	}
	sa_hold(sa);
	sealed(v2_of(sa), packet, header);
	sa_release(sa);
}
