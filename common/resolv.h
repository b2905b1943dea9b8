/*
 * resolv: what resolv.conf(5) and hosts(5) say, as plain values.
 */
#ifndef COMMON_RESOLV_H
#define COMMON_RESOLV_H

#include <stddef.h>

#include "common/addr.h"
#include "common/err.h"

#define RESOLV_SERVERS 3 /* as resolv.conf(5): MAXNS */
#define RESOLV_SEARCH  6
#define RESOLV_NAME    256 /* octets of a name, with NUL */

struct resolv_host {
	struct addr addr;
	const char *name; /* in the copy of the text */
};

struct resolv {
	struct addr server[RESOLV_SERVERS];
	unsigned server_count;
	char search[RESOLV_SEARCH][RESOLV_NAME];
	unsigned search_count;
	unsigned timeout_ms, attempts, ndots;
	struct resolv_host *hosts; /* one row a name, in the file's order */
	size_t host_count;
	char *hosts_text;
};

/* Reads the texts; lines that make no sense are passed over. Without text there
 * are no servers; a text that names none means 127.0.0.1. ERR_NOMEM, and the
 * struct is empty. */
enum err
resolv_read(struct resolv *resolv, const char *text, const char *hosts);
void resolv_fini(struct resolv *resolv);

#endif
