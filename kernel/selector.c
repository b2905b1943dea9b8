#include "kernel/selector.h"

#include <arpa/inet.h>
#include <string.h>

#define PROTO_ICMP  1
#define PROTO_ICMP6 58

/* A block of ports as the kernel has it, host order. */
struct ports {
	uint16_t port, mask;
};

struct prefix {
	struct addr addr;
	unsigned bits;
};

uint16_t
selector_family(const struct addr *addr)
{
	switch (addr->family) {
	case ADDR_V4:
		return AF_INET;
	case ADDR_V6:
		return AF_INET6;
	default:
		return 0;
	}
}

void
selector_addr_put(const struct addr *addr, xfrm_address_t *to)
{
	memset(to, 0, sizeof(*to));
	memcpy(to, addr->octets, addr_len(addr));
}

bool
selector_addr_get(
    const xfrm_address_t *from, uint16_t family, struct addr *addr)
{
	memset(addr, 0, sizeof(*addr));
	if (family != AF_INET && family != AF_INET6)
		return false;
	addr->family = family == AF_INET ? ADDR_V4 : ADDR_V6;
	memcpy(addr->octets, from, addr_len(addr));
	return true;
}

/* The widest prefix that begins at first and does not pass last. */
static unsigned
widest(const struct addr *first, const struct addr *last, struct addr *end)
{
	unsigned bits, all = first->family == ADDR_V4 ? 32 : 128;
	struct addr begin;

	for (bits = 0; bits < all; bits++) {
		addr_prefix_range(first, bits, &begin, end);
		if (addr_equal(&begin, first) && addr_compare(end, last) <= 0)
			return bits;
	}
	*end = *first;
	return all;
}

static enum err
split_addrs(const struct ts *ts, struct prefix *list, size_t *count)
{
	struct addr at = ts->first, end;

	for (*count = 0; *count < SELECTOR_MAX;) {
		list[*count].addr = at;
		list[*count].bits = widest(&at, &ts->last, &end);
		++*count;
		if (addr_compare(&end, &ts->last) >= 0 || !addr_next(&end))
			return OK;
		at = end;
	}
	return ERR_LONG;
}

static enum err
split_ports(uint32_t first, uint32_t last, struct ports *list, size_t *count)
{
	uint32_t size;

	for (*count = 0; *count < SELECTOR_MAX;) {
		for (size = 0x10000;
		     first % size != 0 || first + size - 1 > last; size /= 2)
			;
		list[*count].port = (uint16_t)first;
		list[*count].mask = (uint16_t)(0x10000 - size);
		++*count;
		first += size;
		if (first > last)
			return OK;
	}
	return ERR_LONG;
}

static bool
every_port(const struct ts *ts)
{
	return ts->first_port == 0 && ts->last_port == 65535;
}

/* The kernel has the ICMP type in the source's place and the code in the
 * destination's, whatever the direction. */
static enum err
icmp_ports(const struct ts *src, const struct ts *dst, struct ports *type,
    struct ports *code)
{
	const struct ts *ts = every_port(src) ? dst : src;
	unsigned first = ts->first_port, last = ts->last_port;

	memset(type, 0, sizeof(*type));
	memset(code, 0, sizeof(*code));
	if (every_port(ts))
		return OK;
	if (!every_port(src) && !every_port(dst) &&
	    (src->first_port != dst->first_port ||
	        src->last_port != dst->last_port))
		return ERR_UNSUPPORTED;
	if (first >> 8 != last >> 8)
		return ERR_UNSUPPORTED;
	type->port = (uint16_t)(first >> 8);
	type->mask = 0xffff;
	if ((first & 0xff) == 0 && (last & 0xff) == 0xff)
		return OK;
	if (first != last)
		return ERR_UNSUPPORTED;
	code->port = (uint16_t)(first & 0xff);
	code->mask = 0xffff;
	return OK;
}

static enum err
both_ports(const struct ts *src, const struct ts *dst, struct ports *sport,
    size_t *sports, struct ports *dport, size_t *dports)
{
	enum err err;

	/* RFC 7296 3.13.1: OPAQUE, which the kernel cannot say. */
	if (src->first_port > src->last_port ||
	    dst->first_port > dst->last_port)
		return ERR_UNSUPPORTED;
	if (src->proto == PROTO_ICMP || src->proto == PROTO_ICMP6) {
		*sports = *dports = 1;
		return icmp_ports(src, dst, sport, dport);
	}
	err = split_ports(src->first_port, src->last_port, sport, sports);
	return err == OK
	           ? split_ports(dst->first_port, dst->last_port, dport, dports)
	           : err;
}

enum err
selector_expand(const struct ts *src, const struct ts *dst,
    struct xfrm_selector *list, size_t *count)
{
	struct prefix from[SELECTOR_MAX], to[SELECTOR_MAX];
	struct ports sport[SELECTOR_MAX], dport[SELECTOR_MAX];
	size_t froms, tos, sports, dports, i, total;
	struct xfrm_selector *sel;
	enum err err;

	*count = 0;
	if (src->first.family != dst->first.family ||
	    selector_family(&src->first) == 0 ||
	    (src->proto != dst->proto && src->proto != 0 && dst->proto != 0))
		return ERR_UNSUPPORTED;
	err = both_ports(src, dst, sport, &sports, dport, &dports);
	if (err == OK)
		err = split_addrs(src, from, &froms);
	if (err == OK)
		err = split_addrs(dst, to, &tos);
	if (err != OK)
		return err;
	total = froms * tos * sports * dports;
	if (total > SELECTOR_MAX)
		return ERR_LONG;
	for (i = 0; i < total; i++) {
		size_t rest = i;
		const struct prefix *f = &from[rest % froms];
		const struct prefix *t = &to[(rest /= froms) % tos];
		const struct ports *s = &sport[(rest /= tos) % sports];
		const struct ports *d = &dport[rest / sports];

		sel = &list[i];
		memset(sel, 0, sizeof(*sel));
		sel->family = selector_family(&src->first);
		selector_addr_put(&f->addr, &sel->saddr);
		selector_addr_put(&t->addr, &sel->daddr);
		sel->prefixlen_s = (uint8_t)f->bits;
		sel->prefixlen_d = (uint8_t)t->bits;
		sel->proto = src->proto ? src->proto : dst->proto;
		sel->sport = htons(s->port);
		sel->sport_mask = htons(s->mask);
		sel->dport = htons(d->port);
		sel->dport_mask = htons(d->mask);
	}
	*count = total;
	return OK;
}

static unsigned
mask_bits(uint16_t mask)
{
	return (unsigned)__builtin_popcount(mask);
}

/* Addresses count most, then the protocol, then ports. Both families use the
 * same scale: a host is a host. The base leaves room below and above for what
 * others put into the same table. */
uint32_t
selector_priority(const struct xfrm_selector *selector)
{
	unsigned scale = selector->family == AF_INET ? 4 : 1;
	unsigned bits =
	    scale * ((unsigned)selector->prefixlen_s + selector->prefixlen_d);
	unsigned narrow = bits * 64 + (selector->proto ? 33 : 0) +
	                  mask_bits(selector->sport_mask) +
	                  mask_bits(selector->dport_mask);

	return 200000 - narrow;
}

enum err
selector_packet(
    const struct xfrm_selector *selector, struct ts *src, struct ts *dst)
{
	uint16_t sport = ntohs(selector->sport), dport = ntohs(selector->dport);

	memset(src, 0, sizeof(*src));
	memset(dst, 0, sizeof(*dst));
	if (!selector_addr_get(
	        &selector->saddr, selector->family, &src->first) ||
	    !selector_addr_get(&selector->daddr, selector->family, &dst->first))
		return ERR_SYNTAX;
	src->last = src->first;
	dst->last = dst->first;
	src->proto = dst->proto = selector->proto;
	src->last_port = dst->last_port = 65535;
	if (selector->proto == PROTO_ICMP || selector->proto == PROTO_ICMP6) {
		src->first_port = src->last_port = dst->first_port =
		    dst->last_port =
		        (uint16_t)((sport & 0xff) << 8 | (dport & 0xff));
		return OK;
	}
	if (selector->sport_mask != 0)
		src->first_port = src->last_port = sport;
	if (selector->dport_mask != 0)
		dst->first_port = dst->last_port = dport;
	/* A protocol without ports comes with zeroes below a full mask. */
	if (sport == 0 && dport == 0) {
		src->first_port = dst->first_port = 0;
		src->last_port = dst->last_port = 65535;
	}
	return OK;
}
