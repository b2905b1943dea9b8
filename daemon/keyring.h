/*
 * keyring: what the vault does with secrets, as plain calls.
 *
 * Holds a snapshot of ipsec.secrets and the nonces that it has drawn for
 * IKEv1. Nothing here waits or sends: vaultd serves it to another process,
 * vault_local to the same one. The rules that make a captured asker harmless
 * are kept here (common/vault.h, doc/design.md): a nonce of ours is used once,
 * octets to be authenticated must begin with an IKE_SA_INIT message, and no PSK
 * ever leaves.
 */
#ifndef DAEMON_KEYRING_H
#define DAEMON_KEYRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/vault.h"

struct keyring;
struct secrets;

#define KEYRING_NONCES 16384 /* drawn and not used yet; the oldest go first */

/* random as in struct env. NULL: out of memory. */
struct keyring *keyring_new(
    bool (*random)(void *arg, void *octets, size_t len), void *random_arg);
void keyring_free(struct keyring *keyring); /* wipes; accepts NULL */

/* Takes one reference over. The snapshot before is kept for IKEv1 handshakes
 * that began with it, until keyring_forget() or the next one. */
void keyring_use(struct keyring *keyring, struct secrets *secrets);
void keyring_forget(struct keyring *keyring);

/* The requests of common/vault.h. Identities and views are borrowed. */
enum err keyring_psk_auth(struct keyring *keyring,
    const struct vault_psk_auth *ask, struct vault_psk_auth_answer *answer);
enum err
keyring_nonce(struct keyring *keyring, struct vault_nonce_answer *answer);
void keyring_nonce_drop(struct keyring *keyring, uint64_t handle);
/* The nonce is gone afterwards, whatever the result. */
enum err keyring_skeyid(struct keyring *keyring, const struct vault_skeyid *ask,
    struct vault_skeyid_answer *answer);
/* ERR_REFUSED when the PSK's selectors do not name these ends, or when another
 * PSK names the remote identity and this one does not: whoever shares a key
 * with many cannot pass for one who has a key of its own. */
enum err
keyring_permits(struct keyring *keyring, const struct vault_permits *ask);

#endif
