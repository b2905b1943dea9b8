/* SAs and policies of the userland data plane: see kernel/plane.h. */
#include <stdlib.h>
#include <string.h>

#include "kernel/esp.h"
#include "kernel/hold.h"
#include "kernel/plane_state.h"

#define ACQUIRE_MS 1000 /* between two acquires of one policy */

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

struct sa *
plane_sa_in(const struct plane *plane, uint32_t spi)
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

struct sa *
plane_sa_find(const struct plane *plane, const struct kmsg_sa *request)
{
	return request->direction == KMSG_IN
	           ? plane_sa_in(plane, request->spi)
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

void
plane_sa_free(struct plane *plane, struct sa *sa)
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
void
plane_sa_expire(void *arg)
{
	struct sa *sa = arg;
	struct plane *plane = sa->plane;
	struct kmsg_event event = { .kind = KEVENT_EXPIRE, .hard = true };

	event.spi = sa->spi;
	event.remote = sa->dst;
	plane_sa_free(plane, sa);
	plane->events.event(plane->events.arg, &event);
}

/* Once: it is time for a new SA, and the old one still serves. */
void
plane_sa_warn(struct plane *plane, struct sa *sa)
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

enum err
plane_sa_add(struct plane *plane, const struct kmsg_sa *request)
{
	size_t count = (size_t)request->ts_src.count + request->ts_dst.count;
	struct group *group = NULL;
	struct sa *sa;

	if (plane_sa_find(plane, request))
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
	timer_init(&sa->hard, plane_sa_expire, sa);
	if (request->hard_ms > 0)
		timer_set(plane->timers, &sa->hard, request->hard_ms);
	sa_insert(plane, sa);
	plane->stats.sas++;
	if (group)
		group_join(group, sa);
	return OK;
}

enum err
plane_sa_move(struct plane *plane, const struct kmsg_sa *request)
{
	struct kmsg_sa old = { .spi = request->spi,
		.direction = request->direction,
		.dst = request->old_dst };
	struct sa *sa = plane_sa_find(plane, &old);
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

bool
plane_sa_selects(const struct sa *sa, const struct inner *inner)
{
	return spd_packet_within(inner, sa->ts, sa->src_count,
	    sa->ts + sa->src_count, sa->dst_count);
}

/* Policies -------------------------------------------------------------- */

struct policy_out *
plane_policy_of(struct spd_policy *policy)
{
	return (struct policy_out *)(void *)policy;
}

/* What is there with these selectors is replaced. */
enum err
plane_policy_add(struct plane *plane, const struct kmsg_policy *request)
{
	struct policy_out *policy =
	    plane_policy_of(spd_find(plane->spd, &request->src, &request->dst));
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

void
plane_policy_remove(struct plane *plane, const struct kmsg_policy *request)
{
	struct policy_out *policy =
	    plane_policy_of(spd_find(plane->spd, &request->src, &request->dst));

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
struct sa *
plane_policy_sa(struct policy_out *policy, const struct inner *inner)
{
	struct group *group = policy->group;
	struct sa *sa;

	if (policy->generation == group->generation && policy->sa &&
	    plane_sa_selects(policy->sa, inner))
		return policy->sa;
	for (sa = group->newest; sa; sa = sa->older)
		if (plane_sa_selects(sa, inner))
			break;
	policy->sa = sa;
	policy->generation = group->generation;
	return sa;
}

/* Asks for an SA, and holds the packet until there is one. */
void
plane_policy_acquire(struct plane *plane, struct policy_out *policy,
    const struct inner *inner, const uint8_t *octets, size_t len)
{
	struct kmsg_event event = { .kind = KEVENT_ACQUIRE };
	struct ts *local = &event.packet[0], *remote = &event.packet[1];

	hold_keep(plane->hold, policy, octets, len, plane_now(plane));
	if (policy->acquired &&
	    plane_now(plane) - policy->acquire_ms < ACQUIRE_MS)
		return;
	policy->acquired = true;
	policy->acquire_ms = plane_now(plane);
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

/* The end --------------------------------------------------------------- */

static void
free_in_map(struct map_node *node, void *arg)
{
	plane_sa_free(arg, map_entry(node, struct sa, node));
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
plane_sa_fini(struct plane *plane)
{
	map_each(&plane->in, free_in_map, plane);
	map_each(&plane->out, free_in_map, plane);
	spd_free(plane->spd, free_policy);
	map_each(&plane->groups, free_group, NULL);
	map_fini(&plane->in);
	map_fini(&plane->out);
	map_fini(&plane->groups);
}
