#include "daemon/show.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/engine.h"
#include "common/limit.h"
#include "common/policy.h"
#include "common/sa.h"
#include "common/worker.h"
#include "conf/print.h"
#include "daemon/keeper.h"

#include "config.h"

#define HOSTS_TEXT 256
#define LIST_TEXT  1024 /* octets of a list of selectors */

/* SAs ------------------------------------------------------------------- */

static bool
shows_sa(const struct ike_sa *sa, const char *name)
{
	if (name == NULL)
		return true;
	if (sa->conn != NULL && strcmp(sa->conn->name, name) == 0)
		return true;
	for (const struct child_sa *child = sa->children; child != NULL;
	     child = child->next)
		if (strcmp(child->conn->name, name) == 0)
			return true;
	return false;
}

static bool
shows_child(const struct child_sa *child, const char *name)
{
	return name == NULL || strcmp(child->conn->name, name) == 0;
}

struct show_use *
show_uses(const struct env *env, const char *name, size_t *count)
{
	struct show_use *uses =
	    calloc(env->sadb->child_count + 1, sizeof(*uses));

	*count = 0;
	if (uses == NULL)
		return NULL;
	for (const struct ike_sa *sa = env->sadb->first; sa != NULL;
	     sa = sa->next)
		for (const struct child_sa *child = sa->children;
		     child != NULL && *count < env->sadb->child_count;
		     child = child->next)
			if (shows_child(child, name))
				uses[(*count)++].child = child->serial;
	return uses;
}

/* Seconds since, or until; NULL cell where there is no such time. */
static void
cell_since(struct table *table, const struct env *env, uint64_t at_ms)
{
	uint64_t now = env_now(env);

	if (at_ms == 0 && now != 0)
		table_text(table, NULL);
	else
		table_number(table, now > at_ms ? (now - at_ms) / 1000 : 0);
}

static void
cell_until(struct table *table, const struct env *env, uint64_t at_ms)
{
	uint64_t now = env_now(env);

	if (at_ms == 0)
		table_text(table, NULL);
	else
		table_number(table, at_ms > now ? (at_ms - now) / 1000 : 0);
}

static void
cell_ident(struct table *table, const struct ident *ident)
{
	char text[IDENT_TEXT];

	table_text(table, ident != NULL ? ident_text(ident, text) : NULL);
}

static void
cell_suite(struct table *table, const struct suite *suite)
{
	char text[SUITE_TEXT];

	table_text(table, suite->encr != NULL ? suite_text(suite, text) : NULL);
}

static const char *
nat_text(const struct ike_sa *sa)
{
	if (sa->nat_local && sa->nat_remote)
		return "both";
	if (sa->nat_local)
		return "local";
	return sa->nat_remote ? "remote" : "none";
}

static const struct table_column ike_columns[] = {
	{ "connection", TABLE_TEXT, false },
	{ "sa", TABLE_NUMBER, false },
	{ "ike", TABLE_TEXT, false },
	{ "state", TABLE_TEXT, false },
	{ "role", TABLE_TEXT, false },
	{ "local", TABLE_TEXT, false },
	{ "remote", TABLE_TEXT, false },
	{ "local id", TABLE_TEXT, false },
	{ "remote id", TABLE_TEXT, false },
	{ "spi i", TABLE_TEXT, false },
	{ "spi r", TABLE_TEXT, false },
	{ "algorithms", TABLE_TEXT, false },
	{ "weak", TABLE_BOOL, true },
	{ "nat", TABLE_TEXT, false },
	{ "age s", TABLE_NUMBER, false },
	{ "rekey s", TABLE_NUMBER, false },
	{ "children", TABLE_NUMBER, false },
};

static void
ike_row(struct table *table, const struct env *env, const struct ike_sa *sa)
{
	char text[ENDPOINT_TEXT];

	table_text(table, sa->conn != NULL ? sa->conn->name : NULL);
	table_number(table, sa->serial);
	table_text(table, sa->engine->name);
	table_text(table, ike_state_text(sa->state));
	table_text(table, sa->initiator ? "initiator" : "responder");
	table_text(table, endpoint_text(&sa->local, text));
	table_text(table, endpoint_text(&sa->remote, text));
	cell_ident(table, sa->id_local);
	cell_ident(table, sa->id_remote);
	table_format(table, "%016" PRIx64, sa->spi_i);
	table_format(table, "%016" PRIx64, sa->spi_r);
	cell_suite(table, &sa->suite);
	table_bool(table, sa->weak);
	table_text(table, nat_text(sa));
	cell_since(table, env, sa->created_ms);
	cell_until(table, env, sa->rekey_at_ms);
	table_number(table, sa->child_count);
}

static const struct table_column child_columns[] = {
	{ "connection", TABLE_TEXT, false },
	{ "child", TABLE_NUMBER, false },
	{ "sa", TABLE_NUMBER, false },
	{ "state", TABLE_TEXT, false },
	{ "mode", TABLE_TEXT, false },
	{ "encap", TABLE_BOOL, false },
	{ "spi in", TABLE_TEXT, false },
	{ "spi out", TABLE_TEXT, false },
	{ "algorithms", TABLE_TEXT, false },
	{ "local", TABLE_TEXT, false },
	{ "remote", TABLE_TEXT, false },
	{ "octets in", TABLE_NUMBER, false },
	{ "octets out", TABLE_NUMBER, false },
	{ "packets in", TABLE_NUMBER, true },
	{ "packets out", TABLE_NUMBER, true },
	{ "age s", TABLE_NUMBER, false },
	{ "rekey s", TABLE_NUMBER, false },
	{ "expires s", TABLE_NUMBER, false },
	{ "reqid", TABLE_NUMBER, true },
};

static void
child_row(struct table *table, const struct env *env,
    const struct child_sa *child, const struct show_use *use)
{
	char list[LIST_TEXT];
	bool known = use != NULL && use->known;
	const uint64_t count[] = {
		known ? use->use.octets_in : 0,
		known ? use->use.octets_out : 0,
		known ? use->use.packets_in : 0,
		known ? use->use.packets_out : 0,
	};

	table_text(table, child->conn->name);
	table_number(table, child->serial);
	table_number(table, child->sa->serial);
	table_text(table, child_state_text(child->state));
	table_text(
	    table, child->mode == MODE_TRANSPORT ? "transport" : "tunnel");
	table_bool(table, child->encap);
	table_format(table, "%08x", child->spi_in);
	table_format(table, "%08x", child->spi_out);
	cell_suite(table, &child->suite);
	table_text(table, ts_list_text(&child->ts_local, list, sizeof(list)));
	table_text(table, ts_list_text(&child->ts_remote, list, sizeof(list)));
	for (size_t i = 0; i < 4; i++)
		if (known)
			table_number(table, count[i]);
		else
			table_text(table, NULL);
	cell_since(table, env, child->created_ms);
	cell_until(table, env, child->rekey_at_ms);
	cell_until(table, env, child->expire_at_ms);
	table_number(table, child->reqid);
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* uses are in the order of the walk, but children may have come and gone since
 * they were gathered. */
static const struct show_use *
find_use(const struct show_use *uses, size_t count, size_t *at, uint64_t serial)
{
	for (size_t i = 0; i < count; i++) {
		size_t n = (*at + i) % count;

		if (uses[n].child == serial) {
			*at = n + 1;
			return &uses[n];
		}
		if (i > 64) /* far off: it is new */
			break;
	}
	return NULL;
}

enum err
show_sas(const struct env *env, const char *name, const struct show_use *uses,
    size_t use_count, bool json, struct text *text)
{
	struct table *ikes = table_new(ike_columns, COUNT(ike_columns));
	struct table *children = table_new(child_columns, COUNT(child_columns));
	size_t at = 0;
	enum err err = ERR_NOMEM;

	if (ikes == NULL || children == NULL)
		goto out;
	for (const struct ike_sa *sa = env->sadb->first; sa != NULL;
	     sa = sa->next) {
		if (!shows_sa(sa, name))
			continue;
		ike_row(ikes, env, sa);
		for (const struct child_sa *child = sa->children; child != NULL;
		     child = child->next)
			if (shows_child(child, name))
				child_row(children, env, child,
				    find_use(
				        uses, use_count, &at, child->serial));
	}
	if (json)
		text_format(text, "{\"ike_sas\":");
	err = table_print(ikes, json, text);
	if (err != OK)
		goto out;
	if (json)
		text_format(text, ",\n\"child_sas\":");
	else if (table_rows(children) > 0)
		text_format(text, "\n");
	err = table_print(children, json, text);
	if (json)
		text_format(text, "}\n");
	if (text->failed)
		err = ERR_NOMEM;
out:
	table_free(ikes);
	table_free(children);
	return err;
}

/* Connections ----------------------------------------------------------- */

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names of all children that are up, sorted; NULL: out of memory. */
static const char **
child_names(const struct env *env, size_t *count)
{
	const char **names = calloc(env->sadb->child_count + 1, sizeof(*names));

	*count = 0;
	if (names == NULL)
		return NULL;
	for (const struct ike_sa *sa = env->sadb->first; sa != NULL;
	     sa = sa->next)
		for (const struct child_sa *child = sa->children;
		     child != NULL && *count < env->sadb->child_count;
		     child = child->next)
			if (child->state == CHILD_UP)
				names[(*count)++] = child->conn->name;
	qsort(names, *count, sizeof(*names), compare_names);
	return names;
}

/* How many of them are name. */
static size_t
count_name(const char **names, size_t count, const char *name)
{
	size_t low = 0, high = count, found = 0;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(names[middle], name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	while (low < count && strcmp(names[low], name) == 0) {
		low++;
		found++;
	}
	return found;
}

static const struct table_column conn_columns[] = {
	{ "connection", TABLE_TEXT, false },
	{ "keyexchange", TABLE_TEXT, false },
	{ "type", TABLE_TEXT, false },
	{ "auto", TABLE_TEXT, false },
	{ "local", TABLE_TEXT, false },
	{ "remote", TABLE_TEXT, false },
	{ "local id", TABLE_TEXT, false },
	{ "remote id", TABLE_TEXT, false },
	{ "local subnets", TABLE_TEXT, false },
	{ "remote subnets", TABLE_TEXT, false },
	{ "ike", TABLE_TEXT, true },
	{ "esp", TABLE_TEXT, true },
	{ "state", TABLE_TEXT, false },
	{ "children", TABLE_NUMBER, false },
	{ "weak", TABLE_TEXT, false },
	{ "source", TABLE_TEXT, false },
};

static void
conn_row(struct table *table, struct keeper *keeper, const struct conn *conn,
    size_t up)
{
	static const char *const keyexchange[] = { "ike", "ikev1", "ikev2" };
	static const char *const automatic[] = { "ignore", "add", "route",
		"start" };
	const struct conn_end *end[2] = { &conn->local, &conn->remote };
	const char *state = keeper_state(keeper, conn->name);
	char text[LIST_TEXT * 2];

	if (state == NULL || strcmp(state, "down") == 0)
		state = up > 0 ? "up" : "down";
	table_text(table, conn->name);
	table_text(table, conn->keyexchange < COUNT(keyexchange)
	                      ? keyexchange[conn->keyexchange]
	                      : NULL);
	table_text(
	    table, conn->mode == MODE_TRANSPORT ? "transport" : "tunnel");
	table_text(table, conn->autostart < COUNT(automatic)
	                      ? automatic[conn->autostart]
	                      : NULL);
	for (size_t i = 0; i < 2; i++)
		table_text(table, conf_hosts_text(end[i], text, HOSTS_TEXT));
	for (size_t i = 0; i < 2; i++)
		cell_ident(table, end[i]->id);
	for (size_t i = 0; i < 2; i++)
		table_text(
		    table, ts_list_text(&end[i]->subnets, text, LIST_TEXT));
	table_text(table, proposals_text(&conn->ike, text, sizeof(text)));
	table_text(table, proposals_text(&conn->esp, text, sizeof(text)));
	table_text(table, state);
	table_number(table, up);
	table_text(table, conn->weak[0] != '\0' ? conn->weak : NULL);
	table_text(table, conn->source);
}

enum err
show_conns(
    const struct env *env, struct keeper *keeper, bool json, struct text *text)
{
	const struct policy *policy = env->policy;
	struct table *table = table_new(conn_columns, COUNT(conn_columns));
	size_t count;
	const char **names = child_names(env, &count);
	enum err err = ERR_NOMEM;

	if (table != NULL && names != NULL) {
		for (size_t i = 0; policy != NULL && i < policy->count; i++)
			conn_row(table, keeper, policy->conns[i],
			    count_name(names, count, policy->conns[i]->name));
		err = table_print(table, json, text);
		if (json)
			text_format(text, "\n");
	}
	free(names);
	table_free(table);
	return err;
}

/* Status ---------------------------------------------------------------- */

struct pairs {
	struct text *text;
	bool json, first;
};

static void
pair_key(struct pairs *pairs, const char *key)
{
	if (!pairs->json) {
		text_format(pairs->text, "%-22s ", key);
		return;
	}
	text_format(pairs->text, "%s\"", pairs->first ? "" : ",\n");
	for (; *key != '\0'; key++) {
		unsigned char c = (unsigned char)*key;

		text_format(pairs->text, "%c", isalnum(c) ? tolower(c) : '_');
	}
	text_add(pairs->text, "\":", 2);
	pairs->first = false;
}

static void
pair_text(struct pairs *pairs, const char *key, const char *value)
{
	pair_key(pairs, key);
	if (pairs->json)
		text_json(pairs->text, value);
	else
		text_format(pairs->text, "%s\n", value);
}

static void
pair_number(struct pairs *pairs, const char *key, uint64_t value)
{
	pair_key(pairs, key);
	text_format(
	    pairs->text, "%" PRIu64 "%s", value, pairs->json ? "" : "\n");
}

/* "3 d 4 h", "5 min 20 s". */
static void
pair_duration(struct pairs *pairs, const char *key, uint64_t seconds)
{
	uint64_t minutes = seconds / 60, hours = minutes / 60;

	if (pairs->json) {
		pair_number(pairs, key, seconds);
		return;
	}
	pair_key(pairs, key);
	if (hours >= 24)
		text_format(pairs->text, "%" PRIu64 " d %" PRIu64 " h\n",
		    hours / 24, hours % 24);
	else if (hours > 0)
		text_format(pairs->text, "%" PRIu64 " h %" PRIu64 " min\n",
		    hours, minutes % 60);
	else
		text_format(pairs->text, "%" PRIu64 " min %" PRIu64 " s\n",
		    minutes, seconds % 60);
}

static void
status_processes(struct pairs *pairs, const struct control_facts *facts)
{
	static const struct table_column columns[] = {
		{ "process", TABLE_TEXT, false },
		{ "pid", TABLE_NUMBER, false },
		{ "restarts", TABLE_NUMBER, false },
	};
	struct table *table = table_new(columns, COUNT(columns));

	if (table == NULL) {
		pairs->text->failed = true;
		return;
	}
	for (size_t i = 0; i < facts->process_count && i < CONTROL_PROCESSES;
	     i++) {
		table_format(table, "%.*s", (int)sizeof(facts->process[i].role),
		    facts->process[i].role);
		table_number(table, (uint64_t)facts->process[i].pid);
		table_number(table, facts->process[i].restarts);
	}
	if (pairs->json)
		pair_key(pairs, "processes");
	else
		text_format(pairs->text, "\n");
	table_print(table, pairs->json, pairs->text);
	table_free(table);
}

/* What was used of the weak rows, and how often. */
static void
status_weak(struct pairs *pairs, const struct env *env)
{
	const char *between = "";

	pair_key(pairs, "weak algorithms used");
	if (pairs->json)
		text_format(pairs->text, "{");
	for (unsigned id = 1; id < ALG_COUNT; id++) {
		const struct alg *alg = alg_get((enum alg_id)id);

		if (env->weak_used[id] == 0 || alg == NULL)
			continue;
		text_format(pairs->text,
		    pairs->json ? "%s\"%s\":%" PRIu64 : "%s%s (%" PRIu64 ")",
		    between, alg->name, env->weak_used[id]);
		between = pairs->json ? "," : ", ";
	}
	if (pairs->json)
		text_format(pairs->text, "}");
	else
		text_format(
		    pairs->text, "%s\n", *between != '\0' ? "" : "none");
}

static void
status_counters(struct pairs *pairs, const struct env *env)
{
	struct pairs inner = { pairs->text, pairs->json, true };

	if (pairs->json) {
		pair_key(pairs, "counters");
		text_format(pairs->text, "{");
		for (unsigned i = 0; i < COUNTER_COUNT; i++)
			pair_number(&inner, counter_text((enum counter)i),
			    env->counter[i]);
		text_format(pairs->text, "}");
		return;
	}
	text_format(pairs->text, "\n");
	for (unsigned i = 0; i < COUNTER_COUNT; i++)
		if (env->counter[i] > 0)
			text_format(pairs->text, "%10" PRIu64 " %s\n",
			    env->counter[i], counter_text((enum counter)i));
}

enum err
show_status(const struct env *env, const struct control_facts *facts, bool json,
    struct text *text)
{
	struct pairs pairs = { text, json, true };
	uint64_t version[3] = { 0 }, now_s = env->wall_s + env_now(env) / 1000;
	char plane[sizeof(facts->data_plane) + 1];

	for (const struct ike_sa *sa = env->sadb->first; sa != NULL;
	     sa = sa->next)
		if (sa->state == IKE_ESTABLISHED)
			version[sa->engine->version == 1 ? 1 : 2]++;
	snprintf(plane, sizeof(plane), "%.*s", (int)sizeof(facts->data_plane),
	    facts->data_plane);
	if (json)
		text_format(text, "{");
	pair_text(&pairs, "version", PACKAGE_VERSION);
	pair_duration(&pairs, json ? "uptime s" : "uptime",
	    now_s > facts->started_s ? now_s - facts->started_s : 0);
	pair_text(&pairs, "data plane", plane);
	pair_text(&pairs, "log level",
	    env->log != NULL ? log_level_text(env->log->level) : "");
	pair_number(&pairs, "connections",
	    env->policy != NULL ? env->policy->count : 0);
	pair_number(&pairs, "IKEv1 SAs", version[1]);
	pair_number(&pairs, "IKEv2 SAs", version[2]);
	pair_number(&pairs, "half-open SAs", env->sadb->half_open);
	pair_number(&pairs, "child SAs", env->sadb->child_count);
	pair_number(&pairs, "jobs queued",
	    env->workers != NULL ? worker_queued(env->workers) : 0);
	status_weak(&pairs, env);
	status_processes(&pairs, facts);
	status_counters(&pairs, env);
	if (json)
		text_format(text, "}\n");
	return text->failed ? ERR_NOMEM : OK;
}

/* Events ---------------------------------------------------------------- */

static void
time_text(const struct env *env, char text[static 32])
{
	time_t now = (time_t)(env->wall_s + env_now(env) / 1000);
	struct tm tm;

	if (localtime_r(&now, &tm) == NULL ||
	    strftime(text, 32, "%Y-%m-%dT%H:%M:%S%z", &tm) == 0)
		text[0] = '\0';
}

static void
event_json(const struct event *event, const char *when, struct text *text)
{
	char to[ENDPOINT_TEXT], id[IDENT_TEXT];
	const struct ike_sa *sa = event->sa;
	const struct child_sa *child = event->child;

	text_format(text,
	    "{\"time\":\"%s\",\"event\":\"%s\",\"connection\":", when,
	    event_text(event->kind));
	text_json(text, event->conn != NULL ? event->conn->name : NULL);
	if (sa != NULL) {
		text_format(text, ",\"sa\":%" PRIu64 ",\"ike\":\"%s\"",
		    sa->serial, sa->engine->name);
		text_format(text, ",\"remote\":\"%s\",\"remote_id\":",
		    endpoint_text(&sa->remote, to));
		text_json(text, sa->id_remote != NULL
		                    ? ident_text(sa->id_remote, id)
		                    : NULL);
	}
	if (child != NULL)
		text_format(text,
		    ",\"child\":%" PRIu64 ",\"spi_in\":\"%08x\","
		    "\"spi_out\":\"%08x\"",
		    child->serial, child->spi_in, child->spi_out);
	if (event->err != OK)
		text_format(text, ",\"error\":\"%s\"", err_text(event->err));
	text_format(text,
	    ",\"by_peer\":%s,\"text\":", event->by_peer ? "true" : "false");
	text_json(text, event->text);
	text_format(text, "}\n");
}

/* A peer's words may be in the text: no control characters but new lines. */
static void
add_printable(struct text *text, const char *string)
{
	for (; *string != '\0'; string++)
		if (*string == '\n' || (*string >= 0x20 && *string <= 0x7e))
			text_add(text, string, 1);
		else
			text_add(text, "?", 1);
}

void
show_event(const struct env *env, const struct event *event, bool json,
    struct text *text)
{
	char when[32], to[ENDPOINT_TEXT];

	time_text(env, when);
	if (json) {
		event_json(event, when, text);
		return;
	}
	text_format(text, "%s %s %s", when, event_text(event->kind),
	    event->conn != NULL ? event->conn->name : "-");
	if (event->sa != NULL)
		text_format(text, "[%" PRIu64 "] %s %s", event->sa->serial,
		    event->sa->engine->name,
		    endpoint_text(&event->sa->remote, to));
	if (event->child != NULL)
		text_format(text, " in %08x out %08x", event->child->spi_in,
		    event->child->spi_out);
	if (event->by_peer)
		text_format(text, " (the peer's doing)");
	if (event->err != OK &&
	    (event->text == NULL || event->kind == EVENT_EXPLAIN))
		text_format(text, ": %s", err_text(event->err));
	if (event->text != NULL) {
		text_format(text, event->kind == EVENT_EXPLAIN ? "\n" : ": ");
		add_printable(text, event->text);
	}
	text_add(text, "\n", 1);
}
