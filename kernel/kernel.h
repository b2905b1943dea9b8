/*
 * kernel: the asking side of the data plane.
 *
 * Typed requests (kmsg) go out in order and are answered by sequence number,
 * never from inside the call. Implementations: the parent process (over ipc),
 * which checks them against the loaded policy and hands them to a back end;
 * the same checks and back end in this process (--no-privsep); the
 * simulation's. What the data plane reports by itself comes as events.
 */
#ifndef KERNEL_KERNEL_H
#define KERNEL_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/env.h"
#include "common/err.h"
#include "kernel/kmsg.h"

struct kernel;

/* answer is valid during the call. */
typedef void
kernel_done(struct env *env, void *arg, const struct kmsg_answer *answer);

struct kernel_ops {
	/* Copies request. ERR_NOMEM, ERR_LIMIT: done will not be called. done
	 * may be NULL. arg must live until done. */
	enum err (*submit)(struct kernel *, const struct kmsg *request,
	    kernel_done *done, void *arg);
	void (*free)(struct kernel *); /* calls nobody */
};

/* What comes without being asked for. Set by whoever assembles the gateway;
 * any may be NULL. */
struct kernel_events {
	/* Traffic met a trap policy of reqid. packet: local, remote. */
	void (*acquire)(
	    struct env *env, uint32_t reqid, const struct ts packet[2]);
	/* An SA's lifetime in octets, packets or time ended. */
	void (*expire)(struct env *env, uint32_t spi_in, bool hard);
	/* ESP of an inbound SA now comes from another endpoint. */
	void (*mapping)(
	    struct env *env, uint32_t spi_in, const struct endpoint *remote);
	/* The userland ESP process died: its keys must not be used again. */
	void (*lost)(struct env *env);
};

struct kernel {
	const struct kernel_ops *ops;
	struct kernel_events events;
	struct install *install; /* install.c's own, made on first use */
};

/* What the data plane reports, to events; install hears of a loss first. */
void kernel_event(struct env *env, const struct kmsg_event *event);

/* Frees env->kernel, which may be NULL and is afterwards, and what install keeps
 * there. No answer comes any more. */
void kernel_free(struct env *env);

/* Who waits for an answer, by sequence number: for implementations. Answers
 * may come in any order; memory goes back when the oldest has come. */
struct kernel_wait {
	struct kernel_waiting *ring;
	size_t size;          /* slots; a power of two, or 0 */
	uint64_t first, next; /* sequence numbers; next is not given out yet */
};
#define KERNEL_WAIT_MAX 65536 /* requests under way with an answer wanted */

void kernel_wait_init(struct kernel_wait *wait);
/* Forgets who waits; nobody is called. */
void kernel_wait_fini(struct kernel_wait *wait);
/* *sequence is 0 where done is NULL. ERR_NOMEM, ERR_LIMIT. */
enum err kernel_wait_add(
    struct kernel_wait *wait, kernel_done *done, void *arg, uint64_t *sequence);
/* The newest was not sent after all. */
void kernel_wait_drop(struct kernel_wait *wait, uint64_t sequence);
/* Calls who waits. False: nobody does. */
bool kernel_wait_answer(struct kernel_wait *wait, struct env *env,
    const struct kmsg_answer *answer);

#endif
