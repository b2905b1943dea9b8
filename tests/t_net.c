#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/env.h"
#include "common/loop.h"
#include "common/net.h"

/* The real network on loopback: two of ours, or ours and a bare socket. */
struct side {
	struct env env;
	struct net *net;
	unsigned count, strays;
	struct packet last;
	uint8_t octets[65536];
	bool answer;
};

struct scene {
	struct loop *loop;
	struct side a, b;
	bool v6; /* the system has ::1 */
};

static void
keep(struct side *side, const struct packet *packet)
{
	side->last = *packet;
	memcpy(side->octets, packet->octets.at, packet->octets.len);
	side->last.octets.at = side->octets;
}

static void
on_packet(struct env *env, const struct packet *packet)
{
	struct side *side = env->event_arg;

	side->count++;
	keep(side, packet);
	if (side->answer)
		net_send(env->net, &packet->local, &packet->remote,
		    packet->natt, packet->octets);
}

static void
on_stray(struct env *env, const struct packet *packet)
{
	struct side *side = env->event_arg;

	side->strays++;
	keep(side, packet);
}

static void
stop(void *arg)
{
	loop_stop(arg);
}

static void
spin(struct scene *s)
{
	struct timer timer;

	/* Turns, not milliseconds: a busy machine may eat those. */
	for (unsigned turn = 0; turn < 8; turn++) {
		timer_init(&timer, stop, s->loop);
		timer_set(loop_timers(s->loop), &timer, 1);
		loop_run(s->loop);
	}
}

static void
side_open(struct scene *s, struct side *side, bool strays)
{
	struct net_listen listen = { .ike_port = 0 };
	struct net_sockets sockets;
	const char *what;
	enum err err;

	assert_true(addr_parse(&listen.addr4, "127.0.0.1"));
	assert_true(addr_parse(&listen.addr6, "::1"));
	err = net_sockets_open(&sockets, &listen, &what);
	if (err) { /* no IPv6 on this system's loopback */
		listen.no6 = true;
		err = net_sockets_open(&sockets, &listen, &what);
	}
	assert_int_equal(err, OK);
	s->v6 = sockets.ike6 >= 0;
	side->env.timers = loop_timers(s->loop);
	side->env.event_arg = side;
	side->net = net_new(
	    &side->env, s->loop, &sockets, on_packet, strays ? on_stray : NULL);
	assert_non_null(side->net);
	side->env.net = side->net;
	assert_int_not_equal(net_port(side->net, false), 0);
	assert_int_not_equal(net_port(side->net, true), 0);
	assert_int_not_equal(
	    net_port(side->net, false), net_port(side->net, true));
}

static struct scene *
scene_open(void)
{
	struct scene *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->loop = loop_new();
	assert_non_null(s->loop);
	side_open(s, &s->a, false);
	side_open(s, &s->b, true);
	return s;
}

static void
scene_close(struct scene *s)
{
	net_free(s->a.net);
	net_free(s->b.net);
	loop_free(s->loop);
	free(s);
}

static struct endpoint
at(const struct side *side, const char *text, bool natt)
{
	struct endpoint endpoint;

	assert_true(addr_parse(&endpoint.addr, text));
	endpoint.port = net_port(side->net, natt);
	return endpoint;
}

static void
both_ways(struct scene *s, const char *address, bool natt)
{
	struct endpoint a = at(&s->a, address, natt);
	struct endpoint b = at(&s->b, address, natt);

	s->a.count = s->b.count = 0;
	s->b.answer = true;
	net_send(s->a.net, &a, &b, natt, view_of("question", 8));
	spin(s);
	assert_int_equal(s->b.count, 1);
	assert_true(endpoint_equal(&s->b.last.remote, &a));
	assert_true(endpoint_equal(&s->b.last.local, &b));
	assert_int_equal(s->b.last.natt, natt);
	assert_true(view_equal(s->b.last.octets, view_of("question", 8)));
	assert_int_equal(s->a.count, 1);
	assert_true(endpoint_equal(&s->a.last.remote, &b));
	assert_true(view_equal(s->a.last.octets, view_of("question", 8)));
	s->b.answer = false;
}

static void
packets_go_both_ways(void **state)
{
	struct scene *s = scene_open();

	(void)state;
	both_ways(s, "127.0.0.1", false);
	both_ways(s, "127.0.0.1", true);
	if (s->v6) {
		both_ways(s, "::1", false);
		both_ways(s, "::1", true);
	}
	assert_int_equal(s->a.env.counter[COUNTER_PACKETS_UNSENT], 0);
	assert_int_equal(s->a.env.counter[COUNTER_PACKETS_OUT], s->v6 ? 4 : 2);
	scene_close(s);
}

static void
batches_and_sizes(void **state)
{
	static const size_t len[] = { 0, 1, 1500, 65507 - 4 - 1, 65507 - 4 };
	static uint8_t octets[65507];
	struct scene *s = scene_open();
	struct endpoint a = at(&s->a, "127.0.0.1", true);
	struct endpoint b = at(&s->b, "127.0.0.1", true);
	unsigned i;

	(void)state;
	memset(octets, 0x5a, sizeof(octets));
	for (i = 0; i < 100; i++)
		net_send(s->a.net, &a, &b, true, view_of("12345678", 8));
	spin(s);
	assert_int_equal(s->b.count, 100);
	for (i = 0; i < sizeof(len) / sizeof(len[0]); i++) {
		s->b.count = 0;
		net_send(s->a.net, &a, &b, true, view_of(octets, len[i]));
		spin(s);
		assert_int_equal(s->b.count, 1);
		assert_int_equal(s->b.last.octets.len, len[i]);
		assert_memory_equal(s->b.octets, octets, len[i]);
	}
	/* One octet more than UDP carries is refused; the others go. */
	s->b.count = 0;
	net_send(s->a.net, &a, &b, true, view_of("first", 5));
	net_send(s->a.net, &a, &b, true, view_of(octets, 65507 - 3));
	net_send(s->a.net, &a, &b, true, view_of("third", 5));
	spin(s);
	assert_int_equal(s->b.count, 2);
	assert_true(view_equal(s->b.last.octets, view_of("third", 5)));
	assert_int_equal(s->a.env.counter[COUNTER_PACKETS_UNSENT], 1);
	scene_close(s);
}

/* RFC 3948: what may stand on the NAT-T port. */
static void
marker_and_keepalive(void **state)
{
	struct scene *s = scene_open();
	struct endpoint a = at(&s->a, "127.0.0.1", true);
	struct endpoint b = at(&s->b, "127.0.0.1", true);
	struct sockaddr_storage to;
	unsigned to_len = endpoint_to_sockaddr(&b, &to);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	static const struct {
		const char *octets;
		size_t len;
		unsigned received, strays, malformed;
	} row[] = {
		{ "\xff", 1, 0, 0, 0 },
		{ "\0", 1, 0, 0, 1 },
		{ "\xff\xff", 2, 0, 0, 1 },
		{ "", 0, 0, 0, 1 },
		{ "\0\0\0", 3, 0, 0, 1 },
		{ "\0\0\0\0", 4, 1, 0, 0 },
		{ "\0\0\0\0x", 5, 1, 0, 0 },
		{ "\0\0\0\1", 4, 0, 1, 0 },
		{ "\1\0\0\0ESP", 7, 0, 1, 0 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		s->b.count = s->b.strays = 0;
		s->b.env.counter[COUNTER_PACKETS_MALFORMED] = 0;
		assert_int_equal(sendto(fd, row[i].octets, row[i].len, 0,
		                     (struct sockaddr *)&to, to_len),
		    row[i].len);
		spin(s);
		assert_int_equal(s->b.count, row[i].received);
		assert_int_equal(s->b.strays, row[i].strays);
		assert_int_equal(s->b.env.counter[COUNTER_PACKETS_MALFORMED],
		    row[i].malformed);
		if (row[i].received)
			assert_int_equal(s->b.last.octets.len, row[i].len - 4);
		if (row[i].strays)
			assert_int_equal(s->b.last.octets.len, row[i].len);
	}
	/* Without a taker, strays are malformed. */
	to_len = endpoint_to_sockaddr(&a, &to);
	assert_int_equal(
	    sendto(fd, "\1\2\3\4", 4, 0, (struct sockaddr *)&to, to_len), 4);
	spin(s);
	assert_int_equal(s->a.count, 0);
	assert_int_equal(s->a.env.counter[COUNTER_PACKETS_MALFORMED], 1);
	/* Our keepalive is one octet, from the NAT-T port. */
	{
		struct endpoint own = { .port = 0 }, from;
		socklen_t len = sizeof(to);
		uint8_t octets[8];

		assert_true(addr_parse(&own.addr, "127.0.0.1"));
		to_len = endpoint_to_sockaddr(&own, &to);
		close(fd);
		fd = socket(AF_INET, SOCK_DGRAM, 0);
		assert_int_equal(bind(fd, (struct sockaddr *)&to, to_len), 0);
		assert_int_equal(
		    getsockname(fd, (struct sockaddr *)&to, &len), 0);
		assert_true(
		    endpoint_from_sockaddr(&own, (struct sockaddr *)&to, len));
		s->b.net->ops->keepalive(s->b.net, &b, &own);
		spin(s);
		len = sizeof(to);
		assert_int_equal(
		    recvfrom(fd, octets, sizeof(octets), MSG_DONTWAIT,
		        (struct sockaddr *)&to, &len),
		    1);
		assert_int_equal(octets[0], 0xff);
		assert_true(
		    endpoint_from_sockaddr(&from, (struct sockaddr *)&to, len));
		assert_true(endpoint_equal(&from, &b));
	}
	close(fd);
	scene_close(s);
}

/* What cannot be sent is lost and counted, and never in the way of others. */
static void
failures_are_losses(void **state)
{
	struct scene *s = scene_open();
	struct endpoint a = at(&s->a, "127.0.0.1", false);
	struct endpoint b = at(&s->b, "127.0.0.1", false);
	struct endpoint foreign = a, none = { .port = 500 };

	(void)state;
	assert_true(addr_parse(&foreign.addr, "192.0.2.77"));
	net_send(s->a.net, &a, &b, false, view_of("one", 3));
	net_send(s->a.net, &foreign, &b, false, view_of("two", 3));
	net_send(s->a.net, &a, &none, false, view_of("three", 5));
	net_send(s->a.net, &none, &b, false, view_of("four", 4));
	spin(s);
	assert_int_equal(s->b.count, 2);
	assert_true(view_equal(s->b.last.octets, view_of("four", 4)));
	assert_int_equal(s->a.env.counter[COUNTER_PACKETS_UNSENT], 2);
	assert_int_equal(s->a.env.counter[COUNTER_PACKETS_OUT], 2);
	scene_close(s);
}

static void
local_address_is_the_one_asked(void **state)
{
	struct net_listen listen = { .no6 = true };
	struct net_sockets sockets;
	struct scene *s = scene_open();
	struct side wide = { .count = 0 };
	struct endpoint to, a = at(&s->a, "127.0.0.1", false);
	const char *what;

	(void)state;
	assert_int_equal(net_sockets_open(&sockets, &listen, &what), OK);
	wide.env.event_arg = &wide;
	wide.answer = true;
	wide.net = net_new(&wide.env, s->loop, &sockets, on_packet, NULL);
	assert_non_null(wide.net);
	wide.env.net = wide.net;
	/* Loopback is 127/8: the answer must come from where the question
	 * went, not from the address that the system would choose. */
	to = at(&wide, "127.0.0.7", false);
	net_send(s->a.net, &a, &to, false, view_of("hello", 5));
	spin(s);
	assert_int_equal(wide.count, 1);
	assert_true(endpoint_equal(&wide.last.local, &to));
	assert_int_equal(s->a.count, 1);
	assert_true(endpoint_equal(&s->a.last.remote, &to));
	net_free(wide.net);
	scene_close(s);
}

static void
source_is_what_the_system_says(void **state)
{
	struct scene *s = scene_open();
	struct addr remote, local, expected;
	unsigned i;

	(void)state;
	for (i = 0; i < 3; i++) { /* the probe may be used again */
		assert_true(addr_parse(&remote, "127.0.0.9"));
		assert_true(addr_parse(&expected, "127.0.0.1"));
		assert_true(s->a.net->ops->source(s->a.net, &remote, &local));
		assert_true(addr_equal(&local, &expected));
		if (!s->v6)
			continue;
		assert_true(addr_parse(&remote, "::1"));
		assert_true(s->a.net->ops->source(s->a.net, &remote, &local));
		assert_true(addr_equal(&local, &remote));
	}
	remote = addr_any(ADDR_V4);
	assert_false(s->a.net->ops->source(s->a.net, &remote, &local));
	memset(&remote, 0, sizeof(remote));
	assert_false(s->a.net->ops->source(s->a.net, &remote, &local));
	scene_close(s);
}

static void
ports_in_use_are_named(void **state)
{
	struct net_listen listen = { .no6 = true };
	struct net_sockets first, second;
	const char *what = NULL;

	(void)state;
	assert_int_equal(net_sockets_open(&first, &listen, &what), OK);
	listen.ike_port = first.ike_port;
	assert_int_equal(net_sockets_open(&second, &listen, &what), ERR_IO);
	assert_int_equal(errno, EADDRINUSE);
	assert_string_equal(what, "bind to the IKE port");
	assert_int_equal(second.ike4, -1);
	listen.ike_port = 0;
	listen.natt_port = first.natt_port;
	assert_int_equal(net_sockets_open(&second, &listen, &what), ERR_IO);
	assert_string_equal(what, "bind to the NAT-T port");
	assert_int_equal(second.ike4, -1);
	net_sockets_close(&first);
	assert_int_equal(first.probe4, -1);
	/* With share, a second process may have the NAT-T port too. */
	listen.natt_port = 0;
	listen.share = true;
	assert_int_equal(net_sockets_open(&first, &listen, &what), OK);
	listen.natt_port = first.natt_port;
	assert_int_equal(net_sockets_open(&second, &listen, &what), OK);
	assert_int_equal(first.natt_port, second.natt_port);
	net_sockets_close(&first);
	net_sockets_close(&second);
}

/* Connected by somebody else to one peer, they hear all after it. */
static void
connected_sockets_are_freed(void **state)
{
	struct net_listen listen = { .no6 = true };
	struct endpoint to = { .port = 9 };
	struct sockaddr_storage name;
	struct net_sockets sockets;
	const char *what = NULL;
	unsigned len;
	char octet;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_true(addr_parse(&to.addr, "127.0.0.1"));
	assert_int_equal(net_sockets_open(&sockets, &listen, &what), OK);
	/* A port that was asked for is kept, any other is not. */
	net_sockets_close(&sockets);
	listen.natt_port = sockets.natt_port;
	assert_int_equal(net_sockets_open(&sockets, &listen, &what), OK);
	len = endpoint_to_sockaddr(&to, &name);
	assert_int_equal(
	    connect(sockets.natt4, (struct sockaddr *)&name, len), 0);
	net_sockets_hear_all(&sockets);
	to.port = sockets.natt_port;
	len = endpoint_to_sockaddr(&to, &name);
	assert_int_equal(
	    sendto(fd, "x", 1, 0, (struct sockaddr *)&name, len), 1);
	assert_int_equal(recv(sockets.natt4, &octet, 1, MSG_DONTWAIT), 1);
	net_sockets_close(&sockets);
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(packets_go_both_ways),
		cmocka_unit_test(batches_and_sizes),
		cmocka_unit_test(marker_and_keepalive),
		cmocka_unit_test(failures_are_losses),
		cmocka_unit_test(local_address_is_the_one_asked),
		cmocka_unit_test(source_is_what_the_system_says),
		cmocka_unit_test(ports_in_use_are_named),
		cmocka_unit_test(connected_sockets_are_freed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
