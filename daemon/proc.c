#include "daemon/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/loop.h"
#include "daemon/confine.h"

#define ARGUMENTS 32
#define PAUSE_MIN 100 /* ms before the second start in a row; doubles */
#define PAUSE_MAX 30000
#define STEADY_MS 60000 /* a child that lived so long starts at once */
#define WHY_MAX   160

struct proc {
	struct procs *procs;
	struct proc *next;
	const char *role;
	pid_t pid; /* 0: does not run */
	uint32_t restarts;
	uint64_t started_ms, pause_ms;
	struct timer timer;
};

struct procs {
	struct loop *loop;
	struct log *log;
	const char *exe;
	const char *const *arguments;
	struct proc_events events;
	struct proc *first;
	bool stopped;
};

/* Runs in the child between fork and execve: async-signal-safe calls only.
 * The parent has one thread, and nobody shares its memory. */
static void __attribute__((noreturn))
become(const struct procs *procs, const char *role, int fd)
{
	const char *argv[ARGUMENTS];
	char option[64];
	size_t count = 0;
	sigset_t none;

	snprintf(option, sizeof(option), "--role=%s", role);
	argv[count++] = "orthrusd";
	argv[count++] = option;
	for (size_t i = 0; procs->arguments[i] != NULL && count < ARGUMENTS - 1;
	     i++)
		argv[count++] = procs->arguments[i];
	argv[count] = NULL;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* An interrupt from the terminal is for the parent: its children end
	 * by its word. */
	setpgid(0, 0);
	confine_with_parent(0);
	if (fd == PROC_FD) {
		if (fcntl(fd, F_SETFD, 0) != 0)
			_exit(126);
	} else if (dup2(fd, PROC_FD) != PROC_FD) {
		_exit(126);
	}
	execv(procs->exe, (char *const *)(uintptr_t)argv);
	_exit(127);
}

static void
proc_run(struct proc *proc)
{
	struct procs *procs = proc->procs;
	uint64_t now = loop_timers(procs->loop)->now_ms;
	int pair[2] = { -1, -1 };
	pid_t pid = -1;

	proc->started_ms = now;
	if (ipc_pair(pair) == OK)
		pid = fork();
	if (pid == 0)
		become(procs, proc->role, pair[1]);
	if (pair[1] >= 0)
		close(pair[1]);
	if (pid < 0) {
		log_write(procs->log, LOG_LEVEL_ERROR,
		    "%s cannot be started: %s", proc->role, strerror(errno));
		if (pair[0] >= 0)
			close(pair[0]);
		timer_set(loop_timers(procs->loop), &proc->timer, PAUSE_MAX);
		return;
	}
	proc->pid = pid;
	log_write(procs->log, LOG_LEVEL_DEBUG, "%s is process %d", proc->role,
	    (int)pid);
	procs->events.started(procs->events.arg, proc, pair[0]);
}

static void
proc_due(void *arg)
{
	struct proc *proc = arg;

	if (proc->pid != 0 || proc->procs->stopped)
		return;
	proc->restarts++;
	proc_run(proc);
}

static void
describe(int status, char why[static WHY_MAX])
{
	int number;

	if (WIFSIGNALED(status)) {
		number = WTERMSIG(status);
		snprintf(why, WHY_MAX, "was killed by signal %d (%s)%s", number,
		    strsignal(number),
		    number == SIGSYS ? ": a system call that it may not make"
		                     : "");
	} else if (WEXITSTATUS(status) == 127) {
		snprintf(why, WHY_MAX, "could not be executed");
	} else {
		snprintf(why, WHY_MAX, "ended with exit code %d",
		    WEXITSTATUS(status));
	}
}

static void
proc_gone(struct proc *proc, int status)
{
	struct procs *procs = proc->procs;
	struct timers *timers = loop_timers(procs->loop);
	uint64_t lived = timers->now_ms - proc->started_ms;
	char why[WHY_MAX];

	describe(status, why);
	proc->pid = 0;
	if (lived >= STEADY_MS || proc->pause_ms == 0)
		proc->pause_ms = PAUSE_MIN / 2;
	if (!procs->stopped) {
		/* At once after a long life, and the first time. */
		timer_set(timers, &proc->timer,
		    proc->pause_ms < PAUSE_MIN ? 0 : proc->pause_ms);
		proc->pause_ms *= 2;
		if (proc->pause_ms > PAUSE_MAX)
			proc->pause_ms = PAUSE_MAX;
		log_write(procs->log, LOG_LEVEL_ERROR,
		    "%s %s; it is started again", proc->role, why);
	} else {
		log_write(
		    procs->log, LOG_LEVEL_DEBUG, "%s %s", proc->role, why);
	}
	procs->events.ended(procs->events.arg, proc, why);
}

static void
child_signal(int number, void *arg)
{
	struct procs *procs = arg;
	struct proc *proc;
	int status;
	pid_t pid;

	(void)number;
	/* One signal may stand for many. Only ours are waited for. */
	for (proc = procs->first; proc != NULL; proc = proc->next) {
		if (proc->pid == 0)
			continue;
		do {
			pid = waitpid(proc->pid, &status, WNOHANG);
		} while (pid < 0 && errno == EINTR);
		if (pid == proc->pid &&
		    (WIFEXITED(status) || WIFSIGNALED(status)))
			proc_gone(proc, status);
	}
}

struct procs *
procs_new(struct loop *loop, struct log *log, const char *exe,
    const char *const *arguments, const struct proc_events *events)
{
	struct procs *procs = calloc(1, sizeof(*procs));

	if (procs == NULL)
		return NULL;
	procs->loop = loop;
	procs->log = log;
	procs->exe = exe;
	procs->arguments = arguments;
	procs->events = *events;
	if (!loop_signal(loop, SIGCHLD, child_signal, procs)) {
		free(procs);
		return NULL;
	}
	return procs;
}

void
procs_free(struct procs *procs)
{
	if (procs == NULL)
		return;
	while (procs->first != NULL) {
		struct proc *proc = procs->first;

		procs->first = proc->next;
		timer_stop(loop_timers(procs->loop), &proc->timer);
		if (proc->pid != 0) {
			kill(proc->pid, SIGKILL);
			while (
			    waitpid(proc->pid, NULL, 0) < 0 && errno == EINTR)
				;
		}
		free(proc);
	}
	free(procs);
}

struct proc *
proc_start(struct procs *procs, const char *role)
{
	struct proc *proc = calloc(1, sizeof(*proc)), **at;

	if (proc == NULL)
		return NULL;
	proc->procs = procs;
	proc->role = role;
	timer_init(&proc->timer, proc_due, proc);
	for (at = &procs->first; *at != NULL; at = &(*at)->next)
		;
	*at = proc;
	proc_run(proc);
	return proc;
}

void
proc_kill(struct proc *proc)
{
	if (proc->pid != 0)
		kill(proc->pid, SIGKILL);
}

void
procs_stop(struct procs *procs)
{
	procs->stopped = true;
	for (struct proc *proc = procs->first; proc != NULL; proc = proc->next)
		timer_stop(loop_timers(procs->loop), &proc->timer);
}

size_t
procs_running(const struct procs *procs)
{
	size_t count = 0;

	for (const struct proc *proc = procs->first; proc != NULL;
	     proc = proc->next)
		count += proc->pid != 0;
	return count;
}

void
proc_detach(int last)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; null >= 0 && fd <= last; fd++)
		if (fd != null)
			dup2(null, fd);
	if (null > last)
		close(null);
}

const char *
proc_role(const struct proc *proc)
{
	return proc->role;
}

int32_t
proc_pid(const struct proc *proc)
{
	return proc->pid;
}

uint32_t
proc_restarts(const struct proc *proc)
{
	return proc->restarts;
}
