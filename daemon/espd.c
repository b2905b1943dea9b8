#include "daemon/espd.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/ipc.h"
#include "common/loop.h"
#include "common/mem.h"
#include "kernel/plane.h"
#include "kernel/userland.h"

struct espd {
	struct loop *loop;
	struct log *log;
	struct ipc *ipc;
	struct plane *plane; /* NULL until UFRAME_START */
	void (*ended)(void *arg);
	void *arg;
};

/* To the parent --------------------------------------------------------- */

static void
on_event(void *arg, const struct kmsg_event *event)
{
	struct espd *espd = arg;
	uint8_t octets[KMSG_EVENT_OCTETS];
	struct buf buf;

	/* The room behind is for answers. */
	if (ipc_queued(espd->ipc) > IPC_EXTRA)
		return;
	buf_init(&buf, octets, sizeof(octets));
	kmsg_event_put(&buf, event);
	if (!buf.full)
		(void)ipc_send(espd->ipc, UFRAME_EVENT, 0, buf.at, buf.len);
}

static void
on_stray(void *arg, const struct outer_packet *packet)
{
	struct espd *espd = arg;
	struct userland_stray from;
	uint8_t *room;

	if (packet->len > USERLAND_STRAY_MAX ||
	    ipc_queued(espd->ipc) > IPC_EXTRA)
		return;
	memset(&from, 0, sizeof(from));
	from.local = packet->local;
	from.remote = packet->remote;
	if (ipc_room(espd->ipc, UFRAME_STRAY, 0, sizeof(from) + packet->len,
	        &room) != OK)
		return;
	memcpy(room, &from, sizeof(from));
	memcpy(room + sizeof(from), packet->octets, packet->len);
}

static void
on_gone(void *arg)
{
	struct espd *espd = arg;

	log_write(espd->log, LOG_LEVEL_ERROR, "the TUN device is gone");
	espd->ended(espd->arg);
}

/* From the parent ------------------------------------------------------- */

static enum err
handle_start(void *arg, const struct ipc_frame *frame)
{
	struct espd *espd = arg;
	struct plane_events events = { on_event, on_stray, on_gone, espd };
	struct outer_sockets sockets;
	struct userland_start start;
	size_t at = 1;
	unsigned i;

	memcpy(&start, frame->body.at, sizeof(start));
	for (i = 0; i < OUTER_SOCKETS; i++)
		sockets.fd[i] = -1;
	sockets.natt_port = start.natt_port;
	for (i = 0; i < OUTER_SOCKETS; i++) {
		if (!(start.sockets & 1u << i))
			continue;
		if (at == frame->fd_count) {
			outer_close(&sockets);
			return ERR_SHORT;
		}
		sockets.fd[i] = ipc_keep_fd(frame, at++);
	}
	espd->plane = plane_new(
	    espd->loop, espd->log, ipc_keep_fd(frame, 0), &sockets, &events);
	return espd->plane ? OK : ERR_NOMEM;
}

static enum err
handle_request(void *arg, const struct ipc_frame *frame)
{
	struct espd *espd = arg;
	uint8_t octets[KMSG_ANSWER_OCTETS];
	struct kmsg_answer answer;
	struct kmsg request;
	struct buf buf;
	enum err err = kmsg_get(frame->body, &request);

	if (err == OK && espd->plane == NULL)
		err = ERR_WRONG_STATE;
	if (err == OK)
		plane_execute(espd->plane, &request, &answer);
	mem_wipe(&request, sizeof(request));
	if (err != OK)
		return err;
	buf_init(&buf, octets, sizeof(octets));
	kmsg_answer_put(&buf, &answer);
	return ipc_send(
	    espd->ipc, UFRAME_ANSWER, frame->serial, buf.at, buf.len);
}

static enum err
handle_level(void *arg, const struct ipc_frame *frame)
{
	struct espd *espd = arg;
	uint32_t level;

	memcpy(&level, frame->body.at, sizeof(level));
	if (level > LOG_LEVEL_DEBUG)
		return ERR_SYNTAX;
	espd->log->level = (enum log_level)level;
	return OK;
}

static const struct ipc_permit rows[] = {
	{ UFRAME_START, IPC_IN | IPC_FD | IPC_ONCE,
	    sizeof(struct userland_start), sizeof(struct userland_start), 0,
	    handle_start },
	{ UFRAME_REQUEST, IPC_IN, 1, KMSG_OCTETS, 0, handle_request },
	{ UFRAME_LEVEL, IPC_IN, sizeof(uint32_t), sizeof(uint32_t), 0,
	    handle_level },
	{ UFRAME_ANSWER, IPC_OUT, 1, KMSG_ANSWER_OCTETS, 0, NULL },
	{ UFRAME_EVENT, IPC_OUT, 1, KMSG_EVENT_OCTETS, 0, NULL },
	{ UFRAME_STRAY, IPC_OUT, sizeof(struct userland_stray), IPC_BODY, 0,
	    NULL },
};

static void
closed(void *arg, enum err err, const char *why)
{
	struct espd *espd = arg;

	if (err != ERR_IO)
		log_write(espd->log, LOG_LEVEL_ERROR,
		    "the link to the parent: %s", why);
	espd->ended(espd->arg);
}

/* Beginning and end ----------------------------------------------------- */

struct espd *
espd_new(struct loop *loop, struct log *log, int fd, void (*ended)(void *arg),
    void *arg)
{
	struct espd *espd = calloc(1, sizeof(*espd));

	if (espd == NULL) {
		close(fd);
		return NULL;
	}
	espd->loop = loop;
	espd->log = log;
	espd->ended = ended;
	espd->arg = arg;
	espd->ipc = ipc_new(
	    loop, fd, rows, sizeof(rows) / sizeof(rows[0]), closed, espd);
	if (espd->ipc == NULL) {
		free(espd);
		return NULL;
	}
	return espd;
}

static void
log_stats(const struct espd *espd)
{
	struct plane_stats stats = plane_stats(espd->plane);

	log_write(espd->log, LOG_LEVEL_DEBUG,
	    "ESP: %" PRIu64 " packets out, %" PRIu64 " in; dropped: %" PRIu64
	    " without policy or SA, %" PRIu64 " of unknown SPI, %" PRIu64
	    " replayed or forged, %" PRIu64 " outside selectors, %" PRIu64
	    " malformed, %" PRIu64 " too big",
	    stats.out, stats.in, stats.no_policy, stats.unknown_spi,
	    stats.refused, stats.not_selected, stats.malformed, stats.too_big);
}

void
espd_free(struct espd *espd)
{
	if (espd == NULL)
		return;
	if (espd->plane)
		log_stats(espd);
	plane_free(espd->plane);
	ipc_free(espd->ipc);
	free(espd);
}

static void
stop(void *arg)
{
	loop_stop(arg);
}

int
espd_run(struct log *log, int fd)
{
	struct loop *loop = loop_new();
	struct espd *espd;
	int code = 1;

	if (loop == NULL) {
		close(fd);
		return 1;
	}
	espd = espd_new(loop, log, fd, stop, loop);
	if (espd) {
		loop_run(loop);
		code = 0;
	}
	espd_free(espd);
	loop_free(loop);
	return code;
}
