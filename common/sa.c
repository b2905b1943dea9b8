#include "common/sa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/engine.h"
#include "common/fsm.h"
#include "common/limit.h"

#define SPI_DRAWS   8 /* tries for an SPI that is not in use */
#define MAC_MIN     16
#define PROOF_MAGIC 0x70726f66u

const char *
ike_state_text(enum ike_state state)
{
	static const char *const names[] = {
		[IKE_NEW] = "new",
		[IKE_HALF_OPEN] = "half-open",
		[IKE_ESTABLISHED] = "established",
		[IKE_REKEYED] = "rekeyed",
		[IKE_CLOSING] = "closing",
		[IKE_DEAD] = "dead",
	};

	return (unsigned)state <= IKE_DEAD ? names[state] : "unknown";
}

const char *
child_state_text(enum child_state state)
{
	static const char *const names[] = {
		[CHILD_NEW] = "new",
		[CHILD_INBOUND] = "inbound",
		[CHILD_UP] = "up",
		[CHILD_REKEYED] = "rekeyed",
		[CHILD_CLOSING] = "closing",
		[CHILD_DEAD] = "dead",
	};

	return (unsigned)state <= CHILD_DEAD ? names[state] : "unknown";
}

/* The database ---------------------------------------------------------- */

enum err
sadb_new(struct env *env)
{
	struct sadb *db = calloc(1, sizeof(*db));
	uint64_t seed[2];

	if (db == NULL)
		return ERR_NOMEM;
	if (!env_random(env, seed, sizeof(seed))) {
		free(db);
		return ERR_CRYPTO;
	}
	db->env = env;
	map_init(&db->by_spi, seed);
	map_init(&db->by_peer, seed);
	map_init(&db->by_serial, seed);
	map_init(&db->by_remote, seed);
	map_init(&db->child_by_serial, seed);
	map_init(&db->child_by_spi, seed);
	env->sadb = db;
	return OK;
}

void
sadb_free(struct sadb *db)
{
	if (db == NULL)
		return;
	while (db->first != NULL)
		sa_kill(db->first, ERR_CANCELLED, false, "shutting down");
	map_fini(&db->by_spi);
	map_fini(&db->by_peer);
	map_fini(&db->by_serial);
	map_fini(&db->by_remote);
	map_fini(&db->child_by_serial);
	map_fini(&db->child_by_spi);
	db->env->sadb = NULL;
	free(db);
}

uint64_t
sa_own_spi(const struct ike_sa *sa)
{
	return sa->initiator ? sa->spi_i : sa->spi_r;
}

uint64_t
sa_peer_spi(const struct ike_sa *sa)
{
	return sa->initiator ? sa->spi_r : sa->spi_i;
}

/* RFC 7296 2.6: an SPI is never zero, and ours names one SA of ours. */
static enum err
draw_spi(struct env *env, uint64_t *spi)
{
	unsigned i;

	for (i = 0; i < SPI_DRAWS; i++) {
		if (!env_random(env, spi, sizeof(*spi)))
			return ERR_CRYPTO;
		if (*spi != 0 && sa_by_spi(env->sadb, *spi) == NULL)
			return OK;
	}
	return ERR_EXISTS;
}

/* The key of a half-open responder: the peer's address and SPI. Its port is
 * left out: it changes when the peer floats to 4500. */
static uint64_t
peer_hash(const struct sadb *db, const struct addr *remote, uint64_t spi)
{
	uint8_t key[sizeof(remote->octets) + sizeof(spi)];

	memcpy(key, remote->octets, sizeof(remote->octets));
	memcpy(key + sizeof(remote->octets), &spi, sizeof(spi));
	return map_hash(&db->by_peer, view_of(key, sizeof(key)));
}

enum err
sa_init(struct env *env, struct ike_sa *sa, const struct engine *engine,
    bool initiator, uint64_t peer_spi, const struct endpoint *local,
    const struct endpoint *remote, bool natt)
{
	struct sadb *db = env->sadb;
	uint64_t own;
	enum err err = draw_spi(env, &own);

	if (err != OK)
		return err;
	sa->env = env;
	sa->engine = engine;
	sa->serial = env_serial(env);
	sa->initiator = initiator;
	sa->spi_i = initiator ? own : peer_spi;
	sa->spi_r = initiator ? peer_spi : own;
	sa->state = IKE_NEW;
	sa->local = *local;
	sa->remote = *remote;
	sa->natt = natt;
	sa->created_ms = sa->last_in_ms = sa->last_out_ms = env_now(env);

	map_insert(&db->by_spi, &sa->by_spi, map_hash_u64(&db->by_spi, own));
	map_insert(&db->by_serial, &sa->by_serial,
	    map_hash_u64(&db->by_serial, sa->serial));
	if (!initiator)
		map_insert(&db->by_peer, &sa->by_peer,
		    peer_hash(db, &remote->addr, peer_spi));
	sa->prev = db->last;
	if (db->last != NULL)
		db->last->next = sa;
	else
		db->first = sa;
	db->last = sa;
	db->count++;
	db->half_open++;
	return OK;
}

enum err
sa_count_half_open(struct ike_sa *sa, enum limit_class class)
{
	return limit_half_open_add(
	    sa->env->limit, &sa->half_open, &sa->remote.addr, class);
}

struct ike_sa *
sa_of_half_open(struct limit_entry *entry)
{
	return map_entry(entry, struct ike_sa, half_open);
}

void
sa_set_peer_spi(struct ike_sa *sa, uint64_t spi)
{
	if (sa->initiator)
		sa->spi_r = spi;
	else
		sa->spi_i = spi;
}

struct ike_sa *
sa_by_spi(struct sadb *db, uint64_t own_spi)
{
	struct map_node *node;
	struct ike_sa *sa;

	for (node = map_find(&db->by_spi, map_hash_u64(&db->by_spi, own_spi));
	     node != NULL; node = map_next_same(node)) {
		sa = map_entry(node, struct ike_sa, by_spi);
		if (sa_own_spi(sa) == own_spi)
			return sa;
	}
	return NULL;
}

struct ike_sa *
sa_by_peer(struct sadb *db, const struct endpoint *remote, uint64_t peer_spi,
    unsigned version)
{
	struct map_node *node;
	struct ike_sa *sa;

	for (node =
	         map_find(&db->by_peer, peer_hash(db, &remote->addr, peer_spi));
	     node != NULL; node = map_next_same(node)) {
		sa = map_entry(node, struct ike_sa, by_peer);
		if (sa_peer_spi(sa) == peer_spi &&
		    sa->engine->version == version &&
		    addr_equal(&sa->remote.addr, &remote->addr))
			return sa;
	}
	return NULL;
}

struct ike_sa *
sa_by_serial(struct sadb *db, uint64_t serial)
{
	struct map_node *node;
	struct ike_sa *sa;

	if (db == NULL)
		return NULL;
	for (node =
	         map_find(&db->by_serial, map_hash_u64(&db->by_serial, serial));
	     node != NULL; node = map_next_same(node)) {
		sa = map_entry(node, struct ike_sa, by_serial);
		if (sa->serial == serial)
			return sa;
	}
	return NULL;
}

static uint64_t
remote_hash(const struct sadb *db, const struct ident *remote)
{
	uint8_t key[IDENT_MAX + 1];
	size_t len = ident_key(remote, key);

	return map_hash(&db->by_remote, view_of(key, len));
}

struct ike_sa *
sa_by_remote(
    struct sadb *db, const struct ident *remote, struct ike_sa *previous)
{
	return sa_by_remote_in(
	    db, remote, IKE_STATE_BIT(IKE_ESTABLISHED), previous);
}

struct ike_sa *
sa_by_remote_in(struct sadb *db, const struct ident *remote, uint32_t states,
    struct ike_sa *previous)
{
	struct map_node *node;
	struct ike_sa *sa;

	if (previous == NULL)
		node = map_find(&db->by_remote, remote_hash(db, remote));
	else
		node = map_next_same(&previous->by_remote);
	for (; node != NULL; node = map_next_same(node)) {
		sa = map_entry(node, struct ike_sa, by_remote);
		if ((states & IKE_STATE_BIT(sa->state)) != 0 &&
		    ident_equal(sa->id_remote, remote))
			return sa;
	}
	return NULL;
}

static bool
serves(const struct ike_sa *sa, const struct conn *conn)
{
	return sa->state == IKE_ESTABLISHED && !sa->stale && sa->conn != NULL &&
	       conn_allows(conn, sa->engine->version) &&
	       (sa->conn == conn || conn_same_peer(sa->conn, conn));
}

struct ike_sa *
sa_for_conn(struct sadb *db, const struct conn *conn)
{
	struct ike_sa *sa = NULL;
	struct ident *remote = conn->remote.id;

	if (remote != NULL && remote->type != ID_ANY) {
		while ((sa = sa_by_remote(db, remote, sa)) != NULL)
			if (serves(sa, conn))
				return sa;
		return NULL;
	}
	if (conn->remote.host_count == 1 &&
	    conn->remote.host[0].kind == HOST_ADDR) {
		remote = ident_from_addr(&conn->remote.host[0].addr);
		while (remote != NULL &&
		       (sa = sa_by_remote(db, remote, sa)) != NULL)
			if (serves(sa, conn))
				break;
		ident_unref(remote);
		return sa;
	}
	/* Any identity at any address: such a connection is for responders,
	 * and asks here only when an administrator brings it up by hand. */
	for (sa = db->first; sa != NULL; sa = sa->next)
		if (serves(sa, conn))
			return sa;
	return NULL;
}

/* Life of an IKE SA ----------------------------------------------------- */

void
sa_hold(struct ike_sa *sa)
{
	sa->holds++;
}

void
sa_release(struct ike_sa *sa)
{
	if (--sa->holds > 0 || sa->state != IKE_DEAD)
		return;
	conn_unref(sa->conn);
	ident_unref(sa->id_local);
	ident_unref(sa->id_remote);
	sa->engine->free(sa);
}

void
sa_set_conn(struct ike_sa *sa, struct conn *conn)
{
	struct conn *old = sa->conn;

	sa->conn = conn_ref(conn);
	conn_unref(old);
}

void
sa_set_state(struct ike_sa *sa, enum ike_state state)
{
	if (sa->state == IKE_DEAD || state == IKE_DEAD)
		return;
	if (state == IKE_ESTABLISHED) {
		sa_log(sa, LOG_LEVEL_ERROR,
		    "a step tried to establish an SA without proof");
		return;
	}
	/* What was authenticated once cannot be so a second time. */
	if (sa->state >= IKE_ESTABLISHED && state < IKE_ESTABLISHED)
		return;
	sa->state = (uint8_t)state;
}

bool
proof_by_mac(struct auth_proof *proof, const struct ike_sa *sa,
    struct view expected, struct view received)
{
	memset(proof, 0, sizeof(*proof));
	if (expected.len < MAC_MIN || !mem_equal_secret(expected, received))
		return false;
	proof->serial = sa->serial;
	proof->magic = PROOF_MAGIC;
	return true;
}

bool
proof_by_rekey(
    struct auth_proof *proof, const struct ike_sa *sa, const struct ike_sa *old)
{
	memset(proof, 0, sizeof(*proof));
	if (old->state != IKE_ESTABLISHED && old->state != IKE_REKEYED)
		return false;
	proof->serial = sa->serial;
	proof->magic = PROOF_MAGIC;
	return true;
}

static bool
suite_weak(struct env *env, const struct suite *suite)
{
	const struct alg *rows[] = { suite->encr, suite->prf, suite->integ,
		suite->kex };
	bool weak = false;
	size_t i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i] == NULL || rows[i]->tier == TIER_MODERN)
			continue;
		weak = true;
		if (rows[i]->id < 64)
			env->weak_used[rows[i]->id]++;
	}
	return weak;
}

static void
leave_half_open(struct ike_sa *sa)
{
	struct sadb *db = sa->env->sadb;

	if (sa->half_open.counted)
		limit_half_open_drop(sa->env->limit, &sa->half_open);
	if (sa->established_ms == 0 && db->half_open > 0)
		db->half_open--;
}

enum err
sa_establish(struct ike_sa *sa, const struct auth_proof *proof)
{
	struct env *env = sa->env;
	struct sadb *db = env->sadb;

	if (proof->magic != PROOF_MAGIC || proof->serial != sa->serial ||
	    sa->state > IKE_HALF_OPEN || sa->id_remote == NULL)
		return ERR_BUG;
	leave_half_open(sa);
	sa->established_ms = env_now(env) == 0 ? 1 : env_now(env);
	sa->state = IKE_ESTABLISHED;
	map_insert(
	    &db->by_remote, &sa->by_remote, remote_hash(db, sa->id_remote));
	sa->weak = suite_weak(env, &sa->suite);
	if (sa->weak)
		env_count(env, COUNTER_WEAK_IKE);
	return OK;
}

/* Arms a pair of timers; the times are kept for status. */
static void
arm_lifetime(struct env *env, const struct conn *conn, uint64_t lifetime_ms,
    bool rekey, struct timer *rekey_timer, struct timer *expire_timer,
    uint64_t *rekey_at_ms, uint64_t *expire_at_ms)
{
	uint64_t delay;

	timer_stop(env->timers, rekey_timer);
	*rekey_at_ms = 0;
	if (rekey && conn->rekey) {
		delay = conn_rekey_ms(conn, lifetime_ms, env_random_u32(env));
		timer_set(env->timers, rekey_timer, delay);
		*rekey_at_ms = env_now(env) + delay;
	}
	timer_set(env->timers, expire_timer, lifetime_ms);
	*expire_at_ms = env_now(env) + lifetime_ms;
}

void
sa_set_lifetime(struct ike_sa *sa, uint64_t lifetime_ms, bool rekey)
{
	arm_lifetime(sa->env, sa->conn, lifetime_ms, rekey, &sa->rekey_timer,
	    &sa->expire_timer, &sa->rekey_at_ms, &sa->expire_at_ms);
}

static void
leave_maps(struct ike_sa *sa)
{
	struct sadb *db = sa->env->sadb;

	map_remove(&db->by_spi, &sa->by_spi);
	map_remove(&db->by_serial, &sa->by_serial);
	if (!sa->initiator)
		map_remove(&db->by_peer, &sa->by_peer);
	if (sa->established_ms != 0)
		map_remove(&db->by_remote, &sa->by_remote);
	if (sa->prev != NULL)
		sa->prev->next = sa->next;
	else
		db->first = sa->next;
	if (sa->next != NULL)
		sa->next->prev = sa->prev;
	else
		db->last = sa->prev;
	db->count--;
}

void
sa_kill(struct ike_sa *sa, enum err why, bool by_peer, const char *text)
{
	struct env *env = sa->env;
	uint8_t was = sa->state;
	char words[256];

	if (was == IKE_DEAD)
		return;
	/* text may belong to an exchange that ends with the SA. */
	if (text != NULL) {
		snprintf(words, sizeof(words), "%s", text);
		text = words;
	}
	sa_hold(sa);
	sa->state = IKE_DEAD;
	while (sa->children != NULL)
		child_kill(sa->children, why, by_peer, text);
	while (sa->exchanges != NULL)
		exchange_end(sa->exchanges);
	timer_stop(env->timers, &sa->rekey_timer);
	timer_stop(env->timers, &sa->expire_timer);
	timer_stop(env->timers, &sa->dpd_timer);
	timer_stop(env->timers, &sa->keepalive_timer);
	leave_half_open(sa);
	leave_maps(sa);
	if (sa->established_ms == 0)
		sa_event(sa, NULL, EVENT_IKE_FAILED, why, by_peer, text);
	else if (was != IKE_REKEYED)
		sa_event(sa, NULL, EVENT_IKE_DOWN, why, by_peer, text);
	sa_release(sa);
}

/* Words ----------------------------------------------------------------- */

void
sa_log(const struct ike_sa *sa, enum log_level level, const char *format, ...)
{
	char line[LOG_LINE], peer[ADDR_TEXT];
	struct log *log = sa->env->log;
	va_list args;
	int len;

	if (log == NULL || level > log->level)
		return;
	len = snprintf(line, sizeof(line),
	    "%s[%llu] %s: ", sa->conn == NULL ? "" : sa->conn->name,
	    (unsigned long long)sa->serial, addr_text(&sa->remote.addr, peer));
	if (len < 0 || (size_t)len >= sizeof(line))
		len = 0;
	va_start(args, format);
	vsnprintf(line + len, sizeof(line) - (size_t)len, format, args);
	va_end(args);
	log_write(log, level, "%s", line);
}

static void
count_event(struct env *env, const struct ike_sa *sa, enum event_kind kind)
{
	bool v1 = sa->engine->version == 1;

	switch (kind) {
	case EVENT_IKE_UP:
		env_count(env, v1 ? COUNTER_V1_IKE_UP : COUNTER_V2_IKE_UP);
		break;
	case EVENT_IKE_FAILED:
		env_count(
		    env, v1 ? COUNTER_V1_IKE_FAILED : COUNTER_V2_IKE_FAILED);
		break;
	case EVENT_IKE_REKEYED:
		env_count(env, COUNTER_IKE_REKEYED);
		break;
	case EVENT_CHILD_UP:
		env_count(env, COUNTER_CHILD_UP);
		break;
	case EVENT_CHILD_FAILED:
		env_count(env, COUNTER_CHILD_FAILED);
		break;
	case EVENT_CHILD_REKEYED:
		env_count(env, COUNTER_CHILD_REKEYED);
		break;
	case EVENT_PEER_DEAD:
		env_count(env, COUNTER_DPD_DEAD);
		break;
	default:
		break;
	}
}

void
sa_event(struct ike_sa *sa, struct child_sa *child, enum event_kind kind,
    enum err err, bool by_peer, const char *text)
{
	struct env *env = sa->env;
	struct event event = {
		.kind = kind,
		.err = err,
		.conn = child != NULL ? child->conn : sa->conn,
		.sa = sa,
		.child = child,
		.text = text,
		.by_peer = by_peer,
	};

	count_event(env, sa, kind);
	if (env->event != NULL)
		env->event(env, &event);
}

/* Children -------------------------------------------------------------- */

struct child_sa *
child_new(struct ike_sa *sa, struct conn *conn, bool initiator)
{
	struct env *env = sa->env;
	struct child_sa *child = calloc(1, sizeof(*child));

	if (child == NULL)
		return NULL;
	child->sa = sa;
	child->serial = env_serial(env);
	child->conn = conn_ref(conn);
	child->initiator = initiator;
	child->mode = conn->mode;
	child->encap = sa->encap;
	child->replay_window = conn->replay_window;
	child->local = sa->local;
	child->remote = sa->remote;
	child->created_ms = env_now(env);
	child->lifetime_ms = conn->lifetime_ms;
	child->next = sa->children;
	sa->children = child;
	sa->child_count++;
	env->sadb->child_count++;
	map_insert(&env->sadb->child_by_serial, &child->by_serial,
	    map_hash_u64(&env->sadb->child_by_serial, child->serial));
	return child;
}

void
child_set_spi_in(struct child_sa *child, uint32_t spi)
{
	struct sadb *db = child->sa->env->sadb;

	if (child->spi_in != 0)
		map_remove(&db->child_by_spi, &child->by_spi_in);
	child->spi_in = spi;
	if (spi != 0)
		map_insert(&db->child_by_spi, &child->by_spi_in,
		    map_hash_u64(&db->child_by_spi, spi));
}

struct child_sa *
child_by_serial(struct sadb *db, uint64_t serial)
{
	struct map_node *node;
	struct child_sa *child;

	if (db == NULL)
		return NULL;
	for (node = map_find(&db->child_by_serial,
	         map_hash_u64(&db->child_by_serial, serial));
	     node != NULL; node = map_next_same(node)) {
		child = map_entry(node, struct child_sa, by_serial);
		if (child->serial == serial)
			return child;
	}
	return NULL;
}

struct child_sa *
child_by_spi_in(struct sadb *db, uint32_t spi)
{
	struct map_node *node;
	struct child_sa *child;

	for (node = map_find(
	         &db->child_by_spi, map_hash_u64(&db->child_by_spi, spi));
	     node != NULL; node = map_next_same(node)) {
		child = map_entry(node, struct child_sa, by_spi_in);
		if (child->spi_in == spi)
			return child;
	}
	return NULL;
}

struct child_sa *
child_by_spi_out(struct ike_sa *sa, uint32_t spi)
{
	struct child_sa *child;

	for (child = sa->children; child != NULL; child = child->next)
		if (child->spi_out == spi)
			return child;
	return NULL;
}

void
child_set_lifetime(struct child_sa *child, uint64_t lifetime_ms, bool rekey)
{
	child->lifetime_ms = lifetime_ms;
	arm_lifetime(child->sa->env, child->conn, lifetime_ms, rekey,
	    &child->rekey_timer, &child->expire_timer, &child->rekey_at_ms,
	    &child->expire_at_ms);
}

void
child_up(struct child_sa *child, const struct child_sa *rekeyed_from)
{
	struct env *env = child->sa->env;

	child->state = CHILD_UP;
	if (suite_weak(env, &child->suite))
		env_count(env, COUNTER_WEAK_CHILD);
	sa_event(child->sa, child,
	    rekeyed_from == NULL ? EVENT_CHILD_UP : EVENT_CHILD_REKEYED, OK,
	    false, NULL);
}

static void
child_unlink(struct child_sa *child)
{
	struct child_sa **at;
	struct ike_sa *sa = child->sa;

	for (at = &sa->children; *at != NULL; at = &(*at)->next) {
		if (*at != child)
			continue;
		*at = child->next;
		sa->child_count--;
		break;
	}
	child->next = NULL;
}

void
child_move(struct child_sa *child, struct ike_sa *to)
{
	child_unlink(child);
	child->sa = to;
	child->next = to->children;
	to->children = child;
	to->child_count++;
}

static void
child_end(struct child_sa *child, uint64_t linger_ms)
{
	struct env *env = child->sa->env;
	struct sadb *db = env->sadb;

	timer_stop(env->timers, &child->rekey_timer);
	timer_stop(env->timers, &child->expire_timer);
	child->state = CHILD_DEAD;
	if (env->child_gone != NULL)
		env->child_gone(env, child, linger_ms);
	child_unlink(child);
	map_remove(&db->child_by_serial, &child->by_serial);
	if (child->spi_in != 0)
		map_remove(&db->child_by_spi, &child->by_spi_in);
	db->child_count--;
	secret_free(&child->keys_in);
	secret_free(&child->keys_out);
	conn_unref(child->conn);
	free(child);
}

static void
tell_end(struct child_sa *child, enum err why, bool by_peer, const char *text)
{
	if (child->state == CHILD_NEW || child->state == CHILD_INBOUND)
		sa_event(
		    child->sa, child, EVENT_CHILD_FAILED, why, by_peer, text);
	else if (child->rekeyed_by == 0)
		sa_event(
		    child->sa, child, EVENT_CHILD_DOWN, why, by_peer, text);
}

void
child_kill(struct child_sa *child, enum err why, bool by_peer, const char *text)
{
	tell_end(child, why, by_peer, text);
	child_end(child, 0);
}

void
child_linger(struct child_sa *child, uint64_t linger_ms)
{
	tell_end(child, OK, false, NULL);
	child_end(child, linger_ms);
}

struct ticket
sa_ticket(const struct ike_sa *sa, const struct exchange *x,
    const struct child_sa *child)
{
	struct ticket ticket = {
		.sa = sa == NULL ? 0 : sa->serial,
		.exchange = x == NULL ? 0 : x->serial,
		.child = child == NULL ? 0 : child->serial,
	};

	return ticket;
}
