#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/engine.h"
#include "common/fsm.h"
#include "common/limit.h"
#include "common/sa.h"

#define HEARD 32

struct world {
	struct env env;
	struct timers timers;
	struct log log;
	uint64_t chance;
	bool dry;           /* no random octets to be had */
	unsigned same_draw; /* so many draws of 8 octets give the same */
	unsigned sa_freed, x_freed;
	struct heard {
		enum event_kind kind;
		enum err err;
		const struct conn *conn;
		bool child, by_peer;
		char text[40];
	} heard[HEARD];
	unsigned heard_count;
	unsigned gone; /* children taken out of the data plane */
	uint64_t lingered;
	unsigned fired;
	char line[LOG_LINE + 64];
};

static struct world *world;
static struct conn *conn;
static struct endpoint local, remote;

static bool
chance(void *arg, void *octets, size_t len)
{
	struct world *w = arg;
	uint8_t *at = octets;

	if (w->dry)
		return false;
	if (len == 8 && w->same_draw > 0) {
		w->same_draw--;
		memset(octets, 0x55, len);
		return true;
	}
	for (size_t i = 0; i < len; i++) {
		w->chance =
		    w->chance * 6364136223846793005u + 1442695040888963407u;
		at[i] = (uint8_t)(w->chance >> 56);
	}
	return true;
}

static void
toy_free(struct ike_sa *sa)
{
	world->sa_freed++;
	free(sa);
}

static void
toy_exchange_free(struct exchange *x)
{
	world->x_freed++;
	free(x);
}

static const struct engine toy1 = {
	.version = 1,
	.name = "toy1",
	.free = toy_free,
	.exchange_free = toy_exchange_free,
};
static const struct engine toy2 = {
	.version = 2,
	.name = "toy2",
	.free = toy_free,
	.exchange_free = toy_exchange_free,
};

static void
hear(struct env *env, const struct event *event)
{
	struct heard *heard = &world->heard[world->heard_count];

	assert_ptr_equal(env, &world->env);
	assert_true(world->heard_count < HEARD);
	heard->kind = event->kind;
	heard->err = event->err;
	heard->conn = event->conn;
	heard->child = event->child != NULL;
	heard->by_peer = event->by_peer != 0;
	snprintf(heard->text, sizeof(heard->text), "%s",
	    event->text == NULL ? "" : event->text);
	world->heard_count++;
}

static void
child_gone(struct env *env, struct child_sa *child, uint64_t linger_ms)
{
	assert_ptr_equal(env, &world->env);
	/* Everything that names it in the kernel is still there. */
	assert_non_null(child->sa);
	assert_non_null(child->conn);
	world->gone++;
	world->lingered = linger_ms;
}

static void
write_line(struct log *log, enum log_level level, const char *line)
{
	(void)log;
	(void)level;
	snprintf(world->line, sizeof(world->line), "%s", line);
}

static void
fire(void *arg)
{
	(void)arg;
	world->fired++;
}

static int
setup(void **state)
{
	world = calloc(1, sizeof(*world));
	assert_non_null(world);
	timers_init(&world->timers, 1000);
	world->env.timers = &world->timers;
	world->env.random = chance;
	world->env.random_arg = world;
	world->env.event = hear;
	world->env.child_gone = child_gone;
	world->log.write = write_line;
	world->log.level = LOG_LEVEL_DEBUG;
	world->env.log = &world->log;
	assert_int_equal(sadb_new(&world->env), OK);
	world->env.limit = limit_new(&world->env, &limit_defaults);
	assert_non_null(world->env.limit);
	conn = conn_new("office");
	assert_non_null(conn);
	assert_true(addr_parse(&local.addr, "192.0.2.1"));
	assert_true(addr_parse(&remote.addr, "192.0.2.2"));
	local.port = remote.port = 500;
	*state = world;
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	sadb_free(world->env.sadb);
	assert_null(world->env.sadb);
	assert_int_equal(limit_half_open(world->env.limit), 0);
	limit_free(world->env.limit);
	/* No SA kept a reference. */
	assert_int_equal(conn->refs, 1);
	conn_unref(conn);
	assert_int_equal(timers_next(&world->timers), UINT64_MAX);
	free(world);
	return 0;
}

static struct ike_sa *
make(const struct engine *engine, bool initiator, uint64_t peer_spi)
{
	struct ike_sa *sa = calloc(1, sizeof(*sa));

	assert_non_null(sa);
	assert_int_equal(sa_init(&world->env, sa, engine, initiator, peer_spi,
	                     &local, &remote, false),
	    OK);
	timer_init(&sa->rekey_timer, fire, sa);
	timer_init(&sa->expire_timer, fire, sa);
	timer_init(&sa->dpd_timer, fire, sa);
	timer_init(&sa->keepalive_timer, fire, sa);
	return sa;
}

static struct child_sa *
make_child(struct ike_sa *sa)
{
	struct child_sa *child = child_new(sa, conn, true);

	assert_non_null(child);
	timer_init(&child->rekey_timer, fire, child);
	timer_init(&child->expire_timer, fire, child);
	return child;
}

static struct ident *
ident(const char *text)
{
	struct ident *id;
	const char *problem;

	assert_int_equal(ident_parse(&id, text, &problem), OK);
	return id;
}

static enum err
establish(struct ike_sa *sa, const char *id)
{
	static const uint8_t mac[20] = { 1, 2, 3 };
	struct view view = view_of(mac, sizeof(mac));
	struct auth_proof proof;

	assert_true(proof_by_mac(&proof, sa, view, view));
	sa->id_remote = ident(id);
	return sa_establish(sa, &proof);
}

static const struct heard *
last(void)
{
	assert_true(world->heard_count > 0);
	return &world->heard[world->heard_count - 1];
}

/* Finding --------------------------------------------------------------- */

static void
test_maps(void **state)
{
	struct ike_sa *ini, *res;
	struct endpoint other = remote;

	(void)state;
	ini = make(&toy2, true, 0);
	res = make(&toy2, false, 0x1122334455667788u);
	assert_int_equal(world->env.sadb->count, 2);
	assert_int_equal(world->env.sadb->half_open, 2);
	assert_ptr_equal(world->env.sadb->first, ini);
	assert_ptr_equal(world->env.sadb->last, res);
	assert_int_equal(ini->state, IKE_NEW);
	assert_int_equal(ini->created_ms, 1000);
	/* Whose SPI is whose. */
	assert_int_not_equal(ini->spi_i, 0);
	assert_int_equal(ini->spi_r, 0);
	assert_int_equal(sa_own_spi(ini), ini->spi_i);
	assert_int_equal(sa_own_spi(res), res->spi_r);
	assert_int_equal(sa_peer_spi(res), 0x1122334455667788u);
	sa_set_peer_spi(ini, 9);
	assert_int_equal(ini->spi_r, 9);
	assert_int_equal(sa_peer_spi(ini), 9);
	/* By our SPI only, never by the peer's. */
	assert_ptr_equal(sa_by_spi(world->env.sadb, ini->spi_i), ini);
	assert_ptr_equal(sa_by_spi(world->env.sadb, res->spi_r), res);
	assert_null(sa_by_spi(world->env.sadb, res->spi_i));
	assert_null(sa_by_spi(world->env.sadb, 9));
	assert_null(sa_by_spi(world->env.sadb, 0));
	assert_ptr_equal(sa_by_serial(world->env.sadb, res->serial), res);
	assert_null(sa_by_serial(world->env.sadb, 0));
	/* A half-open responder by its peer; the port may have changed. */
	assert_ptr_equal(
	    sa_by_peer(world->env.sadb, &remote, res->spi_i, 2), res);
	other.port = 4500;
	assert_ptr_equal(
	    sa_by_peer(world->env.sadb, &other, res->spi_i, 2), res);
	assert_null(sa_by_peer(world->env.sadb, &remote, res->spi_i, 1));
	assert_null(sa_by_peer(world->env.sadb, &remote, 7, 2));
	assert_null(sa_by_peer(world->env.sadb, &local, res->spi_i, 2));
	assert_null(sa_by_peer(world->env.sadb, &remote, ini->spi_r, 2));
	sa_kill(ini, OK, false, NULL);
	sa_kill(res, OK, false, NULL);
	assert_int_equal(world->env.sadb->count, 0);
	assert_int_equal(world->env.sadb->half_open, 0);
	assert_null(world->env.sadb->first);
	assert_null(world->env.sadb->last);
}

/* Many, killed in an order that meets both ends and the middle of the list. */
static void
test_many(void **state)
{
	struct ike_sa *sa[200];
	uint64_t spi[200];
	size_t i, walked = 0;

	(void)state;
	for (i = 0; i < 200; i++) {
		sa[i] = make(&toy2, i % 2 == 0, 1000 + i);
		spi[i] = sa_own_spi(sa[i]);
	}
	for (i = 0; i < 200; i++)
		assert_ptr_equal(sa_by_spi(world->env.sadb, spi[i]), sa[i]);
	for (i = 0; i < 200; i += 3)
		sa_kill(sa[i], OK, false, NULL);
	sa_kill(sa[199], OK, false, NULL);
	world->env.event = NULL;
	for (i = 0; i < 200; i++)
		assert_ptr_equal(sa_by_spi(world->env.sadb, spi[i]),
		    i % 3 == 0 || i == 199 ? NULL : sa[i]);
	for (struct ike_sa *at = world->env.sadb->first; at != NULL;
	     at = at->next) {
		assert_true(at->next == NULL || at->next->prev == at);
		assert_true(at->next == NULL || at->serial < at->next->serial);
		walked++;
	}
	assert_int_equal(walked, world->env.sadb->count);
	assert_int_equal(walked, 132);
}

static int
setup_deaf(void **state)
{
	setup(state);
	world->env.event = NULL;
	return 0;
}

static void
test_spi_draws(void **state)
{
	struct ike_sa *first, *second, *third;

	(void)state;
	world->same_draw = 1;
	first = make(&toy2, true, 0);
	assert_int_equal(first->spi_i, 0x5555555555555555u);
	/* One that is in use is drawn again. */
	world->same_draw = 3;
	second = make(&toy2, false, 4);
	assert_int_not_equal(second->spi_r, first->spi_i);
	/* Not for ever, and not without chance. */
	third = calloc(1, sizeof(*third));
	assert_non_null(third);
	world->same_draw = 1000;
	assert_int_equal(
	    sa_init(&world->env, third, &toy2, true, 0, &local, &remote, false),
	    ERR_EXISTS);
	world->same_draw = 0;
	world->dry = true;
	assert_int_equal(
	    sa_init(&world->env, third, &toy2, true, 0, &local, &remote, false),
	    ERR_CRYPTO);
	world->dry = false;
	assert_int_equal(world->env.sadb->count, 2);
	free(third);
}

static void
test_by_remote(void **state)
{
	struct ike_sa *a, *b, *c, *found;
	struct ident *id = ident("moon.example.org"),
	             *other = ident("sun.example.org");

	(void)state;
	a = make(&toy2, true, 0);
	b = make(&toy1, false, 5);
	c = make(&toy2, false, 6);
	assert_null(sa_by_remote(world->env.sadb, id, NULL));
	assert_int_equal(establish(a, "moon.example.org"), OK);
	assert_int_equal(establish(b, "MOON.example.org"), OK);
	assert_int_equal(establish(c, "sun.example.org"), OK);
	found = sa_by_remote(world->env.sadb, id, NULL);
	assert_true(found == a || found == b);
	found = sa_by_remote(world->env.sadb, id, found);
	assert_true(found == a || found == b);
	assert_null(sa_by_remote(world->env.sadb, id, found));
	assert_ptr_equal(sa_by_remote(world->env.sadb, other, NULL), c);
	sa_set_state(c, IKE_CLOSING);
	assert_null(sa_by_remote(world->env.sadb, other, NULL));
	assert_ptr_equal(sa_by_remote_in(world->env.sadb, other,
	                     IKE_STATE_BIT(IKE_CLOSING), NULL),
	    c);
	sa_kill(a, OK, false, NULL);
	assert_ptr_equal(sa_by_remote(world->env.sadb, id, NULL), b);
	sa_kill(b, OK, false, NULL);
	assert_null(sa_by_remote(world->env.sadb, id, NULL));
	ident_unref(id);
	ident_unref(other);
}

static void
test_for_conn(void **state)
{
	struct ike_sa *a = make(&toy1, true, 0);
	struct conn *same = conn_new("lab"), *twin = conn_new("twin");

	(void)state;
	assert_non_null(same);
	assert_non_null(twin);
	conn->remote.id = ident("moon.example.org");
	twin->remote.id = ident("moon.example.org");
	same->remote.id = ident("sun.example.org");
	assert_null(sa_for_conn(world->env.sadb, conn));
	sa_set_conn(a, conn);
	assert_null(sa_for_conn(world->env.sadb, conn));
	assert_int_equal(establish(a, "moon.example.org"), OK);
	assert_ptr_equal(sa_for_conn(world->env.sadb, conn), a);
	/* Another connection to the same peer shares it, another peer's not,
	 * nor one that does not speak this version. */
	assert_ptr_equal(sa_for_conn(world->env.sadb, twin), a);
	assert_null(sa_for_conn(world->env.sadb, same));
	twin->keyexchange = KEYEX_IKEV2;
	assert_null(sa_for_conn(world->env.sadb, twin));
	sa_set_state(a, IKE_REKEYED);
	assert_null(sa_for_conn(world->env.sadb, conn));
	conn_unref(same);
	conn_unref(twin);
}

static void
test_for_conn_by_address(void **state)
{
	struct ike_sa *a = make(&toy2, true, 0);

	(void)state;
	conn->remote.host_count = 1;
	conn->remote.host[0].kind = HOST_ADDR;
	conn->remote.host[0].addr = remote.addr;
	sa_set_conn(a, conn);
	assert_int_equal(establish(a, "192.0.2.2"), OK);
	assert_ptr_equal(sa_for_conn(world->env.sadb, conn), a);
	conn->remote.host[0].kind = HOST_ANY;
	assert_ptr_equal(sa_for_conn(world->env.sadb, conn), a);
}

/* Establishing ---------------------------------------------------------- */

static void
test_proof_by_mac(void **state)
{
	uint8_t octets[20] = { 7 }, wrong[20] = { 8 };
	struct ike_sa *sa = make(&toy2, true, 0);
	struct auth_proof proof;

	(void)state;
	sa->id_remote = ident("moon");
	/* Boundary: 15 octets are too short, 16 are enough. */
	assert_false(
	    proof_by_mac(&proof, sa, view_of(octets, 15), view_of(octets, 15)));
	assert_int_equal(sa_establish(sa, &proof), ERR_BUG);
	assert_false(
	    proof_by_mac(&proof, sa, view_of(octets, 0), view_of(octets, 0)));
	assert_int_equal(sa_establish(sa, &proof), ERR_BUG);
	assert_false(
	    proof_by_mac(&proof, sa, view_of(octets, 20), view_of(octets, 19)));
	assert_false(
	    proof_by_mac(&proof, sa, view_of(octets, 19), view_of(octets, 20)));
	assert_false(
	    proof_by_mac(&proof, sa, view_of(octets, 20), view_of(wrong, 20)));
	assert_int_equal(sa_establish(sa, &proof), ERR_BUG);
	assert_int_equal(sa->state, IKE_NEW);
	assert_true(
	    proof_by_mac(&proof, sa, view_of(octets, 16), view_of(octets, 16)));
	assert_int_equal(sa_establish(sa, &proof), OK);
	assert_int_equal(sa->state, IKE_ESTABLISHED);
}

static void
test_proof_is_for_one_sa(void **state)
{
	uint8_t octets[20] = { 7 };
	struct view mac = view_of(octets, 20);
	struct ike_sa *sa = make(&toy2, true, 0), *other;
	struct auth_proof proof, zero = { 0 };

	(void)state;
	other = make(&toy2, true, 0);
	sa->id_remote = ident("moon");
	other->id_remote = ident("moon");
	assert_true(proof_by_mac(&proof, other, mac, mac));
	assert_int_equal(sa_establish(sa, &proof), ERR_BUG);
	assert_int_equal(sa_establish(sa, &zero), ERR_BUG);
	zero.serial = sa->serial;
	assert_int_equal(sa_establish(sa, &zero), ERR_BUG);
	assert_int_equal(sa->state, IKE_NEW);
	assert_int_equal(sa_establish(other, &proof), OK);
	/* Once. */
	assert_int_equal(sa_establish(other, &proof), ERR_BUG);
}

static void
test_identity_is_needed(void **state)
{
	uint8_t octets[20] = { 7 };
	struct view mac = view_of(octets, 20);
	struct ike_sa *sa = make(&toy2, true, 0);
	struct auth_proof proof;

	(void)state;
	assert_true(proof_by_mac(&proof, sa, mac, mac));
	assert_int_equal(sa_establish(sa, &proof), ERR_BUG);
	sa->id_remote = ident("moon");
	sa_set_state(sa, IKE_CLOSING);
	assert_int_equal(sa_establish(sa, &proof), ERR_BUG);
}

static void
test_proof_by_rekey(void **state)
{
	struct ike_sa *old = make(&toy2, true, 0), *fresh;
	struct auth_proof proof;

	(void)state;
	fresh = make(&toy2, true, 0);
	fresh->id_remote = ident("moon");
	assert_false(proof_by_rekey(&proof, fresh, old));
	assert_int_equal(sa_establish(fresh, &proof), ERR_BUG);
	sa_set_state(old, IKE_HALF_OPEN);
	assert_false(proof_by_rekey(&proof, fresh, old));
	assert_int_equal(establish(old, "moon"), OK);
	assert_true(proof_by_rekey(&proof, fresh, old));
	assert_int_equal(sa_establish(fresh, &proof), OK);
	sa_set_state(old, IKE_CLOSING);
	assert_false(proof_by_rekey(&proof, fresh, old));
}

static void
test_states(void **state)
{
	struct ike_sa *sa = make(&toy2, true, 0);

	(void)state;
	/* Only sa_establish() establishes, and only sa_kill() kills. */
	sa_set_state(sa, IKE_ESTABLISHED);
	assert_int_equal(sa->state, IKE_NEW);
	assert_non_null(strstr(world->line, "without proof"));
	sa_set_state(sa, IKE_DEAD);
	assert_int_equal(sa->state, IKE_NEW);
	sa_set_state(sa, IKE_HALF_OPEN);
	assert_int_equal(establish(sa, "moon"), OK);
	/* What was authenticated does not become half-open again: a second
	 * proof would enter it twice. */
	sa_set_state(sa, IKE_HALF_OPEN);
	assert_int_equal(sa->state, IKE_ESTABLISHED);
	sa_set_state(sa, IKE_NEW);
	assert_int_equal(sa->state, IKE_ESTABLISHED);
	sa_set_state(sa, IKE_REKEYED);
	assert_int_equal(sa->state, IKE_REKEYED);
	sa_set_state(sa, IKE_CLOSING);
	sa_set_state(sa, IKE_REKEYED);
	sa_hold(sa);
	sa_kill(sa, OK, false, NULL);
	sa_set_state(sa, IKE_CLOSING);
	assert_int_equal(sa->state, IKE_DEAD);
	sa_release(sa);
	for (unsigned i = 0; i <= IKE_DEAD; i++)
		assert_string_not_equal(
		    ike_state_text((enum ike_state)i), "unknown");
	assert_string_equal(
	    ike_state_text((enum ike_state)(IKE_DEAD + 1)), "unknown");
	for (unsigned i = 0; i <= CHILD_DEAD; i++)
		assert_string_not_equal(
		    child_state_text((enum child_state)i), "unknown");
	assert_string_equal(
	    child_state_text((enum child_state)(CHILD_DEAD + 1)), "unknown");
}

static void
test_half_open_accounting(void **state)
{
	struct limit *limit = world->env.limit;
	struct ike_sa *a = make(&toy2, false, 1), *b = make(&toy2, false, 2);
	struct ike_sa *c = make(&toy2, false, 3);
	struct limit_entry other = { .counted = false };

	(void)state;
	assert_int_equal(sa_count_half_open(a, LIMIT_V2), OK);
	assert_int_equal(sa_count_half_open(b, LIMIT_V2), OK);
	assert_ptr_equal(sa_of_half_open(&b->half_open), b);
	assert_int_equal(limit_half_open(limit), 2);
	assert_int_equal(world->env.sadb->half_open, 3);
	assert_int_equal(establish(a, "moon"), OK);
	assert_int_equal(limit_half_open(limit), 1);
	assert_int_equal(world->env.sadb->half_open, 2);
	/* One whose address moved meanwhile gives back where it took. */
	assert_true(addr_parse(&b->remote.addr, "203.0.113.77"));
	sa_kill(b, ERR_TIMEOUT, false, "too late");
	assert_int_equal(limit_half_open(limit), 0);
	/* One that was never counted gives nothing back. */
	assert_int_equal(
	    limit_half_open_add(limit, &other, &remote.addr, LIMIT_V2), OK);
	sa_kill(c, ERR_TIMEOUT, false, "too late");
	assert_int_equal(limit_half_open(limit), 1);
	limit_half_open_drop(limit, &other);
	sa_kill(a, OK, false, NULL);
	assert_int_equal(world->env.sadb->half_open, 0);
}

static void
test_half_open_refused(void **state)
{
	struct limit_config config = limit_defaults;
	struct ike_sa *a, *b;

	(void)state;
	limit_free(world->env.limit);
	config.half_open_max = 1;
	world->env.limit = limit_new(&world->env, &config);
	assert_non_null(world->env.limit);
	a = make(&toy2, false, 1);
	b = make(&toy2, false, 2);
	assert_int_equal(sa_count_half_open(a, LIMIT_V2), OK);
	assert_int_equal(sa_count_half_open(b, LIMIT_V2), ERR_LIMIT);
	sa_kill(b, ERR_LIMIT, false, NULL);
	assert_int_equal(limit_half_open(world->env.limit), 1);
	sa_kill(a, OK, false, NULL);
	assert_int_equal(limit_half_open(world->env.limit), 0);
}

static void
test_weak(void **state)
{
	struct ike_sa *sa = make(&toy1, true, 0);
	struct child_sa *child;

	(void)state;
	sa->suite.encr = alg_get(ALG_3DES_CBC);
	sa->suite.prf = alg_get(ALG_PRF_SHA256);
	assert_int_equal(establish(sa, "moon"), OK);
	assert_true(sa->weak);
	assert_int_equal(world->env.counter[COUNTER_WEAK_IKE], 1);
	assert_int_equal(world->env.weak_used[ALG_3DES_CBC], 1);
	assert_int_equal(world->env.weak_used[ALG_PRF_SHA256], 0);
	child = make_child(sa);
	child->suite.encr = alg_get(ALG_AES128_CBC);
	child_up(child, NULL);
	assert_int_equal(world->env.counter[COUNTER_WEAK_CHILD], 0);
	child->suite.encr = alg_get(ALG_3DES_CBC);
	child_up(child, NULL);
	assert_int_equal(world->env.counter[COUNTER_WEAK_CHILD], 1);
	assert_int_equal(world->env.weak_used[ALG_3DES_CBC], 2);
}

/* Ends ------------------------------------------------------------------ */

static void
test_holds(void **state)
{
	struct ike_sa *sa = make(&toy2, true, 0);

	(void)state;
	sa_hold(sa);
	sa_release(sa);
	assert_int_equal(world->sa_freed, 0); /* alive: it stays */
	sa_hold(sa);
	sa_hold(sa);
	sa_kill(sa, ERR_TIMEOUT, false, "gone");
	/* Out of the maps at once, freed with the last hold. */
	assert_int_equal(sa->state, IKE_DEAD);
	assert_null(sa_by_serial(world->env.sadb, sa->serial));
	assert_int_equal(world->env.sadb->count, 0);
	sa_kill(sa, ERR_TIMEOUT, false, "gone");
	assert_int_equal(world->heard_count, 1);
	sa_release(sa);
	assert_int_equal(world->sa_freed, 0);
	sa_release(sa);
	assert_int_equal(world->sa_freed, 1);
}

static void
test_kill_takes_all(void **state)
{
	struct ike_sa *sa = make(&toy2, true, 0);
	struct exchange *x;

	(void)state;
	sa_set_conn(sa, conn);
	sa->id_local = ident("sun");
	assert_int_equal(establish(sa, "moon"), OK);
	sa_set_lifetime(sa, 3600000, true);
	timer_set(&world->timers, &sa->dpd_timer, 1);
	timer_set(&world->timers, &sa->keepalive_timer, 1);
	for (unsigned i = 0; i < 3; i++) {
		struct child_sa *child = make_child(sa);

		child_set_lifetime(child, 60000, true);
		child_set_spi_in(child, 100 + i);
		child->state = i == 0 ? CHILD_NEW : CHILD_UP;
		x = calloc(1, sizeof(*x));
		assert_non_null(x);
		exchange_begin(sa, x);
	}
	/* The words may be those of an exchange that ends with it. */
	snprintf(x->error.text, sizeof(x->error.text), "because");
	sa_kill(sa, ERR_TIMEOUT, true, x->error.text);
	assert_int_equal(world->sa_freed, 1);
	assert_int_equal(world->x_freed, 3);
	assert_int_equal(world->gone, 3);
	assert_int_equal(world->env.sadb->child_count, 0);
	for (uint32_t i = 0; i < 3; i++)
		assert_null(child_by_spi_in(world->env.sadb, 100 + i));
	timers_run(&world->timers, 10000000, 100);
	assert_int_equal(world->fired, 0);
	assert_int_equal(world->heard_count, 4);
	assert_int_equal(world->heard[0].kind, EVENT_CHILD_DOWN);
	assert_int_equal(world->heard[1].kind, EVENT_CHILD_DOWN);
	assert_int_equal(world->heard[2].kind, EVENT_CHILD_FAILED);
	assert_int_equal(last()->kind, EVENT_IKE_DOWN);
	assert_int_equal(last()->err, ERR_TIMEOUT);
	assert_true(last()->by_peer);
	assert_ptr_equal(last()->conn, conn);
	assert_string_equal(last()->text, "because");
}

/* Which event an SA's end tells depends on what it was. */
static void
test_end_events(void **state)
{
	static const struct {
		enum ike_state state;
		bool established;
		unsigned events;
		enum event_kind kind;
	} cases[] = {
		{ IKE_NEW, false, 1, EVENT_IKE_FAILED },
		{ IKE_HALF_OPEN, false, 1, EVENT_IKE_FAILED },
		{ IKE_ESTABLISHED, true, 1, EVENT_IKE_DOWN },
		{ IKE_CLOSING, true, 1, EVENT_IKE_DOWN },
		{ IKE_CLOSING, false, 1, EVENT_IKE_FAILED },
		{ IKE_REKEYED, true, 0, EVENT_IKE_DOWN },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ike_sa *sa = make(i % 2 == 0 ? &toy1 : &toy2, true, 0);

		if (cases[i].established)
			assert_int_equal(establish(sa, "moon"), OK);
		if (cases[i].state != IKE_ESTABLISHED)
			sa_set_state(sa, cases[i].state);
		world->heard_count = 0;
		sa_kill(sa, ERR_PEER, true, NULL);
		assert_int_equal(world->heard_count, cases[i].events);
		if (cases[i].events > 0)
			assert_int_equal(last()->kind, cases[i].kind);
	}
	assert_int_equal(world->env.counter[COUNTER_V1_IKE_FAILED], 2);
	assert_int_equal(world->env.counter[COUNTER_V2_IKE_FAILED], 1);
}

static void
test_counters(void **state)
{
	struct ike_sa *v1 = make(&toy1, true, 0), *v2 = make(&toy2, true, 0);
	uint64_t *counter = world->env.counter;

	(void)state;
	sa_event(v1, NULL, EVENT_IKE_UP, OK, false, NULL);
	sa_event(v2, NULL, EVENT_IKE_UP, OK, false, NULL);
	sa_event(v2, NULL, EVENT_IKE_UP, OK, false, NULL);
	sa_event(v2, NULL, EVENT_IKE_REKEYED, OK, false, NULL);
	sa_event(v2, NULL, EVENT_PEER_DEAD, ERR_TIMEOUT, false, NULL);
	assert_int_equal(counter[COUNTER_V1_IKE_UP], 1);
	assert_int_equal(counter[COUNTER_V2_IKE_UP], 2);
	assert_int_equal(counter[COUNTER_IKE_REKEYED], 1);
	assert_int_equal(counter[COUNTER_DPD_DEAD], 1);
	/* Nobody need listen. */
	world->env.event = NULL;
	sa_event(v1, NULL, EVENT_CHILD_FAILED, ERR_TS, true, "no");
	assert_int_equal(counter[COUNTER_CHILD_FAILED], 1);
	assert_int_equal(world->heard_count, 5);
}

static void
test_conn_references(void **state)
{
	struct ike_sa *sa = make(&toy2, true, 0);
	struct conn *other = conn_new("lab");

	(void)state;
	assert_non_null(other);
	sa_set_conn(sa, conn);
	assert_int_equal(conn->refs, 2);
	sa_set_conn(sa, conn);
	assert_int_equal(conn->refs, 2);
	sa_set_conn(sa, other);
	assert_int_equal(conn->refs, 1);
	assert_int_equal(other->refs, 2);
	sa_kill(sa, OK, false, NULL);
	assert_int_equal(other->refs, 1);
	conn_unref(other);
}

/* Lifetimes ------------------------------------------------------------- */

static void
test_lifetimes(void **state)
{
	struct ike_sa *sa = make(&toy2, true, 0);
	uint64_t hour = 3600000;

	(void)state;
	conn->margin_ms = 540000;
	conn->rekeyfuzz_percent = 100;
	sa_set_conn(sa, conn);
	sa_set_lifetime(sa, hour, true);
	assert_int_equal(sa->expire_at_ms, 1000 + hour);
	assert_true(sa->rekey_at_ms <= 1000 + hour - 540000);
	assert_true(sa->rekey_at_ms >= 1000 + hour - 2 * 540000);
	/* The first timer at its time, not before, then the second. */
	timers_run(&world->timers, sa->rekey_at_ms - 1, 9);
	assert_int_equal(world->fired, 0);
	timers_run(&world->timers, sa->rekey_at_ms, 9);
	assert_int_equal(world->fired, 1);
	timers_run(&world->timers, 1000 + hour - 1, 9);
	assert_int_equal(world->fired, 1);
	timers_run(&world->timers, 1000 + hour, 9);
	assert_int_equal(world->fired, 2);
	/* Without rekeying only the end is armed, by request ... */
	sa_set_lifetime(sa, hour, true);
	sa_set_lifetime(sa, hour, false);
	assert_int_equal(sa->rekey_at_ms, 0);
	assert_false(timer_armed(&sa->rekey_timer));
	assert_true(timer_armed(&sa->expire_timer));
	/* ... or because the connection says so. */
	conn->rekey = false;
	sa_set_lifetime(sa, hour, true);
	assert_int_equal(sa->rekey_at_ms, 0);
	assert_false(timer_armed(&sa->rekey_timer));
}

/* Children -------------------------------------------------------------- */

static void
test_children(void **state)
{
	struct ike_sa *sa = make(&toy2, true, 0);
	struct child_sa *a, *b;
	struct sadb *db = world->env.sadb;

	(void)state;
	conn->reqid = 77;
	conn->replay_window = 64;
	sa->encap = true;
	a = make_child(sa);
	b = make_child(sa);
	assert_int_equal(sa->child_count, 2);
	assert_int_equal(db->child_count, 2);
	assert_int_equal(a->reqid, 0); /* install gives it */
	assert_int_equal(a->replay_window, 64);
	assert_true(a->encap);
	assert_true(endpoint_equal(&a->local, &local));
	assert_true(endpoint_equal(&a->remote, &remote));
	assert_int_equal(a->state, CHILD_NEW);
	assert_int_equal(conn->refs, 3);
	assert_ptr_equal(child_by_serial(db, a->serial), a);
	assert_ptr_equal(child_by_serial(db, b->serial), b);
	assert_null(child_by_serial(db, sa->serial));
	assert_null(child_by_spi_in(db, 500));
	child_set_spi_in(a, 500);
	assert_ptr_equal(child_by_spi_in(db, 500), a);
	child_set_spi_in(a, 501);
	assert_null(child_by_spi_in(db, 500));
	assert_ptr_equal(child_by_spi_in(db, 501), a);
	child_set_spi_in(a, 0);
	assert_null(child_by_spi_in(db, 501));
	assert_null(child_by_spi_in(db, 0));
	b->spi_out = 900;
	assert_ptr_equal(child_by_spi_out(sa, 900), b);
	assert_null(child_by_spi_out(sa, 901));
	child_kill(a, OK, false, NULL);
	assert_int_equal(sa->child_count, 1);
	assert_ptr_equal(sa->children, b);
	child_kill(b, OK, false, NULL);
	assert_int_equal(db->child_count, 0);
	assert_int_equal(conn->refs, 1);
}

static void
test_child_events(void **state)
{
	struct ike_sa *sa = make(&toy2, true, 0);
	struct child_sa *old, *fresh;

	(void)state;
	old = make_child(sa);
	child_kill(old, ERR_TS, true, "no selector");
	assert_int_equal(last()->kind, EVENT_CHILD_FAILED);
	assert_true(last()->child);
	assert_ptr_equal(last()->conn, conn);
	old = make_child(sa);
	old->state = CHILD_INBOUND;
	child_kill(old, ERR_TIMEOUT, false, NULL);
	assert_int_equal(last()->kind, EVENT_CHILD_FAILED);
	old = make_child(sa);
	child_up(old, NULL);
	assert_int_equal(old->state, CHILD_UP);
	assert_int_equal(last()->kind, EVENT_CHILD_UP);
	fresh = make_child(sa);
	child_up(fresh, old);
	assert_int_equal(last()->kind, EVENT_CHILD_REKEYED);
	old->rekeyed_by = fresh->serial;
	old->state = CHILD_REKEYED;
	world->heard_count = 0;
	child_linger(old, 5000); /* nobody is told of its end */
	assert_int_equal(world->heard_count, 0);
	assert_int_equal(world->lingered, 5000);
	child_linger(fresh, 6000);
	assert_int_equal(last()->kind, EVENT_CHILD_DOWN);
	assert_int_equal(world->lingered, 6000);
	assert_int_equal(world->gone, 4);
	assert_int_equal(world->env.sadb->child_count, 0);
	assert_int_equal(world->env.counter[COUNTER_CHILD_FAILED], 2);
	assert_int_equal(world->env.counter[COUNTER_CHILD_UP], 1);
	assert_int_equal(world->env.counter[COUNTER_CHILD_REKEYED], 1);
}

static void
test_children_move(void **state)
{
	struct ike_sa *old = make(&toy2, true, 0), *fresh;
	struct child_sa *child[3];
	size_t i;

	(void)state;
	fresh = make(&toy2, true, 0);
	for (i = 0; i < 3; i++) {
		child[i] = make_child(old);
		child_set_lifetime(child[i], 60000, true);
		child_set_spi_in(child[i], (uint32_t)(10 + i));
	}
	child_move(child[1], fresh);
	assert_int_equal(old->child_count, 2);
	assert_int_equal(fresh->child_count, 1);
	assert_ptr_equal(child[1]->sa, fresh);
	while (old->children != NULL)
		child_move(old->children, fresh);
	assert_int_equal(old->child_count, 0);
	assert_int_equal(fresh->child_count, 3);
	/* The old SA's end is not theirs. */
	sa_kill(old, OK, false, NULL);
	assert_int_equal(world->gone, 0);
	assert_int_equal(world->env.sadb->child_count, 3);
	for (i = 0; i < 3; i++)
		assert_ptr_equal(
		    child_by_spi_in(world->env.sadb, (uint32_t)(10 + i)),
		    child[i]);
	timers_run(&world->timers, 61000, 100);
	assert_true(world->fired >= 3); /* their timers run on */
	sa_kill(fresh, OK, false, NULL);
	assert_int_equal(world->gone, 3);
	assert_int_equal(world->env.sadb->child_count, 0);
}

static void
test_tickets(void **state)
{
	struct ike_sa *sa = make(&toy2, true, 0);
	struct child_sa *child = make_child(sa);
	struct exchange *x = calloc(1, sizeof(*x));
	struct ticket ticket;

	(void)state;
	assert_non_null(x);
	exchange_begin(sa, x);
	ticket = sa_ticket(sa, x, child);
	assert_int_equal(ticket.sa, sa->serial);
	assert_int_equal(ticket.exchange, x->serial);
	assert_int_equal(ticket.child, child->serial);
	ticket = sa_ticket(NULL, NULL, NULL);
	assert_int_equal(ticket.sa | ticket.exchange | ticket.child, 0);
	assert_null(exchange_by_ticket(&world->env, ticket));
}

static void
test_log_lines(void **state)
{
	struct ike_sa *sa = make(&toy2, true, 0);
	char wanted[80], peer[ADDR_TEXT];

	(void)state;
	sa_log(sa, LOG_LEVEL_INFO, "hello %d", 5);
	snprintf(wanted, sizeof(wanted), "[%llu] %s: hello 5",
	    (unsigned long long)sa->serial, addr_text(&remote.addr, peer));
	assert_string_equal(world->line, wanted);
	sa_set_conn(sa, conn);
	sa_log(sa, LOG_LEVEL_INFO, "hello");
	assert_int_equal(strncmp(world->line, "office[", 7), 0);
	world->log.level = LOG_LEVEL_ERROR;
	world->line[0] = '\0';
	sa_log(sa, LOG_LEVEL_INFO, "hello");
	assert_string_equal(world->line, "");
	world->env.log = NULL;
	sa_log(sa, LOG_LEVEL_ERROR, "nobody listens");
}

/* sadb_free with all kinds of SAs still there: teardown does it; here, under
 * a hold, as when a handler asks for the end of the world. */
static void
test_free_of_all(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		struct ike_sa *sa = make(&toy2, i % 2 == 0, i + 1);

		if (i % 3 == 0)
			assert_int_equal(establish(sa, "moon"), OK);
		if (i % 4 == 0)
			make_child(sa);
	}
	sadb_free(world->env.sadb);
	assert_int_equal(world->sa_freed, 20);
	assert_int_equal(world->gone, 5);
	sadb_free(NULL);
	/* Answers that come now find nothing. */
	assert_null(sa_by_serial(world->env.sadb, 1));
	assert_null(child_by_serial(world->env.sadb, 1));
	assert_int_equal(sadb_new(&world->env), OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define DEAF(name) cmocka_unit_test_setup_teardown(name, setup_deaf, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_maps),
		DEAF(test_many),
		TEST(test_spi_draws),
		TEST(test_by_remote),
		TEST(test_for_conn),
		TEST(test_for_conn_by_address),
		TEST(test_proof_by_mac),
		TEST(test_proof_is_for_one_sa),
		TEST(test_identity_is_needed),
		TEST(test_proof_by_rekey),
		TEST(test_states),
		TEST(test_half_open_accounting),
		TEST(test_half_open_refused),
		TEST(test_weak),
		TEST(test_holds),
		TEST(test_kill_takes_all),
		TEST(test_end_events),
		TEST(test_counters),
		TEST(test_conn_references),
		TEST(test_lifetimes),
		TEST(test_children),
		TEST(test_child_events),
		TEST(test_children_move),
		TEST(test_tickets),
		TEST(test_log_lines),
		DEAF(test_free_of_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
