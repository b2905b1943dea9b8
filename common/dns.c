/*
 * A request is one dns_resolve(); it goes through the names that resolv.conf's
 * search list makes of its name, one after the other. For each there are one
 * or two questions (A, AAAA), asked in parallel; each question goes through
 * the servers and tries until one of them answers it.
 */
#include "common/dns.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ldns/ldns.h>

#include "common/env.h"
#include "common/loop.h"
#include "common/resolv.h"

#define DNS_REQUESTS  256  /* under way at once */
#define DNS_CHAIN     8    /* CNAMEs followed */
#define DNS_UDP       4096 /* octets of an answer over UDP */
#define DNS_EDNS      1232 /* what we say that we take: never fragmented */
#define DNS_LINGER_MS 1000 /* for the other question once one has answers */
#define DNS_HOSTS_TTL 3600
#define DNS_TTL_MAX   86400

struct dns {
	struct env *env;
	struct loop *loop;
	uint16_t port;
	struct resolv resolv;
	struct request *requests; /* list by next */
	size_t request_count;
};

struct question {
	struct request *request; /* NULL: not asked */
	ldns_rr_type type;
	uint16_t id;
	int fd;
	struct loop_watch *watch;
	struct timer timer;
	unsigned tried; /* of attempts * servers */
	bool last;      /* no more tries */
	bool plain;     /* without EDNS: the server did not like it */
	bool over;
	enum err err; /* once over */
	struct addr addr[DNS_ADDRS];
	size_t count;
	uint32_t ttl;
	/* TCP: the length and the message, both ways. */
	uint8_t *octets;
	size_t len, done;
	bool tcp, writing;
};

struct request {
	struct dns *dns;
	struct request *next, *prev;
	void (*done)(void *arg, enum err err, const struct addr *addrs,
	    size_t count, uint32_t ttl_s);
	void *arg;
	uint8_t family;
	char name[RESOLV_NAME];
	unsigned at, names; /* which of the names to try */
	struct question question[2];
	struct timer timer; /* for answers that need no server */
	struct addr addr[DNS_ADDRS];
	size_t count;
};

static void question_try(struct question *question);
static void request_next(struct request *request);

struct dns *
dns_new(
    struct env *env, struct loop *loop, const char *resolv, const char *hosts)
{
	struct dns *dns = calloc(1, sizeof(*dns));

	if (!dns)
		return NULL;
	dns->env = env;
	dns->loop = loop;
	dns->port = 53;
	if (resolv_read(&dns->resolv, resolv, hosts) != OK) {
		free(dns);
		return NULL;
	}
	return dns;
}

void
dns_port(struct dns *dns, uint16_t port)
{
	dns->port = port;
}

/* Requests ----------------------------------------------------------------- */

static void
question_stop(struct question *question)
{
	if (!question->request)
		return;
	timer_stop(question->request->dns->env->timers, &question->timer);
	loop_unwatch(question->watch);
	question->watch = NULL;
	if (question->fd >= 0)
		close(question->fd);
	question->fd = -1;
	free(question->octets);
	question->octets = NULL;
	question->tcp = question->writing = false;
}

static void
request_free(struct request *request)
{
	struct dns *dns = request->dns;

	question_stop(&request->question[0]);
	question_stop(&request->question[1]);
	timer_stop(dns->env->timers, &request->timer);
	if (request->prev)
		request->prev->next = request->next;
	else
		dns->requests = request->next;
	if (request->next)
		request->next->prev = request->prev;
	dns->request_count--;
	free(request);
}

/* Nothing may touch the request after this. */
static void
request_done(struct request *request, enum err err, uint32_t ttl)
{
	struct request copy = *request;

	request_free(request);
	copy.done(
	    copy.arg, err, copy.addr, err ? 0 : copy.count, err ? 0 : ttl);
}

void
dns_free(struct dns *dns)
{
	if (!dns)
		return;
	while (dns->requests)
		request_free(dns->requests);
	resolv_fini(&dns->resolv);
	free(dns);
}

void
dns_cancel(struct dns *dns, void *arg)
{
	struct request *request, *next;

	for (request = dns->requests; request; request = next) {
		next = request->next;
		if (request->arg == arg)
			request_free(request);
	}
}

/* The name number at: the name itself or one of the search list. An empty
 * string if it gets too long. */
static void
candidate(
    const struct request *request, unsigned at, char name[static RESOLV_NAME])
{
	const struct dns *dns = request->dns;
	size_t len = strlen(request->name), dots = 0, i;
	unsigned suffix;

	for (i = 0; i < len; i++)
		dots += request->name[i] == '.';
	memcpy(name, request->name, len + 1);
	if (request->names == 1)
		return;
	/* As it is: first with enough dots, otherwise last. */
	if (dots >= dns->resolv.ndots) {
		if (at == 0)
			return;
		suffix = at - 1;
	} else {
		if (at == dns->resolv.search_count)
			return;
		suffix = at;
	}
	if (len + 1 + strlen(dns->resolv.search[suffix]) >= RESOLV_NAME) {
		name[0] = '\0';
		return;
	}
	name[len] = '.';
	memcpy(name + len + 1, dns->resolv.search[suffix],
	    strlen(dns->resolv.search[suffix]) + 1);
}

/* Both questions are over: an answer, or the next name. */
static void
request_judge(struct request *request)
{
	struct question *v4 = &request->question[0];
	struct question *v6 = &request->question[1];
	size_t share4, i;
	uint32_t ttl = DNS_TTL_MAX;
	enum err err;

	/* Both families get their share. */
	share4 =
	    v6->count < DNS_ADDRS / 2 ? DNS_ADDRS - v6->count : DNS_ADDRS / 2;
	request->count = 0;
	for (i = 0; i < v4->count && i < share4; i++)
		request->addr[request->count++] = v4->addr[i];
	for (i = 0; i < v6->count && request->count < DNS_ADDRS; i++)
		request->addr[request->count++] = v6->addr[i];
	if (v4->count && v4->ttl < ttl)
		ttl = v4->ttl;
	if (v6->count && v6->ttl < ttl)
		ttl = v6->ttl;
	if (request->count) {
		request_done(request, OK, ttl);
		return;
	}
	/* A server that does not answer for one name will not do so for the
	 * next. */
	err = ERR_NOT_FOUND;
	if (v4->request && v4->err != ERR_NOT_FOUND)
		err = v4->err;
	else if (v6->request && v6->err != ERR_NOT_FOUND)
		err = v6->err;
	if (err != ERR_NOT_FOUND) {
		request_done(request, err, 0);
		return;
	}
	request->at++;
	request_next(request);
}

/* Nothing may touch question or request after this. */
static void
question_over(struct question *question, enum err err)
{
	struct request *request = question->request;
	struct question *other =
	    &request->question[question == &request->question[0]];

	question_stop(question);
	question->over = true;
	question->err = err;
	if (other->request && !other->over) {
		/* Who has an address need not wait long for the rest. */
		if (question->count) {
			other->last = true;
			timer_set(request->dns->env->timers, &other->timer,
			    DNS_LINGER_MS);
		}
		return;
	}
	request_judge(request);
}

/* Answers ------------------------------------------------------------------ */

static bool
is_response(const struct question *question, const ldns_pkt *packet)
{
	return ldns_pkt_id(packet) == question->id && ldns_pkt_qr(packet) &&
	       ldns_pkt_get_opcode(packet) == LDNS_PACKET_QUERY;
}

/* Interop: servers from before EDNS say that they cannot read the question,
 * and do not repeat it. */
static bool
is_bare_refusal(const struct question *question, const ldns_pkt *packet)
{
	return is_response(question, packet) &&
	       ldns_pkt_get_rcode(packet) == LDNS_RCODE_FORMERR &&
	       ldns_rr_list_rr_count(ldns_pkt_question(packet)) == 0;
}

/* Is this an answer to our question, and not somebody's guess? */
static bool
answers(const struct question *question, const ldns_pkt *packet,
    const ldns_rdf *name)
{
	const ldns_rr_list *asked = ldns_pkt_question(packet);
	const ldns_rr *rr;

	if (!is_response(question, packet) || ldns_rr_list_rr_count(asked) != 1)
		return false;
	rr = ldns_rr_list_rr(asked, 0);
	return ldns_rr_get_type(rr) == question->type &&
	       ldns_rr_get_class(rr) == LDNS_RR_CLASS_IN &&
	       ldns_dname_compare(ldns_rr_owner(rr), name) == 0;
}

static void
keep_addr(struct question *question, const ldns_rr *rr)
{
	const ldns_rdf *rdf = ldns_rr_rdf(rr, 0);
	struct addr addr;

	if (!rdf || question->count == DNS_ADDRS ||
	    !addr_from_view(
	        &addr, view_of(ldns_rdf_data(rdf), ldns_rdf_size(rdf))) ||
	    addr_is_any(&addr))
		return;
	if ((addr.family == ADDR_V4) != (question->type == LDNS_RR_TYPE_A))
		return;
	question->addr[question->count++] = addr;
	if (ldns_rr_ttl(rr) < question->ttl)
		question->ttl = ldns_rr_ttl(rr);
}

/* Collects addresses, following CNAMEs within the answer. */
static void
collect(struct question *question, const ldns_pkt *packet, const ldns_rdf *name)
{
	const ldns_rr_list *list = ldns_pkt_answer(packet);
	size_t count = ldns_rr_list_rr_count(list), i;
	unsigned chain;

	question->count = 0;
	question->ttl = DNS_TTL_MAX;
	for (chain = 0; chain <= DNS_CHAIN && name; chain++) {
		const ldns_rdf *next = NULL;

		for (i = 0; i < count; i++) {
			const ldns_rr *rr = ldns_rr_list_rr(list, i);

			if (ldns_rr_get_class(rr) != LDNS_RR_CLASS_IN ||
			    ldns_dname_compare(ldns_rr_owner(rr), name) != 0)
				continue;
			if (ldns_rr_get_type(rr) == question->type) {
				keep_addr(question, rr);
			} else if (ldns_rr_get_type(rr) == LDNS_RR_TYPE_CNAME &&
			           !next) {
				next = ldns_rr_rdf(rr, 0);
				if (ldns_rr_ttl(rr) < question->ttl)
					question->ttl = ldns_rr_ttl(rr);
			}
		}
		if (question->count)
			return;
		name = next;
	}
}

enum verdict {
	ANSWER_STRANGE, /* not an answer to our question: go on waiting */
	ANSWER_FINAL,   /* question->count addresses, maybe none */
	ANSWER_CUT,     /* ask again over TCP */
	ANSWER_PLAIN,   /* ask again without EDNS */
	ANSWER_FAILED   /* this server cannot tell */
};

static enum verdict
judge(struct question *question, const uint8_t *octets, size_t len)
{
	enum verdict verdict = ANSWER_STRANGE;
	char text[RESOLV_NAME];
	ldns_rdf *name = NULL;
	ldns_pkt *packet = NULL;

	candidate(question->request, question->request->at, text);
	if (ldns_wire2pkt(&packet, octets, len) != LDNS_STATUS_OK)
		return ANSWER_STRANGE;
	name = ldns_dname_new_frm_str(text);
	if (!name || (!is_bare_refusal(question, packet) &&
	                 !answers(question, packet, name)))
		goto out;
	if (ldns_pkt_tc(packet) && !question->tcp) {
		verdict = ANSWER_CUT;
		goto out;
	}
	switch (ldns_pkt_get_rcode(packet)) {
	case LDNS_RCODE_NOERROR:
		collect(question, packet, name);
		verdict = ANSWER_FINAL;
		break;
	case LDNS_RCODE_NXDOMAIN:
		question->count = 0;
		verdict = ANSWER_FINAL;
		break;
	case LDNS_RCODE_FORMERR:
	case LDNS_RCODE_NOTIMPL:
		/* RFC 6891 7: a server that does not know EDNS. */
		verdict = question->plain ? ANSWER_FAILED : ANSWER_PLAIN;
		break;
	default:
		verdict = ANSWER_FAILED;
		break;
	}
out:
	ldns_rdf_deep_free(name);
	ldns_pkt_free(packet);
	return verdict;
}

/* Asking ------------------------------------------------------------------- */

/* The question as octets, with a new ID, after two octets for its length. NULL
 * when the name is none or memory is short. The caller frees. */
static uint8_t *
pack(struct question *question, size_t *len)
{
	struct request *request = question->request;
	char name[RESOLV_NAME];
	ldns_pkt *packet = NULL;
	uint8_t *wire = NULL, *octets = NULL;
	size_t wire_len = 0;
	ldns_rdf *owner;

	if (!env_random(request->dns->env, &question->id, sizeof(question->id)))
		return NULL;
	candidate(request, request->at, name);
	owner = ldns_dname_new_frm_str(name);
	if (!owner)
		return NULL;
	packet = ldns_pkt_query_new(
	    owner, question->type, LDNS_RR_CLASS_IN, LDNS_RD);
	if (!packet) {
		ldns_rdf_deep_free(owner);
		return NULL;
	}
	ldns_pkt_set_id(packet, question->id);
	if (!question->plain)
		ldns_pkt_set_edns_udp_size(packet, DNS_EDNS);
	if (ldns_pkt2wire(&wire, packet, &wire_len) == LDNS_STATUS_OK &&
	    wire_len <= UINT16_MAX) {
		octets = malloc(wire_len + 2);
		if (octets) {
			octets[0] = (uint8_t)(wire_len >> 8);
			octets[1] = (uint8_t)wire_len;
			memcpy(octets + 2, wire, wire_len);
			*len = wire_len + 2;
		}
	}
	free(wire);
	ldns_pkt_free(packet);
	return octets;
}

static unsigned
tries(const struct dns *dns)
{
	return dns->resolv.attempts * dns->resolv.server_count;
}

/* This server did not help: the next one, or the end. */
static void
question_next(struct question *question, enum err err)
{
	question_stop(question);
	question->plain = false;
	question->tried++;
	if (question->last || question->tried >= tries(question->request->dns))
		question_over(question, err);
	else
		question_try(question);
}

static void question_tcp(struct question *question);

static void
question_verdict(struct question *question, enum verdict verdict)
{
	switch (verdict) {
	case ANSWER_STRANGE:
		break;
	case ANSWER_FINAL:
		question_over(question, question->count ? OK : ERR_NOT_FOUND);
		break;
	case ANSWER_CUT:
		question_tcp(question);
		break;
	case ANSWER_PLAIN:
		question_stop(question);
		question->plain = true;
		question_try(question);
		break;
	case ANSWER_FAILED:
		question_next(question, ERR_IO);
		break;
	}
}

static void
on_timeout(void *arg)
{
	question_next(arg, ERR_TIMEOUT);
}

static void
on_udp(void *arg)
{
	struct question *question = arg;
	uint8_t octets[DNS_UDP];
	ssize_t len;

	len = recv(question->fd, octets, sizeof(octets), MSG_DONTWAIT);
	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (len < 0) { /* nobody listens there */
		question_next(question, ERR_IO);
		return;
	}
	question_verdict(question, judge(question, octets, (size_t)len));
}

static void
on_tcp_writable(void *arg)
{
	struct question *question = arg;
	ssize_t len;

	len = send(question->fd, question->octets + question->done,
	    question->len - question->done, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (len < 0) {
		question_next(question, ERR_IO);
		return;
	}
	question->done += (size_t)len;
	if (question->done < question->len)
		return;
	loop_watch_write(question->watch, false);
	question->writing = false;
	free(question->octets);
	/* The answer: two octets of length, then so many. */
	question->octets = malloc(2 + UINT16_MAX);
	question->len = 2;
	question->done = 0;
	if (!question->octets)
		question_over(question, ERR_NOMEM);
}

static void
on_tcp_readable(void *arg)
{
	struct question *question = arg;
	enum verdict verdict;
	ssize_t len;

	if (question->writing) {
		/* Refused, or closed before we could ask. */
		uint8_t octet;

		len = recv(question->fd, &octet, 1, MSG_DONTWAIT | MSG_PEEK);
		if (len < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		question_next(question, ERR_IO);
		return;
	}
	len = recv(question->fd, question->octets + question->done,
	    question->len - question->done, MSG_DONTWAIT);
	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (len <= 0) {
		question_next(question, ERR_IO);
		return;
	}
	question->done += (size_t)len;
	if (question->done < question->len)
		return;
	if (question->len == 2) {
		question->len +=
		    (size_t)question->octets[0] << 8 | question->octets[1];
		if (question->len > 2)
			return;
	}
	verdict = judge(question, question->octets + 2, question->len - 2);
	if (verdict == ANSWER_STRANGE) /* no other will come here */
		verdict = ANSWER_FAILED;
	question_verdict(question, verdict);
}

/* Opens a socket to the server whose turn it is. A connected socket hears that
 * server only, and the system draws a port for each. */
static bool
question_open(struct question *question, int type)
{
	struct dns *dns = question->request->dns;
	struct endpoint server = {
		dns->resolv.server[question->tried % dns->resolv.server_count],
		dns->port
	};
	struct sockaddr_storage to;
	unsigned to_len = endpoint_to_sockaddr(&server, &to);
	bool tcp = type == SOCK_STREAM;

	question->fd =
	    socket(server.addr.family == ADDR_V6 ? AF_INET6 : AF_INET,
	        type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (question->fd < 0)
		return false;
	if (connect(question->fd, (struct sockaddr *)&to, to_len) != 0 &&
	    errno != EINPROGRESS)
		return false;
	question->watch =
	    loop_watch(dns->loop, question->fd, tcp ? on_tcp_readable : on_udp,
	        tcp ? on_tcp_writable : NULL, question);
	return question->watch != NULL;
}

/* RFC 7766: the same question over TCP, within the same time. */
static void
question_tcp(struct question *question)
{
	struct dns *dns = question->request->dns;
	size_t len = 0;

	question_stop(question);
	question->tcp = true;
	question->octets = pack(question, &len);
	question->len = len;
	question->done = 0;
	question->writing = true;
	timer_set(dns->env->timers, &question->timer, dns->resolv.timeout_ms);
	if (!question->octets || !question_open(question, SOCK_STREAM)) {
		question_next(question, ERR_IO);
		return;
	}
	loop_watch_write(question->watch, true);
}

/* Asks the server whose turn it is. A failure to send is known later, by the
 * timer, so that nothing is called from inside. */
static void
question_try(struct question *question)
{
	struct dns *dns = question->request->dns;
	size_t len = 0;
	uint8_t *octets;
	bool sent;

	octets = pack(question, &len);
	sent = octets && question_open(question, SOCK_DGRAM) &&
	       send(question->fd, octets + 2, len - 2,
	           MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
	free(octets);
	timer_set(dns->env->timers, &question->timer,
	    sent ? dns->resolv.timeout_ms : 1);
}

static void
question_start(struct request *request, unsigned at, ldns_rr_type type)
{
	struct question *question = &request->question[at];

	memset(question, 0, sizeof(*question));
	question->request = request;
	question->type = type;
	question->fd = -1;
	timer_init(&question->timer, on_timeout, question);
	question_try(question);
}

/* Asks for the name whose turn it is. Nothing may touch the request after
 * this. */
static void
request_next(struct request *request)
{
	char name[RESOLV_NAME];

	do {
		if (request->at == request->names) {
			request_done(request, ERR_NOT_FOUND, 0);
			return;
		}
		candidate(request, request->at, name);
		if (!name[0])
			request->at++;
	} while (!name[0]);
	memset(request->question, 0, sizeof(request->question));
	if (request->family != ADDR_V6)
		question_start(request, 0, LDNS_RR_TYPE_A);
	if (request->family != ADDR_V4)
		question_start(request, 1, LDNS_RR_TYPE_AAAA);
}

/* What needs no server: a numeric address, hosts. */
static void
look_near(struct request *request)
{
	const struct dns *dns = request->dns;
	size_t len = strlen(request->name), i;
	struct addr addr;

	if (addr_parse(&addr, request->name)) {
		if (!request->family || request->family == addr.family)
			request->addr[request->count++] = addr;
		request->names = 0; /* and no server is asked */
		return;
	}
	if (len && request->name[len - 1] == '.')
		len--;
	for (i = 0; i < dns->resolv.host_count; i++) {
		const struct resolv_host *host = &dns->resolv.hosts[i];

		if (strlen(host->name) == len &&
		    strncasecmp(host->name, request->name, len) == 0 &&
		    (!request->family ||
		        request->family == host->addr.family) &&
		    request->count < DNS_ADDRS)
			request->addr[request->count++] = host->addr;
	}
}

static void
on_start(void *arg)
{
	struct request *request = arg;

	look_near(request);
	if (request->count)
		request_done(request, OK, DNS_HOSTS_TTL);
	else if (request->names && !request->dns->resolv.server_count)
		request_done(request, ERR_IO, 0);
	else
		request_next(request);
}

/* Letters, digits, "-", "_" and dots between labels of 1 to 63. */
static bool
name_valid(const char *name)
{
	size_t len = strlen(name), label = 0, i;
	struct addr addr;

	if (addr_parse(&addr, name))
		return true;
	if (len == 0 || len >= RESOLV_NAME - 1)
		return false;
	for (i = 0; i < len; i++) {
		char c = name[i];

		if (c == '.') {
			if (label == 0)
				return false;
			label = 0;
			continue;
		}
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		        (c >= '0' && c <= '9') || c == '-' || c == '_'))
			return false;
		if (++label > 63)
			return false;
	}
	return true;
}

enum err
dns_resolve(struct dns *dns, const char *name, uint8_t family,
    void (*done)(void *arg, enum err err, const struct addr *addrs,
        size_t count, uint32_t ttl_s),
    void *arg)
{
	struct request *request;
	size_t len = strlen(name);

	if (!name_valid(name))
		return ERR_SYNTAX;
	if (dns->request_count >= DNS_REQUESTS)
		return ERR_LIMIT;
	request = calloc(1, sizeof(*request));
	if (!request)
		return ERR_NOMEM;
	request->dns = dns;
	request->done = done;
	request->arg = arg;
	request->family = family;
	memcpy(request->name, name, len + 1);
	request->names =
	    name[len - 1] == '.' ? 1 : 1 + dns->resolv.search_count;
	request->next = dns->requests;
	if (dns->requests)
		dns->requests->prev = request;
	dns->requests = request;
	dns->request_count++;
	timer_init(&request->timer, on_start, request);
	timer_set(dns->env->timers, &request->timer, 0);
	return OK;
}
