#include "kernel/pairs.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/kernel.h"
#include "kernel/step.h"

#define EVERY_PAIR  (TS_MAX * TS_MAX)
#define ENDS_OCTETS 34 /* of two packed addresses */

/* One pair of selectors below one reqid, and how many children want it. */
struct pair {
	struct map_node node;
	uint64_t ends; /* hash of the outer addresses that were asked for */
	uint32_t reqid, users;
	bool mixed; /* children with other outer addresses share it */
	uint8_t len;
	uint8_t octets[];
};

/* Selectors ------------------------------------------------------------- */

/* RFC 7296 2.23.1, RFC 3947 5.2: behind a NAT the peers of a transport mode
 * SA negotiate addresses that packets do not bear here. Those that they do
 * bear are remembered: child->local and remote change before we are told. */
static struct ts
natted(const struct child_sa *child, const struct ts *ts, bool local)
{
	const struct addr *before =
	    local ? &child->natoa_local.addr : &child->natoa_remote.addr;
	const struct addr *after =
	    local ? &child->policy_local : &child->policy_remote;
	struct ts here = *ts;

	here.dynamic = false;
	if (child->mode != MODE_TRANSPORT || before->family == ADDR_NONE ||
	    !addr_equal(&ts->first, before) || !addr_equal(&ts->last, before))
		return here;
	if (after->family == ADDR_NONE)
		after = local ? &child->local.addr : &child->remote.addr;
	here.first = here.last = *after;
	return here;
}

static void
remember_ends(struct child_sa *child)
{
	child->policy_local = child->local.addr;
	child->policy_remote = child->remote.addr;
}

void
pairs_list(const struct child_sa *child, bool local, struct ts_list *list)
{
	const struct ts_list *from =
	    local ? &child->ts_local : &child->ts_remote;
	uint8_t i;

	list->count = from->count;
	for (i = 0; i < from->count && i < TS_MAX; i++)
		list->item[i] = natted(child, &from->item[i], local);
}

/* The index-th pair of child's selectors that is of one family. */
static bool
child_pair(const struct child_sa *child, unsigned index, struct ts *local,
    struct ts *remote)
{
	unsigned side = child->ts_remote.count;

	if (side == 0 || index / side >= child->ts_local.count)
		return false;
	*local = natted(child, &child->ts_local.item[index / side], true);
	*remote = natted(child, &child->ts_remote.item[index % side], false);
	return true;
}

static bool
same_family(const struct ts *a, const struct ts *b)
{
	return a->first.family == b->first.family;
}

static uint64_t
hash_ends(const struct install *install, const struct child_sa *child)
{
	uint8_t octets[ENDS_OCTETS];
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	kmsg_put_addr(&buf, &child->local.addr);
	kmsg_put_addr(&buf, &child->remote.addr);
	return map_hash(&install->pairs, buf_done(&buf));
}

static struct pair *
pair_find(struct install *install, uint32_t reqid, const struct ts *local,
    const struct ts *remote, bool create)
{
	uint8_t octets[4 + KMSG_PAIR_OCTETS];
	struct map_node *node;
	struct pair *pair;
	struct view key;
	struct buf buf;
	uint64_t hash;

	buf_init(&buf, octets, sizeof(octets));
	buf_u32(&buf, reqid);
	kmsg_put_pair(&buf, local, remote);
	key = buf_done(&buf);
	hash = map_hash(&install->pairs, key);
	for (node = map_find(&install->pairs, hash); node;
	     node = map_next_same(node)) {
		pair = map_entry(node, struct pair, node);
		if (view_equal(key, view_of(pair->octets, pair->len)))
			return pair;
	}
	if (!create)
		return NULL;
	pair = calloc(1, sizeof(*pair) + key.len);
	if (pair == NULL)
		return NULL;
	pair->reqid = reqid;
	pair->len = (uint8_t)key.len;
	memcpy(pair->octets, key.at, key.len);
	map_insert(&install->pairs, &pair->node, hash);
	return pair;
}

static void
pair_free(struct install *install, struct pair *pair)
{
	map_remove(&install->pairs, &pair->node);
	free(pair);
}

/* The requests for one pair: out, in and (tunnels) forward. */
static enum err
ask_policies(struct env *env, struct op *op, uint8_t what,
    const struct child_sa *child, const struct ts *local,
    const struct ts *remote)
{
	struct kmsg request;
	struct kmsg_policy *policy = &request.policy;
	enum err err;

	request.op = what;
	request.sequence = 0;
	memset(policy, 0, sizeof(*policy));
	policy->mode = child->mode;
	policy->conn = child->conn->reqid;
	policy->reqid = child->reqid;
	policy->direction = KMSG_OUT;
	policy->src = *local;
	policy->dst = *remote;
	policy->tunnel_src = child->local.addr;
	policy->tunnel_dst = child->remote.addr;
	err = ask(env, op, &request);
	policy->direction = KMSG_IN;
	policy->src = *remote;
	policy->dst = *local;
	policy->tunnel_src = child->remote.addr;
	policy->tunnel_dst = child->local.addr;
	if (err == OK)
		err = ask(env, op, &request);
	policy->direction = KMSG_FWD;
	if (err == OK && child->mode == MODE_TUNNEL)
		err = ask(env, op, &request);
	return err;
}

/* Another child that wants this pair, when the one whose outer addresses are
 * in force goes. Rare (two peers with the same selectors), so it may search. */
static const struct child_sa *
other_user(struct env *env, const struct child_sa *child,
    const struct ts *local, const struct ts *remote)
{
	const struct ike_sa *sa;
	const struct child_sa *other;
	struct ts l, r;
	unsigned i;

	for (sa = env->sadb->first; sa; sa = sa->next)
		for (other = sa->children; other; other = other->next) {
			if (other == child || other->reqid != child->reqid ||
			    !(other->installed & HAS_POLICIES))
				continue;
			for (i = 0; child_pair(other, i, &l, &r); i++)
				if (ts_equal(&l, local) && ts_equal(&r, remote))
					return other;
		}
	return NULL;
}

static void
drop_pair(struct env *env, const struct child_sa *child, const struct ts *local,
    const struct ts *remote)
{
	struct install *install = env->kernel->install;
	struct pair *pair;
	const struct child_sa *other;
	uint64_t ends;

	pair = pair_find(install, child->reqid, local, remote, false);
	if (pair == NULL)
		return; /* the data plane was lost in between */
	if (--pair->users == 0) {
		pair_free(install, pair);
		if (ask_policies(env, NULL, KMSG_POLICY_REMOVE, child, local,
		        remote) != OK)
			env_log(env, LOG_LEVEL_ERROR,
			    "cannot ask the data plane to remove policies");
		return;
	}
	ends = hash_ends(install, child);
	if (!pair->mixed || pair->ends != ends)
		return;
	other = other_user(env, child, local, remote);
	if (other == NULL)
		return;
	pair->ends = hash_ends(install, other);
	(void)ask_policies(env, NULL, KMSG_POLICY_ADD, other, local, remote);
}

static void
drop_policies(struct env *env, struct child_sa *child, unsigned limit)
{
	struct ts local, remote;
	unsigned i;

	for (i = 0; i < limit && child_pair(child, i, &local, &remote); i++)
		if (same_family(&local, &remote))
			drop_pair(env, child, &local, &remote);
}

enum err
pairs_add(struct env *env, struct child_sa *child, struct op *op)
{
	struct install *install = env->kernel->install;
	uint64_t ends = hash_ends(install, child);
	struct ts local, remote;
	struct pair *pair;
	unsigned i, pairs = 0;
	enum err err = OK;

	remember_ends(child);
	for (i = 0; err == OK && child_pair(child, i, &local, &remote); i++) {
		if (!same_family(&local, &remote))
			continue;
		pair = pair_find(install, child->reqid, &local, &remote, true);
		if (pair == NULL) {
			err = ERR_NOMEM;
			break;
		}
		if (pair->users++ > 0 && pair->ends != ends)
			pair->mixed = true;
		pair->ends = ends;
		pairs++;
		err = ask_policies(
		    env, op, KMSG_POLICY_ADD, child, &local, &remote);
	}
	if (err == OK && pairs == 0)
		err = ERR_TS;
	if (err != OK)
		drop_policies(env, child, i);
	return err;
}

enum err
pairs_move(struct env *env, struct child_sa *child, struct op *op)
{
	struct install *install = env->kernel->install;
	uint64_t ends = hash_ends(install, child);
	struct ts local, remote;
	struct pair *pair;
	unsigned i;
	enum err err = OK;

	/* The selectors themselves have changed. */
	if (child->mode == MODE_TRANSPORT &&
	    (!addr_equal(&child->policy_local, &child->local.addr) ||
	        !addr_equal(&child->policy_remote, &child->remote.addr))) {
		drop_policies(env, child, EVERY_PAIR);
		err = pairs_add(env, child, op);
		if (err != OK)
			child->installed &= (uint8_t)~HAS_POLICIES;
		return err;
	}
	for (i = 0; err == OK && child_pair(child, i, &local, &remote); i++) {
		if (!same_family(&local, &remote))
			continue;
		pair = pair_find(install, child->reqid, &local, &remote, false);
		if (pair == NULL || pair->ends == ends)
			continue; /* only the port has changed */
		if (pair->users > 1)
			pair->mixed = true;
		pair->ends = ends;
		err = ask_policies(
		    env, op, KMSG_POLICY_ADD, child, &local, &remote);
	}
	return err;
}

static void
free_pair(struct map_node *node, void *arg)
{
	struct install *install = arg;

	pair_free(install, map_entry(node, struct pair, node));
}

void
pairs_drop(struct env *env, struct child_sa *child)
{
	drop_policies(env, child, EVERY_PAIR);
}

void
pairs_forget(struct install *install)
{
	map_each(&install->pairs, free_pair, install);
}
