#include "kernel/inner.h"

#include <string.h>

#include "kernel/octets.h"

#define V6_HOP_BY_HOP  0
#define V6_ROUTING     43
#define V6_FRAGMENT    44
#define V6_DESTINATION 60
#define ECN            3
#define ECN_CE         3
#define ICMP_QUOTE_V4  548 /* RFC 1812 4.3.2.3: at most 576 octets in all */
#define ICMP_QUOTE_V6  (INNER_ICMP_ERROR - INNER_V6 - 8)

/* Reading --------------------------------------------------------------- */

/* RFC 4301 4.4.1.1: ports where the protocol has them, type and code where it
 * is ICMP. Fewer octets than that: as if there were none. */
static void
parse_ports(struct inner *inner, const uint8_t *octets)
{
	const uint8_t *at = octets + inner->transport;
	size_t left = inner->len - inner->transport;

	switch (inner->proto) {
	case INNER_TCP:
	case INNER_UDP:
	case INNER_DCCP:
	case INNER_SCTP:
	case INNER_UDPLITE:
		if (left < 4)
			return;
		inner->src_port = get_u16(at);
		inner->dst_port = get_u16(at + 2);
		break;
	case INNER_ICMP:
	case INNER_ICMPV6:
		if (left < 2)
			return;
		inner->src_port = inner->dst_port = get_u16(at);
		break;
	default:
		return;
	}
	inner->has_ports = true;
}

static enum err
parse_v4(struct inner *inner, const uint8_t *octets, size_t len)
{
	size_t header = (octets[0] & 15u) * 4u;
	unsigned offset = get_u16(octets + 6);

	inner->len = get_u16(octets + 2);
	if (header < INNER_V4 || inner->len < header)
		return ERR_SYNTAX;
	if (inner->len > len)
		return ERR_SHORT;
	inner->src.family = inner->dst.family = ADDR_V4;
	memcpy(inner->src.octets, octets + 12, 4);
	memcpy(inner->dst.octets, octets + 16, 4);
	inner->tos = octets[1];
	inner->proto = inner->first = octets[9];
	inner->df = (offset & 0x4000) != 0;
	inner->fragment = (offset & 0x3fff) != 0;
	inner->transport = header;
	if ((offset & 0x1fff) == 0)
		parse_ports(inner, octets);
	return OK;
}

static enum err
parse_v6(struct inner *inner, const uint8_t *octets, size_t len)
{
	size_t at = INNER_V6, size;
	uint8_t next = octets[6];
	bool later = false;
	unsigned i;

	inner->len = INNER_V6 + (size_t)get_u16(octets + 4);
	if (inner->len > len)
		return ERR_SHORT;
	inner->src.family = inner->dst.family = ADDR_V6;
	memcpy(inner->src.octets, octets + 8, 16);
	memcpy(inner->dst.octets, octets + 24, 16);
	inner->tos = (uint8_t)(octets[0] << 4 | octets[1] >> 4);
	inner->df = true;
	inner->first = next;
	for (i = 0;; i++) {
		if (later || (next != V6_HOP_BY_HOP && next != V6_ROUTING &&
		                 next != V6_FRAGMENT && next != V6_DESTINATION))
			break;
		if (i == INNER_HEADERS)
			return ERR_LONG;
		if (inner->len - at < 8)
			return ERR_SHORT;
		size = 8;
		if (next == V6_FRAGMENT) {
			inner->fragment = true;
			later = (get_u16(octets + at + 2) & 0xfff8) != 0;
		} else {
			size = 8 + (size_t)octets[at + 1] * 8;
		}
		if (inner->len - at < size)
			return ERR_SHORT;
		next = octets[at];
		at += size;
	}
	inner->proto = next;
	inner->transport = at;
	/* RFC 7112: what a later fragment says of its protocol may be an
	 * extension header's number; ports it has none. */
	if (!later)
		parse_ports(inner, octets);
	return OK;
}

enum err
inner_parse(struct inner *inner, const uint8_t *octets, size_t len)
{
	memset(inner, 0, sizeof(*inner));
	if (len < INNER_V4)
		return ERR_SHORT;
	inner->version = octets[0] >> 4;
	if (inner->version == 4)
		return parse_v4(inner, octets, len);
	if (inner->version != 6)
		return ERR_SYNTAX;
	return len < INNER_V6 ? ERR_SHORT : parse_v6(inner, octets, len);
}

/* Checksums ------------------------------------------------------------- */

static uint64_t
sum_tail(const uint8_t *octets, size_t len, uint64_t sum)
{
	uint32_t word;
	uint16_t half;

	for (; len >= 4; octets += 4, len -= 4) {
		memcpy(&word, octets, 4);
		sum += word;
	}
	if (len >= 2) {
		memcpy(&half, octets, 2);
		sum += half;
		octets += 2;
		len -= 2;
	}
	if (len > 0) {
		half = 0;
		memcpy(&half, octets, 1);
		sum += half;
	}
	return sum;
}

/* In the machine's own order, 32 octets a turn, in four sums that do not wait
 * for each other; a sum of 32-bit words has the same remainder by 65535. 2^32
 * words fit before anything is lost. */
uint64_t
inner_sum(const uint8_t *octets, size_t len, uint64_t sum)
{
	uint64_t w[4], a = 0, b = 0, c = 0, d = 0;

	for (; len >= sizeof(w); octets += sizeof(w), len -= sizeof(w)) {
		memcpy(w, octets, sizeof(w));
		a += (w[0] & UINT32_MAX) + (w[0] >> 32);
		b += (w[1] & UINT32_MAX) + (w[1] >> 32);
		c += (w[2] & UINT32_MAX) + (w[2] >> 32);
		d += (w[3] & UINT32_MAX) + (w[3] >> 32);
	}
	return sum_tail(octets, len, sum + a + b + c + d);
}

uint64_t
inner_copy_sum(uint8_t *to, const uint8_t *from, size_t len, uint64_t sum)
{
	uint64_t w[4], a = 0, b = 0, c = 0, d = 0;

	for (; len >= sizeof(w);
	     to += sizeof(w), from += sizeof(w), len -= sizeof(w)) {
		memcpy(w, from, sizeof(w));
		memcpy(to, w, sizeof(w));
		a += (w[0] & UINT32_MAX) + (w[0] >> 32);
		b += (w[1] & UINT32_MAX) + (w[1] >> 32);
		c += (w[2] & UINT32_MAX) + (w[2] >> 32);
		d += (w[3] & UINT32_MAX) + (w[3] >> 32);
	}
	if (len > 0)
		memcpy(to, from, len);
	return sum_tail(from, len, sum + a + b + c + d);
}

uint16_t
inner_fold(uint64_t sum)
{
	sum = (sum & UINT32_MAX) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

uint64_t
inner_pseudo(const uint8_t *octets, bool v6, uint8_t proto, size_t len)
{
	uint8_t tail[8] = { 0 };
	uint64_t sum =
	    v6 ? inner_sum(octets + 8, 32, 0) : inner_sum(octets + 12, 8, 0);

	put_u16(tail, len >> 16);
	put_u16(tail + 2, len);
	tail[7] = proto;
	return inner_sum(tail, sizeof(tail), sum);
}

static void
put_sum(uint8_t *at, uint64_t sum)
{
	uint16_t folded = (uint16_t)~inner_fold(sum);

	memcpy(at, &folded, sizeof(folded));
}

void
inner_v4_checksum(uint8_t *header, size_t len)
{
	header[10] = header[11] = 0;
	put_sum(header + 10, inner_sum(header, len, 0));
}

/* Where the checksum of the transport header is, or 0. */
static size_t
checksum_at(const struct inner *inner)
{
	size_t offset;

	if (inner->proto == INNER_TCP)
		offset = 16;
	else if (inner->proto == INNER_UDP)
		offset = 6;
	else if (inner->proto == INNER_ICMPV6)
		offset = 2;
	else
		return 0;
	if (inner->len - inner->transport < offset + 2)
		return 0;
	return inner->transport + offset;
}

bool
inner_checksum_good(const uint8_t *octets, const struct inner *inner)
{
	size_t at = checksum_at(inner), len = inner->len - inner->transport;
	uint64_t sum;

	if (at == 0)
		return false;
	if (inner->proto == INNER_UDP && inner->version == 4 &&
	    get_u16(octets + at) == 0)
		return true;
	sum = inner_pseudo(octets, inner->version == 6, inner->proto, len);
	return inner_fold(inner_sum(octets + inner->transport, len, sum)) ==
	       0xffff;
}

/* Changes --------------------------------------------------------------- */

static void
set_tos(uint8_t *octets, struct inner *inner, uint8_t tos)
{
	uint16_t before, after, sum;

	inner->tos = tos;
	if (inner->version == 4) {
		memcpy(&before, octets, sizeof(before));
		octets[1] = tos;
		memcpy(&after, octets, sizeof(after));
		/* RFC 1624: a checksum that was wrong stays so. */
		memcpy(&sum, octets + 10, sizeof(sum));
		put_sum(octets + 10,
		    (uint64_t)(uint16_t)~sum + (uint16_t)~before + after);
	} else {
		octets[0] = (uint8_t)(0x60 | tos >> 4);
		octets[1] = (uint8_t)(tos << 4 | (octets[1] & 15));
	}
}

bool
inner_ecn(uint8_t *octets, struct inner *inner, uint8_t outer_tos)
{
	uint8_t outer = outer_tos & ECN, ecn = inner->tos & ECN;

	/* The table of RFC 6040 4.2. */
	if (outer == ECN_CE) {
		if (ecn == 0)
			return false;
		if (ecn != ECN_CE)
			set_tos(octets, inner, inner->tos | ECN_CE);
	} else if (outer == 1 && ecn == 2) {
		set_tos(octets, inner, (uint8_t)((inner->tos & ~ECN) | 1));
	}
	return true;
}

void
inner_renumber(uint8_t *octets, const struct inner *inner,
    const struct addr *before_src, const struct addr *before_dst)
{
	size_t at = checksum_at(inner);
	uint64_t sum;
	uint16_t old;

	if (at == 0 || inner->fragment ||
	    before_src->family != inner->src.family ||
	    before_dst->family != inner->dst.family)
		return;
	memcpy(&old, octets + at, sizeof(old));
	if (inner->proto == INNER_UDP && old == 0)
		return;
	/* RFC 1624: new = ~(~old + ~before + after). */
	sum = (uint16_t)~old;
	sum += (uint16_t)~inner_fold(inner_sum(
	    before_src->octets, 16, inner_sum(before_dst->octets, 16, 0)));
	sum += inner_fold(inner_sum(
	    inner->src.octets, 16, inner_sum(inner->dst.octets, 16, 0)));
	put_sum(octets + at, sum);
	if (inner->proto == INNER_UDP && get_u16(octets + at) == 0)
		put_u16(octets + at, 0xffff); /* RFC 768 */
}

/* ICMP errors ----------------------------------------------------------- */

/* RFC 1122 3.2.2, RFC 4443 2.4: never about an error, a later fragment,
 * or anything to or from more than one host. */
static bool
may_complain(const struct inner *inner)
{
	unsigned type = inner->src_port >> 8;

	if (inner->fragment && !inner->has_ports)
		return false;
	if (addr_is_any(&inner->src))
		return false;
	if (inner->version == 4) {
		if (inner->src.octets[0] >= 224 || inner->dst.octets[0] >= 224)
			return false;
		return inner->proto != INNER_ICMP ||
		       (inner->has_ports && (type == 0 || type == 8));
	}
	if (inner->src.octets[0] == 0xff)
		return false;
	return inner->proto != INNER_ICMPV6 ||
	       (inner->has_ports && type >= 128);
}

static size_t
too_big_v4(
    uint8_t *to, const uint8_t *octets, const struct inner *inner, size_t mtu)
{
	size_t quote = inner->len < ICMP_QUOTE_V4 ? inner->len : ICMP_QUOTE_V4;

	memset(to, 0, INNER_V4 + 8);
	to[0] = 0x45;
	put_u16(to + 2, INNER_V4 + 8 + quote);
	to[8] = 64;
	to[9] = INNER_ICMP;
	memcpy(to + 12, inner->dst.octets, 4);
	memcpy(to + 16, inner->src.octets, 4);
	inner_v4_checksum(to, INNER_V4);
	to[20] = 3; /* destination unreachable */
	to[21] = 4; /* fragmentation needed and DF set */
	put_u16(to + 26, mtu);
	memcpy(to + 28, octets, quote);
	put_sum(to + 22, inner_sum(to + 20, 8 + quote, 0));
	return INNER_V4 + 8 + quote;
}

static size_t
too_big_v6(
    uint8_t *to, const uint8_t *octets, const struct inner *inner, size_t mtu)
{
	size_t quote = inner->len < ICMP_QUOTE_V6 ? inner->len : ICMP_QUOTE_V6;
	uint64_t sum;

	memset(to, 0, INNER_V6 + 8);
	to[0] = 0x60;
	put_u16(to + 4, 8 + quote);
	to[6] = INNER_ICMPV6;
	to[7] = 64;
	memcpy(to + 8, inner->dst.octets, 16);
	memcpy(to + 24, inner->src.octets, 16);
	to[40] = 2; /* packet too big */
	put_u16(to + 44, mtu >> 16);
	put_u16(to + 46, mtu);
	memcpy(to + 48, octets, quote);
	sum = inner_pseudo(to, true, INNER_ICMPV6, 8 + quote);
	put_sum(to + 42, inner_sum(to + 40, 8 + quote, sum));
	return INNER_V6 + 8 + quote;
}

size_t
inner_too_big(
    uint8_t *to, const uint8_t *octets, const struct inner *inner, size_t mtu)
{
	if (!may_complain(inner))
		return 0;
	return inner->version == 4 ? too_big_v4(to, octets, inner, mtu)
	                           : too_big_v6(to, octets, inner, mtu);
}
