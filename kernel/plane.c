#include "kernel/plane.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/env.h"
#include "common/loop.h"
#include "common/policy.h"
#include "kernel/esp.h"
#include "kernel/hold.h"
#include "kernel/inner.h"
#include "kernel/plane_state.h"
#include "kernel/spd.h"
#include "kernel/tun.h"
#include "kernel/whole.h"

#define READS         16          /* from the device in one turn */
#define SCRATCH       (256 << 10) /* for packets that are put together */
#define MTU_DEFAULT   1500
#define MTU_MIN       576
#define MTU_FRESH_MS  5000 /* for so long we believe a path MTU */
#define MTU_MIN_V6    1280
#define MAPPING_MS    1000
#define ICMP_A_SECOND 100

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

	if (sa->mtu > 0 && plane_now(plane) - sa->mtu_ms < MTU_FRESH_MS)
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
	sa->mtu_ms = plane_now(plane);
	return sa->mtu;
}

static void
complain(struct plane *plane, const struct tun_cut *cut, size_t mtu)
{
	uint8_t *room;
	struct inner inner;
	size_t len;

	plane->stats.too_big++;
	if (plane_now(plane) - plane->icmp_ms >= 1000) {
		plane->icmp_ms = plane_now(plane);
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
		plane_sa_expire(sa);
		return false;
	}
	if (err != OK)
		return false;
	esp_used(sa->esp, inner_len, plane_now(plane));
	outer_send(plane->outer, &sa->path, tos, sealed.len);
	plane->stats.out++;
	if (!sa->warned && esp_nears_end(sa->esp))
		plane_sa_warn(plane, sa);
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
		        plane_now(plane)) != OK)
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
	    whole_continue(plane->whole, cut.packet, &cut.inner,
	        plane_now(plane), &datagram) == OK) {
		octets = datagram.at;
		len = datagram.len;
		if (len == 0 || tun_cut(&cut, octets, len) != OK)
			return;
		cut.inner.df = false; /* the system cut it before us */
	}
	policy = plane_policy_of(spd_match(plane->spd, &cut.inner));
	if (policy == NULL) {
		plane->stats.no_policy++;
		return;
	}
	sa = plane_policy_sa(policy, &cut.inner);
	if (sa == NULL) {
		plane->stats.no_policy++;
		plane_policy_acquire(plane, policy, &cut.inner, octets, len);
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
	policy = plane_policy_of(spd_match(plane->spd, &cut.inner));
	if (policy && plane_policy_sa(policy, &cut.inner) == NULL)
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
	if (sa->mapping_ms > 0 &&
	    plane_now(plane) - sa->mapping_ms < MAPPING_MS)
		return;
	sa->mapping_ms = plane_now(plane);
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
	return plane_sa_selects(sa, &before);
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
	if (!plane_sa_selects(sa, &inner) && !selects_before_nat(sa, &inner)) {
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
	if (!plane_sa_selects(sa, &inner)) {
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
	sa = plane_sa_in(plane, spi);
	if (sa == NULL) {
		plane->stats.unknown_spi++;
		return;
	}
	if (esp_open(sa->esp, packet->octets, packet->len, &payload, &next) !=
	    OK) {
		plane->stats.refused++;
		return;
	}
	esp_used(sa->esp, payload.len, plane_now(plane));
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
		err = plane_sa_add(plane, &request->sa);
		if (err == OK && request->sa.direction == KMSG_OUT) {
			hold_release(
			    plane->hold, plane_now(plane), take_held, plane);
			flush_out(plane);
		}
		break;
	case KMSG_SA_REMOVE:
		plane_sa_free(plane, plane_sa_find(plane, &request->sa));
		break;
	case KMSG_SA_MOVE:
		err = plane_sa_move(plane, &request->sa);
		break;
	case KMSG_SA_QUERY:
		sa = plane_sa_find(plane, &request->sa);
		if (sa)
			esp_use(sa->esp, plane_now(plane), &answer->use);
		else
			err = ERR_NOT_FOUND;
		break;
	case KMSG_POLICY_ADD:
		/* Inbound packets are held against their SA. */
		if (request->policy.direction == KMSG_OUT)
			err = plane_policy_add(plane, &request->policy);
		break;
	case KMSG_POLICY_REMOVE:
		if (request->policy.direction == KMSG_OUT)
			plane_policy_remove(plane, &request->policy);
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
	const struct sa *sa = plane_sa_find(plane, request);

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

void
plane_free(struct plane *plane)
{
	if (plane == NULL)
		return;
	loop_unwatch(plane->tun_watch);
	plane_sa_fini(plane);
	hold_free(plane->hold);
	whole_free(plane->whole);
	outer_free(plane->outer);
	tun_join_free(plane->join);
	free(plane->tun_octets);
	free(plane->scratch);
	close(plane->tun);
	free(plane);
}
