/*
 * log: lines for people. Levels say how much it matters; what a peer sent is
 * escaped by whoever formats it. No key, PSK, password or plaintext is ever
 * logged, at any level.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdarg.h>

enum log_level {
	LOG_LEVEL_ERROR,   /* we, or our system, are at fault: act */
	LOG_LEVEL_WARNING, /* a peer or a file is at fault: look */
	LOG_LEVEL_INFO,    /* changes of state */
	LOG_LEVEL_DEBUG    /* packets and decisions */
};

#define LOG_LINE 4096 /* octets of one record, cut beyond */

/* A sink with a threshold. line has no newline at its end, but may contain
 * some (an explanation is one record). */
struct log {
	enum log_level level; /* records above this are dropped */
	void (*write)(struct log *log, enum log_level level, const char *line);
	void *arg;
};

void log_write(struct log *log, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void log_vwrite(struct log *log, enum log_level level, const char *format,
    va_list args) __attribute__((format(printf, 3, 0)));

const char *log_level_text(enum log_level level); /* "error", ... */
/* -1 if text is no level. */
int log_level_parse(const char *text);

/* Sinks: stderr with local time and level; syslog (ident is kept by pointer,
 * the socket opened at once, so that a later chroot does no harm). */
void log_to_stderr(struct log *log, enum log_level level);
void log_to_syslog(struct log *log, enum log_level level, const char *ident);

#endif
