/*
 * inner: IP packets as the userland data plane sees them, before ESP and after
 * it: what a selector needs to know of them, checksums, and the ICMP errors
 * that tell a sender about the path MTU. Whatever comes out of an SA is as
 * hostile as any other packet: every length is checked, extension headers are
 * bounded. RFC 791, RFC 8200, RFC 1071, RFC 4443, RFC 6040.
 */
#ifndef KERNEL_INNER_H
#define KERNEL_INNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/err.h"

#define INNER_HEADERS 8 /* IPv6 extension headers that we walk, at most */
#define INNER_V4      20
#define INNER_V6      40

#define INNER_ICMP    1
#define INNER_IPIP    4
#define INNER_TCP     6
#define INNER_UDP     17
#define INNER_IPV6    41
#define INNER_ICMPV6  58
#define INNER_NONE    59 /* RFC 4303 2.6: a dummy packet */
#define INNER_DCCP    33
#define INNER_SCTP    132
#define INNER_UDPLITE 136

struct inner {
	struct addr src, dst;
	uint8_t version; /* 4 or 6 */
	uint8_t proto;   /* behind the extension headers */
	uint8_t first;   /* directly behind the first 20 or 40 octets */
	uint8_t tos;     /* DSCP and ECN */
	bool df;         /* IPv6: always */
	bool fragment;   /* any part of a fragmented one */
	bool has_ports;  /* false: a later fragment, or a protocol without */
	uint16_t src_port, dst_port; /* ICMP: both are type << 8 | code */
	size_t transport;            /* offset of what proto names */
	size_t len;                  /* the whole packet, as its header says */
};

/* Reads octets, which may have a tail behind the packet. ERR_SHORT,
 * ERR_SYNTAX, ERR_LONG (too many extension headers). */
enum err inner_parse(struct inner *inner, const uint8_t *octets, size_t len);

/* One's complement sum (RFC 1071) of len octets, added to sum; not folded. The
 * octets count as if they began at an even offset. */
uint64_t inner_sum(const uint8_t *octets, size_t len, uint64_t sum);
/* The same while copying. */
uint64_t
inner_copy_sum(uint8_t *to, const uint8_t *from, size_t len, uint64_t sum);
/* As it stands in a header, but not yet complemented; in network order when
 * stored with memcpy(). */
uint16_t inner_fold(uint64_t sum);
/* Of addresses, protocol and len, as TCP and UDP have it. octets: the IP
 * header. */
uint64_t
inner_pseudo(const uint8_t *octets, bool v6, uint8_t proto, size_t len);
/* Writes the checksum of an IPv4 header of len octets. */
void inner_v4_checksum(uint8_t *header, size_t len);
/* Is the checksum of this TCP or UDP packet right? UDP over IPv4 without one
 * is. */
bool inner_checksum_good(const uint8_t *octets, const struct inner *inner);

/* RFC 6040 4.2: the inner header's ECN after decapsulation, from the outer
 * one's. Changes the packet. False: it must be dropped. */
bool inner_ecn(uint8_t *octets, struct inner *inner, uint8_t outer_tos);

/* RFC 3948 3.1.2: the transport checksum was made over other addresses than
 * those that stand in the header now. before: source and destination as the
 * sender had them. A UDP checksum of zero stays. */
void inner_renumber(uint8_t *octets, const struct inner *inner,
    const struct addr *before_src, const struct addr *before_dst);

/* An ICMP error to the sender of a packet that is too large, as if its
 * destination had sent it: fragmentation needed (RFC 1191), or packet too big
 * (RFC 4443 3.2). to has room for INNER_ICMP_ERROR octets. Returns its length;
 * 0 if there must be none (RFC 1122 3.2.2). */
#define INNER_ICMP_ERROR 1280
size_t inner_too_big(
    uint8_t *to, const uint8_t *octets, const struct inner *inner, size_t mtu);

#endif
