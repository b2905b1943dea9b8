/* Packets of the userland data plane: an ESP packet under a known key when
 * octet 0 is odd (sealed first when bit 1 is set, so that what is inside gets
 * through), else an inner packet. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "common/alg.h"
#include "kernel/esp.h"
#include "kernel/inner.h"

#define ROOM 2048

static void
inner(uint8_t *octets, size_t len)
{
	uint8_t error[INNER_ICMP_ERROR];
	struct inner packet;
	struct addr src, dst;

	if (inner_parse(&packet, octets, len) != OK)
		return;
	HOLDS(packet.len <= len);
	HOLDS(packet.transport <= packet.len);
	addr_parse(&src, "10.0.0.1");
	addr_parse(&dst, "10.0.0.2");
	inner_checksum_good(octets, &packet);
	HOLDS(inner_too_big(error, octets, &packet, 1280) <= sizeof(error));
	if (packet.src.family == src.family)
		inner_renumber(octets, &packet, &src, &dst);
	inner_ecn(octets, &packet, 3);
}

static void
esp(const uint8_t *octets, size_t len, bool sealed)
{
	static const uint8_t encr[] = { ALG_AES128_GCM16, ALG_AES128_CBC };
	uint8_t room[ESP_HEAD + ROOM + ESP_TAIL];
	struct kmsg_sa in = {
		.spi = 0x1000, .direction = KMSG_IN, .replay_window = 64
	};
	struct esp_sa *sa, *out;
	struct view packet, payload;
	uint8_t next;

	if (len < 2 || len > ROOM)
		return;
	in.encr = encr[octets[0] % 2];
	in.integ = octets[0] % 2 == 0 ? ALG_NONE : ALG_SHA256_128;
	in.encr_key_len = octets[0] % 2 == 0 ? 20 : 16;
	in.integ_key_len = octets[0] % 2 == 0 ? 0 : 32;
	in.esn = octets[0] / 2 % 2;
	sa = esp_new(&in);
	in.direction = KMSG_OUT;
	out = esp_new(&in);
	HOLDS(sa != NULL && out != NULL);
	memcpy(room + ESP_HEAD, octets + 1, len - 1);
	packet = view_of(room + ESP_HEAD, len - 1);
	if (!sealed ||
	    esp_seal(out, room + ESP_HEAD, len - 1, 4, &packet) == OK) {
		uint8_t *at = room + (packet.at - room);

		if (esp_open(sa, at, packet.len, &payload, &next) == OK) {
			HOLDS(sealed);
			HOLDS(payload.len == len - 1 && next == 4);
			HOLDS(memcmp(payload.at, octets + 1, len - 1) == 0);
			inner(room + (payload.at - room), payload.len);
		} else {
			HOLDS(!sealed);
		}
	}
	esp_free(sa);
	esp_free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
	uint8_t *copy;

	if (len < 1)
		return 0;
	if (octets[0] % 2 == 1) {
		esp(octets + 1, len - 1, octets[0] / 2 % 2);
		return 0;
	}
	/* On the heap, so that one octet too far is seen. */
	copy = malloc(len == 1 ? 1 : len - 1);
	HOLDS(copy != NULL);
	memcpy(copy, octets + 1, len - 1);
	inner(copy, len - 1);
	free(copy);
	return 0;
}
