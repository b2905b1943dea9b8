#include "daemon/confine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"

#ifdef ORTHRUS_SANITIZERS
#define SANITIZED true
#else
#define SANITIZED false
#endif

#define LOCKED_MAX (1u << 30) /* octets that a child may lock in memory */

/* Capabilities ---------------------------------------------------------- */

static const cap_value_t kept[] = {
	CAP_NET_ADMIN,
	CAP_NET_RAW,
	CAP_NET_BIND_SERVICE,
	CAP_SETUID,
	CAP_SETGID,
	CAP_SYS_CHROOT,
	CAP_KILL,
};
#define KEPT (sizeof(kept) / sizeof(kept[0]))

static bool
is_kept(cap_value_t cap)
{
	for (size_t i = 0; i < KEPT; i++)
		if (kept[i] == cap)
			return true;
	return false;
}

static void
no_core(void)
{
	struct rlimit none = { 0, 0 };

	if (SANITIZED)
		return;
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

enum err
confine_parent(struct log *log)
{
	struct rlimit locked = { LOCKED_MAX, LOCKED_MAX };
	cap_t now = cap_get_proc(), next = cap_init();
	cap_flag_value_t has;
	enum err err = ERR_IO;

	if (now == NULL || next == NULL)
		goto out;
	/* Children inherit it; best effort (needs SYS_RESOURCE). */
	setrlimit(RLIMIT_MEMLOCK, &locked);
	no_core();
	/* The bounding set first: that needs SETPCAP. What cannot be dropped
	 * from it was not there to give. */
	for (cap_value_t cap = 0; cap_get_bound(cap) >= 0; cap++)
		if (!is_kept(cap) && cap_get_bound(cap) == 1)
			cap_drop_bound(cap);
	for (size_t i = 0; i < KEPT; i++) {
		if (cap_get_flag(now, kept[i], CAP_PERMITTED, &has) != 0)
			goto out;
		if (has != CAP_SET) {
			log_write(log, LOG_LEVEL_DEBUG,
			    "this system withholds capability %d from us",
			    (int)kept[i]);
			continue;
		}
		if (cap_set_flag(next, CAP_PERMITTED, 1, &kept[i], CAP_SET) !=
		        0 ||
		    cap_set_flag(next, CAP_EFFECTIVE, 1, &kept[i], CAP_SET) !=
		        0)
			goto out;
	}
	if (cap_set_proc(next) != 0)
		goto out;
	err = OK;
out:
	if (err != OK)
		log_write(log, LOG_LEVEL_ERROR,
		    "capabilities cannot be given up: %s", strerror(errno));
	cap_free(now);
	cap_free(next);
	return err;
}

/* An empty root --------------------------------------------------------- */

static enum err
make_dir(const char *path)
{
	struct stat stat;

	if (mkdir(path, 0755) == 0)
		return OK;
	if (errno != EEXIST)
		return ERR_IO;
	if (lstat(path, &stat) != 0)
		return ERR_IO;
	/* Distributions have /var/run as a link; what it leads to counts. */
	if (S_ISLNK(stat.st_mode) && fstatat(AT_FDCWD, path, &stat, 0) != 0)
		return ERR_IO;
	return S_ISDIR(stat.st_mode) ? OK : ERR_REFUSED;
}

enum err
confine_empty_dir(const char *path)
{
	char part[4096];
	struct stat stat;
	struct dirent *entry;
	bool empty = true;
	DIR *dir;
	enum err err;

	if (path[0] != '/' || strlen(path) >= sizeof(part))
		return ERR_REFUSED;
	for (const char *at = path + 1;; at++) {
		if (*at != '/' && *at != '\0')
			continue;
		snprintf(part, sizeof(part), "%.*s", (int)(at - path), path);
		err = make_dir(part);
		if (err != OK)
			return err;
		if (*at == '\0')
			break;
	}
	if (lstat(path, &stat) != 0)
		return ERR_IO;
	if (!S_ISDIR(stat.st_mode) || stat.st_uid != 0 ||
	    (stat.st_mode & (S_IWGRP | S_IWOTH)) != 0)
		return ERR_REFUSED;
	dir = opendir(path);
	if (dir == NULL)
		return ERR_IO;
	while ((entry = readdir(dir)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 &&
		    strcmp(entry->d_name, "..") != 0)
			empty = false;
	closedir(dir);
	return empty ? OK : ERR_REFUSED;
}

/* System calls ---------------------------------------------------------- */

/* What every child needs. Where a list names calls that our C library does not
 * make, another release of it, or of libevent, makes them instead. */
static const int calls_common[] = {
	/* memory; mmap and mprotect are below */
	SCMP_SYS(brk),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	/* locks, of OpenSSL too */
	SCMP_SYS(futex),
	/* time, where the system has no clock without a call; chance */
	SCMP_SYS(clock_gettime),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	SCMP_SYS(getrandom),
	/* the loop, and the pipe with which signals wake it */
	SCMP_SYS(epoll_create1),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2),
	SCMP_SYS(pipe2),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(restart_syscall),
	/* links, files that were handed over, the log */
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	SCMP_SYS(fstat),
	SCMP_SYS(close),
	/* OpenSSL looks whether it was forked or is privileged */
	SCMP_SYS(getpid),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getegid),
	/* the end; raise() and abort() ask who they are */
	SCMP_SYS(gettid),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

static const int calls_gate[] = {
	/* IKE; the source address towards a peer; name servers */
	SCMP_SYS(recvmmsg),
	SCMP_SYS(sendmmsg),
	SCMP_SYS(recvfrom),
	SCMP_SYS(connect),
	SCMP_SYS(getsockname),
	/* clients of the control socket, and who they are */
	SCMP_SYS(accept4),
	SCMP_SYS(getsockopt),
	/* the configuration, in a file without a name */
	SCMP_SYS(pread64),
	/* the pool: its threads and how they wake the loop */
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(eventfd2),
};

/* It asks for the path MTU by connecting a socket that sends nothing, and waits
 * for room in a socket that is full. */
static const int calls_esp[] = {
	SCMP_SYS(recvmmsg),
	SCMP_SYS(sendmmsg),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(connect),
	SCMP_SYS(getsockopt),
};

/* Refused in words instead of death: libraries ask and can do without. */
static const int calls_refused[] = { SCMP_SYS(open), SCMP_SYS(openat),
	SCMP_SYS(stat), SCMP_SYS(access), SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
	SCMP_SYS(statx), SCMP_SYS(prlimit64), SCMP_SYS(getrlimit),
	SCMP_SYS(prctl), SCMP_SYS(ioctl), SCMP_SYS(uname), SCMP_SYS(sysinfo),
	SCMP_SYS(sched_setaffinity), SCMP_SYS(sched_setscheduler),
	SCMP_SYS(sched_getparam), SCMP_SYS(sched_getscheduler),
	SCMP_SYS(get_mempolicy), SCMP_SYS(set_mempolicy) };

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int
allow(scmp_filter_ctx filter, const int *calls, size_t count)
{
	int failed = 0;

	for (size_t i = 0; i < count; i++) {
		/* A call that this architecture has not got is no call. */
		if (calls[i] < 0)
			continue;
		failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
	}
	return failed;
}

/* Calls of which only some forms are good. */
static int
allow_some(scmp_filter_ctx filter)
{
	int failed = 0;

	/* Memory is never executable. */
	failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
	    SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect),
	    1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* Signals to itself, as abort() and raise() send them; its siblings may
	 * run as the same user. */
	failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
	    SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
	/* A copy, and whether a descriptor survives execve. What others hold
	 * too is not theirs to change, and neither F_SETOWN nor F_SETSIG sends
	 * a signal to a sibling. */
	failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
	    SCMP_A1(SCMP_CMP_EQ, F_DUPFD_CLOEXEC, 0));
	failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
	    SCMP_A1(SCMP_CMP_EQ, F_GETFD, 0));
	failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
	    SCMP_A1(SCMP_CMP_EQ, F_GETFL, 0));
	/* The C library wants another way to a system log that has gone. There
	 * is none from an empty root, but names that are no files would still
	 * lead to other processes. */
	failed |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES),
	    SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0));
	failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat),
	    1, SCMP_A3(SCMP_CMP_MASKED_EQ, 0x1000, 0x1000)); /* AT_EMPTY_PATH */
	failed |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOENT),
	    SCMP_SYS(newfstatat), 1, SCMP_A3(SCMP_CMP_MASKED_EQ, 0x1000, 0));
	return failed;
}

/* Threads, no processes. clone3 hides its flags in memory: the C library falls
 * back to clone. */
static int
allow_threads(scmp_filter_ctx filter)
{
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
	           SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD)) |
	       seccomp_rule_add(
	           filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

/* Questions to name servers, by UDP and TCP alone: other protocols would have
 * the kernel load modules. All other sockets are the parent's, as are their
 * options: whoever could set those would take away the filter that divides
 * port 4500, or make the last process to close one wait. */
static int
allow_sockets(scmp_filter_ctx filter)
{
	static const int families[] = { AF_INET, AF_INET6 };
	static const int types[] = { SOCK_DGRAM, SOCK_STREAM };
	int failed = 0;

	for (size_t i = 0; i < COUNT(families) * COUNT(types); i++)
		failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW,
		    SCMP_SYS(socket), 3,
		    SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i / 2], 0),
		    SCMP_A1(SCMP_CMP_EQ,
		        (scmp_datum_t)types[i % 2] | SOCK_CLOEXEC |
		            SOCK_NONBLOCK,
		        0),
		    SCMP_A2(SCMP_CMP_EQ, 0, 0));
	return failed;
}

static enum err
confine_calls(enum confine_calls which)
{
	const char *wish = getenv("ORTHRUS_SECCOMP");
	bool kill = wish != NULL && strcmp(wish, "kill") == 0;
	scmp_filter_ctx filter =
	    seccomp_init(kill ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ERRNO(EPERM));
	int failed = 0;

	if (filter == NULL)
		return ERR_NOMEM;
	if (!kill)
		failed |= seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
	failed |= seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	failed |= allow(filter, calls_common, COUNT(calls_common));
	failed |= allow_some(filter);
	switch (which) {
	case CONFINE_GATE:
		failed |= allow(filter, calls_gate, COUNT(calls_gate));
		failed |= allow_sockets(filter);
		failed |= allow_threads(filter);
		break;
	case CONFINE_VAULT:
		break;
	case CONFINE_ESP:
		failed |= allow(filter, calls_esp, COUNT(calls_esp));
		break;
	}
	for (size_t i = 0; i < COUNT(calls_refused); i++)
		if (calls_refused[i] >= 0)
			failed |= seccomp_rule_add(filter,
			    SCMP_ACT_ERRNO(EACCES), calls_refused[i], 0);
	if (failed == 0)
		failed = seccomp_load(filter);
	seccomp_release(filter);
	return failed == 0 ? OK : ERR_IO;
}

/* Only where the limit leaves room for all that may come: a small one would
 * make later allocations fail. */
static void
lock_memory(struct log *log)
{
	struct rlimit locked;

	if (SANITIZED)
		return;
	if (getrlimit(RLIMIT_MEMLOCK, &locked) != 0 ||
	    locked.rlim_cur < LOCKED_MAX ||
	    mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
		log_write(log, LOG_LEVEL_DEBUG,
		    "memory with secrets may be swapped out: the limit of "
		    "locked memory is small");
}

/* A child --------------------------------------------------------------- */

bool
confine_with_parent(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
		return false;
	return parent == 0 || getppid() == parent;
}

/* A change of user takes them away, but not from whoever was started as another
 * one with ambient capabilities, or with securebits that say otherwise. */
static bool
drop_capabilities(void)
{
	cap_t none = cap_init();
	bool dropped = none != NULL && cap_set_proc(none) == 0;

	cap_free(none);
	return dropped;
}

static bool
drop_user(const struct confine_plan *plan)
{
	if (plan->uid == 0)
		return drop_capabilities();
	return setgroups(0, NULL) == 0 &&
	       setresgid(plan->gid, plan->gid, plan->gid) == 0 &&
	       setresuid(plan->uid, plan->uid, plan->uid) == 0 &&
	       drop_capabilities() && setuid(0) != 0; /* there is no way back */
}

enum err
confine_child(struct log *log, const struct confine_plan *plan)
{
	const char *what;

	what = "its root";
	if (plan->root != NULL && !SANITIZED &&
	    (chroot(plan->root) != 0 || chdir("/") != 0))
		goto fail;
	what = "its user";
	if (!drop_user(plan))
		goto fail;
	what = "new privileges";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		goto fail;
	no_core();
	if (plan->lock_memory)
		lock_memory(log);
	/* A change of user has cleared it. */
	what = "its parent's death";
	if (!confine_with_parent(0))
		goto fail;
	what = "its system calls";
	if (!SANITIZED && confine_calls(plan->calls) != OK)
		goto fail;
	return OK;
fail:
	log_write(log, LOG_LEVEL_ERROR, "cannot confine this process: %s: %s",
	    what, strerror(errno));
	return ERR_IO;
}
