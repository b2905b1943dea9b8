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

struct env;
struct limit;

struct limit_config {
	unsigned cookie_half_open; /* cookies from so many half-open SAs: 64 */
	unsigned cookie_per_peer;  /* ... or so many from one address: 8 */
	unsigned cookie_queue;     /* ... or so many jobs queued: 512 */
	unsigned half_open_max;    /* no new SA beyond: 8192; v1: half of it */
	unsigned per_prefix_max;   /* v1, from one /24 or /64: 64 */
	unsigned half_open_ms;     /* lifetime of a half-open SA: 30000 */
	unsigned secret_ms;        /* cookie secret rotates: 120000 */
	unsigned answers_burst;    /* unauthenticated answers per /24, /64 */
	unsigned answers_per_s;
};
extern const struct limit_config limit_defaults;

struct limit *limit_new(struct env *env, const struct limit_config *config);
void limit_free(struct limit *limit);
const struct limit_config *limit_config(const struct limit *limit);

/* Counted from creation of a half-open SA to its establishment or end.
 * limit_half_open_add: ERR_LIMIT when the global budget is used up, or, for
 * IKEv1 (which has no cookies), the prefix's; ERR_NOMEM. Only what was added
 * may be dropped. */
enum err limit_half_open_add(
    struct limit *limit, const struct addr *remote, unsigned version);
void limit_half_open_drop(struct limit *limit, const struct addr *remote);
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
