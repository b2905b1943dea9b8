#include "common/rexmit.h"

#include <stdlib.h>
#include <string.h>

#include "common/env.h"
#include "common/net.h"

#define PREFIX 2 /* octets of a packet's length before it */

const struct rexmit_config rexmit_defaults = {
	.first_ms = 1000,
	.max_ms = 30000,
	.factor_percent = 160,
	.jitter_percent = 10,
	.tries = 12,
};

/* Flights ----------------------------------------------------------------- */

enum err
flight_add(struct flight *flight, struct view packet)
{
	uint8_t *octets;
	struct buf buf;
	size_t len;

	if (packet.len > UINT16_MAX || flight->count == UINT16_MAX)
		return ERR_LONG;
	len = flight->len + PREFIX + packet.len;
	if (len > UINT32_MAX)
		return ERR_LONG;
	/* Exactly what is needed: thousands of SAs keep their last answer. */
	octets = realloc(flight->octets, len);
	if (octets == NULL)
		return ERR_NOMEM;
	buf_init(&buf, octets + flight->len, PREFIX + packet.len);
	buf_u16(&buf, (uint16_t)packet.len);
	buf_view(&buf, packet);
	flight->octets = octets;
	flight->len = (uint32_t)len;
	flight->count++;
	return OK;
}

void
flight_clear(struct flight *flight)
{
	free(flight->octets);
	flight->octets = NULL;
	flight->len = 0;
	flight->count = 0;
}

static bool
next_packet(struct view *rest, struct view *packet)
{
	uint16_t len;

	return view_u16(rest, &len) && view_take(rest, len, packet);
}

void
flight_send(const struct flight *flight, struct env *env,
    const struct endpoint *local, const struct endpoint *remote, bool natt)
{
	struct view rest = view_of(flight->octets, flight->len), packet;

	while (next_packet(&rest, &packet))
		net_send(env->net, local, remote, natt, packet);
}

struct view
flight_first(const struct flight *flight)
{
	struct view rest = view_of(flight->octets, flight->len), packet;

	if (!next_packet(&rest, &packet))
		return view_of(NULL, 0);
	return packet;
}

/* Requests ---------------------------------------------------------------- */

/* How long to wait after the present try. */
static uint64_t
wait_ms(const struct rexmit *rexmit)
{
	const struct rexmit_config *config = &rexmit->config;
	uint64_t wait = config->first_ms, jitter;

	for (unsigned i = 1; i < rexmit->sent && wait < config->max_ms; i++)
		wait = wait * config->factor_percent / 100;
	if (wait > config->max_ms)
		wait = config->max_ms;
	/* Peers that lost the same link must not come back as one. */
	jitter = wait * config->jitter_percent / 100;
	return wait + env_random_u32(rexmit->env) % (jitter + 1);
}

static void
send_and_wait(struct rexmit *rexmit)
{
	rexmit->sent++;
	flight_send(&rexmit->flight, rexmit->env, &rexmit->local,
	    &rexmit->remote, rexmit->natt);
	timer_set(rexmit->env->timers, &rexmit->timer, wait_ms(rexmit));
}

static void
fire(void *arg)
{
	struct rexmit *rexmit = arg;

	if (rexmit->sent >= rexmit->config.tries) {
		/* This may free all, rexmit included. */
		rexmit->gave_up(rexmit->arg);
		return;
	}
	env_count(rexmit->env, COUNTER_RETRANSMITS);
	send_and_wait(rexmit);
}

void
rexmit_init(struct rexmit *rexmit, struct env *env,
    const struct rexmit_config *config, void (*gave_up)(void *), void *arg)
{
	memset(rexmit, 0, sizeof(*rexmit));
	rexmit->env = env;
	rexmit->config = *config;
	rexmit->gave_up = gave_up;
	rexmit->arg = arg;
	timer_init(&rexmit->timer, fire, rexmit);
}

void
rexmit_start(struct rexmit *rexmit, const struct endpoint *local,
    const struct endpoint *remote, bool natt)
{
	rexmit_move(rexmit, local, remote, natt);
	rexmit->sent = 0;
	send_and_wait(rexmit);
}

void
rexmit_move(struct rexmit *rexmit, const struct endpoint *local,
    const struct endpoint *remote, bool natt)
{
	rexmit->local = *local;
	rexmit->remote = *remote;
	rexmit->natt = natt;
}

void
rexmit_stop(struct rexmit *rexmit)
{
	/* A zeroed one was never started. */
	if (rexmit->env != NULL)
		timer_stop(rexmit->env->timers, &rexmit->timer);
}

void
rexmit_fini(struct rexmit *rexmit)
{
	rexmit_stop(rexmit);
	flight_clear(&rexmit->flight);
}
