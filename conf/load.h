/*
 * load: the reading of files, apart from their parsing.
 *
 * Parsers do not open files: they ask a bundle for the texts behind a pattern.
 * A bundle with a reader fetches them (the parent process, which may read) and
 * remembers them; packed into one octet string, it is handed to a process
 * without a file system, where the same parsers ask the same questions of the
 * same bundle and come to the same result.
 *
 * The octets of a packed bundle are checked like a stranger's. Texts are wiped
 * when a bundle goes: ipsec.secrets is read through one, too.
 */
#ifndef CONF_LOAD_H
#define CONF_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

#define BUNDLE_FILES  4096        /* entries of one bundle */
#define BUNDLE_OCTETS (64u << 20) /* of texts, patterns and paths together */
#define BUNDLE_PATH   4096        /* octets of a pattern or path, with NUL */
#define INCLUDE_DEPTH 10
#define BUNDLE_ABSENT "no such file" /* the problem of a file that is not */

struct bundle;

/* Adds what pattern (absolute, or as given on the command line) stands for:
 * one bundle_add() a file, in order, or one bundle_add_problem(). */
typedef enum err
bundle_reader(void *arg, struct bundle *bundle, const char *pattern);

struct bundle_file {
	char *pattern; /* what was asked for */
	char *path;    /* "" if nothing matched */
	char *problem; /* why it could not be read; "" if it could */
	uint8_t *text; /* wiped when freed */
	size_t len;    /* octets of text */
};

struct bundle {
	struct bundle_file *file;
	size_t count, room, octets;
	bundle_reader *reader; /* NULL: what is here is all there is */
	void *arg;
	char *missing; /* the last pattern asked for in vain; NULL if none:
	                * whoever fetches texts without a reader adds it and
	                * parses again */
};

void bundle_init(struct bundle *bundle, bundle_reader *reader, void *arg);
void bundle_fini(struct bundle *bundle);

/* Copies. ERR_LIMIT beyond the bounds above, ERR_NOMEM. */
enum err bundle_add(struct bundle *bundle, const char *pattern,
    const char *path, struct view text);
enum err bundle_add_problem(struct bundle *bundle, const char *pattern,
    const char *path, const char *problem);
/* Reads the descriptor to its end (it is not closed); what cannot be read
 * becomes a problem in the bundle. */
enum err bundle_add_fd(
    struct bundle *bundle, const char *pattern, const char *path, int fd);

/* The files behind pattern: from *at on, through the reader if need be. NULL
 * when there are no more. Begin with *at 0. */
const struct bundle_file *
bundle_next(struct bundle *bundle, const char *pattern, size_t *at);

/* Adds one file behind pattern, or the problem with it; ERR_NOMEM. */
typedef enum err bundle_one(const void *arg, struct bundle *bundle,
    const char *pattern, const char *path);
/* one() for each match of pattern (glob(7)), in sorted order. A pattern without
 * wildcards is a path; one with wildcards that matches nothing is remembered as
 * such. ERR_NOMEM, or what one() answers. */
enum err bundle_glob(struct bundle *bundle, const char *pattern,
    bundle_one *one, const void *arg);
/* The reader for processes that have a file system: glob(7), then every match
 * in sorted order. A pattern without wildcards that is not there is a problem,
 * one with wildcards that matches nothing is not. arg is not used. */
bundle_reader bundle_read_files;

/* One octet string for the whole; the caller wipes and frees it. */
enum err
bundle_pack(const struct bundle *bundle, uint8_t **octets, size_t *len);
/* Into a bundle without a reader, which the caller finishes also after an
 * error. ERR_SHORT, ERR_SYNTAX, ERR_LIMIT, ERR_NOMEM. */
enum err bundle_unpack(struct bundle *bundle, struct view octets);

/* The path that include PATTERN in file means: patterns that do not begin with
 * "/" are relative to the directory of the including file. False when it is
 * too long. */
bool include_path(
    const char *file, const char *pattern, char path[static BUNDLE_PATH]);

#endif
