#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>
#include <unistd.h>

#include "common/log.h"

struct sink {
	struct log log;
	unsigned lines;
	enum log_level level;
	char last[LOG_LINE + 1];
};

static void
keep(struct log *log, enum log_level level, const char *line)
{
	struct sink *sink = log->arg;

	sink->lines++;
	sink->level = level;
	assert_true(strlen(line) < LOG_LINE);
	snprintf(sink->last, sizeof(sink->last), "%s", line);
}

static void
sink_init(struct sink *sink, enum log_level level)
{
	memset(sink, 0, sizeof(*sink));
	sink->log.level = level;
	sink->log.write = keep;
	sink->log.arg = sink;
}

static void
test_threshold(void **state)
{
	struct sink sink;

	(void)state;
	for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
		sink_init(&sink, (enum log_level)level);
		for (int line = LOG_LEVEL_ERROR; line <= LOG_LEVEL_DEBUG;
		     line++)
			log_write(&sink.log, (enum log_level)line, "%d", line);
		assert_int_equal(sink.lines, level + 1);
		assert_int_equal(sink.level, level);
	}
}

static void
test_lines(void **state)
{
	struct sink sink;
	char longer[LOG_LINE + 100];

	(void)state;
	sink_init(&sink, LOG_LEVEL_INFO);
	log_write(&sink.log, LOG_LEVEL_INFO, "%s %u\n  more", "a", 7U);
	assert_string_equal(sink.last, "a 7\n  more");
	log_write(&sink.log, LOG_LEVEL_INFO, "\033[2Jx\r\x7f\ty");
	assert_string_equal(sink.last, "?[2Jx??\ty");
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	log_write(&sink.log, LOG_LEVEL_INFO, "%s", longer);
	assert_int_equal(strlen(sink.last), LOG_LINE - 1);
}

static void
test_levels(void **state)
{
	(void)state;
	for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++)
		assert_int_equal(
		    log_level_parse(log_level_text((enum log_level)level)),
		    level);
	assert_int_equal(log_level_parse("DEBUG"), LOG_LEVEL_DEBUG);
	assert_int_equal(log_level_parse(""), -1);
	assert_int_equal(log_level_parse("verbose"), -1);
	assert_string_equal(log_level_text((enum log_level)77), "unknown");
}

static void
test_stderr(void **state)
{
	struct log log;
	char text[256] = "";
	int pipes[2], saved;
	ssize_t len;

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	saved = dup(STDERR_FILENO);
	assert_true(saved >= 0);
	assert_true(dup2(pipes[1], STDERR_FILENO) >= 0);
	log_to_stderr(&log, LOG_LEVEL_WARNING);
	log_write(&log, LOG_LEVEL_WARNING, "disk %s", "full");
	log_write(&log, LOG_LEVEL_INFO, "not shown");
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	close(saved);
	close(pipes[1]);
	len = read(pipes[0], text, sizeof(text) - 1);
	close(pipes[0]);
	assert_true(len > 0);
	/* "2026-01-02 03:04:05.678 warning: disk full" */
	assert_int_equal(text[4], '-');
	assert_int_equal(text[19], '.');
	assert_string_equal(text + 23, " warning: disk full\n");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threshold),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_stderr),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
