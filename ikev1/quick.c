#include "ikev1/quick.h"

#include <stdlib.h>
#include <string.h>

#include "common/explain.h"
#include "ikev1/info.h"
#include "ikev1/life.h"
#include "ikev1/rules.h"
#include "ikev1/select.h"
#include "kernel/install.h"

#define PAIRS_MAX   64     /* Quick Modes begun at once for one connection */
#define RETRY_MS    30000  /* after a renewal that failed */
#define NATOA_ADDR  4      /* offset of the address in NAT-OA (RFC 3947 5.2) */
#define LIFE_TYPE   0x8001 /* RFC 2407 4.5, as TV */
#define LIFE_LENGTH 0x0002

/* Small things ---------------------------------------------------------- */

static struct child_sa *
child_of(const struct v1_exchange *x)
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

static struct view
nonce_i(const struct v1_quick *quick)
{
	return view_of(quick->nonce_i, quick->nonce_i_len);
}

static struct view
nonce_r(const struct v1_quick *quick)
{
	return view_of(quick->nonce_r, quick->nonce_r_len);
}

static enum verdict
gone(struct exchange *base)
{
	return fsm_fail(base, ERR_CANCELLED, 0, "the child has gone");
}

/* Answers to install's requests and DH jobs. */
static void
installed(struct env *env, struct ticket ticket, enum err err, const char *text)
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

static void
exchanged(struct env *env, struct ticket ticket, struct dh_result *result)
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
static enum verdict
awaiting(struct v1_exchange *x, enum err submitted)
{
	if (submitted != OK)
		return fsm_fail(&x->x, submitted, N1_NO_PROPOSAL_CHOSEN,
		    "cannot ask for it: %s", err_text(submitted));
	x->pending++;
	return WAIT;
}

/* RFC 2409 5.5: KEYMAT of each direction, by the receiver's SPI. */
static enum err
derive_keys(
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
		    nonce_i(quick), nonce_r(quick), &child->keys_in);
	if (err == OK)
		err = v1_key_mat(&v1->keys, shared, PROTO_ESP, child->spi_out,
		    nonce_i(quick), nonce_r(quick), &child->keys_out);
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
static void
natoa_write(struct v1_out *out, const struct child_sa *child, bool initiator)
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

static void
natoa_read(const struct msg *msg, struct child_sa *child, bool initiator)
{
	if (child->mode != MODE_TRANSPORT || !child->encap)
		return;
	natoa_take(
	    msg, 0, initiator ? &child->natoa_local : &child->natoa_remote);
	natoa_take(
	    msg, 1, initiator ? &child->natoa_remote : &child->natoa_local);
}

/* Beginning ------------------------------------------------------------- */

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
	v1_life_child_init(child);
	ts_list_add(&child->ts_local, local);
	ts_list_add(&child->ts_remote, remote);
	serial = child->serial;
	x->quick->child = serial;
	x->quick->rekeys = rekeys;
	x->quick->local = *local;
	x->quick->remote = *remote;
	fsm_begin(&v1_fsm, &x->x, v1_rule_quick_begin());
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
	struct v1_sa *v1 = v1_life_current(sa);
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
	struct v1_sa *v1 = v1_life_current(child->sa);
	struct env *env = child->sa->env;
	struct ts local, remote;
	struct conn *conn;

	if (child->state != CHILD_UP || child->rekeyed_by != 0)
		return ERR_WRONG_STATE;
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
	local = child->ts_local.item[0];
	remote = child->ts_remote.item[0];
	if (!v1_select_fits(&v1->ike, conn, &local, &remote))
		conn = child->conn;
	return start(v1, conn, &child->ts_local.item[0],
	    &child->ts_remote.item[0], child->serial);
}

/* Initiator ------------------------------------------------------------- */

enum verdict
v1_quick_prepare(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct child_sa *child = child_of(x);
	struct v1_quick *quick = x->quick;
	const struct alg *group;
	struct ticket ticket;

	(void)msg;
	if (child == NULL)
		return gone(base);
	if (!v1_select_sayable(&quick->local) ||
	    !v1_select_sayable(&quick->remote))
		return fsm_fail(base, ERR_TS, 0,
		    "IKEv1 knows one port or all, not a range of them");
	quick->nonce_i_len = VAULT_NONCE;
	if (!env_random(sa->env, quick->nonce_i, VAULT_NONCE))
		return fsm_fail(base, ERR_CRYPTO, 0, "no random numbers");
	ticket = sa_ticket(sa, base, child);
	if (awaiting(x, install_spi(sa->env, child, ticket, installed)) == FAIL)
		return FAIL;
	group = v1_sapay_pfs(&child->conn->esp);
	if (group != NULL)
		return awaiting(
		    x, dh_generate(sa->env->workers, group, ticket, exchanged));
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

static enum verdict
seal_and_send(struct v1_exchange *x, struct v1_out *out, bool timed)
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
	struct child_sa *child = child_of(x);
	struct v1_quick *quick = x->quick;
	struct v1_sa *v1 = v1_sa(sa);
	struct v1_out out;
	enum err err;

	(void)msg;
	if (child == NULL || v1->keys.octets.len == 0)
		return gone(base);
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
	wire_payload(&out.wire, P1_NONCE, nonce_i(quick));
	if (quick->kex != NULL)
		wire_payload(&out.wire, P1_KE, kex_public(quick->kex));
	ids_write(&out, &quick->local, &quick->remote);
	quick->ids = true;
	natoa_write(&out, child, true);
	err = v1_out_hash1(&out, v1, base->id);
	if (err != OK)
		return fsm_fail(base, err, 0, "%s", err_text(err));
	return seal_and_send(x, &out, true);
}

/* The answer's nonce and public value, which must come with a group and not
 * without one. */
static enum verdict
take_nonce(struct v1_exchange *x, const struct msg *msg,
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
	struct view at;
	uint16_t type, value, low;
	uint32_t seconds = 0, found = 0;
	bool is_seconds = false;

	if (notify == NULL)
		return 0;
	at = notify->notify.data;
	while (view_u16(&at, &type) && view_u16(&at, &value)) {
		seconds = value;
		if (!(type & 0x8000)) {
			/* Interop: FortiGate sends malformed ones. */
			if (value == 4 ? !view_u32(&at, &seconds)
			               : value != 2 || !view_u16(&at, &low))
				return found;
			if (value == 2)
				seconds = low;
		}
		if ((type & 0x7fff) == 1)
			is_seconds = seconds == 1;
		else if ((type & 0x7fff) == 2 && is_seconds && found == 0)
			found = seconds;
	}
	return found;
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
	struct child_sa *child = child_of(x);
	const struct v1_transform *chosen = NULL;
	struct v1_transform given;
	struct v1_sapay ours;
	uint32_t told;

	if (child == NULL)
		return gone(base);
	if (msg->payload[1].kind != KIND_SA ||
	    accept_answer(quick, msg, &given, &chosen, &ours) != OK ||
	    v1_sapay_suite(chosen, PROTO_ESP, &child->suite) != OK)
		return fsm_fail(base, ERR_NO_PROPOSAL, N1_NO_PROPOSAL_CHOSEN,
		    "the answer names no transform that was offered");
	child->spi_out = given.spi;
	if (take_nonce(x, msg, child->suite.kex, quick->nonce_r,
	        &quick->nonce_r_len) != DONE ||
	    take_answered_ids(x, msg, child) != DONE)
		return FAIL;
	natoa_read(msg, child, true);
	told = responder_lifetime(msg);
	v1_life_child_lifetime(child,
	    told != 0 && told < chosen->seconds ? told : chosen->seconds);
	if (child->suite.kex == NULL)
		return DONE;
	if (quick->kex == NULL)
		return gone(base);
	if (awaiting(x, dh_derive(sa->env->workers, quick->kex,
	                    msg_payload(msg, KIND_KE, 0)->body,
	                    sa_ticket(sa, base, child), exchanged)) == FAIL)
		return FAIL;
	quick->kex = NULL;
	return WAIT;
}

enum verdict
v1_quick_install(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct child_sa *child = child_of(x);
	enum err err;

	(void)msg;
	if (child == NULL || v1_sa(sa)->keys.octets.len == 0)
		return gone(base);
	err = derive_keys(v1_sa(sa), x->quick, child);
	if (err != OK)
		return fsm_fail(base, err, 0, "cannot derive keys");
	return awaiting(x, install_both(sa->env, child,
	                       sa_ticket(sa, base, child), installed));
}

/* QM3: HDR*, HASH(3) */
enum verdict
v1_quick_send3(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct v1_quick *quick = x->quick;
	struct child_sa *child = child_of(x);
	struct v1_sa *v1 = v1_sa(sa);
	uint8_t hash[PRF_MAX];
	struct v1_out out;

	(void)msg;
	if (child == NULL || v1->keys.octets.len == 0)
		return gone(base);
	secret_free(&child->keys_in);
	secret_free(&child->keys_out);
	if (v1_key_hash3(&v1->keys, base->id, nonce_i(quick), nonce_r(quick),
	        hash) != OK)
		return fsm_fail(base, ERR_CRYPTO, 0, "cannot hash");
	v1_out_begin(&out, sa, EXCH_QUICK, base->id);
	wire_payload(&out.wire, P1_HASH, view_of(hash, v1->keys.prf->out));
	if (seal_and_send(x, &out, false) != DONE)
		return FAIL;
	v1_life_child_up(child, quick->rekeys);
	return DONE;
}

/* Responder ------------------------------------------------------------- */

struct wanted {
	const struct ike_sa *sa;
	uint8_t mode; /* enum policy_mode */
	bool ke;
};

/* RFC 2409 5.5: KE and group go together. RFC 3947 5.1: the modes with UDP
 * belong to SAs that found a NAT. */
static bool
want(const struct v1_transform *t, const void *arg)
{
	const struct wanted *wanted = arg;
	bool natt = (v1_sa((struct ike_sa *)(uintptr_t)wanted->sa)->vendors &
	                (V1_VENDOR_NATT | V1_VENDOR_NATT_DRAFTS)) != 0;

	if ((t->group != 0) != wanted->ke)
		return false;
	switch (t->mode) {
	case V1_MODE_NONE: /* unspecified (RFC 2407 4.5): tunnel */
	case V1_MODE_TUNNEL:
		return wanted->mode == MODE_TUNNEL && !wanted->sa->encap;
	case V1_MODE_TRANSPORT:
		return wanted->mode == MODE_TRANSPORT && !wanted->sa->encap;
	case V1_MODE_UDP_TUNNEL:
	case V1_MODE_DRAFT_UDP_TUNNEL:
		return wanted->mode == MODE_TUNNEL && natt;
	case V1_MODE_UDP_TRANSPORT:
	case V1_MODE_DRAFT_UDP_TRANSPORT:
		return wanted->mode == MODE_TRANSPORT && natt;
	default:
		return false;
	}
}

/* What a responder finds out about a proposal before it commits anything. */
struct found {
	struct conn *conn;
	struct ts local, remote;
	struct v1_transform chosen;
	struct suite suite;
};

static bool
choose_transform(struct ike_sa *sa, const struct conn *conn,
    const struct v1_sapay *sapay, bool ke, struct offer *offers,
    struct found *found)
{
	struct wanted wanted = { sa, conn->mode, ke };
	struct choice choice;
	size_t count = v1_sapay_offers(sapay, PROTO_ESP, offers, want, &wanted);

	if (proposals_choose(&conn->esp, offers, count, true, false, &choice) !=
	    OK)
		return false;
	found->chosen = sapay->item[offers[choice.chosen].tag];
	found->suite = choice.suite;
	return true;
}

static enum verdict
explain_selectors(struct ike_sa *sa, struct exchange *base,
    struct conn *const *conns, size_t count, const struct ts *local,
    const struct ts *remote)
{
	struct ts_list ours = { .count = 1 }, theirs = ours;

	ours.item[0] = *local;
	theirs.item[0] = *remote;
	explain_ts(sa->env, sa, conns, count, &ours, &theirs);
	return fsm_fail(base, ERR_TS, N1_INVALID_ID_INFORMATION,
	    "no connection has these selectors");
}

/* The first connection of this peer within whose selectors the proposal lies
 * and whose esp= allows one of its transforms. */
static enum verdict
choose(struct ike_sa *sa, struct exchange *base, const struct msg *msg,
    const struct v1_sapay *sapay, struct offer *offers, struct found *found)
{
	struct conn *conns[V1_CONNS], *fitting[V1_CONNS];
	size_t count = v1_select_conns(sa, conns), fits = 0;
	struct ts initiator, responder;
	enum err err = v1_select_of(msg, &initiator, &responder);

	if (err == ERR_NOT_FOUND) {
		initiator = ts_from_addr(&sa->remote.addr);
		responder = ts_from_addr(&sa->local.addr);
	} else if (err != OK) {
		return fsm_fail(base, ERR_TS, N1_INVALID_ID_INFORMATION,
		    "identities that are no selectors: %s", err_text(err));
	}
	for (size_t i = 0; i < count; i++) {
		found->local = responder;
		found->remote = initiator;
		if (!v1_select_fits(
		        sa, conns[i], &found->local, &found->remote))
			continue;
		fitting[fits++] = conns[i];
		found->conn = conns[i];
		if (choose_transform(sa, conns[i], sapay, msg_has(msg, KIND_KE),
		        offers, found))
			return DONE;
	}
	if (fits == 0)
		return explain_selectors(
		    sa, base, conns, count, &responder, &initiator);
	explain_proposal(sa->env, sa, &sa->remote, fitting, fits, PROTO_ESP,
	    offers, v1_sapay_offers(sapay, PROTO_ESP, offers, NULL, NULL));
	return fsm_fail(base, ERR_NO_PROPOSAL, N1_NO_PROPOSAL_CHOSEN,
	    "no offered proposal is acceptable");
}

/* All is decided: the child begins, and asks for what it needs. */
static enum verdict
commit(struct ike_sa *sa, struct v1_exchange *x, const struct msg *msg,
    const struct found *found)
{
	struct v1_quick *quick = x->quick;
	struct child_sa *child = child_new(sa, found->conn, false);
	struct ticket ticket;

	if (child == NULL)
		return fsm_fail(&x->x, ERR_NOMEM, 0, "out of memory");
	v1_life_child_init(child);
	quick->child = child->serial;
	quick->chosen = found->chosen;
	child->suite = found->suite;
	child->spi_out = found->chosen.spi;
	child->encap = found->chosen.mode >= V1_MODE_UDP_TUNNEL;
	ts_list_add(&child->ts_local, &found->local);
	ts_list_add(&child->ts_remote, &found->remote);
	natoa_read(msg, child, false);
	quick->nonce_r_len = VAULT_NONCE;
	if (!env_random(sa->env, quick->nonce_r, VAULT_NONCE))
		return fsm_fail(&x->x, ERR_CRYPTO, 0, "no random numbers");
	ticket = sa_ticket(sa, &x->x, child);
	if (awaiting(x, install_spi(sa->env, child, ticket, installed)) == FAIL)
		return FAIL;
	if (child->suite.kex == NULL)
		return WAIT;
	return awaiting(
	    x, dh_both(sa->env->workers, child->suite.kex,
	           msg_payload(msg, KIND_KE, 0)->body, ticket, exchanged));
}

/* QM1: HDR*, HASH(1), SA, Ni, [KE], [IDci, IDcr], [NAT-OA, NAT-OA] */
enum verdict
v1_quick_take1(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct v1_sapay sapay;
	struct found found;
	struct offer *offers;
	enum verdict verdict;

	/* RFC 2409 5.5: SA follows HASH. */
	if (msg->payload[1].kind != KIND_SA ||
	    v1_sapay_read(&sapay, msg->payload[1].body, PROTO_ESP) != OK)
		return fsm_fail(base, ERR_SYNTAX, N1_BAD_PROPOSAL_SYNTAX,
		    "malformed SA payload");
	memset(&found, 0, sizeof(found));
	x->quick = calloc(1, sizeof(*x->quick));
	offers = calloc(sapay.count + 1, sizeof(*offers));
	if (x->quick == NULL || offers == NULL) {
		free(offers);
		return fsm_fail(base, ERR_NOMEM, 0, "out of memory");
	}
	verdict = choose(sa, base, msg, &sapay, offers, &found);
	free(offers);
	if (verdict != DONE)
		return verdict;
	verdict = take_nonce(
	    x, msg, found.suite.kex, x->quick->nonce_i, &x->quick->nonce_i_len);
	return verdict != DONE ? verdict : commit(sa, x, msg, &found);
}

/* Before QM2, so that nothing that the peer sends is lost. */
enum verdict
v1_quick_inbound(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct child_sa *child = child_of(x);
	enum err err;

	(void)msg;
	if (child == NULL || v1_sa(sa)->keys.octets.len == 0)
		return gone(base);
	x->quick->tell_lifetime =
	    v1_life_child_lifetime(child, x->quick->chosen.seconds);
	err = derive_keys(v1_sa(sa), x->quick, child);
	if (err != OK)
		return fsm_fail(base, err, 0, "cannot derive keys");
	return awaiting(x, install_inbound(sa->env, child,
	                       sa_ticket(sa, base, child), installed));
}

/* RFC 2407 4.6.3.1: our lifetime is shorter than the one offered. */
static void
lifetime_write(struct v1_out *out, const struct child_sa *child)
{
	uint32_t seconds = (uint32_t)(child->lifetime_ms / 1000);
	uint8_t spi[4], data[12];
	struct buf buf, value;

	buf_init(&buf, spi, sizeof(spi));
	buf_u32(&buf, child->spi_in);
	buf_init(&value, data, sizeof(data));
	buf_u16(&value, LIFE_TYPE);
	buf_u16(&value, 1);
	buf_u16(&value, LIFE_LENGTH);
	buf_u16(&value, 4);
	buf_u32(&value, seconds);
	wire_notify_v1(&out->wire, PROTO_ESP, buf_done(&buf),
	    N1_RESPONDER_LIFETIME, buf_done(&value));
}

/* QM2: the offer's transform and identities go back octet for octet. */
enum verdict
v1_quick_send2(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct v1_quick *quick = x->quick;
	struct child_sa *child = child_of(x);
	struct v1_sa *v1 = v1_sa(sa);
	uint8_t hash[PRF_MAX];
	struct v1_out out;

	if (child == NULL || v1->keys.octets.len == 0)
		return gone(base);
	child->state = CHILD_INBOUND;
	v1_out_begin(&out, sa, EXCH_QUICK, base->id);
	v1_out_hash(&out, v1);
	wire_begin(&out.wire, P1_SA, false);
	v1_sapay_answer(&out.buf, &quick->chosen, child->spi_in);
	wire_end(&out.wire);
	wire_payload(&out.wire, P1_NONCE, nonce_r(quick));
	if (child->suite.kex != NULL)
		wire_payload(&out.wire, P1_KE, kex_public(quick->kex));
	for (unsigned n = 0; n < 2 && msg_has(msg, KIND_ID); n++)
		wire_payload(
		    &out.wire, P1_ID, msg_payload(msg, KIND_ID, n)->body);
	natoa_write(&out, child, false);
	if (quick->tell_lifetime)
		lifetime_write(&out, child);
	v1_out_impair(&out, sa->env);
	if (out.buf.full || v1_key_hash2(&v1->keys, base->id, nonce_i(quick),
	                        v1_out_rest(&out), hash) != OK)
		return fsm_fail(base, ERR_CRYPTO, 0, "cannot hash");
	memcpy(v1_out_hash_at(&out, v1), hash, v1->keys.prf->out);
	return seal_and_send(x, &out, true);
}

/* QM3: HDR*, HASH(3), which proves that the peer is there now. */
enum verdict
v1_quick_outbound(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct child_sa *child = child_of(x);

	(void)msg;
	if (child == NULL)
		return gone(base);
	rexmit_stop(&base->rexmit);
	return awaiting(x, install_outbound(sa->env, child,
	                       sa_ticket(sa, base, child), installed));
}

enum verdict
v1_quick_up(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct child_sa *child = child_of(v1_exchange(base));

	(void)sa;
	(void)msg;
	if (child == NULL)
		return gone(base);
	secret_free(&child->keys_in);
	secret_free(&child->keys_out);
	v1_life_child_up(child, 0);
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
}

/* The Quick Mode fails, and its child with it; what it was to renew is tried
 * again later, until it expires. */
static void
fail(struct v1_exchange *x, enum err err, bool by_peer, const char *text)
{
	struct child_sa *child = child_of(x);

	exchange_end(&x->x);
	if (child != NULL)
		v1_life_child_kill(child, err, by_peer, text);
}

void
v1_quick_failed(struct v1_sa *v1, struct v1_exchange *x)
{
	struct child_sa *child = child_of(x);
	char text[sizeof(x->x.error.text)];
	enum err err = x->x.error.err;
	uint32_t spi_in = child != NULL ? child->spi_in : 0;
	uint32_t spi_out = child != NULL ? child->spi_out : 0;

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
		child = child_of(x);
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

/* A peer that is silent on everything has gone, and so has its half of the
 * SA; one that speaks of other things refuses this in its own way. */
void
v1_quick_timeout(struct v1_exchange *x)
{
	struct ike_sa *sa = x->x.sa;
	struct child_sa *child = child_of(x);
	uint64_t begun = child != NULL ? child->created_ms : 0;
	bool silent = x->x.role == ROLE_INITIATOR && sa->last_in_ms < begun;

	sa_hold(sa);
	sa_log(sa, LOG_LEVEL_WARNING, "Quick Mode: the peer does not answer");
	fail(x, ERR_TIMEOUT, false, "the peer does not answer");
	if (silent && sa->state != IKE_DEAD) {
		sa_event(sa, NULL, EVENT_PEER_DEAD, ERR_TIMEOUT, false,
		    "the peer does not answer");
		sa_kill(sa, ERR_TIMEOUT, false, "the peer does not answer");
	}
	sa_release(sa);
}
