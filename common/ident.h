/*
 * ident: identities of IKE peers, as plain immutable values.
 *
 * The numbers are shared by both versions (RFC 2407 4.6.2.1, RFC 7296 3.5).
 * Comparison is by type and octets; FQDN and e-mail domain compare without
 * case (RFC 1034 3.1); nothing is ever matched as a raw string or pattern.
 */
#ifndef COMMON_IDENT_H
#define COMMON_IDENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/buf.h"
#include "common/err.h"

enum ident_type {
	ID_ANY = 0, /* policy only: matches every identity */
	ID_IPV4_ADDR = 1,
	ID_FQDN = 2,
	ID_USER_FQDN = 3,        /* ID_RFC822_ADDR in IKEv2 */
	ID_IPV4_ADDR_SUBNET = 4, /* Quick Mode only, as 6, 7, 8 */
	ID_IPV6_ADDR = 5,
	ID_IPV6_ADDR_SUBNET = 6,
	ID_IPV4_ADDR_RANGE = 7,
	ID_IPV6_ADDR_RANGE = 8,
	ID_DER_ASN1_DN = 9,
	ID_DER_ASN1_GN = 10,
	ID_KEY_ID = 11
};

#define IDENT_MAX  1024 /* octets of a value that we accept */
#define IDENT_TEXT 260  /* octets that ident_text() fills at most */

struct ident {
	unsigned refs;
	uint8_t type; /* enum ident_type */
	uint16_t len;
	uint8_t octets[];
};

/* Copies octets. NULL when out of memory, too long, or when an address type
 * has a wrong length. The caller owns one reference. */
struct ident *ident_new(uint8_t type, struct view octets);
struct ident *ident_from_addr(const struct addr *addr);

/* Reads the forms of ipsec.conf and ipsec.secrets, strongSwan dialect:
 * address, %any, name (FQDN), user@name, @name (FQDN), @@user@name, @#hex
 * (KEY_ID), and prefixes fqdn: rfc822: email: userfqdn: keyid: ipv4: ipv6:
 * asn1dn:#hex. ERR_SYNTAX for anything else; *problem (static) says what was
 * expected. On OK the caller owns *ident. */
enum err
ident_parse(struct ident **ident, const char *text, const char **problem);

struct ident *ident_ref(const struct ident *ident); /* NULL gives NULL */
void ident_unref(struct ident *ident);

struct view ident_view(const struct ident *ident); /* the value's octets */
bool ident_equal(const struct ident *a, const struct ident *b);

/* How well wanted (of a policy or PSK selector, NULL or ID_ANY for any) fits
 * the identity: 0 not at all, 1 by %any, 2 exactly. */
unsigned ident_fits(const struct ident *wanted, const struct ident *ident);

/* A key for maps: equal identities have equal octets. At most IDENT_MAX + 1
 * octets are written to key; returns their number. */
size_t ident_key(const struct ident *ident, uint8_t key[static IDENT_MAX + 1]);

/* For people: escaped, cut with "..." when long. NULL prints "%any". */
char *ident_text(const struct ident *ident, char text[static IDENT_TEXT]);

#endif
