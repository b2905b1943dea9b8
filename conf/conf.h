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
#include <stdio.h>

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

/* For --check: every diagnostic on a line of its own, then a table of the
 * connections understood; policy may be NULL. The same as one JSON object. */
void
conf_print(FILE *out, const struct diags *diags, const struct policy *policy);
void conf_print_json(
    FILE *out, const struct diags *diags, const struct policy *policy);

/* "203.0.113.9", "%any", "10.0.0.0/24,vpn.example.org"; cut at size octets. */
char *conf_hosts_text(const struct conn_end *end, char *text, size_t size);

#endif
