#include "tests/play/mutator.h"

#include <string.h>

#include "common/wire.h"

#define PAYLOADS  40 /* looked at in one message */
#define GENERIC   4  /* octets of a payload's header */
#define NEXT_AT   16 /* of the header's octets: the first payload's type */
#define MAJOR_AT  17
#define LENGTH_AT 24

/* One payload: where it stands in the chain, its header included. */
struct piece {
	uint8_t type, flags;
	const uint8_t *body;
	size_t len;
};

struct pieces {
	size_t count;
	struct piece item[PAYLOADS];
	struct view rest; /* what stands behind them: padding, a SK payload */
	uint8_t last;     /* type that the last one names */
};

const char *
mutation_text(enum mutation mutation)
{
	static const char *const names[] = { "bits flipped", "fields set",
		"cut", "grown", "payload dropped", "payload repeated",
		"payloads swapped", "payload inserted", "type changed",
		"length changed", "payload shortened", "inside a payload" };

	return mutation < MUTATE_KINDS ? names[mutation] : "unknown";
}

void
mutator_init(struct mutator *mutator, uint64_t seed)
{
	memset(mutator, 0, sizeof(*mutator));
	mutator->state = seed;
}

/* splitmix64 */
static uint64_t
next(struct mutator *mutator)
{
	uint64_t z = (mutator->state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t
mutator_below(struct mutator *mutator, uint64_t bound)
{
	return bound <= 1 ? 0 : next(mutator) % bound;
}

/* Octets ------------------------------------------------------------------ */

static void
flip(struct mutator *m, uint8_t *octets, size_t len)
{
	uint64_t count = 1 + mutator_below(m, 4);

	while (len > 0 && count-- > 0)
		octets[mutator_below(m, len)] ^=
		    (uint8_t)(1u << mutator_below(m, 8));
}

/* Values at which arithmetic and bounds go wrong. */
static void
set_value(struct mutator *m, uint8_t *octets, size_t len)
{
	static const uint32_t telling[] = { 0, 1, 2, 3, 4, 7, 8, 15, 16, 20, 28,
		63, 64, 127, 128, 255, 256, 1023, 4096, 0x7fff, 0x8000, 0x8001,
		0xfffe, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffffe,
		0xffffffff };
	uint32_t value =
	    telling[mutator_below(m, sizeof(telling) / sizeof(telling[0]))];
	size_t size = (size_t)1 << mutator_below(m, 3), at, i;

	if (len < size)
		return;
	at = mutator_below(m, len - size + 1);
	for (i = 0; i < size; i++)
		octets[at + i] = (uint8_t)(value >> 8 * (size - 1 - i));
}

/* Chains ------------------------------------------------------------------ */

static void
split(struct pieces *pieces, uint8_t first, struct view chain)
{
	struct view rest = chain;
	uint8_t type = first, following, flags;
	uint16_t len;
	struct piece *piece;

	pieces->count = 0;
	for (;;) {
		struct view at = rest;

		pieces->rest = rest;
		pieces->last = type;
		if (type == 0 || pieces->count == PAYLOADS ||
		    !view_u8(&at, &following) || !view_u8(&at, &flags) ||
		    !view_u16(&at, &len) || len < GENERIC ||
		    (size_t)len > at.len + GENERIC)
			return;
		piece = &pieces->item[pieces->count++];
		piece->type = type;
		piece->flags = flags;
		piece->body = at.at;
		piece->len = len - GENERIC;
		view_skip(&rest, len);
		type = following;
	}
}

static void
join(const struct pieces *pieces, uint8_t *first, struct buf *chain)
{
	uint8_t octets[65536];
	const struct piece *piece;
	struct buf out;
	size_t i;

	buf_init(&out, octets,
	    chain->cap < sizeof(octets) ? chain->cap : sizeof(octets));
	for (i = 0; i < pieces->count; i++) {
		piece = &pieces->item[i];
		buf_u8(&out, i + 1 < pieces->count ? pieces->item[i + 1].type
		                                   : pieces->last);
		buf_u8(&out, piece->flags);
		buf_u16(&out, (uint16_t)(piece->len + GENERIC));
		buf_put(&out, piece->body, piece->len);
	}
	buf_view(&out, pieces->rest);
	if (out.full)
		return;
	*first = pieces->count > 0 ? pieces->item[0].type : pieces->last;
	memcpy(chain->at, octets, out.len);
	chain->len = out.len;
}

static void
insert(struct pieces *pieces, size_t at, struct piece piece)
{
	if (pieces->count == PAYLOADS)
		return;
	memmove(&pieces->item[at + 1], &pieces->item[at],
	    (pieces->count - at) * sizeof(piece));
	pieces->item[at] = piece;
	pieces->count++;
}

static void
insert_stashed(struct mutator *m, uint8_t version, struct pieces *pieces)
{
	size_t known = m->stashed < MUTATOR_STASH ? m->stashed : MUTATOR_STASH;
	size_t n = mutator_below(m, known);
	struct piece piece = { 0 };

	if (known == 0 ||
	    (m->stash[n].version != version && mutator_below(m, 8) != 0))
		return;
	piece.type = m->stash[n].type;
	piece.body = m->stash[n].body;
	piece.len = m->stash[n].len;
	insert(pieces, mutator_below(m, pieces->count + 1), piece);
}

/* Changes that keep the chain a chain. */
static void
change_pieces(struct mutator *m, uint8_t version, enum mutation mutation,
    struct pieces *pieces)
{
	size_t count = pieces->count, n = mutator_below(m, count), other;
	struct piece piece;

	if (mutation == MUTATE_INSERT) {
		insert_stashed(m, version, pieces);
		return;
	}
	if (count == 0)
		return;
	piece = pieces->item[n];
	switch (mutation) {
	case MUTATE_DROP:
		memmove(&pieces->item[n], &pieces->item[n + 1],
		    (count - n - 1) * sizeof(piece));
		pieces->count--;
		break;
	case MUTATE_REPEAT:
		insert(pieces, mutator_below(m, count + 1), piece);
		break;
	case MUTATE_SWAP:
		other = mutator_below(m, count);
		pieces->item[n] = pieces->item[other];
		pieces->item[other] = piece;
		break;
	case MUTATE_TYPE:
		if (mutator_below(m, 2) == 0)
			pieces->item[n].type =
			    (uint8_t)(mutator_below(m, 2) == 0
			                  ? mutator_below(m, 60)
			                  : mutator_below(m, 256));
		else
			pieces->item[n].flags ^=
			    (uint8_t)(mutator_below(m, 2) == 0
			                  ? 0x80
			                  : mutator_below(m, 256));
		break;
	default:
		pieces->item[n].len = mutator_below(m, piece.len + 1);
		break;
	}
}

/* Changes in place, to one payload. */
static void
change_inside(struct mutator *m, enum mutation mutation,
    const struct pieces *pieces, struct buf *chain)
{
	const struct piece *piece;
	size_t at;
	uint8_t *body;

	if (pieces->count == 0)
		return;
	piece = &pieces->item[mutator_below(m, pieces->count)];
	at = (size_t)(piece->body - chain->at);
	body = chain->at + at;
	if (mutation == MUTATE_LENGTH)
		set_value(m, body - 2, 2);
	else if (mutator_below(m, 2) == 0)
		flip(m, body, piece->len);
	else
		set_value(m, body, piece->len);
}

static void
grow(struct mutator *m, struct buf *chain)
{
	size_t room = chain->cap - chain->len, len;

	len = mutator_below(m, (room < 64 ? room : 64) + 1);
	while (len-- > 0)
		buf_u8(chain, (uint8_t)next(m));
}

void
mutator_learn(
    struct mutator *m, uint8_t version, uint8_t first, struct view chain)
{
	struct pieces pieces;
	size_t i, at;

	split(&pieces, first, chain);
	for (i = 0; i < pieces.count; i++) {
		if (pieces.item[i].len > MUTATOR_BODY)
			continue;
		at = m->stashed++ % MUTATOR_STASH;
		m->stash[at].type = pieces.item[i].type;
		m->stash[at].version = version;
		m->stash[at].len = (uint16_t)pieces.item[i].len;
		memcpy(
		    m->stash[at].body, pieces.item[i].body, pieces.item[i].len);
	}
}

static void
change_chain(
    struct mutator *m, uint8_t version, uint8_t *first, struct buf *chain)
{
	/* Whole payloads and what is inside them more often than noise. */
	enum mutation mutation = (enum mutation)(
	    mutator_below(m, 4) == 0
	        ? mutator_below(m, MUTATE_DROP)
	        : MUTATE_DROP + mutator_below(m, MUTATE_KINDS - MUTATE_DROP));
	struct pieces pieces;

	if (mutator_below(m, 4) == 0)
		mutation = MUTATE_INSIDE;
	m->made[mutation]++;
	switch (mutation) {
	case MUTATE_FLIP:
		flip(m, chain->at, chain->len);
		return;
	case MUTATE_VALUE:
		set_value(m, chain->at, chain->len);
		return;
	case MUTATE_CUT:
		chain->len = mutator_below(m, chain->len + 1);
		return;
	case MUTATE_GROW:
		grow(m, chain);
		return;
	default:
		break;
	}
	split(&pieces, *first, buf_done(chain));
	if (mutation == MUTATE_LENGTH || mutation == MUTATE_INSIDE) {
		change_inside(m, mutation, &pieces, chain);
		return;
	}
	change_pieces(m, version, mutation, &pieces);
	join(&pieces, first, chain);
}

void
mutator_chain(
    struct mutator *m, uint8_t version, uint8_t *first, struct buf *chain)
{
	uint64_t times = mutator_below(m, 4) == 0 ? 1 + mutator_below(m, 4) : 1;

	while (times-- > 0)
		change_chain(m, version, first, chain);
}

void
mutator_datagram(struct mutator *m, struct buf *datagram)
{
	uint8_t version;
	struct buf chain;

	if (datagram->len < WIRE_HEADER || mutator_below(m, 5) == 0) {
		/* The header too. */
		if (mutator_below(m, 4) == 0) {
			datagram->len = mutator_below(m, datagram->len + 1);
			m->made[MUTATE_CUT]++;
		} else if (mutator_below(m, 2) == 0) {
			flip(m, datagram->at, datagram->len);
			m->made[MUTATE_FLIP]++;
		} else {
			set_value(m, datagram->at,
			    datagram->len < WIRE_HEADER ? datagram->len
			                                : WIRE_HEADER);
			m->made[MUTATE_VALUE]++;
		}
		return;
	}
	version = datagram->at[MAJOR_AT] >> 4;
	buf_init(
	    &chain, datagram->at + WIRE_HEADER, datagram->cap - WIRE_HEADER);
	chain.len = datagram->len - WIRE_HEADER;
	mutator_chain(m, version, &datagram->at[NEXT_AT], &chain);
	datagram->len = WIRE_HEADER + chain.len;
	/* Mostly the header's length goes along, or nothing else is seen. */
	if (mutator_below(m, 8) != 0)
		buf_patch_u32(datagram, LENGTH_AT, (uint32_t)datagram->len);
}
