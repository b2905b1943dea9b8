/*
 * Cells are kept as one long text with NUL between them; a row is so many of
 * them as there are columns.
 */
#include "daemon/table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

#define CELL_NULL 0x01 /* a cell that holds this octet alone is empty */
#define CELL_MAX  2048 /* octets of one formatted cell */

struct table {
	const struct table_column *columns;
	size_t column_count;
	struct text cells;
	size_t cell_count;
	size_t *width; /* widest cell of each column, as printed */
};

void
text_free(struct text *text)
{
	free(text->at);
	memset(text, 0, sizeof(*text));
}

void
text_add(struct text *text, const char *octets, size_t len)
{
	size_t max = text->max != 0 ? text->max : TEXT_MAX;

	if (text->failed || len > max - text->len) {
		text->failed = true;
		return;
	}
	if (text->len + len > text->cap) {
		size_t cap = text->cap != 0 ? text->cap * 2 : 1024;
		char *at;

		while (cap < text->len + len)
			cap *= 2;
		at = realloc(text->at, cap);
		if (at == NULL) {
			text->failed = true;
			return;
		}
		text->at = at;
		text->cap = cap;
	}
	if (len > 0)
		memcpy(text->at + text->len, octets, len);
	text->len += len;
}

void
text_format(struct text *text, const char *format, ...)
{
	char line[CELL_MAX];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (len < 0)
		return;
	if ((size_t)len >= sizeof(line))
		len = (int)sizeof(line) - 1;
	text_add(text, line, (size_t)len);
}

/* RFC 8259 7. Octets above 0x7f are written as code points of their own: what
 * a peer sends need not be UTF-8, and a reader of JSON insists on it. */
void
text_json(struct text *text, const char *string)
{
	if (string == NULL) {
		text_add(text, "null", 4);
		return;
	}
	text_add(text, "\"", 1);
	for (; *string != '\0'; string++) {
		unsigned char c = (unsigned char)*string;

		if (c == '"' || c == '\\')
			text_format(text, "\\%c", c);
		else if (c == '\n')
			text_add(text, "\\n", 2);
		else if (c == '\t')
			text_add(text, "\\t", 2);
		else if (c < 0x20 || c > 0x7e)
			text_format(text, "\\u%04x", c);
		else
			text_add(text, string, 1);
	}
	text_add(text, "\"", 1);
}

struct table *
table_new(const struct table_column *columns, size_t count)
{
	struct table *table = calloc(1, sizeof(*table));

	if (table == NULL)
		return NULL;
	table->columns = columns;
	table->column_count = count;
	table->width = calloc(count != 0 ? count : 1, sizeof(*table->width));
	if (table->width == NULL) {
		free(table);
		return NULL;
	}
	for (size_t i = 0; i < count; i++)
		table->width[i] = strlen(columns[i].title);
	return table;
}

void
table_free(struct table *table)
{
	if (table == NULL)
		return;
	text_free(&table->cells);
	free(table->width);
	free(table);
}

/* Printable ASCII stays, the rest becomes a question mark; a new line would
 * break the row. */
static char
cell_char(char c)
{
	return c >= 0x20 && c <= 0x7e ? c : '?';
}

void
table_text(struct table *table, const char *value)
{
	static const char none[] = { CELL_NULL, '\0' };
	size_t column = table->cell_count % table->column_count;
	size_t len = value != NULL ? strlen(value) : 1;

	text_add(&table->cells, value != NULL ? value : none, len + 1);
	table->cell_count++;
	if (len > table->width[column])
		table->width[column] = len;
}

void
table_format(struct table *table, const char *format, ...)
{
	char cell[CELL_MAX];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(cell, sizeof(cell), format, args);
	va_end(args);
	table_text(table, len >= 0 ? cell : NULL);
}

void
table_number(struct table *table, uint64_t value)
{
	table_format(table, "%" PRIu64, value);
}

void
table_bool(struct table *table, bool value)
{
	table_text(table, value ? "yes" : "no");
}

size_t
table_rows(const struct table *table)
{
	return table->cell_count / table->column_count;
}

static void
print_key(struct text *to, const char *title)
{
	text_add(to, "\"", 1);
	for (; *title != '\0'; title++)
		text_add(to, *title == ' ' ? "_" : title, 1);
	text_add(to, "\":", 2);
}

static void
print_json(const struct table *table, struct text *to)
{
	const char *cell = table->cells.at;
	size_t rows = table_rows(table);

	text_add(to, "[", 1);
	for (size_t row = 0; row < rows; row++) {
		text_add(to, row == 0 ? "{" : ",\n{", row == 0 ? 1 : 3);
		for (size_t i = 0; i < table->column_count; i++) {
			const struct table_column *column = &table->columns[i];

			if (i > 0)
				text_add(to, ",", 1);
			print_key(to, column->title);
			if (cell[0] == CELL_NULL)
				text_add(to, "null", 4);
			else if (column->kind == TABLE_NUMBER)
				text_add(to, cell, strlen(cell));
			else if (column->kind == TABLE_BOOL)
				text_format(to, "%s",
				    cell[0] == 'y' ? "true" : "false");
			else
				text_json(to, cell);
			cell += strlen(cell) + 1;
		}
		text_add(to, "}", 1);
	}
	text_add(to, "]", 1);
}

static void
print_cell(const struct table *table, size_t i, const char *cell, bool last,
    struct text *to)
{
	bool right = table->columns[i].kind == TABLE_NUMBER;
	size_t len = strlen(cell), pad = table->width[i] - len;

	for (size_t n = 0; right && n < pad; n++)
		text_add(to, " ", 1);
	for (; *cell != '\0'; cell++) {
		char c = cell_char(*cell);

		text_add(to, &c, 1);
	}
	for (size_t n = 0; !last && n < (right ? 0 : pad) + 2; n++)
		text_add(to, " ", 1);
	if (last)
		text_add(to, "\n", 1);
}

static void
print_text(const struct table *table, struct text *to)
{
	const char *cell = table->cells.at;
	size_t rows = table_rows(table), last = 0;

	for (size_t i = 0; i < table->column_count; i++)
		if (!table->columns[i].json_only)
			last = i;
	for (size_t i = 0; i < table->column_count; i++)
		if (!table->columns[i].json_only)
			print_cell(
			    table, i, table->columns[i].title, i == last, to);
	for (size_t row = 0; row < rows; row++)
		for (size_t i = 0; i < table->column_count; i++) {
			if (!table->columns[i].json_only)
				print_cell(table, i,
				    cell[0] == CELL_NULL ? "-" : cell,
				    i == last, to);
			cell += strlen(cell) + 1;
		}
}

enum err
table_print(const struct table *table, bool json, struct text *to)
{
	if (table->cells.failed)
		return ERR_NOMEM;
	if (json)
		print_json(table, to);
	else if (table_rows(table) > 0)
		print_text(table, to);
	return to->failed ? ERR_NOMEM : OK;
}
