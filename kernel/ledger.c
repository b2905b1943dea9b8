#include "kernel/ledger.h"

#include <stdlib.h>
#include <string.h>

/* Bonds ----------------------------------------------------------------- */

static struct bond *
bond_find(const struct ledger *ledger, uint32_t reqid)
{
	struct map_node *node;
	struct bond *bond;

	for (node =
	         map_find(&ledger->bonds, map_hash_u64(&ledger->bonds, reqid));
	     node; node = map_next_same(node)) {
		bond = map_entry(node, struct bond, node);
		if (bond->reqid == reqid)
			return bond;
	}
	return NULL;
}

uint32_t
bond_conn(const struct ledger *ledger, uint32_t reqid)
{
	const struct bond *bond = bond_find(ledger, reqid);

	return bond ? bond->conn : 0;
}

static bool
bond_join(struct ledger *ledger, uint32_t reqid, uint32_t conn)
{
	struct bond *bond = bond_find(ledger, reqid);

	if (bond == NULL) {
		bond = calloc(1, sizeof(*bond));
		if (bond == NULL)
			return false;
		bond->reqid = reqid;
		bond->conn = conn;
		map_insert(&ledger->bonds, &bond->node,
		    map_hash_u64(&ledger->bonds, reqid));
	}
	bond->users++;
	return true;
}

static void
bond_leave(struct ledger *ledger, uint32_t reqid)
{
	struct bond *bond = bond_find(ledger, reqid);

	if (bond == NULL || --bond->users > 0)
		return;
	map_remove(&ledger->bonds, &bond->node);
	free(bond);
}

/* Pairs ----------------------------------------------------------------- */

struct owned *
owned_find(const struct ledger *ledger, uint32_t spi_in)
{
	struct map_node *node;
	struct owned *owned;

	for (node =
	         map_find(&ledger->by_in, map_hash_u64(&ledger->by_in, spi_in));
	     node; node = map_next_same(node)) {
		owned = map_entry(node, struct owned, by_in);
		if (owned->spi_in == spi_in)
			return owned;
	}
	return NULL;
}

static uint64_t
hash_out(const struct ledger *ledger, uint32_t spi, const struct addr *remote)
{
	uint8_t octets[4 + 17];
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	buf_u32(&buf, spi);
	kmsg_put_addr(&buf, remote);
	return map_hash(&ledger->by_out, buf_done(&buf));
}

struct owned *
owned_find_out(
    const struct ledger *ledger, uint32_t spi, const struct addr *remote)
{
	struct map_node *node;
	struct owned *owned;

	for (node = map_find(&ledger->by_out, hash_out(ledger, spi, remote));
	     node; node = map_next_same(node)) {
		owned = map_entry(node, struct owned, by_out);
		if (owned->spi_out == spi && addr_equal(&owned->remote, remote))
			return owned;
	}
	return NULL;
}

void
owned_insert_out(struct ledger *ledger, struct owned *owned)
{
	map_insert(&ledger->by_out, &owned->by_out,
	    hash_out(ledger, owned->spi_out, &owned->remote));
	owned->has_out = true;
}

void
owned_remove_out(struct ledger *ledger, struct owned *owned)
{
	if (owned->has_out)
		map_remove(&ledger->by_out, &owned->by_out);
	owned->has_out = false;
}

void
owned_free(struct ledger *ledger, struct owned *owned)
{
	owned_remove_out(ledger, owned);
	if (owned->reqid != 0)
		bond_leave(ledger, owned->reqid);
	map_remove(&ledger->by_in, &owned->by_in);
	ledger->pair_count--;
	free(owned);
}

struct owned *
owned_new(struct ledger *ledger, uint32_t spi_in)
{
	struct owned *owned;

	if (owned_find(ledger, spi_in))
		return NULL;
	owned = calloc(1, sizeof(*owned));
	if (owned == NULL)
		return NULL;
	owned->spi_in = spi_in;
	owned->id = ++ledger->id;
	map_insert(&ledger->by_in, &owned->by_in,
	    map_hash_u64(&ledger->by_in, spi_in));
	ledger->pair_count++;
	return owned;
}

enum err
owned_set_reqid(struct ledger *ledger, struct owned *owned, uint32_t reqid)
{
	if (!bond_join(ledger, reqid, owned->conn))
		return ERR_NOMEM;
	owned->reqid = reqid;
	return OK;
}

void
owned_name(const struct owned *owned, struct kmsg_sa *sa)
{
	bool in = sa->direction == KMSG_IN;

	sa->spi = in ? owned->spi_in : owned->spi_out;
	sa->spi_in = owned->spi_in;
	sa->conn = owned->conn;
	sa->reqid = owned->reqid != 0 ? owned->reqid : owned->conn;
	sa->mode = owned->mode;
	sa->src.addr = in ? owned->remote : owned->local;
	sa->dst.addr = in ? owned->local : owned->remote;
}

/* Claims ---------------------------------------------------------------- */

struct view
pair_key(const struct kmsg_policy *policy, struct buf *buf)
{
	if (policy->direction == KMSG_OUT)
		kmsg_put_pair(buf, &policy->src, &policy->dst);
	else
		kmsg_put_pair(buf, &policy->dst, &policy->src);
	return buf_done(buf);
}

uint64_t
pair_hash(const struct ledger *ledger, struct view key)
{
	return map_hash(&ledger->claims, key);
}

static bool
claim_is(const struct claim *claim, struct view key)
{
	return view_equal(view_of(claim->octets, claim->pair_len), key);
}

struct claim *
claim_find(const struct ledger *ledger, struct view key, uint64_t hash,
    uint32_t reqid, bool trap)
{
	struct map_node *node;
	struct claim *claim;

	for (node = map_find(&ledger->claims, hash); node;
	     node = map_next_same(node)) {
		claim = map_entry(node, struct claim, node);
		if (claim->reqid == reqid && claim->trap == trap &&
		    claim_is(claim, key))
			return claim;
	}
	return NULL;
}

bool
claim_fits(const struct ledger *ledger, struct view key, uint64_t hash)
{
	struct map_node *node;
	unsigned count = 0;

	for (node = map_find(&ledger->claims, hash); node;
	     node = map_next_same(node))
		count += claim_is(map_entry(node, struct claim, node), key);
	return count < CLAIMS_EACH;
}

/* A trap that is set again does not take what a child has. */
static bool
is_before(const struct claim *a, const struct claim *b)
{
	return a->trap != b->trap ? b->trap : a->order > b->order;
}

struct claim *
claim_in_force(const struct ledger *ledger, struct view key, uint64_t hash,
    uint8_t direction)
{
	struct map_node *node;
	struct claim *claim, *best = NULL;

	for (node = map_find(&ledger->claims, hash); node;
	     node = map_next_same(node)) {
		claim = map_entry(node, struct claim, node);
		if ((claim->dirs & DIR_BIT(direction)) &&
		    claim_is(claim, key) &&
		    (best == NULL || is_before(claim, best)))
			best = claim;
	}
	return best;
}

static void
claim_free(struct ledger *ledger, struct claim *claim)
{
	if (!claim->trap)
		bond_leave(ledger, claim->reqid);
	map_remove(&ledger->claims, &claim->node);
	ledger->claim_count--;
	free(claim);
}

/* Makes claim, or one in its place with other tunnel addresses. */
struct claim *
claim_make(struct ledger *ledger, struct claim *old, struct view key,
    uint64_t hash, const struct kmsg_policy *policy)
{
	bool out = policy->direction == KMSG_OUT;
	uint8_t octets[KMSG_PAIR_OCTETS + 2 * 17];
	struct claim *claim;
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	buf_view(&buf, key);
	kmsg_put_addr(&buf, out ? &policy->tunnel_src : &policy->tunnel_dst);
	kmsg_put_addr(&buf, out ? &policy->tunnel_dst : &policy->tunnel_src);
	if (old && old->mode == policy->mode &&
	    view_equal(view_of(old->octets, old->len), buf_done(&buf))) {
		old->order = ++ledger->order;
		return old;
	}
	claim = calloc(1, sizeof(*claim) + buf.len);
	if (claim == NULL)
		return NULL;
	if (!policy->trap && !bond_join(ledger, policy->reqid, policy->conn)) {
		free(claim);
		return NULL;
	}
	claim->reqid = policy->reqid;
	claim->id = old ? old->id : ++ledger->id;
	claim->dirs = old ? old->dirs : 0;
	claim->sure = old ? old->sure : 0;
	claim->mode = policy->mode;
	claim->trap = policy->trap;
	claim->order = ++ledger->order;
	claim->pair_len = (uint8_t)key.len;
	claim->len = (uint8_t)buf.len;
	memcpy(claim->octets, octets, buf.len);
	map_insert(&ledger->claims, &claim->node, hash);
	ledger->claim_count++;
	if (old)
		claim_free(ledger, old);
	return claim;
}

/* The policy that a claim stands for. */
void
claim_policy(
    const struct claim *claim, uint8_t direction, struct kmsg_policy *policy)
{
	struct view octets = view_of(claim->octets, claim->len);
	bool out = direction == KMSG_OUT;

	memset(policy, 0, sizeof(*policy));
	policy->direction = direction;
	policy->mode = claim->mode;
	policy->trap = claim->trap;
	policy->reqid = claim->reqid;
	(void)kmsg_get_pair(&octets, out ? &policy->src : &policy->dst,
	    out ? &policy->dst : &policy->src);
	(void)kmsg_get_addr(
	    &octets, out ? &policy->tunnel_src : &policy->tunnel_dst);
	(void)kmsg_get_addr(
	    &octets, out ? &policy->tunnel_dst : &policy->tunnel_src);
}

struct claim *
claim_find_id(const struct ledger *ledger, uint64_t hash, uint32_t id)
{
	struct map_node *node;
	struct claim *claim;

	for (node = map_find(&ledger->claims, hash); node;
	     node = map_next_same(node)) {
		claim = map_entry(node, struct claim, node);
		if (claim->id == id)
			return claim;
	}
	return NULL;
}

void
claim_drop(struct ledger *ledger, struct claim *claim, uint8_t direction)
{
	claim->dirs &= (uint8_t)~DIR_BIT(direction);
	claim->sure &= (uint8_t)~DIR_BIT(direction);
	if (claim->dirs == 0)
		claim_free(ledger, claim);
}

/* The whole ------------------------------------------------------------- */

static void
forget_claim(struct map_node *node, void *arg)
{
	claim_free(arg, map_entry(node, struct claim, node));
}

static void
forget_owned(struct map_node *node, void *arg)
{
	owned_free(arg, map_entry(node, struct owned, by_in));
}

void
ledger_forget(struct ledger *ledger)
{
	map_each(&ledger->claims, forget_claim, ledger);
	map_each(&ledger->by_in, forget_owned, ledger);
}

void
ledger_init(struct ledger *ledger, const uint64_t seed[static 2])
{
	memset(ledger, 0, sizeof(*ledger));
	map_init(&ledger->by_in, seed);
	map_init(&ledger->by_out, seed);
	map_init(&ledger->claims, seed);
	map_init(&ledger->bonds, seed);
}

void
ledger_fini(struct ledger *ledger)
{
	ledger_forget(ledger);
	map_fini(&ledger->by_in);
	map_fini(&ledger->by_out);
	map_fini(&ledger->claims);
	map_fini(&ledger->bonds);
}
