/*
 * proc: starts our other processes, watches them and starts them again.
 *
 * A child is the same program, executed anew with --role=NAME, never only
 * forked: a fork would carry the parent's memory along. Its link to the parent
 * is descriptor PROC_FD; it has standard error, and no other descriptor until
 * one is sent. It dies with the parent. One that ends by itself is started
 * again, at once at first, later after a while that doubles up to 30 s; after
 * a minute of life it has a fresh start.
 */
#ifndef DAEMON_PROC_H
#define DAEMON_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/err.h"
#include "common/ipc.h"
#include "common/log.h"
#include "common/timer.h"

struct loop;

#define PROC_FD 3 /* the child's end of its link */

/* Messages between parent and gate (IPC_PROC's range). */
enum proc_message {
	/* parent to gate */
	PROC_START = IPC_PROC, /* struct proc_start; sockets: see there. Once */
	PROC_POLICY,   /* serial: of the reload that is answered, or 0; a memfd
	                * with the packed policy, resolv.conf, hosts */
	PROC_VAULT,    /* a link to a new vault */
	PROC_KERNEL,   /* a link to the data plane's server. Once */
	PROC_FACTS,    /* struct control_facts */
	PROC_RELOADED, /* serial as asked; it failed: diagnostics as text */
	PROC_SHUTDOWN, /* uint32_t: milliseconds that may pass */
	PROC_STRAY,    /* struct proc_stray and octets: IKE that the userland
	                * data plane received on the NAT-T port */
	/* gate to parent */
	PROC_READY,  /* serves: its sockets are open, its policy in force */
	PROC_RELOAD, /* serial of the asker */
	PROC_DONE,   /* the shutdown is complete */
	/* both ways */
	PROC_LEVEL /* uint32_t: enum log_level */
};

/* Descriptors, in this order, those only whose bit is set. */
enum proc_socket {
	PROC_SOCKET_IKE4,
	PROC_SOCKET_IKE6,
	PROC_SOCKET_NATT4,
	PROC_SOCKET_NATT6,
	PROC_SOCKET_PROBE4, /* see struct net_sockets */
	PROC_SOCKET_PROBE6,
	PROC_SOCKET_CONTROL,
	PROC_SOCKETS
};
struct proc_start {
	uint32_t sockets; /* bits 1 << enum proc_socket */
	uint32_t threads; /* of the pool; 0: see workers_new() */
	uint16_t ike_port, natt_port;
};

struct proc_stray {
	struct endpoint local, remote;
};

#define PROC_TEXT 16384 /* octets of PROC_RELOADED's text, at most */

struct proc;
struct procs;

struct proc_events {
	/* A new process runs. fd is our end of its link and the callee's. */
	void (*started)(void *arg, struct proc *proc, int fd);
	/* It is no more. why: "was killed by signal 11 (Segmentation fault)" */
	void (*ended)(void *arg, struct proc *proc, const char *why);
	void *arg;
};

/* exe: the program ("/proc/self/exe"). arguments: what every child gets after
 * --role=NAME, NULL at the end; borrowed. Takes SIGCHLD over. NULL: out of
 * memory. */
struct procs *procs_new(struct loop *loop, struct log *log, const char *exe,
    const char *const *arguments, const struct proc_events *events);
/* Kills what is left (SIGKILL) and waits for it. The loop, whose watch for
 * signals stays, must not run any more. Accepts NULL. */
void procs_free(struct procs *procs);

/* Starts a child of this role (borrowed, static). ended() and log tell about
 * failures, also the first. NULL: out of memory. */
struct proc *proc_start(struct procs *procs, const char *role);
/* Ends it (SIGKILL); it is started again after it has ended. For one that
 * broke the rules of its link. */
void proc_kill(struct proc *proc);
/* From now on nothing is started again. */
void procs_stop(struct procs *procs);
/* Children that run. */
size_t procs_running(const struct procs *procs);

/* Descriptors 0 to last lead nowhere from now on: whoever started us does not
 * wait for the end of what it reads from us. */
void proc_detach(int last);

const char *proc_role(const struct proc *proc);
int32_t proc_pid(const struct proc *proc); /* 0: does not run */
uint32_t proc_restarts(const struct proc *proc);

#endif
