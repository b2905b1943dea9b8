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
#include "ikev2/v2.h"
#include "tests/play/play.h"
#include "tests/play/world.h"

#define SECOND 1000ull
#define MINUTE (60 * SECOND)

static void
try(struct world *world, uint64_t ms)
{
	assert_int_equal(gateway_up(world->left, "net", 0), OK);
	play_run(world->play, ms);
}

static struct world
world_up(uint64_t seed)
{
	struct world world = world_v2(seed);

	try(&world, 5 * SECOND);
	assert_true(world_settles(&world, 1, 1));
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
 * before it, outside, a payload of this type; from this port. */
static void
left_sends(
    struct world *world, uint16_t port, uint8_t exchange, uint8_t outside)
{
	struct v2_sa *v2 = v2_of(world->left->env.sadb->first);
	struct endpoint from = { v2->sa.local.addr, port };
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
	play_inject(
	    world->play, &from, &v2->sa.remote, v2->sa.natt, buf_done(&buf));
}

/* RFC 7296 2.21.3: an answer of INVALID_SYNTAX is the end for whoever hears it,
 * and so for whoever says it. */
static void
exchange_that_nobody_knows(void **state)
{
	struct world world = world_up(1);

	(void)state;
	left_sends(&world, IKE_PORT, 43, 0);
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
	uint8_t data; /* of the last one, its first octet */
};

static void
listen(struct env *env, uint8_t *first, struct buf *plaintext)
{
	struct ear *ear = env->impair_arg;

	if (*first == P2_N && plaintext->len >= 8 &&
	    (plaintext->at[6] << 8 | plaintext->at[7]) == ear->notify) {
		ear->heard++;
		ear->data = plaintext->len > 8 ? plaintext->at[8] : 0;
	}
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
	left_sends(&world, IKE_PORT, EXCH_INFORMATIONAL, 200);
	play_run(world.play, 5 * SECOND);
	assert_int_equal(ear.heard, 1);
	assert_int_equal(ear.data, 200);
	/* And nothing else came of it. */
	left_sends(&world, IKE_PORT, EXCH_INFORMATIONAL, 0);
	play_run(world.play, 5 * SECOND);
	assert_int_equal(ear.heard, 1);
	assert_true(world_settles(&world, 1, 1));
	play_free(world.play);
}

struct listener {
	struct gateway *from;
	uint16_t port; /* where the last packet went to */
	uint8_t lost;  /* exchange whose requests vanish */
};

static bool
see_port(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct listener *listener = arg;

	(void)play;
	if (from == listener->from)
		listener->port = packet->remote.port;
	return octets[18] != listener->lost ||
	       (octets[19] & FLAG_RESPONSE) != 0;
}

/* RFC 7296 2.11: the answer goes to where the request came from, whether the
 * peer is believed to have moved or not. */
static void
answer_to_another_port(void **state)
{
	struct world world = world_up(10);
	struct listener listener = { .from = world.right };

	(void)state;
	world.play->tap = see_port;
	world.play->tap_arg = &listener;
	left_sends(&world, 5000, EXCH_INFORMATIONAL, 0);
	play_run(world.play, SECOND);
	assert_int_equal(listener.port, 5000);
	assert_int_equal(gateway_ike(world.right)->remote.port, IKE_PORT);
	play_free(world.play);
}

/* RFC 7296 2.3: the window is one: neither what is ahead of it nor what lies
 * behind the last request is heard, and neither moves it. */
static void
ids_beside_the_window(void **state)
{
	static const int32_t beside[] = { 1, 2, 100, -2, -3 };
	struct world world = world_up(16);
	struct listener listener = { .from = world.right };
	struct v2_sa *v2 = v2_of(gateway_ike(world.left));
	uint32_t id;
	size_t i;

	(void)state;
	for (i = 0; i < 3; i++)
		gateway_ike(world.left)->engine->probe(&v2->sa);
	play_run(world.play, SECOND);
	id = v2->next_out;
	world.play->tap = see_port;
	world.play->tap_arg = &listener;
	for (i = 0; i < sizeof(beside) / sizeof(beside[0]); i++) {
		v2->next_out = id + (uint32_t)beside[i];
		left_sends(&world, IKE_PORT, EXCH_INFORMATIONAL, 0);
		play_run(world.play, 100);
		assert_int_equal(listener.port, 0);
		assert_int_equal(v2_of(gateway_ike(world.right))->next_in, id);
	}
	v2->next_out = id;
	left_sends(&world, IKE_PORT, EXCH_INFORMATIONAL, 0);
	play_run(world.play, 100);
	assert_int_equal(listener.port, IKE_PORT);
	assert_true(world_settles(&world, 1, 1));
	play_free(world.play);
}

static bool
left_has_keys(void *arg)
{
	const struct ike_sa *sa = ((struct world *)arg)->left->env.sadb->first;

	return sa != NULL &&
	       v2_of((struct ike_sa *)(uintptr_t)sa)->next_out > 1;
}

/* Before the peer is known, nothing but IKE_AUTH is looked at. */
static void
half_open_hears_nothing_else(void **state)
{
	struct world world = world_v2(11);
	struct listener listener = { .from = world.right,
		.lost = EXCH_IKE_AUTH };
	struct v2_sa *v2;

	(void)state;
	world.play->tap = see_port;
	world.play->tap_arg = &listener;
	assert_int_equal(gateway_up(world.left, "net", 0), OK);
	assert_true(play_until(world.play, left_has_keys, &world, 5 * SECOND));
	play_run(world.play, 100);
	listener.port = 0;
	v2_of(world.left->env.sadb->first)->next_out = 1;
	left_sends(&world, IKE_PORT, EXCH_INFORMATIONAL, 0);
	play_run(world.play, 100);
	v2 = v2_of(world.right->env.sadb->first);
	assert_int_equal(v2->sa.state, IKE_HALF_OPEN);
	assert_int_equal(v2->next_in, 1);
	assert_int_equal(listener.port, 0);
	listener.lost = 0;
	play_run(world.play, 10 * SECOND);
	assert_true(world_settles(&world, 1, 1));
	play_free(world.play);
}

/* RFC 7296 1.5: a response to nothing is answered by nothing. */
static void
response_of_strangers(void **state)
{
	struct world world = world_up(12);
	struct endpoint from = { world.left->addr, IKE_PORT };
	struct endpoint to = { world.right->addr, IKE_PORT };
	struct wire_header header = { .spi_i = 1,
		.spi_r = 2,
		.major = 2,
		.exchange = EXCH_INFORMATIONAL };
	uint8_t octets[64];
	uint64_t packets;
	struct wire_out out;
	struct buf buf;
	unsigned i;

	(void)state;
	for (i = 0; i < 2; i++) {
		packets = world.play->packets;
		header.flags = i == 0 ? FLAG_RESPONSE : FLAG_INITIATOR;
		buf_init(&buf, octets, sizeof(octets));
		wire_start(&out, &buf, &header);
		wire_notify_v2(
		    &out, 0, view_of(NULL, 0), 50000, view_of(NULL, 0));
		wire_finish(&out);
		play_inject(world.play, &from, &to, false, buf_done(&buf));
		play_run(world.play, 100);
		/* ... and a request is, once. */
		assert_int_equal(world.play->packets - packets, i);
	}
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
	struct world world = world_v2(3);

	(void)state;
	world.left->env.impair = empty_selectors;
	try(&world, 20 * SECOND);
	world.left->env.impair = NULL;
	assert_int_equal(gateway_ike_count(world.right), 0);
	assert_true(world_settles(&world, 0, 0));
	assert_non_null(strstr(world.left->failed, "INVALID_SYNTAX"));
	try(&world, 5 * SECOND);
	assert_true(world_settles(&world, 1, 1));
	play_free(world.play);
}

static void
without_spi(struct env *env, uint8_t *first, struct buf *plaintext)
{
	uint8_t *sa = chain_find(*first, plaintext, P2_SA);

	(void)env;
	/* The first proposal, all of whose fields are there, and of ESP. */
	if (sa != NULL && sa[9] == PROTO_ESP)
		memset(sa + 12, 0, 4);
}

/* RFC 7296 3.3.1, RFC 4303 2.1: no SA has SPI 0, whoever says so. */
static void
child_with_spi_zero(void **state)
{
	struct world world;
	unsigned i;

	(void)state;
	for (i = 0; i < 2; i++) {
		world = world_v2(18 + i);
		(i == 0 ? world.left : world.right)->env.impair = without_spi;
		try(&world, 5 * SECOND);
		assert_int_equal(gateway_child_count(world.left, NULL), 0);
		assert_int_equal(gateway_child_count(world.right, NULL), 0);
		/* A syntax error of the request is fatal, one of the answer
		 * costs the child. */
		assert_true(world_settles(&world, i, 0));
		play_free(world.play);
	}
}

static void
say_no_idr(struct env *env, uint8_t *first, struct buf *plaintext)
{
	(void)env;
	if (chain_find(*first, plaintext, P2_IDI) != NULL)
		chain_rename(first, plaintext, P2_IDR, 250);
}

static void
other_method(struct env *env, uint8_t *first, struct buf *plaintext)
{
	uint8_t *auth = chain_find(*first, plaintext, P2_AUTH);

	(void)env;
	if (auth != NULL)
		auth[4] = 1; /* RSA, says it */
}

/* RFC 7296 3.8: a MAC by another name is none. */
static void
mac_by_another_method(void **state)
{
	struct world world;
	unsigned i;

	(void)state;
	for (i = 0; i < 2; i++) {
		world = world_v2(13 + i);
		(i == 0 ? world.left : world.right)->env.impair = other_method;
		try(&world, 5 * SECOND);
		assert_int_equal(gateway_ike_count(world.left), 0);
		assert_int_equal(gateway_ike_count(world.right), 0);
		play_run(world.play, MINUTE);
		assert_true(world_settles(&world, 0, 0));
		play_free(world.play);
	}
}

/* RFC 7296 2.21.2: the responder believes that it is up, and is told at once
 * that it is not who was meant. */
static void
responder_that_was_not_meant(void **state)
{
	struct world world = world_v2(15);

	(void)state;
	conn_set_ids(world.left->building[0], NULL, "meant.example");
	conn_set_ids(world.right->building[0], "other.example", NULL);
	/* A connection whose IDr is no condition there: it is not sent. */
	world.left->env.impair = say_no_idr;
	world_reload(&world);
	try(&world, 2 * SECOND);
	assert_int_equal(world.right->events[EVENT_IKE_UP], 1);
	assert_int_equal(gateway_ike_count(world.right), 0);
	assert_true(world_settles(&world, 0, 0));
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
	world = world_v2(4);
	world.right->env.impair = add_notify;
	world.right->env.impair_arg = (void *)(uintptr_t)&error;
	try(&world, 20 * SECOND);
	assert_true(world_settles(&world, 0, 0));
	assert_int_equal(world.left->events[EVENT_IKE_UP], 0);
	/* Below an IKE SA: it stays, and so does what is rekeyed. */
	world.right->env.impair = NULL;
	try(&world, 5 * SECOND);
	assert_true(world_settles(&world, 1, 1));
	world.right->env.impair = add_notify;
	child_rekey(world.left);
	play_run(world.play, 20 * SECOND);
	assert_true(world_settles(&world, 1, 1));
	assert_int_equal(world.left->events[EVENT_CHILD_REKEYED], 0);
	assert_int_equal(world.left->events[EVENT_CHILD_FAILED], 1);
	try(&world, 20 * SECOND);
	assert_true(world_settles(&world, 1, 1));
	assert_int_equal(world.left->events[EVENT_CHILD_FAILED], 2);
	assert_true(world_flows(&world));
	play_free(world.play);
	/* Status, and notifies in requests. */
	world = world_v2(5);
	world.right->env.impair = world.left->env.impair = add_notify;
	world.right->env.impair_arg = (void *)(uintptr_t)&status;
	world.left->env.impair_arg = (void *)(uintptr_t)&error;
	try(&world, 5 * SECOND);
	assert_true(world_settles(&world, 1, 1));
	child_rekey(world.left);
	play_run(world.play, 20 * SECOND);
	rekey(world.left);
	play_run(world.play, 20 * SECOND);
	assert_true(world_settles(&world, 1, 1));
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
	struct world world = world_v2(6);
	struct refusal refusal = { &world, 1 };

	(void)state;
	world.play->tap = refuse_in_its_place;
	world.play->tap_arg = &refusal;
	try(&world, 10 * SECOND);
	assert_int_equal(refusal.lost, 0);
	assert_true(world_settles(&world, 1, 1));
	play_free(world.play);
}

/* IKE_SA_INIT -------------------------------------------------------------- */

/* Answers that a responder without memory may give, one after the other. */
struct script {
	struct world *world;
	struct {
		uint16_t notify;
		uint8_t data[4];
		uint8_t len;
	} answer[6];
	unsigned count, next;
	uint8_t request[2048]; /* the last one */
	size_t request_len;
};

static bool
answer_by_script(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct script *script = arg;
	struct wire_header header;
	uint8_t answer[64];
	struct wire_out out;
	struct buf buf;
	unsigned i = script->next;

	if (from != script->world->left || octets[18] != EXCH_IKE_SA_INIT)
		return true;
	assert_true(packet->octets.len <= sizeof(script->request));
	memcpy(script->request, octets, packet->octets.len);
	script->request_len = packet->octets.len;
	if (i == script->count)
		return true;
	script->next++;
	assert_int_equal(wire_header_read(packet->octets, &header), OK);
	header.flags = FLAG_RESPONSE;
	buf_init(&buf, answer, sizeof(answer));
	wire_start(&out, &buf, &header);
	wire_notify_v2(&out, 0, view_of(NULL, 0), script->answer[i].notify,
	    view_of(script->answer[i].data, script->answer[i].len));
	wire_finish(&out);
	play_inject(
	    play, &packet->remote, &packet->local, false, buf_done(&buf));
	return false;
}

#define COOKIE(octet)                                                          \
	{                                                                      \
		N_COOKIE, { octet, 1, 2, 3 }, 4                                \
	}
#define GROUP(number)                                                          \
	{                                                                      \
		N_INVALID_KE_PAYLOAD, { 0, number }, 2                         \
	}

/* RFC 7296 2.6, 2.6.1: cookies and groups in any order, as often as a peer can
 * mean it; the last cookie comes first in the request, and stays with another
 * group. Who asks more often is not obeyed, and ends nothing either. */
static void
cookies_and_groups(void **state)
{
	static const struct {
		struct script script;
		uint8_t cookie, group; /* of the last request; cookie 0: none */
	} row[] = {
		{ { .answer = { COOKIE(7) }, .count = 1 }, 7, 19 },
		{ { .answer = { GROUP(31) }, .count = 1 }, 0, 31 },
		{ { .answer = { COOKIE(7), GROUP(31) }, .count = 2 }, 7, 31 },
		{ { .answer = { GROUP(31), COOKIE(7) }, .count = 2 }, 7, 31 },
		{ { .answer = { COOKIE(7), GROUP(31), COOKIE(8) }, .count = 3 },
		    8, 31 },
		{ { .answer = { GROUP(31), COOKIE(7), GROUP(19), COOKIE(8) },
		      .count = 4 },
		    8, 19 },
		{ { .answer = { COOKIE(7), COOKIE(8), COOKIE(9) }, .count = 3 },
		    8, 19 },
		{ { .answer = { GROUP(31), GROUP(19), GROUP(31) }, .count = 3 },
		    0, 19 },
	};
	struct script script;
	struct world world;
	struct msg *msg;
	struct view ke;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		world = world_v2(30 + i);
		conn_set_ike(
		    world.left->building[0], "aes128-sha256-ecp256-curve25519");
		conn_set_ike(world.right->building[0],
		    row[i].group == 19 ? "aes128-sha256-ecp256"
		                       : "aes128-sha256-curve25519");
		world_reload(&world);
		script = row[i].script;
		script.world = &world;
		world.play->tap = answer_by_script;
		world.play->tap_arg = &script;
		try(&world, 10 * SECOND);
		assert_true(world_settles(&world, 1, 1));
		assert_int_equal(script.next, script.count);
		assert_int_equal(
		    msg_new(&msg, view_of(script.request, script.request_len)),
		    OK);
		assert_int_equal(wire_payloads_read(msg, 2, msg->header.next,
		                     view_of(msg->whole.at + WIRE_HEADER,
		                         msg->whole.len - WIRE_HEADER),
		                     false),
		    OK);
		if (row[i].cookie != 0) {
			assert_int_equal(msg->payload[0].kind, KIND_N_COOKIE);
			assert_int_equal(
			    msg->payload[0].notify.data.at[0], row[i].cookie);
		}
		assert_int_equal(
		    msg_has(msg, KIND_N_COOKIE), row[i].cookie != 0);
		ke = msg_payload(msg, KIND_KE, 0)->body;
		assert_int_equal(ke.at[1], row[i].group);
		msg_free(msg);
		play_free(world.play);
	}
}

/* RFC 7296 2.2, 2.6, 3.1: the first message has ID 0, no SPIr yet, and is the
 * initiator's. What has not is none. */
static void
first_message_with_another_header(void **state)
{
	static const struct {
		uint8_t at, octet;
	} row[] = { { 23, 1 }, { 15, 1 }, { 19, 0 } };
	struct world world = world_v2(45);
	struct script script = { .world = &world, .count = 1 };
	struct endpoint from = { world.left->addr, IKE_PORT };
	struct endpoint to = { world.right->addr, IKE_PORT };
	uint64_t packets;
	uint8_t was;
	size_t i;

	(void)state;
	/* Catches the request and answers it by nothing that counts. */
	script.answer[0].notify = 50000;
	world.play->tap = answer_by_script;
	world.play->tap_arg = &script;
	try(&world, 500);
	v2_sa_drop(v2_of(world.left->env.sadb->first));
	packets = world.play->packets;
	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		was = script.request[row[i].at];
		script.request[row[i].at] = row[i].octet;
		play_inject(world.play, &from, &to, false,
		    view_of(script.request, script.request_len));
		play_run(world.play, SECOND);
		script.request[row[i].at] = was;
		assert_int_equal(world.right->env.sadb->count, 0);
		assert_int_equal(world.play->packets, packets);
	}
	/* As it was, it is one. */
	play_inject(world.play, &from, &to, false,
	    view_of(script.request, script.request_len));
	play_run(world.play, SECOND);
	assert_int_equal(world.right->env.sadb->count, 1);
	play_free(world.play);
}

/* RFC 7296 2.4, 2.21.4: an unprotected word about an SA makes us ask the peer,
 * once in a while, and ends nothing. */
static void
unprotected_word_about_an_sa(void **state)
{
	struct world world = world_up(46);
	const struct v2_sa *v2 = v2_of(gateway_ike(world.left));
	struct wire_header header = {
		.spi_i = v2->sa.spi_i,
		.spi_r = v2->sa.spi_r,
		.major = 2,
		.exchange = EXCH_INFORMATIONAL,
		.flags = FLAG_INITIATOR,
	};
	uint8_t octets[64];
	struct wire_out out;
	struct buf buf;
	uint32_t id;
	unsigned i;

	(void)state;
	id = v2_of(gateway_ike(world.right))->next_out;
	for (i = 0; i < 5; i++) {
		header.id = v2->next_out;
		buf_init(&buf, octets, sizeof(octets));
		wire_start(&out, &buf, &header);
		wire_notify_v2(&out, 0, view_of(NULL, 0), N_INVALID_IKE_SPI,
		    view_of(NULL, 0));
		wire_finish(&out);
		play_inject(world.play, &v2->sa.local, &v2->sa.remote, false,
		    buf_done(&buf));
		play_run(world.play, SECOND);
	}
	assert_int_equal(v2_of(gateway_ike(world.right))->next_out, id + 1);
	assert_true(world_settles(&world, 1, 1));
	play_free(world.play);
}

static void
say_auth_failed(struct env *env, uint8_t *first, struct buf *plaintext)
{
	static const uint8_t notify[] = { 0, 0, 0, 8, 0, 0, 0,
		N_AUTHENTICATION_FAILED };

	(void)env;
	if (plaintext->len == 0)
		chain_add(first, plaintext, P2_N, notify, sizeof(notify));
}

/* RFC 7296 2.21.2: an initiator that does not believe the responder says so in
 * a request of its own, and that is the end. */
static void
auth_failed_afterwards(void **state)
{
	struct world world = world_up(47);

	(void)state;
	world.left->env.impair = say_auth_failed;
	gateway_ike(world.left)->engine->probe(gateway_ike(world.left));
	play_run(world.play, 5 * SECOND);
	assert_int_equal(gateway_ike_count(world.right), 0);
	assert_int_equal(world.right->kernel.sa_count, 0);
	gateway_restart(world.left);
	play_free(world.play);
}

/* Nonces ------------------------------------------------------------------- */

static void
other_nonce(struct env *env, uint8_t *first, struct buf *plaintext)
{
	size_t len = *(size_t *)env->impair_arg;
	uint8_t octets[4 + 300] = { 0 };

	if (chain_find(*first, plaintext, P2_NONCE) == NULL)
		return;
	octets[2] = (uint8_t)((len + 4) >> 8);
	octets[3] = (uint8_t)(len + 4);
	memset(octets + 4, 0x5a, len);
	chain_rename(first, plaintext, P2_NONCE, 250);
	chain_add(first, plaintext, P2_NONCE, octets, len + 4);
}

/* RFC 7296 2.10, 3.9: 16 to 256 octets, and half of the PRF's key at least. */
static void
nonces_of_any_length(void **state)
{
	static const struct {
		const char *ike;
		size_t len;
		bool good;
	} row[] = {
		{ "aes128-sha256-curve25519", 15, false },
		{ "aes128-sha256-curve25519", 16, true },
		{ "aes128-sha256-curve25519", 256, true },
		{ "aes128-sha256-curve25519", 257, false },
		{ "aes256-sha512-curve25519", 31, false },
		{ "aes256-sha512-curve25519", 32, true },
	};
	struct world world;
	size_t i, len;

	(void)state;
	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		world = world_v2(50 + i);
		conn_set_ike(world.left->building[0], row[i].ike);
		conn_set_ike(world.right->building[0], row[i].ike);
		world_reload(&world);
		try(&world, 5 * SECOND);
		len = row[i].len;
		world.left->env.impair = other_nonce;
		world.left->env.impair_arg = &len;
		try(&world, SECOND);
		world.left->env.impair = NULL;
		assert_int_equal(
		    gateway_ike_count(world.right), row[i].good ? 1 : 0);
		assert_int_equal(gateway_child_count(world.right, NULL),
		    row[i].good ? 2 : 0);
		play_free(world.play);
	}
}

/* Deletes ------------------------------------------------------------------ */

static void
delete_of_others(struct env *env, uint8_t *first, struct buf *plaintext)
{
	/* Two SPIs of ESP that nobody has, one of AH, and none at all. */
	static const uint8_t esp[] = { 0, 0, 0, 16, PROTO_ESP, 4, 0, 2, 1, 2, 3,
		4, 0, 0, 0, 0 };
	static const uint8_t ah[] = { 0, 0, 0, 12, 2, 4, 0, 1, 9, 9, 9, 9 };
	static const uint8_t none[] = { 0, 0, 0, 8, PROTO_ESP, 4, 0, 0 };

	(void)env;
	if (plaintext->len > 0)
		return;
	chain_add(first, plaintext, P2_D, esp, sizeof(esp));
	chain_add(first, plaintext, P2_D, ah, sizeof(ah));
	chain_add(first, plaintext, P2_D, none, sizeof(none));
}

static void
empty_answer(struct env *env, uint8_t *first, struct buf *plaintext)
{
	unsigned *empty = env->impair_arg;

	*empty += *first == 0 && plaintext->len == 0;
}

/* RFC 7296 1.4.1: what is not there is not answered for. */
static void
delete_what_is_not_there(void **state)
{
	struct world world = world_up(60);
	unsigned empty = 0;

	(void)state;
	world.left->env.impair = delete_of_others;
	world.right->env.impair = empty_answer;
	world.right->env.impair_arg = &empty;
	gateway_ike(world.left)->engine->probe(gateway_ike(world.left));
	play_run(world.play, 5 * SECOND);
	assert_int_equal(empty, 1);
	assert_true(world_settles(&world, 1, 1));
	assert_true(world_flows(&world));
	play_free(world.play);
}

static void
count_deletes(struct env *env, uint8_t *first, struct buf *plaintext)
{
	unsigned *count = env->impair_arg;

	*count += chain_find(*first, plaintext, P2_D) != NULL;
}

/* RFC 7296 1.4.1: when both Deletes of a child cross, neither answer names
 * it. */
static void
deletes_that_cross(void **state)
{
	struct world world = world_up(61);
	unsigned left = 0, right = 0;

	(void)state;
	world.left->env.impair = world.right->env.impair = count_deletes;
	world.left->env.impair_arg = &left;
	world.right->env.impair_arg = &right;
	v2_engine.child_close(gateway_child(world.left));
	v2_engine.child_close(gateway_child(world.right));
	play_run(world.play, 20 * SECOND);
	assert_int_equal(left, 1);
	assert_int_equal(right, 1);
	assert_true(world_settles(&world, 1, 0));
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
	world_reload(&world);
	try(&world, 5 * SECOND);
	assert_true(world_settles(&world, 1, 0));
	assert_non_null(strstr(world.left->failed, "TS_UNACCEPTABLE"));
	play_free(world.play);
}

static void
wide_selectors(struct env *env, uint8_t *first, struct buf *plaintext)
{
	const uint8_t *type = env->impair_arg;
	uint8_t *payload = chain_find(*first, plaintext, *type);

	if (payload == NULL || chain_find(*first, plaintext, P2_SA) == NULL)
		return;
	payload[17] = payload[18] = payload[19] = 0; /* 10.0.0.0 ... */
	payload[21] = payload[22] = payload[23] = 255;
}

/* RFC 7296 2.9: an answer never widens. The IKE SA stays, and the peer is told
 * that there is no such child. */
static void
selectors_that_widen(void **state)
{
	static const uint8_t types[] = { P2_TSI, P2_TSR };
	struct world world;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(types); i++) {
		world = world_v2(65 + i);
		world.right->env.impair = wide_selectors;
		world.right->env.impair_arg = (void *)(uintptr_t)&types[i];
		try(&world, 20 * SECOND);
		assert_true(world_settles(&world, 1, 0));
		assert_int_equal(world.left->events[EVENT_CHILD_FAILED], 1);
		world.right->env.impair = NULL;
		try(&world, 5 * SECOND);
		assert_true(world_settles(&world, 1, 1));
		play_free(world.play);
	}
}

/* RFC 7296 1.3: there is an end to children, and it is said. */
static void
too_many_children(void **state)
{
	struct world world = world_up(67);
	unsigned i;

	(void)state;
	for (i = 1; i < V2_CHILDREN; i++)
		try(&world, 100);
	assert_true(world_settles(&world, 1, V2_CHILDREN));
	assert_int_equal(world.left->events[EVENT_CHILD_FAILED], 0);
	try(&world, SECOND);
	assert_true(world_settles(&world, 1, V2_CHILDREN));
	assert_non_null(strstr(world.left->failed, "NO_ADDITIONAL_SAS"));
	play_free(world.play);
}

struct lead {
	uint8_t count, first[8]; /* of TSi */
};

static void
see_lead(struct env *env, uint8_t *first, struct buf *plaintext)
{
	const uint8_t *tsi = chain_find(*first, plaintext, P2_TSI);
	struct lead *lead = env->impair_arg;

	if (tsi == NULL)
		return;
	lead->count = tsi[4];
	memcpy(lead->first, tsi + 16, sizeof(lead->first));
}

/* RFC 7296 2.9: the packet that asks for the child comes first. */
static void
packet_leads(void **state)
{
	static const uint8_t addr[] = { 10, 1, 7, 7, 10, 1, 7, 7 };
	struct world world = world_up(68);
	struct lead lead = { 0 };
	struct ts packet[2];

	(void)state;
	packet[0] = ts_from_addr(&(struct addr){ ADDR_V4, { 10, 1, 7, 7 } });
	packet[1] = ts_from_addr(&(struct addr){ ADDR_V4, { 10, 2, 7, 7 } });
	world.left->env.impair = see_lead;
	world.left->env.impair_arg = &lead;
	assert_int_equal(
	    v2_engine.child(gateway_ike(world.left),
	        policy_conn(world.left->env.policy, "net"), packet),
	    OK);
	play_run(world.play, 5 * SECOND);
	assert_true(world_settles(&world, 1, 2));
	assert_int_equal(lead.count, 2);
	assert_memory_equal(lead.first, addr, sizeof(addr));
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
	struct world world = world_v2(9);

	(void)state;
	world.left->env.impair = many_selectors;
	try(&world, 5 * SECOND);
	world.left->env.impair = NULL;
	assert_true(world_settles(&world, 1, 1));
	assert_true(world_flows(&world));
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
	assert_true(world_settles(&world, 1, 1));
	assert_int_equal(world.left->events[EVENT_CHILD_FAILED], 0);
	assert_int_equal(world.left->events[EVENT_CHILD_REKEYED], 0);
	assert_true(world_flows(&world));
	play_run(world.play, MINUTE);
	assert_true(world_settles(&world, 1, 1));
	assert_int_equal(world.left->events[EVENT_CHILD_REKEYED], 1);
	assert_true(world_flows(&world));
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
					world = world_v2(++seed);
					conn_set_ike(world.left->building[0],
					    "aes128-sha256-ecp256-curve25519");
					conn_set_esp(world.left->building[0],
					    "aes128-sha256-ecp256-curve25519");
					conn_set_esp(world.right->building[0],
					    "aes128-sha256-curve25519");
					world_reload(&world);
					try(&world, 5 * SECOND);
					assert_true(
					    world_settles(&world, 1, 1));
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
					if (!world_settles(&world, 1, 1))
						fail_msg("seed %llu: %u "
						         "against %u, %u ms",
						    (unsigned long long)seed,
						    one, other, offset);
					assert_true(world_flows(&world));
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

/* Loses the first answer of right's in this exchange. */
struct loss {
	struct gateway *right;
	bool done;
};

static bool
lose_answer(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct loss *loss = arg;

	(void)play;
	(void)packet;
	if (loss->done || from != loss->right ||
	    octets[18] != EXCH_CREATE_CHILD_SA ||
	    (octets[19] & FLAG_RESPONSE) == 0)
		return true;
	loss->done = true;
	return false;
}

static bool
right_has_two(void *arg)
{
	return gateway_child_count(((struct world *)arg)->right, NULL) == 2;
}

/* The answer that brings a child is lost, and the responder goes on with the
 * child: a rekey must wait for it (RFC 7296 2.25.1 would have it unknown, and
 * each end had another), a Delete counts when it is there. */
static void
child_whose_answer_is_late(void **state)
{
	struct ear ear = { .notify = N_CHILD_SA_NOT_FOUND };
	struct child_sa *child;
	struct world world;
	struct loss loss;
	unsigned rekeys;

	(void)state;
	for (rekeys = 0; rekeys < 2; rekeys++) {
		world = world_up(80 + rekeys);
		loss = (struct loss){ .right = world.right };
		world.play->tap = lose_answer;
		world.play->tap_arg = &loss;
		world.left->env.impair = listen;
		world.left->env.impair_arg = &ear;
		assert_int_equal(gateway_up(world.left, "net", 0), OK);
		assert_true(
		    play_until(world.play, right_has_two, &world, 5 * SECOND));
		/* The newest comes first. */
		child = gateway_ike(world.right)->children;
		if (rekeys == 1)
			child->sa->engine->child_rekey(child);
		else
			child->sa->engine->child_close(child);
		play_run(world.play, MINUTE);
		assert_true(loss.done);
		assert_int_equal(ear.heard, 0);
		assert_true(world_settles(&world, 1, 1 + rekeys));
		assert_true(world_flows(&world));
		play_free(world.play);
	}
}

/* RFC 7296 2.25.1: a rekey of what is being deleted is put off, and by then it
 * has gone. */
static void
rekey_of_what_is_deleted(void **state)
{
	struct ear ear = { .notify = N_TEMPORARY_FAILURE };
	struct world world;
	uint64_t seed;

	(void)state;
	for (seed = 300; seed < 320; seed++) {
		world = world_up(seed);
		world.right->env.impair = listen;
		world.right->env.impair_arg = &ear;
		v2_engine.child_close(gateway_child(world.right));
		child_rekey(world.left);
		play_run(world.play, 20 * SECOND);
		assert_true(world_settles(&world, 1, 0));
		assert_int_equal(world.left->events[EVENT_CHILD_REKEYED], 0);
		assert_int_equal(world.right->events[EVENT_CHILD_REKEYED], 0);
		play_free(world.play);
	}
	/* Unless the answer to the Delete was faster. */
	assert_true(ear.heard > 5);
}

static void
never_ready(struct env *env, uint8_t *first, struct buf *plaintext)
{
	static const uint8_t notify[] = { 0, 0, 0, 8, 0, 0, 0,
		N_TEMPORARY_FAILURE };

	(void)env;
	if (chain_find(*first, plaintext, P2_SA) == NULL)
		return;
	*first = P2_N;
	plaintext->len = 0;
	buf_put(plaintext, notify, sizeof(notify));
}

/* RFC 7296 2.25: patience for minutes, and then it is not temporary any more:
 * the IKE SA is closed. */
static void
peer_that_is_never_ready(void **state)
{
	struct world world = world_up(82);

	(void)state;
	world.right->env.impair = never_ready;
	child_rekey(world.left);
	play_run(world.play, MINUTE);
	assert_true(world_flows(&world));
	assert_int_equal(world.left->events[EVENT_IKE_DOWN], 0);
	/* Not at once, and not all the time either. */
	assert_in_range(
	    v2_of(gateway_ike(world.left))->next_out, 2 + 6, 2 + 20);
	play_run(world.play, 9 * MINUTE);
	assert_int_equal(world.left->events[EVENT_IKE_DOWN], 1);
	world.right->env.impair = NULL;
	assert_true(world_settles(&world, 0, 0));
	play_free(world.play);
}

/* Both ends do several things at once, each at its own moment, in any weather:
 * in the end they agree, and what nobody closed is there. */
static void
everything_at_once(void **state)
{
	struct child_sa *child;
	struct gateway *gw;
	struct world world;
	unsigned i, acts, what;
	uint64_t seed;
	bool closes;

	(void)state;
	for (seed = 2000; seed < 2100; seed++) {
		world = world_v2(seed);
		if (seed % 2 == 0) {
			conn_set_ike(world.left->building[0],
			    "aes128-sha256-ecp256-curve25519");
			conn_set_esp(world.left->building[0],
			    "aes128-sha256-ecp256-curve25519");
			conn_set_esp(world.right->building[0],
			    "aes128-sha256-curve25519");
		}
		world_reload(&world);
		try(&world, 5 * SECOND);
		assert_true(world_settles(&world, 1, 1));
		world.play->weather.loss_permille =
		    (unsigned)play_below(world.play, 4) * 60;
		world.play->weather.reorder_permille = 200;
		world.play->weather.duplicate_permille = 100;
		closes = play_below(world.play, 3) == 0;
		acts = 2 + (unsigned)play_below(world.play, 5);
		for (i = 0; i < acts; i++) {
			gw = play_below(world.play, 2) == 0 ? world.left
			                                    : world.right;
			what = (unsigned)play_below(world.play, 5);
			child = gateway_child(gw);
			if (what < 2)
				rekey(gw);
			else if (what < 4)
				child_rekey(gw);
			else if (closes && child != NULL)
				child->sa->engine->child_close(child);
			else if (gateway_ike(gw) != NULL)
				gateway_up(gw, "net", 2);
			play_run(world.play, play_below(world.play, 60));
		}
		play_run(world.play, 40 * SECOND);
		world.play->weather.loss_permille = 0;
		play_run(world.play, 7 * MINUTE);
		i = (unsigned)gateway_child_count(world.left, NULL);
		if (!world_settles(&world, 1, i) ||
		    (!closes && !world_flows(&world)))
			fail_msg("seed %llu", (unsigned long long)seed);
		play_free(world.play);
	}
}

/* NAT ---------------------------------------------------------------------- */

struct exact {
	struct gateway *left;
	uint8_t octets[8][1300];
	size_t len[8], count;
	unsigned repeats, strangers;
};

/* Every fragment of left's IKE_AUTH is one of those that left first. */
static bool
compare_fragments(struct play *play, struct gateway *from,
    struct packet *packet, uint8_t *octets, void *arg)
{
	struct exact *exact = arg;
	size_t i;

	(void)play;
	if (from != exact->left || octets[16] != P2_SKF ||
	    octets[18] != EXCH_IKE_AUTH)
		return true;
	exact->strangers += packet->local.port != NATT_PORT;
	for (i = 0; i < exact->count; i++)
		if (exact->len[i] == packet->octets.len &&
		    memcmp(exact->octets[i], octets, exact->len[i]) == 0)
			break;
	if (i < exact->count) {
		exact->repeats++;
		return true;
	}
	assert_true(i < 8 && packet->octets.len <= sizeof(exact->octets[0]));
	memcpy(exact->octets[i], octets, packet->octets.len);
	exact->len[i] = packet->octets.len;
	exact->count++;
	return true;
}

/* RFC 7296 2.1, RFC 7383 2.6.1: bit by bit the same, each fragment, also after
 * the float to port 4500. */
static void
fragments_are_repeated_exactly(void **state)
{
	struct exact exact;
	struct world world;
	char name[900];
	unsigned repeats = 0;
	uint64_t seed, packets;
	size_t i;

	(void)state;
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	memcpy(name + 500, ".example", 8);
	for (seed = 70; seed < 80; seed++) {
		world.play = play_new(seed);
		world.left = play_gateway(world.play, "left", "10.0.0.5");
		world.right = play_gateway(world.play, "right", "192.0.2.2");
		play_nat(world.play, "10.0.0.5", "192.0.2.77");
		conn_set_ids(gateway_conn(world.left, "net", "192.0.2.2",
		                 "10.1.0.0/16", "10.2.0.0/16"),
		    name, name);
		conn_set_ids(gateway_conn(world.right, "net", NULL,
		                 "10.2.0.0/16", "10.1.0.0/16"),
		    name, name);
		gateway_psk(world.left, NULL, NULL, "x");
		gateway_psk(world.right, NULL, NULL, "x");
		/* IKE_AUTH stays the last request. */
		world.left->building[0]->dpd_delay_ms = 0;
		world.right->building[0]->dpd_delay_ms = 0;
		world_reload(&world);
		memset(&exact, 0, sizeof(exact));
		exact.left = world.left;
		world.play->tap = compare_fragments;
		world.play->tap_arg = &exact;
		world.play->weather.loss_permille = 300;
		try(&world, 3 * MINUTE);
		world.play->weather.loss_permille = 0;
		assert_true(world_settles(&world, 1, 1));
		/* RFC 7383 2.6.1: the first one brings the answer again, no
		 * other does. */
		for (i = 0; i < exact.count; i++) {
			packets = world.play->packets;
			play_inject(world.play,
			    &gateway_ike(world.right)->remote,
			    &gateway_ike(world.right)->local, true,
			    view_of(exact.octets[i], exact.len[i]));
			play_run(world.play, SECOND);
			assert_int_equal(world.play->packets != packets,
			    exact.octets[i][WIRE_HEADER + 5] == 1);
		}
		assert_true(exact.count >= 2 && exact.count <= 3);
		assert_int_equal(exact.strangers, 0);
		repeats += exact.repeats;
		play_free(world.play);
	}
	assert_true(repeats > 10);
}

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
		world_reload(&world);
		try(&world, 5 * SECOND);
		assert_true(world_settles(&world, 1, 1));
		child_rekey(ms % 2 == 0 ? world.left : world.right);
		play_run(world.play, ms / 2);
		fake_nat_rebind(nat);
		gateway_ike(world.left)->engine->probe(gateway_ike(world.left));
		gateway_ike(world.right)
		    ->engine->probe(gateway_ike(world.right));
		play_run(world.play, 30 * SECOND);
		assert_true(world_settles(&world, 1, 1));
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
		cmocka_unit_test(answer_to_another_port),
		cmocka_unit_test(ids_beside_the_window),
		cmocka_unit_test(half_open_hears_nothing_else),
		cmocka_unit_test(response_of_strangers),
		cmocka_unit_test(mac_by_another_method),
		cmocka_unit_test(child_with_spi_zero),
		cmocka_unit_test(responder_that_was_not_meant),
		cmocka_unit_test(packet_leads),
		cmocka_unit_test(rekey_of_what_is_deleted),
		cmocka_unit_test(syntax_error_in_auth),
		cmocka_unit_test(notify_that_nobody_knows),
		cmocka_unit_test(refused_by_a_stranger),
		cmocka_unit_test(cookies_and_groups),
		cmocka_unit_test(first_message_with_another_header),
		cmocka_unit_test(unprotected_word_about_an_sa),
		cmocka_unit_test(auth_failed_afterwards),
		cmocka_unit_test(nonces_of_any_length),
		cmocka_unit_test(delete_what_is_not_there),
		cmocka_unit_test(deletes_that_cross),
		cmocka_unit_test(selectors_that_widen),
		cmocka_unit_test(too_many_children),
		cmocka_unit_test(fragments_are_repeated_exactly),
		cmocka_unit_test(selectors_of_two_families),
		cmocka_unit_test(last_of_many_selectors),
		cmocka_unit_test(rekey_that_the_kernel_refuses),
		cmocka_unit_test(rekeys_meet_in_different_groups),
		cmocka_unit_test(child_whose_answer_is_late),
		cmocka_unit_test(peer_that_is_never_ready),
		cmocka_unit_test(everything_at_once),
		cmocka_unit_test(moves_in_mid_install),
	};

	/* PLAY=name (with * and ?) runs some of them. */
	if (getenv("PLAY") != NULL)
		cmocka_set_test_filter(getenv("PLAY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
