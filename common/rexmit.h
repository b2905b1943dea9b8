/*
 * rexmit: retransmission for both versions.
 *
 * A struct rexmit keeps the packets of a request, exactly as sent, with its
 * tries and backoff; a struct flight alone keeps a last response for repeats.
 * RFC 7296 2.1, 2.4; RFC 2408 5.1. Defaults: first repeat after 1 s, factor
 * 1.6 up to 30 s, 12 tries in all, the last of them some two and a half minutes
 * after the first and the end half a minute later, with up to 10 % jitter: six
 * tries would lose one handshake in thirty at 30 % loss.
 */
#ifndef COMMON_REXMIT_H
#define COMMON_REXMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/buf.h"

#include "common/err.h"
#include "common/timer.h"

struct env;

struct rexmit_config {
	uint32_t first_ms, max_ms;
	uint16_t factor_percent, jitter_percent;
	uint8_t tries;
};
extern const struct rexmit_config rexmit_defaults;

/* Packets kept as one allocation: length-prefixed, in order. */
struct flight {
	uint8_t *octets;
	uint32_t len; /* octets in use */
	uint16_t count;
};

/* ERR_LONG for a packet above 65535 octets; on errors nothing has changed. */
enum err flight_add(struct flight *flight, struct view packet);
void flight_clear(struct flight *flight);
/* Sends all of it. */
void flight_send(const struct flight *flight, struct env *env,
    const struct endpoint *local, const struct endpoint *remote, bool natt);
/* The first packet; empty if none. */
struct view flight_first(const struct flight *flight);

struct rexmit {
	struct env *env;
	struct timer timer;
	struct flight flight;
	struct endpoint local, remote;
	bool natt;
	uint8_t sent; /* times sent */
	struct rexmit_config config;
	void (*gave_up)(void *arg); /* after the last wait; may free all */
	void *arg;
};

void rexmit_init(struct rexmit *rexmit, struct env *env,
    const struct rexmit_config *config, void (*gave_up)(void *), void *arg);
/* Sends flight (filled by flight_add) now and until stopped. */
void rexmit_start(struct rexmit *rexmit, const struct endpoint *local,
    const struct endpoint *remote, bool natt);
/* Follows a change of address from now on. */
void rexmit_move(struct rexmit *rexmit, const struct endpoint *local,
    const struct endpoint *remote, bool natt);
/* An answer came: no more repeats; the packets stay until cleared. */
void rexmit_stop(struct rexmit *rexmit);
/* Also of a zeroed one. */
void rexmit_fini(struct rexmit *rexmit);

#endif
