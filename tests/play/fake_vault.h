/*
 * fake_vault: a vault whose answers come later, in order, with jitter.
 */
#ifndef TESTS_PLAY_FAKE_VAULT_H
#define TESTS_PLAY_FAKE_VAULT_H

#include "common/timer.h"
#include "common/vault.h"

#define FAKE_PSKS 32

struct gateway;

struct fake_psk {
	struct ident *one, *other; /* NULL: any */
	char psk[80];
};

struct fake_nonce {
	uint64_t handle;
	uint8_t nonce[VAULT_NONCE];
	struct fake_nonce *next;
};

struct fake_vault {
	struct vault vault;
	struct gateway *gateway;
	struct fake_psk psk[FAKE_PSKS];
	size_t psk_count;
	struct fake_nonce *nonces;
	uint64_t handle;
	size_t pending, nonce_count;
	uint64_t last_ms; /* answers keep their order */
	struct vault_ask *first;
};

void fake_vault_init(struct fake_vault *vault, struct gateway *gateway);
void fake_vault_fini(struct fake_vault *vault);
void fake_vault_forget(struct fake_vault *vault); /* drops what is pending */

#endif
