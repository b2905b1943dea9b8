#include "kernel/step.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/kernel.h"

struct op *
op_new(struct install *install, uint8_t kind, uint64_t child)
{
	struct op *op = install->spare;

	if (op) {
		install->spare = op->next;
		memset(op, 0, sizeof(*op));
	} else {
		op = calloc(1, sizeof(*op));
		if (op == NULL)
			return NULL;
	}
	op->kind = kind;
	op->child = child;
	PUSH(install->under_way, op);
	return op;
}

void
op_free(struct install *install, struct op *op)
{
	UNLINK(install->under_way, op);
	op->next = install->spare;
	install->spare = op;
}

/* Answers --------------------------------------------------------------- */

static void
spi_answer(struct env *env, struct op *op, struct child_sa *child,
    const struct kmsg_answer *answer)
{
	bool wanted = child && (child->installed & ASKED_SPI);
	struct kmsg request;

	if (wanted)
		child->installed &= (uint8_t)~ASKED_SPI;
	if (answer->err != OK)
		return;
	if (wanted) {
		child->installed |= HAS_SPI;
		child_set_spi_in(child, answer->spi);
		return;
	}
	memset(&request, 0, sizeof(request));
	request.op = KMSG_SPI_DROP;
	request.sa.direction = KMSG_IN;
	request.sa.spi = request.sa.spi_in = answer->spi;
	ask_removal(env, &request);
	op->err = ERR_CANCELLED;
}

static void
query_answer(struct op *op, const struct kmsg_answer *answer)
{
	if (answer->err != OK)
		return;
	/* Inbound was asked first, and successes keep their order. */
	if (op->bits == 0) {
		op->bits = HAS_IN;
		op->use.octets_in = answer->use.octets;
		op->use.packets_in = answer->use.packets;
		op->use.idle_in_ms = answer->use.idle_ms;
	} else {
		op->use.octets_out = answer->use.octets;
		op->use.packets_out = answer->use.packets;
	}
}

/* All answers are there. The step's memory is given back before the caller
 * hears of it, since the caller may begin the next. */
static void
op_end(struct env *env, struct op *op, struct child_sa *child)
{
	struct op ended = *op;

	op_free(env->kernel->install, op);
	if (ended.given_up)
		return;
	if (ended.err != OK && ended.kind == OP_INSTALL && child)
		install_take_back(env, child, ended.bits);
	if (ended.err != OK && ended.kind == OP_MOVE && child)
		sa_log(child->sa, LOG_LEVEL_WARNING, MOVE_REFUSED, ended.text);
	if (ended.err != OK && ended.kind == OP_TRAP)
		env_log(env, LOG_LEVEL_WARNING,
		    "the data plane refused a trap policy: %s", ended.text);
	if (ended.done)
		ended.done(env, ended.ticket, ended.err,
		    ended.err == OK ? NULL : ended.text);
	if (ended.use_done)
		ended.use_done(env, ended.ticket, ended.err,
		    ended.err == OK ? &ended.use : NULL);
}

static void
op_answer(struct env *env, void *arg, const struct kmsg_answer *answer)
{
	struct op *op = arg;
	struct child_sa *child = NULL;

	if (op->child != 0)
		child = child_by_serial(env->sadb, op->child);
	/* Taken back in between, and perhaps begun anew: not this step's. */
	if (child && op->kind == OP_INSTALL && child->spi_in != op->spi)
		child = NULL;
	if (answer->err != OK && op->err == OK) {
		op->err = answer->err;
		memcpy(op->text, answer->text, sizeof(op->text));
		op->text[sizeof(op->text) - 1] = '\0';
		if (op->text[0] == '\0')
			strncpy(op->text, err_text(answer->err),
			    sizeof(op->text) - 1);
	}
	if (op->kind == OP_SPI)
		spi_answer(env, op, child, answer);
	else if (op->kind == OP_QUERY)
		query_answer(op, answer);
	if (--op->left == 0)
		op_end(env, op, child);
}

/* Asking ---------------------------------------------------------------- */

enum err
ask(struct env *env, struct op *op, const struct kmsg *request)
{
	struct kernel *kernel = env->kernel;
	enum err err;

	err = kernel->ops->submit(kernel, request, op ? op_answer : NULL, op);
	if (err == OK && op)
		op->left++;
	return err;
}

void
ask_removal(struct env *env, const struct kmsg *request)
{
	enum err err = ask(env, NULL, request);

	if (err != OK)
		env_log(env, LOG_LEVEL_ERROR,
		    "cannot ask the data plane to %s: %s",
		    kmsg_op_text(request->op), err_text(err));
}

void
op_give_up(struct install *install, struct op *op)
{
	if (op->left == 0)
		op_free(install, op);
	else
		op->given_up = true;
}
