/*
 * install: a child SA as one thing, on its way into the data plane.
 *
 * Inbound and outbound are two steps, because the kernel sends on the newest
 * outbound SA. All calls return at once; answers come later, on the loop.
 * Whatever was asked for is taken back by install_remove() in one go, in
 * order, also when an answer is still on its way: a child is never left half
 * installed. Policies are counted by their selectors and the child's reqid
 * (kernel/reqid), so that a rekey neither removes nor doubles them.
 */
#ifndef KERNEL_INSTALL_H
#define KERNEL_INSTALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/env.h"
#include "common/sa.h"
#include "common/ticket.h"

typedef void install_done(
    struct env *env, struct ticket ticket, enum err err, const char *text);

/* Allocates child's inbound SPI; enters it by child_set_spi_in() before done
 * is called. ERR_*: done will not be called. */
enum err install_spi(struct env *env, struct child_sa *child,
    struct ticket ticket, install_done *done);

/* Installs the inbound SA and the policies (both directions; a tunnel's
 * forward too). Keys: child->keys_in. */
enum err install_inbound(struct env *env, struct child_sa *child,
    struct ticket ticket, install_done *done);

/* Installs (activates) the outbound SA; from now on the child sends on it.
 * Keys: child->keys_out. */
enum err install_outbound(struct env *env, struct child_sa *child,
    struct ticket ticket, install_done *done);

/* Both, inbound first, answered once. */
enum err install_both(struct env *env, struct child_sa *child,
    struct ticket ticket, install_done *done);

/* Takes back whatever was asked for. Never fails, no answer. linger_ms > 0
 * keeps the inbound SA so long (a replaced child's last packets). */
void
install_remove(struct env *env, struct child_sa *child, uint64_t linger_ms);

/* The outer endpoints have changed (NAT): child->local and remote hold the new
 * ones. Never fails towards the caller; a refusal is logged. */
void install_move(struct env *env, struct child_sa *child);

struct install_use {
	uint64_t octets_in, octets_out, packets_in, packets_out;
	uint64_t idle_in_ms; /* since the last inbound packet; UINT64_MAX: none
	                      * so far */
};
typedef void install_use_done(struct env *env, struct ticket ticket,
    enum err err, const struct install_use *use);
enum err install_query(struct env *env, const struct child_sa *child,
    struct ticket ticket, install_use_done *done);

/* Trap policies of auto=route: traffic for conn's selectors causes an acquire.
 * local and remote are outer addresses. */
enum err install_trap(struct env *env, struct conn *conn,
    const struct addr *local, const struct addr *remote);
void install_untrap(struct env *env, struct conn *conn);

/* Frees what this module keeps for env (env->kernel->install): counts, traps,
 * inbound SAs that linger (their removal is not asked for any more). No answer
 * may come after it. kernel_free() calls it. */
void install_free(struct env *env);
/* The data plane has lost everything: nothing is counted any more, and traps
 * must be set anew. kernel_event() calls it. */
void install_lost(struct env *env);

/* For tests and status: pairs of selectors that are counted. */
size_t install_pairs(const struct env *env);

#endif
