/*
 * vaultd: the process that holds the long-term secrets.
 *
 * It opens nothing itself. The parent hands over the link to the gate and, one
 * by one, the descriptors of the secrets files that it asks for; only this
 * process reads them. Requests of the gate are worked off as they come, a
 * datagram at a time, and the answers of a turn leave together. A gate that
 * breaks the rules of its link loses it, and the parent is told.
 */
#ifndef DAEMON_VAULTD_H
#define DAEMON_VAULTD_H

#include <stdint.h>

#include "common/ipc.h"
#include "common/log.h"

/* Between parent and vault. Texts are UTF-8 without a NUL at their end. */
enum vaultd_message {
	/* parent to vault */
	VAULTD_GATE = IPC_VAULT + 50, /* a descriptor: the link to a new gate */
	VAULTD_LOAD, /* serial of this load; the path of ipsec.secrets */
	VAULTD_FILE, /* serial; its path, and a descriptor open for reading */
	VAULTD_PROBLEM, /* serial; path, NUL, why it could not be opened */
	VAULTD_FETCHED, /* serial: that was all for the pattern asked for */
	VAULTD_LEVEL,   /* uint32_t: enum log_level */
	/* vault to parent */
	VAULTD_FETCH,  /* serial; a pattern: answered by files, problems and
	               * VAULTD_FETCHED */
	VAULTD_LOADED, /* serial; struct vaultd_loaded */
	VAULTD_BROKEN  /* the gate broke the rules of its link */
};

#define VAULTD_PATH 4096 /* octets of a path or pattern, at most */
#define VAULTD_TEXT 8192

struct vaultd_loaded {
	uint32_t err;    /* OK: in force. Else the secrets before still are */
	uint32_t count;  /* secrets */
	uint32_t errors; /* bad lines that were left out */
	uint32_t warnings;
	uint32_t text_len;
	char text[VAULTD_TEXT]; /* diagnostics, a line each */
};

/* Serves on the link PROC_FD (fd) until the parent ends it. Confined already.
 * Returns the exit code. */
int vaultd_run(struct log *log, int fd);

#endif
