/*
 * orthrusd: reads the command line and becomes what it asks for: the parent,
 * one of its children (--role, for the parent's use alone), all in one
 * process, or a check of the files.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <malloc.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/env.h"
#include "common/log.h"
#include "conf/print.h"
#include "conf/secretpath.h"
#include "conf/secrets.h"
#include "daemon/confine.h"
#include "daemon/espd.h"
#include "daemon/gate.h"
#include "daemon/host.h"
#include "daemon/parent.h"
#include "daemon/proc.h"
#include "daemon/setup.h"
#include "daemon/single.h"
#include "daemon/vaultd.h"

#include "config.h"

#define CONF    SYSCONFDIR "/ipsec.conf"
#define SECRETS SYSCONFDIR "/ipsec.secrets"
#define SOCKET  RUNSTATEDIR "/orthrus.ctl"
#define USER    "_orthrus"

#define EXPOSED "%s: it is not its owner's alone: chmod 600"

#define EXIT_USAGE  2
#define THREADS_MAX 256

/* Roles ----------------------------------------------------------------- */

static int
run_gate(struct log *log)
{
	return gate_run(log);
}

static int
run_vault(struct log *log)
{
	return vaultd_run(log, PROC_FD);
}

static int
run_esp(struct log *log)
{
	return espd_run(log, PROC_FD);
}

static const struct role {
	const char *name;
	enum confine_calls calls;
	bool lock_memory;
	int (*run)(struct log *log);
} roles[] = {
	{ "gate", CONFINE_GATE, false, run_gate },
	{ "vault", CONFINE_VAULT, true, run_vault },
	{ "esp", CONFINE_ESP, true, run_esp },
};

struct command {
	struct options options;
	bool check, json, secrets_given, user_given;
	const char *role, *root;
	uid_t uid;
	gid_t gid;
};

/*
 * Two arenas, the loop's and one for all pool threads: what these allocate the
 * loop frees, and each arena keeps leftovers of its own. No fast bins: they
 * are merged at every large request, in the middle of each handshake.
 */
static void
tune_malloc(void)
{
	(void)mallopt(M_ARENA_MAX, 2);
	(void)mallopt(M_MXFAST, 0);
}

static int
role_run(const struct command *command, struct log *log)
{
	struct confine_plan plan = {
		.root = command->root,
		.uid = command->uid,
		.gid = command->gid,
	};
	uint8_t octet;

	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
		if (strcmp(roles[i].name, command->role) != 0)
			continue;
		plan.calls = roles[i].calls;
		plan.lock_memory = roles[i].lock_memory;
		signal(SIGINT, SIG_IGN);
		signal(SIGHUP, SIG_IGN);
		signal(SIGPIPE, SIG_IGN);
		/* Whoever ends a whole service at once, as systemd does, means
		 * the parent: peers must be told first. */
		signal(SIGTERM, SIG_IGN);
		/* What libraries read from files, they read now: the time
		 * zone, and OpenSSL its configuration on first use. */
		tzset();
		if (!env_random_openssl(NULL, &octet, 1))
			log_write(log, LOG_LEVEL_WARNING,
			    "no random octets from OpenSSL");
		close_range(PROC_FD + 1, ~0u, 0);
		proc_detach(command->options.foreground ? STDOUT_FILENO
		                                        : STDERR_FILENO);
		/* The log's socket is opened anew. */
		if (!command->options.foreground)
			log_to_syslog(log, log->level, "orthrusd");
		if (confine_child(log, &plan) != OK)
			return 1;
		return roles[i].run(log);
	}
	fprintf(stderr, "orthrusd: no role %s\n", command->role);
	return EXIT_USAGE;
}

/* The paths of files survive the change to the root directory. */
static const char *
absolute(const char *path, char whole[static PATH_MAX])
{
	char cwd[PATH_MAX];

	if (path[0] == '/')
		return path;
	if (getcwd(cwd, sizeof(cwd)) == NULL ||
	    snprintf(whole, PATH_MAX, "%s/%s", cwd, path) >= PATH_MAX) {
		fprintf(
		    stderr, "orthrusd: %s: %s\n", path, strerror(ENAMETOOLONG));
		exit(1);
	}
	return whole;
}

/* --check --------------------------------------------------------------- */

static size_t
check_secrets(const struct command *command)
{
	struct bundle bundle;
	struct diags diags = { 0 };
	struct secrets *secrets;
	char whole[PATH_MAX];
	const char *path = absolute(command->options.secrets, whole);
	char *text;
	size_t errors;

	if (!command->secrets_given && access(path, R_OK) != 0)
		return 0;
	bundle_init(&bundle, secretpath_read, (void *)(uintptr_t)path);
	secrets = secrets_load(&bundle, path, 1, &diags);
	bundle_fini(&bundle);
	errors = diags.errors + (secrets == NULL);
	text = setup_diags_text(&diags);
	if (text != NULL)
		fprintf(stderr, "%s\n", text);
	if (secretpath_exposed(path))
		fprintf(stderr, "warning: " EXPOSED "\n", path);
	if (!command->json && secrets != NULL)
		printf("%s: %zu secret%s\n", path, secrets_count(secrets),
		    secrets_count(secrets) == 1 ? "" : "s");
	free(text);
	diags_fini(&diags);
	secrets_unref(secrets);
	return errors;
}

static int
check_run(const struct command *command)
{
	struct diags diags = { 0 };
	struct policy *policy = NULL;
	struct setup setup;
	size_t errors;

	/* What can be understood is shown beside what cannot. */
	setup_read(&setup, command->options.conf, true, &diags, &policy);
	errors = diags.errors + (policy == NULL);
	if (command->json)
		conf_print_json(stdout, &diags, policy);
	else
		conf_print(stdout, &diags, policy);
	policy_unref(policy);
	setup_fini(&setup);
	diags_fini(&diags);
	errors += check_secrets(command);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(
		    stderr, "orthrusd: cannot write: %s\n", strerror(errno));
		return 1;
	}
	return errors > 0 ? 1 : 0;
}

/* Into the background --------------------------------------------------- */

struct both {
	struct log stderr_log, syslog_log;
};

/* Until all serves, whoever started us reads along. */
static void
write_both(struct log *log, enum log_level level, const char *line)
{
	struct both *both = log->arg;

	both->syslog_log.write(&both->syslog_log, level, line);
	both->stderr_log.write(&both->stderr_log, level, line);
}

/* The first process waits until its child serves, and ends. Returns in the
 * child only. */
static int
go_background(void)
{
	int ready[2];
	char octet;
	ssize_t got;
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
		perror("orthrusd");
		exit(1);
	}
	if (pid == 0) {
		close(ready[0]);
		setsid();
		return ready[1];
	}
	close(ready[1]);
	do {
		got = read(ready[0], &octet, 1);
	} while (got < 0 && errno == EINTR);
	if (got != 1)
		fprintf(stderr, "orthrusd: did not start\n");
	exit(got == 1 ? 0 : 1);
}

/* Where one of the first three is missing, a socket or the lock would take its
 * place, and its end when we leave the terminal. */
static void
fill_standard(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static bool
is_plain_user(const char *name)
{
	const struct passwd *user = getpwnam(name);

	return user != NULL && user->pw_uid != 0;
}

static int
serve(struct command *command, struct log *log)
{
	struct options *options = &command->options;
	struct both both;

	signal(SIGPIPE, SIG_IGN);
	umask(077);
	fill_standard();
	if (command->user_given && !is_plain_user(options->user)) {
		fprintf(stderr,
		    "orthrusd: --user: found \"%.60s\"; expected a user of "
		    "this system without privileges\n",
		    options->user);
		return 1;
	}
	if (access(options->conf, R_OK) != 0) {
		fprintf(stderr, "orthrusd: %s: %s\n", options->conf,
		    strerror(errno));
		return 1;
	}
	if (!options->foreground) {
		close_range(STDERR_FILENO + 1, ~0u, 0);
		options->ready = go_background();
		log_to_stderr(&both.stderr_log, options->level);
		log_to_syslog(&both.syslog_log, options->level, "orthrusd");
		log->write = write_both;
		log->arg = &both;
	}
	if (secretpath_exposed(options->secrets))
		log_write(log, LOG_LEVEL_WARNING, EXPOSED, options->secrets);
	if (chdir("/") != 0)
		return 1;
	return options->no_privsep ? single_run(options, log)
	                           : parent_run(options, log);
}

/* The command line ------------------------------------------------------ */

static void
usage(FILE *out)
{
	fputs(
	    "usage: orthrusd [-f] [-c FILE] [-s FILE] [--control SOCKET]\n"
	    "                [--data-plane auto|xfrm|userland|none]\n"
	    "                [--log error|warning|info|debug] [--user NAME]\n"
	    "                [--port N] [--natt-port N] [--threads N]\n"
	    "                [--no-privsep]\n"
	    "       orthrusd --check [--json] [-s FILE] [FILE]\n"
	    "       orthrusd --version | --help\n\n"
	    "  -f               stay in the foreground, log to stderr\n"
	    "  -c, --conf       " CONF "\n"
	    "  -s, --secrets    " SECRETS "\n"
	    "  --control        " SOCKET "\n"
	    "  --data-plane     who does ESP (auto)\n"
	    "  --log            what goes to the log (info)\n"
	    "  --user           of the unprivileged processes (" USER ")\n"
	    "  --port           IKE's port (500); --natt-port with NAT "
	    "(4500)\n"
	    "  --threads        for key exchanges (one for each core but one)\n"
	    "  --no-privsep     all in one process, for debuggers\n"
	    "  --check          read the files, say what is wrong with them\n",
	    out);
}

static bool
parse_number(const char *text, unsigned long min, unsigned long max,
    unsigned long *value)
{
	char *end;

	errno = 0;
	*value = strtoul(text, &end, 10);
	return errno == 0 && *text >= '0' && *text <= '9' && *end == '\0' &&
	       *value >= min && *value <= max;
}

static bool
known_plane(const char *name)
{
	static const char *const planes[] = { "auto", "xfrm", "userland",
		"none" };

	for (size_t i = 0; i < sizeof(planes) / sizeof(planes[0]); i++)
		if (strcmp(planes[i], name) == 0)
			return true;
	return false;
}

enum {
	OPTION_CONTROL = 256,
	OPTION_PLANE,
	OPTION_CHECK,
	OPTION_JSON,
	OPTION_SINGLE,
	OPTION_LOG,
	OPTION_PORT,
	OPTION_NATT_PORT,
	OPTION_THREADS,
	OPTION_USER,
	OPTION_VERSION,
	OPTION_ROLE,
	OPTION_UID,
	OPTION_GID,
	OPTION_ROOT
};

static const struct option long_options[] = {
	{ "foreground", no_argument, NULL, 'f' },
	{ "conf", required_argument, NULL, 'c' },
	{ "secrets", required_argument, NULL, 's' },
	{ "help", no_argument, NULL, 'h' },
	{ "control", required_argument, NULL, OPTION_CONTROL },
	{ "data-plane", required_argument, NULL, OPTION_PLANE },
	{ "check", no_argument, NULL, OPTION_CHECK },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "no-privsep", no_argument, NULL, OPTION_SINGLE },
	{ "log", required_argument, NULL, OPTION_LOG },
	{ "port", required_argument, NULL, OPTION_PORT },
	{ "natt-port", required_argument, NULL, OPTION_NATT_PORT },
	{ "threads", required_argument, NULL, OPTION_THREADS },
	{ "user", required_argument, NULL, OPTION_USER },
	{ "version", no_argument, NULL, OPTION_VERSION },
	{ "role", required_argument, NULL, OPTION_ROLE },
	{ "uid", required_argument, NULL, OPTION_UID },
	{ "gid", required_argument, NULL, OPTION_GID },
	{ "root", required_argument, NULL, OPTION_ROOT },
	{ NULL, 0, NULL, 0 },
};

static bool
set_numeric(struct command *command, int option, const char *text)
{
	bool id = option == OPTION_UID || option == OPTION_GID;
	unsigned long max = option == OPTION_THREADS ? THREADS_MAX
	                    : id                     ? UINT32_MAX - 1
	                                             : 65535;
	unsigned long value;

	if (!parse_number(text, id ? 0 : 1, max, &value))
		return false;
	if (option == OPTION_PORT)
		command->options.ike_port = (uint16_t)value;
	else if (option == OPTION_NATT_PORT)
		command->options.natt_port = (uint16_t)value;
	else if (option == OPTION_THREADS)
		command->options.threads = (unsigned)value;
	else if (option == OPTION_UID)
		command->uid = (uid_t)value;
	else
		command->gid = (gid_t)value;
	return true;
}

static bool
set_option(struct command *command, int option, const char *value)
{
	struct options *options = &command->options;
	int level;

	switch (option) {
	case 'f':
		options->foreground = true;
		return true;
	case 'c':
		options->conf = value;
		return true;
	case 's':
		options->secrets = value;
		command->secrets_given = true;
		return true;
	case OPTION_CONTROL:
		options->control = value;
		return true;
	case OPTION_PLANE:
		options->data_plane = value;
		return known_plane(value);
	case OPTION_CHECK:
		command->check = true;
		return true;
	case OPTION_JSON:
		command->json = true;
		return true;
	case OPTION_SINGLE:
		options->no_privsep = true;
		return true;
	case OPTION_LOG:
		level = log_level_parse(value);
		options->level = (enum log_level)level;
		return level >= 0;
	case OPTION_USER:
		options->user = value;
		command->user_given = true;
		return true;
	case OPTION_ROLE:
		command->role = value;
		return true;
	case OPTION_ROOT:
		command->root = value;
		return true;
	default:
		return set_numeric(command, option, value);
	}
}

static void
refuse(int option, const char *value)
{
	const struct option *known = long_options;

	while (known->val != option)
		known++;
	fprintf(stderr, "orthrusd: --%s: found \"%.60s\"; expected ",
	    known->name, value);
	if (option == OPTION_PLANE)
		fprintf(stderr, "auto, xfrm, userland or none\n");
	else if (option == OPTION_LOG)
		fprintf(stderr, "error, warning, info or debug\n");
	else
		fprintf(stderr, "a number from 1 to %d\n",
		    option == OPTION_THREADS ? THREADS_MAX : 65535);
}

/* -1: go on. Else an exit code. */
static int
parse(struct command *command, int argc, char **argv)
{
	int option;

	while ((option = getopt_long(
	            argc, argv, "fc:s:h", long_options, NULL)) != -1) {
		if (option == 'h') {
			usage(stdout);
			return 0;
		}
		if (option == OPTION_VERSION) {
			puts(PACKAGE_STRING);
			return 0;
		}
		if (option == '?' || !set_option(command, option, optarg)) {
			if (option != '?')
				refuse(option, optarg);
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (command->check && optind < argc)
		command->options.conf = argv[optind++];
	if (optind < argc)
		fprintf(stderr, "orthrusd: found \"%.60s\"; expected %s\n",
		    argv[optind], command->check ? "one file" : "options only");
	else if (command->json && !command->check)
		fprintf(stderr, "orthrusd: --json goes with --check only\n");
	else
		return -1;
	usage(stderr);
	return EXIT_USAGE;
}

/* Children inherit nothing but what they need to know. */
static void
clean_environment(void)
{
	static const char *const kept[] = { "TZ", "ORTHRUS_SECCOMP",
		"ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS" };
	char *value[sizeof(kept) / sizeof(kept[0])];

	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		const char *is = getenv(kept[i]);

		value[i] = is != NULL ? strdup(is) : NULL;
	}
	clearenv();
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		if (value[i] != NULL)
			setenv(kept[i], value[i], 1);
		free(value[i]);
	}
}

int
main(int argc, char **argv)
{
	struct command command = {
		.options = {
			.conf = CONF,
			.secrets = SECRETS,
			.control = SOCKET,
			.user = USER,
			.data_plane = "auto",
			.level = LOG_LEVEL_INFO,
			.ike_port = 500,
			.natt_port = 4500,
			.ready = -1,
		},
	};
	char path[3][PATH_MAX];
	struct log log;
	int code = parse(&command, argc, argv);

	if (code >= 0)
		return code;
	log_to_stderr(&log, command.options.level);
	if (command.check)
		return check_run(&command);
	clean_environment();
	tune_malloc();
	if (command.role != NULL)
		return role_run(&command, &log);
	command.options.conf = absolute(command.options.conf, path[0]);
	command.options.secrets = absolute(command.options.secrets, path[1]);
	command.options.control = absolute(command.options.control, path[2]);
	return serve(&command, &log);
}
