/*
 * limit: budgets against floods, shared by both engines: half-open SAs,
 * cookies, rates of unauthenticated answers. RFC 7296 2.6; RFC 8019 4 for the
 * anchors.
 */
#ifndef COMMON_LIMIT_H
#define COMMON_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/buf.h"

#include "common/err.h"

#define LIMIT_COOKIE_LEN 28 /* version 4, HMAC-SHA-256 cut to 24 */
/* Octets of a first message that may make an SA, which keeps much of it: the
 * budget counts SAs. Dozens of proposals and a large public value fit twice. */
#define LIMIT_FIRST_MAX 8192

struct env;
struct limit;

struct limit_config {
	unsigned cookie_half_open; /* cookies from so many half-open SAs: 64 */
	unsigned cookie_per_peer;  /* ... or so many from one address: 8 */
	unsigned cookie_queue;     /* ... or so many jobs queued: 512 */
	unsigned half_open_max;    /* no new SA beyond: 8192; see below */
	unsigned per_prefix_max;   /* LIMIT_V1, from one /24 or /64: 64 */
	unsigned answer_ms;        /* v1: before a newcomer may take the place:
	                            * 500, or up to twice that */
	unsigned half_open_ms;     /* lifetime of a half-open SA: 30000 */
	unsigned secret_ms;        /* cookie secret rotates: 120000 */
	unsigned answers_burst;    /* unauthenticated answers per /24, /64 */
	unsigned answers_per_s;
};
extern const struct limit_config limit_defaults;

struct limit *limit_new(struct env *env, const struct limit_config *config);
void limit_free(struct limit *limit);
const struct limit_config *limit_config(const struct limit *limit);

/* Whose half-open SA: IKEv2 asks for cookies under load. IKEv1 cannot: whoever
 * forges his address gets state. So IKEv1 has no more than half of the budget;
 * a quarter of that is for addresses that connections name, where nobody else
 * gets in, IKEv2 included; and a newcomer takes the place of the oldest that
 * has not shown yet that it receives at its address. That one had time to
 * answer: a peer that is refused asks again, one that is forgotten in the
 * middle of Main Mode does not. */
enum limit_class {
	LIMIT_V2,
	LIMIT_V1,       /* from anywhere */
	LIMIT_V1_NAMED, /* from an address that a connection names */
	LIMIT_CLASSES
};

/* A half-open SA in the budget: embedded in it, zeroed at first. */
struct limit_entry {
	struct addr addr;
	uint8_t class; /* enum limit_class */
	bool counted;
	bool shown;
	uint64_t since_ms;
	/* Until shown, among its class and its prefix: limit's own. */
	struct limit_entry *next[2], *prev[2];
};

/* Is there room for one more? ERR_LIMIT: no. OK, and *victim is not NULL: when
 * the SA of that entry has been ended (which drops it). */
enum err limit_half_open_room(struct limit *limit, const struct addr *remote,
    enum limit_class class, struct limit_entry **victim);
/* Counted from creation of a half-open SA to its establishment or end.
 * ERR_LIMIT without room, ERR_NOMEM. */
enum err limit_half_open_add(struct limit *limit, struct limit_entry *entry,
    const struct addr *remote, enum limit_class class);
/* It receives at its address, and will not be a victim any more. */
void limit_half_open_shown(struct limit *limit, struct limit_entry *entry);
/* Nothing happens to one that is not counted. */
void limit_half_open_drop(struct limit *limit, struct limit_entry *entry);
unsigned limit_half_open(const struct limit *limit);

/* Should an IKE_SA_INIT request without a cookie be answered by one? */
bool limit_want_cookie(struct limit *limit, const struct addr *remote);
/* Cookie over secret, peer's endpoint, SPIi and Ni, stateless. */
enum err limit_cookie(struct limit *limit, const struct endpoint *remote,
    uint64_t spi_i, struct view nonce, uint8_t cookie[LIMIT_COOKIE_LEN]);
/* This secret's or the previous one's. Constant time. */
bool limit_cookie_valid(struct limit *limit, const struct endpoint *remote,
    uint64_t spi_i, struct view nonce, struct view cookie);

/* May one more unauthenticated answer go to this prefix now? */
bool limit_answer(struct limit *limit, const struct addr *remote);
/* May one more line about unauthenticated junk be logged now? */
bool limit_log(struct limit *limit);

#endif
