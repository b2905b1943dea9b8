/*
 * control over a real socket, and table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/engine.h"
#include "common/limit.h"
#include "common/loop.h"
#include "common/policy.h"
#include "common/sa.h"
#include "daemon/control.h"
#include "daemon/keeper.h"
#include "daemon/table.h"

struct world {
	struct env env;
	struct log log;
	struct loop *loop;
	struct keeper *keeper;
	struct control *control;
	char dir[64], path[96];
	struct timer stop;
	uint64_t reload_serial;
	unsigned reloads;
	int level;
};

static void
ask_reload(void *arg, uint64_t serial)
{
	struct world *world = arg;

	world->reloads++;
	world->reload_serial = serial;
}

static void
set_level(void *arg, enum log_level level)
{
	((struct world *)arg)->level = (int)level;
}

static void
no_line(struct log *log, enum log_level level, const char *line)
{
	(void)log;
	(void)level;
	(void)line;
}

static void
stop(void *arg)
{
	loop_stop(((struct world *)arg)->loop);
}

/* Lets the loop run for some milliseconds. */
static void
run(struct world *world, uint64_t ms)
{
	timer_set(loop_timers(world->loop), &world->stop, ms);
	loop_run(world->loop);
}

static int
setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	struct control_host host = { ask_reload, set_level, world };
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	struct conn *conn = conn_new("office");
	struct policy *policy = policy_new(&conn, 1);
	struct keeper_difference d;
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	*state = world;
	strcpy(world->dir, "/tmp/t_control.XXXXXX");
	assert_non_null(mkdtemp(world->dir));
	snprintf(world->path, sizeof(world->path), "%s/ctl", world->dir);
	strcpy(name.sun_path, world->path);
	assert_int_equal(
	    bind(listener, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(listen(listener, 64), 0);
	world->loop = loop_new();
	world->log.write = no_line;
	world->log.level = LOG_LEVEL_INFO;
	world->env.timers = loop_timers(world->loop);
	world->env.log = &world->log;
	world->env.random = env_random_openssl;
	assert_int_equal(sadb_new(&world->env), OK);
	world->keeper = keeper_new(&world->env, NULL);
	keeper_policy(world->keeper, policy, &d);
	policy_unref(policy);
	world->control = control_new(
	    &world->env, world->loop, world->keeper, listener, &host);
	assert_non_null(world->control);
	world->env.control = world->control;
	timer_init(&world->stop, stop, world);
	return 0;
}

static int
teardown(void **state)
{
	struct world *world = *state;

	control_free(world->control);
	keeper_free(world->keeper);
	sadb_free(world->env.sadb);
	policy_unref(world->env.policy);
	loop_free(world->loop);
	unlink(world->path);
	rmdir(world->dir);
	free(world);
	return 0;
}

/* A client -------------------------------------------------------------- */

struct answer {
	uint8_t octets[1 << 18]; /* as received */
	size_t len;
	char out[65536], err[4096];
	size_t out_len, err_len;
	int status; /* -1: none */
};

static int
dial(struct world *world)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(name.sun_path, world->path);
	assert_int_equal(
	    connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	return fd;
}

static void
parse(struct answer *answer)
{
	size_t at = 0;

	memset(answer->out, 0, sizeof(answer->out));
	memset(answer->err, 0, sizeof(answer->err));
	answer->out_len = answer->err_len = 0;
	answer->status = -1;
	while (answer->len - at >= 5) {
		struct view head = view_of(answer->octets + at, 5);
		const uint8_t *body = answer->octets + at + 5;
		uint8_t kind;
		uint32_t part = 0;

		assert_true(view_u8(&head, &kind) && view_u32(&head, &part));
		assert_true(part <= CONTROL_FRAME);
		if (part > answer->len - at - 5)
			return; /* the rest is to come */
		assert_int_equal(answer->status, -1);
		if (kind == CONTROL_OUTPUT) {
			assert_true(
			    answer->out_len + part < sizeof(answer->out));
			memcpy(answer->out + answer->out_len, body, part);
			answer->out_len += part;
		} else if (kind == CONTROL_ERROR) {
			assert_true(
			    answer->err_len + part < sizeof(answer->err));
			memcpy(answer->err + answer->err_len, body, part);
			answer->err_len += part;
		} else {
			assert_int_equal(kind, CONTROL_STATUS);
			assert_int_equal(part, 1);
			answer->status = *body;
		}
		at += 5 + part;
	}
}

/* What has come so far. */
static void
take(int fd, struct answer *answer)
{
	ssize_t got;

	while ((got = recv(fd, answer->octets + answer->len,
	            sizeof(answer->octets) - answer->len, MSG_DONTWAIT)) > 0)
		answer->len += (size_t)got;
	parse(answer);
}

static struct answer *
fresh(void)
{
	struct answer *answer = calloc(1, sizeof(*answer));

	assert_non_null(answer);
	answer->status = -1;
	return answer;
}

/* Waits until the last frame has come. */
static void
finish(struct world *world, int fd, struct answer *answer)
{
	for (unsigned i = 0; i < 500 && answer->status < 0; i++) {
		run(world, 5);
		take(fd, answer);
	}
}

/* Waits until this has come. */
static void
expect(struct world *world, int fd, struct answer *answer, const char *text)
{
	for (unsigned i = 0; i < 500 && strstr(answer->out, text) == NULL;
	     i++) {
		run(world, 5);
		take(fd, answer);
	}
	assert_non_null(strstr(answer->out, text));
}

static void
ask(struct world *world, const void *line, size_t len, struct answer *answer)
{
	int fd = dial(world);

	memset(answer, 0, sizeof(*answer));
	answer->status = -1;
	assert_int_equal(send(fd, line, len, 0), (ssize_t)len);
	finish(world, fd, answer);
	close(fd);
	run(world, 5);
}

static void
ask_text(struct world *world, const char *line, struct answer *answer)
{
	ask(world, line, strlen(line), answer);
}

/* Tests ----------------------------------------------------------------- */

static void
test_commands(void **state)
{
	static const struct {
		const char *line;
		int status;
		const char *out, *err; /* what must be in there */
	} rows[] = {
		{ "version\n", 0, "orthrus ", "" },
		{ "version extra\n", 2, "", "version" },
		{ "\n", 2, "", "no such command" },
		{ "dance\n", 2, "", "no such command" },
		{ "list\n", 2, "", "list conns" },
		{ "list dances\n", 2, "", "list conns" },
		{ "list conns\n", 0, "office", "" },
		{ "--json list conns\n", 0, "\"connection\":\"office\"", "" },
		{ "list conns --json\n", 0, "\"auto\":\"ignore\"", "" },
		{ "list sas\n", 0, "", "there are no SAs" },
		{ "--json list sas\n", 0, "{\"ike_sas\":[],", "" },
		{ "  status\t\r\n", 0, "data plane", "" },
		{ "--json status\n", 0, "\"connections\":1", "" },
		{ "log loud\n", 2, "", "log error" },
		{ "up nobody\n", 1, "", "there is no connection nobody" },
		{ "up office\n", 1, "", "no address to go to" },
		{ "up office soon\n", 2, "", "up NAME" },
		{ "up office 99999999999999999999\n", 2, "", "up NAME" },
		{ "down nobody\n", 1, "", "there is no connection nobody" },
		{ "down office\n", 0, "office is down", "" },
		{ "--json up nobody\n", 1, "{\"ok\":false,", "" },
		{ "a b c d e f g h i j k l m n o p\n", 2, "",
		    "no such command" },
	};
	struct answer *answer = fresh();

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ask_text(*state, rows[i].line, answer);
		if (answer->status != rows[i].status ||
		    strstr(answer->out, rows[i].out) == NULL ||
		    strstr(answer->err, rows[i].err) == NULL)
			fail_msg("%sgave %d\n%s%s", rows[i].line,
			    answer->status, answer->out, answer->err);
	}
	free(answer);
}

static void
test_bounds(void **state)
{
	static const size_t lens[] = { CONTROL_LINE - 1, CONTROL_LINE,
		CONTROL_LINE + 1 };
	struct answer *answer = fresh();
	char line[CONTROL_LINE + 1];
	int fd;

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		memset(line, 'a', sizeof(line));
		line[lens[i] - 1] = '\n';
		ask(*state, line, lens[i], answer);
		assert_int_equal(answer->status, CONTROL_USAGE);
		assert_non_null(strstr(answer->err,
		    lens[i] <= CONTROL_LINE ? "no such command" : "too long"));
	}
	ask(*state, "ver\0sion\n", 9, answer);
	assert_int_equal(answer->status, CONTROL_USAGE);
	/* In pieces */
	free(answer);
	answer = fresh();
	fd = dial(*state);
	for (const char *at = "version\n"; *at != '\0'; at++) {
		take(fd, answer);
		assert_int_equal(answer->status, -1);
		assert_int_equal(send(fd, at, 1, 0), 1);
		run(*state, 3);
	}
	finish(*state, fd, answer);
	assert_int_equal(answer->status, 0);
	close(fd);
	free(answer);
}

static void
test_log(void **state)
{
	struct world *world = *state;
	struct answer *answer = fresh();

	ask_text(world, "log debug\n", answer);
	assert_int_equal(answer->status, 0);
	assert_int_equal(world->log.level, LOG_LEVEL_DEBUG);
	assert_int_equal(world->level, LOG_LEVEL_DEBUG);
	free(answer);
}

/* Runs until so many reloads have been asked for. */
static void
until_reloads(struct world *world, unsigned reloads)
{
	for (unsigned i = 0; i < 500 && world->reloads < reloads; i++)
		run(world, 5);
	assert_int_equal(world->reloads, reloads);
}

static void
test_reload(void **state)
{
	struct world *world = *state;
	struct answer *first = fresh(), *second = fresh();
	int good = dial(world), bad = dial(world);
	uint64_t serial;

	assert_int_equal(send(good, "reload\n", 7, 0), 7);
	until_reloads(world, 1);
	serial = world->reload_serial;
	assert_int_equal(send(bad, "reload\n", 7, 0), 7);
	until_reloads(world, 2);
	take(good, first);
	assert_int_equal(first->status, -1);
	control_reloaded(world->control, world->reload_serial, ERR_SYNTAX,
	    "ipsec.conf:1:1: error");
	control_reloaded(world->control, serial, OK, "1 new");
	control_reloaded(world->control, serial, OK, "again");
	control_reloaded(world->control, 12345, OK, "nobody");
	finish(world, good, first);
	assert_int_equal(first->status, 0);
	assert_string_equal(first->out, "1 new\n");
	finish(world, bad, second);
	assert_int_equal(second->status, 1);
	assert_non_null(strstr(second->err, "ipsec.conf:1:1"));
	close(good);
	close(bad);
	free(first);
	free(second);
}

static void
test_monitor(void **state)
{
	struct world *world = *state;
	struct event event = {
		.kind = EVENT_EXPLAIN,
		.conn = world->env.policy->conns[0],
		.err = ERR_NO_PROPOSAL,
		.text = "offered\nallowed \x1b[31m",
		.by_peer = 1,
	};
	struct answer *plain = fresh(), *objects = fresh();
	int text = dial(world), json = dial(world);

	control_event(world->control, &event); /* nobody watches yet */
	assert_int_equal(send(text, "monitor\n", 8, 0), 8);
	assert_int_equal(send(json, "--json monitor\n", 15, 0), 15);
	for (unsigned i = 0; i < 500 && (plain->len == 0 || objects->len == 0);
	     i++) {
		control_event(world->control, &event);
		run(world, 5);
		take(text, plain);
		take(json, objects);
	}
	assert_int_equal(plain->status, -1);
	expect(world, text, plain, " explain office");
	expect(world, text, plain, "offered\nallowed ?[31m\n");
	expect(world, json, objects, "\"connection\":\"office\"");
	expect(world, json, objects, "offered\\nallowed \\u001b[31m");
	close(text);
	close(json);
	free(plain);
	free(objects);
}

/* Who does not read is left behind, and costs a bounded amount of memory. */
static void
test_slow_monitor(void **state)
{
	struct world *world = *state;
	struct event event = { .kind = EVENT_EXPLAIN };
	char *text = calloc(1, 60001);
	char octets[65536];
	size_t got = 0;
	ssize_t part;
	int fd = dial(world);

	memset(text, 'x', 60000);
	event.text = text;
	assert_int_equal(send(fd, "monitor\n", 8, 0), 8);
	run(world, 20);
	for (unsigned i = 0; i < 100; i++)
		control_event(world->control, &event);
	run(world, 20);
	for (;;) {
		part = recv(fd, octets, sizeof(octets), MSG_DONTWAIT);
		if (part == 0)
			break;
		if (part > 0)
			got += (size_t)part;
		else
			run(world, 5);
	}
	assert_in_range(got, 60000, CONTROL_BACKLOG + 400000);
	/* The last frame is a status: failed. */
	close(fd);
	free(text);
}

static void
test_many_clients(void **state)
{
	struct world *world = *state;
	struct answer *answer = fresh();
	int idle[CONTROL_CLIENTS], one;

	for (size_t i = 0; i < CONTROL_CLIENTS; i++)
		idle[i] = dial(world);
	run(world, 20);
	one = dial(world);
	assert_int_equal(send(one, "version\n", 8, 0), 8);
	run(world, 20);
	take(one, answer);
	assert_int_equal(answer->status, -1); /* waits its turn */
	close(idle[3]);
	finish(world, one, answer);
	assert_int_equal(answer->status, 0);
	for (size_t i = 0; i < CONTROL_CLIENTS; i++)
		if (i != 3)
			close(idle[i]);
	close(one);
	run(world, 20);
	ask_text(world, "version\n", answer);
	assert_int_equal(answer->status, 0);
	free(answer);
}

/* A client that hangs up in the middle of everything. */
static void
test_hang_up(void **state)
{
	static const char *const lines[] = { "ver", "status\n", "monitor\n",
		"reload\n", "down office\n", "list sas\n" };
	struct world *world = *state;
	struct answer *answer = fresh();

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		for (unsigned when = 0; when < 2; when++) {
			int fd = dial(world);

			assert_true(
			    send(fd, lines[i], strlen(lines[i]), 0) > 0);
			if (when == 1)
				run(world, 10);
			close(fd);
			run(world, 10);
		}
	}
	control_reloaded(world->control, world->reload_serial, OK, NULL);
	ask_text(world, "version\n", answer);
	assert_int_equal(answer->status, 0);
	free(answer);
}

static const struct table_column columns[] = {
	{ "name", TABLE_TEXT, false },
	{ "big number", TABLE_NUMBER, false },
	{ "hidden", TABLE_TEXT, true },
	{ "good", TABLE_BOOL, false },
};

static void
test_table(void **state)
{
	struct table *table = table_new(columns, 4);
	struct text text = { 0 };

	(void)state;
	assert_int_equal(table_print(table, false, &text), OK);
	assert_int_equal(text.len, 0);
	assert_int_equal(table_print(table, true, &text), OK);
	assert_int_equal(text.len, 2);
	text.len = 0;
	table_text(table, "a\"b\\\n\xff");
	table_number(table, 42);
	table_text(table, NULL);
	table_bool(table, true);
	table_text(table, "longer name");
	table_text(table, NULL);
	table_format(table, "%d", 7);
	table_bool(table, false);
	assert_int_equal(table_rows(table), 2);
	assert_int_equal(table_print(table, false, &text), OK);
	text_add(&text, "", 1);
	assert_string_equal(text.at, "name         big number  good\n"
	                             "a\"b\\??               42  yes\n"
	                             "longer name           -  no\n");
	text.len = 0;
	assert_int_equal(table_print(table, true, &text), OK);
	text_add(&text, "", 1);
	assert_string_equal(text.at,
	    "[{\"name\":\"a\\\"b\\\\\\n\\u00ff\",\"big_number\":42,"
	    "\"hidden\":null,\"good\":true},\n"
	    "{\"name\":\"longer name\",\"big_number\":null,"
	    "\"hidden\":\"7\",\"good\":false}]");
	table_free(table);
	text_free(&text);
}

static void
test_text_bound(void **state)
{
	struct text text = { .max = 10 };

	(void)state;
	text_add(&text, "123456789", 9);
	assert_false(text.failed);
	text_add(&text, "0", 1);
	assert_false(text.failed);
	text_add(&text, "1", 1);
	assert_true(text.failed);
	assert_int_equal(text.len, 10);
	text_free(&text);
	assert_false(text.failed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* Our end of a client's connection. */
static void
serve_escapes(int listener)
{
	static const char answer[] = "o\0\0\0\10\33[2J\t\x9b"
	                             "x\n"
	                             "s\0\0\0\1\7";
	char line[64];
	int fd = accept(listener, NULL, NULL);

	assert_true(fd >= 0);
	assert_true(read(fd, line, sizeof(line)) > 0);
	assert_int_equal(
	    write(fd, answer, sizeof(answer) - 1), sizeof(answer) - 1);
	close(fd);
}

/* A captured gate does not reach the terminal of whoever asks it. */
static void
test_command_is_plain(void **state)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	const char *builddir = getenv("builddir");
	char program[512], text[64];
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), out[2], status;
	ssize_t len;
	pid_t pid;

	(void)state;
	snprintf(program, sizeof(program), "%s/orthrus",
	    builddir != NULL ? builddir : ".");
	if (access(program, X_OK) != 0)
		skip(); /* started by hand, elsewhere */
	assert_int_equal(pipe(out), 0);
	snprintf(name.sun_path, sizeof(name.sun_path), "/tmp/t_control.%d.ctl",
	    (int)getpid());
	assert_int_equal(
	    bind(listener, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(listen(listener, 1), 0);
	pid = fork();
	if (pid == 0) {
		dup2(out[1], STDOUT_FILENO);
		execl(program, "orthrus", "--control", name.sun_path, "status",
		    NULL);
		_exit(127);
	}
	assert_true(pid > 0);
	serve_escapes(listener);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	unlink(name.sun_path);
	close(listener);
	assert_int_equal(WEXITSTATUS(status), 7);
	len = read(out[0], text, sizeof(text));
	assert_int_equal(len, 8);
	assert_memory_equal(text, "?[2J\t?x\n", 8);
	close(out[0]);
	close(out[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_commands),
		TEST(test_bounds),
		TEST(test_log),
		TEST(test_reload),
		TEST(test_monitor),
		TEST(test_slow_monitor),
		TEST(test_many_clients),
		TEST(test_hang_up),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_text_bound),
		cmocka_unit_test(test_command_is_plain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
