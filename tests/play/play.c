#include "tests/play/play.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/rand.h>

#include "common/selftest.h"
#include "ikev1/v1.h"
#include "ikev2/v2.h"
#include "kernel/install.h"

#define MUST(condition)                                                        \
	do {                                                                   \
		if (!(condition)) {                                            \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, \
			    __LINE__, #condition);                             \
			abort();                                               \
		}                                                              \
	} while (0)

/* Chance --------------------------------------------------------------- */

/* splitmix64 */
static uint64_t
next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void
fill(uint64_t *state, uint8_t *octets, size_t len)
{
	uint64_t word;
	size_t n;

	while (len > 0) {
		word = next_random(state);
		n = len < sizeof(word) ? len : sizeof(word);
		memcpy(octets, &word, n);
		octets += n;
		len -= n;
	}
}

uint64_t
play_random(struct play *play)
{
	return next_random(&play->state);
}

uint64_t
play_below(struct play *play, uint64_t bound)
{
	return bound <= 1 ? 0 : play_random(play) % bound;
}

static bool
gateway_random(void *arg, void *octets, size_t len)
{
	struct gateway *gw = arg;

	fill(&gw->play->state, octets, len);
	return true;
}

/* OpenSSL's generator, for keys: it has a stream of its own, so that how many
 * octets it draws does not change the course of a play. */
static uint64_t openssl_state;

static int
seeded_bytes(unsigned char *octets, int len)
{
	fill(&openssl_state, octets, (size_t)len);
	return 1;
}

static int
seeded_status(void)
{
	return 1;
}

static void
seed_openssl(uint64_t seed)
{
	static RAND_METHOD method = {
		.bytes = seeded_bytes,
		.pseudorand = seeded_bytes,
		.status = seeded_status,
	};

	openssl_state = seed ^ 0x6f727468727573ull;
	RAND_set_rand_method(&method);
}

static void
selftest_once(struct alg_set *usable)
{
	static struct alg_set passed;

	if (passed.bits == 0)
		selftest_run(&passed, NULL, NULL);
	*usable = passed;
}

/* The world ------------------------------------------------------------- */

struct play *
play_new(uint64_t seed)
{
	struct play *play = calloc(1, sizeof(*play));
	struct alg_set usable;

	MUST(play != NULL);
	/* Before the seed: it draws, and only once. */
	selftest_once(&usable);
	timers_init(&play->timers, 1000);
	play->seed = play->state = seed;
	play->weather.delay_min_ms = 5;
	play->weather.delay_max_ms = 15;
	play->weather.reorder_ms = 200;
	seed_openssl(seed);
	return play;
}

void
play_run(struct play *play, uint64_t ms)
{
	uint64_t end = play->timers.now_ms + ms, next;

	while ((next = timers_next(&play->timers)) <= end)
		timers_run(&play->timers, next, 1);
	timers_run(&play->timers, end, 0);
	if (play->timers.now_ms < end)
		play->timers.now_ms = end;
}

bool
play_until(struct play *play, bool (*test)(void *), void *arg, uint64_t max_ms)
{
	uint64_t end = play->timers.now_ms + max_ms, next;

	for (;;) {
		if (test(arg))
			return true;
		next = timers_next(&play->timers);
		if (next > end)
			return false;
		timers_run(&play->timers, next, 1);
	}
}

/* Gateways -------------------------------------------------------------- */

static void
write_log(struct log *log, enum log_level level, const char *line)
{
	struct gateway *gw = log->arg;

	fprintf(stderr, "%10.3f %-8s %-7s %s\n",
	    (double)gw->play->timers.now_ms / 1000, gw->name,
	    log_level_text(level), line);
}

static void
on_event(struct env *env, const struct event *event)
{
	struct gateway *gw = env->event_arg;

	gw->events[event->kind]++;
	if (event->err != OK)
		gw->last_err = event->err;
	if (event->text == NULL)
		return;
	if (event->kind == EVENT_EXPLAIN)
		snprintf(
		    gw->explained, sizeof(gw->explained), "%s", event->text);
	else if (event->err != OK)
		snprintf(gw->failed, sizeof(gw->failed), "%s", event->text);
}

static void
gateway_start(struct gateway *gw)
{
	struct env *env = &gw->env;
	const char *level = getenv("PLAY_LOG");
	int parsed = level == NULL ? -1 : log_level_parse(level);

	memset(env, 0, sizeof(*env));
	fake_net_init(&gw->net, gw);
	fake_kernel_init(&gw->kernel, gw);
	fake_workers_init(&gw->workers, gw);
	env->name = gw->name;
	env->timers = &gw->play->timers;
	env->net = &gw->net.net;
	env->kernel = &gw->kernel.kernel;
	env->vault = &gw->vault.vault;
	env->workers = &gw->workers.workers;
	env->engine[1] = &v1_engine;
	env->engine[2] = &v2_engine;
	selftest_once(&env->usable);
	env->random = gateway_random;
	env->random_arg = gw;
	env->event = on_event;
	env->event_arg = gw;
	env->child_gone = install_remove;
	gw->log.write = write_log;
	gw->log.arg = gw;
	gw->log.level = parsed < 0 ? LOG_LEVEL_ERROR : (enum log_level)parsed;
	env->log = &gw->log;
	MUST(sadb_new(env) == OK);
	env->limit = limit_new(env, &limit_defaults);
	MUST(env->limit != NULL);
	gateway_load(gw);
}

struct gateway *
play_gateway(struct play *play, const char *name, const char *addr)
{
	struct gateway *gw = calloc(1, sizeof(*gw));

	MUST(gw != NULL && play->gateway_count < PLAY_GATEWAYS);
	gw->play = play;
	snprintf(gw->name, sizeof(gw->name), "%s", name);
	MUST(addr_parse(&gw->addr, addr));
	fake_vault_init(&gw->vault, gw);
	play->gateway[play->gateway_count++] = gw;
	gateway_start(gw);
	return gw;
}

static void
gateway_stop(struct gateway *gw)
{
	struct env *env = &gw->env;

	env->event = NULL;
	/* In the daemon's order: jobs find their SAs still there. */
	fake_workers_fini(&gw->workers);
	sadb_free(env->sadb);
	fake_vault_forget(&gw->vault);
	/* The clock stands still here, so that the kernel's own order shows:
	 * what was asked for to the end is carried out. */
	while (gw->kernel.pending > 0)
		timers_run(env->timers, timers_next(env->timers), 1);
	MUST(gw->kernel.sa_count == 0);
	MUST(gw->vault.nonce_count == 0);
	install_free(env);
	limit_free(env->limit);
	policy_unref(env->policy);
	fake_kernel_fini(&gw->kernel);
}

void
gateway_restart(struct gateway *gw)
{
	struct env *env = &gw->env;
	bool silent = gw->net.silent;

	/* As after a crash: the engines are not asked, the kernel's tables
	 * are cleared by whoever owns them. */
	gw->net.silent = true;
	env->event = NULL;
	/* In the daemon's order: jobs find their SAs still there. */
	fake_workers_fini(&gw->workers);
	sadb_free(env->sadb);
	fake_vault_forget(&gw->vault);
	fake_kernel_forget(&gw->kernel);
	install_free(env);
	limit_free(env->limit);
	policy_unref(env->policy);
	fake_kernel_fini(&gw->kernel);
	gateway_start(gw);
	gw->net.silent = silent;
}

void
gateway_silence(struct gateway *gw, bool silent)
{
	gw->net.silent = silent;
}

void
play_free(struct play *play)
{
	struct gateway *gw;
	size_t i, n;

	for (i = 0; i < play->gateway_count; i++)
		gateway_silence(play->gateway[i], true);
	play_drop_flying(play);
	for (i = 0; i < play->gateway_count; i++) {
		gw = play->gateway[i];
		gateway_stop(gw);
		fake_vault_fini(&gw->vault);
		for (n = 0; n < gw->building_count; n++)
			conn_unref(gw->building[n]);
		free(gw);
	}
	free(play);
}

/* Policy ---------------------------------------------------------------- */

void
conn_set_ike(struct conn *conn, const char *text)
{
	const char *problem;
	bool strict;
	size_t at;

	MUST(proposals_parse(
	         &conn->ike, PROTO_IKE, text, &strict, &at, &problem) == OK);
}

void
conn_set_esp(struct conn *conn, const char *text)
{
	const char *problem;
	bool strict;
	size_t at;

	MUST(proposals_parse(
	         &conn->esp, PROTO_ESP, text, &strict, &at, &problem) == OK);
}

static struct ident *
parse_ident(const char *text)
{
	struct ident *ident = NULL;
	const char *problem;

	if (text != NULL)
		MUST(ident_parse(&ident, text, &problem) == OK);
	return ident;
}

void
conn_set_ids(struct conn *conn, const char *local, const char *remote)
{
	ident_unref(conn->local.id);
	ident_unref(conn->remote.id);
	conn->local.id = parse_ident(local);
	conn->remote.id = parse_ident(remote);
}

static void
set_subnets(struct ts_list *list, const char *text)
{
	char copy[256], *word, *rest;
	const char *problem;
	struct ts ts;

	memset(list, 0, sizeof(*list));
	snprintf(copy, sizeof(copy), "%s", text == NULL ? "%dynamic" : text);
	for (word = strtok_r(copy, ",", &rest); word != NULL;
	     word = strtok_r(NULL, ",", &rest)) {
		MUST(ts_parse(&ts, word, &problem) == OK);
		MUST(ts_list_add(list, &ts) == OK);
	}
}

struct conn *
gateway_conn(struct gateway *gw, const char *name, const char *remote,
    const char *local_subnet, const char *remote_subnet)
{
	struct conn *conn = conn_new(name);

	MUST(conn != NULL && gw->building_count < PLAY_CONNS);
	conn->local.host_count = conn->remote.host_count = 1;
	conn->local.host[0].kind = HOST_ADDR;
	conn->local.host[0].addr = gw->addr;
	conn->local.host[0].last = gw->addr;
	conn->remote.host[0].kind = HOST_ANY;
	if (remote != NULL) {
		conn->remote.host[0].kind = HOST_ADDR;
		MUST(addr_parse(&conn->remote.host[0].addr, remote));
		conn->remote.host[0].last = conn->remote.host[0].addr;
	}
	set_subnets(&conn->local.subnets, local_subnet);
	set_subnets(&conn->remote.subnets, remote_subnet);
	conn->local.auth = conn->remote.auth = AUTH_PSK;
	conn->autostart = AUTO_ADD;
	conn_set_ike(conn, "aes128-sha256-curve25519");
	conn_set_esp(conn, "aes128-sha256");
	conn->order = gw->building_count;
	conn->reqid = 0x4f000001u + (uint32_t)gw->building_count;
	gw->building[gw->building_count++] = conn;
	return conn;
}

static void
ignore_change(enum policy_change change, struct conn *old_conn,
    struct conn *new_conn, void *arg)
{
	(void)change;
	(void)old_conn;
	(void)new_conn;
	(void)arg;
}

void
gateway_load(struct gateway *gw)
{
	struct conn *conns[PLAY_CONNS];
	struct policy *next, *old = gw->env.policy;
	size_t i;

	for (i = 0; i < gw->building_count; i++)
		conns[i] = conn_ref(gw->building[i]);
	next = policy_new(conns, gw->building_count);
	MUST(next != NULL);
	policy_diff(old, next, ignore_change, NULL);
	gw->env.policy = next;
	policy_unref(old);
}

void
gateway_psk(
    struct gateway *gw, const char *one, const char *other, const char *psk)
{
	struct fake_psk *entry = &gw->vault.psk[gw->vault.psk_count];

	MUST(gw->vault.psk_count < FAKE_PSKS);
	entry->one = parse_ident(one);
	entry->other = parse_ident(other);
	snprintf(entry->psk, sizeof(entry->psk), "%s", psk);
	gw->vault.psk_count++;
}

void
play_pair(struct play *play, struct gateway **left, struct gateway **right,
    enum policy_keyexchange keyexchange)
{
	struct conn *conn;

	*left = play_gateway(play, "left", "192.0.2.1");
	*right = play_gateway(play, "right", "192.0.2.2");
	conn = gateway_conn(
	    *left, "net", "192.0.2.2", "10.1.0.0/16", "10.2.0.0/16");
	conn->keyexchange = (uint8_t)keyexchange;
	conn = gateway_conn(
	    *right, "net", "192.0.2.1", "10.2.0.0/16", "10.1.0.0/16");
	conn->keyexchange = (uint8_t)keyexchange;
	gateway_psk(*left, NULL, NULL, "correct horse battery staple");
	gateway_psk(*right, NULL, NULL, "correct horse battery staple");
	gateway_load(*left);
	gateway_load(*right);
}

/* Acting and looking ---------------------------------------------------- */

enum err
gateway_up(struct gateway *gw, const char *name, unsigned version)
{
	struct conn *conn = policy_conn(gw->env.policy, name);
	const struct ts none[2] = { 0 };
	struct endpoint local, remote;
	struct ike_sa *sa;

	MUST(conn != NULL);
	sa = sa_for_conn(gw->env.sadb, conn);
	if (sa != NULL && (version == 0 || sa->engine->version == version))
		return sa->engine->child(sa, conn, none);
	if (version == 0)
		version = conn->keyexchange == KEYEX_IKEV1 ? 1 : 2;
	local.addr = gw->addr;
	remote.addr = conn->remote.host[0].addr;
	local.port = remote.port = IKE_PORT;
	return gw->env.engine[version]->initiate(
	    &gw->env, conn, &local, &remote, &sa);
}

size_t
gateway_ike_count(struct gateway *gw)
{
	struct ike_sa *sa;
	size_t count = 0;

	for (sa = gw->env.sadb->first; sa != NULL; sa = sa->next)
		count += sa->state == IKE_ESTABLISHED;
	return count;
}

struct ike_sa *
gateway_ike(struct gateway *gw)
{
	struct ike_sa *sa, *found = NULL;

	for (sa = gw->env.sadb->first; sa != NULL; sa = sa->next) {
		if (sa->state != IKE_ESTABLISHED)
			continue;
		if (found != NULL)
			return NULL;
		found = sa;
	}
	return found;
}

struct child_sa *
gateway_child(struct gateway *gw)
{
	struct child_sa *child, *found = NULL;
	struct ike_sa *sa;

	for (sa = gw->env.sadb->first; sa != NULL; sa = sa->next) {
		for (child = sa->children; child != NULL; child = child->next) {
			if (child->state != CHILD_UP)
				continue;
			if (found != NULL)
				return NULL;
			found = child;
		}
	}
	return found;
}

size_t
gateway_child_count(struct gateway *gw, const char *name)
{
	struct child_sa *child;
	struct ike_sa *sa;
	size_t count = 0;

	for (sa = gw->env.sadb->first; sa != NULL; sa = sa->next)
		for (child = sa->children; child != NULL; child = child->next)
			if (child->state == CHILD_UP &&
			    (name == NULL ||
			        strcmp(child->conn->name, name) == 0))
				count++;
	return count;
}

/* IKEv1 keeps an exchange until its last message can no longer be asked for
 * again; it is not busy. */
static bool
busy(const struct exchange *x)
{
	return x->waiting || x->running ||
	       (x->rexmit.env != NULL && timer_armed(&x->rexmit.timer));
}

bool
gateway_idle(struct gateway *gw)
{
	struct exchange *x;
	struct ike_sa *sa;

	if (gw->workers.queued > 0 || gw->kernel.pending > 0 ||
	    gw->vault.pending > 0 || gw->env.sadb->half_open > 0)
		return false;
	for (sa = gw->env.sadb->first; sa != NULL; sa = sa->next) {
		if (sa->state != IKE_ESTABLISHED)
			return false;
		for (x = sa->exchanges; x != NULL; x = x->next)
			if (busy(x))
				return false;
	}
	return true;
}

static bool
complain(
    const struct gateway *gw, const char *what, size_t found, size_t wanted)
{
	fprintf(stderr, "seed %llu, %.3f s: %s has %zu %s, not %zu\n",
	    (unsigned long long)gw->play->seed,
	    (double)gw->play->timers.now_ms / 1000, gw->name, found, what,
	    wanted);
	return false;
}

static bool
holds(struct gateway *gw, size_t ikes, size_t children)
{
	struct sadb *db = gw->env.sadb;

	if (gateway_ike_count(gw) != ikes || db->count != ikes)
		return complain(gw, "IKE SAs", db->count, ikes);
	if (gateway_child_count(gw, NULL) != children)
		return complain(
		    gw, "children up", gateway_child_count(gw, NULL), children);
	if (db->child_count != children)
		return complain(gw, "children", db->child_count, children);
	if (gw->kernel.sa_count != 2 * children)
		return complain(
		    gw, "SAs in its kernel", gw->kernel.sa_count, 2 * children);
	if (gw->kernel.spi_count != 0)
		return complain(gw, "SPIs left over", gw->kernel.spi_count, 0);
	if (!gateway_idle(gw))
		return complain(gw, "things under way", 1, 0);
	return true;
}

/* Every outbound SA of a has its inbound SA at b. */
static bool
meets(struct gateway *a, struct gateway *b)
{
	const struct fake_sa *out, *in;
	size_t i;

	for (i = 0; i < a->kernel.sa_count; i++) {
		out = &a->kernel.sa[i];
		if (out->sa.direction != KMSG_OUT)
			continue;
		in = fake_kernel_sa(&b->kernel, KMSG_IN, out->sa.spi);
		if (in == NULL ||
		    memcmp(in->sa.key, out->sa.key, sizeof(in->sa.key)) != 0)
			return complain(a, "outbound SAs without a peer", 1, 0);
	}
	return true;
}

bool
play_settled(struct gateway *a, struct gateway *b, size_t ikes, size_t children)
{
	return holds(a, ikes, children) && holds(b, ikes, children) &&
	       meets(a, b) && meets(b, a);
}

bool
play_traffic(
    struct gateway *from, struct gateway *to, const char *src, const char *dst)
{
	struct fake_sa *sent;
	struct addr a, b;

	MUST(addr_parse(&a, src) && addr_parse(&b, dst));
	sent = fake_kernel_send(&from->kernel, &a, &b);
	return sent != NULL &&
	       fake_kernel_receive(&to->kernel, &sent->sa, &a, &b);
}
