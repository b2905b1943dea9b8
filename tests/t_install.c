/* install over the local asker, kserve's checks and a fake back end. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/engine.h"
#include "common/sa.h"
#include "kernel/install.h"
#include "kernel/kernel.h"
#include "kernel/local.h"
#include "kernel/step.h"
#include "tests/fake_backend.h"

/* A kernel before the real one, whose submit fails when told. */
struct shaky {
	struct kernel kernel;
	struct kernel *real;
	int fail_at; /* the n-th submit from now on; -1: none */
};

struct world {
	struct env env;
	struct timers timers;
	struct log log;
	struct conn *conn;
	struct policy *policy;
	struct ike_sa sa;
	struct fake_backend *fake;
	struct kserve *kserve;
	struct shaky shaky;
	uint64_t chance;
	/* What came back. */
	unsigned done, used, acquires, lost;
	enum err err;
	char text[120];
	struct ticket ticket;
	struct install_use use;
};

static bool
draw(void *arg, void *octets, size_t len)
{
	struct world *world = arg;

	world->chance = world->chance * 6364136223846793005ull + 1;
	memset(octets, (int)(world->chance >> 33), len);
	return true;
}

static void
silent(struct log *log, enum log_level level, const char *line)
{
	(void)log;
	(void)level;
	(void)line;
}

static enum err
shaky_submit(struct kernel *kernel, const struct kmsg *request,
    kernel_done *done, void *arg)
{
	struct shaky *shaky = (struct shaky *)(void *)kernel;

	if (shaky->fail_at == 0) {
		shaky->fail_at = -1;
		return ERR_NOMEM;
	}
	if (shaky->fail_at > 0)
		shaky->fail_at--;
	return shaky->real->ops->submit(shaky->real, request, done, arg);
}

static void
shaky_free(struct kernel *kernel)
{
	struct shaky *shaky = (struct shaky *)(void *)kernel;

	shaky->real->ops->free(shaky->real);
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
set_list(struct ts_list *list, const char *first, const char *second)
{
	list->count = 0;
	list->item[list->count++] = ts(first);
	if (second)
		list->item[list->count++] = ts(second);
}

static void
acquired(struct env *env, uint32_t reqid, const struct ts packet[2])
{
	struct world *world = env->event_arg;

	(void)packet;
	assert_int_equal(reqid, world->conn->reqid);
	world->acquires++;
}

static void
lost(struct env *env)
{
	((struct world *)env->event_arg)->lost++;
}

static int
setup(void **state)
{
	static const struct kernel_ops ops = { shaky_submit, shaky_free };
	static const struct engine engine = { .version = 2 };
	struct world *world = calloc(1, sizeof(*world));
	struct conn *conns[1];

	assert_non_null(world);
	timers_init(&world->timers, 1000);
	world->log.write = silent;
	world->env.timers = &world->timers;
	world->env.log = &world->log;
	world->env.random = draw;
	world->env.random_arg = world;
	world->env.event_arg = world;
	world->env.child_gone = install_remove;
	assert_int_equal(sadb_new(&world->env), OK);
	world->conn = conns[0] = conn_new("office");
	assert_non_null(world->conn);
	set_list(&world->conn->local.subnets, "10.1.0.0/16", "10.2.0.0/16");
	set_list(&world->conn->remote.subnets, "10.9.0.0/16", NULL);
	world->policy = policy_new(conns, 1);
	assert_non_null(world->policy);
	policy_diff(NULL, world->policy, NULL, NULL);
	assert_int_equal(world->conn->reqid, REQID_FIRST);
	world->fake = fake_backend_new();
	world->kserve =
	    kserve_new(&world->timers, &world->log, &world->fake->backend);
	assert_non_null(world->kserve);
	assert_int_equal(kserve_policy(world->kserve, world->policy), OK);
	world->shaky.kernel.ops = &ops;
	world->shaky.fail_at = -1;
	world->shaky.real = local_new(&world->env, world->kserve, true);
	assert_non_null(world->shaky.real);
	world->env.kernel = &world->shaky.kernel;
	world->env.kernel->events.acquire = acquired;
	world->env.kernel->events.lost = lost;
	world->sa.env = &world->env;
	world->sa.engine = &engine;
	world->sa.conn = world->conn;
	world->sa.local.addr = addr("192.0.2.1");
	world->sa.remote.addr = addr("198.51.100.1");
	world->sa.local.port = world->sa.remote.port = 4500;
	world->env.sadb->first = world->env.sadb->last = &world->sa;
	*state = world;
	return 0;
}

/* Lets timers and answers run. */
static void
turn(struct world *world)
{
	unsigned i;

	for (i = 0; i < 4; i++)
		timers_run(&world->timers, world->timers.now_ms, 100);
}

static int
teardown(void **state)
{
	struct world *world = *state;
	bool gone = false;

	while (world->sa.children)
		child_kill(world->sa.children, OK, false, NULL);
	fake_release(world->fake, UINT_MAX);
	turn(world);
	fake_release(world->fake, UINT_MAX);
	assert_true(fake_empty(world->fake));
	assert_int_equal(world->fake->strays, 0);
	/* Whoever had a reqid gave it back. */
	if (world->env.kernel->install)
		assert_int_equal(
		    world->env.kernel->install->reqid_sets.count, 0);
	world->fake->gone = &gone;
	world->env.sadb->first = world->env.sadb->last = NULL;
	kernel_free(&world->env);
	assert_true(gone);
	assert_null(world->env.kernel);
	sadb_free(world->env.sadb);
	policy_unref(world->policy);
	free(world);
	return 0;
}

static void
done(struct env *env, struct ticket ticket, enum err err, const char *text)
{
	struct world *world = env->event_arg;

	world->done++;
	world->ticket = ticket;
	world->err = err;
	assert_true((text != NULL) == (err != OK));
	snprintf(world->text, sizeof(world->text), "%s", text ? text : "");
}

static void
used(struct env *env, struct ticket ticket, enum err err,
    const struct install_use *use)
{
	struct world *world = env->event_arg;

	(void)ticket;
	world->used++;
	world->err = err;
	if (use)
		world->use = *use;
}

/* A child that has been negotiated, but for its inbound SPI. */
static struct child_sa *
child(struct world *world)
{
	struct child_sa *made = child_new(&world->sa, world->conn, true);
	uint8_t keys[64];

	assert_non_null(made);
	set_list(&made->ts_local, "10.1.0.0/24", NULL);
	set_list(&made->ts_remote, "10.9.1.0/24", NULL);
	made->suite.encr = alg_get(ALG_AES128_GCM16);
	memset(keys, 0x77, sizeof(keys));
	assert_int_equal(secret_set(&made->keys_in, view_of(keys, 20)), OK);
	assert_int_equal(secret_set(&made->keys_out, view_of(keys, 20)), OK);
	made->spi_out = 0xabcd0000 + (uint32_t)made->serial;
	return made;
}

static struct ticket
ticket_of(const struct child_sa *of)
{
	return (struct ticket){ .sa = 1, .child = of->serial };
}

static void
get_spi(struct world *world, struct child_sa *of)
{
	unsigned before = world->done;

	assert_int_equal(install_spi(&world->env, of, ticket_of(of), done), OK);
	assert_int_equal(world->done, before); /* never from inside */
	turn(world);
	assert_int_equal(world->done, before + 1);
	assert_int_equal(world->err, OK);
	assert_true(of->spi_in >= 256);
	assert_ptr_equal(child_by_spi_in(world->env.sadb, of->spi_in), of);
}

static struct child_sa *
child_installed(struct world *world)
{
	struct child_sa *made = child(world);

	get_spi(world, made);
	assert_int_equal(
	    install_both(&world->env, made, ticket_of(made), done), OK);
	turn(world);
	assert_int_equal(world->err, OK);
	return made;
}

static void
assert_asked(struct world *world, const char *expected)
{
	char text[1024];

	assert_string_equal(
	    fake_text(world->fake, text, sizeof(text)), expected);
	fake_forget(world->fake);
}

/* Tests ----------------------------------------------------------------- */

static void
two_steps(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child(world);

	get_spi(world, one);
	assert_asked(world, "spi-in");
	assert_int_equal(
	    install_inbound(&world->env, one, ticket_of(one), done), OK);
	assert_int_equal(one->keys_in.len, 0);
	assert_int_equal(one->keys_out.len, 20);
	turn(world);
	assert_int_equal(world->done, 2);
	assert_int_equal(world->err, OK);
	assert_int_equal(world->ticket.child, one->serial);
	assert_asked(world, "add-in pol-out pol-in pol-fwd");
	assert_int_equal(
	    install_outbound(&world->env, one, ticket_of(one), done), OK);
	assert_int_equal(one->keys_out.len, 0);
	turn(world);
	assert_int_equal(world->done, 3);
	assert_asked(world, "add-out");
	assert_int_equal(world->fake->sas, 2);
	assert_int_equal(world->fake->policies, 3);
	assert_int_equal(install_pairs(&world->env), 1);
	child_kill(one, OK, false, NULL);
	turn(world);
	assert_asked(world, "unpol-out unpol-in unpol-fwd del-out del-in");
	assert_true(fake_empty(world->fake));
	assert_int_equal(install_pairs(&world->env), 0);
}

/* What reaches the back end is what the child says. */
static void
right_values(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child(world);
	const struct kmsg_policy *policy;
	const struct kmsg_sa *in, *out;

	one->encap = true;
	one->suite.esn = true;
	one->replay_window = 77;
	get_spi(world, one);
	/* The default proposals of esp= say nothing of ESN. */
	world->conn->esp.item[0].esn = ESN_NO | ESN_YES;
	assert_int_equal(
	    install_both(&world->env, one, ticket_of(one), done), OK);
	turn(world);
	assert_int_equal(world->err, OK);
	in = &world->fake->sa[0];
	out = &world->fake->sa[1];
	assert_int_equal(in->direction, KMSG_IN);
	assert_int_equal(in->spi, one->spi_in);
	assert_true(endpoint_equal(&in->src, &one->remote));
	assert_true(endpoint_equal(&in->dst, &one->local));
	assert_true(in->encap && in->esn && in->replay_window == 77);
	assert_int_equal(in->hard_ms, one->lifetime_ms);
	assert_int_equal(in->encr_key_len, 20);
	assert_int_equal(in->key[19], 0x77);
	assert_int_equal(out->direction, KMSG_OUT);
	assert_int_equal(out->spi, one->spi_out);
	assert_true(endpoint_equal(&out->dst, &one->remote));
	policy = fake_policy(world->fake, KMSG_FWD, &one->ts_remote.item[0],
	    &one->ts_local.item[0]);
	assert_non_null(policy);
	assert_int_equal(policy->conn, world->conn->reqid);
	assert_int_equal(policy->reqid, one->reqid);
	assert_int_equal(in->reqid, one->reqid);
	assert_int_equal(out->reqid, one->reqid);
	assert_int_equal(one->reqid, REQID_CHILD_FIRST);
	assert_true(addr_equal(&policy->tunnel_dst, &one->local.addr));
}

static void
transport_behind_nat(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child(world);
	struct ts here, there;

	world->conn->mode = MODE_TRANSPORT;
	world->conn->local.subnets.item[0] =
	    (struct ts){ .dynamic = true, .last_port = 65535 };
	world->conn->local.subnets.count = 1;
	world->conn->remote.subnets = world->conn->local.subnets;
	one->mode = MODE_TRANSPORT;
	one->natoa_remote.addr = addr("172.16.0.5");
	set_list(&one->ts_local, "192.0.2.1", NULL);
	set_list(&one->ts_remote, "172.16.0.5", NULL);
	get_spi(world, one);
	fake_forget(world->fake);
	assert_int_equal(
	    install_both(&world->env, one, ticket_of(one), done), OK);
	turn(world);
	assert_string_equal(world->text, "");
	/* No forwarding in transport mode. */
	assert_asked(world, "add-in pol-out pol-in add-out");
	here = ts("192.0.2.1");
	there = ts("198.51.100.1");
	assert_non_null(fake_policy(world->fake, KMSG_OUT, &here, &there));
	/* The NAT gets another address: other selectors. */
	one->remote.addr = addr("198.51.100.7");
	install_move(&world->env, one);
	turn(world);
	assert_asked(
	    world, "move-in move-out unpol-out unpol-in pol-out pol-in");
	assert_null(fake_policy(world->fake, KMSG_OUT, &here, &there));
	there = ts("198.51.100.7");
	assert_non_null(fake_policy(world->fake, KMSG_OUT, &here, &there));
	one->remote.port = 9;
	install_move(&world->env, one);
	turn(world);
	assert_asked(world, "move-in move-out");
	child_kill(one, OK, false, NULL);
	turn(world);
	assert_true(fake_empty(world->fake));
}

/* A rekey neither doubles nor removes the policies. */
static void
rekey(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child_installed(world), *two;

	fake_forget(world->fake);
	two = child_installed(world);
	assert_asked(world, "spi-in add-in pol-out pol-in pol-fwd add-out");
	assert_int_equal(world->fake->policies, 3);
	assert_int_equal(install_pairs(&world->env), 1);
	child_linger(one, 5000);
	turn(world);
	assert_asked(world, "del-out");
	assert_int_equal(world->fake->sas, 3);
	timers_run(&world->timers, world->timers.now_ms + 4999, 100);
	assert_asked(world, "");
	timers_run(&world->timers, world->timers.now_ms + 1, 100);
	assert_asked(world, "del-in");
	assert_int_equal(world->fake->policies, 3);
	child_kill(two, OK, false, NULL);
	assert_asked(world, "unpol-out unpol-in unpol-fwd del-out del-in");
}

static void
several_pairs(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child(world), *two;

	set_list(&one->ts_local, "10.1.0.0/24", "10.2.0.0/24");
	set_list(&one->ts_remote, "10.9.1.0/24", "10.9.2.0/24");
	get_spi(world, one);
	assert_int_equal(
	    install_both(&world->env, one, ticket_of(one), done), OK);
	turn(world);
	assert_int_equal(world->err, OK);
	assert_int_equal(world->fake->policies, 12);
	two = child_installed(world); /* has one of the four */
	assert_int_equal(world->fake->policies, 12);
	child_kill(one, OK, false, NULL);
	turn(world);
	assert_int_equal(world->fake->policies, 3);
	assert_int_equal(install_pairs(&world->env), 1);
	child_kill(two, OK, false, NULL);
}

/* No pair of one family: nothing to protect. */
static void
no_common_family(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child(world);

	get_spi(world, one);
	set_list(&one->ts_remote, "2001:db8::/64", NULL);
	assert_int_equal(
	    install_both(&world->env, one, ticket_of(one), done), ERR_TS);
	turn(world);
	assert_int_equal(world->done, 1);
	assert_int_equal(world->fake->policies, 0);
}

/* The back end refuses the n-th request: all is taken back, one answer. */
static void
refusal_at_every_step(void **state)
{
	struct world *world = *state;
	struct child_sa *one, *other = child_installed(world);
	int at;

	set_list(&other->ts_local, "10.1.0.0/24", NULL);
	for (at = 0; at < 5; at++) {
		one = child(world);
		/* Odd: beside one that has the same policies. */
		if (at & 1)
			set_list(&one->ts_local, "10.1.7.0/24", NULL);
		get_spi(world, one);
		world->done = 0;
		world->fake->refuse_at = at;
		assert_int_equal(
		    install_both(&world->env, one, ticket_of(one), done), OK);
		turn(world);
		assert_int_equal(world->done, 1);
		assert_int_equal(world->err, ERR_REFUSED);
		assert_string_equal(world->text, "as told");
		assert_int_equal(world->fake->sas, 2);
		child_kill(one, ERR_REFUSED, false, NULL);
		turn(world);
		assert_int_equal(world->fake->sas, 2);
		assert_int_equal(world->fake->spis, 0);
		assert_int_equal(install_pairs(&world->env), 1);
		assert_int_equal(kserve_stats(world->kserve).pairs, 1);
		/* What was another's is still there. */
		assert_int_equal(world->fake->policies, 3);
	}
	child_kill(other, OK, false, NULL);
	assert_true(fake_empty(world->fake));
}

static void
refused_spi(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child(world);

	world->fake->refuse_op = KMSG_SPI;
	assert_int_equal(
	    install_spi(&world->env, one, ticket_of(one), done), OK);
	turn(world);
	assert_int_equal(world->err, ERR_REFUSED);
	assert_int_equal(one->spi_in, 0);
	fake_forget(world->fake);
	child_kill(one, ERR_REFUSED, false, NULL);
	assert_asked(world, "");
}

/* submit itself fails at the n-th request: told at once, no answer later. */
static void
submit_fails_at_every_step(void **state)
{
	struct world *world = *state;
	struct child_sa *one;
	int at;

	for (at = 0; at < 6; at++) {
		one = child(world);
		if (at == 5) {
			world->shaky.fail_at = 0;
			assert_int_equal(
			    install_spi(&world->env, one, ticket_of(one), done),
			    ERR_NOMEM);
			child_kill(one, OK, false, NULL);
			break;
		}
		get_spi(world, one);
		world->done = 0;
		world->shaky.fail_at = at;
		assert_int_equal(
		    install_both(&world->env, one, ticket_of(one), done),
		    ERR_NOMEM);
		turn(world);
		assert_int_equal(world->done, 0);
		child_kill(one, ERR_NOMEM, false, NULL);
		turn(world);
		assert_true(fake_empty(world->fake));
		assert_int_equal(install_pairs(&world->env), 0);
		assert_int_equal(kserve_stats(world->kserve).pairs, 0);
		assert_int_equal(kserve_stats(world->kserve).policies, 0);
	}
}

/* The child goes after the n-th answer: nothing is left, whatever was on its
 * way. With an answer refused among them, too. */
static void
removal_at_every_moment(void **state)
{
	struct world *world = *state;
	struct child_sa *one;
	int after, refuse;

	for (refuse = -1; refuse < 5; refuse++)
		for (after = 0; after <= 5; after++) {
			one = child(world);
			get_spi(world, one);
			world->done = 0;
			world->fake->hold = true;
			world->fake->refuse_at = refuse;
			assert_int_equal(install_both(&world->env, one,
			                     ticket_of(one), done),
			    OK);
			fake_release(world->fake, (unsigned)after);
			turn(world);
			child_kill(one, OK, false, NULL);
			fake_release(world->fake, UINT_MAX);
			turn(world);
			world->fake->hold = false;
			fake_release(world->fake, UINT_MAX);
			turn(world);
			assert_int_equal(world->done, 1);
			assert_true(fake_empty(world->fake));
			assert_int_equal(install_pairs(&world->env), 0);
			assert_int_equal(kserve_stats(world->kserve).pairs, 0);
			assert_int_equal(
			    kserve_stats(world->kserve).policies, 0);
			/* A refusal may leave a removal nothing to remove. */
			if (refuse >= 0)
				world->fake->strays = 0;
		}
	assert_int_equal(world->fake->strays, 0);
}

static void
removal_while_the_spi_is_drawn(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child(world);

	world->fake->hold = true;
	assert_int_equal(
	    install_spi(&world->env, one, ticket_of(one), done), OK);
	child_kill(one, OK, false, NULL);
	world->fake->hold = false;
	fake_release(world->fake, UINT_MAX);
	turn(world);
	assert_int_equal(world->done, 1);
	assert_int_equal(world->err, ERR_CANCELLED);
	assert_asked(world, "spi-in drop-in");
	assert_true(fake_empty(world->fake));
}

static void
query(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child(world);

	assert_int_equal(install_query(&world->env, one, ticket_of(one), used),
	    ERR_WRONG_STATE);
	get_spi(world, one);
	assert_int_equal(
	    install_inbound(&world->env, one, ticket_of(one), done), OK);
	turn(world);
	assert_int_equal(
	    install_query(&world->env, one, ticket_of(one), used), OK);
	turn(world);
	assert_int_equal(world->used, 1);
	assert_int_equal(world->use.octets_in, 100 * KMSG_IN);
	assert_int_equal(world->use.octets_out, 0);
	assert_int_equal(world->use.idle_in_ms, 5000);
	assert_int_equal(
	    install_outbound(&world->env, one, ticket_of(one), done), OK);
	assert_int_equal(
	    install_query(&world->env, one, ticket_of(one), used), OK);
	turn(world);
	assert_int_equal(world->used, 2);
	assert_int_equal(world->err, OK);
	assert_int_equal(world->use.packets_in, KMSG_IN);
	assert_int_equal(world->use.octets_out, 100 * KMSG_OUT);
	world->fake->refuse_op = KMSG_SA_QUERY;
	assert_int_equal(
	    install_query(&world->env, one, ticket_of(one), used), OK);
	turn(world);
	assert_int_equal(world->used, 3);
	assert_int_equal(world->err, ERR_REFUSED);
}

static void
move(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child_installed(world);
	const struct kmsg_policy *policy;

	fake_forget(world->fake);
	one->remote.port = 61234;
	install_move(&world->env, one);
	turn(world);
	assert_asked(world, "move-in move-out"); /* policies have no ports */
	one->remote.addr = addr("203.0.113.5");
	install_move(&world->env, one);
	turn(world);
	assert_asked(world, "move-in move-out pol-out pol-in pol-fwd");
	policy = fake_policy(world->fake, KMSG_OUT, &one->ts_local.item[0],
	    &one->ts_remote.item[0]);
	assert_true(addr_equal(&policy->tunnel_dst, &one->remote.addr));
	assert_true(
	    addr_equal(&world->fake->sa[1].dst.addr, &one->remote.addr));
	/* Refused: logged, and the old place is still known. */
	world->fake->refuse_op = KMSG_SA_MOVE;
	one->remote.addr = addr("203.0.113.99");
	install_move(&world->env, one);
	turn(world);
	world->fake->refuse_op = 0;
	child_kill(one, OK, false, NULL);
	assert_true(fake_empty(world->fake));
}

/* Two peers with the same selectors below one connection: the newest has the
 * traffic; when it goes, the other gets it back. */
static void
same_selectors_two_peers(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child_installed(world), *two = child(world);
	const struct kmsg_policy *policy;

	two->remote.addr = addr("203.0.113.77");
	get_spi(world, two);
	assert_int_equal(
	    install_both(&world->env, two, ticket_of(two), done), OK);
	turn(world);
	assert_int_equal(world->err, OK);
	policy = fake_policy(world->fake, KMSG_OUT, &one->ts_local.item[0],
	    &one->ts_remote.item[0]);
	assert_true(addr_equal(&policy->tunnel_dst, &two->remote.addr));
	child_kill(two, OK, false, NULL);
	turn(world);
	policy = fake_policy(world->fake, KMSG_OUT, &one->ts_local.item[0],
	    &one->ts_remote.item[0]);
	assert_non_null(policy);
	assert_true(addr_equal(&policy->tunnel_dst, &one->remote.addr));
	child_kill(one, OK, false, NULL);
}

static unsigned
sas_with(const struct world *world, uint32_t reqid)
{
	unsigned i, count = 0;

	for (i = 0; i < world->fake->sas; i++)
		count += world->fake->sa[i].reqid == reqid;
	return count;
}

static struct child_sa *
child_of(struct world *world, const char *local, const char *more,
    const char *remote, const char *and)
{
	struct child_sa *made = child(world);

	set_list(&made->ts_local, local, more);
	set_list(&made->ts_remote, remote, and);
	get_spi(world, made);
	assert_int_equal(
	    install_both(&world->env, made, ticket_of(made), done), OK);
	turn(world);
	assert_int_equal(world->err, OK);
	return made;
}

static void
assert_tied(
    const struct world *world, const struct child_sa *to, const char *remote)
{
	struct ts here = ts("10.1.0.0/24"), there = ts(remote);
	const struct kmsg_policy *policy;

	policy = fake_policy(world->fake, KMSG_OUT, &here, &there);
	assert_non_null(policy);
	assert_int_equal(policy->reqid, to->reqid);
	policy = fake_policy(world->fake, KMSG_IN, &there, &here);
	assert_non_null(policy);
	assert_int_equal(policy->reqid, to->reqid);
}

/* Outer addresses and connection are the same: only the reqid tells a policy
 * to which SA packets belong. */
static void
peers_behind_one_nat(void **state)
{
	struct world *world = *state;
	struct child_sa *one, *two, *next;
	uint32_t first, second;

	one =
	    child_of(world, "10.1.0.0/24", NULL, "10.9.1.0/24", "10.9.2.0/24");
	two =
	    child_of(world, "10.1.0.0/24", NULL, "10.9.3.0/24", "10.9.4.0/24");
	first = one->reqid;
	second = two->reqid;
	assert_int_not_equal(first, second);
	assert_int_equal(sas_with(world, first), 2);
	assert_int_equal(sas_with(world, second), 2);
	assert_tied(world, one, "10.9.1.0/24");
	assert_tied(world, one, "10.9.2.0/24");
	assert_tied(world, two, "10.9.3.0/24");
	assert_tied(world, two, "10.9.4.0/24");
	/* A rekey keeps it, whatever the order of its selectors. */
	next =
	    child_of(world, "10.1.0.0/24", NULL, "10.9.2.0/24", "10.9.1.0/24");
	assert_int_equal(next->reqid, first);
	install_remove(&world->env, one, 5000);
	assert_int_equal(one->reqid, 0);
	child_kill(one, OK, false, NULL);
	turn(world);
	assert_tied(world, next, "10.9.1.0/24");
	assert_int_equal(sas_with(world, first), 3);
	child_kill(next, OK, false, NULL);
	turn(world);
	/* The old inbound SA still has the number. */
	assert_int_equal(sas_with(world, first), 1);
	assert_tied(world, two, "10.9.4.0/24");
	next =
	    child_of(world, "10.1.0.0/24", NULL, "10.9.1.0/24", "10.9.2.0/24");
	assert_int_equal(next->reqid, first);
	child_kill(next, OK, false, NULL);
	world->timers.now_ms += 5000;
	turn(world);
	assert_int_equal(sas_with(world, first), 0);
	/* Whoever comes later gets a number that nobody had. */
	next =
	    child_of(world, "10.1.0.0/24", NULL, "10.9.1.0/24", "10.9.2.0/24");
	assert_int_equal(next->reqid, second + 1);
	/* One of two children's selectors: the newer one's count, and the
	 * older one's come back. */
	one = child_of(world, "10.1.0.0/24", NULL, "10.9.2.0/24", NULL);
	assert_tied(world, next, "10.9.1.0/24");
	assert_tied(world, one, "10.9.2.0/24");
	child_kill(one, OK, false, NULL);
	turn(world);
	assert_tied(world, next, "10.9.2.0/24");
}

/* A trap stays while children of it come and go. */
static void
trap(void **state)
{
	struct world *world = *state;
	struct ts here = ts("10.1.0.0/16"), there = ts("10.9.0.0/16");
	struct addr local = addr("192.0.2.1"), remote = addr("198.51.100.1");
	const struct kmsg_policy *policy;
	struct child_sa *one;
	struct kmsg_event event = { .kind = KEVENT_ACQUIRE };

	assert_int_equal(
	    install_trap(&world->env, world->conn, &local, &remote), OK);
	turn(world);
	assert_asked(world, "pol-out pol-out");
	policy = fake_policy(world->fake, KMSG_OUT, &here, &there);
	assert_true(policy && policy->trap);
	event.reqid = world->conn->reqid;
	world->fake->backend.event(world->fake->backend.arg, &event);
	assert_int_equal(world->acquires, 0);
	turn(world);
	assert_int_equal(world->acquires, 1);

	one = child(world);
	set_list(&one->ts_local, "10.1.0.0/16", NULL);
	set_list(&one->ts_remote, "10.9.0.0/16", NULL);
	get_spi(world, one);
	assert_int_equal(
	    install_both(&world->env, one, ticket_of(one), done), OK);
	turn(world);
	policy = fake_policy(world->fake, KMSG_OUT, &here, &there);
	assert_true(policy && !policy->trap);
	/* Set again, as after a reload, it stands back. */
	assert_int_equal(
	    install_trap(&world->env, world->conn, &local, &remote), OK);
	turn(world);
	policy = fake_policy(world->fake, KMSG_OUT, &here, &there);
	assert_true(policy && !policy->trap);
	/* What its own policy reports is no reason for another child. */
	event.reqid = one->reqid;
	world->fake->backend.event(world->fake->backend.arg, &event);
	turn(world);
	assert_int_equal(world->acquires, 1);
	child_kill(one, OK, false, NULL);
	turn(world);
	policy = fake_policy(world->fake, KMSG_OUT, &here, &there);
	assert_true(policy && policy->trap);
	assert_int_equal(world->fake->policies, 2);
	/* Set again (the peer's name has another address now). */
	remote = addr("198.51.100.2");
	assert_int_equal(
	    install_trap(&world->env, world->conn, &local, &remote), OK);
	turn(world);
	assert_int_equal(world->fake->policies, 2);
	policy = fake_policy(world->fake, KMSG_OUT, &here, &there);
	assert_true(addr_equal(&policy->tunnel_dst, &remote));
	install_untrap(&world->env, world->conn);
	install_untrap(&world->env, world->conn);
	turn(world);
	assert_int_equal(world->fake->policies, 0);
}

/* The userland ESP process has died: what was is forgotten, and what comes
 * anew is counted anew, whatever goes later. */
static void
loss(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child_installed(world), *two;
	struct kmsg_event event = { .kind = KEVENT_LOST };

	world->fake->sas = world->fake->policies = 0;
	world->fake->backend.event(world->fake->backend.arg, &event);
	turn(world);
	assert_int_equal(world->lost, 1);
	assert_int_equal(install_pairs(&world->env), 0);
	assert_int_equal(kserve_stats(world->kserve).pairs, 0);
	two = child_installed(world);
	fake_forget(world->fake);
	child_kill(one, OK, false, NULL);
	turn(world);
	assert_asked(world, "");
	assert_int_equal(world->fake->policies, 3);
	child_kill(two, OK, false, NULL);
}

/* Everything ends while something is under way, and while an SA lingers. */
static void
end_at_once(void **state)
{
	struct world *world = *state;
	struct child_sa *one = child_installed(world);

	child_linger(one, 5000);
	one = child(world);
	world->fake->hold = true;
	assert_int_equal(
	    install_spi(&world->env, one, ticket_of(one), done), OK);
	one->installed = 0; /* so that nothing is asked any more */
	install_free(&world->env);
	kserve_clear(world->kserve);
	fake_release(world->fake, UINT_MAX);
	world->fake->hold = false;
	assert_true(fake_empty(world->fake));
	assert_int_equal(kserve_stats(world->kserve).pairs, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(two_steps),
		TEST(right_values),
		TEST(transport_behind_nat),
		TEST(rekey),
		TEST(several_pairs),
		TEST(no_common_family),
		TEST(refusal_at_every_step),
		TEST(refused_spi),
		TEST(submit_fails_at_every_step),
		TEST(removal_at_every_moment),
		TEST(removal_while_the_spi_is_drawn),
		TEST(query),
		TEST(move),
		TEST(same_selectors_two_peers),
		TEST(peers_behind_one_nat),
		TEST(trap),
		TEST(loss),
		TEST(end_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
