#include "common/buf.h"

#include <stdio.h>
#include <string.h>

struct view
view_text(const char *text)
{
	return view_of(text, strlen(text));
}

bool
view_equal(struct view a, struct view b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

bool
view_take(struct view *from, size_t len, struct view *taken)
{
	if (from->len < len)
		return false;
	*taken = view_of(from->at, len);
	/* Nothing may be added to a NULL pointer, not even 0. */
	if (len > 0)
		from->at += len;
	from->len -= len;
	return true;
}

bool
view_skip(struct view *from, size_t len)
{
	struct view taken;

	return view_take(from, len, &taken);
}

/* The next len octets as one number, most significant first. */
static bool
take_number(struct view *from, size_t len, uint64_t *value)
{
	struct view taken;
	uint64_t number = 0;

	if (!view_take(from, len, &taken))
		return false;
	for (size_t i = 0; i < len; i++)
		number = number << 8 | taken.at[i];
	*value = number;
	return true;
}

bool
view_u8(struct view *from, uint8_t *value)
{
	uint64_t number;

	if (!take_number(from, 1, &number))
		return false;
	*value = (uint8_t)number;
	return true;
}

bool
view_u16(struct view *from, uint16_t *value)
{
	uint64_t number;

	if (!take_number(from, 2, &number))
		return false;
	*value = (uint16_t)number;
	return true;
}

bool
view_u32(struct view *from, uint32_t *value)
{
	uint64_t number;

	if (!take_number(from, 4, &number))
		return false;
	*value = (uint32_t)number;
	return true;
}

bool
view_u64(struct view *from, uint64_t *value)
{
	return take_number(from, 8, value);
}

bool
view_copy(struct view *from, void *to, size_t len)
{
	struct view taken;

	if (!view_take(from, len, &taken))
		return false;
	if (len > 0)
		memcpy(to, taken.at, len);
	return true;
}

void
buf_init(struct buf *buf, void *octets, size_t cap)
{
	buf->at = octets;
	buf->len = 0;
	buf->cap = cap;
	buf->full = false;
}

uint8_t *
buf_room(struct buf *buf, size_t len)
{
	uint8_t *room;

	if (buf->full || buf->cap - buf->len < len) {
		buf->full = true;
		return NULL;
	}
	room = buf->at + buf->len;
	buf->len += len;
	return room;
}

void
buf_put(struct buf *buf, const void *octets, size_t len)
{
	uint8_t *room;

	/* A buf of no octets may have a NULL pointer. */
	if (len == 0)
		return;
	room = buf_room(buf, len);
	if (room != NULL)
		memcpy(room, octets, len);
}

void
buf_view(struct buf *buf, struct view octets)
{
	buf_put(buf, octets.at, octets.len);
}

static void
put_number(struct buf *buf, uint64_t value, size_t len)
{
	uint8_t *room = buf_room(buf, len);

	if (room == NULL)
		return;
	for (size_t i = len; i > 0; i--) {
		room[i - 1] = (uint8_t)value;
		value >>= 8;
	}
}

void
buf_u8(struct buf *buf, uint8_t value)
{
	put_number(buf, value, 1);
}

void
buf_u16(struct buf *buf, uint16_t value)
{
	put_number(buf, value, 2);
}

void
buf_u32(struct buf *buf, uint32_t value)
{
	put_number(buf, value, 4);
}

void
buf_u64(struct buf *buf, uint64_t value)
{
	put_number(buf, value, 8);
}

void
buf_zero(struct buf *buf, size_t len)
{
	uint8_t *room;

	if (len == 0)
		return;
	room = buf_room(buf, len);
	if (room != NULL)
		memset(room, 0, len);
}

void
buf_patch_u16(struct buf *buf, size_t offset, uint16_t value)
{
	/* After an overflow the field may not be there. */
	if (buf->len < 2 || offset > buf->len - 2)
		return;
	buf->at[offset] = (uint8_t)(value >> 8);
	buf->at[offset + 1] = (uint8_t)value;
}

void
buf_patch_u32(struct buf *buf, size_t offset, uint32_t value)
{
	if (buf->len < 4 || offset > buf->len - 4)
		return;
	buf_patch_u16(buf, offset, (uint16_t)(value >> 16));
	buf_patch_u16(buf, offset + 2, (uint16_t)value);
}

struct view
buf_done(const struct buf *buf)
{
	return view_of(buf->at, buf->len);
}

/* Escapes with prefix and two hexadecimal digits what is not printable or
 * stands in special. */
static char *
escape(char *text, size_t size, struct view octets, const char *special,
    const char *prefix)
{
	size_t used = 0;

	for (size_t i = 0; i < octets.len; i++) {
		uint8_t octet = octets.at[i];
		bool plain = octet >= 0x20 && octet < 0x7f &&
		             strchr(special, octet) == NULL;
		size_t need = plain ? 1 : strlen(prefix) + 2;

		/* Never half an escape. */
		if (size - used <= need)
			break;
		if (plain)
			text[used] = (char)octet;
		else
			snprintf(
			    text + used, size - used, "%s%02x", prefix, octet);
		used += need;
	}
	text[used] = '\0';
	return text;
}

char *
buf_escape(char *text, size_t size, struct view octets)
{
	return escape(text, size, octets, "\\", "\\x");
}

char *
buf_escape_json(char *text, size_t size, struct view octets)
{
	return escape(text, size, octets, "\\\"", "\\u00");
}

char *
buf_hex(char *text, size_t size, struct view octets)
{
	static const char digits[] = "0123456789abcdef";
	size_t used = 0;

	for (size_t i = 0; i < octets.len && used + 1 < size; i++) {
		text[used++] = digits[octets.at[i] >> 4];
		if (used + 1 < size)
			text[used++] = digits[octets.at[i] & 15];
	}
	text[used] = '\0';
	return text;
}
