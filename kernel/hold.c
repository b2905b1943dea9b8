#include "kernel/hold.h"

#include <stdlib.h>
#include <string.h>

struct held {
	struct held *next;
	const void *owner;
	uint64_t since_ms;
	size_t len;
	uint8_t octets[];
};

struct hold {
	struct held *first; /* the oldest */
	size_t count;
};

struct hold *
hold_new(void)
{
	return calloc(1, sizeof(struct hold));
}

static void
drop(struct hold *hold, struct held **at)
{
	struct held *held = *at;

	*at = held->next;
	hold->count--;
	free(held);
}

void
hold_free(struct hold *hold)
{
	if (hold == NULL)
		return;
	while (hold->first)
		drop(hold, &hold->first);
	free(hold);
}

static void
drop_old(struct hold *hold, uint64_t now_ms)
{
	while (hold->first && now_ms - hold->first->since_ms >= HOLD_MS)
		drop(hold, &hold->first);
}

void
hold_forget(struct hold *hold, const void *owner)
{
	struct held **at = &hold->first;

	while (*at)
		if ((*at)->owner == owner)
			drop(hold, at);
		else
			at = &(*at)->next;
}

void
hold_keep(struct hold *hold, const void *owner, const uint8_t *octets,
    size_t len, uint64_t now_ms)
{
	struct held *held, **at;

	drop_old(hold, now_ms);
	if (len > HOLD_OCTETS || hold->count == HOLD_MAX)
		return;
	for (at = &hold->first; *at; at = &(*at)->next)
		if ((*at)->owner == owner)
			return;
	held = malloc(sizeof(*held) + len);
	if (held == NULL)
		return;
	held->next = NULL;
	held->owner = owner;
	held->since_ms = now_ms;
	held->len = len;
	memcpy(held->octets, octets, len);
	*at = held;
	hold->count++;
}

void
hold_release(struct hold *hold, uint64_t now_ms,
    bool (*take)(void *arg, const uint8_t *octets, size_t len), void *arg)
{
	struct held **at = &hold->first;

	drop_old(hold, now_ms);
	while (*at)
		if (take(arg, (*at)->octets, (*at)->len))
			drop(hold, at);
		else
			at = &(*at)->next;
}
