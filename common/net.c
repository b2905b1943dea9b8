/*
 * The real network: batches in by recvmmsg(), batches out by sendmmsg() at the
 * end of the loop's turn. Everything it needs is allocated once.
 */
#include "common/net.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/xfrm.h>

#include "common/env.h"
#include "common/loop.h"

#define NET_BATCH  32
#define NET_MARKER 4 /* RFC 3948 2.2: four zero octets before IKE */
/* No UDP datagram is larger than 65,507 octets. The odd stride keeps the first
 * lines of the buffers out of one cache set. */
#define NET_STRIDE  (65536 + 512)
#define NET_ARENA   131072
#define NET_CONTROL 64
#define NET_BUFFER  (4 << 20) /* of the socket, each way */

enum net_way { NET_IKE4, NET_IKE6, NET_NATT4, NET_NATT6, NET_WAYS };

/* Room for one control message with a struct in6_pktinfo. */
struct net_control {
	_Alignas(struct cmsghdr) uint8_t octets[NET_CONTROL];
};

struct net_real;

struct net_way_in {
	struct net_real *net;
	struct loop_watch *watch;
	int fd;
	bool natt, v6;
};

/* One datagram that waits for the end of the turn. */
struct net_out {
	struct sockaddr_storage to;
	struct net_control control;
	size_t control_len;
	unsigned to_len;
	size_t at, len; /* in the arena */
	enum net_way way;
};

struct net_real {
	struct net net; /* first: what callers see */
	struct env *env;
	struct loop *loop;
	struct net_sockets sockets;
	struct net_way_in way[NET_WAYS];
	void (*receive)(struct env *, const struct packet *);
	void (*stray)(struct env *, const struct packet *);

	struct mmsghdr in[NET_BATCH];
	struct iovec in_vec[NET_BATCH];
	struct sockaddr_storage in_from[NET_BATCH];
	struct net_control in_control[NET_BATCH];
	uint8_t *in_octets; /* NET_BATCH * NET_STRIDE */

	struct net_out out[NET_BATCH];
	unsigned out_count;
	size_t out_used; /* octets of the arena */
	uint8_t *out_octets;
	struct mmsghdr out_msg[NET_BATCH];
	struct iovec out_vec[NET_BATCH];
};

static struct net_real *
real_of(struct net *net)
{
	return (struct net_real *)(void *)net;
}

/* Where the datagram was sent to, from its control message. False for
 * multicast and broadcast: IKE has no business there. */
static bool
net_local_of(struct msghdr *msg, uint16_t port, struct endpoint *local)
{
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo info;

			memcpy(&info, CMSG_DATA(c), sizeof(info));
			/* They differ for all that is not unicast to us. */
			if (info.ipi_addr.s_addr != info.ipi_spec_dst.s_addr)
				return false;
			local->port = port;
			return addr_from_view(&local->addr,
			    view_of(&info.ipi_addr, sizeof(info.ipi_addr)));
		}
		if (c->cmsg_level == IPPROTO_IPV6 &&
		    c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo info;

			memcpy(&info, CMSG_DATA(c), sizeof(info));
			if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr))
				return false;
			local->port = port;
			return addr_from_view(&local->addr,
			    view_of(&info.ipi6_addr, sizeof(info.ipi6_addr)));
		}
	}
	return false;
}

/* One datagram: strips the marker and hands it on. */
static void
net_take(struct net_way_in *way, struct mmsghdr *msg, const uint8_t *octets)
{
	static const uint8_t marker[NET_MARKER];
	struct net_real *net = way->net;
	struct packet packet;

	memset(&packet, 0, sizeof(packet));
	packet.natt = way->natt;
	packet.octets = view_of(octets, msg->msg_len);
	if (!endpoint_from_sockaddr(&packet.remote, msg->msg_hdr.msg_name,
	        msg->msg_hdr.msg_namelen) ||
	    packet.remote.port == 0 || addr_is_any(&packet.remote.addr))
		return; /* could not be answered */
	if (!net_local_of(&msg->msg_hdr,
	        way->natt ? net->sockets.natt_port : net->sockets.ike_port,
	        &packet.local))
		return;
	if (!way->natt) {
		net->receive(net->env, &packet);
		return;
	}
	/* RFC 3948 2.3, 4: keepalives go no further. */
	if (packet.octets.len == 1 && packet.octets.at[0] == 0xff)
		return;
	if (packet.octets.len < NET_MARKER) {
		env_count(net->env, COUNTER_PACKETS_MALFORMED);
		return;
	}
	if (memcmp(packet.octets.at, marker, NET_MARKER) != 0) {
		if (net->stray)
			net->stray(net->env, &packet);
		else
			env_count(net->env, COUNTER_PACKETS_MALFORMED);
		return;
	}
	if (view_skip(&packet.octets, NET_MARKER))
		net->receive(net->env, &packet);
}

/* One batch a call: the loop calls again while there is more, and others get
 * their turn in between. */
static void
net_readable(void *arg)
{
	struct net_way_in *way = arg;
	struct net_real *net = way->net;
	int count, i;

	for (i = 0; i < NET_BATCH; i++) {
		struct msghdr *msg = &net->in[i].msg_hdr;

		msg->msg_name = &net->in_from[i];
		msg->msg_namelen = sizeof(net->in_from[i]);
		msg->msg_iov = &net->in_vec[i];
		msg->msg_iovlen = 1;
		msg->msg_control = &net->in_control[i];
		msg->msg_controllen = sizeof(net->in_control[i]);
		msg->msg_flags = 0;
	}
	count = recvmmsg(way->fd, net->in, NET_BATCH, MSG_DONTWAIT, NULL);
	for (i = 0; i < count; i++) {
		/* A cut datagram or control message cannot happen with these
		 * sizes; one that was cut is not to be trusted. */
		if (net->in[i].msg_hdr.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
			continue;
		net_take(
		    way, &net->in[i], net->in_octets + (size_t)i * NET_STRIDE);
	}
}

/* Sends count prepared messages on one socket. What fails is lost: the engines
 * retransmit. */
static void
net_send_batch(struct net_real *net, int fd, unsigned count)
{
	unsigned at = 0;
	int sent;

	while (at < count) {
		sent = sendmmsg(fd, net->out_msg + at, count - at,
		    MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent > 0) {
			at += (unsigned)sent;
			net->env->counter[COUNTER_PACKETS_OUT] +=
			    (unsigned)sent;
			continue;
		}
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 &&
		    (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)) {
			/* The same would befall the rest. */
			net->env->counter[COUNTER_PACKETS_UNSENT] += count - at;
			return;
		}
		/* This one's destination or source is the trouble. */
		env_count(net->env, COUNTER_PACKETS_UNSENT);
		at++;
	}
}

static void
net_flush(void *arg)
{
	struct net_real *net = arg;
	unsigned i, count, way;

	if (!net->out_count)
		return;
	for (way = 0; way < NET_WAYS; way++) {
		count = 0;
		for (i = 0; i < net->out_count; i++) {
			struct net_out *out = &net->out[i];
			struct msghdr *msg = &net->out_msg[count].msg_hdr;

			if (out->way != way)
				continue;
			net->out_vec[count].iov_base =
			    net->out_octets + out->at;
			net->out_vec[count].iov_len = out->len;
			memset(msg, 0, sizeof(*msg));
			msg->msg_name = &out->to;
			msg->msg_namelen = out->to_len;
			msg->msg_iov = &net->out_vec[count];
			msg->msg_iovlen = 1;
			if (out->control_len) {
				msg->msg_control = &out->control;
				msg->msg_controllen = out->control_len;
			}
			count++;
		}
		if (count)
			net_send_batch(net, net->way[way].fd, count);
	}
	net->out_count = 0;
	net->out_used = 0;
}

/* The control message that makes the system send from this address. */
static size_t
net_from(struct net_control *control, const struct addr *local, bool v6)
{
	struct cmsghdr *header = (void *)control->octets;

	memset(control, 0, sizeof(*control));
	if (addr_is_any(local) || (local->family == ADDR_V6) != v6)
		return 0; /* the system chooses */
	if (v6) {
		struct in6_pktinfo info;

		memset(&info, 0, sizeof(info));
		memcpy(&info.ipi6_addr, local->octets, 16);
		header->cmsg_level = IPPROTO_IPV6;
		header->cmsg_type = IPV6_PKTINFO;
		header->cmsg_len = CMSG_LEN(sizeof(info));
		memcpy(CMSG_DATA(header), &info, sizeof(info));
		return CMSG_SPACE(sizeof(info));
	} else {
		struct in_pktinfo info;

		memset(&info, 0, sizeof(info));
		memcpy(&info.ipi_spec_dst, local->octets, 4);
		header->cmsg_level = IPPROTO_IP;
		header->cmsg_type = IP_PKTINFO;
		header->cmsg_len = CMSG_LEN(sizeof(info));
		memcpy(CMSG_DATA(header), &info, sizeof(info));
		return CMSG_SPACE(sizeof(info));
	}
}

static void
net_queue(struct net_real *net, const struct endpoint *local,
    const struct endpoint *remote, bool natt, bool marker, struct view octets)
{
	bool v6 = remote->addr.family == ADDR_V6;
	enum net_way way =
	    natt ? (v6 ? NET_NATT6 : NET_NATT4) : (v6 ? NET_IKE6 : NET_IKE4);
	size_t len = octets.len + (marker ? NET_MARKER : 0);
	struct net_out *out;
	uint8_t *at;

	if (net->way[way].fd < 0 || remote->addr.family == ADDR_NONE ||
	    len > NET_ARENA) {
		env_count(net->env, COUNTER_PACKETS_UNSENT);
		return;
	}
	if (net->out_count == NET_BATCH || net->out_used + len > NET_ARENA)
		net_flush(net);
	out = &net->out[net->out_count++];
	out->way = way;
	out->to_len = endpoint_to_sockaddr(remote, &out->to);
	out->control_len = net_from(&out->control, &local->addr, v6);
	out->at = net->out_used;
	out->len = len;
	at = net->out_octets + net->out_used;
	if (marker) {
		memset(at, 0, NET_MARKER);
		at += NET_MARKER;
	}
	if (octets.len)
		memcpy(at, octets.at, octets.len);
	net->out_used += len;
}

static void
real_send(struct net *net, const struct endpoint *local,
    const struct endpoint *remote, bool natt, struct view octets)
{
	net_queue(real_of(net), local, remote, natt, natt, octets);
}

static void
real_keepalive(struct net *net, const struct endpoint *local,
    const struct endpoint *remote)
{
	/* RFC 3948 2.3: one octet, no marker. */
	net_queue(real_of(net), local, remote, true, false, view_of("\xff", 1));
}

/* A UDP socket that was connected is so no more. */
static void
dissolve(int fd)
{
	struct sockaddr none;

	memset(&none, 0, sizeof(none));
	none.sa_family = AF_UNSPEC;
	(void)connect(fd, &none, sizeof(none));
}

/* Connecting a UDP socket sends nothing, but makes the system choose a source
 * address. Afterwards the socket is dissolved for the next question. */
static bool
real_source(struct net *net, const struct addr *remote, struct addr *local)
{
	struct net_real *real = real_of(net);
	int fd = remote->family == ADDR_V6 ? real->sockets.probe6
	                                   : real->sockets.probe4;
	struct endpoint to = { *remote, real->sockets.ike_port };
	struct endpoint from;
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	unsigned to_len;
	bool known;

	if (fd < 0 || addr_is_any(remote))
		return false;
	to_len = endpoint_to_sockaddr(&to, &address);
	if (connect(fd, (struct sockaddr *)&address, to_len) != 0)
		return false;
	known =
	    getsockname(fd, (struct sockaddr *)&address, &len) == 0 &&
	    endpoint_from_sockaddr(&from, (struct sockaddr *)&address, len) &&
	    from.addr.family == remote->family && !addr_is_any(&from.addr);
	dissolve(fd);
	if (known)
		*local = from.addr;
	return known;
}

static uint16_t
real_port(const struct net *net, bool natt)
{
	const struct net_real *real = (const void *)net;

	return natt ? real->sockets.natt_port : real->sockets.ike_port;
}

static void
real_free(struct net *net)
{
	struct net_real *real = real_of(net);
	unsigned i;

	if (real->out_octets)
		net_flush(real); /* the last Deletes */
	loop_unflush(real->loop, net_flush, real);
	for (i = 0; i < NET_WAYS; i++)
		loop_unwatch(real->way[i].watch);
	net_sockets_close(&real->sockets);
	free(real->in_octets);
	free(real->out_octets);
	free(real);
}

static const struct net_ops net_real_ops = { real_send, real_keepalive,
	real_source, real_port, real_free };

struct net *
net_new(struct env *env, struct loop *loop, const struct net_sockets *sockets,
    void (*receive)(struct env *env, const struct packet *packet),
    void (*stray)(struct env *env, const struct packet *packet))
{
	const int fds[NET_WAYS] = { sockets->ike4, sockets->ike6,
		sockets->natt4, sockets->natt6 };
	struct net_real *net = calloc(1, sizeof(*net));
	struct net_sockets owned = *sockets;
	unsigned i;

	if (!net) {
		net_sockets_close(&owned);
		return NULL;
	}
	net->net.ops = &net_real_ops;
	net->env = env;
	net->loop = loop;
	net->sockets = owned;
	net->receive = receive;
	net->stray = stray;
	for (i = 0; i < NET_WAYS; i++) {
		net->way[i].net = net;
		net->way[i].fd = fds[i];
		net->way[i].natt = i == NET_NATT4 || i == NET_NATT6;
		net->way[i].v6 = i == NET_IKE6 || i == NET_NATT6;
	}
	net->in_octets = malloc((size_t)NET_BATCH * NET_STRIDE);
	net->out_octets = malloc(NET_ARENA);
	if (!net->in_octets || !net->out_octets)
		goto fail;
	for (i = 0; i < NET_BATCH; i++) {
		net->in_vec[i].iov_base =
		    net->in_octets + (size_t)i * NET_STRIDE;
		net->in_vec[i].iov_len = 65536;
	}
	for (i = 0; i < NET_WAYS; i++) {
		if (fds[i] < 0)
			continue;
		net->way[i].watch =
		    loop_watch(loop, fds[i], net_readable, NULL, &net->way[i]);
		if (!net->way[i].watch)
			goto fail;
	}
	if (!loop_flush(loop, net_flush, net))
		goto fail;
	return &net->net;
fail:
	real_free(&net->net);
	return NULL;
}

/* Opening, with privileges ------------------------------------------------ */

void
net_sockets_close(struct net_sockets *sockets)
{
	int *const all[] = { &sockets->ike4, &sockets->ike6, &sockets->natt4,
		&sockets->natt6, &sockets->probe4, &sockets->probe6 };
	size_t i;

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (*all[i] >= 0)
			close(*all[i]);
		*all[i] = -1;
	}
}

void
net_sockets_hear_all(const struct net_sockets *sockets)
{
	const int fds[] = { sockets->ike4, sockets->ike6, sockets->natt4,
		sockets->natt6 };
	struct sockaddr_storage peer;

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		socklen_t len = sizeof(peer);

		if (fds[i] >= 0 &&
		    getpeername(fds[i], (struct sockaddr *)&peer, &len) == 0)
			dissolve(fds[i]);
	}
}

static bool
net_option(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

/* A policy of the socket itself that lets everything pass, so that no policy
 * of ours or of others ever catches IKE. */
static bool
net_bypass(int fd, bool v6)
{
	struct xfrm_userpolicy_info policy;
	const uint8_t ways[] = { XFRM_POLICY_IN, XFRM_POLICY_OUT };
	size_t i;

	for (i = 0; i < sizeof(ways); i++) {
		memset(&policy, 0, sizeof(policy));
		policy.action = XFRM_POLICY_ALLOW;
		policy.sel.family = v6 ? AF_INET6 : AF_INET;
		policy.dir = ways[i];
		if (setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP,
		        v6 ? IPV6_XFRM_POLICY : IP_XFRM_POLICY, &policy,
		        sizeof(policy)) != 0)
			return false;
	}
	return true;
}

static bool
net_mark(int fd, uint32_t mark)
{
	return mark == 0 ||
	       setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0;
}

static bool
net_options(int fd, const struct net_listen *listen, bool natt, bool v6,
    const char **what)
{
	*what = "IPV6_V6ONLY";
	if (v6 && !net_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1))
		return false;
	*what = "IP_PKTINFO";
	if (v6 ? !net_option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
	       : !net_option(fd, IPPROTO_IP, IP_PKTINFO, 1))
		return false;
	/* Large messages may be fragmented on the way; path MTU discovery
	 * would lose them instead. */
	*what = "IP_MTU_DISCOVER";
	if (v6 ? !net_option(
	             fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT)
	       : !net_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT))
		return false;
	/* As large as the system allows; less is no error. */
	if (!net_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, NET_BUFFER))
		(void)net_option(fd, SOL_SOCKET, SO_RCVBUF, NET_BUFFER);
	if (!net_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, NET_BUFFER))
		(void)net_option(fd, SOL_SOCKET, SO_SNDBUF, NET_BUFFER);
	*what = "SO_MARK";
	if (!net_mark(fd, listen->mark))
		return false;
	*what = "SO_REUSEPORT";
	if (natt && listen->share &&
	    !net_option(fd, SOL_SOCKET, SO_REUSEPORT, 1))
		return false;
	*what = "IP_XFRM_POLICY";
	if (listen->bypass && !net_bypass(fd, v6))
		return false;
	*what = "UDP_ENCAP";
	if (natt && listen->encap &&
	    !net_option(fd, IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP))
		return false;
	return true;
}

/* Opens and binds one. *port is 0 for any, and then set to what was bound, so
 * that the other family gets the same. */
static int
net_open(const struct net_listen *listen, bool natt, bool v6, uint16_t *port,
    const char **what)
{
	struct endpoint at = { v6 ? listen->addr6 : listen->addr4, *port };
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	unsigned bind_len;
	int fd, saved;

	*what = v6 ? "socket over IPv6" : "socket over IPv4";
	fd = socket(v6 ? AF_INET6 : AF_INET,
	    SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	if (!net_options(fd, listen, natt, v6, what))
		goto fail;
	*what = natt ? "bind to the NAT-T port" : "bind to the IKE port";
	if (at.addr.family == ADDR_NONE)
		at.addr = addr_any(v6 ? ADDR_V6 : ADDR_V4);
	bind_len = endpoint_to_sockaddr(&at, &address);
	if (bind(fd, (struct sockaddr *)&address, bind_len) != 0)
		goto fail;
	if (getsockname(fd, (struct sockaddr *)&address, &len) != 0 ||
	    !endpoint_from_sockaddr(&at, (struct sockaddr *)&address, len))
		goto fail;
	*port = at.port;
	return fd;
fail:
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static int
net_open_probe(bool v6, uint32_t mark)
{
	int fd = socket(v6 ? AF_INET6 : AF_INET,
	    SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && !net_mark(fd, mark)) {
		close(fd);
		return -1;
	}
	return fd;
}

enum err
net_sockets_open(struct net_sockets *sockets, const struct net_listen *listen,
    const char **what)
{
	const struct net_sockets none = { -1, -1, -1, -1, -1, -1, 0, 0 };
	bool v6 = !listen->no6;
	int saved;

	*sockets = none;
	sockets->ike_port = listen->ike_port;
	sockets->natt_port = listen->natt_port;
	if (!listen->no4) {
		sockets->ike4 =
		    net_open(listen, false, false, &sockets->ike_port, what);
		if (sockets->ike4 < 0)
			goto fail;
		sockets->natt4 =
		    net_open(listen, true, false, &sockets->natt_port, what);
		if (sockets->natt4 < 0)
			goto fail;
		sockets->probe4 = net_open_probe(false, listen->mark);
	}
	if (v6) {
		sockets->probe6 = net_open_probe(true, listen->mark);
		if (sockets->probe6 < 0 && errno == EAFNOSUPPORT &&
		    !listen->no4)
			return OK; /* a system without IPv6 */
		sockets->ike6 =
		    net_open(listen, false, true, &sockets->ike_port, what);
		/* The module is there, but no interface has IPv6. */
		if (sockets->ike6 < 0 && errno == EADDRNOTAVAIL &&
		    !listen->no4 && listen->addr6.family == ADDR_NONE)
			return OK;
		if (sockets->ike6 < 0)
			goto fail;
		sockets->natt6 =
		    net_open(listen, true, true, &sockets->natt_port, what);
		if (sockets->natt6 < 0)
			goto fail;
	}
	return OK;
fail:
	saved = errno;
	net_sockets_close(sockets);
	errno = saved;
	return ERR_IO;
}
