/*
 * pairs: the policies of child SAs, counted.
 *
 * Each pair of a child's selectors (ours, theirs) of one family is a policy
 * outbound, one inbound and, for a tunnel, one for forwarding. Pairs are
 * counted below their reqid: a rekey adds a user, and the last one takes the
 * policies along. They stand between the outer addresses of whoever asked
 * last; if that one goes, they are set for another.
 */
#ifndef KERNEL_PAIRS_H
#define KERNEL_PAIRS_H

#include "common/env.h"
#include "common/sa.h"

struct install;
struct op;

/* child's selectors of one side as packets bear them. */
void pairs_list(const struct child_sa *child, bool local, struct ts_list *list);

/* Asks for all of child's policies, as part of op. On failure what was asked
 * is taken back. ERR_TS: there is no pair of one family. */
enum err pairs_add(struct env *env, struct child_sa *child, struct op *op);
/* child's outer addresses are new. */
enum err pairs_move(struct env *env, struct child_sa *child, struct op *op);
void pairs_drop(struct env *env, struct child_sa *child);
/* Forgets all counts. */
void pairs_forget(struct install *install);

#endif
