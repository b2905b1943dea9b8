/*
 * conf: see the header. First all files become sections of settings, then each
 * conn section becomes a connection.
 */
#include "conf/conf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/map.h"
#include "conf/schema.h"
#include "conf/sense.h"

#define NAME_MAX_OCTETS 128  /* of a conn's name */
#define ALSO_MAX        1000 /* sections that one connection may draw on */
#define SLOTS           256  /* options times two ends: checked at start */

struct spot {
	unsigned line, column;
};

struct section;

struct setting {
	struct setting *next;
	const struct option *option;
	const struct section *section;
	struct place key, value;
	struct spot *at; /* where each octet of text stands; NULL: one behind
	                  * the other from value on */
	uint8_t end;
	/* Said once, however many connections inherit it. */
	bool reported, repeated;
	char text[];
};

struct section {
	struct section *next;
	struct map_node by_name;
	struct place place;
	struct setting *first, **last;
	bool busy;   /* also= is being followed through it */
	bool used;   /* some also= names it */
	bool broken; /* a line of it could not be read */
	char name[];
};

struct parse {
	struct bundle *bundle;
	const struct conf_options *options;
	struct diags *diags;
	enum dialect dialect;
	struct section *first, **last;
	struct map by_name;
	struct section *setup, *fallback; /* config setup, conn %default */
	struct section *now;              /* NULL: settings are skipped */
	bool in_section;                  /* some header has been seen */
	bool nomem;
	size_t section_count, setting_count, also_count;
	size_t errors_before;
	const struct setting *slots[SLOTS];
};

static struct place
item_place(const char *file, const struct lex_item *item)
{
	struct place place = { file, item->line, item->column };

	return place;
}

/* Sections --------------------------------------------------------------- */

static struct section *
section_find(const struct parse *parse, const char *name)
{
	uint64_t hash = map_hash(&parse->by_name, view_text(name));
	struct map_node *node = map_find(&parse->by_name, hash);

	for (; node != NULL; node = map_next_same(node)) {
		struct section *section =
		    map_entry(node, struct section, by_name);

		if (strcmp(section->name, name) == 0)
			return section;
	}
	return NULL;
}

static struct section *
section_new(struct parse *parse, const char *name, struct place place)
{
	size_t size = strlen(name) + 1;
	struct section *section;

	section = calloc(1, sizeof *section + size);
	if (section == NULL) {
		parse->nomem = true;
		return NULL;
	}
	memcpy(section->name, name, size);
	section->place = place;
	section->last = &section->first;
	return section;
}

static void
section_free(struct section *section)
{
	struct setting *next;

	if (section == NULL)
		return;
	for (struct setting *s = section->first; s != NULL; s = next) {
		next = s->next;
		free(s->at);
		free(s);
	}
	free(section);
}

/* What cannot be read may have been a restriction: without it a connection
 * would be wider than it was written, so that nothing may draw on this. */
static void
section_break(struct section *section)
{
	if (section != NULL)
		section->broken = true;
}

static bool
is_conn_name(const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < len; i++)
		if (name[i] <= ' ' || name[i] == 0x7f || name[i] == '"')
			return false;
	/* "--json" is an option to whoever names it on a command line. */
	return len > 0 && len <= NAME_MAX_OCTETS && name[0] != '%' &&
	       name[0] != '-';
}

/* Repeated sections are one: later settings win. */
static struct section *
conn_section(struct parse *parse, struct place place, const char *name)
{
	struct section *section;

	if (strcmp(name, "%default") == 0) {
		if (parse->fallback == NULL)
			parse->fallback = section_new(parse, name, place);
		return parse->fallback;
	}
	if (!is_conn_name(name)) {
		diags_add(parse->diags, DIAG_ERROR, place,
		    "conn: found \"%s\"; expected a name of at most %d "
		    "printable ASCII characters that begins with neither %% "
		    "nor -",
		    name, NAME_MAX_OCTETS);
		return NULL;
	}
	section = section_find(parse, name);
	if (section != NULL)
		return section;
	if (parse->section_count >= CONNS_MAX) {
		diags_add(parse->diags, DIAG_ERROR, place,
		    "too many sections: at most %d", CONNS_MAX);
		return NULL;
	}
	section = section_new(parse, name, place);
	if (section == NULL)
		return NULL;
	parse->section_count++;
	map_insert(&parse->by_name, &section->by_name,
	    map_hash(&parse->by_name, view_text(name)));
	*parse->last = section;
	parse->last = &section->next;
	return section;
}

static void
read_section(struct parse *parse, const char *file, const struct lex_item *item)
{
	struct place place = item_place(file, item);
	struct section *before = parse->now;

	parse->now = NULL;
	parse->in_section = true;
	if (strcmp(item->key, "conn") == 0) {
		parse->now = conn_section(parse, place, item->value);
	} else if (strcmp(item->key, "config") == 0 &&
	           strcmp(item->value, "setup") == 0) {
		if (parse->setup == NULL)
			parse->setup = section_new(parse, "setup", place);
		parse->now = parse->setup;
	} else if (strcmp(item->key, "ca") == 0) {
		diags_add(parse->diags, DIAG_WARNING, place,
		    "ca %s: certificates are not done yet; the section is "
		    "left out",
		    item->value);
	} else if (strcmp(item->key, "version") != 0) {
		diags_add(parse->diags, DIAG_ERROR, place,
		    "found \"%s%s%s\"; expected config setup, conn NAME, ca "
		    "NAME or include FILE",
		    item->key, item->value[0] == '\0' ? "" : " ", item->value);
		/* It may be a setting that should have been indented. */
		section_break(before);
	}
}

/* Settings --------------------------------------------------------------- */

static void
unknown_key(struct parse *parse, struct place place, const char *key)
{
	bool setup = parse->now == parse->setup;
	char similar[64];
	unsigned end;

	if (option_find(!setup, parse->dialect, key, &end) != NULL)
		diags_add(parse->diags, DIAG_WARNING, place,
		    "%s belongs in a %s section; it is left out here", key,
		    setup ? "conn" : "config setup");
	else if (option_similar(setup, parse->dialect, key, similar,
	             sizeof similar) != NULL)
		diags_add(parse->diags, DIAG_WARNING, place,
		    "unknown keyword %s is left out; did you mean %s?", key,
		    similar);
	else
		diags_add(parse->diags, DIAG_WARNING, place,
		    "unknown keyword %s is left out", key);
}

/* Where each octet stands, unless they simply follow one another. */
static bool
setting_spots(struct setting *setting, const struct lex_item *item, size_t len)
{
	size_t i = 0;

	setting->value.file = setting->key.file;
	setting->value.line = item->at[0].line;
	setting->value.column = item->at[0].column;
	while (i <= len && item->at[i].line == item->at[0].line &&
	       item->at[i].column == item->at[0].column + i)
		i++;
	if (i > len)
		return true;
	setting->at = calloc(len + 1, sizeof *setting->at);
	for (i = 0; setting->at != NULL && i <= len; i++) {
		setting->at[i].line = item->at[i].line;
		setting->at[i].column = item->at[i].column;
	}
	return setting->at != NULL;
}

static void
add_setting(struct parse *parse, const struct option *option, unsigned end,
    struct place place, const struct lex_item *item)
{
	size_t len = strlen(item->value);
	struct setting *setting = calloc(1, sizeof *setting + len + 1);

	if (setting == NULL) {
		parse->nomem = true;
		return;
	}
	memcpy(setting->text, item->value, len + 1);
	setting->option = option;
	setting->section = parse->now;
	setting->end = (uint8_t)end;
	setting->key = place;
	if (!setting_spots(setting, item, len))
		parse->nomem = true;
	*parse->now->last = setting;
	parse->now->last = &setting->next;
	parse->setting_count++;
}

static void
read_setting(struct parse *parse, const char *file, const struct lex_item *item)
{
	struct place place = item_place(file, item);
	const struct option *option;
	unsigned end;

	if (!parse->in_section)
		diags_add(parse->diags, DIAG_ERROR, place,
		    "%s stands outside of a section; expected config setup or "
		    "conn NAME before it",
		    item->key);
	/* x-...: the user's own. */
	if (parse->now == NULL || strncmp(item->key, "x-", 2) == 0 ||
	    strncmp(item->key, "x_", 2) == 0)
		return;
	option = option_find(
	    parse->now == parse->setup, parse->dialect, item->key, &end);
	if (option == NULL)
		unknown_key(parse, place, item->key);
	else if (parse->setting_count < SETTINGS_MAX)
		add_setting(parse, option, end, place, item);
	else if (parse->setting_count++ == SETTINGS_MAX)
		diags_add(parse->diags, DIAG_ERROR, place,
		    "too many settings: at most %d", SETTINGS_MAX);
	if (option != NULL && parse->setting_count > SETTINGS_MAX)
		section_break(parse->now);
}

static void
read_bad(struct parse *parse, const char *file, const struct lex_item *item)
{
	diags_add(parse->diags, DIAG_ERROR, item_place(file, item), "%s",
	    item->problem);
	if (!lex_opens_section(item->key)) {
		section_break(parse->now);
		return;
	}
	/* What follows is none of the section before. */
	parse->now = NULL;
	parse->in_section = true;
}

/* Files ------------------------------------------------------------------ */

static void
read_text(struct parse *parse, const struct bundle_file *file, unsigned depth);

static void
read_include(struct parse *parse, const char *file, const struct lex_item *item,
    unsigned depth)
{
	struct place place = item_place(file, item);
	const struct bundle_file *found;
	char path[BUNDLE_PATH];
	/* Settings of the section may have been in it. */
	struct section *loser = item->indented ? parse->now : NULL;
	size_t at = 0;
	bool any = false;

	if (item->value[0] == '\0' || !include_path(file, item->value, path)) {
		diags_add(parse->diags, DIAG_ERROR, place,
		    "include: found \"%s\"; expected the path of a file",
		    item->value);
		section_break(loser);
		return;
	}
	if (depth >= INCLUDE_DEPTH) {
		section_break(loser);
		diags_add(parse->diags, DIAG_ERROR, place,
		    "include: %s would be the %uth file inside one another; "
		    "at most %d",
		    path, depth + 1, INCLUDE_DEPTH);
		return;
	}
	while ((found = bundle_next(parse->bundle, path, &at)) != NULL) {
		/* The bundle's array may move while an included file asks for
		 * more: a copy of its pointers stays good. */
		struct bundle_file copy = *found;

		any = true;
		if (copy.problem[0] != '\0') {
			diags_add(parse->diags,
			    strcmp(copy.problem, BUNDLE_ABSENT) == 0 &&
			            loser == NULL
			        ? DIAG_WARNING
			        : DIAG_ERROR,
			    place, "include %s: %s", copy.path, copy.problem);
			section_break(loser);
		} else if (copy.path[0] != '\0') {
			read_text(parse, &copy, depth + 1);
		}
	}
	if (!any) {
		diags_add(parse->diags, DIAG_ERROR, place,
		    "include %s: the file cannot be had", path);
		section_break(loser);
	}
}

static void
read_text(struct parse *parse, const struct bundle_file *file, unsigned depth)
{
	struct lex_item *item = malloc(sizeof *item);
	struct lex_cursor cursor;

	if (item == NULL) {
		parse->nomem = true;
		return;
	}
	lex_begin(&cursor, view_of(file->text, file->len));
	do {
		lex_next(&cursor, parse->dialect, item);
		switch (item->kind) {
		case LEX_SECTION:
			read_section(parse, file->path, item);
			break;
		case LEX_SETTING:
			read_setting(parse, file->path, item);
			break;
		case LEX_INCLUDE:
			read_include(parse, file->path, item, depth);
			break;
		case LEX_BAD:
			read_bad(parse, file->path, item);
			break;
		case LEX_END:
			break;
		}
	} while (item->kind != LEX_END);
	free(item);
}

/* False when the file itself cannot be had. */
static bool
read_main(struct parse *parse)
{
	struct place place = { parse->options->path, 0, 0 };
	const struct bundle_file *found;
	struct bundle_file copy;
	size_t at = 0;

	found = bundle_next(parse->bundle, parse->options->path, &at);
	if (found == NULL || found->problem[0] != '\0' ||
	    found->path[0] == '\0') {
		diags_add(parse->diags, DIAG_ERROR, place, "cannot be read: %s",
		    found == NULL || found->problem[0] == '\0'
		        ? "no such file"
		        : found->problem);
		return false;
	}
	copy = *found;
	read_text(parse, &copy, 1);
	return true;
}

/* Connections ------------------------------------------------------------ */

static size_t
slot_of(const struct setting *setting)
{
	return (size_t)(setting->option - options) * 2 + setting->end;
}

static bool
is_also(const struct setting *setting)
{
	return strcmp(setting->option->name, "also") == 0;
}

/* Says it the first time only. */
static void
complain(struct parse *parse, struct setting *setting, enum diag_level level,
    const char *problem)
{
	if (!setting->reported)
		diags_add(parse->diags, level, setting->value, "%s", problem);
	setting->reported = true;
}

static bool draw_section(struct parse *parse, struct section *section);

static bool
draw_also(struct parse *parse, struct setting *setting)
{
	struct section *section = strcmp(setting->text, "%default") == 0
	                              ? parse->fallback
	                              : section_find(parse, setting->text);
	char problem[256];

	if (section == NULL)
		snprintf(problem, sizeof problem,
		    "also: found \"%.*s\"; expected the name of a conn "
		    "section, and there is none of this name",
		    NAME_MAX_OCTETS, setting->text);
	else if (section->busy)
		snprintf(problem, sizeof problem,
		    "also: conn %s ends up drawing on itself", section->name);
	else if (++parse->also_count > ALSO_MAX)
		snprintf(problem, sizeof problem,
		    "also: more than %d sections flow together", ALSO_MAX);
	else
		return draw_section(parse, section);
	complain(parse, setting, DIAG_ERROR, problem);
	return false;
}

/* Fills the slots: also= first, then what the section says itself. */
static bool
draw_section(struct parse *parse, struct section *section)
{
	bool good = !section->broken;

	section->busy = true;
	for (struct setting *s = section->first; s != NULL; s = s->next)
		if (is_also(s) && s->text[0] != '\0')
			good = draw_also(parse, s) && good;
	for (struct setting *s = section->first; s != NULL; s = s->next) {
		const struct setting **slot = &parse->slots[slot_of(s)];
		char name[64];

		if (is_also(s))
			continue;
		if (*slot != NULL && (*slot)->section == section &&
		    *slot != s && !s->repeated) {
			s->repeated = true;
			option_name(s->option, s->end == 0 ? "left" : "right",
			    name, sizeof name);
			diags_add(parse->diags, DIAG_WARNING, s->value,
			    "%s is here for the second time in this section; "
			    "this value wins",
			    name);
		}
		*slot = s;
	}
	section->busy = false;
	return good;
}

static struct place
place_in(const struct setting *setting, size_t at)
{
	struct place place = setting->value;

	if (setting->at != NULL) {
		place.line = setting->at[at].line;
		place.column = setting->at[at].column;
	} else {
		place.column += (unsigned)at;
	}
	return place;
}

static void
bad_value(struct parse *parse, struct setting *setting, const char *name,
    const struct option_use *use)
{
	size_t length = strlen(setting->text);
	const char *expected = use->expected;
	size_t at = use->at > length ? length : use->at;
	size_t len =
	    use->len == 0 || use->len > length - at ? length - at : use->len;

	/* Some parsers say the word themselves. */
	if (strncmp(expected, "expected ", 9) == 0)
		expected += 9;
	if (!setting->reported)
		diags_add(parse->diags, DIAG_ERROR, place_in(setting, at),
		    "%s: found \"%.*s\"; expected %s", name,
		    (int)(len > 200 ? 200 : len), setting->text + at, expected);
	setting->reported = true;
}

/* What the dialect knows and we do not do. */
static bool
apply_other(struct parse *parse, struct setting *setting, const char *name)
{
	const struct option *option = setting->option;
	char problem[512];

	if (option->status != OPTION_GONE &&
	    option_is_quiet(option, setting->text))
		return true;
	if (option->status == OPTION_GONE)
		snprintf(problem, sizeof problem,
		    "%s has no meaning any more and is left out", name);
	else if (option->status == OPTION_REFUSED)
		snprintf(problem, sizeof problem,
		    "%s=%.100s: %s, and without it the connection would mean "
		    "something else: it is refused",
		    name, setting->text, option->help);
	else
		snprintf(problem, sizeof problem,
		    "%s=%.100s: %s; everything else goes on without it", name,
		    setting->text, option->help);
	complain(parse, setting,
	    option->status == OPTION_REFUSED ? DIAG_ERROR : DIAG_WARNING,
	    problem);
	return option->status != OPTION_REFUSED;
}

static bool
apply_setting(struct parse *parse, struct setting *setting, struct conn *conn,
    bool *uniqueids)
{
	struct option_use use = { .option = setting->option,
		.conn = conn,
		.uniqueids = uniqueids,
		.value = setting->text };
	char name[64];
	enum err err;

	if (conn != NULL)
		use.end = setting->end == 0 ? &conn->local : &conn->remote;
	option_name(setting->option, setting->end == 0 ? "left" : "right", name,
	    sizeof name);
	if (setting->text[0] == '\0')
		return true; /* nothing: the default */
	if (setting->option->status != OPTION_DONE)
		return apply_other(parse, setting, name);
	err = option_set(&use);
	if (err == ERR_NOMEM) {
		parse->nomem = true;
		return false;
	}
	if (err != OK)
		bad_value(parse, setting, name, &use);
	else if (use.note[0] != '\0')
		complain(parse, setting, DIAG_WARNING, use.note);
	return err == OK;
}

/* All slots, in the schema's order. */
static bool
apply_slots(struct parse *parse, struct conn *conn, bool *uniqueids)
{
	bool good = true;

	for (size_t i = 0; i < SLOTS; i++) {
		struct setting *setting =
		    (struct setting *)(uintptr_t)parse->slots[i];

		if (setting != NULL)
			good = apply_setting(parse, setting, conn, uniqueids) &&
			       good;
	}
	return good;
}

/* Was the option given, and not as the empty value? */
static bool
was_given(const struct parse *parse, const char *name)
{
	unsigned end;
	const struct option *option =
	    option_find(false, parse->dialect, name, &end);
	const struct setting *setting;

	if (option == NULL)
		return false;
	setting = parse->slots[(size_t)(option - options) * 2 + end];
	return setting != NULL && setting->text[0] != '\0';
}

static struct conn *
new_conn(struct parse *parse, const struct section *section)
{
	struct conn *conn = conn_new(section->name);
	size_t size = strlen(section->place.file) + 16;

	if (conn != NULL) {
		free(conn->source);
		conn->source = malloc(size);
	}
	if (conn == NULL || conn->source == NULL) {
		parse->nomem = true;
		conn_unref(conn);
		return NULL;
	}
	snprintf(conn->source, size, "%s:%u", section->place.file,
	    section->place.line);
	conn->local.auth = 0; /* must be said */
	conn->remote.auth = 0;
	return conn;
}

/* NULL: not usable, or not meant to be used by itself. */
static struct conn *
make_conn(struct parse *parse, struct section *section)
{
	const struct conf_options *options_in = parse->options;
	struct conn *conn = new_conn(parse, section);
	bool good = true;

	if (conn == NULL)
		return NULL;
	memset(parse->slots, 0, sizeof parse->slots);
	parse->also_count = 0;
	if (parse->fallback != NULL)
		good = draw_section(parse, parse->fallback);
	good = draw_section(parse, section) && good;
	good = apply_slots(parse, conn, NULL) && good;
	if (good && conn->autostart == AUTO_IGNORE) {
		/* Others draw on it: it need not be whole. */
		if (section->used) {
			conn_unref(conn);
			return NULL;
		}
		if (!was_given(parse, "auto"))
			diags_add(parse->diags, DIAG_WARNING, section->place,
			    "conn %s: auto is not given, and so the connection "
			    "is left alone; auto=add lets it wait for the peer",
			    section->name);
	}
	if (good)
		good = conn_make_sense(conn, options_in->own,
		    options_in->own_count, parse->diags, section->place);
	if (good)
		return conn;
	conn_unref(conn);
	return NULL;
}

static void
mark_used(struct parse *parse)
{
	for (struct section *s = parse->first; s != NULL; s = s->next)
		for (struct setting *t = s->first; t != NULL; t = t->next) {
			struct section *used =
			    is_also(t) ? section_find(parse, t->text) : NULL;

			if (used != NULL)
				used->used = true;
		}
}

static struct policy *
make_policy(struct parse *parse)
{
	struct conn **conns = calloc(parse->section_count + 1, sizeof *conns);
	struct policy *policy = NULL;
	bool uniqueids = true;
	size_t count = 0;

	if (conns == NULL)
		return NULL;
	if (parse->setup != NULL) {
		memset(parse->slots, 0, sizeof parse->slots);
		draw_section(parse, parse->setup);
		apply_slots(parse, NULL, &uniqueids);
	}
	mark_used(parse);
	for (struct section *s = parse->first; s != NULL; s = s->next) {
		struct conn *conn = make_conn(parse, s);

		if (conn != NULL)
			conns[count++] = conn;
	}
	if (!parse->nomem && (parse->diags->errors == parse->errors_before ||
	                         parse->options->keep_going))
		policy = policy_new(conns, count);
	if (policy != NULL)
		policy->uniqueids = uniqueids;
	for (size_t i = 0; policy == NULL && i < count; i++)
		conn_unref(conns[i]);
	free(conns);
	return policy;
}

struct policy *
conf_load(struct bundle *bundle, const struct conf_options *conf_options,
    struct diags *diags)
{
	/* Names of a file that its reader trusts: no secret seed is needed. */
	static const uint64_t seed[2] = { 1, 2 };
	struct place place = { conf_options->path, 0, 0 };
	struct parse parse = { .bundle = bundle,
		.options = conf_options,
		.diags = diags,
		.dialect = DIALECT_STRONGSWAN };
	struct policy *policy = NULL;
	struct section *next;

	if (option_count * 2 > SLOTS)
		return NULL;
	parse.last = &parse.first;
	map_init(&parse.by_name, seed);
	parse.errors_before = diags->errors;
	if (read_main(&parse))
		policy = make_policy(&parse);
	if (policy == NULL &&
	    (parse.nomem || diags->errors == parse.errors_before))
		diags_add(diags, DIAG_ERROR, place, "memory is short");
	diags_sort(diags);
	for (struct section *s = parse.first; s != NULL; s = next) {
		next = s->next;
		section_free(s);
	}
	section_free(parse.setup);
	section_free(parse.fallback);
	map_fini(&parse.by_name);
	return policy;
}
