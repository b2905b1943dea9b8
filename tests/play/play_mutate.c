/*
 * play_mutate: mutated datagrams against a gateway.
 *
 * Peers of both versions negotiate with one gateway, as initiators and as
 * responders; what they send is changed on the wire and, by env->impair, below
 * the encryption, and what they sent before comes again, changed or not, under
 * the SPIs of today. At the end of each epoch the mutations stop, and peers of
 * both versions must come up and have traffic, with nothing left over.
 *
 *	MUTATIONS=n  how many in all (5000)
 *	SEED=n       of the first epoch (1); each epoch has a seed of its own, is
 *	             named when it begins, and can be had alone by
 *	             SEED=n MUTATIONS=1
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/play/mutator.h"
#include "tests/play/play.h"

#define EPOCH    2500 /* mutations before the gateway must show its health */
#define RECORDED 256
#define PACKET   4096

#define MUST(condition)                                                        \
	do {                                                                   \
		if (!(condition)) {                                            \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, \
			    __LINE__, #condition);                             \
			abort();                                               \
		}                                                              \
	} while (0)

struct record {
	struct endpoint src, dst;
	bool natt;
	size_t len;
	uint8_t octets[PACKET];
};

struct figures {
	uint64_t wire, sealed, repeats, packets, handshakes, negotiations;
	uint64_t made[MUTATE_KINDS], counter[COUNTER_COUNT];
	uint64_t virtual_ms;
};

struct campaign {
	struct play *play;
	struct gateway *gate, *peer[2]; /* by version - 1 */
	struct mutator mutator;
	struct record record[RECORDED];
	size_t recorded;
	bool on;               /* mutations happen */
	unsigned wire, sealed; /* permille of messages changed */
	uint64_t before;       /* mutations of earlier epochs */
	struct figures *figures;
};

static const char *const conn_name[2] = { "one", "two" };
static const char *const peer_addr[2] = { "192.0.2.11", "192.0.2.12" };
static const char *const inner[2] = { "10.1.0.1", "10.2.0.1" };

static uint64_t
below(struct campaign *c, uint64_t bound)
{
	return mutator_below(&c->mutator, bound);
}

static uint64_t
mutations(const struct campaign *c)
{
	return c->figures->wire + c->figures->sealed + c->figures->repeats;
}

/* Sending --------------------------------------------------------------- */

static void
keep(struct campaign *c, const struct packet *packet)
{
	struct record *record = &c->record[c->recorded % RECORDED];
	const uint8_t *at = packet->octets.at;

	if (packet->octets.len > PACKET)
		return;
	c->recorded++;
	record->src = packet->local;
	record->dst = packet->remote;
	record->natt = packet->natt;
	record->len = packet->octets.len;
	memcpy(record->octets, at, record->len);
	if (record->len > WIRE_HEADER)
		mutator_learn(&c->mutator, at[17] >> 4, at[16],
		    view_of(at + WIRE_HEADER, record->len - WIRE_HEADER));
}

/* A living SA of the gate, or what is going to be one. */
static const struct ike_sa *
any_sa(struct campaign *c)
{
	const struct ike_sa *sa = c->gate->env.sadb->first;
	uint64_t n = below(c, c->gate->env.sadb->count);

	while (sa != NULL && n-- > 0)
		sa = sa->next;
	return sa;
}

/* The SPIs, and sometimes the message ID, of now. */
static void
refresh(struct campaign *c, struct buf *datagram)
{
	const struct ike_sa *sa = any_sa(c);
	struct buf header;

	if (sa == NULL || datagram->len < WIRE_HEADER)
		return;
	buf_init(&header, datagram->at, 16);
	buf_u64(&header, sa->spi_i);
	if (below(c, 4) != 0)
		buf_u64(&header, sa->spi_r);
	if (below(c, 2) == 0)
		buf_patch_u32(datagram, 20, (uint32_t)below(c, 4));
}

static void
repeat(struct campaign *c)
{
	size_t known = c->recorded < RECORDED ? c->recorded : RECORDED;
	uint8_t octets[PACKET + 128];
	const struct record *record;
	struct buf datagram;

	if (known == 0)
		return;
	record = &c->record[below(c, known)];
	buf_init(&datagram, octets, sizeof(octets));
	buf_put(&datagram, record->octets, record->len);
	if (below(c, 3) != 0)
		refresh(c, &datagram);
	if (below(c, 3) != 0)
		mutator_datagram(&c->mutator, &datagram);
	c->figures->repeats++;
	play_inject(c->play, &record->src, &record->dst, record->natt,
	    buf_done(&datagram));
}

static bool
tap(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct campaign *c = arg;
	uint8_t changed[PACKET + 128];
	struct buf datagram;

	if (from == c->gate)
		return true;
	keep(c, packet);
	if (!c->on || packet->octets.len > PACKET)
		return true;
	while (below(c, 4) == 0)
		repeat(c);
	if (below(c, 1000) >= c->wire)
		return true;
	buf_init(&datagram, changed, sizeof(changed));
	buf_put(&datagram, octets, packet->octets.len);
	mutator_datagram(&c->mutator, &datagram);
	c->figures->wire++;
	play_inject(play, &packet->local, &packet->remote, packet->natt,
	    buf_done(&datagram));
	/* The true one may come as well. */
	return below(c, 2) == 0;
}

static void
impair(struct env *env, uint8_t *first, struct buf *chain)
{
	struct campaign *c = env->impair_arg;
	uint8_t version = env == &c->peer[0]->env ? 1 : 2;

	mutator_learn(&c->mutator, version, *first, buf_done(chain));
	if (!c->on || below(c, 1000) >= c->sealed)
		return;
	mutator_chain(&c->mutator, version, first, chain);
	c->figures->sealed++;
}

/* The world ------------------------------------------------------------- */

static void
vary(struct campaign *c, struct conn *conn, unsigned suite)
{
	static const char *const ike[] = { "aes128-sha256-curve25519",
		"aes256-sha512-ecp256", "aes128gcm16-prfsha256-curve25519" };
	static const char *const esp[] = { "aes128-sha256",
		"aes128gcm16-curve25519", "aes256-sha512-ecp256-esn" };

	(void)c;
	/* IKEv1 knows no GCM for itself. */
	if (conn->keyexchange == KEYEX_IKEV1 && suite % 3 == 2)
		conn_set_ike(conn, ike[0]);
	else
		conn_set_ike(conn, ike[suite % 3]);
	conn_set_esp(conn, esp[suite / 3 % 3]);
	conn->fragmentation = suite / 9 % 2 == 0 ? FRAG_YES : FRAG_FORCE;
	conn->mode = suite / 18 % 4 == 0 ? MODE_TRANSPORT : MODE_TUNNEL;
	conn->dpd_delay_ms = 3000;
	conn->dpd_timeout_ms = 20000;
	conn->dpd_action = DPD_CLEAR;
}

static void
world_begin(struct campaign *c, uint64_t seed)
{
	char there[16], here[16];
	struct conn *conn;
	unsigned i, suite;

	c->play = play_new(seed);
	c->play->tap = tap;
	c->play->tap_arg = c;
	c->recorded = 0;
	c->gate = play_gateway(c->play, "gate", "192.0.2.1");
	gateway_psk(c->gate, NULL, NULL, "correct horse battery staple");
	for (i = 0; i < 2; i++) {
		suite = (unsigned)below(c, 72);
		snprintf(here, sizeof(here), "10.0.0.0/16");
		snprintf(there, sizeof(there), "10.%u.0.0/16", i + 1);
		conn = gateway_conn(c->gate, conn_name[i], peer_addr[i],
		    suite / 18 == 0 ? NULL : here,
		    suite / 18 == 0 ? NULL : there);
		conn->keyexchange = i == 0 ? KEYEX_IKEV1 : KEYEX_IKEV2;
		vary(c, conn, suite);
		c->peer[i] = play_gateway(c->play, conn_name[i], peer_addr[i]);
		conn = gateway_conn(c->peer[i], conn_name[i], "192.0.2.1",
		    suite / 18 == 0 ? NULL : there,
		    suite / 18 == 0 ? NULL : here);
		conn->keyexchange = i == 0 ? KEYEX_IKEV1 : KEYEX_IKEV2;
		vary(c, conn, suite);
		gateway_psk(
		    c->peer[i], NULL, NULL, "correct horse battery staple");
		gateway_load(c->peer[i]);
		c->peer[i]->env.impair = impair;
		c->peer[i]->env.impair_arg = c;
	}
	gateway_load(c->gate);
}

/* One of an established SA's verbs, from either side. */
static void
act(struct campaign *c, struct gateway *gw, unsigned i)
{
	struct ike_sa *sa = gateway_ike(gw);
	struct child_sa *child;

	for (sa = gw->env.sadb->first; sa != NULL; sa = sa->next)
		if (sa->state == IKE_ESTABLISHED &&
		    sa->engine->version == i + 1 && below(c, 2) == 0)
			break;
	if (sa == NULL) {
		gateway_up(gw, conn_name[i], 0);
		c->figures->negotiations++;
		return;
	}
	child = sa->children;
	switch (below(c, 8)) {
	case 0:
		sa->engine->rekey(sa);
		break;
	case 1:
	case 2:
		if (child != NULL && child->state == CHILD_UP)
			sa->engine->child_rekey(child);
		break;
	case 3:
		if (child != NULL && child->state == CHILD_UP)
			sa->engine->child_close(child);
		break;
	case 4:
		sa->engine->close(sa);
		break;
	case 5:
		sa->engine->probe(sa);
		break;
	default:
		gateway_up(gw, conn_name[i], 0);
		break;
	}
	c->figures->negotiations++;
}

/* Begins as a new peer would, who knows nothing of what was. */
static void
restart(struct campaign *c, unsigned i)
{
	gateway_restart(c->peer[i]);
	c->peer[i]->env.impair = impair;
	c->peer[i]->env.impair_arg = c;
}

static void
round_of(struct campaign *c)
{
	unsigned i = (unsigned)below(c, 2), steps = 2 + (unsigned)below(c, 8);

	/* Sometimes hardly anything is changed, so that more comes about. */
	c->wire = (unsigned)below(c, 4) * 60;
	c->sealed = (unsigned)below(c, 4) * 120;
	if (below(c, 3) == 0)
		restart(c, i);
	gateway_up(below(c, 4) == 0 ? c->gate : c->peer[i], conn_name[i], 0);
	c->figures->negotiations++;
	play_run(c->play, 100 + below(c, 1000));
	while (steps-- > 0) {
		act(c, below(c, 4) == 0 ? c->gate : c->peer[i], i);
		if (below(c, 2) == 0)
			repeat(c);
		play_run(c->play, 20 + below(c, 2000));
	}
	if (below(c, 8) == 0)
		play_run(c->play, below(c, 100000));
}

/* Health ---------------------------------------------------------------- */

static size_t
count_children(struct gateway *gw)
{
	return gw->env.sadb->child_count;
}

static bool
all_up(void *arg)
{
	struct campaign *c = arg;

	return gateway_child_count(c->peer[0], NULL) > 0 &&
	       gateway_child_count(c->peer[1], NULL) > 0 &&
	       gateway_child_count(c->gate, conn_name[0]) > 0 &&
	       gateway_child_count(c->gate, conn_name[1]) > 0;
}

static bool
no_half_open(void *arg)
{
	struct campaign *c = arg;

	return limit_half_open(c->gate->env.limit) == 0;
}

static bool
nothing_left(void *arg)
{
	struct campaign *c = arg;

	return c->gate->env.sadb->count == 2 && count_children(c->gate) == 2 &&
	       c->gate->kernel.sa_count == 4 &&
	       c->gate->kernel.spi_count == 0 && gateway_idle(c->gate);
}

static void
complain(const struct campaign *c, const char *what)
{
	const struct exchange *x;
	const struct ike_sa *sa;

	fprintf(stderr, "seed %llu, %.3f s: %s\n",
	    (unsigned long long)c->play->seed,
	    (double)c->play->timers.now_ms / 1000, what);
	for (sa = c->gate->env.sadb->first; sa != NULL; sa = sa->next) {
		fprintf(stderr,
		    "  %s[%llu] IKEv%u %s, %zu children, heard of %.3f s\n",
		    sa->conn == NULL ? "?" : sa->conn->name,
		    (unsigned long long)sa->serial, sa->engine->version,
		    ike_state_text((enum ike_state)sa->state), sa->child_count,
		    (double)sa->last_in_ms / 1000);
		for (x = sa->exchanges; x != NULL; x = x->next)
			fprintf(stderr,
			    "    exchange %u role %u state %u id %u%s\n",
			    x->type, x->role, x->state, x->id,
			    x->waiting ? ", waits" : "");
	}
	fprintf(stderr, "  %s\n  %s\n", c->peer[0]->failed, c->peer[1]->failed);
}

static bool
healthy(struct campaign *c)
{
	unsigned i;

	c->on = false;
	/* What was under way ends by itself. */
	for (i = 0; i < 2; i++)
		gateway_silence(c->peer[i], true);
	play_drop_flying(c->play);
	if (!play_until(c->play, no_half_open, c, 600000)) {
		complain(c, "half-open SAs stay");
		return false;
	}
	for (i = 0; i < 2; i++) {
		gateway_silence(c->peer[i], false);
		restart(c, i);
		MUST(gateway_up(c->peer[i], conn_name[i], 0) == OK);
	}
	if (!play_until(c->play, all_up, c, 120000)) {
		complain(c, "no handshake after the mutations");
		return false;
	}
	c->figures->handshakes += 2;
	/* The old ones are found dead, or replaced. */
	play_run(c->play, 600000);
	for (i = 0; i < 2; i++) {
		if (c->gate->building[i]->mode == MODE_TUNNEL &&
		    (!play_traffic(c->gate, c->peer[i], "10.0.0.1", inner[i]) ||
		        !play_traffic(
		            c->peer[i], c->gate, inner[i], "10.0.0.1"))) {
			complain(c, "no traffic after the mutations");
			return false;
		}
	}
	/* A probe may be under way just now. */
	if (!play_until(c->play, nothing_left, c, 10000)) {
		fprintf(stderr,
		    "%zu children, %zu SAs and %zu SPIs in the "
		    "kernel\n",
		    count_children(c->gate), c->gate->kernel.sa_count,
		    c->gate->kernel.spi_count);
		complain(c, "something is left over");
		return false;
	}
	return true;
}

static bool
epoch(uint64_t seed, uint64_t goal, struct figures *figures)
{
	struct campaign *c = calloc(1, sizeof(*c));
	uint64_t end;
	unsigned i;
	bool good;

	MUST(c != NULL);
	mutator_init(&c->mutator, seed);
	c->figures = figures;
	end = mutations(c) + EPOCH;
	if (end > goal && goal > mutations(c) && goal > 1)
		end = goal;
	world_begin(c, seed);
	c->on = true;
	while (mutations(c) < end)
		round_of(c);
	good = healthy(c);
	for (i = 0; i < MUTATE_KINDS; i++)
		figures->made[i] += c->mutator.made[i];
	for (i = 0; i < COUNTER_COUNT; i++)
		figures->counter[i] += c->gate->env.counter[i];
	figures->virtual_ms += c->play->timers.now_ms;
	figures->packets += c->gate->net.received;
	c->play->tap = NULL;
	play_free(c->play);
	free(c);
	return good;
}

static void
print(const struct figures *f, double seconds)
{
	static const enum counter shown[] = { COUNTER_PACKETS_MALFORMED,
		COUNTER_PACKETS_STRANGE, COUNTER_PACKETS_FORGED,
		COUNTER_PACKETS_REPEATED, COUNTER_V1_IKE_UP, COUNTER_V2_IKE_UP,
		COUNTER_V1_IKE_FAILED, COUNTER_V2_IKE_FAILED, COUNTER_CHILD_UP,
		COUNTER_CHILD_FAILED };

	printf("%10llu mutated datagrams: %llu on the wire, %llu below the "
	       "encryption, %llu repeated\n",
	    (unsigned long long)(f->wire + f->sealed + f->repeats),
	    (unsigned long long)f->wire, (unsigned long long)f->sealed,
	    (unsigned long long)f->repeats);
	for (unsigned i = 0; i < MUTATE_KINDS; i++)
		printf("%10llu %s\n", (unsigned long long)f->made[i],
		    mutation_text((enum mutation)i));
	printf("%10llu datagrams received by the gateway, in %.0f hours of "
	       "its time and %.1f s of ours\n",
	    (unsigned long long)f->packets, (double)f->virtual_ms / 3.6e6,
	    seconds);
	for (unsigned i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
		printf("%10llu %s\n", (unsigned long long)f->counter[shown[i]],
		    counter_text(shown[i]));
	printf("%10llu handshakes asked for meanwhile, %llu afterwards\n",
	    (unsigned long long)f->negotiations,
	    (unsigned long long)f->handshakes);
}

static uint64_t
setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text == NULL || *text == '\0' ? otherwise
	                                     : strtoull(text, NULL, 10);
}

int
main(void)
{
	uint64_t goal = setting("MUTATIONS", 5000), seed = setting("SEED", 1);
	struct figures figures = { 0 };
	struct timespec began, ended;
	bool good = true;

	clock_gettime(CLOCK_MONOTONIC, &began);
	do {
		printf("epoch with seed %llu\n", (unsigned long long)seed);
		fflush(stdout);
		good &= epoch(seed++, goal, &figures);
	} while (figures.wire + figures.sealed + figures.repeats < goal);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	print(&figures, (double)(ended.tv_sec - began.tv_sec) +
	                    (double)(ended.tv_nsec - began.tv_nsec) / 1e9);
	return good ? 0 : 1;
}
