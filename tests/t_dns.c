#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <ldns/ldns.h>

#include "common/dns.h"
#include "common/env.h"
#include "common/loop.h"

/* A small server on loopback that answers, lies or keeps silent by the first
 * label of the name. Sockets are real, the clock of dns is the test's. */
struct result {
	unsigned calls;
	enum err err;
	struct addr addr[DNS_ADDRS];
	size_t count;
	uint32_t ttl;
};

struct scene {
	struct loop *loop;
	struct env env;
	struct timers timers;
	struct dns *dns;
	int udp, tcp, stream;
	struct loop_watch *watch_udp, *watch_tcp, *watch_stream;
	uint16_t port;
	unsigned asked, asked_tcp;
	uint16_t last_id;
	char last_name[256];
	uint8_t in[600];
	size_t in_len;
};

static bool
chance(void *arg, void *octets, size_t len)
{
	static uint8_t next;
	uint8_t *at = octets;

	(void)arg;
	while (len--)
		*at++ = next += 37;
	return true;
}

static void
add(ldns_pkt *answer, const char *name, unsigned ttl, const char *type,
    const char *what)
{
	char text[600];
	ldns_rr *rr = NULL;

	snprintf(text, sizeof(text), "%s %u IN %s %s", name, ttl, type, what);
	assert_int_equal(
	    ldns_rr_new_frm_str(&rr, text, 0, NULL, NULL), LDNS_STATUS_OK);
	ldns_pkt_push_rr(answer, LDNS_SECTION_ANSWER, rr);
}

static void
add_many(ldns_pkt *answer, const char *name, bool v6)
{
	char what[40];
	int i;

	for (i = 1; i <= 12; i++) {
		snprintf(
		    what, sizeof(what), v6 ? "2001:db8::%d" : "192.0.2.%d", i);
		add(answer, name, 300, v6 ? "AAAA" : "A", what);
	}
}

/* Fills the answer to name. False: say nothing. */
static bool
script(const char *name, bool v6, bool tcp, bool edns, ldns_pkt *answer)
{
	char label[64], next[80];
	int i;

	assert_int_equal(sscanf(name, "%63[^.]", label), 1);
	if (strcmp(label, "silent") == 0 || (strcmp(label, "only4") == 0 && v6))
		return false;
	if (strcmp(label, "nx") == 0 || strstr(name, ".nx.")) {
		ldns_pkt_set_rcode(answer, LDNS_RCODE_NXDOMAIN);
	} else if (strcmp(label, "fail") == 0) {
		ldns_pkt_set_rcode(answer, LDNS_RCODE_SERVFAIL);
	} else if (strcmp(label, "noedns") == 0 && edns) {
		ldns_pkt_set_rcode(answer, LDNS_RCODE_FORMERR);
	} else if (strcmp(label, "bare") == 0 && edns) {
		ldns_pkt_set_rcode(answer, LDNS_RCODE_FORMERR);
		ldns_rr_free(ldns_rr_list_pop_rr(ldns_pkt_question(answer)));
		ldns_pkt_set_qdcount(answer, 0);
	} else if (strcmp(label, "cut") == 0) {
		if (tcp)
			add_many(answer, name, v6);
		else
			ldns_pkt_set_tc(answer, true);
	} else if (strcmp(label, "many") == 0) {
		add_many(answer, name, v6);
	} else if (strcmp(label, "chain") == 0) {
		add(answer, name, 50, "CNAME", "b.example.");
		add(answer, "b.example.", 40, "CNAME", "C.example.");
		if (!v6)
			add(answer, "c.EXAMPLE.", 300, "A", "192.0.2.33");
		add(answer, "other.example.", 300, "A", "192.0.2.99");
	} else if (strcmp(label, "loop") == 0) {
		add(answer, name, 50, "CNAME", name);
	} else if (strcmp(label, "long8") == 0 || strcmp(label, "long9") == 0) {
		add(answer, name, 50, "CNAME", "l1.example.");
		for (i = 1; i < label[4] - '0'; i++) {
			snprintf(label, sizeof(label), "l%d.example.", i);
			snprintf(next, sizeof(next), "l%d.example.", i + 1);
			add(answer, label, 50, "CNAME", next);
			snprintf(label, sizeof(label), "%.5s", name);
		}
		snprintf(next, sizeof(next), "l%d.example.", i);
		add(answer, next, 5, v6 ? "AAAA" : "A",
		    v6 ? "2001:db8::8" : "192.0.2.8");
	} else if (strcmp(label, "zero") == 0) {
		add(answer, name, 5, v6 ? "AAAA" : "A", v6 ? "::" : "0.0.0.0");
	} else if (v6) {
		add(answer, name, 60, "AAAA", "2001:db8::1");
	} else {
		add(answer, name, 300, "A", "192.0.2.1");
	}
	return true;
}

/* The octets of an answer; 0: none. The caller frees. */
static size_t
respond(struct scene *s, const uint8_t *octets, size_t len, bool tcp,
    uint8_t **wire)
{
	ldns_pkt *asked = NULL, *answer;
	const ldns_rr *rr;
	size_t out = 0;
	char *name;

	assert_int_equal(ldns_wire2pkt(&asked, octets, len), LDNS_STATUS_OK);
	assert_int_equal(ldns_rr_list_rr_count(ldns_pkt_question(asked)), 1);
	assert_true(ldns_pkt_rd(asked));
	rr = ldns_rr_list_rr(ldns_pkt_question(asked), 0);
	name = ldns_rdf2str(ldns_rr_owner(rr));
	snprintf(s->last_name, sizeof(s->last_name), "%s", name);
	s->last_id = ldns_pkt_id(asked);
	answer = ldns_pkt_new();
	ldns_pkt_set_id(answer, s->last_id);
	ldns_pkt_set_qr(answer, true);
	ldns_pkt_push_rr(answer, LDNS_SECTION_QUESTION, ldns_rr_clone(rr));
	if (script(name, ldns_rr_get_type(rr) == LDNS_RR_TYPE_AAAA, tcp,
	        ldns_pkt_edns(asked), answer))
		assert_int_equal(
		    ldns_pkt2wire(wire, answer, &out), LDNS_STATUS_OK);
	free(name);
	ldns_pkt_free(answer);
	ldns_pkt_free(asked);
	return out;
}

/* Before the truth, some lies: each with an address of its own. */
static void
lie(struct scene *s, const struct sockaddr_storage *from, socklen_t from_len,
    const uint8_t *octets, size_t len)
{
	uint8_t copy[4096];
	size_t i;

	memcpy(copy, octets, len);
	copy[len - 1] = 66; /* of the address */
	copy[0] ^= 1;       /* the ID */
	sendto(s->udp, copy, len, 0, (const struct sockaddr *)from, from_len);
	copy[0] ^= 1;
	copy[13] ^= 1; /* a letter of the question's name */
	sendto(s->udp, copy, len, 0, (const struct sockaddr *)from, from_len);
	copy[13] ^= 1;
	copy[2] &= 0x7f; /* not a response */
	sendto(s->udp, copy, len, 0, (const struct sockaddr *)from, from_len);
	copy[2] |= 0x80;
	copy[5] = 0; /* no question at all */
	sendto(s->udp, copy, len, 0, (const struct sockaddr *)from, from_len);
	copy[5] = 1;
	for (i = 0; i < len; i += 3) /* cut anywhere */
		sendto(s->udp, copy, i, 0, (const struct sockaddr *)from,
		    from_len);
	memset(copy, 0xc0, sizeof(copy)); /* pointers to pointers */
	memcpy(copy, octets, 2);
	sendto(s->udp, copy, 512, 0, (const struct sockaddr *)from, from_len);
}

static void
serve_udp(void *arg)
{
	struct scene *s = arg;
	struct sockaddr_storage from;
	socklen_t from_len = sizeof(from);
	uint8_t octets[1500], *wire = NULL;
	ssize_t len;
	size_t out;

	len = recvfrom(s->udp, octets, sizeof(octets), MSG_DONTWAIT,
	    (struct sockaddr *)&from, &from_len);
	if (len < 0)
		return;
	s->asked++;
	out = respond(s, octets, (size_t)len, false, &wire);
	if (out == 0)
		return;
	if (strncmp(s->last_name, "lies.", 5) == 0)
		lie(s, &from, from_len, wire, out);
	sendto(s->udp, wire, out, 0, (struct sockaddr *)&from, from_len);
	free(wire);
}

/* One TCP question a connection, answered in small pieces. */
static void
serve_stream(void *arg)
{
	struct scene *s = arg;
	uint8_t *wire = NULL, head[2];
	ssize_t len;
	size_t out, i;

	len = recv(s->stream, s->in + s->in_len, sizeof(s->in) - s->in_len,
	    MSG_DONTWAIT);
	if (len > 0)
		s->in_len += (size_t)len;
	if (len > 0 && (s->in_len < 2 ||
	                   s->in_len < 2 + ((size_t)s->in[0] << 8 | s->in[1])))
		return;
	if (len > 0) {
		s->asked_tcp++;
		out = respond(s, s->in + 2, s->in_len - 2, true, &wire);
		head[0] = (uint8_t)(out >> 8);
		head[1] = (uint8_t)out;
		assert_int_equal(send(s->stream, head, 1, 0), 1);
		assert_int_equal(send(s->stream, head + 1, 1, 0), 1);
		for (i = 0; i < out; i += 50)
			assert_true(send(s->stream, wire + i,
			                out - i < 50 ? out - i : 50, 0) > 0);
		free(wire);
	}
	loop_unwatch(s->watch_stream);
	close(s->stream);
	s->watch_stream = NULL;
	loop_watch_read(s->watch_tcp, true);
}

static void
serve_tcp(void *arg)
{
	struct scene *s = arg;

	s->stream = accept(s->tcp, NULL, NULL);
	s->in_len = 0;
	s->watch_stream = loop_watch(s->loop, s->stream, serve_stream, NULL, s);
	loop_watch_read(s->watch_tcp, false);
}

static void
scene_open(struct scene *s, const char *resolv, const char *hosts)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t len = sizeof(at);

	memset(s, 0, sizeof(*s));
	s->loop = loop_new();
	assert_non_null(s->loop);
	timers_init(&s->timers, 1000);
	s->env.timers = &s->timers;
	s->env.random = chance;
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	s->udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(s->udp, (struct sockaddr *)&at, len), 0);
	assert_int_equal(getsockname(s->udp, (struct sockaddr *)&at, &len), 0);
	s->port = ntohs(at.sin_port);
	s->tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(s->tcp, (struct sockaddr *)&at, len), 0);
	assert_int_equal(listen(s->tcp, 8), 0);
	s->watch_udp = loop_watch(s->loop, s->udp, serve_udp, NULL, s);
	s->watch_tcp = loop_watch(s->loop, s->tcp, serve_tcp, NULL, s);
	s->dns = dns_new(&s->env, s->loop, resolv, hosts);
	assert_non_null(s->dns);
	dns_port(s->dns, s->port);
}

static void
scene_close(struct scene *s)
{
	dns_free(s->dns);
	loop_unwatch(s->watch_stream);
	loop_unwatch(s->watch_udp);
	loop_unwatch(s->watch_tcp);
	close(s->udp);
	close(s->tcp);
	loop_free(s->loop);
}

static void
stop(void *arg)
{
	loop_stop(arg);
}

/* Lets ms of dns's time pass, after sockets had their say. */
static void
pass(struct scene *s, uint64_t ms)
{
	struct timer timer;

	timers_run(&s->timers, s->timers.now_ms, 1000);
	timer_init(&timer, stop, s->loop);
	timer_set(loop_timers(s->loop), &timer, 4);
	loop_run(s->loop);
	timers_run(&s->timers, s->timers.now_ms + ms, 1000);
}

static void
on_done(void *arg, enum err err, const struct addr *addrs, size_t count,
    uint32_t ttl_s)
{
	struct result *result = arg;

	result->calls++;
	result->err = err;
	result->count = count;
	result->ttl = ttl_s;
	memcpy(result->addr, addrs, count * sizeof(*addrs));
}

static struct result
ask(struct scene *s, const char *name, uint8_t family, uint64_t limit_ms)
{
	struct result result = { 0 };
	uint64_t end = s->timers.now_ms + limit_ms;

	assert_int_equal(
	    dns_resolve(s->dns, name, family, on_done, &result), OK);
	assert_int_equal(result.calls, 0); /* never from inside */
	do
		pass(s, limit_ms < 100 ? limit_ms : 100);
	while (!result.calls && s->timers.now_ms < end);
	assert_int_equal(result.calls, 1);
	return result;
}

static void
expect_addr(const struct result *result, size_t at, const char *text)
{
	struct addr addr;

	assert_true(addr_parse(&addr, text));
	assert_true(at < result->count);
	assert_true(addr_equal(&addr, &result->addr[at]));
}

#define RESOLV "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"

static void
both_families(void **state)
{
	struct result result;
	struct scene s;

	(void)state;
	scene_open(&s, RESOLV, NULL);
	result = ask(&s, "plain.example", 0, 200);
	assert_int_equal(result.err, OK);
	assert_int_equal(result.count, 2);
	expect_addr(&result, 0, "192.0.2.1");
	expect_addr(&result, 1, "2001:db8::1");
	assert_int_equal(result.ttl, 60); /* the smaller one */
	assert_int_equal(s.asked, 2);
	result = ask(&s, "plain.example", ADDR_V4, 200);
	assert_int_equal(result.count, 1);
	expect_addr(&result, 0, "192.0.2.1");
	assert_int_equal(result.ttl, 300);
	assert_int_equal(s.asked, 3);
	result = ask(&s, "plain.example", ADDR_V6, 200);
	assert_int_equal(result.count, 1);
	expect_addr(&result, 0, "2001:db8::1");
	result = ask(&s, "many.example", 0, 200);
	assert_int_equal(result.count, DNS_ADDRS);
	expect_addr(&result, 3, "192.0.2.4");
	expect_addr(&result, 4, "2001:db8::1");
	result = ask(&s, "many.example", ADDR_V6, 200);
	assert_int_equal(result.count, DNS_ADDRS);
	scene_close(&s);
}

static void
what_is_not_there(void **state)
{
	struct result result;
	struct scene s;

	(void)state;
	scene_open(&s, RESOLV, NULL);
	result = ask(&s, "nx.example", 0, 200);
	assert_int_equal(result.err, ERR_NOT_FOUND);
	assert_int_equal(result.count, 0);
	result = ask(&s, "fail.example", 0, 200);
	assert_int_equal(result.err, ERR_IO);
	result = ask(&s, "zero.example", 0, 200);
	assert_int_equal(result.err, ERR_NOT_FOUND);
	scene_close(&s);
}

static void
names_behind_names(void **state)
{
	struct result result;
	struct scene s;

	(void)state;
	scene_open(&s, RESOLV, NULL);
	result = ask(&s, "chain.example", 0, 200);
	assert_int_equal(result.err, OK);
	assert_int_equal(result.count, 1);
	expect_addr(&result, 0, "192.0.2.33");
	assert_int_equal(result.ttl, 40);
	result = ask(&s, "long8.example", ADDR_V4, 200);
	assert_int_equal(result.err, OK);
	expect_addr(&result, 0, "192.0.2.8");
	result = ask(&s, "long9.example", ADDR_V4, 200);
	assert_int_equal(result.err, ERR_NOT_FOUND);
	result = ask(&s, "loop.example", 0, 200);
	assert_int_equal(result.err, ERR_NOT_FOUND);
	scene_close(&s);
}

static void
truncation_goes_to_tcp(void **state)
{
	struct result result;
	struct scene s;

	(void)state;
	scene_open(&s, RESOLV, NULL);
	result = ask(&s, "cut.example", ADDR_V4, 300);
	assert_int_equal(result.err, OK);
	assert_int_equal(result.count, DNS_ADDRS);
	expect_addr(&result, 7, "192.0.2.8");
	assert_int_equal(s.asked, 1);
	assert_int_equal(s.asked_tcp, 1);
	scene_close(&s);
}

static void
lies_are_not_believed(void **state)
{
	struct result result;
	struct scene s;

	(void)state;
	scene_open(&s, RESOLV, NULL);
	result = ask(&s, "lies.example", ADDR_V4, 300);
	assert_int_equal(result.err, OK);
	assert_int_equal(result.count, 1);
	expect_addr(&result, 0, "192.0.2.1");
	scene_close(&s);
}

static void
servers_without_edns(void **state)
{
	struct result result;
	struct scene s;

	(void)state;
	scene_open(&s, RESOLV, NULL);
	result = ask(&s, "noedns.example", ADDR_V4, 300);
	assert_int_equal(result.err, OK);
	assert_int_equal(s.asked, 2);
	result = ask(&s, "bare.example", ADDR_V4, 300);
	assert_int_equal(result.err, OK);
	assert_int_equal(s.asked, 4);
	scene_close(&s);
}

static void
silence_ends(void **state)
{
	struct result result;
	struct scene s;
	uint64_t begin;

	(void)state;
	scene_open(&s,
	    "nameserver 127.0.0.1\nnameserver 127.0.0.1\n"
	    "options timeout:2 attempts:3\n",
	    NULL);
	begin = s.timers.now_ms;
	result = ask(&s, "silent.example", ADDR_V4, 20000);
	assert_int_equal(result.err, ERR_TIMEOUT);
	/* 2 servers, 3 tries, 2 s each. */
	assert_int_equal(s.asked, 6);
	assert_in_range(s.timers.now_ms - begin, 12000, 12300);
	/* An address in hand is not kept waiting so long. */
	begin = s.timers.now_ms;
	result = ask(&s, "only4.example", 0, 20000);
	assert_int_equal(result.err, OK);
	assert_int_equal(result.count, 1);
	assert_in_range(s.timers.now_ms - begin, 1000, 1300);
	scene_close(&s);
}

static void
dead_servers_are_passed(void **state)
{
	struct result result;
	struct scene s;

	(void)state;
	/* Nobody listens on the first: known at once. */
	scene_open(&s, "nameserver 127.0.0.2\nnameserver 127.0.0.1\n", NULL);
	result = ask(&s, "plain.example", 0, 300);
	assert_int_equal(result.err, OK);
	assert_int_equal(result.count, 2);
	scene_close(&s);
	scene_open(&s, "nameserver 127.0.0.2\n", NULL);
	result = ask(&s, "plain.example", 0, 300);
	assert_int_equal(result.err, ERR_IO);
	scene_close(&s);
}

static void
search_list(void **state)
{
	struct result result;
	struct scene s;

	(void)state;
	scene_open(&s,
	    "# comment\nsearch wrong.example\n"
	    "search a.nx. good.example # not this\n" RESOLV,
	    NULL);
	result = ask(&s, "host", ADDR_V4, 500);
	assert_int_equal(result.err, OK);
	assert_string_equal(s.last_name, "host.good.example.");
	assert_int_equal(s.asked, 2);
	/* With a dot: as it is, and that is that. */
	result = ask(&s, "host.other", ADDR_V4, 500);
	assert_string_equal(s.last_name, "host.other.");
	assert_int_equal(s.asked, 3);
	/* A dot at the end: no search at all. */
	result = ask(&s, "nx.", ADDR_V4, 500);
	assert_int_equal(result.err, ERR_NOT_FOUND);
	assert_int_equal(s.asked, 4);
	/* Without one: search list first, then as it is. */
	s.asked = 0;
	result = ask(&s, "nx", ADDR_V4, 500);
	assert_int_equal(result.err, ERR_NOT_FOUND);
	assert_string_equal(s.last_name, "nx.");
	assert_int_equal(s.asked, 3);
	scene_close(&s);
	scene_open(&s, "domain good.example\noptions ndots:2\n" RESOLV, NULL);
	result = ask(&s, "one.dot", ADDR_V4, 500);
	assert_string_equal(s.last_name, "one.dot.good.example.");
	scene_close(&s);
}

static void
hosts_come_first(void **state)
{
	struct result result;
	struct scene s;

	(void)state;
	scene_open(&s, RESOLV,
	    "127.0.0.1\tlocalhost\n"
	    "# 192.0.2.200 gate\n"
	    "192.0.2.50  gate.example Gate # east\n"
	    "2001:db8::50 gate\n"
	    "300.1.2.3 bad\n"
	    "192.0.2.51 gate");
	result = ask(&s, "GATE", 0, 10);
	assert_int_equal(result.err, OK);
	assert_int_equal(result.count, 3);
	expect_addr(&result, 0, "192.0.2.50");
	expect_addr(&result, 1, "2001:db8::50");
	expect_addr(&result, 2, "192.0.2.51");
	result = ask(&s, "gate.example.", ADDR_V4, 10);
	assert_int_equal(result.count, 1);
	result = ask(&s, "192.0.2.9", 0, 10);
	expect_addr(&result, 0, "192.0.2.9");
	result = ask(&s, "192.0.2.9", ADDR_V6, 10);
	assert_int_equal(result.err, ERR_NOT_FOUND);
	assert_int_equal(s.asked, 0);
	scene_close(&s);
	scene_open(&s, NULL, NULL);
	result = ask(&s, "gate", 0, 10);
	assert_int_equal(result.err, ERR_IO);
	result = ask(&s, "192.0.2.9", ADDR_V6, 10);
	assert_int_equal(result.err, ERR_NOT_FOUND);
	scene_close(&s);
}

static void
names_are_checked(void **state)
{
	static const char *const bad[] = { "", ".", "a..b", ".a", "a b", "a/b",
		"a\\.b", "\xc3\xa4", "a\n" };
	struct result result = { 0 };
	char name[300];
	struct scene s;
	size_t i;

	(void)state;
	scene_open(&s, RESOLV, NULL);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(
		    dns_resolve(s.dns, bad[i], 0, on_done, &result),
		    ERR_SYNTAX);
	memset(name, 'a', sizeof(name));
	name[64] = '\0';
	assert_int_equal(
	    dns_resolve(s.dns, name, 0, on_done, &result), ERR_SYNTAX);
	name[63] = '\0';
	assert_int_equal(
	    dns_resolve(s.dns, name, ADDR_V4, on_done, &result), OK);
	dns_cancel(s.dns, &result);
	for (i = 254; i <= 256; i++) {
		memset(name, 'a', sizeof(name));
		for (size_t j = 50; j < i; j += 50)
			name[j] = '.';
		name[i] = '\0';
		assert_int_equal(dns_resolve(s.dns, name, 0, on_done, &result),
		    i == 254 ? OK : ERR_SYNTAX);
	}
	/* The one that was taken has no room on the wire: an end all the
	 * same. */
	while (!result.calls)
		pass(&s, 1000);
	assert_int_not_equal(result.err, OK);
	scene_close(&s);
}

static void
cancelled_and_limited(void **state)
{
	struct result first = { 0 }, second = { 0 };
	struct scene s;
	enum err err;
	unsigned i;

	(void)state;
	scene_open(&s, RESOLV, NULL);
	assert_int_equal(
	    dns_resolve(s.dns, "plain.example", 0, on_done, &first), OK);
	assert_int_equal(
	    dns_resolve(s.dns, "plain.example", 0, on_done, &second), OK);
	dns_cancel(s.dns, &second);
	pass(&s, 50);
	pass(&s, 50);
	assert_int_equal(first.calls, 1);
	assert_int_equal(second.calls, 0);
	assert_int_equal(
	    dns_resolve(s.dns, "silent.example", 0, on_done, &second), OK);
	pass(&s, 100);
	dns_cancel(s.dns, &second);
	pass(&s, 5000);
	assert_int_equal(second.calls, 0);
	for (i = 0; i < 10000; i++) {
		err = dns_resolve(s.dns, "a.example", 0, on_done, &first);
		if (err)
			break;
	}
	assert_int_equal(err, ERR_LIMIT);
	assert_int_equal(i, 256);
	scene_close(&s); /* with all of them under way */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_families),
		cmocka_unit_test(what_is_not_there),
		cmocka_unit_test(names_behind_names),
		cmocka_unit_test(truncation_goes_to_tcp),
		cmocka_unit_test(lies_are_not_believed),
		cmocka_unit_test(servers_without_edns),
		cmocka_unit_test(silence_ends),
		cmocka_unit_test(dead_servers_are_passed),
		cmocka_unit_test(search_list),
		cmocka_unit_test(hosts_come_first),
		cmocka_unit_test(names_are_checked),
		cmocka_unit_test(cancelled_and_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
