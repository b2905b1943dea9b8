/*
 * reqid: the numbers by which the data plane ties a child's SAs and policies
 * together. RFC 4301 4.4.1.2.
 *
 * Children of one connection with the same selectors share one: a rekey keeps
 * it, and so does a child that the peer makes beside another. All others get
 * their own, from REQID_CHILD_FIRST on: of several peers behind one NAT, whose
 * SAs have the same outer addresses, each has its traffic on its own SAs.
 * Traps have their connection's number, which no SA has.
 */
#ifndef KERNEL_REQID_H
#define KERNEL_REQID_H

#include <stdint.h>

#include "common/err.h"
#include "common/sa.h"

struct install;

/* Sets child->reqid by its selectors, which are agreed, unless it is set.
 * ERR_NOMEM. */
enum err reqid_join(struct install *install, struct child_sa *child);
/* One more user of a number that is in use, and one less. 0: nothing. */
void reqid_hold(struct install *install, uint32_t number);
void reqid_leave(struct install *install, uint32_t number);

void reqids_init(struct install *install, const uint64_t seed[static 2]);
void reqids_forget(struct install *install); /* all, whoever has them */
void reqids_fini(struct install *install);   /* after reqids_forget() */

#endif
