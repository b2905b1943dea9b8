#include <stdlib.h>
#include <string.h>

#include "common/dh.h"

struct dh_job {
	struct job job; /* first: the pool hands back a pointer to it */
	const struct alg *alg;
	bool generate, derive;
	struct dh_result result;
	void (*done)(struct env *, struct ticket, struct dh_result *);
	size_t peer_len;
	uint8_t peer[];
};

/* What a group takes, us, for simulations. */
struct cost {
	uint16_t generate, derive;
};

static const struct cost costs[ALG_COUNT] = {
	[ALG_MODP1024] = { 70, 65 },
	[ALG_MODP1536] = { 170, 160 },
	[ALG_MODP2048] = { 280, 270 },
	[ALG_MODP3072] = { 720, 700 },
	[ALG_MODP4096] = { 1460, 1500 },
	[ALG_ECP256] = { 15, 48 },
	[ALG_ECP384] = { 740, 730 },
	[ALG_ECP521] = { 165, 290 },
	[ALG_CURVE25519] = { 38, 33 },
};

static void
work(struct job *job)
{
	struct dh_job *dh = (struct dh_job *)job;
	struct dh_result *result = &dh->result;
	struct view peer = view_of(dh->peer, dh->peer_len);

	result->err = OK;
	/* A bad value must not cost a key generation. */
	if (dh->derive)
		result->err = kex_check(dh->alg, peer);
	if (result->err == OK && dh->generate)
		result->err = kex_new(dh->alg, &result->own);
	if (result->err == OK && dh->derive)
		result->err = kex_derive(result->own, peer, &result->shared);
	/* RFC 6989 2.2: it has served, and nobody derives from it again. */
	if (result->err == OK && dh->generate && dh->derive)
		kex_spend(result->own);
}

static void
done(struct env *env, struct job *job)
{
	struct dh_job *dh = (struct dh_job *)job;

	dh->done(env, dh->job.ticket, &dh->result);
	kex_free(dh->result.own);
	secret_free(&dh->result.shared);
	free(dh);
}

static struct dh_job *
job_new(const struct alg *alg, struct view peer, struct ticket ticket,
    void (*then)(struct env *, struct ticket, struct dh_result *))
{
	/* One octet too many is as wrong as thousands. */
	size_t len =
	    peer.len <= alg->public_len ? peer.len : alg->public_len + 1u;
	struct dh_job *dh = calloc(1, sizeof(*dh) + len);

	if (dh == NULL)
		return NULL;
	dh->job.work = work;
	dh->job.done = done;
	dh->job.ticket = ticket;
	dh->alg = alg;
	dh->done = then;
	/* Stays if the pool ends before the job begins. */
	dh->result.err = ERR_CANCELLED;
	dh->peer_len = len;
	if (len != 0)
		memcpy(dh->peer, peer.at, len);
	return dh;
}

static void
submit(struct workers *workers, struct dh_job *dh)
{
	const struct cost *cost = &costs[dh->alg->id];

	if (dh->generate)
		dh->job.cost_us += cost->generate;
	if (dh->derive)
		dh->job.cost_us += cost->derive;
	worker_submit(workers, &dh->job);
}

enum err
dh_generate(struct workers *workers, const struct alg *alg,
    struct ticket ticket,
    void (*then)(struct env *, struct ticket, struct dh_result *))
{
	struct dh_job *dh = job_new(alg, view_of(NULL, 0), ticket, then);

	if (dh == NULL)
		return ERR_NOMEM;
	dh->generate = true;
	submit(workers, dh);
	return OK;
}

enum err
dh_derive(struct workers *workers, struct kex *own, struct view peer,
    struct ticket ticket,
    void (*then)(struct env *, struct ticket, struct dh_result *))
{
	struct dh_job *dh = job_new(kex_alg(own), peer, ticket, then);

	if (dh == NULL)
		return ERR_NOMEM;
	dh->derive = true;
	dh->result.own = own;
	submit(workers, dh);
	return OK;
}

enum err
dh_both(struct workers *workers, const struct alg *alg, struct view peer,
    struct ticket ticket,
    void (*then)(struct env *, struct ticket, struct dh_result *))
{
	struct dh_job *dh = job_new(alg, peer, ticket, then);

	if (dh == NULL)
		return ERR_NOMEM;
	dh->generate = true;
	dh->derive = true;
	submit(workers, dh);
	return OK;
}
