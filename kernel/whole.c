#include "kernel/whole.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/octets.h"
#include "kernel/tun.h"

#define V6_FRAGMENT 44
#define V6_HEADER   8 /* octets of the fragment header */

struct slot {
	struct addr src, dst;
	uint32_t id;
	uint8_t proto;
	bool used;
	uint64_t since_ms;
	size_t header, len; /* of the datagram so far */
	uint8_t *octets;    /* virtio header and datagram; made at first use */
};

struct whole {
	struct slot slot[WHOLE_SLOTS];
};

/* What a fragment says. */
struct piece {
	uint32_t id;
	uint8_t proto;
	size_t header, data; /* octets to keep; where its data begins */
	size_t offset;
	bool more;
};

struct whole *
whole_new(void)
{
	return calloc(1, sizeof(struct whole));
}

void
whole_free(struct whole *whole)
{
	size_t i;

	if (whole == NULL)
		return;
	for (i = 0; i < WHOLE_SLOTS; i++)
		free(whole->slot[i].octets);
	free(whole);
}

/* inner_parse() has seen that the headers are there. */
static bool
read_piece(
    struct piece *piece, const uint8_t *packet, const struct inner *inner)
{
	uint16_t field;

	if (!inner->fragment)
		return false;
	if (inner->version == 4) {
		field = get_u16(packet + 6);
		piece->id = get_u16(packet + 4);
		piece->proto = inner->proto;
		piece->header = piece->data = inner->transport;
		piece->offset = (field & 0x1fffu) * 8u;
		piece->more = (field & 0x2000) != 0;
		return true;
	}
	if (inner->first != V6_FRAGMENT)
		return false;
	field = get_u16(packet + INNER_V6 + 2);
	piece->id = (uint32_t)get_u16(packet + INNER_V6 + 4) << 16 |
	            get_u16(packet + INNER_V6 + 6);
	piece->proto = packet[INNER_V6];
	piece->header = INNER_V6;
	piece->data = INNER_V6 + V6_HEADER;
	piece->offset = field & 0xfff8u;
	piece->more = (field & 1) != 0;
	return true;
}

static struct slot *
find(struct whole *whole, const struct piece *piece, const struct inner *inner,
    uint64_t now_ms)
{
	struct slot *slot;

	for (slot = whole->slot; slot < whole->slot + WHOLE_SLOTS; slot++) {
		if (slot->used && now_ms - slot->since_ms >= WHOLE_MS)
			slot->used = false;
		if (slot->used && slot->id == piece->id &&
		    slot->proto == piece->proto &&
		    addr_equal(&slot->src, &inner->src) &&
		    addr_equal(&slot->dst, &inner->dst))
			return slot;
	}
	return NULL;
}

/* One that is free, or else the oldest. */
static struct slot *
make_room(struct whole *whole)
{
	struct slot *slot, *best = whole->slot;

	for (slot = whole->slot; slot < whole->slot + WHOLE_SLOTS; slot++) {
		if (!slot->used)
			return slot;
		if (slot->since_ms < best->since_ms)
			best = slot;
	}
	return best;
}

enum err
whole_begin(struct whole *whole, const uint8_t *packet,
    const struct inner *inner, uint64_t now_ms)
{
	struct piece piece;
	struct slot *slot;
	uint8_t *to;

	if (!read_piece(&piece, packet, inner) || piece.offset != 0 ||
	    !piece.more)
		return ERR_UNSUPPORTED;
	slot = find(whole, &piece, inner, now_ms);
	if (slot == NULL)
		slot = make_room(whole);
	if (slot->octets == NULL)
		slot->octets = calloc(1, TUN_HEADER + TUN_PACKET);
	if (slot->octets == NULL)
		return ERR_NOMEM;
	slot->src = inner->src;
	slot->dst = inner->dst;
	slot->id = piece.id;
	slot->proto = piece.proto;
	slot->used = true;
	slot->since_ms = now_ms;
	slot->header = piece.header;
	slot->len = piece.header + inner->len - piece.data;
	to = slot->octets + TUN_HEADER;
	memcpy(to, packet, piece.header);
	memcpy(to + piece.header, packet + piece.data, inner->len - piece.data);
	return OK;
}

static void
finish(struct slot *slot, uint8_t version)
{
	uint8_t *ip = slot->octets + TUN_HEADER;

	slot->used = false;
	if (version == 4) {
		put_u16(ip + 2, slot->len);
		put_u16(ip + 6, 0);
		inner_v4_checksum(ip, slot->header);
	} else {
		put_u16(ip + 4, slot->len - INNER_V6);
		ip[6] = slot->proto;
	}
}

enum err
whole_continue(struct whole *whole, const uint8_t *packet,
    const struct inner *inner, uint64_t now_ms, struct view *datagram)
{
	struct piece piece;
	struct slot *slot;
	size_t len;

	*datagram = view_of(NULL, 0);
	if (!read_piece(&piece, packet, inner) || piece.offset == 0)
		return ERR_NOT_FOUND;
	slot = find(whole, &piece, inner, now_ms);
	if (slot == NULL)
		return ERR_NOT_FOUND;
	len = inner->len - piece.data;
	if (piece.offset != slot->len - slot->header ||
	    slot->len + len > TUN_PACKET) {
		slot->used = false;
		return OK;
	}
	memcpy(slot->octets + TUN_HEADER + slot->len, packet + piece.data, len);
	slot->len += len;
	if (piece.more)
		return OK;
	finish(slot, inner->version);
	*datagram = view_of(slot->octets, TUN_HEADER + slot->len);
	return OK;
}
