/*
 * diag: what is wrong with a file, for people: file, line, column, what was
 * found and what was expected. Collected in the order of discovery; whoever
 * asked for the file decides what becomes of them.
 */
#ifndef CONF_DIAG_H
#define CONF_DIAG_H

#include <stddef.h>

enum diag_level {
	DIAG_WARNING, /* everything else goes on */
	DIAG_ERROR    /* this connection, secret or file is not usable */
};

/* A place in a file; lines and columns count from 1, columns in octets. line 0
 * stands for the whole file, column 0 for the whole line. */
struct place {
	const char *file;
	unsigned line, column;
};

struct diag {
	enum diag_level level;
	char *file; /* owned */
	unsigned line, column;
	char *text; /* owned; one line, escaped */
};

#define DIAGS_MAX 1000 /* more are counted, not kept */

/* Zeroed is empty and valid. */
struct diags {
	struct diag *item;
	size_t count, room;
	size_t errors, warnings; /* also of those not kept */
};

/* Adds a line. Octets of the formatted text that are not printable are
 * escaped. When memory is short it is counted only. */
void diags_add(struct diags *diags, enum diag_level level, struct place place,
    const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Into the order of lines, files in the order in which they first appear. */
void diags_sort(struct diags *diags);
void diags_fini(struct diags *diags);

/* "ipsec.conf:12:9: error: ..."; cut at size octets. Returns text. */
char *diag_text(const struct diag *diag, char *text, size_t size);

#endif
