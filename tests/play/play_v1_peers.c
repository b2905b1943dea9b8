/* What other implementations of IKEv1 do, and must not trip over: vendor IDs in
 * odd places, unknown payloads, padding, other numbers, lost Deletes. */
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
#define PROPOSAL 16 /* its number in an SA payload: header, DOI, situation... */

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dpd_announced_late),
		cmocka_unit_test(test_many_payloads),
		cmocka_unit_test(test_alignment),
		cmocka_unit_test(test_other_numbers),
		cmocka_unit_test(test_minor_version),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
