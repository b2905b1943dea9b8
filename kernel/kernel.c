#include "kernel/kernel.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/install.h"

#define FIRST_SLOTS 64

struct kernel_waiting {
	kernel_done *done; /* NULL: answered */
	void *arg;
};

void
kernel_event(struct env *env, const struct kmsg_event *event)
{
	const struct kernel_events *events = &env->kernel->events;

	switch (event->kind) {
	case KEVENT_ACQUIRE:
		if (events->acquire)
			events->acquire(env, event->reqid, event->packet);
		break;
	case KEVENT_EXPIRE:
		if (events->expire)
			events->expire(env, event->spi, event->hard);
		break;
	case KEVENT_MAPPING:
		if (events->mapping)
			events->mapping(env, event->spi, &event->remote);
		break;
	case KEVENT_LOST:
		install_lost(env);
		if (events->lost)
			events->lost(env);
		break;
	default:
		break;
	}
}

void
kernel_free(struct env *env)
{
	struct kernel *kernel = env->kernel;

	if (kernel == NULL)
		return;
	install_free(env);
	env->kernel = NULL;
	kernel->ops->free(kernel);
}

/* Who waits ------------------------------------------------------------- */

void
kernel_wait_init(struct kernel_wait *wait)
{
	memset(wait, 0, sizeof(*wait));
	wait->first = wait->next = 1; /* 0: no answer is wanted */
}

void
kernel_wait_fini(struct kernel_wait *wait)
{
	free(wait->ring);
	kernel_wait_init(wait);
}

static struct kernel_waiting *
wait_slot(const struct kernel_wait *wait, uint64_t sequence)
{
	return &wait->ring[sequence & (wait->size - 1)];
}

static enum err
wait_grow(struct kernel_wait *wait)
{
	struct kernel_waiting *ring;
	size_t size = wait->size ? 2 * wait->size : FIRST_SLOTS;
	uint64_t at;

	if (size > KERNEL_WAIT_MAX)
		return ERR_LIMIT;
	ring = calloc(size, sizeof(*ring));
	if (ring == NULL)
		return ERR_NOMEM;
	for (at = wait->first; at < wait->next; at++)
		ring[at & (size - 1)] = *wait_slot(wait, at);
	free(wait->ring);
	wait->ring = ring;
	wait->size = size;
	return OK;
}

enum err
kernel_wait_add(
    struct kernel_wait *wait, kernel_done *done, void *arg, uint64_t *sequence)
{
	enum err err;

	*sequence = 0;
	if (done == NULL)
		return OK;
	if (wait->next - wait->first == wait->size) {
		err = wait_grow(wait);
		if (err != OK)
			return err;
	}
	*wait_slot(wait, wait->next) = (struct kernel_waiting){ done, arg };
	*sequence = wait->next++;
	return OK;
}

void
kernel_wait_drop(struct kernel_wait *wait, uint64_t sequence)
{
	if (sequence != 0 && sequence + 1 == wait->next)
		wait->next--;
}

bool
kernel_wait_answer(
    struct kernel_wait *wait, struct env *env, const struct kmsg_answer *answer)
{
	struct kernel_waiting *slot, waiting;

	if (answer->sequence < wait->first || answer->sequence >= wait->next)
		return false;
	slot = wait_slot(wait, answer->sequence);
	if (slot->done == NULL)
		return false;
	waiting = *slot;
	slot->done = NULL;
	while (wait->first < wait->next &&
	       wait_slot(wait, wait->first)->done == NULL)
		wait->first++;
	waiting.done(env, waiting.arg, answer);
	return true;
}
