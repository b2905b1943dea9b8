#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/tun.h"
#include "kernel/whole.h"

/* A fragment with the octets from at on of a datagram whose octet n is n * 3:
 * in memory of its own, without room behind. Returns its length. */
static size_t
fragment(uint8_t **packet, struct inner *inner, bool v6, uint16_t id, size_t at,
    size_t octets, bool more)
{
	size_t head = v6 ? 48 : 20, len = head + octets, i;
	uint16_t field =
	    (uint16_t)(v6 ? at | more : at / 8 + (more ? 0x2000u : 0));
	uint8_t *p = calloc(1, len);

	assert_non_null(p);
	if (v6) {
		memcpy(p,
		    (uint8_t[]){ 0x60, 0, 0, 0, (uint8_t)((len - 40) >> 8),
		        (uint8_t)(len - 40), 44, 64, 0x20, 1 },
		    10);
		memcpy(p + 24, (uint8_t[]){ 0x20, 2 }, 2);
		memcpy(p + 40,
		    (uint8_t[]){ INNER_UDP, 0, (uint8_t)(field >> 8),
		        (uint8_t)field, 0, 1, (uint8_t)(id >> 8), (uint8_t)id },
		    8);
	} else {
		memcpy(p,
		    (uint8_t[]){ 0x45, 0, (uint8_t)(len >> 8), (uint8_t)len,
		        (uint8_t)(id >> 8), (uint8_t)id, (uint8_t)(field >> 8),
		        (uint8_t)field, 64, INNER_UDP },
		    10);
		memcpy(p + 12, (uint8_t[]){ 10, 0, 0, 1, 10, 0, 0, 2 }, 8);
		inner_v4_checksum(p, 20);
	}
	for (i = 0; i < octets; i++)
		p[head + i] = (uint8_t)((at + i) * 3);
	assert_int_equal(inner_parse(inner, p, len), OK);
	*packet = p;
	return len;
}

static enum err
begin(struct whole *whole, bool v6, uint16_t id, size_t at, size_t octets,
    bool more, uint64_t now_ms)
{
	struct inner inner;
	uint8_t *packet;
	enum err err;

	fragment(&packet, &inner, v6, id, at, octets, more);
	err = whole_begin(whole, packet, &inner, now_ms);
	free(packet);
	return err;
}

static struct view datagram;

static enum err
go_on(struct whole *whole, bool v6, uint16_t id, size_t at, size_t octets,
    bool more, uint64_t now_ms)
{
	struct inner inner;
	uint8_t *packet;
	enum err err;

	fragment(&packet, &inner, v6, id, at, octets, more);
	err = whole_continue(whole, packet, &inner, now_ms, &datagram);
	free(packet);
	return err;
}

/* What came out is one datagram of so many octets. */
static void
is_whole(bool v6, size_t octets)
{
	size_t head = v6 ? 40 : 20, i;
	struct tun_cut cut;

	assert_int_equal(datagram.len, TUN_HEADER + head + octets);
	assert_int_equal(tun_cut(&cut, datagram.at, datagram.len), OK);
	assert_int_equal(cut.inner.len, head + octets);
	assert_int_equal(cut.count, 1);
	assert_false(cut.inner.fragment);
	assert_int_equal(cut.inner.proto, INNER_UDP);
	assert_int_equal(cut.inner.transport, head);
	for (i = 0; i < octets; i++)
		assert_int_equal(
		    datagram.at[TUN_HEADER + head + i], (uint8_t)(i * 3));
	if (!v6)
		assert_int_equal(
		    inner_fold(inner_sum(datagram.at + TUN_HEADER, 20, 0)),
		    0xffff);
}

static void
joins(void **state)
{
	struct whole *whole = whole_new();
	size_t most, at;
	int v6;

	(void)state;
	assert_non_null(whole);
	for (v6 = 0; v6 < 2; v6++) {
		assert_int_equal(begin(whole, v6, 1, 0, 800, true, 5), OK);
		assert_int_equal(begin(whole, v6, 2, 0, 16, true, 5), OK);
		assert_int_equal(go_on(whole, v6, 1, 800, 800, true, 5), OK);
		assert_int_equal(datagram.len, 0);
		assert_int_equal(go_on(whole, v6, 1, 1600, 1, false, 5), OK);
		is_whole(v6, 1601);
		assert_int_equal(
		    go_on(whole, v6, 1, 1608, 1, false, 5), ERR_NOT_FOUND);
		assert_int_equal(go_on(whole, v6, 2, 16, 8, false, 1004), OK);
		is_whole(v6, 24);
		/* The longest there is, and one octet more. */
		most = TUN_PACKET - (v6 ? 40 : 20);
		assert_int_equal(begin(whole, v6, 3, 0, 8000, true, 5), OK);
		assert_int_equal(begin(whole, v6, 4, 0, 8000, true, 5), OK);
		for (at = 8000; at < 64000; at += 8000) {
			assert_int_equal(
			    go_on(whole, v6, 3, at, 8000, true, 5), OK);
			assert_int_equal(
			    go_on(whole, v6, 4, at, 8000, true, 5), OK);
		}
		assert_int_equal(
		    go_on(whole, v6, 3, at, most - at, false, 5), OK);
		is_whole(v6, most);
		assert_int_equal(
		    go_on(whole, v6, 4, at, most - at + 1, false, 5), OK);
		assert_int_equal(datagram.len, 0);
		assert_int_equal(go_on(whole, v6, 4, at, most - at, false, 5),
		    ERR_NOT_FOUND);
	}
	whole_free(whole);
	whole_free(NULL);
}

static void
refuses(void **state)
{
	struct whole *whole = whole_new();
	uint16_t id;

	(void)state;
	assert_non_null(whole);
	assert_int_equal(
	    begin(whole, false, 1, 8, 8, true, 0), ERR_UNSUPPORTED);
	assert_int_equal(
	    begin(whole, true, 1, 0, 8, false, 0), ERR_UNSUPPORTED);
	assert_int_equal(go_on(whole, false, 1, 8, 8, true, 0), ERR_NOT_FOUND);
	/* A hole, an overlap, and what is too late. */
	for (id = 0; id < 3; id++)
		assert_int_equal(begin(whole, false, id, 0, 80, true, 0), OK);
	assert_int_equal(go_on(whole, false, 0, 88, 8, false, 0), OK);
	assert_int_equal(datagram.len, 0);
	assert_int_equal(
	    go_on(whole, false, 0, 80, 8, false, 0), ERR_NOT_FOUND);
	assert_int_equal(go_on(whole, false, 1, 72, 8, false, 0), OK);
	assert_int_equal(datagram.len, 0);
	assert_int_equal(
	    go_on(whole, false, 2, 80, 8, false, WHOLE_MS), ERR_NOT_FOUND);
	/* The other family's, with the same number. */
	assert_int_equal(begin(whole, false, 9, 0, 80, true, 0), OK);
	assert_int_equal(go_on(whole, true, 9, 80, 8, false, 0), ERR_NOT_FOUND);
	/* One too many: the oldest makes room. */
	for (id = 20; id <= 20 + WHOLE_SLOTS; id++)
		assert_int_equal(begin(whole, false, id, 0, 80, true, id), OK);
	assert_int_equal(
	    go_on(whole, false, 20, 80, 8, false, 30), ERR_NOT_FOUND);
	assert_int_equal(go_on(whole, false, 21, 80, 8, false, 30), OK);
	is_whole(false, 88);
	/* Begun anew: what was there before does not count. */
	assert_int_equal(begin(whole, false, 22, 0, 16, true, 30), OK);
	assert_int_equal(go_on(whole, false, 22, 16, 8, false, 30), OK);
	is_whole(false, 24);
	whole_free(whole);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(joins),
		cmocka_unit_test(refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
