#include "common/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define GENERIC_HEADER 4  /* octets before each payload's body */
#define NEXT_AT        16 /* where the header names the first payload */
#define LENGTH_AT      24

/* Kinds ------------------------------------------------------------------ */

enum kind_class { CLASS_PAYLOAD, CLASS_ERROR, CLASS_STATUS };

static const struct {
	const char *text;
	enum kind_class class;
} kinds[KIND_COUNT] = {
	[KIND_NONE] = { "-", CLASS_PAYLOAD },
	[KIND_UNKNOWN] = { "unknown", CLASS_PAYLOAD },
	[KIND_SA] = { "SA", CLASS_PAYLOAD },
	[KIND_KE] = { "KE", CLASS_PAYLOAD },
	[KIND_NONCE] = { "No", CLASS_PAYLOAD },
	[KIND_CERT] = { "CERT", CLASS_PAYLOAD },
	[KIND_CERTREQ] = { "CERTREQ", CLASS_PAYLOAD },
	[KIND_DELETE] = { "D", CLASS_PAYLOAD },
	[KIND_VID] = { "V", CLASS_PAYLOAD },
	[KIND_ID] = { "ID", CLASS_PAYLOAD },
	[KIND_HASH] = { "HASH", CLASS_PAYLOAD },
	[KIND_SIG] = { "SIG", CLASS_PAYLOAD },
	[KIND_ATTR] = { "ATTR", CLASS_PAYLOAD },
	[KIND_NATD] = { "NAT-D", CLASS_PAYLOAD },
	[KIND_NATOA] = { "NAT-OA", CLASS_PAYLOAD },
	[KIND_FRAGMENT] = { "FRAG", CLASS_PAYLOAD },
	[KIND_IDI] = { "IDi", CLASS_PAYLOAD },
	[KIND_IDR] = { "IDr", CLASS_PAYLOAD },
	[KIND_AUTH] = { "AUTH", CLASS_PAYLOAD },
	[KIND_TSI] = { "TSi", CLASS_PAYLOAD },
	[KIND_TSR] = { "TSr", CLASS_PAYLOAD },
	[KIND_CP] = { "CP", CLASS_PAYLOAD },
	[KIND_EAP] = { "EAP", CLASS_PAYLOAD },
	[KIND_SK] = { "SK", CLASS_PAYLOAD },
	[KIND_SKF] = { "SKF", CLASS_PAYLOAD },

	[KIND_N_ERROR] = { "N(error)", CLASS_ERROR },
	[KIND_N_INVALID_KE] = { "N(INVALID_KE_PAYLOAD)", CLASS_ERROR },
	[KIND_N_NO_PROPOSAL] = { "N(NO_PROPOSAL_CHOSEN)", CLASS_ERROR },
	[KIND_N_INVALID_SYNTAX] = { "N(INVALID_SYNTAX)", CLASS_ERROR },
	[KIND_N_AUTH_FAILED] = { "N(AUTHENTICATION_FAILED)", CLASS_ERROR },
	[KIND_N_TS_UNACCEPTABLE] = { "N(TS_UNACCEPTABLE)", CLASS_ERROR },
	[KIND_N_TEMPORARY_FAILURE] = { "N(TEMPORARY_FAILURE)", CLASS_ERROR },
	[KIND_N_CHILD_NOT_FOUND] = { "N(CHILD_SA_NOT_FOUND)", CLASS_ERROR },
	[KIND_N_NO_ADDITIONAL_SAS] = { "N(NO_ADDITIONAL_SAS)", CLASS_ERROR },
	[KIND_N_SINGLE_PAIR] = { "N(SINGLE_PAIR_REQUIRED)", CLASS_ERROR },
	[KIND_N_INVALID_SPI] = { "N(INVALID_SPI)", CLASS_ERROR },
	[KIND_N_INVALID_IKE_SPI] = { "N(INVALID_IKE_SPI)", CLASS_ERROR },
	[KIND_N_INVALID_MAJOR] = { "N(INVALID_MAJOR_VERSION)", CLASS_ERROR },
	[KIND_N_CRITICAL] = { "N(UNSUPPORTED_CRITICAL_PAYLOAD)", CLASS_ERROR },
	[KIND_N_INVALID_ID] = { "N(INVALID-ID-INFORMATION)", CLASS_ERROR },

	[KIND_N_STATUS] = { "N(status)", CLASS_STATUS },
	[KIND_N_COOKIE] = { "N(COOKIE)", CLASS_STATUS },
	[KIND_N_REKEY_SA] = { "N(REKEY_SA)", CLASS_STATUS },
	[KIND_N_NAT_SOURCE] = { "N(NATD_S_IP)", CLASS_STATUS },
	[KIND_N_NAT_DESTINATION] = { "N(NATD_D_IP)", CLASS_STATUS },
	[KIND_N_TRANSPORT] = { "N(USE_TRANSPORT_MODE)", CLASS_STATUS },
	[KIND_N_INITIAL_CONTACT] = { "N(INITIAL_CONTACT)", CLASS_STATUS },
	[KIND_N_FRAGMENTATION] = { "N(FRAGMENTATION_SUPPORTED)", CLASS_STATUS },
	[KIND_N_SIGNATURE_HASH] = { "N(SIGNATURE_HASH_ALGORITHMS)",
	    CLASS_STATUS },
	[KIND_N_SET_WINDOW] = { "N(SET_WINDOW_SIZE)", CLASS_STATUS },
	[KIND_N_ADDITIONAL_TS] = { "N(ADDITIONAL_TS_POSSIBLE)", CLASS_STATUS },
	[KIND_N_IPCOMP] = { "N(IPCOMP_SUPPORTED)", CLASS_STATUS },
	[KIND_N_HTTP_CERT] = { "N(HTTP_CERT_LOOKUP_SUPPORTED)", CLASS_STATUS },
	[KIND_N_NO_TFC] = { "N(ESP_TFC_PADDING_NOT_SUPPORTED)", CLASS_STATUS },
	[KIND_N_NON_FIRST] = { "N(NON_FIRST_FRAGMENTS_ALSO)", CLASS_STATUS },
	[KIND_N_MOBIKE] = { "N(MOBIKE_SUPPORTED)", CLASS_STATUS },
	[KIND_N_EAP_ONLY] = { "N(EAP_ONLY_AUTHENTICATION)", CLASS_STATUS },
	[KIND_N_RESPONDER_LIFETIME] = { "N(RESPONDER-LIFETIME)", CLASS_STATUS },
	[KIND_N_REPLAY_STATUS] = { "N(REPLAY-STATUS)", CLASS_STATUS },
	[KIND_N_R_U_THERE] = { "N(R-U-THERE)", CLASS_STATUS },
	[KIND_N_R_U_THERE_ACK] = { "N(R-U-THERE-ACK)", CLASS_STATUS },
};

const char *
kind_text(enum kind kind)
{
	if ((unsigned)kind >= KIND_COUNT)
		return "unknown";
	return kinds[kind].text;
}

bool
kind_is_error(enum kind kind)
{
	return (unsigned)kind < KIND_COUNT && kinds[kind].class == CLASS_ERROR;
}

bool
kind_is_notify(enum kind kind)
{
	return (unsigned)kind < KIND_COUNT &&
	       kinds[kind].class != CLASS_PAYLOAD;
}

/* A notify's number and its kind. The versions share few numbers: 7 is
 * INVALID-EXCHANGE-TYPE in IKEv1 and INVALID_SYNTAX in IKEv2. */
struct notify_row {
	uint16_t type;
	uint8_t kind;
};

/* RFC 2408 3.14.1, RFC 2407 4.6.3, RFC 3706 5. */
static const struct notify_row v1_notifies[] = {
	{ N1_INVALID_COOKIE, KIND_N_INVALID_IKE_SPI },
	{ N1_INVALID_MAJOR_VERSION, KIND_N_INVALID_MAJOR },
	{ N1_INVALID_SPI, KIND_N_INVALID_SPI },
	{ N1_NO_PROPOSAL_CHOSEN, KIND_N_NO_PROPOSAL },
	{ N1_INVALID_ID_INFORMATION, KIND_N_INVALID_ID },
	{ N1_AUTHENTICATION_FAILED, KIND_N_AUTH_FAILED },
	{ N1_RESPONDER_LIFETIME, KIND_N_RESPONDER_LIFETIME },
	{ N1_REPLAY_STATUS, KIND_N_REPLAY_STATUS },
	{ N1_INITIAL_CONTACT, KIND_N_INITIAL_CONTACT },
	{ N1_R_U_THERE, KIND_N_R_U_THERE },
	{ N1_R_U_THERE_ACK, KIND_N_R_U_THERE_ACK },
};

/* RFC 7296 3.10.1, RFC 7383 2.3, RFC 7427 4, RFC 4555 4, RFC 5998 3. */
static const struct notify_row v2_notifies[] = {
	{ N_UNSUPPORTED_CRITICAL_PAYLOAD, KIND_N_CRITICAL },
	{ N_INVALID_IKE_SPI, KIND_N_INVALID_IKE_SPI },
	{ N_INVALID_MAJOR_VERSION, KIND_N_INVALID_MAJOR },
	{ N_INVALID_SYNTAX, KIND_N_INVALID_SYNTAX },
	{ N_INVALID_SPI, KIND_N_INVALID_SPI },
	{ N_NO_PROPOSAL_CHOSEN, KIND_N_NO_PROPOSAL },
	{ N_INVALID_KE_PAYLOAD, KIND_N_INVALID_KE },
	{ N_AUTHENTICATION_FAILED, KIND_N_AUTH_FAILED },
	{ N_SINGLE_PAIR_REQUIRED, KIND_N_SINGLE_PAIR },
	{ N_NO_ADDITIONAL_SAS, KIND_N_NO_ADDITIONAL_SAS },
	{ N_TS_UNACCEPTABLE, KIND_N_TS_UNACCEPTABLE },
	{ N_TEMPORARY_FAILURE, KIND_N_TEMPORARY_FAILURE },
	{ N_CHILD_SA_NOT_FOUND, KIND_N_CHILD_NOT_FOUND },
	{ N_INITIAL_CONTACT, KIND_N_INITIAL_CONTACT },
	{ N_SET_WINDOW_SIZE, KIND_N_SET_WINDOW },
	{ N_ADDITIONAL_TS_POSSIBLE, KIND_N_ADDITIONAL_TS },
	{ N_IPCOMP_SUPPORTED, KIND_N_IPCOMP },
	{ N_NAT_DETECTION_SOURCE_IP, KIND_N_NAT_SOURCE },
	{ N_NAT_DETECTION_DESTINATION_IP, KIND_N_NAT_DESTINATION },
	{ N_COOKIE, KIND_N_COOKIE },
	{ N_USE_TRANSPORT_MODE, KIND_N_TRANSPORT },
	{ N_HTTP_CERT_LOOKUP_SUPPORTED, KIND_N_HTTP_CERT },
	{ N_REKEY_SA, KIND_N_REKEY_SA },
	{ N_ESP_TFC_PADDING_NOT_SUPPORTED, KIND_N_NO_TFC },
	{ N_NON_FIRST_FRAGMENTS_ALSO, KIND_N_NON_FIRST },
	{ N_MOBIKE_SUPPORTED, KIND_N_MOBIKE },
	{ N_EAP_ONLY_AUTHENTICATION, KIND_N_EAP_ONLY },
	{ N_IKEV2_FRAGMENTATION_SUPPORTED, KIND_N_FRAGMENTATION },
	{ N_SIGNATURE_HASH_ALGORITHMS, KIND_N_SIGNATURE_HASH },
};

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

/* RFC 2408 3.14.1 and RFC 7296 3.10.1 agree: below 16384 are errors. */
#define FIRST_STATUS 16384

static uint8_t
notify_kind(unsigned major, uint16_t type)
{
	const struct notify_row *rows = major == 1 ? v1_notifies : v2_notifies;
	size_t count = major == 1 ? ROWS(v1_notifies) : ROWS(v2_notifies);

	for (size_t i = 0; i < count; i++)
		if (rows[i].type == type)
			return rows[i].kind;
	return type < FIRST_STATUS ? KIND_N_ERROR : KIND_N_STATUS;
}

/* Payload types ----------------------------------------------------------- */

/* The kind of a payload type and the octets that its body has at least, so
 * that whoever decodes finds the fixed fields there. Notifies get their kind
 * from their number. */
struct type_row {
	uint8_t kind;
	uint8_t min;
};
#define KIND_NOTIFY KIND_N_STATUS

static const struct type_row v1_types[256] = {
	[P1_SA] = { KIND_SA, 8 }, /* DOI, situation */
	[P1_KE] = { KIND_KE, 1 },
	[P1_ID] = { KIND_ID, 4 }, /* type, protocol, port */
	[P1_CERT] = { KIND_CERT, 1 },
	[P1_CR] = { KIND_CERTREQ, 1 },
	[P1_HASH] = { KIND_HASH, 1 },
	[P1_SIG] = { KIND_SIG, 1 },
	[P1_NONCE] = { KIND_NONCE, 8 }, /* RFC 2409 5: 8 to 256 octets */
	[P1_N] = { KIND_NOTIFY, 8 },
	[P1_D] = { KIND_DELETE, 8 },
	[P1_VID] = { KIND_VID, 0 },
	[P1_ATTR] = { KIND_ATTR, 4 },
	[P1_NAT_D] = { KIND_NATD, 1 },
	[P1_NAT_OA] = { KIND_NATOA, 8 }, /* RFC 3947 5.2 */
	/* Interop: drafts 02 and 03 of RFC 3947, in old clients. */
	[P1_NAT_D_DRAFT] = { KIND_NATD, 1 },
	[P1_NAT_OA_DRAFT] = { KIND_NATOA, 8 },
	/* Interop: Cisco's and Microsoft's fragments. */
	[P1_FRAGMENT] = { KIND_FRAGMENT, 5 }, /* ID, number, flags, data */
};

static const struct type_row v2_types[256] = {
	[P2_SA] = { KIND_SA, 8 },   /* one proposal */
	[P2_KE] = { KIND_KE, 5 },   /* group, RESERVED, data */
	[P2_IDI] = { KIND_IDI, 4 }, /* type, RESERVED */
	[P2_IDR] = { KIND_IDR, 4 },
	[P2_CERT] = { KIND_CERT, 1 },
	[P2_CERTREQ] = { KIND_CERTREQ, 1 },
	[P2_AUTH] = { KIND_AUTH, 5 },    /* method, RESERVED, data */
	[P2_NONCE] = { KIND_NONCE, 16 }, /* RFC 7296 3.9: 16 to 256 octets */
	[P2_N] = { KIND_NOTIFY, 4 },
	[P2_D] = { KIND_DELETE, 4 },
	[P2_V] = { KIND_VID, 0 },
	[P2_TSI] = { KIND_TSI, 12 }, /* number, RESERVED, one selector */
	[P2_TSR] = { KIND_TSR, 12 },
	[P2_SK] = { KIND_SK, 1 },
	[P2_CP] = { KIND_CP, 4 },
	[P2_EAP] = { KIND_EAP, 4 },
	[P2_SKF] = { KIND_SKF, 5 }, /* number, total, data */
};

/* Header ------------------------------------------------------------------ */

enum err
wire_header_read(struct view datagram, struct wire_header *header)
{
	struct view at = datagram;
	struct wire_header read;
	uint8_t version;

	if (!view_u64(&at, &read.spi_i) || !view_u64(&at, &read.spi_r) ||
	    !view_u8(&at, &read.next) || !view_u8(&at, &version) ||
	    !view_u8(&at, &read.exchange) || !view_u8(&at, &read.flags) ||
	    !view_u32(&at, &read.id) || !view_u32(&at, &read.length))
		return ERR_SHORT;
	read.major = version >> 4;
	read.minor = version & 15;
	/* RFC 2408 5.2, RFC 7296 3.1: what is longer than the datagram was
	 * cut on its way. */
	if (read.length < WIRE_HEADER || read.length > datagram.len)
		return ERR_SYNTAX;
	*header = read;
	return OK;
}

void
wire_header_write(struct buf *buf, const struct wire_header *header)
{
	buf_u64(buf, header->spi_i);
	buf_u64(buf, header->spi_r);
	buf_u8(buf, header->next);
	buf_u8(buf, (uint8_t)(header->major << 4 | (header->minor & 15)));
	buf_u8(buf, header->exchange);
	buf_u8(buf, header->flags);
	buf_u32(buf, header->id);
	buf_u32(buf, header->length);
}

/* Reading ----------------------------------------------------------------- */

static void
forget_payloads(struct msg *msg)
{
	msg->count = 0;
	msg->seen = msg->repeated = 0;
	msg->unknown_critical = 0;
}

enum err
msg_new(struct msg **msg, struct view datagram)
{
	struct wire_header header;
	struct msg *fresh;
	enum err err;

	err = wire_header_read(datagram, &header);
	if (err != OK)
		return err;
	if (header.length > WIRE_MAX)
		return ERR_LONG;
	fresh = malloc(sizeof(*fresh));
	if (fresh == NULL)
		return ERR_NOMEM;
	/* All but the payloads, which count says are not there: clearing
	 * thousands of octets per message would be felt. */
	memset(fresh, 0, offsetof(struct msg, payload));
	fresh->octets = mem_dup(datagram.at, header.length);
	if (fresh->octets == NULL) {
		free(fresh);
		return ERR_NOMEM;
	}
	fresh->header = header;
	fresh->whole = view_of(fresh->octets, header.length);
	*msg = fresh;
	return OK;
}

void
msg_free(struct msg *msg)
{
	if (msg == NULL)
		return;
	if (msg->opened != NULL)
		mem_wipe(msg->opened, msg->opened_len);
	free(msg->opened);
	free(msg->octets);
	free(msg);
}

/* RFC 2408 3.14 (with the DOI), RFC 7296 3.10 (without). */
static enum err
read_notify(struct payload *payload, unsigned major)
{
	struct wire_notify *notify = &payload->notify;
	struct view at = payload->body;
	uint32_t doi = 1;
	uint8_t spi_len;

	if (major == 1 && !view_u32(&at, &doi))
		return ERR_SHORT;
	if (!view_u8(&at, &notify->protocol) || !view_u8(&at, &spi_len) ||
	    !view_u16(&at, &notify->type) ||
	    !view_take(&at, spi_len, &notify->spi))
		return ERR_SHORT;
	notify->data = at;
	payload->kind = notify_kind(major, notify->type);
	/* Numbers of another DOI mean something else. ISAKMP's own (0) are
	 * those of RFC 2408. */
	if (doi > 1)
		payload->kind =
		    notify->type < FIRST_STATUS ? KIND_N_ERROR : KIND_N_STATUS;
	return OK;
}

/* Reads one payload of the type given from the front of at. */
static enum err
read_payload(
    struct payload *payload, unsigned major, uint8_t type, struct view *at)
{
	const struct type_row *row =
	    major == 1 ? &v1_types[type] : &v2_types[type];
	struct view head = *at;
	uint8_t next, reserved;
	uint16_t length;

	if (!view_u8(&head, &next) || !view_u8(&head, &reserved) ||
	    !view_u16(&head, &length))
		return ERR_SHORT;
	/* RFC 2408 5.3 wants RESERVED zero; RFC 7296 3.2 wants it ignored. */
	if (major == 1 && reserved != 0)
		return ERR_SYNTAX;
	if (length < GENERIC_HEADER)
		return ERR_SYNTAX;
	memset(payload, 0, sizeof(*payload));
	if (!view_take(at, length, &payload->whole))
		return ERR_SHORT;
	payload->body = payload->whole;
	view_skip(&payload->body, GENERIC_HEADER);
	payload->type = type;
	payload->critical = major != 1 && (reserved & 0x80) != 0;
	payload->kind = row->kind == KIND_NONE ? KIND_UNKNOWN : row->kind;
	if (payload->body.len < row->min)
		return ERR_SHORT;
	if (payload->kind == KIND_NOTIFY)
		return read_notify(payload, major);
	return OK;
}

static void
note_payload(struct msg *msg, const struct payload *payload)
{
	kind_set bit = kind_bit(payload->kind);

	if (msg->seen & bit)
		msg->repeated |= bit;
	msg->seen |= bit;
	/* RFC 7296 2.5: the bit counts on unknown types only. */
	if (payload->kind == KIND_UNKNOWN && payload->critical &&
	    msg->unknown_critical == 0)
		msg->unknown_critical = payload->type;
}

static enum err
read_chain(struct msg *msg, unsigned major, uint8_t next, struct view octets,
    bool padded)
{
	while (next != 0) {
		struct payload *payload;
		enum err err;

		if (msg->count == WIRE_PAYLOADS)
			return ERR_LIMIT;
		payload = &msg->payload[msg->count];
		err = read_payload(payload, major, next, &octets);
		if (err != OK)
			return err;
		msg->count++;
		note_payload(msg, payload);
		next = payload->whole.at[0];
		/* RFC 7296 3.14, RFC 7383 2.5: the last payload, whose "next"
		 * names the first one inside. */
		if (payload->kind == KIND_SK || payload->kind == KIND_SKF)
			break;
	}
	/* RFC 2408 5.3, RFC 7296 3.1: the payloads fill the message. */
	if (octets.len > 0 && !padded)
		return ERR_SYNTAX;
	return OK;
}

enum err
wire_payloads_read(struct msg *msg, unsigned major, uint8_t next,
    struct view octets, bool padded)
{
	enum err err;

	forget_payloads(msg);
	err = read_chain(msg, major, next, octets, padded);
	if (err != OK)
		forget_payloads(msg);
	return err;
}

const struct payload *
msg_payload(const struct msg *msg, enum kind kind, unsigned n)
{
	if (!msg_has(msg, kind))
		return NULL;
	for (size_t i = 0; i < msg->count; i++)
		if (msg->payload[i].kind == kind && n-- == 0)
			return &msg->payload[i];
	return NULL;
}

const struct payload *
msg_error(const struct msg *msg)
{
	for (size_t i = 0; i < msg->count; i++)
		if (kind_is_error(msg->payload[i].kind))
			return &msg->payload[i];
	return NULL;
}

bool
msg_has(const struct msg *msg, enum kind kind)
{
	return (msg->seen & kind_bit(kind)) != 0;
}

char *
msg_text(const struct msg *msg, char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < msg->count && used < size; i++) {
		const struct payload *payload = &msg->payload[i];
		const char *gap = i > 0 ? " " : "";
		int len;

		if (payload->kind == KIND_UNKNOWN)
			len = snprintf(text + used, size - used, "%s?%u", gap,
			    payload->type);
		else if (payload->kind == KIND_N_ERROR ||
		         payload->kind == KIND_N_STATUS)
			len = snprintf(text + used, size - used, "%sN(%u)", gap,
			    payload->notify.type);
		else
			len = snprintf(text + used, size - used, "%s%s", gap,
			    kind_text(payload->kind));
		if (len < 0)
			break;
		used += (size_t)len;
	}
	return text;
}

/* Writing ----------------------------------------------------------------- */

void
wire_start(
    struct wire_out *out, struct buf *buf, const struct wire_header *header)
{
	struct wire_header first = *header;

	first.next = 0;
	out->buf = buf;
	out->start_at = buf->len;
	out->next_at = buf->len + NEXT_AT;
	out->begin_at = buf->len;
	out->first = 0;
	wire_header_write(buf, &first);
}

void
wire_start_chain(struct wire_out *out, struct buf *buf)
{
	out->buf = buf;
	out->start_at = buf->len;
	out->next_at = SIZE_MAX;
	out->begin_at = buf->len;
	out->first = 0;
}

uint8_t
wire_chain_first(const struct wire_out *out)
{
	return out->first;
}

void
wire_begin(struct wire_out *out, uint8_t type, bool critical)
{
	struct buf *buf = out->buf;

	if (out->next_at == SIZE_MAX)
		out->first = type;
	else if (out->next_at < buf->len)
		buf->at[out->next_at] = type;
	out->next_at = out->begin_at = buf->len;
	buf_u8(buf, 0);
	buf_u8(buf, critical ? 0x80 : 0);
	buf_u16(buf, 0);
}

void
wire_end(struct wire_out *out)
{
	size_t length = out->buf->len - out->begin_at;

	if (length > UINT16_MAX)
		out->buf->full = true;
	if (!out->buf->full)
		buf_patch_u16(out->buf, out->begin_at + 2, (uint16_t)length);
}

void
wire_payload(struct wire_out *out, uint8_t type, struct view body)
{
	wire_begin(out, type, false);
	buf_view(out->buf, body);
	wire_end(out);
}

/* The part of a Notify that both versions have. */
static void
put_notify(struct wire_out *out, uint8_t protocol, struct view spi,
    uint16_t type, struct view data)
{
	if (spi.len > UINT8_MAX)
		out->buf->full = true;
	buf_u8(out->buf, protocol);
	buf_u8(out->buf, (uint8_t)spi.len);
	buf_u16(out->buf, type);
	buf_view(out->buf, spi);
	buf_view(out->buf, data);
}

void
wire_notify_v2(struct wire_out *out, uint8_t protocol, struct view spi,
    uint16_t type, struct view data)
{
	wire_begin(out, P2_N, false);
	put_notify(out, protocol, spi, type, data);
	wire_end(out);
}

void
wire_notify_v1(struct wire_out *out, uint8_t protocol, struct view spi,
    uint16_t type, struct view data)
{
	wire_begin(out, P1_N, false);
	buf_u32(out->buf, 1); /* RFC 2407 4.6.3: the IPsec DOI */
	put_notify(out, protocol, spi, type, data);
	wire_end(out);
}

void
wire_finish(struct wire_out *out)
{
	size_t length = out->buf->len - out->start_at;

	if (length > WIRE_MAX)
		out->buf->full = true;
	if (!out->buf->full)
		buf_patch_u32(
		    out->buf, out->start_at + LENGTH_AT, (uint32_t)length);
}
