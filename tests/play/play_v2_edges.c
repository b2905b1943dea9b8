/*
 * The edges of IKEv2: what two well-meaning gateways seldom say to each other.
 * Syntax errors and unknown words where they are least expected, refusals of
 * strangers, rekeys that meet while groups or kernels say no. RFC 7296.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/cipher.h"
#include "ikev2/internal.h"
#include "tests/play/play.h"

#define SECOND 1000ull
#define MINUTE (60 * SECOND)

struct world {
	struct play *play;
	struct gateway *left, *right;
};

static struct world
world_of(uint64_t seed)
{
	struct world world = { .play = play_new(seed) };

	play_pair(world.play, &world.left, &world.right, KEYEX_IKEV2);
	return world;
}

static void
reload(struct world *world)
{
	gateway_load(world->left);
	gateway_load(world->right);
}

static bool
quiet(void *arg)
{
	struct world *world = arg;

	return gateway_idle(world->left) && gateway_idle(world->right) &&
	       world->left->kernel.sa_count ==
	           2 * gateway_child_count(world->left, NULL) &&
	       world->right->kernel.sa_count ==
	           2 * gateway_child_count(world->right, NULL);
}

static bool
settles(struct world *world, size_t ikes, size_t children)
{
	play_until(world->play, quiet, world, 10 * MINUTE);
	return play_settled(world->left, world->right, ikes, children);
}

static void
try(struct world *world, uint64_t ms)
{
	assert_int_equal(gateway_up(world->left, "net", 0), OK);
	play_run(world->play, ms);
}

static bool
flows(const struct world *world)
{
	return play_traffic(
	           world->left, world->right, "10.1.0.1", "10.2.0.1") &&
	       play_traffic(world->right, world->left, "10.2.0.1", "10.1.0.1");
}

static struct world
world_up(uint64_t seed)
{
	struct world world = world_of(seed);

	try(&world, 5 * SECOND);
	assert_true(settles(&world, 1, 1));
	return world;
}

static void
rekey(struct gateway *gw)
{
	struct ike_sa *sa = gateway_ike(gw);

	if (sa != NULL)
		sa->engine->rekey(sa);
}

static void
child_rekey(struct gateway *gw)
{
	struct child_sa *child = gateway_child(gw);

	if (child != NULL)
		child->sa->engine->child_rekey(child);
}

/* A message of left's own making ------------------------------------------ */

/* One request under left's keys of AES-CBC and HMAC: an empty SK payload, and
 * before it, outside, a payload of this type. */
static void
left_sends(struct world *world, uint8_t exchange, uint8_t outside)
{
	struct v2_sa *v2 = v2_of(gateway_ike(world->left));
	const struct suite *suite = &v2->sa.suite;
	struct wire_header header = {
		.spi_i = v2->sa.spi_i,
		.spi_r = v2->sa.spi_r,
		.major = 2,
		.exchange = exchange,
		.flags = v2->sa.initiator ? FLAG_INITIATOR : 0,
		.id = v2->next_out++,
	};
	bool i = v2->sa.initiator;
	uint8_t packet[200], *iv, *text, *icv;
	struct wire_out out;
	struct view whole;
	struct buf buf;

	buf_init(&buf, packet, sizeof(packet));
	wire_start(&out, &buf, &header);
	if (outside != 0) {
		wire_begin(&out, outside, true);
		wire_end(&out);
	}
	wire_begin(&out, P2_SK, false);
	iv = buf_room(&buf, 16);
	text = buf_room(&buf, 16);
	icv = buf_room(&buf, suite->integ->icv);
	wire_end(&out);
	wire_finish(&out);
	assert_false(buf.full);
	memset(iv, 1, 16);
	memset(text, 0, 16);
	text[15] = 15;
	assert_int_equal(cipher_cbc_encrypt(suite->encr,
	                     v2_key(suite, &v2->keys, i ? V2_SK_EI : V2_SK_ER),
	                     iv, view_of(text, 16), text),
	    OK);
	whole = view_of(packet, (size_t)(icv - packet));
	assert_int_equal(prf_mac(suite->integ,
	                     v2_key(suite, &v2->keys, i ? V2_SK_AI : V2_SK_AR),
	                     &whole, 1, icv),
	    OK);
	play_inject(world->play, &v2->sa.local, &v2->sa.remote, v2->sa.natt,
	    buf_done(&buf));
}

/* RFC 7296 2.21.3: an answer of INVALID_SYNTAX is the end for whoever hears it,
 * and so for whoever says it. */
static void
exchange_that_nobody_knows(void **state)
{
	struct world world = world_up(1);

	(void)state;
	left_sends(&world, 43, 0);
	play_run(world.play, 5 * SECOND);
	assert_int_equal(gateway_ike_count(world.right), 0);
	assert_int_equal(world.right->kernel.sa_count, 0);
	/* It was left's hand, not left: that hears no answer. */
	gateway_restart(world.left);
	play_free(world.play);
}

/* What a gateway seals, seen before it is sealed. */
struct ear {
	unsigned heard; /* chains that begin with a notify of this type */
	uint16_t notify;
};

static void
listen(struct env *env, uint8_t *first, struct buf *plaintext)
{
	struct ear *ear = env->impair_arg;

	if (*first == P2_N && plaintext->len >= 8 &&
	    (plaintext->at[6] << 8 | plaintext->at[7]) == ear->notify)
		ear->heard++;
}

/* RFC 7296 2.5: the whole message is rejected, wherever the payload stands. */
static void
critical_payload_outside(void **state)
{
	struct ear ear = { .notify = N_UNSUPPORTED_CRITICAL_PAYLOAD };
	struct world world = world_up(2);

	(void)state;
	world.right->env.impair = listen;
	world.right->env.impair_arg = &ear;
	left_sends(&world, EXCH_INFORMATIONAL, 200);
	play_run(world.play, 5 * SECOND);
	assert_int_equal(ear.heard, 1);
	/* And nothing else came of it. */
	left_sends(&world, EXCH_INFORMATIONAL, 0);
	play_run(world.play, 5 * SECOND);
	assert_int_equal(ear.heard, 1);
	assert_true(settles(&world, 1, 1));
	play_free(world.play);
}

/* What a peer writes ------------------------------------------------------- */

/* The payload of this type in a chain, its header first; or NULL. */
static uint8_t *
chain_find(uint8_t first, struct buf *plaintext, uint8_t type)
{
	size_t at = 0;

	while (first != 0 && at + 4 <= plaintext->len) {
		if (first == type)
			return plaintext->at + at;
		first = plaintext->at[at];
		at +=
		    (size_t)plaintext->at[at + 2] << 8 | plaintext->at[at + 3];
	}
	return NULL;
}

/* Another type for a payload of a chain. */
static void
chain_rename(uint8_t *first, struct buf *plaintext, uint8_t type, uint8_t to)
{
	uint8_t *next = first;
	size_t at = 0;

	while (*next != type && at + 4 <= plaintext->len) {
		next = plaintext->at + at;
		at += (size_t)next[2] << 8 | next[3];
	}
	*next = to;
}

/* A payload at the end of a chain. */
static void
chain_add(uint8_t *first, struct buf *plaintext, uint8_t type,
    const void *payload, size_t len)
{
	uint8_t *next = first;
	size_t at = 0;

	while (*next != 0 && at + 4 <= plaintext->len) {
		next = plaintext->at + at;
		at += (size_t)next[2] << 8 | next[3];
	}
	*next = type;
	buf_put(plaintext, payload, len);
}

static void
empty_selectors(struct env *env, uint8_t *first, struct buf *plaintext)
{
	uint8_t *tsi = chain_find(*first, plaintext, P2_TSI);

	(void)env;
	if (tsi != NULL)
		tsi[4] = 0; /* their number */
}

/* A syntax error in what IKE_AUTH says of the child is none of those failures
 * that leave the IKE SA (RFC 7296 1.2): both ends must think the same. */
static void
syntax_error_in_auth(void **state)
{
	struct world world = world_of(3);

	(void)state;
	world.left->env.impair = empty_selectors;
	try(&world, 20 * SECOND);
	world.left->env.impair = NULL;
	assert_int_equal(gateway_ike_count(world.right), 0);
	assert_true(settles(&world, 0, 0));
	assert_non_null(strstr(world.left->failed, "INVALID_SYNTAX"));
	try(&world, 5 * SECOND);
	assert_true(settles(&world, 1, 1));
	play_free(world.play);
}

/* A notify at the end of what is sealed, of the type that stands in it. */
static void
add_notify(struct env *env, uint8_t *first, struct buf *plaintext)
{
	const uint16_t *type = env->impair_arg;
	const uint8_t notify[8] = { 0, 0, 0, 8, 0, 0, (uint8_t)(*type >> 8),
		(uint8_t)*type };

	if (chain_find(*first, plaintext, P2_SA) != NULL)
		chain_add(first, plaintext, P2_N, notify, sizeof(notify));
}

/* RFC 7296 3.10.1: an unknown error in an answer means that the request has
 * failed entirely; an unknown status means nothing, and so does any notify in a
 * request. */
static void
notify_that_nobody_knows(void **state)
{
	static const uint16_t error = 8192, status = 40000;
	struct world world;

	(void)state;
	/* In IKE_AUTH: the peer thinks that it is up, and is told. */
	world = world_of(4);
	world.right->env.impair = add_notify;
	world.right->env.impair_arg = (void *)(uintptr_t)&error;
	try(&world, 20 * SECOND);
	assert_true(settles(&world, 0, 0));
	assert_int_equal(world.left->events[EVENT_IKE_UP], 0);
	/* Below an IKE SA: it stays, and so does what is rekeyed. */
	world.right->env.impair = NULL;
	try(&world, 5 * SECOND);
	assert_true(settles(&world, 1, 1));
	world.right->env.impair = add_notify;
	child_rekey(world.left);
	play_run(world.play, 20 * SECOND);
	assert_true(settles(&world, 1, 1));
	assert_int_equal(world.left->events[EVENT_CHILD_REKEYED], 0);
	assert_int_equal(world.left->events[EVENT_CHILD_FAILED], 1);
	try(&world, 20 * SECOND);
	assert_true(settles(&world, 1, 1));
	assert_int_equal(world.left->events[EVENT_CHILD_FAILED], 2);
	assert_true(flows(&world));
	play_free(world.play);
	/* Status, and notifies in requests. */
	world = world_of(5);
	world.right->env.impair = world.left->env.impair = add_notify;
	world.right->env.impair_arg = (void *)(uintptr_t)&status;
	world.left->env.impair_arg = (void *)(uintptr_t)&error;
	try(&world, 5 * SECOND);
	assert_true(settles(&world, 1, 1));
	child_rekey(world.left);
	play_run(world.play, 20 * SECOND);
	rekey(world.left);
	play_run(world.play, 20 * SECOND);
	assert_true(settles(&world, 1, 1));
	assert_int_equal(world.left->events[EVENT_CHILD_REKEYED], 1);
	assert_int_equal(world.left->events[EVENT_IKE_REKEYED], 1);
	play_free(world.play);
}

/* Refusals by strangers ---------------------------------------------------- */

struct refusal {
	struct world *world;
	unsigned lost; /* requests that vanish yet */
};

static bool
refuse_in_its_place(struct play *play, struct gateway *from,
    struct packet *packet, uint8_t *octets, void *arg)
{
	struct refusal *refusal = arg;
	struct wire_header header;
	uint8_t answer[64];
	struct wire_out out;
	struct buf buf;

	if (from != refusal->world->left || octets[18] != EXCH_IKE_SA_INIT ||
	    refusal->lost == 0)
		return true;
	refusal->lost--;
	assert_int_equal(wire_header_read(packet->octets, &header), OK);
	header.flags = FLAG_RESPONSE;
	buf_init(&buf, answer, sizeof(answer));
	wire_start(&out, &buf, &header);
	wire_notify_v2(
	    &out, 0, view_of(NULL, 0), N_NO_PROPOSAL_CHOSEN, view_of(NULL, 0));
	wire_finish(&out);
	play_inject(
	    play, &packet->remote, &packet->local, false, buf_done(&buf));
	return false;
}

/* RFC 7296 2.21.1: whoever is refused by nobody in particular goes on trying
 * for some time: the request itself may have been lost. */
static void
refused_by_a_stranger(void **state)
{
	struct world world = world_of(6);
	struct refusal refusal = { &world, 1 };

	(void)state;
	world.play->tap = refuse_in_its_place;
	world.play->tap_arg = &refusal;
	try(&world, 10 * SECOND);
	assert_int_equal(refusal.lost, 0);
	assert_true(settles(&world, 1, 1));
	play_free(world.play);
}

/* Selectors ---------------------------------------------------------------- */

/* Each side fits, but no packet is of both families: a child for nothing. */
static void
selectors_of_two_families(void **state)
{
	struct world world = { .play = play_new(7) };

	(void)state;
	world.left = play_gateway(world.play, "left", "192.0.2.1");
	world.right = play_gateway(world.play, "right", "192.0.2.2");
	gateway_conn(
	    world.left, "net", "192.0.2.2", "10.1.0.0/16", "fd02::/48");
	gateway_conn(world.right, "net", "192.0.2.1", "10.2.0.0/16,fd02::/48",
	    "10.1.0.0/16,fd01::/48");
	gateway_psk(world.left, NULL, NULL, "x");
	gateway_psk(world.right, NULL, NULL, "x");
	reload(&world);
	try(&world, 5 * SECOND);
	assert_true(settles(&world, 1, 0));
	assert_non_null(strstr(world.left->failed, "TS_UNACCEPTABLE"));
	play_free(world.play);
}

/* 254 selectors of other networks stand before the one that we have. */
static void
many_selectors(struct env *env, uint8_t *first, struct buf *plaintext)
{
	const uint8_t *tsi = chain_find(*first, plaintext, P2_TSI);
	uint8_t octets[4 + 4 + 255 * 16] = { 0 }, net[16], *at = octets + 8;
	unsigned i;

	(void)env;
	if (tsi == NULL)
		return;
	memcpy(net, tsi + 8, sizeof(net));
	octets[2] = sizeof(octets) >> 8;
	octets[3] = sizeof(octets) & 255;
	octets[4] = 255;
	for (i = 0; i < 255; i++, at += 16) {
		memcpy(at, net, sizeof(net));
		if (i < 254)
			at[9] = at[13] = (uint8_t)(i + 2); /* 10.x.0.0/16 */
	}
	/* The payload that was there goes by another name. */
	chain_rename(first, plaintext, P2_TSI, 250);
	chain_add(first, plaintext, P2_TSI, octets, sizeof(octets));
}

/* RFC 7296 2.9, 3.13: as many as a payload can hold, and the only one that fits
 * is the last. */
static void
last_of_many_selectors(void **state)
{
	struct world world = world_of(9);

	(void)state;
	world.left->env.impair = many_selectors;
	try(&world, 5 * SECOND);
	world.left->env.impair = NULL;
	assert_true(settles(&world, 1, 1));
	assert_true(flows(&world));
	play_free(world.play);
}

/* Rekeys ------------------------------------------------------------------- */

/* The kernel says no once, when our rekey has been answered: the old child
 * stays, nobody hears of it, and it is tried again. */
static void
rekey_that_the_kernel_refuses(void **state)
{
	struct world world = world_up(8);

	(void)state;
	world.left->kernel.refuse_op = KMSG_SA_ADD;
	world.left->kernel.refuse_count = 1;
	child_rekey(world.left);
	play_run(world.play, 10 * SECOND);
	assert_true(settles(&world, 1, 1));
	assert_int_equal(world.left->events[EVENT_CHILD_FAILED], 0);
	assert_int_equal(world.left->events[EVENT_CHILD_REKEYED], 0);
	assert_true(flows(&world));
	play_run(world.play, MINUTE);
	assert_true(settles(&world, 1, 1));
	assert_int_equal(world.left->events[EVENT_CHILD_REKEYED], 1);
	assert_true(flows(&world));
	play_free(world.play);
}

/* RFC 7296 2.8.1, 2.8.2, 1.3: both rekey, and one of them must ask again, for
 * another group. */
static void
rekeys_meet_in_different_groups(void **state)
{
	struct world world;
	unsigned one, other, offset, loss;
	uint64_t seed = 100;

	(void)state;
	for (one = 0; one < 2; one++)
		for (other = 0; other < 2; other++)
			for (offset = 0; offset < 60; offset += 2)
				for (loss = 0; loss < 300; loss += 150) {
					world = world_of(++seed);
					conn_set_ike(world.left->building[0],
					    "aes128-sha256-ecp256-curve25519");
					conn_set_esp(world.left->building[0],
					    "aes128-sha256-ecp256-curve25519");
					conn_set_esp(world.right->building[0],
					    "aes128-sha256-curve25519");
					reload(&world);
					try(&world, 5 * SECOND);
					assert_true(settles(&world, 1, 1));
					world.play->weather.loss_permille =
					    loss;
					if (one == 0)
						rekey(world.left);
					else
						child_rekey(world.left);
					play_run(world.play, offset);
					if (other == 0)
						rekey(world.right);
					else
						child_rekey(world.right);
					play_run(world.play, 40 * SECOND);
					world.play->weather.loss_permille = 0;
					play_run(world.play, 5 * MINUTE);
					if (!settles(&world, 1, 1))
						fail_msg("seed %llu: %u "
						         "against %u, %u ms",
						    (unsigned long long)seed,
						    one, other, offset);
					assert_true(flows(&world));
					assert_int_equal(
					    world.left
					        ->events[EVENT_CHILD_DOWN],
					    0);
					assert_int_equal(
					    world.right
					        ->events[EVENT_CHILD_DOWN],
					    0);
					play_free(world.play);
				}
}

/* NAT ---------------------------------------------------------------------- */

/* The peer's address changes while a child is on its way into the kernel: it
 * ends up where the peer is (RFC 7296 2.23). */
static void
moves_in_mid_install(void **state)
{
	struct world world;
	struct fake_nat *nat;
	const struct ike_sa *sa;
	unsigned ms;
	size_t i;

	(void)state;
	for (ms = 0; ms < 60; ms++) {
		world.play = play_new(1000 + ms);
		world.left = play_gateway(world.play, "left", "10.0.0.5");
		world.right = play_gateway(world.play, "right", "192.0.2.2");
		nat = play_nat(world.play, "10.0.0.5", "192.0.2.77");
		gateway_conn(world.left, "net", "192.0.2.2", "10.1.0.0/16",
		    "10.2.0.0/16");
		gateway_conn(
		    world.right, "net", NULL, "10.2.0.0/16", "10.1.0.0/16");
		gateway_psk(world.left, NULL, NULL, "x");
		gateway_psk(world.right, NULL, NULL, "x");
		reload(&world);
		try(&world, 5 * SECOND);
		assert_true(settles(&world, 1, 1));
		child_rekey(ms % 2 == 0 ? world.left : world.right);
		play_run(world.play, ms / 2);
		fake_nat_rebind(nat);
		gateway_ike(world.left)->engine->probe(gateway_ike(world.left));
		gateway_ike(world.right)
		    ->engine->probe(gateway_ike(world.right));
		play_run(world.play, 30 * SECOND);
		assert_true(settles(&world, 1, 1));
		sa = gateway_ike(world.right);
		for (i = 0; i < world.right->kernel.sa_count; i++)
			if (world.right->kernel.sa[i].sa.direction == KMSG_OUT)
				assert_int_equal(
				    world.right->kernel.sa[i].sa.dst.port,
				    sa->remote.port);
		play_free(world.play);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exchange_that_nobody_knows),
		cmocka_unit_test(critical_payload_outside),
		cmocka_unit_test(syntax_error_in_auth),
		cmocka_unit_test(notify_that_nobody_knows),
		cmocka_unit_test(refused_by_a_stranger),
		cmocka_unit_test(selectors_of_two_families),
		cmocka_unit_test(last_of_many_selectors),
		cmocka_unit_test(rekey_that_the_kernel_refuses),
		cmocka_unit_test(rekeys_meet_in_different_groups),
		cmocka_unit_test(moves_in_mid_install),
	};

	/* PLAY=name (with * and ?) runs some of them. */
	if (getenv("PLAY") != NULL)
		cmocka_set_test_filter(getenv("PLAY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
