#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/wire.h"

static const struct wire_header header_v1 = {
	.spi_i = 0x0102030405060708ULL,
	.spi_r = 0x1112131415161718ULL,
	.major = 1,
	.exchange = EXCH_IDENTITY_PROTECTION,
};

static const struct wire_header header_v2 = {
	.spi_i = 0x0102030405060708ULL,
	.major = 2,
	.exchange = EXCH_IKE_SA_INIT,
	.flags = FLAG_INITIATOR,
};

/* Reads what buf holds as a message whose payloads are not encrypted. */
static enum err
read_all(struct view datagram, bool padded, struct msg **msg)
{
	struct view rest;
	enum err err = msg_new(msg, datagram);

	if (err != OK)
		return err;
	rest = (*msg)->whole;
	assert_true(view_skip(&rest, WIRE_HEADER));
	return wire_payloads_read(
	    *msg, (*msg)->header.major, (*msg)->header.next, rest, padded);
}

static enum err
read_and_free(struct view datagram, bool padded)
{
	struct msg *msg = NULL;
	enum err err = read_all(datagram, padded, &msg);

	msg_free(msg);
	return err;
}

/* A message with one payload of a type and a body of len octets. */
static struct view
one_payload(
    uint8_t octets[static 1024], unsigned major, uint8_t type, size_t len)
{
	static const uint8_t zeros[512];
	struct wire_out out;
	struct buf buf;

	buf_init(&buf, octets, 1024);
	wire_start(&out, &buf, major == 1 ? &header_v1 : &header_v2);
	wire_payload(&out, type, view_of(zeros, len));
	wire_finish(&out);
	assert_false(buf.full);
	return buf_done(&buf);
}

static void
test_kinds(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
		const char *text = kind_text((enum kind)kind);
		bool notify = strncmp(text, "N(", 2) == 0;

		assert_non_null(text);
		assert_int_equal(kind_is_notify((enum kind)kind), notify);
		if (kind_is_error((enum kind)kind))
			assert_true(notify);
		for (unsigned other = 0; other < kind; other++)
			assert_string_not_equal(
			    text, kind_text((enum kind)other));
	}
	assert_true(KIND_COUNT < 128);
	assert_string_equal(kind_text((enum kind)KIND_COUNT), "unknown");
	assert_false(kind_is_error((enum kind)KIND_COUNT));
	assert_false(kind_is_notify((enum kind)KIND_COUNT));
	assert_true(KIND_BIT(SA) == kind_bit(KIND_SA));
}

static void
test_header(void **state)
{
	struct wire_header header = { .spi_i = 1,
		.spi_r = 0xfffefdfcfbfaf9f8ULL,
		.next = P2_SK,
		.major = 2,
		.minor = 3,
		.exchange = EXCH_INFORMATIONAL,
		.flags = FLAG_RESPONSE,
		.id = 0x80000001,
		.length = WIRE_HEADER };
	uint8_t octets[64] = { 0 };
	struct wire_header back;
	struct buf buf;

	(void)state;
	buf_init(&buf, octets, WIRE_HEADER);
	wire_header_write(&buf, &header);
	assert_false(buf.full);
	assert_int_equal(octets[7], 1);
	assert_int_equal(octets[8], 0xff);
	assert_int_equal(octets[17], 0x23);
	memset(&back, 0, sizeof(back));
	assert_int_equal(wire_header_read(buf_done(&buf), &back), OK);
	assert_true(back.spi_i == header.spi_i);
	assert_true(back.spi_r == header.spi_r);
	assert_int_equal(back.next, header.next);
	assert_int_equal(back.major, 2);
	assert_int_equal(back.minor, 3);
	assert_int_equal(back.exchange, header.exchange);
	assert_int_equal(back.flags, header.flags);
	assert_int_equal(back.id, header.id);
	assert_int_equal(back.length, header.length);
	for (size_t len = 0; len < WIRE_HEADER; len++)
		assert_int_equal(
		    wire_header_read(view_of(octets, len), &back), ERR_SHORT);
}

/* The length: less than a header or more than there is are errors, a tail
 * behind it is cut. */
static void
test_length(void **state)
{
	uint8_t octets[64] = { 0 };
	struct wire_header header = header_v2, back;
	struct msg *msg;

	(void)state;
	for (uint32_t length = 0; length < 100; length++) {
		struct buf buf;
		enum err err;

		header.length = length;
		buf_init(&buf, octets, WIRE_HEADER);
		wire_header_write(&buf, &header);
		err = wire_header_read(view_of(octets, 64), &back);
		if (length < WIRE_HEADER || length > 64) {
			assert_int_equal(err, ERR_SYNTAX);
			assert_int_equal(
			    msg_new(&msg, view_of(octets, 64)), ERR_SYNTAX);
			continue;
		}
		assert_int_equal(err, OK);
		assert_int_equal(msg_new(&msg, view_of(octets, 64)), OK);
		assert_int_equal(msg->whole.len, length);
		assert_true(msg->whole.at != octets);
		assert_int_equal(msg->count, 0);
		msg_free(msg);
	}
	memset(octets + 24, 0xff, 4);
	assert_int_equal(
	    wire_header_read(view_of(octets, 64), &back), ERR_SYNTAX);
	msg_free(NULL);
}

static void
test_empty_message(void **state)
{
	uint8_t octets[WIRE_HEADER + 4] = { 0 };
	struct wire_out out;
	struct msg *msg;
	struct buf buf;
	char text[16];

	(void)state;
	buf_init(&buf, octets, sizeof(octets));
	wire_start(&out, &buf, &header_v2);
	wire_finish(&out);
	assert_int_equal(read_all(buf_done(&buf), false, &msg), OK);
	assert_int_equal(msg->count, 0);
	assert_null(msg_error(msg));
	assert_null(msg_payload(msg, KIND_SA, 0));
	assert_string_equal(msg_text(msg, text, sizeof(text)), "");
	/* Octets that no payload accounts for. */
	assert_int_equal(
	    wire_payloads_read(msg, 2, 0, view_of(octets, 1), false),
	    ERR_SYNTAX);
	assert_int_equal(
	    wire_payloads_read(msg, 1, 0, view_of(octets, 1), true), OK);
	/* A payload that is named and not there. */
	assert_int_equal(
	    wire_payloads_read(msg, 2, P2_SA, view_of(octets, 0), false),
	    ERR_SHORT);
	msg_free(msg);
}

/* An IKE_SA_INIT request with everything in it. */
static struct view
sample_v2(uint8_t octets[static 1024])
{
	static const uint8_t sa[40], ke[36] = { 0, 31 }, nonce[32], hash[20];
	static const uint8_t cookie[28] = { 7 };
	struct view none = view_of(NULL, 0);
	struct wire_out out;
	struct buf buf;

	buf_init(&buf, octets, 1024);
	wire_start(&out, &buf, &header_v2);
	wire_notify_v2(
	    &out, 0, none, N_COOKIE, view_of(cookie, sizeof(cookie)));
	wire_payload(&out, P2_SA, view_of(sa, sizeof(sa)));
	wire_payload(&out, P2_KE, view_of(ke, sizeof(ke)));
	wire_payload(&out, P2_NONCE, view_of(nonce, sizeof(nonce)));
	wire_notify_v2(&out, 0, none, N_NAT_DETECTION_SOURCE_IP,
	    view_of(hash, sizeof(hash)));
	wire_notify_v2(&out, 3, view_of("abcd", 4), N_REKEY_SA, none);
	wire_notify_v2(&out, 0, none, 16999, none);
	wire_notify_v2(&out, 0, none, N_NO_PROPOSAL_CHOSEN, none);
	wire_notify_v2(&out, 0, none, 9999, view_of("x", 1));
	wire_payload(&out, P2_V, none);
	wire_payload(&out, P2_V, view_of("vendor", 6));
	wire_begin(&out, 200, true);
	wire_end(&out);
	wire_begin(&out, 201, true);
	wire_end(&out);
	wire_finish(&out);
	assert_false(buf.full);
	return buf_done(&buf);
}

static void
test_sample_v2(void **state)
{
	uint8_t octets[1024];
	struct view sample = sample_v2(octets);
	const struct payload *payload;
	struct msg *msg;
	char text[256], cut[20];

	(void)state;
	assert_int_equal(read_all(sample, false, &msg), OK);
	assert_int_equal(msg->header.length, sample.len);
	assert_int_equal(msg->count, 13);
	assert_string_equal(msg_text(msg, text, sizeof(text)),
	    "N(COOKIE) SA KE No N(NATD_S_IP) N(REKEY_SA) N(16999) "
	    "N(NO_PROPOSAL_CHOSEN) N(9999) V V ?200 ?201");
	msg_text(msg, cut, sizeof(cut));
	assert_int_equal(strlen(cut), sizeof(cut) - 1);
	assert_memory_equal(cut, text, sizeof(cut) - 1);
	assert_true(msg_has(msg, KIND_KE));
	assert_false(msg_has(msg, KIND_AUTH));
	assert_true(msg->repeated == (KIND_BIT(VID) | KIND_BIT(UNKNOWN)));
	assert_int_equal(msg->unknown_critical, 200);

	payload = msg_payload(msg, KIND_N_COOKIE, 0);
	assert_non_null(payload);
	assert_ptr_equal(payload, &msg->payload[0]);
	assert_int_equal(payload->notify.type, N_COOKIE);
	assert_int_equal(payload->notify.data.len, 28);
	assert_int_equal(payload->notify.data.at[0], 7);
	assert_int_equal(payload->whole.len, payload->body.len + 4);
	payload = msg_payload(msg, KIND_N_REKEY_SA, 0);
	assert_int_equal(payload->notify.protocol, 3);
	assert_true(view_equal(payload->notify.spi, view_text("abcd")));
	assert_int_equal(payload->notify.data.len, 0);
	assert_ptr_equal(
	    msg_error(msg), msg_payload(msg, KIND_N_NO_PROPOSAL, 0));
	payload = msg_payload(msg, KIND_VID, 1);
	assert_true(view_equal(payload->body, view_text("vendor")));
	assert_null(msg_payload(msg, KIND_VID, 2));
	/* The copy is the message's own. */
	memset(octets, 0xff, sizeof(octets));
	assert_true(view_equal(payload->body, view_text("vendor")));
	msg_free(msg);
}

static struct view
sample_v1(uint8_t octets[static 1024])
{
	static const uint8_t sa[40], ke[256], nonce[20], id[8], hash[32];
	struct view none = view_of(NULL, 0);
	struct wire_out out;
	struct buf buf;

	buf_init(&buf, octets, 1024);
	wire_start(&out, &buf, &header_v1);
	wire_payload(&out, P1_SA, view_of(sa, sizeof(sa)));
	wire_payload(&out, P1_KE, view_of(ke, sizeof(ke)));
	wire_payload(&out, P1_NONCE, view_of(nonce, sizeof(nonce)));
	wire_payload(&out, P1_ID, view_of(id, sizeof(id)));
	wire_payload(&out, P1_ID, view_of(id, sizeof(id)));
	wire_payload(&out, P1_HASH, view_of(hash, sizeof(hash)));
	wire_payload(&out, P1_NAT_D, view_of(hash, sizeof(hash)));
	wire_payload(&out, P1_NAT_D_DRAFT, view_of(hash, sizeof(hash)));
	wire_payload(&out, P1_NAT_OA_DRAFT, view_of(id, sizeof(id)));
	wire_payload(&out, P1_FRAGMENT, view_of(id, sizeof(id)));
	wire_notify_v1(
	    &out, 1, view_of("0123456789abcdef", 16), N1_INITIAL_CONTACT, none);
	wire_notify_v1(&out, 1, none, N1_R_U_THERE, view_of("\0\0\0\1", 4));
	wire_notify_v1(&out, 1, none, N1_PAYLOAD_MALFORMED, none);
	wire_payload(&out, P1_P, view_of(sa, sizeof(sa)));
	wire_finish(&out);
	assert_false(buf.full);
	return buf_done(&buf);
}

static void
test_sample_v1(void **state)
{
	uint8_t octets[1024];
	struct view sample = sample_v1(octets);
	const struct payload *payload;
	struct msg *msg;
	char text[256];

	(void)state;
	assert_int_equal(read_all(sample, false, &msg), OK);
	/* A proposal does not stand by itself: its type is none of a chain. */
	assert_string_equal(msg_text(msg, text, sizeof(text)),
	    "SA KE No ID ID HASH NAT-D NAT-D NAT-OA FRAG N(INITIAL_CONTACT) "
	    "N(R-U-THERE) N(16) ?2");
	assert_true(msg->repeated == (KIND_BIT(ID) | KIND_BIT(NATD)));
	assert_int_equal(msg->unknown_critical, 0);
	payload = msg_payload(msg, KIND_N_INITIAL_CONTACT, 0);
	assert_int_equal(payload->notify.spi.len, 16);
	payload = msg_payload(msg, KIND_N_R_U_THERE, 0);
	assert_true(view_equal(payload->notify.data, view_of("\0\0\0\1", 4)));
	assert_int_equal(msg_error(msg)->notify.type, 16);
	msg_free(msg);
}

/* The versions do not share payload types. */
static void
test_versions_apart(void **state)
{
	uint8_t octets[1024];
	struct msg *msg;

	(void)state;
	for (unsigned type = 1; type < 256; type++) {
		bool v1 = type <= P1_ATTR
		              ? type != P1_P && type != P1_T
		              : type == P1_NAT_D || type == P1_NAT_OA ||
		                    type == P1_NAT_D_DRAFT ||
		                    type == P1_NAT_OA_DRAFT ||
		                    type == P1_FRAGMENT;
		bool v2 = (type >= P2_SA && type <= P2_EAP) || type == P2_SKF;

		for (unsigned major = 1; major <= 2; major++) {
			struct view one =
			    one_payload(octets, major, (uint8_t)type, 64);

			assert_int_equal(read_all(one, false, &msg), OK);
			assert_int_equal(msg->count, 1);
			assert_int_equal(msg->payload[0].type, type);
			assert_int_equal(msg->payload[0].kind != KIND_UNKNOWN,
			    major == 1 ? v1 : v2);
			assert_int_equal(msg->unknown_critical, 0);
			msg_free(msg);
		}
	}
}

static void
test_notify_numbers(void **state)
{
	static const struct {
		unsigned major;
		uint16_t type;
		enum kind kind;
	} rows[] = {
		{ 2, 1, KIND_N_CRITICAL },
		{ 1, 1, KIND_N_ERROR },
		{ 2, 4, KIND_N_INVALID_IKE_SPI },
		{ 1, 4, KIND_N_INVALID_IKE_SPI },
		{ 2, 7, KIND_N_INVALID_SYNTAX },
		{ 1, 7, KIND_N_ERROR },
		{ 1, 14, KIND_N_NO_PROPOSAL },
		{ 2, 14, KIND_N_NO_PROPOSAL },
		{ 1, 17, KIND_N_ERROR },
		{ 2, 17, KIND_N_INVALID_KE },
		{ 1, 18, KIND_N_INVALID_ID },
		{ 2, 18, KIND_N_ERROR },
		{ 2, 44, KIND_N_CHILD_NOT_FOUND },
		{ 2, 0, KIND_N_ERROR },
		{ 2, 16383, KIND_N_ERROR },
		{ 2, 16384, KIND_N_INITIAL_CONTACT },
		{ 1, 16383, KIND_N_ERROR },
		{ 1, 16384, KIND_N_STATUS },
		{ 1, 16390, KIND_N_STATUS },
		{ 2, 16390, KIND_N_COOKIE },
		{ 1, 24576, KIND_N_RESPONDER_LIFETIME },
		{ 2, 24576, KIND_N_STATUS },
		{ 1, 24577, KIND_N_REPLAY_STATUS },
		{ 1, 24578, KIND_N_INITIAL_CONTACT },
		{ 1, 36136, KIND_N_R_U_THERE },
		{ 1, 36137, KIND_N_R_U_THERE_ACK },
		{ 2, 36137, KIND_N_STATUS },
		{ 2, 16430, KIND_N_FRAGMENTATION },
		{ 2, 16431, KIND_N_SIGNATURE_HASH },
		{ 2, 65535, KIND_N_STATUS },
	};
	struct view none = view_of(NULL, 0);
	uint8_t octets[256];
	struct wire_out out;
	struct buf buf;
	struct msg *msg;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		buf_init(&buf, octets, sizeof(octets));
		wire_start(
		    &out, &buf, rows[i].major == 1 ? &header_v1 : &header_v2);
		if (rows[i].major == 1)
			wire_notify_v1(&out, 0, none, rows[i].type, none);
		else
			wire_notify_v2(&out, 0, none, rows[i].type, none);
		wire_finish(&out);
		assert_int_equal(read_all(buf_done(&buf), false, &msg), OK);
		assert_int_equal(msg->payload[0].kind, rows[i].kind);
		assert_int_equal(msg_error(msg) != NULL, rows[i].type < 16384);
		msg_free(msg);
	}
	/* Another DOI's numbers are not ours (offset 28 + 4). */
	buf_init(&buf, octets, sizeof(octets));
	wire_start(&out, &buf, &header_v1);
	wire_notify_v1(&out, 0, none, N1_R_U_THERE, none);
	wire_finish(&out);
	octets[WIRE_HEADER + 7] = 2;
	assert_int_equal(read_all(buf_done(&buf), false, &msg), OK);
	assert_int_equal(msg->payload[0].kind, KIND_N_STATUS);
	msg_free(msg);
	octets[WIRE_HEADER + 7] = 0;
	assert_int_equal(read_all(buf_done(&buf), false, &msg), OK);
	assert_int_equal(msg->payload[0].kind, KIND_N_R_U_THERE);
	msg_free(msg);
}

/* A body one octet short of its type's minimum, exact, and one longer. */
static void
test_minimum(void **state)
{
	static const struct {
		unsigned major;
		uint8_t type;
		size_t min;
	} rows[] = {
		{ 1, P1_SA, 8 },
		{ 1, P1_KE, 1 },
		{ 1, P1_ID, 4 },
		{ 1, P1_HASH, 1 },
		{ 1, P1_SIG, 1 },
		{ 1, P1_NONCE, 8 },
		{ 1, P1_N, 8 },
		{ 1, P1_D, 8 },
		{ 1, P1_ATTR, 4 },
		{ 1, P1_NAT_OA, 8 },
		{ 1, P1_FRAGMENT, 5 },
		{ 2, P2_SA, 8 },
		{ 2, P2_KE, 5 },
		{ 2, P2_IDI, 4 },
		{ 2, P2_AUTH, 5 },
		{ 2, P2_NONCE, 16 },
		{ 2, P2_N, 4 },
		{ 2, P2_D, 4 },
		{ 2, P2_TSI, 12 },
		{ 2, P2_TSR, 12 },
		{ 2, P2_SK, 1 },
		{ 2, P2_SKF, 5 },
		{ 2, P2_CP, 4 },
		{ 2, P2_EAP, 4 },
	};
	uint8_t octets[1024];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (size_t len = rows[i].min - 1; len <= rows[i].min + 1;
		     len++)
			assert_int_equal(
			    read_and_free(one_payload(octets, rows[i].major,
			                      rows[i].type, len),
			        false),
			    len < rows[i].min ? ERR_SHORT : OK);
	}
	/* The SPI of a notify must lie within it. */
	for (unsigned spi = 0; spi <= 255; spi++) {
		struct view one = one_payload(octets, 2, P2_N, 12);

		octets[WIRE_HEADER + 5] = (uint8_t)spi;
		assert_int_equal(
		    read_and_free(one, false), spi <= 8 ? OK : ERR_SHORT);
	}
}

static void
test_reserved(void **state)
{
	uint8_t octets[1024];
	struct msg *msg;

	(void)state;
	for (unsigned reserved = 1; reserved <= 255; reserved++) {
		struct view one = one_payload(octets, 1, P1_HASH, 20);

		/* RFC 2408 5.3 */
		octets[WIRE_HEADER + 1] = (uint8_t)reserved;
		assert_int_equal(read_and_free(one, false), ERR_SYNTAX);
		/* RFC 7296 2.5, 3.2: ignored; and the critical bit is of no
		 * account on a type that we know. */
		one = one_payload(octets, 2, P2_NONCE, 20);
		octets[WIRE_HEADER + 1] = (uint8_t)reserved;
		assert_int_equal(read_all(one, false, &msg), OK);
		assert_int_equal(msg->payload[0].critical, reserved >= 128);
		assert_int_equal(msg->unknown_critical, 0);
		msg_free(msg);
		one = one_payload(octets, 2, 99, 20);
		octets[WIRE_HEADER + 1] = (uint8_t)reserved;
		assert_int_equal(read_all(one, false, &msg), OK);
		assert_int_equal(
		    msg->unknown_critical, reserved >= 128 ? 99 : 0);
		msg_free(msg);
	}
}

static void
test_payload_length(void **state)
{
	uint8_t octets[1024];

	(void)state;
	for (unsigned length = 0; length < 40; length++) {
		struct view one = one_payload(octets, 2, P2_V, 20);
		enum err expected = length < 4     ? ERR_SYNTAX
		                    : length == 24 ? OK
		                    : length > 24  ? ERR_SHORT
		                                   : ERR_SYNTAX;

		octets[WIRE_HEADER + 2] = 0;
		octets[WIRE_HEADER + 3] = (uint8_t)length;
		assert_int_equal(read_and_free(one, false), expected);
		/* IKEv1's padding inside the encryption. */
		if (length >= 4 && length < 24)
			assert_int_equal(read_and_free(one, true), OK);
	}
}

static void
test_64_payloads(void **state)
{
	uint8_t octets[1024];
	struct wire_out out;
	struct buf buf;
	struct msg *msg;

	(void)state;
	for (unsigned count = WIRE_PAYLOADS - 1; count <= WIRE_PAYLOADS + 1;
	     count++) {
		enum err err;

		buf_init(&buf, octets, sizeof(octets));
		wire_start(&out, &buf, &header_v2);
		for (unsigned i = 0; i < count; i++)
			wire_payload(&out, P2_V, view_of(NULL, 0));
		wire_finish(&out);
		assert_false(buf.full);
		err = read_all(buf_done(&buf), false, &msg);
		if (count <= WIRE_PAYLOADS) {
			assert_int_equal(err, OK);
			assert_int_equal(msg->count, count);
			assert_non_null(msg_payload(msg, KIND_VID, count - 1));
			assert_null(msg_payload(msg, KIND_VID, count));
		} else {
			assert_int_equal(err, ERR_LIMIT);
			/* Nothing half-read is left. */
			assert_int_equal(msg->count, 0);
			assert_false(msg_has(msg, KIND_VID));
		}
		msg_free(msg);
	}
}

/* SK and SKF are the last, whatever their "next" says. */
static void
test_encrypted_is_last(void **state)
{
	static const uint8_t types[] = { P2_SK, P2_SKF };
	uint8_t octets[1024];
	struct wire_out out;
	struct buf buf;
	struct msg *msg;

	(void)state;
	for (size_t i = 0; i < sizeof(types); i++) {
		for (unsigned next = 0; next <= 255; next++) {
			struct view one = one_payload(octets, 2, types[i], 64);

			octets[WIRE_HEADER] = (uint8_t)next;
			assert_int_equal(read_all(one, false, &msg), OK);
			assert_int_equal(msg->count, 1);
			assert_int_equal(msg->payload[0].whole.at[0], next);
			msg_free(msg);
		}
		/* What follows it belongs to nothing. */
		buf_init(&buf, octets, sizeof(octets));
		wire_start(&out, &buf, &header_v2);
		wire_payload(&out, types[i], view_of("0123456789", 10));
		wire_payload(&out, P2_V, view_of(NULL, 0));
		wire_finish(&out);
		assert_int_equal(
		    read_and_free(buf_done(&buf), false), ERR_SYNTAX);
		/* Unencrypted payloads may stand before it. */
		buf_init(&buf, octets, sizeof(octets));
		wire_start(&out, &buf, &header_v2);
		wire_payload(&out, P2_V, view_of(NULL, 0));
		wire_payload(&out, types[i], view_of("0123456789", 10));
		wire_finish(&out);
		assert_int_equal(read_and_free(buf_done(&buf), false), OK);
	}
	/* In IKEv1 these numbers mean nothing. */
	buf_init(&buf, octets, sizeof(octets));
	wire_start(&out, &buf, &header_v1);
	wire_payload(&out, P2_SK, view_of("0123456789", 10));
	wire_payload(&out, P1_VID, view_of(NULL, 0));
	wire_finish(&out);
	assert_int_equal(read_all(buf_done(&buf), false, &msg), OK);
	assert_int_equal(msg->count, 2);
	msg_free(msg);
}

/* Reading again replaces what was read: the inside of SK after the outside. */
static void
test_read_again(void **state)
{
	uint8_t octets[1024], inner[64];
	struct wire_out out;
	struct buf buf;
	struct msg *msg;

	(void)state;
	assert_int_equal(read_all(sample_v2(octets), false, &msg), OK);
	buf_init(&buf, inner, sizeof(inner));
	wire_start_chain(&out, &buf);
	assert_int_equal(wire_chain_first(&out), 0);
	wire_payload(&out, P2_IDI, view_of("\2\0\0\0gw", 6));
	wire_payload(&out, P2_V, view_of("v", 1));
	assert_false(buf.full);
	assert_int_equal(wire_chain_first(&out), P2_IDI);
	msg->opened = malloc(buf.len);
	assert_non_null(msg->opened);
	memcpy(msg->opened, inner, buf.len);
	msg->opened_len = buf.len;
	assert_int_equal(wire_payloads_read(msg, 2, wire_chain_first(&out),
	                     view_of(msg->opened, msg->opened_len), false),
	    OK);
	assert_int_equal(msg->count, 2);
	assert_true(msg->seen == (KIND_BIT(IDI) | KIND_BIT(VID)));
	assert_true(msg->repeated == 0);
	assert_int_equal(msg->unknown_critical, 0);
	msg_free(msg);
}

/* A chain in the middle of a buf, and messages one behind the other. */
static void
test_write_offsets(void **state)
{
	uint8_t octets[256];
	struct wire_out out;
	struct buf buf;
	struct view rest;
	struct msg *msg;

	(void)state;
	buf_init(&buf, octets, sizeof(octets));
	buf_u32(&buf, 0);
	wire_start(&out, &buf, &header_v2);
	wire_payload(&out, P2_V, view_of("abc", 3));
	wire_finish(&out);
	rest = buf_done(&buf);
	assert_true(view_skip(&rest, 4));
	assert_int_equal(read_all(rest, false, &msg), OK);
	assert_int_equal(msg->header.length, WIRE_HEADER + 7);
	assert_int_equal(msg->count, 1);
	msg_free(msg);
}

/* At every capacity: full or right, never beyond the end. */
static void
test_write_overflow(void **state)
{
	uint8_t octets[1024], whole[1024];
	struct view sample = sample_v2(whole);

	(void)state;
	for (size_t cap = 0; cap <= 128; cap++) {
		struct wire_out out;
		struct buf buf;

		memset(octets, 0xee, sizeof(octets));
		buf_init(&buf, octets, cap);
		wire_start(&out, &buf, &header_v2);
		wire_notify_v2(&out, 1, view_of("12345678", 8), N_COOKIE,
		    view_of("0123456789abcdef0123456789abcdef", 32));
		wire_payload(&out, P2_V, view_of("0123456789abcdef", 16));
		wire_finish(&out);
		assert_int_equal(buf.full, cap < WIRE_HEADER + 48 + 20);
		assert_int_equal(octets[cap], 0xee);
	}
	assert_true(sample.len > 128);
}

static void
test_write_too_long(void **state)
{
	size_t size = 3 * 65536;
	uint8_t *octets = calloc(1, size), *body = calloc(1, 65536);
	struct wire_out out;
	struct buf buf;

	(void)state;
	assert_non_null(octets);
	assert_non_null(body);
	/* The largest payload that its length field can tell. */
	buf_init(&buf, octets, size);
	wire_start_chain(&out, &buf);
	wire_payload(&out, P2_V, view_of(body, 65531));
	assert_false(buf.full);
	wire_payload(&out, P2_V, view_of(body, 65532));
	assert_true(buf.full);
	/* The largest message. */
	for (size_t len = WIRE_MAX - 1; len <= WIRE_MAX + 1; len++) {
		buf_init(&buf, octets, size);
		wire_start(&out, &buf, &header_v2);
		wire_payload(&out, P2_V, view_of(body, len - WIRE_HEADER - 4));
		wire_finish(&out);
		assert_int_equal(buf.full, len > WIRE_MAX);
	}
	/* An SPI longer than its length octet can tell. */
	buf_init(&buf, octets, size);
	wire_start(&out, &buf, &header_v2);
	wire_notify_v2(&out, 1, view_of(body, 256), 1, view_of(NULL, 0));
	assert_true(buf.full);
	free(octets);
	free(body);
}

/* Every truncation of a valid message: as the network would do it (the header
 * says more than there is) and as an attacker would (the header agrees). In
 * memory of exactly that size, so that a sanitizer sees a read beyond it. */
static void
test_truncations(void **state)
{
	uint8_t octets[1024];

	(void)state;
	for (unsigned major = 1; major <= 2; major++) {
		struct view sample =
		    major == 1 ? sample_v1(octets) : sample_v2(octets);
		unsigned good = 0;

		for (size_t len = 0; len < sample.len; len++) {
			uint8_t *exact = malloc(len > 0 ? len : 1);
			struct buf buf;

			assert_non_null(exact);
			memcpy(exact, sample.at, len);
			assert_int_not_equal(
			    read_and_free(view_of(exact, len), false), OK);
			if (len >= WIRE_HEADER) {
				buf_init(&buf, exact, len);
				buf.len = len;
				buf_patch_u32(&buf, 24, (uint32_t)len);
				if (read_and_free(view_of(exact, len), false) ==
				    OK)
					good++;
			}
			free(exact);
		}
		/* The "next" of the last payload kept names one that is
		 * gone: no truncation is ever a message. */
		assert_int_equal(good, 0);
	}
}

/* What must hold of anything that was read without an error. */
static void
check_message(const struct msg *msg)
{
	const uint8_t *start = msg->whole.at;
	const uint8_t *end = start + msg->whole.len;
	kind_set seen = 0;
	char text[64];

	assert_true(msg->count <= WIRE_PAYLOADS);
	for (size_t i = 0; i < msg->count; i++) {
		const struct payload *payload = &msg->payload[i];

		assert_true(payload->kind > KIND_NONE);
		assert_true(payload->kind < KIND_COUNT);
		assert_true(payload->whole.at >= start + WIRE_HEADER);
		assert_true(payload->whole.at + payload->whole.len <= end);
		assert_int_equal(payload->whole.len, payload->body.len + 4);
		assert_ptr_equal(payload->body.at, payload->whole.at + 4);
		if (kind_is_notify((enum kind)payload->kind)) {
			size_t head = msg->header.major == 1 ? 8 : 4;

			assert_int_equal(head + payload->notify.spi.len +
			                     payload->notify.data.len,
			    payload->body.len);
		} else {
			assert_int_equal(payload->notify.type, 0);
		}
		seen |= kind_bit((enum kind)payload->kind);
	}
	assert_true(seen == msg->seen);
	assert_true((msg->repeated & ~msg->seen) == 0);
	msg_text(msg, text, sizeof(text));
	assert_true(strlen(text) < sizeof(text));
}

static void
test_mutations(void **state)
{
	uint8_t octets[1024];
	uint32_t chance = 20;
	unsigned good = 0, bad = 0;

	(void)state;
	for (unsigned round = 0; round < 60000; round++) {
		unsigned major = 1 + round % 2;
		struct view sample =
		    major == 1 ? sample_v1(octets) : sample_v2(octets);
		uint8_t *exact = malloc(sample.len);
		struct msg *msg = NULL;

		assert_non_null(exact);
		memcpy(exact, sample.at, sample.len);
		chance = chance * 1664525 + 1013904223;
		for (unsigned n = 1 + (chance >> 29); n > 0; n--) {
			size_t at;

			chance = chance * 1664525 + 1013904223;
			/* Mostly behind the header. */
			at = (chance >> 8) % sample.len;
			if (at < WIRE_HEADER && (chance & 0x1000))
				at += WIRE_HEADER;
			exact[at] =
			    (uint8_t)((chance >> 20) & 0x1f
			                  ? exact[at] ^ (1U << (chance >> 29))
			                  : chance >> 24);
		}
		if (read_all(view_of(exact, sample.len), round % 3 == 0,
		        &msg) == OK) {
			check_message(msg);
			good++;
		} else {
			if (msg != NULL)
				assert_int_equal(msg->count, 0);
			bad++;
		}
		msg_free(msg);
		free(exact);
	}
	/* The test would show nothing if all went one way. */
	assert_true(good > 1000);
	assert_true(bad > 1000);
}

/* Noise behind a plausible header. */
static void
test_noise(void **state)
{
	uint32_t chance = 99;

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		size_t len = WIRE_HEADER + round % 100;
		uint8_t *exact = malloc(len);
		struct msg *msg = NULL;
		struct buf buf;

		assert_non_null(exact);
		for (size_t i = 0; i < len; i++) {
			chance = chance * 1664525 + 1013904223;
			/* Small numbers make plausible lengths. */
			exact[i] = (uint8_t)(chance >> 24);
			if (i >= WIRE_HEADER && (chance & 0x30000))
				exact[i] &= i % 2 ? 0x3f : 0;
		}
		exact[17] = round % 2 ? 0x10 : 0x20;
		buf_init(&buf, exact, len);
		buf.len = len;
		buf_patch_u32(&buf, 24, (uint32_t)len);
		if (read_all(view_of(exact, len), round % 3 == 0, &msg) == OK)
			check_message(msg);
		msg_free(msg);
		free(exact);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_length),
		cmocka_unit_test(test_empty_message),
		cmocka_unit_test(test_sample_v2),
		cmocka_unit_test(test_sample_v1),
		cmocka_unit_test(test_versions_apart),
		cmocka_unit_test(test_notify_numbers),
		cmocka_unit_test(test_minimum),
		cmocka_unit_test(test_reserved),
		cmocka_unit_test(test_payload_length),
		cmocka_unit_test(test_64_payloads),
		cmocka_unit_test(test_encrypted_is_last),
		cmocka_unit_test(test_read_again),
		cmocka_unit_test(test_write_offsets),
		cmocka_unit_test(test_write_overflow),
		cmocka_unit_test(test_write_too_long),
		cmocka_unit_test(test_truncations),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
