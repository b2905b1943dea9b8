/*
 * buf: the only way in which octets of a message are read or written.
 *
 * A view borrows octets and is consumed from the front; every take is checked
 * and a failed take changes nothing. A buf writes into memory that the caller
 * owns; overflow is sticky (full), so that a writer is checked once, at the
 * end. All integers are in network order on the wire.
 */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct view {
	const uint8_t *at;
	size_t len; /* octets left */
};

static inline struct view
view_of(const void *octets, size_t len)
{
	struct view view = { (const uint8_t *)octets, len };
	return view;
}

/* A view of a string's characters, without the final NUL. */
struct view view_text(const char *text);

bool view_equal(struct view a, struct view b); /* not for secrets */

/* Each returns false, and changes nothing, when too few octets are left. */
bool view_take(struct view *from, size_t len, struct view *taken);
bool view_skip(struct view *from, size_t len);
bool view_u8(struct view *from, uint8_t *value);
bool view_u16(struct view *from, uint16_t *value);
bool view_u32(struct view *from, uint32_t *value);
bool view_u64(struct view *from, uint64_t *value);
bool view_copy(struct view *from, void *to, size_t len);

struct buf {
	uint8_t *at; /* first octet */
	size_t len;  /* octets written */
	size_t cap;  /* octets that fit */
	bool full;   /* something did not fit: the content is worthless */
};

void buf_init(struct buf *buf, void *octets, size_t cap);

/* Appends; on overflow sets full and appends nothing. */
void buf_put(struct buf *buf, const void *octets, size_t len);
void buf_view(struct buf *buf, struct view octets);
void buf_u8(struct buf *buf, uint8_t value);
void buf_u16(struct buf *buf, uint16_t value);
void buf_u32(struct buf *buf, uint32_t value);
void buf_u64(struct buf *buf, uint64_t value);
void buf_zero(struct buf *buf, size_t len);

/* Room for len octets to be filled by the caller; NULL (and full) if none. */
uint8_t *buf_room(struct buf *buf, size_t len);

/* Overwrites a 16- or 32-bit field written before; offset in octets. */
void buf_patch_u16(struct buf *buf, size_t offset, uint16_t value);
void buf_patch_u32(struct buf *buf, size_t offset, uint32_t value);

/* What has been written so far. */
struct view buf_done(const struct buf *buf);

/* Writes text escaped for people: printable ASCII stays, the backslash and all
 * other octets become \xNN. Cut at size, never within an escape. Always
 * NUL-terminates. Returns text. size is in octets and at least 1. */
char *buf_escape(char *text, size_t size, struct view octets);
/* The same for the inside of a JSON string: quote, backslash and what is not
 * printable ASCII become \u00NN. */
char *buf_escape_json(char *text, size_t size, struct view octets);

/* Hexadecimal, lower case, NUL-terminated, cut at size - 1. Returns text. */
char *buf_hex(char *text, size_t size, struct view octets);

#endif
