/* What other implementations of IKEv1 do, and we must not trip over: vendor IDs
 * in odd places, unknown payloads, padding, other numbers, Deletes and questions
 * in all forms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/wire.h"
#include "ikev1/state.h"
#include "tests/play/play.h"

#define NEXT_AT   16 /* in the header (RFC 2408 3.1) */
#define TYPE_AT   18 /* of the exchange */
#define FLAGS_AT  19
#define LENGTH_AT 24
#define ROOM      4096

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

static void
up(struct pair *pair)
{
	assert_int_equal(gateway_up(pair->left, "net", 0), OK);
	play_run(pair->play, 10000);
	assert_true(play_settled(pair->left, pair->right, 1, 1));
}

static const uint8_t dpd[16] = { 0xaf, 0xca, 0xd7, 0x13, 0x68, 0xa1, 0xf1, 0xc9,
	0x6b, 0x86, 0x96, 0xfc, 0x77, 0x57, 0x01, 0x00 };

/* Messages in other words ----------------------------------------------- */

/* A payload at the end of a chain; first is where the first one's type
 * stands. */
static void
append(uint8_t *first, struct buf *chain, size_t begins, uint8_t type,
    struct view body)
{
	uint8_t *next = first;
	size_t at = begins;

	while (*next != 0) {
		next = &chain->at[at];
		at += (size_t)chain->at[at + 2] << 8 | chain->at[at + 3];
	}
	assert_int_equal(at, chain->len);
	*next = type;
	buf_u16(chain, 0);
	buf_u16(chain, (uint16_t)(4 + body.len));
	buf_view(chain, body);
}

/* Makes a vendor ID unreadable. */
static void
hide(struct buf *message, const uint8_t vendor[static 16])
{
	for (size_t at = 0; at + 16 <= message->len; at++)
		if (memcmp(message->at + at, vendor, 16) == 0)
			message->at[at] ^= 1;
}

/* Changes the messages of Main Mode that travel in the clear: nth is 1 for the
 * first and the second, 3 for the third and the fourth. */
struct editor {
	void (*edit)(struct editor *editor, struct gateway *from, unsigned nth,
	    struct buf *message);
	struct pair *pair;
	unsigned count[2]; /* sent so far, by left and right */
	size_t octets;     /* of padding, number of vendor IDs */
	uint8_t held[512]; /* a message that comes later */
};

static bool
on_tap(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct editor *editor = arg;
	unsigned *count = &editor->count[from == editor->pair->right];
	uint8_t copy[ROOM];
	struct buf buf;

	if (octets[TYPE_AT] != EXCH_IDENTITY_PROTECTION || ++*count > 2)
		return true;
	buf_init(&buf, copy, sizeof(copy));
	buf_put(&buf, octets, packet->octets.len);
	editor->edit(editor, from, *count == 1 ? 1 : 3, &buf);
	assert_false(buf.full);
	buf_patch_u32(&buf, LENGTH_AT, (uint32_t)buf.len);
	play_inject(play, &packet->local, &packet->remote, packet->natt,
	    buf_done(&buf));
	return false;
}

static void
edit(struct pair *pair, struct editor *editor)
{
	editor->pair = pair;
	pair->play->tap = on_tap;
	pair->play->tap_arg = editor;
}

/* Vendor IDs ------------------------------------------------------------ */

/* As Cisco does: DPD is announced beside the public value. */
static void
announce_late(struct editor *editor, struct gateway *from, unsigned nth,
    struct buf *message)
{
	if (from !=
	    (editor->octets == 0 ? editor->pair->left : editor->pair->right))
		return;
	if (nth == 1)
		hide(message, dpd);
	else
		append(&message->at[NEXT_AT], message, WIRE_HEADER, P1_VID,
		    view_of(dpd, sizeof(dpd)));
}

static void
test_dpd_announced_late(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct editor editor = { .edit = announce_late, .octets = i };
		struct pair pair;

		begin(&pair, 1 + i);
		for (unsigned n = 0; n < 2; n++) {
			struct gateway *gw = n == 0 ? pair.left : pair.right;

			gw->building[0]->dpd_action = DPD_CLEAR;
			gw->building[0]->dpd_delay_ms = 10000;
			gw->building[0]->dpd_timeout_ms = 30000;
		}
		edit(&pair, &editor);
		up(&pair);
		/* Both may ask, and do so of a peer that has gone. */
		assert_true((v1_sa(gateway_ike(pair.left))->vendors &
		                V1_VENDOR_DPD) != 0);
		assert_true((v1_sa(gateway_ike(pair.right))->vendors &
		                V1_VENDOR_DPD) != 0);
		play_run(pair.play, 60000);
		assert_true(play_settled(pair.left, pair.right, 1, 1));
		gateway_silence(i == 0 ? pair.left : pair.right, true);
		play_run(pair.play, 60000);
		assert_int_equal(
		    (i == 0 ? pair.right : pair.left)->events[EVENT_PEER_DEAD],
		    1);
		play_free(pair.play);
	}
}

/* Vendor IDs of any length and number, and payloads that nobody knows. */
static void
add_payloads(uint8_t *first, struct buf *chain, size_t begins, size_t count)
{
	static const uint8_t octets[64] = { 0x4a, 0x13, 0x1c, 0x81 };

	for (size_t i = 0; i < count; i++)
		append(first, chain, begins,
		    i % 4 == 3 ? (uint8_t)(200 + i) : P1_VID,
		    view_of(octets, i % sizeof(octets)));
}

static void
add_many(struct editor *editor, struct gateway *from, unsigned nth,
    struct buf *message)
{
	(void)from;
	(void)nth;
	add_payloads(
	    &message->at[NEXT_AT], message, WIRE_HEADER, editor->octets);
}

/* Called twice for what begins with HASH: the first time with what follows
 * it. */
static void
add_sealed(struct env *env, uint8_t *first, struct buf *chain)
{
	const struct editor *editor = env->impair_arg;

	if (*first != P1_HASH)
		add_payloads(first, chain, 0, editor->octets);
}

static void
test_many_payloads(void **state)
{
	(void)state;
	for (size_t count = 1; count <= 50; count += 7) {
		struct editor editor = { .edit = add_many, .octets = count };
		struct pair pair;

		begin(&pair, 10);
		edit(&pair, &editor);
		for (unsigned n = 0; n < 2; n++) {
			struct env *env =
			    &(n == 0 ? pair.left : pair.right)->env;

			env->impair = add_sealed;
			env->impair_arg = &editor;
		}
		up(&pair);
		pair.left->env.impair = pair.right->env.impair = NULL;
		play_free(pair.play);
	}
}

/* Form ------------------------------------------------------------------ */

/* RFC 2408 3: messages are aligned at 4 octets; payloads need not be. */
static void
align(struct editor *editor, struct gateway *from, unsigned nth,
    struct buf *message)
{
	static const uint8_t octets[4] = "peer";

	(void)from;
	(void)nth;
	append(&message->at[NEXT_AT], message, WIRE_HEADER, P1_VID,
	    view_of(octets, 4 - editor->octets));
	buf_zero(message, editor->octets);
}

static void
test_alignment(void **state)
{
	(void)state;
	for (size_t octets = 0; octets < 4; octets++) {
		struct editor editor = { .edit = align, .octets = octets };
		struct pair pair;

		begin(&pair, 20);
		edit(&pair, &editor);
		up(&pair);
		assert_int_equal(
		    pair.right->env.counter[COUNTER_PACKETS_MALFORMED], 0);
		play_free(pair.play);
	}
}

/* Proposal and transform of an answer under other numbers. */
#define PROPOSAL  16 /* its number in an SA payload: header, DOI, situation... */
#define TRANSFORM 24 /* the first, behind an SPI */

static void
renumber_first(struct editor *editor, struct gateway *from, unsigned nth,
    struct buf *message)
{
	if (from != editor->pair->right || nth != 1)
		return;
	message->at[WIRE_HEADER + PROPOSAL] = 9;
	message->at[WIRE_HEADER + PROPOSAL + 8] = 7; /* no SPI */
}

static void
renumber_second(struct env *env, uint8_t *first, struct buf *chain)
{
	(void)env;
	if (*first != P1_SA)
		return;
	chain->at[PROPOSAL] = 0;
	chain->at[PROPOSAL + 12] = 250; /* behind an SPI */
}

/* RFC 2408 4.2: a responder SHOULD keep the numbers. */
static void
test_other_numbers(void **state)
{
	struct editor editor = { .edit = renumber_first };
	struct pair pair;

	(void)state;
	begin(&pair, 30);
	conn_set_ike(pair.left->building[0],
	    "aes256-aes128-sha512-sha256-ecp256-curve25519");
	edit(&pair, &editor);
	pair.right->env.impair = renumber_second;
	up(&pair);
	pair.right->env.impair = NULL;
	play_free(pair.play);
}

/* RFC 2408 3.1: nobody has defined version 1.1. */
static void
set_minor(struct editor *editor, struct gateway *from, unsigned nth,
    struct buf *message)
{
	(void)editor;
	(void)from;
	(void)nth;
	message->at[NEXT_AT + 1] = 0x11;
}

static void
test_minor_version(void **state)
{
	struct editor editor = { .edit = set_minor };
	struct pair pair;

	(void)state;
	begin(&pair, 40);
	edit(&pair, &editor);
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(pair.play, 500);
	assert_int_equal(pair.right->env.sadb->count, 0);
	assert_int_equal(pair.right->net.sent, 0);
	play_free(pair.play);
}

/* RFC 3947 3.2: a host with several addresses sends a hash of each; ours comes
 * first. Some are of another length, or missing. */
static void
more_natd(struct editor *editor, struct gateway *from, unsigned nth,
    struct buf *message)
{
	static const uint8_t octets[64] = { 1 };

	if (nth != 3 || from != editor->pair->left)
		return;
	for (size_t i = 0; i < editor->octets; i++)
		append(&message->at[NEXT_AT], message, WIRE_HEADER, P1_NAT_D,
		    view_of(octets, 1 + i * 31 % 64));
}

static void
test_natd_count(void **state)
{
	(void)state;
	for (size_t count = 0; count < 12; count += 3) {
		struct editor editor = { .edit = more_natd, .octets = count };
		struct pair pair;

		begin(&pair, 45);
		edit(&pair, &editor);
		up(&pair);
		assert_false(gateway_ike(pair.right)->nat_remote);
		assert_false(gateway_ike(pair.right)->encap);
		play_free(pair.play);
	}
}

/* The commit bit, which is ignored, and octets behind the end of a message.
 * IKEv1 protects no header. */
static bool
on_commit(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	uint8_t copy[ROOM];
	struct buf buf;

	(void)from;
	(void)arg;
	buf_init(&buf, copy, sizeof(copy));
	buf_put(&buf, octets, packet->octets.len);
	copy[FLAGS_AT] |= FLAG_V1_COMMIT;
	buf_u32(&buf, 0xdeadbeef);
	buf_u8(&buf, 0);
	play_inject(play, &packet->local, &packet->remote, packet->natt,
	    buf_done(&buf));
	return false;
}

static void
test_commit_and_tail(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 50);
	pair.play->tap = on_commit;
	up(&pair);
	assert_int_equal(gateway_ike(pair.right)
	                     ->engine->child_rekey(gateway_child(pair.right)),
	    OK);
	play_run(pair.play, 20000);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	play_free(pair.play);
}

/* Quick Mode ------------------------------------------------------------ */

/* Without identities the outer addresses are meant (RFC 2409 5.5). */
static void
drop_identities(struct env *env, uint8_t *first, struct buf *chain)
{
	uint8_t *next = first;
	size_t at = 0;

	(void)env;
	if (*first != P1_SA)
		return;
	while (*next != P1_ID) {
		next = &chain->at[at];
		at += (size_t)chain->at[at + 2] << 8 | chain->at[at + 3];
	}
	*next = 0;
	chain->len = at;
}

static void
test_no_identities(void **state)
{
	struct pair pair;

	(void)state;
	for (unsigned dynamic = 0; dynamic < 2; dynamic++) {
		pair.play = play_new(60);
		pair.left = play_gateway(pair.play, "left", "192.0.2.1");
		pair.right = play_gateway(pair.play, "right", "192.0.2.2");
		gateway_conn(pair.left, "net", "192.0.2.2", NULL, NULL)
		    ->keyexchange = KEYEX_IKEV1;
		gateway_conn(pair.right, "net", "192.0.2.1",
		    dynamic ? NULL : "10.2.0.0/16", NULL)
		    ->keyexchange = KEYEX_IKEV1;
		gateway_psk(pair.left, NULL, NULL, "secret");
		gateway_psk(pair.right, NULL, NULL, "secret");
		gateway_load(pair.left);
		gateway_load(pair.right);
		pair.left->env.impair = drop_identities;
		assert_int_equal(gateway_up(pair.left, "net", 0), OK);
		play_run(pair.play, 10000);
		assert_true(
		    play_settled(pair.left, pair.right, 1, dynamic ? 1 : 0));
		assert_int_equal(
		    pair.left->events[EVENT_CHILD_FAILED], !dynamic);
		play_free(pair.play);
	}
}

/* Each form of an identity that stands for selectors. */
static void
test_selectors(void **state)
{
	static const char *const rows[][2] = {
		{ "10.1.2.3", "10.2.0.0/16" },
		{ "0.0.0.0/0", "0.0.0.0/0" },
		{ "10.1.0.1-10.1.0.9", "10.2.0.0/17" },
		{ "10.1.0.0/16[tcp/80]", "10.2.0.7[tcp]" },
		{ "10.1.0.0/16[17/1701]", "0.0.0.0/0[udp/1701]" },
		{ "10.1.0.0/16[icmp]", "10.2.0.0/16[icmp]" },
		{ "2001:db8:1::/48", "::/0" },
		{ "2001:db8:1::1-2001:db8:1::7", "2001:db8:2::9[tcp/22]" },
	};
	struct pair pair;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		pair.play = play_new(70 + i);
		pair.left = play_gateway(pair.play, "left", "192.0.2.1");
		pair.right = play_gateway(pair.play, "right", "192.0.2.2");
		gateway_conn(
		    pair.left, "net", "192.0.2.2", rows[i][0], rows[i][1])
		    ->keyexchange = KEYEX_IKEV1;
		gateway_conn(
		    pair.right, "net", "192.0.2.1", rows[i][1], rows[i][0])
		    ->keyexchange = KEYEX_IKEV1;
		gateway_psk(pair.left, NULL, NULL, "secret");
		gateway_psk(pair.right, NULL, NULL, "secret");
		gateway_load(pair.left);
		gateway_load(pair.right);
		up(&pair);
		assert_true(ts_list_equal(&gateway_child(pair.left)->ts_local,
		    &gateway_child(pair.right)->ts_remote));
		assert_true(ts_list_equal(&gateway_child(pair.left)->ts_remote,
		    &gateway_child(pair.right)->ts_local));
		play_free(pair.play);
	}
}

/* What stands in a chain of Quick Mode: the only transform, and both IDs. */
struct said {
	size_t transform_len, id_len[2];
	uint8_t transform[256], id[2][64];
	uint32_t seconds; /* of RESPONDER-LIFETIME */
};

static void
listen(struct said *said, uint8_t first, const struct buf *chain)
{
	size_t at = 0, ids = 0, len;

	memset(said, 0, sizeof(*said));
	for (uint8_t type = first; type != 0; at += len) {
		const uint8_t *payload = chain->at + at;
		bool lifetime =
		    type == P1_N && payload[10] == 0x60 && payload[11] == 0x00;

		len = (size_t)payload[2] << 8 | payload[3];
		if (type == P1_SA) {
			said->transform_len = len - TRANSFORM;
			memcpy(said->transform, payload + TRANSFORM,
			    len - TRANSFORM);
		} else if (type == P1_ID && ids < 2) {
			said->id_len[ids] = len - 4;
			memcpy(said->id[ids++], payload + 4, len - 4);
		} else if (lifetime) {
			/* SPI, life type as TV, duration as TLV */
			said->seconds = (uint32_t)payload[24] << 24 |
			                (uint32_t)payload[25] << 16 |
			                (uint32_t)payload[26] << 8 |
			                payload[27];
		}
		type = payload[0];
	}
}

static void
listen_to_answer(struct env *env, uint8_t *first, struct buf *chain)
{
	struct said *said = env->impair_arg;

	if (*first == P1_SA)
		listen(said + 1, *first, chain);
}

/* The same in other words: attributes in another order and form, lifetimes of
 * eight octets, host bits in an ID. */
static void
speak_oddly(struct env *env, uint8_t *first, struct buf *chain)
{
	static const uint8_t attributes[] = {
		0, 6, 0, 2, 0, 128, /* key length */
		0x80, 1, 0, 2, 0, 2, 0, 8, 0, 0, 0, 0, 0, 70, 0,
		0, /* kilobytes */
		0, 1, 0, 2, 0, 1, 0, 2, 0, 8, 0, 0, 0, 0, 0, 1, 0x51,
		0x80,                  /* seconds */
		0x80, 5, 0, 5,         /* SHA-256 */
		0, 4, 0, 4, 0, 0, 0, 1 /* tunnel */
	};
	struct said *said = env->impair_arg;
	uint8_t copy[ROOM];
	struct buf buf;
	size_t len, added = sizeof(attributes);

	if (*first != P1_SA)
		return;
	len = (size_t)chain->at[2] << 8 | chain->at[3];
	buf_init(&buf, copy, sizeof(copy));
	buf_put(&buf, chain->at, TRANSFORM + 8);
	buf_put(&buf, attributes, added);
	buf_patch_u16(&buf, 2, (uint16_t)buf.len);
	buf_patch_u16(&buf, 14, (uint16_t)(buf.len - 12));
	buf_patch_u16(&buf, TRANSFORM + 2, (uint16_t)(8 + added));
	copy[PROPOSAL] = 77;
	copy[TRANSFORM + 4] = 200;
	buf_put(&buf, chain->at + len, chain->len - len);
	/* The last IDs are subnets: 10.1.0.0/16, 10.2.0.0/16. */
	copy[buf.len - 5] = 9;
	memcpy(chain->at, copy, buf.len);
	chain->len = buf.len;
	listen(said, *first, chain);
}

/* What is agreed to goes back octet for octet; a lifetime of ours that is
 * shorter is told beside it (RFC 2407 4.6.3.1). */
static void
test_echo(void **state)
{
	struct said said[2];
	struct pair pair;

	(void)state;
	memset(said, 0, sizeof(said));
	begin(&pair, 75);
	pair.left->env.impair = speak_oddly;
	pair.right->env.impair = listen_to_answer;
	pair.left->env.impair_arg = pair.right->env.impair_arg = said;
	pair.right->building[0]->lifetime_ms = 1200000;
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(pair.play, 200);
	assert_in_range(said[0].transform_len, 50, 80);
	assert_int_equal(said[1].transform_len, said[0].transform_len);
	assert_memory_equal(
	    said[1].transform, said[0].transform, said[0].transform_len);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(said[0].id_len[i], 12);
		assert_int_equal(said[1].id_len[i], 12);
		assert_memory_equal(said[1].id[i], said[0].id[i], 12);
	}
	assert_int_equal(said[1].seconds, 1200);
	play_free(pair.play);
}

/* Two Quick Modes are refused at once: each refusal says which it is for. */
static void
test_two_refused(void **state)
{
	static const char *const names[] = { "one", "two" };
	struct conn *conn;
	struct pair pair;

	(void)state;
	begin(&pair, 80);
	for (unsigned i = 0; i < 2; i++) {
		/* No such selectors, and no such algorithms. */
		conn = gateway_conn(pair.left, names[i], "192.0.2.2",
		    "10.1.0.0/16", i == 0 ? "10.77.0.0/16" : "10.2.0.0/16");
		conn->keyexchange = KEYEX_IKEV1;
		conn_set_esp(conn, "aes256-sha512");
	}
	gateway_load(pair.left);
	up(&pair);
	assert_int_equal(gateway_up(pair.left, "one", 0), OK);
	assert_int_equal(gateway_up(pair.left, "two", 0), OK);
	play_run(pair.play, 5000);
	assert_int_equal(pair.left->events[EVENT_CHILD_FAILED], 2);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	play_free(pair.play);
}

/* MM6 is lost: the responder's Quick Mode is there before Main Mode ends. */
static bool
drop_sixth(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct editor *editor = arg;
	unsigned *count = editor->count;

	(void)play;
	(void)packet;
	if (from == editor->pair->right &&
	    octets[TYPE_AT] == EXCH_IDENTITY_PROTECTION)
		return ++count[0] != 3 && count[0] != 4;
	if (from == editor->pair->right && octets[TYPE_AT] == EXCH_QUICK)
		count[1]++;
	return true;
}

static void
test_early_quick_mode(void **state)
{
	struct pair pair;
	struct editor editor = { .pair = &pair };

	(void)state;
	begin(&pair, 85);
	pair.play->tap = drop_sixth;
	pair.play->tap_arg = &editor;
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	while (gateway_ike(pair.right) == NULL)
		play_run(pair.play, 1);
	assert_int_equal(gateway_up(pair.right, "net", 0), OK);
	play_run(pair.play, 900);
	assert_int_equal(editor.count[1], 1);
	assert_null(gateway_ike(pair.left));
	play_run(pair.play, 120000);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	play_free(pair.play);
}

/* A refusal is answered by nothing, so that it goes out more than once. */
static bool
drop_two(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct editor *editor = arg;

	(void)play;
	(void)packet;
	return from != editor->pair->right ||
	       octets[TYPE_AT] != EXCH_INFORMATIONAL_V1 ||
	       ++editor->count[0] > 2;
}

static void
test_lost_refusal(void **state)
{
	struct pair pair;
	struct editor editor = { .pair = &pair };

	(void)state;
	begin(&pair, 87);
	gateway_conn(
	    pair.left, "bad", "192.0.2.2", "10.1.0.0/16", "10.77.0.0/16")
	    ->keyexchange = KEYEX_IKEV1;
	gateway_load(pair.left);
	up(&pair);
	pair.play->tap = drop_two;
	pair.play->tap_arg = &editor;
	assert_int_equal(gateway_up(pair.left, "bad", 0), OK);
	play_run(pair.play, 5000);
	assert_int_equal(pair.left->events[EVENT_CHILD_FAILED], 1);
	assert_non_null(strstr(pair.left->failed, "refused"));
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	play_free(pair.play);
}

/* Informational --------------------------------------------------------- */

/* Says one thing under protection, in the words given. */
static void
say_under(struct ike_sa *sa, uint8_t type, struct view body)
{
	struct v1_sa *v1 = v1_sa(sa);
	uint32_t id = v1_message_id(v1);
	struct v1_exchange *x = v1_exchange_new(
	    &v1->ike, EXCH_INFORMATIONAL_V1, ROLE_INITIATOR, V1_INFO_BEGIN, id);
	struct v1_out out;

	assert_non_null(x);
	assert_int_equal(v1_key_iv_phase2(&v1->keys, v1->iv, id, x->iv), OK);
	x->iv_set = true;
	v1_out_begin(&out, &v1->ike, EXCH_INFORMATIONAL_V1, id);
	v1_out_hash(&out, v1);
	wire_payload(&out.wire, type, body);
	assert_int_equal(v1_out_hash1(&out, v1, id), OK);
	assert_int_equal(v1_out_send(&out, x, true, false), OK);
	exchange_end(&x->x);
}

static void
say(struct gateway *gw, uint8_t type, struct view body)
{
	say_under(gateway_ike(gw), type, body);
}

static void
say_delete(struct gateway *gw, uint8_t protocol, uint8_t size, uint16_t count,
    struct view spis)
{
	uint8_t octets[256];
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	buf_u32(&buf, 1);
	buf_u8(&buf, protocol);
	buf_u8(&buf, size);
	buf_u16(&buf, count);
	buf_view(&buf, spis);
	assert_false(buf.full);
	say(gw, P1_D, buf_done(&buf));
}

static void
test_deletes(void **state)
{
	struct pair pair;
	uint8_t spis[32], cookies[16];
	struct buf buf;
	uint32_t spi;

	(void)state;
	begin(&pair, 90);
	up(&pair);
	spi = gateway_child(pair.left)->spi_in;
	buf_init(&buf, cookies, sizeof(cookies));
	buf_u64(&buf, gateway_ike(pair.left)->spi_r); /* the wrong way round */
	buf_u64(&buf, gateway_ike(pair.left)->spi_i);
	buf_init(&buf, spis, sizeof(spis));
	buf_u32(&buf, 0xc0ffee00);
	buf_u32(&buf, spi);
	buf_u32(&buf, spi);
	buf_u32(&buf, 1);
	/* Other protocols, other sizes, other numbers, other cookies. */
	say_delete(pair.left, 2, 4, 4, view_of(spis, 16));
	say_delete(pair.left, 4, 4, 4, view_of(spis, 16));
	say_delete(pair.left, PROTO_ESP, 16, 1, view_of(spis, 16));
	say_delete(pair.left, PROTO_ESP, 2, 8, view_of(spis, 16));
	say_delete(pair.left, PROTO_ESP, 0, 4, view_of(NULL, 0));
	say_delete(pair.left, PROTO_ESP, 4, 5, view_of(spis, 16));
	say_delete(pair.left, PROTO_ESP, 4, 65535, view_of(spis, 16));
	say_delete(pair.left, PROTO_ESP, 4, 0, view_of(NULL, 0));
	say_delete(pair.left, PROTO_IKE, 16, 1, view_of(cookies, 16));
	say_delete(pair.left, PROTO_IKE, 4, 4, view_of(cookies, 16));
	say_delete(pair.left, PROTO_IKE, 0, 0, view_of(NULL, 0));
	play_run(pair.play, 5000);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	/* One that is meant, among others that are not there. */
	say_delete(pair.left, PROTO_ESP, 4, 4, view_of(spis, 16));
	play_run(pair.play, 5000);
	assert_int_equal(gateway_child_count(pair.right, NULL), 0);
	assert_int_equal(gateway_ike_count(pair.right), 1);
	play_free(pair.play);
}

static void
say_there(struct gateway *gw, struct view cookies, uint32_t sequence)
{
	uint8_t octets[64];
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	buf_u32(&buf, 1);
	buf_u8(&buf, PROTO_IKE);
	buf_u8(&buf, (uint8_t)cookies.len);
	buf_u16(&buf, N1_R_U_THERE);
	buf_view(&buf, cookies);
	buf_u32(&buf, sequence);
	say(gw, P1_N, buf_done(&buf));
}
/* RFC 3706 5.3, 5.4: a question is answered with whatever cookies it stands,
 * announced or not, once for each number that is new, again for the last. */
static void
test_questions(void **state)
{
	static const struct {
		uint32_t sequence;
		size_t cookies;
		bool answered;
	} rows[] = {
		{ 1000, 16, true },
		{ 1001, 0, true },
		{ 1001, 16, true }, /* repeated */
		{ 1000, 16, false },
		{ 999, 16, false },
		{ 1200, 3, true },
		{ 1199, 16, false },
		{ 0x7fffff00, 16, true },
		{ 0xfffffe00, 16, true },
		{ 0xfffffff0, 16, true }, /* through zero */
		{ 3, 16, true },
		{ 0xfffffff1, 16, false },
	};
	static const uint8_t wrong[16];
	struct pair pair;
	uint64_t sent;

	(void)state;
	begin(&pair, 100);
	up(&pair);
	v1_sa(gateway_ike(pair.right))->vendors = 0;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		sent = pair.right->net.sent;
		say_there(pair.left, view_of(wrong, rows[i].cookies),
		    rows[i].sequence);
		play_run(pair.play, 1000);
		assert_int_equal(pair.right->net.sent - sent, rows[i].answered);
	}
	/* Without a number. */
	sent = pair.right->net.sent;
	say(pair.left, P1_N, view_of("\0\0\0\1\1\0\x8d\x28", 8));
	play_run(pair.play, 1000);
	assert_int_equal(pair.right->net.sent, sent);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	play_free(pair.play);
}

/* A question under an SA that has been renewed is answered there. */
static void
test_question_under_the_old(void **state)
{
	uint8_t octets[12 + 16] = { 0, 0, 0, 1, PROTO_IKE, 16, 0x8d, 0x28 };
	struct pair pair;
	struct ike_sa *old;
	uint64_t sent;

	(void)state;
	octets[sizeof(octets) - 1] = 7;
	begin(&pair, 105);
	up(&pair);
	old = gateway_ike(pair.left);
	assert_int_equal(old->engine->rekey(old), OK);
	play_run(pair.play, 1000);
	assert_ptr_not_equal(gateway_ike(pair.left), old);
	assert_int_equal(old->state, IKE_REKEYED);
	sent = pair.right->net.sent;
	say_under(old, P1_N, view_of(octets, sizeof(octets)));
	play_run(pair.play, 1000);
	assert_int_equal(pair.right->net.sent, sent + 1);
	play_run(pair.play, 60000);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	play_free(pair.play);
}

/* INITIAL-CONTACT in a message of its own, as racoon sends it: other SAs of the
 * peer end, this one and its children do not; and once is enough. */
static void
test_contact_alone(void **state)
{
	uint8_t octets[8] = { 0, 0, 0, 1, PROTO_IKE, 0, 0x60, 0x02 };
	struct pair pair;

	(void)state;
	begin(&pair, 106);
	up(&pair);
	for (unsigned i = 0; i < 3; i++) {
		say(pair.left, P1_N, view_of(octets, sizeof(octets)));
		play_run(pair.play, 1000);
	}
	assert_true(v1_sa(gateway_ike(pair.right))->contacted);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	assert_int_equal(pair.right->events[EVENT_IKE_DOWN], 0);
	play_free(pair.play);
}

/* An initiator that does not take us for who was meant says so under the SA
 * that we think is up. */
static void
test_not_meant(void **state)
{
	struct pair pair;

	(void)state;
	begin(&pair, 108);
	conn_set_ids(pair.left->building[0], NULL, "@meant.example");
	conn_set_ids(pair.right->building[0], "@other.example", NULL);
	gateway_load(pair.left);
	gateway_load(pair.right);
	assert_int_equal(gateway_up(pair.left, "net", 0), OK);
	play_run(pair.play, 5000);
	assert_int_equal(pair.left->events[EVENT_IKE_FAILED], 1);
	assert_int_equal(gateway_ike_count(pair.right), 0);
	assert_int_equal(pair.right->env.sadb->count, 0);
	play_free(pair.play);
}

static bool
drop_informational(struct play *play, struct gateway *from,
    struct packet *packet, uint8_t *octets, void *arg)
{
	(void)play;
	(void)packet;
	return from != arg || octets[TYPE_AT] != EXCH_INFORMATIONAL_V1;
}

/* The peer has deleted the ISAKMP SA alone, and the Delete was lost. As long as
 * it sends traffic it is not dead. */
static void
silent_delete(bool traffic)
{
	struct pair pair;
	struct ike_sa *sa;

	begin(&pair, 110);
	pair.left->building[0]->dpd_action = DPD_CLEAR;
	pair.left->building[0]->dpd_delay_ms = 10000;
	pair.left->building[0]->dpd_timeout_ms = 30000;
	up(&pair);
	pair.play->tap = drop_informational;
	pair.play->tap_arg = pair.right;
	sa = gateway_ike(pair.right);
	sa->expire_timer.fire(sa->expire_timer.arg);
	play_run(pair.play, 12000);
	assert_int_equal(gateway_ike_count(pair.right), 0);
	assert_true(v1_sa(gateway_ike(pair.left))->dpd_asked_ms != 0);
	pair.play->tap = NULL;
	for (unsigned i = 0; i < 50; i++) {
		if (traffic)
			assert_true(play_traffic(
			    pair.right, pair.left, "10.2.0.6", "10.1.0.5"));
		play_run(pair.play, 1000);
	}
	assert_int_equal(pair.left->events[EVENT_PEER_DEAD], !traffic);
	assert_int_equal(pair.left->events[EVENT_CHILD_DOWN], !traffic);
	if (traffic) {
		assert_int_equal(pair.left->events[EVENT_IKE_REKEYED], 1);
		play_run(pair.play, 60000);
		assert_true(play_settled(pair.left, pair.right, 1, 1));
		assert_int_equal(pair.left->events[EVENT_CHILD_UP], 1);
	}
	play_free(pair.play);
}

static void
test_silent_delete(void **state)
{
	(void)state;
	silent_delete(true);
	silent_delete(false);
}

/* The third message of a Quick Mode is lost, again and again. */
static bool
drop_third(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct editor *editor = arg;

	(void)play;
	(void)packet;
	return from != editor->pair->left || octets[TYPE_AT] != EXCH_QUICK ||
	       ++editor->count[0] == 1;
}

/* ... and the ISAKMP SA ends before it came through: who has only half of the
 * new child says so under the next one. */
static void
test_half_a_child(void **state)
{
	struct pair pair;
	struct editor editor = { .pair = &pair };
	struct ike_sa *sa;

	(void)state;
	begin(&pair, 120);
	up(&pair);
	pair.play->tap = drop_third;
	pair.play->tap_arg = &editor;
	sa = gateway_ike(pair.left);
	assert_int_equal(sa->engine->child_rekey(gateway_child(pair.left)), OK);
	play_run(pair.play, 200);
	assert_int_equal(sa->engine->rekey(sa), OK);
	play_run(pair.play, 30000);
	assert_true(editor.count[0] > 2);
	assert_int_equal(gateway_ike_count(pair.left), 1);
	assert_int_equal(gateway_child_count(pair.left, NULL),
	    gateway_child_count(pair.right, NULL));
	play_free(pair.play);
}

static void
end_isakmp(struct gateway *gw)
{
	struct ike_sa *sa = gateway_ike(gw);

	sa->expire_timer.fire(sa->expire_timer.arg);
}

/* The initiator's own ISAKMP SA ends before it could be renewed: it is made
 * anew, and adopts what is there. */
static void
test_expired_and_renewed(void **state)
{
	struct pair pair;
	uint64_t child;

	(void)state;
	begin(&pair, 130);
	up(&pair);
	child = gateway_child(pair.left)->serial;
	end_isakmp(pair.left);
	play_run(pair.play, 20000);
	assert_true(play_settled(pair.left, pair.right, 1, 1));
	assert_int_equal(gateway_child(pair.left)->serial, child);
	play_free(pair.play);
}

static bool
half_up(void *arg)
{
	struct pair *pair = arg;
	struct ike_sa *sa = gateway_ike(pair->right);

	for (struct child_sa *c = sa->children; c != NULL; c = c->next)
		if (c->state == CHILD_INBOUND)
			return true;
	return false;
}

/* The Delete of the ISAKMP SA crosses the second message of a Quick Mode: the
 * child is made at both ends or at none. */
static void
test_delete_crosses(void **state)
{
	struct pair pair;

	(void)state;
	for (unsigned of_left = 0; of_left < 2; of_left++) {
		begin(&pair, 140 + of_left);
		up(&pair);
		assert_int_equal(gateway_ike(pair.left)->engine->child_rekey(
		                     gateway_child(pair.left)),
		    OK);
		assert_true(play_until(pair.play, half_up, &pair, 1000));
		end_isakmp(of_left ? pair.left : pair.right);
		play_run(pair.play, 120000);
		assert_true(play_settled(pair.left, pair.right, 1, 1));
		assert_true(play_traffic(
		    pair.left, pair.right, "10.1.0.5", "10.2.0.6"));
		assert_true(play_traffic(
		    pair.right, pair.left, "10.2.0.6", "10.1.0.5"));
		play_free(pair.play);
	}
}

/* ... or overtakes the third. */
static bool
hold_third(struct play *play, struct gateway *from, struct packet *packet,
    uint8_t *octets, void *arg)
{
	struct editor *editor = arg;

	(void)play;
	if (from != editor->pair->left || octets[TYPE_AT] != EXCH_QUICK ||
	    ++editor->count[0] != 2)
		return true;
	editor->octets = packet->octets.len;
	memcpy(editor->held, octets, editor->octets);
	return false;
}

static void
test_delete_overtakes(void **state)
{
	struct pair pair;
	struct editor editor = { .pair = &pair };

	(void)state;
	for (unsigned first = 0; first < 2; first++) {
		struct endpoint src, dst;
		uint64_t until;

		begin(&pair, 150 + first);
		editor.octets = editor.count[0] = 0;
		if (!first)
			up(&pair);
		pair.play->tap = hold_third;
		pair.play->tap_arg = &editor;
		if (first)
			assert_int_equal(gateway_up(pair.left, "net", 0), OK);
		else
			gateway_ike(pair.left)->engine->child_rekey(
			    gateway_child(pair.left));
		until = pair.play->timers.now_ms + 1000;
		while (editor.octets == 0 && pair.play->timers.now_ms < until)
			play_run(pair.play, 1);
		src = gateway_ike(pair.left)->local;
		dst = gateway_ike(pair.left)->remote;
		end_isakmp(pair.left);
		play_run(pair.play, 100);
		assert_int_equal(gateway_ike_count(pair.right), 0);
		play_inject(pair.play, &src, &dst, false,
		    view_of(editor.held, editor.octets));
		play_run(pair.play, 120000);
		assert_true(play_settled(pair.left, pair.right, 1, 1));
		play_free(pair.play);
	}
}

/* Either end begins something, or lets its ISAKMP SA expire, while other things
 * are on their way. */
static void
meddle(struct pair *pair)
{
	struct gateway *gw =
	    play_below(pair->play, 2) ? pair->left : pair->right;
	struct ike_sa *sa = gateway_ike(gw);
	struct child_sa *child = sa != NULL ? sa->children : NULL;

	while (child != NULL && child->state != CHILD_UP)
		child = child->next;
	switch (play_below(pair->play, 5)) {
	case 0:
		gateway_up(gw, "net", 0);
		break;
	case 1:
		if (sa != NULL)
			sa->engine->rekey(sa);
		break;
	case 2:
		if (sa != NULL)
			end_isakmp(gw);
		break;
	default:
		if (child != NULL)
			sa->engine->child_rekey(child);
		break;
	}
}

/* Whatever came to cross: in the end both have the same child, and traffic
 * passes. */
static void
test_meddling(void **state)
{
	(void)state;
	for (uint64_t seed = 1000; seed < 1400; seed++) {
		struct pair pair;

		begin(&pair, seed);
		up(&pair);
		pair.play->weather.loss_permille = seed % 2 ? 100 : 0;
		pair.play->weather.duplicate_permille = 50;
		pair.play->weather.reorder_permille = 100;
		pair.play->weather.reorder_ms = 300;
		for (unsigned i = 0; i < 12; i++) {
			meddle(&pair);
			play_run(pair.play,
			    play_below(pair.play, i % 2 ? 100 : 8000));
		}
		pair.play->weather.loss_permille = 0;
		play_run(pair.play, 600000);
		if (gateway_child_count(pair.left, NULL) !=
		    gateway_child_count(pair.right, NULL))
			fail_msg("seed %llu: %zu children, %zu at the peer",
			    (unsigned long long)seed,
			    gateway_child_count(pair.left, NULL),
			    gateway_child_count(pair.right, NULL));
		if (gateway_child_count(pair.left, NULL) > 0) {
			assert_true(play_traffic(
			    pair.left, pair.right, "10.1.0.5", "10.2.0.6"));
			assert_true(play_traffic(
			    pair.right, pair.left, "10.2.0.6", "10.1.0.5"));
		}
		play_free(pair.play);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dpd_announced_late),
		cmocka_unit_test(test_many_payloads),
		cmocka_unit_test(test_alignment),
		cmocka_unit_test(test_other_numbers),
		cmocka_unit_test(test_minor_version),
		cmocka_unit_test(test_commit_and_tail),
		cmocka_unit_test(test_no_identities),
		cmocka_unit_test(test_selectors),
		cmocka_unit_test(test_echo),
		cmocka_unit_test(test_two_refused),
		cmocka_unit_test(test_lost_refusal),
		cmocka_unit_test(test_deletes),
		cmocka_unit_test(test_questions),
		cmocka_unit_test(test_natd_count),
		cmocka_unit_test(test_early_quick_mode),
		cmocka_unit_test(test_question_under_the_old),
		cmocka_unit_test(test_contact_alone),
		cmocka_unit_test(test_not_meant),
		cmocka_unit_test(test_silent_delete),
		cmocka_unit_test(test_half_a_child),
		cmocka_unit_test(test_expired_and_renewed),
		cmocka_unit_test(test_delete_crosses),
		cmocka_unit_test(test_delete_overtakes),
		cmocka_unit_test(test_meddling),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
