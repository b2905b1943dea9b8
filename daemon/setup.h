/*
 * setup: what the parent has read, on its way to gate.
 *
 * The parent reads ipsec.conf with all that it includes, resolv.conf, hosts
 * and the system's own addresses; gate, which has no files, comes to the same
 * policy from the same texts. Packed it is one octet string, which travels in
 * a memfd and is checked like a stranger's.
 */
#ifndef DAEMON_SETUP_H
#define DAEMON_SETUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/log.h"
#include "common/policy.h"
#include "conf/diag.h"
#include "conf/load.h"

#define SETUP_OWN  256        /* addresses of ours, at most */
#define SETUP_TEXT (1u << 20) /* octets of resolv.conf or hosts */
#define SETUP_MAX  (BUNDLE_OCTETS + (4u << 20)) /* octets when packed */

/* Zeroed is empty and valid. */
struct setup {
	char *path; /* of ipsec.conf */
	struct bundle bundle;
	struct addr own[SETUP_OWN];
	size_t own_count;
	char *resolv, *hosts; /* texts; NULL: none */
	bool keep_going;      /* what is wrong is left out */
	size_t warnings;      /* of the last reading */
};

void setup_fini(struct setup *setup);

/* Reads the files anew and the policy from them; the caller owns *policy. With
 * keep_going, what is wrong is left out (a file that cannot be read leaves
 * nothing); otherwise *policy is NULL when there were errors: see diags. */
enum err setup_read(struct setup *setup, const char *path, bool keep_going,
    struct diags *diags, struct policy **policy);

/* The policy once more, from texts that are there. NULL: out of memory. */
struct policy *setup_policy(struct setup *setup);

/* Into a new memfd, which the caller closes. ERR_IO with errno, ERR_NOMEM. */
enum err setup_send(const struct setup *setup, int *fd);
/* From a descriptor whose content is anything at all. On errors setup is
 * empty. ERR_IO, ERR_SHORT, ERR_LONG, ERR_SYNTAX, ERR_NOMEM. */
enum err setup_receive(struct setup *setup, int fd);

/* Adds to what a reload tells that there were warnings, and where they are. */
void setup_warnings_text(const struct setup *setup, char *text, size_t size);

/* Each diagnostic on a line; NULL when there is none or memory is short. The
 * caller frees it. */
char *setup_diags_text(const struct diags *diags);
/* Each as a line of the log. */
void setup_log_diags(struct log *log, const struct diags *diags);

#endif
