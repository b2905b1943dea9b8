/*
 * dh: key exchange as jobs: draws a key pair, derives a shared secret, or
 * both, on a worker.
 */
#ifndef COMMON_DH_H
#define COMMON_DH_H

#include <stdbool.h>

#include "common/kex.h"
#include "common/worker.h"

/* What came out; own is the caller's to keep or free, shared likewise. err is
 * ERR_KE when the peer's value breaks RFC 6989. */
struct dh_result {
	enum err err;
	struct kex *own;
	struct secret shared;
};

/* done() receives the result in struct ticket's place and takes what it wants
 * out of result (set own to NULL, secret_move); the rest is wiped and freed.
 *
 * dh_generate: a new pair for alg. dh_derive: own goes along and comes back in
 * the result. dh_both: a new pair and the secret with peer; the pair comes
 * back spent (kex_spend). peer is copied.
 * ERR_NOMEM: nothing was submitted, and own still belongs to the caller. */
enum err dh_generate(struct workers *workers, const struct alg *alg,
    struct ticket ticket,
    void (*done)(struct env *, struct ticket, struct dh_result *));
enum err dh_derive(struct workers *workers, struct kex *own, struct view peer,
    struct ticket ticket,
    void (*done)(struct env *, struct ticket, struct dh_result *));
enum err dh_both(struct workers *workers, const struct alg *alg,
    struct view peer, struct ticket ticket,
    void (*done)(struct env *, struct ticket, struct dh_result *));

#endif
