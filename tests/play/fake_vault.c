#include "tests/play/fake_vault.h"

#include <stdlib.h>
#include <string.h>

#include "tests/play/play.h"

enum ask_kind { ASK_PSK_AUTH, ASK_NONCE, ASK_SKEYID, ASK_PERMITS };

struct vault_ask {
	struct fake_vault *vault;
	enum ask_kind kind;
	struct ticket ticket;
	struct timer timer;
	struct vault_ask *next;
	const struct alg *prf;
	struct ident *local, *remote;
	struct addr local_addr, remote_addr;
	uint64_t handle; /* nonce, or secret */
	bool initiator;
	uint8_t *octets; /* to be authenticated, or the peer's nonce */
	size_t len;
	union {
		vault_psk_auth_done *psk_auth;
		vault_nonce_done *nonce;
		vault_skeyid_done *skeyid;
		vault_permits_done *permits;
	} done;
};

/* 0: selector does not stand for this end. */
static unsigned
selects(const struct ident *selector, const struct ident *id,
    const struct addr *addr)
{
	struct ident *by_addr;
	unsigned fit;

	if (selector == NULL)
		return 1;
	if (id != NULL && ident_equal(selector, id))
		return 4;
	by_addr = ident_from_addr(addr);
	fit = by_addr != NULL && ident_equal(selector, by_addr) ? 2 : 0;
	/* A responder that does not know the identity yet may try it. */
	if (fit == 0 && id == NULL && selector->type != ID_IPV4_ADDR &&
	    selector->type != ID_IPV6_ADDR)
		fit = 1;
	ident_unref(by_addr);
	return fit;
}

static unsigned
fitness(const struct fake_psk *psk, const struct vault_ask *ask)
{
	unsigned a, b, best = 0;

	a = selects(psk->one, ask->local, &ask->local_addr);
	b = selects(psk->other, ask->remote, &ask->remote_addr);
	if (a > 0 && b > 0)
		best = 1 + a + 2 * b;
	a = selects(psk->other, ask->local, &ask->local_addr);
	b = selects(psk->one, ask->remote, &ask->remote_addr);
	if (a > 0 && b > 0 && 1 + a + 2 * b > best)
		best = 1 + a + 2 * b;
	return best;
}

/* The index of the n-th best PSK, or -1. */
static int
nth_best(const struct vault_ask *ask, unsigned n)
{
	const struct fake_vault *vault = ask->vault;
	bool taken[FAKE_PSKS] = { false };
	unsigned best_fit, fit;
	int best;
	size_t i;

	do {
		best = -1;
		best_fit = 0;
		for (i = 0; i < vault->psk_count; i++) {
			fit = taken[i] ? 0 : fitness(&vault->psk[i], ask);
			if (fit > best_fit) {
				best_fit = fit;
				best = (int)i;
			}
		}
		if (best < 0)
			return -1;
		taken[best] = true;
	} while (n-- > 0);
	return best;
}

static void
answer_psk_auth(struct vault_ask *ask)
{
	struct vault_psk_auth_answer answer;
	struct view part = view_text("Key Pad for IKEv2");
	uint8_t key[PRF_MAX];
	int n = nth_best(ask, 0);
	enum err err = ERR_NO_SECRET;

	memset(&answer, 0, sizeof(answer));
	if (n >= 0) {
		err = prf(
		    ask->prf, view_text(ask->vault->psk[n].psk), &part, 1, key);
		part = view_of(ask->octets, ask->len);
		if (err == OK)
			err = prf(ask->prf, view_of(key, ask->prf->out), &part,
			    1, answer.mac);
	}
	ask->done.psk_auth(
	    &ask->vault->gateway->env, ask->ticket, err, &answer);
}

static void
answer_nonce(struct vault_ask *ask)
{
	struct fake_vault *vault = ask->vault;
	struct vault_nonce_answer answer;
	struct fake_nonce *nonce = calloc(1, sizeof(*nonce));

	if (nonce == NULL)
		abort();
	nonce->handle = ++vault->handle;
	env_random(&vault->gateway->env, nonce->nonce, VAULT_NONCE);
	nonce->next = vault->nonces;
	vault->nonces = nonce;
	vault->nonce_count++;
	answer.handle = nonce->handle;
	memcpy(answer.nonce, nonce->nonce, VAULT_NONCE);
	ask->done.nonce(&vault->gateway->env, ask->ticket, OK, &answer);
}

static bool
take_nonce(
    struct fake_vault *vault, uint64_t handle, uint8_t octets[VAULT_NONCE])
{
	struct fake_nonce **at, *nonce;

	for (at = &vault->nonces; (nonce = *at) != NULL; at = &nonce->next) {
		if (nonce->handle != handle)
			continue;
		*at = nonce->next;
		memcpy(octets, nonce->nonce, VAULT_NONCE);
		free(nonce);
		vault->nonce_count--;
		return true;
	}
	return false;
}

static void
answer_skeyid(struct vault_ask *ask)
{
	struct vault_skeyid_answer answer;
	uint8_t own[VAULT_NONCE];
	struct view peer = view_of(ask->octets, ask->len), part[2];
	enum err err = OK;
	int n;

	memset(&answer, 0, sizeof(answer));
	if (!take_nonce(ask->vault, ask->handle, own))
		err = ERR_NOT_FOUND;
	part[ask->initiator ? 0 : 1] = view_of(own, sizeof(own));
	part[ask->initiator ? 1 : 0] = peer;
	while (err == OK && answer.count < VAULT_CANDIDATES &&
	       (n = nth_best(ask, answer.count)) >= 0) {
		answer.item[answer.count].secret = (uint64_t)n + 1;
		err = prf(ask->prf, view_text(ask->vault->psk[n].psk), part, 2,
		    answer.item[answer.count].skeyid);
		answer.count++;
	}
	if (err == OK && answer.count == 0)
		err = ERR_NO_SECRET;
	ask->done.skeyid(&ask->vault->gateway->env, ask->ticket, err, &answer);
}

static void
answer_permits(struct vault_ask *ask)
{
	struct fake_vault *vault = ask->vault;
	enum err err = ERR_NOT_FOUND;

	if (ask->handle >= 1 && ask->handle <= vault->psk_count)
		err = fitness(&vault->psk[ask->handle - 1], ask) > 0
		          ? OK
		          : ERR_REFUSED;
	ask->done.permits(&vault->gateway->env, ask->ticket, err);
}

static void
ask_free(struct vault_ask *ask)
{
	struct vault_ask **at;

	for (at = &ask->vault->first; *at != ask; at = &(*at)->next)
		;
	*at = ask->next;
	ask->vault->pending--;
	ident_unref(ask->local);
	ident_unref(ask->remote);
	free(ask->octets);
	free(ask);
}

static void
due(void *arg)
{
	struct vault_ask *ask = arg;

	switch (ask->kind) {
	case ASK_PSK_AUTH:
		answer_psk_auth(ask);
		break;
	case ASK_NONCE:
		answer_nonce(ask);
		break;
	case ASK_SKEYID:
		answer_skeyid(ask);
		break;
	case ASK_PERMITS:
		answer_permits(ask);
		break;
	}
	ask_free(ask);
}

static struct vault_ask *
ask_new(struct vault *base, enum ask_kind kind, struct ticket ticket)
{
	struct fake_vault *vault = (struct fake_vault *)base;
	struct play *play = vault->gateway->play;
	struct vault_ask *ask = calloc(1, sizeof(*ask));
	uint64_t at = play->timers.now_ms + 1 + play_below(play, 3);

	if (ask == NULL)
		abort();
	if (at < vault->last_ms)
		at = vault->last_ms;
	vault->last_ms = at;
	ask->vault = vault;
	ask->kind = kind;
	ask->ticket = ticket;
	ask->next = vault->first;
	vault->first = ask;
	vault->pending++;
	timer_init(&ask->timer, due, ask);
	timer_set(&play->timers, &ask->timer, at - play->timers.now_ms);
	return ask;
}

static void
ask_octets(struct vault_ask *ask, struct view octets)
{
	ask->octets = mem_dup(octets.at, octets.len);
	ask->len = octets.len;
	if (ask->octets == NULL)
		abort();
}

static enum err
fake_psk_auth(struct vault *base, const struct vault_psk_auth *wanted,
    struct ticket ticket, vault_psk_auth_done *done)
{
	struct vault_ask *ask;

	if (wanted->octets.len > VAULT_OCTETS)
		return ERR_LONG;
	ask = ask_new(base, ASK_PSK_AUTH, ticket);
	ask->prf = wanted->prf;
	ask->local = ident_ref(wanted->local);
	ask->remote = ident_ref(wanted->remote);
	ask->local_addr = wanted->local_addr;
	ask->remote_addr = wanted->remote_addr;
	ask_octets(ask, wanted->octets);
	ask->done.psk_auth = done;
	return OK;
}

static enum err
fake_nonce(struct vault *base, struct ticket ticket, vault_nonce_done *done)
{
	ask_new(base, ASK_NONCE, ticket)->done.nonce = done;
	return OK;
}

static void
fake_nonce_drop(struct vault *base, uint64_t handle)
{
	uint8_t octets[VAULT_NONCE];

	take_nonce((struct fake_vault *)base, handle, octets);
}

static enum err
fake_skeyid(struct vault *base, const struct vault_skeyid *wanted,
    struct ticket ticket, vault_skeyid_done *done)
{
	struct vault_ask *ask;

	if (wanted->peer_nonce.len < 8 || wanted->peer_nonce.len > 256)
		return ERR_LONG;
	ask = ask_new(base, ASK_SKEYID, ticket);
	ask->prf = wanted->prf;
	ask->handle = wanted->nonce;
	ask->initiator = wanted->initiator;
	ask->local = ident_ref(wanted->local);
	ask->remote = ident_ref(wanted->remote);
	ask->local_addr = wanted->local_addr;
	ask->remote_addr = wanted->remote_addr;
	ask_octets(ask, wanted->peer_nonce);
	ask->done.skeyid = done;
	return OK;
}

static enum err
fake_permits(struct vault *base, const struct vault_permits *wanted,
    struct ticket ticket, vault_permits_done *done)
{
	struct vault_ask *ask = ask_new(base, ASK_PERMITS, ticket);

	ask->handle = wanted->secret;
	ask->local = ident_ref(wanted->local);
	ask->remote = ident_ref(wanted->remote);
	ask->local_addr = wanted->local_addr;
	ask->remote_addr = wanted->remote_addr;
	ask->done.permits = done;
	return OK;
}

static void
fake_free(struct vault *base)
{
	(void)base;
}

void
fake_vault_init(struct fake_vault *vault, struct gateway *gateway)
{
	static const struct vault_ops ops = {
		.psk_auth = fake_psk_auth,
		.nonce = fake_nonce,
		.nonce_drop = fake_nonce_drop,
		.skeyid = fake_skeyid,
		.permits = fake_permits,
		.free = fake_free,
	};

	memset(vault, 0, sizeof(*vault));
	vault->vault.ops = &ops;
	vault->gateway = gateway;
}

void
fake_vault_forget(struct fake_vault *vault)
{
	struct vault_ask *ask;
	uint8_t octets[VAULT_NONCE];

	while ((ask = vault->first) != NULL) {
		timer_stop(&vault->gateway->play->timers, &ask->timer);
		ask_free(ask);
	}
	while (vault->nonces != NULL)
		take_nonce(vault, vault->nonces->handle, octets);
}

void
fake_vault_fini(struct fake_vault *vault)
{
	size_t i;

	fake_vault_forget(vault);
	for (i = 0; i < vault->psk_count; i++) {
		ident_unref(vault->psk[i].one);
		ident_unref(vault->psk[i].other);
	}
}
