/*
 * confine: takes away from a process what it does not need.
 *
 * The parent keeps a handful of capabilities and cuts its bounding set, so
 * that nothing that it starts gets more. A child gives up root, its file
 * system and most system calls. In a build with sanitizers the root stays, and
 * so do system calls and core dumps: they need /proc and more calls than ours.
 *
 * A system call that a child's list does not have fails with EPERM and is
 * logged by the kernel's audit; with ORTHRUS_SECCOMP=kill in the environment
 * (as our tests set it) it ends the process instead.
 */
#ifndef DAEMON_CONFINE_H
#define DAEMON_CONFINE_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/log.h"

/* Keeps NET_ADMIN, NET_RAW, NET_BIND_SERVICE, SETUID, SETGID, SYS_CHROOT and
 * KILL, as far as they are there, and no other capability. No core dumps. */
enum err confine_parent(struct log *log);

/* Makes an empty directory (and those above it), owned by root, writable for
 * nobody else. ERR_REFUSED: something else is there. */
enum err confine_empty_dir(const char *path);

enum confine_calls {
	CONFINE_GATE,  /* packets, sockets for DNS, threads */
	CONFINE_VAULT, /* its links, and descriptors that came over them */
	CONFINE_ESP    /* as the vault's, and packets */
};

struct confine_plan {
	enum confine_calls calls;
	const char *root; /* an empty directory; NULL: stays (not root) */
	uid_t uid;        /* 0: stays what it is */
	gid_t gid;
	bool lock_memory; /* as far as the system allows */
};

/* To be called before threads exist. On failure the child must end. */
enum err confine_child(struct log *log, const struct confine_plan *plan);

/* Ends this process when its parent does. False if it already has (parent: its
 * process ID as it was, or 0 when not known). */
bool confine_with_parent(pid_t parent);

#endif
