#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/kserve_state.h"

#define FIRST_PENDING 64
#define SPI_DRAWS     3 /* again, when one is in use */

/* Answers --------------------------------------------------------------- */

static void
answer_client(struct kserve *kserve, const struct kmsg_answer *answer)
{
	if (answer->sequence != 0 && kserve->client.answer)
		kserve->client.answer(kserve->client.arg, answer);
}

void
kserve_say(struct kserve *kserve, const struct kmsg *request, enum err err,
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

void
kserve_make_sure(struct kserve *kserve)
{
	if (kserve->backend->ops->settle)
		kserve->backend->ops->settle(kserve->backend);
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

void
kserve_execute(
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
		kserve_execute(
		    kserve, &request, &(struct pending){ .op = request.op });
	}
	answer->err = ERR_NOMEM;
	answer->spi = 0;
	if (!current || owned == NULL || pending->draws == SPI_DRAWS)
		return true;
	again.draws++;
	spi_again(pending, KMSG_SPI, 0, &request);
	request.sequence = pending->sequence;
	kserve_execute(kserve, &request, &again);
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
		/* While all is taken back, only a back end that ends refuses
		 * what was asked for before: it has nothing any more. */
		if (!kserve->walking)
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

void
kserve_take_answer(void *arg, const struct kmsg_answer *from)
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

void
kserve_take_event(void *arg, const struct kmsg_event *from)
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
