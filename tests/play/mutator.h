/*
 * mutator: changes messages the way an attacker or a broken peer would: bits,
 * lengths, types, payloads cut, dropped, repeated, swapped, or taken from
 * another message. On the wire, and, through env->impair, inside the
 * encryption, where the receiver has reason to believe what it reads.
 */
#ifndef TESTS_PLAY_MUTATOR_H
#define TESTS_PLAY_MUTATOR_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define MUTATOR_STASH 128  /* payloads kept for putting into others */
#define MUTATOR_BODY  1200 /* octets of one, at most */

enum mutation {
	MUTATE_FLIP,    /* some bits */
	MUTATE_VALUE,   /* a field of 1, 2 or 4 octets gets a telling value */
	MUTATE_CUT,     /* the end is missing */
	MUTATE_GROW,    /* random octets behind the end */
	MUTATE_DROP,    /* a payload is missing */
	MUTATE_REPEAT,  /* stands twice */
	MUTATE_SWAP,    /* stands elsewhere */
	MUTATE_INSERT,  /* one from another message */
	MUTATE_TYPE,    /* has another type, or critical bit */
	MUTATE_LENGTH,  /* says another length than it has */
	MUTATE_SHORTEN, /* has less in it */
	MUTATE_INSIDE,  /* bits and fields of one payload's body */
	MUTATE_KINDS
};

const char *mutation_text(enum mutation mutation);

struct mutator {
	uint64_t state; /* of the generator */
	uint64_t made[MUTATE_KINDS];
	size_t stashed;
	struct {
		uint8_t type, version;
		uint16_t len;
		uint8_t body[MUTATOR_BODY];
	} stash[MUTATOR_STASH];
};

void mutator_init(struct mutator *mutator, uint64_t seed);
uint64_t mutator_below(struct mutator *mutator, uint64_t bound);

/* Remembers the payloads of a chain. version: 1 or 2. */
void mutator_learn(
    struct mutator *mutator, uint8_t version, uint8_t first, struct view chain);

/* Changes a chain of payloads, once or a few times, within buf's capacity.
 * *first is the first payload's type. */
void mutator_chain(struct mutator *mutator, uint8_t version, uint8_t *first,
    struct buf *chain);
/* Changes a whole datagram: its header, or the chain in it. */
void mutator_datagram(struct mutator *mutator, struct buf *datagram);

#endif
