#include "kernel/kserve.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/env.h"
#include "common/ipc.h"
#include "common/loop.h"
#include "common/mem.h"
#include "kernel/ledger.h"
#include "kernel/permit.h"

#define FIRST_PENDING 64
#define SPI_DRAWS     3 /* again, when one is in use */

/* What the back end has not answered yet. */
struct pending {
	uint64_t sequence; /* the asker's; 0: it wants none */
	uint64_t hash;     /* of the claim */
	uint32_t generation, id, spi, spi_in, conn;
	uint8_t op, direction, mode;
	uint8_t draws;             /* KMSG_SPI: so many were in use */
	bool fresh;                /* a claim's direction that was not there */
	struct addr local, remote; /* of a new pair; or before a move */
};

struct kserve {
	struct timers *timers;
	struct log *log;
	struct kserve_backend *backend;
	struct kserve_client client;
	struct permit permit;
	struct ledger ledger;
	struct pending *pending; /* a ring, in the back end's order */
	size_t pending_size;
	uint64_t pending_first, pending_next;
	uint32_t generation; /* of askers */
	struct ipc *ipc;
	struct timer cut;    /* ends a link that does not take its answers */
	struct timer revoke; /* after a time of grace; again: and once more */
	bool again;
	uint64_t executed, refused;
};

static void execute(
    struct kserve *kserve, struct kmsg *request, const struct pending *pending);

/* Answers --------------------------------------------------------------- */

static void
answer_client(struct kserve *kserve, const struct kmsg_answer *answer)
{
	if (answer->sequence != 0 && kserve->client.answer)
		kserve->client.answer(kserve->client.arg, answer);
}

static void
say(struct kserve *kserve, const struct kmsg *request, enum err err,
    const char *text)
{
	struct kmsg_answer answer;

	memset(&answer, 0, sizeof(answer));
	answer.sequence = request->sequence;
	answer.op = request->op;
	answer.err = (uint8_t)err;
	if (request->op != KMSG_POLICY_ADD && request->op != KMSG_POLICY_REMOVE)
		answer.spi = request->sa.spi;
	snprintf(answer.text, sizeof(answer.text), "%s", text);
	answer_client(kserve, &answer);
}

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
	say(kserve, request, err, text);
}

/* Before what was asked for a moment ago is removed, moved or replaced, it must
 * be known to be there: the back end may have found a stranger's in its place,
 * which would be hit instead. */
static void
make_sure(struct kserve *kserve)
{
	if (kserve->backend->ops->settle)
		kserve->backend->ops->settle(kserve->backend);
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
	execute(kserve, request, &pending);
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
	execute(kserve, request, &pending);
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
		make_sure(kserve);
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
		execute(kserve, request, &pending);
		return;
	}
	if (owned->has_out) {
		struct kmsg out = { .op = KMSG_SA_REMOVE };

		out.sa.direction = KMSG_OUT;
		owned_name(owned, &out.sa);
		execute(kserve, &out, &(struct pending){ .op = out.op });
	}
	owned_free(&kserve->ledger, owned);
	execute(kserve, request, &pending);
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
	execute(kserve, request, &pending);
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
	execute(kserve, request, &pending);
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
		make_sure(kserve);
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
		say(kserve, request, OK, ""); /* a trap below a child */
	else
		execute(kserve, request, &pending);
}

/* One direction of a claim goes; request is the answer's, and filled in. */
static void
give_up(struct kserve *kserve, struct claim *claim, struct view key,
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
		say(kserve, request, OK, "");
		return;
	}
	/* The claim before this one is put back, if there is one. */
	next = claim_in_force(&kserve->ledger, key, pending.hash, direction);
	if (next) {
		request->op = KMSG_POLICY_ADD;
		claim_policy(next, direction, policy);
		policy->replace = true;
	}
	execute(kserve, request, &pending);
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
		make_sure(kserve);
		claim = claim_find(
		    &kserve->ledger, key, hash, policy->reqid, policy->trap);
	}
	if (claim == NULL || !(claim->dirs & DIR_BIT(direction))) {
		refuse(kserve, request, ERR_NOT_FOUND, "there is none");
		return;
	}
	give_up(kserve, claim, key, direction, request);
}

/* The back end ---------------------------------------------------------- */

static struct pending *
pending_slot(const struct kserve *kserve, uint64_t at)
{
	return &kserve->pending[at & (kserve->pending_size - 1)];
}

static bool
pending_grow(struct kserve *kserve)
{
	size_t size =
	    kserve->pending_size ? 2 * kserve->pending_size : FIRST_PENDING;
	struct pending *ring = calloc(size, sizeof(*ring));
	uint64_t at;

	if (ring == NULL)
		return false;
	for (at = kserve->pending_first; at < kserve->pending_next; at++)
		ring[at & (size - 1)] = *pending_slot(kserve, at);
	free(kserve->pending);
	kserve->pending = ring;
	kserve->pending_size = size;
	return true;
}

static void settle(struct kserve *kserve, const struct pending *pending,
    struct kmsg_answer *answer);

static void
execute(
    struct kserve *kserve, struct kmsg *request, const struct pending *pending)
{
	struct pending *slot;

	if (kserve->pending_next - kserve->pending_first ==
	        kserve->pending_size &&
	    !pending_grow(kserve)) {
		/* Never reaches the back end: as if that had refused. */
		struct kmsg_answer answer = { .sequence = request->sequence,
			.op = pending->op,
			.err = ERR_NOMEM };
		settle(kserve, pending, &answer);
		return;
	}
	slot = pending_slot(kserve, kserve->pending_next);
	*slot = *pending;
	slot->sequence = request->sequence;
	slot->generation = kserve->generation;
	if (request->op != KMSG_POLICY_ADD && request->op != KMSG_POLICY_REMOVE)
		slot->spi = request->sa.spi;
	request->sequence = ++kserve->pending_next;
	kserve->executed++;
	kserve->backend->ops->execute(kserve->backend, request);
}

/* Is there a later request about the same direction of the same claim? */
static bool
is_superseded(const struct kserve *kserve, const struct pending *of)
{
	const struct pending *later;
	uint64_t at;

	for (at = kserve->pending_first; at < kserve->pending_next; at++) {
		later = pending_slot(kserve, at);
		if ((later->op == KMSG_POLICY_ADD ||
		        later->op == KMSG_POLICY_REMOVE) &&
		    later->id == of->id && later->direction == of->direction)
			return true;
	}
	return false;
}

static void
unclaim(struct kserve *kserve, const struct pending *pending)
{
	struct claim *claim;

	if (!pending->fresh || is_superseded(kserve, pending))
		return;
	claim = claim_find_id(&kserve->ledger, pending->hash, pending->id);
	if (claim)
		claim_drop(&kserve->ledger, claim, pending->direction);
}

/* The back end said no: what was noted in advance is taken back. */
static void
undo(struct kserve *kserve, const struct pending *pending)
{
	struct owned *owned;

	if (pending->op == KMSG_POLICY_ADD) {
		unclaim(kserve, pending);
		return;
	}
	if (pending->op != KMSG_SA_ADD && pending->op != KMSG_SA_MOVE)
		return;
	owned = owned_find(&kserve->ledger, pending->spi_in);
	if (owned == NULL || owned->id != pending->id)
		return;
	if (pending->op == KMSG_SA_ADD) {
		if (pending->direction == KMSG_IN)
			owned->has_in = false;
		else
			owned_remove_out(&kserve->ledger, owned);
	} else if (pending->direction == KMSG_IN) {
		owned->local = pending->local;
	} else if (owned->has_out) {
		owned_remove_out(&kserve->ledger, owned);
		owned->remote = pending->remote;
		owned_insert_out(&kserve->ledger, owned);
	}
}

/* The back end said yes. */
static void
note_sure(struct kserve *kserve, const struct pending *pending)
{
	struct owned *owned;
	struct claim *claim;

	if (pending->op == KMSG_SA_ADD && pending->direction == KMSG_OUT) {
		owned = owned_find(&kserve->ledger, pending->spi_in);
		if (owned && owned->id == pending->id &&
		    owned->spi_out == pending->spi)
			owned->sure_out = owned->has_out;
	} else if (pending->op == KMSG_POLICY_ADD) {
		claim =
		    claim_find_id(&kserve->ledger, pending->hash, pending->id);
		if (claim)
			claim->sure |= (uint8_t)(claim->dirs &
			                         DIR_BIT(pending->direction));
	}
}

/* The request that pending stands for, or the one that takes it back. */
static void
spi_again(const struct pending *pending, uint8_t op, uint32_t spi,
    struct kmsg *request)
{
	memset(request, 0, sizeof(*request));
	request->op = op;
	request->sa.direction = KMSG_IN;
	request->sa.mode = pending->mode;
	request->sa.conn = request->sa.reqid = pending->conn;
	request->sa.spi = request->sa.spi_in = spi;
	request->sa.src.addr = pending->remote;
	request->sa.dst.addr = pending->local;
}

/* An SPI was drawn: from now on it is owned, or given back at once. Gate knows
 * its children by SPI alone, so one that is in use, even at another address of
 * ours, is drawn again. False: there is no answer yet. */
static bool
adopt_spi(struct kserve *kserve, const struct pending *pending,
    struct kmsg_answer *answer)
{
	struct owned *owned = owned_find(&kserve->ledger, answer->spi);
	bool same = owned && addr_equal(&owned->local, &pending->local);
	bool current = pending->generation == kserve->generation;
	struct pending again = *pending;
	struct kmsg request;

	if (current && owned == NULL &&
	    (owned = owned_new(&kserve->ledger, answer->spi)) != NULL) {
		owned->conn = pending->conn;
		owned->mode = pending->mode;
		owned->local = pending->local;
		owned->remote = pending->remote;
		return true;
	}
	if (!same) {
		spi_again(pending, KMSG_SPI_DROP, answer->spi, &request);
		execute(
		    kserve, &request, &(struct pending){ .op = request.op });
	}
	answer->err = ERR_NOMEM;
	answer->spi = 0;
	if (!current || owned == NULL || pending->draws == SPI_DRAWS)
		return true;
	again.draws++;
	spi_again(pending, KMSG_SPI, 0, &request);
	request.sequence = pending->sequence;
	execute(kserve, &request, &again);
	return false;
}

static void
settle(struct kserve *kserve, const struct pending *pending,
    struct kmsg_answer *answer)
{
	answer->op = pending->op;
	if (pending->op != KMSG_SPI)
		answer->spi = pending->spi;
	if (answer->err != OK) {
		undo(kserve, pending);
		log_write(kserve->log, LOG_LEVEL_WARNING,
		    "the data plane refused to %s: %s",
		    kmsg_op_text(pending->op),
		    answer->text[0] ? answer->text : err_text(answer->err));
	} else if (pending->op == KMSG_SPI &&
	           !adopt_spi(kserve, pending, answer)) {
		return;
	} else {
		note_sure(kserve, pending);
	}
	if (pending->generation == kserve->generation)
		answer_client(kserve, answer);
}

static void
backend_answer(void *arg, const struct kmsg_answer *from)
{
	struct kserve *kserve = arg;
	struct kmsg_answer answer = *from;
	struct pending pending;

	if (kserve->pending_first == kserve->pending_next)
		return;
	pending = *pending_slot(kserve, kserve->pending_first++);
	answer.sequence = pending.sequence;
	settle(kserve, &pending, &answer);
}

static void
backend_event(void *arg, const struct kmsg_event *from)
{
	struct kserve *kserve = arg;
	struct kmsg_event event = *from;
	struct owned *owned = owned_find(&kserve->ledger, event.spi);

	switch (event.kind) {
	case KEVENT_ACQUIRE:
		/* A child's policy has its SA, or will have in a moment. */
		if (event.reqid > REQID_CONN_LAST)
			return;
		break;
	case KEVENT_EXPIRE:
		if (owned == NULL ||
		    !addr_equal(&owned->local, &event.remote.addr))
			owned = owned_find_out(
			    &kserve->ledger, event.spi, &event.remote.addr);
		if (owned == NULL)
			return;
		event.spi = owned->spi_in;
		break;
	case KEVENT_MAPPING:
		if (owned == NULL || !owned->has_in)
			return;
		break;
	case KEVENT_LOST:
		ledger_forget(&kserve->ledger);
		break;
	default:
		break;
	}
	if (kserve->client.event)
		kserve->client.event(kserve->client.arg, &event);
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
		execute(
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
		execute(
		    kserve, &request, &(struct pending){ .op = request.op });
	}
	request.op = owned->has_in ? KMSG_SA_REMOVE : KMSG_SPI_DROP;
	request.sequence = 0;
	request.sa.direction = KMSG_IN;
	owned_name(owned, &request.sa);
	execute(kserve, &request, &(struct pending){ .op = request.op });
}

void
kserve_clear(struct kserve *kserve)
{
	make_sure(kserve);
	/* From here on nobody waits for what is under way. */
	kserve->generation++;
	map_each(&kserve->ledger.claims, clear_claim, kserve);
	map_each(&kserve->ledger.by_in, clear_owned, kserve);
	ledger_forget(&kserve->ledger);
}

void
kserve_client(struct kserve *kserve, const struct kserve_client *client)
{
	if (client)
		kserve->client = *client;
	else
		memset(&kserve->client, 0, sizeof(kserve->client));
}

/* Connections that have gone -------------------------------------------  */

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
		give_up(kserve, claim, buf_done(&buf), direction, &request);
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
static void
revoke(void *arg)
{
	struct kserve *kserve = arg;
	struct ledger *ledger = &kserve->ledger;
	size_t claims, pairs;

	make_sure(kserve);
	claims = ledger->claim_count;
	pairs = ledger->pair_count;
	map_each(&ledger->claims, revoke_claim, kserve);
	map_each(&ledger->by_in, revoke_owned, kserve);
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

/* The link -------------------------------------------------------------- */

static void
link_end(struct kserve *kserve)
{
	timer_stop(kserve->timers, &kserve->cut);
	kserve_client(kserve, NULL);
	ipc_free(kserve->ipc);
	kserve->ipc = NULL;
	kserve_clear(kserve);
}

static void
link_cut(void *arg)
{
	struct kserve *kserve = arg;

	log_write(kserve->log, LOG_LEVEL_ERROR,
	    "gate does not take the data plane's answers: link closed");
	link_end(kserve);
}

static void
link_send(struct kserve *kserve, uint16_t type, uint64_t serial,
    const struct buf *buf)
{
	/* Not from here: the caller may be in the middle of a request. */
	if (ipc_send(kserve->ipc, type, serial, buf->at, buf->len) != OK)
		timer_set(kserve->timers, &kserve->cut, 0);
}

static void
link_answer(void *arg, const struct kmsg_answer *answer)
{
	uint8_t octets[KMSG_ANSWER_OCTETS];
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	kmsg_answer_put(&buf, answer);
	link_send(arg, KFRAME_ANSWER, answer->sequence, &buf);
}

/* Whoever may send a packet causes them, and gate may be slow: they heal by
 * themselves, and must not take the room of answers. */
static void
link_event(void *arg, const struct kmsg_event *event)
{
	const struct kserve *kserve = arg;
	uint8_t octets[KMSG_EVENT_OCTETS];
	struct buf buf;

	if (event->kind != KEVENT_LOST && ipc_queued(kserve->ipc) > IPC_EXTRA)
		return;
	buf_init(&buf, octets, sizeof(octets));
	kmsg_event_put(&buf, event);
	link_send(arg, KFRAME_EVENT, 0, &buf);
}

static enum err
link_request(void *arg, const struct ipc_frame *frame)
{
	struct kmsg request;
	enum err err = kmsg_get(frame->body, &request);

	if (err == OK) {
		request.sequence = frame->serial;
		kserve_request(arg, &request); /* wipes */
	} else {
		mem_wipe(&request, sizeof(request));
	}
	return err;
}

static void
link_closed(void *arg, enum err err, const char *why)
{
	struct kserve *kserve = arg;

	if (err == ERR_REFUSED)
		log_write(kserve->log, LOG_LEVEL_ERROR,
		    "gate broke the rules of the data plane's link: %s", why);
	link_end(kserve);
}

static const struct ipc_permit link_rows[] = {
	{ KFRAME_REQUEST, IPC_IN, 1, KMSG_OCTETS, 0, link_request },
	{ KFRAME_ANSWER, IPC_OUT, 1, KMSG_ANSWER_OCTETS, 0, NULL },
	{ KFRAME_EVENT, IPC_OUT, 1, KMSG_EVENT_OCTETS, 0, NULL },
};

enum err
kserve_serve(struct kserve *kserve, struct loop *loop, int fd)
{
	const struct kserve_client client = { link_answer, link_event, kserve };
	struct ipc *ipc = ipc_new(loop, fd, link_rows,
	    sizeof(link_rows) / sizeof(link_rows[0]), link_closed, kserve);

	if (ipc == NULL)
		return ERR_NOMEM;
	if (kserve->ipc)
		link_end(kserve);
	kserve->ipc = ipc;
	kserve_client(kserve, &client);
	return OK;
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
	backend->answer = backend_answer;
	backend->event = backend_event;
	backend->arg = kserve;
	permit_init(&kserve->permit, seed);
	ledger_init(&kserve->ledger, seed);
	timer_init(&kserve->cut, link_cut, kserve);
	timer_init(&kserve->revoke, revoke, kserve);
	return kserve;
}

void
kserve_free(struct kserve *kserve)
{
	if (kserve == NULL)
		return;
	if (kserve->ipc) {
		link_end(kserve);
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
