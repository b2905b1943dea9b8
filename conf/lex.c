#include "conf/lex.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define LETTERS 31

/* The cursor ------------------------------------------------------------- */

void
lex_begin(struct lex_cursor *cursor, struct view text)
{
	static const uint8_t mark[] = { 0xef, 0xbb, 0xbf };

	cursor->left = text;
	cursor->line = 1;
	cursor->column = 1;
	if (text.len >= sizeof mark && memcmp(text.at, mark, sizeof mark) == 0)
		view_skip(&cursor->left, sizeof mark);
}

int
lex_peek(const struct lex_cursor *cursor)
{
	return cursor->left.len == 0 ? -1 : cursor->left.at[0];
}

void
lex_skip(struct lex_cursor *cursor)
{
	int octet = lex_peek(cursor);

	if (!view_skip(&cursor->left, 1))
		return;
	cursor->column++;
	if (octet == '\n') {
		cursor->line++;
		cursor->column = 1;
	}
}

static bool
is_blank(int octet)
{
	return octet == ' ' || octet == '\t' || octet == '\r';
}

static bool
is_end(int octet)
{
	return octet < 0 || octet == '\n';
}

void
lex_skip_blanks(struct lex_cursor *cursor)
{
	while (is_blank(lex_peek(cursor)))
		lex_skip(cursor);
}

static void
skip_to_end(struct lex_cursor *cursor)
{
	while (!is_end(lex_peek(cursor)))
		lex_skip(cursor);
}

void
lex_skip_line(struct lex_cursor *cursor)
{
	skip_to_end(cursor);
	lex_skip(cursor);
}

/* Values ----------------------------------------------------------------- */

struct value {
	struct lex_cursor *cursor;
	struct lex_item *item;
	size_t len;
	const char *problem; /* NULL as long as all is well */
};

static void
value_mark(struct value *value)
{
	value->item->at[value->len].line = value->cursor->line;
	value->item->at[value->len].column = value->cursor->column;
}

static void
value_put(struct value *value, int octet)
{
	if (value->len + 1 >= LEX_VALUE) {
		value->problem = "the value is too long: at most 4095 octets";
		return;
	}
	if (octet < 0x20 && octet != '\t' && octet != '\n') {
		value->problem = "found a control character; expected text";
		return;
	}
	value_mark(value);
	value->item->value[value->len++] = (char)octet;
}

static void
value_take(struct value *value)
{
	value_put(value, lex_peek(value->cursor));
	if (value->problem == NULL)
		lex_skip(value->cursor);
}

/* Behind a backslash in a quoted string of the strongSwan dialect. */
static void
value_escape(struct value *value)
{
	struct lex_cursor *cursor = value->cursor;

	lex_skip(cursor);
	switch (lex_peek(cursor)) {
	case 'n':
		value_put(value, '\n');
		break;
	case 't':
		value_put(value, '\t');
		break;
	case 'r':
		value_put(value, '\r');
		break;
	case '\r': /* the end of a line of DOS */
		lex_skip(cursor);
		break;
	case '\n':
		break;
	case -1:
		return;
	default:
		value_put(value, lex_peek(cursor));
	}
	lex_skip(cursor);
}

static void
value_quoted(struct value *value, enum dialect dialect, int close)
{
	struct lex_cursor *cursor = value->cursor;
	struct lex_cursor begin = *cursor;

	lex_skip(cursor);
	while (value->problem == NULL) {
		int octet = lex_peek(cursor);

		if (octet == close) {
			lex_skip(cursor);
			return;
		}
		if (is_end(octet)) {
			*cursor = begin;
			value->problem =
			    close == '"'
			        ? "the quote is not closed on this line"
			        : "the brace is not closed on this line";
		} else if (octet == '\\' && dialect == DIALECT_STRONGSWAN) {
			value_escape(value);
		} else {
			value_take(value);
		}
	}
}

static void
value_word(struct value *value, enum dialect dialect)
{
	int before = 0;

	while (value->problem == NULL) {
		int octet = lex_peek(value->cursor);

		if (is_end(octet) || is_blank(octet))
			return;
		if (dialect == DIALECT_STRONGSWAN &&
		    (octet == '"' || (octet == '#' && before != '@')))
			return;
		value_take(value);
		before = octet;
	}
}

/* Reads to the end of the line. */
static void
value_read(struct value *value, enum dialect dialect)
{
	struct lex_cursor *cursor = value->cursor;
	bool any = false;

	while (value->problem == NULL) {
		struct lex_cursor before = *cursor;
		int octet;

		lex_skip_blanks(cursor);
		octet = lex_peek(cursor);
		if (is_end(octet) || octet == '#')
			break;
		if (any && dialect == DIALECT_LIBRESWAN) {
			value->problem =
			    "expected the end of the line: a value with blanks "
			    "needs quotes";
			break;
		}
		if (any && cursor->left.len < before.left.len)
			value_put(value, ' ');
		any = true;
		if (octet == '"')
			value_quoted(value, dialect, '"');
		else if (octet == '{' && dialect == DIALECT_LIBRESWAN)
			value_quoted(value, dialect, '}');
		else
			value_word(value, dialect);
	}
	value_mark(value);
	value->item->value[value->len] = '\0';
}

/* Items ------------------------------------------------------------------ */

static void
item_bad(
    struct lex_item *item, const struct lex_cursor *cursor, const char *problem)
{
	item->kind = LEX_BAD;
	item->line = cursor->line;
	item->column = cursor->column;
	snprintf(item->problem, sizeof item->problem, "%s", problem);
}

/* A keyword: letters, digits and what stands in names of options. */
static bool
item_key(struct lex_cursor *cursor, struct lex_item *item)
{
	size_t len = 0;

	for (;;) {
		int octet = lex_peek(cursor);

		if (octet < 0x21 || octet > 0x7e || octet == '=' ||
		    octet == '#' || octet == '"')
			break;
		if (len + 1 >= LEX_VALUE) {
			item->key[len] = '\0';
			return false;
		}
		item->key[len++] = (char)octet;
		lex_skip(cursor);
	}
	item->key[len] = '\0';
	return len > 0;
}

bool
lex_opens_section(const char *key)
{
	return strcmp(key, "conn") == 0 || strcmp(key, "config") == 0 ||
	       strcmp(key, "ca") == 0;
}

static void
item_read(
    struct lex_cursor *cursor, enum dialect dialect, struct lex_item *item)
{
	struct value value = { .cursor = cursor, .item = item };
	struct lex_cursor begin = *cursor;

	if (!item_key(cursor, item)) {
		item_bad(item, &begin,
		    "found no keyword; expected conn, config setup, include or "
		    "key=value");
		return;
	}
	lex_skip_blanks(cursor);
	item->kind = LEX_SECTION;
	if (lex_peek(cursor) == '=') {
		lex_skip(cursor);
		lex_skip_blanks(cursor);
		item->kind = LEX_SETTING;
	} else if (strcmp(item->key, "include") == 0) {
		item->kind = LEX_INCLUDE;
	} else if (item->indented && !lex_opens_section(item->key)) {
		item_bad(item, &begin, "");
		snprintf(item->problem, sizeof item->problem,
		    "found \"%.60s\" alone; expected key=value", item->key);
		return;
	}
	value_read(&value, dialect);
	item->line = begin.line;
	item->column = begin.column;
	if (value.problem != NULL)
		item_bad(item, cursor, value.problem);
	else if (item->kind == LEX_SECTION && strchr(item->value, ' ') != NULL)
		item_bad(item, &begin,
		    "found more than one word; expected one name for the "
		    "section");
}

void
lex_next(struct lex_cursor *cursor, enum dialect dialect, struct lex_item *item)
{
	item->key[0] = '\0';
	item->value[0] = '\0';
	item->problem[0] = '\0';
	for (;;) {
		unsigned column = cursor->column;
		int octet;

		lex_skip_blanks(cursor);
		octet = lex_peek(cursor);
		if (octet < 0) {
			item->kind = LEX_END;
			item->line = cursor->line;
			item->column = cursor->column;
			return;
		}
		if (octet == '\n' || octet == '#') {
			lex_skip_line(cursor);
			continue;
		}
		item->indented = cursor->column > column;
		item_read(cursor, dialect, item);
		lex_skip_line(cursor);
		return;
	}
}

/* Did you mean ----------------------------------------------------------- */

static unsigned
least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* The optimal string alignment distance. */
unsigned
lex_distance(const char *a, const char *b)
{
	unsigned row[LETTERS + 1][LETTERS + 1];
	size_t len_a = strnlen(a, LETTERS), len_b = strnlen(b, LETTERS);

	for (size_t i = 0; i <= len_a; i++) {
		for (size_t j = 0; j <= len_b; j++) {
			unsigned best;
			int at, bt;

			if (i == 0 || j == 0) {
				row[i][j] = (unsigned)(i + j);
				continue;
			}
			at = tolower((unsigned char)a[i - 1]);
			bt = tolower((unsigned char)b[j - 1]);
			best = row[i - 1][j - 1] + (at != bt);
			best = least(best, row[i - 1][j] + 1);
			best = least(best, row[i][j - 1] + 1);
			if (i > 1 && j > 1 &&
			    at == tolower((unsigned char)b[j - 2]) &&
			    tolower((unsigned char)a[i - 2]) == bt)
				best = least(best, row[i - 2][j - 2] + 1);
			row[i][j] = best;
		}
	}
	return row[len_a][len_b];
}
