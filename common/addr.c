#include "common/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

size_t
addr_len(const struct addr *addr)
{
	switch (addr->family) {
	case ADDR_V4:
		return 4;
	case ADDR_V6:
		return 16;
	default:
		return 0;
	}
}

struct view
addr_view(const struct addr *addr)
{
	return view_of(addr->octets, addr_len(addr));
}

bool
addr_from_view(struct addr *addr, struct view octets)
{
	if (octets.len != 4 && octets.len != 16)
		return false;
	memset(addr, 0, sizeof(*addr));
	addr->family = octets.len == 4 ? ADDR_V4 : ADDR_V6;
	memcpy(addr->octets, octets.at, octets.len);
	return true;
}

bool
addr_equal(const struct addr *a, const struct addr *b)
{
	return addr_compare(a, b) == 0;
}

int
addr_compare(const struct addr *a, const struct addr *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	return memcmp(a->octets, b->octets, addr_len(a));
}

bool
addr_is_any(const struct addr *addr)
{
	for (size_t i = 0; i < addr_len(addr); i++)
		if (addr->octets[i] != 0)
			return false;
	return true;
}

struct addr
addr_any(enum addr_family family)
{
	struct addr addr = { .family = (uint8_t)family };

	return addr;
}

bool
addr_parse(struct addr *addr, const char *text)
{
	uint8_t octets[16];

	if (inet_pton(AF_INET, text, octets) == 1)
		return addr_from_view(addr, view_of(octets, 4));
	if (inet_pton(AF_INET6, text, octets) == 1)
		return addr_from_view(addr, view_of(octets, 16));
	return false;
}

char *
addr_text(const struct addr *addr, char text[static ADDR_TEXT])
{
	int family = addr->family == ADDR_V4 ? AF_INET : AF_INET6;

	if (addr_len(addr) == 0 ||
	    inet_ntop(family, addr->octets, text, ADDR_TEXT) == NULL)
		snprintf(text, ADDR_TEXT, "none");
	return text;
}

void
addr_prefix_range(const struct addr *addr, unsigned bits, struct addr *first,
    struct addr *last)
{
	struct addr low = *addr, high = *addr;

	for (unsigned i = 0; i < addr_len(addr); i++) {
		unsigned kept = bits <= i * 8 ? 0 : bits - i * 8;
		uint8_t host = (uint8_t)(kept >= 8 ? 0 : 0xff >> kept);

		low.octets[i] &= (uint8_t)~host;
		high.octets[i] |= host;
	}
	*first = low;
	*last = high;
}

int
addr_range_prefix(const struct addr *first, const struct addr *last)
{
	struct addr low, high;
	unsigned bits = 0, all = (unsigned)addr_len(first) * 8;

	if (first->family != last->family || all == 0)
		return -1;
	while (bits < all) {
		unsigned differ =
		    first->octets[bits / 8] ^ last->octets[bits / 8];

		if (differ & (0x80U >> bits % 8))
			break;
		bits++;
	}
	addr_prefix_range(first, bits, &low, &high);
	if (!addr_equal(&low, first) || !addr_equal(&high, last))
		return -1;
	return (int)bits;
}

bool
addr_next(struct addr *addr)
{
	struct addr next = *addr;

	for (size_t i = addr_len(addr); i > 0; i--) {
		if (++next.octets[i - 1] != 0) {
			*addr = next;
			return true;
		}
	}
	return false;
}

bool
endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
	return a->port == b->port && addr_equal(&a->addr, &b->addr);
}

char *
endpoint_text(const struct endpoint *endpoint, char text[static ENDPOINT_TEXT])
{
	char addr[ADDR_TEXT];

	snprintf(text, ENDPOINT_TEXT,
	    endpoint->addr.family == ADDR_V6 ? "[%s]:%u" : "%s:%u",
	    addr_text(&endpoint->addr, addr), endpoint->port);
	return text;
}

unsigned
endpoint_to_sockaddr(
    const struct endpoint *endpoint, struct sockaddr_storage *to)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };

	memset(to, 0, sizeof(*to));
	if (endpoint->addr.family == ADDR_V4) {
		v4.sin_port = htons(endpoint->port);
		memcpy(&v4.sin_addr, endpoint->addr.octets, 4);
		memcpy(to, &v4, sizeof(v4));
		return sizeof(v4);
	}
	if (endpoint->addr.family == ADDR_V6) {
		v6.sin6_port = htons(endpoint->port);
		memcpy(&v6.sin6_addr, endpoint->addr.octets, 16);
		memcpy(to, &v6, sizeof(v6));
		return sizeof(v6);
	}
	return 0;
}

bool
endpoint_from_sockaddr(
    struct endpoint *endpoint, const struct sockaddr *from, unsigned len)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct in6_addr *in6 = &v6.sin6_addr;

	if (len >= sizeof(v4) && from->sa_family == AF_INET) {
		memcpy(&v4, from, sizeof(v4));
		endpoint->port = ntohs(v4.sin_port);
		return addr_from_view(
		    &endpoint->addr, view_of(&v4.sin_addr, 4));
	}
	if (len >= sizeof(v6) && from->sa_family == AF_INET6) {
		memcpy(&v6, from, sizeof(v6));
		endpoint->port = ntohs(v6.sin6_port);
		if (IN6_IS_ADDR_V4MAPPED(in6))
			return addr_from_view(
			    &endpoint->addr, view_of(in6->s6_addr + 12, 4));
		return addr_from_view(&endpoint->addr, view_of(in6, 16));
	}
	return false;
}
