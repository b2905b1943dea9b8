/*
 * plane_state: what the parts of the userland data plane share, and nobody else:
 * its SAs and policies (plane_sa.c), and the packets that go through them
 * (plane.c).
 */
#ifndef KERNEL_PLANE_STATE_H
#define KERNEL_PLANE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/map.h"
#include "common/timer.h"
#include "common/ts.h"
#include "kernel/inner.h"
#include "kernel/kmsg.h"
#include "kernel/outer.h"
#include "kernel/plane.h"
#include "kernel/spd.h"

/* SAs and policies meet here: outbound SAs of one reqid to one peer. */
struct group {
	struct map_node node;
	uint32_t reqid;
	struct addr remote;
	struct sa *newest;   /* outbound SAs, by age */
	uint32_t generation; /* counts changes of that list */
	uint32_t users;      /* SAs and policies */
};

struct sa {
	struct map_node node; /* by SPI */
	struct plane *plane;
	struct esp_sa *esp;
	struct outer_path path; /* outbound */
	struct group *group;    /* outbound */
	struct sa *older, *newer;
	struct timer hard;
	struct endpoint src, dst;
	struct addr natoa_src, natoa_dst;
	uint32_t spi, spi_in;
	uint8_t direction, mode;
	bool encap;
	bool warned; /* that its sequence numbers come to an end */
	size_t mtu;  /* of inner packets, for the path MTU below */
	uint64_t mtu_ms, mapping_ms;
	uint8_t src_count, dst_count;
	struct ts ts[]; /* src_count, then dst_count */
};

struct policy_out {
	struct spd_policy spd;
	struct group *group;
	uint32_t reqid, generation;
	struct sa *sa; /* that served last, while generation is the group's */
	uint64_t acquire_ms;
	bool acquired;
};

struct plane {
	struct loop *loop;
	struct timers *timers;
	struct log *log;
	int tun;
	struct loop_watch *tun_watch;
	struct plane_events events;
	struct outer *outer;
	struct tun_join *join;
	struct spd *spd;
	struct hold *hold;
	struct whole *whole;
	struct map in, out, groups;
	uint8_t *tun_octets; /* one packet of the device */
	uint8_t *scratch;
	size_t scratch_used;
	uint64_t icmp_ms;
	unsigned icmp_left;
	struct plane_stats stats;
};

static inline uint64_t
plane_now(const struct plane *plane)
{
	return plane->timers->now_ms;
}

/* SAs. Requests have been checked by kserve. */

/* By inbound SPI, or NULL. */
struct sa *plane_sa_in(const struct plane *plane, uint32_t spi);
/* The one that a request names, or NULL. */
struct sa *
plane_sa_find(const struct plane *plane, const struct kmsg_sa *request);
/* ERR_EXISTS, ERR_NOMEM, ERR_CRYPTO. */
enum err plane_sa_add(struct plane *plane, const struct kmsg_sa *request);
/* ERR_NOT_FOUND, ERR_NOMEM. */
enum err plane_sa_move(struct plane *plane, const struct kmsg_sa *request);
void plane_sa_free(struct plane *plane, struct sa *sa); /* accepts NULL */
/* Its life is over: says so and frees it. arg: struct sa. */
void plane_sa_expire(void *arg);
/* Once: it is time for a new SA, and the old one still serves. */
void plane_sa_warn(struct plane *plane, struct sa *sa);
/* RFC 4301 5.2: is the packet one that this SA is for? */
bool plane_sa_selects(const struct sa *sa, const struct inner *inner);

/* Outbound policies. */

struct policy_out *plane_policy_of(struct spd_policy *policy);
/* What is there with these selectors is replaced. ERR_NOMEM. */
enum err
plane_policy_add(struct plane *plane, const struct kmsg_policy *request);
void
plane_policy_remove(struct plane *plane, const struct kmsg_policy *request);
/* The newest SA that takes this packet, or NULL. */
struct sa *
plane_policy_sa(struct policy_out *policy, const struct inner *inner);
/* Asks for an SA, and holds the packet (len octets, as it came from the device)
 * until there is one. */
void plane_policy_acquire(struct plane *plane, struct policy_out *policy,
    const struct inner *inner, const uint8_t *octets, size_t len);
/* All are freed. */
void plane_sa_fini(struct plane *plane);

#endif
