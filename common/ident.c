#include "common/ident.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Octets that a type's value must have; 0: any number. */
static size_t
fixed_len(uint8_t type)
{
	switch (type) {
	case ID_IPV4_ADDR:
		return 4;
	case ID_IPV4_ADDR_SUBNET:
	case ID_IPV4_ADDR_RANGE:
		return 8;
	case ID_IPV6_ADDR:
		return 16;
	case ID_IPV6_ADDR_SUBNET:
	case ID_IPV6_ADDR_RANGE:
		return 32;
	default:
		return 0;
	}
}

struct ident *
ident_new(uint8_t type, struct view octets)
{
	struct ident *ident;
	size_t fixed = fixed_len(type);

	if (octets.len > IDENT_MAX || (fixed != 0 && octets.len != fixed))
		return NULL;
	ident = malloc(sizeof(*ident) + octets.len);
	if (ident == NULL)
		return NULL;
	ident->refs = 1;
	ident->type = type;
	ident->len = (uint16_t)octets.len;
	if (octets.len > 0)
		memcpy(ident->octets, octets.at, octets.len);
	return ident;
}

struct ident *
ident_from_addr(const struct addr *addr)
{
	switch (addr->family) {
	case ADDR_V4:
		return ident_new(ID_IPV4_ADDR, addr_view(addr));
	case ADDR_V6:
		return ident_new(ID_IPV6_ADDR, addr_view(addr));
	default:
		return NULL;
	}
}

/* Parsing ----------------------------------------------------------------- */

static enum err
wrong(const char **problem, const char *expected)
{
	*problem = expected;
	return ERR_SYNTAX;
}

static enum err
parsed(struct ident **ident, uint8_t type, struct view octets,
    const char **problem)
{
	if (octets.len == 0)
		return wrong(problem, "expected an identity, found nothing");
	if (octets.len > IDENT_MAX)
		return wrong(problem, "expected at most 1024 octets");
	*ident = ident_new(type, octets);
	return *ident != NULL ? OK : ERR_NOMEM;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* "0a1b", "0a:1b". */
static enum err
parse_hex(
    struct ident **ident, uint8_t type, const char *text, const char **problem)
{
	uint8_t octets[IDENT_MAX];
	size_t len = 0;

	while (*text != '\0') {
		int high = hex_digit(text[0]), low;

		low = high < 0 ? -1 : hex_digit(text[1]);
		if (low < 0)
			return wrong(
			    problem, "expected pairs of hexadecimal digits");
		if (len == sizeof(octets))
			return wrong(problem, "expected at most 1024 octets");
		octets[len++] = (uint8_t)(high << 4 | low);
		text += 2;
		if (*text == ':' && text[1] != '\0')
			text++;
	}
	return parsed(ident, type, view_of(octets, len), problem);
}

static bool
is_printable(struct view octets)
{
	for (size_t i = 0; i < octets.len; i++)
		if (octets.at[i] < 0x20 || octets.at[i] >= 0x7f)
			return false;
	return true;
}

/* A value as text, or, after "#", in hexadecimal. */
static enum err
parse_value(
    struct ident **ident, uint8_t type, const char *text, const char **problem)
{
	if (*text == '#')
		return parse_hex(ident, type, text + 1, problem);
	if (!is_printable(view_text(text)))
		return wrong(problem, "expected printable ASCII; other "
		                      "octets are written #hex");
	return parsed(ident, type, view_text(text), problem);
}

static enum err
parse_mail(struct ident **ident, const char *text, const char **problem)
{
	const char *at = strrchr(text, '@');

	if (*text != '#' && (at == NULL || at == text || at[1] == '\0'))
		return wrong(problem, "expected user@domain");
	return parse_value(ident, ID_USER_FQDN, text, problem);
}

static enum err
parse_addr(struct ident **ident, const char *text, enum addr_family family,
    const char **problem)
{
	struct addr addr;

	if (!addr_parse(&addr, text) || addr.family != family)
		return wrong(problem, family == ADDR_V4
		                          ? "expected an IPv4 address"
		                          : "expected an IPv6 address");
	*ident = ident_from_addr(&addr);
	return *ident != NULL ? OK : ERR_NOMEM;
}

static const struct {
	const char *text;
	uint8_t type;
} prefixes[] = {
	{ "fqdn:", ID_FQDN },
	{ "dns:", ID_FQDN },
	{ "rfc822:", ID_USER_FQDN },
	{ "email:", ID_USER_FQDN },
	{ "userfqdn:", ID_USER_FQDN },
	{ "keyid:", ID_KEY_ID },
	{ "ipv4:", ID_IPV4_ADDR },
	{ "ipv6:", ID_IPV6_ADDR },
	{ "asn1dn:", ID_DER_ASN1_DN },
};

static enum err
parse_typed(
    struct ident **ident, uint8_t type, const char *value, const char **problem)
{
	switch (type) {
	case ID_IPV4_ADDR:
		return parse_addr(ident, value, ADDR_V4, problem);
	case ID_IPV6_ADDR:
		return parse_addr(ident, value, ADDR_V6, problem);
	case ID_USER_FQDN:
		return parse_mail(ident, value, problem);
	case ID_DER_ASN1_DN:
		if (*value != '#')
			return wrong(problem, "expected asn1dn:# and the "
			                      "DER octets in hexadecimal");
		return parse_hex(ident, type, value + 1, problem);
	default:
		return parse_value(ident, type, value, problem);
	}
}

/* A bare name: what it may contain keeps slips from becoming names. */
static enum err
parse_name(struct ident **ident, const char *text, const char **problem)
{
	static const char digits[] = "0123456789.";
	static const char names[] = "abcdefghijklmnopqrstuvwxyz"
	                            "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	                            "0123456789.-_";

	if (strspn(text, digits) == strlen(text))
		return wrong(
		    problem, "expected an IPv4 address of four numbers");
	if (strchr(text, '=') != NULL)
		return wrong(problem,
		    "expected a distinguished name as "
		    "asn1dn:# and its DER octets in hexadecimal");
	if (strspn(text, names) != strlen(text))
		return wrong(problem, "expected an address, a domain name, "
		                      "user@domain, @name, @#hex or %any");
	return parsed(ident, ID_FQDN, view_text(text), problem);
}

enum err
ident_parse(struct ident **ident, const char *text, const char **problem)
{
	struct addr addr;

	if (*text == '\0')
		return wrong(problem, "expected an identity, found nothing");
	if (strcmp(text, "%any") == 0) {
		*ident = ident_new(ID_ANY, view_of(NULL, 0));
		return *ident != NULL ? OK : ERR_NOMEM;
	}
	if (addr_parse(&addr, text)) {
		*ident = ident_from_addr(&addr);
		return *ident != NULL ? OK : ERR_NOMEM;
	}
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		size_t len = strlen(prefixes[i].text);

		if (strncasecmp(text, prefixes[i].text, len) == 0)
			return parse_typed(
			    ident, prefixes[i].type, text + len, problem);
	}
	/* Interop: strongSwan matches patterns.  As a name it would fit nobody.
	 */
	if (strchr(text, '*') != NULL)
		return wrong(problem, "expected a whole identity: patterns "
		                      "with * are not done");
	if (strncmp(text, "@#", 2) == 0)
		return parse_hex(ident, ID_KEY_ID, text + 2, problem);
	if (strncmp(text, "@@", 2) == 0)
		return parse_mail(ident, text + 2, problem);
	if (text[0] == '@')
		return parse_value(ident, ID_FQDN, text + 1, problem);
	if (strchr(text, '@') != NULL)
		return parse_mail(ident, text, problem);
	return parse_name(ident, text, problem);
}

/* Values ------------------------------------------------------------------ */

struct ident *
ident_ref(const struct ident *ident)
{
	struct ident *shared = (struct ident *)(uintptr_t)ident;

	if (shared != NULL)
		shared->refs++;
	return shared;
}

void
ident_unref(struct ident *ident)
{
	if (ident != NULL && --ident->refs == 0)
		free(ident);
}

struct view
ident_view(const struct ident *ident)
{
	return view_of(ident->octets, ident->len);
}

/* Where case stops to matter: a whole FQDN, an e-mail address behind its last
 * "@" (RFC 5321 2.4: the local part is the recipient's own affair). */
static size_t
caseless_from(const struct ident *ident)
{
	size_t at = ident->len;

	if (ident->type == ID_FQDN)
		return 0;
	if (ident->type != ID_USER_FQDN)
		return ident->len;
	while (at > 0 && ident->octets[at - 1] != '@')
		at--;
	return at > 0 ? at : ident->len;
}

static uint8_t
lower(uint8_t octet)
{
	return octet >= 'A' && octet <= 'Z' ? (uint8_t)(octet + 32) : octet;
}

bool
ident_equal(const struct ident *a, const struct ident *b)
{
	size_t from;

	if (a == b)
		return true;
	if (a == NULL || b == NULL || a->type != b->type || a->len != b->len)
		return false;
	from = caseless_from(a);
	if (from != caseless_from(b) || memcmp(a->octets, b->octets, from) != 0)
		return false;
	for (size_t i = from; i < a->len; i++)
		if (lower(a->octets[i]) != lower(b->octets[i]))
			return false;
	return true;
}

unsigned
ident_fits(const struct ident *wanted, const struct ident *ident)
{
	if (wanted == NULL || wanted->type == ID_ANY)
		return 1;
	return ident != NULL && ident_equal(wanted, ident) ? 2 : 0;
}

size_t
ident_key(const struct ident *ident, uint8_t key[static IDENT_MAX + 1])
{
	size_t from = caseless_from(ident);

	key[0] = ident->type;
	for (size_t i = 0; i < ident->len; i++)
		key[i + 1] =
		    i < from ? ident->octets[i] : lower(ident->octets[i]);
	return (size_t)ident->len + 1;
}

/* Text -------------------------------------------------------------------- */

/* Prefix and value, with "..." where it had to be cut. */
static void
put_value(char text[static IDENT_TEXT], const char *prefix, struct view value,
    bool hex)
{
	char full[4 * IDENT_MAX + 1];
	struct buf out;
	size_t room;

	if (hex)
		buf_hex(full, sizeof(full), value);
	else
		buf_escape(full, sizeof(full), value);
	buf_init(&out, text, IDENT_TEXT - 1);
	buf_view(&out, view_text(prefix));
	room = out.cap - out.len;
	if (strlen(full) <= room) {
		buf_view(&out, view_text(full));
	} else {
		buf_put(&out, full, room - 3);
		buf_put(&out, "...", 3);
	}
	text[out.len] = '\0';
}

/* The four types that hold two addresses. ident_new() saw to the length. */
static void
put_pair(char text[static IDENT_TEXT], const struct ident *ident)
{
	struct addr first, second, low, high;
	char first_text[ADDR_TEXT], second_text[ADDR_TEXT];
	size_t len = ident->len / 2U;
	bool subnet = ident->type == ID_IPV4_ADDR_SUBNET ||
	              ident->type == ID_IPV6_ADDR_SUBNET;

	if (!addr_from_view(&first, view_of(ident->octets, len)) ||
	    !addr_from_view(&second, view_of(ident->octets + len, len))) {
		snprintf(text, IDENT_TEXT, "invalid");
		return;
	}
	addr_text(&first, first_text);
	addr_text(&second, second_text);
	for (unsigned bits = 0; subnet && bits <= len * 8; bits++) {
		struct addr ones = first;

		memset(ones.octets, 0xff, len);
		addr_prefix_range(&ones, bits, &low, &high);
		if (addr_equal(&low, &second)) {
			snprintf(text, IDENT_TEXT, "%s/%u", first_text, bits);
			return;
		}
	}
	snprintf(text, IDENT_TEXT, "%s%c%s", first_text, subnet ? '/' : '-',
	    second_text);
}

char *
ident_text(const struct ident *ident, char text[static IDENT_TEXT])
{
	char prefix[24];
	struct addr addr;

	if (ident == NULL || ident->type == ID_ANY) {
		snprintf(text, IDENT_TEXT, "%%any");
		return text;
	}
	switch (ident->type) {
	case ID_IPV4_ADDR:
	case ID_IPV6_ADDR:
		if (addr_from_view(&addr, ident_view(ident)))
			addr_text(&addr, text);
		else
			snprintf(text, IDENT_TEXT, "invalid");
		break;
	case ID_IPV4_ADDR_SUBNET:
	case ID_IPV6_ADDR_SUBNET:
	case ID_IPV4_ADDR_RANGE:
	case ID_IPV6_ADDR_RANGE:
		put_pair(text, ident);
		break;
	case ID_FQDN:
		/* A name that looks like an address is told from one. */
		put_value(text, "", ident_view(ident), false);
		if (addr_parse(&addr, text))
			put_value(text, "@", ident_view(ident), false);
		break;
	case ID_USER_FQDN:
		put_value(text, "", ident_view(ident), false);
		break;
	case ID_KEY_ID:
		if (ident->len > 0 && is_printable(ident_view(ident)))
			put_value(text, "keyid:", ident_view(ident), false);
		else
			put_value(text, "@#", ident_view(ident), true);
		break;
	case ID_DER_ASN1_DN:
		put_value(text, "asn1dn:#", ident_view(ident), true);
		break;
	default:
		snprintf(prefix, sizeof(prefix), "type %u: ", ident->type);
		put_value(text, prefix, ident_view(ident), true);
		break;
	}
	return text;
}
