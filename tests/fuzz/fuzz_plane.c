/* The userland data plane, whose peer is itself: its wire is the loopback, its
 * device a socket pair. Octet 0 says what comes: from the device (with a virtio
 * header), from the wire as it stands, or sealed by the peer, with the next
 * header in octet 1; bit 2: the tunnel, or transport mode. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/alg.h"
#include "common/loop.h"
#include "common/policy.h"
#include "kernel/esp.h"
#include "kernel/plane.h"
#include "kernel/spd.h"
#include "kernel/tun.h"

#define ROOM   4096
#define TUNNEL 0x1000
#define HOSTS  0x2000

struct world {
	struct loop *loop;
	struct log log;
	struct timer alarm;
	unsigned turns;
	struct plane *plane;
	int tun, wire; /* the other ends */
	struct endpoint at;
	struct esp_sa *peer[2]; /* outbound, by mode */
	struct kmsg request[2];
};

static void
on_event(void *arg, const struct kmsg_event *event)
{
	(void)arg;
	HOLDS(event->kind == KEVENT_MAPPING || event->kind == KEVENT_ACQUIRE);
}

static void
on_stray(void *arg, const struct outer_packet *packet)
{
	(void)arg;
	HOLDS(packet->len >= 4);
}

static void
on_gone(void *arg)
{
	(void)arg;
	HOLDS(false);
}

static void
quiet(struct log *log, enum log_level level, const char *line)
{
	(void)log;
	(void)level;
	(void)line;
}

/* Only wakes the loop up. */
static void
wake(void *arg)
{
	(void)arg;
}

static void
turned(void *arg)
{
	struct world *world = arg;

	if (world->turns-- == 0)
		loop_stop(world->loop);
	else
		timer_set(loop_timers(world->loop), &world->alarm, 0);
}

/* The device and the wire are looked at in each turn. */
static void
turn(struct world *world)
{
	world->turns = 3;
	loop_run(world->loop);
}

static int
udp(struct endpoint *at)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);

	HOLDS(fd >= 0 && addr_parse(&at->addr, "127.0.0.1"));
	at->port = 0;
	HOLDS(bind(fd, (struct sockaddr *)&address,
	          endpoint_to_sockaddr(at, &address)) == 0);
	HOLDS(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	HOLDS(endpoint_from_sockaddr(at, (struct sockaddr *)&address, len));
	return fd;
}

static void
add_ts(struct ts_list *list, const char *text)
{
	const char *problem;

	HOLDS(ts_parse(&list->item[list->count++], text, &problem) == OK);
}

static void
execute(struct world *world, const struct kmsg *request)
{
	struct kmsg_answer answer;

	plane_execute(world->plane, request, &answer);
	HOLDS(answer.err == OK);
}

static void
add_policies(struct world *world, const struct kmsg_sa *sa)
{
	struct kmsg request = { .op = KMSG_POLICY_ADD };
	unsigned i, j;

	request.policy.direction = KMSG_OUT;
	request.policy.mode = sa->mode;
	request.policy.reqid = sa->reqid;
	request.policy.tunnel_src = request.policy.tunnel_dst = world->at.addr;
	for (i = 0; i < sa->ts_src.count; i++)
		for (j = 0; j < sa->ts_dst.count; j++) {
			request.policy.src = sa->ts_src.item[i];
			request.policy.dst = sa->ts_dst.item[j];
			if (request.policy.src.first.family ==
			    request.policy.dst.first.family)
				execute(world, &request);
		}
}

static void
add_sas(struct world *world, bool tunnel)
{
	struct kmsg *request = &world->request[tunnel];
	struct kmsg_sa *sa = &request->sa;

	request->op = KMSG_SA_ADD;
	sa->spi = sa->spi_in = tunnel ? TUNNEL : HOSTS;
	sa->mode = tunnel ? MODE_TUNNEL : MODE_TRANSPORT;
	sa->encap = true;
	sa->encr = ALG_AES128_GCM16;
	sa->encr_key_len = (uint8_t)alg_keymat(alg_get(ALG_AES128_GCM16));
	sa->reqid = sa->spi;
	sa->src = sa->dst = world->at;
	if (tunnel) {
		add_ts(&sa->ts_src, "10.1.0.0/16");
		add_ts(&sa->ts_src, "fd01::/16");
		add_ts(&sa->ts_dst, "10.2.0.0/16");
		add_ts(&sa->ts_dst, "fd02::/16");
	} else {
		add_ts(&sa->ts_src, "127.0.0.1/32");
		add_ts(&sa->ts_dst, "127.0.0.1/32");
		/* Behind NAT, so that checksums are set right. */
		HOLDS(addr_parse(&sa->natoa_src.addr, "192.168.1.2"));
	}
	/* No window, no extended numbers: those of the peer and of the data
	 * plane itself are the same. */
	sa->direction = KMSG_OUT;
	world->peer[tunnel] = esp_new(sa);
	HOLDS(world->peer[tunnel] != NULL);
	execute(world, request);
	add_policies(world, sa);
	sa->direction = KMSG_IN;
	execute(world, request);
}

static struct world *
world_get(void)
{
	static struct world world;
	struct plane_events events = { on_event, on_stray, on_gone, &world };
	struct outer_sockets sockets;
	struct endpoint from;
	int pair[2];
	unsigned i;

	if (world.loop)
		return &world;
	world.loop = loop_new();
	HOLDS(world.loop != NULL);
	world.log.write = quiet;
	timer_init(&world.alarm, wake, &world);
	HOLDS(loop_flush(world.loop, turned, &world));
	for (i = 0; i < OUTER_SOCKETS; i++)
		sockets.fd[i] = -1;
	sockets.fd[OUTER_NATT4] = udp(&world.at);
	sockets.natt_port = world.at.port;
	world.wire = udp(&from);
	HOLDS(
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0);
	world.tun = pair[0];
	world.plane =
	    plane_new(world.loop, &world.log, pair[1], &sockets, &events);
	HOLDS(world.plane != NULL);
	add_sas(&world, false);
	add_sas(&world, true);
	return &world;
}

static void
to_wire(struct world *world, const uint8_t *octets, size_t len)
{
	struct sockaddr_storage to;
	unsigned to_len = endpoint_to_sockaddr(&world->at, &to);

	(void)!sendto(
	    world->wire, octets, len, 0, (struct sockaddr *)&to, to_len);
}

static void
to_wire_sealed(
    struct world *world, bool tunnel, const uint8_t *octets, size_t len)
{
	uint8_t room[ESP_HEAD + ROOM + ESP_TAIL];
	struct view sealed;

	if (len < 1)
		return;
	memcpy(room + ESP_HEAD, octets + 1, len - 1);
	HOLDS(esp_seal(world->peer[tunnel], room + ESP_HEAD, len - 1, octets[0],
	          &sealed) == OK);
	to_wire(world, sealed.at, sealed.len);
}

/* What the system gets is a packet within its SA's selectors, or an ICMP error
 * about what it sent. */
static void
look_at(struct world *world)
{
	static uint8_t octets[TUN_HEADER + TUN_PACKET];
	const struct kmsg_sa *sa;
	struct inner inner;
	bool good = false;
	ssize_t len;
	unsigned i;

	while ((len = read(world->tun, octets, sizeof(octets))) > 0) {
		HOLDS(len > TUN_HEADER);
		HOLDS(inner_parse(&inner, octets + TUN_HEADER,
		          (size_t)len - TUN_HEADER) == OK);
		HOLDS(inner.len == (size_t)len - TUN_HEADER);
		for (i = 0; i < 2; i++) {
			sa = &world->request[i].sa;
			good = good ||
			       spd_packet_within(&inner, sa->ts_src.item,
			           sa->ts_src.count, sa->ts_dst.item,
			           sa->ts_dst.count) ||
			       spd_packet_within(&inner, sa->ts_dst.item,
			           sa->ts_dst.count, sa->ts_src.item,
			           sa->ts_src.count);
		}
		HOLDS(good);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
	struct world *world = world_get();

	if (len < 2 || len > ROOM)
		return 0;
	switch (octets[0] & 3) {
	case 0:
	case 1:
		(void)!write(world->tun, octets + 1, len - 1);
		break;
	case 2:
		to_wire_sealed(
		    world, (octets[0] & 4) != 0, octets + 1, len - 1);
		break;
	default:
		to_wire(world, octets + 1, len - 1);
		break;
	}
	turn(world);
	look_at(world);
	return 0;
}
