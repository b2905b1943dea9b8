/*
 * lex: the words of ipsec.conf, without their meaning.
 *
 * A file is a sequence of items: section headers ("config setup", "conn
 * NAME"), includes and settings ("key=value"). What separates, quotes and
 * comments is a matter of the dialect, and of nobody but this module:
 *
 *   strongSwan  words of a value are joined by one space; "..." is taken as it
 *               stands, with \n \t \" \\ and a line continued by \ at its
 *               end; # begins a comment, except in @#
 *   libreswan   a value is one word, "..." or {...} without escapes; # begins
 *               a comment only in front of a word
 *
 * A bad line is an item of its own, and the next line is read as ever.
 */
#ifndef CONF_LEX_H
#define CONF_LEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

enum dialect {
	DIALECT_STRONGSWAN = 1,
	DIALECT_LIBRESWAN = 2 /* a set of bits in the schema */
};

#define LEX_VALUE 4096 /* octets of one key or value, with NUL */

enum lex_kind {
	LEX_END,
	LEX_SECTION, /* key: "config", "conn", "ca" or another word; value:
	              * its name, "" if there is none */
	LEX_INCLUDE, /* value: the pattern */
	LEX_SETTING, /* key=value; an empty value is "" */
	LEX_BAD      /* problem says what was found and expected; key is
	              * what was read of it */
};

/* Valid until the next lex_next(). */
struct lex_item {
	enum lex_kind kind;
	unsigned line, column; /* of the key, or of what is wrong */
	bool indented;         /* does the line begin with a blank? */
	char key[LEX_VALUE], value[LEX_VALUE];
	/* Where each octet of value stands, and where value ends. */
	struct {
		unsigned line, column;
	} at[LEX_VALUE];
	char problem[160];
};

/* Where in the text we are. Shared with the reader of ipsec.secrets. */
struct lex_cursor {
	struct view left;
	unsigned line, column;
};

void lex_begin(struct lex_cursor *cursor, struct view text); /* skips a BOM */
int lex_peek(const struct lex_cursor *cursor); /* an octet; -1 at the end */
void lex_skip(struct lex_cursor *cursor);      /* one octet */
void lex_skip_blanks(struct lex_cursor *cursor);
void lex_skip_line(struct lex_cursor *cursor); /* past the next newline */

/* Reads the next item. The cursor stands behind it afterwards. */
void lex_next(
    struct lex_cursor *cursor, enum dialect dialect, struct lex_item *item);

/* Is this the first word of a section header? */
bool lex_opens_section(const char *key);

/* "Did you mean": how many letters differ (inserted, left out, exchanged,
 * swapped with a neighbour), case ignored; of longer words, 31 letters are
 * compared. */
unsigned lex_distance(const char *a, const char *b);

#endif
