/*
 * print: what a configuration came to mean, for orthrusd --check.
 */
#ifndef CONF_PRINT_H
#define CONF_PRINT_H

#include <stddef.h>
#include <stdio.h>

#include "common/policy.h"
#include "conf/diag.h"

/* Every diagnostic on a line of its own, then the connections understood and a
 * line of totals; policy may be NULL. The same as one JSON object. */
void
conf_print(FILE *out, const struct diags *diags, const struct policy *policy);
void conf_print_json(
    FILE *out, const struct diags *diags, const struct policy *policy);

/* "203.0.113.9", "%any", "10.0.0.0/24,vpn.example.org"; cut at size octets.
 * Returns text. */
char *conf_hosts_text(const struct conn_end *end, char *text, size_t size);

#endif
