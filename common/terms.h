/*
 * terms: does what is in force still allow what is live? A reload leaves live
 * SAs alone; it is at their renewal that the connection of the same name
 * counts. What it allows no longer is not renewed, which would keep it for ever
 * (RFC 7296 2.9.2: a rekeyed child is never narrower; 2.18: a rekeyed IKE SA
 * authenticates nobody), but stale: to be made anew.
 */
#ifndef COMMON_TERMS_H
#define COMMON_TERMS_H

#include <stdbool.h>

#include "common/sa.h"

/* The connection in force is for the same peer, identities and authentication.
 * Also true when it has gone: then all of it is closed anyway. */
bool terms_sa(const struct ike_sa *sa);
/* ... and allows this mode and these selectors of a child. */
bool terms_child(const struct child_sa *child, const struct ts_list *local,
    const struct ts_list *remote);

/* Marks the IKE SA as stale, and tells EVENT_STALE, once. why completes "not
 * rekeyed: ". */
void terms_end_sa(struct ike_sa *sa, const char *why);
/* The same for a child that terms_child() does not allow. */
void terms_end_child(struct child_sa *child);

/* What terms_end_sa() says of an IKE SA that terms_sa() does not allow. */
#define TERMS_PEER "its connection has another peer, identity or secret now"

#endif
