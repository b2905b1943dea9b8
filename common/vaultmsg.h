/*
 * vaultmsg: what stands in the messages between the vault's asking side and
 * its process. Requests are encoded octet by octet and read through views,
 * since lengths vary; the vault trusts no asker.
 */
#ifndef COMMON_VAULTMSG_H
#define COMMON_VAULTMSG_H

#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/ident.h"
#include "common/ipc.h"
#include "common/vault.h"

/* An answer has its request's serial. */
enum vaultmsg_type {
	VAULT_PSK_AUTH = IPC_VAULT,
	VAULT_PSK_AUTH_ANSWER, /* struct vaultmsg_psk_auth */
	VAULT_NONCES,          /* uint32_t: how many, 1 to VAULTMSG_NONCES */
	VAULT_NONCES_ANSWER,   /* struct vaultmsg_nonces */
	VAULT_NONCE_DROP,      /* uint64_t: handle; no answer */
	VAULT_SKEYID,
	VAULT_SKEYID_ANSWER, /* struct vaultmsg_skeyid */
	VAULT_PERMITS,
	VAULT_PERMITS_ANSWER /* uint32_t: enum err */
};

#define VAULTMSG_NONCES 64
/* Of one encoded request: two identities, two addresses, what is fixed. */
#define VAULTMSG_ENDS (2 * (IDENT_MAX + 3) + 2 * 17)
#define VAULTMSG_MAX  (VAULTMSG_ENDS + VAULT_OCTETS + 16)

struct vaultmsg_psk_auth {
	uint32_t err;
	struct vault_psk_auth_answer answer;
};

struct vaultmsg_nonces {
	uint32_t err;
	uint32_t count;
	struct vault_nonce_answer item[VAULTMSG_NONCES];
};

struct vaultmsg_skeyid {
	uint32_t err;
	struct vault_skeyid_answer answer;
};

/* Each writes a request into buf, which may become full. */
void vaultmsg_put_psk_auth(struct buf *buf, const struct vault_psk_auth *ask);
void vaultmsg_put_skeyid(struct buf *buf, const struct vault_skeyid *ask);
void vaultmsg_put_permits(struct buf *buf, const struct vault_permits *ask);

/* Each reads one; views in it borrow from octets. On OK the identities are the
 * caller's, to be given back by vaultmsg_done(). ERR_SHORT, ERR_LONG,
 * ERR_SYNTAX, ERR_NOMEM. */
enum err vaultmsg_get_psk_auth(struct view octets, struct vault_psk_auth *ask);
enum err vaultmsg_get_skeyid(struct view octets, struct vault_skeyid *ask);
enum err vaultmsg_get_permits(struct view octets, struct vault_permits *ask);
void vaultmsg_done(const struct ident *local, const struct ident *remote);

#endif
