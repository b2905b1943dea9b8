/*
 * show: what the control socket prints: status, connections, SAs, events.
 */
#ifndef DAEMON_SHOW_H
#define DAEMON_SHOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/env.h"
#include "common/err.h"
#include "daemon/control.h"
#include "daemon/table.h"
#include "kernel/install.h"

struct keeper;

/* The traffic of one child, as far as the data plane told. */
struct show_use {
	uint64_t child; /* serial */
	bool known;
	struct install_use use;
};

/* The children of a connection (NULL: all), in the order in which show_sas()
 * prints them; the caller frees it. NULL: out of memory. */
struct show_use *
show_uses(const struct env *env, const char *name, size_t *count);

/* Each appends to text; ERR_NOMEM also when it becomes too long. An empty list
 * adds nothing, in JSON an empty list. */
enum err
show_sas(const struct env *env, const char *name, const struct show_use *uses,
    size_t use_count, bool json, struct text *text);
enum err show_conns(
    const struct env *env, struct keeper *keeper, bool json, struct text *text);
enum err show_status(const struct env *env, const struct control_facts *facts,
    bool json, struct text *text);
/* One line (an explanation: several), or one JSON object on a line. */
void show_event(const struct env *env, const struct event *event, bool json,
    struct text *text);

#endif
