/* Taking back: everything when the asker is gone, and what belongs to
 * connections that are. */
#include "kernel/kserve_state.h"

/* Everything ------------------------------------------------------------ */

static void
clear_claim(struct map_node *node, void *arg)
{
	struct kserve *kserve = arg;
	struct claim *claim = map_entry(node, struct claim, node);
	struct view key = view_of(claim->octets, claim->pair_len);
	struct kmsg request;
	uint8_t direction;

	for (direction = KMSG_IN; direction <= KMSG_FWD; direction++) {
		if (claim_in_force(
		        &kserve->ledger, key, node->hash, direction) != claim)
			continue;
		request.op = KMSG_POLICY_REMOVE;
		request.sequence = 0;
		claim_policy(claim, direction, &request.policy);
		kserve_execute(
		    kserve, &request, &(struct pending){ .op = request.op });
	}
}

static void
clear_owned(struct map_node *node, void *arg)
{
	struct kserve *kserve = arg;
	struct owned *owned = map_entry(node, struct owned, by_in);
	struct kmsg request = { .op = KMSG_SA_REMOVE };

	if (owned->has_out) {
		request.sa.direction = KMSG_OUT;
		owned_name(owned, &request.sa);
		kserve_execute(
		    kserve, &request, &(struct pending){ .op = request.op });
	}
	request.op = owned->has_in ? KMSG_SA_REMOVE : KMSG_SPI_DROP;
	request.sequence = 0;
	request.sa.direction = KMSG_IN;
	owned_name(owned, &request.sa);
	kserve_execute(kserve, &request, &(struct pending){ .op = request.op });
}

void
kserve_clear(struct kserve *kserve)
{
	kserve_make_sure(kserve);
	/* From here on nobody waits for what is under way. */
	kserve->generation++;
	kserve->walking = true;
	map_each(&kserve->ledger.claims, clear_claim, kserve);
	map_each(&kserve->ledger.by_in, clear_owned, kserve);
	kserve->walking = false;
	ledger_forget(&kserve->ledger);
}

/* Connections that have gone --------------------------------------------- */

static bool
is_gone(const struct kserve *kserve, uint32_t conn)
{
	return !permit_knows(&kserve->permit, conn, kserve->timers->now_ms);
}

static void
revoke_claim(struct map_node *node, void *arg)
{
	struct kserve *kserve = arg;
	struct claim *claim = map_entry(node, struct claim, node);
	uint32_t conn = claim->trap ? claim->reqid
	                            : bond_conn(&kserve->ledger, claim->reqid);
	struct kmsg request = { .op = KMSG_POLICY_REMOVE };
	uint8_t octets[KMSG_PAIR_OCTETS], direction, dirs = claim->dirs;
	struct buf buf;

	if (!is_gone(kserve, conn))
		return;
	buf_init(&buf, octets, sizeof(octets));
	buf_put(&buf, claim->octets, claim->pair_len);
	/* The claim goes with its last direction. */
	for (direction = KMSG_IN; direction <= KMSG_FWD; direction++) {
		if (!(dirs & DIR_BIT(direction)))
			continue;
		request.op = KMSG_POLICY_REMOVE;
		request.sequence = 0;
		kserve_give_up(
		    kserve, claim, buf_done(&buf), direction, &request);
	}
}

static void
revoke_owned(struct map_node *node, void *arg)
{
	struct kserve *kserve = arg;
	struct owned *owned = map_entry(node, struct owned, by_in);

	if (!is_gone(kserve, owned->conn))
		return;
	clear_owned(node, kserve);
	owned_free(&kserve->ledger, owned);
}

/* Whoever asks closes what the policy does not have any more, and has had the
 * time; if not, it has fallen, and must not keep peers in that were put out. */
void
kserve_revoke(void *arg)
{
	struct kserve *kserve = arg;
	struct ledger *ledger = &kserve->ledger;
	size_t claims, pairs;

	kserve_make_sure(kserve);
	claims = ledger->claim_count;
	pairs = ledger->pair_count;
	kserve->walking = true;
	map_each(&ledger->claims, revoke_claim, kserve);
	map_each(&ledger->by_in, revoke_owned, kserve);
	kserve->walking = false;
	claims -= ledger->claim_count;
	pairs -= ledger->pair_count;
	if (claims + pairs > 0)
		log_write(kserve->log, LOG_LEVEL_WARNING,
		    "removed what connections that have gone still had in the "
		    "data plane: %zu SA pairs, %zu policies",
		    pairs, claims);
	if (kserve->again)
		timer_set(kserve->timers, &kserve->revoke, PERMIT_GRACE_MS);
	kserve->again = false;
}

enum err
kserve_policy(struct kserve *kserve, const struct policy *policy)
{
	enum err err =
	    permit_policy(&kserve->permit, policy, kserve->timers->now_ms);

	if (err != OK)
		return err;
	/* Not put off by one reload after the other. */
	kserve->again = timer_armed(&kserve->revoke);
	if (!kserve->again)
		timer_set(kserve->timers, &kserve->revoke, PERMIT_GRACE_MS);
	return OK;
}
