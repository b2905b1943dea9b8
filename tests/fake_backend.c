#include "tests/fake_backend.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct kmsg_sa *
find_sa(struct fake_backend *fake, uint32_t spi, const struct addr *dst)
{
	unsigned i;

	for (i = 0; i < fake->sas; i++)
		if (fake->sa[i].spi == spi &&
		    addr_equal(&fake->sa[i].dst.addr, dst))
			return &fake->sa[i];
	return NULL;
}

static struct kmsg_policy *
find_policy(const struct fake_backend *fake, uint8_t direction,
    const struct ts *src, const struct ts *dst)
{
	unsigned i;

	for (i = 0; i < fake->policies; i++)
		if (fake->policy[i].direction == direction &&
		    ts_equal(&fake->policy[i].src, src) &&
		    ts_equal(&fake->policy[i].dst, dst))
			return (struct kmsg_policy *)&fake->policy[i];
	return NULL;
}

const struct kmsg_policy *
fake_policy(const struct fake_backend *fake, uint8_t direction,
    const struct ts *src, const struct ts *dst)
{
	return find_policy(fake, direction, src, dst);
}

static bool
drop_spi(struct fake_backend *fake, uint32_t spi)
{
	unsigned i;

	for (i = 0; i < fake->spis; i++)
		if (fake->spi[i] == spi) {
			fake->spi[i] = fake->spi[--fake->spis];
			return true;
		}
	return false;
}

static enum err
do_add(struct fake_backend *fake, const struct kmsg_sa *sa)
{
	bool larval = drop_spi(fake, sa->spi);

	if (sa->direction == KMSG_IN && !larval)
		fake->strays++;
	if (find_sa(fake, sa->spi, &sa->dst.addr) || fake->sas == FAKE_ITEMS)
		return ERR_EXISTS;
	fake->sa[fake->sas++] = *sa;
	return OK;
}

static void
do_remove(struct fake_backend *fake, const struct kmsg_sa *sa)
{
	struct kmsg_sa *slot = find_sa(fake, sa->spi, &sa->dst.addr);

	if (slot)
		*slot = fake->sa[--fake->sas];
	else if (!drop_spi(fake, sa->spi))
		fake->strays++;
}

static enum err
do_move(struct fake_backend *fake, const struct kmsg_sa *sa)
{
	struct kmsg_sa *slot = find_sa(fake, sa->spi, &sa->old_dst.addr);

	if (slot == NULL) {
		fake->strays++;
		return ERR_NOT_FOUND;
	}
	slot->src = sa->src;
	slot->dst = sa->dst;
	return OK;
}

static enum err
do_policy(struct fake_backend *fake, const struct kmsg_policy *policy, bool add)
{
	struct kmsg_policy *slot =
	    find_policy(fake, policy->direction, &policy->src, &policy->dst);

	if (add && (slot != NULL) != policy->replace) {
		fake->strays++;
		return ERR_EXISTS;
	}
	if (!add) {
		if (slot)
			*slot = fake->policy[--fake->policies];
		else
			fake->strays++;
		return OK;
	}
	if (slot == NULL) {
		if (fake->policies == FAKE_ITEMS)
			return ERR_LIMIT;
		slot = &fake->policy[fake->policies++];
	}
	*slot = *policy;
	return OK;
}

static enum err
perform(struct fake_backend *fake, const struct kmsg *request,
    struct kmsg_answer *answer)
{
	switch (request->op) {
	case KMSG_SPI:
		answer->spi = fake->next_spi;
		fake->next_spi += !fake->same_spi;
		fake->spi[fake->spis++] = answer->spi;
		return OK;
	case KMSG_SPI_DROP:
	case KMSG_SA_REMOVE:
		do_remove(fake, &request->sa);
		return OK;
	case KMSG_SA_ADD:
		return do_add(fake, &request->sa);
	case KMSG_SA_MOVE:
		return do_move(fake, &request->sa);
	case KMSG_SA_QUERY:
		if (find_sa(fake, request->sa.spi, &request->sa.dst.addr) ==
		    NULL)
			return ERR_NOT_FOUND;
		answer->use.octets = 100 * request->sa.direction;
		answer->use.packets = request->sa.direction;
		answer->use.idle_ms = 5000;
		return OK;
	default:
		return do_policy(
		    fake, &request->policy, request->op == KMSG_POLICY_ADD);
	}
}

/* As a process that ends with requests that it has not answered. */
static void
die(struct fake_backend *fake)
{
	unsigned i;

	fake->dies = fake->hold = false;
	for (i = 0; i < fake->held_count; i++)
		fake->held[i].err = ERR_CANCELLED;
	fake_release(fake, UINT_MAX);
}

static void
fake_execute(struct kserve_backend *backend, const struct kmsg *request)
{
	struct fake_backend *fake = (struct fake_backend *)(void *)backend;
	struct kmsg_answer answer = { .sequence = request->sequence,
		.op = request->op };

	if (fake->dies && request->op == KMSG_POLICY_REMOVE)
		die(fake);
	if (fake->count < FAKE_RECORDS)
		fake->record[fake->count++] = *request;
	if (fake->refuse_at == 0 || fake->refuse_op == request->op) {
		answer.err = ERR_REFUSED;
		snprintf(answer.text, sizeof(answer.text), "as told");
	} else {
		answer.err = (uint8_t)perform(fake, request, &answer);
	}
	if (fake->refuse_at >= 0)
		fake->refuse_at--;
	if (fake->hold && fake->held_count < FAKE_ITEMS)
		fake->held[fake->held_count++] = answer;
	else
		backend->answer(backend->arg, &answer);
}

void
fake_release(struct fake_backend *fake, unsigned count)
{
	struct kmsg_answer answer;

	while (fake->held_count > 0 && count-- > 0) {
		answer = fake->held[0];
		memmove(fake->held, fake->held + 1,
		    --fake->held_count * sizeof(answer));
		fake->backend.answer(fake->backend.arg, &answer);
	}
}

void
fake_forget(struct fake_backend *fake)
{
	fake->count = 0;
}

bool
fake_empty(const struct fake_backend *fake)
{
	return fake->sas == 0 && fake->spis == 0 && fake->policies == 0;
}

char *
fake_text(const struct fake_backend *fake, char *text, size_t size)
{
	static const char *const ops[KMSG_OPS] = { "?", "spi", "drop", "add",
		"del", "move", "query", "pol", "unpol" };
	static const char *const directions[] = { "?", "in", "out", "fwd" };
	const struct kmsg *request;
	bool policy;
	size_t at = 0;
	unsigned i;

	text[0] = '\0';
	for (i = 0; i < fake->count && at < size; i++) {
		request = &fake->record[i];
		policy = request->op == KMSG_POLICY_ADD ||
		         request->op == KMSG_POLICY_REMOVE;
		at += (size_t)snprintf(text + at, size - at, "%s%s-%s",
		    i ? " " : "", ops[request->op],
		    directions[policy ? request->policy.direction
		                      : request->sa.direction]);
	}
	return text;
}

static void
fake_free(struct kserve_backend *backend)
{
	struct fake_backend *fake = (struct fake_backend *)(void *)backend;

	if (fake->gone)
		*fake->gone = true;
	free(fake->record);
	free(fake);
}

static void
fake_settle(struct kserve_backend *backend)
{
	struct fake_backend *fake = (struct fake_backend *)(void *)backend;

	if (fake->prompt)
		fake_release(fake, UINT_MAX);
}

struct fake_backend *
fake_backend_new(void)
{
	static const struct kserve_backend_ops ops = { fake_execute, fake_free,
		fake_settle };
	struct fake_backend *fake = calloc(1, sizeof(*fake));

	if (fake == NULL)
		abort();
	fake->record = calloc(FAKE_RECORDS, sizeof(*fake->record));
	if (fake->record == NULL)
		abort();
	fake->backend.ops = &ops;
	fake->backend.name = "fake";
	fake->refuse_at = -1;
	fake->next_spi = 0x1000;
	return fake;
}
