#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/alg.h"
#include "common/loop.h"
#include "common/policy.h"
#include "kernel/esp.h"
#include "kernel/inner.h"
#include "kernel/plane.h"
#include "kernel/tun.h"

/* Two data planes in one loop: their devices are socket pairs, their wire is
 * the loopback. */

#define REQID  7
#define EVENTS 16

struct side {
	struct plane *plane;
	int tun;            /* the system's end of the device */
	struct endpoint at; /* on the wire */
	struct kmsg_event event[EVENTS];
	unsigned events, strays;
	bool gone;
};

struct world {
	struct loop *loop;
	struct log log;
	struct side a, b;
	struct timer stop;
};

static void
quiet(struct log *log, enum log_level level, const char *line)
{
	(void)log;
	(void)level;
	(void)line;
}

static void
on_event(void *arg, const struct kmsg_event *event)
{
	struct side *side = arg;

	assert_true(side->events < EVENTS);
	side->event[side->events++] = *event;
}

static void
on_stray(void *arg, const struct outer_packet *packet)
{
	struct side *side = arg;

	assert_int_equal(packet->len, 40);
	side->strays++;
}

static void
on_gone(void *arg)
{
	struct side *side = arg;

	side->gone = true;
}

static void
stop(void *arg)
{
	struct world *world = arg;

	loop_stop(world->loop);
}

/* Lets everything happen that can. Several short rounds: on a busy machine the
 * timer may be due before the first packet was looked at. */
static void
settle(struct world *world)
{
	unsigned i;

	for (i = 0; i < 10; i++) {
		timer_set(loop_timers(world->loop), &world->stop, 2);
		loop_run(world->loop);
	}
}

static int
udp(struct endpoint *at)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	int one = 1;

	assert_true(fd >= 0);
	assert_true(addr_parse(&at->addr, "127.0.0.1"));
	at->port = 0;
	assert_int_equal(bind(fd, (struct sockaddr *)&address,
	                     endpoint_to_sockaddr(at, &address)),
	    0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	assert_true(
	    endpoint_from_sockaddr(at, (struct sockaddr *)&address, len));
	assert_int_equal(
	    setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one)), 0);
	assert_int_equal(
	    setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &one, sizeof(one)), 0);
	return fd;
}

static void
open_side(struct world *world, struct side *side)
{
	struct plane_events events = { on_event, on_stray, on_gone, side };
	struct outer_sockets sockets;
	int pair[2];
	unsigned i;

	for (i = 0; i < OUTER_SOCKETS; i++)
		sockets.fd[i] = -1;
	sockets.fd[OUTER_NATT4] = udp(&side->at);
	sockets.natt_port = side->at.port;
	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
	side->tun = pair[0];
	side->plane =
	    plane_new(world->loop, &world->log, pair[1], &sockets, &events);
	assert_non_null(side->plane);
}

static struct world *
world_new(void)
{
	struct world *world = calloc(1, sizeof(*world));

	assert_non_null(world);
	world->loop = loop_new();
	assert_non_null(world->loop);
	world->log.write = quiet;
	timer_init(&world->stop, stop, world);
	open_side(world, &world->a);
	open_side(world, &world->b);
	return world;
}

static void
world_free(struct world *world)
{
	plane_free(world->a.plane);
	plane_free(world->b.plane);
	close(world->a.tun);
	close(world->b.tun);
	loop_free(world->loop);
	free(world);
}

static enum err
ask(struct side *side, const struct kmsg *request, struct kmsg_answer *answer)
{
	plane_execute(side->plane, request, answer);
	assert_int_equal(answer->op, request->op);
	return (enum err)answer->err;
}

static struct ts
ts(const char *text)
{
	const char *problem = NULL;
	struct ts ts;

	assert_int_equal(ts_parse(&ts, text, &problem), OK);
	return ts;
}

/* An SA of side towards (KMSG_OUT) or from the other. */
static struct kmsg
sa(const struct side *side, const struct side *other, uint8_t direction,
    uint32_t spi, const char *local, const char *remote)
{
	struct kmsg request = { .op = KMSG_SA_ADD, .sequence = 1 };
	struct kmsg_sa *sa = &request.sa;
	bool out = direction == KMSG_OUT;
	unsigned i;

	sa->spi = spi;
	sa->spi_in = out ? spi + 1 : spi;
	sa->direction = direction;
	sa->mode = MODE_TUNNEL;
	sa->encap = true;
	sa->esn = true;
	sa->encr = ALG_AES128_GCM16;
	sa->encr_key_len = (uint8_t)alg_keymat(alg_get(ALG_AES128_GCM16));
	for (i = 0; i < sa->encr_key_len; i++)
		sa->key[i] = (uint8_t)(spi + i);
	sa->reqid = REQID;
	sa->replay_window = 32;
	sa->src = out ? side->at : other->at;
	sa->dst = out ? other->at : side->at;
	sa->ts_src.count = sa->ts_dst.count = 1;
	sa->ts_src.item[0] = ts(out ? local : remote);
	sa->ts_dst.item[0] = ts(out ? remote : local);
	return request;
}

static struct kmsg
policy(
    const struct side *other, const char *local, const char *remote, bool trap)
{
	struct kmsg request = { .op = KMSG_POLICY_ADD, .sequence = 1 };

	request.policy.direction = KMSG_OUT;
	request.policy.mode = MODE_TUNNEL;
	request.policy.trap = trap;
	request.policy.reqid = REQID;
	request.policy.src = ts(local);
	request.policy.dst = ts(remote);
	request.policy.tunnel_src = request.policy.tunnel_dst = other->at.addr;
	return request;
}

static void
good(struct side *side, struct kmsg request)
{
	struct kmsg_answer answer;

	assert_int_equal(ask(side, &request, &answer), OK);
}

/* a's 10.1.0.0/24 to b's 10.2.0.0/24, one way. */
static void
connect_sides(struct world *world, uint32_t spi)
{
	good(&world->b, sa(&world->b, &world->a, KMSG_IN, spi, "10.2.0.0/24",
	                    "10.1.0.0/24"));
	good(&world->a, sa(&world->a, &world->b, KMSG_OUT, spi, "10.1.0.0/24",
	                    "10.2.0.0/24"));
	good(&world->a, policy(&world->b, "10.1.0.0/24", "10.2.0.0/24", false));
}

/* What the system sends: UDP of len octets in all. */
static size_t
packet(uint8_t *octets, uint8_t src, uint8_t dst, size_t len)
{
	uint8_t *ip = octets + TUN_HEADER;
	size_t i;

	memset(octets, 0, TUN_HEADER + 28);
	ip[0] = 0x45;
	ip[1] = 0x02; /* ECT(0) */
	ip[2] = (uint8_t)(len >> 8);
	ip[3] = (uint8_t)len;
	ip[6] = 0x40;
	ip[8] = 64;
	ip[9] = INNER_UDP;
	memcpy(ip + 12, (uint8_t[]){ 10, src, 0, 1 }, 4);
	memcpy(ip + 16, (uint8_t[]){ 10, dst, 0, 2 }, 4);
	inner_v4_checksum(ip, 20);
	ip[21] = 1;
	ip[23] = 2;
	for (i = 28; i < len; i++)
		ip[i] = (uint8_t)i;
	return TUN_HEADER + len;
}

static void
send_packet(struct side *side, uint8_t src, uint8_t dst, size_t len)
{
	static uint8_t octets[TUN_HEADER + TUN_PACKET];
	size_t whole = packet(octets, src, dst, len);

	assert_int_equal(write(side->tun, octets, whole), whole);
}

/* Packets that came out of the device; the last stays in octets. */
static unsigned
received(struct side *side, uint8_t *octets, size_t room, size_t *len)
{
	unsigned count = 0;
	ssize_t got;

	while ((got = read(side->tun, octets, room)) > 0) {
		count++;
		*len = (size_t)got;
	}
	return count;
}

static void
carries(void **state)
{
	static uint8_t out[TUN_HEADER + TUN_PACKET], sent[4096];
	struct world *world = world_new();
	struct kmsg query;
	struct kmsg_answer answer;
	size_t len = 0, whole;
	unsigned i;

	(void)state;
	connect_sides(world, 1000);
	for (i = 0; i < 10; i++)
		send_packet(&world->a, 1, 2, 100 + 100 * i);
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 10);
	whole = packet(sent, 1, 2, 1000);
	assert_int_equal(len, whole);
	assert_memory_equal(out + TUN_HEADER, sent + TUN_HEADER, 1000);
	query = sa(
	    &world->b, &world->a, KMSG_IN, 1000, "10.2.0.0/24", "10.1.0.0/24");
	query.op = KMSG_SA_QUERY;
	assert_int_equal(ask(&world->b, &query, &answer), OK);
	assert_int_equal(answer.use.packets, 10);
	assert_true(answer.use.idle_ms < 1000);
	assert_int_equal(world->a.events + world->b.events, 0);
	/* Not within the policy: nothing leaves. */
	send_packet(&world->a, 3, 2, 100);
	send_packet(&world->a, 1, 3, 100);
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 0);
	assert_int_equal(plane_stats(world->a.plane).no_policy, 2);
	world_free(world);
}

/* The newest SA sends; what is removed does not. */
static void
newest_first(void **state)
{
	static uint8_t out[TUN_HEADER + TUN_PACKET];
	struct world *world = world_new();
	struct kmsg_answer answer;
	struct kmsg request;
	size_t len;

	(void)state;
	connect_sides(world, 1000);
	connect_sides(world, 2000);
	send_packet(&world->a, 1, 2, 100);
	settle(world);
	request = sa(
	    &world->b, &world->a, KMSG_IN, 2000, "10.2.0.0/24", "10.1.0.0/24");
	request.op = KMSG_SA_QUERY;
	assert_int_equal(ask(&world->b, &request, &answer), OK);
	assert_int_equal(answer.use.packets, 1);
	request = sa(
	    &world->a, &world->b, KMSG_OUT, 2000, "10.1.0.0/24", "10.2.0.0/24");
	assert_int_equal(ask(&world->a, &request, &answer), ERR_EXISTS);
	request.op = KMSG_SA_REMOVE;
	good(&world->a, request);
	good(&world->a, request); /* twice is as well */
	send_packet(&world->a, 1, 2, 100);
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 2);
	request.sa.spi = 1000;
	request.op = KMSG_SA_QUERY;
	assert_int_equal(ask(&world->a, &request, &answer), OK);
	assert_int_equal(answer.use.packets, 1);
	assert_int_equal(plane_stats(world->a.plane).sas, 1);
	world_free(world);
}

static void
acquires(void **state)
{
	struct world *world = world_new();
	struct kmsg request =
	    policy(&world->b, "10.1.0.0/24", "10.2.0.0/24", true);
	const struct kmsg_event *event = &world->a.event[0];
	struct ts local = ts("10.1.0.1/32[udp/1]");
	struct ts remote = ts("10.2.0.2/32[udp/2]");

	(void)state;
	good(&world->a, request);
	send_packet(&world->a, 1, 2, 100);
	send_packet(&world->a, 1, 2, 100); /* at once again: no second */
	settle(world);
	assert_int_equal(world->a.events, 1);
	assert_int_equal(event->kind, KEVENT_ACQUIRE);
	assert_int_equal(event->reqid, REQID);
	assert_true(ts_equal(&event->packet[0], &local));
	assert_true(ts_equal(&event->packet[1], &remote));
	/* Another claims the same selectors, and the first one goes. */
	request.policy.reqid++;
	good(&world->a, request);
	request.op = KMSG_POLICY_REMOVE;
	request.policy.reqid--;
	good(&world->a, request);
	assert_int_equal(plane_stats(world->a.plane).policies, 1);
	request.policy.reqid++;
	good(&world->a, request);
	assert_int_equal(plane_stats(world->a.plane).policies, 0);
	world_free(world);
}

/* The packet that asked for an SA leaves with it: one of each policy. */
static void
holds_the_first(void **state)
{
	static uint8_t out[TUN_HEADER + TUN_PACKET];
	struct world *world = world_new();
	struct kmsg trap =
	    policy(&world->b, "10.1.0.0/24", "10.2.0.0/24", true);
	struct kmsg child = sa(
	    &world->a, &world->b, KMSG_OUT, 1000, "10.1.0.0/24", "10.2.0.0/24");
	size_t len = 0;

	(void)state;
	good(&world->a, trap);
	good(&world->b, sa(&world->b, &world->a, KMSG_IN, 1000, "10.2.0.0/24",
	                    "10.1.0.0/24"));
	send_packet(&world->a, 1, 2, 100);
	send_packet(&world->a, 1, 2, 200);
	settle(world);
	assert_int_equal(world->a.events, 1);
	/* An SA that is not for it: it waits on. */
	good(&world->a, sa(&world->a, &world->b, KMSG_OUT, 999, "10.3.0.0/24",
	                    "10.2.0.0/24"));
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 0);
	/* The child has a number of its own, and policies of its own. */
	trap.policy.reqid++;
	good(&world->a, trap);
	child.sa.reqid = trap.policy.reqid;
	good(&world->a, child);
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 1);
	assert_int_equal(len, TUN_HEADER + 100);
	/* Once only. */
	good(&world->a, sa(&world->a, &world->b, KMSG_OUT, 1001, "10.1.0.0/24",
	                    "10.2.0.0/24"));
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 0);
	world_free(world);
}

/* RFC 4301 5.2: what comes out of an SA must be what it is for. */
static void
holds_to_selectors(void **state)
{
	static uint8_t out[TUN_HEADER + TUN_PACKET];
	struct world *world = world_new();
	size_t len;

	(void)state;
	good(&world->b, sa(&world->b, &world->a, KMSG_IN, 1000, "10.2.0.0/24",
	                    "10.1.0.7/32"));
	good(&world->a, sa(&world->a, &world->b, KMSG_OUT, 1000, "10.1.0.0/24",
	                    "10.2.0.0/24"));
	good(&world->a, policy(&world->b, "10.1.0.0/24", "10.2.0.0/24", false));
	send_packet(&world->a, 1, 2, 100);
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 0);
	assert_int_equal(plane_stats(world->b.plane).not_selected, 1);
	world_free(world);
}

static void
too_big(void **state)
{
	static uint8_t out[TUN_HEADER + TUN_PACKET];
	struct world *world = world_new();
	struct inner inner;
	size_t len = 0;

	(void)state;
	connect_sides(world, 1000);
	/* Without a probe the path is an Ethernet: 1500 - 20 - 8 - 16 - 16,
	 * and the trailer. */
	send_packet(&world->a, 1, 2, 1438);
	settle(world);
	assert_int_equal(received(&world->a, out, sizeof(out), &len), 0);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 1);
	send_packet(&world->a, 1, 2, 1439);
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 0);
	assert_int_equal(received(&world->a, out, sizeof(out), &len), 1);
	assert_int_equal(
	    inner_parse(&inner, out + TUN_HEADER, len - TUN_HEADER), OK);
	assert_int_equal(inner.src_port, 3 << 8 | 4);
	assert_int_equal(
	    out[TUN_HEADER + 26] << 8 | out[TUN_HEADER + 27], 1438);
	world_free(world);
}

static void
mapping_and_move(void **state)
{
	static uint8_t out[TUN_HEADER + TUN_PACKET];
	struct world *world = world_new();
	struct kmsg request;
	size_t len;

	(void)state;
	connect_sides(world, 1000);
	/* b believes that a is elsewhere. */
	request = sa(
	    &world->b, &world->a, KMSG_IN, 1000, "10.2.0.0/24", "10.1.0.0/24");
	request.op = KMSG_SA_MOVE;
	request.sa.old_dst = request.sa.dst;
	request.sa.old_dst.port = 0;
	request.sa.src.port ^= 1;
	good(&world->b, request);
	send_packet(&world->a, 1, 2, 100);
	send_packet(&world->a, 1, 2, 100);
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 2);
	assert_int_equal(world->b.events, 1);
	assert_int_equal(world->b.event[0].kind, KEVENT_MAPPING);
	assert_int_equal(world->b.event[0].spi, 1000);
	assert_true(endpoint_equal(&world->b.event[0].remote, &world->a.at));
	/* a is told another port: what it sends is lost there. */
	request = sa(
	    &world->a, &world->b, KMSG_OUT, 1000, "10.1.0.0/24", "10.2.0.0/24");
	request.op = KMSG_SA_MOVE;
	request.sa.old_dst = request.sa.dst;
	request.sa.dst = world->a.at;
	good(&world->a, request);
	send_packet(&world->a, 1, 2, 100);
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 0);
	assert_int_equal(plane_stats(world->a.plane).unknown_spi, 1);
	world_free(world);
}

static void
expires(void **state)
{
	struct world *world = world_new();
	struct kmsg request = sa(
	    &world->b, &world->a, KMSG_IN, 1000, "10.2.0.0/24", "10.1.0.0/24");

	(void)state;
	request.sa.hard_ms = 5;
	good(&world->b, request);
	settle(world);
	assert_int_equal(world->b.events, 1);
	assert_int_equal(world->b.event[0].kind, KEVENT_EXPIRE);
	assert_true(world->b.event[0].hard);
	assert_int_equal(world->b.event[0].spi, 1000);
	assert_true(endpoint_equal(&world->b.event[0].remote, &world->b.at));
	assert_int_equal(plane_stats(world->b.plane).sas, 0);
	world_free(world);
}

/* A fragment of a UDP datagram between the hosts themselves, octets at to at. */
static void
send_piece(struct side *side, uint8_t dst, size_t whole, size_t at, size_t to)
{
	static uint8_t octets[TUN_HEADER + TUN_PACKET];
	uint8_t *ip = octets + TUN_HEADER;
	size_t len = 20 + to - at, i;
	size_t field = at / 8 + (to < whole ? 0x2000u : 0);

	memset(octets, 0, TUN_HEADER + 20);
	memcpy(ip,
	    (uint8_t[]){ 0x45, 2, (uint8_t)(len >> 8), (uint8_t)len, 7,
	        (uint8_t)whole, (uint8_t)(field >> 8), (uint8_t)field, 64,
	        INNER_UDP },
	    10);
	memcpy(ip + 12, (uint8_t[]){ 127, 0, 0, 1, 127, 0, 0, dst }, 8);
	inner_v4_checksum(ip, 20);
	for (i = at; i < to; i++)
		ip[20 + i - at] = (uint8_t)(i * 7 + (i >> 8));
	if (at == 0)
		memcpy(ip + 20, (uint8_t[]){ 6, 165, 6, 165 }, 4);
	assert_int_equal(
	    write(side->tun, octets, TUN_HEADER + len), TUN_HEADER + len);
}

/* RFC 4301 7: transport mode takes datagrams, not what the system cut for the
 * device. */
static void
transport_takes_whole(void **state)
{
	static uint8_t out[TUN_HEADER + TUN_PACKET];
	static const size_t sizes[] = { 1500, 9000, 60000 };
	struct world *world = world_new();
	struct kmsg in = sa(&world->b, &world->a, KMSG_IN, 1000,
	    "127.0.0.1/32[udp/1701]", "127.0.0.1/32[udp/1701]");
	struct kmsg to = sa(&world->a, &world->b, KMSG_OUT, 1000,
	    "127.0.0.1/32[udp/1701]", "127.0.0.0/8[udp/1701]");
	struct inner inner;
	size_t i, at, len;

	(void)state;
	in.sa.mode = to.sa.mode = MODE_TRANSPORT;
	good(&world->b, in);
	good(&world->a, to);
	good(&world->a, policy(&world->b, "127.0.0.1/32[udp/1701]",
	                    "127.0.0.0/8[udp/1701]", false));
	for (i = 0; i < 3; i++) {
		/* Two at once, one of which misses a piece. */
		send_piece(&world->a, 1, sizes[i] + 1, 0, 1376);
		for (at = 0; at < sizes[i]; at += 1376)
			send_piece(&world->a, 1, sizes[i], at,
			    at + 1376 < sizes[i] ? at + 1376 : sizes[i]);
		send_piece(&world->a, 1, sizes[i] + 1, 1384, sizes[i] + 1);
		send_piece(&world->a, 1, sizes[i] + 1, 1376, sizes[i] + 1);
		settle(world);
		assert_int_equal(
		    received(&world->b, out, sizeof(out), &len), 1);
		assert_int_equal(len, TUN_HEADER + 20 + sizes[i]);
		assert_int_equal(
		    inner_parse(&inner, out + TUN_HEADER, len - TUN_HEADER),
		    OK);
		assert_false(inner.fragment);
		assert_int_equal(inner.src_port, 1701);
		for (at = 4; at < sizes[i]; at++)
			assert_int_equal(out[TUN_HEADER + 20 + at],
			    (uint8_t)(at * 7 + (at >> 8)));
	}
	/* To another host than the SA's: the peer would take it for its own. */
	send_piece(&world->a, 2, 100, 0, 100);
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 0);
	assert_int_equal(received(&world->a, out, sizeof(out), &len), 0);
	assert_int_equal(plane_stats(world->a.plane).out, 3);
	world_free(world);
}

/* RFC 4303 3.3.3: a new SA is asked for in time, and the counter never
 * cycles. */
static void
counts_to_the_end(void **state)
{
	static uint8_t out[TUN_HEADER + TUN_PACKET];
	struct world *world = world_new();
	struct kmsg in = sa(
	    &world->b, &world->a, KMSG_IN, 1000, "10.2.0.0/24", "10.1.0.0/24");
	struct kmsg to = sa(
	    &world->a, &world->b, KMSG_OUT, 1000, "10.1.0.0/24", "10.2.0.0/24");
	size_t len;

	(void)state;
	in.sa.esn = to.sa.esn = false;
	good(&world->b, in);
	good(&world->a, to);
	good(&world->a, policy(&world->b, "10.1.0.0/24", "10.2.0.0/24", false));
	esp_begin_at(plane_esp(world->a.plane, &to.sa), 0xeffffffe);
	send_packet(&world->a, 1, 2, 100);
	settle(world);
	assert_int_equal(world->a.events, 0);
	send_packet(&world->a, 1, 2, 100);
	send_packet(&world->a, 1, 2, 100);
	settle(world);
	assert_int_equal(world->a.events, 1); /* once */
	assert_int_equal(world->a.event[0].kind, KEVENT_EXPIRE);
	assert_false(world->a.event[0].hard);
	assert_int_equal(world->a.event[0].spi, 1000);
	assert_true(endpoint_equal(&world->a.event[0].remote, &world->b.at));
	esp_begin_at(plane_esp(world->a.plane, &to.sa), 0xfffffffe);
	send_packet(&world->a, 1, 2, 100);
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 4);
	assert_int_equal(plane_stats(world->a.plane).sas, 1);
	send_packet(&world->a, 1, 2, 100);
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &len), 0);
	assert_int_equal(world->a.events, 2);
	assert_true(world->a.event[1].hard);
	assert_int_equal(plane_stats(world->a.plane).sas, 0);
	world_free(world);
}

/* Everybody can send to the port. */
static void
stands_garbage(void **state)
{
	static uint8_t out[TUN_HEADER + TUN_PACKET];
	struct world *world = world_new();
	struct sockaddr_storage to;
	struct endpoint from;
	int fd = udp(&from);
	unsigned len = endpoint_to_sockaddr(&world->b.at, &to);
	uint8_t octets[1500];
	uint32_t seed = 3;
	size_t i, n, got;

	(void)state;
	connect_sides(world, 0x11223344);
	for (n = 0; n < 400; n++) {
		for (i = 0; i < n; i++) {
			seed = seed * 1664525 + 1013904223;
			octets[i] = (uint8_t)(seed >> 24);
		}
		if (n % 3 == 0)
			memcpy(
			    octets, (uint8_t[]){ 0x11, 0x22, 0x33, 0x44 }, 4);
		assert_int_equal(
		    sendto(fd, octets, n, 0, (struct sockaddr *)&to, len), n);
		if (n % 50 == 0)
			settle(world);
	}
	/* A non-ESP marker with 40 octets of IKE. */
	memset(octets, 0, 4);
	memset(octets + 4, 1, 40);
	assert_int_equal(
	    sendto(fd, octets, 44, 0, (struct sockaddr *)&to, len), 44);
	settle(world);
	assert_int_equal(world->b.strays, 1);
	assert_int_equal(received(&world->b, out, sizeof(out), &got), 0);
	assert_true(plane_stats(world->b.plane).refused > 100);
	assert_int_equal(plane_stats(world->b.plane).in, 0);
	/* And garbage from the system's side. */
	for (n = 1; n < 200; n++)
		assert_int_equal(write(world->a.tun, octets, n), n);
	settle(world);
	send_packet(&world->a, 1, 2, 100);
	settle(world);
	assert_int_equal(received(&world->b, out, sizeof(out), &got), 1);
	close(fd);
	world_free(world);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(carries),
		cmocka_unit_test(newest_first),
		cmocka_unit_test(acquires),
		cmocka_unit_test(holds_the_first),
		cmocka_unit_test(holds_to_selectors),
		cmocka_unit_test(too_big),
		cmocka_unit_test(mapping_and_move),
		cmocka_unit_test(expires),
		cmocka_unit_test(counts_to_the_end),
		cmocka_unit_test(transport_takes_whole),
		cmocka_unit_test(stands_garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
