/*
 * schema: the options of ipsec.conf, one row each. A row gives the parser, the
 * check, the default, the help text and the manual's table.
 *
 * Options of a connection's two ends are one row without "left" or "right" in
 * its name. What the dialect knows and we do not do is a row, too: what becomes
 * of a connection that uses it is said by its status.
 */
#ifndef CONF_SCHEMA_H
#define CONF_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/policy.h"
#include "conf/lex.h"

enum option_section {
	SECTION_SETUP, /* config setup */
	SECTION_CONN,  /* conn */
	SECTION_END    /* conn, with left or right in front */
};

enum option_status {
	OPTION_DONE,    /* does what it says */
	OPTION_WITHOUT, /* warning: the connection goes on without */
	OPTION_REFUSED, /* error: without it the connection would mean
	                 * something else, so it is left out */
	OPTION_GONE     /* warning: has had no meaning for long */
};

enum option_type {
	TYPE_WORD,   /* one of values */
	TYPE_BOOL,   /* yes or no */
	TYPE_TIME,   /* 30s, 5m, 1h, 2d; bare numbers are seconds */
	TYPE_NUMBER, /* min to max */
	TYPE_PERCENT,
	TYPE_TEXT /* set() knows */
};

/* One value on its way into a connection. */
struct option_use {
	const struct option *option;
	struct conn *conn;    /* NULL for config setup */
	struct conn_end *end; /* SECTION_END */
	bool *uniqueids;      /* config setup */
	const char *value;    /* not empty */
	/* To be set on ERR_SYNTAX: where in value the trouble begins, what is
	 * wrong there (octets; 0: all the rest), what was expected. On OK a
	 * non-empty note is a warning. */
	size_t at, len;
	char expected[256];
	char note[256];
};

struct option {
	const char *name;     /* ends: without left or right; may be "" */
	const char *aliases;  /* separated by one space; "" if none */
	uint8_t section;      /* enum option_section */
	uint8_t dialects;     /* set of enum dialect */
	uint8_t status;       /* enum option_status */
	uint8_t type;         /* enum option_type */
	const char *values;   /* TYPE_WORD: the words, in the order of their
	                      * numbers; otherwise a placeholder for the manual.
	                      * Not DONE: values that mean what we do anyway and
	                      * so need no warning */
	const char *fallback; /* the default as one would write it; "": none */
	uint64_t min, max;    /* TYPE_NUMBER, _PERCENT; TYPE_TIME in seconds */
	enum err (*set)(struct option_use *use);
	size_t offset; /* in struct conn, for setters that need no own code */
	const char *help; /* mdoc(7) text of one paragraph */
};

extern const struct option options[];
extern const size_t option_count;

/* Finds the row and the end (0 left, 1 right) of a keyword. NULL if unknown. */
const struct option *
option_find(bool setup, enum dialect dialect, const char *name, unsigned *end);
/* The most similar keyword, or NULL if none resembles it. */
const char *option_similar(bool setup, enum dialect dialect, const char *name,
    char *text, size_t size);

/* Checks and sets. OK, ERR_SYNTAX (see option_use) or ERR_NOMEM. Only for rows
 * that are DONE. */
enum err option_set(struct option_use *use);
/* A value that needs no warning although the row is not DONE. */
bool option_is_quiet(const struct option *option, const char *value);

/* "leftsubnet", or for an end's row without a side: "left|rightsubnet". */
char *option_name(
    const struct option *option, const char *side, char *text, size_t size);

#endif
