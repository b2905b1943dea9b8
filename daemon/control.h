/*
 * control: the administrator's socket, inside gate.
 *
 * A Unix stream socket. A client sends one line, words separated by blanks,
 * at most CONTROL_LINE octets with its newline; the first word may be --json.
 * The answer is a sequence of frames: a kind (1 octet), a length (4 octets,
 * network order) and so many octets; the last frame is CONTROL_STATUS with one
 * octet, the exit code. Then the connection ends. Only root and the user who
 * runs the daemon are heard (SO_PEERCRED). Clients are few, what waits for a
 * slow reader is bounded, and nothing here blocks.
 */
#ifndef DAEMON_CONTROL_H
#define DAEMON_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/event.h"
#include "common/log.h"

#define CONTROL_LINE    4096        /* octets of a request */
#define CONTROL_CLIENTS 32          /* at the same time */
#define CONTROL_FRAME   32768       /* octets in one frame, at most */
#define CONTROL_QUEUE   (64u << 20) /* octets of an answer, at most */
#define CONTROL_BACKLOG (1u << 20)  /* octets of events for a slow monitor */

enum control_frame {
	CONTROL_OUTPUT = 'o', /* for standard output */
	CONTROL_ERROR = 'e',  /* for standard error */
	CONTROL_STATUS = 's'  /* one octet: enum control_exit. The last frame */
};

enum control_exit {
	CONTROL_OK = 0,
	CONTROL_FAILED = 1,
	CONTROL_USAGE = 2,
	CONTROL_NO_DAEMON = 3 /* said by the command itself */
};

struct control;
struct env;
struct keeper;
struct loop;

/* A process of ours, for status. */
#define CONTROL_PROCESSES 8
struct control_process {
	char role[16];
	int32_t pid;
	uint32_t restarts;
};

/* What the rest of the daemon tells about itself; may change at any time. */
struct control_facts {
	char data_plane[16]; /* what is used: "xfrm" */
	uint64_t started_s;  /* wall clock, seconds */
	size_t process_count;
	struct control_process process[CONTROL_PROCESSES];
};

/* What control asks of the rest of the daemon. */
struct control_host {
	/* Reads the files anew; answered by control_reloaded() with the same
	 * serial, also at once. */
	void (*reload)(void *arg, uint64_t serial);
	void (*log_level)(void *arg, enum log_level level);
	void *arg;
};

/* listener is an open, listening, non-blocking socket and becomes control's.
 * NULL: out of memory. */
struct control *control_new(struct env *env, struct loop *loop,
    struct keeper *keeper, int listener, const struct control_host *host);
void control_free(struct control *control); /* accepts NULL */

void control_facts(struct control *control, const struct control_facts *facts);

/* The outcome of a reload; text (may be NULL) is what there is to say: what
 * changed, or each diagnostic on a line. */
void control_reloaded(
    struct control *control, uint64_t serial, enum err err, const char *text);

/* For those who watch (monitor). */
void control_event(struct control *control, const struct event *event);

#endif
