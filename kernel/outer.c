#include "kernel/outer.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/loop.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SO_ATTACH_REUSEPORT_CBPF
#define SO_ATTACH_REUSEPORT_CBPF 51
#endif

#define PROTO_ESP 50
#define MARKER    4
#define BUFFER    (8 << 20) /* of each socket, each way */

#define IN_BATCH  64
#define IN_CALL   16          /* messages in one call */
#define IN_OCTETS (256 << 10) /* of one batch, about */
#define IN_ROOM   65536
#define IN_STRIDE (IN_ROOM + 512) /* not all buffers in one cache set */
#define CONTROL   128

#define OUT_BATCH    64
#define OUT_ARENA    (256 << 10)
#define OUT_SEGMENTS 64    /* of one datagram that is cut by the system */
#define OUT_OCTETS   65000 /* of it, without headers */
#define OUT_WAIT_MS  20    /* for a socket whose buffer is full */

union control {
	struct cmsghdr header;
	uint8_t octets[CONTROL];
};

struct way {
	struct outer *outer;
	struct loop_watch *watch;
	int fd;
	enum outer_way way;
};

/* One message that waits: one packet, or several of one size in a row. */
struct run {
	const struct outer_path *path;
	size_t at, len; /* in the arena */
	size_t segment; /* octets of each packet; the last may be shorter */
	unsigned count;
	uint8_t tos;
	bool closed;
};

struct outer {
	struct outer_sockets sockets;
	struct outer_events events;
	struct outer_stats stats;
	struct way way[OUTER_WAYS];

	uint8_t *in_octets; /* IN_BATCH * IN_STRIDE */
	struct mmsghdr in[IN_BATCH];
	struct iovec in_vec[IN_BATCH];
	struct sockaddr_storage in_from[IN_BATCH];
	union control in_control[IN_BATCH];

	uint8_t *out_octets; /* OUT_ARENA */
	size_t out_used;
	struct run run[OUT_BATCH];
	unsigned runs;
	struct mmsghdr out[OUT_BATCH];
	struct iovec out_vec[OUT_BATCH];
	union control out_control[OUT_BATCH];
};

static bool
is_v6(enum outer_way way)
{
	return way == OUTER_RAW6 || way == OUTER_NATT6 || way == OUTER_PROBE6;
}

static bool
is_natt(enum outer_way way)
{
	return way == OUTER_NATT4 || way == OUTER_NATT6;
}

/* Opening, with privileges ---------------------------------------------- */

static bool
option(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

/* The payload's first four octets decide: zero is the marker (RFC 3948 2.2).
 * Fewer end the program with 0: keepalives are dropped there. */
static bool
divide_port(int fd)
{
	static struct sock_filter code[] = {
		{ BPF_LD | BPF_W | BPF_ABS, 0, 0, 0 },
		{ BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0 },
		{ BPF_RET | BPF_K, 0, 0, 0 }, /* the first socket: IKE's */
		{ BPF_RET | BPF_K, 0, 0, 1 }, /* the second */
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program,
	           sizeof(program)) == 0;
}

/* DF is set where the packet fits; larger ones are fragmented by the system,
 * which learns the path's MTU for us. */
static bool
common_options(int fd, bool v6, uint32_t mark)
{
	int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;

	/* As large as the system allows; less is no error. */
	if (!option(fd, SOL_SOCKET, SO_RCVBUFFORCE, BUFFER))
		(void)option(fd, SOL_SOCKET, SO_RCVBUF, BUFFER);
	if (!option(fd, SOL_SOCKET, SO_SNDBUFFORCE, BUFFER))
		(void)option(fd, SOL_SOCKET, SO_SNDBUF, BUFFER);
	return setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0 &&
	       option(fd, level, v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER,
	           v6 ? IPV6_PMTUDISC_WANT : IP_PMTUDISC_WANT) &&
	       option(fd, level, v6 ? IPV6_RECVTCLASS : IP_RECVTOS, 1) &&
	       option(fd, level, v6 ? IPV6_RECVPKTINFO : IP_PKTINFO, 1);
}

static int
open_socket(enum outer_way way, uint32_t mark, const char **what)
{
	bool v6 = is_v6(way);
	bool raw = way == OUTER_RAW4 || way == OUTER_RAW6;
	int fd = socket(v6 ? AF_INET6 : AF_INET,
	    (raw ? SOCK_RAW : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK,
	    raw ? PROTO_ESP : 0);

	*what = raw ? "raw socket for ESP" : "UDP socket for ESP";
	/* Linux learns a path's MTU from ICMPv6 about raw packets only where
	 * the socket asks for errors. */
	if (fd >= 0 && (!common_options(fd, v6, mark) ||
	                   (way == OUTER_RAW6 &&
	                       !option(fd, IPPROTO_IPV6, IPV6_RECVERR, 1)))) {
		int saved = errno;

		*what = "options of the sockets for ESP";
		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

static bool
join_port(int fd, bool v6, uint16_t port, const char **what)
{
	struct endpoint at = { addr_any(v6 ? ADDR_V6 : ADDR_V4), port };
	struct sockaddr_storage address;
	unsigned len = endpoint_to_sockaddr(&at, &address);

	*what = "options of the NAT-T port";
	if ((v6 && !option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)) ||
	    !option(fd, SOL_SOCKET, SO_REUSEPORT, 1))
		return false;
	*what = "bind to the NAT-T port for ESP";
	if (bind(fd, (struct sockaddr *)&address, len) != 0)
		return false;
	*what = "the program that divides the NAT-T port";
	if (!divide_port(fd))
		return false;
	(void)option(fd, IPPROTO_UDP, UDP_GRO, 1); /* Linux 5.0: speed only */
	return true;
}

enum err
outer_open(struct outer_sockets *sockets, uint16_t natt_port, uint32_t mark,
    bool v4, bool v6, const char **what)
{
	unsigned i;
	int saved;

	for (i = 0; i < OUTER_SOCKETS; i++)
		sockets->fd[i] = -1;
	sockets->natt_port = natt_port;
	for (i = 0; i < OUTER_SOCKETS; i++) {
		enum outer_way way = (enum outer_way)i;

		if (!(is_v6(way) ? v6 : v4))
			continue;
		sockets->fd[i] = open_socket(way, mark, what);
		if (sockets->fd[i] < 0 ||
		    (is_natt(way) && !join_port(sockets->fd[i], is_v6(way),
		                         natt_port, what))) {
			saved = errno;
			outer_close(sockets);
			errno = saved;
			return ERR_IO;
		}
	}
	return OK;
}

void
outer_close(struct outer_sockets *sockets)
{
	unsigned i;

	for (i = 0; i < OUTER_SOCKETS; i++) {
		if (sockets->fd[i] >= 0)
			close(sockets->fd[i]);
		sockets->fd[i] = -1;
	}
}

/* Receiving ------------------------------------------------------------- */

/* What the control messages say of a datagram. */
struct about {
	struct addr local;
	uint8_t tos;
	size_t segment; /* 0: one datagram */
};

static void
read_control(struct msghdr *msg, struct about *about)
{
	struct cmsghdr *c;
	int value;

	memset(about, 0, sizeof(*about));
	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		const uint8_t *data = CMSG_DATA(c);

		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
			about->tos = data[0];
		} else if (c->cmsg_level == IPPROTO_IPV6 &&
		           c->cmsg_type == IPV6_TCLASS) {
			memcpy(&value, data, sizeof(value));
			about->tos = (uint8_t)value;
		} else if (c->cmsg_level == IPPROTO_UDP &&
		           c->cmsg_type == UDP_GRO) {
			memcpy(&value, data, sizeof(value));
			about->segment = value > 0 ? (size_t)value : 0;
		} else if (c->cmsg_level == IPPROTO_IP &&
		           c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo info;

			memcpy(&info, data, sizeof(info));
			(void)addr_from_view(
			    &about->local, view_of(&info.ipi_addr, 4));
		} else if (c->cmsg_level == IPPROTO_IPV6 &&
		           c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo info;

			memcpy(&info, data, sizeof(info));
			(void)addr_from_view(
			    &about->local, view_of(&info.ipi6_addr, 16));
		}
	}
}

/* One datagram of the NAT-T port. */
static void
take_natt(struct outer *outer, struct outer_packet *packet)
{
	static const uint8_t marker[MARKER];

	/* RFC 3948 2.3, 4: keepalives, and what is no packet at all. */
	if (packet->len < 2 * MARKER)
		return;
	if (memcmp(packet->octets, marker, MARKER) != 0) {
		outer->events.receive(outer->events.arg, packet);
		return;
	}
	outer->stats.strays++;
	packet->octets += MARKER;
	packet->len -= MARKER;
	outer->events.stray(outer->events.arg, packet);
}

/* Raw IPv4 sockets give the header too. */
static bool
strip_v4(struct outer_packet *packet)
{
	size_t header;

	if (packet->len < 20)
		return false;
	header = (packet->octets[0] & 15u) * 4u;
	if (header < 20 || header > packet->len)
		return false;
	packet->tos = packet->octets[1];
	packet->octets += header;
	packet->len -= header;
	return true;
}

static void
take_message(struct way *way, struct mmsghdr *msg, uint8_t *octets)
{
	struct outer *outer = way->outer;
	struct outer_packet packet;
	struct about about;
	size_t left = msg->msg_len, segment;

	memset(&packet, 0, sizeof(packet));
	if (!endpoint_from_sockaddr(&packet.remote, msg->msg_hdr.msg_name,
	        msg->msg_hdr.msg_namelen))
		return;
	read_control(&msg->msg_hdr, &about);
	packet.local.addr = about.local;
	packet.tos = about.tos;
	packet.octets = octets;
	packet.len = left;
	outer->stats.received++;
	if (!is_natt(way->way)) {
		packet.remote.port = 0;
		if (way->way == OUTER_RAW6 || strip_v4(&packet))
			outer->events.receive(outer->events.arg, &packet);
		return;
	}
	packet.encap = true;
	packet.local.port = outer->sockets.natt_port;
	segment = about.segment == 0 ? left : about.segment;
	for (; left > 0; octets += segment, left -= segment) {
		if (segment > left)
			segment = left;
		packet.octets = octets;
		packet.len = segment;
		take_natt(outer, &packet);
	}
}

/* Receives into the slots from first on and hands on what came. Returns the
 * number of messages; adds their octets to *octets. */
static unsigned
receive_some(struct way *way, unsigned first, size_t *octets)
{
	struct outer *outer = way->outer;
	unsigned i;
	int count;

	for (i = first; i < IN_BATCH; i++) {
		struct msghdr *msg = &outer->in[i].msg_hdr;

		msg->msg_name = &outer->in_from[i];
		msg->msg_namelen = sizeof(outer->in_from[i]);
		msg->msg_iov = &outer->in_vec[i];
		msg->msg_iovlen = 1;
		msg->msg_control = &outer->in_control[i];
		msg->msg_controllen = sizeof(outer->in_control[i]);
		msg->msg_flags = 0;
	}
	count = recvmmsg(way->fd, outer->in + first,
	    IN_BATCH - first < IN_CALL ? IN_BATCH - first : IN_CALL,
	    MSG_DONTWAIT, NULL);
	if (count <= 0)
		return 0;
	for (i = first; i < first + (unsigned)count; i++) {
		*octets += outer->in[i].msg_len;
		if (outer->in[i].msg_hdr.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
			continue;
		take_message(way, &outer->in[i],
		    outer->in_octets + (size_t)i * IN_STRIDE);
	}
	return (unsigned)count;
}

/* What routers say about our packets has done its work; anybody can say it. As
 * long as it waits here, the socket is readable. */
static void
drop_errors(int fd)
{
	struct msghdr msg;
	unsigned i;

	for (i = 0; i < IN_BATCH; i++) {
		memset(&msg, 0, sizeof(msg));
		if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			break;
	}
}

/* While one batch is decrypted the next one arrives: they are settled
 * together, so that more can be joined. */
static void
readable(void *arg)
{
	struct way *way = arg;
	unsigned used = 0, count;
	size_t octets = 0;

	if (way->way == OUTER_RAW6)
		drop_errors(way->fd);
	do {
		count = receive_some(way, used, &octets);
		used += count;
	} while (count > 0 && used < IN_BATCH && octets < IN_OCTETS);
	way->outer->events.settled(way->outer->events.arg);
}

/* Sending --------------------------------------------------------------- */

void
outer_path(struct outer_path *path, const struct endpoint *src,
    const struct endpoint *dst, bool encap)
{
	struct endpoint to = *dst;
	bool v6 = dst->addr.family == ADDR_V6;

	if (!encap)
		to.port = 0;
	memset(path, 0, sizeof(*path));
	path->to_len = endpoint_to_sockaddr(&to, &path->to);
	path->from = src->addr;
	path->way = encap ? (v6 ? OUTER_NATT6 : OUTER_NATT4)
	                  : (v6 ? OUTER_RAW6 : OUTER_RAW4);
}

size_t
outer_overhead(const struct outer_path *path)
{
	return (is_v6(path->way) ? 40u : 20u) + (is_natt(path->way) ? 8u : 0u);
}

size_t
outer_mtu(struct outer *outer, const struct outer_path *path)
{
	bool v6 = is_v6(path->way);
	int fd = outer->sockets.fd[v6 ? OUTER_PROBE6 : OUTER_PROBE4];
	struct sockaddr_storage to = path->to;
	struct sockaddr none;
	struct endpoint at;
	int mtu = 0;
	socklen_t len = sizeof(mtu);

	/* Connecting sends nothing; any port will do. */
	if (fd < 0 || !endpoint_from_sockaddr(&at,
	                  (const struct sockaddr *)&path->to, path->to_len))
		return 0;
	at.port = outer->sockets.natt_port;
	if (connect(fd, (struct sockaddr *)&to,
	        endpoint_to_sockaddr(&at, &to)) != 0)
		return 0;
	if (getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP,
	        v6 ? IPV6_MTU : IP_MTU, &mtu, &len) != 0)
		mtu = 0;
	memset(&none, 0, sizeof(none));
	none.sa_family = AF_UNSPEC;
	(void)connect(fd, &none, sizeof(none));
	return mtu > 0 ? (size_t)mtu : 0;
}

static void
put_control(
    struct msghdr *msg, int level, int type, const void *data, size_t len)
{
	struct cmsghdr *c =
	    (void *)((uint8_t *)msg->msg_control + msg->msg_controllen);

	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(c), data, len);
	msg->msg_controllen += CMSG_SPACE(len);
}

static void
put_source(struct msghdr *msg, const struct addr *from, bool v6)
{
	if (addr_is_any(from))
		return; /* the system chooses */
	if (v6) {
		struct in6_pktinfo info;

		memset(&info, 0, sizeof(info));
		memcpy(&info.ipi6_addr, from->octets, 16);
		put_control(
		    msg, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	} else {
		struct in_pktinfo info;

		memset(&info, 0, sizeof(info));
		memcpy(&info.ipi_spec_dst, from->octets, 4);
		put_control(msg, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	}
}

static void
make_message(struct outer *outer, const struct run *run, unsigned slot)
{
	struct msghdr *msg = &outer->out[slot].msg_hdr;
	bool v6 = is_v6(run->path->way);
	uint16_t segment = (uint16_t)run->segment;
	int tos = run->tos;

	outer->out_vec[slot].iov_base = outer->out_octets + run->at;
	outer->out_vec[slot].iov_len = run->len;
	memset(msg, 0, sizeof(*msg));
	msg->msg_name = (void *)(uintptr_t)&run->path->to;
	msg->msg_namelen = run->path->to_len;
	msg->msg_iov = &outer->out_vec[slot];
	msg->msg_iovlen = 1;
	memset(&outer->out_control[slot], 0, sizeof(union control));
	msg->msg_control = &outer->out_control[slot];
	put_source(msg, &run->path->from, v6);
	if (tos != 0)
		put_control(msg, v6 ? IPPROTO_IPV6 : IPPROTO_IP,
		    v6 ? IPV6_TCLASS : IP_TOS, &tos, sizeof(tos));
	if (run->count > 1)
		put_control(
		    msg, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment));
	if (msg->msg_controllen == 0)
		msg->msg_control = NULL;
}

/* The system did not want to cut: one by one, and fragmented if need be. */
static void
send_single(struct outer *outer, int fd, const struct run *run)
{
	struct run one = *run;
	struct msghdr *msg = &outer->out[OUT_BATCH - 1].msg_hdr;
	size_t at;

	one.count = 1;
	for (at = 0; at < run->len; at += run->segment) {
		one.at = run->at + at;
		one.len =
		    run->len - at < run->segment ? run->len - at : run->segment;
		make_message(outer, &one, OUT_BATCH - 1);
		outer->stats.calls++;
		if (sendmsg(fd, msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
			outer->stats.sent++;
		else
			outer->stats.lost++;
	}
}

static bool
wait_writable(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLOUT };

	return poll(&poll_fd, 1, OUT_WAIT_MS) == 1;
}

/* The runs of one way, which stand in runs[]. */
static void
send_runs(
    struct outer *outer, int fd, const struct run *const *runs, unsigned count)
{
	unsigned i, at = 0;
	bool again = false;
	int sent;

	for (i = 0; i < count; i++)
		make_message(outer, runs[i], i);
	while (at < count) {
		outer->stats.calls++;
		sent = sendmmsg(fd, outer->out + at, count - at,
		    MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent > 0) {
			for (i = 0; i < (unsigned)sent; i++)
				outer->stats.sent += runs[at + i]->count;
			at += (unsigned)sent;
			again = false;
			continue;
		}
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN && wait_writable(fd))
			continue;
		/* It may have been an earlier packet's error. */
		if (runs[at]->path->way == OUTER_RAW6 && !again) {
			again = true;
			continue;
		}
		again = false;
		if (sent < 0 && runs[at]->count > 1 &&
		    (errno == EMSGSIZE || errno == EINVAL || errno == EIO)) {
			send_single(outer, fd, runs[at]);
		} else {
			outer->stats.lost += runs[at]->count;
		}
		at++;
	}
}

void
outer_flush(struct outer *outer)
{
	const struct run *runs[OUT_BATCH];
	unsigned way, i, count;

	for (way = 0; way < OUTER_WAYS && outer->runs > 0; way++) {
		for (i = 0, count = 0; i < outer->runs; i++)
			if (outer->run[i].path->way == way)
				runs[count++] = &outer->run[i];
		if (count > 0 && outer->way[way].fd >= 0)
			send_runs(outer, outer->way[way].fd, runs, count);
	}
	outer->runs = 0;
	outer->out_used = 0;
}

uint8_t *
outer_room(struct outer *outer, size_t len)
{
	/* The last slot is send_single()'s. */
	if (outer->out_used + len > OUT_ARENA || outer->runs == OUT_BATCH - 1)
		outer_flush(outer);
	return outer->out_octets + outer->out_used;
}

void
outer_send(
    struct outer *outer, const struct outer_path *path, uint8_t tos, size_t len)
{
	struct run *run = outer->runs > 0 ? &outer->run[outer->runs - 1] : NULL;

	if (run && run->path == path && !run->closed && run->tos == tos &&
	    is_natt(path->way) && len <= run->segment &&
	    run->count < OUT_SEGMENTS && run->len + len <= OUT_OCTETS) {
		run->len += len;
		run->count++;
		run->closed = len < run->segment;
	} else {
		run = &outer->run[outer->runs++];
		run->path = path;
		run->at = outer->out_used;
		run->len = run->segment = len;
		run->count = 1;
		run->tos = tos;
		run->closed = false;
	}
	outer->out_used += len;
}

struct outer_stats
outer_stats(const struct outer *outer)
{
	return outer->stats;
}

/* Beginning and end ----------------------------------------------------- */

struct outer *
outer_new(struct loop *loop, const struct outer_sockets *sockets,
    const struct outer_events *events)
{
	struct outer *outer = calloc(1, sizeof(*outer));
	struct outer_sockets owned = *sockets;
	unsigned i;

	if (outer == NULL) {
		outer_close(&owned);
		return NULL;
	}
	outer->sockets = owned;
	outer->events = *events;
	outer->in_octets = malloc((size_t)IN_BATCH * IN_STRIDE);
	outer->out_octets = malloc(OUT_ARENA);
	if (outer->in_octets == NULL || outer->out_octets == NULL)
		goto fail;
	for (i = 0; i < IN_BATCH; i++) {
		outer->in_vec[i].iov_base =
		    outer->in_octets + (size_t)i * IN_STRIDE;
		outer->in_vec[i].iov_len = IN_ROOM;
	}
	for (i = 0; i < OUTER_WAYS; i++) {
		struct way *way = &outer->way[i];

		way->outer = outer;
		way->fd = owned.fd[i];
		way->way = (enum outer_way)i;
		if (way->fd < 0)
			continue;
		way->watch = loop_watch(loop, way->fd, readable, NULL, way);
		if (way->watch == NULL)
			goto fail;
	}
	return outer;
fail:
	outer_free(outer);
	return NULL;
}

void
outer_free(struct outer *outer)
{
	unsigned i;

	if (outer == NULL)
		return;
	for (i = 0; i < OUTER_WAYS; i++)
		loop_unwatch(outer->way[i].watch);
	outer_close(&outer->sockets);
	free(outer->in_octets);
	free(outer->out_octets);
	free(outer);
}
