/* The link to the asker's process: see kernel/remote.h for its other end. */
#include "common/ipc.h"
#include "common/loop.h"
#include "common/mem.h"
#include "kernel/kserve_state.h"

void
kserve_link_end(struct kserve *kserve)
{
	timer_stop(kserve->timers, &kserve->cut);
	kserve_client(kserve, NULL);
	ipc_free(kserve->ipc);
	kserve->ipc = NULL;
	kserve_clear(kserve);
}

void
kserve_cut(void *arg)
{
	struct kserve *kserve = arg;

	log_write(kserve->log, LOG_LEVEL_ERROR,
	    "gate does not take the data plane's answers: link closed");
	kserve_link_end(kserve);
}

static void
link_send(struct kserve *kserve, uint16_t type, uint64_t serial,
    const struct buf *buf)
{
	/* Not from here: the caller may be in the middle of a request. */
	if (ipc_send(kserve->ipc, type, serial, buf->at, buf->len) != OK)
		timer_set(kserve->timers, &kserve->cut, 0);
}

static void
link_answer(void *arg, const struct kmsg_answer *answer)
{
	uint8_t octets[KMSG_ANSWER_OCTETS];
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	kmsg_answer_put(&buf, answer);
	link_send(arg, KFRAME_ANSWER, answer->sequence, &buf);
}

/* Whoever may send a packet causes them, and gate may be slow: they heal by
 * themselves, and must not take the room of answers. */
static void
link_event(void *arg, const struct kmsg_event *event)
{
	const struct kserve *kserve = arg;
	uint8_t octets[KMSG_EVENT_OCTETS];
	struct buf buf;

	if (event->kind != KEVENT_LOST && ipc_queued(kserve->ipc) > IPC_EXTRA)
		return;
	buf_init(&buf, octets, sizeof(octets));
	kmsg_event_put(&buf, event);
	link_send(arg, KFRAME_EVENT, 0, &buf);
}

static enum err
link_request(void *arg, const struct ipc_frame *frame)
{
	struct kmsg request;
	enum err err = kmsg_get(frame->body, &request);

	if (err == OK) {
		request.sequence = frame->serial;
		kserve_request(arg, &request); /* wipes */
	} else {
		mem_wipe(&request, sizeof(request));
	}
	return err;
}

static void
link_closed(void *arg, enum err err, const char *why)
{
	struct kserve *kserve = arg;

	if (err == ERR_REFUSED)
		log_write(kserve->log, LOG_LEVEL_ERROR,
		    "gate broke the rules of the data plane's link: %s", why);
	kserve_link_end(kserve);
}

static const struct ipc_permit link_rows[] = {
	{ KFRAME_REQUEST, IPC_IN, 1, KMSG_OCTETS, 0, link_request },
	{ KFRAME_ANSWER, IPC_OUT, 1, KMSG_ANSWER_OCTETS, 0, NULL },
	{ KFRAME_EVENT, IPC_OUT, 1, KMSG_EVENT_OCTETS, 0, NULL },
};

enum err
kserve_serve(struct kserve *kserve, struct loop *loop, int fd)
{
	const struct kserve_client client = { link_answer, link_event, kserve };
	struct ipc *ipc = ipc_new(loop, fd, link_rows,
	    sizeof(link_rows) / sizeof(link_rows[0]), link_closed, kserve);

	if (ipc == NULL)
		return ERR_NOMEM;
	if (kserve->ipc)
		kserve_link_end(kserve);
	kserve->ipc = ipc;
	kserve_client(kserve, &client);
	return OK;
}
