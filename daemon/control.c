/*
 * Each client sends one line and gets one answer. Commands whose outcome comes
 * later leave the client WAITING; the lists stand in daemon/show.
 */
#include "daemon/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/env.h"
#include "common/loop.h"
#include "common/policy.h"
#include "common/sa.h"
#include "daemon/keeper.h"
#include "daemon/show.h"
#include "daemon/table.h"
#include "kernel/install.h"

#include "config.h"

#define WORDS      8
#define LINE_MS    10000 /* for the request to arrive */
#define READ_MS    60000 /* for a reader to take something */
#define UP_S       60    /* "up" waits, unless told otherwise */
#define DOWN_S     10
#define WAIT_MAX_S 86400
#define RELOAD_MS  60000
#define PAUSE_MS   1000 /* without new clients when descriptors are short */
#define LOOK_MS    50   /* between looks at what is going down */
#define QUERY_MS   3000 /* for the traffic of all SAs */
#define QUERIES    64   /* under way */

enum client_state {
	CLIENT_READING,
	CLIENT_UP,
	CLIENT_DOWN,
	CLIENT_RELOAD,
	CLIENT_LIST,
	CLIENT_MONITOR,
	CLIENT_ENDING /* the status is queued */
};

struct client {
	struct control *control;
	struct client *next, *prev;
	uint64_t serial;
	int fd;
	struct loop_watch *watch;
	uint8_t state;
	bool json;
	size_t line_len;
	char *words[WORDS];
	size_t word_count;
	struct text out;
	size_t out_at; /* octets written already */
	struct timer timer;
	uint64_t until_ms;
	uint64_t before; /* `down` closes SAs with lower serial numbers */
	struct keeper_wait wait;
	struct text notes; /* JSON: what would have been printed on the way */
	struct show_use *uses; /* CLIENT_LIST: the children's traffic */
	size_t use_count, use_asked, use_answered;
	char line[CONTROL_LINE + 1];
};

struct control {
	struct env *env;
	struct loop *loop;
	struct keeper *keeper;
	struct control_host host;
	struct control_facts facts;
	int listener;
	struct loop_watch *watch;
	struct timer pause; /* of accepting */
	struct client *first;
	size_t count, monitors;
	uint64_t serial;
};

/* Clients --------------------------------------------------------------- */

static void
client_free(struct client *client)
{
	struct control *control = client->control;

	if (client->state == CLIENT_UP)
		keeper_wait_cancel(control->keeper, &client->wait);
	if (client->state == CLIENT_MONITOR)
		control->monitors--;
	timer_stop(control->env->timers, &client->timer);
	loop_unwatch(client->watch);
	close(client->fd);
	if (client->prev != NULL)
		client->prev->next = client->next;
	else
		control->first = client->next;
	if (client->next != NULL)
		client->next->prev = client->prev;
	if (control->count-- == CONTROL_CLIENTS)
		loop_watch_read(control->watch, true);
	text_free(&client->out);
	text_free(&client->notes);
	free(client->uses);
	free(client);
}

static struct client *
client_find(struct control *control, uint64_t serial)
{
	struct client *client = control->first;

	while (client != NULL && client->serial != serial)
		client = client->next;
	return client;
}

/* Queues octets in frames of this kind. */
static void
client_put(struct client *client, enum control_frame kind, const char *octets,
    size_t len)
{
	do {
		size_t part = len < CONTROL_FRAME ? len : CONTROL_FRAME;
		char head[5] = { (char)kind, 0, 0, (char)(part >> 8),
			(char)part };

		text_add(&client->out, head, sizeof(head));
		text_add(&client->out, octets, part);
		octets += part;
		len -= part;
	} while (len > 0);
	loop_watch_write(client->watch, true);
}

static void
client_put_text(
    struct client *client, enum control_frame kind, const char *text)
{
	client_put(client, kind, text, strlen(text));
}

/* The last frame; the connection ends when it has been read. */
static void
client_end(struct client *client, enum control_exit code)
{
	char octet = (char)code;

	if (client->state == CLIENT_MONITOR)
		client->control->monitors--;
	client->state = CLIENT_ENDING;
	if (client->out.failed) {
		text_free(&client->out);
		client->out_at = 0;
		client->out.max = CONTROL_QUEUE;
		client_put_text(client, CONTROL_ERROR,
		    "the answer is too long, or memory is short\n");
		octet = CONTROL_FAILED;
	}
	client_put(client, CONTROL_STATUS, &octet, 1);
	timer_set(client->control->env->timers, &client->timer, READ_MS);
}

/* A command's last words. */
static void
client_say(struct client *client, enum err err, const char *text)
{
	struct text json = { 0 };

	if (client->json) {
		text_format(&json,
		    "{\"ok\":%s,\"text\":", err == OK ? "true" : "false");
		text_json(&json, text);
		if (client->notes.len > 0) {
			text_add(&client->notes, "", 1);
			text_format(&json, ",\"progress\":");
			text_json(&json, client->notes.at);
		}
		text_format(&json, "}\n");
		if (!json.failed)
			client_put(client, CONTROL_OUTPUT, json.at, json.len);
		text_free(&json);
	} else if (text != NULL && text[0] != '\0') {
		enum control_frame kind =
		    err == OK ? CONTROL_OUTPUT : CONTROL_ERROR;

		client_put_text(client, kind, text);
		client_put_text(client, kind, "\n");
	}
	client_end(client, err == OK ? CONTROL_OK : CONTROL_FAILED);
}

static void
client_wrong(struct client *client, const char *text)
{
	client_put_text(client, CONTROL_ERROR, text);
	client_put_text(client, CONTROL_ERROR, "\n");
	client_end(client, CONTROL_USAGE);
}

/* found: the word that will not do, or NULL. */
static void
client_usage(struct client *client, const char *found, const char *usage)
{
	char line[300] = "";

	if (found != NULL)
		snprintf(
		    line, sizeof(line), "orthrus: found \"%.60s\"\n", found);
	snprintf(line + strlen(line), sizeof(line) - strlen(line),
	    "usage: orthrus %s", usage);
	client_wrong(client, line);
}

/* up and down ----------------------------------------------------------- */

static void
up_progress(struct keeper_wait *wait, const char *line)
{
	struct client *client = wait->arg;

	if (client->json) {
		text_add(&client->notes, line, strlen(line));
		text_add(&client->notes, "\n", 1);
		return;
	}
	client_put_text(client, CONTROL_OUTPUT, line);
	client_put_text(client, CONTROL_OUTPUT, "\n");
}

static void
up_done(struct keeper_wait *wait, enum err err, const char *text)
{
	struct client *client = wait->arg;
	char line[1024];

	if (err == OK)
		snprintf(line, sizeof(line), "%s is up", client->words[1]);
	else
		snprintf(line, sizeof(line), "%s did not come up: %s",
		    client->words[1], text != NULL ? text : err_text(err));
	client_say(client, err, line);
}

/* The optional last word: seconds. */
static bool
client_seconds(
    struct client *client, size_t at, unsigned long otherwise, uint64_t *ms)
{
	unsigned long seconds = otherwise;
	char *end;

	if (client->word_count > at) {
		errno = 0;
		seconds = strtoul(client->words[at], &end, 10);
		if (errno != 0 || *end != '\0' || end == client->words[at] ||
		    seconds > WAIT_MAX_S)
			return false;
	}
	*ms = seconds * 1000;
	return true;
}

static void
command_up(struct client *client)
{
	struct control *control = client->control;
	char line[1024];
	uint64_t ms;
	enum err err;

	if (!client_seconds(client, 2, UP_S, &ms)) {
		client_usage(client, client->words[2],
		    "up NAME [SECONDS], from 0 to 86400");
		return;
	}
	client->wait.progress = up_progress;
	client->wait.done = up_done;
	client->wait.arg = client;
	err = keeper_up(control->keeper, client->words[1], &client->wait);
	if (err == OK) {
		client->state = CLIENT_UP;
		timer_set(control->env->timers, &client->timer, ms);
		return;
	}
	if (err == ERR_EXISTS) {
		snprintf(
		    line, sizeof(line), "%s is up already", client->words[1]);
		err = OK;
	} else if (err == ERR_NOT_FOUND) {
		snprintf(line, sizeof(line), "there is no connection %s",
		    client->words[1]);
	} else if (err == ERR_REFUSED) {
		snprintf(line, sizeof(line),
		    "%s has no address to go to: its peer must begin",
		    client->words[1]);
	} else {
		snprintf(line, sizeof(line), "%s: %s", client->words[1],
		    err_text(err));
	}
	client_say(client, err, line);
}

static void
down_look(struct client *client)
{
	struct control *control = client->control;
	const char *name = client->words[1];
	size_t left = keeper_remaining(control->keeper, name, client->before);
	char line[1024];

	if (left > 0 && env_now(control->env) < client->until_ms) {
		timer_set(control->env->timers, &client->timer, LOOK_MS);
		return;
	}
	if (left > 0)
		snprintf(line, sizeof(line),
		    "%s: %zu SAs wait for their peers' answer still", name,
		    left);
	else if (keeper_remaining(control->keeper, name, UINT64_MAX) > 0)
		snprintf(line, sizeof(line),
		    "%s was closed; its peer has brought it up again", name);
	else
		snprintf(line, sizeof(line), "%s is down", name);
	client_say(client, left > 0 ? ERR_TIMEOUT : OK, line);
}

static void
command_down(struct client *client)
{
	struct control *control = client->control;
	size_t closed = 0;
	char line[1024];
	uint64_t ms;

	if (!client_seconds(client, 2, DOWN_S, &ms)) {
		client_usage(client, client->words[2],
		    "down NAME [SECONDS], from 0 to 86400");
		return;
	}
	client->before = env_serial(control->env);
	if (keeper_down(control->keeper, client->words[1], &closed) != OK) {
		snprintf(line, sizeof(line), "there is no connection %s",
		    client->words[1]);
		client_say(client, ERR_NOT_FOUND, line);
		return;
	}
	client->state = CLIENT_DOWN;
	client->until_ms = env_now(control->env) + ms;
	down_look(client);
}

/* Lists ----------------------------------------------------------------- */

/* A complete list: as it is, or "there is none" for people. */
static void
client_list(
    struct client *client, enum err err, struct text *text, const char *none)
{
	if (err != OK) {
		client_say(client, err, err_text(err));
	} else {
		if (text->len > 0)
			client_put(client, CONTROL_OUTPUT, text->at, text->len);
		else
			client_put_text(client, CONTROL_ERROR, none);
		client_end(client, CONTROL_OK);
	}
	text_free(text);
}

static void
list_print(struct client *client)
{
	struct control *control = client->control;
	struct text text = { .max = CONTROL_QUEUE / 2 };
	enum err err = show_sas(control->env,
	    client->word_count > 2 ? client->words[2] : NULL, client->uses,
	    client->use_count, client->json, &text);

	client_list(client, err, &text, "there are no SAs\n");
}

static void list_ask(struct client *client);

static void
list_answer(struct env *env, struct ticket ticket, enum err err,
    const struct install_use *use)
{
	struct client *client;
	struct show_use *row;

	if (env->control == NULL)
		return;
	client = client_find(env->control, ticket.sa);
	if (client == NULL || client->state != CLIENT_LIST ||
	    ticket.exchange == 0 || ticket.exchange > client->use_count)
		return;
	row = &client->uses[ticket.exchange - 1];
	if (row->child == ticket.child && err == OK) {
		row->known = true;
		row->use = *use;
	}
	client->use_answered++;
	list_ask(client);
}

/* Asks for the next children's traffic; prints when all have answered. */
static void
list_ask(struct client *client)
{
	struct env *env = client->control->env;

	while (client->use_asked < client->use_count &&
	       client->use_asked - client->use_answered < QUERIES) {
		struct show_use *row = &client->uses[client->use_asked++];
		struct ticket ticket = { client->serial, client->use_asked,
			row->child };
		struct child_sa *child = child_by_serial(env->sadb, row->child);

		if (child == NULL || child->state != CHILD_UP ||
		    env->kernel == NULL ||
		    install_query(env, child, ticket, list_answer) != OK)
			client->use_answered++;
	}
	if (client->use_answered == client->use_count)
		list_print(client);
}

static void
command_list(struct client *client)
{
	struct env *env = client->control->env;
	struct text text = { .max = CONTROL_QUEUE / 2 };
	const char *what = client->words[1];
	enum err err;

	if (strcmp(what, "conns") == 0 && client->word_count == 2) {
		err = show_conns(
		    env, client->control->keeper, client->json, &text);
		client_list(client, err, &text, "there are no connections\n");
	} else if (strcmp(what, "sas") == 0) {
		client->uses = show_uses(env,
		    client->word_count > 2 ? client->words[2] : NULL,
		    &client->use_count);
		if (client->uses == NULL) {
			client_say(client, ERR_NOMEM, err_text(ERR_NOMEM));
			return;
		}
		client->state = CLIENT_LIST;
		timer_set(env->timers, &client->timer, QUERY_MS);
		list_ask(client);
	} else {
		client_usage(client, client->words[client->word_count - 1],
		    "list conns | list sas [NAME]");
	}
}

static void
command_status(struct client *client)
{
	struct text text = { 0 };
	enum err err = show_status(
	    client->control->env, &client->control->facts, client->json, &text);

	client_list(client, err, &text, "");
}

/* The rest -------------------------------------------------------------- */

static void
command_reload(struct client *client)
{
	struct control *control = client->control;

	client->state = CLIENT_RELOAD;
	timer_set(control->env->timers, &client->timer, RELOAD_MS);
	control->host.reload(control->host.arg, client->serial);
}

void
control_reloaded(
    struct control *control, uint64_t serial, enum err err, const char *text)
{
	struct client *client = client_find(control, serial);

	if (client == NULL || client->state != CLIENT_RELOAD)
		return;
	if (err != OK && !client->json && text != NULL) {
		client_put_text(client, CONTROL_ERROR, text);
		client_put_text(client, CONTROL_ERROR, "\n");
		text = "the configuration in force was not changed";
	}
	client_say(client, err, text);
}

static void
command_log(struct client *client)
{
	struct control *control = client->control;
	int level = log_level_parse(client->words[1]);
	char line[64];

	if (level < 0) {
		client_usage(
		    client, client->words[1], "log error|warning|info|debug");
		return;
	}
	control->env->log->level = (enum log_level)level;
	if (control->host.log_level != NULL)
		control->host.log_level(
		    control->host.arg, (enum log_level)level);
	snprintf(line, sizeof(line), "log level is %s",
	    log_level_text((enum log_level)level));
	client_say(client, OK, line);
}

static void
command_monitor(struct client *client)
{
	client->state = CLIENT_MONITOR;
	client->control->monitors++;
	timer_stop(client->control->env->timers, &client->timer);
}

static void
command_version(struct client *client)
{
	client_say(client, OK, PACKAGE_NAME " " PACKAGE_VERSION);
}

void
control_event(struct control *control, const struct event *event)
{
	struct text text = { 0 }, json = { 0 };
	struct client *client, *next;

	if (control->monitors == 0)
		return;
	for (client = control->first; client != NULL; client = next) {
		struct text *line = client->json ? &json : &text;

		next = client->next;
		if (client->state != CLIENT_MONITOR)
			continue;
		if (line->len == 0)
			show_event(control->env, event, client->json, line);
		/* Who does not read is left behind, and told so. */
		if (client->out.len - client->out_at > CONTROL_BACKLOG) {
			client_put_text(client, CONTROL_ERROR,
			    "too slow a reader: events were lost\n");
			client_end(client, CONTROL_FAILED);
		} else if (!line->failed) {
			client_put(client, CONTROL_OUTPUT, line->at, line->len);
		}
	}
	text_free(&text);
	text_free(&json);
}

void
control_facts(struct control *control, const struct control_facts *facts)
{
	control->facts = *facts;
}

static const struct command {
	const char *name;
	size_t min, max; /* words, with the name */
	void (*run)(struct client *client);
	const char *usage;
} commands[] = {
	{ "status", 1, 1, command_status, "status" },
	{ "list", 2, 3, command_list, "list conns | list sas [NAME]" },
	{ "up", 2, 3, command_up, "up NAME [SECONDS]" },
	{ "down", 2, 3, command_down, "down NAME [SECONDS]" },
	{ "reload", 1, 1, command_reload, "reload" },
	{ "log", 2, 2, command_log, "log error|warning|info|debug" },
	{ "monitor", 1, 1, command_monitor, "monitor" },
	{ "version", 1, 1, command_version, "version" },
};

static void
client_split(struct client *client, char *line)
{
	char *save = NULL;

	client->word_count = 0;
	for (char *word = strtok_r(line, " \t\r", &save);
	     word != NULL && client->word_count < WORDS;
	     word = strtok_r(NULL, " \t\r", &save)) {
		if (strcmp(word, "--json") == 0)
			client->json = true;
		else
			client->words[client->word_count++] = word;
	}
}

static void
client_run(struct client *client)
{
	timer_stop(client->control->env->timers, &client->timer);
	client_split(client, client->line);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		const struct command *command = &commands[i];

		if (client->word_count == 0 ||
		    strcmp(client->words[0], command->name) != 0)
			continue;
		if (client->word_count < command->min ||
		    client->word_count > command->max)
			client_usage(client, NULL, command->usage);
		else
			command->run(client);
		return;
	}
	client_wrong(client, "no such command");
}

/* What comes in and goes out -------------------------------------------- */

static void
client_timer(void *arg)
{
	struct client *client = arg;
	char line[1024];

	switch ((enum client_state)client->state) {
	case CLIENT_UP:
		keeper_wait_cancel(client->control->keeper, &client->wait);
		snprintf(line, sizeof(line),
		    "%s is not up yet; the attempt goes on", client->words[1]);
		client_say(client, ERR_TIMEOUT, line);
		break;
	case CLIENT_DOWN:
		down_look(client);
		break;
	case CLIENT_RELOAD:
		client_say(client, ERR_TIMEOUT, "no answer in time");
		break;
	case CLIENT_LIST:
		list_print(client);
		break;
	case CLIENT_READING:
	case CLIENT_MONITOR:
	case CLIENT_ENDING:
		client_free(client);
		break;
	}
}

static void
client_readable(void *arg)
{
	struct client *client = arg;
	size_t room = CONTROL_LINE - client->line_len;
	char junk[256], *end;
	ssize_t got;

	if (client->state != CLIENT_READING) {
		/* Nothing more is expected; only the end matters. */
		got = recv(client->fd, junk, sizeof(junk), MSG_DONTWAIT);
		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
			client_free(client);
		return;
	}
	got = recv(
	    client->fd, client->line + client->line_len, room, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		client_free(client);
		return;
	}
	client->line_len += (size_t)got;
	client->line[client->line_len] = '\0';
	end = memchr(client->line, '\n', client->line_len);
	if (memchr(client->line, '\0', client->line_len) != NULL) {
		client_wrong(client, "the request is no text");
	} else if (end != NULL) {
		*end = '\0';
		client_run(client);
	} else if (client->line_len == CONTROL_LINE) {
		client_wrong(client, "the request is too long");
	}
}

static void
client_writable(void *arg)
{
	struct client *client = arg;
	ssize_t sent;

	if (client->out.failed && client->state == CLIENT_MONITOR) {
		client_free(client);
		return;
	}
	sent = send(client->fd, client->out.at + client->out_at,
	    client->out.len - client->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (sent < 0) {
		client_free(client);
		return;
	}
	client->out_at += (size_t)sent;
	if (client->state == CLIENT_ENDING)
		timer_set(
		    client->control->env->timers, &client->timer, READ_MS);
	if (client->out_at < client->out.len)
		return;
	client->out_at = client->out.len = 0;
	loop_watch_write(client->watch, false);
	if (client->state == CLIENT_ENDING)
		client_free(client);
}

static bool
allowed(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
		return false;
	return cred.uid == 0 || cred.uid == geteuid();
}

static void
control_resume(void *arg)
{
	struct control *control = arg;

	if (control->count < CONTROL_CLIENTS)
		loop_watch_read(control->watch, true);
}

static void
control_accept(void *arg)
{
	struct control *control = arg;
	struct client *client;
	int fd = accept4(
	    control->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) {
		/* Out of descriptors: trying again at once would spin. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
		    errno == ENOBUFS) {
			loop_watch_read(control->watch, false);
			timer_set(
			    control->env->timers, &control->pause, PAUSE_MS);
		}
		return;
	}
	client = allowed(fd) ? calloc(1, sizeof(*client)) : NULL;
	if (client == NULL) {
		close(fd);
		return;
	}
	client->control = control;
	client->fd = fd;
	client->serial = ++control->serial;
	client->out.max = CONTROL_QUEUE;
	client->watch = loop_watch(
	    control->loop, fd, client_readable, client_writable, client);
	if (client->watch == NULL) {
		close(fd);
		free(client);
		return;
	}
	timer_init(&client->timer, client_timer, client);
	timer_set(control->env->timers, &client->timer, LINE_MS);
	client->next = control->first;
	if (client->next != NULL)
		client->next->prev = client;
	control->first = client;
	/* Others wait in the listener's queue. */
	if (++control->count == CONTROL_CLIENTS)
		loop_watch_read(control->watch, false);
}

struct control *
control_new(struct env *env, struct loop *loop, struct keeper *keeper,
    int listener, const struct control_host *host)
{
	struct control *control = calloc(1, sizeof(*control));

	if (control == NULL)
		return NULL;
	control->env = env;
	control->loop = loop;
	control->keeper = keeper;
	control->host = *host;
	control->listener = listener;
	timer_init(&control->pause, control_resume, control);
	control->watch =
	    loop_watch(loop, listener, control_accept, NULL, control);
	if (control->watch == NULL) {
		free(control);
		return NULL;
	}
	return control;
}

void
control_free(struct control *control)
{
	if (control == NULL)
		return;
	while (control->first != NULL)
		client_free(control->first);
	timer_stop(control->env->timers, &control->pause);
	loop_unwatch(control->watch);
	close(control->listener);
	if (control->env->control == control)
		control->env->control = NULL;
	free(control);
}
