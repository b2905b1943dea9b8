#include "ikev1/quick.h"

#include <stdlib.h>
#include <string.h>

#include "common/terms.h"
#include "ikev1/child.h"
#include "ikev1/info.h"
#include "ikev1/life.h"
#include "ikev1/peer.h"
#include "ikev1/rules.h"
#include "ikev1/select.h"
#include "kernel/install.h"

#define PAIRS_MAX  64    /* Quick Modes begun at once for one connection */
#define RETRY_MS   30000 /* after a renewal that failed */
#define TURN_MS    4000  /* for Quick Modes without an answer, others wait */
#define NATOA_ADDR 4     /* offset of the address in NAT-OA (RFC 3947 5.2) */

/* Small things ---------------------------------------------------------- */

struct child_sa *
v1_quick_child(const struct v1_exchange *x)
{
	return x->quick == NULL
	           ? NULL
	           : child_by_serial(x->x.sa->env->sadb, x->quick->child);
}

struct v1_exchange *
v1_quick_of(const struct child_sa *child)
{
	for (struct exchange *x = child->sa->exchanges; x != NULL; x = x->next)
		if (x->type == EXCH_QUICK && v1_exchange(x)->quick != NULL &&
		    v1_exchange(x)->quick->child == child->serial)
			return v1_exchange(x);
	return NULL;
}

struct view
v1_quick_nonce_i(const struct v1_quick *quick)
{
	return view_of(quick->nonce_i, quick->nonce_i_len);
}

struct view
v1_quick_nonce_r(const struct v1_quick *quick)
{
	return view_of(quick->nonce_r, quick->nonce_r_len);
}

enum verdict
v1_quick_gone(struct exchange *base)
{
	return fsm_fail(base, ERR_CANCELLED, 0, "the child has gone");
}

/* Answers to install's requests and DH jobs. */
void
v1_quick_installed(
    struct env *env, struct ticket ticket, enum err err, const char *text)
{
	struct v1_exchange *x = v1_awaiting(env, ticket);

	if (x == NULL)
		return;
	if (err != OK)
		fsm_fail(&x->x, err, N1_NO_PROPOSAL_CHOSEN,
		    "the data plane refused: %s",
		    text != NULL ? text : err_text(err));
	v1_landed(x, err);
}

void
v1_quick_exchanged(
    struct env *env, struct ticket ticket, struct dh_result *result)
{
	struct v1_exchange *x = v1_awaiting(env, ticket);

	if (x == NULL)
		return;
	if (result->err == OK) {
		kex_free(x->quick->kex);
		x->quick->kex = result->own;
		result->own = NULL;
		secret_move(&x->quick->shared, &result->shared);
	}
	v1_landed(x, result->err);
}

/* Notes that one more answer is awaited. */
enum verdict
v1_quick_await(struct v1_exchange *x, enum err submitted)
{
	if (submitted != OK)
		return fsm_fail(&x->x, submitted, N1_NO_PROPOSAL_CHOSEN,
		    "cannot ask for it: %s", err_text(submitted));
	x->pending++;
	return WAIT;
}

/* RFC 2409 5.5: KEYMAT of each direction, by the receiver's SPI. */
enum err
v1_quick_keys(
    struct v1_sa *v1, const struct v1_quick *quick, struct child_sa *child)
{
	const struct suite *suite = &child->suite;
	size_t len = alg_keymat(suite->encr) +
	             (suite->integ != NULL ? alg_keymat(suite->integ) : 0);
	struct view shared = secret_view(&quick->shared);
	enum err err = secret_new(&child->keys_in, len);

	if (err == OK)
		err = secret_new(&child->keys_out, len);
	if (err == OK)
		err = v1_key_mat(&v1->keys, shared, PROTO_ESP, child->spi_in,
		    v1_quick_nonce_i(quick), v1_quick_nonce_r(quick),
		    &child->keys_in);
	if (err == OK)
		err = v1_key_mat(&v1->keys, shared, PROTO_ESP, child->spi_out,
		    v1_quick_nonce_i(quick), v1_quick_nonce_r(quick),
		    &child->keys_out);
	return err;
}

static enum v1_mode
mode_of(const struct child_sa *child)
{
	if (child->mode == MODE_TUNNEL)
		return child->encap ? V1_MODE_UDP_TUNNEL : V1_MODE_TUNNEL;
	return child->encap ? V1_MODE_UDP_TRANSPORT : V1_MODE_TRANSPORT;
}

/* NAT-OA ---------------------------------------------------------------- */

static void
natoa_put(struct v1_out *out, const struct addr *addr)
{
	wire_begin(&out->wire, P1_NAT_OA, false);
	buf_u8(
	    &out->buf, addr->family == ADDR_V4 ? ID_IPV4_ADDR : ID_IPV6_ADDR);
	buf_zero(&out->buf, 3);
	buf_view(&out->buf, addr_view(addr));
	wire_end(&out->wire);
}

/* RFC 3947 5.2: only in transport mode; the initiator's address first, both as
 * the sender sees them. */
void
v1_quick_natoa_write(
    struct v1_out *out, const struct child_sa *child, bool initiator)
{
	if (child->mode != MODE_TRANSPORT || !child->encap)
		return;
	natoa_put(out, initiator ? &child->local.addr : &child->remote.addr);
	natoa_put(out, initiator ? &child->remote.addr : &child->local.addr);
}

static void
natoa_take(const struct msg *msg, unsigned n, struct endpoint *into)
{
	const struct payload *natoa = msg_payload(msg, KIND_NATOA, n);
	struct view body;

	if (natoa == NULL)
		return;
	body = natoa->body;
	if (view_skip(&body, NATOA_ADDR))
		addr_from_view(&into->addr, body);
}

void
v1_quick_natoa_read(
    const struct msg *msg, struct child_sa *child, bool initiator)
{
	if (child->mode != MODE_TRANSPORT || !child->encap)
		return;
	natoa_take(
	    msg, 0, initiator ? &child->natoa_local : &child->natoa_remote);
	natoa_take(
	    msg, 1, initiator ? &child->natoa_remote : &child->natoa_local);
}

/* Beginning ------------------------------------------------------------- */

static bool
is_ours(const struct exchange *x)
{
	return x->type == EXCH_QUICK && x->role == ROLE_INITIATOR &&
	       v1_exchange((struct exchange *)x)->quick != NULL;
}

/* The one that has waited longest for its turn, or NULL. */
static struct v1_exchange *
next_turn(const struct v1_sa *v1)
{
	struct v1_exchange *next = NULL;

	for (struct exchange *x = v1->ike.exchanges; x != NULL; x = x->next) {
		struct v1_exchange *one = v1_exchange(x);

		if (is_ours(x) && one->quick->begun_ms == 0 &&
		    (next == NULL || one->quick->child < next->quick->child))
			next = one;
	}
	return next;
}

/* Interop: strongSwan keeps the IVs of the three newest exchanges of phase 2
 * and cannot read what belongs to older ones. A batch of ours must be through
 * before the next begins, and one IV is left for an Informational. */
static bool
may_begin(struct v1_sa *v1)
{
	uint64_t now = env_now(v1->ike.env);
	bool under_way = false;

	for (struct exchange *x = v1->ike.exchanges; x != NULL; x = x->next)
		if (is_ours(x) && v1_exchange(x)->quick->begun_ms != 0 &&
		    now < v1_exchange(x)->quick->begun_ms + TURN_MS)
			under_way = true;
	if (!under_way)
		v1->batch = 0;
	return v1->batch < V1_QUICK_BATCH;
}

/* One that was replaced meanwhile still brings to an end what waits. */
static bool
serves(const struct v1_sa *v1)
{
	return v1->ike.state == IKE_ESTABLISHED ||
	       (v1->ike.state == IKE_REKEYED && !v1->husk && !v1->deleting);
}

static void
take_turns(struct v1_sa *v1)
{
	struct v1_exchange *x;

	sa_hold(&v1->ike);
	while ((x = next_turn(v1)) != NULL) {
		if (!serves(v1) || !may_begin(v1)) {
			timer_set(v1->ike.env->timers, &x->linger, TURN_MS);
			break;
		}
		v1->batch++;
		x->quick->begun_ms = env_now(v1->ike.env) + 1;
		timer_stop(v1->ike.env->timers, &x->linger);
		fsm_begin(&v1_fsm, &x->x, v1_rule_quick_begin());
	}
	sa_release(&v1->ike);
}

void
v1_quick_turn(struct v1_exchange *x)
{
	take_turns(v1_sa(x->x.sa));
}

void
v1_quick_pass_on(struct v1_sa *v1)
{
	struct v1_exchange *x = next_turn(v1);

	if (x != NULL)
		timer_set(v1->ike.env->timers, &x->linger, 0);
}

static enum err
start(struct v1_sa *v1, struct conn *conn, const struct ts *local,
    const struct ts *remote, uint64_t rekeys)
{
	struct ike_sa *sa = &v1->ike;
	struct child_sa *child;
	struct v1_exchange *x;
	uint64_t serial;
	uint32_t id = v1_message_id(v1);

	if (id == 0)
		return ERR_CRYPTO;
	x = v1_exchange_new(sa, EXCH_QUICK, ROLE_INITIATOR, V1_QUICK_BEGIN, id);
	if (x == NULL)
		return ERR_NOMEM;
	x->quick = calloc(1, sizeof(*x->quick));
	child = x->quick != NULL ? child_new(sa, conn, true) : NULL;
	if (child == NULL) {
		exchange_end(&x->x);
		return ERR_NOMEM;
	}
	v1_see(v1, id);
	v1_child_init(child);
	ts_list_add(&child->ts_local, local);
	ts_list_add(&child->ts_remote, remote);
	serial = child->serial;
	x->quick->child = serial;
	x->quick->rekeys = rekeys;
	x->quick->local = *local;
	x->quick->remote = *remote;
	take_turns(v1);
	return child_by_serial(sa->env->sadb, serial) != NULL ? OK
	                                                      : ERR_REFUSED;
}

/* A child that is there already with these selectors is renewed. */
static uint64_t
existing(struct v1_sa *v1, struct conn *conn, const struct ts *local,
    const struct ts *remote)
{
	for (struct child_sa *child = v1->ike.children; child != NULL;
	     child = child->next)
		if (child->state == CHILD_UP &&
		    strcmp(child->conn->name, conn->name) == 0 &&
		    child->rekeyed_by == 0 && child->ts_local.count == 1 &&
		    child->ts_remote.count == 1 &&
		    ts_equal(&child->ts_local.item[0], local) &&
		    ts_equal(&child->ts_remote.item[0], remote))
			return child->serial;
	return 0;
}

static bool
pair_wanted(
    const struct ts *local, const struct ts *remote, const struct ts packet[2])
{
	if (local->first.family != remote->first.family)
		return false;
	return packet[0].first.family == ADDR_NONE ||
	       (ts_within(&packet[0], local) && ts_within(&packet[1], remote));
}

/* One Quick Mode for each pair of selectors; for a packet, for the first pair
 * that it belongs to. */
enum err
v1_quick_conn(struct ike_sa *sa, struct conn *conn, const struct ts packet[2])
{
	struct v1_sa *v1 = v1_current(sa);
	bool all = packet[0].first.family == ADDR_NONE;
	struct ts_list local, remote;
	unsigned begun = 0;
	enum err err = ERR_TS;

	if (v1 == NULL)
		return ERR_WRONG_STATE;
	sa = &v1->ike;
	conn_ts(&conn->local, &sa->local.addr, &local);
	conn_ts(&conn->remote, &sa->remote.addr, &remote);
	sa_hold(sa);
	for (unsigned i = 0; i < local.count; i++)
		for (unsigned j = 0; j < remote.count; j++) {
			const struct ts *l = &local.item[i];
			const struct ts *r = &remote.item[j];

			if (!pair_wanted(l, r, packet) ||
			    sa->state != IKE_ESTABLISHED ||
			    begun >= (all ? PAIRS_MAX : 1u))
				continue;
			err = start(v1, conn, l, r, existing(v1, conn, l, r));
			if (err == OK)
				begun++;
		}
	sa_release(sa);
	return begun > 0 ? OK : err;
}

enum err
v1_quick_rekey(struct child_sa *child)
{
	struct v1_sa *v1 = v1_current(child->sa);
	struct env *env = child->sa->env;
	struct ts_list local, remote;
	struct conn *conn;

	if (child->state != CHILD_UP || child->rekeyed_by != 0)
		return ERR_WRONG_STATE;
	/* RFC 2409 5.5: a Quick Mode has the selectors that it has. What the
	 * connection does not allow any more gets another one. */
	local.count = remote.count = 1;
	local.item[0] = child->ts_local.item[0];
	remote.item[0] = child->ts_remote.item[0];
	v1_select_here(child->sa, child->mode, &local.item[0], &remote.item[0]);
	if (!terms_child(child, &local, &remote)) {
		terms_end_child(child);
		return OK;
	}
	/* Until one of them has worked, or the child expires. */
	timer_set(env->timers, &child->rekey_timer, RETRY_MS);
	if (v1 == NULL)
		return v1_life_renew(child->sa);
	for (struct exchange *x = v1->ike.exchanges; x != NULL; x = x->next)
		if (x->type == EXCH_QUICK && v1_exchange(x)->quick != NULL &&
		    v1_exchange(x)->quick->rekeys == child->serial)
			return OK; /* under way */
	/* What is in force under the same name counts from now on. */
	conn = conn_now(env->policy, child->conn, 1);
	return start(v1, conn, &child->ts_local.item[0],
	    &child->ts_remote.item[0], child->serial);
}

/* Initiator ------------------------------------------------------------- */

enum verdict
v1_quick_prepare(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct child_sa *child = v1_quick_child(x);
	struct v1_quick *quick = x->quick;
	const struct alg *group;
	struct ticket ticket;

	(void)msg;
	if (child == NULL)
		return v1_quick_gone(base);
	if (!v1_select_sayable(&quick->local) ||
	    !v1_select_sayable(&quick->remote))
		return fsm_fail(base, ERR_TS, 0,
		    "IKEv1 knows one port or all, not a range of them");
	quick->nonce_i_len = VAULT_NONCE;
	if (!env_random(sa->env, quick->nonce_i, VAULT_NONCE))
		return fsm_fail(base, ERR_CRYPTO, 0, "no random numbers");
	ticket = sa_ticket(sa, base, child);
	if (v1_quick_await(x, install_spi(sa->env, child, ticket,
	                          v1_quick_installed)) == FAIL)
		return FAIL;
	group = v1_sapay_pfs(&child->conn->esp);
	if (group != NULL)
		return v1_quick_await(x, dh_generate(sa->env->workers, group,
		                             ticket, v1_quick_exchanged));
	return WAIT;
}

static void
ids_write(
    struct v1_out *out, const struct ts *initiator, const struct ts *responder)
{
	wire_begin(&out->wire, P1_ID, false);
	v1_select_write(&out->buf, initiator);
	wire_end(&out->wire);
	wire_begin(&out->wire, P1_ID, false);
	v1_select_write(&out->buf, responder);
	wire_end(&out->wire);
}

static enum err
offer_build(struct v1_quick *quick, const struct child_sa *child)
{
	uint8_t octets[3072];
	struct buf buf;
	struct v1_esp_offer offer = { .ours = &child->conn->esp,
		.usable = &child->sa->env->usable,
		.group = v1_sapay_pfs(&child->conn->esp),
		.spi = child->spi_in,
		.mode = mode_of(child),
		.seconds = (uint32_t)(child->conn->lifetime_ms / 1000) };

	buf_init(&buf, octets, sizeof(octets));
	if (v1_sapay_offer_esp(&buf, &offer) == 0 || buf.full)
		return ERR_NO_PROPOSAL;
	quick->offer = mem_dup(octets, buf.len);
	quick->offer_len = buf.len;
	return quick->offer != NULL ? OK : ERR_NOMEM;
}

enum verdict
v1_quick_seal(struct v1_exchange *x, struct v1_out *out, bool timed)
{
	enum err err = v1_out_send(out, x, true, timed);

	return err == OK ? DONE
	                 : fsm_fail(&x->x, ERR_CRYPTO, 0, "cannot send: %s",
	                       err_text(err));
}

/* QM1: HDR*, HASH(1), SA, Ni, [KE], IDci, IDcr, [NAT-OA, NAT-OA] */
enum verdict
v1_quick_send1(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct child_sa *child = v1_quick_child(x);
	struct v1_quick *quick = x->quick;
	struct v1_sa *v1 = v1_sa(sa);
	struct v1_out out;
	enum err err;

	(void)msg;
	if (child == NULL || v1->keys.octets.len == 0)
		return v1_quick_gone(base);
	err = offer_build(quick, child);
	if (err == ERR_NO_PROPOSAL)
		return fsm_fail(
		    base, err, 0, "no proposal in esp= can be said in IKEv1");
	if (err == OK)
		err = v1_key_iv_phase2(&v1->keys, v1->iv, base->id, x->iv);
	if (err != OK)
		return fsm_fail(base, err, 0, "%s", err_text(err));
	x->iv_set = true;
	v1_out_begin(&out, sa, EXCH_QUICK, base->id);
	v1_out_hash(&out, v1);
	wire_payload(&out.wire, P1_SA, view_of(quick->offer, quick->offer_len));
	wire_payload(&out.wire, P1_NONCE, v1_quick_nonce_i(quick));
	if (quick->kex != NULL)
		wire_payload(&out.wire, P1_KE, kex_public(quick->kex));
	ids_write(&out, &quick->local, &quick->remote);
	quick->ids = true;
	v1_quick_natoa_write(&out, child, true);
	err = v1_out_hash1(&out, v1, base->id);
	if (err != OK)
		return fsm_fail(base, err, 0, "%s", err_text(err));
	return v1_quick_seal(x, &out, true);
}

/* The answer's nonce and public value, which must come with a group and not
 * without one. */
enum verdict
v1_quick_take_nonce(struct v1_exchange *x, const struct msg *msg,
    const struct alg *group, uint8_t *into, uint16_t *len)
{
	struct view nonce = msg_payload(msg, KIND_NONCE, 0)->body;
	const struct payload *ke = msg_payload(msg, KIND_KE, 0);

	if (nonce.len < V1_NONCE_MIN || nonce.len > V1_NONCE_MAX)
		return fsm_fail(&x->x, ERR_SYNTAX, N1_PAYLOAD_MALFORMED,
		    "nonce of %zu octets (RFC 2409 5: 8 to 256)", nonce.len);
	if ((ke != NULL) != (group != NULL))
		return fsm_fail(&x->x, ERR_KE, N1_INVALID_KEY_INFORMATION,
		    "KE and group do not go together");
	if (ke != NULL && kex_check(group, ke->body) != OK)
		return fsm_fail(&x->x, ERR_KE, N1_INVALID_KEY_INFORMATION,
		    "public value breaks RFC 6989 2");
	memcpy(into, nonce.at, nonce.len);
	*len = (uint16_t)nonce.len;
	return DONE;
}

/* RFC 2409 5.5: the answer's identities are those of the offer. Interop: some
 * peers narrow them; narrower ones are taken, wider ones never. */
static enum verdict
take_answered_ids(
    struct v1_exchange *x, const struct msg *msg, struct child_sa *child)
{
	struct v1_quick *quick = x->quick;
	struct ts local, remote;
	enum err err = v1_select_of(msg, &local, &remote);

	if (err == ERR_NOT_FOUND)
		return DONE; /* as offered */
	if (err == OK && child->mode == MODE_TRANSPORT && child->encap) {
		/* The peer's view of the addresses is not ours. */
		local.first = local.last = quick->local.first;
		remote.first = remote.last = quick->remote.first;
	}
	if (err != OK || !ts_within(&local, &quick->local) ||
	    !ts_within(&remote, &quick->remote))
		return fsm_fail(&x->x, ERR_TS, N1_INVALID_ID_INFORMATION,
		    "the answer's identities are not those offered");
	child->ts_local.item[0] = local;
	child->ts_remote.item[0] = remote;
	return DONE;
}

/* RFC 2407 4.6.3.1: the responder's lifetime, where it is shorter. */
static uint32_t
responder_lifetime(const struct msg *msg)
{
	const struct payload *notify =
	    msg_payload(msg, KIND_N_RESPONDER_LIFETIME, 0);

	return notify == NULL ? 0 : v1_sapay_lifetime(notify->notify.data);
}

static enum err
accept_answer(const struct v1_quick *quick, const struct msg *msg,
    struct v1_transform *given, const struct v1_transform **chosen,
    struct v1_sapay *ours)
{
	struct v1_sapay answer;
	enum err err = v1_sapay_read(
	    &answer, msg_payload(msg, KIND_SA, 0)->body, PROTO_ESP);

	if (err == OK)
		err = v1_sapay_read(
		    ours, view_of(quick->offer, quick->offer_len), PROTO_ESP);
	if (err == OK)
		err = v1_sapay_accept(ours, &answer, chosen);
	if (err == OK)
		*given = answer.item[0];
	return err;
}

/* QM2: HDR*, HASH(2), SA, Nr, [KE], [IDci, IDcr], [N(RESPONDER-LIFETIME)] */
enum verdict
v1_quick_take2(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct v1_quick *quick = x->quick;
	struct child_sa *child = v1_quick_child(x);
	const struct v1_transform *chosen = NULL;
	struct v1_transform given;
	struct v1_sapay ours;
	uint32_t told;

	if (child == NULL)
		return v1_quick_gone(base);
	if (msg->payload[1].kind != KIND_SA ||
	    accept_answer(quick, msg, &given, &chosen, &ours) != OK ||
	    v1_sapay_suite(chosen, PROTO_ESP, &child->suite) != OK)
		return fsm_fail(base, ERR_NO_PROPOSAL, N1_NO_PROPOSAL_CHOSEN,
		    "the answer names no transform that was offered");
	child->spi_out = given.spi;
	if (v1_quick_take_nonce(x, msg, child->suite.kex, quick->nonce_r,
	        &quick->nonce_r_len) != DONE ||
	    take_answered_ids(x, msg, child) != DONE)
		return FAIL;
	v1_quick_natoa_read(msg, child, true);
	told = responder_lifetime(msg);
	v1_child_lifetime(child,
	    told != 0 && told < chosen->seconds ? told : chosen->seconds);
	if (child->suite.kex == NULL)
		return DONE;
	if (quick->kex == NULL)
		return v1_quick_gone(base);
	if (v1_quick_await(
	        x, dh_derive(sa->env->workers, quick->kex,
	               msg_payload(msg, KIND_KE, 0)->body,
	               sa_ticket(sa, base, child), v1_quick_exchanged)) == FAIL)
		return FAIL;
	quick->kex = NULL;
	return WAIT;
}

enum verdict
v1_quick_install(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct child_sa *child = v1_quick_child(x);
	enum err err;

	(void)msg;
	if (child == NULL || v1_sa(sa)->keys.octets.len == 0)
		return v1_quick_gone(base);
	err = v1_quick_keys(v1_sa(sa), x->quick, child);
	if (err != OK)
		return fsm_fail(base, err, 0, "cannot derive keys");
	return v1_quick_await(
	    x, install_both(sa->env, child, sa_ticket(sa, base, child),
	           v1_quick_installed));
}

/* QM3: HDR*, HASH(3) */
enum verdict
v1_quick_send3(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct v1_quick *quick = x->quick;
	struct child_sa *child = v1_quick_child(x);
	struct v1_sa *v1 = v1_sa(sa);
	uint8_t hash[PRF_MAX];
	struct v1_out out;

	(void)msg;
	if (child == NULL || v1->keys.octets.len == 0)
		return v1_quick_gone(base);
	secret_free(&child->keys_in);
	secret_free(&child->keys_out);
	if (v1_key_hash3(&v1->keys, base->id, v1_quick_nonce_i(quick),
	        v1_quick_nonce_r(quick), hash) != OK)
		return fsm_fail(base, ERR_CRYPTO, 0, "cannot hash");
	v1_out_begin(&out, sa, EXCH_QUICK, base->id);
	wire_payload(&out.wire, P1_HASH, view_of(hash, v1->keys.prf->out));
	if (v1_quick_seal(x, &out, false) != DONE)
		return FAIL;
	v1_child_up(child, quick->rekeys);
	return DONE;
}

/* The table's callbacks, and ends --------------------------------------- */

void
v1_quick_moved(struct v1_sa *v1, struct v1_exchange *x)
{
	if (x->x.state != V1_QUICK_DONE)
		return;
	if (x->x.role == ROLE_RESPONDER) {
		exchange_end(&x->x);
		return;
	}
	/* QM3 stays for repeats of QM2; each repeat shows that it is still
	 * wanted. */
	v1_quick_free(x->quick);
	x->quick = NULL;
	timer_set(v1->ike.env->timers, &x->linger, V1_LINGER_MS);
	v1_quick_pass_on(v1);
}

/* The Quick Mode fails, and its child with it; what it was to renew is tried
 * again later, until it expires. */
static void
fail(struct v1_exchange *x, enum err err, bool by_peer, const char *text)
{
	struct child_sa *child = v1_quick_child(x);
	struct v1_sa *v1 = v1_sa(x->x.sa);

	exchange_end(&x->x);
	v1_quick_pass_on(v1);
	if (child != NULL)
		v1_child_kill(child, err, by_peer, text);
}

void
v1_quick_failed(struct v1_sa *v1, struct v1_exchange *x)
{
	struct child_sa *child = v1_quick_child(x);
	char text[sizeof(x->x.error.text)];
	enum err err = x->x.error.err;
	uint32_t spi_in = child != NULL ? child->spi_in : 0;
	uint32_t spi_out = child != NULL      ? child->spi_out
	                   : x->quick != NULL ? x->quick->offered
	                                      : 0;

	memcpy(text, x->x.error.text, sizeof(text));
	sa_log(&v1->ike, LOG_LEVEL_WARNING, "Quick Mode: %s", text);
	if (x->x.error.notify != 0 &&
	    (x->x.role == ROLE_RESPONDER || x->x.state != V1_QUICK_BEGIN))
		v1_info_notify(v1, PROTO_ESP, spi_out, x->x.error.notify);
	/* The peer has an SA already, or waits for our last message. */
	if (x->x.state != V1_QUICK_BEGIN && spi_in != 0)
		v1_info_delete_children(v1, &spi_in, 1);
	fail(x, err, false, text);
}

void
v1_quick_refused(struct v1_sa *v1, uint32_t spi, const char *text)
{
	struct v1_exchange *only = NULL;
	unsigned waiting = 0;

	for (struct exchange *base = v1->ike.exchanges; base != NULL;
	     base = base->next) {
		struct v1_exchange *x = v1_exchange(base);
		struct child_sa *child;

		if (base->type != EXCH_QUICK || base->role != ROLE_INITIATOR ||
		    base->state != V1_QUICK_SENT1 || base->waiting)
			continue;
		child = v1_quick_child(x);
		if (spi != 0 && child != NULL && child->spi_in == spi) {
			fail(x, ERR_PEER, true, text);
			return;
		}
		only = x;
		waiting++;
	}
	if (waiting == 1)
		fail(only, ERR_PEER, true, text);
}

static bool
carries_traffic(const struct ike_sa *sa)
{
	for (const struct child_sa *child = sa->children; child != NULL;
	     child = child->next)
		if (child->state == CHILD_UP)
			return true;
	return false;
}

/* The peer has said nothing at all for minutes. It is asked whether it lives,
 * if it can be asked; where children may still carry traffic, a new ISAKMP SA
 * is tried; else it has gone, and so has its half of this one. */
static void
silent(struct v1_sa *v1)
{
	static const char text[] = "the peer does not answer";
	struct ike_sa *sa = &v1->ike;

	if (v1_info_probe(sa) == OK)
		return;
	if (carries_traffic(sa)) {
		v1_life_renew(sa);
		return;
	}
	sa_event(sa, NULL, EVENT_PEER_DEAD, ERR_TIMEOUT, false, text);
	sa_kill(sa, ERR_TIMEOUT, false, text);
}

/* A peer that speaks of other things refuses a Quick Mode in its own way. */
void
v1_quick_timeout(struct v1_exchange *x)
{
	struct ike_sa *sa = x->x.sa;
	struct child_sa *child = v1_quick_child(x);
	uint64_t begun = child != NULL ? child->created_ms : 0;
	bool nothing = x->x.role == ROLE_INITIATOR && sa->last_in_ms < begun;

	sa_hold(sa);
	sa_log(sa, LOG_LEVEL_WARNING, "Quick Mode: the peer does not answer");
	fail(x, ERR_TIMEOUT, false, "the peer does not answer");
	if (nothing && sa->state != IKE_DEAD)
		silent(v1_sa(sa));
	sa_release(sa);
}
