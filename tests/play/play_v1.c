#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/cipher.h"
#include "ikev1/sk.h"
#include "ikev1/state.h"
#include "tests/play/play.h"

struct pair {
	struct play *play;
	struct gateway *left, *right;
};

static void
begin(struct pair *pair, uint64_t seed)
{
	pair->play = play_new(seed);
	play_pair(pair->play, &pair->left, &pair->right, KEYEX_IKEV1);
}

static bool
both_up(void *arg)
{
	struct pair *pair = arg;

	return gateway_child_count(pair->left, NULL) > 0 &&
	       gateway_child_count(pair->right, NULL) > 0;
}

static void
up(struct pair *pair)
{
	assert_int_equal(gateway_up(pair->left, "net", 0), OK);
	assert_true(play_until(pair->play, both_up, pair, 60000));
	play_run(pair->play, 2000);
}

static void
expect_traffic(struct pair *pair)
{
	assert_true(
	    play_traffic(pair->left, pair->right, "10.1.0.5", "10.2.0.6"));
	assert_true(
	    play_traffic(pair->right, pair->left, "10.2.0.6", "10.1.0.5"));
}

static bool
settled_once(void *arg)
{
	struct pair *pair = arg;

	return gateway_ike_count(pair->left) == 1 &&
	       gateway_ike_count(pair->right) == 1 &&
	       gateway_child_count(pair->left, NULL) == 1 &&
	       gateway_child_count(pair->right, NULL) == 1 &&
	       gateway_idle(pair->left) && gateway_idle(pair->right) &&
	       pair->left->env.sadb->child_count == 1 &&
	       pair->right->env.sadb->child_count == 1 &&
	       pair->left->env.sadb->count == 1 &&
	       pair->right->env.sadb->count == 1 &&
	       pair->left->kernel.sa_count == 2 &&
	       pair->right->kernel.sa_count == 2;
}

/* Handshakes ------------------------------------------------------------ */

static void
test_handshake(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 1);
	up(&pair);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	assert_int_equal(pair.left->events[EVENT_IKE_UP], 1);
	assert_int_equal(pair.right->events[EVENT_IKE_UP], 1);
	assert_int_equal(pair.left->events[EVENT_CHILD_UP], 1);
	assert_int_equal(pair.right->events[EVENT_CHILD_UP], 1);
	expect_traffic(&pair);
	play_free(pair.play);
}

static void
test_suites(void **state)
{
	static const char *const rows[][2] = {
		{ "aes128-sha256-curve25519", "aes128-sha256" },
		{ "aes256-sha512-ecp256", "aes256-sha512-ecp256" },
		{ "aes192-sha384-ecp384", "aes192-sha384-curve25519" },
		{ "aes256-sha1-ecp521", "aes256gcm16-ecp384" },
		{ "3des-sha1-modp1024", "3des-sha1" },
		{ "aes128-sha1-modp1536", "aes128gcm16" },
		{ "aes256-sha256-modp2048", "aes256-sha256-modp2048" },
		{ "aes128-sha256-ecp256", "aes128-sha256-esn" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct pair pair;
		const struct child_sa *child;

		begin(&pair, 100 + i);
		conn_set_ike(pair.left->building[0], rows[i][0]);
		conn_set_ike(pair.right->building[0], rows[i][0]);
		conn_set_esp(pair.left->building[0], rows[i][1]);
		conn_set_esp(pair.right->building[0], rows[i][1]);
		up(&pair);
		assert_true(play_settled(pair.left, pair.right, 1, 1));
		expect_traffic(&pair);
		child = gateway_child(pair.left);
		assert_int_equal(child->suite.esn, i == 7);
		assert_int_equal(child->suite.kex != NULL,
		    pair.left->building[0]->esp.item[0].count[ALG_KEX] > 0);
		play_free(pair.play);
	}
}

/* The offers of the first side are many; the second picks the one it knows. */
static void
test_choice(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 2);
	conn_set_ike(pair.left->building[0],
	    "aes256-sha512-ecp521-modp2048,3des-sha1-modp1024,"
	    "aes128-aes192-sha256-sha384-curve25519-ecp256");
	conn_set_esp(pair.left->building[0],
	    "aes256gcm16-aes128gcm16,aes256-aes128-sha512-sha256");
	conn_set_ike(pair.right->building[0], "aes192-sha384-ecp256");
	conn_set_esp(pair.right->building[0], "aes128-sha512");
	up(&pair);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	assert_int_equal(
	    gateway_ike(pair.left)->suite.encr->id, ALG_AES192_CBC);
	assert_int_equal(gateway_ike(pair.left)->suite.kex->id, ALG_ECP256);
	assert_int_equal(
	    gateway_child(pair.right)->suite.encr->id, ALG_AES128_CBC);
	expect_traffic(&pair);
	play_free(pair.play);
}

static void
test_ipv6(void **state)
{
	struct play *play = play_new(3);
	struct pair pair = { play, play_gateway(play, "left", "2001:db8::1"),
		play_gateway(play, "right", "2001:db8::2") };
	struct conn *conn;

	(void)state;
	conn = gateway_conn(
	    pair.left, "net", "2001:db8::2", "fd01::/64", "fd02::/64");
	conn->keyexchange = KEYEX_IKEV1;
	conn = gateway_conn(
	    pair.right, "net", "2001:db8::1", "fd02::/64", "fd01::/64");
	conn->keyexchange = KEYEX_IKEV1;
	gateway_psk(pair.left, NULL, NULL, "correct horse battery staple");
	gateway_psk(pair.right, NULL, NULL, "correct horse battery staple");
	gateway_load(pair.left);
	gateway_load(pair.right);
	up(&pair);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	assert_true(play_traffic(pair.left, pair.right, "fd01::5", "fd02::6"));
	play_free(play);
}

/* Weather --------------------------------------------------------------- */

static void
storm(struct play *play)
{
	play->weather.loss_permille = 100;
	play->weather.duplicate_permille = 100;
	play->weather.reorder_permille = 150;
}

/* The seeds of a test, from first on: SEEDS=n takes so many, SEED=n one
 * alone. */
struct seeds {
	uint64_t at, end;
};

static struct seeds
seeds(uint64_t first, unsigned usual)
{
	const char *many = getenv("SEEDS"), *one = getenv("SEED");
	struct seeds seeds = { first, first + usual };

	if (many != NULL)
		seeds.end = first + (unsigned)atoi(many);
	if (one != NULL) {
		seeds.at = (uint64_t)atoll(one);
		seeds.end = seeds.at + 1;
	}
	return seeds;
}

static void
test_weather(void **state)
{
	struct seeds all = seeds(1000, 60);

	(void)state;
	for (uint64_t seed = all.at; seed < all.end; seed++) {
		struct pair pair;

		begin(&pair, seed);
		storm(pair.play);
		assert_int_equal(gateway_up(pair.left, "net", 0), OK);
		play_until(pair.play, settled_once, &pair, 600000);
		if (!play_settled(pair.left, pair.right, 1, 1))
			fail_msg("seed %llu", (unsigned long long)seed);
		expect_traffic(&pair);
		play_free(pair.play);
	}
}

/* Both ends begin at once: one of everything is left. */
static void
test_both_begin(void **state)
{
	struct seeds all = seeds(20000, 60);

	(void)state;
	for (uint64_t seed = all.at; seed < all.end; seed++) {
		struct pair pair;

		begin(&pair, seed);
		if (seed % 2 == 0)
			storm(pair.play);
		assert_int_equal(gateway_up(pair.left, "net", 0), OK);
		play_run(pair.play, play_below(pair.play, 60));
		assert_int_equal(gateway_up(pair.right, "net", 0), OK);
		play_until(pair.play, both_up, &pair, 600000);
		play_run(pair.play, 5000);
		play_until(pair.play, settled_once, &pair, 3700000);
		if (!play_settled(pair.left, pair.right, 1, 1))
			fail_msg("seed %llu", (unsigned long long)seed);
		expect_traffic(&pair);
		play_free(pair.play);
	}
}

/* The Quick Modes that left begins, and those that right has answered. */
struct turns {
	uint32_t begun[16], answered[16], deaf;
	unsigned begun_count, answered_count, most;
};

static bool
note(uint32_t *ids, unsigned *count, uint32_t id)
{
	for (unsigned i = 0; i < *count; i++)
		if (ids[i] == id)
			return false;
	assert_true(*count < 16);
	ids[(*count)++] = id;
	return true;
}

static bool
on_turn(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct turns *turns = arg;
	uint32_t id = (uint32_t)octets[20] << 24 | (uint32_t)octets[21] << 16 |
	              (uint32_t)octets[22] << 8 | octets[23];

	(void)packet;
	if (octets[18] != 32) /* Quick Mode */
		return true;
	if (from == play->gateway[0]) {
		note(turns->begun, &turns->begun_count, id);
		if (turns->begun_count - turns->answered_count > turns->most)
			turns->most =
			    turns->begun_count - turns->answered_count;
		return true;
	}
	if (id == turns->deaf)
		return false;
	/* The first one that it answers is lost for good, if so wished. */
	if (turns->deaf == 1) {
		turns->deaf = id;
		return false;
	}
	note(turns->answered, &turns->answered_count, id);
	return true;
}

/* Interop: strongSwan follows three exchanges of phase 2 at a time. And one
 * without an answer does not keep the others waiting for long. */
static void
test_quick_modes_in_turn(void **state)
{
	const char *problem;
	struct ts ts;

	(void)state;
	for (uint32_t deaf = 0; deaf < 2; deaf++) {
		struct turns turns = { .deaf = deaf };
		struct pair pair;

		begin(&pair, 9);
		for (unsigned i = 2; i < 7; i++) {
			char text[32];

			snprintf(text, sizeof(text), "10.1%u.0.0/16", i);
			assert_int_equal(ts_parse(&ts, text, &problem), OK);
			ts_list_add(
			    &pair.left->building[0]->local.subnets, &ts);
			ts_list_add(
			    &pair.right->building[0]->remote.subnets, &ts);
		}
		pair.play->tap = on_turn;
		pair.play->tap_arg = &turns;
		assert_int_equal(gateway_up(pair.left, "net", 0), OK);
		play_run(pair.play, 12000);
		assert_int_equal(turns.begun_count, 6);
		assert_int_equal(turns.most, 2 + deaf);
		assert_int_equal(
		    gateway_child_count(pair.left, "net"), 6 - deaf);
		play_free(pair.play);
	}
}

static bool
no_answer(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	(void)packet;
	(void)arg;
	return from == play->gateway[0] || octets[18] != 32; /* Quick Mode */
}

static void
close_net(struct gateway *gw)
{
	struct ike_sa *sa = gateway_ike(gw);
	struct child_sa *next;

	assert_non_null(sa);
	assert_int_equal(sa->child_count, 5);
	for (struct child_sa *child = sa->children; child != NULL;
	     child = next) {
		next = child->next;
		if (strcmp(child->conn->name, "net") == 0)
			sa->engine->child_close(child);
	}
}

/* Those of a connection that is closed do not take the others' turns along. */
static void
test_turns_after_a_close(void **state)
{
	const char *problem;
	struct conn *conn;
	struct pair pair;
	struct ts ts;

	(void)state;
	begin(&pair, 10);
	for (unsigned i = 2; i < 5; i++) {
		char text[32];

		snprintf(text, sizeof(text), "10.1%u.0.0/16", i);
		assert_int_equal(ts_parse(&ts, text, &problem), OK);
		ts_list_add(&pair.left->building[0]->local.subnets, &ts);
		ts_list_add(&pair.right->building[0]->remote.subnets, &ts);
	}
	conn = gateway_conn(
	    pair.left, "more", "192.0.2.2", "10.5.0.0/16", "10.6.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	conn = gateway_conn(
	    pair.right, "more", "192.0.2.1", "10.6.0.0/16", "10.5.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	gateway_load(pair.left);
	gateway_load(pair.right);
	pair.play->tap = no_answer;
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(pair.play, 1000);
	assert_int_equal(gateway_up(pair.left, "more", 0), OK);
	play_run(pair.play, 100);
	close_net(pair.left);
	pair.play->tap = NULL;
	play_run(pair.play, 10000);
	assert_int_equal(gateway_child_count(pair.left, "more"), 1);
	play_free(pair.play);
}

static bool
ike_up(void *arg)
{
	struct pair *pair = arg;

	return gateway_ike_count(pair->left) > 0 &&
	       gateway_ike_count(pair->right) > 0;
}

/* What waits for its turn gets it below an SA that was replaced meanwhile. */
static void
test_turns_of_a_replaced_sa(void **state)
{
	const char *problem;
	struct pair pair;
	struct ike_sa *sa;
	struct ts ts;

	(void)state;
	begin(&pair, 11);
	pair.play->weather.delay_min_ms = 200;
	pair.play->weather.delay_max_ms = 201;
	for (unsigned i = 2; i < 10; i++) {
		char text[32];

		snprintf(text, sizeof(text), "10.1%u.0.0/16", i);
		assert_int_equal(ts_parse(&ts, text, &problem), OK);
		ts_list_add(&pair.left->building[0]->local.subnets, &ts);
		ts_list_add(&pair.right->building[0]->remote.subnets, &ts);
	}
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	assert_true(play_until(pair.play, ike_up, &pair, 60000));
	sa = gateway_ike(pair.right);
	assert_non_null(sa);
	assert_int_equal(sa->engine->rekey(sa), OK);
	play_run(pair.play, 60000);
	assert_int_equal(gateway_child_count(pair.left, "net"), 9);
	assert_true(play_settled(pair.left, pair.right, 1, 9));
	play_free(pair.play);
}

/* Several selectors a side: a Quick Mode for each pair. */
static void
test_many_quick_modes(void **state)
{
	const char *problem;
	struct pair pair;
	struct ts ts;

	(void)state;
	begin(&pair, 7);
	storm(pair.play);
	for (unsigned i = 2; i < 6; i++) {
		char text[32];

		snprintf(text, sizeof(text), "10.1%u.0.0/16", i);
		assert_int_equal(ts_parse(&ts, text, &problem), OK);
		ts_list_add(&pair.left->building[0]->local.subnets, &ts);
		ts_list_add(&pair.right->building[0]->remote.subnets, &ts);
	}
	assert_int_equal(ts_parse(&ts, "10.99.1.0/24[tcp/80]", &problem), OK);
	ts_list_add(&pair.left->building[0]->remote.subnets, &ts);
	ts_list_add(&pair.right->building[0]->local.subnets, &ts);
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(pair.play, 300000);
	assert_true(play_settled(pair.left, pair.right, 1, 10));
	assert_true(
	    play_traffic(pair.left, pair.right, "10.14.0.5", "10.2.0.6"));
	play_free(pair.play);
}

/* Quick Modes of several connections below one ISAKMP SA. */
static void
test_two_connections(void **state)
{
	struct pair pair;
	struct conn *conn;

	(void)state;
	begin(&pair, 8);
	conn = gateway_conn(
	    pair.left, "more", "192.0.2.2", "10.5.0.0/16", "10.6.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	conn = gateway_conn(
	    pair.right, "more", "192.0.2.1", "10.6.0.0/16", "10.5.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	gateway_load(pair.left);
	gateway_load(pair.right);
	up(&pair);
	assert_int_equal(gateway_up(pair.right, "more", 0), OK);
	play_run(pair.play, 5000);
	assert_true(play_settled(pair.left, pair.right, 1, 2));
	assert_int_equal(gateway_child_count(pair.left, "more"), 1);
	assert_true(
	    play_traffic(pair.left, pair.right, "10.5.0.5", "10.6.0.6"));
	play_free(pair.play);
}

/* NAT ------------------------------------------------------------------- */

/* left is behind a NAT; right knows neither its address nor its identity. */
static struct fake_nat *
begin_nat(struct pair *pair, uint64_t seed, enum policy_mode mode)
{
	bool tunnel = mode == MODE_TUNNEL;
	struct fake_nat *nat;
	struct conn *conn;

	pair->play = play_new(seed);
	pair->left = play_gateway(pair->play, "left", "192.168.7.2");
	pair->right = play_gateway(pair->play, "right", "192.0.2.2");
	nat = play_nat(pair->play, "192.168.7.2", "198.51.100.9");
	conn = gateway_conn(pair->left, "net", "192.0.2.2",
	    tunnel ? "10.1.0.0/16" : NULL, tunnel ? "10.2.0.0/16" : NULL);
	conn->keyexchange = KEYEX_IKEV1;
	conn->mode = (uint8_t)mode;
	conn_set_ids(conn, "@left.example", "@right.example");
	conn = gateway_conn(pair->right, "net", NULL,
	    tunnel ? "10.2.0.0/16" : NULL, tunnel ? "10.1.0.0/16" : NULL);
	conn->keyexchange = KEYEX_IKEV1;
	conn->mode = (uint8_t)mode;
	conn_set_ids(conn, "@right.example", "@left.example");
	gateway_psk(pair->left, "@left.example", "@right.example", "secret 1");
	gateway_psk(pair->right, "@left.example", "@right.example", "secret 1");
	gateway_load(pair->left);
	gateway_load(pair->right);
	return nat;
}

static void
test_nat(void **state)
{
	struct pair pair;
	struct ike_sa *sa;

	(void)state;
	begin_nat(&pair, 9, MODE_TUNNEL);
	storm(pair.play);
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_until(pair.play, settled_once, &pair, 300000);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	sa = gateway_ike(pair.left);
	assert_true(sa->natt && sa->nat_local && !sa->nat_remote);
	assert_int_equal(sa->remote.port, NATT_PORT);
	sa = gateway_ike(pair.right);
	assert_true(sa->natt && !sa->nat_local && sa->nat_remote);
	assert_true(gateway_child(pair.right)->encap);
	expect_traffic(&pair);
	/* Keepalives come from behind the NAT only. */
	play_run(pair.play, 200000);
	assert_in_range(pair.left->net.keepalives, 9, 30);
	assert_int_equal(pair.right->net.keepalives, 0);
	play_free(pair.play);
}

/* The box reboots: the next authenticated message shows the new port. */
static void
test_nat_rebinding(void **state)
{
	struct pair pair;
	struct fake_nat *nat;
	uint16_t port;

	(void)state;
	nat = begin_nat(&pair, 10, MODE_TUNNEL);
	pair.left->building[0]->dpd_action = DPD_CLEAR;
	pair.left->building[0]->dpd_delay_ms = 10000;
	up(&pair);
	port = gateway_ike(pair.right)->remote.port;
	fake_nat_rebind(nat);
	play_run(pair.play, 60000);
	assert_int_not_equal(gateway_ike(pair.right)->remote.port, port);
	assert_int_equal(gateway_child(pair.right)->remote.port,
	    gateway_ike(pair.right)->remote.port);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	expect_traffic(&pair);
	play_free(pair.play);
}

static void
test_nat_transport(void **state)
{
	struct pair pair;
	struct child_sa *child;
	char text[TS_TEXT], addr[ADDR_TEXT];

	(void)state;
	begin_nat(&pair, 11, MODE_TRANSPORT);
	up(&pair);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	child = gateway_child(pair.right);
	/* Its selector is the outer address, its NAT-OA the inner one. */
	assert_string_equal(
	    ts_text(&child->ts_remote.item[0], text), "198.51.100.9/32");
	assert_string_equal(
	    addr_text(&child->natoa_remote.addr, addr), "192.168.7.2");
	child = gateway_child(pair.left);
	assert_string_equal(
	    addr_text(&child->natoa_local.addr, addr), "198.51.100.9");
	play_free(pair.play);
}

/* No NAT, but forced into UDP: the float to 4500 is accepted. */
static void
test_forceencaps(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 12);
	pair.left->building[0]->forceencaps = true;
	up(&pair);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	assert_true(gateway_ike(pair.right)->natt);
	assert_true(gateway_child(pair.right)->encap);
	assert_true(gateway_child(pair.left)->encap);
	play_free(pair.play);
}

/* Pre-shared keys ------------------------------------------------------- */

static void
test_wrong_psk(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 13);
	snprintf(pair.right->vault.psk[0].psk,
	    sizeof(pair.right->vault.psk[0].psk), "something else");
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(pair.play, 600000);
	assert_int_equal(pair.left->events[EVENT_IKE_UP], 0);
	assert_int_equal(pair.left->events[EVENT_IKE_FAILED], 1);
	assert_true(pair.right->env.counter[COUNTER_PACKETS_FORGED] > 0);
	assert_int_equal(pair.right->env.sadb->count, 0);
	assert_int_equal(pair.left->env.sadb->count, 0);
	assert_non_null(strstr(pair.left->failed, "pre-shared key"));
	play_free(pair.play);
}

static void
no_psk_at(bool left)
{
	struct pair pair;

	begin(&pair, 14);
	ident_unref((left ? pair.left : pair.right)->vault.psk[0].one);
	(left ? pair.left : pair.right)->vault.psk_count = 0;
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(pair.play, 600000);
	assert_int_equal(pair.left->env.sadb->count, 0);
	assert_int_equal(pair.right->env.sadb->count, 0);
	assert_int_equal(
	    (left ? pair.left : pair.right)->last_err, ERR_NO_SECRET);
	play_free(pair.play);
}

static void
test_no_psk(void **state)
{
	(void)state;
	no_psk_at(true);
	no_psk_at(false);
}

/* right accepts anybody, with three PSKs for three names: Main Mode knows only
 * the address, so all are tried. claims: what left calls itself; psk: what it
 * knows. */
static void
roadwarrior(const char *claims, const char *psk, bool accepted)
{
	static const char *const names[] = { "@one", "@two", "@three" };
	struct play *play = play_new(15);
	struct pair pair = { play, play_gateway(play, "left", "203.0.113.5"),
		play_gateway(play, "right", "192.0.2.2") };
	struct conn *conn;

	conn = gateway_conn(
	    pair.left, "net", "192.0.2.2", "10.1.0.0/16", "10.2.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	conn_set_ids(conn, claims, NULL);
	gateway_psk(pair.left, NULL, NULL, psk);
	for (unsigned i = 0; i < 3; i++) {
		char name[16];

		snprintf(name, sizeof(name), "rw%u", i);
		conn = gateway_conn(
		    pair.right, name, NULL, "10.2.0.0/16", "10.1.0.0/16");
		conn->keyexchange = KEYEX_IKEV1;
		conn_set_ids(conn, NULL, names[i]);
		gateway_psk(pair.right, names[i], NULL, names[i]);
	}
	gateway_load(pair.left);
	gateway_load(pair.right);
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(play, 400000);
	assert_int_equal(gateway_ike_count(pair.right), accepted);
	assert_int_equal(gateway_ike_count(pair.left), accepted);
	if (accepted) {
		assert_true(play_settled(pair.left, pair.right, 1, 1));
		assert_int_equal(gateway_child_count(pair.right, "rw1"), 1);
	}
	play_free(play);
}

static void
test_several_psks(void **state)
{
	(void)state;
	roadwarrior("@two", "@two", true);
	/* The PSK of one, the name of another. */
	roadwarrior("@two", "@three", false);
	/* A name that nobody configured. */
	roadwarrior("@four", "@one", false);
}

/* The connection changes with the identity, but never to weaker algorithms. */
static void
test_conn_by_identity(void **state)
{
	struct play *play = play_new(16);
	struct pair pair = { play, play_gateway(play, "left", "203.0.113.5"),
		play_gateway(play, "right", "192.0.2.2") };
	struct conn *conn;

	(void)state;
	conn = gateway_conn(
	    pair.left, "net", "192.0.2.2", "10.1.0.0/16", "10.2.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	conn_set_ids(conn, "@weak", NULL);
	conn = gateway_conn(
	    pair.right, "first", NULL, "10.2.0.0/16", "10.1.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	conn_set_ids(conn, NULL, "@strong");
	conn = gateway_conn(
	    pair.right, "second", NULL, "10.2.0.0/16", "10.1.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	conn_set_ids(conn, NULL, "@weak");
	conn_set_ike(conn, "aes256-sha512-ecp521");
	gateway_psk(pair.left, NULL, NULL, "x");
	gateway_psk(pair.right, NULL, NULL, "x");
	gateway_load(pair.left);
	gateway_load(pair.right);
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(play, 400000);
	assert_int_equal(gateway_ike_count(pair.right), 0);
	assert_int_equal(gateway_ike_count(pair.left), 0);
	play_free(play);
}

static void
test_no_proposal(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 17);
	conn_set_ike(pair.right->building[0], "aes256-sha512-ecp521");
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	/* Not at once: anybody may have sent the refusal. */
	play_run(pair.play, 5000);
	assert_int_equal(pair.left->env.sadb->count, 1);
	play_run(pair.play, 10000);
	assert_int_equal(pair.left->env.sadb->count, 0);
	assert_int_equal(pair.right->env.sadb->count, 0);
	assert_true(pair.right->events[EVENT_EXPLAIN] > 0);
	assert_non_null(strstr(pair.right->explained, "ecp521"));
	assert_int_equal(pair.left->last_err, ERR_PEER);
	assert_non_null(strstr(pair.left->failed, "NO_PROPOSAL"));
	play_free(pair.play);
}

/* Phase 1 is up, phase 2 is refused: told under protection, at once. */
static void
refused_child(bool selectors)
{
	const char *problem;
	struct pair pair;

	begin(&pair, 18);
	if (selectors)
		ts_parse(&pair.right->building[0]->local.subnets.item[0],
		    "10.3.0.0/16", &problem);
	else
		conn_set_esp(pair.right->building[0], "aes256-sha512");
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(pair.play, 3000);
	assert_int_equal(gateway_ike_count(pair.left), 1);
	assert_int_equal(pair.left->events[EVENT_CHILD_FAILED], 1);
	assert_int_equal(pair.left->last_err, ERR_PEER);
	assert_true(pair.right->events[EVENT_EXPLAIN] > 0);
	assert_true(play_settled(pair.left, pair.right, 1, 0));
	play_free(pair.play);
}

static void
test_refused_child(void **state)
{
	(void)state;
	refused_child(true);
	refused_child(false);
}

/* Lost, repeated, recorded ---------------------------------------------- */

#define RECORDED 256

struct record {
	struct gateway *of; /* NULL: everybody */
	struct endpoint src, dst;
	bool natt;
	size_t len;
	uint8_t octets[4096];
};

struct recorder {
	struct record *record;
	size_t count;
	/* Drops so many messages of one exchange type, sealed or not. */
	struct gateway *dropped_of;
	uint8_t dropped_type;
	int dropped_from, dropped_to; /* ordinal numbers of its messages */
	int seen;
};

static bool
on_tap(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct recorder *recorder = arg;
	struct record *record;

	(void)play;
	if (recorder->record != NULL && recorder->count < RECORDED) {
		record = &recorder->record[recorder->count++];
		record->of = from;
		record->src = packet->local;
		record->dst = packet->remote;
		record->natt = packet->natt;
		record->len = packet->octets.len;
		memcpy(record->octets, octets, record->len);
	}
	if (from == recorder->dropped_of &&
	    octets[18] == recorder->dropped_type) {
		recorder->seen++;
		if (recorder->seen >= recorder->dropped_from &&
		    recorder->seen <= recorder->dropped_to)
			return false;
	}
	return true;
}

static void
lose(bool of_left, uint8_t type, int from, int to)
{
	struct recorder recorder = {
		.dropped_type = type, .dropped_from = from, .dropped_to = to
	};
	struct pair pair;

	begin(&pair, 19);
	recorder.dropped_of = of_left ? pair.left : pair.right;
	pair.play->tap = on_tap;
	pair.play->tap_arg = &recorder;
	up(&pair);
	play_run(pair.play, 60000);
	assert_true(recorder.seen >= from);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	expect_traffic(&pair);
	play_free(pair.play);
}

static void
test_lost_last_message(void **state)
{
	(void)state;
	lose(false, EXCH_IDENTITY_PROTECTION, 3, 4); /* MM6, twice */
	lose(true, EXCH_QUICK, 2, 4);                /* QM3, three times */
	lose(true, EXCH_IDENTITY_PROTECTION, 1, 2);
	lose(false, EXCH_IDENTITY_PROTECTION, 1, 1);
	lose(false, EXCH_QUICK, 1, 2);
}

static void
replay_all(struct pair *pair, struct recorder *recorder)
{
	size_t count = recorder->count;

	for (size_t i = 0; i < count; i++) {
		const struct record *record = &recorder->record[i];

		play_inject(pair->play, &record->src, &record->dst,
		    record->natt, view_of(record->octets, record->len));
		play_run(pair->play, 50);
	}
}

/* All that was ever sent comes again: nothing changes. */
static void
test_replay(void **state)
{
	struct recorder recorder = { .count = 0 };
	const struct ike_sa *sa;
	const struct child_sa *child;
	uint64_t serials[4];
	struct pair pair;

	(void)state;
	recorder.record = calloc(RECORDED, sizeof(*recorder.record));
	assert_non_null(recorder.record);
	begin(&pair, 20);
	pair.play->tap = on_tap;
	pair.play->tap_arg = &recorder;
	up(&pair);
	serials[0] = gateway_ike(pair.left)->serial;
	serials[1] = gateway_ike(pair.right)->serial;
	serials[2] = gateway_child(pair.left)->serial;
	serials[3] = gateway_child(pair.right)->serial;
	replay_all(&pair, &recorder);
	/* Half-open SAs that a first message made have gone by then. */
	play_run(pair.play, 300000);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	sa = gateway_ike(pair.left);
	child = gateway_child(pair.left);
	assert_int_equal(sa->serial, serials[0]);
	assert_int_equal(child->serial, serials[2]);
	assert_int_equal(gateway_ike(pair.right)->serial, serials[1]);
	assert_int_equal(gateway_child(pair.right)->serial, serials[3]);
	assert_int_equal(pair.right->events[EVENT_CHILD_UP], 1);
	/* The IVs have not moved: Quick Modes still work. */
	assert_int_equal(gateway_ike(pair.left)->engine->child_rekey(
	                     gateway_child(pair.left)),
	    OK);
	play_run(pair.play, 30000);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	assert_int_equal(pair.right->events[EVENT_CHILD_REKEYED], 1);
	free(recorder.record);
	play_free(pair.play);
}

/* Dead peers, deletes, renewal ------------------------------------------ */

static void
test_dpd(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 21);
	pair.left->building[0]->dpd_action = DPD_CLEAR;
	pair.left->building[0]->dpd_delay_ms = 10000;
	pair.left->building[0]->dpd_timeout_ms = 30000;
	up(&pair);
	play_run(pair.play, 300000);
	assert_int_equal(pair.left->events[EVENT_PEER_DEAD], 0);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	gateway_silence(pair.right, true);
	play_run(pair.play, 35000);
	assert_int_equal(pair.left->events[EVENT_PEER_DEAD], 0);
	play_run(pair.play, 20000);
	assert_int_equal(pair.left->events[EVENT_PEER_DEAD], 1);
	assert_int_equal(pair.left->events[EVENT_IKE_DOWN], 1);
	assert_int_equal(pair.left->env.sadb->count, 0);
	assert_int_equal(pair.left->kernel.sa_count, 0);
	play_free(pair.play);
}

/* Nobody watches, but a renewal finds no answer: the peer is asked then. */
static void
test_unanswered_renewal(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 23);
	up(&pair);
	gateway_silence(pair.right, true);
	/* Renewals begin a good half an hour later. */
	play_run(pair.play, 2000000);
	assert_int_equal(gateway_ike_count(pair.left), 1);
	play_run(pair.play, 1600000);
	assert_int_equal(pair.left->events[EVENT_PEER_DEAD], 1);
	assert_int_equal(pair.left->env.sadb->count, 0);
	assert_int_equal(pair.left->kernel.sa_count, 0);
	play_free(pair.play);
}

/* Traffic is proof of life: nothing is asked. */
static void
test_dpd_traffic(void **state)
{
	struct pair pair;
	uint64_t sent;

	(void)state;
	begin(&pair, 22);
	pair.left->building[0]->dpd_action = DPD_CLEAR;
	pair.left->building[0]->dpd_delay_ms = 10000;
	up(&pair);
	sent = pair.left->net.sent;
	for (unsigned i = 0; i < 40; i++) {
		expect_traffic(&pair);
		play_run(pair.play, 2000);
	}
	assert_int_equal(pair.left->net.sent, sent);
	play_free(pair.play);
}

static void
test_close(void **state)
{
	struct pair pair;
	struct ike_sa *sa;

	(void)state;
	begin(&pair, 23);
	storm(pair.play);
	up(&pair);
	sa = gateway_ike(pair.right);
	assert_int_equal(sa->engine->close(sa), OK);
	play_run(pair.play, 20000);
	assert_int_equal(pair.left->env.sadb->count, 0);
	assert_int_equal(pair.right->env.sadb->count, 0);
	assert_int_equal(pair.left->events[EVENT_IKE_DOWN], 1);
	assert_int_equal(pair.left->events[EVENT_CHILD_DOWN], 1);
	assert_int_equal(pair.right->events[EVENT_IKE_DOWN], 1);
	assert_int_equal(pair.left->kernel.sa_count, 0);
	play_free(pair.play);
}

static void
test_child_close(void **state)
{
	struct pair pair;
	struct child_sa *child;

	(void)state;
	begin(&pair, 24);
	up(&pair);
	child = gateway_child(pair.right);
	assert_int_equal(child->sa->engine->child_close(child), OK);
	play_run(pair.play, 20000);
	assert_true(play_settled(pair.left, pair.right, 1, 0));
	assert_int_equal(pair.left->events[EVENT_CHILD_DOWN], 1);
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(pair.play, 20000);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	play_free(pair.play);
}

static void
test_child_rekey(void **state)
{
	struct seeds all = seeds(30000, 40);

	(void)state;
	for (uint64_t seed = all.at; seed < all.end; seed++) {
		struct pair pair;
		struct child_sa *child;
		unsigned who = (unsigned)(seed % 3); /* left, right, both */

		begin(&pair, seed);
		up(&pair);
		if (seed % 2)
			storm(pair.play);
		child = gateway_child(pair.left);
		if (who != 1)
			child->sa->engine->child_rekey(child);
		play_run(pair.play, play_below(pair.play, 80));
		child = gateway_child(pair.right);
		if (who != 0 && child != NULL)
			child->sa->engine->child_rekey(child);
		play_run(pair.play, 4000);
		play_until(pair.play, settled_once, &pair, 3700000);
		if (!play_settled(pair.left, pair.right, 1, 1))
			fail_msg("seed %llu", (unsigned long long)seed);
		expect_traffic(&pair);
		assert_int_equal(pair.left->events[EVENT_CHILD_DOWN], 0);
		assert_int_equal(pair.right->events[EVENT_CHILD_DOWN], 0);
		assert_true(pair.left->events[EVENT_CHILD_REKEYED] +
		                pair.left->events[EVENT_CHILD_UP] >
		            1);
		play_free(pair.play);
	}
}

static void
rekey_ike(struct gateway *gw)
{
	struct ike_sa *sa = gateway_ike(gw);

	if (sa != NULL)
		assert_int_equal(sa->engine->rekey(sa), OK);
}

static void
test_ike_rekey(void **state)
{
	struct seeds all = seeds(40000, 40);

	(void)state;
	for (uint64_t seed = all.at; seed < all.end; seed++) {
		struct pair pair;
		uint64_t spi;
		unsigned who = (unsigned)(seed % 3);

		begin(&pair, seed);
		up(&pair);
		if (seed % 2)
			storm(pair.play);
		spi = gateway_ike(pair.left)->spi_i;
		if (who != 1)
			rekey_ike(pair.left);
		play_run(pair.play, play_below(pair.play, 80));
		if (who != 0)
			rekey_ike(pair.right);
		play_run(pair.play, 10000);
		play_until(pair.play, settled_once, &pair, 11000000);
		if (!play_settled(pair.left, pair.right, 1, 1))
			fail_msg("seed %llu", (unsigned long long)seed);
		expect_traffic(&pair);
		assert_int_not_equal(gateway_ike(pair.left)->spi_i, spi);
		assert_int_equal(pair.left->events[EVENT_IKE_DOWN], 0);
		assert_int_equal(pair.right->events[EVENT_IKE_DOWN], 0);
		assert_int_equal(pair.left->events[EVENT_CHILD_DOWN], 0);
		play_free(pair.play);
	}
}

static unsigned
established(const struct gateway *gw)
{
	unsigned count = 0;

	for (const struct ike_sa *sa = gw->env.sadb->first; sa != NULL;
	     sa = sa->next)
		count += sa->state == IKE_ESTABLISHED;
	return count;
}

/* Interop: of two that both ends made at once, strongSwan deletes its own in
 * ten seconds, whichever we think has lost. Ours must be good until then. */
static void
test_ike_rekey_rivals(void **state)
{
	struct seeds all = seeds(41000, 10);

	(void)state;
	for (uint64_t seed = all.at; seed < all.end; seed++) {
		struct ike_sa *sa, *loser = NULL;
		struct pair pair;
		uint64_t spi;

		begin(&pair, seed);
		up(&pair);
		spi = gateway_ike(pair.left)->spi_i;
		rekey_ike(pair.left);
		rekey_ike(pair.right);
		play_run(pair.play, 3000);
		for (sa = pair.left->env.sadb->first; sa != NULL; sa = sa->next)
			if (sa->spi_i != spi &&
			    (loser == NULL || sa->spi_i < loser->spi_i))
				loser = sa;
		assert_non_null(loser);
		play_run(pair.play, 9000);
		assert_int_equal(
		    established(loser->initiator ? pair.left : pair.right), 2);
		play_until(pair.play, settled_once, &pair, 11000000);
		assert_true(play_settled(pair.left, pair.right, 1, 1));
		expect_traffic(&pair);
		assert_int_equal(pair.left->events[EVENT_CHILD_DOWN], 0);
		play_free(pair.play);
	}
}

/* Renewals go through the NAT on the ports that are open, from either end. */
static void
test_nat_renewal(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct pair pair;
		struct gateway *gw;
		struct child_sa *child;

		begin_nat(&pair, 60 + i, i < 2 ? MODE_TUNNEL : MODE_TRANSPORT);
		gw = i % 2 == 0 ? pair.left : pair.right;
		up(&pair);
		rekey_ike(gw);
		play_run(pair.play, 30000);
		assert_true(play_settled(pair.left, pair.right, 1, 1));
		child = gateway_child(gw);
		assert_int_equal(child->sa->engine->child_rekey(child), OK);
		play_run(pair.play, 60000);
		assert_true(play_settled(pair.left, pair.right, 1, 1));
		assert_int_equal(pair.right->events[EVENT_IKE_REKEYED], 1);
		assert_int_equal(pair.right->events[EVENT_CHILD_REKEYED], 1);
		if (i < 2)
			expect_traffic(&pair);
		play_free(pair.play);
	}
}

/* A week of lifetimes, with weather: one of everything at its end, no gap in
 * between. */
static void
week(bool loss)
{
	struct pair pair;
	unsigned gaps = 0;

	begin(&pair, loss ? 26 : 25);
	if (loss)
		pair.play->weather.loss_permille = 50;
	up(&pair);
	for (unsigned minute = 0; minute < 7 * 24 * 60; minute += 10) {
		play_run(pair.play, 600000);
		gaps += !play_traffic(
		    pair.left, pair.right, "10.1.0.5", "10.2.0.6");
		gaps += !play_traffic(
		    pair.right, pair.left, "10.2.0.6", "10.1.0.5");
	}
	assert_int_equal(gaps, 0);
	assert_true(play_until(pair.play, settled_once, &pair, 3600000));
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	assert_int_equal(pair.left->events[EVENT_CHILD_DOWN], 0);
	assert_int_equal(pair.left->events[EVENT_IKE_DOWN], 0);
	assert_in_range(pair.left->events[EVENT_CHILD_REKEYED], 168, 400);
	assert_in_range(pair.left->events[EVENT_IKE_REKEYED], 56, 130);
	play_free(pair.play);
}

static void
test_week(void **state)
{
	(void)state;
	week(false);
	week(true);
}

/* Deleting the ISAKMP SA does not delete the IPsec SAs; who began makes a new
 * one, which adopts them. */
static void
test_isakmp_delete(void **state)
{
	struct pair pair;
	struct ike_sa *sa;
	uint64_t child;

	(void)state;
	begin(&pair, 27);
	up(&pair);
	child = gateway_child(pair.left)->serial;
	/* As a peer does that deletes this SA alone. */
	sa = gateway_ike(pair.right);
	sa->expire_timer.fire(sa->expire_timer.arg);
	play_run(pair.play, 500);
	assert_int_equal(gateway_ike_count(pair.left), 0);
	assert_int_equal(gateway_child_count(pair.left, NULL), 1);
	expect_traffic(&pair);
	play_run(pair.play, 20000);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	assert_int_equal(gateway_child(pair.left)->serial, child);
	assert_int_equal(gateway_child(pair.left)->sa->state, IKE_ESTABLISHED);
	assert_int_equal(pair.left->events[EVENT_CHILD_DOWN], 0);
	expect_traffic(&pair);
	play_free(pair.play);
}

/* Nobody renews: the children end by themselves, and then nothing is left. */
static void
test_isakmp_expiry(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 28);
	for (unsigned i = 0; i < 2; i++) {
		struct conn *conn =
		    (i == 0 ? pair.left : pair.right)->building[0];

		conn->rekey = false;
		conn->ike_lifetime_ms = 600000;
		conn->lifetime_ms = 1800000;
	}
	up(&pair);
	play_run(pair.play, 700000);
	assert_int_equal(gateway_ike_count(pair.left), 0);
	expect_traffic(&pair);
	play_run(pair.play, 1300000);
	assert_int_equal(pair.left->env.sadb->count, 0);
	assert_int_equal(pair.right->env.sadb->count, 0);
	assert_int_equal(pair.left->kernel.sa_count, 0);
	assert_int_equal(pair.left->events[EVENT_CHILD_DOWN], 1);
	assert_int_equal(pair.left->events[EVENT_IKE_DOWN], 1);
	play_free(pair.play);
}

/* The smaller lifetime counts; the responder tells its own. */
static void
test_lifetimes(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 29);
	pair.right->building[0]->lifetime_ms = 1200000;
	pair.right->building[0]->ike_lifetime_ms = 900000;
	up(&pair);
	assert_int_equal(gateway_child(pair.left)->lifetime_ms, 1200000);
	assert_int_equal(gateway_child(pair.right)->lifetime_ms, 1200000);
	assert_in_range(gateway_ike(pair.right)->expire_at_ms, 890000, 1000000);
	play_free(pair.play);

	begin(&pair, 30);
	pair.left->building[0]->lifetime_ms = 5000; /* below the floor */
	pair.left->building[0]->rekey = false;
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	assert_true(play_until(pair.play, both_up, &pair, 60000));
	assert_int_equal(gateway_child(pair.left)->lifetime_ms, 5000);
	assert_int_equal(gateway_child(pair.right)->lifetime_ms, 60000);
	play_free(pair.play);
}

/* A peer that lost its memory says so with its next first contact. */
static void
test_restart(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 31);
	up(&pair);
	gateway_restart(pair.left);
	assert_int_equal(gateway_ike_count(pair.right), 1);
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(pair.play, 10000);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	assert_int_equal(pair.right->events[EVENT_CHILD_DOWN], 1);
	expect_traffic(&pair);
	play_free(pair.play);
}

/* One host, two identities of ours: a first contact with one says nothing about
 * the other. */
static void
test_first_contact_of_two(void **state)
{
	static const char *const own[] = { "@one.example", "@two.example" };
	struct conn *conn;
	struct pair pair;
	size_t i;

	(void)state;
	pair.play = play_new(35);
	pair.left = play_gateway(pair.play, "left", "192.0.2.1");
	pair.right = play_gateway(pair.play, "right", "192.0.2.2");
	for (i = 0; i < 2; i++) {
		conn =
		    gateway_conn(pair.left, i == 0 ? "one" : "two", "192.0.2.2",
		        i == 0 ? "10.1.0.0/16" : "10.3.0.0/16", "10.2.0.0/16");
		conn->keyexchange = KEYEX_IKEV1;
		conn_set_ids(conn, own[i], "@right.example");
	}
	conn = gateway_conn(
	    pair.right, "any", NULL, "10.2.0.0/16", "10.1.0.0/16,10.3.0.0/16");
	conn->keyexchange = KEYEX_IKEV1;
	conn_set_ids(conn, "@right.example", "%any");
	gateway_psk(pair.left, NULL, NULL, "secret 1");
	gateway_psk(pair.right, NULL, NULL, "secret 1");
	gateway_load(pair.left);
	gateway_load(pair.right);
	assert_int_equal(gateway_up(pair.left, "one", 0), OK);
	play_run(pair.play, 10000);
	assert_int_equal(gateway_up(pair.left, "two", 0), OK);
	play_run(pair.play, 10000);
	assert_true(play_settled(pair.left, pair.right, 2, 2));
	assert_int_equal(pair.left->events[EVENT_IKE_DOWN], 0);
	play_free(pair.play);
}

/* Refusals of the kernel are told to the peer, and nothing stays. */
static void
test_kernel_refuses(void **state)
{
	static const uint8_t ops[] = { KMSG_SPI, KMSG_SA_ADD, KMSG_POLICY_ADD };

	(void)state;
	for (unsigned i = 0; i < 2 * sizeof(ops); i++) {
		struct pair pair;
		struct gateway *gw;

		begin(&pair, 32 + i);
		gw = i % 2 ? pair.left : pair.right;
		gw->kernel.refuse_op = ops[i / 2];
		gw->kernel.refuse_count = 1;
		assert_int_equal(gateway_up(pair.left, "net", 0), OK);
		play_run(pair.play, 400000);
		assert_true(play_settled(pair.left, pair.right, 1, 0));
		assert_int_equal(gw->events[EVENT_CHILD_FAILED], 1);
		assert_int_equal(gateway_up(pair.left, "net", 0), OK);
		play_run(pair.play, 10000);
		assert_true(play_settled(pair.left, pair.right, 1, 1));
		play_free(pair.play);
	}
}

/* Strangers ------------------------------------------------------------- */

static const struct endpoint stranger = { { ADDR_V4, { 198, 51, 100, 66 } },
	500 };

static void
inject(struct pair *pair, const struct record *record)
{
	struct endpoint dst = record->dst;

	play_inject(pair->play, &stranger, &dst, record->natt,
	    view_of(record->octets, record->len));
}

static void
test_aggressive(void **state)
{
	struct recorder recorder = { .count = 0 };
	struct pair pair;
	uint64_t sent;

	(void)state;
	recorder.record = calloc(RECORDED, sizeof(*recorder.record));
	assert_non_null(recorder.record);
	begin(&pair, 40);
	pair.play->tap = on_tap;
	pair.play->tap_arg = &recorder;
	up(&pair);
	pair.play->tap = NULL;
	sent = pair.right->net.sent;
	recorder.record[0].octets[18] = EXCH_AGGRESSIVE;
	inject(&pair, &recorder.record[0]);
	/* Transaction, New Group, and what nobody knows. */
	recorder.record[0].octets[18] = EXCH_TRANSACTION;
	inject(&pair, &recorder.record[0]);
	recorder.record[0].octets[18] = EXCH_NEW_GROUP;
	inject(&pair, &recorder.record[0]);
	recorder.record[0].octets[18] = 99;
	inject(&pair, &recorder.record[0]);
	/* A first message from an address for which there is nothing. */
	recorder.record[0].octets[18] = EXCH_IDENTITY_PROTECTION;
	inject(&pair, &recorder.record[0]);
	play_run(pair.play, 60000);
	assert_int_equal(pair.right->net.sent, sent);
	assert_int_equal(
	    pair.right->env.counter[COUNTER_AGGRESSIVE_IGNORED], 1);
	assert_int_equal(pair.right->env.counter[COUNTER_V1_WITHOUT_CONN], 1);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	free(recorder.record);
	play_free(pair.play);
}

/* First messages from everywhere: the budget holds, each is answered once. */
static void
test_half_open_flood(void **state)
{
	struct recorder recorder = { .count = 0 };
	struct endpoint src = stranger;
	struct record *first;
	struct pair pair;
	uint64_t sent;

	(void)state;
	recorder.record = calloc(RECORDED, sizeof(*recorder.record));
	assert_non_null(recorder.record);
	begin_nat(&pair, 41, MODE_TUNNEL); /* right answers anybody */
	pair.play->tap = on_tap;
	pair.play->tap_arg = &recorder;
	up(&pair);
	pair.play->tap = NULL;
	first = &recorder.record[0];
	sent = pair.right->net.sent;
	for (unsigned i = 0; i < 300; i++) {
		first->octets[0] = (uint8_t)i;
		first->octets[1] = (uint8_t)(i >> 8);
		play_inject(pair.play, &src, &first->dst, false,
		    view_of(first->octets, first->len));
	}
	play_run(pair.play, 1000);
	assert_int_equal(
	    pair.right->env.sadb->half_open, limit_defaults.per_prefix_max);
	assert_int_equal(
	    pair.right->net.sent - sent, limit_defaults.per_prefix_max);
	/* Nothing is said twice without being asked again. */
	play_run(pair.play, 60000);
	assert_int_equal(
	    pair.right->net.sent - sent, limit_defaults.per_prefix_max);
	assert_int_equal(pair.right->env.sadb->half_open, 0);
	free(recorder.record);
	play_free(pair.play);
}

struct mutator {
	struct recorder recorder;
	uint64_t state;
	unsigned permille;
};

static uint64_t
mutator_random(struct mutator *m)
{
	m->state = m->state * 6364136223846793005ull + 1442695040888963407ull;
	return m->state >> 33;
}

static void
mutate(struct mutator *m, uint8_t *octets, size_t *len)
{
	unsigned flips = 1 + (unsigned)(mutator_random(m) % 6);

	if (mutator_random(m) % 8 == 0 && *len > 0)
		*len = mutator_random(m) % *len;
	for (unsigned i = 0; i<flips && * len> 0; i++)
		octets[mutator_random(m) % *len] ^=
		    (uint8_t)(1u << mutator_random(m) % 8);
}

/* Damaged copies of everything travel beside the real messages. */
static bool
on_mutate(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct mutator *m = arg;
	uint8_t copy[4096];

	(void)from;
	for (unsigned i = 0; i < 8; i++) {
		size_t len = packet->octets.len;

		if (mutator_random(m) % 1000 >= m->permille)
			continue;
		memcpy(copy, octets, len);
		mutate(m, copy, &len);
		/* Structure below the header, not only noise in it. */
		play_inject(play, &packet->local, &packet->remote, packet->natt,
		    view_of(copy, len));
	}
	return true;
}

static void
test_mutated(void **state)
{
	struct seeds all = seeds(50000, 20);
	unsigned up_count = 0;

	(void)state;
	for (uint64_t seed = all.at; seed < all.end; seed++) {
		struct mutator mutator = { .state = seed,
			.permille = seed % 2 ? 700 : 20 };
		struct pair pair;

		begin(&pair, seed);
		pair.play->tap = on_mutate;
		pair.play->tap_arg = &mutator;
		gateway_up(pair.left, "net", 0);
		play_run(pair.play, 120000);
		up_count += gateway_child_count(pair.left, NULL) > 0;
		pair.play->tap = NULL;
		/* Alive, and able to do it properly. */
		gateway_restart(pair.left);
		gateway_restart(pair.right);
		up(&pair);
		assert_true(play_settled(pair.left, pair.right, 1, 1));
		play_free(pair.play);
	}
	/* Main Mode's first messages are not protected: a damaged copy that
	 * is there first ends a handshake, but not all of them. */
	assert_true(up_count > 0);
}

/* Below the encryption ---------------------------------------------------- */

/* Damages the inside of a sealed message of left's, gives it a message ID, a
 * HASH(1) and a cover that are right again, and sends it to right. */
static void
forge(struct pair *pair, struct mutator *m, const struct record *record)
{
	struct v1_sa *v1 = v1_sa(gateway_ike(pair->left));
	uint8_t iv[V1_BLOCK_MAX], next[V1_BLOCK_MAX], hash[PRF_MAX];
	uint8_t octets[4096];
	struct wire_header header;
	struct msg *msg, *inner;
	struct buf buf;
	size_t skip, len;

	assert_int_equal(
	    msg_new(&msg, view_of(record->octets, record->len)), OK);
	assert_int_equal(
	    v1_key_iv_phase2(&v1->keys, v1->iv, msg->header.id, iv), OK);
	if (v1_sk_open(&v1->keys, msg, iv, next) != OK || msg->count < 2) {
		msg_free(msg);
		return;
	}
	header = msg->header;
	header.id = (uint32_t)mutator_random(m) | 1;
	buf_init(&buf, octets, sizeof(octets));
	wire_header_write(&buf, &header);
	skip = msg->payload[0].whole.len;
	len = v1_sk_rest(msg).len;
	buf_view(&buf, msg->payload[0].whole);
	buf_view(&buf, v1_sk_rest(msg));
	msg_free(msg);
	len = buf.len - WIRE_HEADER - skip;
	mutate(m, octets + WIRE_HEADER + skip, &len);
	buf.len = WIRE_HEADER + skip + len;
	buf_patch_u32(&buf, 24, (uint32_t)buf.len);
	/* What the receiver will take for the rest, padding left out. */
	if (msg_new(&inner, buf_done(&buf)) != OK)
		return;
	if (wire_payloads_read(inner, 1, header.next,
	        view_of(octets + WIRE_HEADER, buf.len - WIRE_HEADER),
	        true) == OK) {
		v1_key_hash1(&v1->keys, header.id, v1_sk_rest(inner), hash);
		memcpy(octets + WIRE_HEADER + 4, hash, v1->keys.prf->out);
	}
	msg_free(inner);
	v1_key_iv_phase2(&v1->keys, v1->iv, header.id, iv);
	if (v1_sk_seal(&v1->keys, &buf, iv) != OK)
		return;
	buf_patch_u32(&buf, 24, (uint32_t)buf.len);
	play_inject(pair->play, &record->src, &record->dst, record->natt,
	    buf_done(&buf));
}

/* Authentic nonsense: an insider, or a peer with faults. */
static void
test_mutated_inside(void **state)
{
	struct seeds all = seeds(60000, 10);

	(void)state;
	for (uint64_t seed = all.at; seed < all.end; seed++) {
		struct mutator mutator = { .state = seed };
		struct recorder *recorder = &mutator.recorder;
		struct pair pair;
		struct conn *conn;
		uint64_t spi;

		recorder->record = calloc(RECORDED, sizeof(*recorder->record));
		assert_non_null(recorder->record);
		begin(&pair, seed);
		conn = pair.left->building[0];
		conn->dpd_action = DPD_CLEAR;
		conn->dpd_delay_ms = 5000;
		conn_set_esp(conn, seed % 2 ? "aes128-sha256-curve25519"
		                            : "aes256gcm16,aes128-sha256");
		conn_set_esp(pair.right->building[0],
		    seed % 2 ? "aes128-sha256-curve25519" : "aes128-sha256");
		pair.play->tap = on_tap;
		pair.play->tap_arg = recorder;
		up(&pair);
		play_run(pair.play, 12000);
		gateway_child(pair.left)->sa->engine->child_rekey(
		    gateway_child(pair.left));
		play_run(pair.play, 10000);
		pair.play->tap = NULL;
		spi = gateway_ike(pair.left)->spi_i;
		for (unsigned round = 0; round < 300; round++) {
			const struct record *record =
			    &recorder->record[mutator_random(&mutator) %
			                      recorder->count];

			if (record->of != pair.left ||
			    gateway_ike(pair.left) == NULL ||
			    gateway_ike(pair.left)->spi_i != spi ||
			    record->octets[18] == EXCH_IDENTITY_PROTECTION)
				continue;
			forge(&pair, &mutator, record);
			play_run(pair.play, 20);
		}
		play_run(pair.play, 300000);
		gateway_restart(pair.left);
		gateway_restart(pair.right);
		up(&pair);
		assert_true(play_settled(pair.left, pair.right, 1, 1));
		free(recorder->record);
		play_free(pair.play);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_handshake),
		cmocka_unit_test(test_suites),
		cmocka_unit_test(test_choice),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_weather),
		cmocka_unit_test(test_both_begin),
		cmocka_unit_test(test_quick_modes_in_turn),
		cmocka_unit_test(test_turns_after_a_close),
		cmocka_unit_test(test_turns_of_a_replaced_sa),
		cmocka_unit_test(test_many_quick_modes),
		cmocka_unit_test(test_two_connections),
		cmocka_unit_test(test_nat),
		cmocka_unit_test(test_nat_rebinding),
		cmocka_unit_test(test_nat_transport),
		cmocka_unit_test(test_forceencaps),
		cmocka_unit_test(test_wrong_psk),
		cmocka_unit_test(test_no_psk),
		cmocka_unit_test(test_several_psks),
		cmocka_unit_test(test_conn_by_identity),
		cmocka_unit_test(test_no_proposal),
		cmocka_unit_test(test_refused_child),
		cmocka_unit_test(test_lost_last_message),
		cmocka_unit_test(test_replay),
		cmocka_unit_test(test_dpd),
		cmocka_unit_test(test_unanswered_renewal),
		cmocka_unit_test(test_dpd_traffic),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_child_close),
		cmocka_unit_test(test_child_rekey),
		cmocka_unit_test(test_ike_rekey),
		cmocka_unit_test(test_ike_rekey_rivals),
		cmocka_unit_test(test_nat_renewal),
		cmocka_unit_test(test_week),
		cmocka_unit_test(test_isakmp_delete),
		cmocka_unit_test(test_isakmp_expiry),
		cmocka_unit_test(test_lifetimes),
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_first_contact_of_two),
		cmocka_unit_test(test_kernel_refuses),
		cmocka_unit_test(test_aggressive),
		cmocka_unit_test(test_half_open_flood),
		cmocka_unit_test(test_mutated),
		cmocka_unit_test(test_mutated_inside),
	};

	/* PLAY=test_week runs one alone. */
	if (getenv("PLAY") != NULL)
		cmocka_set_test_filter(getenv("PLAY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
