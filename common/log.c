#include "common/log.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <syslog.h>
#include <time.h>

static const char *const level_texts[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

#define LEVELS (sizeof(level_texts) / sizeof(level_texts[0]))

const char *
log_level_text(enum log_level level)
{
	return (unsigned)level < LEVELS ? level_texts[level] : "unknown";
}

int
log_level_parse(const char *text)
{
	for (unsigned i = 0; i < LEVELS; i++)
		if (strcasecmp(text, level_texts[i]) == 0)
			return (int)i;
	return -1;
}

void
log_write(struct log *log, enum log_level level, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_vwrite(log, level, format, args);
	va_end(args);
}

void
log_vwrite(
    struct log *log, enum log_level level, const char *format, va_list args)
{
	char line[LOG_LINE];

	if (level > log->level)
		return;
	if (vsnprintf(line, sizeof(line), format, args) < 0)
		return;
	/* Whoever formats escapes; this is the net below, so that no text can
	 * drive a terminal. */
	for (char *at = line; *at != '\0'; at++) {
		unsigned char octet = (unsigned char)*at;

		if ((octet < 0x20 && octet != '\n' && octet != '\t') ||
		    octet == 0x7f)
			*at = '?';
	}
	log->write(log, level, line);
}

static void
write_stderr(struct log *log, enum log_level level, const char *line)
{
	struct timespec now;
	struct tm tm;
	char when[32] = "";

	(void)log;
	if (clock_gettime(CLOCK_REALTIME, &now) == 0 &&
	    localtime_r(&now.tv_sec, &tm) != NULL)
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	fprintf(stderr, "%s.%03u %s: %s\n", when,
	    (unsigned)(now.tv_nsec / 1000000), log_level_text(level), line);
}

void
log_to_stderr(struct log *log, enum log_level level)
{
	/* Read the time zone while its file can still be found. */
	tzset();
	log->level = level;
	log->write = write_stderr;
	log->arg = NULL;
}

static void
write_syslog(struct log *log, enum log_level level, const char *line)
{
	static const int priorities[] = {
		[LOG_LEVEL_ERROR] = LOG_ERR,
		[LOG_LEVEL_WARNING] = LOG_WARNING,
		[LOG_LEVEL_INFO] = LOG_INFO,
		[LOG_LEVEL_DEBUG] = LOG_DEBUG,
	};
	int priority = (unsigned)level < LEVELS ? priorities[level] : LOG_ERR;

	(void)log;
	/* Syslog daemons mangle newlines: a record of several lines goes out
	 * as several. */
	while (*line != '\0') {
		size_t len = strcspn(line, "\n");

		if (len > 0)
			syslog(priority, "%.*s", (int)len, line);
		line += len + (line[len] == '\n');
	}
}

void
log_to_syslog(struct log *log, enum log_level level, const char *ident)
{
	tzset();
	openlog(ident, LOG_PID | LOG_NDELAY, LOG_DAEMON);
	log->level = level;
	log->write = write_syslog;
	log->arg = NULL;
}
