#include "ikev2/info.h"

#include <string.h>

#include "ikev2/child.h"
#include "ikev2/rekey.h"
#include "ikev2/task.h"

/* Initiator -------------------------------------------------------------- */

/* False when there is nothing to delete any more. */
static bool
put_child_delete(struct v2_exchange *x, struct wire_out *out)
{
	struct v2_task *task = x->task;
	struct child_sa *child;

	if (task->child != 0) {
		child = child_by_serial(x->x.sa->env->sadb, task->child);
		if (child == NULL || child->sa != x->x.sa)
			return false;
		task->spi = child->spi_in;
		child->state = CHILD_CLOSING;
		x->old_child = child->serial;
	}
	/* RFC 7296 1.4.1: the SPIs on which we receive. */
	v2_delete_put(out, &task->spi, 1);
	return true;
}

enum verdict
v2_info_i_send(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct v2_writer writer;
	enum err err;

	(void)msg;
	v2_writer_init(&writer);
	if (x->task->want == WANT_CHILD_DELETE &&
	    !put_child_delete(x, &writer.out))
		return IGNORE;
	if (x->task->want == WANT_DELETE) {
		if (sa->state == IKE_ESTABLISHED)
			sa_set_state(sa, IKE_CLOSING);
		v2_delete_put(&writer.out, NULL, 0);
	}
	err = v2_request(x, &writer);
	if (err != OK)
		return fsm_fail(
		    exchange, err, 0, "INFORMATIONAL: %s", err_text(err));
	return DONE;
}

enum verdict
v2_info_i_answer(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	struct child_sa *child;

	if (v2_fatal(sa, msg))
		return DONE;
	switch (x->task->want) {
	case WANT_DELETE:
		sa_kill(sa, OK, false, "closed");
		break;
	case WANT_CHILD_DELETE:
		child = child_by_serial(sa->env->sadb, x->old_child);
		if (child != NULL)
			v2_child_retire(child, false);
		break;
	default:
		break;
	}
	return DONE;
}

/* Responder -------------------------------------------------------------- */

/* What a request deletes. */
struct doomed {
	bool all; /* the IKE SA */
	bool any; /* children were named */
	size_t count, told;
	uint64_t serial[V2_CHILDREN];
	uint32_t spi[V2_CHILDREN]; /* our side of the pairs: told of them */
};

/* The peer's Delete reaches children of this IKE SA only; while a collision is
 * undecided, they are still below the one that it would replace. */
static struct child_sa *
find_child(struct v2_sa *v2, uint32_t spi)
{
	struct child_sa *child;
	struct ike_sa *predecessor;

	if (spi == 0)
		return NULL;
	child = child_by_spi_out(&v2->sa, spi);
	if (child != NULL || v2->predecessor == 0)
		return child;
	predecessor = sa_by_serial(v2->sa.env->sadb, v2->predecessor);
	return predecessor == NULL ? NULL : child_by_spi_out(predecessor, spi);
}

static void
doom(struct v2_sa *v2, struct doomed *doomed, uint32_t spi)
{
	struct child_sa *child = find_child(v2, spi);
	struct v2_exchange *own = v2_own_exchange(v2);
	size_t i;

	/* The Delete has overtaken the answer that brings the child. */
	if (child == NULL && v2_child_awaited(v2) != NULL)
		own->gone_spi = spi;
	if (child == NULL || doomed->count >= V2_CHILDREN)
		return;
	for (i = 0; i < doomed->count; i++)
		if (doomed->serial[i] == child->serial)
			return;
	doomed->serial[doomed->count++] = child->serial;
	/* RFC 7296 1.4.1: when both Deletes cross, neither answer names it. */
	if (own != NULL && own->sent && own->task != NULL &&
	    own->task->want == WANT_CHILD_DELETE &&
	    own->old_child == child->serial)
		return;
	doomed->spi[doomed->told++] = child->spi_in;
}

static enum err
read_deletes(struct v2_sa *v2, const struct msg *msg, struct doomed *doomed)
{
	const struct payload *payload;
	struct view spis;
	uint8_t protocol;
	uint16_t count;
	uint32_t spi;
	unsigned i;
	enum err err;

	for (i = 0; (payload = msg_payload(msg, KIND_DELETE, i)) != NULL; i++) {
		err = v2_delete_read(payload->body, &protocol, &count, &spis);
		if (err != OK)
			return err;
		if (protocol == PROTO_IKE)
			doomed->all = true;
		if (protocol != PROTO_ESP)
			continue;
		doomed->any = true;
		while (view_u32(&spis, &spi))
			doom(v2, doomed, spi);
	}
	return OK;
}

static void
carry_out(struct v2_sa *v2, const struct doomed *doomed)
{
	struct child_sa *child;
	size_t i;

	for (i = 0; i < doomed->count; i++) {
		child = child_by_serial(v2->sa.env->sadb, doomed->serial[i]);
		if (child != NULL)
			v2_child_retire(child, true);
	}
}

enum verdict
v2_info_r_answer(struct ike_sa *sa, struct exchange *exchange, struct msg *msg)
{
	struct v2_exchange *x = v2_x(exchange);
	const struct payload *error = msg_error(msg);
	struct doomed doomed = { 0 };
	struct v2_writer writer;
	enum err err;

	err = read_deletes(v2_of(sa), msg, &doomed);
	if (err != OK)
		return fsm_fail(exchange, err, N_INVALID_SYNTAX,
		    "a malformed Delete: %s", err_text(err));
	v2_writer_init(&writer);
	if (doomed.told > 0 && !doomed.all)
		v2_delete_put(&writer.out, doomed.spi, doomed.told);
	/* RFC 7296 1.4: every request is answered, an empty one by an empty
	 * answer. */
	err = v2_respond(x, &writer);
	if (err != OK)
		return fsm_fail(exchange, err, N_TEMPORARY_FAILURE,
		    "INFORMATIONAL: %s", err_text(err));
	carry_out(v2_of(sa), &doomed);
	if (doomed.all) {
		if (!v2_rekey_deleted(v2_of(sa)))
			return DONE;
		/* A redundant heir, taken back before we have counted the
		 * nonces (2.8.2). */
		if (v2_of(sa)->predecessor != 0)
			sa_set_state(sa, IKE_REKEYED);
		sa_kill(sa, OK, true, "the peer closed it");
		return DONE;
	}
	if (error == NULL)
		return DONE;
	sa_log(sa, LOG_LEVEL_WARNING, "the peer reports %s (%u)",
	    kind_text((enum kind)error->kind), error->notify.type);
	/* RFC 7296 2.21.2, 2.21.3: these two end the IKE SA. */
	if (error->kind == KIND_N_AUTH_FAILED ||
	    error->kind == KIND_N_INVALID_SYNTAX)
		sa_kill(sa, ERR_PEER, true, kind_text((enum kind)error->kind));
	return DONE;
}
