#include "daemon/keyring.h"

#include <stdlib.h>
#include <string.h>

#include "common/iana.h"
#include "common/mem.h"
#include "common/prf.h"
#include "conf/secrets.h"

#define IKE_HEADER   28
#define PADS         256  /* a power of two */
#define CHANCE       1024 /* octets drawn at once */
#define V2_NONCE_MIN 16   /* RFC 7296 2.10 */
#define V1_NONCE_MIN 8    /* RFC 2409 5 */
#define V1_NONCE_MAX 256

/* prf(PSK, "Key Pad for IKEv2") of a PSK that was used before: as secret as the
 * PSK, and half of the work of the next request. */
struct pad {
	uint64_t secret; /* 0: empty */
	uint8_t prf;     /* enum alg_id */
	uint8_t key[PRF_MAX];
};

struct drawn {
	uint64_t handle; /* 0: empty */
	uint8_t nonce[VAULT_NONCE];
};

struct keyring {
	bool (*random)(void *arg, void *octets, size_t len);
	void *random_arg;
	struct secrets *secrets, *before; /* either may be NULL */
	uint64_t handle; /* the last one given out; begins anywhere */
	size_t chance_left;
	uint8_t chance[CHANCE];
	struct pad pad[PADS];
	/* By handle modulo size, so that the oldest makes room. */
	struct drawn drawn[KEYRING_NONCES];
};

struct keyring *
keyring_new(
    bool (*random)(void *arg, void *octets, size_t len), void *random_arg)
{
	struct keyring *keyring = calloc(1, sizeof(*keyring));

	if (!keyring)
		return NULL;
	keyring->random = random;
	keyring->random_arg = random_arg;
	/* Handles of a vault that died must mean nothing to the next one. */
	if (!random(random_arg, &keyring->handle, sizeof(keyring->handle))) {
		free(keyring);
		return NULL;
	}
	return keyring;
}

static void
forget_pads(struct keyring *keyring)
{
	mem_wipe(keyring->pad, sizeof(keyring->pad));
}

void
keyring_free(struct keyring *keyring)
{
	if (!keyring)
		return;
	secrets_unref(keyring->secrets);
	secrets_unref(keyring->before);
	mem_wipe(keyring, sizeof(*keyring));
	free(keyring);
}

void
keyring_use(struct keyring *keyring, struct secrets *secrets)
{
	secrets_unref(keyring->before);
	keyring->before = keyring->secrets;
	keyring->secrets = secrets;
	forget_pads(keyring);
}

void
keyring_forget(struct keyring *keyring)
{
	secrets_unref(keyring->before);
	keyring->before = NULL;
}

/* IKEv2 -------------------------------------------------------------------- */

/* RFC 7296 2.15: what is authenticated begins with the message of the
 * IKE_SA_INIT exchange, a nonce and a PRF's output. Nothing else is done with
 * the PSK, however it is asked for. */
static bool
framed(struct view octets, const struct alg *prf_alg)
{
	struct view rest = octets;
	uint8_t next, version, exchange, flags;
	uint32_t id, len;

	if (octets.len > VAULT_OCTETS || !view_skip(&rest, 16) ||
	    !view_u8(&rest, &next) || !view_u8(&rest, &version) ||
	    !view_u8(&rest, &exchange) || !view_u8(&rest, &flags) ||
	    !view_u32(&rest, &id) || !view_u32(&rest, &len))
		return false;
	return version >> 4 == 2 && exchange == EXCH_IKE_SA_INIT && id == 0 &&
	       len >= IKE_HEADER && len <= octets.len &&
	       octets.len - len >= (size_t)V2_NONCE_MIN + prf_alg->out;
}

/* RFC 7296 2.15: prf(Shared Secret, "Key Pad for IKEv2"), 17 octets without a
 * NUL. */
static enum err
pad_key(struct keyring *keyring, const struct secrets_entry *entry,
    const struct alg *prf_alg, const uint8_t **key)
{
	const struct view text = view_text("Key Pad for IKEv2");
	struct pad *pad =
	    &keyring->pad[(entry->number * 4 + prf_alg->id) & (PADS - 1)];
	enum err err;

	*key = pad->key;
	if (pad->secret == entry->number && pad->prf == prf_alg->id)
		return OK;
	pad->secret = 0;
	err = prf(prf_alg, secret_view(&entry->psk), &text, 1, pad->key);
	if (err)
		return err;
	pad->secret = entry->number;
	pad->prf = prf_alg->id;
	return OK;
}

enum err
keyring_psk_auth(struct keyring *keyring, const struct vault_psk_auth *ask,
    struct vault_psk_auth_answer *answer)
{
	const struct secrets_entry *entry;
	const uint8_t *key;
	enum err err;

	memset(answer, 0, sizeof(*answer));
	if (!ask->prf || ask->prf->kind != ALG_PRF ||
	    !framed(ask->octets, ask->prf))
		return ERR_REFUSED;
	if (!keyring->secrets)
		return ERR_NO_SECRET;
	entry = secrets_find_best(keyring->secrets, ask->local, ask->remote,
	    &ask->local_addr, &ask->remote_addr);
	if (!entry) {
		static const uint8_t none[PRF_MAX];

		/* As long as with one: see v2_auth_r_identify(). */
		prf(ask->prf, view_of(none, ask->prf->out), &ask->octets, 1,
		    answer->mac);
		memset(answer, 0, sizeof(*answer));
		return ERR_NO_SECRET;
	}
	err = pad_key(keyring, entry, ask->prf, &key);
	if (err)
		return err;
	return prf(ask->prf, view_of(key, ask->prf->out), &ask->octets, 1,
	    answer->mac);
}

/* IKEv1 -------------------------------------------------------------------- */

enum err
keyring_nonce(struct keyring *keyring, struct vault_nonce_answer *answer)
{
	struct drawn *drawn;
	uint8_t *from;

	if (keyring->chance_left < VAULT_NONCE) {
		if (!keyring->random(keyring->random_arg, keyring->chance,
		        sizeof(keyring->chance)))
			return ERR_CRYPTO;
		keyring->chance_left = sizeof(keyring->chance);
	}
	keyring->chance_left -= VAULT_NONCE;
	from = keyring->chance + keyring->chance_left;
	if (++keyring->handle == 0)
		keyring->handle = 1;
	drawn = &keyring->drawn[keyring->handle % KEYRING_NONCES];
	drawn->handle = keyring->handle;
	memcpy(drawn->nonce, from, VAULT_NONCE);
	mem_wipe(from, VAULT_NONCE);
	answer->handle = drawn->handle;
	memcpy(answer->nonce, drawn->nonce, VAULT_NONCE);
	return OK;
}

static struct drawn *
find_drawn(struct keyring *keyring, uint64_t handle)
{
	struct drawn *drawn = &keyring->drawn[handle % KEYRING_NONCES];

	return handle && drawn->handle == handle ? drawn : NULL;
}

void
keyring_nonce_drop(struct keyring *keyring, uint64_t handle)
{
	struct drawn *drawn = find_drawn(keyring, handle);

	if (drawn)
		mem_wipe(drawn, sizeof(*drawn));
}

enum err
keyring_skeyid(struct keyring *keyring, const struct vault_skeyid *ask,
    struct vault_skeyid_answer *answer)
{
	const struct secrets_entry *found[VAULT_CANDIDATES];
	struct drawn *drawn = find_drawn(keyring, ask->nonce);
	struct view parts[2];
	size_t count, i;
	enum err err = OK;

	memset(answer, 0, sizeof(*answer));
	if (!drawn)
		return ERR_NOT_FOUND;
	if (!ask->prf || ask->prf->kind != ALG_PRF ||
	    ask->peer_nonce.len < V1_NONCE_MIN ||
	    ask->peer_nonce.len > V1_NONCE_MAX) {
		mem_wipe(drawn, sizeof(*drawn));
		return ERR_REFUSED;
	}
	count = keyring->secrets
	            ? secrets_candidates(keyring->secrets, ask->local,
	                  ask->remote, &ask->local_addr, &ask->remote_addr,
	                  found, VAULT_CANDIDATES)
	            : 0;
	/* RFC 2409 5: SKEYID = prf(pre-shared-key, Ni_b | Nr_b). With our 32
	 * octets in it, this is never prf(PSK, "Key Pad for IKEv2"). */
	parts[ask->initiator ? 0 : 1] = view_of(drawn->nonce, VAULT_NONCE);
	parts[ask->initiator ? 1 : 0] = ask->peer_nonce;
	for (i = 0; i < count && !err; i++) {
		answer->item[i].secret = found[i]->number;
		err = prf(ask->prf, secret_view(&found[i]->psk), parts, 2,
		    answer->item[i].skeyid);
	}
	mem_wipe(drawn, sizeof(*drawn));
	if (err) {
		mem_wipe(answer, sizeof(*answer));
		return err;
	}
	answer->count = (unsigned)count;
	return count ? OK : ERR_NO_SECRET;
}

static bool
same_psk(const struct secrets_entry *a, const struct secrets_entry *b)
{
	return mem_equal_secret(secret_view(&a->psk), secret_view(&b->psk));
}

/* The PSK of this number. After a reload: the one that is the same PSK and
 * stands for the same ends now. */
static const struct secrets_entry *
find_secret(struct keyring *keyring, const struct vault_permits *ask)
{
	const struct secrets_entry *entry, *old, *found[VAULT_CANDIDATES];
	size_t count, i;

	entry = secrets_by_number(keyring->secrets, ask->secret);
	if (entry || !keyring->before)
		return entry;
	old = secrets_by_number(keyring->before, ask->secret);
	if (!old)
		return NULL;
	count = secrets_candidates(keyring->secrets, ask->local, ask->remote,
	    &ask->local_addr, &ask->remote_addr, found, VAULT_CANDIDATES);
	for (i = 0; i < count; i++) {
		if (same_psk(found[i], old))
			return found[i];
	}
	return NULL;
}

static bool
names(const struct secrets_entry *entry, const struct ident *ident)
{
	unsigned i;

	for (i = 0; i < entry->selector_count; i++) {
		if (ident_equal(entry->selectors[i], ident))
			return true;
	}
	return false;
}

enum err
keyring_permits(struct keyring *keyring, const struct vault_permits *ask)
{
	const struct secrets_entry *entry, *best;

	if (!keyring->secrets)
		return ERR_NOT_FOUND;
	if (!ask->local || !ask->remote)
		return ERR_REFUSED;
	entry = find_secret(keyring, ask);
	if (!entry)
		return ERR_NOT_FOUND;
	if (!secret_permits(entry, ask->local, ask->remote, &ask->local_addr,
	        &ask->remote_addr))
		return ERR_REFUSED;
	best = secrets_find_best(keyring->secrets, ask->local, ask->remote,
	    &ask->local_addr, &ask->remote_addr);
	if (best && best != entry && names(best, ask->remote) &&
	    !names(entry, ask->remote) && !same_psk(best, entry))
		return ERR_REFUSED;
	return OK;
}
