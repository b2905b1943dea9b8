#include "daemon/setup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"
#include "conf/conf.h"
#include "daemon/table.h"
#include "kernel/link.h"

#define MAGIC 0x4f434647u

void
setup_fini(struct setup *setup)
{
	bundle_fini(&setup->bundle);
	free(setup->path);
	free(setup->resolv);
	free(setup->hosts);
	memset(setup, 0, sizeof(*setup));
}

struct policy *
setup_policy(struct setup *setup)
{
	struct conf_options options = {
		.path = setup->path,
		.own = setup->own,
		.own_count = setup->own_count,
		.keep_going = setup->keep_going,
	};
	struct diags diags = { 0 };
	struct policy *policy = conf_load(&setup->bundle, &options, &diags);

	setup->warnings = diags.warnings;
	diags_fini(&diags);
	return policy;
}

/* A small file as one string; NULL when it cannot be read. */
static char *
read_text(const char *path)
{
	struct bundle bundle;
	const struct bundle_file *file;
	size_t at = 0;
	char *text = NULL;

	bundle_init(&bundle, bundle_read_files, NULL);
	file = bundle_next(&bundle, path, &at);
	if (file != NULL && file->problem[0] == '\0' &&
	    file->len <= SETUP_TEXT &&
	    memchr(file->text, '\0', file->len) == NULL)
		text = strndup((const char *)file->text, file->len);
	bundle_fini(&bundle);
	return text;
}

enum err
setup_read(struct setup *setup, const char *path, bool keep_going,
    struct diags *diags, struct policy **policy)
{
	struct conf_options options = { .keep_going = keep_going };

	memset(setup, 0, sizeof(*setup));
	*policy = NULL;
	bundle_init(&setup->bundle, bundle_read_files, NULL);
	setup->path = strdup(path);
	if (setup->path == NULL)
		return ERR_NOMEM;
	setup->keep_going = keep_going;
	/* Without its own addresses the left end is the local one. */
	if (link_addresses(setup->own, SETUP_OWN, &setup->own_count) != OK)
		setup->own_count = 0;
	setup->resolv = read_text("/etc/resolv.conf");
	setup->hosts = read_text("/etc/hosts");
	options.path = setup->path;
	options.own = setup->own;
	options.own_count = setup->own_count;
	*policy = conf_load(&setup->bundle, &options, diags);
	setup->warnings = diags->warnings;
	return *policy != NULL ? OK : ERR_SYNTAX;
}

static void
put_octets(struct text *text, const void *octets, size_t len)
{
	uint32_t size = (uint32_t)len;

	text_add(text, (const char *)&size, sizeof(size));
	text_add(text, octets, len);
}

static enum err
write_all(int fd, const char *at, size_t len)
{
	while (len > 0) {
		ssize_t done = write(fd, at, len);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return ERR_IO;
		at += done;
		len -= (size_t)done;
	}
	return OK;
}

enum err
setup_send(const struct setup *setup, int *fd)
{
	struct text text = { .max = SETUP_MAX };
	uint32_t head[2] = { MAGIC, setup->keep_going };
	const char *resolv = setup->resolv != NULL ? setup->resolv : "";
	const char *hosts = setup->hosts != NULL ? setup->hosts : "";
	uint8_t *octets = NULL;
	size_t len = 0;
	enum err err;

	*fd = -1;
	err = bundle_pack(&setup->bundle, &octets, &len);
	if (err != OK)
		return err;
	text_add(&text, (const char *)head, sizeof(head));
	put_octets(&text, setup->path, strlen(setup->path));
	put_octets(&text, setup->own, setup->own_count * sizeof(setup->own[0]));
	put_octets(&text, resolv, strlen(resolv));
	put_octets(&text, hosts, strlen(hosts));
	put_octets(&text, octets, len);
	mem_wipe(octets, len);
	free(octets);
	if (text.failed) {
		text_free(&text);
		return ERR_NOMEM;
	}
	*fd = memfd_create("orthrus-setup", MFD_CLOEXEC);
	err = *fd < 0 ? ERR_IO : write_all(*fd, text.at, text.len);
	mem_wipe(text.at, text.len);
	text_free(&text);
	if (err != OK && *fd >= 0) {
		close(*fd);
		*fd = -1;
	}
	return err;
}

static enum err
read_all(int fd, uint8_t **octets, size_t *len)
{
	struct stat stat;
	uint8_t *at;
	size_t size, done = 0;

	if (fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode))
		return ERR_IO;
	if (stat.st_size < 0 || stat.st_size > SETUP_MAX)
		return ERR_LONG;
	size = (size_t)stat.st_size;
	at = malloc(size + 1);
	if (at == NULL)
		return ERR_NOMEM;
	while (done < size) {
		ssize_t got = pread(fd, at + done, size - done, (off_t)done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			free(at);
			return ERR_SHORT;
		}
		done += (size_t)got;
	}
	*octets = at;
	*len = size;
	return OK;
}

static bool
take_u32(struct view *from, uint32_t *value)
{
	return view_copy(from, value, sizeof(*value));
}

static bool
take_octets(struct view *from, struct view *octets)
{
	uint32_t len;

	return take_u32(from, &len) && view_take(from, len, octets);
}

/* A string of at most max octets, without NUL inside. */
static enum err
take_text(struct view *from, size_t max, char **text)
{
	struct view octets;

	if (!take_octets(from, &octets))
		return ERR_SHORT;
	if (octets.len > max)
		return ERR_LONG;
	if (octets.len > 0 && memchr(octets.at, '\0', octets.len) != NULL)
		return ERR_SYNTAX;
	*text =
	    strndup(octets.len > 0 ? (const char *)octets.at : "", octets.len);
	return *text != NULL ? OK : ERR_NOMEM;
}

static enum err
take_own(struct view *from, struct setup *setup)
{
	struct view octets;

	if (!take_octets(from, &octets))
		return ERR_SHORT;
	if (octets.len % sizeof(setup->own[0]) != 0)
		return ERR_SYNTAX;
	setup->own_count = octets.len / sizeof(setup->own[0]);
	if (setup->own_count > SETUP_OWN) {
		setup->own_count = 0;
		return ERR_LONG;
	}
	view_copy(&octets, setup->own, octets.len);
	for (size_t i = 0; i < setup->own_count; i++)
		if (setup->own[i].family != ADDR_V4 &&
		    setup->own[i].family != ADDR_V6)
			return ERR_SYNTAX;
	return OK;
}

static enum err
take_setup(struct view from, struct setup *setup)
{
	uint32_t magic, keep_going;
	struct view bundle;
	enum err err;

	if (!take_u32(&from, &magic) || !take_u32(&from, &keep_going))
		return ERR_SHORT;
	if (magic != MAGIC || keep_going > 1)
		return ERR_SYNTAX;
	setup->keep_going = keep_going;
	err = take_text(&from, BUNDLE_PATH, &setup->path);
	if (err == OK)
		err = take_own(&from, setup);
	if (err == OK)
		err = take_text(&from, SETUP_TEXT, &setup->resolv);
	if (err == OK)
		err = take_text(&from, SETUP_TEXT, &setup->hosts);
	if (err != OK)
		return err;
	if (!take_octets(&from, &bundle))
		return ERR_SHORT;
	if (from.len != 0)
		return ERR_LONG;
	return bundle_unpack(&setup->bundle, bundle);
}

enum err
setup_receive(struct setup *setup, int fd)
{
	uint8_t *octets = NULL;
	size_t len = 0;
	enum err err;

	memset(setup, 0, sizeof(*setup));
	bundle_init(&setup->bundle, NULL, NULL);
	err = read_all(fd, &octets, &len);
	if (err != OK)
		return err;
	err = take_setup(view_of(octets, len), setup);
	if (err != OK)
		setup_fini(setup);
	mem_wipe(octets, len);
	free(octets);
	return err;
}

void
setup_warnings_text(const struct setup *setup, char *text, size_t size)
{
	size_t used = strlen(text);

	if (setup->warnings > 0)
		snprintf(text + used, size - used,
		    "\n%zu warning%s: in the log, and in what orthrusd --check "
		    "says",
		    setup->warnings, setup->warnings == 1 ? "" : "s");
}

char *
setup_diags_text(const struct diags *diags)
{
	struct text text = { .max = 1u << 20 };
	char line[1024];

	for (size_t i = 0; i < diags->count; i++)
		text_format(&text, "%s%s", i > 0 ? "\n" : "",
		    diag_text(&diags->item[i], line, sizeof(line)));
	if (diags->errors + diags->warnings > diags->count)
		text_format(&text, "\nand %zu more",
		    diags->errors + diags->warnings - diags->count);
	text_add(&text, "", 1);
	if (text.failed || diags->count == 0) {
		text_free(&text);
		return NULL;
	}
	return text.at;
}

void
setup_log_diags(struct log *log, const struct diags *diags)
{
	char line[1024];

	for (size_t i = 0; i < diags->count; i++)
		log_write(log,
		    diags->item[i].level == DIAG_ERROR ? LOG_LEVEL_ERROR
		                                       : LOG_LEVEL_WARNING,
		    "%s", diag_text(&diags->item[i], line, sizeof(line)));
}
