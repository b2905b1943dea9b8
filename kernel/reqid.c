#include "kernel/reqid.h"

#include <stdlib.h>
#include <string.h>

#include "common/policy.h"
#include "kernel/pairs.h"
#include "kernel/step.h"

#define SET_OCTETS (6 + 2 * TS_MAX * KMSG_TS_OCTETS)

/* The selectors that are tied to one number. */
struct reqid {
	struct map_node by_set, by_number;
	uint32_t number, users;
	uint16_t len;
	uint8_t octets[];
};

/* Sets ------------------------------------------------------------------ */

static int
compare(const void *left, const void *right)
{
	const struct ts *a = left, *b = right;
	int order = addr_compare(&a->first, &b->first);

	if (order == 0)
		order = addr_compare(&a->last, &b->last);
	if (order == 0)
		order = a->proto - b->proto;
	if (order == 0)
		order = a->first_port - b->first_port;
	return order != 0 ? order : a->last_port - b->last_port;
}

/* The order of selectors means nothing: a peer may give them in another one
 * when it rekeys. */
static void
put_sorted(struct buf *buf, const struct child_sa *child, bool local)
{
	struct ts_list list;
	uint8_t i;

	pairs_list(child, local, &list);
	qsort(list.item, list.count, sizeof(list.item[0]), compare);
	buf_u8(buf, list.count);
	for (i = 0; i < list.count; i++)
		kmsg_put_ts(buf, &list.item[i]);
}

static struct view
set_of(const struct child_sa *child, struct buf *buf)
{
	buf_u32(buf, child->conn->reqid);
	buf_u8(buf, child->mode);
	put_sorted(buf, child, true);
	put_sorted(buf, child, false);
	return buf_done(buf);
}

static struct reqid *
find_set(const struct install *install, struct view set, uint64_t hash)
{
	struct map_node *node;
	struct reqid *reqid;

	for (node = map_find(&install->reqid_sets, hash); node;
	     node = map_next_same(node)) {
		reqid = map_entry(node, struct reqid, by_set);
		if (view_equal(set, view_of(reqid->octets, reqid->len)))
			return reqid;
	}
	return NULL;
}

/* Numbers --------------------------------------------------------------- */

static struct reqid *
find_number(const struct install *install, uint32_t number)
{
	const struct map *map = &install->reqid_numbers;
	struct map_node *node;
	struct reqid *reqid;

	for (node = map_find(map, map_hash_u64(map, number)); node;
	     node = map_next_same(node)) {
		reqid = map_entry(node, struct reqid, by_number);
		if (reqid->number == number)
			return reqid;
	}
	return NULL;
}

/* One after the other, so that what is on its way does not meet a number that
 * was just given to somebody else. There are more numbers than children. */
static uint32_t
draw(struct install *install)
{
	do {
		if (install->last_reqid < REQID_CHILD_FIRST ||
		    install->last_reqid >= REQID_LAST)
			install->last_reqid = REQID_CHILD_FIRST - 1;
		install->last_reqid++;
	} while (find_number(install, install->last_reqid) != NULL);
	return install->last_reqid;
}

static struct reqid *
reqid_new(struct install *install, struct view set, uint64_t hash)
{
	struct reqid *reqid = calloc(1, sizeof(*reqid) + set.len);

	if (reqid == NULL)
		return NULL;
	reqid->number = draw(install);
	reqid->len = (uint16_t)set.len;
	memcpy(reqid->octets, set.at, set.len);
	map_insert(&install->reqid_sets, &reqid->by_set, hash);
	map_insert(&install->reqid_numbers, &reqid->by_number,
	    map_hash_u64(&install->reqid_numbers, reqid->number));
	return reqid;
}

static void
reqid_free(struct install *install, struct reqid *reqid)
{
	map_remove(&install->reqid_sets, &reqid->by_set);
	map_remove(&install->reqid_numbers, &reqid->by_number);
	free(reqid);
}

enum err
reqid_join(struct install *install, struct child_sa *child)
{
	uint8_t octets[SET_OCTETS];
	struct reqid *reqid;
	struct view set;
	struct buf buf;
	uint64_t hash;

	if (child->reqid != 0)
		return OK;
	buf_init(&buf, octets, sizeof(octets));
	set = set_of(child, &buf);
	hash = map_hash(&install->reqid_sets, set);
	reqid = find_set(install, set, hash);
	if (reqid == NULL)
		reqid = reqid_new(install, set, hash);
	if (reqid == NULL)
		return ERR_NOMEM;
	reqid->users++;
	child->reqid = reqid->number;
	return OK;
}

void
reqid_hold(struct install *install, uint32_t number)
{
	struct reqid *reqid = find_number(install, number);

	if (reqid)
		reqid->users++;
}

void
reqid_leave(struct install *install, uint32_t number)
{
	struct reqid *reqid = find_number(install, number);

	if (reqid && --reqid->users == 0)
		reqid_free(install, reqid);
}

/* The whole ------------------------------------------------------------- */

void
reqids_init(struct install *install, const uint64_t seed[static 2])
{
	map_init(&install->reqid_sets, seed);
	map_init(&install->reqid_numbers, seed);
}

static void
forget(struct map_node *node, void *arg)
{
	reqid_free(arg, map_entry(node, struct reqid, by_set));
}

void
reqids_forget(struct install *install)
{
	map_each(&install->reqid_sets, forget, install);
}

void
reqids_fini(struct install *install)
{
	map_fini(&install->reqid_sets);
	map_fini(&install->reqid_numbers);
}
