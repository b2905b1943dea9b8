/* kserve over a fake back end: what passes, what is refused, what is known to
 * be ours; and the same over a link between two ends. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/env.h"
#include "common/ipc.h"
#include "common/loop.h"
#include "common/policy.h"
#include "kernel/kernel.h"
#include "kernel/kserve.h"
#include "kernel/ledger.h"
#include "kernel/local.h"
#include "kernel/none.h"
#include "kernel/permit.h"
#include "kernel/remote.h"
#include "tests/fake_backend.h"

struct world {
	struct timers timers;
	struct log log;
	unsigned lines;
	struct conn *office, *mobile;
	struct policy *policy;
	struct fake_backend *fake;
	struct kserve *kserve;
	struct kmsg_answer answer;
	unsigned answers;
	struct kmsg_event event;
	unsigned events;
};

static void
count_line(struct log *log, enum log_level level, const char *line)
{
	struct world *world = log->arg;

	(void)level;
	(void)line;
	world->lines++;
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

static void
one_ts(struct ts_list *list, const char *text)
{
	list->count = 1;
	list->item[0] = ts(text);
}

static void
take_answer(void *arg, const struct kmsg_answer *answer)
{
	struct world *world = arg;

	world->answer = *answer;
	world->answers++;
}

static void
take_event(void *arg, const struct kmsg_event *event)
{
	struct world *world = arg;

	world->event = *event;
	world->events++;
}

/* office: one peer, one subnet a side. mobile: anybody, the peer's own
 * address. */
static struct policy *
make_policy(struct conn **office, struct conn **mobile)
{
	struct conn *conns[2] = { conn_new("office"), conn_new("mobile") };
	struct policy *policy;

	assert_non_null(conns[0]);
	assert_non_null(conns[1]);
	conns[0]->local.host[0].kind = HOST_ADDR;
	conns[0]->local.host[0].addr = addr("192.0.2.1");
	conns[0]->remote.host_count = 2;
	conns[0]->remote.host[0].kind = HOST_ADDR;
	conns[0]->remote.host[0].addr = addr("198.51.100.1");
	conns[0]->remote.host[1].kind = HOST_RANGE;
	conns[0]->remote.host[1].addr = addr("203.0.113.16");
	conns[0]->remote.host[1].last = addr("203.0.113.31");
	one_ts(&conns[0]->local.subnets, "10.1.0.0/16");
	one_ts(&conns[0]->remote.subnets, "10.2.0.0/16");
	policy = policy_new(conns, 2);
	assert_non_null(policy);
	*office = conns[0];
	*mobile = conns[1];
	return policy;
}

static int
setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	const struct kserve_client client = { take_answer, take_event, world };

	assert_non_null(world);
	timers_init(&world->timers, 1);
	world->log.level = LOG_LEVEL_DEBUG;
	world->log.write = count_line;
	world->log.arg = world;
	world->policy = make_policy(&world->office, &world->mobile);
	policy_diff(NULL, world->policy, NULL, NULL);
	world->fake = fake_backend_new();
	world->kserve =
	    kserve_new(&world->timers, &world->log, &world->fake->backend);
	assert_non_null(world->kserve);
	assert_int_equal(kserve_policy(world->kserve, world->policy), OK);
	kserve_client(world->kserve, &client);
	*state = world;
	return 0;
}

static int
teardown(void **state)
{
	struct world *world = *state;
	bool gone = false;

	world->fake->gone = &gone;
	kserve_free(world->kserve);
	assert_true(gone);
	policy_unref(world->policy);
	free(world);
	return 0;
}

static uint64_t sequence;

static enum err
ask(struct world *world, const struct kmsg *request)
{
	struct kmsg copy = *request;
	unsigned before = world->answers;
	static const uint8_t wiped[KMSG_KEY];

	copy.sequence = ++sequence;
	kserve_request(world->kserve, &copy);
	assert_int_equal(world->answers, before + 1);
	assert_true(world->answer.sequence == sequence);
	assert_int_equal(world->answer.op, request->op);
	if (request->op == KMSG_SA_ADD)
		assert_memory_equal(copy.sa.key, wiped, KMSG_KEY);
	return world->answer.err;
}

static struct kmsg
spi_request(const struct world *world)
{
	struct kmsg request = { .op = KMSG_SPI };

	request.sa.direction = KMSG_IN;
	request.sa.mode = MODE_TUNNEL;
	request.sa.conn = world->office->reqid;
	request.sa.src.addr = addr("198.51.100.1");
	request.sa.dst.addr = addr("192.0.2.1");
	return request;
}

static struct kmsg
sa_request(const struct world *world, uint8_t direction, uint32_t spi_in)
{
	struct kmsg request = spi_request(world);
	struct endpoint other = request.sa.src;

	request.op = KMSG_SA_ADD;
	request.sa.reqid = REQID_CHILD_FIRST;
	request.sa.direction = direction;
	request.sa.spi = request.sa.spi_in = spi_in;
	request.sa.encr = ALG_AES256_GCM16;
	request.sa.encr_key_len = 36;
	memset(request.sa.key, 0x11, 36);
	request.sa.replay_window = 32;
	one_ts(&request.sa.ts_src, "10.2.3.0/24");
	one_ts(&request.sa.ts_dst, "10.1.3.0/24");
	if (direction == KMSG_OUT) {
		request.sa.spi = 0x87654321;
		request.sa.src = request.sa.dst;
		request.sa.dst = other;
		one_ts(&request.sa.ts_src, "10.1.3.0/24");
		one_ts(&request.sa.ts_dst, "10.2.3.0/24");
	}
	return request;
}

static struct kmsg
policy_request(const struct world *world, uint8_t direction)
{
	struct kmsg request = { .op = KMSG_POLICY_ADD };
	struct kmsg_policy *policy = &request.policy;
	bool out = direction == KMSG_OUT;

	policy->direction = direction;
	policy->conn = world->office->reqid;
	policy->reqid = REQID_CHILD_FIRST;
	policy->src = ts(out ? "10.1.3.0/24" : "10.2.3.0/24");
	policy->dst = ts(out ? "10.2.3.0/24" : "10.1.3.0/24");
	policy->tunnel_src = addr(out ? "192.0.2.1" : "198.51.100.1");
	policy->tunnel_dst = addr(out ? "198.51.100.1" : "192.0.2.1");
	return request;
}

static uint32_t
get_spi(struct world *world)
{
	struct kmsg request = spi_request(world);

	assert_int_equal(ask(world, &request), OK);
	assert_true(world->answer.spi >= 256);
	return world->answer.spi;
}

/* A pair and its policies; gives the inbound SPI. */
static uint32_t
install(struct world *world)
{
	uint32_t spi = get_spi(world);
	struct kmsg request = sa_request(world, KMSG_IN, spi);
	uint8_t direction;

	assert_int_equal(ask(world, &request), OK);
	for (direction = KMSG_IN; direction <= KMSG_FWD; direction++) {
		request = policy_request(world, direction);
		assert_int_equal(ask(world, &request), OK);
	}
	request = sa_request(world, KMSG_OUT, spi);
	assert_int_equal(ask(world, &request), OK);
	return spi;
}

static void
refused(struct world *world, const struct kmsg *request, enum err err,
    const char *words)
{
	unsigned executed = world->fake->count;

	assert_int_equal(ask(world, request), err);
	if (strstr(world->answer.text, words) == NULL)
		fail_msg(
		    "\"%s\" does not say \"%s\"", world->answer.text, words);
	assert_int_equal(world->fake->count, executed);
}

/* Tests ----------------------------------------------------------------- */

static void
what_is_allowed_passes(void **state)
{
	struct world *world = *state;
	struct kserve_stats stats;
	uint32_t spi = install(world);
	struct kmsg request = spi_request(world);

	assert_int_equal(world->fake->sas, 2);
	assert_int_equal(world->fake->policies, 3);
	stats = kserve_stats(world->kserve);
	assert_int_equal(stats.pairs, 1);
	assert_int_equal(stats.policies, 1);
	request.op = KMSG_SA_QUERY;
	request.sa.spi = request.sa.spi_in = spi;
	assert_int_equal(ask(world, &request), OK);
	assert_true(world->answer.use.octets == 100);
	assert_int_equal(stats.refused, 0);
	assert_int_equal(world->lines, 0);
}

static void
strangers_spis(void **state)
{
	struct world *world = *state;
	struct kmsg request = spi_request(world);

	request.sa.conn = REQID_CONN_LAST;
	refused(world, &request, ERR_REFUSED, "no connection");
	request = spi_request(world);
	request.sa.dst.addr = addr("192.0.2.2");
	refused(world, &request, ERR_REFUSED, "local address");
	request = spi_request(world);
	request.sa.direction = KMSG_OUT;
	refused(world, &request, ERR_SYNTAX, "inbound");
	request = spi_request(world);
	request.sa.mode = MODE_TRANSPORT;
	refused(world, &request, ERR_REFUSED, "mode");
}

static void
tell(struct world *world, const struct kmsg *request)
{
	struct kmsg copy = *request;

	copy.sequence = ++sequence;
	kserve_request(world->kserve, &copy);
}

/* Somebody else's SA and policy are there with the same names. Whoever adds,
 * and does not wait for the answer before he removes or moves, hits them not.
 */
static void
strangers_stay(void **state)
{
	struct world *world = *state;
	uint32_t spi = get_spi(world);
	struct kmsg out = sa_request(world, KMSG_OUT, spi);
	struct kmsg policy = policy_request(world, KMSG_OUT);
	struct kmsg in = sa_request(world, KMSG_IN, spi);

	world->fake->sa[world->fake->sas++] = out.sa;
	world->fake->policy[world->fake->policies++] = policy.policy;
	world->fake->hold = world->fake->prompt = true;
	tell(world, &in);
	tell(world, &out);
	out.op = KMSG_SA_MOVE;
	out.sa.dst.addr = addr("203.0.113.20");
	tell(world, &out);
	out = sa_request(world, KMSG_OUT, spi);
	tell(world, &out);
	out.op = KMSG_SA_REMOVE;
	tell(world, &out);
	out = sa_request(world, KMSG_OUT, spi);
	tell(world, &out);
	in.op = KMSG_SA_REMOVE;
	tell(world, &in);
	tell(world, &policy);
	policy.policy.mode = MODE_TUNNEL;
	tell(world, &policy);
	policy.op = KMSG_POLICY_REMOVE;
	tell(world, &policy);
	fake_release(world->fake, UINT_MAX);
	world->fake->hold = false;
	assert_int_equal(world->fake->sas, 1);
	assert_int_equal(world->fake->sa[0].spi, out.sa.spi);
	assert_true(addr_equal(&world->fake->sa[0].dst.addr, &out.sa.dst.addr));
	assert_int_equal(world->fake->policies, 1);
	/* Ours go, also those of a moment ago. */
	world->fake->sas = world->fake->policies = 0;
	spi = get_spi(world);
	out = sa_request(world, KMSG_OUT, spi);
	policy = policy_request(world, KMSG_OUT);
	world->fake->hold = true;
	tell(world, &out);
	tell(world, &policy);
	tell(world, &policy); /* a rekey: replaced */
	kserve_clear(world->kserve);
	fake_release(world->fake, UINT_MAX);
	world->fake->hold = false;
	assert_true(fake_empty(world->fake));
}

/* Addresses before NAT mean something in transport mode only, and there the
 * outer addresses are put in their place. */
static void
addresses_before_nat(void **state)
{
	struct world *world = *state;
	uint32_t spi;
	struct kmsg request;

	world->office->remote.subnets = world->mobile->remote.subnets;
	spi = get_spi(world);
	request = sa_request(world, KMSG_IN, spi);
	one_ts(&request.sa.ts_src, "198.51.100.1/32");
	request.sa.natoa_src.addr = addr("10.66.0.1");
	assert_int_equal(ask(world, &request), OK);
	spi = get_spi(world);
	request = sa_request(world, KMSG_IN, spi);
	one_ts(&request.sa.ts_src, "10.66.0.1/32");
	request.sa.natoa_src.addr = addr("10.66.0.1");
	refused(world, &request, ERR_REFUSED, "wider");
	request.sa.encap = true;
	request.sa.src.port = request.sa.dst.port = 4500;
	refused(world, &request, ERR_REFUSED, "wider");
}

static void
addresses_before_nat_transport(void **state)
{
	struct world *world = *state;
	struct kmsg request = spi_request(world);

	world->office->mode = MODE_TRANSPORT;
	world->office->local.subnets = world->mobile->local.subnets;
	world->office->remote.subnets = world->mobile->remote.subnets;
	request.sa.mode = MODE_TRANSPORT;
	assert_int_equal(ask(world, &request), OK);
	request = sa_request(world, KMSG_IN, world->answer.spi);
	request.sa.mode = MODE_TRANSPORT;
	one_ts(&request.sa.ts_src, "10.66.0.1/32");
	one_ts(&request.sa.ts_dst, "192.0.2.1/32");
	request.sa.natoa_src.addr = addr("10.66.0.1");
	refused(world, &request, ERR_REFUSED, "wider");
	request.sa.encap = true;
	request.sa.src.port = request.sa.dst.port = 4500;
	assert_int_equal(ask(world, &request), OK);
}

static void
remote_hosts(void **state)
{
	static const struct {
		const char *text;
		bool fits;
	} row[] = { { "198.51.100.1", true }, { "198.51.100.2", false },
		{ "203.0.113.15", false }, { "203.0.113.16", true },
		{ "203.0.113.31", true }, { "203.0.113.32", false },
		{ "0.0.0.0", false }, { "2001:db8::1", false } };
	struct world *world = *state;
	struct kmsg request;
	size_t i;

	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		request = spi_request(world);
		request.sa.src.addr = addr(row[i].text);
		if (row[i].fits)
			assert_int_equal(ask(world, &request), OK);
		else
			refused(world, &request, ERR_REFUSED, "address");
	}
}

static void
wide_selectors(void **state)
{
	static const char *const wide[] = { "10.1.0.0/15", "10.2.0.0/24",
		"0.0.0.0/0", "10.0.255.255-10.1.0.0", "::/0" };
	struct world *world = *state;
	uint32_t spi = get_spi(world);
	struct kmsg request;
	size_t i;

	for (i = 0; i < sizeof(wide) / sizeof(wide[0]); i++) {
		request = sa_request(world, KMSG_IN, spi);
		one_ts(&request.sa.ts_dst, wide[i]);
		refused(world, &request, ERR_REFUSED, "wider");
		request = policy_request(world, KMSG_OUT);
		request.policy.src = ts(wide[i]);
		assert_int_equal(ask(world, &request), ERR_REFUSED);
		request = policy_request(world, KMSG_FWD);
		request.policy.dst = ts(wide[i]);
		assert_int_equal(ask(world, &request), ERR_REFUSED);
	}
	/* A second one behind one that is allowed; none at all. */
	request = sa_request(world, KMSG_IN, spi);
	request.sa.ts_dst.item[1] = ts("10.9.0.0/24");
	request.sa.ts_dst.count = 2;
	refused(world, &request, ERR_REFUSED, "wider");
	request.sa.ts_dst.count = 0;
	refused(world, &request, ERR_REFUSED, "wider");
	/* Mirrored: ours and theirs exchanged. */
	request = policy_request(world, KMSG_OUT);
	request.policy.direction = KMSG_IN;
	refused(world, &request, ERR_REFUSED, "address");
	assert_int_equal(world->fake->policies, 0);
}

/* "dynamic" means the outer address and nothing else. */
static void
dynamic_selectors(void **state)
{
	struct world *world = *state;
	struct kmsg request = policy_request(world, KMSG_OUT);

	request.policy.conn = world->mobile->reqid;
	request.policy.src = ts("192.0.2.1");
	request.policy.dst = ts("198.51.100.1[udp/1701]");
	assert_int_equal(ask(world, &request), OK);
	request.policy.dst = ts("198.51.100.2");
	refused(world, &request, ERR_REFUSED, "wider");
	request.policy.dst = ts("198.51.100.0/31");
	refused(world, &request, ERR_REFUSED, "wider");
}

static void
wrong_algorithms(void **state)
{
	struct world *world = *state;
	uint32_t spi = get_spi(world);
	struct kmsg request = sa_request(world, KMSG_IN, spi);

	request.sa.encr_key_len = 35;
	refused(world, &request, ERR_REFUSED, "length");
	request.sa.encr_key_len = 37;
	refused(world, &request, ERR_REFUSED, "length");
	request = sa_request(world, KMSG_IN, spi);
	request.sa.integ = ALG_SHA256_128;
	request.sa.integ_key_len = 32;
	refused(world, &request, ERR_REFUSED, "together");
	request.sa.encr = ALG_AES256_CBC;
	request.sa.encr_key_len = 32;
	request.sa.integ = ALG_NONE;
	request.sa.integ_key_len = 0;
	refused(world, &request, ERR_REFUSED, "together");
	request.sa.encr = ALG_3DES_CBC; /* legacy: nobody asked for it */
	request.sa.encr_key_len = 24;
	request.sa.integ = ALG_SHA1_96;
	request.sa.integ_key_len = 20;
	refused(world, &request, ERR_REFUSED, "does not allow");
	request.sa.encr = ALG_PRF_SHA256;
	refused(world, &request, ERR_REFUSED, "together");
	request.sa.encr = ALG_COUNT;
	refused(world, &request, ERR_REFUSED, "together");
	request = sa_request(world, KMSG_IN, spi);
	request.sa.replay_window = REPLAY_WINDOW_MAX + 1;
	refused(world, &request, ERR_REFUSED, "window");
	request.sa.replay_window = REPLAY_WINDOW_MAX;
	assert_int_equal(ask(world, &request), OK);
}

static void
esn_as_configured(void **state)
{
	struct world *world = *state;
	uint32_t spi = get_spi(world);
	struct kmsg request = sa_request(world, KMSG_IN, spi);
	uint8_t i;

	for (i = 0; i < world->office->esp.count; i++)
		world->office->esp.item[i].esn = ESN_NO;
	request.sa.esn = true;
	refused(world, &request, ERR_REFUSED, "does not allow");
	request.sa.esn = false;
	assert_int_equal(ask(world, &request), OK);
}

/* Only what was made through here can be used. */
static void
foreign_spis(void **state)
{
	struct world *world = *state;
	struct kmsg request;
	uint32_t spi;
	uint8_t op;

	for (op = KMSG_SPI_DROP; op <= KMSG_SA_QUERY; op++) {
		request = sa_request(world, KMSG_IN, 0x4242);
		request.op = op;
		assert_int_equal(ask(world, &request),
		    op == KMSG_SA_ADD ? ERR_REFUSED : ERR_NOT_FOUND);
	}
	request = policy_request(world, KMSG_OUT);
	request.op = KMSG_POLICY_REMOVE;
	refused(world, &request, ERR_NOT_FOUND, "none");
	spi = install(world);
	/* Another connection's, another mode, twice, reserved. */
	request = sa_request(world, KMSG_IN, spi);
	refused(world, &request, ERR_REFUSED, "already");
	request = sa_request(world, KMSG_OUT, spi);
	refused(world, &request, ERR_REFUSED, "already");
	spi = get_spi(world);
	request = sa_request(world, KMSG_OUT, spi);
	request.sa.spi = 255;
	refused(world, &request, ERR_REFUSED, "reserved");
	request = sa_request(world, KMSG_OUT, spi);
	refused(world, &request, ERR_REFUSED, "already"); /* same SPI, peer */
	request.sa.spi++;
	assert_int_equal(ask(world, &request), OK);
	request = sa_request(world, KMSG_IN, spi);
	request.sa.conn = world->mobile->reqid;
	one_ts(&request.sa.ts_src, "198.51.100.1");
	one_ts(&request.sa.ts_dst, "192.0.2.1");
	refused(world, &request, ERR_REFUSED, "not ours");
	/* The SPI was made for 192.0.2.1. */
	world->office->local.host[0].kind = HOST_ANY;
	request = sa_request(world, KMSG_IN, spi);
	request.sa.dst.addr = addr("192.0.2.9");
	refused(world, &request, ERR_REFUSED, "another address");
}

/* What ties SAs to policies is a child's, and one connection's at a time. */
static void
reqids(void **state)
{
	struct world *world = *state;
	uint32_t spi = get_spi(world);
	struct kmsg sa = sa_request(world, KMSG_IN, spi), out;
	struct kmsg policy = policy_request(world, KMSG_OUT);

	/* A larval SA has the connection's. */
	assert_int_equal(world->fake->record[0].sa.reqid, world->office->reqid);
	sa.sa.reqid = world->office->reqid;
	refused(world, &sa, ERR_REFUSED, "not one of a child");
	sa.sa.reqid = REQID_LAST + 1;
	refused(world, &sa, ERR_REFUSED, "not one of a child");
	policy.policy.reqid = world->office->reqid;
	refused(world, &policy, ERR_REFUSED, "not one of a child");
	policy.policy.reqid = 0;
	refused(world, &policy, ERR_REFUSED, "not one of a child");
	sa.sa.reqid = REQID_LAST;
	assert_int_equal(ask(world, &sa), OK);
	out = sa_request(world, KMSG_OUT, spi);
	refused(world, &out, ERR_REFUSED, "another reqid");
	out.sa.reqid = REQID_LAST;
	assert_int_equal(ask(world, &out), OK);
	assert_int_equal(world->fake->sa[1].reqid, REQID_LAST);
	policy.policy.reqid = REQID_LAST;
	assert_int_equal(ask(world, &policy), OK);
	/* While it is office's, it is nobody else's. */
	policy.policy.conn = world->mobile->reqid;
	policy.policy.src = ts("192.0.2.1");
	policy.policy.dst = ts("198.51.100.1");
	refused(world, &policy, ERR_REFUSED, "another connection's");
	sa.op = KMSG_SA_REMOVE;
	assert_int_equal(ask(world, &sa), OK);
	refused(world, &policy, ERR_REFUSED, "another connection's");
	out = policy_request(world, KMSG_OUT);
	out.op = KMSG_POLICY_REMOVE;
	out.policy.reqid = REQID_LAST;
	assert_int_equal(ask(world, &out), OK);
	assert_int_equal(ask(world, &policy), OK);
	/* A trap's is its connection's, whatever the asker says. */
	policy.policy.trap = true;
	policy.policy.src = ts("192.0.2.1[udp]");
	assert_int_equal(ask(world, &policy), OK);
	assert_int_equal(world->fake->policy[1].reqid, world->mobile->reqid);
	policy.policy.reqid = 7;
	policy.op = KMSG_POLICY_REMOVE;
	assert_int_equal(ask(world, &policy), OK);
	assert_int_equal(world->fake->strays, 0);
}

/* Where an SA is, and what its partner is, we know better than the asker. */
static void
names_are_filled_in(void **state)
{
	struct world *world = *state;
	uint32_t spi = install(world);
	struct kmsg request = { .op = KMSG_SA_REMOVE };
	const struct kmsg_sa *sa;

	fake_forget(world->fake);
	request.sa.direction = KMSG_OUT;
	request.sa.spi = 0x87654321;
	request.sa.spi_in = spi;
	request.sa.dst.addr = addr("8.8.8.8");
	assert_int_equal(ask(world, &request), OK);
	sa = &world->fake->record[0].sa;
	assert_true(addr_equal(
	    &sa->dst.addr, &(struct addr){ ADDR_V4, { 198, 51, 100, 1 } }));
	assert_int_equal(sa->reqid, REQID_CHILD_FIRST);
	assert_int_equal(world->fake->sas, 1);
	/* The inbound SA takes a forgotten outbound one along. */
	request = sa_request(world, KMSG_OUT, spi);
	assert_int_equal(ask(world, &request), OK);
	request = sa_request(world, KMSG_IN, spi);
	request.op = KMSG_SPI_DROP;
	refused(world, &request, ERR_WRONG_STATE, "in use");
	request.op = KMSG_SA_REMOVE;
	assert_int_equal(ask(world, &request), OK);
	assert_int_equal(world->fake->sas, 0);
	assert_int_equal(kserve_stats(world->kserve).pairs, 0);
}

/* What the back end refuses is not ours, and may be asked for again. */
static void
backend_refusals(void **state)
{
	struct world *world = *state;
	uint32_t spi = get_spi(world);
	struct kmsg in = sa_request(world, KMSG_IN, spi);
	struct kmsg out = sa_request(world, KMSG_OUT, spi);
	struct kmsg policy = policy_request(world, KMSG_OUT);

	world->fake->refuse_at = 0;
	assert_int_equal(ask(world, &in), ERR_REFUSED);
	assert_string_equal(world->answer.text, "as told");
	assert_int_equal(ask(world, &in), OK);
	world->fake->refuse_at = 0;
	assert_int_equal(ask(world, &out), ERR_REFUSED);
	assert_int_equal(ask(world, &out), OK);
	world->fake->refuse_at = 0;
	assert_int_equal(ask(world, &policy), ERR_REFUSED);
	assert_int_equal(kserve_stats(world->kserve).policies, 0);
	assert_int_equal(ask(world, &policy), OK);
	assert_int_equal(world->fake->strays, 0);
	in.op = KMSG_SA_MOVE;
	in.sa.src.addr = addr("203.0.113.20");
	in.sa.encap = true;
	in.sa.src.port = 0;
	in.sa.dst.port = 4500;
	refused(world, &in, ERR_REFUSED, "ports");
	in.sa.src.port = 1;
	world->fake->refuse_at = 0;
	assert_int_equal(ask(world, &in), ERR_REFUSED);
	assert_int_equal(ask(world, &in), OK);
	in.sa.src.addr = addr("203.0.113.99");
	refused(world, &in, ERR_REFUSED, "remote address");
}

/* Late refusals of a policy that has been asked for again since. */
static void
refusals_that_are_superseded(void **state)
{
	struct world *world = *state;
	struct kmsg request = policy_request(world, KMSG_OUT);
	struct kmsg add = request, remove = request;

	remove.op = KMSG_POLICY_REMOVE;
	world->fake->hold = true;
	world->fake->refuse_at = 0;
	request = add;
	kserve_request(world->kserve, &request); /* will be refused */
	request = remove;
	kserve_request(world->kserve, &request);
	request = add;
	kserve_request(world->kserve, &request);
	fake_release(world->fake, UINT_MAX);
	world->fake->hold = false;
	assert_int_equal(kserve_stats(world->kserve).policies, 1);
	assert_int_equal(world->fake->policies, 1);
	assert_int_equal(ask(world, &remove), OK);
	assert_int_equal(world->fake->policies, 0);
}

/* Claims on one pair are looked at one by one: there are not too many. */
static void
claims_are_few(void **state)
{
	struct world *world = *state;
	struct kmsg request = policy_request(world, KMSG_OUT);
	unsigned i;

	for (i = 0; i < CLAIMS_EACH; i++) {
		assert_int_equal(ask(world, &request), OK);
		request.policy.reqid++;
	}
	refused(world, &request, ERR_LIMIT, "too many claims");
	/* One that is there may still be changed, and another pair claimed. */
	request.policy.reqid--;
	assert_int_equal(ask(world, &request), OK);
	request.policy.src = ts("10.1.4.0/24");
	assert_int_equal(ask(world, &request), OK);
	assert_int_equal(world->fake->policies, 2);
}

/* Two connections with the same selectors. */
static void
two_claims(void **state)
{
	struct world *world = *state;
	struct kmsg one = policy_request(world, KMSG_OUT), two = one,
	            trap = one;
	const struct kmsg_policy *there;
	struct ts src = one.policy.src, dst = one.policy.dst;

	two.policy.conn = world->mobile->reqid;
	two.policy.reqid = REQID_CHILD_FIRST + 1;
	two.policy.tunnel_dst = addr("192.0.2.200");
	world->mobile->local.subnets = world->office->local.subnets;
	world->mobile->remote.subnets = world->office->remote.subnets;
	trap.policy.trap = true;
	assert_int_equal(ask(world, &trap), OK);
	assert_int_equal(ask(world, &one), OK);
	assert_int_equal(ask(world, &two), OK);
	assert_int_equal(world->fake->policies, 1);
	there = fake_policy(world->fake, KMSG_OUT, &src, &dst);
	assert_int_equal(there->reqid, REQID_CHILD_FIRST + 1);
	/* Nor does a trap that is set again. */
	fake_forget(world->fake);
	assert_int_equal(ask(world, &trap), OK);
	assert_int_equal(world->fake->count, 0);
	/* The one that is not in force goes without a trace. */
	one.op = KMSG_POLICY_REMOVE;
	fake_forget(world->fake);
	assert_int_equal(ask(world, &one), OK);
	assert_int_equal(world->fake->count, 0);
	/* The one in force makes place for the one before. */
	two.op = KMSG_POLICY_REMOVE;
	assert_int_equal(ask(world, &two), OK);
	there = fake_policy(world->fake, KMSG_OUT, &src, &dst);
	assert_non_null(there);
	assert_true(there->trap);
	assert_int_equal(there->reqid, world->office->reqid);
	trap.op = KMSG_POLICY_REMOVE;
	assert_int_equal(ask(world, &trap), OK);
	assert_int_equal(world->fake->policies, 0);
	assert_int_equal(world->fake->strays, 0);
	/* Traps are outbound. */
	trap = policy_request(world, KMSG_IN);
	trap.policy.trap = true;
	refused(world, &trap, ERR_REFUSED, "trap");
}

/* The asker dies: everything goes, in order, also what is under way. */
static void
clearing(void **state)
{
	struct world *world = *state;
	struct kmsg request, trap = policy_request(world, KMSG_OUT);
	char text[512];
	unsigned answers;

	trap.policy.trap = true;
	assert_int_equal(ask(world, &trap), OK);
	install(world);
	get_spi(world);
	request = spi_request(world);
	request.sequence = 1;
	world->fake->hold = true;
	kserve_request(world->kserve, &request);
	fake_forget(world->fake);
	answers = world->answers;
	kserve_clear(world->kserve);
	fake_release(world->fake, UINT_MAX);
	world->fake->hold = false;
	assert_int_equal(world->answers, answers);
	assert_true(fake_empty(world->fake));
	assert_int_equal(world->fake->strays, 0);
	assert_int_equal(kserve_stats(world->kserve).pairs, 0);
	assert_int_equal(kserve_stats(world->kserve).policies, 0);
	fake_text(world->fake, text, sizeof(text));
	assert_ptr_equal(strstr(text, "unpol"), text);
	assert_true(strstr(text, "del-") > strstr(text, "unpol-fwd"));
	/* And the next asker starts afresh. */
	install(world);
}

/* A reload: what was under negotiation may come to its end, for a while. */
static void
reload(void **state)
{
	struct world *world = *state;
	struct conn *office, *mobile;
	struct policy *next = make_policy(&office, &mobile);
	struct kmsg request;
	uint32_t spi;

	one_ts(&office->remote.subnets, "10.77.0.0/16");
	policy_diff(world->policy, next, NULL, NULL);
	assert_int_equal(office->reqid, world->office->reqid);
	spi = get_spi(world);
	assert_int_equal(kserve_policy(world->kserve, next), OK);
	request = sa_request(world, KMSG_IN, spi);
	assert_int_equal(ask(world, &request), OK);
	request = policy_request(world, KMSG_OUT);
	request.policy.dst = ts("10.77.1.0/24");
	assert_int_equal(ask(world, &request), OK);
	world->timers.now_ms += PERMIT_GRACE_MS - 1;
	request = policy_request(world, KMSG_OUT);
	assert_int_equal(ask(world, &request), OK);
	world->timers.now_ms += 1;
	refused(world, &request, ERR_REFUSED, "wider");
	/* What is there may be removed all the same. */
	request.op = KMSG_POLICY_REMOVE;
	assert_int_equal(ask(world, &request), OK);
	assert_int_equal(kserve_policy(world->kserve, next), OK);
	policy_unref(next);
}

/* What gate does not close of a connection that has gone is taken back, with
 * everything else left as it is; reload after reload does not put that off. */
static void
reload_revokes(void **state)
{
	struct world *world = *state;
	struct kmsg request = policy_request(world, KMSG_OUT);
	struct conn *office, *mobile, *only[1];
	struct policy *next;
	const struct kmsg_policy *there;
	struct ts src = request.policy.src, dst = request.policy.dst;
	unsigned i;

	/* mobile claims what office has, too. */
	world->mobile->local.subnets = world->office->local.subnets;
	world->mobile->remote.subnets = world->office->remote.subnets;
	request.policy.conn = world->mobile->reqid;
	request.policy.reqid = REQID_CHILD_FIRST + 1;
	assert_int_equal(ask(world, &request), OK);
	install(world);
	request = policy_request(world, KMSG_OUT);
	request.policy.trap = true;
	request.policy.src = ts("10.1.0.0/16");
	assert_int_equal(ask(world, &request), OK);
	assert_int_equal(world->fake->policies, 4);

	next = make_policy(&office, &mobile);
	only[0] = conn_ref(mobile);
	policy_unref(next);
	next = policy_new(only, 1);
	assert_non_null(next);
	policy_diff(world->policy, next, NULL, NULL);
	for (i = 0; i < 10; i++) {
		assert_int_equal(kserve_policy(world->kserve, next), OK);
		assert_int_equal(world->fake->sas, 2);
		timers_run(&world->timers,
		    world->timers.now_ms + PERMIT_GRACE_MS / 10, 100);
	}
	assert_int_equal(world->fake->sas, 0);
	assert_int_equal(world->fake->spis, 0);
	assert_int_equal(world->fake->policies, 1);
	there = fake_policy(world->fake, KMSG_OUT, &src, &dst);
	assert_non_null(there);
	assert_int_equal(there->reqid, REQID_CHILD_FIRST + 1);
	assert_int_equal(kserve_stats(world->kserve).pairs, 0);
	assert_int_equal(kserve_stats(world->kserve).policies, 1);
	assert_int_equal(world->fake->strays, 0);
	assert_int_equal(world->lines, 1);
	policy_unref(next);
}

/* The back end ends while all is taken back, and what it has not answered yet
 * fails in the middle of that. */
static void
end_in_the_middle(void **state)
{
	struct world *world = *state;
	struct kmsg request = policy_request(world, KMSG_OUT);
	struct policy *next;
	unsigned i, round;

	request.policy.trap = true;
	for (round = 0; round < 2; round++) {
		world->fake->hold = world->fake->dies = true;
		for (i = 0; i < 40; i++) {
			request.policy.src.first_port = (uint16_t)i;
			tell(world, &request);
		}
		if (round == 0) {
			kserve_clear(world->kserve);
		} else {
			next = policy_new(NULL, 0);
			assert_non_null(next);
			assert_int_equal(
			    kserve_policy(world->kserve, next), OK);
			timers_run(&world->timers,
			    world->timers.now_ms + PERMIT_GRACE_MS, 100);
			policy_unref(next);
		}
		assert_false(world->fake->dies);
		assert_int_equal(kserve_stats(world->kserve).policies, 0);
		assert_int_equal(world->fake->policies, 0);
	}
}

/* gate may ask for a reload as often as it likes: nothing grows. */
static void
reload_again(void **state)
{
	struct world *world = *state;
	const uint64_t chance[2] = { 1, 2 };
	struct permit permit;
	struct kmsg request = spi_request(world);
	struct policy *next;
	struct conn *office, *mobile;
	unsigned i;

	permit_init(&permit, chance);
	for (i = 0; i < 1000; i++)
		assert_int_equal(permit_policy(&permit, world->policy, i), OK);
	assert_int_equal(permit.conns.count, 2);
	assert_null(permit_sa(&permit, &request, 1000 + PERMIT_GRACE_MS));
	/* Gone, and back before and after its time of grace is over. */
	next = make_policy(&office, &mobile);
	office->local.host[0].addr = addr("192.0.2.99");
	policy_diff(world->policy, next, NULL, NULL);
	assert_int_equal(permit_policy(&permit, next, 1000), OK);
	assert_int_equal(permit.conns.count, 3);
	assert_null(permit_sa(&permit, &request, 999 + PERMIT_GRACE_MS));
	assert_non_null(permit_sa(&permit, &request, 1000 + PERMIT_GRACE_MS));
	assert_int_equal(
	    permit_policy(&permit, world->policy, 1000 + PERMIT_GRACE_MS), OK);
	assert_null(permit_sa(&permit, &request, 1000 + 9 * PERMIT_GRACE_MS));
	assert_int_equal(permit.conns.count, 3);
	permit_fini(&permit);
	policy_unref(next);
}

static void
events_are_ours(void **state)
{
	struct world *world = *state;
	struct kserve_backend *backend = &world->fake->backend;
	uint32_t spi = install(world);
	struct kmsg_event event = { .kind = KEVENT_EXPIRE, .hard = true };

	event.spi = spi;
	event.remote.addr = addr("192.0.2.1");
	backend->event(backend->arg, &event);
	assert_int_equal(world->events, 1);
	assert_int_equal(world->event.spi, spi);
	/* An outbound SA is reported by its partner. */
	event.spi = 0x87654321;
	event.remote.addr = addr("198.51.100.1");
	backend->event(backend->arg, &event);
	assert_int_equal(world->events, 2);
	assert_int_equal(world->event.spi, spi);
	event.remote.addr = addr("198.51.100.2"); /* somebody else's */
	backend->event(backend->arg, &event);
	event.kind = KEVENT_MAPPING;
	backend->event(backend->arg, &event);
	assert_int_equal(world->events, 2);
	event.spi = spi;
	backend->event(backend->arg, &event);
	assert_int_equal(world->events, 3);
}

/* A back end that draws what is in use: asked again, a few times. */
static void
spis_in_use(void **state)
{
	struct world *world = *state;
	struct kmsg request = spi_request(world);
	uint32_t spi = install(world);

	world->fake->next_spi = spi;
	assert_int_equal(ask(world, &request), OK);
	assert_int_equal(world->answer.spi, spi + 1);
	assert_int_equal(world->fake->sas, 2); /* not given back */
	world->fake->same_spi = true;
	world->fake->next_spi = spi;
	assert_int_equal(ask(world, &request), ERR_NOMEM);
	world->fake->spis = 1;
	assert_int_equal(kserve_stats(world->kserve).pairs, 2);
	/* At another address the back end has one of its own: given back. */
	world->office->local.host[0].kind = HOST_ANY;
	request.sa.dst.addr = addr("192.0.2.3");
	fake_forget(world->fake);
	assert_int_equal(ask(world, &request), ERR_NOMEM);
	assert_int_equal(world->fake->count, 8);
	assert_int_equal(world->fake->record[1].op, KMSG_SPI_DROP);
	assert_int_equal(world->fake->spis, 1);
}

static void
no_answer_wanted(void **state)
{
	struct world *world = *state;
	struct kmsg request = spi_request(world);

	kserve_request(world->kserve, &request);
	assert_int_equal(world->answers, 0);
	assert_int_equal(world->fake->spis, 1);
}

/* Memory: the record of a pair with its policies. */
static void
many_pairs(void **state)
{
	struct world *world = *state;
	struct kmsg request;
	unsigned i, n = 120;
	uint32_t spi;

	for (i = 0; i < n; i++) {
		spi = get_spi(world);
		request = sa_request(world, KMSG_IN, spi);
		assert_int_equal(ask(world, &request), OK);
		request = sa_request(world, KMSG_OUT, spi);
		request.sa.spi += i;
		assert_int_equal(ask(world, &request), OK);
		request = policy_request(world, KMSG_OUT);
		request.policy.src.first.octets[2] = (uint8_t)i;
		request.policy.src.last.octets[2] = (uint8_t)i;
		assert_int_equal(ask(world, &request), OK);
	}
	assert_int_equal(kserve_stats(world->kserve).pairs, n);
	assert_int_equal(kserve_stats(world->kserve).policies, n);
	kserve_clear(world->kserve);
	assert_true(fake_empty(world->fake));
}

/* Over a link ------------------------------------------------------------ */

struct far {
	struct world *world;
	struct env env;
	struct loop *loop;
	struct timer stop;
	unsigned done, events, closed;
	struct kmsg_answer answer;
};

static void
stop(void *arg)
{
	loop_stop(arg);
}

static void
run(struct far *far)
{
	timer_set(loop_timers(far->loop), &far->stop, 20);
	loop_run(far->loop);
}

static void
far_done(struct env *env, void *arg, const struct kmsg_answer *answer)
{
	struct far *far = arg;

	assert_ptr_equal(env, &far->env);
	far->done++;
	far->answer = *answer;
}

static void
far_expire(struct env *env, uint32_t spi_in, bool hard)
{
	struct far *far = env->event_arg;

	assert_true(hard);
	assert_int_equal(spi_in, far->answer.spi);
	far->events++;
}

static void
far_closed(struct env *env, const char *why)
{
	struct far *far = env->event_arg;

	assert_non_null(why);
	far->closed++;
}

static void
over_a_link(void **state)
{
	struct world *world = *state;
	struct far far = { .world = world };
	struct kmsg request = spi_request(world);
	struct kmsg_event event = { .kind = KEVENT_EXPIRE, .hard = true };
	struct kernel *kernel;
	int pair[2];

	far.loop = loop_new();
	assert_non_null(far.loop);
	far.env.timers = loop_timers(far.loop);
	far.env.log = &world->log;
	far.env.event_arg = &far;
	timer_init(&far.stop, stop, far.loop);
	assert_int_equal(ipc_pair(pair), OK);
	assert_int_equal(kserve_serve(world->kserve, far.loop, pair[0]), OK);
	kernel = remote_new(&far.env, far.loop, pair[1], far_closed);
	assert_non_null(kernel);
	far.env.kernel = kernel;
	kernel->events.expire = far_expire;

	assert_int_equal(
	    kernel->ops->submit(kernel, &request, far_done, &far), OK);
	assert_int_equal(far.done, 0);
	run(&far);
	assert_int_equal(far.done, 1);
	assert_int_equal(far.answer.err, OK);
	request = sa_request(world, KMSG_IN, far.answer.spi);
	assert_int_equal(
	    kernel->ops->submit(kernel, &request, far_done, &far), OK);
	request.sa.conn = REQID_CONN_LAST;
	assert_int_equal(
	    kernel->ops->submit(kernel, &request, far_done, &far), OK);
	run(&far);
	assert_int_equal(far.done, 3);
	assert_int_equal(far.answer.err, ERR_REFUSED);
	assert_string_equal(far.answer.text, "no connection has this number");
	assert_int_equal(world->fake->sas, 1);
	event.spi = far.answer.spi;
	event.remote.addr = addr("192.0.2.1");
	world->fake->backend.event(world->fake->backend.arg, &event);
	run(&far);
	assert_int_equal(far.events, 1);
	/* The asker goes: its SAs go. */
	kernel_free(&far.env);
	run(&far);
	assert_true(fake_empty(world->fake));

	/* Our end goes: whoever waits is told; nothing more can be asked. */
	assert_int_equal(ipc_pair(pair), OK);
	kernel = remote_new(&far.env, far.loop, pair[1], far_closed);
	assert_non_null(kernel);
	far.env.kernel = kernel;
	request = spi_request(world);
	assert_int_equal(
	    kernel->ops->submit(kernel, &request, far_done, &far), OK);
	close(pair[0]);
	run(&far);
	assert_int_equal(far.closed, 1);
	assert_int_equal(far.done, 4);
	assert_int_equal(far.answer.err, ERR_CANCELLED);
	assert_int_equal(kernel->ops->submit(kernel, &request, far_done, &far),
	    ERR_WRONG_STATE);
	kernel_free(&far.env);
	loop_free(far.loop);
}

static void
ignore_close(void *arg, enum err err, const char *why)
{
	(void)arg;
	(void)err;
	(void)why;
}

/* Octets that are no request close the link; everything is taken back. */
static void
broken_link(void **state)
{
	static const struct ipc_permit rows[] = {
		{ KFRAME_REQUEST, IPC_OUT, 1, KMSG_OCTETS, 0, NULL },
	};
	struct world *world = *state;
	struct far far = { .world = world };
	struct ipc *ipc;
	int pair[2];

	far.loop = loop_new();
	assert_non_null(far.loop);
	timer_init(&far.stop, stop, far.loop);
	install(world);
	assert_int_equal(ipc_pair(pair), OK);
	assert_int_equal(kserve_serve(world->kserve, far.loop, pair[0]), OK);
	ipc = ipc_new(far.loop, pair[1], rows, 1, ignore_close, NULL);
	assert_non_null(ipc);
	assert_int_equal(
	    ipc_send(ipc, KFRAME_REQUEST, 1, "\xff\xff\xff", 3), OK);
	run(&far);
	assert_true(fake_empty(world->fake));
	assert_int_equal(world->lines, 1);
	ipc_free(ipc);
	loop_free(far.loop);
}

/* Traffic of a local user makes events; gate is busy elsewhere. They are left
 * out, the link stays. */
static void
flood_of_events(void **state)
{
	struct world *world = *state;
	struct far far = { .world = world };
	struct kmsg_event event = { .kind = KEVENT_ACQUIRE };
	int pair[2];

	far.loop = loop_new();
	assert_non_null(far.loop);
	timer_init(&far.stop, stop, far.loop);
	install(world);
	event.reqid = world->office->reqid;
	event.packet[0] = ts("10.1.3.4/32");
	event.packet[1] = ts("10.2.3.4/32");
	assert_int_equal(ipc_pair(pair), OK);
	assert_int_equal(kserve_serve(world->kserve, far.loop, pair[0]), OK);
	for (unsigned i = 0; i < IPC_QUEUE / 32; i++)
		world->fake->backend.event(world->fake->backend.arg, &event);
	timers_run(&world->timers, world->timers.now_ms + 1000, 100);
	assert_int_equal(world->fake->sas, 2);
	assert_int_equal(world->lines, 0);
	/* Then gate dies. */
	close(pair[1]);
	for (unsigned i = 0; i < 50 && !fake_empty(world->fake); i++)
		run(&far);
	assert_true(fake_empty(world->fake));
	loop_free(far.loop);
}

/* none: draws SPIs, says yes to the rest; over local. */
static bool
counting(void *arg, void *octets, size_t len)
{
	uint32_t *next = arg;

	memset(octets, 0, len);
	memcpy(octets, next, len < sizeof(*next) ? len : sizeof(*next));
	++*next;
	return true;
}

static void
no_data_plane(void **state)
{
	struct world *world = *state;
	struct far far = { .world = world };
	uint32_t next = 250; /* the first six are reserved */
	struct kserve *kserve;
	struct kmsg request = spi_request(world);
	unsigned i;

	far.env.timers = &world->timers;
	far.env.log = &world->log;
	kserve =
	    kserve_new(&world->timers, &world->log, none_new(counting, &next));
	assert_non_null(kserve);
	assert_int_equal(kserve_policy(kserve, world->policy), OK);
	far.env.kernel = local_new(&far.env, kserve, true);
	assert_non_null(far.env.kernel);
	for (i = 0; i < 3; i++)
		assert_int_equal(far.env.kernel->ops->submit(
		                     far.env.kernel, &request, far_done, &far),
		    OK);
	assert_int_equal(far.done, 0);
	timers_run(&world->timers, world->timers.now_ms, 10);
	assert_int_equal(far.done, 3);
	assert_int_equal(far.answer.err, OK);
	assert_int_equal(far.answer.spi, 258);
	request = sa_request(world, KMSG_IN, 258);
	assert_int_equal(far.env.kernel->ops->submit(
	                     far.env.kernel, &request, far_done, &far),
	    OK);
	timers_run(&world->timers, world->timers.now_ms, 10);
	assert_int_equal(far.answer.err, OK);
	kernel_free(&far.env);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_allowed_passes),
		TEST(strangers_spis),
		TEST(strangers_stay),
		TEST(addresses_before_nat),
		TEST(addresses_before_nat_transport),
		TEST(remote_hosts),
		TEST(wide_selectors),
		TEST(dynamic_selectors),
		TEST(wrong_algorithms),
		TEST(esn_as_configured),
		TEST(foreign_spis),
		TEST(reqids),
		TEST(names_are_filled_in),
		TEST(backend_refusals),
		TEST(refusals_that_are_superseded),
		TEST(claims_are_few),
		TEST(two_claims),
		TEST(clearing),
		TEST(reload),
		TEST(reload_revokes),
		TEST(end_in_the_middle),
		TEST(reload_again),
		TEST(events_are_ours),
		TEST(spis_in_use),
		TEST(no_answer_wanted),
		TEST(many_pairs),
		TEST(over_a_link),
		TEST(broken_link),
		TEST(flood_of_events),
		TEST(no_data_plane),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
