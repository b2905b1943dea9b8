#include "kernel/tun.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>

#include "kernel/octets.h"

/* Linux 6.2. */
#define OFFLOAD_USO4   0x20
#define OFFLOAD_USO6   0x40
#define HEADER_GSO_UDP 5
#define QUEUE          4096 /* packets that may wait for us */

#define TCP_HEADER 20
#define TCP_FIN    0x01
#define TCP_PSH    0x08
#define TCP_ACK    0x10
#define TCP_CWR    0x80

#define FLOWS 16 /* that are joined at the same time */
#define PARTS 64 /* segments in one packet */

static uint32_t
get_u32(const uint8_t *at)
{
	return (uint32_t)get_u16(at) << 16 | get_u16(at + 2);
}

static void
put_u32(uint8_t *at, uint32_t value)
{
	put_u16(at, value >> 16);
	put_u16(at + 2, value & 0xffff);
}

/* Opening --------------------------------------------------------------- */

/* Best effort: the answer of a peer may come in where the system would not
 * send to, and no router is to be looked for here. */
static void
set_knob(
    const char *family, const char *name, const char *knob, const char *value)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/%s", family,
	    name, knob);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	(void)!write(fd, value, strlen(value));
	close(fd);
}

static bool
take_up(struct ifreq *request, int *index)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), saved;
	bool good = false;

	if (fd < 0)
		return false;
	set_knob("ipv4", request->ifr_name, "rp_filter", "0");
	set_knob("ipv6", request->ifr_name, "addr_gen_mode", "1");
	request->ifr_mtu = TUN_MTU;
	if (ioctl(fd, SIOCSIFMTU, request) != 0)
		goto out;
	request->ifr_qlen = QUEUE;
	(void)ioctl(fd, SIOCSIFTXQLEN, request);
	request->ifr_flags = IFF_UP | IFF_NOARP | IFF_POINTOPOINT;
	if (ioctl(fd, SIOCSIFFLAGS, request) != 0 ||
	    ioctl(fd, SIOCGIFINDEX, request) != 0)
		goto out;
	*index = request->ifr_ifindex;
	good = true;
out:
	saved = errno;
	close(fd);
	errno = saved;
	return good;
}

enum err
tun_open(int *fd, char name[static 16], int *index)
{
	const unsigned offloads =
	    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	struct ifreq request;
	int saved;

	memset(&request, 0, sizeof(request));
	*fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0)
		return ERR_IO;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", TUN_NAME);
	request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
	if (ioctl(*fd, TUNSETIFF, &request) != 0)
		goto fail;
	memcpy(name, request.ifr_name, 16);
	if (ioctl(*fd, TUNSETOFFLOAD,
	        (unsigned long)(offloads | OFFLOAD_USO4 | OFFLOAD_USO6)) != 0 &&
	    ioctl(*fd, TUNSETOFFLOAD, (unsigned long)offloads) != 0)
		goto fail;
	if (!take_up(&request, index))
		goto fail;
	return OK;
fail:
	saved = errno;
	close(*fd);
	*fd = -1;
	errno = saved;
	return ERR_IO;
}

bool
tun_alive(int fd)
{
	struct ifreq request;

	memset(&request, 0, sizeof(request));
	return ioctl(fd, TUNGETIFF, &request) == 0;
}

/* Cutting --------------------------------------------------------------- */

static enum err
cut_segments(struct tun_cut *cut, const struct virtio_net_hdr *header)
{
	const struct inner *inner = &cut->inner;
	const uint8_t *transport = cut->packet + inner->transport;
	size_t left = inner->len - inner->transport, size;
	uint8_t type = header->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;

	if (inner->fragment)
		return ERR_SYNTAX;
	if (type == HEADER_GSO_UDP) {
		if (inner->proto != INNER_UDP || left < 8)
			return ERR_SYNTAX;
		size = 8;
	} else if (type == VIRTIO_NET_HDR_GSO_TCPV4 ||
	           type == VIRTIO_NET_HDR_GSO_TCPV6) {
		if (inner->proto != INNER_TCP || left < TCP_HEADER)
			return ERR_SYNTAX;
		size = (size_t)(transport[12] >> 4) * 4;
		if (size < TCP_HEADER || size > left)
			return ERR_SYNTAX;
	} else {
		return ERR_UNSUPPORTED;
	}
	if (header->gso_size == 0)
		return ERR_SYNTAX;
	cut->header = inner->transport + size;
	cut->segment = header->gso_size;
	cut->count = (left - size + cut->segment - 1) / cut->segment;
	if (cut->count == 0)
		cut->count = 1;
	return OK;
}

enum err
tun_cut(struct tun_cut *cut, const uint8_t *octets, size_t len)
{
	struct virtio_net_hdr header;
	enum err err;

	if (len < TUN_HEADER)
		return ERR_SHORT;
	memcpy(&header, octets, TUN_HEADER);
	memset(cut, 0, sizeof(*cut));
	cut->packet = octets + TUN_HEADER;
	err = inner_parse(&cut->inner, cut->packet, len - TUN_HEADER);
	if (err != OK)
		return err;
	cut->count = 1;
	if (header.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		return cut_segments(cut, &header);
	cut->header = 0;
	cut->segment = cut->inner.len;
	if (!(header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return OK;
	if (header.csum_start > cut->inner.len ||
	    cut->inner.len - header.csum_start < (size_t)header.csum_offset + 2)
		return ERR_SYNTAX;
	cut->checksum = true;
	cut->checksum_start = header.csum_start;
	cut->checksum_offset = header.csum_offset;
	return OK;
}

size_t
tun_cut_max(const struct tun_cut *cut)
{
	size_t most = cut->header + cut->segment;

	return most < cut->inner.len ? most : cut->inner.len;
}

size_t
tun_cut_next(const struct tun_cut *cut)
{
	size_t done = cut->header + cut->at * cut->segment;

	if (cut->at == cut->count)
		return 0;
	if (cut->at + 1 < cut->count)
		return cut->header + cut->segment;
	return cut->header + cut->inner.len - done;
}

/* The system left the pseudo header's sum in the field (CHECKSUM_PARTIAL). */
static void
write_whole(const struct tun_cut *cut, uint8_t *to)
{
	size_t start = cut->checksum_start, len = cut->inner.len;
	uint16_t folded;
	uint64_t sum;

	memcpy(to, cut->packet, cut->checksum ? start : len);
	if (!cut->checksum)
		return;
	sum = inner_copy_sum(to + start, cut->packet + start, len - start, 0);
	folded = (uint16_t)~inner_fold(sum);
	if (folded == 0)
		folded = 0xffff;
	memcpy(to + start + cut->checksum_offset, &folded, sizeof(folded));
}

static void
write_ip(const struct tun_cut *cut, uint8_t *to, size_t len)
{
	if (cut->inner.version == 4) {
		put_u16(to + 2, len);
		put_u16(to + 4, get_u16(cut->packet + 4) + cut->at);
		inner_v4_checksum(to, (to[0] & 15u) * 4u);
	} else {
		put_u16(to + 4, len - INNER_V6);
	}
}

void
tun_cut_write(struct tun_cut *cut, uint8_t *to)
{
	const struct inner *inner = &cut->inner;
	size_t len = tun_cut_next(cut), done = cut->at * cut->segment;
	uint8_t *transport = to + inner->transport, *field;
	uint16_t folded;
	uint64_t sum;

	if (cut->header == 0) {
		write_whole(cut, to);
		cut->at++;
		return;
	}
	memcpy(to, cut->packet, cut->header);
	write_ip(cut, to, len);
	if (inner->proto == INNER_TCP) {
		put_u32(transport + 4, get_u32(transport + 4) + (uint32_t)done);
		if (cut->at > 0)
			transport[13] &= (uint8_t)~TCP_CWR;
		if (cut->at + 1 < cut->count)
			transport[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
		field = transport + 16;
	} else {
		put_u16(transport + 4, len - inner->transport);
		field = transport + 6;
	}
	memset(field, 0, 2);
	sum = inner_pseudo(
	    to, inner->version == 6, inner->proto, len - inner->transport);
	sum = inner_sum(transport, cut->header - inner->transport, sum);
	/* An odd header cannot be: TCP's is a multiple of 4, UDP's is 8. */
	sum = inner_copy_sum(to + cut->header, cut->packet + cut->header + done,
	    len - cut->header, sum);
	folded = (uint16_t)~inner_fold(sum);
	if (folded == 0 && inner->proto == INNER_UDP)
		folded = 0xffff;
	memcpy(field, &folded, sizeof(folded));
	cut->at++;
}

/* Joining --------------------------------------------------------------- */

/* Segments of one flow that are held back: the first packet whole, then the
 * payload of each that follows. */
struct flow {
	uint8_t *packet; /* the first; NULL: nobody's */
	struct inner inner;
	size_t header; /* IP's and TCP's */
	size_t segment, len;
	uint32_t next; /* sequence number that must follow */
	bool push;     /* the last has PSH */
	bool closed;   /* nothing may follow: a PSH or a short segment came */
	uint16_t id;   /* IPv4: of the last */
	size_t parts;
	struct iovec vec[1 + PARTS];
};

struct tun_join {
	int fd;
	struct tun_joined stats;
	size_t victim; /* the slot that makes room next */
	struct flow flow[FLOWS];
};

struct tun_join *
tun_join_new(int fd)
{
	struct tun_join *join = calloc(1, sizeof(*join));

	if (join)
		join->fd = fd;
	return join;
}

void
tun_join_free(struct tun_join *join)
{
	free(join);
}

struct tun_joined
tun_join_stats(const struct tun_join *join)
{
	return join->stats;
}

static void
write_out(struct tun_join *join, struct virtio_net_hdr *header,
    struct iovec *vec, size_t count)
{
	ssize_t written;

	vec[0].iov_base = header;
	vec[0].iov_len = TUN_HEADER;
	do {
		written = writev(join->fd, vec, (int)count);
	} while (written < 0 && errno == EINTR);
	join->stats.writes++;
	if (written < 0)
		join->stats.lost++;
}

static void
write_alone(struct tun_join *join, uint8_t *packet, size_t len)
{
	struct virtio_net_hdr header;
	struct iovec vec[2] = { { NULL, 0 }, { packet, len } };

	memset(&header, 0, sizeof(header));
	write_out(join, &header, vec, 2);
}

static void
flow_flush(struct tun_join *join, struct flow *flow)
{
	uint8_t *ip = flow->packet, *tcp = ip + flow->inner.transport;
	bool v6 = flow->inner.version == 6;
	struct virtio_net_hdr header;
	uint16_t sum;

	flow->packet = NULL;
	if (flow->parts == 1) {
		write_alone(join, ip, flow->len);
		return;
	}
	memset(&header, 0, sizeof(header));
	header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header.gso_type =
	    v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
	header.hdr_len = (uint16_t)flow->header;
	header.gso_size = (uint16_t)flow->segment;
	header.csum_start = (uint16_t)flow->inner.transport;
	header.csum_offset = 16;
	if (v6) {
		put_u16(ip + 4, flow->len - INNER_V6);
	} else {
		put_u16(ip + 2, flow->len);
		inner_v4_checksum(ip, INNER_V4);
	}
	if (flow->push)
		tcp[13] |= TCP_PSH;
	sum = inner_fold(
	    inner_pseudo(ip, v6, INNER_TCP, flow->len - flow->inner.transport));
	memcpy(tcp + 16, &sum, sizeof(sum));
	write_out(join, &header, flow->vec, 1 + flow->parts);
}

/* Same endpoints? Ports stand in the first four octets of TCP's header. */
static bool
same_flow(
    const struct flow *flow, const uint8_t *packet, const struct inner *inner)
{
	return flow->packet != NULL && flow->inner.version == inner->version &&
	       flow->inner.src_port == inner->src_port &&
	       flow->inner.dst_port == inner->dst_port &&
	       (inner->version == 4
	               ? memcmp(flow->packet + 12, packet + 12, 8) == 0
	               : memcmp(flow->packet + 8, packet + 8, 32) == 0);
}

/* Everything that the receiver could tell apart is the same: then the system's
 * own segmentation would give back exactly these segments. */
static bool
follows(const struct flow *flow, const uint8_t *packet,
    const struct inner *inner, size_t header, size_t payload)
{
	const uint8_t *a = flow->packet, *b = packet;
	const uint8_t *tcp_a = a + flow->inner.transport;
	const uint8_t *tcp_b = b + inner->transport;

	if (flow->closed || header != flow->header || payload > flow->segment ||
	    flow->parts == PARTS || flow->len + payload > TUN_PACKET ||
	    get_u32(tcp_b + 4) != flow->next)
		return false;
	if (inner->version == 4) {
		/* TOS; flags and fragment; TTL and protocol; the identifiers
		 * count up, or do not matter. */
		if (a[1] != b[1] || memcmp(a + 6, b + 6, 4) != 0 ||
		    (!inner->df && get_u16(b + 4) != (uint16_t)(flow->id + 1)))
			return false;
	} else if (memcmp(a, b, 4) != 0 || memcmp(a + 6, b + 6, 2) != 0) {
		return false;
	}
	/* Acknowledgement, header length, window, options. */
	return memcmp(tcp_a + 8, tcp_b + 8, 5) == 0 &&
	       memcmp(tcp_a + 14, tcp_b + 14, 2) == 0 &&
	       memcmp(tcp_a + 18, tcp_b + 18, header - inner->transport - 18) ==
	           0;
}

/* Octets of the headers if this packet can be joined with others, else 0. */
static size_t
joinable(const uint8_t *packet, const struct inner *inner)
{
	const uint8_t *tcp = packet + inner->transport;
	size_t left = inner->len - inner->transport, size;

	if (inner->proto != INNER_TCP || inner->fragment || left < TCP_HEADER ||
	    inner->transport != (inner->version == 4 ? INNER_V4 : INNER_V6))
		return 0;
	size = (size_t)(tcp[12] >> 4) * 4;
	if (size < TCP_HEADER || size >= left ||
	    (tcp[13] & ~TCP_PSH) != TCP_ACK)
		return 0;
	/* Once joined, nobody looks at the checksums any more. */
	if ((inner->version == 4 &&
	        inner_fold(inner_sum(packet, INNER_V4, 0)) != 0xffff) ||
	    !inner_checksum_good(packet, inner))
		return 0;
	return inner->transport + size;
}

static void
flow_begin(struct flow *flow, uint8_t *packet, const struct inner *inner,
    size_t header)
{
	const uint8_t *tcp = packet + inner->transport;

	flow->packet = packet;
	flow->inner = *inner;
	flow->header = header;
	flow->segment = inner->len - header;
	flow->len = inner->len;
	flow->next = get_u32(tcp + 4) + (uint32_t)flow->segment;
	flow->push = flow->closed = (tcp[13] & TCP_PSH) != 0;
	flow->id = get_u16(packet + 4);
	flow->parts = 1;
	flow->vec[1].iov_base = packet;
	flow->vec[1].iov_len = inner->len;
}

static void
flow_append(struct flow *flow, uint8_t *packet, size_t header, size_t payload)
{
	flow->parts++;
	flow->vec[flow->parts].iov_base = packet + header;
	flow->vec[flow->parts].iov_len = payload;
	flow->len += payload;
	flow->next += (uint32_t)payload;
	flow->id = get_u16(packet + 4);
	flow->push = (packet[flow->inner.transport + 13] & TCP_PSH) != 0;
	flow->closed = flow->push || payload < flow->segment;
}

void
tun_join_add(struct tun_join *join, uint8_t *packet, const struct inner *inner)
{
	size_t header = joinable(packet, inner), i;
	struct flow *flow, *room = NULL;

	join->stats.packets++;
	for (i = 0; i < FLOWS; i++) {
		flow = &join->flow[i];
		if (flow->packet == NULL) {
			room = flow;
			continue;
		}
		if (inner->proto != INNER_TCP ||
		    !same_flow(flow, packet, inner))
			continue;
		if (header != 0 &&
		    follows(flow, packet, inner, header, inner->len - header)) {
			flow_append(flow, packet, header, inner->len - header);
			return;
		}
		/* What came first leaves first. */
		flow_flush(join, flow);
		room = flow;
		break;
	}
	if (header == 0) {
		write_alone(join, packet, inner->len);
		return;
	}
	if (room == NULL) {
		room = &join->flow[join->victim++ % FLOWS];
		flow_flush(join, room);
	}
	flow_begin(room, packet, inner, header);
}

void
tun_join_flush(struct tun_join *join)
{
	size_t i;

	for (i = 0; i < FLOWS; i++)
		if (join->flow[i].packet)
			flow_flush(join, &join->flow[i]);
}
