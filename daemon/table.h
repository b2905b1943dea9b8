/*
 * table: rows and columns, as aligned text for people or JSON for programs.
 *
 * Cells are added row by row, in the order of the columns. Text is escaped on
 * the way out: peers choose identities, and a terminal must not obey them.
 */
#ifndef DAEMON_TABLE_H
#define DAEMON_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* Octets that grow; failed is sticky: memory was short or the bound met. */
struct text {
	char *at;
	size_t len, cap;
	size_t max; /* octets; 0: TEXT_MAX */
	bool failed;
};

#define TEXT_MAX (64u << 20)

void text_free(struct text *text); /* empty and valid afterwards */
void text_add(struct text *text, const char *octets, size_t len);
void text_format(struct text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes. NULL becomes null. */
void text_json(struct text *text, const char *string);

enum table_kind {
	TABLE_TEXT,
	TABLE_NUMBER, /* right-aligned; a JSON number */
	TABLE_BOOL    /* yes or no; true or false */
};

struct table_column {
	const char *title; /* heading and, with _ for blanks, the JSON key */
	uint8_t kind;      /* enum table_kind */
	bool json_only;
};

struct table;

/* columns must outlive the table. NULL: out of memory. */
struct table *table_new(const struct table_column *columns, size_t count);
void table_free(struct table *table); /* accepts NULL */

/* The next cell. NULL is an empty cell (JSON: null). A cell that memory is
 * short for makes the table fail as a whole. */
void table_text(struct table *table, const char *value);
void table_format(struct table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void table_number(struct table *table, uint64_t value);
void table_bool(struct table *table, bool value);
size_t table_rows(const struct table *table); /* complete ones */

/* Appends the table: a heading and aligned lines without blanks at their ends,
 * or an array of objects. An empty table is nothing, or []. ERR_NOMEM. */
enum err table_print(const struct table *table, bool json, struct text *to);

#endif
