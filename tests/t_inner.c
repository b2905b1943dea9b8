#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/inner.h"

#define ROOM 2048

static void
put_u16(uint8_t *at, size_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static struct addr
addr(const char *text)
{
	struct addr addr;

	assert_true(addr_parse(&addr, text));
	return addr;
}

/* An IPv4 packet of len octets with options words of options. */
static void
make_v4(uint8_t *packet, size_t len, uint8_t proto, unsigned options)
{
	size_t i;

	memset(packet, 0, len);
	packet[0] = (uint8_t)(0x45 + options);
	packet[1] = 0xb8;
	put_u16(packet + 2, len);
	put_u16(packet + 6, 0x4000);
	packet[8] = 64;
	packet[9] = proto;
	memcpy(packet + 12, (uint8_t[]){ 10, 1, 0, 1 }, 4);
	memcpy(packet + 16, (uint8_t[]){ 10, 2, 0, 2 }, 4);
	for (i = 20 + 4 * (size_t)options; i < len; i++)
		packet[i] = (uint8_t)i;
	inner_v4_checksum(packet, 20 + 4 * (size_t)options);
}

static void
make_v6(uint8_t *packet, size_t len, uint8_t next)
{
	size_t i;

	memset(packet, 0, len);
	packet[0] = 0x6b;
	packet[1] = 0x80;
	put_u16(packet + 4, len - 40);
	packet[6] = next;
	packet[7] = 64;
	packet[8] = packet[24] = 0x20;
	packet[9] = packet[25] = 0x01;
	packet[23] = 1;
	packet[39] = 2;
	for (i = 40; i < len; i++)
		packet[i] = (uint8_t)i;
}

/* A copy without room behind it, so that sanitizers see what is read. */
static enum err
parse(struct inner *inner, const uint8_t *packet, size_t len)
{
	uint8_t *exact = malloc(len > 0 ? len : 1);
	enum err err;

	assert_non_null(exact);
	memcpy(exact, packet, len);
	err = inner_parse(inner, exact, len);
	free(exact);
	return err;
}

static void
reads_v4(void **state)
{
	uint8_t packet[ROOM];
	struct inner inner;
	struct addr src = addr("10.1.0.1");
	size_t i;

	(void)state;
	make_v4(packet, 60, INNER_TCP, 0);
	assert_int_equal(parse(&inner, packet, 60), OK);
	assert_true(addr_equal(&inner.src, &src));
	assert_int_equal(inner.version, 4);
	assert_int_equal(inner.tos, 0xb8);
	assert_int_equal(inner.transport, 20);
	assert_true(inner.df && inner.has_ports && !inner.fragment);
	assert_int_equal(inner.src_port, 20 << 8 | 21);
	assert_int_equal(inner.dst_port, 22 << 8 | 23);
	/* A tail behind the packet is none of it. */
	assert_int_equal(parse(&inner, packet, 70), OK);
	assert_int_equal(inner.len, 60);
	for (i = 0; i < 60; i++)
		assert_int_not_equal(parse(&inner, packet, i), OK);
	/* Options: ports lie behind them. */
	make_v4(packet, 64, INNER_UDP, 10);
	assert_int_equal(parse(&inner, packet, 64), OK);
	assert_int_equal(inner.transport, 60);
	assert_int_equal(inner.src_port, 60 << 8 | 61);
	packet[0] = 0x44;
	assert_int_equal(parse(&inner, packet, 64), ERR_SYNTAX);
	make_v4(packet, 60, INNER_UDP, 10);
	assert_int_equal(parse(&inner, packet, 60), OK);
	assert_false(inner.has_ports);
	/* The header says less than itself. */
	put_u16(packet + 2, 59);
	assert_int_equal(parse(&inner, packet, 60), ERR_SYNTAX);
	packet[0] = 0x75;
	assert_int_equal(parse(&inner, packet, 60), ERR_SYNTAX);
}

static void
reads_fragments(void **state)
{
	uint8_t packet[ROOM];
	struct inner inner;

	(void)state;
	make_v4(packet, 60, INNER_UDP, 0);
	put_u16(packet + 6, 0x2000); /* the first */
	assert_int_equal(parse(&inner, packet, 60), OK);
	assert_true(inner.fragment && inner.has_ports);
	put_u16(packet + 6, 1); /* the last */
	assert_int_equal(parse(&inner, packet, 60), OK);
	assert_true(inner.fragment && !inner.has_ports);
	make_v4(packet, 22, INNER_TCP, 0); /* too short for ports */
	assert_int_equal(parse(&inner, packet, 22), OK);
	assert_false(inner.has_ports);
	make_v4(packet, 22, INNER_ICMP, 0);
	assert_int_equal(parse(&inner, packet, 22), OK);
	assert_int_equal(inner.src_port, 20 << 8 | 21);
	assert_int_equal(inner.dst_port, 20 << 8 | 21);
}

/* Headers of 8 octets each, count times, then UDP. */
static size_t
make_chain(uint8_t *packet, unsigned count, uint8_t kind)
{
	size_t len = 40 + 8 * (size_t)count + 8, at = 40;
	unsigned i;

	make_v6(packet, len, count > 0 ? kind : INNER_UDP);
	for (i = 0; i < count; i++, at += 8) {
		memset(packet + at, 0, 8);
		packet[at] = i + 1 < count ? kind : INNER_UDP;
	}
	return len;
}

static void
reads_v6(void **state)
{
	uint8_t packet[ROOM];
	struct inner inner;
	unsigned n;
	size_t i, len;

	(void)state;
	for (n = 0; n <= INNER_HEADERS + 1; n++) {
		len = make_chain(packet, n, 60);
		if (n > INNER_HEADERS) {
			assert_int_equal(parse(&inner, packet, len), ERR_LONG);
			continue;
		}
		assert_int_equal(parse(&inner, packet, len), OK);
		assert_int_equal(inner.proto, INNER_UDP);
		assert_int_equal(inner.first, n ? 60 : INNER_UDP);
		assert_int_equal(inner.transport, 40 + 8 * n);
		assert_true(inner.has_ports);
		for (i = 0; i < len; i++)
			assert_int_not_equal(parse(&inner, packet, i), OK);
	}
	/* A header that says it is longer than the packet. */
	len = make_chain(packet, 2, 0);
	packet[41] = 2;
	assert_int_equal(parse(&inner, packet, len), ERR_SHORT);
	/* Fragments: the first has ports, the next has not, whatever header
	 * it names. */
	len = make_chain(packet, 1, 44);
	assert_int_equal(parse(&inner, packet, len), OK);
	assert_true(inner.fragment && inner.has_ports);
	put_u16(packet + 42, 8);
	packet[40] = 60;
	assert_int_equal(parse(&inner, packet, len), OK);
	assert_true(inner.fragment && !inner.has_ports);
	assert_int_equal(inner.proto, 60);
}

/* Whatever the octets are: an error, or values within bounds. */
static void
reads_anything(void **state)
{
	uint8_t packet[160];
	uint32_t seed = 1;
	struct inner inner;
	size_t len, i;
	unsigned n;

	(void)state;
	for (n = 0; n < 200000; n++) {
		len = n % sizeof(packet);
		for (i = 0; i < len; i++) {
			seed = seed * 1664525 + 1013904223;
			packet[i] = (uint8_t)(seed >> 24);
		}
		if (len > 7) {
			packet[0] =
			    (uint8_t)(n & 1 ? 0x45 + (n >> 1) % 11 : 0x60);
			put_u16(packet + (n & 1 ? 2 : 4), n & 1      ? len
			                                  : len > 40 ? len - 40
			                                             : 0);
			packet[6] = (uint8_t[]){ 0, 43, 44, 60 }[n % 4];
		}
		if (parse(&inner, packet, len) != OK)
			continue;
		assert_true(inner.len <= len);
		assert_true(inner.transport <= inner.len);
		if (inner.has_ports)
			assert_true(inner.len - inner.transport >= 2);
	}
}

/* RFC 1071's own words: 16 bits at a time. */
static uint16_t
slow_sum(const uint8_t *octets, size_t len)
{
	uint32_t sum = 0;
	size_t i;

	for (i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)(octets[i] << 8 | octets[i + 1]);
	if (len & 1)
		sum += (uint32_t)octets[len - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void
sums(void **state)
{
	uint8_t octets[300], copy[300], stored[2];
	uint16_t folded;
	size_t len, i;

	(void)state;
	for (i = 0; i < sizeof(octets); i++)
		octets[i] = (uint8_t)(255 - i * i);
	for (len = 0; len < sizeof(octets); len++) {
		folded = inner_fold(inner_sum(octets, len, 0));
		memcpy(stored, &folded, 2);
		assert_int_equal(
		    stored[0] << 8 | stored[1], slow_sum(octets, len));
		memset(copy, 0, sizeof(copy));
		assert_int_equal(
		    inner_fold(inner_copy_sum(copy, octets, len, 0)), folded);
		assert_memory_equal(copy, octets, len);
	}
}

static void
set_checksum(uint8_t *packet, const struct inner *inner, size_t offset)
{
	size_t len = inner->len - inner->transport;
	uint16_t sum;

	memset(packet + inner->transport + offset, 0, 2);
	sum = (uint16_t)~inner_fold(inner_sum(packet + inner->transport, len,
	    inner_pseudo(packet, inner->version == 6, inner->proto, len)));
	memcpy(packet + inner->transport + offset, &sum, 2);
}

static void
renumbers(void **state)
{
	static const struct {
		uint8_t proto;
		size_t offset;
	} kinds[] = { { INNER_TCP, 16 }, { INNER_UDP, 6 } };
	struct addr src = addr("192.168.7.7"), dst = addr("203.0.113.99");
	struct addr none = { .family = ADDR_NONE };
	uint8_t packet[ROOM], before[ROOM];
	struct inner inner;
	size_t i, len;

	(void)state;
	for (i = 0; i < 2; i++)
		for (len = 44; len < 60; len++) {
			/* As the sender had it ... */
			make_v4(packet, len, kinds[i].proto, 0);
			memcpy(packet + 12, src.octets, 4);
			memcpy(packet + 16, dst.octets, 4);
			assert_int_equal(parse(&inner, packet, len), OK);
			set_checksum(packet, &inner, kinds[i].offset);
			/* ... and as it is here. */
			memcpy(packet + 12, (uint8_t[]){ 10, 1, 0, 1 }, 4);
			memcpy(packet + 16, (uint8_t[]){ 10, 2, 0, 2 }, 4);
			assert_int_equal(parse(&inner, packet, len), OK);
			assert_false(inner_checksum_good(packet, &inner));
			inner_renumber(packet, &inner, &src, &dst);
			assert_true(inner_checksum_good(packet, &inner));
		}
	memset(packet + 26, 0, 2); /* UDP without a checksum */
	memcpy(before, packet, 60);
	inner_renumber(packet, &inner, &src, &dst);
	assert_memory_equal(packet, before, 60);
	assert_true(inner_checksum_good(packet, &inner));
	inner_renumber(packet, &inner, &none, &dst);
	assert_memory_equal(packet, before, 60);
}

/* RFC 6040 4.2, all sixteen. */
static void
ecn(void **state)
{
	static const int after[4][4] = {
		/* outer: not-ECT, ECT(1), ECT(0), CE */
		{ 0, 0, 0, -1 },
		{ 1, 1, 1, 3 },
		{ 2, 1, 2, 3 },
		{ 3, 3, 3, 3 },
	};
	uint8_t packet[ROOM];
	struct inner inner;
	unsigned in, out, v6;

	(void)state;
	for (v6 = 0; v6 < 2; v6++)
		for (in = 0; in < 4; in++)
			for (out = 0; out < 4; out++) {
				if (v6) {
					make_v6(packet, 60, INNER_NONE);
					packet[1] =
					    (uint8_t)(0x80 | in << 4 | 5);
				} else {
					make_v4(packet, 60, INNER_NONE, 0);
					packet[1] = (uint8_t)(0xb8 | in);
					inner_v4_checksum(packet, 20);
				}
				assert_int_equal(parse(&inner, packet, 60), OK);
				assert_int_equal(inner.tos, 0xb8 | in);
				if (after[in][out] < 0) {
					assert_false(inner_ecn(packet, &inner,
					    (uint8_t)(0xfc | out)));
					continue;
				}
				assert_true(inner_ecn(
				    packet, &inner, (uint8_t)(0xfc | out)));
				assert_int_equal(parse(&inner, packet, 60), OK);
				assert_int_equal(
				    inner.tos, 0xb8 | after[in][out]);
				if (v6)
					assert_int_equal(packet[1] & 15, 5);
				else
					assert_int_equal(
					    slow_sum(packet, 20), 0xffff);
			}
}

/* RFC 1122 3.2.1.2: whoever gets the packet must still see that its header is
 * damaged. */
static void
ecn_hides_nothing(void **state)
{
	uint8_t packet[ROOM];
	struct inner inner;

	(void)state;
	make_v4(packet, 60, INNER_NONE, 2);
	packet[1] = 2;
	inner_v4_checksum(packet, 28);
	packet[8] ^= 1;
	assert_int_equal(parse(&inner, packet, 60), OK);
	assert_true(inner_ecn(packet, &inner, 3));
	assert_int_equal(packet[1], 3);
	assert_int_not_equal(slow_sum(packet, 28), 0xffff);
	packet[8] ^= 1;
	assert_int_equal(slow_sum(packet, 28), 0xffff);
}

static void
too_big(void **state)
{
	uint8_t packet[ROOM], answer[INNER_ICMP_ERROR];
	struct inner inner, icmp;
	size_t len;

	(void)state;
	make_v4(packet, 1500, INNER_TCP, 0);
	assert_int_equal(parse(&inner, packet, 1500), OK);
	len = inner_too_big(answer, packet, &inner, 1400);
	assert_int_equal(len, 576);
	assert_int_equal(parse(&icmp, answer, len), OK);
	assert_true(addr_equal(&icmp.dst, &inner.src));
	assert_int_equal(icmp.src_port, 3 << 8 | 4);
	assert_int_equal(answer[26] << 8 | answer[27], 1400);
	assert_int_equal(slow_sum(answer, 20), 0xffff);
	assert_int_equal(slow_sum(answer + 20, len - 20), 0xffff);
	assert_memory_equal(answer + 28, packet, len - 28);
	/* Never about an ICMP error, a later fragment, or multicast. */
	packet[9] = INNER_ICMP;
	packet[20] = 3;
	assert_int_equal(parse(&inner, packet, 1500), OK);
	assert_int_equal(inner_too_big(answer, packet, &inner, 1400), 0);
	packet[20] = 8;
	assert_int_equal(parse(&inner, packet, 1500), OK);
	assert_true(inner_too_big(answer, packet, &inner, 1400) > 0);
	put_u16(packet + 6, 9);
	assert_int_equal(parse(&inner, packet, 1500), OK);
	assert_int_equal(inner_too_big(answer, packet, &inner, 1400), 0);
	make_v4(packet, 1500, INNER_UDP, 0);
	packet[16] = 224;
	assert_int_equal(parse(&inner, packet, 1500), OK);
	assert_int_equal(inner_too_big(answer, packet, &inner, 1400), 0);

	make_v6(packet, 1500, INNER_TCP);
	assert_int_equal(parse(&inner, packet, 1500), OK);
	len = inner_too_big(answer, packet, &inner, 1400);
	assert_int_equal(len, INNER_ICMP_ERROR);
	assert_int_equal(parse(&icmp, answer, len), OK);
	assert_int_equal(icmp.src_port, 2 << 8);
	assert_int_equal(answer[46] << 8 | answer[47], 1400);
	assert_true(inner_checksum_good(answer, &icmp));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_v4),
		cmocka_unit_test(reads_fragments),
		cmocka_unit_test(reads_v6),
		cmocka_unit_test(reads_anything),
		cmocka_unit_test(sums),
		cmocka_unit_test(renumbers),
		cmocka_unit_test(ecn),
		cmocka_unit_test(ecn_hides_nothing),
		cmocka_unit_test(too_big),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
