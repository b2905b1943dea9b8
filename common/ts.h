/*
 * ts: traffic selectors (RFC 7296 3.13, 2.9; RFC 4301 4.4.1) as plain values,
 * and lists of them.
 */
#ifndef COMMON_TS_H
#define COMMON_TS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/err.h"

/* One range of addresses x protocol x ports. proto 0 means every protocol;
 * ports 0..65535 every port; first_port 65535 with last_port 0 is OPAQUE. For
 * ICMP, the port is type << 8 | code. */
struct ts {
	struct addr first, last; /* same family, first <= last */
	uint8_t proto;
	uint16_t first_port, last_port;
	bool dynamic; /* policy only: stands for the end's own address */
};

#define TS_MAX  16 /* selectors a side, ours and the peer's */
#define TS_TEXT 128

struct ts_list {
	uint8_t count;
	struct ts item[TS_MAX];
};

struct ts ts_from_prefix(const struct addr *addr, unsigned bits);
struct ts ts_from_addr(const struct addr *addr); /* one host */
/* What "dynamic" stands for, once the address is known. */
struct ts ts_resolve(const struct ts *ts, const struct addr *addr);

/* "10.0.0.0/8", "10.0.0.0/8[tcp/80]", "10.1.1.1-10.1.1.9", "%dynamic",
 * "%dynamic[17/1701]"; protocol and port by number or name. */
enum err ts_parse(struct ts *ts, const char *text, const char **problem);
char *ts_text(const struct ts *ts, char text[static TS_TEXT]);
/* All of a list, separated by one space, cut with "..." at size octets. */
char *ts_list_text(const struct ts_list *list, char *text, size_t size);

bool ts_valid(const struct ts *ts); /* start <= end, families, OPAQUE */
bool ts_equal(const struct ts *a, const struct ts *b);
bool ts_within(const struct ts *inner, const struct ts *outer);
/* False when nothing is common to both. */
bool ts_intersect(const struct ts *a, const struct ts *b, struct ts *common);
bool ts_contains(
    const struct ts *ts, const struct addr *addr, uint8_t proto, uint16_t port);

enum err ts_list_add(struct ts_list *list, const struct ts *ts); /* ERR_LONG */
bool ts_list_equal(const struct ts_list *a, const struct ts_list *b);
/* Every selector of inner lies within one of outer. */
bool ts_list_within(const struct ts_list *inner, const struct ts_list *outer);

/* RFC 7296 2.9: the largest subset of offered that policy allows. Where the
 * first offered selector is the packet that triggered the exchange (a single
 * address, more specific than a later one), the part that contains it comes
 * first. Never wider than offered, never wider than policy. ERR_TS when
 * nothing is left. */
enum err ts_narrow(const struct ts_list *offered, const struct ts_list *policy,
    struct ts_list *narrowed);

#endif
