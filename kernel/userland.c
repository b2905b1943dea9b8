#include "kernel/userland.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/loop.h"
#include "common/map.h"
#include "common/mem.h"
#include "kernel/route.h"
#include "kernel/tun.h"

#define DRAWS         64 /* of an SPI that is not free */
#define FIRST_PENDING 64

/* What the process has not answered yet. */
struct pending {
	uint64_t sequence; /* kserve's */
	uint32_t spi;      /* KMSG_SPI: drawn; SPIs that end: to be forgotten */
	uint8_t op;
	bool routed; /* a route was made for it */
	struct ts remote;
};

/* An inbound SPI in use. */
struct drawn {
	struct map_node node;
	uint32_t spi;
};

struct userland {
	struct kserve_backend backend;
	struct loop *loop;
	struct log *log;
	bool (*random)(void *arg, void *octets, size_t len);
	void *random_arg;
	int tun;
	char name[16];
	struct outer_sockets sockets;
	struct route *route;
	struct ipc *ipc; /* NULL: no process */
	bool warned;     /* of rp_filter */
	bool lost;       /* its predecessor's SAs are gone, nobody knows yet */
	void (*broken)(void *arg, const char *why);
	void *broken_arg;
	void (*stray)(void *arg, const struct endpoint *local,
	    const struct endpoint *remote, struct view octets);
	void *stray_arg;
	struct map spis;
	struct pending *pending; /* a ring */
	size_t pending_size;
	uint64_t first, next; /* serials: the oldest without answer, the next */
};

static struct userland *
userland_of(struct kserve_backend *backend)
{
	return (struct userland *)(void *)backend;
}

/* SPIs ------------------------------------------------------------------ */

static struct drawn *
drawn_find(const struct userland *userland, uint32_t spi)
{
	struct map_node *node;
	struct drawn *drawn;

	for (node =
	         map_find(&userland->spis, map_hash_u64(&userland->spis, spi));
	     node; node = map_next_same(node)) {
		drawn = map_entry(node, struct drawn, node);
		if (drawn->spi == spi)
			return drawn;
	}
	return NULL;
}

/* RFC 4303 2.1: 1 to 255 are reserved. */
static enum err
spi_draw(struct userland *userland, uint32_t *spi)
{
	struct drawn *drawn;
	unsigned i;

	for (i = 0; i < DRAWS; i++) {
		if (!userland->random(userland->random_arg, spi, sizeof(*spi)))
			return ERR_IO;
		if (*spi >= 256 && drawn_find(userland, *spi) == NULL)
			break;
	}
	if (i == DRAWS)
		return ERR_LIMIT;
	drawn = calloc(1, sizeof(*drawn));
	if (drawn == NULL)
		return ERR_NOMEM;
	drawn->spi = *spi;
	map_insert(
	    &userland->spis, &drawn->node, map_hash_u64(&userland->spis, *spi));
	return OK;
}

static void
spi_forget(struct userland *userland, uint32_t spi)
{
	struct drawn *drawn = drawn_find(userland, spi);

	if (drawn)
		map_remove(&userland->spis, &drawn->node);
	free(drawn);
}

static void
free_drawn(struct map_node *node, void *arg)
{
	struct userland *userland = arg;

	map_remove(&userland->spis, node);
	free(map_entry(node, struct drawn, node));
}

/* Requests -------------------------------------------------------------- */

static struct pending *
pending_slot(const struct userland *userland, uint64_t at)
{
	return &userland->pending[at & (userland->pending_size - 1)];
}

static struct pending *
pending_add(struct userland *userland)
{
	size_t size = userland->pending_size;
	struct pending *ring;
	uint64_t at;

	if (userland->next - userland->first == size) {
		size = size ? 2 * size : FIRST_PENDING;
		ring = calloc(size, sizeof(*ring));
		if (ring == NULL)
			return NULL;
		for (at = userland->first; at < userland->next; at++)
			ring[at & (size - 1)] = *pending_slot(userland, at);
		free(userland->pending);
		userland->pending = ring;
		userland->pending_size = size;
	}
	return pending_slot(userland, userland->next);
}

/* Without a process there is nothing: that was wanted, then. */
static bool
is_removal(uint8_t op)
{
	return op == KMSG_SPI_DROP || op == KMSG_SA_REMOVE ||
	       op == KMSG_POLICY_REMOVE;
}

/* What an answer means on this side. */
static void
settle(struct userland *userland, const struct pending *pending,
    struct kmsg_answer *answer)
{
	answer->sequence = pending->sequence;
	answer->op = pending->op;
	if (pending->op == KMSG_SPI) {
		answer->spi = pending->spi;
		if (answer->err != OK && pending->spi != 0)
			spi_forget(userland, pending->spi);
	}
	if (answer->err != OK && pending->routed)
		route_remove(userland->route, &pending->remote);
	userland->backend.answer(userland->backend.arg, answer);
}

static enum err
forward(struct userland *userland, const struct kmsg *request)
{
	uint8_t octets[KMSG_OCTETS];
	struct buf buf;
	enum err err;

	if (userland->ipc == NULL)
		return ERR_WRONG_STATE;
	buf_init(&buf, octets, sizeof(octets));
	kmsg_put(&buf, request);
	err = buf.full ? ERR_LONG
	               : ipc_send(userland->ipc, UFRAME_REQUEST, userland->next,
	                     buf.at, buf.len);
	mem_wipe(octets, sizeof(octets));
	return err;
}

/* Once: it is easily overlooked, and hard to find. */
static void
warn_of_filter(struct userland *userland, const struct kmsg_policy *policy)
{
	char peer[ADDR_TEXT], name[16];

	if (userland->warned || policy->tunnel_dst.family != ADDR_V4 ||
	    policy->dst.first.family != ADDR_V4 ||
	    addr_compare(&policy->tunnel_dst, &policy->dst.first) < 0 ||
	    addr_compare(&policy->tunnel_dst, &policy->dst.last) > 0 ||
	    !route_strict(userland->route, name))
		return;
	userland->warned = true;
	log_write(userland->log, LOG_LEVEL_WARNING,
	    "what comes from %s may be dropped, because traffic to it goes to "
	    "%s: set net.ipv4.conf.%s.rp_filter to 2",
	    addr_text(&policy->tunnel_dst, peer), userland->name, name);
}

/* The parent's part of a request. */
static enum err
prepare(
    struct userland *userland, struct kmsg *request, struct pending *pending)
{
	const struct kmsg_policy *policy = &request->policy;
	enum err err;

	switch (request->op) {
	case KMSG_SPI:
		err = spi_draw(userland, &request->sa.spi);
		if (err == OK)
			pending->spi = request->sa.spi;
		return err;
	case KMSG_SPI_DROP:
	case KMSG_SA_REMOVE:
		if (request->sa.direction == KMSG_IN)
			spi_forget(userland, request->sa.spi);
		return OK;
	case KMSG_POLICY_ADD:
		if (policy->direction != KMSG_OUT || policy->replace)
			return OK;
		warn_of_filter(userland, policy);
		err = route_add(userland->route, &policy->src, &policy->dst);
		pending->routed = err == OK;
		pending->remote = policy->dst;
		return err;
	case KMSG_POLICY_REMOVE:
		if (policy->direction == KMSG_OUT)
			route_remove(userland->route, &policy->dst);
		return OK;
	default:
		return OK;
	}
}

static void
userland_execute(struct kserve_backend *backend, const struct kmsg *given)
{
	struct userland *userland = userland_of(backend);
	struct pending pending = { .sequence = given->sequence,
		.op = given->op };
	struct pending *slot = pending_add(userland);
	struct kmsg_answer answer;
	struct kmsg request = *given;
	enum err err = slot ? prepare(userland, &request, &pending) : ERR_NOMEM;

	if (err == OK)
		err = forward(userland, &request);
	mem_wipe(&request, sizeof(request));
	if (err == OK) {
		*slot = pending;
		userland->next++;
		return;
	}
	memset(&answer, 0, sizeof(answer));
	answer.err = (uint8_t)err;
	if (err == ERR_WRONG_STATE && is_removal(given->op))
		answer.err = OK;
	snprintf(answer.text, sizeof(answer.text), "%s",
	    err == ERR_WRONG_STATE ? "the process for ESP is not there"
	                           : err_text(err));
	answer.use.idle_ms = UINT64_MAX;
	if (userland->first == userland->next) {
		settle(userland, &pending, &answer);
		return;
	}
	/* Others wait for the process: the answers' order would break. A
	 * process that takes no more requests is as good as dead. */
	log_write(userland->log, LOG_LEVEL_ERROR,
	    "the process for ESP does not keep up: its link is closed");
	userland_ended(backend);
	settle(userland, &pending, &answer);
	if (userland->broken)
		userland->broken(userland->broken_arg, "it does not keep up");
}

/* The process ----------------------------------------------------------- */

static enum err
handle_answer(void *arg, const struct ipc_frame *frame)
{
	struct userland *userland = arg;
	struct kmsg_answer answer;
	struct pending pending;
	enum err err = kmsg_answer_get(frame->body, &answer);

	if (err != OK)
		return err;
	if (userland->first == userland->next ||
	    frame->serial != userland->first)
		return ERR_SYNTAX;
	pending = *pending_slot(userland, userland->first++);
	if (answer.op != pending.op)
		return ERR_SYNTAX;
	settle(userland, &pending, &answer);
	return OK;
}

static enum err
handle_event(void *arg, const struct ipc_frame *frame)
{
	struct userland *userland = arg;
	struct kmsg_event event;
	enum err err = kmsg_event_get(frame->body, &event);

	if (err != OK)
		return err;
	if (event.kind == KEVENT_LOST)
		return ERR_SYNTAX; /* that is for us to say */
	userland->backend.event(userland->backend.arg, &event);
	return OK;
}

static enum err
handle_stray(void *arg, const struct ipc_frame *frame)
{
	struct userland *userland = arg;
	struct view octets = frame->body;
	struct userland_stray from;

	if (!view_copy(&octets, &from, sizeof(from)))
		return ERR_SHORT;
	if (userland->stray)
		userland->stray(
		    userland->stray_arg, &from.local, &from.remote, octets);
	return OK;
}

static const struct ipc_permit rows[] = {
	{ UFRAME_START, IPC_OUT | IPC_FD, sizeof(struct userland_start),
	    sizeof(struct userland_start), 0, NULL },
	{ UFRAME_REQUEST, IPC_OUT, 1, KMSG_OCTETS, 0, NULL },
	{ UFRAME_LEVEL, IPC_OUT, sizeof(uint32_t), sizeof(uint32_t), 0, NULL },
	{ UFRAME_ANSWER, IPC_IN, 1, KMSG_ANSWER_OCTETS, 0, handle_answer },
	{ UFRAME_EVENT, IPC_IN, 1, KMSG_EVENT_OCTETS, 0, handle_event },
	{ UFRAME_STRAY, IPC_IN, sizeof(struct userland_stray), IPC_BODY, 0,
	    handle_stray },
};

static void
link_closed(void *arg, enum err err, const char *why)
{
	struct userland *userland = arg;

	if (err == ERR_REFUSED)
		log_write(userland->log, LOG_LEVEL_ERROR,
		    "esp broke the rules of its link: %s", why);
	userland_ended(&userland->backend);
	if (userland->broken)
		userland->broken(
		    userland->broken_arg, err == ERR_REFUSED ? why : NULL);
}

static enum err
send_start(struct userland *userland)
{
	struct userland_start start = { .natt_port =
		                            userland->sockets.natt_port };
	int fds[1 + OUTER_SOCKETS];
	size_t count = 0;
	unsigned i;

	fds[count++] = userland->tun;
	for (i = 0; i < OUTER_SOCKETS; i++) {
		if (userland->sockets.fd[i] < 0)
			continue;
		start.sockets |= 1u << i;
		fds[count++] = userland->sockets.fd[i];
	}
	return ipc_send_fds(
	    userland->ipc, UFRAME_START, 0, &start, sizeof(start), fds, count);
}

/* Only now gate hears that its SAs are gone: it asks for new ones at once. */
static void
tell_loss(struct userland *userland)
{
	struct kmsg_event event = { .kind = KEVENT_LOST };

	if (!userland->lost)
		return;
	userland->lost = false;
	map_each(&userland->spis, free_drawn, userland);
	route_void(userland->route);
	userland->backend.event(userland->backend.arg, &event);
}

/* The device lasts as long as the descriptor, unless somebody removes it. */
static void
renew_device(struct userland *userland)
{
	int fd, index;

	if (tun_alive(userland->tun))
		return;
	if (tun_open(&fd, userland->name, &index) != OK) {
		log_write(userland->log, LOG_LEVEL_ERROR, "/dev/net/tun: %s",
		    strerror(errno));
		return;
	}
	close(userland->tun);
	userland->tun = fd;
	route_device(userland->route, index);
	log_write(userland->log, LOG_LEVEL_WARNING,
	    "the TUN device had been removed; the new one is %s",
	    userland->name);
}

enum err
userland_serve(struct kserve_backend *backend, int fd,
    void (*broken)(void *arg, const char *why), void *arg)
{
	struct userland *userland = userland_of(backend);
	enum err err;

	userland_ended(backend);
	userland->broken = broken;
	userland->broken_arg = arg;
	userland->ipc = ipc_new(userland->loop, fd, rows,
	    sizeof(rows) / sizeof(rows[0]), link_closed, userland);
	if (userland->ipc == NULL)
		return ERR_NOMEM;
	renew_device(userland);
	err = send_start(userland);
	if (err == OK)
		tell_loss(userland);
	return err;
}

void
userland_ended(struct kserve_backend *backend)
{
	struct userland *userland = userland_of(backend);
	struct kmsg_answer answer;
	struct pending pending;

	if (userland->ipc == NULL)
		return;
	ipc_free(userland->ipc);
	userland->ipc = NULL;
	userland->lost = true;
	while (userland->first < userland->next) {
		pending = *pending_slot(userland, userland->first++);
		memset(&answer, 0, sizeof(answer));
		answer.err = is_removal(pending.op) ? OK : ERR_CANCELLED;
		answer.use.idle_ms = UINT64_MAX;
		snprintf(answer.text, sizeof(answer.text),
		    "the process for ESP has ended");
		settle(userland, &pending, &answer);
	}
}

void
userland_stray(struct kserve_backend *backend,
    void (*stray)(void *arg, const struct endpoint *local,
        const struct endpoint *remote, struct view octets),
    void *arg)
{
	struct userland *userland = userland_of(backend);

	userland->stray = stray;
	userland->stray_arg = arg;
}

void
userland_level(struct kserve_backend *backend, enum log_level level)
{
	struct userland *userland = userland_of(backend);
	uint32_t value = level;

	if (userland->ipc)
		(void)ipc_send(
		    userland->ipc, UFRAME_LEVEL, 0, &value, sizeof(value));
}

/* Beginning and end ----------------------------------------------------- */

static void
userland_free(struct kserve_backend *backend)
{
	struct userland *userland = userland_of(backend);

	ipc_free(userland->ipc);
	route_free(userland->route);
	outer_close(&userland->sockets);
	if (userland->tun >= 0)
		close(userland->tun);
	map_each(&userland->spis, free_drawn, userland);
	map_fini(&userland->spis);
	free(userland->pending);
	free(userland);
}

enum err
userland_sockets(struct kserve_backend *backend, uint16_t natt_port, bool v4,
    bool v6, char *why, size_t size)
{
	struct userland *userland = userland_of(backend);
	const char *what = "";
	enum err err = outer_open(
	    &userland->sockets, natt_port, ROUTE_MARK, v4, v6, &what);

	if (err != OK)
		snprintf(why, size, "%s: %s", what, strerror(errno));
	return err;
}

struct kserve_backend *
userland_new(struct loop *loop, struct log *log,
    bool (*random)(void *arg, void *octets, size_t len), void *random_arg,
    char *why, size_t size)
{
	static const struct kserve_backend_ops ops = { userland_execute,
		userland_free, NULL };
	struct userland *userland = calloc(1, sizeof(*userland));
	uint64_t seed[2] = { 0, 0 };
	unsigned i;
	int index;

	if (userland == NULL) {
		snprintf(why, size, "no memory");
		return NULL;
	}
	(void)!random(random_arg, seed, sizeof(seed));
	map_init(&userland->spis, seed);
	for (i = 0; i < OUTER_SOCKETS; i++)
		userland->sockets.fd[i] = -1;
	userland->backend.ops = &ops;
	userland->backend.name = "userland";
	userland->loop = loop;
	userland->log = log;
	userland->random = random;
	userland->random_arg = random_arg;
	userland->first = userland->next = 1;
	if (tun_open(&userland->tun, userland->name, &index) != OK) {
		snprintf(why, size, "/dev/net/tun: %s", strerror(errno));
		userland->tun = -1;
		goto fail;
	}
	userland->route = route_new(loop, log, index, why, size);
	if (userland->route == NULL)
		goto fail;
	return &userland->backend;
fail:
	userland_free(&userland->backend);
	return NULL;
}
