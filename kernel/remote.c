#include "kernel/remote.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/ipc.h"
#include "common/loop.h"
#include "common/mem.h"

struct remote {
	struct kernel kernel;
	struct env *env;
	struct ipc *ipc; /* NULL: the other end has gone */
	void (*closed)(struct env *env, const char *why);
	struct kernel_wait wait;
};

static enum err
remote_submit(struct kernel *kernel, const struct kmsg *request,
    kernel_done *done, void *arg)
{
	struct remote *remote = (struct remote *)(void *)kernel;
	uint8_t octets[KMSG_OCTETS];
	uint64_t sequence;
	struct buf buf;
	enum err err;

	if (remote->ipc == NULL)
		return ERR_WRONG_STATE;
	buf_init(&buf, octets, sizeof(octets));
	kmsg_put(&buf, request);
	err = buf.full ? ERR_BUG
	               : kernel_wait_add(&remote->wait, done, arg, &sequence);
	if (err == OK) {
		err = ipc_send(
		    remote->ipc, KFRAME_REQUEST, sequence, octets, buf.len);
		if (err != OK)
			kernel_wait_drop(&remote->wait, sequence);
	}
	mem_wipe(octets, buf.len);
	return err;
}

static enum err
remote_answer(void *arg, const struct ipc_frame *frame)
{
	struct remote *remote = arg;
	struct kmsg_answer answer;
	enum err err = kmsg_answer_get(frame->body, &answer);

	if (err != OK)
		return err;
	answer.sequence = frame->serial;
	return kernel_wait_answer(&remote->wait, remote->env, &answer)
	           ? OK
	           : ERR_SYNTAX;
}

static enum err
remote_event(void *arg, const struct ipc_frame *frame)
{
	struct remote *remote = arg;
	struct kmsg_event event;
	enum err err = kmsg_event_get(frame->body, &event);

	if (err == OK)
		kernel_event(remote->env, &event);
	return err;
}

static void
remote_closed(void *arg, enum err err, const char *why)
{
	struct remote *remote = arg;
	struct kmsg_answer answer;

	(void)err;
	ipc_free(remote->ipc);
	remote->ipc = NULL;
	memset(&answer, 0, sizeof(answer));
	answer.err = ERR_CANCELLED;
	while (remote->wait.first < remote->wait.next) {
		answer.sequence = remote->wait.first;
		if (!kernel_wait_answer(&remote->wait, remote->env, &answer))
			break;
	}
	if (remote->closed)
		remote->closed(remote->env, why);
}

static void
remote_free(struct kernel *kernel)
{
	struct remote *remote = (struct remote *)(void *)kernel;

	ipc_free(remote->ipc);
	kernel_wait_fini(&remote->wait);
	free(remote);
}

struct kernel *
remote_new(struct env *env, struct loop *loop, int fd,
    void (*closed)(struct env *env, const char *why))
{
	static const struct kernel_ops ops = { remote_submit, remote_free };
	static const struct ipc_permit rows[] = {
		{ KFRAME_REQUEST, IPC_OUT, 1, KMSG_OCTETS, 0, NULL },
		{ KFRAME_ANSWER, IPC_IN, 1, KMSG_ANSWER_OCTETS, 0,
		    remote_answer },
		{ KFRAME_EVENT, IPC_IN, 1, KMSG_EVENT_OCTETS, 0, remote_event },
	};
	struct remote *remote = calloc(1, sizeof(*remote));

	if (remote == NULL) {
		close(fd);
		return NULL;
	}
	remote->kernel.ops = &ops;
	remote->env = env;
	remote->closed = closed;
	kernel_wait_init(&remote->wait);
	remote->ipc = ipc_new(loop, fd, rows, sizeof(rows) / sizeof(rows[0]),
	    remote_closed, remote);
	if (remote->ipc == NULL) {
		free(remote);
		return NULL;
	}
	return &remote->kernel;
}
