#include "conf/diag.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

#define DIAG_TEXT 1024 /* octets of one message */

static void
diags_keep(struct diags *diags, enum diag_level level, struct place place,
    const char *text)
{
	struct diag *diag;

	if (diags->count == diags->room) {
		size_t room = diags->room == 0 ? 16 : 2 * diags->room;
		struct diag *item = realloc(diags->item, room * sizeof *item);

		if (item == NULL)
			return;
		diags->item = item;
		diags->room = room;
	}
	diag = &diags->item[diags->count];
	diag->level = level;
	diag->line = place.line;
	diag->column = place.column;
	diag->file = strdup(place.file);
	diag->text = strdup(text);
	if (diag->file == NULL || diag->text == NULL) {
		free(diag->file);
		free(diag->text);
		return;
	}
	diags->count++;
}

void
diags_add(struct diags *diags, enum diag_level level, struct place place,
    const char *format, ...)
{
	char plain[DIAG_TEXT], text[DIAG_TEXT];
	va_list args;

	if (level == DIAG_ERROR)
		diags->errors++;
	else
		diags->warnings++;
	if (diags->count >= DIAGS_MAX)
		return;
	va_start(args, format);
	vsnprintf(plain, sizeof plain, format, args);
	va_end(args);
	buf_escape(text, sizeof text, view_text(plain));
	diags_keep(diags, level, place, text);
}

/* Does a belong behind b? Both are of one file. */
static bool
diag_behind(const struct diag *a, const struct diag *b)
{
	return a->line > b->line ||
	       (a->line == b->line && a->column > b->column);
}

void
diags_sort(struct diags *diags)
{
	size_t sorted = 0;

	/* Insertion into a list that is bounded and nearly sorted. */
	for (size_t i = 0; i < diags->count; i++) {
		struct diag diag = diags->item[i];
		size_t at = sorted, file = sorted;

		while (file > 0 &&
		       strcmp(diags->item[file - 1].file, diag.file) != 0)
			file--;
		if (file > 0)
			at = file;
		while (file > 0 && at > 0 &&
		       strcmp(diags->item[at - 1].file, diag.file) == 0 &&
		       diag_behind(&diags->item[at - 1], &diag))
			at--;
		memmove(&diags->item[at + 1], &diags->item[at],
		    (sorted - at) * sizeof diag);
		diags->item[at] = diag;
		sorted++;
	}
}

void
diags_fini(struct diags *diags)
{
	for (size_t i = 0; i < diags->count; i++) {
		free(diags->item[i].file);
		free(diags->item[i].text);
	}
	free(diags->item);
	memset(diags, 0, sizeof *diags);
}

char *
diag_text(const struct diag *diag, char *text, size_t size)
{
	const char *level = diag->level == DIAG_ERROR ? "error" : "warning";

	if (diag->line == 0)
		snprintf(
		    text, size, "%s: %s: %s", diag->file, level, diag->text);
	else if (diag->column == 0)
		snprintf(text, size, "%s:%u: %s: %s", diag->file, diag->line,
		    level, diag->text);
	else
		snprintf(text, size, "%s:%u:%u: %s: %s", diag->file, diag->line,
		    diag->column, level, diag->text);
	return text;
}
