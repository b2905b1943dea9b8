/*
 * proc and confine, with this program as its own children.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <linux/filter.h>
#include <linux/securebits.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/loop.h"
#include "daemon/confine.h"
#include "daemon/proc.h"

#include "config.h"

#define MESSAGE 7
#define NOBODY  65534

static const char *empty_dir = "/tmp";

/* Children -------------------------------------------------------------- */

/* What a confined process can still do: one bit for each. */
enum power {
	CAN_OPEN = 1,
	CAN_FORK = 2,
	CAN_LISTEN = 4,
	CAN_EXECUTE_MEMORY = 8,
	IS_ROOT = 16,
	SEES_FILES = 32,
	CAN_THINK = 64,   /* this one it must */
	CAN_FILTER = 128, /* what reaches a socket */
	CAN_KILL = 256,   /* others */
	CAN_THREAD = 512,
	CAN_ASK = 1024,    /* a name server */
	CAN_REACH = 2048,  /* other processes, by abstract names */
	CAN_CHANGE = 4096, /* what its siblings hold too */
	CAN_LOAD = 8192,   /* modules of odd protocols */
	CAN_WAIT = 16384   /* for a socket to take more */
};

/* Also said so that only a comparison of 64 bits sees a difference. */
static bool
can_filter(int fd)
{
	struct sock_filter all = { BPF_RET | BPF_K, 0, 0, UINT32_MAX };
	struct sock_fprog program = { 1, &all };
	bool can = false;

	for (unsigned i = 0; i < 4; i++) {
		long level = SOL_SOCKET | (i & 1 ? 1L << 32 : 0);
		long name = SO_ATTACH_FILTER | (i & 2 ? 1L << 32 : 0);

		can |= syscall(SYS_setsockopt, fd, level, name, &program,
		           sizeof(program)) == 0;
	}
	return can;
}

/* A signal of its choice comes to whoever is named by F_SETOWN. */
static bool
can_signal(int fd)
{
	return fcntl(fd, F_SETSIG, SIGKILL) == 0 ||
	       fcntl(fd, F_SETOWN, 0x3ffffff0) == 0 || errno == ESRCH;
}

/* Whoever closes such a socket last, wherever it was sent, waits. */
static bool
can_linger(int fd)
{
	struct linger linger = { 1, 3600 };

	return setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) ==
	       0;
}

static bool
can_change(int fd)
{
	int flags = fcntl(fd, F_GETFL), off = 0;

	return fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 ||
	       ioctl(fd, FIONBIO, &off) == 0 || shutdown(fd, SHUT_RD) == 0 ||
	       errno != EPERM;
}

static bool
can_reach(void)
{
	int pair[2];

	return socket(AF_UNIX, SOCK_STREAM, 0) >= 0 ||
	       socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0;
}

static void *
nothing(void *arg)
{
	return arg;
}

static bool
can_thread(void)
{
	pthread_t thread;

	return pthread_create(&thread, NULL, nothing, NULL) == 0 &&
	       pthread_join(thread, NULL) == 0;
}

static uint32_t
powers(void)
{
	uint32_t found = 0;
	void *memory;
	int fd;
	pid_t pid;

	if ((fd = open("/", O_RDONLY | O_DIRECTORY)) >= 0)
		found |= CAN_OPEN;
	if (access("/etc/passwd", F_OK) == 0)
		found |= SEES_FILES;
	pid = fork();
	if (pid == 0)
		_exit(0);
	if (pid > 0)
		found |= CAN_FORK;
	if (socket(AF_NETLINK, SOCK_RAW, 0) >= 0)
		found |= CAN_LISTEN;
	memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory != MAP_FAILED)
		found |= CAN_EXECUTE_MEMORY;
	if (geteuid() == 0)
		found |= IS_ROOT;
	memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory != MAP_FAILED && raise(0) == 0)
		found |= CAN_THINK;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		found |= CAN_ASK;
	else
		fd = PROC_FD;
	if (can_filter(fd))
		found |= CAN_FILTER;
	if (can_change(fd) || can_linger(fd))
		found |= CAN_CHANGE;
	if (can_reach())
		found |= CAN_REACH;
	/* EPROTONOSUPPORT would say that the kernel has looked for it. */
	if (socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
	        IPPROTO_SCTP) >= 0 ||
	    errno != EPERM)
		found |= CAN_LOAD;
	if (can_thread())
		found |= CAN_THREAD;
	if (poll(&(struct pollfd){ .fd = PROC_FD, .events = POLLOUT }, 1, 0) ==
	    1)
		found |= CAN_WAIT;
	if (can_signal(fd))
		found |= CAN_KILL;
	/* Nobody has this number; who may ask is told so. */
	if (syscall(SYS_tgkill, 0x3ffffff0, 0x3ffffff0, 0) == 0 ||
	    errno != EPERM)
		found |= CAN_KILL;
	return found;
}

static void
no_line(struct log *log, enum log_level level, const char *line)
{
	(void)log;
	(void)level;
	(void)line;
}

static enum err
ignore(void *arg, const struct ipc_frame *frame)
{
	(void)arg;
	(void)frame;
	return OK;
}

static const struct ipc_permit rows[] = {
	{ MESSAGE, IPC_IN | IPC_OUT, 4, 4, 0, ignore },
};

static void
tell(uint32_t value)
{
	struct loop *loop = loop_new();
	struct ipc *ipc = ipc_new(loop, PROC_FD, rows, 1, NULL, NULL);

	ipc_send(ipc, MESSAGE, 0, &value, sizeof(value));
	ipc_free(ipc);
	loop_free(loop);
}

static int
child(const char *role, const char *dir)
{
	struct log log = { .write = no_line };
	struct confine_plan plan = { .calls = CONFINE_VAULT };
	uint32_t value;

	if (strcmp(role, "hello") == 0) {
		tell(fcntl(PROC_FD + 1, F_GETFD) < 0 ? 1 : 0);
		return 0;
	}
	if (strcmp(role, "fails") == 0)
		return 3;
	if (strcmp(role, "crashes") == 0) {
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
		raise(SIGABRT);
	}
	while (strcmp(role, "waits") == 0)
		pause();
	if (geteuid() == 0) {
		plan.root = dir;
		plan.uid = plan.gid = NOBODY;
	}
	if (strcmp(role, "killed") == 0)
		setenv("ORTHRUS_SECCOMP", "kill", 1);
	else
		unsetenv("ORTHRUS_SECCOMP");
	if (strcmp(role, "gate") == 0)
		plan.calls = CONFINE_GATE;
	if (strcmp(role, "esp") == 0)
		plan.calls = CONFINE_ESP;
	if (confine_child(&log, &plan) != OK)
		return 9;
	/* In the first case this is the end. */
	value = powers();
	tell(value);
	return 0;
}

/* The parent ------------------------------------------------------------ */

struct world {
	struct loop *loop;
	struct log log;
	struct procs *procs;
	struct ipc *link;
	unsigned started, ended, messages;
	unsigned stop_after; /* ends */
	uint32_t value;
	char why[160];
	struct timer stop;
};

static struct world *world;

static enum err
got_message(void *arg, const struct ipc_frame *frame)
{
	(void)arg;
	world->messages++;
	memcpy(&world->value, frame->body.at, 4);
	return OK;
}

static const struct ipc_permit parent_rows[] = {
	{ MESSAGE, IPC_IN | IPC_OUT, 4, 4, 0, got_message },
};

static void
closed(void *arg, enum err err, const char *why)
{
	(void)arg;
	(void)err;
	(void)why;
	ipc_free(world->link);
	world->link = NULL;
}

static void
started(void *arg, struct proc *proc, int fd)
{
	(void)arg;
	assert_true(proc_pid(proc) > 0);
	world->started++;
	ipc_free(world->link);
	world->link = ipc_new(world->loop, fd, parent_rows, 1, closed, NULL);
	assert_non_null(world->link);
}

static void
ended(void *arg, struct proc *proc, const char *why)
{
	(void)arg;
	assert_int_equal(proc_pid(proc), 0);
	world->ended++;
	snprintf(world->why, sizeof(world->why), "%s", why);
	/* What it said before may be in the link still. */
	if (world->ended == world->stop_after)
		timer_set(loop_timers(world->loop), &world->stop, 20);
}

static void
stop(void *arg)
{
	(void)arg;
	loop_stop(world->loop);
}

static int
setup(void **state)
{
	static const struct proc_events events = { started, ended, NULL };
	static const char *arguments[3];

	world = calloc(1, sizeof(*world));
	*state = world;
	arguments[0] = "--dir";
	arguments[1] = empty_dir;
	world->log.write = no_line;
	world->loop = loop_new();
	timer_init(&world->stop, stop, NULL);
	world->procs = procs_new(
	    world->loop, &world->log, "/proc/self/exe", arguments, &events);
	assert_non_null(world->procs);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	procs_free(world->procs);
	ipc_free(world->link);
	loop_free(world->loop);
	free(world);
	return 0;
}

/* Runs until so many children have ended, or for ms at most. */
static void
run(unsigned ends, uint64_t ms)
{
	world->stop_after = ends;
	timer_set(loop_timers(world->loop), &world->stop, ms);
	loop_run(world->loop);
}

/* Tests ----------------------------------------------------------------- */

static void
test_link(void **state)
{
	(void)state;
	assert_non_null(proc_start(world->procs, "hello"));
	procs_stop(world->procs); /* once is enough */
	run(1, 2000);
	assert_int_equal(world->messages, 1);
	assert_int_equal(world->value, 1); /* no descriptor but its own */
	assert_string_equal(world->why, "ended with exit code 0");
	assert_int_equal(procs_running(world->procs), 0);
}

static void
test_restart(void **state)
{
	struct proc *proc = proc_start(world->procs, "fails");
	uint64_t second;

	(void)state;
	/* At once, after 100 ms, after 200 ms, ... */
	run(2, 5000);
	assert_int_equal(world->ended, 2);
	assert_string_equal(world->why, "ended with exit code 3");
	second = loop_timers(world->loop)->now_ms;
	run(3, 5000);
	assert_int_equal(world->ended, 3);
	/* run() stays 20 ms longer each time */
	assert_true(loop_timers(world->loop)->now_ms - second >= 100);
	assert_int_equal(proc_restarts(proc), world->started - 1);
	assert_string_equal(proc_role(proc), "fails");
}

static void
test_crash(void **state)
{
	(void)state;
	proc_start(world->procs, "crashes");
	procs_stop(world->procs);
	run(1, 2000);
	assert_non_null(strstr(world->why, "signal 6 (Aborted)"));
}

static void
test_kill(void **state)
{
	struct proc *proc = proc_start(world->procs, "waits");
	int32_t first = proc_pid(proc);

	(void)state;
	run(99, 50);
	assert_int_equal(world->ended, 0);
	assert_int_equal(procs_running(world->procs), 1);
	proc_kill(proc);
	run(1, 2000);
	assert_non_null(strstr(world->why, "signal 9"));
	run(99, 100);
	assert_int_equal(world->started, 2);
	assert_true(proc_pid(proc) != first && proc_pid(proc) != 0);
	/* procs_free() ends the second one: it would wait for ever. */
}

static void
test_no_program(void **state)
{
	static const struct proc_events events = { started, ended, NULL };
	static const char *const none[] = { NULL };

	(void)state;
	procs_free(world->procs);
	loop_free(world->loop); /* it watches for signals still */
	world->loop = loop_new();
	world->procs = procs_new(
	    world->loop, &world->log, "/nonexistent/orthrusd", none, &events);
	proc_start(world->procs, "hello");
	procs_stop(world->procs);
	run(1, 2000);
	assert_string_equal(world->why, "could not be executed");
}

static void
confined(const char *role, uint32_t expected)
{
	proc_start(world->procs, role);
	procs_stop(world->procs);
	run(1, 3000);
	assert_int_equal(world->messages, 1);
#ifndef ORTHRUS_SANITIZERS
	assert_int_equal(world->value, expected);
#else
	assert_int_equal(world->value & (CAN_THINK | IS_ROOT), CAN_THINK);
	(void)expected;
#endif
}

static void
test_vault(void **state)
{
	(void)state;
	confined("vault", CAN_THINK);
}

static void
test_gate(void **state)
{
	(void)state;
	confined("gate", CAN_THINK | CAN_THREAD | CAN_ASK);
}

static void
test_esp(void **state)
{
	(void)state;
	confined("esp", CAN_THINK | CAN_WAIT);
}

static void
test_killed_by_filter(void **state)
{
	(void)state;
#ifdef ORTHRUS_SANITIZERS
	skip();
#endif
	proc_start(world->procs, "killed");
	procs_stop(world->procs);
	run(1, 3000);
	assert_int_equal(world->messages, 0);
	assert_non_null(strstr(world->why, "system call"));
}

static void
test_empty_dir(void **state)
{
	char base[] = "/tmp/t_proc.XXXXXX", path[128], file[160];
	int fd;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_non_null(mkdtemp(base));
	snprintf(path, sizeof(path), "%s/a/b/empty", base);
	assert_int_equal(confine_empty_dir("relative"), ERR_REFUSED);
	assert_int_equal(confine_empty_dir(path), OK);
	assert_int_equal(confine_empty_dir(path), OK); /* there already */
	chmod(path, 0775);
	assert_int_equal(confine_empty_dir(path), ERR_REFUSED);
	chmod(path, 0755);
	assert_int_equal(chown(path, NOBODY, 0), 0);
	assert_int_equal(confine_empty_dir(path), ERR_REFUSED);
	assert_int_equal(chown(path, 0, 0), 0);
	snprintf(file, sizeof(file), "%s/file", path);
	fd = open(file, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(confine_empty_dir(path), ERR_REFUSED);
	assert_int_equal(confine_empty_dir(file), ERR_REFUSED);
	unlink(file);
	assert_int_equal(confine_empty_dir(path), OK);
	rmdir(path);
	snprintf(path, sizeof(path), "%s/a/b", base);
	rmdir(path);
	snprintf(path, sizeof(path), "%s/a", base);
	rmdir(path);
	rmdir(base);
}

/* In a process of its own: it gives its capabilities up. */
static void
test_parent_capabilities(void **state)
{
	struct log log = { .write = no_line };
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	pid = fork();
	if (pid == 0) {
		if (confine_parent(&log) != OK)
			_exit(1);
		/* SYS_ADMIN is gone, for good. */
		if (prctl(PR_CAPBSET_READ, 21) != 0)
			_exit(2);
		if (sethostname("x", 1) == 0 || errno != EPERM)
			_exit(3);
		/* SETUID is not. */
		if (setuid(NOBODY) != 0)
			_exit(4);
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* The effective capabilities of a process, as the kernel shows them. */
static unsigned long long
capabilities(pid_t pid)
{
	unsigned long long value = 1;
	char path[64], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "r");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file) != NULL)
		if (sscanf(line, "CapEff: %llx", &value) == 1)
			break;
	fclose(file);
	return value;
}

/* Neither securebits nor a user that stays leave a child any. */
static void
test_child_capabilities(void **state)
{
	struct log log = { .write = no_line };
	struct confine_plan plan = { .calls = CONFINE_GATE };
	uid_t users[] = { 0, NOBODY };
	char octet;

	(void)state;
	if (geteuid() != 0)
		skip();
	for (size_t i = 0; i < 2; i++) {
		int said[2], ends[2];
		pid_t pid;

		assert_int_equal(pipe(said) | pipe(ends), 0);
		plan.uid = plan.gid = users[i];
		pid = fork();
		if (pid == 0) {
			close(ends[1]);
			prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
			if (confine_child(&log, &plan) != OK ||
			    write(said[1], "", 1) != 1)
				_exit(1);
			_exit(read(ends[0], &octet, 1) == 0 ? 0 : 2);
		}
		assert_true(pid > 0);
		close(said[1]);
		assert_int_equal(read(said[0], &octet, 1), 1);
		assert_int_equal(capabilities(pid), 0);
		close(ends[1]);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		close(said[0]);
		close(ends[0]);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_link),
		TEST(test_restart),
		TEST(test_crash),
		TEST(test_kill),
		TEST(test_no_program),
		TEST(test_vault),
		TEST(test_gate),
		TEST(test_esp),
		TEST(test_killed_by_filter),
		cmocka_unit_test(test_empty_dir),
		cmocka_unit_test(test_parent_capabilities),
		cmocka_unit_test(test_child_capabilities),
	};
	char dir[] = "/tmp/t_proc.empty.XXXXXX";
	int failed;

	if (argc > 3 && strncmp(argv[1], "--role=", 7) == 0)
		return child(argv[1] + 7, argv[3]);
	if (argc > 1)
		return child(argv[1] + 7, "/");
	if (mkdtemp(dir) == NULL)
		return 1;
	chmod(dir, 0755);
	empty_dir = dir;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return failed;
}
