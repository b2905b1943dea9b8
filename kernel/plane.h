/*
 * plane: the userland data plane itself: SAs and policies as they are asked
 * for (kmsg), and packets between the TUN device and the wire.
 *
 * Outbound: policy, newest SA of its reqid towards its remote address, segment
 * by segment into ESP (RFC 4301 5.1); what does not fit into the path is
 * answered with an ICMP error (8.2.1). Inbound: SA by SPI, replay window, ICV,
 * then the packet inside is held against the SA's selectors (5.2).
 *
 * All belongs to one thread. Whoever runs it needs no privilege: the sockets
 * are open.
 */
#ifndef KERNEL_PLANE_H
#define KERNEL_PLANE_H

#include <stdint.h>

#include "common/log.h"
#include "kernel/kmsg.h"
#include "kernel/outer.h"

struct loop;
struct plane;

struct plane_events {
	void (*event)(void *arg, const struct kmsg_event *event);
	/* What belongs to IKE came to our socket; without the marker. */
	void (*stray)(void *arg, const struct outer_packet *packet);
	/* Somebody has removed the device: nothing comes from it any more. */
	void (*gone)(void *arg);
	void *arg;
};

/* Takes tun and the sockets over, also on failure. NULL: out of memory. */
struct plane *plane_new(struct loop *loop, struct log *log, int tun,
    const struct outer_sockets *sockets, const struct plane_events *events);
void plane_free(struct plane *plane); /* accepts NULL */

/* At once; fills *answer. KMSG_SPI is for others: answered with the SPI that
 * stands in it. */
void plane_execute(struct plane *plane, const struct kmsg *request,
    struct kmsg_answer *answer);

/* For tests: the transform of an SA that is there, or NULL. */
struct esp_sa;
struct esp_sa *
plane_esp(const struct plane *plane, const struct kmsg_sa *request);

struct plane_stats {
	uint64_t out, in;      /* packets that went through an SA */
	uint64_t no_policy;    /* outbound: nothing matches, or no SA yet */
	uint64_t unknown_spi;  /* inbound */
	uint64_t refused;      /* by ESP: replays, forgeries */
	uint64_t not_selected; /* inbound: outside the SA's selectors */
	uint64_t malformed, too_big;
	size_t sas, policies;
};
struct plane_stats plane_stats(const struct plane *plane);

#endif
