#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include <linux/virtio_net.h>

#include "kernel/tun.h"

#define ROOM (TUN_HEADER + TUN_PACKET)

static uint8_t big[ROOM];

static void
put_u16(uint8_t *at, size_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static uint32_t
get_u32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 |
	       (uint32_t)at[2] << 8 | at[3];
}

/* A packet of one protocol with payload octets; TCP has 12 octets of options.
 * Returns its length. */
static size_t
make(uint8_t *packet, bool v6, uint8_t proto, size_t payload)
{
	size_t ip = v6 ? 40 : 20, head = proto == INNER_TCP ? 32 : 8, i;
	size_t len = ip + head + payload;
	uint8_t *at = packet + ip;

	memset(packet, 0, ip + head);
	if (v6) {
		packet[0] = 0x60;
		put_u16(packet + 4, len - 40);
		packet[6] = proto;
		packet[7] = 64;
		packet[8] = packet[24] = 0xfd;
		packet[23] = 1;
		packet[39] = 2;
	} else {
		packet[0] = 0x45;
		put_u16(packet + 2, len);
		put_u16(packet + 4, 0xfffe); /* the identifier will wrap */
		packet[8] = 64;
		packet[9] = proto;
		memcpy(packet + 12, (uint8_t[]){ 10, 1, 0, 1 }, 4);
		memcpy(packet + 16, (uint8_t[]){ 10, 2, 0, 2 }, 4);
		inner_v4_checksum(packet, 20);
	}
	put_u16(at, 40000);
	put_u16(at + 2, 443);
	if (proto == INNER_TCP) {
		memset(at + 4, 0xff, 3); /* and so will the sequence number */
		at[12] = 8 << 4;
		at[13] = 0x98; /* CWR, ACK, PSH */
		put_u16(at + 14, 5000);
		memset(at + 20, 1, 12);
	} else {
		put_u16(at + 4, 8 + payload);
	}
	for (i = 0; i < payload; i++)
		packet[ip + head + i] = (uint8_t)(i * 7 + (i >> 8));
	return len;
}

static void
segments(bool v6, uint8_t proto, size_t payload, size_t size)
{
	struct virtio_net_hdr header = { .gso_size = (uint16_t)size };
	size_t ip = v6 ? 40 : 20, head = ip + (proto == INNER_TCP ? 32 : 8);
	size_t len = make(big + TUN_HEADER, v6, proto, payload), done = 0, n;
	size_t count = 0, part;
	struct inner inner;
	struct tun_cut cut;
	uint8_t *one;

	header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header.gso_type = proto == INNER_UDP ? 5
	                  : v6               ? VIRTIO_NET_HDR_GSO_TCPV6
	                                     : VIRTIO_NET_HDR_GSO_TCPV4;
	memcpy(big, &header, TUN_HEADER);
	assert_int_equal(tun_cut(&cut, big, TUN_HEADER + len), OK);
	assert_int_equal(
	    tun_cut_max(&cut), head + (payload < size ? payload : size));
	while ((n = tun_cut_next(&cut)) > 0) {
		one = malloc(n);
		assert_non_null(one);
		tun_cut_write(&cut, one);
		assert_int_equal(inner_parse(&inner, one, n), OK);
		assert_int_equal(inner.len, n);
		assert_true(inner_checksum_good(one, &inner));
		part = payload - done < size ? payload - done : size;
		assert_int_equal(n, head + part);
		assert_memory_equal(
		    one + head, big + TUN_HEADER + head + done, part);
		if (proto == INNER_TCP) {
			assert_int_equal(get_u32(one + ip + 4),
			    (uint32_t)(0xffffff00 + done));
			assert_int_equal(
			    one[ip + 13], (done == 0 ? 0x80 : 0) | 0x10 |
			                      (done + part == payload ? 8 : 0));
		}
		if (!v6)
			assert_int_equal(
			    one[4] << 8 | one[5], (uint16_t)(0xfffe + count));
		done += part;
		count++;
		free(one);
	}
	assert_int_equal(done, payload);
}

static void
cuts(void **state)
{
	static const size_t sizes[] = { 1, 7, 536, 1348, 1349 };
	size_t i, payload;
	int v6;

	(void)state;
	for (v6 = 0; v6 < 2; v6++)
		for (i = 0; i < 5; i++)
			for (payload = sizes[i] - 1;
			     payload<5 * sizes[i]; payload += sizes[i]> 3
			         ? sizes[i] / 3
			         : 1) {
				if (payload == 0)
					continue;
				segments(v6, INNER_TCP, payload, sizes[i]);
				segments(v6, INNER_UDP, payload, sizes[i]);
			}
	segments(false, INNER_TCP, 65000, 1348);
}

/* What the system would never say, and must not hurt. */
static void
cuts_refuse(void **state)
{
	size_t len = make(big + TUN_HEADER, false, INNER_TCP, 4000), i;
	struct virtio_net_hdr header = { .gso_size = 1000,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4 };
	struct tun_cut cut;

	(void)state;
#define CUT(n) (memcpy(big, &header, TUN_HEADER), tun_cut(&cut, big, n))
	assert_int_equal(CUT(TUN_HEADER + len), OK);
	for (i = 0; i < TUN_HEADER + len; i++)
		assert_int_not_equal(tun_cut(&cut, big, i), OK);
	header.gso_size = 0;
	assert_int_equal(CUT(TUN_HEADER + len), ERR_SYNTAX);
	header.gso_size = 1000;
	header.gso_type = 3; /* UFO */
	assert_int_equal(CUT(TUN_HEADER + len), ERR_UNSUPPORTED);
	header.gso_type = 5;
	assert_int_equal(CUT(TUN_HEADER + len), ERR_SYNTAX);
	header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	big[TUN_HEADER + 20 + 12] = 4 << 4; /* TCP's header is too short */
	assert_int_equal(CUT(TUN_HEADER + len), ERR_SYNTAX);
	len = make(big + TUN_HEADER, false, INNER_UDP, 100);
	header.gso_type = VIRTIO_NET_HDR_GSO_NONE;
	header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header.csum_start = 20;
	header.csum_offset = 6;
	assert_int_equal(CUT(TUN_HEADER + len), OK);
	header.csum_offset = (uint16_t)(len - 20 - 2);
	assert_int_equal(CUT(TUN_HEADER + len), OK);
	header.csum_offset++;
	assert_int_equal(CUT(TUN_HEADER + len), ERR_SYNTAX);
	header.csum_start = (uint16_t)(len + 1);
	assert_int_equal(CUT(TUN_HEADER + len), ERR_SYNTAX);
#undef CUT
}

static void
completes_checksum(void **state)
{
	size_t len = make(big + TUN_HEADER, false, INNER_UDP, 101);
	uint8_t *packet = big + TUN_HEADER, out[200];
	struct virtio_net_hdr header = { .csum_start = 20, .csum_offset = 6 };
	struct inner inner;
	struct tun_cut cut;
	uint16_t pseudo =
	    inner_fold(inner_pseudo(packet, false, INNER_UDP, len - 20));

	(void)state;
	memcpy(packet + 26, &pseudo, 2);
	header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	memcpy(big, &header, TUN_HEADER);
	assert_int_equal(tun_cut(&cut, big, TUN_HEADER + len), OK);
	assert_int_equal(tun_cut_next(&cut), len);
	tun_cut_write(&cut, out);
	assert_int_equal(tun_cut_next(&cut), 0);
	assert_int_equal(inner_parse(&inner, out, len), OK);
	assert_true(inner_checksum_good(out, &inner));
}

/* Joining --------------------------------------------------------------- */

struct pair {
	int fd[2];
	struct tun_join *join;
};

static void
open_pair(struct pair *pair)
{
	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair->fd),
	    0);
	pair->join = tun_join_new(pair->fd[0]);
	assert_non_null(pair->join);
}

static void
close_pair(struct pair *pair)
{
	tun_join_free(pair->join);
	close(pair->fd[0]);
	close(pair->fd[1]);
}

/* Segment number n of a stream, size octets each; the last has less. */
static uint8_t *
segment(struct tun_cut *cut, struct inner *inner)
{
	size_t len = tun_cut_next(cut);
	uint8_t *packet = malloc(len);

	assert_non_null(packet);
	tun_cut_write(cut, packet);
	assert_int_equal(inner_parse(inner, packet, len), OK);
	return packet;
}

static void
stream(struct tun_cut *cut, bool v6, size_t payload, size_t size)
{
	struct virtio_net_hdr header = { .gso_size = (uint16_t)size };
	size_t len = make(big + TUN_HEADER, v6, INNER_TCP, payload);

	big[TUN_HEADER + (v6 ? 40 : 20) + 13] = 0x18; /* no CWR */
	header.gso_type =
	    v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
	memcpy(big, &header, TUN_HEADER);
	assert_int_equal(tun_cut(cut, big, TUN_HEADER + len), OK);
}

/* The short segment at the end has no PSH that its sender did not set. */
static void
joins_without_push(void **state)
{
	static uint8_t out[ROOM];
	struct inner inner;
	struct tun_cut cut;
	struct pair pair;
	uint8_t *packet[3];
	size_t i;

	(void)state;
	open_pair(&pair);
	stream(&cut, false, 2500, 1000);
	big[TUN_HEADER + 20 + 13] = 0x10; /* ACK alone */
	for (i = 0; i < 3; i++) {
		packet[i] = segment(&cut, &inner);
		tun_join_add(pair.join, packet[i], &inner);
	}
	tun_join_flush(pair.join);
	assert_int_equal(
	    read(pair.fd[1], out, sizeof(out)), TUN_HEADER + cut.inner.len);
	assert_int_equal(out[TUN_HEADER + 20 + 13], 0x10);
	for (i = 0; i < 3; i++)
		free(packet[i]);
	close_pair(&pair);
}

/* What was cut is joined again, octet by octet as it was. */
static void
joins(void **state)
{
	static uint8_t out[ROOM];
	struct virtio_net_hdr header;
	struct tun_cut cut, again;
	struct inner inner;
	struct pair pair;
	uint8_t *packet[64];
	size_t count, i;
	ssize_t len;
	int v6;

	(void)state;
	for (v6 = 0; v6 < 2; v6++) {
		open_pair(&pair);
		stream(&cut, v6, 20000, 1348);
		for (count = 0; tun_cut_next(&cut) > 0; count++) {
			packet[count] = segment(&cut, &inner);
			tun_join_add(pair.join, packet[count], &inner);
		}
		tun_join_flush(pair.join);
		len = read(pair.fd[1], out, sizeof(out));
		assert_int_equal(len, TUN_HEADER + cut.inner.len);
		memcpy(&header, out, TUN_HEADER);
		assert_int_equal(header.gso_size, 1348);
		assert_int_equal(header.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
		assert_int_equal(header.csum_start, v6 ? 40 : 20);
		assert_memory_equal(out + TUN_HEADER + cut.header,
		    big + TUN_HEADER + cut.header, cut.inner.len - cut.header);
		assert_int_equal(read(pair.fd[1], out, sizeof(out)), -1);
		/* And can be cut once more. */
		assert_int_equal(
		    tun_cut(&again, big, TUN_HEADER + cut.inner.len), OK);
		assert_int_equal(again.count, count);
		for (i = 0; i < count; i++)
			free(packet[i]);
		close_pair(&pair);
	}
}

/* Each change makes the second of three segments unfit. Returns the number of
 * writes that it took. */
static unsigned
writes_with(size_t offset, uint8_t change, bool fix)
{
	static uint8_t out[ROOM];
	struct inner inner[3];
	struct tun_cut cut;
	struct pair pair;
	uint8_t *packet[3];
	unsigned writes = 0, i;

	open_pair(&pair);
	stream(&cut, false, 3000, 1000);
	for (i = 0; i < 3; i++)
		packet[i] = segment(&cut, &inner[i]);
	packet[1][offset] ^= change;
	if (fix) {
		uint16_t sum;

		memset(packet[1] + 36, 0, 2);
		sum = (uint16_t)~inner_fold(
		    inner_sum(packet[1] + 20, inner[1].len - 20,
		        inner_pseudo(
		            packet[1], false, INNER_TCP, inner[1].len - 20)));
		memcpy(packet[1] + 36, &sum, 2);
		inner_v4_checksum(packet[1], 20);
		assert_int_equal(
		    inner_parse(&inner[1], packet[1], inner[1].len), OK);
	}
	for (i = 0; i < 3; i++)
		tun_join_add(pair.join, packet[i], &inner[i]);
	tun_join_flush(pair.join);
	while (read(pair.fd[1], out, sizeof(out)) > 0)
		writes++;
	assert_int_equal(tun_join_stats(pair.join).packets, 3);
	for (i = 0; i < 3; i++)
		free(packet[i]);
	close_pair(&pair);
	return writes;
}

static void
joins_only_what_is_alike(void **state)
{
	(void)state;
	assert_int_equal(writes_with(0, 0, false), 1);
	assert_int_equal(writes_with(60, 1, false), 3);  /* bad checksum */
	assert_int_equal(writes_with(11, 1, false), 3);  /* bad IP checksum */
	assert_int_equal(writes_with(60, 1, true), 1);   /* other payload */
	assert_int_equal(writes_with(27, 1, true), 3);   /* sequence */
	assert_int_equal(writes_with(31, 1, true), 3);   /* acknowledgement */
	assert_int_equal(writes_with(34, 1, true), 3);   /* window */
	assert_int_equal(writes_with(44, 1, true), 3);   /* options */
	assert_int_equal(writes_with(1, 4, true), 3);    /* DSCP */
	assert_int_equal(writes_with(8, 1, true), 3);    /* TTL */
	assert_int_equal(writes_with(5, 0x10, true), 3); /* identifier */
	assert_int_equal(writes_with(33, 1, true), 3);   /* FIN */
	assert_int_equal(writes_with(33, 8, true), 2);   /* PSH ends a row */
	assert_int_equal(writes_with(20, 1, true), 3);   /* another flow */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cuts),
		cmocka_unit_test(cuts_refuse),
		cmocka_unit_test(completes_checksum),
		cmocka_unit_test(joins),
		cmocka_unit_test(joins_without_push),
		cmocka_unit_test(joins_only_what_is_alike),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
