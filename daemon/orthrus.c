/*
 * orthrus: the administrator's command. It sends one line to the daemon's
 * control socket and prints what comes back (see daemon/control.h).
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buf.h"
#include "daemon/control.h"

#include "config.h"

#define SOCKET RUNSTATEDIR "/orthrus.ctl"

static const struct subcommand {
	const char *name;
	int min, max; /* words after it */
	const char *words;
	const char *help;
} subcommands[] = {
	{ "status", 0, 0, "", "the daemon, its processes and counters" },
	{ "list", 1, 2, "conns|sas [NAME]", "connections, or SAs" },
	{ "up", 1, 2, "NAME [SECONDS]", "bring a connection up and wait" },
	{ "down", 1, 2, "NAME [SECONDS]", "close a connection's SAs" },
	{ "reload", 0, 0, "", "read ipsec.conf and ipsec.secrets anew" },
	{ "log", 1, 1, "error|warning|info|debug", "what goes to the log" },
	{ "monitor", 0, 0, "", "show events as they happen" },
	{ "version", 0, 0, "", "the daemon's version" },
};
#define SUBCOMMANDS (sizeof(subcommands) / sizeof(subcommands[0]))

static void
usage(FILE *out)
{
	fprintf(out, "usage: orthrus [--control SOCKET] [--json] COMMAND\n\n");
	for (size_t i = 0; i < SUBCOMMANDS; i++) {
		char line[64];

		snprintf(line, sizeof(line), "%s %s", subcommands[i].name,
		    subcommands[i].words);
		fprintf(out, "  %-30s %s\n", line, subcommands[i].help);
	}
	fprintf(out,
	    "\nexit codes: 0 done, 1 failed, 2 wrong usage, 3 no daemon\n");
}

static const struct subcommand *
find(const char *name)
{
	for (size_t i = 0; i < SUBCOMMANDS; i++)
		if (strcmp(subcommands[i].name, name) == 0)
			return &subcommands[i];
	return NULL;
}

/* -1, and a word on standard error, when nobody answers. */
static int
reach(const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(to.sun_path)) {
		fprintf(stderr, "orthrus: %s is too long for a socket\n", path);
		return -1;
	}
	memcpy(to.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
		fprintf(stderr, "orthrus: %s: %s%s\n", path, strerror(errno),
		    errno == ENOENT || errno == ECONNREFUSED
		        ? " (is orthrusd running?)"
		        : "");
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

static bool
send_all(int fd, const char *octets, size_t len)
{
	while (len > 0) {
		ssize_t sent = send(fd, octets, len, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		octets += sent;
		len -= (size_t)sent;
	}
	return true;
}

static bool
read_all(int fd, void *to, size_t len)
{
	char *at = to;

	while (len > 0) {
		ssize_t got = read(fd, at, len);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		at += got;
		len -= (size_t)got;
	}
	return true;
}

/* The process that answers also parses what strangers send. Whatever becomes of
 * it, it must not drive the terminal of whoever asks. */
static void
make_plain(char *octets, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((octets[i] < 0x20 || octets[i] > 0x7e) &&
		    octets[i] != '\n' && octets[i] != '\t')
			octets[i] = '?';
}

/* One frame after the other, until the last. */
static int
answer(int fd)
{
	static char octets[CONTROL_FRAME];

	for (;;) {
		uint8_t head[5];
		struct view view = view_of(head, sizeof(head));
		uint8_t kind;
		uint32_t len;

		if (!read_all(fd, head, sizeof(head)))
			break;
		if (!view_u8(&view, &kind) || !view_u32(&view, &len) ||
		    len > sizeof(octets) || !read_all(fd, octets, len))
			break;
		if (kind == CONTROL_STATUS)
			return len == 1 ? (unsigned char)octets[0]
			                : CONTROL_FAILED;
		make_plain(octets, len);
		if (fwrite(octets, 1, len,
		        kind == CONTROL_OUTPUT ? stdout : stderr) != len ||
		    fflush(kind == CONTROL_OUTPUT ? stdout : stderr) != 0) {
			fprintf(stderr, "orthrus: cannot write: %s\n",
			    strerror(errno));
			return CONTROL_FAILED;
		}
	}
	fprintf(stderr, "orthrus: the daemon went away\n");
	return CONTROL_NO_DAEMON;
}

static int
ask(const char *path, bool json, char *const *words)
{
	char line[CONTROL_LINE];
	size_t len = 0;
	int fd, code;

	len += (size_t)snprintf(line, sizeof(line), json ? "--json" : "");
	for (; *words != NULL; words++) {
		if ((*words)[0] == '\0' || strpbrk(*words, " \t\r\n") != NULL) {
			fprintf(stderr,
			    "orthrus: found \"%.60s\"; expected a word without "
			    "blanks\n",
			    *words);
			return CONTROL_USAGE;
		}
		if (strlen(*words) + len + 3 > sizeof(line)) {
			fprintf(stderr, "orthrus: \"%.60s...\" is too long\n",
			    *words);
			return CONTROL_USAGE;
		}
		len += (size_t)snprintf(
		    line + len, sizeof(line) - len, " %s", *words);
	}
	line[len++] = '\n';
	fd = reach(path);
	if (fd < 0)
		return CONTROL_NO_DAEMON;
	if (send_all(fd, line, len)) {
		code = answer(fd);
	} else {
		fprintf(stderr, "orthrus: the daemon does not listen\n");
		code = CONTROL_NO_DAEMON;
	}
	close(fd);
	return code;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "control", required_argument, NULL, 'c' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	const struct subcommand *subcommand;
	const char *path = SOCKET;
	bool json = false;
	int option, words;

	/* Options may stand anywhere: --json is often added at the end. */
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			path = optarg;
			break;
		case 'j':
			json = true;
			break;
		case 'h':
			usage(stdout);
			return CONTROL_OK;
		case 'V':
			puts(PACKAGE_STRING);
			return CONTROL_OK;
		default:
			usage(stderr);
			return CONTROL_USAGE;
		}
	}
	words = argc - optind - 1;
	subcommand = words >= 0 ? find(argv[optind]) : NULL;
	if (subcommand == NULL) {
		if (words >= 0)
			fprintf(stderr, "orthrus: there is no command %.60s\n",
			    argv[optind]);
		usage(stderr);
		return CONTROL_USAGE;
	}
	if (words < subcommand->min || words > subcommand->max) {
		fprintf(stderr, "usage: orthrus %s%s%s\n", subcommand->name,
		    subcommand->words[0] != '\0' ? " " : "", subcommand->words);
		return CONTROL_USAGE;
	}
	return ask(path, json, argv + optind);
}
