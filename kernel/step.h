/*
 * step: what install's parts share: one step of asking the data plane, which is
 * several requests that are answered once, and where steps are kept.
 *
 * Below kernel/install.h; nobody else includes it.
 */
#ifndef KERNEL_STEP_H
#define KERNEL_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/env.h"
#include "common/map.h"
#include "common/sa.h"
#include "kernel/install.h"
#include "kernel/kmsg.h"

/* child->installed: what was asked for and not taken back. */
#define ASKED_SPI    1 /* the answer is on its way */
#define HAS_SPI      2
#define HAS_IN       4
#define HAS_POLICIES 8
#define HAS_OUT      16

#define MOVE_REFUSED "the data plane refused to follow the peer: %s"

struct linger;

enum op_kind { OP_SPI, OP_INSTALL, OP_MOVE, OP_QUERY, OP_TRAP };

/* One step of ours: several requests, answered once. Names its child by serial
 * number, because the child may go before the answer comes. */
struct op {
	struct op *next, *prev; /* under way; next: spare */
	uint64_t child;
	struct ticket ticket;
	install_done *done;
	install_use_done *use_done;
	struct install_use use;
	uint32_t spi;
	unsigned left; /* answers that are still to come */
	uint8_t kind;  /* enum op_kind */
	uint8_t bits;  /* what it set in child->installed */
	bool given_up; /* the caller knows of the failure already */
	uint8_t err;
	char text[120];
};

struct install {
	struct map pairs, traps;
	struct map reqid_sets, reqid_numbers; /* kernel/reqid's */
	uint32_t last_reqid;                  /* the last given out, or 0 */
	struct op *under_way, *spare;
	struct linger *lingers;
};

/* Lists whose items have next and prev. */
#define PUSH(list, item)                                                       \
	do {                                                                   \
		(item)->prev = NULL;                                           \
		(item)->next = (list);                                         \
		if (list)                                                      \
			(list)->prev = (item);                                 \
		(list) = (item);                                               \
	} while (0)

#define UNLINK(list, item)                                                     \
	do {                                                                   \
		if ((item)->prev)                                              \
			(item)->prev->next = (item)->next;                     \
		else                                                           \
			(list) = (item)->next;                                 \
		if ((item)->next)                                              \
			(item)->next->prev = (item)->prev;                     \
	} while (0)

/* env->kernel->install, made if need be. NULL: no memory. */
struct install *install_get(struct env *env);
/* Takes back those of bits that child has. */
void install_take_back(struct env *env, struct child_sa *child, uint8_t bits);

/* child: its serial number, or 0. NULL: no memory. */
struct op *op_new(struct install *install, uint8_t kind, uint64_t child);
void op_free(struct install *install, struct op *op);
/* The caller tells of the failure by its return value: answers to what was
 * asked already are swallowed. */
void op_give_up(struct install *install, struct op *op);

/* Asks as part of op; NULL: no answer is wanted. */
enum err ask(struct env *env, struct op *op, const struct kmsg *request);
/* A request that takes something back; a failure is logged. */
void ask_removal(struct env *env, const struct kmsg *request);

#endif
