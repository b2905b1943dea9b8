/*
 * Floods: strangers with forged addresses, and with true ones, against a
 * gateway whose own peers want to come up and to stay up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/play/mutator.h"
#include "tests/play/play.h"

#define PSK          "correct horse battery staple"
#define STRANGERS    120000
#define FIRST        0x64400000u /* 100.64.0.0 */
#define HALF_OPEN_MS 30000

struct message {
	size_t len;
	uint8_t octets[2048];
};

struct world {
	struct play *play;
	struct gateway *gate, *one, *two; /* IKEv1's peer, IKEv2's */
	struct message first[2];          /* by version - 1 */
	struct mutator mutator;
	/* Strangers: what each asked, and how it was answered. */
	unsigned stride; /* addresses between two of them */
	unsigned strangers;
	uint16_t *asked; /* octets */
	uint8_t *answers;
	unsigned answered, larger, twice;
	size_t most; /* octets of the longest answer */
};

/* The gateway -------------------------------------------------------------- */

static void
heed_answer(struct world *world, const struct packet *packet)
{
	const uint8_t *octets = packet->remote.addr.octets;
	uint32_t addr, n;

	if (packet->remote.addr.family != ADDR_V4)
		return;
	addr = (uint32_t)octets[0] << 24 | (uint32_t)octets[1] << 16 |
	       (uint32_t)octets[2] << 8 | octets[3];
	if (addr < FIRST || addr >= FIRST + 0x400000u)
		return;
	n = (addr - FIRST) / world->stride;
	assert_true(n < STRANGERS);
	world->answered++;
	if (++world->answers[n] > 1)
		world->twice++;
	if (packet->octets.len > world->asked[n]) {
		if (world->larger++ < 4)
			print_error("%zu octets for %u: IKEv%u exchange %u\n",
			    packet->octets.len, world->asked[n],
			    packet->octets.at[17] >> 4, packet->octets.at[18]);
	}
	if (packet->octets.len > world->most)
		world->most = packet->octets.len;
}

static bool
tap(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct world *world = arg;
	struct message *first;

	(void)play;
	if (from == world->gate) {
		heed_answer(world, packet);
		return true;
	}
	first = &world->first[from == world->one ? 0 : 1];
	if (first->len == 0 && packet->octets.len <= sizeof(first->octets)) {
		first->len = packet->octets.len;
		memcpy(first->octets, octets, first->len);
	}
	return true;
}

static void
peer(struct world *world, struct gateway **gw, const char *name,
    const char *addr, enum policy_keyexchange keyexchange)
{
	struct conn *conn;

	*gw = play_gateway(world->play, name, addr);
	conn = gateway_conn(*gw, name, "192.0.2.1", NULL, "10.0.0.0/16");
	conn->keyexchange = (uint8_t)keyexchange;
	conn->dpd_delay_ms = 0;
	gateway_psk(*gw, NULL, NULL, PSK);
	gateway_load(*gw);
}

/* A gateway for everybody, and two peers that know it. Their first messages
 * are what strangers send. */
static void
begin(struct world *world, uint64_t seed)
{
	struct conn *conn;

	memset(world, 0, sizeof(*world));
	mutator_init(&world->mutator, seed);
	world->play = play_new(seed);
	world->stride = 1;
	world->asked = calloc(STRANGERS, sizeof(*world->asked));
	world->answers = calloc(STRANGERS, sizeof(*world->answers));
	assert_non_null(world->asked);
	assert_non_null(world->answers);
	world->gate = play_gateway(world->play, "gate", "192.0.2.1");
	conn = gateway_conn(world->gate, "all", NULL, "10.0.0.0/16", NULL);
	conn->keyexchange = KEYEX_IKE;
	conn->dpd_delay_ms = 0;
	gateway_psk(world->gate, NULL, NULL, PSK);
	gateway_load(world->gate);
	peer(world, &world->one, "one", "203.0.113.11", KEYEX_IKEV1);
	peer(world, &world->two, "two", "203.0.113.12", KEYEX_IKEV2);
	world->play->tap = tap;
	world->play->tap_arg = world;
	gateway_silence(world->gate, true);
	assert_int_equal(gateway_up(world->one, "one", 0), OK);
	assert_int_equal(gateway_up(world->two, "two", 0), OK);
	play_run(world->play, 500);
	gateway_restart(world->one);
	gateway_restart(world->two);
	play_run(world->play, 500);
	gateway_silence(world->gate, false);
	assert_true(world->first[0].len > 0 && world->first[1].len > 0);
}

static void
end(struct world *world)
{
	play_free(world->play);
	free(world->asked);
	free(world->answers);
}

/* Strangers ---------------------------------------------------------------- */

static void
ask(struct world *world, const uint8_t *octets, size_t len)
{
	struct endpoint src = { .port = 500 }, dst = { .port = 500 };
	uint32_t addr = FIRST + world->strangers * world->stride;

	assert_true(world->strangers < STRANGERS);
	src.addr.family = ADDR_V4;
	src.addr.octets[0] = (uint8_t)(addr >> 24);
	src.addr.octets[1] = (uint8_t)(addr >> 16);
	src.addr.octets[2] = (uint8_t)(addr >> 8);
	src.addr.octets[3] = (uint8_t)addr;
	dst.addr = world->gate->addr;
	world->asked[world->strangers++] = (uint16_t)len;
	play_inject(world->play, &src, &dst, false, view_of(octets, len));
}

/* A first message with an SPI of its own. */
static void
ask_first(struct world *world, unsigned version)
{
	struct message *first = &world->first[version - 1];
	uint64_t spi = play_random(world->play) | 1;

	memcpy(first->octets, &spi, sizeof(spi));
	ask(world, first->octets, first->len);
}

/* So many each 10 ms. */
static void
flood(struct world *world, unsigned version, unsigned count, unsigned each)
{
	while (count > 0) {
		for (unsigned i = 0; i < each && count > 0; i++, count--)
			ask_first(world,
			    version == 0 ? 1 + world->strangers % 2 : version);
		play_run(world->play, 10);
	}
}

static void
drains(struct world *world, size_t left)
{
	play_run(world->play, HALF_OPEN_MS + 5000);
	assert_int_equal(world->gate->env.sadb->count, left);
	assert_int_equal(world->gate->env.sadb->half_open, 0);
	assert_int_equal(limit_half_open(world->gate->env.limit), 0);
	assert_int_equal(world->gate->workers.queued, 0);
	assert_int_equal(world->gate->vault.pending, 0);
}

static uint64_t
counted(const struct world *world, enum counter counter)
{
	return world->gate->env.counter[counter];
}

/* Comes up within max_ms while the flood goes on. */
static void
come_up(struct world *world, struct gateway *gw, const char *name,
    unsigned version, unsigned each, uint64_t max_ms)
{
	uint64_t until = world->play->timers.now_ms + max_ms;

	assert_int_equal(gateway_up(gw, name, 0), OK);
	while (gateway_child_count(gw, NULL) == 0) {
		if (world->play->timers.now_ms > until)
			fail_msg("%s does not come up: %s", name, gw->failed);
		for (unsigned i = 0; i < each; i++)
			ask_first(world, version);
		play_run(world->play, 10);
	}
}

/* IKEv2 -------------------------------------------------------------------- */

static void
test_v2_forged(void **state)
{
	struct world world;
	size_t count = 0;

	(void)state;
	begin(&world, 1);
	for (unsigned i = 0; i < 500; i++) {
		flood(&world, 2, 10, 10);
		if (world.gate->env.sadb->count > count)
			count = world.gate->env.sadb->count;
	}
	/* From so many on, whoever forges its address gets no state. */
	assert_int_equal(count, limit_defaults.cookie_half_open);
	assert_int_equal(counted(&world, COUNTER_COOKIES_SENT),
	    5000 - limit_defaults.cookie_half_open);
	assert_int_equal(world.answered, 5000);
	assert_int_equal(world.twice, 0);
	assert_int_equal(world.larger, 0);
	drains(&world, 0);
	/* Nobody was told anything later. */
	assert_int_equal(world.answered, 5000);
	end(&world);
}

/* From one address cookies are asked for earlier; others see nothing of it. */
static void
test_v2_one_address(void **state)
{
	struct world world;

	(void)state;
	begin(&world, 2);
	world.stride = 0;
	for (unsigned i = 0; i < 100; i++)
		ask_first(&world, 2);
	world.stride = 1; /* for the answers */
	play_run(world.play, 1000);
	assert_int_equal(
	    world.gate->env.sadb->count, limit_defaults.cookie_per_peer);
	assert_int_equal(counted(&world, COUNTER_COOKIES_SENT),
	    100 - limit_defaults.cookie_per_peer);
	world.stride = 1;
	come_up(&world, world.two, "two", 2, 0, 5000);
	assert_int_equal(counted(&world, COUNTER_COOKIES_SENT),
	    100 - limit_defaults.cookie_per_peer);
	drains(&world, 1);
	end(&world);
}

static void
test_v2_peer_gets_through(void **state)
{
	struct world world;

	(void)state;
	for (uint64_t seed = 10; seed < 16; seed++) {
		begin(&world, seed);
		flood(&world, 2, 500, 20);
		if (seed % 2 == 0)
			world.play->weather.loss_permille = 100;
		come_up(&world, world.two, "two", 2, 5, 30000);
		assert_true(play_traffic(
		    world.gate, world.two, "10.0.0.1", "203.0.113.12"));
		assert_true(play_traffic(
		    world.two, world.gate, "203.0.113.12", "10.0.0.1"));
		assert_true(world.gate->env.sadb->count <=
		            limit_defaults.cookie_half_open + 2);
		drains(&world, 1);
		end(&world);
	}
}

/* IKEv1 has no cookies of this kind; a flood of IKEv2 is none of its
 * business. */
static void
test_v1_peer_under_v2_flood(void **state)
{
	struct world world;

	(void)state;
	for (uint64_t seed = 20; seed < 24; seed++) {
		begin(&world, seed);
		flood(&world, 2, 500, 20);
		if (seed % 2 == 0)
			world.play->weather.loss_permille = 100;
		come_up(&world, world.one, "one", 2, 5, 30000);
		drains(&world, 1);
		end(&world);
	}
}

/* IKEv1 -------------------------------------------------------------------- */

static void
test_v1_prefix(void **state)
{
	struct world world;

	(void)state;
	begin(&world, 30);
	/* 512 addresses of two networks. */
	flood(&world, 1, 512, 16);
	assert_int_equal(
	    world.gate->env.sadb->count, 2 * limit_defaults.per_prefix_max);
	assert_int_equal(counted(&world, COUNTER_HALF_OPEN_REFUSED),
	    512 - 2 * limit_defaults.per_prefix_max);
	assert_int_equal(world.answered, 2 * limit_defaults.per_prefix_max);
	assert_int_equal(world.twice, 0);
	assert_int_equal(world.larger, 0);
	/* Who has not answered in a second makes room for others. */
	play_run(world.play, 2 * limit_defaults.answer_ms);
	world.strangers = 400;
	flood(&world, 1, 16, 16);
	assert_int_equal(counted(&world, COUNTER_HALF_OPEN_EVICTED), 16);
	assert_int_equal(
	    world.gate->env.sadb->count, 2 * limit_defaults.per_prefix_max);
	/* Other networks are served. */
	come_up(&world, world.one, "one", 1, 0, 5000);
	come_up(&world, world.two, "two", 1, 0, 5000);
	drains(&world, 2);
	assert_int_equal(
	    world.answered, 2 * limit_defaults.per_prefix_max + 16);
	end(&world);
}

static void
test_v1_peer_gets_through(void **state)
{
	struct world world;

	(void)state;
	for (uint64_t seed = 40; seed < 44; seed++) {
		begin(&world, seed);
		world.stride = 100;
		flood(&world, 1, 1000, 20);
		if (seed % 2 == 0)
			world.play->weather.loss_permille = 100;
		come_up(&world, world.one, "one", 1, 1, 30000);
		come_up(&world, world.two, "two", 1, 1, 30000);
		drains(&world, 2);
		end(&world);
	}
}

static void
set_budget(struct world *world, unsigned half_open_max)
{
	struct limit_config config = limit_defaults;

	config.half_open_max = half_open_max;
	limit_free(world->gate->env.limit);
	world->gate->env.limit = limit_new(&world->gate->env, &config);
	assert_non_null(world->gate->env.limit);
}

/* The gateway names IKEv1's peer, too. */
static void
name_peer(struct world *world)
{
	struct conn *conn = gateway_conn(
	    world->gate, "one", "203.0.113.11", "10.0.0.0/16", NULL);

	conn->keyexchange = KEYEX_IKEV1;
	conn->dpd_delay_ms = 0;
	gateway_load(world->gate);
}

/* Forged addresses from everywhere: IKEv1 fills its part of the budget, and
 * not that of peers who can show where they are. Its own peers come up while
 * it lasts, whether they are named or not. */
static void
from_everywhere(uint64_t seed, bool named, bool loss)
{
	struct world world;

	begin(&world, seed);
	if (named)
		name_peer(&world);
	set_budget(&world, 1000);
	world.stride = 32; /* 15000 networks */
	flood(&world, 1, 3000, 20);
	assert_in_range(limit_half_open(world.gate->env.limit), 300, 500);
	assert_true(world.gate->env.sadb->count <= 500);
	assert_true(counted(&world, COUNTER_HALF_OPEN_EVICTED) > 50);
	assert_int_equal(world.larger, 0);
	if (loss)
		world.play->weather.loss_permille = 100;
	come_up(&world, world.two, "two", 1, 20, 30000);
	/* IKEv1 has 375 places for strangers, and gives each of them away
	 * more than once a second: of 1000 a second many are served. */
	come_up(&world, world.one, "one", 1, 10, 45000);
	assert_int_equal(world.twice, 0);
	drains(&world, 2);
	end(&world);
}

static void
test_v1_from_everywhere(void **state)
{
	(void)state;
	for (uint64_t seed = 50; seed < 58; seed++)
		from_everywhere(seed, seed % 2 == 0, seed % 4 >= 2);
}

/* Somebody uses the peer's own address, or its neighbours', to keep it out. */
static void
in_the_name_of(uint64_t seed, const char *addr, bool named)
{
	struct endpoint src = { .port = 500 }, dst = { .port = 500 };
	struct message *first;
	struct world world;
	uint64_t spi;

	begin(&world, seed);
	if (named)
		name_peer(&world);
	first = &world.first[0];
	dst.addr = world.gate->addr;
	assert_true(addr_parse(&src.addr, addr));
	for (unsigned i = 0; i < 12000; i++) {
		spi = play_random(world.play) | 1;
		memcpy(first->octets, &spi, sizeof(spi));
		play_inject(world.play, &src, &dst, false,
		    view_of(first->octets, first->len));
		if (i == 1000)
			assert_int_equal(gateway_up(world.one, "one", 0), OK);
		if (i % 3 == 0)
			play_run(world.play, 10);
		if (gateway_child_count(world.one, NULL) > 0)
			break;
	}
	assert_int_equal(gateway_child_count(world.one, NULL), 1);
	assert_true(
	    limit_half_open(world.gate->env.limit) <= (named ? 1024 : 64));
	end(&world);
}

static void
test_v1_in_the_name_of(void **state)
{
	(void)state;
	for (uint64_t seed = 70; seed < 73; seed++) {
		in_the_name_of(seed, "203.0.113.11", true);
		in_the_name_of(seed, "203.0.113.99", true);
		in_the_name_of(seed, "203.0.113.99", false);
	}
}

/* Both --------------------------------------------------------------------- */

/* Those who are up stay up, rekey and carry traffic. */
static void
test_established_peers(void **state)
{
	struct world world;
	struct ike_sa *sa;

	(void)state;
	begin(&world, 60);
	come_up(&world, world.one, "one", 1, 0, 5000);
	come_up(&world, world.two, "two", 1, 0, 5000);
	flood(&world, 0, 1000, 50);
	for (unsigned i = 0; i < 2; i++) {
		struct gateway *gw = i == 0 ? world.one : world.two;

		sa = gateway_ike(gw);
		assert_non_null(sa);
		sa->engine->child_rekey(sa->children);
		flood(&world, 0, 200, 20);
		sa = gateway_ike(gw);
		sa->engine->rekey(sa);
		flood(&world, 0, 200, 20);
		play_run(world.play, 20000);
		assert_true(play_traffic(world.gate, gw, "10.0.0.1",
		    i == 0 ? "203.0.113.11" : "203.0.113.12"));
		assert_non_null(gateway_ike(gw));
	}
	drains(&world, 2);
	assert_int_equal(world.one->events[EVENT_IKE_DOWN], 0);
	assert_int_equal(world.two->events[EVENT_IKE_DOWN], 0);
	end(&world);
}

/* Whatever strangers send under load: one answer at most, none larger than the
 * question, no state beyond the budget. */
static void
test_mutated_strangers(void **state)
{
	uint8_t octets[4096];
	struct world world;
	struct message *first;
	struct buf datagram;

	(void)state;
	begin(&world, 70);
	flood(&world, 2, 200, 50);
	for (unsigned i = 0; i < 2; i++)
		mutator_learn(&world.mutator, (uint8_t)(1 + i),
		    world.first[i].octets[16],
		    view_of(world.first[i].octets + WIRE_HEADER,
		        world.first[i].len - WIRE_HEADER));
	while (world.strangers < 20000) {
		uint64_t spi = play_random(world.play);

		first = &world.first[mutator_below(&world.mutator, 2)];
		buf_init(&datagram, octets, sizeof(octets));
		buf_put(&datagram, first->octets, first->len);
		memcpy(octets, &spi, sizeof(spi));
		for (uint64_t n = mutator_below(&world.mutator, 3); n < 3; n++)
			mutator_datagram(&world.mutator, &datagram);
		ask(&world, octets, datagram.len);
		if (world.strangers % 20 == 0)
			play_run(world.play, 20);
	}
	assert_int_equal(world.larger, 0);
	assert_int_equal(world.twice, 0);
	assert_true(world.answered < world.strangers);
	assert_true(
	    world.gate->env.sadb->count <= limit_defaults.half_open_max);
	come_up(&world, world.two, "two", 2, 0, 10000);
	come_up(&world, world.one, "one", 1, 0, 10000);
	drains(&world, 2);
	end(&world);
}

/* The shortest questions, of every exchange: no answer is larger. */
static void
test_short_questions(void **state)
{
	static const uint8_t exchanges[] = { 0, EXCH_IDENTITY_PROTECTION,
		EXCH_AGGRESSIVE, EXCH_INFORMATIONAL_V1, EXCH_QUICK,
		EXCH_IKE_SA_INIT, EXCH_IKE_AUTH, EXCH_CREATE_CHILD_SA,
		EXCH_INFORMATIONAL, 38, 255 };
	struct world world;
	uint8_t octets[80];
	struct buf buf;

	(void)state;
	begin(&world, 80);
	world.stride = 256; /* each from a network with answers left */
	for (unsigned i = 0; i < 11 * 4 * 8 * 4; i++) {
		size_t len = WIRE_HEADER + i / 352 * 8;
		struct wire_header header = {
			.spi_i = play_random(world.play),
			.spi_r = i % 2 == 0 ? 0 : play_random(world.play),
			.next = (uint8_t)(len == WIRE_HEADER ? 0 : P2_NONCE),
			.major = (uint8_t)(i / 2 % 4),
			.exchange = exchanges[i / 8 % 11],
			.flags = (uint8_t)(i / 88 % 4 << 3),
			.length = (uint32_t)len,
		};

		buf_init(&buf, octets, sizeof(octets));
		wire_header_write(&buf, &header);
		if (len > WIRE_HEADER) {
			buf_u16(&buf, 0);
			buf_u16(&buf, (uint16_t)(len - WIRE_HEADER));
			buf_zero(&buf, len - WIRE_HEADER - 4);
		}
		ask(&world, octets, len);
		play_run(world.play, 5);
	}
	play_run(world.play, 1000);
	assert_int_equal(world.larger, 0);
	assert_int_equal(world.twice, 0);
	assert_int_equal(world.gate->env.sadb->count, 0);
	/* Unknown SPIs, IKEv3: some are answered where there is room. */
	assert_true(world.answered > 0);
	end(&world);
}

/* Octets without form. */
static void
test_junk(void **state)
{
	struct world world;
	uint8_t octets[300];
	size_t len, i;

	(void)state;
	begin(&world, 90);
	while (world.strangers < 10000) {
		len = play_below(world.play, sizeof(octets) + 1);
		for (i = 0; i < len; i++)
			octets[i] = (uint8_t)play_random(world.play);
		/* A header that holds, every other time. */
		if (world.strangers % 2 == 0 && len >= WIRE_HEADER) {
			struct buf buf;

			buf_init(&buf, octets, sizeof(octets));
			buf.len = len;
			octets[17] = world.strangers % 4 == 0 ? 0x20 : 0x10;
			buf_patch_u32(&buf, 24, (uint32_t)len);
		}
		ask(&world, octets, len);
		if (world.strangers % 50 == 0)
			play_run(world.play, 10);
	}
	play_run(world.play, 100);
	assert_int_equal(world.larger, 0);
	assert_int_equal(world.twice, 0);
	assert_int_equal(world.gate->env.sadb->count, 0);
	end(&world);
}

/* Forged messages in the name of SAs that are up: nothing is answered, nothing
 * ends. */
static void
test_forged_under_sas(void **state)
{
	static const uint8_t exchanges[2][3] = {
		{ EXCH_QUICK, EXCH_INFORMATIONAL_V1, EXCH_IDENTITY_PROTECTION },
		{ EXCH_IKE_AUTH, EXCH_CREATE_CHILD_SA, EXCH_INFORMATIONAL }
	};
	struct world world;
	uint8_t octets[28 + 4 + 96];
	struct buf buf;
	uint64_t sent;

	(void)state;
	begin(&world, 100);
	come_up(&world, world.one, "one", 1, 0, 5000);
	come_up(&world, world.two, "two", 1, 0, 5000);
	play_run(world.play, 10000);
	sent = world.gate->net.sent;
	for (unsigned i = 0; i < 3000; i++) {
		struct gateway *gw = i % 2 == 0 ? world.one : world.two;
		struct ike_sa *sa = gateway_ike(gw);
		struct wire_header header = {
			.spi_i = sa->spi_i,
			.spi_r = sa->spi_r,
			.next = i % 2 == 0 ? P1_HASH : P2_SK,
			.major = (uint8_t)(1 + i % 2),
			.exchange = exchanges[i % 2][i / 2 % 3],
			.flags = (uint8_t)(i % 2 == 0 ? FLAG_V1_ENCRYPTION
			                              : i / 6 % 4 * 8 * 4 | 8),
			.id = i % 2 == 0 ? (uint32_t)play_random(world.play)
			                 : i / 24 % 4,
			.length = sizeof(octets),
		};

		buf_init(&buf, octets, sizeof(octets));
		wire_header_write(&buf, &header);
		buf_u16(&buf, 0);
		buf_u16(&buf, 100);
		while (buf.len < sizeof(octets))
			buf_u8(&buf, (uint8_t)play_random(world.play));
		play_inject(world.play, &sa->local, &sa->remote, sa->natt,
		    buf_done(&buf));
		if (i % 20 == 0)
			play_run(world.play, 10);
	}
	play_run(world.play, 1000);
	assert_int_equal(world.gate->net.sent, sent);
	assert_true(counted(&world, COUNTER_PACKETS_FORGED) > 1000);
	assert_true(
	    play_traffic(world.gate, world.one, "10.0.0.1", "203.0.113.11"));
	assert_true(
	    play_traffic(world.gate, world.two, "10.0.0.1", "203.0.113.12"));
	drains(&world, 2);
	end(&world);
}

/* The budget counts SAs: a first message that is as long as a datagram can be
 * makes none. */
static void
test_long_questions(void **state)
{
	static const uint8_t vendor[] = { 0, P1_VID, P2_V };
	struct world world;
	uint8_t octets[LIMIT_FIRST_MAX + 1];

	(void)state;
	begin(&world, 105);
	world.stride = 256;
	for (unsigned version = 1; version <= 2; version++)
		for (unsigned more = 0; more < 2; more++) {
			const struct message *first = &world.first[version - 1];
			size_t at = WIRE_HEADER, next = 16, count;
			struct buf buf;

			buf_init(&buf, octets, sizeof(octets));
			buf_put(&buf, first->octets, first->len);
			while (octets[next] != 0) {
				next = at;
				at += (size_t)octets[at + 2] << 8 |
				      octets[at + 3];
			}
			octets[next] = vendor[version];
			buf_u16(&buf, 0);
			buf_u16(&buf, (uint16_t)(LIMIT_FIRST_MAX + more - at));
			buf_zero(&buf, LIMIT_FIRST_MAX + more - buf.len);
			buf_patch_u32(&buf, 24, (uint32_t)buf.len);
			assert_false(buf.full);
			octets[0] = (uint8_t)(1 + version + 2 * more);
			count = world.gate->env.sadb->count;
			ask(&world, octets, buf.len);
			play_run(world.play, 100);
			assert_int_equal(
			    world.gate->env.sadb->count, count + 1 - more);
		}
	assert_int_equal(counted(&world, COUNTER_HALF_OPEN_REFUSED), 2);
	drains(&world, 0);
	end(&world);
}

/* Who answers IKE_SA_INIT and no more has a true address, and still no more
 * than its time. */
static void
test_v2_never_authenticates(void **state)
{
	struct world world;

	(void)state;
	begin(&world, 110);
	gateway_psk(world.gate, "192.0.2.1", "203.0.113.12", "another key");
	assert_int_equal(gateway_up(world.two, "two", 0), OK);
	play_run(world.play, 5000);
	assert_int_equal(gateway_ike_count(world.gate), 0);
	assert_int_equal(world.two->events[EVENT_IKE_FAILED], 1);
	drains(&world, 0);
	end(&world);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_v2_forged),
		cmocka_unit_test(test_v2_one_address),
		cmocka_unit_test(test_v2_peer_gets_through),
		cmocka_unit_test(test_v1_peer_under_v2_flood),
		cmocka_unit_test(test_v1_prefix),
		cmocka_unit_test(test_v1_peer_gets_through),
		cmocka_unit_test(test_v1_from_everywhere),
		cmocka_unit_test(test_v1_in_the_name_of),
		cmocka_unit_test(test_established_peers),
		cmocka_unit_test(test_mutated_strangers),
		cmocka_unit_test(test_short_questions),
		cmocka_unit_test(test_junk),
		cmocka_unit_test(test_long_questions),
		cmocka_unit_test(test_forged_under_sas),
		cmocka_unit_test(test_v2_never_authenticates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
