/*
 * conf: ipsec.conf to policy.
 *
 * All files of a bundle are read into sections of settings; connections are
 * put together from %default, what also= names, and their own settings; each
 * setting goes through its row of the schema. A bad value rejects its
 * connection and is reported; an unknown keyword is reported and nothing else.
 */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include <stdbool.h>
#include <stddef.h>

#include "common/addr.h"
#include "common/policy.h"
#include "conf/diag.h"
#include "conf/lex.h"
#include "conf/load.h"

#define CONNS_MAX    200000 /* sections of one configuration */
#define SETTINGS_MAX 4000000

struct conf_options {
	const char *path; /* of ipsec.conf, as asked of the bundle */
	/* This host's addresses: the end whose host is one of them is the
	 * local one; where neither or both are, left is. */
	const struct addr *own;
	size_t own_count;
	/* First start: what is wrong is left out and the rest goes on. */
	bool keep_going;
};

/* The policy, with one reference, or NULL when there were errors (see
 * diags) and keep_going is not set, or when memory is short (an error, too).
 * Touches no file but through bundle. */
struct policy *conf_load(struct bundle *bundle,
    const struct conf_options *options, struct diags *diags);

#endif
