#include "conf/secretfile.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "common/mem.h"
#include "conf/lex.h"

#define TOKEN 512 /* octets of a selector or kind, with NUL */

const char *const secretfile_kinds[] = { "PSK", "RSA", "ECDSA", "PKCS8", "P12",
	"BLISS", "PIN", "EAP", "NTLM", "XAUTH", "PPK", "PPKS", NULL };

struct reader {
	struct bundle *bundle;
	struct diags *diags;
	secretfile_psk *psk;
	void *arg;
};

struct entry {
	struct reader *reader;
	const char *file;
	struct lex_cursor *cursor;
	struct place place; /* of the first word */
	struct ident *selectors[SECRET_SELECTORS];
	size_t count;
	/* The first selector that is none: it matters for a PSK only. */
	struct place wrong;
	const char *problem;
};

static struct place
place_at(const char *file, const struct lex_cursor *cursor)
{
	struct place place = { file, cursor->line, cursor->column };

	return place;
}

static enum err
bad(struct entry *entry, struct place place, const char *problem)
{
	diags_add(entry->reader->diags, DIAG_ERROR, place, "%s", problem);
	return ERR_SYNTAX;
}

/* Words ------------------------------------------------------------------ */

static bool
is_blank(int octet)
{
	return octet == ' ' || octet == '\t' || octet == '\r';
}

/* To the next word of this entry. False where the entry ends: at a line that
 * is not indented. */
static bool
next_word(struct lex_cursor *cursor)
{
	for (;;) {
		int octet;

		lex_skip_blanks(cursor);
		octet = lex_peek(cursor);
		if (octet == '#') {
			while (octet >= 0 && octet != '\n') {
				lex_skip(cursor);
				octet = lex_peek(cursor);
			}
		}
		if (octet < 0)
			return false;
		if (octet != '\n')
			return true;
		if (cursor->left.len < 2 || !is_blank(cursor->left.at[1]))
			return false;
		lex_skip(cursor);
	}
}

/* What is left of the line must be a comment or nothing. */
static bool
line_is_done(struct lex_cursor *cursor)
{
	int octet;

	lex_skip_blanks(cursor);
	octet = lex_peek(cursor);
	return octet < 0 || octet == '\n' || octet == '#';
}

/* Up to a blank, the end of the line or a quote. False when too long. */
static bool
take_word(struct lex_cursor *cursor, char word[static TOKEN])
{
	size_t len = 0;
	int octet = lex_peek(cursor);

	while (octet > 0 && !is_blank(octet) && octet != '\n' && octet != '"' &&
	       octet != '\'') {
		if (len + 1 >= TOKEN)
			return false;
		word[len++] = (char)octet;
		lex_skip(cursor);
		octet = lex_peek(cursor);
	}
	word[len] = '\0';
	return true;
}

/* A selector or path in double quotes; false: it does not end. */
static bool
take_quoted_word(struct lex_cursor *cursor, char word[static TOKEN])
{
	size_t len = 0;
	int octet;

	for (lex_skip(cursor); (octet = lex_peek(cursor)) != '"';
	     lex_skip(cursor)) {
		if (octet < 0x20 || len + 1 >= TOKEN)
			return false;
		word[len++] = (char)octet;
	}
	lex_skip(cursor);
	word[len] = '\0';
	return true;
}

/* Values ----------------------------------------------------------------- */

static int
hex_digit(int octet)
{
	if (octet >= '0' && octet <= '9')
		return octet - '0';
	octet = tolower(octet);
	return octet >= 'a' && octet <= 'f' ? octet - 'a' + 10 : -1;
}

static const char *
put(struct buf *psk, uint8_t octet)
{
	buf_u8(psk, octet);
	return psk->full ? "the secret is too long: at most 512 octets" : NULL;
}

/* Each of these returns NULL or what is wrong. */
static const char *
take_hex(struct lex_cursor *cursor, struct buf *psk)
{
	int high = -1;

	for (;; lex_skip(cursor)) {
		int octet = lex_peek(cursor), digit = hex_digit(octet);
		const char *problem = NULL;

		if (octet == '_') /* digits may be grouped */
			continue;
		if (digit < 0)
			break;
		if (high >= 0)
			problem = put(psk, (uint8_t)(high << 4 | digit));
		if (problem != NULL)
			return problem;
		high = high >= 0 ? -1 : digit;
	}
	return high < 0 ? NULL
	                : "expected an even number of hexadecimal digits";
}

static int
base64_digit(int octet)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	                             "abcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = octet <= 0 ? NULL : strchr(digits, octet);

	return at == NULL ? -1 : (int)(at - digits);
}

/* RFC 4648 4. */
static const char *
take_base64(struct lex_cursor *cursor, struct buf *psk)
{
	uint32_t bits = 0;
	unsigned held = 0, digits = 0, pads = 0;

	for (;; lex_skip(cursor)) {
		int octet = lex_peek(cursor), digit = base64_digit(octet);
		const char *problem = NULL;

		if (octet == '=' && ++pads <= 2)
			continue;
		if (digit < 0)
			break;
		if (pads > 0)
			return "found more base64 behind its padding";
		digits++;
		bits = (bits << 6 | (uint32_t)digit) & 0xffff;
		held += 6;
		if (held < 8)
			continue;
		held -= 8;
		problem = put(psk, (uint8_t)(bits >> held));
		if (problem != NULL)
			return problem;
	}
	if (digits % 4 == 1 || (pads > 0 && (digits + pads) % 4 != 0))
		return "the base64 value is not complete";
	return NULL;
}

static const char *
take_quoted(struct lex_cursor *cursor, struct buf *psk)
{
	int close = lex_peek(cursor);

	for (lex_skip(cursor);; lex_skip(cursor)) {
		int octet = lex_peek(cursor);
		const char *problem;

		if (octet == close)
			break;
		if (octet < 0 || octet == '\n')
			return "the quote is not closed on this line";
		if (octet < 0x20 && octet != '\t')
			return "found a control character in the quotes";
		problem = put(psk, (uint8_t)octet);
		if (problem != NULL)
			return problem;
	}
	lex_skip(cursor);
	return NULL;
}

static const char *
take_bare(struct lex_cursor *cursor, struct buf *psk)
{
	for (;; lex_skip(cursor)) {
		int octet = lex_peek(cursor);
		const char *problem;

		if (octet < 0 || octet == '\n' || is_blank(octet))
			return NULL;
		problem = put(psk, (uint8_t)octet);
		if (problem != NULL)
			return problem;
	}
}

static const char *
take_value(struct lex_cursor *cursor, struct buf *psk)
{
	struct view left = cursor->left;
	int octet = lex_peek(cursor), form = 0;

	if (octet == '"' || octet == '\'')
		return take_quoted(cursor, psk);
	if (octet == '0' && left.len > 1)
		form = tolower(left.at[1]);
	if (form != 'x' && form != 's' && form != 't')
		return take_bare(cursor, psk);
	lex_skip(cursor);
	lex_skip(cursor);
	if (form == 't')
		return take_bare(cursor, psk);
	return form == 'x' ? take_hex(cursor, psk) : take_base64(cursor, psk);
}

/* Entries ---------------------------------------------------------------- */

static enum err
add_selector(struct entry *entry, struct place place, const char *word)
{
	const char *problem = "expected an identity";
	struct ident *ident;
	struct addr addr;
	enum err err;

	if (entry->problem != NULL)
		return OK;
	if (entry->count == SECRET_SELECTORS)
		return bad(entry, place,
		    "too many selectors: at most 64 in one entry");
	if (strcmp(word, "%any4") == 0 || strcmp(word, "%any6") == 0 ||
	    (addr_parse(&addr, word) && addr_is_any(&addr)))
		word = "%any";
	err = ident_parse(&ident, word, &problem);
	if (err == ERR_NOMEM)
		return err;
	if (err != OK) {
		entry->wrong = place;
		entry->problem = problem;
		return OK;
	}
	entry->selectors[entry->count++] = ident;
	return OK;
}

/* Selectors up to the colon. */
static enum err
read_selectors(struct entry *entry)
{
	struct lex_cursor *cursor = entry->cursor;

	while (next_word(cursor)) {
		struct lex_cursor begin = *cursor;
		struct place place = place_at(entry->file, cursor);
		char word[TOKEN];
		struct addr addr;
		size_t len;
		bool colon;
		enum err err;

		if (lex_peek(cursor) == '"') {
			if (!take_quoted_word(cursor, word))
				return bad(entry, place,
				    "the quote is not closed on this line");
			err = add_selector(entry, place, word);
			if (err != OK)
				return err;
			continue;
		}
		if (!take_word(cursor, word))
			return bad(entry, place, "the word is too long");
		len = strlen(word);
		if (len == 0)
			return bad(entry, place,
			    "expected a colon and a kind such as PSK in front "
			    "of the secret");
		if (word[0] == ':' && !addr_parse(&addr, word)) {
			*cursor = begin;
			lex_skip(cursor);
			return OK;
		}
		colon = word[len - 1] == ':' && !addr_parse(&addr, word);
		if (colon)
			word[len - 1] = '\0';
		err = add_selector(entry, place, word);
		if (err != OK || colon)
			return err;
	}
	return bad(entry, entry->place,
	    "expected a colon and a kind such as PSK behind the selectors");
}

static bool
is_kind(const char *word)
{
	for (size_t i = 0; secretfile_kinds[i] != NULL; i++)
		if (strcasecmp(word, secretfile_kinds[i]) == 0)
			return true;
	return false;
}

/* OK: a PSK's value follows. */
static enum err
read_kind(struct entry *entry)
{
	struct lex_cursor *cursor = entry->cursor;
	char word[TOKEN];
	struct place place;

	if (!next_word(cursor))
		return bad(entry, place_at(entry->file, cursor),
		    "expected a kind such as PSK behind the colon");
	place = place_at(entry->file, cursor);
	if (!take_word(cursor, word) || !is_kind(word)) {
		mem_wipe(word, sizeof word); /* it may have been the secret */
		return bad(entry, place,
		    "found an unknown kind behind the colon; expected PSK");
	}
	if (strcasecmp(word, "PSK") == 0)
		return entry->problem == NULL
		           ? OK
		           : bad(entry, entry->wrong, entry->problem);
	diags_add(entry->reader->diags, DIAG_WARNING, place,
	    "%s is left out: only PSK is done so far", word);
	return ERR_UNSUPPORTED;
}

static enum err
read_psk(struct entry *entry)
{
	struct lex_cursor *cursor = entry->cursor;
	uint8_t octets[SECRET_OCTETS];
	const char *problem;
	struct place place;
	struct buf psk;
	enum err err;

	if (!next_word(cursor))
		return bad(entry, place_at(entry->file, cursor),
		    "expected a secret behind PSK");
	place = place_at(entry->file, cursor);
	buf_init(&psk, octets, sizeof octets);
	problem = take_value(cursor, &psk);
	if (problem == NULL && psk.len == 0)
		problem = "the secret is empty";
	if (problem == NULL && !line_is_done(cursor)) {
		place = place_at(entry->file, cursor);
		problem = "found more behind the secret; expected the end of "
		          "the line (a secret with blanks needs quotes)";
	}
	if (problem != NULL)
		err = bad(entry, place, problem);
	else
		err = entry->reader->psk(entry->reader->arg, entry->place,
		    entry->selectors, entry->count, buf_done(&psk));
	mem_wipe(octets, sizeof octets);
	return err;
}

/* What the lines of an entry that was given up go on with is no entry of its
 * own: ": PSK ..." without its selectors would be everybody's key. */
static void
skip_entry(struct lex_cursor *cursor, unsigned column)
{
	for (;;) {
		struct lex_cursor next;

		lex_skip_line(cursor);
		next = *cursor;
		lex_skip_blanks(&next);
		if (lex_peek(&next) < 0 || next.column == 1 ||
		    (next.column <= column && lex_peek(&next) != ':'))
			return;
	}
}

static enum err
read_entry(struct reader *reader, const char *file, struct lex_cursor *cursor)
{
	struct entry entry = { .reader = reader,
		.file = file,
		.cursor = cursor,
		.place = place_at(file, cursor) };
	enum err err = read_selectors(&entry);

	if (err == OK)
		err = read_kind(&entry);
	if (err == OK)
		err = read_psk(&entry);
	for (size_t i = 0; i < entry.count; i++)
		ident_unref(entry.selectors[i]);
	if (err == OK) {
		lex_skip_line(cursor);
		return OK;
	}
	skip_entry(cursor, entry.place.column);
	/* The entry was bad, or is none of ours: the next one. */
	return err == ERR_SYNTAX || err == ERR_UNSUPPORTED ? OK : err;
}

/* Files ------------------------------------------------------------------ */

static enum err read_path(struct reader *reader, struct place place,
    const char *path, unsigned depth);

static bool
at_include(const struct lex_cursor *cursor)
{
	static const char word[] = "include";
	size_t len = sizeof word - 1;

	return cursor->left.len > len &&
	       memcmp(cursor->left.at, word, len) == 0 &&
	       is_blank(cursor->left.at[len]);
}

static enum err
read_include(struct reader *reader, const char *file, struct lex_cursor *cursor,
    unsigned depth)
{
	struct place place = place_at(file, cursor);
	char word[TOKEN], path[BUNDLE_PATH];
	bool taken;

	view_skip(&cursor->left, strlen("include"));
	lex_skip_blanks(cursor);
	taken = lex_peek(cursor) == '"' ? take_quoted_word(cursor, word)
	                                : take_word(cursor, word);
	lex_skip_line(cursor);
	if (!taken || word[0] == '\0' || !include_path(file, word, path)) {
		diags_add(reader->diags, DIAG_ERROR, place,
		    "include: expected the path of a file");
		return OK;
	}
	if (depth >= INCLUDE_DEPTH) {
		diags_add(reader->diags, DIAG_ERROR, place,
		    "include: at most %d files inside one another",
		    INCLUDE_DEPTH);
		return OK;
	}
	return read_path(reader, place, path, depth + 1);
}

static enum err
read_text(struct reader *reader, const struct bundle_file *file, unsigned depth)
{
	struct lex_cursor cursor;
	enum err err = OK;

	lex_begin(&cursor, view_of(file->text, file->len));
	while (err == OK && lex_peek(&cursor) >= 0) {
		if (line_is_done(&cursor))
			lex_skip_line(&cursor);
		else if (at_include(&cursor))
			err = read_include(reader, file->path, &cursor, depth);
		else
			err = read_entry(reader, file->path, &cursor);
	}
	return err;
}

static enum err
read_path(
    struct reader *reader, struct place place, const char *path, unsigned depth)
{
	const struct bundle_file *found;
	enum err err = OK;
	size_t at = 0;
	bool any = false;

	while (err == OK &&
	       (found = bundle_next(reader->bundle, path, &at)) != NULL) {
		struct bundle_file copy = *found; /* the array may move */

		any = true;
		if (copy.problem[0] != '\0' && depth == 1)
			diags_add(reader->diags, DIAG_ERROR, place,
			    "cannot be read: %s", copy.problem);
		else if (copy.problem[0] != '\0')
			diags_add(reader->diags,
			    strcmp(copy.problem, BUNDLE_ABSENT) == 0
			        ? DIAG_WARNING
			        : DIAG_ERROR,
			    place, "include %s: %s", copy.path, copy.problem);
		else if (copy.path[0] != '\0')
			err = read_text(reader, &copy, depth);
	}
	return any || err != OK ? err : ERR_NOT_FOUND;
}

enum err
secretfile_read(struct bundle *bundle, const char *path, struct diags *diags,
    secretfile_psk *psk, void *arg)
{
	struct reader reader = { bundle, diags, psk, arg };
	struct place place = { path, 0, 0 };

	return read_path(&reader, place, path, 1);
}
