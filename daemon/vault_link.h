/*
 * vault_link: the parent's end of its link to the vault. It opens the files
 * that the vault asks for, and reads none of them.
 *
 * A vault that has been captured must not read the whole disk through it: it
 * gets what conf/secretpath allows.
 */
#ifndef DAEMON_VAULT_LINK_H
#define DAEMON_VAULT_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/log.h"
#include "daemon/vaultd.h"

struct loop;
struct vault_link;

struct vault_link_events {
	/* The answer to vault_link_load() with this serial. */
	void (*loaded)(
	    void *arg, uint64_t serial, const struct vaultd_loaded *loaded);
	/* The gate broke the rules of its link to the vault, and has none now.
	 */
	void (*broken)(void *arg);
	/* The vault has gone (ERR_IO) or broke the rules (ERR_REFUSED). The
	 * owner frees the link, from inside if it likes. */
	void (*closed)(void *arg, enum err err, const char *why);
	void *arg;
};

/* fd: the parent's end; becomes the link's, also on failure. path: of
 * ipsec.secrets; copied. NULL: out of memory. */
struct vault_link *vault_link_new(struct loop *loop, int fd, const char *path,
    const struct vault_link_events *events);
void vault_link_free(struct vault_link *link); /* accepts NULL */

/* Reads ipsec.secrets (again). A load under way is given up and answered with
 * ERR_CANCELLED. serial is not 0. */
enum err vault_link_load(struct vault_link *link, uint64_t serial);
/* Hands the vault its end of a link to a new gate; fd stays the caller's. */
enum err vault_link_gate(struct vault_link *link, int fd);
enum err vault_link_level(struct vault_link *link, enum log_level level);

#endif
