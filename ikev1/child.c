#include "ikev1/child.h"

#include <string.h>

#include "ikev1/info.h"
#include "ikev1/life.h"
#include "ikev1/peer.h"
#include "ikev1/quick.h"
#include "ikev1/v1.h"

#define OLD_MS       5000  /* a replaced child is deleted after */
#define UNDELETED_MS 30000 /* once or twice that, where the peer should */
#define REVIVED_MS   30000 /* until a child in use again is renewed */

void
v1_child_kill(
    struct child_sa *child, enum err why, bool by_peer, const char *text)
{
	struct v1_sa *v1 = v1_sa(child->sa);
	struct v1_exchange *x = v1_quick_of(child);

	sa_hold(&v1->ike);
	if (x != NULL) {
		exchange_end(&x->x);
		v1_quick_pass_on(v1);
	}
	child_kill(child, why, by_peer, text);
	v1_life_reap(v1);
	sa_release(&v1->ike);
}

/* As child_linger(); a husk ends with its last child. */
static void
linger(struct child_sa *child)
{
	struct v1_sa *v1 = v1_sa(child->sa);

	sa_hold(&v1->ike);
	child_linger(child, V1_CHILD_LINGER_MS);
	v1_life_reap(v1);
	sa_release(&v1->ike);
}

static void
tell_delete(struct child_sa *child)
{
	struct v1_sa *v1 = v1_current(child->sa);

	if (v1 == NULL && !v1_sa(child->sa)->husk)
		v1 = v1_sa(child->sa);
	if (v1 != NULL && child->spi_in != 0)
		v1_info_delete_children(v1, &child->spi_in, 1);
}

static void
child_expired(void *arg)
{
	struct child_sa *child = arg;
	struct env *env = child->sa->env;

	/* One that was replaced stays until the peer can be told, so that both
	 * ends keep the same. */
	if (child->state == CHILD_REKEYED && v1_sa(child->sa)->husk &&
	    v1_current(child->sa) == NULL &&
	    env_now(env) < child->expire_at_ms) {
		timer_set(env->timers, &child->expire_timer, OLD_MS);
		return;
	}
	tell_delete(child);
	if (child->state == CHILD_REKEYED)
		linger(child);
	else
		v1_child_kill(
		    child, ERR_TIMEOUT, false, "its lifetime is over");
}

static void
child_rekey_due(void *arg)
{
	v1_quick_rekey(arg);
}

void
v1_child_init(struct child_sa *child)
{
	timer_init(&child->rekey_timer, child_rekey_due, child);
	timer_init(&child->expire_timer, child_expired, child);
}

enum err
v1_child_close(struct child_sa *child)
{
	tell_delete(child);
	v1_child_kill(child, ERR_CANCELLED, false, "closed");
	return OK;
}

bool
v1_child_lifetime(struct child_sa *child, uint32_t seconds)
{
	uint64_t own = child->conn->lifetime_ms;
	uint64_t ms = v1_life_agreed_ms(own, seconds);

	child_set_lifetime(child, ms, true);
	if (!child->initiator)
		v1_life_renew_later(child->sa->env, child->conn,
		    &child->rekey_timer, &child->rekey_at_ms, ms);
	return own < (seconds == 0 ? LIFETIME_DEFAULT_MS : seconds * 1000ull);
}

/* Another took the place of old; ours: it is for us to delete it. */
static void
child_replaced(struct child_sa *old, const struct child_sa *by, bool ours)
{
	struct env *env = old->sa->env;
	uint64_t delay;

	timer_stop(env->timers, &old->rekey_timer);
	old->rekeyed_by = by->serial;
	old->state = CHILD_REKEYED;
	/* Not at once: the peer may not have the third message yet. Where the
	 * Delete is the peer's but does not come (lost, or it judged a
	 * collision otherwise), it is ours after a while, which differs at the
	 * two ends so that they do not delete both. */
	if (ours)
		delay = OLD_MS;
	else
		delay = UNDELETED_MS + env_random_u32(env) % UNDELETED_MS;
	if (env_now(env) + delay < old->expire_at_ms)
		timer_set(env->timers, &old->expire_timer, delay);
}

static uint32_t
initiators_spi(const struct child_sa *child)
{
	return child->initiator ? child->spi_in : child->spi_out;
}

/* By name: one of the two may have been made before a reload that changed the
 * connection. */
static bool
children_alike(const struct child_sa *a, const struct child_sa *b)
{
	return a != b && a->state == CHILD_UP && b->rekeyed_by == 0 &&
	       a->rekeyed_by == 0 &&
	       strcmp(a->conn->name, b->conn->name) == 0 &&
	       ts_list_equal(&a->ts_local, &b->ts_local) &&
	       ts_list_equal(&a->ts_remote, &b->ts_remote);
}

/* When its lifetime began: when it was agreed. */
static uint64_t
agreed_at(const struct child_sa *child)
{
	return child->expire_at_ms - child->lifetime_ms;
}

static bool
children_at_once(const struct child_sa *a, const struct child_sa *b)
{
	return a->initiator != b->initiator && a->created_ms <= agreed_at(b) &&
	       b->created_ms <= agreed_at(a);
}

/* Both ends made one at once: the lower initiator's SPI loses, and its
 * initiator deletes. */
static void
children_collide(struct child_sa *child, struct child_sa *other)
{
	bool lower = initiators_spi(child) < initiators_spi(other);
	struct child_sa *loser = lower ? child : other;

	env_count(child->sa->env, COUNTER_COLLISIONS);
	child_replaced(loser, lower ? other : child, loser->initiator);
}

static struct child_sa *
find_alike(const struct child_sa *child)
{
	struct v1_walk walk = v1_walk_from(v1_sa(child->sa));
	struct v1_sa *v1;

	while ((v1 = v1_walk_on(&walk)) != NULL)
		for (struct child_sa *other = v1->ike.children; other != NULL;
		     other = other->next)
			if (children_alike(other, child))
				return other;
	return NULL;
}

void
v1_child_up(struct child_sa *child, uint64_t rekeys)
{
	struct sadb *sadb = child->sa->env->sadb;
	struct child_sa *old = child_by_serial(sadb, rekeys), *other;
	char local[TS_TEXT], remote[TS_TEXT];

	other = find_alike(child);
	if (old == NULL && other != NULL &&
	    other->created_ms <= child->created_ms &&
	    !children_at_once(child, other))
		old = other;
	child_up(child, old);
	sa_log(child->sa, LOG_LEVEL_INFO, "IPsec SA %08x/%08x: %s === %s",
	    child->spi_in, child->spi_out,
	    ts_text(&child->ts_local.item[0], local),
	    ts_text(&child->ts_remote.item[0], remote));
	/* Whoever began the renewal deletes what it replaced. */
	if (old != NULL)
		child_replaced(old, child, child->initiator);
	while (child->rekeyed_by == 0 && (other = find_alike(child)) != NULL) {
		if (children_at_once(child, other))
			children_collide(child, other);
		else if (other->created_ms > child->created_ms)
			/* The third message was long on its way. */
			child_replaced(child, other, other->initiator);
		else
			child_replaced(other, child, child->initiator);
	}
}

/* A renewal of deleted whose last message is still on its way to us: it is
 * replaced, not gone. */
static void
replaced_soon(struct v1_sa *own, struct child_sa *deleted)
{
	struct v1_walk walk = v1_walk_from(own);
	struct v1_sa *v1;

	if (deleted->state != CHILD_UP || deleted->rekeyed_by != 0)
		return;
	while ((v1 = v1_walk_on(&walk)) != NULL)
		for (struct child_sa *child = v1->ike.children; child != NULL;
		     child = child->next)
			if (child->state == CHILD_INBOUND &&
			    child->conn == deleted->conn &&
			    ts_list_equal(
			        &child->ts_local, &deleted->ts_local) &&
			    ts_list_equal(
			        &child->ts_remote, &deleted->ts_remote)) {
				deleted->rekeyed_by = child->serial;
				deleted->state = CHILD_REKEYED;
				return;
			}
}

static void
restore_expiry(struct child_sa *child)
{
	struct env *env = child->sa->env;
	uint64_t now = env_now(env);

	timer_set(env->timers, &child->expire_timer,
	    child->expire_at_ms > now ? child->expire_at_ms - now : 1);
}

/* The two ends may judge a collision differently when messages were lost: the
 * child that the deleted one had replaced is in use again. */
static void
revive(struct v1_sa *own, struct child_sa *deleted)
{
	struct v1_walk walk = v1_walk_from(own);
	struct v1_sa *v1;

	if (deleted->state != CHILD_UP)
		return;
	while ((v1 = v1_walk_on(&walk)) != NULL)
		for (struct child_sa *child = v1->ike.children; child != NULL;
		     child = child->next)
			if (child->state == CHILD_REKEYED &&
			    child->rekeyed_by == deleted->serial) {
				child->state = CHILD_UP;
				child->rekeyed_by = 0;
				deleted->rekeyed_by = child->serial;
				restore_expiry(child);
				if (child->conn->rekey)
					timer_set(v1->ike.env->timers,
					    &child->rekey_timer, REVIVED_MS);
				return;
			}
}

void
v1_child_deleted(struct v1_sa *v1, uint32_t spi)
{
	struct v1_walk walk = v1_walk_from(v1);
	struct child_sa *child = NULL;
	struct v1_sa *other;

	while (child == NULL && (other = v1_walk_on(&walk)) != NULL)
		if (v1_speaks_for(v1, other))
			child = child_by_spi_out(&other->ike, spi);
	if (child == NULL) {
		/* Interop: some name the SPI of the other end. */
		child = child_by_spi_in(v1->ike.env->sadb, spi);
		if (child != NULL &&
		    (child->sa->engine != &v1_engine ||
		        child->sa->id_remote == NULL ||
		        !ident_equal(child->sa->id_remote, v1->ike.id_remote) ||
		        !v1_speaks_for(v1, v1_sa(child->sa))))
			child = NULL;
	}
	if (child == NULL)
		return;
	replaced_soon(v1, child);
	revive(v1, child);
	if (child->state == CHILD_REKEYED)
		linger(child); /* its last packets may still be on the way */
	else
		v1_child_kill(child, OK, true, "deleted by the peer");
}
