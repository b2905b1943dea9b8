/*
 * sense: whether the settings of a connection make sense together, once each
 * of them has been read. Decides which end is ours.
 */
#ifndef CONF_SENSE_H
#define CONF_SENSE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/addr.h"
#include "common/policy.h"
#include "conf/diag.h"

/* conn->local holds left and conn->remote right; afterwards they are what
 * their names say. Reports to diags at place. False: the connection cannot be
 * used. */
bool conn_make_sense(struct conn *conn, const struct addr *own,
    size_t own_count, struct diags *diags, struct place place);

#endif
