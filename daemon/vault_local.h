/*
 * vault_local: the vault in the same process, for --no-privsep and tests. The
 * same keyring, the same answers; they come from the loop, as ever.
 */
#ifndef DAEMON_VAULT_LOCAL_H
#define DAEMON_VAULT_LOCAL_H

#include "common/vault.h"
#include "daemon/keyring.h"

/* keyring becomes the vault's, also on failure. Answers come by env->timers,
 * nonces by the keyring's source of chance. NULL: out of memory. */
struct vault *vault_local_new(struct env *env, struct keyring *keyring);
/* To give it new secrets. */
struct keyring *vault_local_keyring(struct vault *vault);

#endif
