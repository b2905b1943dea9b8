#include "kernel/local.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/timer.h"
#include "kernel/kserve.h"

#define FIRST_ITEMS 16

/* What kserve said, until the timer fires: answers and events in the order in
 * which they came. */
struct item {
	bool is_event;
	union {
		struct kmsg_answer answer;
		struct kmsg_event event;
	};
};

struct items {
	struct item *item;
	size_t count, size;
};

struct local {
	struct kernel kernel;
	struct env *env;
	struct kserve *kserve;
	bool owned;
	struct kernel_wait wait;
	struct items items;
	struct timer timer;
};

static struct item *
item_new(struct local *local)
{
	struct items *items = &local->items;
	struct item *grown;
	size_t size;

	if (items->count == items->size) {
		size = items->size ? 2 * items->size : FIRST_ITEMS;
		grown = realloc(items->item, size * sizeof(*grown));
		if (grown == NULL)
			return NULL;
		items->item = grown;
		items->size = size;
	}
	if (items->count == 0)
		timer_set(local->env->timers, &local->timer, 0);
	return &items->item[items->count++];
}

static void
local_answer(void *arg, const struct kmsg_answer *answer)
{
	struct local *local = arg;
	struct item *item = item_new(local);

	if (item == NULL) {
		env_log(local->env, LOG_LEVEL_ERROR,
		    "an answer of the data plane is lost: no memory");
		return;
	}
	item->is_event = false;
	item->answer = *answer;
}

static void
local_event(void *arg, const struct kmsg_event *event)
{
	struct local *local = arg;
	struct item *item = item_new(local);

	if (item == NULL)
		return; /* an acquire comes again, an expiry is timed by us */
	item->is_event = true;
	item->event = *event;
}

/* Whoever hears of it may ask for more: that comes with the next timer. */
static void
local_deliver(void *arg)
{
	struct local *local = arg;
	struct items items = local->items;
	struct env *env = local->env;
	size_t i;

	memset(&local->items, 0, sizeof(local->items));
	for (i = 0; i < items.count; i++) {
		if (items.item[i].is_event)
			kernel_event(env, &items.item[i].event);
		else
			(void)kernel_wait_answer(
			    &local->wait, env, &items.item[i].answer);
	}
	if (local->items.item) {
		free(items.item);
	} else { /* to be filled again */
		items.count = 0;
		local->items = items;
	}
}

static enum err
local_submit(struct kernel *kernel, const struct kmsg *request,
    kernel_done *done, void *arg)
{
	struct local *local = (struct local *)(void *)kernel;
	struct kmsg copy = *request;
	enum err err;

	err = kernel_wait_add(&local->wait, done, arg, &copy.sequence);
	if (err == OK)
		kserve_request(local->kserve, &copy); /* wipes */
	else
		mem_wipe(&copy, sizeof(copy));
	return err;
}

static void
local_free(struct kernel *kernel)
{
	struct local *local = (struct local *)(void *)kernel;

	timer_stop(local->env->timers, &local->timer);
	kserve_client(local->kserve, NULL);
	if (local->owned)
		kserve_free(local->kserve);
	kernel_wait_fini(&local->wait);
	free(local->items.item);
	free(local);
}

struct kernel *
local_new(struct env *env, struct kserve *kserve, bool owned)
{
	static const struct kernel_ops ops = { local_submit, local_free };
	struct local *local = calloc(1, sizeof(*local));
	struct kserve_client client = { local_answer, local_event, local };

	if (local == NULL)
		return NULL;
	local->kernel.ops = &ops;
	local->env = env;
	local->kserve = kserve;
	local->owned = owned;
	kernel_wait_init(&local->wait);
	timer_init(&local->timer, local_deliver, local);
	kserve_client(kserve, &client);
	return &local->kernel;
}
