/* The xfrm back end on a kernel that does ESP: two gateways in network
 * namespaces, without IKE. Runs as root in a virtual machine (tests/vm/run),
 * since it makes and removes namespaces and SAs. */
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include "common/alg.h"
#include "common/loop.h"
#include "common/policy.h"
#include "kernel/xfrm.h"

#ifndef UDP_ENCAP_ESPINUDP
#define UDP_ENCAP_ESPINUDP 2
#endif
#define ANSWERS 1024
#define WAIT_MS 15000 /* the first use of an algorithm loads modules */

struct side {
	const char *name;
	int netns, udp;
	struct kserve_backend *backend;
	struct kmsg_answer answer[ANSWERS];
	unsigned answers;
	struct kmsg_event event;
	unsigned acquires, expires, mappings;
};

struct world {
	struct loop *loop;
	struct timer stop;
	struct log log;
	char line[256];
	unsigned lines;
	int home;
	struct side side[2];
	uint64_t sequence;
};

enum { LEFT, RIGHT };

/* The system -------------------------------------------------------------- */

static int shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int
shell(const char *format, ...)
{
	char command[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

/* What a command prints: a number. */
static int
number(const char *command)
{
	FILE *pipe = popen(command, "r");
	int value = -1;

	assert_non_null(pipe);
	if (fscanf(pipe, "%d", &value) != 1)
		value = -1;
	pclose(pipe);
	return value;
}

static bool
ping(const char *from, const char *to, int count)
{
	return shell("ip netns exec left ping -q -c %d -i 0.05 -W 2 -I %s %s "
	             ">/dev/null 2>&1",
	           count, from, to) == 0;
}

static void
keep_line(struct log *log, enum log_level level, const char *line)
{
	struct world *world = log->arg;

	(void)level;
	snprintf(world->line, sizeof(world->line), "%s", line);
	world->lines++;
}

static void
enter(const struct world *world, int side)
{
	int fd = side < 0 ? world->home : world->side[side].netns;

	assert_int_equal(setns(fd, CLONE_NEWNET), 0);
}

static struct addr
addr(const char *text)
{
	struct addr made;

	assert_true(addr_parse(&made, text));
	return made;
}

static struct ts
ts(const char *text)
{
	const char *problem = NULL;
	struct ts made;

	assert_int_equal(ts_parse(&made, text, &problem), OK);
	return made;
}

/* The back ends ----------------------------------------------------------- */

static void
take_answer(void *arg, const struct kmsg_answer *answer)
{
	struct side *side = arg;

	assert_true(side->answers < ANSWERS);
	side->answer[side->answers++] = *answer;
}

static void
take_event(void *arg, const struct kmsg_event *event)
{
	struct side *side = arg;

	side->event = *event;
	side->acquires += event->kind == KEVENT_ACQUIRE;
	side->expires += event->kind == KEVENT_EXPIRE;
	side->mappings += event->kind == KEVENT_MAPPING;
}

static void
stop(void *arg)
{
	loop_stop(arg);
}

static void
run_ms(struct world *world, uint64_t ms)
{
	timer_set(loop_timers(world->loop), &world->stop, ms);
	loop_run(world->loop);
}

/* Until *count is at least wanted. */
static bool
wait_for(struct world *world, const unsigned *count, unsigned wanted)
{
	unsigned i;

	for (i = 0; *count < wanted && i < WAIT_MS / 20; i++)
		run_ms(world, 20);
	return *count >= wanted;
}

static void
backend_start(struct world *world, int which)
{
	struct side *side = &world->side[which];
	char why[120];

	enter(world, which);
	side->backend = xfrm_new(world->loop, &world->log, why, sizeof(why));
	enter(world, -1);
	if (side->backend == NULL)
		fail_msg("%s: %s", side->name, why);
	side->backend->answer = take_answer;
	side->backend->event = take_event;
	side->backend->arg = side;
}

static void
submit(struct world *world, int which, struct kmsg *request)
{
	struct side *side = &world->side[which];

	request->sequence = ++world->sequence;
	side->backend->ops->execute(side->backend, request);
}

static const struct kmsg_answer *
ask(struct world *world, int which, struct kmsg *request)
{
	struct side *side = &world->side[which];

	side->answers = 0;
	submit(world, which, request);
	assert_true(wait_for(world, &side->answers, 1));
	assert_int_equal(side->answers, 1);
	assert_true(side->answer[0].sequence == request->sequence);
	assert_int_equal(side->answer[0].op, request->op);
	return &side->answer[0];
}

static void
must(struct world *world, int which, struct kmsg *request)
{
	const struct kmsg_answer *answer = ask(world, which, request);

	if (answer->err != OK)
		fail_msg("%s: %s: %s", world->side[which].name,
		    kmsg_op_text(request->op), answer->text);
}

/* Pairs of SAs ------------------------------------------------------------ */

/* One SA in both directions, seen from the left. */
struct plan {
	uint8_t mode, encr, integ;
	bool encap, esn;
	uint32_t window;
	uint64_t hard_ms;
	struct endpoint outer[2];
	const char *inner[2]; /* selectors */
	uint32_t spi[2];      /* on which this side receives */
	uint32_t reqid;
};

static struct plan
tunnel_plan(void)
{
	struct plan plan = { .mode = MODE_TUNNEL,
		.encr = ALG_AES128_GCM16,
		.window = 32,
		.hard_ms = 600000,
		.inner = { "10.1.0.0/16", "10.2.0.0/16" },
		.reqid = REQID_FIRST };

	plan.outer[LEFT].addr = addr("192.0.2.1");
	plan.outer[RIGHT].addr = addr("192.0.2.2");
	plan.outer[LEFT].port = plan.outer[RIGHT].port = 4500;
	return plan;
}

static void
set_sa(
    struct kmsg *request, const struct plan *plan, int which, uint8_t direction)
{
	struct kmsg_sa *sa = &request->sa;
	int receiver = direction == KMSG_IN ? which : !which;
	const struct alg *encr = alg_get(plan->encr);
	const struct alg *integ = alg_get(plan->integ);

	memset(request, 0, sizeof(*request));
	request->op = KMSG_SA_ADD;
	sa->direction = direction;
	sa->mode = plan->mode;
	sa->encap = plan->encap;
	sa->esn = plan->esn;
	sa->reqid = plan->reqid;
	sa->spi = plan->spi[receiver];
	sa->spi_in = plan->spi[which];
	sa->src = plan->outer[!receiver];
	sa->dst = plan->outer[receiver];
	sa->encr = plan->encr;
	sa->integ = plan->integ;
	sa->encr_key_len = (uint8_t)alg_keymat(encr);
	sa->integ_key_len = (uint8_t)(integ ? alg_keymat(integ) : 0);
	memset(sa->key, 0x30 + receiver, sizeof(sa->key));
	sa->key[0] = 1;
	sa->key[9] = 2;
	sa->key[17] = 3; /* 3DES: three different keys */
	sa->replay_window = plan->window;
	sa->hard_ms = plan->hard_ms;
	sa->ts_src.count = sa->ts_dst.count = 1;
	sa->ts_src.item[0] = ts(plan->inner[!receiver]);
	sa->ts_dst.item[0] = ts(plan->inner[receiver]);
}

static void
set_policy(
    struct kmsg *request, const struct plan *plan, int which, uint8_t direction)
{
	struct kmsg_policy *policy = &request->policy;
	int from = direction == KMSG_OUT ? which : !which;

	memset(request, 0, sizeof(*request));
	request->op = KMSG_POLICY_ADD;
	policy->direction = direction;
	policy->mode = plan->mode;
	policy->reqid = plan->reqid;
	policy->src = ts(plan->inner[from]);
	policy->dst = ts(plan->inner[!from]);
	policy->tunnel_src = plan->outer[from].addr;
	policy->tunnel_dst = plan->outer[!from].addr;
}

static void
draw_spis(struct world *world, struct plan *plan)
{
	struct kmsg request;
	int which;

	for (which = LEFT; which <= RIGHT; which++) {
		set_sa(&request, plan, which, KMSG_IN);
		request.op = KMSG_SPI;
		must(world, which, &request);
		plan->spi[which] = world->side[which].answer[0].spi;
		assert_true(plan->spi[which] >= 256);
	}
}

static void
each_policy(struct world *world, const struct plan *plan, uint8_t op)
{
	struct kmsg request;
	uint8_t direction;
	int which;

	for (which = LEFT; which <= RIGHT; which++)
		for (direction = KMSG_IN; direction <= KMSG_FWD; direction++) {
			if (direction == KMSG_FWD &&
			    plan->mode == MODE_TRANSPORT)
				continue;
			set_policy(&request, plan, which, direction);
			request.op = op;
			must(world, which, &request);
		}
}

static void
each_sa(struct world *world, const struct plan *plan, uint8_t op)
{
	struct kmsg request;
	uint8_t direction;
	int which;

	for (which = LEFT; which <= RIGHT; which++)
		for (direction = KMSG_IN; direction <= KMSG_OUT; direction++) {
			set_sa(&request, plan, which, direction);
			request.op = op;
			must(world, which, &request);
		}
}

static void
bring_up(struct world *world, struct plan *plan)
{
	draw_spis(world, plan);
	each_sa(world, plan, KMSG_SA_ADD);
	each_policy(world, plan, KMSG_POLICY_ADD);
}

static int
count_states(const char *name)
{
	char command[128];

	snprintf(command, sizeof(command), "ip -n %s xfrm state | grep -c ^src",
	    name);
	return number(command);
}

static int
count_policies(const char *name)
{
	char command[128];

	snprintf(command, sizeof(command),
	    "ip -n %s xfrm policy | grep -c '^src.*dst'", name);
	return number(command);
}

static void
take_down(struct world *world, const struct plan *plan)
{
	each_policy(world, plan, KMSG_POLICY_REMOVE);
	each_sa(world, plan, KMSG_SA_REMOVE);
	assert_int_equal(count_states("left"), 0);
	assert_int_equal(count_states("right"), 0);
	assert_int_equal(count_policies("left"), 0);
	assert_int_equal(count_policies("right"), 0);
}

static uint64_t
packets(
    struct world *world, const struct plan *plan, int which, uint8_t direction)
{
	struct kmsg request;
	const struct kmsg_use *use;

	set_sa(&request, plan, which, direction);
	request.op = KMSG_SA_QUERY;
	must(world, which, &request);
	use = &world->side[which].answer[0].use;
	if (use->packets > 0)
		assert_true(use->idle_ms < 10000 && use->octets > 0);
	else
		assert_true(use->idle_ms == UINT64_MAX);
	return use->packets;
}

/* Pings, and every one of them was in these SAs, both ways. */
static void
carries(struct world *world, const struct plan *plan, const char *from,
    const char *to, unsigned before)
{
	uint64_t count;

	assert_true(ping(from, to, 3));
	count = packets(world, plan, LEFT, KMSG_OUT);
	if (count != before + 3)
		fail_msg(
		    "%u packets instead of %u", (unsigned)count, before + 3);
	assert_true(packets(world, plan, RIGHT, KMSG_IN) == before + 3);
	assert_true(packets(world, plan, RIGHT, KMSG_OUT) == before + 3);
	assert_true(packets(world, plan, LEFT, KMSG_IN) == before + 3);
}

/* Tests ------------------------------------------------------------------- */

static void
tunnels_of_every_algorithm(void **state)
{
	static const struct {
		uint8_t encr, integ;
	} row[] = {
		{ ALG_AES128_GCM16, ALG_NONE },
		{ ALG_AES256_GCM16, ALG_NONE },
		{ ALG_CHACHA20_POLY1305, ALG_NONE },
		{ ALG_AES128_CBC, ALG_SHA256_128 },
		{ ALG_AES192_CBC, ALG_SHA384_192 },
		{ ALG_AES256_CBC, ALG_SHA512_256 },
		{ ALG_3DES_CBC, ALG_SHA1_96 },
	};
	struct world *world = *state;
	struct plan plan;
	size_t i;

	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		plan = tunnel_plan();
		plan.encr = row[i].encr;
		plan.integ = row[i].integ;
		bring_up(world, &plan);
		carries(world, &plan, "10.1.0.1", "10.2.0.1", 0);
		take_down(world, &plan);
	}
}

static void
tunnels_of_every_family(void **state)
{
	static const char *const inner[][4] = {
		{ "10.1.0.0/16", "10.2.0.0/16", "10.1.0.1", "10.2.0.1" },
		{ "fd01::/16", "fd02::/16", "fd01::1", "fd02::1" },
	};
	struct world *world = *state;
	struct plan plan;
	int outer, i;

	for (outer = 0; outer < 2; outer++)
		for (i = 0; i < 2; i++) {
			plan = tunnel_plan();
			plan.esn = true;
			plan.window = 1024;
			if (outer == 1) {
				plan.outer[LEFT].addr = addr("2001:db8::1");
				plan.outer[RIGHT].addr = addr("2001:db8::2");
			}
			plan.inner[LEFT] = inner[i][0];
			plan.inner[RIGHT] = inner[i][1];
			bring_up(world, &plan);
			carries(world, &plan, inner[i][2], inner[i][3], 0);
			take_down(world, &plan);
		}
}

static void
transport(void **state)
{
	struct world *world = *state;
	struct plan plan = tunnel_plan();

	plan.mode = MODE_TRANSPORT;
	plan.inner[LEFT] = "192.0.2.1";
	plan.inner[RIGHT] = "192.0.2.2";
	plan.window = 0;
	bring_up(world, &plan);
	carries(world, &plan, "192.0.2.1", "192.0.2.2", 0);
	take_down(world, &plan);
}

static int
udp_open(struct world *world, int which, uint16_t port)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_port = htons(port) };
	int encap = UDP_ENCAP_ESPINUDP, fd;

	enter(world, which);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	enter(world, -1);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(
	    setsockopt(fd, IPPROTO_UDP, UDP_ENCAP, &encap, sizeof(encap)), 0);
	return fd;
}

/* The SAs of one side move to where plan says now. */
static void
move_side(struct world *world, const struct plan *was, const struct plan *plan,
    int which)
{
	struct kmsg request, old;
	uint8_t direction;

	for (direction = KMSG_IN; direction <= KMSG_OUT; direction++) {
		set_sa(&request, plan, which, direction);
		set_sa(&old, was, which, direction);
		request.op = KMSG_SA_MOVE;
		request.sa.old_src = old.sa.src;
		request.sa.old_dst = old.sa.dst;
		must(world, which, &request);
	}
}

/* Behind a NAT that takes another port: the kernel reports it, the SA follows
 * with all its counters. */
static void
encapsulated_and_moved_port(void **state)
{
	struct world *world = *state;
	struct plan plan = tunnel_plan(), was;
	int fd[3];

	plan.encap = true;
	fd[0] = udp_open(world, LEFT, 4500);
	fd[1] = udp_open(world, RIGHT, 4500);
	fd[2] = udp_open(world, RIGHT, 4501);
	bring_up(world, &plan);
	carries(world, &plan, "10.1.0.1", "10.2.0.1", 0);
	was = plan;
	plan.outer[RIGHT].port = 4501;
	move_side(world, &was, &plan, RIGHT);
	/* Left still sends to 4500, where right listens, too. */
	assert_true(ping("10.1.0.1", "10.2.0.1", 1));
	assert_true(wait_for(world, &world->side[LEFT].mappings, 1));
	assert_int_equal(world->side[LEFT].event.spi, plan.spi[LEFT]);
	assert_int_equal(world->side[LEFT].event.remote.port, 4501);
	assert_true(addr_equal(
	    &world->side[LEFT].event.remote.addr, &plan.outer[RIGHT].addr));
	move_side(world, &was, &plan, LEFT);
	carries(world, &plan, "10.1.0.1", "10.2.0.1", 4);
	take_down(world, &plan);
	close(fd[0]);
	close(fd[1]);
	close(fd[2]);
}

/* To another address: what was sent is not sent again, what was received is
 * not received again. */
static void
moved_address(void **state)
{
	struct world *world = *state;
	struct plan plan = tunnel_plan(), was;
	uint8_t direction;
	struct kmsg request;
	int which, esn;

	for (esn = 0; esn < 2; esn++) {
		plan = tunnel_plan();
		plan.esn = esn;
		plan.window = esn ? 128 : 32;
		bring_up(world, &plan);
		carries(world, &plan, "10.1.0.1", "10.2.0.1", 0);
		was = plan;
		plan.outer[RIGHT].addr = addr("192.0.2.22");
		for (which = LEFT; which <= RIGHT; which++) {
			move_side(world, &was, &plan, which);
			for (direction = KMSG_IN; direction <= KMSG_FWD;
			     direction++) {
				set_policy(&request, &plan, which, direction);
				request.policy.replace = true;
				must(world, which, &request);
			}
		}
		/* Counted anew, but numbered on: a peer with a window takes
		 * them. */
		carries(world, &plan, "10.1.0.1", "10.2.0.1", 0);
		assert_true(number("echo $((0x$(ip -n left -s xfrm state list "
		                   "src 192.0.2.1 | sed -n "
		                   "'s/.*oseq 0x\\([0-9a-f]*\\).*/\\1/p' "
		                   "| head -1)))") >= 65536 + 6);
		take_down(world, &plan);
	}
}

static void
expiry(void **state)
{
	struct world *world = *state;
	struct plan plan = tunnel_plan();
	struct side *left = &world->side[LEFT];
	struct kmsg request;

	plan.hard_ms = 1500;
	draw_spis(world, &plan);
	left->expires = 0;
	set_sa(&request, &plan, LEFT, KMSG_IN);
	must(world, LEFT, &request);
	assert_true(wait_for(world, &left->expires, 1));
	assert_int_equal(left->event.spi, plan.spi[LEFT]);
	assert_true(left->event.hard);
	assert_true(
	    addr_equal(&left->event.remote.addr, &plan.outer[LEFT].addr));
	/* Gone: to remove it succeeds, to ask for it does not. */
	request.op = KMSG_SA_QUERY;
	assert_int_equal(ask(world, LEFT, &request)->err, ERR_NOT_FOUND);
	request.op = KMSG_SA_REMOVE;
	must(world, LEFT, &request);
	set_sa(&request, &plan, RIGHT, KMSG_IN);
	request.op = KMSG_SPI_DROP;
	must(world, RIGHT, &request);
}

static void
acquire(void **state)
{
	struct world *world = *state;
	struct plan plan = tunnel_plan();
	struct side *left = &world->side[LEFT];
	struct kmsg request;

	set_policy(&request, &plan, LEFT, KMSG_OUT);
	request.policy.trap = true;
	must(world, LEFT, &request);
	left->acquires = 0;
	assert_false(ping("10.1.0.1", "10.2.0.1", 1));
	assert_true(wait_for(world, &left->acquires, 1));
	assert_int_equal(left->event.reqid, plan.reqid);
	assert_true(ts_contains(&left->event.packet[0],
	    &(struct addr){ ADDR_V4, { 10, 1, 0, 1 } }, IPPROTO_ICMP, 8 << 8));
	assert_true(ts_contains(&left->event.packet[1],
	    &(struct addr){ ADDR_V4, { 10, 2, 0, 1 } }, IPPROTO_ICMP, 8 << 8));
	/* What is then installed takes the place of the kernel's waiting one;
	 * the policy is there already. */
	draw_spis(world, &plan);
	each_sa(world, &plan, KMSG_SA_ADD);
	request.op = KMSG_POLICY_REMOVE;
	must(world, LEFT, &request);
	each_policy(world, &plan, KMSG_POLICY_ADD);
	carries(world, &plan, "10.1.0.1", "10.2.0.1", 0);
	take_down(world, &plan);
}

/* Each packet of a peer that shifts its port is a report, more than we hear of.
 * That is said once, and does not drown what the kernel tells only once. */
static void
expiry_in_a_flood(void **state)
{
	struct world *world = *state;
	struct plan plan = tunnel_plan(), was;
	struct side *left = &world->side[LEFT];
	struct sockaddr_in at = { .sin_family = AF_INET };
	unsigned i, lines = world->lines;
	int fd[4];

	plan.encap = true;
	fd[0] = udp_open(world, LEFT, 4500);
	fd[1] = udp_open(world, RIGHT, 4500);
	fd[2] = udp_open(world, RIGHT, 4501);
	bring_up(world, &plan);
	was = plan;
	plan.outer[RIGHT].port = 4501;
	move_side(world, &was, &plan, RIGHT);
	enter(world, RIGHT);
	fd[3] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	enter(world, -1);
	assert_true(fd[3] >= 0);
	assert_int_equal(inet_pton(AF_INET, "10.2.0.1", &at.sin_addr), 1);
	assert_int_equal(bind(fd[3], (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(inet_pton(AF_INET, "10.1.0.1", &at.sin_addr), 1);
	at.sin_port = htons(9);

	left->mappings = left->expires = 0;
	for (i = 0; i < 8000; i++)
		(void)!sendto(
		    fd[3], "", 1, 0, (struct sockaddr *)&at, sizeof(at));
	/* Nobody listens meanwhile, also not when an SA of ours expires. */
	assert_int_equal(
	    shell("ip -n left xfrm state add src 192.0.2.2 dst 192.0.2.1 "
	          "proto esp spi 0x777 reqid %u mode tunnel "
	          "aead 'rfc4106(gcm(aes))' 0x%s 128 limit time-hard 1",
	        REQID_LAST, "0102030405060708090a0b0c0d0e0f1011121314"),
	    0);
	sleep(3);
	assert_true(wait_for(world, &left->expires, 1));
	run_ms(world, 500);
	assert_true(left->mappings > 100);
	assert_true(left->mappings < 8000);
	assert_int_equal(world->lines, lines + 1);
	assert_non_null(strstr(world->line, "too much"));
	move_side(world, &was, &plan, LEFT);
	take_down(world, &plan);
	for (i = 0; i < 4; i++)
		close(fd[i]);
}

/* A back end that dies leaves everything; the next one removes that, and
 * nothing else. */
static void
orphans(void **state)
{
	struct world *world = *state;
	struct plan plan = tunnel_plan();
	struct kserve_backend *dead = world->side[LEFT].backend;
	struct kmsg request;

	assert_int_equal(shell("ip -n left xfrm state add src 192.0.2.1 dst "
	                       "192.0.2.9 proto esp spi 0x700 reqid 7 mode "
	                       "tunnel aead 'rfc4106(gcm(aes))' 0x%s 128",
	                     "0102030405060708090a0b0c0d0e0f1011121314"),
	    0);
	assert_int_equal(
	    shell("ip -n left xfrm policy add src 10.77.0.0/16 dst "
	          "10.78.0.0/16 dir out tmpl src 192.0.2.1 dst 192.0.2.9 "
	          "proto esp reqid 7 mode tunnel"),
	    0);
	/* And selectors that somebody else has are refused. */
	plan.inner[LEFT] = "10.77.0.0/16";
	plan.inner[RIGHT] = "10.78.0.0/16";
	set_policy(&request, &plan, LEFT, KMSG_OUT);
	assert_int_equal(ask(world, LEFT, &request)->err, ERR_EXISTS);
	plan = tunnel_plan();
	bring_up(world, &plan);
	assert_int_equal(count_states("left"), 3);
	assert_int_equal(count_policies("left"), 4);
	dead->ops->free(dead);
	assert_int_equal(count_states("left"), 3);
	world->line[0] = '\0';
	backend_start(world, LEFT);
	assert_string_equal(world->line,
	    "removed what a predecessor left in the kernel: 2 SAs, "
	    "3 policies");
	assert_int_equal(count_states("left"), 1);
	assert_int_equal(count_policies("left"), 1);
	assert_int_equal(shell("ip -n left xfrm state flush && "
	                       "ip -n left xfrm policy flush"),
	    0);
	take_down(world, &plan); /* what is gone is removed with success */
}

/* An SPI whose larval SA has expired. */
static void
late_installation(void **state)
{
	struct world *world = *state;
	struct plan plan = tunnel_plan();

	assert_int_equal(
	    shell("ip netns exec left sysctl -qw net.core.xfrm_acq_expires=1"),
	    0);
	draw_spis(world, &plan);
	run_ms(world, 2500);
	assert_int_equal(count_states("left"), 0);
	each_sa(world, &plan, KMSG_SA_ADD);
	each_policy(world, &plan, KMSG_POLICY_ADD);
	carries(world, &plan, "10.1.0.1", "10.2.0.1", 0);
	take_down(world, &plan);
	assert_int_equal(
	    shell("ip netns exec left sysctl -qw net.core.xfrm_acq_expires=30"),
	    0);
}

static void
refused_twice(void **state)
{
	struct world *world = *state;
	struct plan plan = tunnel_plan();
	struct kmsg request;
	const struct kmsg_answer *answer;

	bring_up(world, &plan);
	set_sa(&request, &plan, LEFT, KMSG_OUT);
	answer = ask(world, LEFT, &request);
	assert_int_equal(answer->err, ERR_EXISTS);
	assert_true(strlen(answer->text) > 0);
	/* The first is not harmed by the second's refusal. */
	carries(world, &plan, "10.1.0.1", "10.2.0.1", 0);
	take_down(world, &plan);
}

/* Ranges that are no prefix. */
static void
ranges(void **state)
{
	struct world *world = *state;
	struct plan plan = tunnel_plan();

	plan.inner[RIGHT] = "10.2.0.1-10.2.0.6";
	bring_up(world, &plan);
	assert_int_equal(count_policies("left"), 12);
	carries(world, &plan, "10.1.0.1", "10.2.0.1", 0);
	take_down(world, &plan);
	/* One of them is somebody else's: none of ours stays. */
	assert_int_equal(
	    shell("ip -n left xfrm policy add src 10.1.0.0/16 dst "
	          "10.2.0.4/31 dir out tmpl src 192.0.2.1 dst 192.0.2.9 "
	          "proto esp reqid 7 mode tunnel"),
	    0);
	{
		struct kmsg request;

		set_policy(&request, &plan, LEFT, KMSG_OUT);
		assert_int_equal(ask(world, LEFT, &request)->err, ERR_EXISTS);
	}
	assert_int_equal(count_policies("left"), 1);
	assert_int_equal(shell("ip -n left xfrm policy flush"), 0);
}

/* Much in one turn: more than one datagram takes, everything in order. */
static void
many_at_once(void **state)
{
	struct world *world = *state;
	struct side *left = &world->side[LEFT];
	struct plan plan = tunnel_plan();
	const unsigned n = 300;
	uint32_t *spi = calloc(n, sizeof(*spi));
	struct kmsg request;
	unsigned i;

	assert_non_null(spi);
	left->answers = 0;
	for (i = 0; i < n; i++) {
		set_sa(&request, &plan, LEFT, KMSG_IN);
		request.op = KMSG_SPI;
		submit(world, LEFT, &request);
	}
	assert_true(wait_for(world, &left->answers, n));
	for (i = 0; i < n; i++) {
		assert_int_equal(left->answer[i].err, OK);
		spi[i] = left->answer[i].spi;
	}
	left->answers = 0;
	for (i = 0; i < n; i++) {
		set_sa(&request, &plan, LEFT, KMSG_IN);
		request.sa.spi = spi[i];
		submit(world, LEFT, &request);
		/* Taken back in the same breath. */
		if (i % 3 == 0) {
			request.op = KMSG_SA_REMOVE;
			submit(world, LEFT, &request);
		}
	}
	assert_true(wait_for(world, &left->answers, n + n / 3));
	for (i = 0; i < left->answers; i++)
		assert_int_equal(left->answer[i].err, OK);
	assert_int_equal(count_states("left"), (int)(n - n / 3));
	left->answers = 0;
	for (i = 0; i < n; i++) {
		set_sa(&request, &plan, LEFT, KMSG_IN);
		request.op = KMSG_SA_REMOVE;
		request.sa.spi = spi[i];
		submit(world, LEFT, &request);
	}
	assert_true(wait_for(world, &left->answers, n));
	for (i = 0; i < n; i++)
		assert_int_equal(left->answer[i].err, OK);
	assert_int_equal(count_states("left"), 0);
	free(spi);
}

/* The world --------------------------------------------------------------- */

static int namespace(const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/run/netns/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static int
setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	char why[120];

	assert_non_null(world);
	if (shell("ip netns add left && ip netns add right && "
	          "ip link add eth0 netns left type veth peer eth0 netns "
	          "right && for n in left right; do ip -n $n link set lo up; "
	          "ip -n $n link set eth0 up; "
	          "ip netns exec $n sysctl -qw "
	          "net.ipv6.conf.eth0.accept_dad=0; done; "
	          "ip -n left addr add 192.0.2.1/24 dev eth0; "
	          "ip -n right addr add 192.0.2.2/24 dev eth0; "
	          "ip -n right addr add 192.0.2.22/24 dev eth0; "
	          "ip -n left addr add 2001:db8::1/64 dev eth0 nodad; "
	          "ip -n right addr add 2001:db8::2/64 dev eth0 nodad; "
	          "ip -n left addr add 10.1.0.1/32 dev lo; "
	          "ip -n right addr add 10.2.0.1/32 dev lo; "
	          "ip -n left addr add fd01::1/128 dev lo nodad; "
	          "ip -n right addr add fd02::1/128 dev lo nodad; "
	          "ip -n left route add 10.2.0.0/16 via 192.0.2.2; "
	          "ip -n right route add 10.1.0.0/16 via 192.0.2.1; "
	          "ip -n left route add fd02::/16 via 2001:db8::2; "
	          "ip -n right route add fd01::/16 via 2001:db8::1") != 0)
		return -1;
	world->log.level = LOG_LEVEL_DEBUG;
	world->log.write = keep_line;
	world->log.arg = world;
	world->loop = loop_new();
	assert_non_null(world->loop);
	timer_init(&world->stop, stop, world->loop);
	world->home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	world->side[LEFT].name = "left";
	world->side[RIGHT].name = "right";
	world->side[LEFT].netns = namespace("left");
	world->side[RIGHT].netns = namespace("right");
	if (!xfrm_probe(why, sizeof(why)))
		fail_msg("the probe says: %s", why);
	assert_int_equal(number("ip xfrm state | wc -l"), 0);
	backend_start(world, LEFT);
	backend_start(world, RIGHT);
	*state = world;
	return 0;
}

static int
teardown(void **state)
{
	struct world *world = *state;
	int which;

	for (which = LEFT; which <= RIGHT; which++)
		world->side[which].backend->ops->free(
		    world->side[which].backend);
	loop_free(world->loop);
	free(world);
	return shell("ip netns del left; ip netns del right");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tunnels_of_every_algorithm),
		cmocka_unit_test(tunnels_of_every_family),
		cmocka_unit_test(transport),
		cmocka_unit_test(encapsulated_and_moved_port),
		cmocka_unit_test(moved_address),
		cmocka_unit_test(expiry),
		cmocka_unit_test(acquire),
		cmocka_unit_test(expiry_in_a_flood),
		cmocka_unit_test(orphans),
		cmocka_unit_test(late_installation),
		cmocka_unit_test(refused_twice),
		cmocka_unit_test(ranges),
		cmocka_unit_test(many_at_once),
	};

	if (getenv("VMRUN") == NULL) {
		puts("skipped: not in the virtual machine (tests/vm/run)");
		return 77;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
