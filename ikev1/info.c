#include "ikev1/info.h"

#include <stdio.h>
#include <string.h>

#include "common/explain.h"
#include "common/limit.h"
#include "ikev1/child.h"
#include "ikev1/life.h"
#include "ikev1/quick.h"
#include "kernel/install.h"

#define DPD_WINDOW   16    /* acknowledgements accepted behind the last */
#define DPD_AGAIN_MS 5000  /* between questions without an answer */
#define HINT_MS      10000 /* between questions that strangers cause */
#define BUSY         32    /* exchanges: refusals go out once from then on */

/* Sending --------------------------------------------------------------- */

/* A sealed Informational under construction: message ID and IV of its own. */
static struct v1_exchange *
begin(struct v1_sa *v1, struct v1_out *out)
{
	struct ike_sa *sa = &v1->ike;
	uint32_t id = v1_message_id(v1);
	struct v1_exchange *x;

	if (id == 0 || v1->keys.octets.len == 0 || v1->husk)
		return NULL;
	x = v1_exchange_new(
	    sa, EXCH_INFORMATIONAL_V1, ROLE_INITIATOR, V1_INFO_BEGIN, id);
	if (x == NULL)
		return NULL;
	if (v1_key_iv_phase2(&v1->keys, v1->iv, id, x->iv) != OK) {
		exchange_end(&x->x);
		return NULL;
	}
	x->iv_set = true;
	v1_out_begin(out, sa, EXCH_INFORMATIONAL_V1, id);
	v1_out_hash(out, v1);
	return x;
}

/* Untimed ones are over when they are sent. */
static enum err
finish(struct v1_sa *v1, struct v1_out *out, struct v1_exchange *x, bool timed)
{
	enum err err = v1_out_hash1(out, v1, x->x.id);

	if (err == OK)
		err = v1_out_send(out, x, true, timed);
	if (err != OK || !timed)
		exchange_end(&x->x);
	return err;
}

static void
cookies_write(struct buf *buf, const struct ike_sa *sa)
{
	buf_u64(buf, sa->spi_i);
	buf_u64(buf, sa->spi_r);
}

static void
notify_write(struct v1_out *out, const struct ike_sa *sa,
    enum ipsec_protocol protocol, uint32_t spi, uint16_t type, struct view data)
{
	uint8_t octets[16];
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	if (protocol == PROTO_IKE)
		cookies_write(&buf, sa);
	else if (spi != 0)
		buf_u32(&buf, spi);
	wire_notify_v1(
	    &out->wire, (uint8_t)protocol, buf_done(&buf), type, data);
}

void
v1_info_notify(
    struct v1_sa *v1, enum ipsec_protocol protocol, uint32_t spi, uint16_t type)
{
	struct v1_out out;
	struct v1_exchange *x = begin(v1, &out);

	if (x == NULL)
		return;
	/* Both ends hash with one key: ours, reflected, would be the peer's. */
	v1_see(v1, x->x.id);
	notify_write(&out, &v1->ike, protocol, spi, type, view_of(NULL, 0));
	/* Nobody answers it either, and who does not get it waits for minutes;
	 * but one who asks for refusals gets no heap of them. */
	finish(v1, &out, x, v1->ike.exchange_count < BUSY);
}

void
v1_info_refuse(struct ike_sa *sa, uint16_t type)
{
	struct v1_exchange *x;
	struct v1_out out;

	if (!limit_answer(sa->env->limit, &sa->remote.addr))
		return;
	x = v1_exchange_new(sa, EXCH_INFORMATIONAL_V1, ROLE_INITIATOR,
	    V1_INFO_BEGIN, v1_message_id(v1_sa(sa)));
	if (x == NULL)
		return;
	v1_out_begin(&out, sa, EXCH_INFORMATIONAL_V1, x->x.id);
	notify_write(&out, sa, PROTO_IKE, 0, type, view_of(NULL, 0));
	v1_out_send(&out, x, false, false);
	exchange_end(&x->x);
}

/* RFC 2408 3.15: DOI, protocol, SPI size, number, SPIs. */
static void
delete_begin(struct v1_out *out, enum ipsec_protocol protocol, uint8_t size,
    size_t count)
{
	wire_begin(&out->wire, P1_D, false);
	buf_u32(&out->buf, 1);
	buf_u8(&out->buf, (uint8_t)protocol);
	buf_u8(&out->buf, size);
	buf_u16(&out->buf, (uint16_t)count);
}

void
v1_info_delete_children(struct v1_sa *v1, const uint32_t *spis, size_t count)
{
	struct v1_out out;
	struct v1_exchange *x;

	if (count == 0 || (x = begin(v1, &out)) == NULL)
		return;
	if (count > V1_DELETE_MAX)
		count = V1_DELETE_MAX;
	delete_begin(&out, PROTO_ESP, 4, count);
	for (size_t i = 0; i < count; i++)
		buf_u32(&out.buf, spis[i]);
	wire_end(&out.wire);
	finish(v1, &out, x, true);
}

enum err
v1_info_delete_sa(struct v1_sa *v1)
{
	struct v1_out out;
	struct v1_exchange *x = begin(v1, &out);

	if (x == NULL)
		return ERR_WRONG_STATE;
	delete_begin(&out, PROTO_IKE, 16, 1);
	cookies_write(&out.buf, &v1->ike);
	wire_end(&out.wire);
	return finish(v1, &out, x, true);
}

/* Dead peer detection --------------------------------------------------- */

static enum err
there_send(struct v1_sa *v1, uint16_t type, uint32_t sequence)
{
	struct v1_out out;
	struct v1_exchange *x = begin(v1, &out);
	uint8_t octets[4];
	struct buf buf;

	if (x == NULL)
		return ERR_WRONG_STATE;
	buf_init(&buf, octets, sizeof(octets));
	buf_u32(&buf, sequence);
	notify_write(&out, &v1->ike, PROTO_IKE, 0, type, buf_done(&buf));
	return finish(v1, &out, x, false);
}

static void
dpd_in(struct v1_sa *v1, uint64_t delay_ms)
{
	timer_set(v1->ike.env->timers, &v1->ike.dpd_timer, delay_ms);
}

static bool
dpd_wanted(const struct v1_sa *v1)
{
	const struct conn *conn = v1->ike.conn;

	return (v1->vendors & V1_VENDOR_DPD) != 0 &&
	       conn->dpd_action != DPD_NONE && conn->dpd_delay_ms > 0;
}

void
v1_info_dpd_begin(struct v1_sa *v1)
{
	if (dpd_wanted(v1))
		dpd_in(v1, v1->ike.conn->dpd_delay_ms);
}

void
v1_info_alive(struct v1_sa *v1)
{
	v1->ike.last_in_ms = env_now(v1->ike.env);
	if (v1->dpd_asked_ms == 0)
		return;
	v1->dpd_asked_ms = 0;
	v1->dpd_judged = false;
	timer_stop(v1->ike.env->timers, &v1->ike.dpd_timer);
	v1_info_dpd_begin(v1);
}

static void
dpd_dead(struct v1_sa *v1)
{
	struct ike_sa *sa = &v1->ike;

	sa_log(sa, LOG_LEVEL_WARNING,
	    "the peer has not answered for %llu s: dead",
	    (unsigned long long)(env_now(sa->env) - v1->dpd_asked_ms) / 1000);
	sa_hold(sa);
	sa_event(sa, NULL, EVENT_PEER_DEAD, ERR_TIMEOUT, false,
	    "the peer does not answer");
	sa_kill(sa, ERR_TIMEOUT, false, "the peer does not answer");
	sa_release(sa);
}

static struct child_sa *
child_newest_up(struct ike_sa *sa)
{
	struct child_sa *found = NULL;

	for (struct child_sa *child = sa->children; child != NULL;
	     child = child->next)
		if (child->state == CHILD_UP &&
		    (found == NULL || child->created_ms > found->created_ms))
			found = child;
	return found;
}

static void dpd_queried(struct env *env, struct ticket ticket, enum err err,
    const struct install_use *use);

/* Nothing has been answered for long enough, but traffic may come in still. */
static void
dpd_judge(struct v1_sa *v1)
{
	struct ike_sa *sa = &v1->ike;
	struct child_sa *child = child_newest_up(sa);

	if (v1->dpd_judged || child == NULL ||
	    install_query(sa->env, child, sa_ticket(sa, NULL, child),
	        dpd_queried) != OK) {
		dpd_dead(v1);
		return;
	}
	v1->dpd_judged = true;
	/* Should the answer never come. */
	dpd_in(v1, DPD_AGAIN_MS);
}

/* Interop: some peers delete the ISAKMP SA and keep its children, and say so
 * once; that may be lost. Who sends traffic is not dead (RFC 3706 5.5), but
 * answers only under a new one. */
static void
dpd_judged(struct v1_sa *v1, bool traffic)
{
	struct ike_sa *sa = &v1->ike;

	v1->dpd_judged = false;
	if (!traffic) {
		dpd_dead(v1);
		return;
	}
	sa_log(sa, LOG_LEVEL_INFO,
	    "the peer does not answer, but sends traffic: a new ISAKMP SA");
	v1->dpd_asked_ms = 0;
	timer_stop(sa->env->timers, &sa->dpd_timer);
	v1_info_dpd_begin(v1);
	v1_life_renew(sa);
}

/* RFC 3706 5.4: sequence numbers rise by one. */
static void
dpd_ask(struct v1_sa *v1)
{
	struct ike_sa *sa = &v1->ike;
	uint64_t now = env_now(sa->env), timeout = sa->conn->dpd_timeout_ms;
	uint64_t again = DPD_AGAIN_MS;

	if (v1->dpd_asked_ms != 0 && now - v1->dpd_asked_ms >= timeout) {
		dpd_judge(v1);
		return;
	}
	if (v1->dpd_asked_ms == 0)
		v1->dpd_asked_ms = now;
	if (v1->dpd_out == 0) {
		v1->dpd_out = env_random_u32(sa->env) >> 1 | 1;
		v1->dpd_first = v1->dpd_out;
		v1->dpd_acked = v1->dpd_out - 1;
	} else {
		v1->dpd_out++;
	}
	there_send(v1, N1_R_U_THERE, v1->dpd_out);
	if (again > timeout / 4)
		again = timeout / 4;
	if (again > v1->dpd_asked_ms + timeout - now)
		again = v1->dpd_asked_ms + timeout - now;
	dpd_in(v1, again > 0 ? again : 1);
}

/* Traffic is proof of life: RFC 3706 5.5 asks only when there is none. */
static void
dpd_queried(struct env *env, struct ticket ticket, enum err err,
    const struct install_use *use)
{
	struct ike_sa *sa = sa_by_serial(env->sadb, ticket.sa);
	struct v1_sa *v1 = v1_sa(sa);
	uint64_t delay;

	if (sa == NULL || v1->husk || sa->established_ms == 0)
		return;
	if (v1->dpd_judged) {
		dpd_judged(
		    v1, err == OK &&
		            use->idle_in_ms < env_now(env) - v1->dpd_asked_ms);
		return;
	}
	if (v1->dpd_asked_ms != 0 || !dpd_wanted(v1))
		return;
	delay = sa->conn->dpd_delay_ms;
	if (err == OK && use->idle_in_ms < delay)
		dpd_in(v1, delay - use->idle_in_ms);
	else
		dpd_ask(v1);
}

void
v1_info_dpd(void *arg)
{
	struct v1_sa *v1 = arg;
	struct ike_sa *sa = &v1->ike;
	uint64_t idle = env_now(sa->env) - sa->last_in_ms;
	struct child_sa *child = child_newest_up(sa);

	if (v1->dpd_asked_ms != 0) {
		dpd_ask(v1);
	} else if (!dpd_wanted(v1)) {
		return;
	} else if (idle < sa->conn->dpd_delay_ms) {
		dpd_in(v1, sa->conn->dpd_delay_ms - idle);
	} else if (child == NULL ||
	           install_query(sa->env, child, sa_ticket(sa, NULL, child),
	               dpd_queried) != OK) {
		dpd_ask(v1);
	} else {
		/* Should the answer never come. */
		dpd_in(v1, sa->conn->dpd_delay_ms);
	}
}

enum err
v1_info_probe(struct ike_sa *sa)
{
	struct v1_sa *v1 = v1_sa(sa);

	if (sa->established_ms == 0 || v1->husk)
		return ERR_WRONG_STATE;
	if (!(v1->vendors & V1_VENDOR_DPD))
		return ERR_UNSUPPORTED; /* RFC 3706 5.1: both must agree */
	if (v1->dpd_asked_ms == 0)
		dpd_ask(v1);
	return OK;
}

/* Steps ----------------------------------------------------------------- */

/* Both ends hash with one key, so that a question of ours, reflected, looks
 * like the peer's. The peer's own numbers, random as ours, are elsewhere. */
static bool
is_reflected(const struct v1_sa *v1, uint32_t sequence)
{
	return v1->dpd_out != 0 &&
	       sequence - v1->dpd_first <= v1->dpd_out - v1->dpd_first;
}

static bool
is_fresh(const struct v1_sa *v1, uint32_t sequence)
{
	return !v1->dpd_in_known || (int32_t)(sequence - v1->dpd_in) > 0;
}

/* RFC 3706 5.3: always answered. An old sequence number is a replay, or a
 * repeat: answered if it is the last one. */
enum verdict
v1_info_there(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_sa *v1 = v1_sa(sa);
	struct v1_exchange *x = v1_exchange(base);
	struct view data = msg_payload(msg, KIND_N_R_U_THERE, 0)->notify.data;
	uint32_t sequence;

	if (!view_u32(&data, &sequence))
		return fsm_fail(
		    base, ERR_SYNTAX, 0, "R-U-THERE without a sequence number");
	if (is_reflected(v1, sequence))
		return IGNORE;
	if (is_fresh(v1, sequence)) {
		v1->dpd_in = sequence;
		v1->dpd_in_known = true;
		v1_follow(v1, &x->local, &x->remote, x->natt, false);
		v1_info_alive(v1);
	} else if (sequence != v1->dpd_in) {
		return IGNORE;
	}
	there_send(v1, N1_R_U_THERE_ACK, sequence);
	return DONE;
}

enum verdict
v1_info_ack(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_sa *v1 = v1_sa(sa);
	struct v1_exchange *x = v1_exchange(base);
	struct view data =
	    msg_payload(msg, KIND_N_R_U_THERE_ACK, 0)->notify.data;
	uint32_t sequence;

	if (!view_u32(&data, &sequence) || v1->dpd_asked_ms == 0 ||
	    v1->dpd_out - sequence >= DPD_WINDOW ||
	    v1->dpd_out - sequence >= v1->dpd_out - v1->dpd_acked)
		return IGNORE; /* RFC 3706 5.4: a replay, among others */
	v1->dpd_acked = sequence;
	v1_follow(v1, &x->local, &x->remote, x->natt, false);
	v1_info_alive(v1);
	return DONE;
}

static void
delete_ipsec(struct v1_sa *v1, struct view spis, size_t count)
{
	uint32_t spi;

	while (count-- > 0 && view_u32(&spis, &spi))
		v1_child_deleted(v1, spi);
}

static void
delete_isakmp(struct v1_sa *v1, struct view spis, size_t count)
{
	uint64_t spi_i, spi_r;

	while (
	    count-- > 0 && view_u64(&spis, &spi_i) && view_u64(&spis, &spi_r))
		v1_life_sa_deleted(v1, spi_i, spi_r);
}

/* Children first: a peer that closes all says so in one message. */
enum verdict
v1_info_deletes(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_sa *v1 = v1_sa(sa);

	for (int pass = PROTO_ESP; pass >= PROTO_IKE; pass -= 2) {
		const struct payload *payload;

		for (unsigned n = 0;
		     (payload = msg_payload(msg, KIND_DELETE, n)) != NULL;
		     n++) {
			struct view at = payload->body;
			uint32_t doi;
			uint8_t protocol, size;
			uint16_t count;

			if (!view_u32(&at, &doi) || !view_u8(&at, &protocol) ||
			    !view_u8(&at, &size) || !view_u16(&at, &count) ||
			    at.len != (size_t)size * count)
				return fsm_fail(
				    base, ERR_SYNTAX, 0, "malformed Delete");
			if (protocol != pass)
				continue;
			if (protocol == PROTO_ESP && size == 4)
				delete_ipsec(v1, at, count);
			else if (protocol == PROTO_IKE && size == 16)
				delete_isakmp(v1, at, count);
		}
	}
	return DONE;
}

enum verdict
v1_info_contact(struct ike_sa *sa, struct exchange *x, struct msg *msg)
{
	(void)x;
	(void)msg;
	v1_life_contact(v1_sa(sa));
	return DONE;
}

static const char *
notify_text(const struct payload *notify, char text[static 32])
{
	if (notify->kind != KIND_N_ERROR)
		return kind_text((enum kind)notify->kind);
	snprintf(text, 32, "notify %u", notify->notify.type);
	return text;
}

/* An error under protection: of phase 1 in its last step, or of a Quick Mode
 * of ours, which its SPI names. */
enum verdict
v1_info_errors(struct ike_sa *sa, struct exchange *x, struct msg *msg)
{
	const struct payload *error = msg_error(msg);
	struct view spi;
	uint32_t number = 0;
	char text[32], line[80];

	(void)x;
	if (error == NULL)
		return v1_info_status(sa, x, msg);
	snprintf(line, sizeof(line), "the peer refused: %s",
	    notify_text(error, text));
	sa_log(sa, LOG_LEVEL_WARNING, "%s", line);
	explain_refused(sa->env, sa, sa->conn, sa->established_ms != 0,
	    (enum kind)error->kind);
	if (sa->established_ms == 0) {
		sa_kill(sa, ERR_PEER, true, line);
		return DONE;
	}
	spi = error->notify.spi;
	if (error->notify.protocol == PROTO_ESP && spi.len == 4)
		view_u32(&spi, &number);
	v1_quick_refused(v1_sa(sa), number, line);
	return DONE;
}

enum verdict
v1_info_status(struct ike_sa *sa, struct exchange *x, struct msg *msg)
{
	char text[256];

	(void)x;
	sa_log(sa, LOG_LEVEL_DEBUG, "informational: %s",
	    msg_text(msg, text, sizeof(text)));
	return DONE;
}

/* Anybody may have sent this. */
enum verdict
v1_info_unprotected(struct ike_sa *sa, struct exchange *x, struct msg *msg)
{
	const struct payload *error = msg_error(msg);
	char text[256];

	(void)x;
	if (limit_log(sa->env->limit))
		sa_log(sa, LOG_LEVEL_INFO, "unprotected, not believed: %s%s",
		    msg_text(msg, text, sizeof(text)),
		    error != NULL && sa->established_ms == 0
		        ? " (does the peer accept our proposals?)"
		        : "");
	if (error != NULL && sa->established_ms == 0)
		v1_life_hint(v1_sa(sa), (enum kind)error->kind);
	/* The peer may have lost its state: ask, if it was silent. */
	if (error != NULL && sa->established_ms != 0 &&
	    env_now(sa->env) - sa->last_in_ms > HINT_MS)
		v1_info_probe(sa);
	return DONE;
}
