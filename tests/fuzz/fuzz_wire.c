/* Headers, chains and the bodies of payloads: octet 0 says how to read. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "common/ident.h"
#include "common/wire.h"
#include "ikev1/sapay.h"
#include "ikev1/select.h"
#include "ikev2/sapay.h"

static void
read_v1(const struct payload *payload)
{
	struct offer offers[V1_TRANSFORMS + 1];
	struct v1_sapay sapay;
	uint8_t octets[4096];
	struct suite suite;
	char text[512];
	struct buf buf;
	struct ts ts;
	size_t count;

	if (payload->kind == KIND_ID &&
	    v1_select_read(payload->body, &ts) == OK) {
		HOLDS(ts_valid(&ts));
		ts_text(&ts, text);
	}
	for (int i = 0; i < 2 && payload->kind == KIND_SA; i++) {
		enum ipsec_protocol protocol = i == 0 ? PROTO_IKE : PROTO_ESP;

		if (v1_sapay_read(&sapay, payload->body, protocol) != OK)
			continue;
		HOLDS(sapay.count <= V1_TRANSFORMS);
		count = v1_sapay_offers(&sapay, protocol, offers, NULL, NULL);
		HOLDS(count <= sapay.count);
		for (size_t n = 0; n < count; n++) {
			HOLDS(offers[n].tag < sapay.count);
			offer_text(&offers[n], text, sizeof(text));
		}
		for (size_t n = 0; n < sapay.count; n++) {
			v1_sapay_suite(&sapay.item[n], protocol, &suite);
			buf_init(&buf, octets, sizeof(octets));
			v1_sapay_answer(&buf, &sapay.item[n], 7);
		}
	}
}

static void
read_v2(const struct payload *payload)
{
	struct offer *offers = NULL;
	struct proposals ours;
	struct ts_list list;
	struct choice choice;
	struct ident *ident;
	struct view rest;
	uint16_t number;
	uint8_t octet;
	char text[512];
	size_t count;

	proposals_default(&ours, PROTO_IKE);
	if (payload->kind == KIND_SA && v2_sapay_read(payload->body, PROTO_IKE,
	                                    8, false, &offers, &count) == OK) {
		for (size_t n = 0; n < count; n++)
			offer_text(&offers[n], text, sizeof(text));
		proposals_choose(&ours, offers, count, false, false, &choice);
		proposals_explain(
		    &ours, offers, count, false, text, sizeof(text));
		free(offers);
	}
	if ((payload->kind == KIND_TSI || payload->kind == KIND_TSR) &&
	    v2_ts_read(payload->body, NULL, &list) == OK) {
		HOLDS(list.count <= TS_MAX);
		for (unsigned n = 0; n < list.count; n++)
			HOLDS(ts_valid(&list.item[n]));
		ts_list_text(&list, text, sizeof(text));
	}
	if (payload->kind == KIND_KE)
		v2_ke_read(payload->body, &number, &rest);
	if ((payload->kind == KIND_IDI || payload->kind == KIND_IDR) &&
	    v2_id_read(payload->body, &ident) == OK) {
		ident_text(ident, text);
		ident_unref(ident);
	}
	if (payload->kind == KIND_DELETE)
		v2_delete_read(payload->body, &octet, &number, &rest);
}

int
LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
	struct view rest = view_of(octets, len);
	struct wire_header header;
	struct msg *msg;
	char text[300];
	uint8_t how;

	if (!view_u8(&rest, &how) || wire_header_read(rest, &header) != OK ||
	    msg_new(&msg, rest) != OK)
		return 0;
	HOLDS(msg->whole.len == header.length);
	rest = msg->whole;
	view_skip(&rest, WIRE_HEADER);
	if (wire_payloads_read(
	        msg, 1 + how % 2, header.next, rest, how / 2 % 2) != OK) {
		HOLDS(msg->count == 0 && msg->seen == 0);
		msg_free(msg);
		return 0;
	}
	for (size_t i = 0; i < msg->count; i++) {
		const struct payload *payload = &msg->payload[i];

		/* Views lie within the message. */
		HOLDS(payload->kind > KIND_NONE && payload->kind < KIND_COUNT);
		HOLDS(payload->whole.at >= rest.at);
		HOLDS(payload->whole.at + payload->whole.len <=
		      rest.at + rest.len);
		HOLDS(payload->body.at + payload->body.len <=
		      payload->whole.at + payload->whole.len);
		HOLDS(msg_has(msg, (enum kind)payload->kind));
		if (kind_is_notify((enum kind)payload->kind))
			HOLDS(payload->notify.data.len <= payload->body.len);
		if (how % 2 == 0)
			read_v1(payload);
		else
			read_v2(payload);
	}
	msg_error(msg);
	msg_text(msg, text, sizeof(text));
	msg_free(msg);
	return 0;
}
