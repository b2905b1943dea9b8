/*
 * vault: the asking side of the process that holds long-term secrets.
 *
 * Requests are typed, never "prf with this key", and answers come later, on
 * the loop, never from inside the call. A caller that has gone by then is
 * found out by its ticket. When the vault dies and is started anew, requests
 * under way are sent again; IKEv1 nonces that it had drawn are lost and answer
 * ERR_NOT_FOUND. Implementations: the process (over ipc), the same code in
 * this process (--no-privsep), and the simulation's.
 *
 * What a request may carry is bounded: see VAULT_OCTETS.
 */
#ifndef COMMON_VAULT_H
#define COMMON_VAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/alg.h"
#include "common/ident.h"
#include "common/mem.h"
#include "common/prf.h"
#include "common/ticket.h"

struct env;
struct loop;
struct vault;

#define VAULT_OCTETS     16384 /* a message to be authenticated, at most */
#define VAULT_NONCE      32    /* octets of an IKEv1 nonce that it draws */
#define VAULT_CANDIDATES 8     /* PSKs tried for one unknown peer */
#define VAULT_UNDER_WAY  8192  /* requests not answered yet, at most */

/* RFC 7296 2.15: both steps. octets is RealMessage | Nonce | prf(SK_p, ID').
 * The PSK is the one that fits both identities best: the remote ID named, with
 * the local end before alone; then the remote address, likewise; then the local
 * end, then none. Of the local end, too, the ID comes before the address. */
struct vault_psk_auth {
	const struct alg *prf;
	const struct ident *local, *remote;
	struct addr local_addr, remote_addr;
	struct view octets;
};
struct vault_psk_auth_answer {
	uint8_t mac[PRF_MAX]; /* prf->out octets */
};

/* IKEv1: our nonce is drawn by the vault and named by handle ever after. */
struct vault_nonce_answer {
	uint64_t handle;
	uint8_t nonce[VAULT_NONCE];
};

/* RFC 2409 5: SKEYID = prf(PSK, Ni_b | Nr_b), the vault's nonce in its role's
 * place. Main Mode knows addresses only: every PSK that fits them is tried by
 * the caller in order, best first, at most VAULT_CANDIDATES. */
struct vault_skeyid {
	const struct alg *prf;
	uint64_t nonce;         /* handle */
	bool initiator;         /* our nonce is Ni */
	struct view peer_nonce; /* 8 to 256 octets (RFC 2409 5) */
	/* NULL where the ID is not known beforehand (a responder) */
	const struct ident *local, *remote;
	struct addr local_addr, remote_addr;
};
struct vault_skeyid_answer {
	unsigned count;
	struct {
		uint64_t secret; /* names the PSK in vault_permits */
		uint8_t skeyid[PRF_MAX];
	} item[VAULT_CANDIDATES];
};

/* May this PSK authenticate these identities (and addresses)? */
struct vault_permits {
	uint64_t secret;
	const struct ident *local, *remote;
	struct addr local_addr, remote_addr;
};

typedef void vault_psk_auth_done(struct env *env, struct ticket ticket,
    enum err err, const struct vault_psk_auth_answer *answer);
typedef void vault_nonce_done(struct env *env, struct ticket ticket,
    enum err err, const struct vault_nonce_answer *answer);
typedef void vault_skeyid_done(struct env *env, struct ticket ticket,
    enum err err, const struct vault_skeyid_answer *answer);
typedef void
vault_permits_done(struct env *env, struct ticket ticket, enum err err);

/* Submission copies what it needs. ERR_NOMEM, ERR_LONG or ERR_LIMIT (too many
 * under way): done will not be called. Otherwise done is called once, with
 * ERR_NO_SECRET when no PSK fits, ERR_NOT_FOUND for a handle that has gone,
 * ERR_REFUSED for what the vault will not do. */
struct vault_ops {
	enum err (*psk_auth)(struct vault *, const struct vault_psk_auth *,
	    struct ticket, vault_psk_auth_done *);
	enum err (*nonce)(struct vault *, struct ticket, vault_nonce_done *);
	void (*nonce_drop)(struct vault *, uint64_t handle);
	enum err (*skeyid)(struct vault *, const struct vault_skeyid *,
	    struct ticket, vault_skeyid_done *);
	enum err (*permits)(struct vault *, const struct vault_permits *,
	    struct ticket, vault_permits_done *);
	void (*free)(struct vault *);
};

struct vault {
	const struct vault_ops *ops;
};

static inline enum err
vault_psk_auth(struct vault *vault, const struct vault_psk_auth *ask,
    struct ticket ticket, vault_psk_auth_done *done)
{
	return vault->ops->psk_auth(vault, ask, ticket, done);
}

static inline enum err
vault_nonce(struct vault *vault, struct ticket ticket, vault_nonce_done *done)
{
	return vault->ops->nonce(vault, ticket, done);
}

static inline void
vault_nonce_drop(struct vault *vault, uint64_t handle)
{
	vault->ops->nonce_drop(vault, handle);
}

static inline enum err
vault_skeyid(struct vault *vault, const struct vault_skeyid *ask,
    struct ticket ticket, vault_skeyid_done *done)
{
	return vault->ops->skeyid(vault, ask, ticket, done);
}

static inline enum err
vault_permits(struct vault *vault, const struct vault_permits *ask,
    struct ticket ticket, vault_permits_done *done)
{
	return vault->ops->permits(vault, ask, ticket, done);
}

static inline void
vault_free(struct vault *vault)
{
	if (vault)
		vault->ops->free(vault);
}

/* The vault in a process of its own. fd is an end of ipc_pair() that becomes
 * the vault's; -1: none yet, requests wait. When the link ends, lost (may be
 * NULL) is told why, from the loop; requests wait for vault_remote_relink(),
 * which sends all that are under way to the new process. NULL: out of memory
 * (fd is closed). */
struct vault *vault_remote_new(struct env *env, struct loop *loop, int fd,
    void (*lost)(struct env *env, enum err err, const char *why));
/* On failure fd is closed and requests go on waiting. */
enum err vault_remote_relink(struct vault *vault, int fd);

#endif
