#include "daemon/vault_local.h"

#include <stdlib.h>
#include <string.h>

#include "common/env.h"
#include "common/mem.h"

/* An answer that waits for the loop. */
struct ready {
	struct ready *next;
	struct ticket ticket;
	enum err err;
	void (*give)(struct env *env, struct ready *ready);
	union {
		vault_psk_auth_done *psk_auth;
		vault_nonce_done *nonce;
		vault_skeyid_done *skeyid;
		vault_permits_done *permits;
	} done;
	union {
		struct vault_psk_auth_answer psk_auth;
		struct vault_nonce_answer nonce;
		struct vault_skeyid_answer skeyid;
	} answer;
};

struct local {
	struct vault vault; /* first: what callers see */
	struct env *env;
	struct keyring *keyring;
	struct ready *first, **last;
	size_t count;
	struct timer timer;
};

static struct local *
local_of(struct vault *vault)
{
	return (struct local *)(void *)vault;
}

static void
ready_free(struct local *local, struct ready *ready)
{
	mem_wipe(ready, sizeof(*ready));
	free(ready);
	local->count--;
}

/* Those that are ready now; what they ask for in turn comes later. */
static void
give_all(void *arg)
{
	struct local *local = arg;
	struct ready *ready = local->first, *next;

	local->first = NULL;
	local->last = &local->first;
	for (; ready; ready = next) {
		next = ready->next;
		ready->give(local->env, ready);
		ready_free(local, ready);
	}
}

static struct ready *
ready_new(struct local *local, struct ticket ticket,
    void (*give)(struct env *env, struct ready *ready))
{
	struct ready *ready = calloc(1, sizeof(*ready));

	if (!ready)
		return NULL;
	ready->ticket = ticket;
	ready->give = give;
	*local->last = ready;
	local->last = &ready->next;
	local->count++;
	if (!timer_armed(&local->timer))
		timer_set(local->env->timers, &local->timer, 0);
	return ready;
}

static void
give_psk_auth(struct env *env, struct ready *ready)
{
	ready->done.psk_auth(
	    env, ready->ticket, ready->err, &ready->answer.psk_auth);
}

static enum err
local_psk_auth(struct vault *vault, const struct vault_psk_auth *ask,
    struct ticket ticket, vault_psk_auth_done *done)
{
	struct local *local = local_of(vault);
	struct ready *ready;

	if (local->count >= VAULT_UNDER_WAY)
		return ERR_LIMIT;
	if (ask->octets.len > VAULT_OCTETS)
		return ERR_LONG;
	ready = ready_new(local, ticket, give_psk_auth);
	if (!ready)
		return ERR_NOMEM;
	ready->done.psk_auth = done;
	ready->err =
	    keyring_psk_auth(local->keyring, ask, &ready->answer.psk_auth);
	return OK;
}

static void
give_nonce(struct env *env, struct ready *ready)
{
	ready->done.nonce(env, ready->ticket, ready->err, &ready->answer.nonce);
}

static enum err
local_nonce(struct vault *vault, struct ticket ticket, vault_nonce_done *done)
{
	struct local *local = local_of(vault);
	struct ready *ready;

	if (local->count >= VAULT_UNDER_WAY)
		return ERR_LIMIT;
	ready = ready_new(local, ticket, give_nonce);
	if (!ready)
		return ERR_NOMEM;
	ready->done.nonce = done;
	ready->err = keyring_nonce(local->keyring, &ready->answer.nonce);
	return OK;
}

static void
local_nonce_drop(struct vault *vault, uint64_t handle)
{
	keyring_nonce_drop(local_of(vault)->keyring, handle);
}

static void
give_skeyid(struct env *env, struct ready *ready)
{
	ready->done.skeyid(
	    env, ready->ticket, ready->err, &ready->answer.skeyid);
}

static enum err
local_skeyid(struct vault *vault, const struct vault_skeyid *ask,
    struct ticket ticket, vault_skeyid_done *done)
{
	struct local *local = local_of(vault);
	struct ready *ready;

	if (local->count >= VAULT_UNDER_WAY)
		return ERR_LIMIT;
	if (ask->peer_nonce.len < 8 || ask->peer_nonce.len > 256)
		return ERR_LONG; /* RFC 2409 5 */
	ready = ready_new(local, ticket, give_skeyid);
	if (!ready)
		return ERR_NOMEM;
	ready->done.skeyid = done;
	ready->err = keyring_skeyid(local->keyring, ask, &ready->answer.skeyid);
	return OK;
}

static void
give_permits(struct env *env, struct ready *ready)
{
	ready->done.permits(env, ready->ticket, ready->err);
}

static enum err
local_permits(struct vault *vault, const struct vault_permits *ask,
    struct ticket ticket, vault_permits_done *done)
{
	struct local *local = local_of(vault);
	struct ready *ready;

	if (local->count >= VAULT_UNDER_WAY)
		return ERR_LIMIT;
	ready = ready_new(local, ticket, give_permits);
	if (!ready)
		return ERR_NOMEM;
	ready->done.permits = done;
	ready->err = keyring_permits(local->keyring, ask);
	return OK;
}

static void
local_free(struct vault *vault)
{
	struct local *local = local_of(vault);
	struct ready *ready;

	timer_stop(local->env->timers, &local->timer);
	while ((ready = local->first)) {
		local->first = ready->next;
		ready_free(local, ready);
	}
	keyring_free(local->keyring);
	free(local);
}

struct vault *
vault_local_new(struct env *env, struct keyring *keyring)
{
	static const struct vault_ops ops = { local_psk_auth, local_nonce,
		local_nonce_drop, local_skeyid, local_permits, local_free };
	struct local *local = calloc(1, sizeof(*local));

	if (!local) {
		keyring_free(keyring);
		return NULL;
	}
	local->vault.ops = &ops;
	local->env = env;
	local->keyring = keyring;
	local->last = &local->first;
	timer_init(&local->timer, give_all, local);
	return &local->vault;
}

struct keyring *
vault_local_keyring(struct vault *vault)
{
	return local_of(vault)->keyring;
}
