#include "kernel/kserve.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/env.h"
#include "common/mem.h"
#include "kernel/kserve_state.h"

static void
refuse(struct kserve *kserve, const struct kmsg *request, enum err err,
    const char *format, ...) __attribute__((format(printf, 4, 5)));

static void
refuse(struct kserve *kserve, const struct kmsg *request, enum err err,
    const char *format, ...)
{
	char text[120];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	kserve->refused++;
	/* Removals may come late; everything else would be our asker's bug,
	 * or an attack from inside it. */
	if (err != ERR_NOT_FOUND)
		log_write(kserve->log, LOG_LEVEL_WARNING, "refused to %s: %s",
		    kmsg_op_text(request->op), text);
	kserve_say(kserve, request, err, text);
}

/* Requests about SAs ---------------------------------------------------- */

static void
request_spi(struct kserve *kserve, struct kmsg *request)
{
	struct kmsg_sa *sa = &request->sa;
	struct pending pending = { .op = KMSG_SPI, .direction = KMSG_IN };
	const char *why;

	if (sa->direction != KMSG_IN) {
		refuse(kserve, request, ERR_SYNTAX, "SPIs are inbound");
		return;
	}
	why = permit_sa(&kserve->permit, request, kserve->timers->now_ms);
	if (why) {
		refuse(kserve, request, ERR_REFUSED, "%s", why);
		return;
	}
	if (kserve->ledger.pair_count >= KSERVE_PAIRS_MAX) {
		refuse(kserve, request, ERR_LIMIT, "too many SAs");
		return;
	}
	sa->reqid = sa->conn; /* until the SA is added */
	pending.conn = sa->conn;
	pending.mode = sa->mode;
	pending.local = sa->dst.addr;
	pending.remote = sa->src.addr;
	kserve_execute(kserve, request, &pending);
}

/* A reqid ties SAs to policies: it must be a child's, and one connection's. */
static const char *
check_reqid(const struct kserve *kserve, uint32_t reqid, uint32_t conn)
{
	uint32_t other = bond_conn(&kserve->ledger, reqid);

	if (reqid < REQID_CHILD_FIRST || reqid > REQID_LAST)
		return "its reqid is not one of a child";
	if (other != 0 && other != conn)
		return "its reqid is another connection's";
	return NULL;
}

/* What of the pair that request speaks of is not as it must be. */
static const char *
check_add(const struct kserve *kserve, const struct owned *owned,
    const struct kmsg_sa *sa)
{
	if (owned == NULL || owned->conn != sa->conn)
		return "its inbound SPI is not ours";
	if (owned->reqid != 0 && owned->reqid != sa->reqid)
		return "its inbound SPI was made for another reqid";
	if (sa->mode != owned->mode)
		return "its inbound SPI was made for another mode";
	if (sa->direction == KMSG_IN) {
		if (owned->has_in)
			return "there is one with this SPI already";
		if (!addr_equal(&owned->local, &sa->dst.addr))
			return "its SPI was made for another address";
		return NULL;
	}
	if (sa->spi < 256)
		return "its SPI is reserved"; /* RFC 4303 2.1 */
	if (owned->has_out ||
	    owned_find_out(&kserve->ledger, sa->spi, &sa->dst.addr) != NULL)
		return "there is one with this SPI already";
	return NULL;
}

static void
request_add(struct kserve *kserve, struct kmsg *request)
{
	struct kmsg_sa *sa = &request->sa;
	bool in = sa->direction == KMSG_IN;
	struct owned *owned =
	    owned_find(&kserve->ledger, in ? sa->spi : sa->spi_in);
	struct pending pending = { .op = KMSG_SA_ADD };
	const char *why =
	    permit_sa(&kserve->permit, request, kserve->timers->now_ms);

	if (why == NULL)
		why = check_add(kserve, owned, sa);
	if (why == NULL)
		why = check_reqid(kserve, sa->reqid, sa->conn);
	if (why) {
		refuse(kserve, request, ERR_REFUSED, "%s", why);
		return;
	}
	if (owned->reqid == 0 &&
	    owned_set_reqid(&kserve->ledger, owned, sa->reqid) != OK) {
		refuse(kserve, request, ERR_NOMEM, "no memory");
		return;
	}
	if (in) {
		owned->has_in = true;
	} else {
		owned->spi_out = sa->spi;
		owned->sure_out = false;
		owned->remote = sa->dst.addr;
		owned_insert_out(&kserve->ledger, owned);
	}
	pending.direction = sa->direction;
	pending.spi_in = owned->spi_in;
	pending.id = owned->id;
	kserve_execute(kserve, request, &pending);
}

/* The pair whose SA of request's direction is there; what the back end must
 * know of it is filled in from what we know, not from what the asker says. */
static struct owned *
owned_of(struct kserve *kserve, struct kmsg *request)
{
	struct kmsg_sa *sa = &request->sa;
	bool in = sa->direction == KMSG_IN;
	uint32_t spi_in = in ? sa->spi : sa->spi_in;
	struct owned *owned = owned_find(&kserve->ledger, spi_in);

	if (owned && owned->has_out && !owned->sure_out) {
		kserve_make_sure(kserve);
		owned = owned_find(&kserve->ledger, spi_in);
	}
	if (owned && !in && (!owned->has_out || owned->spi_out != sa->spi))
		owned = NULL;
	return owned;
}

static void
request_remove(struct kserve *kserve, struct kmsg *request)
{
	struct owned *owned = owned_of(kserve, request);
	struct kmsg_sa *sa = &request->sa;
	struct pending pending = { .op = request->op };

	if (owned == NULL) {
		refuse(kserve, request, ERR_NOT_FOUND, "there is none");
		return;
	}
	if (request->op == KMSG_SPI_DROP &&
	    (sa->direction != KMSG_IN || owned->has_in)) {
		refuse(kserve, request, ERR_WRONG_STATE, "the SPI is in use");
		return;
	}
	owned_name(owned, sa);
	pending.direction = sa->direction;
	/* The inbound SPI goes with the inbound SA; an outbound SA may outlive
	 * it for as long as it takes to say so. */
	if (sa->direction == KMSG_OUT) {
		owned_remove_out(&kserve->ledger, owned);
		kserve_execute(kserve, request, &pending);
		return;
	}
	if (owned->has_out) {
		struct kmsg out = { .op = KMSG_SA_REMOVE };

		out.sa.direction = KMSG_OUT;
		owned_name(owned, &out.sa);
		kserve_execute(kserve, &out, &(struct pending){ .op = out.op });
	}
	owned_free(&kserve->ledger, owned);
	kserve_execute(kserve, request, &pending);
}

static void
request_move(struct kserve *kserve, struct kmsg *request)
{
	struct kmsg_sa *sa = &request->sa, old = { .direction = sa->direction };
	struct owned *owned = owned_of(kserve, request);
	bool in = sa->direction == KMSG_IN;
	struct pending pending = { .op = KMSG_SA_MOVE };
	const char *why;

	if (owned == NULL || (in && !owned->has_in)) {
		refuse(kserve, request, ERR_NOT_FOUND, "there is none");
		return;
	}
	sa->mode = owned->mode;
	sa->conn = owned->conn;
	sa->reqid = owned->reqid;
	why = permit_sa(&kserve->permit, request, kserve->timers->now_ms);
	if (why == NULL && !in && !addr_equal(&owned->remote, &sa->dst.addr) &&
	    owned_find_out(&kserve->ledger, sa->spi, &sa->dst.addr) != NULL)
		why = "there is one with this SPI already";
	if (why) {
		refuse(kserve, request, ERR_REFUSED, "%s", why);
		return;
	}
	owned_name(owned, &old);
	sa->spi_in = owned->spi_in;
	sa->old_src = old.src;
	sa->old_dst = old.dst;
	pending.direction = sa->direction;
	pending.spi_in = owned->spi_in;
	pending.id = owned->id;
	pending.local = owned->local;
	pending.remote = owned->remote;
	if (in) {
		owned->local = sa->dst.addr;
	} else {
		owned_remove_out(&kserve->ledger, owned);
		owned->remote = sa->dst.addr;
		owned_insert_out(&kserve->ledger, owned);
	}
	kserve_execute(kserve, request, &pending);
}

static void
request_query(struct kserve *kserve, struct kmsg *request)
{
	struct owned *owned = owned_of(kserve, request);
	struct pending pending = { .op = KMSG_SA_QUERY };

	if (owned == NULL ||
	    (request->sa.direction == KMSG_IN && !owned->has_in)) {
		refuse(kserve, request, ERR_NOT_FOUND, "there is none");
		return;
	}
	owned_name(owned, &request->sa);
	kserve_execute(kserve, request, &pending);
}

/* Requests about policies ----------------------------------------------- */

static void
request_policy_add(struct kserve *kserve, struct kmsg *request)
{
	struct kmsg_policy *policy = &request->policy;
	uint8_t octets[KMSG_PAIR_OCTETS];
	struct pending pending = { .op = KMSG_POLICY_ADD };
	struct claim *claim;
	struct view key;
	struct buf buf;
	uint64_t hash;
	const char *why =
	    permit_selectors(&kserve->permit, request, kserve->timers->now_ms);

	if (policy->trap)
		policy->reqid = policy->conn;
	else if (why == NULL)
		why = check_reqid(kserve, policy->reqid, policy->conn);
	if (why) {
		refuse(kserve, request, ERR_REFUSED, "%s", why);
		return;
	}
	if (kserve->ledger.claim_count >= KSERVE_POLICIES_MAX) {
		refuse(kserve, request, ERR_LIMIT, "too many policies");
		return;
	}
	buf_init(&buf, octets, sizeof(octets));
	key = pair_key(policy, &buf);
	hash = pair_hash(&kserve->ledger, key);
	claim = claim_in_force(&kserve->ledger, key, hash, policy->direction);
	if (claim && !(claim->sure & DIR_BIT(policy->direction))) {
		kserve_make_sure(kserve);
		claim = claim_in_force(
		    &kserve->ledger, key, hash, policy->direction);
	}
	policy->replace = claim != NULL;
	claim =
	    claim_find(&kserve->ledger, key, hash, policy->reqid, policy->trap);
	if (claim == NULL && !claim_fits(&kserve->ledger, key, hash)) {
		refuse(kserve, request, ERR_LIMIT,
		    "too many claims on these selectors");
		return;
	}
	claim = claim_make(&kserve->ledger, claim, key, hash, policy);
	if (claim == NULL) {
		refuse(kserve, request, ERR_NOMEM, "no memory");
		return;
	}
	pending.direction = policy->direction;
	pending.fresh = !(claim->dirs & DIR_BIT(policy->direction));
	pending.hash = hash;
	pending.id = claim->id;
	claim->dirs |= DIR_BIT(policy->direction);
	if (claim_in_force(&kserve->ledger, key, hash, policy->direction) !=
	    claim)
		kserve_say(kserve, request, OK, ""); /* a trap below a child */
	else
		kserve_execute(kserve, request, &pending);
}

/* One direction of a claim goes; request is the answer's, and filled in. */
void
kserve_give_up(struct kserve *kserve, struct claim *claim, struct view key,
    uint8_t direction, struct kmsg *request)
{
	struct pending pending = { .op = KMSG_POLICY_REMOVE,
		.direction = direction,
		.hash = claim->node.hash,
		.id = claim->id };
	struct kmsg_policy *policy = &request->policy;
	bool in_force = claim_in_force(&kserve->ledger, key, pending.hash,
	                    direction) == claim;
	const struct claim *next;

	claim_policy(claim, direction, policy);
	claim_drop(&kserve->ledger, claim, direction);
	if (!in_force) {
		kserve_say(kserve, request, OK, "");
		return;
	}
	/* The claim before this one is put back, if there is one. */
	next = claim_in_force(&kserve->ledger, key, pending.hash, direction);
	if (next) {
		request->op = KMSG_POLICY_ADD;
		claim_policy(next, direction, policy);
		policy->replace = true;
	}
	kserve_execute(kserve, request, &pending);
}

static void
request_policy_remove(struct kserve *kserve, struct kmsg *request)
{
	struct kmsg_policy *policy = &request->policy;
	uint8_t octets[KMSG_PAIR_OCTETS], direction = policy->direction;
	struct claim *claim;
	struct view key;
	struct buf buf;
	uint64_t hash;

	if (policy->trap)
		policy->reqid = policy->conn;
	buf_init(&buf, octets, sizeof(octets));
	key = pair_key(policy, &buf);
	hash = pair_hash(&kserve->ledger, key);
	claim =
	    claim_find(&kserve->ledger, key, hash, policy->reqid, policy->trap);
	if (claim && !(claim->sure & DIR_BIT(direction))) {
		kserve_make_sure(kserve);
		claim = claim_find(
		    &kserve->ledger, key, hash, policy->reqid, policy->trap);
	}
	if (claim == NULL || !(claim->dirs & DIR_BIT(direction))) {
		refuse(kserve, request, ERR_NOT_FOUND, "there is none");
		return;
	}
	kserve_give_up(kserve, claim, key, direction, request);
}

/* Asking ---------------------------------------------------------------- */

void
kserve_request(struct kserve *kserve, struct kmsg *request)
{
	switch (request->op) {
	case KMSG_SPI:
		request_spi(kserve, request);
		break;
	case KMSG_SPI_DROP:
	case KMSG_SA_REMOVE:
		request_remove(kserve, request);
		break;
	case KMSG_SA_ADD:
		request_add(kserve, request);
		mem_wipe(request->sa.key, sizeof(request->sa.key));
		break;
	case KMSG_SA_MOVE:
		request_move(kserve, request);
		break;
	case KMSG_SA_QUERY:
		request_query(kserve, request);
		break;
	case KMSG_POLICY_ADD:
		request_policy_add(kserve, request);
		break;
	case KMSG_POLICY_REMOVE:
		request_policy_remove(kserve, request);
		break;
	default:
		refuse(kserve, request, ERR_SYNTAX, "there is no such request");
		break;
	}
}

void
kserve_client(struct kserve *kserve, const struct kserve_client *client)
{
	if (client)
		kserve->client = *client;
	else
		memset(&kserve->client, 0, sizeof(kserve->client));
}

/* Beginning and end ----------------------------------------------------- */

struct kserve *
kserve_new(
    struct timers *timers, struct log *log, struct kserve_backend *backend)
{
	struct kserve *kserve = calloc(1, sizeof(*kserve));
	uint64_t seed[2] = { 0, 0 };

	if (kserve == NULL) {
		backend->ops->free(backend);
		return NULL;
	}
	/* Peers choose outbound SPIs. Without chance: slower, not wrong. */
	(void)!env_random_openssl(NULL, seed, sizeof(seed));
	kserve->timers = timers;
	kserve->log = log;
	kserve->backend = backend;
	backend->answer = kserve_take_answer;
	backend->event = kserve_take_event;
	backend->arg = kserve;
	permit_init(&kserve->permit, seed);
	ledger_init(&kserve->ledger, seed);
	timer_init(&kserve->cut, kserve_cut, kserve);
	timer_init(&kserve->revoke, kserve_revoke, kserve);
	return kserve;
}

void
kserve_free(struct kserve *kserve)
{
	if (kserve == NULL)
		return;
	if (kserve->ipc) {
		kserve_link_end(kserve);
	} else {
		kserve_client(kserve, NULL);
		kserve_clear(kserve);
	}
	timer_stop(kserve->timers, &kserve->revoke);
	kserve->backend->ops->free(kserve->backend);
	permit_fini(&kserve->permit);
	ledger_fini(&kserve->ledger);
	free(kserve->pending);
	free(kserve);
}

struct kserve_stats
kserve_stats(const struct kserve *kserve)
{
	return (struct kserve_stats){ kserve->ledger.pair_count,
		kserve->ledger.claim_count, kserve->executed, kserve->refused };
}
