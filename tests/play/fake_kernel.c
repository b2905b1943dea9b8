#include "tests/play/fake_kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/play/play.h"

struct kernel_ask {
	struct fake_kernel *kernel;
	struct kmsg request;
	kernel_done *done;
	void *arg;
	struct timer timer;
	struct kernel_ask *next;
};

struct fake_sa *
fake_kernel_sa(struct fake_kernel *kernel, uint8_t direction, uint32_t spi)
{
	size_t i;

	for (i = 0; i < kernel->sa_count; i++)
		if (kernel->sa[i].sa.direction == direction &&
		    kernel->sa[i].sa.spi == spi)
			return &kernel->sa[i];
	return NULL;
}

static bool
same_policy(const struct kmsg_policy *a, const struct kmsg_policy *b)
{
	return a->direction == b->direction && ts_equal(&a->src, &b->src) &&
	       ts_equal(&a->dst, &b->dst) && a->trap == b->trap;
}

static struct kmsg_policy *
find_policy(struct fake_kernel *kernel, const struct kmsg_policy *wanted)
{
	size_t i;

	for (i = 0; i < kernel->policy_count; i++)
		if (same_policy(&kernel->policy[i], wanted))
			return &kernel->policy[i];
	return NULL;
}

static bool
drop_spi(struct fake_kernel *kernel, uint32_t spi)
{
	size_t i;

	for (i = 0; i < kernel->spi_count; i++) {
		if (kernel->spi[i] != spi)
			continue;
		kernel->spi[i] = kernel->spi[--kernel->spi_count];
		return true;
	}
	return false;
}

static enum err
add_spi(struct fake_kernel *kernel, uint32_t *spi)
{
	struct play *play = kernel->gateway->play;

	if (kernel->spi_count == sizeof(kernel->spi) / sizeof(kernel->spi[0]))
		return ERR_LIMIT;
	*spi = (uint32_t)(0xc0000000u | (play_random(play) & 0x0fffffff));
	kernel->spi[kernel->spi_count++] = *spi;
	return OK;
}

static enum err
add_sa(struct fake_kernel *kernel, const struct kmsg_sa *sa)
{
	struct fake_sa *slot;

	if (fake_kernel_sa(kernel, sa->direction, sa->spi) != NULL)
		return ERR_EXISTS;
	if (sa->direction == KMSG_IN && !drop_spi(kernel, sa->spi))
		return ERR_NOT_FOUND;
	if (kernel->sa_count == FAKE_SAS)
		return ERR_LIMIT;
	slot = &kernel->sa[kernel->sa_count++];
	memset(slot, 0, sizeof(*slot));
	slot->sa = *sa;
	slot->order = ++kernel->order;
	slot->use.idle_ms = UINT64_MAX;
	kernel->added++;
	return OK;
}

static enum err
remove_sa(struct fake_kernel *kernel, const struct kmsg_sa *sa)
{
	struct fake_sa *slot;

	slot = fake_kernel_sa(kernel, sa->direction, sa->spi);
	if (slot == NULL)
		return ERR_NOT_FOUND;
	*slot = kernel->sa[--kernel->sa_count];
	kernel->removed++;
	return OK;
}

static enum err
move_sa(struct fake_kernel *kernel, const struct kmsg_sa *sa)
{
	struct fake_sa *slot;

	slot = fake_kernel_sa(kernel, sa->direction, sa->spi);
	if (slot == NULL)
		return ERR_NOT_FOUND;
	slot->sa.src = sa->src;
	slot->sa.dst = sa->dst;
	slot->sa.encap = sa->encap;
	return OK;
}

static enum err
query_sa(
    struct fake_kernel *kernel, const struct kmsg_sa *sa, struct kmsg_use *use)
{
	struct fake_sa *slot;

	slot = fake_kernel_sa(kernel, sa->direction, sa->spi);
	if (slot == NULL)
		return ERR_NOT_FOUND;
	*use = slot->use;
	if (slot->use.packets > 0)
		use->idle_ms =
		    kernel->gateway->play->timers.now_ms - slot->last_ms;
	return OK;
}

static enum err
add_policy(struct fake_kernel *kernel, const struct kmsg_policy *policy)
{
	struct kmsg_policy *slot = find_policy(kernel, policy);

	if (slot == NULL) {
		if (kernel->policy_count == FAKE_POLICIES)
			return ERR_LIMIT;
		slot = &kernel->policy[kernel->policy_count++];
	}
	*slot = *policy;
	return OK;
}

static enum err
remove_policy(struct fake_kernel *kernel, const struct kmsg_policy *policy)
{
	struct kmsg_policy *slot = find_policy(kernel, policy);

	if (slot == NULL)
		return ERR_NOT_FOUND;
	*slot = kernel->policy[--kernel->policy_count];
	return OK;
}

static enum err
execute(struct fake_kernel *kernel, const struct kmsg *request,
    struct kmsg_answer *answer)
{
	if (kernel->refuse_count > 0 && kernel->refuse_op == request->op) {
		kernel->refuse_count--;
		snprintf(
		    answer->text, sizeof(answer->text), "simulated refusal");
		return ERR_REFUSED;
	}
	switch (request->op) {
	case KMSG_SPI:
		return add_spi(kernel, &answer->spi);
	case KMSG_SPI_DROP:
		return drop_spi(kernel, request->sa.spi) ? OK : ERR_NOT_FOUND;
	case KMSG_SA_ADD:
		return add_sa(kernel, &request->sa);
	case KMSG_SA_REMOVE:
		return remove_sa(kernel, &request->sa);
	case KMSG_SA_MOVE:
		return move_sa(kernel, &request->sa);
	case KMSG_SA_QUERY:
		return query_sa(kernel, &request->sa, &answer->use);
	case KMSG_POLICY_ADD:
		return add_policy(kernel, &request->policy);
	case KMSG_POLICY_REMOVE:
		return remove_policy(kernel, &request->policy);
	default:
		return ERR_UNSUPPORTED;
	}
}

static void
ask_unlink(struct kernel_ask *ask)
{
	struct kernel_ask **at;

	for (at = &ask->kernel->first; *at != ask; at = &(*at)->next)
		;
	*at = ask->next;
	ask->kernel->pending--;
}

static void
due(void *arg)
{
	struct kernel_ask *ask = arg;
	struct fake_kernel *kernel = ask->kernel;
	struct kmsg_answer answer;

	memset(&answer, 0, sizeof(answer));
	answer.op = ask->request.op;
	answer.err = (uint8_t)execute(kernel, &ask->request, &answer);
	ask_unlink(ask);
	if (ask->done != NULL)
		ask->done(&kernel->gateway->env, ask->arg, &answer);
	free(ask);
}

/* Answers come 1 to 3 ms later, never before an earlier one's. */
static enum err
fake_submit(struct kernel *base, const struct kmsg *request, kernel_done *done,
    void *arg)
{
	struct fake_kernel *kernel = (struct fake_kernel *)base;
	struct play *play = kernel->gateway->play;
	struct kernel_ask *ask = calloc(1, sizeof(*ask));
	uint64_t at = play->timers.now_ms + 1 + play_below(play, 3);

	if (ask == NULL)
		return ERR_NOMEM;
	if (at < kernel->last_ms)
		at = kernel->last_ms;
	kernel->last_ms = at;
	ask->kernel = kernel;
	ask->request = *request;
	ask->done = done;
	ask->arg = arg;
	ask->next = kernel->first;
	kernel->first = ask;
	kernel->pending++;
	timer_init(&ask->timer, due, ask);
	timer_set(&play->timers, &ask->timer, at - play->timers.now_ms);
	return OK;
}

static void
fake_free(struct kernel *base)
{
	(void)base;
}

void
fake_kernel_init(struct fake_kernel *kernel, struct gateway *gateway)
{
	static const struct kernel_ops ops = {
		.submit = fake_submit,
		.free = fake_free,
	};

	memset(kernel, 0, sizeof(*kernel));
	kernel->kernel.ops = &ops;
	kernel->gateway = gateway;
	kernel->sa = calloc(FAKE_SAS, sizeof(*kernel->sa));
	kernel->policy = calloc(FAKE_POLICIES, sizeof(*kernel->policy));
	if (kernel->sa == NULL || kernel->policy == NULL)
		abort();
}

void
fake_kernel_forget(struct fake_kernel *kernel)
{
	struct kernel_ask *ask;

	while ((ask = kernel->first) != NULL) {
		timer_stop(&kernel->gateway->play->timers, &ask->timer);
		ask_unlink(ask);
		free(ask);
	}
}

void
fake_kernel_fini(struct fake_kernel *kernel)
{
	fake_kernel_forget(kernel);
	free(kernel->sa);
	free(kernel->policy);
	kernel->sa = NULL;
	kernel->policy = NULL;
}

/* RFC 4301 4.4.1: narrower policies come before wider ones; of equals, the
 * newest; a trap last. */
static bool
is_before(const struct kmsg_policy *policy, const struct kmsg_policy *best)
{
	if (best == NULL || policy->trap != best->trap)
		return best == NULL || best->trap;
	return ts_within(&policy->src, &best->src) &&
	       ts_within(&policy->dst, &best->dst);
}

struct fake_sa *
fake_kernel_send(
    struct fake_kernel *kernel, const struct addr *src, const struct addr *dst)
{
	const struct kmsg_policy *policy, *best = NULL;
	struct fake_sa *sa, *newest = NULL;
	struct ts packet[2];
	size_t i;

	for (i = 0; i < kernel->policy_count; i++) {
		policy = &kernel->policy[i];
		if (policy->direction == KMSG_OUT &&
		    ts_contains(&policy->src, src, 0, 0) &&
		    ts_contains(&policy->dst, dst, 0, 0) &&
		    is_before(policy, best))
			best = policy;
	}
	if (best == NULL)
		return NULL;
	for (i = 0; i < kernel->sa_count; i++) {
		sa = &kernel->sa[i];
		if (sa->sa.direction == KMSG_OUT &&
		    sa->sa.reqid == best->reqid &&
		    (best->mode == MODE_TRANSPORT ||
		        addr_equal(&sa->sa.dst.addr, &best->tunnel_dst)) &&
		    (newest == NULL || sa->order > newest->order))
			newest = sa;
	}
	if (newest != NULL) {
		newest->use.packets++;
		newest->use.octets += 100;
		newest->last_ms = kernel->gateway->play->timers.now_ms;
		return newest;
	}
	if (kernel->kernel.events.acquire != NULL) {
		packet[0] = ts_from_addr(src);
		packet[1] = ts_from_addr(dst);
		kernel->kernel.events.acquire(
		    &kernel->gateway->env, best->reqid, packet);
	}
	return NULL;
}

bool
fake_kernel_receive(struct fake_kernel *kernel, const struct kmsg_sa *sent,
    const struct addr *src, const struct addr *dst)
{
	const struct kmsg_policy *policy;
	struct fake_sa *sa = fake_kernel_sa(kernel, KMSG_IN, sent->spi);
	size_t i;

	if (sa == NULL || sa->sa.encr != sent->encr ||
	    sa->sa.integ != sent->integ || sa->sa.esn != sent->esn ||
	    sa->sa.mode != sent->mode || sa->sa.encap != sent->encap ||
	    memcmp(sa->sa.key, sent->key, sizeof(sent->key)) != 0)
		return false;
	for (i = 0; i < kernel->policy_count; i++) {
		policy = &kernel->policy[i];
		if (policy->direction != KMSG_IN ||
		    policy->reqid != sa->sa.reqid ||
		    !ts_contains(&policy->src, src, 0, 0) ||
		    !ts_contains(&policy->dst, dst, 0, 0))
			continue;
		sa->use.packets++;
		sa->use.octets += 100;
		sa->last_ms = kernel->gateway->play->timers.now_ms;
		return true;
	}
	return false;
}
