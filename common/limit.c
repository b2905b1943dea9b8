#include "common/limit.h"

#include <stdlib.h>
#include <string.h>

#include "common/alg.h"
#include "common/env.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/prf.h"
#include "common/worker.h"

#define BUCKETS    1024 /* prefixes share one when their hashes do */
#define LOG_BURST  20
#define LOG_PER_S  2
#define SECRET_LEN 32 /* octets */
#define COOKIE_MAC (LIMIT_COOKIE_LEN - 4)
#define TOKEN      1000 /* a bucket counts thousandths */

const struct limit_config limit_defaults = {
	.cookie_half_open = 64,
	.cookie_per_peer = 8,
	.cookie_queue = 512,
	.half_open_max = 8192,
	.per_prefix_max = 64,
	.answer_ms = 500,
	.half_open_ms = 30000,
	.secret_ms = 120000,
	.answers_burst = 32,
	.answers_per_s = 8,
};

/* Those who have not shown that they receive, the oldest first. An entry stands
 * in two of them, its links say which. */
enum queue_of { OF_CLASS, OF_PREFIX };
struct queue {
	struct limit_entry *first, *last;
};

/* Half-open SAs of one address, or IKEv1's of one prefix. One half-open SA
 * makes at most two of these, so half_open_max bounds them too. */
struct tally {
	struct map_node node;
	struct addr addr;
	bool prefix;
	unsigned count;
	struct queue unshown; /* of a prefix */
};

struct bucket {
	uint64_t filled_ms; /* when tokens was right; meaningless before used */
	uint32_t tokens;    /* thousandths */
	bool used;
};

struct cookie_secret {
	uint8_t octets[SECRET_LEN];
	uint32_t version;
	uint64_t made_ms;
	bool there;
};

struct limit {
	struct env *env;
	struct limit_config config;
	unsigned half_open;
	unsigned of_class[LIMIT_CLASSES];
	struct queue unshown[LIMIT_CLASSES];
	struct map tallies;
	struct cookie_secret now, before;
	struct bucket log;
	struct bucket answers[BUCKETS];
};

struct limit *
limit_new(struct env *env, const struct limit_config *config)
{
	struct limit *limit;
	uint64_t seed[2];
	uint32_t version;

	if (!env_random(env, seed, sizeof(seed)) ||
	    !env_random(env, &version, sizeof(version)))
		return NULL;
	limit = calloc(1, sizeof(*limit));
	if (limit == NULL)
		return NULL;
	limit->env = env;
	limit->config = *config;
	/* Cookies of before a restart should not look like ours. */
	limit->now.version = version;
	map_init(&limit->tallies, seed);
	return limit;
}

static void
free_tally(struct map_node *node, void *arg)
{
	(void)arg;
	free(map_entry(node, struct tally, node));
}

void
limit_free(struct limit *limit)
{
	if (limit == NULL)
		return;
	map_each(&limit->tallies, free_tally, NULL);
	map_fini(&limit->tallies);
	mem_wipe(&limit->now, sizeof(limit->now));
	mem_wipe(&limit->before, sizeof(limit->before));
	free(limit);
}

const struct limit_config *
limit_config(const struct limit *limit)
{
	return &limit->config;
}

/* Half-open SAs ----------------------------------------------------------- */

/* The /24 or /64 that answers for an address. */
static struct addr
prefix_of(const struct addr *addr)
{
	struct addr first, last;

	addr_prefix_range(
	    addr, addr->family == ADDR_V4 ? 24 : 64, &first, &last);
	return first;
}

static uint64_t
hash_addr(const struct limit *limit, const struct addr *addr, bool prefix)
{
	uint8_t key[2 + sizeof(addr->octets)];

	key[0] = addr->family;
	key[1] = prefix;
	memcpy(key + 2, addr->octets, sizeof(addr->octets));
	return map_hash(&limit->tallies, view_of(key, sizeof(key)));
}

static struct tally *
find_tally(const struct limit *limit, const struct addr *addr, bool prefix)
{
	struct map_node *node =
	    map_find(&limit->tallies, hash_addr(limit, addr, prefix));

	for (; node != NULL; node = map_next_same(node)) {
		struct tally *tally = map_entry(node, struct tally, node);

		if (tally->prefix == prefix && addr_equal(&tally->addr, addr))
			return tally;
	}
	return NULL;
}

static unsigned
count_of(const struct limit *limit, const struct addr *addr, bool prefix)
{
	const struct tally *tally = find_tally(limit, addr, prefix);

	return tally != NULL ? tally->count : 0;
}

static struct tally *
tally_add(struct limit *limit, const struct addr *addr, bool prefix)
{
	struct tally *tally = find_tally(limit, addr, prefix);

	if (tally == NULL) {
		tally = calloc(1, sizeof(*tally));
		if (tally == NULL)
			return NULL;
		tally->addr = *addr;
		tally->prefix = prefix;
		map_insert(&limit->tallies, &tally->node,
		    hash_addr(limit, addr, prefix));
	}
	tally->count++;
	return tally;
}

static void
tally_drop(struct limit *limit, const struct addr *addr, bool prefix)
{
	struct tally *tally = find_tally(limit, addr, prefix);

	if (tally == NULL || --tally->count > 0)
		return;
	map_remove(&limit->tallies, &tally->node);
	free(tally);
}

static void
queue_put(struct queue *queue, enum queue_of of, struct limit_entry *entry)
{
	entry->next[of] = NULL;
	entry->prev[of] = queue->last;
	if (queue->last != NULL)
		queue->last->next[of] = entry;
	else
		queue->first = entry;
	queue->last = entry;
}

static void
queue_take(struct queue *queue, enum queue_of of, struct limit_entry *entry)
{
	if (entry->prev[of] != NULL)
		entry->prev[of]->next[of] = entry->next[of];
	else
		queue->first = entry->next[of];
	if (entry->next[of] != NULL)
		entry->next[of]->prev[of] = entry->prev[of];
	else
		queue->last = entry->prev[of];
}

/* The first of them, if it had its time: a little more or less, so that no
 * rhythm of a flood catches every place that becomes free. */
static struct limit_entry *
queue_victim(const struct limit *limit, const struct queue *queue)
{
	struct limit_entry *first = queue->first;
	uint64_t needed = limit->config.answer_ms;

	if (first == NULL)
		return NULL;
	needed += env_random_u32(limit->env) % (needed + 1);
	return env_now(limit->env) - first->since_ms < needed ? NULL : first;
}

static bool
class_is_full(const struct limit *limit, enum limit_class class)
{
	unsigned max = limit->config.half_open_max, named = max / 8;

	if (class == LIMIT_V1_NAMED)
		return limit->of_class[class] >= named;
	if (class == LIMIT_V1 &&
	    limit->of_class[class] >= (max + 1) / 2 - named)
		return true;
	return limit->of_class[LIMIT_V1] + limit->of_class[LIMIT_V2] >=
	       max - named;
}

enum err
limit_half_open_room(struct limit *limit, const struct addr *remote,
    enum limit_class class, struct limit_entry **victim)
{
	struct addr prefix = prefix_of(remote);
	const struct tally *tally =
	    class == LIMIT_V1 ? find_tally(limit, &prefix, true) : NULL;

	*victim = NULL;
	/* One network must not take what all have. */
	if (tally != NULL && tally->count >= limit->config.per_prefix_max)
		*victim = queue_victim(limit, &tally->unshown);
	else if (class_is_full(limit, class))
		*victim = queue_victim(limit, &limit->unshown[class]);
	else
		return OK;
	return *victim != NULL ? OK : ERR_LIMIT;
}

enum err
limit_half_open_add(struct limit *limit, struct limit_entry *entry,
    const struct addr *remote, enum limit_class class)
{
	struct addr prefix = prefix_of(remote);
	struct tally *tally = NULL;
	struct limit_entry *victim;

	if (limit_half_open_room(limit, remote, class, &victim) != OK ||
	    victim != NULL)
		return ERR_LIMIT;
	if (tally_add(limit, remote, false) == NULL)
		return ERR_NOMEM;
	if (class == LIMIT_V1) {
		tally = tally_add(limit, &prefix, true);
		if (tally == NULL) {
			tally_drop(limit, remote, false);
			return ERR_NOMEM;
		}
	}
	entry->addr = *remote;
	entry->class = (uint8_t) class;
	entry->counted = true;
	entry->since_ms = env_now(limit->env);
	/* IKEv2's are past the cookies, if any were asked for. */
	entry->shown = class == LIMIT_V2;
	if (!entry->shown)
		queue_put(&limit->unshown[class], OF_CLASS, entry);
	if (tally != NULL)
		queue_put(&tally->unshown, OF_PREFIX, entry);
	limit->of_class[class]++;
	limit->half_open++;
	return OK;
}

void
limit_half_open_shown(struct limit *limit, struct limit_entry *entry)
{
	struct addr prefix = prefix_of(&entry->addr);
	struct tally *tally;

	if (!entry->counted || entry->shown)
		return;
	entry->shown = true;
	queue_take(&limit->unshown[entry->class], OF_CLASS, entry);
	if (entry->class != LIMIT_V1)
		return;
	tally = find_tally(limit, &prefix, true);
	if (tally != NULL)
		queue_take(&tally->unshown, OF_PREFIX, entry);
}

void
limit_half_open_drop(struct limit *limit, struct limit_entry *entry)
{
	struct addr prefix;

	if (!entry->counted)
		return;
	limit_half_open_shown(limit, entry);
	prefix = prefix_of(&entry->addr);
	tally_drop(limit, &entry->addr, false);
	if (entry->class == LIMIT_V1)
		tally_drop(limit, &prefix, true);
	entry->counted = false;
	limit->of_class[entry->class]--;
	limit->half_open--;
}

unsigned
limit_half_open(const struct limit *limit)
{
	return limit->half_open;
}

/* Cookies ----------------------------------------------------------------- */

bool
limit_want_cookie(struct limit *limit, const struct addr *remote)
{
	const struct limit_config *config = &limit->config;
	struct workers *workers = limit->env->workers;

	return limit->half_open >= config->cookie_half_open ||
	       count_of(limit, remote, false) >= config->cookie_per_peer ||
	       (workers != NULL &&
	           worker_queued(workers) >= config->cookie_queue);
}

/* RFC 7296 2.6: a secret known to us alone, changed often, the last one
 * accepted a while longer. */
static void
rotate_secret(struct limit *limit)
{
	uint64_t now_ms = env_now(limit->env);
	uint64_t age_ms = now_ms - limit->now.made_ms;
	struct cookie_secret fresh = { .there = true, .made_ms = now_ms };

	if (limit->now.there && age_ms < limit->config.secret_ms)
		return;
	/* Without chance the old one has to do. */
	if (!env_random(limit->env, fresh.octets, sizeof(fresh.octets)))
		return;
	fresh.version = limit->now.version + 1;
	limit->before = limit->now;
	if (age_ms / 2 >= limit->config.secret_ms)
		limit->before.there = false;
	limit->now = fresh;
	mem_wipe(&fresh, sizeof(fresh));
}

/* version | HMAC-SHA-256(secret, version | address | port | SPIi | Ni). The
 * address goes in with its family and at full length. */
static enum err
make_cookie(const struct cookie_secret *secret, const struct endpoint *remote,
    uint64_t spi_i, struct view nonce, uint8_t cookie[LIMIT_COOKIE_LEN])
{
	uint8_t octets[4 + 1 + 16 + 2 + 8], mac[PRF_MAX];
	struct view parts[2];
	struct buf fields, out;
	enum err err;

	buf_init(&fields, octets, sizeof(octets));
	buf_u32(&fields, secret->version);
	buf_u8(&fields, remote->addr.family);
	buf_put(&fields, remote->addr.octets, sizeof(remote->addr.octets));
	buf_u16(&fields, remote->port);
	buf_u64(&fields, spi_i);
	parts[0] = buf_done(&fields);
	parts[1] = nonce;
	err = prf(alg_get(ALG_PRF_SHA256),
	    view_of(secret->octets, sizeof(secret->octets)), parts, 2, mac);
	if (err != OK)
		return err;
	buf_init(&out, cookie, LIMIT_COOKIE_LEN);
	buf_u32(&out, secret->version);
	buf_put(&out, mac, COOKIE_MAC);
	return OK;
}

enum err
limit_cookie(struct limit *limit, const struct endpoint *remote, uint64_t spi_i,
    struct view nonce, uint8_t cookie[LIMIT_COOKIE_LEN])
{
	rotate_secret(limit);
	if (!limit->now.there)
		return ERR_CRYPTO;
	return make_cookie(&limit->now, remote, spi_i, nonce, cookie);
}

bool
limit_cookie_valid(struct limit *limit, const struct endpoint *remote,
    uint64_t spi_i, struct view nonce, struct view cookie)
{
	uint8_t expected[LIMIT_COOKIE_LEN];
	const struct cookie_secret *secret;
	struct view rest = cookie;
	uint32_t version;

	rotate_secret(limit);
	if (cookie.len != LIMIT_COOKIE_LEN || !view_u32(&rest, &version))
		return false;
	secret = version == limit->now.version ? &limit->now : &limit->before;
	if (!secret->there || secret->version != version)
		return false;
	if (make_cookie(secret, remote, spi_i, nonce, expected) != OK)
		return false;
	return mem_equal_secret(cookie, view_of(expected, sizeof(expected)));
}

/* Rates ------------------------------------------------------------------- */

/* Takes a token, if there is one. */
static bool
bucket_take(
    struct bucket *bucket, uint64_t now_ms, unsigned burst, unsigned per_s)
{
	uint64_t cap = (uint64_t)burst * TOKEN, tokens = cap;

	if (bucket->used) {
		uint64_t elapsed = now_ms - bucket->filled_ms;

		/* A token a second is one thousandth a millisecond. Long
		 * pauses fill the bucket; the product must not overflow. */
		if (elapsed > UINT32_MAX)
			elapsed = UINT32_MAX;
		tokens = bucket->tokens + elapsed * per_s;
		if (tokens > cap)
			tokens = cap;
	}
	if (tokens > UINT32_MAX)
		tokens = UINT32_MAX;
	bucket->used = true;
	bucket->filled_ms = now_ms;
	bucket->tokens = (uint32_t)tokens;
	if (tokens < TOKEN)
		return false;
	bucket->tokens -= TOKEN;
	return true;
}

bool
limit_answer(struct limit *limit, const struct addr *remote)
{
	struct addr prefix = prefix_of(remote);
	uint64_t hash = hash_addr(limit, &prefix, true);

	return bucket_take(&limit->answers[hash % BUCKETS], env_now(limit->env),
	    limit->config.answers_burst, limit->config.answers_per_s);
}

bool
limit_log(struct limit *limit)
{
	return bucket_take(
	    &limit->log, env_now(limit->env), LOG_BURST, LOG_PER_S);
}
