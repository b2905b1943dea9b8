#include "ikev1/life.h"

#include <stdio.h>
#include <string.h>

#include "common/explain.h"
#include "common/natt.h"
#include "ikev1/child.h"
#include "ikev1/info.h"
#include "ikev1/peer.h"
#include "ikev1/phase1.h"
#include "ikev1/quick.h"
#include "ikev1/v1.h"

#define OLD_MS       5000  /* a replaced ISAKMP SA is deleted after */
#define RIVAL_MS     15000 /* one that lost to another waits for so long */
#define UNDELETED_MS 60000 /* once or twice that, where its peer should do it */
#define OLD_BUSY_MS  5000  /* ... and again so much later while it is busy */
#define CLOSING_MS   10000 /* until a closing one goes at the latest */
#define RENEW_MS     60000 /* between tries to renew phase 1 */
#define DEAF_MS      5000  /* until a husk hears no more Deletes */
#define ORPHAN_MS    2000  /* before a husk is renewed by who began it */
#define REFUSED_MS   8000 /* until a refusal that anybody may have sent counts */
#define ATTEMPTS     256  /* newest SAs looked at for attempts of ours */

/* Children that move ---------------------------------------------------- */

static bool
movable(const struct child_sa *child)
{
	return child->state == CHILD_UP || child->state == CHILD_REKEYED;
}

/* Children that are being negotiated stay with the SA that protects that. */
static void
adopt(struct v1_sa *from, struct v1_sa *to)
{
	struct child_sa *next;

	for (struct child_sa *child = from->ike.children; child != NULL;
	     child = next) {
		next = child->next;
		if (movable(child))
			child_move(child, &to->ike);
	}
	v1_move_children(to);
}

/* Children that are up here, or at the peer at least. */
static bool
has_children(const struct v1_sa *v1)
{
	for (const struct child_sa *child = v1->ike.children; child != NULL;
	     child = child->next)
		if (movable(child) || child->state == CHILD_INBOUND)
			return true;
	return false;
}

/* Ends ------------------------------------------------------------------ */

/* Nobody needs this husk any more. */
void
v1_life_reap(struct v1_sa *v1)
{
	struct ike_sa *sa = &v1->ike;

	if (!v1->husk || sa->child_count > 0 || sa->state == IKE_DEAD)
		return;
	sa_event(sa, NULL, EVENT_IKE_DOWN, OK, true, "its children have ended");
	sa_kill(sa, OK, true, "its children have ended");
}

/* Quick Modes that are not through, and their children. */
static void
end_quick_modes(struct v1_sa *v1)
{
	struct child_sa *next;

	for (struct child_sa *child = v1->ike.children; child != NULL;
	     child = next) {
		next = child->next;
		if (!movable(child))
			v1_child_kill(
			    child, ERR_CANCELLED, true, "the ISAKMP SA ended");
	}
}

/* What was being negotiated below an SA ends with it. */
static void
end_exchanges(struct v1_sa *v1)
{
	end_quick_modes(v1);
	while (v1->ike.exchanges != NULL)
		exchange_end(v1->ike.exchanges);
}

static void
end_keys(struct v1_sa *v1)
{
	timer_stop(v1->ike.env->timers, &v1->ike.expire_timer);
	v1_key_free(&v1->keys);
}

/* ... but for the third messages that the peer's Delete has overtaken. */
static void
end_but_halves(struct v1_sa *v1)
{
	struct exchange *next;
	struct child_sa *child;

	for (struct exchange *x = v1->ike.exchanges; x != NULL; x = next) {
		next = x->next;
		if (x->type == EXCH_QUICK && x->state == V1_QUICK_SENT2)
			continue;
		child = v1_quick_child(v1_exchange(x));
		if (x->type == EXCH_QUICK && child != NULL && !movable(child))
			v1_child_kill(
			    child, ERR_CANCELLED, true, "the ISAKMP SA ended");
		else
			exchange_end(x);
	}
}

static void
make_husk(struct v1_sa *v1, bool by_peer)
{
	struct ike_sa *sa = &v1->ike;
	struct timers *timers = sa->env->timers;

	if (by_peer)
		end_but_halves(v1);
	else
		end_exchanges(v1);
	v1->husk = true;
	v1->rival = 0;
	v1->deleting = false; /* that is over: it may be renewed */
	sa_set_state(sa, IKE_REKEYED);
	/* A peer that closes all deletes the children as well: that message
	 * may come later, or again. */
	if (by_peer)
		timer_set(timers, &sa->expire_timer, DEAF_MS);
	else
		end_keys(v1);
	timer_stop(timers, &sa->dpd_timer);
	timer_stop(timers, &sa->keepalive_timer);
	timer_stop(timers, &sa->rekey_timer);
	if (sa->initiator && sa->conn->rekey)
		timer_set(timers, &sa->rekey_timer,
		    ORPHAN_MS / 2 + env_random_u32(sa->env) % ORPHAN_MS);
	sa_log(sa, LOG_LEVEL_INFO, "%zu children live on without an ISAKMP SA",
	    sa->child_count);
}

/* Children whose third message did not come in time: the peer may have sent it,
 * and then it has them. */
static void
tell_halves(struct v1_sa *v1, struct v1_sa *heir)
{
	const struct child_sa *child;

	for (child = v1->ike.children; child != NULL; child = child->next)
		if (child->state == CHILD_INBOUND)
			v1_info_delete_children(heir, &child->spi_in, 1);
}

/* RFC 2408 4.3: the ISAKMP SA ends, its children do not. */
static void
retire(struct v1_sa *v1, bool by_peer, const char *text)
{
	struct ike_sa *sa = &v1->ike;
	struct v1_sa *heir = v1_successor(v1);

	sa_log(sa, LOG_LEVEL_INFO, "the ISAKMP SA has ended: %s", text);
	sa_hold(sa);
	if (heir != NULL) {
		tell_halves(v1, heir);
		end_exchanges(v1);
		adopt(v1, heir);
		sa_set_state(sa, IKE_REKEYED); /* no IKE_DOWN is told */
		sa_kill(sa, OK, by_peer, text);
	} else if (has_children(v1)) {
		make_husk(v1, by_peer);
	} else {
		sa_kill(sa, OK, by_peer, text);
	}
	sa_release(sa);
}

static bool
deletes_pending(const struct v1_sa *v1)
{
	for (const struct exchange *x = v1->ike.exchanges; x != NULL;
	     x = x->next)
		if (x->type == EXCH_INFORMATIONAL_V1 &&
		    x->role == ROLE_INITIATOR)
			return true;
	return false;
}

/* The SA's own Delete goes out; when its last repeat has, the SA ends. */
static void
begin_delete(struct v1_sa *v1)
{
	struct ike_sa *sa = &v1->ike;

	sa_log(sa, LOG_LEVEL_INFO, "deleting the ISAKMP SA");
	/* What is under way ends here as it will end at the peer: an answer
	 * that crosses our Delete must not make a child of one end. */
	tell_halves(v1, v1);
	end_quick_modes(v1);
	v1->deleting = true;
	timer_stop(sa->env->timers, &sa->rekey_timer);
	timer_stop(sa->env->timers, &sa->dpd_timer);
	timer_stop(sa->env->timers, &sa->keepalive_timer);
	timer_set(sa->env->timers, &sa->expire_timer, CLOSING_MS);
	v1_info_delete_sa(v1);
}

void
v1_life_deleted(struct v1_exchange *x)
{
	struct ike_sa *sa = x->x.sa;
	struct v1_sa *v1 = v1_sa(sa);

	sa_hold(sa);
	exchange_end(&x->x);
	if (v1->deleting && !deletes_pending(v1)) {
		if (sa->state == IKE_REKEYED)
			retire(v1, false, "replaced");
		else
			sa_kill(sa, OK, false, "closed");
	}
	sa_release(sa);
}

static bool
quick_pending(const struct v1_sa *v1)
{
	for (const struct exchange *x = v1->ike.exchanges; x != NULL;
	     x = x->next)
		if (x->type == EXCH_QUICK && x->state != V1_QUICK_DONE)
			return true;
	return false;
}

static void
expired(void *arg)
{
	struct v1_sa *v1 = arg;
	struct ike_sa *sa = &v1->ike;

	if (v1->husk) {
		sa_hold(sa);
		end_exchanges(v1);
		end_keys(v1);
		v1_life_reap(v1);
		sa_release(sa);
	} else if (v1->refused != 0) {
		char text[80];

		snprintf(text, sizeof(text),
		    "the peer refused, unprotected: %s",
		    kind_text((enum kind)v1->refused));
		sa_kill(sa, ERR_PEER, true, text);
	} else if (sa->established_ms == 0) {
		sa_kill(sa, ERR_TIMEOUT, true,
		    "the handshake was not finished in time");
	} else if (v1->deleting && sa->state == IKE_CLOSING) {
		sa_kill(sa, OK, false, "closed");
	} else if (v1->deleting) {
		retire(v1, false, "replaced");
	} else if (sa->state == IKE_REKEYED && quick_pending(v1) &&
	           env_now(sa->env) < sa->expire_at_ms) {
		timer_set(sa->env->timers, &sa->expire_timer, OLD_BUSY_MS);
	} else {
		/* Replaced and idle, or at the end of its lifetime. */
		sa_set_state(sa, IKE_REKEYED);
		begin_delete(v1);
	}
}

/* The list has the newest first. */
static struct child_sa *
oldest_child(const struct v1_sa *v1)
{
	struct child_sa *child = v1->ike.children;

	while (child != NULL && child->next != NULL)
		child = child->next;
	return child;
}

/* Interop: libreswan 4.10 takes the newest child's Delete for the end of all,
 * and dies of an older one's that stands behind it in the same payload. */
static void
close_children(struct v1_sa *v1)
{
	uint32_t spis[V1_DELETE_MAX];
	struct child_sa *child;
	size_t count = 0;

	while ((child = oldest_child(v1)) != NULL) {
		struct v1_exchange *x = v1_quick_of(child);

		if (child->spi_in != 0 && child->state != CHILD_NEW)
			spis[count++] = child->spi_in;
		if (x != NULL)
			exchange_end(&x->x);
		child_kill(child, ERR_CANCELLED, false, "closed");
		if (count == V1_DELETE_MAX) {
			v1_info_delete_children(v1, spis, count);
			count = 0;
		}
	}
	v1_info_delete_children(v1, spis, count);
}

/* What v1 replaced goes with it. */
static void
close_replaced(struct v1_sa *v1)
{
	struct v1_walk walk = v1_walk_from(v1);
	struct v1_sa *other;

	while ((other = v1_walk_on(&walk)) != NULL) {
		if (!v1_same_peer(v1, other) || other->ike.state != IKE_REKEYED)
			continue;
		adopt(other, v1);
		if (other->husk)
			sa_kill(&other->ike, OK, false, "closed");
		else if (!other->deleting)
			begin_delete(other);
	}
}

enum err
v1_life_close(struct ike_sa *sa)
{
	struct v1_sa *v1 = v1_sa(sa);

	if (sa->established_ms == 0 || v1->husk) {
		if (v1->husk)
			sa_event(sa, NULL, EVENT_IKE_DOWN, OK, false, "closed");
		sa_kill(sa, ERR_CANCELLED, false, "closed");
		return OK;
	}
	sa_hold(sa);
	close_replaced(v1);
	close_children(v1);
	sa_set_state(sa, IKE_CLOSING);
	begin_delete(v1);
	sa_release(sa);
	return OK;
}

/* Renewal of phase 1 ---------------------------------------------------- */

enum err
v1_life_renew(struct ike_sa *sa)
{
	struct v1_sa *v1 = v1_sa(sa), *renewal;
	struct env *env = sa->env;
	struct ike_sa *under_way = sa_by_serial(env->sadb, v1->renewed_by);
	struct conn *conn;
	enum err err;

	if (sa->established_ms == 0 || v1->deleting)
		return ERR_WRONG_STATE;
	if (v1->renewed_by != 0 && under_way != NULL)
		return OK;
	timer_set(env->timers, &sa->rekey_timer, RENEW_MS);
	conn = env->policy != NULL ? policy_conn(env->policy, sa->conn->name)
	                           : NULL;
	if (conn == NULL || !conn_allows(conn, 1))
		conn = sa->conn;
	err = v1_main_begin(env, conn, &sa->local, &sa->remote, sa->natt,
	    sa->serial, false, &renewal);
	if (err == OK)
		v1->renewed_by = renewal->ike.serial;
	return err;
}

void
v1_life_unanswered(struct v1_sa *v1)
{
	/* With a wrong key neither end can tell the other. */
	const char *text =
	    v1->keys.octets.len > 0
	        ? "the peer does not answer the message with our identity: has "
	          "it the same pre-shared key?"
	        : "the peer does not answer";
	struct ike_sa *old = sa_by_serial(v1->ike.env->sadb, v1->replaces);

	sa_kill(&v1->ike, ERR_TIMEOUT, false, text);
	if (old == NULL || !v1_sa(old)->husk)
		return;
	sa_hold(old);
	sa_event(old, NULL, EVENT_PEER_DEAD, ERR_TIMEOUT, false, text);
	if (old->state != IKE_DEAD) {
		sa_event(old, NULL, EVENT_IKE_DOWN, ERR_TIMEOUT, false, text);
		sa_kill(old, ERR_TIMEOUT, false, text);
	}
	sa_release(old);
}

static void replace(struct v1_sa *old, struct v1_sa *by);

/* v1 has lost to another some time ago. */
static void
give_way(struct v1_sa *v1)
{
	struct env *env = v1->ike.env;
	struct ike_sa *rival = sa_by_serial(env->sadb, v1->rival);
	uint64_t now = env_now(env);

	v1->rival = 0;
	if (rival != NULL && rival->state == IKE_ESTABLISHED)
		replace(v1, v1_sa(rival));
	else if (v1->ike.rekey_at_ms != 0)
		timer_set(env->timers, &v1->ike.rekey_timer,
		    v1->ike.rekey_at_ms > now ? v1->ike.rekey_at_ms - now : 0);
}

static void
renewal_due(void *arg)
{
	struct v1_sa *v1 = arg;
	struct v1_sa *heir;

	if (v1->rival != 0) {
		give_way(v1);
		return;
	}
	/* Somebody else may have made a new one since. */
	heir = v1->husk ? v1_successor(v1) : NULL;
	if (heir != NULL)
		retire(v1, true, "replaced");
	else
		v1_life_renew(&v1->ike);
}

/* v1 is replaced: it answers, but begins nothing any more. To delete it is the
 * peer's part; of one that makes SA after SA and deletes none, few stay. */
static void
superseded(struct v1_sa *v1, struct v1_sa *by)
{
	struct ike_sa *sa = &v1->ike;
	struct env *env = sa->env;
	uint64_t delay = UNDELETED_MS + env_random_u32(env) % UNDELETED_MS;

	adopt(v1, by);
	timer_stop(sa->env->timers, &sa->rekey_timer);
	timer_stop(sa->env->timers, &sa->dpd_timer);
	v1->renewed_by = by->ike.serial;
	sa_set_state(sa, IKE_REKEYED);
	if (env_now(env) + delay < sa->expire_at_ms)
		timer_set(env->timers, &sa->expire_timer, delay);
}

/* ... and we delete it in a while. */
static void
replace(struct v1_sa *old, struct v1_sa *by)
{
	superseded(old, by);
	if (old->husk)
		retire(old, true, "replaced");
	else
		timer_set(old->ike.env->timers, &old->ike.expire_timer, OLD_MS);
}

/* Both ends made a new SA at once: the lower initiator cookie loses, and its
 * initiator deletes. Returns the one that stays. */
static struct v1_sa *
collide(struct v1_sa *a, struct v1_sa *b)
{
	struct v1_sa *loser = a->ike.spi_i < b->ike.spi_i ? a : b;
	struct v1_sa *winner = loser == a ? b : a;

	env_count(a->ike.env, COUNTER_COLLISIONS);
	if (!loser->ike.initiator) {
		superseded(loser, winner);
	} else {
		/* Interop: strongSwan gives its children to the SA that it
		 * answered, ends them with it, and deletes the other one in
		 * ten seconds: both stay until it has. */
		loser->rival = winner->ike.serial;
		timer_set(
		    loser->ike.env->timers, &loser->ike.rekey_timer, RIVAL_MS);
	}
	return winner;
}

/* Each began before the other was up, at the two ends. */
static bool
at_once(const struct v1_sa *a, const struct v1_sa *b)
{
	return a->ike.initiator != b->ike.initiator &&
	       a->ike.created_ms <= b->ike.established_ms &&
	       b->ike.created_ms <= a->ike.established_ms;
}

/* v1 has come up beside others of the same peer: true if it replaced one. */
static bool
take_over(struct v1_sa *v1)
{
	struct v1_walk walk = v1_walk_from(v1);
	struct v1_sa *other;
	bool replaced = false;

	while ((other = v1_walk_on(&walk)) != NULL) {
		if (!v1_same_peer(v1, other) ||
		    (other->deleting && !other->husk))
			continue;
		if (other->ike.serial == v1->replaces || other->husk) {
			replace(other, v1);
			replaced = true;
		} else if (other->ike.state != IKE_ESTABLISHED) {
			continue;
		} else if (at_once(v1, other)) {
			collide(v1, other);
		} else if (!v1->ike.initiator) {
			superseded(other, v1);
			replaced = true;
		}
	}
	return replaced;
}

/* The peer was first: attempts of ours that it has not answered are given up,
 * so that whatever goes on overlapped at both ends. */
static void
give_up_attempts(struct v1_sa *v1)
{
	struct ike_sa *sa = v1->ike.env->sadb->last, *prev;
	const struct ts none[2] = { { .proto = 0 }, { .proto = 0 } };

	for (unsigned n = 0; sa != NULL && n < ATTEMPTS; sa = prev, n++) {
		struct v1_sa *attempt = v1_sa(sa);
		struct conn *conn;

		prev = sa->prev;
		if (sa->engine != &v1_engine || !sa->initiator ||
		    sa->spi_r != 0 || !v1_same_peer(v1, attempt))
			continue;
		conn = attempt->first_child && sa->conn != v1->ike.conn
		           ? conn_ref(sa->conn)
		           : NULL;
		/* Not a failure, and not told as one. */
		sa_set_state(sa, IKE_REKEYED);
		sa_kill(sa, ERR_EXISTS, true, "the peer was first");
		if (conn != NULL)
			v1_quick_conn(&v1->ike, conn, none);
		conn_unref(conn);
	}
}

void
v1_life_hint(struct v1_sa *v1, enum kind kind)
{
	struct ike_sa *sa = &v1->ike;

	if (!sa->initiator || sa->spi_r != 0 || v1->refused != 0 ||
	    sa->state != IKE_HALF_OPEN)
		return;
	v1->refused = (uint8_t)kind;
	explain_refused(sa->env, sa, sa->conn, false, kind);
	timer_set(sa->env->timers, &sa->expire_timer, REFUSED_MS);
}

void
v1_life_progress(struct v1_sa *v1)
{
	if (v1->refused == 0)
		return;
	v1->refused = 0;
	timer_stop(v1->ike.env->timers, &v1->ike.expire_timer);
}

/* Coming up ------------------------------------------------------------- */

/* An SA between the same two identities from before v1. Not so what came up
 * while v1 was being made. */
static struct v1_sa *
leftover(struct v1_sa *v1)
{
	struct v1_sa *other = v1_same_identity(v1, NULL);

	while (other != NULL &&
	       (other == v1 || other->ike.id_local == NULL ||
	           !ident_equal(other->ike.id_local, v1->ike.id_local) ||
	           other->ike.established_ms >= v1->ike.created_ms))
		other = v1_same_identity(v1, other);
	return other;
}

/* RFC 2407 4.6.3.3. Once for each SA, so that a replay does nothing. Each end
 * tells people, who may do anything: the search begins anew. */
void
v1_life_contact(struct v1_sa *v1)
{
	struct v1_sa *other;

	if (v1->contacted || !v1->ike.env->policy->uniqueids)
		return;
	v1->contacted = true;
	while ((other = leftover(v1)) != NULL) {
		sa_log(&other->ike, LOG_LEVEL_INFO,
		    "the peer has started anew (INITIAL-CONTACT)");
		sa_kill(&other->ike, OK, true, "INITIAL-CONTACT");
	}
}

uint64_t
v1_life_agreed_ms(uint64_t own_ms, uint32_t seconds)
{
	uint64_t theirs = seconds == 0 ? LIFETIME_DEFAULT_MS
	                  : seconds < V1_LIFETIME_FLOOR_S
	                      ? V1_LIFETIME_FLOOR_S * 1000ull
	                      : seconds * 1000ull;

	return theirs < own_ms ? theirs : own_ms;
}

/* Who answered renews later than who began, so that they seldom meet. */
void
v1_life_renew_later(struct env *env, const struct conn *conn,
    struct timer *timer, uint64_t *at_ms, uint64_t lifetime_ms)
{
	uint64_t margin = conn->margin_ms / 3;

	if (!timer_armed(timer) || margin == 0 || margin > lifetime_ms / 4)
		return;
	timer_set(env->timers, timer, lifetime_ms - margin);
	*at_ms = env_now(env) + lifetime_ms - margin;
}

static void
set_lifetime(struct v1_sa *v1)
{
	struct ike_sa *sa = &v1->ike;
	uint64_t ms = v1_life_agreed_ms(sa->conn->ike_lifetime_ms, v1->seconds);

	sa_set_lifetime(sa, ms, true);
	if (!sa->initiator)
		v1_life_renew_later(
		    sa->env, sa->conn, &sa->rekey_timer, &sa->rekey_at_ms, ms);
}

static void
rekey_overdue(struct v1_sa *v1)
{
	uint64_t now = env_now(v1->ike.env);
	struct child_sa *child, *next;

	for (child = v1->ike.children; child != NULL; child = next) {
		next = child->next;
		if (child->state == CHILD_UP && child->rekeyed_by == 0 &&
		    child->rekey_at_ms != 0 && child->rekey_at_ms <= now)
			v1_quick_rekey(child);
	}
}

void
v1_life_established(struct v1_sa *v1)
{
	struct ike_sa *sa = &v1->ike;
	const struct ts none[2] = { { .proto = 0 }, { .proto = 0 } };
	char text[SUITE_TEXT], id[IDENT_TEXT];
	bool contact = v1->main->initial_contact, renewed;

	v1_main_free(sa->env, v1->main);
	v1->main = NULL;
	v1_info_alive(v1);
	set_lifetime(v1);
	sa_log(sa, LOG_LEVEL_INFO, "ISAKMP SA with %s: %s%s",
	    ident_text(sa->id_remote, id), suite_text(&sa->suite, text),
	    sa->natt ? ", NAT-T" : "");
	if (contact)
		v1_life_contact(v1);
	renewed = take_over(v1);
	sa_event(sa, NULL, renewed ? EVENT_IKE_REKEYED : EVENT_IKE_UP, OK,
	    false, NULL);
	v1_info_dpd_begin(v1);
	if (sa->natt && sa->nat_local)
		timer_set(
		    sa->env->timers, &sa->keepalive_timer, NATT_KEEPALIVE_MS);
	if (!sa->initiator && sa->conn->remote.host_count > 0 &&
	    sa->conn->remote.host[0].kind != HOST_ANY)
		give_up_attempts(v1);
	if (v1->first_child)
		v1_quick_conn(sa, sa->conn, none);
	rekey_overdue(v1);
}

void
v1_life_received(struct v1_sa *v1)
{
	struct exchange *x;

	if (v1->ike.initiator || v1->ike.established_ms == 0)
		return;
	x = exchange_find(
	    &v1->ike, EXCH_IDENTITY_PROTECTION, ROLE_RESPONDER, 0);
	if (x != NULL && x->state == V1_MAIN_DONE && !x->running)
		exchange_end(x);
}

void
v1_life_init(struct v1_sa *v1)
{
	timer_init(&v1->ike.rekey_timer, renewal_due, v1);
	timer_init(&v1->ike.expire_timer, expired, v1);
	timer_init(&v1->ike.dpd_timer, v1_info_dpd, v1);
	timer_init(&v1->ike.keepalive_timer, v1_keepalive, v1);
}

void
v1_life_sa_deleted(struct v1_sa *v1, uint64_t spi_i, uint64_t spi_r)
{
	struct v1_walk walk = v1_walk_from(v1);
	struct v1_sa *other;

	if (v1->ike.state == IKE_CLOSING) {
		if (v1->ike.spi_i == spi_i && v1->ike.spi_r == spi_r)
			sa_kill(&v1->ike, OK, true, "closed by both");
		return;
	}
	while ((other = v1_walk_on(&walk)) != NULL)
		if (other->ike.spi_i == spi_i && other->ike.spi_r == spi_r &&
		    !other->husk && v1_speaks_for(v1, other)) {
			retire(other, true, "deleted by the peer");
			return;
		}
}
