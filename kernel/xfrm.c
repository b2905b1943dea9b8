#include "kernel/xfrm_state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

#include "common/loop.h"
#include "common/mem.h"
#include "kernel/selector.h"
#include "kernel/xmsg.h"

static uint64_t
wall_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec;
}

/* The datagram ---------------------------------------------------------- */

static struct slot *
slot_of(struct xfrm *xfrm, uint32_t sequence)
{
	uint32_t first = xfrm->sequence - xfrm->slots + 1;

	return sequence - first < xfrm->slots ? &xfrm->slot[sequence - first]
	                                      : NULL;
}

static void
fail(struct task *task, enum err err, const char *text)
{
	if (task->err != OK)
		return;
	task->err = err;
	snprintf(task->text, sizeof(task->text), "%s", text);
}

static bool
is_removal(uint8_t op)
{
	return op == KMSG_SA_REMOVE || op == KMSG_SPI_DROP ||
	       op == KMSG_POLICY_REMOVE;
}

/* Takes msg over. */
static void
slot_add(struct xfrm *xfrm, struct nl_msg *msg)
{
	struct slot *slot = &xfrm->slot[xfrm->slots];
	struct nlmsghdr *header;

	if (msg == NULL) {
		fail(&xfrm->task[xfrm->tasks - 1], ERR_NOMEM, "no memory");
		return;
	}
	xfrm->slots++;
	memset(slot, 0, sizeof(*slot));
	slot->msg = msg;
	slot->task = (uint8_t)(xfrm->tasks - 1);
	slot->sequence = ++xfrm->sequence;
	header = nlmsg_hdr(msg);
	header->nlmsg_seq = slot->sequence;
	header->nlmsg_pid = nl_socket_get_local_port(xfrm->ask);
}

static void
take_answer(struct xfrm *xfrm, struct nlmsghdr *header)
{
	struct slot *slot = slot_of(xfrm, header->nlmsg_seq);
	struct task *task;
	char text[XFRM_TEXT];
	int number;

	if (slot == NULL || slot->answered)
		return;
	task = &xfrm->task[slot->task];
	slot->answered = true;
	if (header->nlmsg_type == NLMSG_ERROR) {
		slot->err = xmsg_read_error(header, &number, text, XFRM_TEXT);
		/* What is to be removed may have come to its end; what is to
		 * be updated, too: see retry_as_new(). */
		if (slot->err != OK &&
		    (slot->err != ERR_NOT_FOUND ||
		        (!is_removal(task->op) && !task->retry)))
			fail(task, slot->err, text);
		return;
	}
	if (task->op == KMSG_SPI)
		slot->err = xmsg_read_spi(header, &task->spi);
	else if (task->op == KMSG_SA_QUERY)
		slot->err = xmsg_read_use(header, wall_s(), &task->use);
	if (slot->err != OK)
		fail(task, slot->err, "the kernel's answer makes no sense");
}

/* Sends slots from first on and reads all answers: the kernel has worked the
 * messages off when sendmsg() returns. */
static void
exchange(struct xfrm *xfrm, unsigned first)
{
	struct sockaddr_nl to = { .nl_family = AF_NETLINK };
	struct iovec iov[XFRM_SLOTS];
	struct msghdr datagram = {
		.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = iov
	};
	struct nlmsghdr *header;
	unsigned i, count = 0;
	ssize_t sent;
	size_t octets;
	int len;

	for (i = first; i < xfrm->slots; i++) {
		header = nlmsg_hdr(xfrm->slot[i].msg);
		iov[count].iov_base = header;
		iov[count++].iov_len = NLMSG_ALIGN(header->nlmsg_len);
	}
	if (count == 0)
		return;
	datagram.msg_iovlen = count;
	do {
		sent = sendmsg(nl_socket_get_fd(xfrm->ask), &datagram, 0);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0) {
		for (i = first; i < xfrm->slots; i++) {
			xfrm->slot[i].answered = true;
			xfrm->slot[i].err = ERR_IO;
			fail(&xfrm->task[xfrm->slot[i].task], ERR_IO,
			    strerror(errno));
		}
		return;
	}
	while ((len = xfrm_read(xfrm->ask, xfrm->receive)) != 0) {
		octets = len > 0 ? (size_t)len : 0;
		for (header = (struct nlmsghdr *)(void *)xfrm->receive;
		     len > 0 && nlmsg_ok(header, len);
		     header = nlmsg_next(header, &len))
			take_answer(xfrm, header);
		/* An SA that was asked about comes with its keys. */
		mem_wipe(xfrm->receive, octets);
	}
}

/* What was said with one NLM_F_ACK message and no more: for undoing. */
static void
tell(struct xfrm *xfrm, struct nl_msg *msg)
{
	struct nlmsghdr *header;
	struct sockaddr_nl to = { .nl_family = AF_NETLINK };

	if (msg == NULL)
		return;
	header = nlmsg_hdr(msg);
	header->nlmsg_flags &= (uint16_t)~NLM_F_ACK;
	header->nlmsg_seq = 0;
	(void)sendto(nl_socket_get_fd(xfrm->ask), header,
	    NLMSG_ALIGN(header->nlmsg_len), 0, (struct sockaddr *)&to,
	    sizeof(to));
	xmsg_free(msg);
}

/* After the exchange ---------------------------------------------------- */

/* An SA or selectors that the kernel may have taken although the request as a
 * whole has failed. */
static void
undo_slot(struct xfrm *xfrm, const struct task *task, const struct slot *slot)
{
	const struct xfrm_userpolicy_info *info;

	if (slot->answered && slot->err != OK)
		return;
	if (task->op == KMSG_SA_ADD) {
		tell(xfrm, xmsg_sa_delete(&task->dst, task->spi));
	} else if (task->op == KMSG_POLICY_ADD && !task->replace) {
		info = nlmsg_data(nlmsg_hdr(slot->msg));
		tell(xfrm, xmsg_policy_delete(task->direction, &info->sel));
	}
}

/* The larval SA that held the SPI lives for half a minute; a negotiation may
 * take longer. Out of order with what follows, which does not mind: removals
 * begin a datagram of their own. */
static void
retry_as_new(struct xfrm *xfrm, struct slot *slot)
{
	struct task *task = &xfrm->task[slot->task];
	char text[XFRM_TEXT];

	nlmsg_hdr(slot->msg)->nlmsg_type = XFRM_MSG_NEWSA;
	slot->err = xfrm_transact(xfrm, slot->msg, false, text);
	slot->msg = NULL;
	if (slot->err != OK)
		fail(task, slot->err, text);
}

static void
settle_slot(struct xfrm *xfrm, struct slot *slot)
{
	struct task *task = &xfrm->task[slot->task];

	if (slot->answered) {
		if (task->retry && slot->err == ERR_NOT_FOUND)
			retry_as_new(xfrm, slot);
	} else if (is_removal(task->op)) {
		tell(xfrm, slot->msg);
		slot->msg = NULL;
	} else {
		fail(task, ERR_IO, "the kernel's answer was lost");
	}
}

static void
answer(struct xfrm *xfrm, const struct task *task)
{
	struct kmsg_answer reply;

	memset(&reply, 0, sizeof(reply));
	reply.sequence = task->sequence;
	reply.op = task->op;
	reply.err = (uint8_t)task->err;
	reply.spi = task->spi;
	reply.use = task->use;
	memcpy(reply.text, task->text, sizeof(reply.text));
	reply.text[sizeof(reply.text) - 1] = '\0';
	xfrm->backend.answer(xfrm->backend.arg, &reply);
}

/* Whoever gets an answer may ask for more at once: that goes into the next
 * datagram, so the finished tasks are moved away first. */
static void
flush(void *arg)
{
	struct xfrm *xfrm = arg;
	struct task done[XFRM_SLOTS];
	unsigned i, tasks = xfrm->tasks;

	if (tasks == 0)
		return;
	exchange(xfrm, 0);
	for (i = 0; i < xfrm->slots; i++)
		settle_slot(xfrm, &xfrm->slot[i]);
	for (i = 0; i < xfrm->slots; i++) {
		if (xfrm->task[xfrm->slot[i].task].err != OK)
			undo_slot(xfrm, &xfrm->task[xfrm->slot[i].task],
			    &xfrm->slot[i]);
		xmsg_free(xfrm->slot[i].msg);
	}
	memcpy(done, xfrm->task, tasks * sizeof(*done));
	xfrm->slots = xfrm->tasks = 0;
	xfrm->adds = false;
	xfrm->answering = true;
	for (i = 0; i < tasks; i++)
		answer(xfrm, &done[i]);
	xfrm->answering = false;
}

/* Not from inside an answer: those behind it come first. */
static void
xfrm_settle(struct kserve_backend *backend)
{
	struct xfrm *xfrm = (struct xfrm *)(void *)backend;

	if (!xfrm->answering)
		flush(xfrm);
}

/* Requests -------------------------------------------------------------- */

static struct task *
task_new(struct xfrm *xfrm, const struct kmsg *request, unsigned slots)
{
	struct task *task;

	if (xfrm->tasks == XFRM_SLOTS || xfrm->slots + slots > XFRM_SLOTS)
		flush(xfrm);
	task = &xfrm->task[xfrm->tasks++];
	memset(task, 0, sizeof(*task));
	task->sequence = request->sequence;
	task->op = request->op;
	task->use.idle_ms = UINT64_MAX;
	return task;
}

static void
execute_policy(struct xfrm *xfrm, const struct kmsg *request)
{
	const struct kmsg_policy *policy = &request->policy;
	struct xfrm_selector list[SELECTOR_MAX];
	bool add = request->op == KMSG_POLICY_ADD;
	struct task *task;
	size_t i, count;
	enum err err;

	task = task_new(xfrm, request, SELECTOR_MAX);
	task->direction = policy->direction;
	task->replace = policy->replace;
	err = selector_expand(&policy->src, &policy->dst, list, &count);
	if (err != OK) {
		fail(task, err,
		    err == ERR_LONG
		        ? "these selectors need too many kernel policies"
		        : "the kernel has no policies for such selectors");
		return;
	}
	for (i = 0; i < count; i++)
		slot_add(xfrm,
		    add ? xmsg_policy(policy, &list[i])
		        : xmsg_policy_delete(policy->direction, &list[i]));
}

static void
execute_add(struct xfrm *xfrm, const struct kmsg *request)
{
	const struct kmsg_sa *sa = &request->sa;
	struct task *task = task_new(xfrm, request, 1);
	struct nl_msg *msg;
	enum err err;

	task->spi = sa->spi;
	task->dst = sa->dst.addr;
	task->retry = sa->direction == KMSG_IN;
	msg = xmsg_sa(sa, sa->direction == KMSG_IN, &err);
	if (err != OK) {
		fail(task, err, err_text(err));
		return;
	}
	slot_add(xfrm, msg);
	xfrm->adds = true;
}

static void
execute_simple(struct xfrm *xfrm, const struct kmsg *request)
{
	const struct kmsg_sa *sa = &request->sa;
	struct task *task;

	if (is_removal(request->op) && xfrm->adds)
		flush(xfrm);
	task = task_new(xfrm, request, 1);
	task->spi = sa->spi;
	task->dst = sa->dst.addr;
	switch (request->op) {
	case KMSG_SPI:
		slot_add(xfrm, xmsg_spi(sa));
		break;
	case KMSG_SA_QUERY:
		slot_add(xfrm, xmsg_sa_get(&sa->dst.addr, sa->spi));
		break;
	default:
		slot_add(xfrm, xmsg_sa_delete(&sa->dst.addr, sa->spi));
		break;
	}
}

/* Moving ---------------------------------------------------------------- */

/* The state in xfrm->receive goes and comes back with other addresses; when
 * the kernel will not have that, as it was. */
static enum err
move_state(struct xfrm *xfrm, const struct kmsg_sa *sa, char *text)
{
	struct nlmsghdr *state = (struct nlmsghdr *)(void *)xfrm->receive;
	struct kmsg_event lost = { .kind = KEVENT_EXPIRE, .hard = true };
	struct kmsg_sa old;
	struct nl_msg *new, *back = NULL;
	char ignored[XFRM_TEXT];
	enum err err;

	memset(&old, 0, sizeof(old));
	old.direction = sa->direction;
	old.src = sa->old_src;
	old.dst = sa->old_dst;
	new = xmsg_sa_moved(state, sa, false, wall_s(), &err);
	if (new)
		back = xmsg_sa_moved(state, &old, false, wall_s(), &err);
	if (back == NULL) {
		snprintf(text, XFRM_TEXT, "%s",
		    err == ERR_REFUSED ? "the kernel hides keys"
		                       : err_text(err));
		xmsg_free(new);
		return err;
	}
	err = xfrm_transact(
	    xfrm, xmsg_sa_delete(&sa->old_dst.addr, sa->spi), false, text);
	if (err != OK) {
		xmsg_free(new);
		xmsg_free(back);
		return err;
	}
	err = xfrm_transact(xfrm, new, false, text);
	if (err == OK) {
		xmsg_free(back);
		return OK;
	}
	if (xfrm_transact(xfrm, back, false, ignored) != OK) {
		lost.spi = sa->spi;
		lost.remote = sa->old_dst;
		xfrm->backend.event(xfrm->backend.arg, &lost);
	}
	return err;
}

/* Reads the state and writes it anew, all within this call: what came before
 * is sent first, so that the order is kept. */
static void
execute_move(struct xfrm *xfrm, const struct kmsg *request)
{
	const struct kmsg_sa *sa = &request->sa;
	struct nlmsghdr *state = (struct nlmsghdr *)(void *)xfrm->receive;
	struct task task;
	struct nl_msg *msg;

	flush(xfrm);
	memset(&task, 0, sizeof(task));
	task.sequence = request->sequence;
	task.op = request->op;
	task.spi = sa->spi;
	task.err = xfrm_transact(
	    xfrm, xmsg_sa_get(&sa->old_dst.addr, sa->spi), true, task.text);
	if (task.err == OK && xmsg_same_addresses(state, sa)) {
		msg = xmsg_sa_moved(state, sa, true, wall_s(), &task.err);
		if (msg)
			task.err = xfrm_transact(xfrm, msg, false, task.text);
		else
			snprintf(
			    task.text, XFRM_TEXT, "%s", err_text(task.err));
	} else if (task.err == OK) {
		task.err = move_state(xfrm, sa, task.text);
	}
	mem_wipe(xfrm->receive, XFRM_RECEIVE);
	answer(xfrm, &task);
}

static void
xfrm_execute(struct kserve_backend *backend, const struct kmsg *request)
{
	struct xfrm *xfrm = (struct xfrm *)(void *)backend;

	switch (request->op) {
	case KMSG_POLICY_ADD:
	case KMSG_POLICY_REMOVE:
		execute_policy(xfrm, request);
		break;
	case KMSG_SA_ADD:
		execute_add(xfrm, request);
		break;
	case KMSG_SA_MOVE:
		execute_move(xfrm, request);
		break;
	default:
		execute_simple(xfrm, request);
		break;
	}
}

/* Beginning and end ----------------------------------------------------- */

static void
xfrm_free(struct kserve_backend *backend)
{
	struct xfrm *xfrm = (struct xfrm *)(void *)backend;
	unsigned i;

	if (xfrm->ask) {
		exchange(xfrm, 0); /* removals may wait */
		for (i = 0; i < xfrm->slots; i++)
			xmsg_free(xfrm->slot[i].msg);
	}
	loop_unflush(xfrm->loop, flush, xfrm);
	xfrm_unlisten(xfrm);
	nl_socket_free(xfrm->ask);
	free(xfrm->receive);
	free(xfrm);
}

struct kserve_backend *
xfrm_new(struct loop *loop, struct log *log, char *why, size_t size)
{
	static const struct kserve_backend_ops ops = { xfrm_execute, xfrm_free,
		xfrm_settle };
	struct xfrm *xfrm = calloc(1, sizeof(*xfrm));

	snprintf(why, size, "no memory");
	if (xfrm == NULL)
		return NULL;
	xfrm->backend.ops = &ops;
	xfrm->backend.name = "xfrm";
	xfrm->loop = loop;
	xfrm->log = log;
	xfrm->receive = malloc(XFRM_RECEIVE);
	if (xfrm->receive && xfrm_clear_orphans(log, why, size))
		xfrm->ask = xfrm_socket(why, size);
	if (xfrm->ask && nl_socket_set_nonblocking(xfrm->ask) >= 0 &&
	    xfrm_listen(xfrm, why, size) && loop_flush(xfrm->loop, flush, xfrm))
		return &xfrm->backend;
	xfrm_free(&xfrm->backend);
	return NULL;
}
