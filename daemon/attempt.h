/*
 * attempt: one try to bring a connection up: whose turn it is, addresses, the
 * engine, and what becomes of it. A part of keeper.
 */
#ifndef DAEMON_ATTEMPT_H
#define DAEMON_ATTEMPT_H

#include "daemon/keep.h"

struct child_sa;

/* Makes it up if it is not, or sets its trap if that is all it wants. */
void attempt_begin(struct keep *keep);

/* Is there an address to go to? */
bool attempt_reachable(const struct keep *keep);

/* The connection's child that is up, or NULL. */
struct child_sa *attempt_child(struct keep *keep);

/* Timers: of a keep's act and retry, and of the keeper's queue. */
void attempt_look(void *keep);
void attempt_retry(void *keep);
void attempt_queue(void *keeper);

#endif
