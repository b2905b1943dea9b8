#include "kernel/plane.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/env.h"
#include "common/loop.h"
#include "common/map.h"
#include "common/policy.h"
#include "kernel/esp.h"
#include "kernel/hold.h"
#include "kernel/inner.h"
#include "kernel/spd.h"
#include "kernel/tun.h"
#include "kernel/whole.h"

#define READS         16          /* from the device in one turn */
#define SCRATCH       (256 << 10) /* for packets that are put together */
#define MTU_DEFAULT   1500
#define MTU_MIN       576
#define MTU_FRESH_MS  5000 /* for so long we believe a path MTU */
#define MTU_MIN_V6    1280
#define ACQUIRE_MS    1000 /* between two acquires of one policy */
#define MAPPING_MS    1000
#define ICMP_A_SECOND 100

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

static uint64_t
now(const struct plane *plane)
{
	return plane->timers->now_ms;
}

/* Groups ---------------------------------------------------------------- */

static uint64_t
hash_addr(const struct map *map, uint32_t number, const struct addr *addr)
{
	uint8_t octets[4 + 17];
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	buf_u32(&buf, number);
	kmsg_put_addr(&buf, addr);
	return map_hash(map, buf_done(&buf));
}

static struct group *
group_get(struct plane *plane, uint32_t reqid, const struct addr *remote)
{
	uint64_t hash = hash_addr(&plane->groups, reqid, remote);
	struct map_node *node;
	struct group *group;

	for (node = map_find(&plane->groups, hash); node;
	     node = map_next_same(node)) {
		group = map_entry(node, struct group, node);
		if (group->reqid == reqid &&
		    addr_equal(&group->remote, remote)) {
			group->users++;
			return group;
		}
	}
	group = calloc(1, sizeof(*group));
	if (group == NULL)
		return NULL;
	group->reqid = reqid;
	group->remote = *remote;
	group->users = 1;
	group->generation = 1; /* a policy's is 0 at first */
	map_insert(&plane->groups, &group->node, hash);
	return group;
}

static void
group_put(struct plane *plane, struct group *group)
{
	if (group == NULL || --group->users > 0)
		return;
	map_remove(&plane->groups, &group->node);
	free(group);
}

static void
group_join(struct group *group, struct sa *sa)
{
	sa->group = group;
	sa->newer = NULL;
	sa->older = group->newest;
	if (sa->older)
		sa->older->newer = sa;
	group->newest = sa;
	group->generation++;
}

static void
group_leave(struct plane *plane, struct sa *sa)
{
	struct group *group = sa->group;

	if (group == NULL)
		return;
	if (sa->newer)
		sa->newer->older = sa->older;
	else
		group->newest = sa->older;
	if (sa->older)
		sa->older->newer = sa->newer;
	sa->group = NULL;
	group->generation++;
	group_put(plane, group);
}

/* SAs ------------------------------------------------------------------- */

static struct sa *
sa_in(const struct plane *plane, uint32_t spi)
{
	struct map_node *node;
	struct sa *sa;

	for (node = map_find(&plane->in, map_hash_u64(&plane->in, spi)); node;
	     node = map_next_same(node)) {
		sa = map_entry(node, struct sa, node);
		if (sa->spi == spi)
			return sa;
	}
	return NULL;
}

static struct sa *
sa_out(const struct plane *plane, uint32_t spi, const struct addr *remote)
{
	struct map_node *node;
	struct sa *sa;

	for (node = map_find(&plane->out, hash_addr(&plane->out, spi, remote));
	     node; node = map_next_same(node)) {
		sa = map_entry(node, struct sa, node);
		if (sa->spi == spi && addr_equal(&sa->dst.addr, remote))
			return sa;
	}
	return NULL;
}

static struct sa *
sa_find(const struct plane *plane, const struct kmsg_sa *request)
{
	return request->direction == KMSG_IN
	           ? sa_in(plane, request->spi)
	           : sa_out(plane, request->spi, &request->dst.addr);
}

static void
sa_insert(struct plane *plane, struct sa *sa)
{
	if (sa->direction == KMSG_IN)
		map_insert(
		    &plane->in, &sa->node, map_hash_u64(&plane->in, sa->spi));
	else
		map_insert(&plane->out, &sa->node,
		    hash_addr(&plane->out, sa->spi, &sa->dst.addr));
}

static void
sa_free(struct plane *plane, struct sa *sa)
{
	if (sa == NULL)
		return;
	/* What is queued refers to its path. */
	if (sa->direction == KMSG_OUT)
		outer_flush(plane->outer);
	map_remove(
	    sa->direction == KMSG_IN ? &plane->in : &plane->out, &sa->node);
	group_leave(plane, sa);
	timer_stop(plane->timers, &sa->hard);
	esp_free(sa->esp);
	free(sa);
	plane->stats.sas--;
}

/* RFC 4301 4.4.2.1: nothing passes an SA whose lifetime is over. */
static void
sa_expire(void *arg)
{
	struct sa *sa = arg;
	struct plane *plane = sa->plane;
	struct kmsg_event event = { .kind = KEVENT_EXPIRE, .hard = true };

	event.spi = sa->spi;
	event.remote = sa->dst;
	sa_free(plane, sa);
	plane->events.event(plane->events.arg, &event);
}

/* Once: it is time for a new SA, and the old one still serves. */
static void
sa_warn(struct plane *plane, struct sa *sa)
{
	struct kmsg_event event = { .kind = KEVENT_EXPIRE, .hard = false };

	sa->warned = true;
	event.spi = sa->spi;
	event.remote = sa->dst;
	plane->events.event(plane->events.arg, &event);
}

static void
sa_take_path(struct sa *sa, const struct kmsg_sa *request)
{
	sa->src = request->src;
	sa->dst = request->dst;
	sa->encap = request->encap;
	sa->mtu = 0;
	if (sa->direction == KMSG_OUT)
		outer_path(&sa->path, &sa->src, &sa->dst, sa->encap);
}

static enum err
sa_add(struct plane *plane, const struct kmsg_sa *request)
{
	size_t count = (size_t)request->ts_src.count + request->ts_dst.count;
	struct group *group = NULL;
	struct sa *sa;

	if (sa_find(plane, request))
		return ERR_EXISTS;
	sa = calloc(1, sizeof(*sa) + count * sizeof(sa->ts[0]));
	if (sa == NULL)
		return ERR_NOMEM;
	sa->plane = plane;
	sa->spi = request->spi;
	sa->spi_in = request->spi_in;
	sa->direction = request->direction;
	sa->mode = request->mode;
	sa->natoa_src = request->natoa_src.addr;
	sa->natoa_dst = request->natoa_dst.addr;
	sa->src_count = request->ts_src.count;
	sa->dst_count = request->ts_dst.count;
	memcpy(sa->ts, request->ts_src.item, sa->src_count * sizeof(sa->ts[0]));
	memcpy(sa->ts + sa->src_count, request->ts_dst.item,
	    sa->dst_count * sizeof(sa->ts[0]));
	sa_take_path(sa, request);
	sa->esp = esp_new(request);
	if (sa->direction == KMSG_OUT)
		group = group_get(plane, request->reqid, &request->dst.addr);
	if (sa->esp == NULL || (sa->direction == KMSG_OUT && group == NULL)) {
		group_put(plane, group);
		esp_free(sa->esp);
		free(sa);
		return ERR_CRYPTO;
	}
	timer_init(&sa->hard, sa_expire, sa);
	if (request->hard_ms > 0)
		timer_set(plane->timers, &sa->hard, request->hard_ms);
	sa_insert(plane, sa);
	plane->stats.sas++;
	if (group)
		group_join(group, sa);
	return OK;
}

static enum err
sa_move(struct plane *plane, const struct kmsg_sa *request)
{
	struct kmsg_sa old = { .spi = request->spi,
		.direction = request->direction,
		.dst = request->old_dst };
	struct sa *sa = sa_find(plane, &old);
	struct group *group;

	if (sa == NULL)
		return ERR_NOT_FOUND;
	if (sa->direction == KMSG_IN) {
		sa_take_path(sa, request);
		return OK;
	}
	group = group_get(plane, request->reqid, &request->dst.addr);
	if (group == NULL)
		return ERR_NOMEM;
	outer_flush(plane->outer);
	map_remove(&plane->out, &sa->node);
	if (group == sa->group) {
		group_put(plane, group);
	} else {
		group_leave(plane, sa);
		group_join(group, sa);
	}
	sa_take_path(sa, request);
	sa_insert(plane, sa);
	return OK;
}

static bool
sa_selects(const struct sa *sa, const struct inner *inner)
{
	return spd_packet_within(inner, sa->ts, sa->src_count,
	    sa->ts + sa->src_count, sa->dst_count);
}

/* Policies -------------------------------------------------------------- */

static struct policy_out *
policy_of(struct spd_policy *policy)
{
	return (struct policy_out *)(void *)policy;
}

/* What is there with these selectors is replaced. */
static enum err
policy_add(struct plane *plane, const struct kmsg_policy *request)
{
	struct policy_out *policy =
	    policy_of(spd_find(plane->spd, &request->src, &request->dst));
	struct group *group =
	    group_get(plane, request->reqid, &request->tunnel_dst);

	if (group == NULL)
		return ERR_NOMEM;
	if (policy == NULL) {
		policy = calloc(1, sizeof(*policy));
		if (policy == NULL) {
			group_put(plane, group);
			return ERR_NOMEM;
		}
		policy->spd.src = request->src;
		policy->spd.dst = request->dst;
		if (spd_add(plane->spd, &policy->spd) != OK) {
			group_put(plane, group);
			free(policy);
			return ERR_NOMEM;
		}
		plane->stats.policies++;
	} else {
		group_put(plane, policy->group);
	}
	policy->group = group;
	policy->reqid = request->reqid;
	policy->generation = 0;
	policy->sa = NULL;
	policy->acquired = false;
	return OK;
}

static void
policy_remove(struct plane *plane, const struct kmsg_policy *request)
{
	struct policy_out *policy =
	    policy_of(spd_find(plane->spd, &request->src, &request->dst));

	if (policy == NULL || policy->reqid != request->reqid)
		return;
	spd_remove(plane->spd, &policy->spd);
	hold_forget(plane->hold, policy);
	group_put(plane, policy->group);
	free(policy);
	plane->stats.policies--;
}

/* The newest SA that takes this packet; most often the one that took the last
 * one. */
static struct sa *
policy_sa(struct policy_out *policy, const struct inner *inner)
{
	struct group *group = policy->group;
	struct sa *sa;

	if (policy->generation == group->generation && policy->sa &&
	    sa_selects(policy->sa, inner))
		return policy->sa;
	for (sa = group->newest; sa; sa = sa->older)
		if (sa_selects(sa, inner))
			break;
	policy->sa = sa;
	policy->generation = group->generation;
	return sa;
}

/* Asks for an SA, and holds the packet until there is one. */
static void
policy_acquire(struct plane *plane, struct policy_out *policy,
    const struct inner *inner, const uint8_t *octets, size_t len)
{
	struct kmsg_event event = { .kind = KEVENT_ACQUIRE };
	struct ts *local = &event.packet[0], *remote = &event.packet[1];

	hold_keep(plane->hold, policy, octets, len, now(plane));
	if (policy->acquired && now(plane) - policy->acquire_ms < ACQUIRE_MS)
		return;
	policy->acquired = true;
	policy->acquire_ms = now(plane);
	event.reqid = policy->reqid;
	*local = ts_from_addr(&inner->src);
	*remote = ts_from_addr(&inner->dst);
	local->proto = remote->proto = inner->proto;
	if (inner->has_ports) {
		local->first_port = local->last_port = inner->src_port;
		remote->first_port = remote->last_port = inner->dst_port;
	}
	plane->events.event(plane->events.arg, &event);
}

/* Outbound -------------------------------------------------------------- */

/* Room in which a packet is put together on its way to the device; it stays
 * until the device's flush. */
static uint8_t *
scratch(struct plane *plane, size_t len)
{
	uint8_t *at;

	if (plane->scratch_used + len > SCRATCH) {
		tun_join_flush(plane->join);
		plane->scratch_used = 0;
	}
	at = plane->scratch + plane->scratch_used;
	plane->scratch_used += len;
	return at;
}

/* What inner packets may have at most, by the path's MTU and this SA's exact
 * overhead. RFC 4301 8.2. */
static size_t
sa_mtu(struct plane *plane, struct sa *sa)
{
	size_t mtu, overhead;

	if (sa->mtu > 0 && now(plane) - sa->mtu_ms < MTU_FRESH_MS)
		return sa->mtu;
	mtu = outer_mtu(plane->outer, &sa->path);
	if (mtu == 0)
		mtu = MTU_DEFAULT;
	if (mtu < MTU_MIN)
		mtu = MTU_MIN;
	if (mtu > TUN_PACKET)
		mtu = TUN_PACKET;
	overhead = outer_overhead(&sa->path);
	sa->mtu = esp_payload_max(sa->esp, mtu - overhead);
	/* Transport mode: the IP header is the outer one. */
	if (sa->mode == MODE_TRANSPORT)
		sa->mtu += sa->dst.addr.family == ADDR_V6 ? INNER_V6 : INNER_V4;
	sa->mtu_ms = now(plane);
	return sa->mtu;
}

static void
complain(struct plane *plane, const struct tun_cut *cut, size_t mtu)
{
	uint8_t *room;
	struct inner inner;
	size_t len;

	plane->stats.too_big++;
	if (now(plane) - plane->icmp_ms >= 1000) {
		plane->icmp_ms = now(plane);
		plane->icmp_left = ICMP_A_SECOND;
	}
	if (plane->icmp_left == 0)
		return;
	plane->icmp_left--;
	room = scratch(plane, INNER_ICMP_ERROR);
	len = inner_too_big(room, cut->packet, &cut->inner, mtu);
	if (len > 0 && inner_parse(&inner, room, len) == OK)
		tun_join_add(plane->join, room, &inner);
}

/* RFC 4301 8.2.1, RFC 8200 5: IPv6 packets of 1280 octets always pass; those
 * and IPv4's without DF are fragmented outside if need be. */
static bool
fits(struct plane *plane, struct sa *sa, const struct tun_cut *cut)
{
	size_t mtu = sa_mtu(plane, sa);

	if (cut->inner.version == 6 && mtu < MTU_MIN_V6)
		mtu = MTU_MIN_V6;
	if (tun_cut_max(cut) <= mtu || !cut->inner.df)
		return true;
	complain(plane, cut, mtu);
	return false;
}

/* Seals what stands at payload and queues it. */
static bool
seal(struct plane *plane, struct sa *sa, uint8_t *payload, size_t len,
    uint8_t next_header, uint8_t tos, size_t inner_len)
{
	struct view sealed;
	enum err err = esp_seal(sa->esp, payload, len, next_header, &sealed);

	if (err == ERR_LIMIT) {
		/* RFC 4303 3.3.3: the counter must not cycle. */
		sa_expire(sa);
		return false;
	}
	if (err != OK)
		return false;
	esp_used(sa->esp, inner_len, now(plane));
	outer_send(plane->outer, &sa->path, tos, sealed.len);
	plane->stats.out++;
	if (!sa->warned && esp_nears_end(sa->esp))
		sa_warn(plane, sa);
	return true;
}

static void
send_tunnel(struct plane *plane, struct sa *sa, struct tun_cut *cut)
{
	uint8_t next = cut->inner.version == 4 ? INNER_IPIP : INNER_IPV6;
	size_t len, head = esp_head_len(sa->esp);
	uint8_t *room;

	while ((len = tun_cut_next(cut)) > 0) {
		room = outer_room(plane->outer, esp_sealed_len(sa->esp, len));
		tun_cut_write(cut, room + head);
		if (!seal(
		        plane, sa, room + head, len, next, cut->inner.tos, len))
			return;
	}
}

/* The IP header stays behind: the system writes one with the same addresses.
 * RFC 4301 7: fragments do not go through transport mode, but the datagram. */
static void
send_transport(struct plane *plane, struct sa *sa, struct tun_cut *cut)
{
	bool v4 = cut->inner.version == 4;
	size_t ip = v4 ? cut->inner.transport : INNER_V6, len;
	size_t head = esp_head_len(sa->esp);
	uint8_t *room, *whole;

	if (!addr_equal(&cut->inner.dst, &sa->dst.addr)) {
		plane->stats.no_policy++;
		return;
	}
	if (cut->inner.fragment) {
		if (whole_begin(plane->whole, cut->packet, &cut->inner,
		        now(plane)) != OK)
			plane->stats.malformed++;
		return;
	}
	while ((len = tun_cut_next(cut)) > 0) {
		whole = scratch(plane, len);
		tun_cut_write(cut, whole);
		plane->scratch_used -= len;
		room =
		    outer_room(plane->outer, esp_sealed_len(sa->esp, len - ip));
		memcpy(room + head, whole + ip, len - ip);
		if (!seal(plane, sa, room + head, len - ip, cut->inner.first,
		        cut->inner.tos, len))
			return;
	}
}

static void
take_from_tun(struct plane *plane, const uint8_t *octets, size_t len)
{
	struct policy_out *policy;
	struct view datagram;
	struct tun_cut cut;
	struct sa *sa;

	if (tun_cut(&cut, octets, len) != OK) {
		plane->stats.malformed++;
		return;
	}
	if (cut.inner.fragment &&
	    whole_continue(plane->whole, cut.packet, &cut.inner, now(plane),
	        &datagram) == OK) {
		octets = datagram.at;
		len = datagram.len;
		if (len == 0 || tun_cut(&cut, octets, len) != OK)
			return;
		cut.inner.df = false; /* the system cut it before us */
	}
	policy = policy_of(spd_match(plane->spd, &cut.inner));
	if (policy == NULL) {
		plane->stats.no_policy++;
		return;
	}
	sa = policy_sa(policy, &cut.inner);
	if (sa == NULL) {
		plane->stats.no_policy++;
		policy_acquire(plane, policy, &cut.inner, octets, len);
		return;
	}
	if (!fits(plane, sa, &cut))
		return;
	if (sa->mode == MODE_TUNNEL)
		send_tunnel(plane, sa, &cut);
	else
		send_transport(plane, sa, &cut);
}

static void
flush_out(struct plane *plane)
{
	outer_flush(plane->outer);
	tun_join_flush(plane->join); /* complaints */
	plane->scratch_used = 0;
}

/* Whose policy has no SA yet has to wait on. */
static bool
take_held(void *arg, const uint8_t *octets, size_t len)
{
	struct plane *plane = arg;
	struct policy_out *policy;
	struct tun_cut cut;

	if (tun_cut(&cut, octets, len) != OK)
		return true;
	policy = policy_of(spd_match(plane->spd, &cut.inner));
	if (policy && policy_sa(policy, &cut.inner) == NULL)
		return false;
	take_from_tun(plane, octets, len);
	return true;
}

static void
tun_readable(void *arg)
{
	struct plane *plane = arg;
	ssize_t len = 0;
	unsigned i;

	for (i = 0; i < READS; i++) {
		len = read(
		    plane->tun, plane->tun_octets, TUN_HEADER + TUN_PACKET);
		if (len <= 0)
			break;
		take_from_tun(plane, plane->tun_octets, (size_t)len);
	}
	if (len < 0 && (errno == EBADFD || errno == EIO)) {
		/* It would stay readable for ever. */
		loop_watch_read(plane->tun_watch, false);
		plane->events.gone(plane->events.arg);
		return;
	}
	flush_out(plane);
}

/* Inbound --------------------------------------------------------------- */

/* RFC 3948 3: the peer's NAT gave it another address. Only after the packet
 * has been authenticated. */
static void
check_mapping(
    struct plane *plane, struct sa *sa, const struct outer_packet *packet)
{
	struct kmsg_event event = { .kind = KEVENT_MAPPING };

	if (!sa->encap || !packet->encap ||
	    endpoint_equal(&sa->src, &packet->remote))
		return;
	if (sa->mapping_ms > 0 && now(plane) - sa->mapping_ms < MAPPING_MS)
		return;
	sa->mapping_ms = now(plane);
	event.spi = sa->spi;
	event.remote = packet->remote;
	plane->events.event(plane->events.arg, &event);
}

/* An IP header in front of a transport mode payload, with the addresses as
 * they are here. */
static uint8_t *
put_header(struct plane *plane, const struct sa *sa,
    const struct outer_packet *packet, struct view payload, uint8_t proto,
    size_t *len)
{
	bool v4 = sa->dst.addr.family == ADDR_V4;
	size_t header = v4 ? INNER_V4 : INNER_V6, room = header + payload.len;
	uint8_t *octets;

	if (room > TUN_PACKET)
		return NULL;
	*len = room;
	octets = scratch(plane, room);
	memset(octets, 0, header);
	memcpy(octets + header, payload.at, payload.len);
	if (v4) {
		octets[0] = 0x45;
		octets[1] = packet->tos;
		octets[2] = (uint8_t)(room >> 8);
		octets[3] = (uint8_t)room;
		octets[6] = 0x40;
		octets[8] = 64;
		octets[9] = proto;
		memcpy(octets + 12, sa->src.addr.octets, 4);
		memcpy(octets + 16, sa->dst.addr.octets, 4);
		inner_v4_checksum(octets, INNER_V4);
	} else {
		octets[0] = (uint8_t)(0x60 | packet->tos >> 4);
		octets[1] = (uint8_t)(packet->tos << 4);
		octets[4] = (uint8_t)(payload.len >> 8);
		octets[5] = (uint8_t)payload.len;
		octets[6] = proto;
		octets[7] = 64;
		memcpy(octets + 8, sa->src.addr.octets, 16);
		memcpy(octets + 24, sa->dst.addr.octets, 16);
	}
	return octets;
}

/* Behind NAT the selectors may mean the addresses before it. */
static bool
selects_before_nat(const struct sa *sa, const struct inner *inner)
{
	struct inner before = *inner;

	if (sa->natoa_src.family == inner->src.family)
		before.src = sa->natoa_src;
	if (sa->natoa_dst.family == inner->dst.family)
		before.dst = sa->natoa_dst;
	return sa_selects(sa, &before);
}

static void
deliver_transport(struct plane *plane, struct sa *sa,
    const struct outer_packet *packet, struct view payload, uint8_t proto)
{
	struct inner inner;
	size_t len;
	uint8_t *octets = put_header(plane, sa, packet, payload, proto, &len);

	if (octets == NULL || inner_parse(&inner, octets, len) != OK) {
		plane->stats.malformed++;
		return;
	}
	if (!sa_selects(sa, &inner) && !selects_before_nat(sa, &inner)) {
		plane->stats.not_selected++;
		return;
	}
	if (sa->natoa_src.family != ADDR_NONE ||
	    sa->natoa_dst.family != ADDR_NONE)
		inner_renumber(octets, &inner,
		    sa->natoa_src.family != ADDR_NONE ? &sa->natoa_src
		                                      : &inner.src,
		    sa->natoa_dst.family != ADDR_NONE ? &sa->natoa_dst
		                                      : &inner.dst);
	tun_join_add(plane->join, octets, &inner);
}

static void
deliver_tunnel(struct plane *plane, struct sa *sa,
    const struct outer_packet *packet, struct view payload, uint8_t next)
{
	/* Within the receiver's own buffer. */
	uint8_t *octets = (uint8_t *)(uintptr_t)payload.at;
	struct inner inner;

	/* RFC 4303 2.7: what follows the packet is TFC padding. */
	if (inner_parse(&inner, octets, payload.len) != OK ||
	    next != (inner.version == 4 ? INNER_IPIP : INNER_IPV6)) {
		plane->stats.malformed++;
		return;
	}
	if (!sa_selects(sa, &inner)) {
		plane->stats.not_selected++;
		return;
	}
	if (inner_ecn(octets, &inner, packet->tos))
		tun_join_add(plane->join, octets, &inner);
}

static void
receive(void *arg, const struct outer_packet *packet)
{
	struct plane *plane = arg;
	struct view octets = view_of(packet->octets, packet->len), payload;
	uint8_t next;
	uint32_t spi;
	struct sa *sa;

	if (!view_u32(&octets, &spi))
		return;
	sa = sa_in(plane, spi);
	if (sa == NULL) {
		plane->stats.unknown_spi++;
		return;
	}
	if (esp_open(sa->esp, packet->octets, packet->len, &payload, &next) !=
	    OK) {
		plane->stats.refused++;
		return;
	}
	esp_used(sa->esp, payload.len, now(plane));
	plane->stats.in++;
	check_mapping(plane, sa, packet);
	if (next == INNER_NONE)
		return;
	if (sa->mode == MODE_TUNNEL)
		deliver_tunnel(plane, sa, packet, payload, next);
	else
		deliver_transport(plane, sa, packet, payload, next);
}

static void
settled(void *arg)
{
	struct plane *plane = arg;

	tun_join_flush(plane->join);
	plane->scratch_used = 0;
}

static void
stray(void *arg, const struct outer_packet *packet)
{
	struct plane *plane = arg;

	plane->events.stray(plane->events.arg, packet);
}

/* Requests -------------------------------------------------------------- */

void
plane_execute(
    struct plane *plane, const struct kmsg *request, struct kmsg_answer *answer)
{
	struct sa *sa;
	enum err err = OK;

	memset(answer, 0, sizeof(*answer));
	answer->sequence = request->sequence;
	answer->op = request->op;
	answer->use.idle_ms = UINT64_MAX;
	switch (request->op) {
	case KMSG_SPI:
		answer->spi = request->sa.spi;
		break;
	case KMSG_SPI_DROP:
		break;
	case KMSG_SA_ADD:
		err = sa_add(plane, &request->sa);
		if (err == OK && request->sa.direction == KMSG_OUT) {
			hold_release(plane->hold, now(plane), take_held, plane);
			flush_out(plane);
		}
		break;
	case KMSG_SA_REMOVE:
		sa_free(plane, sa_find(plane, &request->sa));
		break;
	case KMSG_SA_MOVE:
		err = sa_move(plane, &request->sa);
		break;
	case KMSG_SA_QUERY:
		sa = sa_find(plane, &request->sa);
		if (sa)
			esp_use(sa->esp, now(plane), &answer->use);
		else
			err = ERR_NOT_FOUND;
		break;
	case KMSG_POLICY_ADD:
		/* Inbound packets are held against their SA. */
		if (request->policy.direction == KMSG_OUT)
			err = policy_add(plane, &request->policy);
		break;
	case KMSG_POLICY_REMOVE:
		if (request->policy.direction == KMSG_OUT)
			policy_remove(plane, &request->policy);
		break;
	default:
		err = ERR_SYNTAX;
		break;
	}
	answer->err = (uint8_t)err;
	if (err != OK)
		snprintf(
		    answer->text, sizeof(answer->text), "%s", err_text(err));
}

struct esp_sa *
plane_esp(const struct plane *plane, const struct kmsg_sa *request)
{
	const struct sa *sa = sa_find(plane, request);

	return sa ? sa->esp : NULL;
}

struct plane_stats
plane_stats(const struct plane *plane)
{
	return plane->stats;
}

/* Beginning and end ----------------------------------------------------- */

struct plane *
plane_new(struct loop *loop, struct log *log, int tun,
    const struct outer_sockets *sockets, const struct plane_events *events)
{
	struct plane *plane = calloc(1, sizeof(*plane));
	struct outer_events outer = { receive, stray, settled, plane };
	struct outer_sockets owned = *sockets;
	uint64_t seed[2] = { 0, 0 };

	if (plane == NULL) {
		outer_close(&owned);
		close(tun);
		return NULL;
	}
	/* Without chance: slower, not wrong. */
	(void)!env_random_openssl(NULL, seed, sizeof(seed));
	plane->loop = loop;
	plane->timers = loop_timers(loop);
	plane->log = log;
	plane->tun = tun;
	plane->events = *events;
	map_init(&plane->in, seed);
	map_init(&plane->out, seed);
	map_init(&plane->groups, seed);
	plane->outer = outer_new(loop, &owned, &outer);
	plane->join = tun_join_new(tun);
	plane->spd = spd_new();
	plane->hold = hold_new();
	plane->whole = whole_new();
	plane->tun_octets = malloc(TUN_HEADER + TUN_PACKET);
	plane->scratch = malloc(SCRATCH);
	if (plane->outer && plane->join && plane->spd && plane->hold &&
	    plane->whole && plane->tun_octets && plane->scratch)
		plane->tun_watch =
		    loop_watch(loop, tun, tun_readable, NULL, plane);
	if (plane->tun_watch)
		return plane;
	plane_free(plane);
	return NULL;
}

static void
free_in_map(struct map_node *node, void *arg)
{
	sa_free(arg, map_entry(node, struct sa, node));
}

static void
free_policy(struct spd_policy *policy)
{
	free(policy);
}

static void
free_group(struct map_node *node, void *arg)
{
	(void)arg;
	free(map_entry(node, struct group, node));
}

void
plane_free(struct plane *plane)
{
	if (plane == NULL)
		return;
	loop_unwatch(plane->tun_watch);
	map_each(&plane->in, free_in_map, plane);
	map_each(&plane->out, free_in_map, plane);
	spd_free(plane->spd, free_policy);
	hold_free(plane->hold);
	whole_free(plane->whole);
	map_each(&plane->groups, free_group, NULL);
	map_fini(&plane->in);
	map_fini(&plane->out);
	map_fini(&plane->groups);
	outer_free(plane->outer);
	tun_join_free(plane->join);
	free(plane->tun_octets);
	free(plane->scratch);
	close(plane->tun);
	free(plane);
}
