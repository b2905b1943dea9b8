#include "ikev1/phase1.h"

#include <stdlib.h>
#include <string.h>

#include "common/explain.h"
#include "common/limit.h"
#include "common/natt.h"
#include "ikev1/auth.h"
#include "ikev1/info.h"
#include "ikev1/life.h"
#include "ikev1/rules.h"

/* Vendor IDs ------------------------------------------------------------ */

static const struct vendor {
	uint8_t octets[16];
	uint8_t bit; /* enum v1_vendor */
	bool sent;   /* by us */
} vendors[] = {
	/* RFC 3947 3.1: MD5("RFC 3947") */
	{ { 0x4a, 0x13, 0x1c, 0x81, 0x07, 0x03, 0x58, 0x45, 0x5c, 0x57, 0x28,
	      0xf2, 0x0e, 0x95, 0x45, 0x2f },
	    V1_VENDOR_NATT, true },
	/* its drafts 03, 02 with and without a newline: known, not spoken */
	{ { 0x7d, 0x94, 0x19, 0xa6, 0x53, 0x10, 0xca, 0x6f, 0x2c, 0x17, 0x9d,
	      0x92, 0x15, 0x52, 0x9d, 0x56 },
	    V1_VENDOR_NATT_DRAFTS, false },
	{ { 0x90, 0xcb, 0x80, 0x91, 0x3e, 0xbb, 0x69, 0x6e, 0x08, 0x63, 0x81,
	      0xb5, 0xec, 0x42, 0x7b, 0x1f },
	    V1_VENDOR_NATT_DRAFTS, false },
	{ { 0xcd, 0x60, 0x46, 0x43, 0x35, 0xdf, 0x21, 0xf8, 0x7c, 0xfd, 0xb2,
	      0xfc, 0x68, 0xb6, 0xa4, 0x48 },
	    V1_VENDOR_NATT_DRAFTS, false },
	/* RFC 3706 5.1, version 1.0 */
	{ { 0xaf, 0xca, 0xd7, 0x13, 0x68, 0xa1, 0xf1, 0xc9, 0x6b, 0x86, 0x96,
	      0xfc, 0x77, 0x57, 0x01, 0x00 },
	    V1_VENDOR_DPD, true },
};

#define VENDORS (sizeof(vendors) / sizeof(vendors[0]))

static uint32_t
vendors_read(const struct msg *msg)
{
	uint32_t bits = 0;

	for (size_t i = 0; i < msg->count; i++)
		for (size_t n = 0; n < VENDORS; n++)
			if (msg->payload[i].kind == KIND_VID &&
			    view_equal(msg->payload[i].body,
			        view_of(vendors[n].octets, 16)))
				bits |= vendors[n].bit;
	return bits;
}

/* RFC 3947 3.1: a responder answers with it only if it was offered. So it is
 * with all of them: an answer to a stranger is no larger than the question. */
static void
vendors_write(struct wire_out *out, uint32_t which)
{
	for (size_t n = 0; n < VENDORS; n++)
		if (vendors[n].sent && (vendors[n].bit & which) != 0)
			wire_payload(
			    out, P1_VID, view_of(vendors[n].octets, 16));
}

/* NAT detection --------------------------------------------------------- */

/* RFC 3947 3.2: the other end's hash first, then our own. With forceencaps
 * ours is made up, so that the peer believes in a NAT on our side. */
static void
natd_write(struct v1_out *out, const struct ike_sa *sa)
{
	uint8_t hash[NATT_HASH_MAX];
	size_t len;

	if (natt_hash(sa->suite.prf, sa->spi_i, sa->spi_r, &sa->remote, hash,
	        &len) != OK) {
		out->buf.full = true;
		return;
	}
	wire_payload(&out->wire, P1_NAT_D, view_of(hash, len));
	if (natt_hash(sa->suite.prf, sa->spi_i, sa->spi_r, &sa->local, hash,
	        &len) != OK) {
		out->buf.full = true;
		return;
	}
	if (sa->conn->forceencaps)
		hash[0] ^= 0xff;
	wire_payload(&out->wire, P1_NAT_D, view_of(hash, len));
}

/* RFC 3947 3.2: the first hash is of our address as the peer knows it, the
 * others are of its own addresses. */
static void
natd_read(struct v1_sa *v1, const struct v1_exchange *x, const struct msg *msg)
{
	struct ike_sa *sa = &v1->ike;
	uint8_t ours[NATT_HASH_MAX], theirs[NATT_HASH_MAX];
	const struct payload *natd;
	size_t len;
	bool found = false;

	if (!(v1->vendors & V1_VENDOR_NATT) ||
	    msg_payload(msg, KIND_NATD, 1) == NULL)
		return;
	if (natt_hash(sa->suite.prf, sa->spi_i, sa->spi_r, &x->local, ours,
	        &len) != OK ||
	    natt_hash(sa->suite.prf, sa->spi_i, sa->spi_r, &x->remote, theirs,
	        &len) != OK)
		return;
	natd = msg_payload(msg, KIND_NATD, 0);
	sa->nat_local = !view_equal(natd->body, view_of(ours, len));
	for (unsigned n = 1; (natd = msg_payload(msg, KIND_NATD, n)) != NULL;
	     n++)
		found |= view_equal(natd->body, view_of(theirs, len));
	sa->nat_remote = !found;
	sa->encap = sa->nat_local || sa->nat_remote || sa->conn->forceencaps;
	if (sa->nat_local || sa->nat_remote)
		sa_log(sa, LOG_LEVEL_INFO, "NAT found at %s",
		    sa->nat_local && sa->nat_remote ? "both ends"
		    : sa->nat_local                 ? "our end"
		                                    : "the peer's end");
}

/* Beginning ------------------------------------------------------------- */

enum err
v1_main_begin(struct env *env, struct conn *conn, const struct endpoint *local,
    const struct endpoint *remote, bool natt, uint64_t replaces,
    bool first_child, struct v1_sa **begun)
{
	struct v1_sa *v1 = v1_sa_new(env, true, 0, local, remote, natt);
	struct v1_exchange *x;
	enum err err = OK;

	if (v1 == NULL)
		return ERR_NOMEM;
	sa_hold(&v1->ike);
	sa_set_conn(&v1->ike, conn);
	v1->replaces = replaces;
	v1->first_child = first_child;
	v1->ike.id_local = conn_local_id(conn, &local->addr);
	x = v1_exchange_new(&v1->ike, EXCH_IDENTITY_PROTECTION, ROLE_INITIATOR,
	    V1_MAIN_BEGIN, 0);
	if (x == NULL || v1->ike.id_local == NULL) {
		sa_kill(&v1->ike, ERR_NOMEM, false, "out of memory");
		sa_release(&v1->ike);
		return ERR_NOMEM;
	}
	fsm_begin(&v1_fsm, &x->x, v1_rule_main_begin());
	if (v1->ike.state == IKE_DEAD)
		err = ERR_NO_PROPOSAL;
	else
		*begun = v1;
	sa_release(&v1->ike);
	return err;
}

/* For one more half-open SA, if need be at the cost of one whose peer has not
 * been heard since its first message. It may begin anew with the repeats of
 * that. */
static bool
make_room(struct env *env, const struct addr *remote, enum limit_class class)
{
	struct limit_entry *victim;

	if (limit_half_open_room(env->limit, remote, class, &victim) != OK)
		return false;
	if (victim == NULL)
		return true;
	env_count(env, COUNTER_HALF_OPEN_EVICTED);
	sa_kill(sa_of_half_open(victim), ERR_LIMIT, false,
	    "another took its place: too many first messages");
	return true;
}

void
v1_main_first(struct env *env, const struct packet *packet,
    const struct wire_header *header)
{
	enum limit_class class;
	struct conn *found;
	struct v1_sa *v1;

	/* No connection speaks IKEv1 with this address: silence. */
	if (env->policy == NULL ||
	    policy_distinct(env->policy, &packet->local.addr,
	        &packet->remote.addr, 1, &found, 1) == 0) {
		env_count(env, COUNTER_V1_WITHOUT_CONN);
		if (limit_log(env->limit))
			explain_no_conn(
			    env, &packet->local, &packet->remote, 1);
		return;
	}
	class = conn_end_names(&found->remote, &packet->remote.addr)
	            ? LIMIT_V1_NAMED
	            : LIMIT_V1;
	if (header->length > LIMIT_FIRST_MAX ||
	    !make_room(env, &packet->remote.addr, class)) {
		env_count(env, COUNTER_HALF_OPEN_REFUSED);
		return;
	}
	v1 = v1_sa_new(env, false, header->spi_i, &packet->local,
	    &packet->remote, packet->natt);
	if (v1 == NULL)
		return;
	if (sa_count_half_open(&v1->ike, class) != OK) {
		sa_kill(&v1->ike, ERR_NOMEM, false, "out of memory");
		return;
	}
	sa_hold(&v1->ike);
	if (v1_exchange_new(&v1->ike, EXCH_IDENTITY_PROTECTION, ROLE_RESPONDER,
	        V1_MAIN_BEGIN, 0) != NULL)
		v1_deliver_first(v1, packet, header);
	/* Refused, unreadable or failed: nothing was answered, nothing
	 * stays. */
	if (v1->ike.state == IKE_NEW)
		sa_kill(&v1->ike, ERR_SYNTAX, true, "no usable first message");
	sa_release(&v1->ike);
}

/* SA -------------------------------------------------------------------- */

static enum verdict
out_of_memory(struct exchange *x)
{
	return fsm_fail(x, ERR_NOMEM, 0, "out of memory");
}

static enum err
keep_sa_body(struct v1_main *main, struct view body)
{
	uint8_t *copy = mem_dup(body.at, body.len);

	if (copy == NULL)
		return ERR_NOMEM;
	free(main->sa_body);
	main->sa_body = copy;
	main->sa_body_len = body.len;
	return OK;
}

static enum verdict
send_or_fail(struct exchange *base, struct v1_out *out, bool sealed, bool timed)
{
	enum err err = v1_out_send(out, v1_exchange(base), sealed, timed);

	return err == OK ? DONE
	                 : fsm_fail(base, ERR_CRYPTO, 0, "cannot send: %s",
	                       err_text(err));
}

/* MM1: HDR, SA, VID... */
enum verdict
v1_main_offer(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_main *main = v1_sa(sa)->main;
	uint8_t octets[3072];
	struct v1_out out;
	struct buf buf;

	(void)msg;
	buf_init(&buf, octets, sizeof(octets));
	if (v1_sapay_offer_ike(&buf, &sa->conn->ike, &sa->env->usable,
	        (uint32_t)(sa->conn->ike_lifetime_ms / 1000)) == 0 ||
	    buf.full)
		return fsm_fail(base, ERR_REFUSED, 0,
		    "no proposal in ike= can be said in IKEv1");
	if (keep_sa_body(main, buf_done(&buf)) != OK)
		return out_of_memory(base);
	sa_set_state(sa, IKE_HALF_OPEN);
	v1_out_begin(&out, sa, EXCH_IDENTITY_PROTECTION, 0);
	wire_payload(
	    &out.wire, P1_SA, view_of(main->sa_body, main->sa_body_len));
	vendors_write(&out.wire, UINT32_MAX);
	return send_or_fail(base, &out, false, true);
}

/* MM2: the answer must be one of our transforms, unchanged. */
enum verdict
v1_main_take_answer(struct ike_sa *sa, struct exchange *x, struct msg *msg)
{
	struct v1_sa *v1 = v1_sa(sa);
	struct v1_sapay ours, answer;
	const struct v1_transform *chosen;
	struct suite suite;
	enum err err;

	err = v1_sapay_read(
	    &answer, msg_payload(msg, KIND_SA, 0)->body, PROTO_IKE);
	if (err == OK)
		err = v1_sapay_read(&ours,
		    view_of(v1->main->sa_body, v1->main->sa_body_len),
		    PROTO_IKE);
	if (err == OK)
		err = v1_sapay_accept(&ours, &answer, &chosen);
	if (err == OK)
		err = v1_sapay_suite(chosen, PROTO_IKE, &suite);
	if (err != OK || msg->header.spi_r == 0)
		return fsm_fail(x, ERR_NO_PROPOSAL, 0,
		    "the answer names no transform that was offered");
	sa_set_peer_spi(sa, msg->header.spi_r);
	v1_life_progress(v1);
	sa->suite = suite;
	v1->vendors = vendors_read(msg);
	v1->seconds = chosen->seconds;
	return DONE;
}

static bool
want_psk(const struct v1_transform *transform, const void *arg)
{
	(void)arg;
	/* RFC 2409 appendix A. Methods 4 and 5 (RSA encryption) never. */
	return transform->auth == V1_AUTH_PSK;
}

/* The first connection, best fit first, whose proposals allow one of the
 * transforms. */
static struct conn *
choose(const struct v1_sapay *sapay, struct conn *const *found, size_t count,
    const struct offer *offers, size_t offer_count, struct suite *suite,
    const struct v1_transform **chosen)
{
	struct choice choice;

	for (size_t i = 0; i < count; i++) {
		if (found[i]->remote.auth != AUTH_PSK ||
		    proposals_choose(&found[i]->ike, offers, offer_count, false,
		        false, &choice) != OK)
			continue;
		*suite = choice.suite;
		*chosen = &sapay->item[offers[choice.chosen].tag];
		return found[i];
	}
	return NULL;
}

/* MM1 at the responder: choose, and answer with MM2: HDR, SA, VID... */
enum verdict
v1_main_choose(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_sa *v1 = v1_sa(sa);
	struct view body = msg_payload(msg, KIND_SA, 0)->body;
	struct conn *found[V1_CONNS], *conn = NULL;
	const struct v1_transform *chosen = NULL;
	struct v1_sapay sapay;
	struct offer *offers;
	size_t count, offer_count;
	struct v1_out out;
	enum err err;

	err = v1_sapay_read(&sapay, body, PROTO_IKE);
	if (err != OK)
		return fsm_fail(base, ERR_SYNTAX, 0, "malformed SA payload");
	offers = calloc(sapay.count + 1, sizeof(*offers));
	if (offers == NULL)
		return out_of_memory(base);
	count = policy_distinct(sa->env->policy, &sa->local.addr,
	    &sa->remote.addr, 1, found, V1_CONNS);
	offer_count =
	    v1_sapay_offers(&sapay, PROTO_IKE, offers, want_psk, NULL);
	conn = choose(
	    &sapay, found, count, offers, offer_count, &sa->suite, &chosen);
	if (conn == NULL && limit_log(sa->env->limit))
		explain_proposal(sa->env, sa, &sa->remote, found, count,
		    PROTO_IKE, offers, offer_count);
	free(offers);
	if (conn == NULL)
		return fsm_fail(base, ERR_NO_PROPOSAL, N1_NO_PROPOSAL_CHOSEN,
		    "no offered proposal is acceptable");
	sa_set_conn(sa, conn);
	v1->vendors = vendors_read(msg);
	v1->seconds = chosen->seconds;
	if (keep_sa_body(v1->main, body) != OK)
		return out_of_memory(base);
	sa_set_state(sa, IKE_HALF_OPEN);
	v1_out_begin(&out, sa, EXCH_IDENTITY_PROTECTION, 0);
	wire_begin(&out.wire, P1_SA, false);
	v1_sapay_answer(&out.buf, chosen, 0);
	wire_end(&out.wire);
	vendors_write(&out.wire, v1->vendors);
	return send_or_fail(base, &out, false, false);
}

/* KE -------------------------------------------------------------------- */

static void nonce_done(struct env *env, struct ticket ticket, enum err err,
    const struct vault_nonce_answer *answer);
static void skeyid_done(struct env *env, struct ticket ticket, enum err err,
    const struct vault_skeyid_answer *answer);

/* SKEYID for every PSK that may be meant. A responder knows no identity yet
 * (RFC 2409 5.4: by address). */
static enum err
skeyid_ask(struct v1_sa *v1, struct v1_exchange *x)
{
	struct ike_sa *sa = &v1->ike;
	struct v1_main *main = v1->main;
	struct ident *remote =
	    sa->initiator ? conn_remote_id(sa->conn, &sa->remote.addr) : NULL;
	struct vault_skeyid ask = { .prf = sa->suite.prf,
		.nonce = main->nonce,
		.initiator = sa->initiator,
		.peer_nonce = view_of(main->peer_nonce, main->peer_nonce_len),
		.local = sa->initiator ? sa->id_local : NULL,
		.remote = remote,
		.local_addr = sa->local.addr,
		.remote_addr = sa->remote.addr };
	enum err err = vault_skeyid(
	    sa->env->vault, &ask, sa_ticket(sa, &x->x, NULL), skeyid_done);

	ident_unref(remote);
	if (err == OK) {
		main->nonce = 0; /* taken back by the vault */
		x->pending++;
	}
	return err;
}

static void
nonce_done(struct env *env, struct ticket ticket, enum err err,
    const struct vault_nonce_answer *answer)
{
	struct v1_exchange *x = v1_awaiting(env, ticket);
	struct v1_main *main;

	if (x == NULL) {
		if (err == OK)
			vault_nonce_drop(env->vault, answer->handle);
		return;
	}
	main = v1_sa(x->x.sa)->main;
	if (err == OK) {
		main->nonce = answer->handle;
		memcpy(main->own_nonce, answer->nonce, VAULT_NONCE);
		if (!x->x.sa->initiator)
			err = skeyid_ask(v1_sa(x->x.sa), x);
	}
	v1_landed(x, err);
}

static void
skeyid_done(struct env *env, struct ticket ticket, enum err err,
    const struct vault_skeyid_answer *answer)
{
	struct v1_exchange *x = v1_awaiting(env, ticket);

	if (x == NULL)
		return;
	if (err == OK)
		v1_sa(x->x.sa)->main->skeyid = *answer;
	else if (err == ERR_NO_SECRET && x->x.sa->conn != NULL)
		explain_key(env, x->x.sa, NULL, true);
	v1_landed(x, err);
}

static enum err
keep_public(struct v1_main *main, const struct kex *kex)
{
	struct view public = kex_public(kex);

	free(main->own_public);
	main->own_public = mem_dup(public.at, public.len);
	main->own_public_len = (uint16_t) public.len;
	return main->own_public != NULL ? OK : ERR_NOMEM;
}

static void
generate_done(struct env *env, struct ticket ticket, struct dh_result *result)
{
	struct v1_exchange *x = v1_awaiting(env, ticket);
	struct v1_main *main;
	enum err err = result->err;

	if (x == NULL)
		return;
	main = v1_sa(x->x.sa)->main;
	if (err == OK)
		err = keep_public(main, result->own);
	if (err == OK) {
		kex_free(main->kex);
		main->kex = result->own;
		result->own = NULL;
	}
	v1_landed(x, err);
}

/* An ephemeral key serves once: the pair goes with the result. */
static void
derive_done(struct env *env, struct ticket ticket, struct dh_result *result)
{
	struct v1_exchange *x = v1_awaiting(env, ticket);
	struct v1_main *main;
	enum err err = result->err;

	if (x == NULL)
		return;
	main = v1_sa(x->x.sa)->main;
	if (err == OK && !x->x.sa->initiator)
		err = keep_public(main, result->own);
	if (err == OK)
		secret_move(&main->shared, &result->shared);
	v1_landed(x, err);
}

enum verdict
v1_main_generate(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_exchange *x = v1_exchange(base);
	struct ticket ticket = sa_ticket(sa, base, NULL);

	(void)msg;
	if (dh_generate(
	        sa->env->workers, sa->suite.kex, ticket, generate_done) != OK)
		return out_of_memory(base);
	x->pending++;
	if (vault_nonce(sa->env->vault, ticket, nonce_done) != OK)
		return out_of_memory(base);
	x->pending++;
	return WAIT;
}

/* What MM3 and MM4 share: HDR, KE, Ni or Nr, NAT-D, NAT-D. */
static void
write_ke(struct v1_out *out, struct v1_sa *v1)
{
	struct v1_main *main = v1->main;

	v1_out_begin(out, &v1->ike, EXCH_IDENTITY_PROTECTION, 0);
	wire_payload(
	    &out->wire, P1_KE, view_of(main->own_public, main->own_public_len));
	wire_payload(
	    &out->wire, P1_NONCE, view_of(main->own_nonce, VAULT_NONCE));
	if (v1->vendors & V1_VENDOR_NATT)
		natd_write(out, &v1->ike);
	vendors_write(&out->wire, main->late);
}

enum verdict
v1_main_send3(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_out out;

	(void)msg;
	write_ke(&out, v1_sa(sa));
	return send_or_fail(base, &out, false, true);
}

/* Checks and keeps the peer's public value and nonce: microseconds. */
static enum verdict
take_ke(struct v1_sa *v1, struct v1_exchange *x, const struct msg *msg)
{
	struct v1_main *main = v1->main;
	struct view public = msg_payload(msg, KIND_KE, 0)->body;
	struct view nonce = msg_payload(msg, KIND_NONCE, 0)->body;
	uint32_t late;

	if (nonce.len < V1_NONCE_MIN || nonce.len > V1_NONCE_MAX)
		return fsm_fail(&x->x, ERR_SYNTAX, 0,
		    "nonce of %zu octets (RFC 2409 5: 8 to 256)", nonce.len);
	/* At the responder the job that uses the value checks it; at the
	 * initiator a wrong one must not cost the key pair. */
	if (public.len != v1->ike.suite.kex->public_len ||
	    (v1->ike.initiator && kex_check(v1->ike.suite.kex, public) != OK))
		return fsm_fail(
		    &x->x, ERR_KE, 0, "public value breaks RFC 6989 2");
	free(main->peer_public);
	main->peer_public = mem_dup(public.at, public.len);
	if (main->peer_public == NULL)
		return out_of_memory(&x->x);
	main->peer_public_len = (uint16_t) public.len;
	memcpy(main->peer_nonce, nonce.at, nonce.len);
	main->peer_nonce_len = (uint16_t)nonce.len;
	natd_read(v1, x, msg);
	/* Interop: Cisco announces DPD here (RFC 3706 5.1 leaves the message
	 * open); a responder that has not done so yet answers with it. NAT-T
	 * is agreed upon in the first two messages (RFC 3947 3.1). */
	late = vendors_read(msg) & V1_VENDOR_DPD & ~v1->vendors;
	v1->vendors |= late;
	if (!v1->ike.initiator)
		main->late = late;
	return DONE;
}

/* MM4 at the initiator. */
enum verdict
v1_main_take4(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_sa *v1 = v1_sa(sa);
	struct v1_main *main = v1->main;
	struct v1_exchange *x = v1_exchange(base);

	/* A forged MM4 has used our key pair and nonce up: the handshake ends
	 * by time. */
	if (main->kex == NULL || main->nonce == 0)
		return IGNORE;
	if (take_ke(v1, x, msg) != DONE)
		return FAIL;
	if (dh_derive(sa->env->workers, main->kex,
	        view_of(main->peer_public, main->peer_public_len),
	        sa_ticket(sa, base, NULL), derive_done) != OK)
		return out_of_memory(base);
	main->kex = NULL;
	x->pending++;
	if (skeyid_ask(v1, x) != OK)
		return out_of_memory(base);
	return WAIT;
}

/* MM3 at the responder: from here on there is work to do. */
enum verdict
v1_main_take3(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_sa *v1 = v1_sa(sa);
	struct v1_main *main = v1->main;
	struct v1_exchange *x = v1_exchange(base);
	struct ticket ticket = sa_ticket(sa, base, NULL);

	if (take_ke(v1, x, msg) != DONE)
		return FAIL;
	limit_half_open_shown(sa->env->limit, &sa->half_open);
	if (dh_both(sa->env->workers, sa->suite.kex,
	        view_of(main->peer_public, main->peer_public_len), ticket,
	        derive_done) != OK)
		return out_of_memory(base);
	x->pending++;
	if (vault_nonce(sa->env->vault, ticket, nonce_done) != OK)
		return out_of_memory(base);
	x->pending++;
	return WAIT;
}

enum verdict
v1_main_send4(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_out out;

	(void)msg;
	write_ke(&out, v1_sa(sa));
	return send_or_fail(base, &out, false, false);
}

/* Identities ------------------------------------------------------------ */

/* RFC 3947 4: from the fifth message on, on the NAT-T port. */
static void
float_ports(struct ike_sa *sa)
{
	if (sa->natt || !sa->encap)
		return;
	sa->natt = true;
	sa->local.port = net_port(sa->env->net, true);
	sa->remote.port = NATT_PORT;
}

/* MM5: HDR*, IDii, HASH_I, [N(INITIAL-CONTACT)] */
enum verdict
v1_main_send5(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_sa *v1 = v1_sa(sa);
	struct v1_exchange *x = v1_exchange(base);
	struct v1_out out;
	enum err err;

	(void)msg;
	err = v1_auth_keys(v1, 0, &v1->keys, x->iv);
	if (err != OK)
		return fsm_fail(base, err, 0, "cannot derive keys");
	x->iv_set = true;
	float_ports(sa);
	v1_out_begin(&out, sa, EXCH_IDENTITY_PROTECTION, 0);
	err = v1_auth_write(v1, &out);
	if (err != OK)
		return fsm_fail(base, err, 0, "cannot authenticate");
	if (send_or_fail(base, &out, true, true) != DONE)
		return FAIL;
	memcpy(v1->iv, x->iv, sizeof(v1->iv));
	return DONE;
}

/* All is proven. MM6: HDR*, IDir, HASH_R, [N(INITIAL-CONTACT)] */
enum verdict
v1_main_finish(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_sa *v1 = v1_sa(sa);
	struct v1_exchange *x = v1_exchange(base);
	struct v1_out out;
	enum err err;

	(void)msg;
	v1_follow(v1, &x->local, &x->remote, x->natt, true);
	if (!sa->initiator) {
		v1_out_begin(&out, sa, EXCH_IDENTITY_PROTECTION, 0);
		err = v1_auth_write(v1, &out);
		if (err != OK)
			return fsm_fail(base, err, 0, "cannot authenticate");
	}
	err = sa_establish(sa, &v1->main->proof);
	if (err != OK)
		return fsm_fail(base, err, 0, "no proof of authentication");
	if (!sa->initiator && send_or_fail(base, &out, true, false) != DONE)
		return FAIL;
	memcpy(v1->iv, x->iv, sizeof(v1->iv));
	return DONE;
}

/* The table's callbacks ------------------------------------------------- */

void
v1_main_moved(struct v1_sa *v1, struct v1_exchange *x)
{
	struct ike_sa *sa = &v1->ike;
	uint64_t half_open_ms = limit_config(sa->env->limit)->half_open_ms;

	if (x->x.state != V1_MAIN_DONE) {
		/* The peer has shown itself at its address: more patience. */
		if (x->x.state == V1_MAIN_SENT4)
			half_open_ms *= 2;
		if (!sa->initiator)
			timer_set(
			    sa->env->timers, &sa->expire_timer, half_open_ms);
		return;
	}
	if (sa->initiator)
		exchange_end(&x->x);
	else
		timer_set(sa->env->timers, &x->linger, V1_LINGER_MS);
	v1_life_established(v1);
}

/* What is wrong with an unauthenticated message is the message's end, not the
 * SA's; our own failures, and what was said under keys, end it. */
void
v1_main_failed(struct v1_sa *v1, struct v1_exchange *x)
{
	struct ike_sa *sa = &v1->ike;
	struct failure *error = &x->x.error;
	bool proven = v1->main != NULL && v1->main->proof.serial != 0;

	sa_log(sa, LOG_LEVEL_WARNING, "Main Mode: %s", error->text);
	if (sa->state == IKE_NEW) {
		if (error->notify != 0)
			v1_info_refuse(sa, error->notify);
		sa_kill(
		    sa, error->err, !v1_own_failure(error->err), error->text);
		return;
	}
	if (!proven && !v1_own_failure(error->err))
		return;
	if (error->notify != 0)
		v1_info_notify(v1, PROTO_IKE, 0, error->notify);
	/* To the responder the SA has been up since its last message. */
	if (proven && sa->initiator)
		v1_info_delete_sa(v1);
	sa_kill(sa, error->err, false, error->text);
}
