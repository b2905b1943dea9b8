#include <stdlib.h>
#include <string.h>

#include "common/explain.h"
#include "ikev1/child.h"
#include "ikev1/quick.h"
#include "ikev1/select.h"
#include "kernel/install.h"

#define LIFE_TYPE   0x8001 /* RFC 2407 4.5, as TV */
#define LIFE_LENGTH 0x0002

struct wanted {
	const struct ike_sa *sa;
	uint8_t mode; /* enum policy_mode */
	bool ke;
};

/* RFC 2409 5.5: KE and group go together. RFC 3947 5.1: the modes with UDP
 * belong to SAs that found a NAT, and have gone to its port (4): on IKE's own
 * ESP would be taken for IKE. */
static bool
want(const struct v1_transform *t, const void *arg)
{
	const struct wanted *wanted = arg;
	bool natt = wanted->sa->natt &&
	            (v1_sa((struct ike_sa *)(uintptr_t)wanted->sa)->vendors &
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
	struct child_sa *child;
	struct ticket ticket;

	/* The data plane has room for all peers' children, not for all that
	 * one of them can think of. */
	if (sa->child_count >= V1_CHILDREN)
		return fsm_fail(&x->x, ERR_LIMIT, N1_NO_PROPOSAL_CHOSEN,
		    "there are %zu children already", sa->child_count);
	child = child_new(sa, found->conn, false);
	if (child == NULL)
		return fsm_fail(&x->x, ERR_NOMEM, 0, "out of memory");
	v1_child_init(child);
	quick->child = child->serial;
	quick->chosen = found->chosen;
	child->suite = found->suite;
	child->spi_out = found->chosen.spi;
	child->encap = found->chosen.mode >= V1_MODE_UDP_TUNNEL;
	ts_list_add(&child->ts_local, &found->local);
	ts_list_add(&child->ts_remote, &found->remote);
	v1_quick_natoa_read(msg, child, false);
	quick->nonce_r_len = VAULT_NONCE;
	if (!env_random(sa->env, quick->nonce_r, VAULT_NONCE))
		return fsm_fail(&x->x, ERR_CRYPTO, 0, "no random numbers");
	ticket = sa_ticket(sa, &x->x, child);
	if (v1_quick_await(x, install_spi(sa->env, child, ticket,
	                          v1_quick_installed)) == FAIL)
		return FAIL;
	if (child->suite.kex == NULL)
		return WAIT;
	return v1_quick_await(x, dh_both(sa->env->workers, child->suite.kex,
	                             msg_payload(msg, KIND_KE, 0)->body, ticket,
	                             v1_quick_exchanged));
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
	/* Of several Quick Modes, a refusal must say which it is for. */
	x->quick->offered = sapay.count > 0 ? sapay.item[0].spi : 0;
	verdict = choose(sa, base, msg, &sapay, offers, &found);
	free(offers);
	if (verdict != DONE)
		return verdict;
	verdict = v1_quick_take_nonce(
	    x, msg, found.suite.kex, x->quick->nonce_i, &x->quick->nonce_i_len);
	return verdict != DONE ? verdict : commit(sa, x, msg, &found);
}

/* Before QM2, so that nothing that the peer sends is lost. */
enum verdict
v1_quick_inbound(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct child_sa *child = v1_quick_child(x);
	enum err err;

	(void)msg;
	if (child == NULL || v1_sa(sa)->keys.octets.len == 0)
		return v1_quick_gone(base);
	x->quick->tell_lifetime =
	    v1_child_lifetime(child, x->quick->chosen.seconds);
	err = v1_quick_keys(v1_sa(sa), x->quick, child);
	if (err != OK)
		return fsm_fail(base, err, 0, "cannot derive keys");
	return v1_quick_await(
	    x, install_inbound(sa->env, child, sa_ticket(sa, base, child),
	           v1_quick_installed));
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
	struct child_sa *child = v1_quick_child(x);
	struct v1_sa *v1 = v1_sa(sa);
	uint8_t hash[PRF_MAX];
	struct v1_out out;

	if (child == NULL || v1->keys.octets.len == 0)
		return v1_quick_gone(base);
	child->state = CHILD_INBOUND;
	v1_out_begin(&out, sa, EXCH_QUICK, base->id);
	v1_out_hash(&out, v1);
	wire_begin(&out.wire, P1_SA, false);
	v1_sapay_answer(&out.buf, &quick->chosen, child->spi_in);
	wire_end(&out.wire);
	wire_payload(&out.wire, P1_NONCE, v1_quick_nonce_r(quick));
	if (child->suite.kex != NULL)
		wire_payload(&out.wire, P1_KE, kex_public(quick->kex));
	for (unsigned n = 0; n < 2 && msg_has(msg, KIND_ID); n++)
		wire_payload(
		    &out.wire, P1_ID, msg_payload(msg, KIND_ID, n)->body);
	v1_quick_natoa_write(&out, child, false);
	if (quick->tell_lifetime)
		lifetime_write(&out, child);
	v1_out_impair(&out, sa->env);
	if (out.buf.full ||
	    v1_key_hash2(&v1->keys, base->id, v1_quick_nonce_i(quick),
	        v1_out_rest(&out), hash) != OK)
		return fsm_fail(base, ERR_CRYPTO, 0, "cannot hash");
	memcpy(v1_out_hash_at(&out, v1), hash, v1->keys.prf->out);
	return v1_quick_seal(x, &out, true);
}

/* QM3: HDR*, HASH(3), which proves that the peer is there now. */
enum verdict
v1_quick_outbound(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct child_sa *child = v1_quick_child(x);

	(void)msg;
	if (child == NULL)
		return v1_quick_gone(base);
	rexmit_stop(&base->rexmit);
	return v1_quick_await(
	    x, install_outbound(sa->env, child, sa_ticket(sa, base, child),
	           v1_quick_installed));
}

enum verdict
v1_quick_up(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct child_sa *child = v1_quick_child(v1_exchange(base));

	(void)sa;
	(void)msg;
	if (child == NULL)
		return v1_quick_gone(base);
	secret_free(&child->keys_in);
	secret_free(&child->keys_out);
	v1_child_up(child, 0);
	return DONE;
}
