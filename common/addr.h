/*
 * addr: IPv4 and IPv6 addresses, endpoints and prefixes as plain values.
 */
#ifndef COMMON_ADDR_H
#define COMMON_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

struct sockaddr;
struct sockaddr_storage;

/* family 0 is "no address", which equals only itself. */
enum addr_family { ADDR_NONE = 0, ADDR_V4 = 4, ADDR_V6 = 6 };

struct addr {
	uint8_t family;     /* enum addr_family */
	uint8_t octets[16]; /* network order; IPv4 uses the first 4, rest 0 */
};

struct endpoint {
	struct addr addr;
	uint16_t port; /* host order */
};

#define ADDR_TEXT     46 /* octets that addr_text() needs, with NUL */
#define ENDPOINT_TEXT 56

size_t addr_len(const struct addr *addr); /* 0, 4 or 16 octets */
struct view addr_view(const struct addr *addr);
bool addr_from_view(struct addr *addr, struct view octets); /* 4 or 16 */
bool addr_equal(const struct addr *a, const struct addr *b);
int addr_compare(const struct addr *a, const struct addr *b); /* memcmp order */
bool addr_is_any(const struct addr *addr); /* none, 0.0.0.0 or :: */
struct addr addr_any(enum addr_family family);

/* Numeric forms only, never a lookup. False if text is no such address. */
bool addr_parse(struct addr *addr, const char *text);
char *addr_text(const struct addr *addr, char text[static ADDR_TEXT]);

/* First and last address of addr/bits. bits is at most 32 or 128. */
void addr_prefix_range(const struct addr *addr, unsigned bits,
    struct addr *first, struct addr *last);
/* Prefix length whose range is exactly first..last, or -1. */
int addr_range_prefix(const struct addr *first, const struct addr *last);
/* Adds one; false (and unchanged) at the last address. */
bool addr_next(struct addr *addr);

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);
/* "192.0.2.1:500", "[2001:db8::1]:500". */
char *
endpoint_text(const struct endpoint *endpoint, char text[static ENDPOINT_TEXT]);

/* Both ways between endpoints and socket addresses. The first returns the
 * length in octets; the second false for other families. A v4-mapped IPv6
 * address becomes IPv4. */
unsigned endpoint_to_sockaddr(
    const struct endpoint *endpoint, struct sockaddr_storage *to);
bool endpoint_from_sockaddr(
    struct endpoint *endpoint, const struct sockaddr *from, unsigned len);

#endif
