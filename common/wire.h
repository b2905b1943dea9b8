/*
 * wire: the octets of an IKE message, both versions: header, chain of payloads,
 * and the kinds of payload that the rule tables speak of.
 *
 * A payload kind is neutral of version, and every notify that the protocol
 * knows is a kind of its own. Parsing checks lengths, the chain's end and the
 * minimum size of each payload's body before anything looks inside; it copies
 * nothing. RFC 2408 3, RFC 7296 3, RFC 7383 2.5.
 */
#ifndef COMMON_WIRE_H
#define COMMON_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/iana.h"

#define WIRE_HEADER   28    /* octets of the header */
#define WIRE_MAX      65535 /* octets of a message, reassembled */
#define WIRE_PAYLOADS 64    /* payloads in a message; more: ERR_LIMIT */

struct wire_header {
	uint64_t spi_i, spi_r; /* IKEv1: cookies. As big-endian numbers */
	uint8_t next;          /* first payload's type */
	uint8_t major, minor;
	uint8_t exchange;
	uint8_t flags;
	uint32_t id;     /* message ID */
	uint32_t length; /* octets of the whole message */
};

enum kind {
	KIND_NONE,    /* ends lists; no payload has it */
	KIND_UNKNOWN, /* a payload type that this version does not define */
	/* payloads; comments give v1 / v2 type numbers */
	KIND_SA,
	KIND_KE,
	KIND_NONCE,
	KIND_CERT,
	KIND_CERTREQ,
	KIND_DELETE,
	KIND_VID,
	KIND_ID,
	KIND_HASH,
	KIND_SIG,
	KIND_ATTR,
	KIND_NATD,
	KIND_NATOA,    /* v1 */
	KIND_FRAGMENT, /* v1 */
	KIND_IDI,
	KIND_IDR,
	KIND_AUTH,
	KIND_TSI,
	KIND_TSR,
	KIND_CP,
	KIND_EAP,
	KIND_SK,
	KIND_SKF, /* v2 */
	/* notifies: two catch-alls, then the known ones */
	KIND_N_ERROR,  /* an error notify without a kind of its own */
	KIND_N_STATUS, /* an unknown status notify */
	KIND_N_COOKIE,
	KIND_N_INVALID_KE,
	KIND_N_NO_PROPOSAL,
	KIND_N_INVALID_SYNTAX,
	KIND_N_AUTH_FAILED,
	KIND_N_TS_UNACCEPTABLE,
	KIND_N_TEMPORARY_FAILURE,
	KIND_N_CHILD_NOT_FOUND,
	KIND_N_NO_ADDITIONAL_SAS,
	KIND_N_SINGLE_PAIR,
	KIND_N_INVALID_SPI,
	KIND_N_INVALID_IKE_SPI,
	KIND_N_INVALID_MAJOR,
	KIND_N_CRITICAL,
	KIND_N_INVALID_ID, /* v1 INVALID-ID-INFORMATION */
	KIND_N_REKEY_SA,
	KIND_N_NAT_SOURCE,
	KIND_N_NAT_DESTINATION,
	KIND_N_TRANSPORT,
	KIND_N_INITIAL_CONTACT,
	KIND_N_FRAGMENTATION,
	KIND_N_SIGNATURE_HASH,
	KIND_N_SET_WINDOW,
	KIND_N_ADDITIONAL_TS,
	KIND_N_IPCOMP,
	KIND_N_HTTP_CERT,
	KIND_N_NO_TFC,
	KIND_N_NON_FIRST,
	KIND_N_MOBIKE,
	KIND_N_EAP_ONLY,
	KIND_N_RESPONDER_LIFETIME,
	KIND_N_REPLAY_STATUS,
	KIND_N_R_U_THERE,
	KIND_N_R_U_THERE_ACK,
	KIND_COUNT
};

/* A set of kinds. KINDS() builds one in constant initialisers:
 * KIND_BIT(SA) | KIND_BIT(KE). */
__extension__ typedef unsigned __int128 kind_set;
#define KIND_BIT(name) ((kind_set)1 << KIND_##name)

static inline kind_set
kind_bit(enum kind kind)
{
	return (kind_set)1 << kind;
}

const char *kind_text(enum kind kind); /* "SA", "N(COOKIE)"; static */
bool kind_is_error(enum kind kind);    /* an error notify, known or not */
bool kind_is_notify(enum kind kind);

/* The body of a Notify: RFC 2408 3.14 (with its DOI), RFC 7296 3.10. */
struct wire_notify {
	uint8_t protocol;
	struct view spi;
	uint16_t type;
	struct view data;
};

struct payload {
	uint8_t kind; /* enum kind */
	uint8_t type; /* as on the wire */
	bool critical;
	struct view body;          /* without the generic header */
	struct view whole;         /* with it */
	struct wire_notify notify; /* for notifies; else zero */
};

/* One message. payload[] and views point into octets, which msg_new() owns. */
struct msg {
	struct wire_header header;
	struct view whole; /* as it arrived, header included, no marker */
	bool sealed;       /* payloads came from inside the encryption */
	uint8_t unknown_critical; /* type of the first such payload, or 0 */
	size_t count;
	kind_set seen, repeated; /* kinds that stand once, twice or more */
	uint8_t *octets;         /* owned copy, NULL if borrowed */
	uint8_t *opened;         /* owned plaintext, NULL if none */
	size_t opened_len;       /* its octets: what msg_free() wipes */
	struct payload payload[WIRE_PAYLOADS];
};

/* Reads the 28 octets. ERR_SHORT, or ERR_SYNTAX when the length field says
 * less than 28 or more than there is (RFC 2408 5.2, RFC 7296 3.1). A longer
 * tail is not an error (whole is cut). Looks at no version. */
enum err wire_header_read(struct view datagram, struct wire_header *header);
void wire_header_write(struct buf *buf, const struct wire_header *header);

/* A copy of the datagram as an empty message (payloads not read yet). */
enum err msg_new(struct msg **msg, struct view datagram);
void msg_free(struct msg *msg); /* wipes what was opened; accepts NULL */

/* Reads the chain that begins with type next in octets into msg->payload (what
 * was there before goes; after an error the message has no payloads). major
 * says which version's types apply. After the last payload, padded allows
 * trailing octets (IKEv1 inside encryption). A chain stops at SK or SKF
 * (RFC 7296 3.14, RFC 7383 2.5: last payload). Errors: ERR_SHORT, ERR_SYNTAX
 * (RESERVED != 0 in IKEv1: RFC 2408 5.3), ERR_LIMIT. */
enum err wire_payloads_read(struct msg *msg, unsigned major, uint8_t next,
    struct view octets, bool padded);

/* The n-th payload of a kind (n from 0), or NULL. */
const struct payload *
msg_payload(const struct msg *msg, enum kind kind, unsigned n);
/* The first error notify of any kind, or NULL. */
const struct payload *msg_error(const struct msg *msg);
bool msg_has(const struct msg *msg, enum kind kind);
/* "SA KE No N(COOKIE)", for logs. */
char *msg_text(const struct msg *msg, char *text, size_t size);

/* Writing. A struct wire_out chains payloads: each wire_begin() patches the
 * previous "next payload" octet. Overflow shows in buf->full. */
struct wire_out {
	struct buf *buf;
	size_t start_at; /* offset of the header, or of the chain */
	size_t next_at;  /* offset of the octet that names the next payload;
	                  * SIZE_MAX: there is none, first names it */
	size_t begin_at; /* offset of the payload being written */
	uint8_t first;   /* of a chain without header */
};
/* Writes the header (its next and length are patched later). What buf holds
 * already stays before it. */
void wire_start(
    struct wire_out *out, struct buf *buf, const struct wire_header *header);
/* A chain without header, as inside SK: *first receives the first type at the
 * end through wire_chain_first(). */
void wire_start_chain(struct wire_out *out, struct buf *buf);
uint8_t wire_chain_first(const struct wire_out *out);
void wire_begin(struct wire_out *out, uint8_t type, bool critical);
/* A body of more than 65531 octets makes buf full. */
void wire_end(struct wire_out *out); /* patches the payload's length */
void wire_payload(struct wire_out *out, uint8_t type, struct view body);
/* IKEv2 notify (RFC 7296 3.10); spi may be empty. */
void wire_notify_v2(struct wire_out *out, uint8_t protocol, struct view spi,
    uint16_t type, struct view data);
/* IKEv1 notify, DOI 1 (RFC 2408 3.14). */
void wire_notify_v1(struct wire_out *out, uint8_t protocol, struct view spi,
    uint16_t type, struct view data);
/* Patches the length of the whole message. */
void wire_finish(struct wire_out *out);

#endif
