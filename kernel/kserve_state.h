/*
 * kserve_state: what kserve knows, for its parts only: kserve.c (requests),
 * kserve_settle (the back end's answers), kserve_clear (taking back),
 * kserve_link (the asker's end). Nobody else includes this.
 */
#ifndef KERNEL_KSERVE_STATE_H
#define KERNEL_KSERVE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/kserve.h"
#include "kernel/ledger.h"
#include "kernel/permit.h"

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
	bool walking; /* the ledger is gone through: nothing else leaves it */
	uint64_t executed, refused;
};

/* Hands a request that was checked to the back end; pending is copied. */
void kserve_execute(
    struct kserve *kserve, struct kmsg *request, const struct pending *pending);
/* Answers a request that the back end does not see. */
void kserve_say(struct kserve *kserve, const struct kmsg *request, enum err err,
    const char *text);
/* Before what was asked for a moment ago is removed, moved or replaced, it must
 * be known to be there: the back end may have found a stranger's in its place,
 * which would be hit instead. May free what the ledger holds. */
void kserve_make_sure(struct kserve *kserve);
/* One direction of a claim goes, and the claim with its last one; request is
 * the answer's, and filled in. key is not claim's own. */
void kserve_give_up(struct kserve *kserve, struct claim *claim, struct view key,
    uint8_t direction, struct kmsg *request);

/* The back end's callbacks; arg is kserve. */
void kserve_take_answer(void *arg, const struct kmsg_answer *from);
void kserve_take_event(void *arg, const struct kmsg_event *from);
/* The timers'. */
void kserve_revoke(void *arg);
void kserve_cut(void *arg);

void kserve_link_end(struct kserve *kserve); /* and takes back everything */

#endif
