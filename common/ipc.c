/*
 * Frames are packed into the last datagram of a queue and sent from its head.
 * All buffers that have carried octets are zero again before they are used
 * anew, so that fresh room needs no clearing.
 */
#include "common/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/loop.h"
#include "common/mem.h"

#define IPC_BUFFER (2 << 20) /* of the sockets, each way */

/* What stands before each body, in host order. */
struct ipc_header {
	uint16_t type;
	uint16_t flags; /* IPC_FD or 0 */
	uint32_t len;   /* of the body without its padding to 8 octets */
	uint64_t serial;
};
_Static_assert(sizeof(struct ipc_header) == IPC_HEADER, "frame header");

struct ipc_out {
	struct ipc_out *next;
	size_t len, cap;
	int fds[IPC_FDS];
	size_t fd_count;
	_Alignas(8) uint8_t octets[];
};

struct ipc {
	struct loop *loop;
	struct loop_watch *watch;
	int fd;
	const struct ipc_permit *rows;
	void (*closed)(void *arg, enum err err, const char *why);
	void *arg;
	unsigned state;
	unsigned busy;       /* handlers on the stack */
	bool freed;          /* ipc_free() came from a handler */
	bool blocked;        /* the socket is full: waiting for room */
	bool mute;           /* sending has failed; the end is near */
	bool over;           /* closed() was called */
	const char *why;     /* of the failure while sending */
	struct timer broken; /* the link, for that reason */
	uint64_t seen;       /* rows with IPC_ONCE that have come */
	struct ipc_out *head, *tail, *spare;
	size_t queued;
	uint8_t row_of[IPC_TYPES]; /* index + 1; 0: none */
	_Alignas(8) uint8_t in[IPC_DATAGRAM];
};

union ipc_control {
	struct cmsghdr header;
	uint8_t octets[CMSG_SPACE(IPC_FDS * sizeof(int))];
};

static size_t
ipc_padded(size_t len)
{
	return (len + 7) & ~(size_t)7;
}

static void
ipc_close_fds(int *fds, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

enum err
ipc_pair(int pair[2])
{
	const int size = IPC_BUFFER;
	int i;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
	        0, pair) != 0)
		return ERR_IO;
	for (i = 0; i < 2; i++) {
		/* As large as the system allows; its default will do. */
		if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &size,
		        sizeof(size)) != 0)
			(void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size,
			    sizeof(size));
	}
	return OK;
}

/* Sending ----------------------------------------------------------------- */

/* Takes the head off the queue; full-sized buffers are kept for the next. */
static void
ipc_drop_head(struct ipc *ipc)
{
	struct ipc_out *out = ipc->head;

	ipc->head = out->next;
	if (!ipc->head)
		ipc->tail = NULL;
	ipc->queued -= out->len;
	mem_wipe(out->octets, out->len);
	ipc_close_fds(out->fds, out->fd_count);
	if (ipc->spare || out->cap != IPC_DATAGRAM) {
		free(out);
		return;
	}
	out->len = 0;
	out->fd_count = 0;
	out->next = NULL;
	ipc->spare = out;
}

static ssize_t
ipc_send_one(struct ipc *ipc, const struct ipc_out *out)
{
	union ipc_control control;
	struct iovec vec = { (void *)(uintptr_t)out->octets, out->len };
	struct msghdr msg = { .msg_iov = &vec, .msg_iovlen = 1 };
	ssize_t sent;

	if (out->fd_count) {
		size_t len = out->fd_count * sizeof(int);

		memset(&control, 0, sizeof(control));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(len);
		memcpy(CMSG_DATA(&control.header), out->fds, len);
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(len);
	}
	do
		sent = sendmsg(ipc->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent;
}

void
ipc_flush(struct ipc *ipc)
{
	while (ipc->head && !ipc->mute) {
		if (ipc_send_one(ipc, ipc->head) >= 0) {
			ipc_drop_head(ipc);
			continue;
		}
		if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ||
		    errno == ETOOMANYREFS) {
			if (!ipc->blocked && ipc->watch)
				loop_watch_write(ipc->watch, true);
			ipc->blocked = true;
			return;
		}
		/* If the peer has gone, what it sent before is still read;
		 * after it comes the end. Else the system is broken. */
		ipc->mute = true;
		if (errno == EPIPE || errno == ECONNRESET)
			break;
		ipc->why = "the system refused to send";
		timer_set(loop_timers(ipc->loop), &ipc->broken, 0);
	}
	while (ipc->mute && ipc->head)
		ipc_drop_head(ipc);
	if (ipc->blocked && ipc->watch)
		loop_watch_write(ipc->watch, false);
	ipc->blocked = false;
}

static void
ipc_flush_turn(void *arg)
{
	struct ipc *ipc = arg;

	if (ipc->head && !ipc->blocked)
		ipc_flush(ipc);
}

static void
ipc_writable(void *arg)
{
	ipc_flush(arg);
}

/* A new datagram at the tail. */
static struct ipc_out *
ipc_grow(struct ipc *ipc, size_t cap)
{
	struct ipc_out *out;

	if (ipc->spare && cap == IPC_DATAGRAM) {
		out = ipc->spare;
		ipc->spare = NULL;
	} else {
		out = calloc(1, sizeof(*out) + cap);
		if (!out)
			return NULL;
		out->cap = cap;
	}
	if (ipc->tail)
		ipc->tail->next = out;
	else
		ipc->head = out;
	ipc->tail = out;
	return out;
}

static const struct ipc_permit *
ipc_row(const struct ipc *ipc, uint16_t type)
{
	if (type >= IPC_TYPES || !ipc->row_of[type])
		return NULL;
	return &ipc->rows[ipc->row_of[type] - 1];
}

/* Room for a frame, with or without descriptors. */
static enum err
ipc_frame_new(struct ipc *ipc, uint16_t type, uint64_t serial, size_t len,
    bool with_fds, struct ipc_out **found, uint8_t **room)
{
	const struct ipc_permit *row = ipc_row(ipc, type);
	size_t need = IPC_HEADER + ipc_padded(len);
	struct ipc_out *out = ipc->tail;
	struct ipc_header header;

	if (!row || !(row->flags & IPC_OUT) || len < row->min ||
	    len > row->max || with_fds != !!(row->flags & IPC_FD))
		return ERR_BUG;
	if (ipc->mute || ipc->over || ipc->freed)
		return ERR_WRONG_STATE;
	if (ipc->queued + need > IPC_QUEUE)
		return ERR_LIMIT;
	if (!out || with_fds || out->fd_count || out->len + need > out->cap) {
		/* The last one is full: let it go now. */
		if (out && !ipc->blocked)
			ipc_flush(ipc);
		if (ipc->mute)
			return ERR_WRONG_STATE;
		out = ipc_grow(ipc, with_fds ? need : IPC_DATAGRAM);
		if (!out)
			return ERR_NOMEM;
	}
	header.type = type;
	header.flags = with_fds ? IPC_FD : 0;
	header.len = (uint32_t)len;
	header.serial = serial;
	memcpy(out->octets + out->len, &header, sizeof(header));
	*room = out->octets + out->len + IPC_HEADER;
	*found = out;
	out->len += need;
	ipc->queued += need;
	return OK;
}

enum err
ipc_room(
    struct ipc *ipc, uint16_t type, uint64_t serial, size_t len, uint8_t **room)
{
	struct ipc_out *out;

	return ipc_frame_new(ipc, type, serial, len, false, &out, room);
}

enum err
ipc_send(struct ipc *ipc, uint16_t type, uint64_t serial, const void *body,
    size_t len)
{
	struct ipc_out *out;
	uint8_t *room;
	enum err err;

	err = ipc_frame_new(ipc, type, serial, len, false, &out, &room);
	if (err)
		return err;
	if (len)
		memcpy(room, body, len);
	return OK;
}

enum err
ipc_send_fds(struct ipc *ipc, uint16_t type, uint64_t serial, const void *body,
    size_t len, const int *fds, size_t fd_count)
{
	int copies[IPC_FDS];
	struct ipc_out *out;
	uint8_t *room;
	enum err err;
	size_t i;

	if (fd_count < 1 || fd_count > IPC_FDS)
		return ERR_BUG;
	for (i = 0; i < fd_count; i++) {
		copies[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
		if (copies[i] < 0) {
			ipc_close_fds(copies, i);
			return ERR_IO;
		}
	}
	err = ipc_frame_new(ipc, type, serial, len, true, &out, &room);
	if (err) {
		ipc_close_fds(copies, fd_count);
		return err;
	}
	if (len)
		memcpy(room, body, len);
	memcpy(out->fds, copies, fd_count * sizeof(int));
	out->fd_count = fd_count;
	return OK;
}

/* Receiving --------------------------------------------------------------- */

static void
ipc_close(struct ipc *ipc, enum err err, const char *why)
{
	if (ipc->over || ipc->freed)
		return;
	ipc->over = true;
	loop_unwatch(ipc->watch);
	ipc->watch = NULL;
	while (ipc->head)
		ipc_drop_head(ipc);
	close(ipc->fd);
	ipc->fd = -1;
	ipc->closed(ipc->arg, err, why);
}

/* What is wrong with a frame, or NULL. */
static const char *
ipc_check(
    const struct ipc *ipc, const struct ipc_header *header, size_t fd_count)
{
	const struct ipc_permit *row = ipc_row(ipc, header->type);

	if (!row || !(row->flags & IPC_IN))
		return "a message of a type that is not accepted";
	if (header->len < row->min)
		return "a message that is too short";
	if (header->len > row->max)
		return "a message that is too long";
	if (row->states && !(row->states & (UINT32_C(1) << ipc->state)))
		return "a message that is not accepted in this state";
	if ((row->flags & IPC_ONCE) &&
	    (ipc->seen & (UINT64_C(1) << (row - ipc->rows))))
		return "a message that is accepted only once";
	if (header->flags != (row->flags & IPC_FD))
		return "a message with the wrong flags";
	if (!!(row->flags & IPC_FD) != !!fd_count)
		return "a message with or without descriptors that should not";
	return NULL;
}

/* All frames of a datagram, one after the other. NULL, or why not. */
static const char *
ipc_dispatch(struct ipc *ipc, size_t len, int *fds, size_t fd_count)
{
	size_t at = 0;

	while (at < len) {
		const struct ipc_permit *row;
		struct ipc_header header;
		struct ipc_frame frame;
		const char *why;
		enum err err;

		if (len - at < IPC_HEADER)
			return "a datagram that ends in a header";
		memcpy(&header, ipc->in + at, sizeof(header));
		at += IPC_HEADER;
		if (header.len > IPC_BODY || ipc_padded(header.len) > len - at)
			return "a datagram that ends in a message";
		if (fd_count && IPC_HEADER + ipc_padded(header.len) != len)
			return "descriptors with more than one message";
		why = ipc_check(ipc, &header, fd_count);
		if (why)
			return why;
		row = ipc_row(ipc, header.type);
		ipc->seen |= UINT64_C(1) << (row - ipc->rows);
		frame.type = header.type;
		frame.serial = header.serial;
		frame.body = view_of(ipc->in + at, header.len);
		frame.fds = fds;
		frame.fd_count = fd_count;
		at += ipc_padded(header.len);
		err = row->handle(ipc->arg, &frame);
		if (ipc->freed || ipc->over)
			return NULL;
		if (err)
			return "a message whose content makes no sense";
	}
	return NULL;
}

/* Descriptors that came along; all are ours now, wanted or not. */
static size_t
ipc_collect(struct msghdr *msg, int fds[static IPC_FDS])
{
	struct cmsghdr *c;
	size_t count = 0, here, i;
	int fd;

	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		here = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < here; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (count < IPC_FDS)
				fds[count++] = fd;
			else
				close(fd);
		}
	}
	return count;
}

int
ipc_keep_fd(const struct ipc_frame *frame, size_t at)
{
	int fd = frame->fds[at];

	frame->fds[at] = -1;
	return fd;
}

static void
ipc_destroy(struct ipc *ipc)
{
	while (ipc->head)
		ipc_drop_head(ipc);
	loop_unwatch(ipc->watch);
	loop_unflush(ipc->loop, ipc_flush_turn, ipc);
	timer_stop(loop_timers(ipc->loop), &ipc->broken);
	free(ipc->spare);
	if (ipc->fd >= 0)
		close(ipc->fd);
	free(ipc);
}

static void
ipc_broken(void *arg)
{
	struct ipc *ipc = arg;

	ipc->busy++;
	ipc_close(ipc, ERR_IO, ipc->why);
	ipc->busy--;
	if (ipc->freed)
		ipc_destroy(ipc);
}

/* One datagram a call: the loop calls again while there are more. */
static void
ipc_readable(void *arg)
{
	struct ipc *ipc = arg;
	union ipc_control control;
	struct iovec vec = { ipc->in, sizeof(ipc->in) };
	struct msghdr msg = { .msg_iov = &vec,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control) };
	int fds[IPC_FDS];
	size_t fd_count;
	const char *why;
	ssize_t len;

	if (ipc->over)
		return;
	len = recvmsg(ipc->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	ipc->busy++;
	fd_count = len < 0 ? 0 : ipc_collect(&msg, fds);
	if (len <= 0 && fd_count == 0) {
		ipc_close(ipc, ERR_IO, ipc->why ? ipc->why : "it has gone");
		goto out;
	}
	if (len == 0)
		why = "descriptors without a message";
	else if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		why = "a datagram that is too large";
	else
		why = ipc_dispatch(ipc, (size_t)len, fds, fd_count);
	mem_wipe(ipc->in, (size_t)len);
	ipc_close_fds(fds, fd_count);
	if (why)
		ipc_close(ipc, ERR_REFUSED, why);
out:
	ipc->busy--;
	if (ipc->freed)
		ipc_destroy(ipc);
}

/* Both ends --------------------------------------------------------------- */

static bool
ipc_rows_valid(const struct ipc_permit *rows, size_t count)
{
	size_t i;

	if (count > IPC_ROWS)
		return false;
	for (i = 0; i < count; i++) {
		if (rows[i].type == 0 || rows[i].type >= IPC_TYPES ||
		    rows[i].min > rows[i].max || rows[i].max > IPC_BODY)
			return false;
		if ((rows[i].flags & IPC_IN) && !rows[i].handle)
			return false;
	}
	return true;
}

struct ipc *
ipc_new(struct loop *loop, int fd, const struct ipc_permit *rows,
    size_t row_count, void (*closed)(void *arg, enum err err, const char *why),
    void *arg)
{
	struct ipc *ipc = calloc(1, sizeof(*ipc));
	size_t i;

	if (!ipc || !ipc_rows_valid(rows, row_count)) {
		free(ipc);
		close(fd);
		return NULL;
	}
	ipc->loop = loop;
	ipc->fd = fd;
	ipc->rows = rows;
	ipc->closed = closed;
	ipc->arg = arg;
	timer_init(&ipc->broken, ipc_broken, ipc);
	for (i = 0; i < row_count; i++)
		ipc->row_of[rows[i].type] = (uint8_t)(i + 1);
	ipc->watch = loop_watch(loop, fd, ipc_readable, ipc_writable, ipc);
	if (!ipc->watch || !loop_flush(loop, ipc_flush_turn, ipc)) {
		ipc_destroy(ipc);
		return NULL;
	}
	return ipc;
}

void
ipc_free(struct ipc *ipc)
{
	if (!ipc || ipc->freed)
		return;
	if (!ipc->over && !ipc->blocked)
		ipc_flush(ipc);
	ipc->freed = true;
	if (!ipc->busy)
		ipc_destroy(ipc);
}

void
ipc_state(struct ipc *ipc, unsigned state)
{
	ipc->state = state & 31;
}

size_t
ipc_queued(const struct ipc *ipc)
{
	return ipc->queued;
}

size_t
ipc_unread(const struct ipc *ipc)
{
	int held = 0;

	if (ioctl(ipc->fd, SIOCOUTQ, &held) != 0 || held < 0)
		held = 0;
	return ipc->queued + (size_t)held;
}
