#include "conf/load.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"

#define PACK_MAGIC 0x4f524231u /* "ORB1" */
#define PACK_HEAD  8           /* magic, count */
#define PACK_ENTRY 16          /* four lengths */
#define READ_STEP  65536
#define TOO_LARGE  "the file is larger than 64 MiB"

/* Bundles ---------------------------------------------------------------- */

void
bundle_init(struct bundle *bundle, bundle_reader *reader, void *arg)
{
	memset(bundle, 0, sizeof *bundle);
	bundle->reader = reader;
	bundle->arg = arg;
}

static void
file_fini(struct bundle_file *file)
{
	if (file->text != NULL)
		mem_wipe(file->text, file->len);
	free(file->text);
	free(file->pattern);
	free(file->path);
	free(file->problem);
}

void
bundle_fini(struct bundle *bundle)
{
	for (size_t i = 0; i < bundle->count; i++)
		file_fini(&bundle->file[i]);
	free(bundle->file);
	free(bundle->missing);
	memset(bundle, 0, sizeof *bundle);
}

static bool
bundle_grow(struct bundle *bundle)
{
	size_t room = bundle->room == 0 ? 8 : 2 * bundle->room;
	struct bundle_file *file;

	if (bundle->count < bundle->room)
		return true;
	file = realloc(bundle->file, room * sizeof *file);
	if (file == NULL)
		return false;
	bundle->file = file;
	bundle->room = room;
	return true;
}

/* Takes text, which is wiped if it cannot be kept. */
static enum err
bundle_put(struct bundle *bundle, const char *pattern, const char *path,
    const char *problem, uint8_t *text, size_t len)
{
	struct bundle_file file = { .text = text, .len = len };
	size_t octets =
	    strlen(pattern) + strlen(path) + strlen(problem) + len + PACK_ENTRY;
	enum err err = ERR_NOMEM;

	file.pattern = strdup(pattern);
	file.path = strdup(path);
	file.problem = strdup(problem);
	if (file.pattern == NULL || file.path == NULL || file.problem == NULL)
		goto out;
	err = ERR_LIMIT;
	if (bundle->count >= BUNDLE_FILES || strlen(pattern) >= BUNDLE_PATH ||
	    strlen(path) >= BUNDLE_PATH || strlen(problem) >= BUNDLE_PATH ||
	    octets > BUNDLE_OCTETS - bundle->octets)
		goto out;
	err = ERR_NOMEM;
	if (!bundle_grow(bundle))
		goto out;
	bundle->file[bundle->count++] = file;
	bundle->octets += octets;
	return OK;
out:
	file_fini(&file);
	return err;
}

enum err
bundle_add(struct bundle *bundle, const char *pattern, const char *path,
    struct view text)
{
	uint8_t *copy = mem_dup(text.at, text.len);

	if (copy == NULL)
		return ERR_NOMEM;
	return bundle_put(bundle, pattern, path, "", copy, text.len);
}

enum err
bundle_add_problem(struct bundle *bundle, const char *pattern, const char *path,
    const char *problem)
{
	uint8_t *empty = mem_dup("", 0);

	if (empty == NULL)
		return ERR_NOMEM;
	return bundle_put(bundle, pattern, path, problem, empty, 0);
}

/* As realloc, but leaves no copy behind. */
static uint8_t *
text_grow(uint8_t *text, size_t len, size_t room)
{
	uint8_t *bigger = malloc(room);

	if (bigger != NULL && len > 0)
		memcpy(bigger, text, len);
	if (text != NULL)
		mem_wipe(text, len);
	free(text);
	return bigger;
}

enum err
bundle_add_fd(
    struct bundle *bundle, const char *pattern, const char *path, int fd)
{
	size_t len = 0, room = 0;
	uint8_t *text = NULL;
	ssize_t got;

	do {
		if (room - len < READ_STEP) {
			room = room * 2 + READ_STEP;
			text = text_grow(text, len, room);
			if (text == NULL)
				return ERR_NOMEM;
		}
		got = read(fd, text + len, READ_STEP);
		if (got > 0)
			len += (size_t)got;
	} while (
	    (got > 0 || (got < 0 && errno == EINTR)) && len <= BUNDLE_OCTETS);
	if (got == 0)
		return bundle_put(bundle, pattern, path, "", text, len);
	mem_wipe(text, len);
	free(text);
	return bundle_add_problem(
	    bundle, pattern, path, got < 0 ? strerror(errno) : TOO_LARGE);
}

const struct bundle_file *
bundle_next(struct bundle *bundle, const char *pattern, size_t *at)
{
	for (bool asked = *at > 0;; asked = true) {
		for (; *at < bundle->count; ++*at)
			if (strcmp(bundle->file[*at].pattern, pattern) == 0)
				return &bundle->file[(*at)++];
		if (asked)
			return NULL;
		if (bundle->reader == NULL ||
		    bundle->reader(bundle->arg, bundle, pattern) != OK) {
			free(bundle->missing);
			bundle->missing = strdup(pattern);
			return NULL;
		}
		*at = 0;
	}
}

/* Files ------------------------------------------------------------------ */

static enum err
file_read(const void *arg, struct bundle *bundle, const char *pattern,
    const char *path)
{
	/* A pipe must not hold the daemon up. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat stat;
	enum err err;

	(void)arg;
	if (fd < 0)
		return bundle_add_problem(bundle, pattern, path,
		    errno == ENOENT ? BUNDLE_ABSENT : strerror(errno));
	if (fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode))
		err = bundle_add_problem(
		    bundle, pattern, path, "not a regular file");
	else if (stat.st_size > BUNDLE_OCTETS)
		err = bundle_add_problem(bundle, pattern, path, TOO_LARGE);
	else
		err = bundle_add_fd(bundle, pattern, path, fd);
	close(fd);
	return err;
}

enum err
bundle_glob(struct bundle *bundle, const char *pattern, bundle_one *one,
    const void *arg)
{
	glob_t found = { 0 };
	enum err err = OK;
	int result;

	if (strpbrk(pattern, "*?[") == NULL || access(pattern, F_OK) == 0)
		return one(arg, bundle, pattern, pattern);
	result = glob(pattern, 0, NULL, &found);
	if (result == GLOB_NOSPACE)
		return ERR_NOMEM;
	if (result != 0)
		/* Nothing matches: remembered, so that nobody asks again. */
		return bundle_add_problem(bundle, pattern, "", "");
	for (size_t i = 0; i < found.gl_pathc && err == OK; i++)
		err = one(arg, bundle, pattern, found.gl_pathv[i]);
	globfree(&found);
	return err;
}

enum err
bundle_read_files(void *arg, struct bundle *bundle, const char *pattern)
{
	return bundle_glob(bundle, pattern, file_read, arg);
}

/* Packing ---------------------------------------------------------------- */

static void
pack_part(struct buf *to, const void *octets, size_t len)
{
	buf_u32(to, (uint32_t)len);
	buf_put(to, octets, len);
}

enum err
bundle_pack(const struct bundle *bundle, uint8_t **octets, size_t *len)
{
	size_t size = PACK_HEAD + bundle->octets;
	struct buf to;

	*octets = malloc(size);
	if (*octets == NULL)
		return ERR_NOMEM;
	buf_init(&to, *octets, size);
	buf_u32(&to, PACK_MAGIC);
	buf_u32(&to, (uint32_t)bundle->count);
	for (size_t i = 0; i < bundle->count; i++) {
		const struct bundle_file *file = &bundle->file[i];

		pack_part(&to, file->pattern, strlen(file->pattern));
		pack_part(&to, file->path, strlen(file->path));
		pack_part(&to, file->problem, strlen(file->problem));
		pack_part(&to, file->text, file->len);
	}
	*len = to.len;
	return to.full ? ERR_BUG : OK;
}

static bool
unpack_part(struct view *from, struct view *part)
{
	uint32_t len;

	return view_u32(from, &len) && view_take(from, len, part);
}

/* Into a string; no NUL within, and short enough for a path. */
static bool
unpack_string(struct view part, char string[static BUNDLE_PATH])
{
	if (part.len >= BUNDLE_PATH ||
	    (part.len > 0 && memchr(part.at, '\0', part.len) != NULL))
		return false;
	if (part.len > 0)
		memcpy(string, part.at, part.len);
	string[part.len] = '\0';
	return true;
}

static enum err
unpack_file(struct bundle *bundle, struct view *from)
{
	char pattern[BUNDLE_PATH], path[BUNDLE_PATH], problem[BUNDLE_PATH];
	struct view part[4];
	uint8_t *text;

	for (size_t i = 0; i < 4; i++)
		if (!unpack_part(from, &part[i]))
			return ERR_SHORT;
	if (!unpack_string(part[0], pattern) || !unpack_string(part[1], path) ||
	    !unpack_string(part[2], problem))
		return ERR_SYNTAX;
	text = mem_dup(part[3].at, part[3].len);
	if (text == NULL)
		return ERR_NOMEM;
	return bundle_put(bundle, pattern, path, problem, text, part[3].len);
}

enum err
bundle_unpack(struct bundle *bundle, struct view octets)
{
	uint32_t magic, count;
	enum err err = OK;

	bundle_init(bundle, NULL, NULL);
	if (!view_u32(&octets, &magic) || !view_u32(&octets, &count))
		return ERR_SHORT;
	if (magic != PACK_MAGIC)
		return ERR_SYNTAX;
	if (count > BUNDLE_FILES)
		return ERR_LIMIT;
	for (uint32_t i = 0; i < count && err == OK; i++)
		err = unpack_file(bundle, &octets);
	return err == OK && octets.len > 0 ? ERR_SYNTAX : err;
}

bool
include_path(
    const char *file, const char *pattern, char path[static BUNDLE_PATH])
{
	const char *slash = strrchr(file, '/');
	int folder = 0, len;

	if (pattern[0] != '/' && slash != NULL) {
		if (slash - file >= BUNDLE_PATH)
			return false;
		folder = (int)(slash - file) + 1;
	}
	len = snprintf(path, BUNDLE_PATH, "%.*s%s", folder, file, pattern);
	return len >= 0 && len < BUNDLE_PATH;
}
