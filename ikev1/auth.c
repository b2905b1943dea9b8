#include "ikev1/auth.h"

#include <string.h>

#include "common/explain.h"
#include "ikev1/sk.h"

#define FAILURES_FREE 16   /* MM5s tried without delay */
#define FAILURE_MS    1000 /* between tries beyond */
#define ID_HEADER     4    /* type, protocol, port (RFC 2407 4.6.2) */

enum err
v1_auth_keys(struct v1_sa *v1, unsigned n, struct v1_keys *keys,
    uint8_t iv[static V1_BLOCK_MAX])
{
	struct ike_sa *sa = &v1->ike;
	struct v1_main *main = v1->main;
	struct view own = view_of(main->own_public, main->own_public_len);
	struct view peer = view_of(main->peer_public, main->peer_public_len);
	enum err err;

	if (n >= main->skeyid.count)
		return ERR_NO_SECRET;
	err = v1_key_derive(keys, &sa->suite,
	    view_of(main->skeyid.item[n].skeyid, sa->suite.prf->out),
	    secret_view(&main->shared), sa->spi_i, sa->spi_r);
	if (err != OK)
		return err;
	return v1_key_iv_phase1(&sa->suite, sa->initiator ? own : peer,
	    sa->initiator ? peer : own, iv);
}

static enum err
compute_hash(struct v1_sa *v1, unsigned n, bool of_initiator,
    struct view id_body, uint8_t out[static PRF_MAX])
{
	struct ike_sa *sa = &v1->ike;
	struct v1_main *main = v1->main;
	struct view own = view_of(main->own_public, main->own_public_len);
	struct view peer = view_of(main->peer_public, main->peer_public_len);
	struct v1_hash_phase1 in = { .prf = sa->suite.prf,
		.skeyid =
		    view_of(main->skeyid.item[n].skeyid, sa->suite.prf->out),
		.public_i = sa->initiator ? own : peer,
		.public_r = sa->initiator ? peer : own,
		.sa_body = view_of(main->sa_body, main->sa_body_len),
		.id_body = id_body,
		.spi_i = sa->spi_i,
		.spi_r = sa->spi_r };

	return v1_key_hash_phase1(&in, of_initiator, out);
}

/* Is this message the peer's, under the n-th candidate? The ID enters the
 * hash as received (RFC 2409 5). */
static bool
verify(struct v1_sa *v1, unsigned n, const struct msg *msg)
{
	const struct payload *id = msg_payload(msg, KIND_ID, 0);
	const struct payload *hash = msg_payload(msg, KIND_HASH, 0);
	uint8_t expected[PRF_MAX];

	if (id == NULL || hash == NULL ||
	    compute_hash(v1, n, !v1->ike.initiator, id->body, expected) != OK)
		return false;
	return proof_by_mac(&v1->main->proof, &v1->ike,
	    view_of(expected, v1->ike.suite.prf->out), hash->body);
}

static enum err
open_as_initiator(struct v1_sa *v1, struct v1_exchange *x, struct msg *msg)
{
	uint8_t next[V1_BLOCK_MAX];

	if (v1_sk_open(&v1->keys, msg, x->iv, next) != OK ||
	    !verify(v1, 0, msg))
		return ERR_AUTH;
	memcpy(x->iv, next, sizeof(x->iv));
	/* For what we may have to say of it: the responder is through. */
	memcpy(v1->iv, next, sizeof(v1->iv));
	return OK;
}

/* Several PSKs may fit an unknown address: the one under which HASH_I holds is
 * meant. At most VAULT_CANDIDATES. */
static enum err
open_as_responder(struct v1_sa *v1, struct v1_exchange *x, struct msg *msg)
{
	struct v1_keys keys = { NULL, NULL, { NULL, 0 } };
	uint8_t iv[V1_BLOCK_MAX], next[V1_BLOCK_MAX];
	enum err err = ERR_AUTH;

	for (unsigned n = 0; n < v1->main->skeyid.count; n++) {
		if (v1_auth_keys(v1, n, &keys, iv) == OK &&
		    v1_sk_open(&keys, msg, iv, next) == OK &&
		    verify(v1, n, msg)) {
			v1->main->chosen = n;
			v1_key_free(&v1->keys);
			v1->keys = keys;
			memcpy(x->iv, next, sizeof(x->iv));
			memcpy(v1->iv, next, sizeof(v1->iv));
			x->iv_set = true;
			return OK;
		}
		v1_key_free(&keys);
	}
	return err;
}

enum err
v1_auth_open(struct v1_sa *v1, struct v1_exchange *x, struct msg *msg)
{
	struct ike_sa *sa = &v1->ike;
	struct v1_main *main = v1->main;
	uint64_t now = env_now(sa->env);
	enum err err;

	if (main == NULL ||
	    x->x.state != (sa->initiator ? V1_MAIN_SENT5 : V1_MAIN_SENT4))
		return ERR_WRONG_STATE;
	/* Forgeries are throttled; they never end a handshake. */
	if (main->failures >= FAILURES_FREE && now < main->try_at_ms)
		return ERR_AUTH;
	err = sa->initiator ? open_as_initiator(v1, x, msg)
	                    : open_as_responder(v1, x, msg);
	if (err == OK)
		return OK;
	main->try_at_ms = now + FAILURE_MS;
	if (main->failures == 0 && sa->conn != NULL)
		explain_key(sa->env, sa, NULL, false);
	if (main->failures++ == 0)
		sa_log(sa, LOG_LEVEL_WARNING,
		    "message %d does not open with %s: is the pre-shared key "
		    "the same at both ends?",
		    sa->initiator ? 6 : 5,
		    main->skeyid.count > 1 ? "any pre-shared key that fits"
		                           : "our pre-shared key");
	return ERR_AUTH;
}

/* RFC 2407 4.6.3.3: to be sent when we have no other SA with this peer. A
 * renewal is no first contact. */
static bool
contact_is_first(struct v1_sa *v1)
{
	struct ike_sa *sa = &v1->ike, *other;
	struct ident *remote;
	bool first;

	if (v1->replaces != 0)
		return false;
	remote = sa->initiator ? conn_remote_id(sa->conn, &sa->remote.addr)
	                       : ident_ref(v1->main->claimed);
	if (remote == NULL)
		return false;
	other = sa_by_remote_in(sa->env->sadb, remote,
	    IKE_STATE_BIT(IKE_ESTABLISHED) | IKE_STATE_BIT(IKE_REKEYED), NULL);
	first = other == NULL;
	ident_unref(remote);
	return first;
}

enum err
v1_auth_write(struct v1_sa *v1, struct v1_out *out)
{
	struct ike_sa *sa = &v1->ike;
	struct view id = ident_view(sa->id_local), body;
	uint8_t hash[PRF_MAX], cookies[16];
	struct buf buf;
	size_t at;
	enum err err;

	wire_begin(&out->wire, P1_ID, false);
	at = out->buf.len;
	buf_u8(&out->buf, sa->id_local->type);
	buf_zero(&out->buf, ID_HEADER - 1); /* RFC 2407 4.6.2: 0/0 */
	buf_view(&out->buf, id);
	if (out->buf.full)
		return ERR_LONG;
	body = view_of(out->octets + at, out->buf.len - at);
	wire_end(&out->wire);
	err = compute_hash(v1, v1->main->chosen, sa->initiator, body, hash);
	if (err != OK)
		return err;
	wire_payload(&out->wire, P1_HASH, view_of(hash, sa->suite.prf->out));
	if (contact_is_first(v1)) {
		buf_init(&buf, cookies, sizeof(cookies));
		buf_u64(&buf, sa->spi_i);
		buf_u64(&buf, sa->spi_r);
		wire_notify_v1(&out->wire, PROTO_IKE, buf_done(&buf),
		    N1_INITIAL_CONTACT, view_of(NULL, 0));
	}
	return OK;
}

/* RFC 2407 4.6.2: 0/0 or UDP/500. Interop: 17/0, 17/4500 and others occur. */
static enum err
read_identity(struct ike_sa *sa, struct view body, struct ident **ident)
{
	uint8_t type, protocol;
	uint16_t port;

	if (!view_u8(&body, &type) || !view_u8(&body, &protocol) ||
	    !view_u16(&body, &port))
		return ERR_SHORT;
	if (!(protocol == 0 && port == 0) &&
	    !(protocol == 17 && port == IKE_PORT))
		sa_log(sa, LOG_LEVEL_DEBUG,
		    "identity with protocol %u, port %u", protocol, port);
	if (type == ID_ANY || type == ID_IPV4_ADDR_SUBNET ||
	    type == ID_IPV6_ADDR_SUBNET || type == ID_IPV4_ADDR_RANGE ||
	    type == ID_IPV6_ADDR_RANGE)
		return ERR_SYNTAX;
	*ident = ident_new(type, body);
	return *ident != NULL ? OK : ERR_SYNTAX;
}

/* By the identity, among those that allow what was agreed: a change of
 * connection never weakens anything. */
static struct conn *
choose_conn(struct ike_sa *sa, const struct ident *claimed)
{
	struct conn *found[V1_CONNS];
	size_t count;

	count = policy_by_identity(sa->env->policy, &sa->local.addr,
	    &sa->remote.addr, 1, NULL, claimed, found, V1_CONNS);
	for (size_t i = 0; i < count; i++)
		if (found[i]->remote.auth == AUTH_PSK &&
		    proposals_allow(&found[i]->ike, &sa->suite))
			return found[i];
	return NULL;
}

static bool
is_expected(struct ike_sa *sa, const struct ident *claimed)
{
	struct ident *wanted = conn_remote_id(sa->conn, &sa->remote.addr);
	bool fits = ident_fits(wanted, claimed) > 0;

	ident_unref(wanted);
	if (!fits)
		explain_identity(
		    sa->env, sa, &sa->conn, 1, sa->id_local, claimed);
	return fits;
}

static void
refuse_nobody(struct v1_exchange *x)
{
	struct ike_sa *sa = x->x.sa;
	struct ident *claimed = v1_sa(sa)->main->claimed;
	struct conn *found[V1_CONNS];
	char text[IDENT_TEXT];
	size_t count = policy_candidates(sa->env->policy, &sa->local.addr,
	    &sa->remote.addr, 1, found, V1_CONNS);

	explain_identity(sa->env, sa, found, count, NULL, claimed);
	fsm_fail(&x->x, ERR_AUTH, N1_AUTHENTICATION_FAILED,
	    "no connection for the identity %s", ident_text(claimed, text));
}

static void
permits_done(struct env *env, struct ticket ticket, enum err err)
{
	struct v1_exchange *x = v1_awaiting(env, ticket);

	if (x == NULL)
		return;
	if (v1_sa(x->x.sa)->main->nobody) {
		refuse_nobody(x);
		err = ERR_AUTH;
	} else if (err != OK) {
		fsm_fail(&x->x, ERR_AUTH, N1_AUTHENTICATION_FAILED,
		    "the pre-shared key is not this identity's");
	}
	v1_landed(x, err);
}

enum verdict
v1_auth_identify(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_sa *v1 = v1_sa(sa);
	struct v1_main *main = v1->main;
	struct ident *claimed = NULL, *local = NULL;
	struct vault_permits ask;
	char text[IDENT_TEXT];
	struct conn *conn;

	if (read_identity(sa, msg_payload(msg, KIND_ID, 0)->body, &claimed) !=
	    OK)
		return fsm_fail(base, ERR_AUTH, N1_INVALID_ID_INFORMATION,
		    "malformed identity");
	ident_unref(main->claimed);
	main->claimed = claimed;
	if (!sa->initiator) {
		/* A name that nobody has is found out like one that has another
		 * key, by the same work: who shares a key with others must not
		 * learn their names from the clock. */
		conn = choose_conn(sa, claimed);
		main->nobody = conn == NULL;
		if (conn != NULL)
			sa_set_conn(sa, conn);
		local = conn_local_id(sa->conn, &sa->local.addr);
		if (local == NULL)
			return fsm_fail(base, ERR_NOMEM, 0, "out of memory");
		ident_unref(sa->id_local);
		sa->id_local = local;
	} else if (!is_expected(sa, claimed)) {
		return fsm_fail(base, ERR_AUTH, N1_AUTHENTICATION_FAILED,
		    "no connection for the identity %s",
		    ident_text(claimed, text));
	}
	main->initial_contact = msg_has(msg, KIND_N_INITIAL_CONTACT);
	ask =
	    (struct vault_permits){ .secret =
		                        main->skeyid.item[main->chosen].secret,
		    .local = sa->id_local,
		    .remote = claimed,
		    .local_addr = sa->local.addr,
		    .remote_addr = sa->remote.addr };
	if (vault_permits(sa->env->vault, &ask, sa_ticket(sa, base, NULL),
	        permits_done) != OK)
		return fsm_fail(base, ERR_NOMEM, 0, "the vault is busy");
	v1_exchange(base)->pending = 1;
	return WAIT;
}

enum verdict
v1_auth_proven(struct ike_sa *sa, struct exchange *base, struct msg *msg)
{
	struct v1_main *main = v1_sa(sa)->main;

	(void)base;
	(void)msg;
	ident_unref(sa->id_remote);
	sa->id_remote = ident_ref(main->claimed);
	return DONE;
}
