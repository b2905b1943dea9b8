#include "kernel/spd.h"

#include <stdlib.h>
#include <string.h>

#include "common/env.h"

#define KEY_OCTETS 33

/* Policies whose selectors have the same prefix lengths. */
struct spd_shape {
	struct map policies; /* by both prefixes */
	uint8_t family, src_bits, dst_bits;
	struct spd_shape *next; /* the less specific ones */
};

struct spd {
	struct spd_shape *shapes;
	size_t count; /* of shapes */
	uint64_t seed[2];
};

struct spd *
spd_new(void)
{
	struct spd *spd = calloc(1, sizeof(*spd));

	/* Without chance: slower, not wrong. */
	if (spd)
		(void)!env_random_openssl(NULL, spd->seed, sizeof(spd->seed));
	return spd;
}

struct gone {
	void (*fn)(struct spd_policy *policy);
};

static void
policy_gone(struct map_node *node, void *arg)
{
	const struct gone *gone = arg;

	gone->fn(map_entry(node, struct spd_policy, node));
}

void
spd_free(struct spd *spd, void (*gone)(struct spd_policy *policy))
{
	struct gone each = { gone };
	struct spd_shape *shape;

	if (spd == NULL)
		return;
	while ((shape = spd->shapes) != NULL) {
		spd->shapes = shape->next;
		if (gone)
			map_each(&shape->policies, policy_gone, &each);
		map_fini(&shape->policies);
		free(shape);
	}
	free(spd);
}

size_t
spd_shapes(const struct spd *spd)
{
	return spd->count;
}

/* Shapes ---------------------------------------------------------------- */

/* Length of the longest prefix that both ends of the range share. */
static uint8_t
common_bits(const struct ts *ts)
{
	size_t i, len = addr_len(&ts->first);
	uint8_t bits = 0, differ;

	for (i = 0; i < len; i++, bits = (uint8_t)(bits + 8)) {
		differ = ts->first.octets[i] ^ ts->last.octets[i];
		if (differ == 0)
			continue;
		for (; !(differ & 0x80); differ = (uint8_t)(differ << 1))
			bits++;
		return bits;
	}
	return bits;
}

static size_t
put_prefix(uint8_t *key, const struct addr *addr, uint8_t bits)
{
	size_t octets = bits / 8u;

	memcpy(key, addr->octets, octets);
	if (bits % 8 == 0)
		return octets;
	key[octets] = addr->octets[octets] & (uint8_t)(0xff00u >> (bits % 8u));
	return octets + 1;
}

static uint64_t
shape_hash(const struct spd_shape *shape, const struct addr *src,
    const struct addr *dst)
{
	uint8_t key[KEY_OCTETS];
	size_t len = put_prefix(key, src, shape->src_bits);

	len += put_prefix(key + len, dst, shape->dst_bits);
	return map_hash(&shape->policies, view_of(key, len));
}

static struct spd_shape *
shape_find(const struct spd *spd, const struct ts *src, const struct ts *dst)
{
	uint8_t src_bits = common_bits(src), dst_bits = common_bits(dst);
	struct spd_shape *shape;

	for (shape = spd->shapes; shape; shape = shape->next)
		if (shape->family == src->first.family &&
		    shape->src_bits == src_bits && shape->dst_bits == dst_bits)
			break;
	return shape;
}

/* The more octets a shape fixes, the earlier it is asked; the remote side
 * decides between equals. */
static bool
is_before(const struct spd_shape *a, const struct spd_shape *b)
{
	int sum_a = a->src_bits + a->dst_bits;
	int sum_b = b->src_bits + b->dst_bits;

	return sum_a != sum_b ? sum_a > sum_b : a->dst_bits > b->dst_bits;
}

static struct spd_shape *
shape_make(struct spd *spd, const struct ts *src, const struct ts *dst)
{
	struct spd_shape *shape = calloc(1, sizeof(*shape)), **at;

	if (shape == NULL)
		return NULL;
	map_init(&shape->policies, spd->seed);
	shape->family = src->first.family;
	shape->src_bits = common_bits(src);
	shape->dst_bits = common_bits(dst);
	for (at = &spd->shapes; *at && !is_before(shape, *at);
	     at = &(*at)->next)
		;
	shape->next = *at;
	*at = shape;
	spd->count++;
	return shape;
}

/* Policies -------------------------------------------------------------- */

enum err
spd_add(struct spd *spd, struct spd_policy *policy)
{
	struct spd_shape *shape = shape_find(spd, &policy->src, &policy->dst);

	if (shape == NULL)
		shape = shape_make(spd, &policy->src, &policy->dst);
	if (shape == NULL)
		return ERR_NOMEM;
	policy->shape = shape;
	map_insert(&shape->policies, &policy->node,
	    shape_hash(shape, &policy->src.first, &policy->dst.first));
	return OK;
}

void
spd_remove(struct spd *spd, struct spd_policy *policy)
{
	struct spd_shape *shape = policy->shape, **at;

	map_remove(&shape->policies, &policy->node);
	policy->shape = NULL;
	if (shape->policies.count > 0)
		return;
	for (at = &spd->shapes; *at != shape; at = &(*at)->next)
		;
	*at = shape->next;
	map_fini(&shape->policies);
	free(shape);
	spd->count--;
}

struct spd_policy *
spd_find(const struct spd *spd, const struct ts *src, const struct ts *dst)
{
	struct spd_shape *shape = shape_find(spd, src, dst);
	struct spd_policy *policy;
	struct map_node *node;

	if (shape == NULL)
		return NULL;
	for (node = map_find(
	         &shape->policies, shape_hash(shape, &src->first, &dst->first));
	     node; node = map_next_same(node)) {
		policy = map_entry(node, struct spd_policy, node);
		if (ts_equal(&policy->src, src) && ts_equal(&policy->dst, dst))
			return policy;
	}
	return NULL;
}

/* Within a shape: a named protocol before any, fewer ports before more. */
static uint32_t
vagueness(const struct ts *ts)
{
	uint32_t ports = ts->last_port < ts->first_port
	                     ? 0
	                     : (uint32_t)(ts->last_port - ts->first_port);

	return ports + (ts->proto == 0 ? 0x10000u : 0);
}

struct spd_policy *
spd_match(const struct spd *spd, const struct inner *inner)
{
	struct spd_policy *policy, *best = NULL;
	uint32_t vague, least = UINT32_MAX;
	struct spd_shape *shape;
	struct map_node *node;

	for (shape = spd->shapes; shape && best == NULL; shape = shape->next) {
		if (shape->family != inner->src.family)
			continue;
		for (node = map_find(&shape->policies,
		         shape_hash(shape, &inner->src, &inner->dst));
		     node; node = map_next_same(node)) {
			policy = map_entry(node, struct spd_policy, node);
			if (!spd_packet_within(
			        inner, &policy->src, 1, &policy->dst, 1))
				continue;
			vague =
			    vagueness(&policy->src) + vagueness(&policy->dst);
			if (best == NULL || vague < least) {
				best = policy;
				least = vague;
			}
		}
	}
	return best;
}

/* Packets --------------------------------------------------------------- */

bool
spd_ts_matches(const struct ts *ts, const struct addr *addr, uint8_t proto,
    bool has_port, uint16_t port)
{
	if (ts->dynamic || addr->family != ts->first.family ||
	    addr_compare(addr, &ts->first) < 0 ||
	    addr_compare(addr, &ts->last) > 0)
		return false;
	if (ts->proto == 0)
		return true;
	if (ts->proto != proto)
		return false;
	if (ts->first_port == 0 && ts->last_port == UINT16_MAX)
		return true;
	if (ts->first_port > ts->last_port)
		return !has_port; /* OPAQUE */
	return has_port && port >= ts->first_port && port <= ts->last_port;
}

static bool
any_matches(const struct ts *ts, size_t count, const struct addr *addr,
    const struct inner *inner, uint16_t port)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (spd_ts_matches(
		        &ts[i], addr, inner->proto, inner->has_ports, port))
			return true;
	return false;
}

bool
spd_packet_within(const struct inner *inner, const struct ts *src,
    size_t src_count, const struct ts *dst, size_t dst_count)
{
	return any_matches(
	           src, src_count, &inner->src, inner, inner->src_port) &&
	       any_matches(dst, dst_count, &inner->dst, inner, inner->dst_port);
}
