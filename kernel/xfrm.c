#include "kernel/xfrm.h"

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

#define SLOTS      64        /* netlink messages in one datagram */
#define RECEIVE    32768     /* octets of one answer or report, at most */
#define BUFFER     (1 << 20) /* of the sockets: room for every answer */
#define TEXT       120
#define DUMP_TRIES 4
#define HEAR_TURN  256   /* reports read in one turn of the loop */
#define LOST_MS    60000 /* between two lines that some were lost */

/* One netlink message of the datagram that is being filled. */
struct slot {
	struct nl_msg *msg;
	uint32_t sequence;
	uint8_t task;
	bool answered;
	enum err err;
};

/* One request of kserve's, made of one slot or more. */
struct task {
	uint64_t sequence;
	uint8_t op, direction;
	bool replace; /* a policy of ours was there */
	bool retry;   /* UPDSA, to be said as NEWSA if the larval is gone */
	uint32_t spi; /* of an SA, or drawn */
	struct addr dst;
	enum err err;
	struct kmsg_use use;
	char text[TEXT];
};

/* Where the kernel reports what nobody asked for. */
struct ear {
	struct xfrm *xfrm;
	struct nl_sock *sock;
	struct loop_watch *watch;
	uint64_t quiet_ms; /* no line about losses before */
};

/* A peer's packets can make mapping changes, one each: they must not take the
 * room of expiries, which the kernel does not report again. */
enum { EAR_EXPIRIES, EAR_OTHERS, EARS };

struct xfrm {
	struct kserve_backend backend;
	struct loop *loop;
	struct log *log;
	struct nl_sock *ask;
	struct ear ear[EARS];
	struct slot slot[SLOTS];
	struct task task[SLOTS];
	unsigned slots, tasks;
	bool adds; /* an SA is among them */
	bool answering;
	uint32_t sequence;
	uint8_t *receive; /* RECEIVE octets */
};

static uint64_t
wall_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec;
}

/* Sockets --------------------------------------------------------------- */

static struct nl_sock *
socket_open(char *why, size_t size)
{
	struct nl_sock *sock = nl_socket_alloc();
	int error, on = 1, octets = BUFFER;

	if (sock == NULL) {
		snprintf(why, size, "no memory");
		return NULL;
	}
	nl_socket_disable_auto_ack(sock);
	error = nl_connect(sock, NETLINK_XFRM);
	if (error < 0) {
		snprintf(why, size, "no netlink socket for XFRM: %s",
		    nl_geterror(error));
		nl_socket_free(sock);
		return NULL;
	}
	/* Without these answers have fewer words, and less room. */
	(void)setsockopt(nl_socket_get_fd(sock), SOL_NETLINK, NETLINK_EXT_ACK,
	    &on, sizeof(on));
	(void)setsockopt(nl_socket_get_fd(sock), SOL_NETLINK, NETLINK_CAP_ACK,
	    &on, sizeof(on));
	(void)setsockopt(nl_socket_get_fd(sock), SOL_SOCKET, SO_RCVBUFFORCE,
	    &octets, sizeof(octets));
	return sock;
}

/* One datagram from the kernel. Its length in octets; 0: none is there; -1:
 * something was lost. */
static int
socket_read(struct nl_sock *sock, uint8_t *octets)
{
	struct sockaddr_nl from;
	socklen_t from_len;
	ssize_t len;

	for (;;) {
		from_len = sizeof(from);
		len = recvfrom(nl_socket_get_fd(sock), octets, RECEIVE,
		    MSG_DONTWAIT, (struct sockaddr *)&from, &from_len);
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			return errno == ENOBUFS ? -1 : 0;
		/* Other processes may send to us; only the kernel counts. */
		if (len > 0 && from_len == sizeof(from) && from.nl_pid == 0)
			return (int)len;
	}
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
	char text[TEXT];
	int number;

	if (slot == NULL || slot->answered)
		return;
	task = &xfrm->task[slot->task];
	slot->answered = true;
	if (header->nlmsg_type == NLMSG_ERROR) {
		slot->err = xmsg_read_error(header, &number, text, TEXT);
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
	struct iovec iov[SLOTS];
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
	while ((len = socket_read(xfrm->ask, xfrm->receive)) != 0) {
		octets = len > 0 ? (size_t)len : 0;
		for (header = (struct nlmsghdr *)(void *)xfrm->receive;
		     len > 0 && nlmsg_ok(header, len);
		     header = nlmsg_next(header, &len))
			take_answer(xfrm, header);
		/* An SA that was asked about comes with its keys. */
		mem_wipe(xfrm->receive, octets);
	}
}

/* Sends one message by itself and, for a state that was asked for, leaves the
 * answer in xfrm->receive. */
static enum err
transact(struct xfrm *xfrm, struct nl_msg *msg, bool wants_state, char *text)
{
	struct sockaddr_nl to = { .nl_family = AF_NETLINK };
	struct nlmsghdr *header = msg ? nlmsg_hdr(msg) : NULL;
	struct nlmsghdr *reply = (struct nlmsghdr *)(void *)xfrm->receive;
	enum err err = ERR_IO;
	int len, number;

	snprintf(text, TEXT, "%s", msg ? "no answer" : "no memory");
	if (msg == NULL)
		return ERR_NOMEM;
	header->nlmsg_seq = ++xfrm->sequence;
	header->nlmsg_pid = nl_socket_get_local_port(xfrm->ask);
	if (sendto(nl_socket_get_fd(xfrm->ask), header,
	        NLMSG_ALIGN(header->nlmsg_len), 0, (struct sockaddr *)&to,
	        sizeof(to)) < 0)
		snprintf(text, TEXT, "%s", strerror(errno));
	while ((len = socket_read(xfrm->ask, xfrm->receive)) != 0) {
		if (len < 0 || !nlmsg_ok(reply, len) ||
		    reply->nlmsg_seq != xfrm->sequence)
			continue;
		if (reply->nlmsg_type == NLMSG_ERROR)
			err = xmsg_read_error(reply, &number, text, TEXT);
		else if (wants_state)
			err = OK;
		break;
	}
	xmsg_free(msg);
	return err;
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
	char text[TEXT];

	nlmsg_hdr(slot->msg)->nlmsg_type = XFRM_MSG_NEWSA;
	slot->err = transact(xfrm, slot->msg, false, text);
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
	struct task done[SLOTS];
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

	if (xfrm->tasks == SLOTS || xfrm->slots + slots > SLOTS)
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
	char ignored[TEXT];
	enum err err;

	memset(&old, 0, sizeof(old));
	old.direction = sa->direction;
	old.src = sa->old_src;
	old.dst = sa->old_dst;
	new = xmsg_sa_moved(state, sa, false, wall_s(), &err);
	if (new)
		back = xmsg_sa_moved(state, &old, false, wall_s(), &err);
	if (back == NULL) {
		snprintf(text, TEXT, "%s",
		    err == ERR_REFUSED ? "the kernel hides keys"
		                       : err_text(err));
		xmsg_free(new);
		return err;
	}
	err = transact(
	    xfrm, xmsg_sa_delete(&sa->old_dst.addr, sa->spi), false, text);
	if (err != OK) {
		xmsg_free(new);
		xmsg_free(back);
		return err;
	}
	err = transact(xfrm, new, false, text);
	if (err == OK) {
		xmsg_free(back);
		return OK;
	}
	if (transact(xfrm, back, false, ignored) != OK) {
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
	task.err = transact(
	    xfrm, xmsg_sa_get(&sa->old_dst.addr, sa->spi), true, task.text);
	if (task.err == OK && xmsg_same_addresses(state, sa)) {
		msg = xmsg_sa_moved(state, sa, true, wall_s(), &task.err);
		if (msg)
			task.err = transact(xfrm, msg, false, task.text);
		else
			snprintf(task.text, TEXT, "%s", err_text(task.err));
	} else if (task.err == OK) {
		task.err = move_state(xfrm, sa, task.text);
	}
	mem_wipe(xfrm->receive, RECEIVE);
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

/* Reports --------------------------------------------------------------- */

static void
note_loss(struct ear *ear)
{
	struct xfrm *xfrm = ear->xfrm;
	uint64_t now_ms = loop_timers(xfrm->loop)->now_ms;

	if (now_ms < ear->quiet_ms)
		return;
	ear->quiet_ms = now_ms + LOST_MS;
	log_write(xfrm->log, LOG_LEVEL_WARNING,
	    "the kernel reports too much, some of it was lost: %s",
	    ear == &xfrm->ear[EAR_EXPIRIES]
	        ? "SAs that expire"
	        : "packets from new addresses, or without an SA");
}

/* What is lost here heals by itself: acquires and mapping changes are reported
 * again, and expiries by time are known to those who wait for them, too. */
static void
hear(void *arg)
{
	struct ear *ear = arg;
	struct xfrm *xfrm = ear->xfrm;
	struct kmsg_event event;
	struct nlmsghdr *header;
	unsigned i;
	int len;

	for (i = 0; i < HEAR_TURN; i++) {
		len = socket_read(ear->sock, xfrm->receive);
		if (len == 0)
			return;
		if (len < 0)
			note_loss(ear);
		for (header = (struct nlmsghdr *)(void *)xfrm->receive;
		     len > 0 && nlmsg_ok(header, len);
		     header = nlmsg_next(header, &len))
			if (xmsg_read_event(header, &event))
				xfrm->backend.event(xfrm->backend.arg, &event);
	}
}

/* Orphans --------------------------------------------------------------- */

struct orphans {
	struct nl_msg **removal;
	size_t count, size;
};

static int
collect(struct nl_msg *msg, void *arg)
{
	struct orphans *orphans = arg;
	struct nl_msg *removal, **grown;
	size_t size;

	if (!xmsg_orphan(nlmsg_hdr(msg), &removal))
		return NL_OK;
	if (orphans->count == orphans->size) {
		size = orphans->size ? 2 * orphans->size : 64;
		grown =
		    realloc(orphans->removal, size * sizeof(struct nl_msg *));
		if (grown == NULL) {
			xmsg_free(removal);
			return NL_OK;
		}
		orphans->removal = grown;
		orphans->size = size;
	}
	orphans->removal[orphans->count++] = removal;
	return NL_OK;
}

/* Blocks, but only the kernel answers. *removed counts up. False: the kernel's
 * tables changed below the dump, which may lack something. */
static bool
remove_orphans(struct nl_sock *sock, bool policies, size_t *removed)
{
	struct orphans orphans = { NULL, 0, 0 };
	struct nl_msg *dump = xmsg_dump(policies);
	bool whole = false;
	size_t i;

	if (dump == NULL)
		return false;
	nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, collect, &orphans);
	if (nl_send_auto(sock, dump) >= 0)
		whole = nl_recvmsgs_default(sock) >= 0;
	xmsg_free(dump);
	for (i = 0; i < orphans.count; i++) {
		if (nl_send_auto(sock, orphans.removal[i]) >= 0 &&
		    nl_wait_for_ack(sock) >= 0)
			++*removed;
		xmsg_free(orphans.removal[i]);
	}
	free(orphans.removal);
	return whole;
}

static bool
clear_orphans(struct log *log, char *why, size_t size)
{
	struct nl_sock *sock = socket_open(why, size);
	size_t sas = 0, policies = 0;
	unsigned tries;
	bool whole = false;

	if (sock == NULL)
		return false;
	for (tries = 0; tries < DUMP_TRIES && !whole; tries++) {
		whole = remove_orphans(sock, true, &policies);
		whole = remove_orphans(sock, false, &sas) && whole;
	}
	if (!whole)
		log_write(log, LOG_LEVEL_WARNING,
		    "the kernel's tables could not be read to the end: SAs or "
		    "policies of a predecessor may be left");
	if (sas + policies > 0)
		log_write(log, LOG_LEVEL_INFO,
		    "removed what a predecessor left in the kernel: %zu SAs, "
		    "%zu policies",
		    sas, policies);
	nl_socket_free(sock);
	return true;
}

/* Can this kernel do it ------------------------------------------------- */

static void
probe_sa(struct kmsg_sa *sa)
{
	memset(sa, 0, sizeof(*sa));
	sa->direction = KMSG_IN;
	sa->encr = ALG_AES256_CBC;
	sa->integ = ALG_SHA256_128;
	sa->encr_key_len = sa->integ_key_len = 32;
	/* Any key does: the SA sees no packet. Not all zeroes, which the
	 * kernel might refuse. */
	memset(sa->key, 0x5a, 64);
	sa->src.addr.family = sa->dst.addr.family = ADDR_V4;
	sa->src.addr.octets[0] = sa->dst.addr.octets[0] = 127;
	sa->src.addr.octets[3] = sa->dst.addr.octets[3] = 1;
	sa->ts_src.count = sa->ts_dst.count = 1;
	sa->ts_src.item[0] = sa->ts_dst.item[0] = ts_from_addr(&sa->src.addr);
	sa->hard_ms = 10000;
}

static bool
probe(struct xfrm *xfrm, char *why, size_t size)
{
	char text[TEXT];
	struct kmsg_sa sa;
	enum err err;
	struct nl_msg *msg;

	probe_sa(&sa);
	err = transact(xfrm, xmsg_spi(&sa), true, text);
	if (err == OK)
		err = xmsg_read_spi(
		    (struct nlmsghdr *)(void *)xfrm->receive, &sa.spi);
	if (err == OK) {
		msg = xmsg_sa(&sa, true, &err);
		if (msg)
			err = transact(xfrm, msg, false, text);
		(void)transact(xfrm, xmsg_sa_delete(&sa.dst.addr, sa.spi),
		    false, (char[TEXT]){ "" });
	}
	if (err != OK)
		snprintf(why, size, "%s", text);
	return err == OK;
}

bool
xfrm_probe(char *why, size_t size)
{
	struct xfrm *xfrm = calloc(1, sizeof(*xfrm));
	bool can = false;

	snprintf(why, size, "no memory");
	if (xfrm == NULL)
		return false;
	xfrm->receive = malloc(RECEIVE);
	if (xfrm->receive)
		xfrm->ask = socket_open(why, size);
	if (xfrm->ask)
		can = probe(xfrm, why, size);
	nl_socket_free(xfrm->ask);
	free(xfrm->receive);
	free(xfrm);
	return can;
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
	for (i = 0; i < EARS; i++) {
		loop_unwatch(xfrm->ear[i].watch);
		nl_socket_free(xfrm->ear[i].sock);
	}
	nl_socket_free(xfrm->ask);
	free(xfrm->receive);
	free(xfrm);
}

static bool
listen_to(struct xfrm *xfrm, unsigned which, int group, int more, char *why,
    size_t size)
{
	struct ear *ear = &xfrm->ear[which];
	int error;

	ear->xfrm = xfrm;
	ear->sock = socket_open(why, size);
	if (ear->sock == NULL)
		return false;
	nl_socket_disable_seq_check(ear->sock);
	error = nl_socket_add_memberships(ear->sock, group, more, 0);
	if (error >= 0)
		error = nl_socket_set_nonblocking(ear->sock);
	if (error < 0) {
		snprintf(why, size, "cannot hear the kernel: %s",
		    nl_geterror(error));
		return false;
	}
	ear->watch = loop_watch(
	    xfrm->loop, nl_socket_get_fd(ear->sock), hear, NULL, ear);
	return ear->watch != NULL;
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
	xfrm->receive = malloc(RECEIVE);
	if (xfrm->receive && clear_orphans(log, why, size))
		xfrm->ask = socket_open(why, size);
	if (xfrm->ask && nl_socket_set_nonblocking(xfrm->ask) >= 0 &&
	    listen_to(xfrm, EAR_EXPIRIES, XFRMNLGRP_EXPIRE, 0, why, size) &&
	    listen_to(xfrm, EAR_OTHERS, XFRMNLGRP_ACQUIRE, XFRMNLGRP_MAPPING,
	        why, size) &&
	    loop_flush(xfrm->loop, flush, xfrm))
		return &xfrm->backend;
	xfrm_free(&xfrm->backend);
	return NULL;
}
