#include "common/ts.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Names for people; numbers do as well. No lookups in the system's files: the
 * same text must mean the same everywhere. */
struct name {
	const char *text;
	uint16_t number;
};

static const struct name protocols[] = {
	{ "icmp", IPPROTO_ICMP },
	{ "igmp", 2 },
	{ "ipip", 4 },
	{ "tcp", IPPROTO_TCP },
	{ "udp", IPPROTO_UDP },
	{ "ipv6", 41 },
	{ "gre", 47 },
	{ "esp", 50 },
	{ "ah", 51 },
	{ "ipv6-icmp", IPPROTO_ICMPV6 },
	{ "icmpv6", IPPROTO_ICMPV6 },
	{ "ospf", 89 },
	{ "pim", 103 },
	{ "vrrp", 112 },
	{ "l2tp", 115 },
	{ "sctp", 132 },
};

static const struct name services[] = {
	{ "ftp", 21 },
	{ "ssh", 22 },
	{ "telnet", 23 },
	{ "smtp", 25 },
	{ "domain", 53 },
	{ "bootps", 67 },
	{ "bootpc", 68 },
	{ "tftp", 69 },
	{ "http", 80 },
	{ "kerberos", 88 },
	{ "ntp", 123 },
	{ "snmp", 161 },
	{ "bgp", 179 },
	{ "ldap", 389 },
	{ "https", 443 },
	{ "isakmp", 500 },
	{ "syslog", 514 },
	{ "ldaps", 636 },
	{ "radius", 1812 },
	{ "l2tp", 1701 },
	{ "l2f", 1701 },
	{ "ipsec-nat-t", 4500 },
};

#define NAMES(table) (sizeof(table) / sizeof((table)[0]))

static void
all_ports(struct ts *ts)
{
	ts->first_port = 0;
	ts->last_port = 65535;
}

struct ts
ts_from_prefix(const struct addr *addr, unsigned bits)
{
	struct ts ts;

	memset(&ts, 0, sizeof(ts));
	addr_prefix_range(addr, bits, &ts.first, &ts.last);
	all_ports(&ts);
	return ts;
}

struct ts
ts_from_addr(const struct addr *addr)
{
	return ts_from_prefix(addr, (unsigned)addr_len(addr) * 8);
}

struct ts
ts_resolve(const struct ts *ts, const struct addr *addr)
{
	struct ts resolved = *ts;

	if (ts->dynamic) {
		resolved.first = resolved.last = *addr;
		resolved.dynamic = false;
	}
	return resolved;
}

/* Parsing ----------------------------------------------------------------- */

static enum err
wrong(const char **problem, const char *expected)
{
	*problem = expected;
	return ERR_SYNTAX;
}

/* A decimal number from 0 to max, or one of names. */
static bool
parse_number(const char *text, unsigned max, const struct name *names,
    size_t count, uint16_t *number)
{
	unsigned value = 0;

	for (size_t i = 0; i < count; i++) {
		if (strcasecmp(text, names[i].text) == 0) {
			*number = names[i].number;
			return true;
		}
	}
	if (*text == '\0')
		return false;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (unsigned)(*text - '0');
		if (value > max)
			return false;
	}
	*number = (uint16_t)value;
	return true;
}

static bool
is_icmp(uint8_t proto)
{
	return proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6;
}

static bool
parse_port(const char *text, uint16_t *port)
{
	return parse_number(text, 65535, services, NAMES(services), port);
}

/* "%any", "%opaque", "80", "80-90"; names stay names, "ipsec-nat-t" too. */
static enum err
parse_ports(struct ts *ts, char *text, const char **problem)
{
	char *dash;

	if (strcasecmp(text, "%any") == 0)
		return OK;
	if (strcasecmp(text, "%opaque") == 0) {
		ts->first_port = 65535;
		ts->last_port = 0;
		return OK;
	}
	if (parse_port(text, &ts->first_port)) {
		ts->last_port = ts->first_port;
		/* A number below 256 is a type of ICMP with all its codes. */
		if (is_icmp(ts->proto) && ts->first_port < 256) {
			ts->first_port = (uint16_t)(ts->first_port << 8);
			ts->last_port = ts->first_port | 255;
		}
		return OK;
	}
	dash = strchr(text, '-');
	if (dash != NULL) {
		*dash = '\0';
		if (parse_port(text, &ts->first_port) &&
		    parse_port(dash + 1, &ts->last_port) &&
		    ts->first_port <= ts->last_port)
			return OK;
	}
	return wrong(problem, "expected a port, a range of ports, %any or "
	                      "%opaque");
}

/* What stands between the brackets. */
static enum err
parse_upper(struct ts *ts, char *text, const char **problem)
{
	char *slash = strchr(text, '/');
	uint16_t proto = 0;

	if (slash != NULL)
		*slash++ = '\0';
	if (strcasecmp(text, "%any") != 0 && (*text != '\0' || slash == NULL) &&
	    !parse_number(text, 255, protocols, NAMES(protocols), &proto))
		return wrong(problem, "expected a protocol by name or number");
	ts->proto = (uint8_t)proto;
	return slash != NULL ? parse_ports(ts, slash, problem) : OK;
}

static enum err
parse_addrs(struct ts *ts, char *text, const char **problem)
{
	char *slash = strchr(text, '/'), *dash = strchr(text, '-');
	uint16_t bits;

	if (strcasecmp(text, "%dynamic") == 0) {
		ts->dynamic = true;
		return OK;
	}
	if (slash != NULL)
		*slash++ = '\0';
	else if (dash != NULL)
		*dash++ = '\0';
	if (!addr_parse(&ts->first, text))
		return wrong(problem, "expected an address, a subnet, a range "
		                      "of addresses or %dynamic");
	bits = (uint16_t)(addr_len(&ts->first) * 8);
	if (slash != NULL && !parse_number(slash, bits, NULL, 0, &bits))
		return wrong(problem, "expected a prefix length");
	if (slash == NULL && dash != NULL) {
		if (!addr_parse(&ts->last, dash) ||
		    ts->first.family != ts->last.family ||
		    addr_compare(&ts->first, &ts->last) > 0)
			return wrong(problem, "expected a last address that "
			                      "is not below the first");
		return OK;
	}
	addr_prefix_range(&ts->first, bits, &ts->first, &ts->last);
	return OK;
}

enum err
ts_parse(struct ts *ts, const char *text, const char **problem)
{
	char copy[TS_TEXT], *open, *close;
	struct ts read;
	enum err err;

	memset(&read, 0, sizeof(read));
	all_ports(&read);
	if (strlen(text) >= sizeof(copy))
		return wrong(problem, "expected a traffic selector of less "
		                      "than 128 characters");
	snprintf(copy, sizeof(copy), "%s", text);
	open = strchr(copy, '[');
	if (open != NULL) {
		close = strchr(open, ']');
		if (close == NULL || close[1] != '\0')
			return wrong(problem, "expected ] at the end");
		*open++ = *close = '\0';
		err = parse_upper(&read, open, problem);
		if (err != OK)
			return err;
	}
	/* "[tcp/80]" alone stands for the end's own address. */
	if (open != NULL && *copy == '\0')
		read.dynamic = true;
	else if ((err = parse_addrs(&read, copy, problem)) != OK)
		return err;
	*ts = read;
	return OK;
}

/* Text -------------------------------------------------------------------- */

static bool
is_opaque(const struct ts *ts)
{
	return ts->first_port == 65535 && ts->last_port == 0;
}

static bool
is_every_port(const struct ts *ts)
{
	return ts->first_port == 0 && ts->last_port == 65535;
}

static void
put_ports(char *text, size_t size, const struct ts *ts)
{
	if (is_every_port(ts))
		text[0] = '\0';
	else if (is_opaque(ts))
		snprintf(text, size, "/%%opaque");
	else if (is_icmp(ts->proto) && (ts->first_port & 255) == 0 &&
	         ts->last_port == (ts->first_port | 255))
		snprintf(text, size, "/%u", ts->first_port >> 8);
	else if (ts->first_port == ts->last_port &&
	         !(is_icmp(ts->proto) && ts->first_port < 256))
		snprintf(text, size, "/%u", ts->first_port);
	else
		snprintf(text, size, "/%u-%u", ts->first_port, ts->last_port);
}

char *
ts_text(const struct ts *ts, char text[static TS_TEXT])
{
	char first[ADDR_TEXT], last[ADDR_TEXT], ports[16], proto[12];
	int bits = addr_range_prefix(&ts->first, &ts->last);
	char addrs[2 * ADDR_TEXT + 1];

	addr_text(&ts->first, first);
	addr_text(&ts->last, last);
	if (ts->dynamic)
		snprintf(addrs, sizeof(addrs), "%%dynamic");
	else if (bits >= 0)
		snprintf(addrs, sizeof(addrs), "%s/%d", first, bits);
	else
		snprintf(addrs, sizeof(addrs), "%s-%s", first, last);
	if (ts->proto == 0 && is_every_port(ts)) {
		snprintf(text, TS_TEXT, "%s", addrs);
		return text;
	}
	snprintf(
	    proto, sizeof(proto), ts->proto == 0 ? "%%any" : "%u", ts->proto);
	for (size_t i = 0; i < NAMES(protocols); i++) {
		if (protocols[i].number == ts->proto) {
			snprintf(proto, sizeof(proto), "%s", protocols[i].text);
			break;
		}
	}
	put_ports(ports, sizeof(ports), ts);
	snprintf(text, TS_TEXT, "%s[%s%s]", addrs, proto, ports);
	return text;
}

char *
ts_list_text(const struct ts_list *list, char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (uint8_t i = 0; i < list->count; i++) {
		char one[TS_TEXT];
		size_t len = strlen(ts_text(&list->item[i], one));
		size_t gap = i > 0 ? 1 : 0;
		/* Unless this is the last, "..." must still fit after it. */
		size_t rest = i + 1 < list->count ? 4 : 0;

		if (used + gap + len + rest >= size) {
			snprintf(text + used, size - used, "%s...",
			    i > 0 ? " " : "");
			break;
		}
		snprintf(
		    text + used, size - used, "%s%s", i > 0 ? " " : "", one);
		used += gap + len;
	}
	return text;
}

/* Algebra ----------------------------------------------------------------- */

bool
ts_valid(const struct ts *ts)
{
	/* RFC 7296 3.13.1: the first port is not above the last, except that
	 * 65535 to 0 is OPAQUE. */
	if (ts->first_port > ts->last_port && !is_opaque(ts))
		return false;
	if (ts->dynamic)
		return true;
	return addr_len(&ts->first) != 0 &&
	       ts->first.family == ts->last.family &&
	       addr_compare(&ts->first, &ts->last) <= 0;
}

bool
ts_equal(const struct ts *a, const struct ts *b)
{
	if (a->dynamic != b->dynamic || a->proto != b->proto ||
	    a->first_port != b->first_port || a->last_port != b->last_port)
		return false;
	return a->dynamic || (addr_equal(&a->first, &b->first) &&
	                         addr_equal(&a->last, &b->last));
}

bool
ts_within(const struct ts *inner, const struct ts *outer)
{
	struct ts common;

	return ts_intersect(inner, outer, &common) && ts_equal(&common, inner);
}

/* RFC 4301 4.4.1.1: ANY includes OPAQUE, which has nothing in common with any
 * other value. */
static bool
intersect_ports(const struct ts *a, const struct ts *b, struct ts *common)
{
	if (is_every_port(a) || is_every_port(b)) {
		const struct ts *narrow = is_every_port(a) ? b : a;

		common->first_port = narrow->first_port;
		common->last_port = narrow->last_port;
		return true;
	}
	if (is_opaque(a) || is_opaque(b)) {
		common->first_port = 65535;
		common->last_port = 0;
		return is_opaque(a) && is_opaque(b);
	}
	common->first_port =
	    a->first_port > b->first_port ? a->first_port : b->first_port;
	common->last_port =
	    a->last_port < b->last_port ? a->last_port : b->last_port;
	return common->first_port <= common->last_port;
}

bool
ts_intersect(const struct ts *a, const struct ts *b, struct ts *common)
{
	struct ts both;

	/* What "dynamic" stands for is not known here. */
	if (a->dynamic || b->dynamic || !ts_valid(a) || !ts_valid(b) ||
	    a->first.family != b->first.family)
		return false;
	if (a->proto != 0 && b->proto != 0 && a->proto != b->proto)
		return false;
	memset(&both, 0, sizeof(both));
	both.proto = a->proto != 0 ? a->proto : b->proto;
	both.first =
	    addr_compare(&a->first, &b->first) > 0 ? a->first : b->first;
	both.last = addr_compare(&a->last, &b->last) < 0 ? a->last : b->last;
	if (addr_compare(&both.first, &both.last) > 0 ||
	    !intersect_ports(a, b, &both))
		return false;
	*common = both;
	return true;
}

bool
ts_contains(
    const struct ts *ts, const struct addr *addr, uint8_t proto, uint16_t port)
{
	if (ts->dynamic || addr->family != ts->first.family ||
	    addr_compare(addr, &ts->first) < 0 ||
	    addr_compare(addr, &ts->last) > 0)
		return false;
	if (ts->proto != 0 && ts->proto != proto)
		return false;
	return port >= ts->first_port && port <= ts->last_port;
}

enum err
ts_list_add(struct ts_list *list, const struct ts *ts)
{
	if (list->count == TS_MAX)
		return ERR_LONG;
	list->item[list->count++] = *ts;
	return OK;
}

bool
ts_list_equal(const struct ts_list *a, const struct ts_list *b)
{
	if (a->count != b->count)
		return false;
	for (uint8_t i = 0; i < a->count; i++)
		if (!ts_equal(&a->item[i], &b->item[i]))
			return false;
	return true;
}

static bool
within_any(const struct ts *inner, const struct ts_list *outer)
{
	for (uint8_t i = 0; i < outer->count; i++)
		if (ts_within(inner, &outer->item[i]))
			return true;
	return false;
}

bool
ts_list_within(const struct ts_list *inner, const struct ts_list *outer)
{
	for (uint8_t i = 0; i < inner->count; i++)
		if (!within_any(&inner->item[i], outer))
			return false;
	return true;
}

/* Adds a part unless it lies within one that is there; parts that lie within
 * the new one go, and it takes the place of the first of them. A full list
 * stays as it is: a smaller set is still a narrowing. */
static void
add_part(struct ts_list *list, const struct ts *part)
{
	uint8_t kept = 0;
	bool placed = false;

	if (within_any(part, list))
		return;
	for (uint8_t i = 0; i < list->count; i++) {
		if (!ts_within(&list->item[i], part)) {
			list->item[kept++] = list->item[i];
		} else if (!placed) {
			list->item[kept++] = *part;
			placed = true;
		}
	}
	list->count = kept;
	if (!placed)
		(void)ts_list_add(list, part);
}

/* Is the first selector the packet that set the peer off? */
static bool
is_trigger(const struct ts_list *offered)
{
	const struct ts *first = &offered->item[0];

	if (offered->count < 2 || !addr_equal(&first->first, &first->last))
		return false;
	for (uint8_t i = 1; i < offered->count; i++)
		if (ts_within(first, &offered->item[i]))
			return true;
	return false;
}

/* Adds what offered and policy have in common. With a trigger, only parts that
 * contain what policy allows of it. */
static void
add_common(const struct ts_list *offered, const struct ts_list *policy,
    const struct ts *trigger, struct ts_list *narrowed)
{
	struct ts part, core;

	for (uint8_t i = 0; i < offered->count; i++) {
		for (uint8_t k = 0; k < policy->count; k++) {
			const struct ts *allowed = &policy->item[k];

			if (!ts_intersect(&offered->item[i], allowed, &part))
				continue;
			if (trigger != NULL &&
			    (!ts_intersect(trigger, allowed, &core) ||
			        !ts_within(&core, &part)))
				continue;
			add_part(narrowed, &part);
		}
	}
}

enum err
ts_narrow(const struct ts_list *offered, const struct ts_list *policy,
    struct ts_list *narrowed)
{
	struct ts_list parts = { .count = 0 }, before;

	if (offered->count > 0 && is_trigger(offered))
		add_common(offered, policy, &offered->item[0], &parts);
	/* A large part may have made room for one that found the list full.
	 * What is covered only grows, so this ends. */
	do {
		before = parts;
		add_common(offered, policy, NULL, &parts);
	} while (!ts_list_equal(&before, &parts));
	if (parts.count == 0)
		return ERR_TS;
	*narrowed = parts;
	return OK;
}
