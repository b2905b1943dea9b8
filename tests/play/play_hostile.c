/*
 * What a peer with keys, but without manners, may send an IKEv2 gateway: two
 * AUTHs at once, another one after a refusal, IDs that wrap, answers from
 * elsewhere, an INITIAL_CONTACT that means too much. RFC 7296.
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
#include "common/natt.h"
#include "ikev2/internal.h"
#include "tests/play/play.h"
#include "tests/play/world.h"

#define SECOND 1000ull
#define MINUTE (60 * SECOND)

/* What is known of an SA: all that its peer needs to go on with it. */
struct hand {
	struct env *env;
	struct suite suite;
	struct secret keys;
	uint64_t spi_i, spi_r, iv;
	bool initiator;
	struct endpoint from, to;
	bool natt;
};

static void
hand_take(struct hand *hand, struct gateway *gw)
{
	struct v2_sa *v2 = v2_of(gw->env.sadb->first);

	memset(hand, 0, sizeof(*hand));
	hand->env = &gw->env;
	hand->suite = v2->sa.suite;
	hand->spi_i = v2->sa.spi_i;
	hand->spi_r = v2->sa.spi_r;
	hand->iv = 1ull << 40;
	hand->initiator = v2->sa.initiator;
	hand->from = v2->sa.local;
	hand->to = v2->sa.remote;
	hand->natt = v2->sa.natt;
	assert_int_equal(secret_set(&hand->keys, secret_view(&v2->keys)), OK);
}

/* Seals the chain as a request of hand's and sends it. */
static void
hand_send(struct hand *hand, struct play *play, uint8_t exchange, uint32_t id,
    const struct v2_writer *writer)
{
	struct wire_header header = {
		.spi_i = hand->spi_i,
		.spi_r = hand->spi_r,
		.major = 2,
		.exchange = exchange,
		.flags = hand->initiator ? FLAG_INITIATOR : 0,
		.id = id,
	};
	bool i = hand->initiator;
	struct v2_sk_keys keys = {
		.suite = &hand->suite,
		.encr =
		    v2_key(&hand->suite, &hand->keys, i ? V2_SK_EI : V2_SK_ER),
		.integ =
		    v2_key(&hand->suite, &hand->keys, i ? V2_SK_AI : V2_SK_AR),
	};
	struct flight flight = { NULL, 0, 0 };

	assert_int_equal(v2_sk_seal(hand->env, &keys, &hand->iv, &header,
	                     wire_chain_first(&writer->out),
	                     buf_done(&writer->buf), 0, &flight),
	    OK);
	play_inject(
	    play, &hand->from, &hand->to, hand->natt, flight_first(&flight));
	flight_clear(&flight);
}

/* {IDi, AUTH, SAi2, TSi, TSr}, with a MAC of zeros. */
static void
put_auth(struct v2_writer *writer, const char *id)
{
	const struct ts_list ts = { .count = 1,
		.item = {
		    ts_from_prefix(&(struct addr){ ADDR_V4, { 10 } }, 8) } };
	struct ident *ident = ident_new(ID_FQDN, view_text(id));
	static const uint8_t spi[4] = { 1, 2, 3, 4 };
	struct proposals esp;
	const char *problem;
	bool strict;
	size_t at;

	assert_non_null(ident);
	assert_int_equal(proposals_parse(&esp, PROTO_ESP, "aes128-sha256",
	                     &strict, &at, &problem),
	    OK);
	v2_writer_init(writer);
	v2_id_put(&writer->out, P2_IDI, ident);
	wire_begin(&writer->out, P2_AUTH, false);
	buf_u8(&writer->buf, 2);
	buf_zero(&writer->buf, 3 + 32);
	wire_end(&writer->out);
	v2_sapay_put(&writer->out, &esp, view_of(spi, 4), true);
	v2_ts_put(&writer->out, P2_TSI, &ts);
	v2_ts_put(&writer->out, P2_TSR, &ts);
	ident_unref(ident);
}

/* Does gw wait for an answer in an exchange of this type and role? */
static bool
waits(const struct gateway *gw, uint8_t type, enum role role)
{
	const struct ike_sa *sa;
	const struct exchange *x;

	for (sa = gw->env.sadb->first; sa != NULL; sa = sa->next)
		for (x = sa->exchanges; x != NULL; x = x->next)
			if (x->type == type && x->role == role && x->waiting)
				return true;
	return false;
}

static bool
right_verifies(void *arg)
{
	return waits(arg, EXCH_IKE_AUTH, ROLE_RESPONDER);
}

/* While one identity is being proven, another one is claimed: what is proven
 * in the end must belong to the first. RFC 7296 2.3: the window is one. */
static void
second_auth_while_first_is_verified(void **state)
{
	struct world world = world_v2(1);
	struct v2_writer writer;
	struct conn *conn;
	struct ike_sa *sa;
	struct hand hand;

	(void)state;
	conn_set_ids(world.left->building[0], "a.example", "right.example");
	conn_set_ids(world.right->building[0], "right.example", "a.example");
	conn = gateway_conn(
	    world.right, "second", "192.0.2.1", "10.2.0.0/16", "10.9.0.0/16");
	conn_set_ids(conn, "right.example", "b.example");
	world_reload(&world);
	assert_int_equal(gateway_up(world.left, "net", 0), OK);
	assert_true(
	    play_until(world.play, right_verifies, world.right, 5 * SECOND));
	hand_take(&hand, world.left);
	put_auth(&writer, "b.example");
	hand_send(&hand, world.play, EXCH_IKE_AUTH, 2, &writer);
	play_run(world.play, 5 * SECOND);
	sa = gateway_ike(world.right);
	assert_non_null(sa);
	assert_string_equal(sa->conn->name, "net");
	assert_true(
	    view_equal(ident_view(sa->id_remote), view_text("a.example")));
	assert_int_equal(v2_of(sa)->next_in, 2);
	assert_true(play_settled(world.left, world.right, 1, 1));
	secret_free(&hand.keys);
	play_free(world.play);
}

static bool
left_failed(void *arg)
{
	const struct gateway *gw = arg;

	return gw->events[EVENT_IKE_FAILED] > 0;
}

/* Who failed once does not get a second guess on the same keys. */
static void
second_auth_after_refusal(void **state)
{
	struct world world = world_v2(2);
	struct v2_writer writer;
	struct hand hand;
	uint64_t packets;
	unsigned id;

	(void)state;
	snprintf(world.right->vault.psk[0].psk, 80, "something else");
	assert_int_equal(gateway_up(world.left, "net", 0), OK);
	assert_true(
	    play_until(world.play, right_verifies, world.right, 5 * SECOND));
	hand_take(&hand, world.left);
	assert_true(
	    play_until(world.play, left_failed, world.left, 5 * SECOND));
	play_run(world.play, SECOND);
	assert_int_equal(world.right->env.sadb->half_open, 1);
	packets = world.play->packets;
	for (id = 2; id < 6; id++) {
		put_auth(&writer, "a.example");
		hand_send(&hand, world.play, EXCH_IKE_AUTH, id, &writer);
		play_run(world.play, SECOND);
	}
	assert_int_equal(world.play->packets, packets);
	assert_int_equal(world.right->events[EVENT_IKE_UP], 0);
	play_run(world.play, MINUTE);
	assert_int_equal(world.right->env.sadb->count, 0);
	secret_free(&hand.keys);
	play_free(world.play);
}

/* The first of total fragments, of so many octets, by AES-CBC and HMAC. */
static void
send_fragment(struct hand *hand, struct play *play, uint8_t exchange,
    uint32_t id, uint16_t total, size_t len)
{
	struct wire_header header = {
		.spi_i = hand->spi_i,
		.spi_r = hand->spi_r,
		.major = 2,
		.exchange = exchange,
		.flags = FLAG_INITIATOR,
		.id = id,
	};
	static const uint8_t zeros[32768];
	size_t padded = len / 16 * 16 + 16;
	uint8_t packet[40000];
	struct wire_out out;
	struct view whole;
	struct buf buf;
	uint8_t *iv, *text, *icv;

	buf_init(&buf, packet, sizeof(packet));
	wire_start(&out, &buf, &header);
	wire_begin(&out, P2_SKF, false);
	buf_u16(&buf, 1);
	buf_u16(&buf, total);
	iv = buf_room(&buf, 16);
	text = buf_room(&buf, padded);
	icv = buf_room(&buf, hand->suite.integ->icv);
	wire_end(&out);
	wire_finish(&out);
	assert_false(buf.full);
	memset(iv, 0, 16);
	memcpy(text, zeros, padded);
	text[padded - 1] = (uint8_t)(padded - 1 - len);
	assert_int_equal(cipher_cbc_encrypt(hand->suite.encr,
	                     v2_key(&hand->suite, &hand->keys, V2_SK_EI), iv,
	                     view_of(text, padded), text),
	    OK);
	whole = view_of(packet, (size_t)(icv - packet));
	assert_int_equal(
	    prf_mac(hand->suite.integ,
	        v2_key(&hand->suite, &hand->keys, V2_SK_AI), &whole, 1, icv),
	    OK);
	play_inject(play, &hand->from, &hand->to, hand->natt, buf_done(&buf));
}

static bool
drop_auth(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	(void)play;
	(void)from;
	(void)arg;
	return packet->octets.len < WIRE_HEADER || octets[18] != EXCH_IKE_AUTH;
}

static bool
left_authenticates(void *arg)
{
	return v2_own_exchange(v2_of(((struct gateway *)arg)->env.sadb->first))
	           ->x.type == EXCH_IKE_AUTH;
}

/* A stranger may do a key exchange, but not fill our memory with the pieces of
 * a message that never comes; a peer whose identity is known gets more. */
static void
fragments_of_strangers(void **state)
{
	static const struct {
		uint16_t total;
		size_t len;
		bool stranger, peer;
	} row[] = {
		{ 2, 1000, true, true },
		{ 2, V2_FRAGMENT_STRANGER / 2, true, true },
		{ 2, V2_FRAGMENT_STRANGER / 2 + 1, false, true },
		{ 64, V2_FRAGMENT_STRANGER / 64, true, true },
		{ 64, V2_FRAGMENT_STRANGER / 64 + 1, false, true },
	};
	struct world world;
	struct v2_sa *v2;
	struct hand hand;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		world = world_v2(20 + i);
		world.play->tap = drop_auth;
		assert_int_equal(gateway_up(world.left, "net", 0), OK);
		assert_true(play_until(
		    world.play, left_authenticates, world.left, 5 * SECOND));
		hand_take(&hand, world.left);
		send_fragment(&hand, world.play, EXCH_IKE_AUTH, 1, row[i].total,
		    row[i].len);
		play_run(world.play, 100);
		v2 = v2_of(world.right->env.sadb->first);
		assert_int_equal(v2->sa.state, IKE_HALF_OPEN);
		assert_int_equal(v2->frag[0] != NULL, row[i].stranger);
		/* The same when all is well. */
		world.play->tap = NULL;
		play_run(world.play, 10 * SECOND);
		assert_true(play_settled(world.left, world.right, 1, 1));
		assert_null(v2->frag[0]);
		send_fragment(&hand, world.play, EXCH_INFORMATIONAL,
		    v2->next_in, row[i].total, row[i].len);
		play_run(world.play, 100);
		assert_int_equal(v2->frag[0] != NULL, row[i].peer);
		secret_free(&hand.keys);
		play_free(world.play);
	}
}

static void
up(struct world *world)
{
	assert_int_equal(gateway_up(world->left, "net", 0), OK);
	play_run(world->play, 10 * SECOND);
	assert_true(play_settled(world->left, world->right, 1, 1));
}

/* RFC 7296 2.2: an ID that leads back to 0 would let old requests in again. */
static void
ids_do_not_wrap(void **state)
{
	struct world world = world_v2(3);
	struct v2_writer writer;
	struct v2_sa *v2;
	struct hand hand;

	(void)state;
	up(&world);
	hand_take(&hand, world.left);
	v2 = v2_of(gateway_ike(world.right));
	v2->next_in = UINT32_MAX;
	v2_writer_init(&writer);
	hand_send(&hand, world.play, EXCH_INFORMATIONAL, UINT32_MAX, &writer);
	play_run(world.play, SECOND);
	assert_int_equal(v2->next_in, UINT32_MAX);
	secret_free(&hand.keys);
	play_free(world.play);
}

/* The last packet that left sent. */
struct last {
	size_t len;
	uint8_t octets[4096];
};

static bool
remember(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct last *last = arg;

	(void)play;
	if (strcmp(from->name, "left") == 0 &&
	    packet->octets.len <= sizeof(last->octets)) {
		last->len = packet->octets.len;
		memcpy(last->octets, octets, last->len);
	}
	return true;
}

static unsigned lines;

static void
count_line(struct log *log, enum log_level level, const char *line)
{
	(void)log;
	(void)level;
	(void)line;
	lines++;
}

/* Anybody on the way may answer our IKE_SA_INIT, as often as he likes; neither
 * the SA nor the disk suffers. */
static void
forged_answers_fill_no_log(void **state)
{
	struct world world = world_v2(6);
	struct wire_header header = {
		.spi_r = 1,
		.major = 2,
		.exchange = EXCH_IKE_SA_INIT,
		.flags = FLAG_RESPONSE,
	};
	static const uint8_t group[2] = { 0, 1 };
	uint8_t octets[64];
	struct wire_out out;
	struct ike_sa *sa;
	struct buf buf;
	unsigned i;

	(void)state;
	gateway_silence(world.right, true);
	assert_int_equal(gateway_up(world.left, "net", 0), OK);
	play_run(world.play, 100);
	sa = world.left->env.sadb->first;
	header.spi_i = sa->spi_i;
	buf_init(&buf, octets, sizeof(octets));
	wire_start(&out, &buf, &header);
	v2_notify_put(&out, N_INVALID_KE_PAYLOAD, view_of(group, 2));
	wire_finish(&out);
	world.left->log.write = count_line;
	world.left->log.level = LOG_LEVEL_INFO;
	lines = 0;
	for (i = 0; i < 500; i++) {
		play_inject(
		    world.play, &sa->remote, &sa->local, false, buf_done(&buf));
		play_run(world.play, 2);
	}
	assert_in_range(lines, 1, 50);
	assert_int_equal(world.left->env.sadb->count, 1);
	play_free(world.play);
}

/* Nor do strangers whose public value is none, and who are forgotten at once:
 * no cookie stands in their way. */
static void
bad_values_fill_no_log(void **state)
{
	struct world world = world_v2(7);
	struct endpoint from, to;
	struct last last = { 0 };
	unsigned i;
	size_t ke;

	(void)state;
	world.play->tap = remember;
	world.play->tap_arg = &last;
	assert_int_equal(gateway_up(world.left, "net", 0), OK);
	play_run(world.play, 5);
	from = world.left->env.sadb->first->local;
	to = world.left->env.sadb->first->remote;
	assert_true(last.len > 0 && last.octets[18] == EXCH_IKE_SA_INIT);
	gateway_silence(world.left, true);
	play_run(world.play, 2 * MINUTE);
	/* SA leads, KE follows: Curve25519's zero. */
	ke = WIRE_HEADER + (size_t)(last.octets[30] << 8 | last.octets[31]);
	memset(last.octets + ke + 8, 0, 32);
	world.right->log.write = count_line;
	world.right->log.level = LOG_LEVEL_INFO;
	lines = 0;
	for (i = 0; i < 500; i++) {
		last.octets[0] = (uint8_t)i;
		last.octets[1] = (uint8_t)(i >> 8);
		play_inject(world.play, &from, &to, false,
		    view_of(last.octets, last.len));
		play_run(world.play, 2);
	}
	assert_in_range(lines, 1, 50);
	play_free(world.play);
}

static struct world
world_behind_nat(uint64_t seed)
{
	struct world world = { .play = play_new(seed) };

	world.left = play_gateway(world.play, "left", "10.0.0.5");
	world.right = play_gateway(world.play, "right", "192.0.2.2");
	play_nat(world.play, "10.0.0.5", "192.0.2.77");
	gateway_conn(
	    world.left, "net", "192.0.2.2", "10.1.0.0/16", "10.2.0.0/16");
	gateway_conn(world.right, "net", NULL, "10.2.0.0/16", "10.1.0.0/16");
	gateway_psk(world.left, NULL, NULL, "x");
	gateway_psk(world.right, NULL, NULL, "x");
	world_reload(&world);
	up(&world);
	return world;
}

static bool
right_accepts(void *arg)
{
	const struct gateway *gw = arg;
	const struct exchange *x;

	for (x = gw->env.sadb->first->exchanges; x != NULL; x = x->next)
		if (x->type == EXCH_CREATE_CHILD_SA && x->waiting &&
		    x->msg != NULL)
			return true;
	return false;
}

/* RFC 7296 2.23: a peer behind NAT is followed by fresh messages only. The
 * answer that is being worked on, copied and sent from elsewhere, is none. */
static void
copies_move_nobody(void **state)
{
	struct world world = world_behind_nat(4);
	struct endpoint elsewhere, local, before;
	struct child_sa *child = gateway_child(world.right);
	struct ike_sa *sa = gateway_ike(world.right);
	struct last last = { 0 };

	(void)state;
	before = sa->remote;
	local = sa->local;
	elsewhere = before;
	assert_true(addr_parse(&elsewhere.addr, "198.51.100.9"));
	world.play->tap = remember;
	world.play->tap_arg = &last;
	assert_int_equal(sa->engine->child_rekey(child), OK);
	assert_true(
	    play_until(world.play, right_accepts, world.right, 5 * SECOND));
	play_inject(world.play, &elsewhere, &local, true,
	    view_of(last.octets, last.len));
	play_run(world.play, 10 * SECOND);
	assert_true(endpoint_equal(&sa->remote, &before));
	play_free(world.play);
}

/* ... and never back to port 500, which carries no ESP. */
static void
nobody_goes_back_to_500(void **state)
{
	struct world world = world_behind_nat(5);
	struct ike_sa *sa = gateway_ike(world.right);
	struct endpoint before = sa->remote;
	struct v2_writer writer;
	struct hand hand;
	uint32_t id;

	(void)state;
	hand_take(&hand, world.left);
	hand.from = before;
	hand.from.port = 500;
	hand.to.port = 500;
	hand.natt = false;
	id = v2_of(sa)->next_in;
	v2_writer_init(&writer);
	hand_send(&hand, world.play, EXCH_INFORMATIONAL, id, &writer);
	play_run(world.play, SECOND);
	assert_int_equal(v2_of(sa)->next_in, id + 1);
	assert_true(sa->natt);
	assert_true(endpoint_equal(&sa->remote, &before));
	assert_int_equal(gateway_child(world.right)->local.port, NATT_PORT);
	secret_free(&hand.keys);
	play_free(world.play);
}

/* RFC 7296 3.10.1: between the authenticated identities, both of them. */
static void
initial_contact_is_for_a_pair(void **state)
{
	struct world world = world_v2(6);
	struct conn *conn;

	(void)state;
	conn_set_ids(world.left->building[0], "left.example", "one.example");
	conn_set_ids(world.right->building[0], "one.example", "left.example");
	conn = gateway_conn(
	    world.left, "two", "192.0.2.2", "10.3.0.0/16", "10.4.0.0/16");
	conn_set_ids(conn, "left.example", "two.example");
	conn = gateway_conn(
	    world.right, "two", "192.0.2.1", "10.4.0.0/16", "10.3.0.0/16");
	conn_set_ids(conn, "two.example", "left.example");
	world_reload(&world);
	up(&world);
	assert_int_equal(gateway_up(world.left, "two", 0), OK);
	play_run(world.play, 10 * SECOND);
	assert_int_equal(world.right->events[EVENT_IKE_DOWN], 0);
	assert_true(play_settled(world.left, world.right, 2, 2));
	play_free(world.play);
}

/* Connections of one peer whose ike= differ: a child of one may live below an
 * IKE SA that the other made, if it would have allowed its algorithms, and not
 * otherwise. */
static void
child_of_another_connection(void **state)
{
	static const struct {
		const char *ike;
		size_t children;
	} row[] = {
		{ "aes256-sha512-modp2048,aes128-sha256-x25519", 2 },
		{ "aes256-sha512-modp2048", 1 },
	};
	struct world world;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		world = world_v2(7 + i);
		gateway_conn(world.left, "two", "192.0.2.2", "10.3.0.0/16",
		    "10.4.0.0/16")
		    ->keyexchange = KEYEX_IKEV2;
		conn_set_ike(gateway_conn(world.right, "two", "192.0.2.1",
		                 "10.4.0.0/16", "10.3.0.0/16"),
		    row[i].ike);
		world_reload(&world);
		up(&world);
		assert_int_equal(gateway_up(world.left, "two", 0), OK);
		play_run(world.play, 10 * SECOND);
		assert_true(
		    play_settled(world.left, world.right, 1, row[i].children));
		assert_int_equal(gateway_child_count(world.right, "two"),
		    row[i].children - 1);
		play_free(world.play);
	}
}

/* How much the vault has to do for a peer that will be refused. */
static size_t
work_before_refusal(bool known)
{
	struct world world = world_v2(20);
	size_t most = 0;

	conn_set_ids(world.left->building[0], "left.example", NULL);
	conn_set_ids(world.right->building[0], NULL,
	    known ? "left.example" : "other.example");
	world_reload(&world);
	snprintf(world.right->vault.psk[0].psk,
	    sizeof(world.right->vault.psk[0].psk), "another");
	assert_int_equal(gateway_up(world.left, "net", 0), OK);
	for (unsigned ms = 0; ms < 10 * SECOND; ms++) {
		play_run(world.play, 1);
		if (world.right->vault.pending > most)
			most = world.right->vault.pending;
	}
	assert_int_equal(world.left->events[EVENT_IKE_FAILED], 1);
	assert_int_equal(world.right->events[EVENT_IKE_UP], 0);
	/* Of the identity, or else of the key. */
	assert_int_equal(world.right->events[EVENT_EXPLAIN], 1);
	play_free(world.play);
	return most;
}

/* The time until a refusal does not tell whom we know. */
static void
unknown_takes_as_long(void **state)
{
	(void)state;
	assert_int_equal(work_before_refusal(true), 2);
	assert_int_equal(work_before_refusal(false), 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(second_auth_while_first_is_verified),
		cmocka_unit_test(second_auth_after_refusal),
		cmocka_unit_test(fragments_of_strangers),
		cmocka_unit_test(ids_do_not_wrap),
		cmocka_unit_test(forged_answers_fill_no_log),
		cmocka_unit_test(bad_values_fill_no_log),
		cmocka_unit_test(copies_move_nobody),
		cmocka_unit_test(nobody_goes_back_to_500),
		cmocka_unit_test(initial_contact_is_for_a_pair),
		cmocka_unit_test(child_of_another_connection),
		cmocka_unit_test(unknown_takes_as_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
