/*
 * sapay: what the bodies of negotiation payloads say: proposals (RFC 7296
 * 3.3), traffic selectors (3.13), key exchange (3.4), identities (3.5) and
 * Delete (3.11). Plain codecs: they decide nothing.
 */
#ifndef IKEV2_SAPAY_H
#define IKEV2_SAPAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/ident.h"
#include "common/proposal.h"
#include "common/ts.h"
#include "common/wire.h"

/* Appends an SA payload with all of proposals, numbered from 1. AEAD and other
 * ciphers never share a proposal (RFC 7296 3.3). spi stands in each (empty in
 * IKE_SA_INIT). without_kex: IKE_AUTH's child (RFC 7296 1.2). */
void v2_sapay_put(struct wire_out *out, const struct proposals *proposals,
    struct view spi, bool without_kex);

/* Appends an SA payload with the one proposal that was chosen, under the
 * number that the peer gave it. */
void v2_sapay_put_chosen(struct wire_out *out, uint8_t number,
    enum ipsec_protocol protocol, const struct suite *suite, struct view spi);

/* Reads an SA payload's body. *offers is the caller's to free(); *count is at
 * least 1. A proposal for another protocol, with an SPI of another size than
 * spi_len or with a transform type that does not exist stays in the list under
 * protocol PROTO_NONE: nobody will choose it (RFC 7296 3.3.6). ERR_SHORT,
 * ERR_SYNTAX (structure, or numbers that do not count from 1, unless answer),
 * ERR_LONG (more than OFFERS_MAX), ERR_NOMEM. */
enum err v2_sapay_read(struct view body, enum ipsec_protocol protocol,
    size_t spi_len, bool answer, struct offer **offers, size_t *count);

/* TSi or TSr (type: P2_TSI, P2_TSR). */
void v2_ts_put(struct wire_out *out, uint8_t type, const struct ts_list *list);
/* Selectors of unknown types and beyond TS_MAX are left out: a narrower list
 * is what remains (RFC 7296 2.9). Where there are more than TS_MAX, those that
 * have nothing in common with policy (NULL: none) go first. ERR_SHORT,
 * ERR_SYNTAX. */
enum err v2_ts_read(
    struct view body, const struct ts_list *policy, struct ts_list *list);

void v2_ke_put(
    struct wire_out *out, const struct alg *group, struct view public_value);
/* *group is the number on the wire. */
enum err
v2_ke_read(struct view body, uint16_t *group, struct view *public_value);

void v2_id_put(struct wire_out *out, uint8_t type, const struct ident *ident);
/* The caller owns *ident. ERR_SYNTAX for a type that IKEv2 does not know or a
 * wrong length. */
enum err v2_id_read(struct view body, struct ident **ident);

/* Delete of ESP SAs by our inbound SPIs, or (count 0) of the IKE SA. */
void v2_delete_put(struct wire_out *out, const uint32_t *spis, size_t count);
/* *spis: what follows the count, 4 octets each for ESP and AH. */
enum err v2_delete_read(
    struct view body, uint8_t *protocol, uint16_t *count, struct view *spis);

/* A Notify without SPI. */
void v2_notify_put(struct wire_out *out, uint16_t type, struct view data);

#endif
