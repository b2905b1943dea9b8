/*
 * Reload in the midst of things: the daemon's keeper over whole gateways. What
 * stays the same is not touched at any moment of any exchange; what changed
 * counts from the next renewal on; what has gone is closed, both ends; what is
 * new comes beside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/keeper.h"
#include "tests/play/play.h"

#define PSK "correct horse battery staple"

/* A gateway with the daemon's keeper. */
struct node {
	struct gateway *gw;
	struct keeper *keeper;
	void (*event)(struct env *env, const struct event *event);
	void *event_arg;
	struct keeper_difference difference; /* of the last reload */
};

/* What a file of configuration says. */
struct file {
	bool net, lab; /* connections that are there */
	const char *esp;
	const char *ike;
	uint64_t lifetime_ms;
	uint64_t dpd_ms;
	uint64_t ike_lifetime_ms;  /* 0: the default */
	const char *here, *there;  /* of "net", left's view; NULL: wide */
	const char *left, *right;  /* identities; NULL: addresses */
	bool left_start, left_any; /* auto=start, and right=%any at right */
	bool right_start;
};

struct world {
	struct play *play;
	struct node left, right;
	enum policy_keyexchange version;
};

static const struct file usual = { .net = true,
	.ike = "aes128-sha256-curve25519",
	.esp = "aes128-sha256",
	.lifetime_ms = 3600000 };

/* A gateway's own eyes, and then the keeper's. */
static void
on_event(struct env *env, const struct event *event)
{
	struct node *node = env->event_arg;

	env->event_arg = node->event_arg;
	node->event(env, event);
	env->event_arg = node;
	keeper_event(node->keeper, event);
}

static void
node_begin(struct node *node, struct gateway *gw)
{
	struct env *env = &gw->env;

	node->gw = gw;
	node->keeper = keeper_new(env, NULL);
	assert_non_null(node->keeper);
	node->event = env->event;
	node->event_arg = env->event_arg;
	env->event = on_event;
	env->event_arg = node;
}

static void
node_end(struct node *node)
{
	struct env *env = &node->gw->env;

	env->event = NULL;
	env->event_arg = node->event_arg;
	keeper_free(node->keeper);
	env->keeper = NULL;
}

static void
add(struct world *world, struct node *node, const char *name,
    const struct file *file, const char *here, const char *there)
{
	bool left = node == &world->left;
	const char *peer = left             ? "192.0.2.2"
	                   : file->left_any ? NULL
	                                    : "192.0.2.1";
	struct conn *conn;

	conn = gateway_conn(
	    node->gw, name, peer, left ? here : there, left ? there : here);
	if (file->left != NULL)
		conn_set_ids(conn, left ? file->left : file->right,
		    left ? file->right : file->left);
	if (left ? file->left_start : file->right_start)
		conn->autostart = AUTO_START;
	conn->keyingtries = 0;
	if (file->ike_lifetime_ms != 0)
		conn->ike_lifetime_ms = file->ike_lifetime_ms;
	conn->keyexchange = (uint8_t)world->version;
	conn_set_ike(conn, file->ike);
	conn_set_esp(conn, file->esp);
	conn->lifetime_ms = file->lifetime_ms;
	conn->dpd_delay_ms = file->dpd_ms;
	conn->dpd_timeout_ms = 3 * file->dpd_ms;
	conn->dpd_action = DPD_CLEAR;
}

/* Reads the file: objects that are all new, as after parsing. */
static void
reload(struct world *world, struct node *node, const struct file *file)
{
	struct gateway *gw = node->gw;
	struct policy *next;
	size_t i;

	for (i = 0; i < gw->building_count; i++)
		conn_unref(gw->building[i]);
	gw->building_count = 0;
	if (file->net)
		add(world, node, "net", file,
		    file->here != NULL ? file->here : "10.1.0.0/16",
		    file->there != NULL ? file->there : "10.2.0.0/16");
	if (file->lab)
		add(world, node, "lab", file, "10.3.0.0/16", "10.4.0.0/16");
	for (i = 0; i < gw->building_count; i++)
		conn_ref(gw->building[i]);
	next = policy_new(gw->building, gw->building_count);
	assert_non_null(next);
	keeper_policy(node->keeper, next, &node->difference);
	policy_unref(next);
}

static void
begin(struct world *world, uint64_t seed, unsigned version)
{
	memset(world, 0, sizeof(*world));
	world->play = play_new(seed);
	world->version = version == 1 ? KEYEX_IKEV1 : KEYEX_IKEV2;
	node_begin(
	    &world->left, play_gateway(world->play, "left", "192.0.2.1"));
	node_begin(
	    &world->right, play_gateway(world->play, "right", "192.0.2.2"));
	gateway_psk(world->left.gw, NULL, NULL, PSK);
	gateway_psk(world->right.gw, NULL, NULL, PSK);
	reload(world, &world->left, &usual);
	reload(world, &world->right, &usual);
}

static void
end(struct world *world)
{
	node_end(&world->left);
	node_end(&world->right);
	play_free(world->play);
}

static bool
traffic(struct world *world, const char *src, const char *dst)
{
	return play_traffic(world->left.gw, world->right.gw, src, dst) &&
	       play_traffic(world->right.gw, world->left.gw, dst, src);
}

static bool
both_up(void *arg)
{
	struct world *world = arg;

	return gateway_child_count(world->left.gw, "net") > 0 &&
	       gateway_child_count(world->right.gw, "net") > 0;
}

static bool
quiet_at(struct gateway *gw)
{
	return gateway_idle(gw) &&
	       gw->kernel.sa_count == 2 * gateway_child_count(gw, NULL);
}

static bool
quiet(void *arg)
{
	struct world *world = arg;

	return quiet_at(world->left.gw) && quiet_at(world->right.gw);
}

static void
settle(struct world *world, size_t ikes, size_t children)
{
	play_until(world->play, quiet, world, 600000);
	if (!play_settled(world->left.gw, world->right.gw, ikes, children))
		fail_msg("IKEv%u, seed %llu: %s; %s", world->version,
		    (unsigned long long)world->play->seed,
		    world->left.gw->failed, world->right.gw->failed);
}

static void
up(struct world *world)
{
	assert_int_equal(gateway_up(world->left.gw, "net", 0), OK);
	assert_true(play_until(world->play, both_up, world, 60000));
	play_run(world->play, 1000);
}

/* Every moment of a handshake, and some before and after it. */
#define MOMENTS 60
#define EACH_MS 3

static struct node *
either(struct world *world, unsigned moment)
{
	return moment % 2 == 0 ? &world->left : &world->right;
}

/* The same ----------------------------------------------------------------- */

static void
same_in_handshake(unsigned version)
{
	struct world world;

	for (unsigned moment = 0; moment < MOMENTS; moment++) {
		begin(&world, 100 + moment, version);
		assert_int_equal(gateway_up(world.left.gw, "net", 0), OK);
		play_run(world.play, moment / 2 * EACH_MS);
		reload(&world, either(&world, moment), &usual);
		assert_int_equal(either(&world, moment)->difference.same, 1);
		play_run(world.play, 5000);
		settle(&world, 1, 1);
		assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
		/* At the first try, and nothing was told twice. */
		assert_int_equal(world.left.gw->events[EVENT_IKE_UP], 1);
		assert_int_equal(world.right.gw->events[EVENT_IKE_UP], 1);
		assert_int_equal(world.left.gw->events[EVENT_IKE_FAILED], 0);
		assert_int_equal(world.right.gw->events[EVENT_IKE_FAILED], 0);
		assert_int_equal(world.left.gw->events[EVENT_CHILD_DOWN], 0);
		/* It is the policy's connection, not a copy. */
		assert_ptr_equal(gateway_ike(world.left.gw)->conn,
		    policy_conn(world.left.gw->env.policy, "net"));
		assert_ptr_equal(gateway_child(world.right.gw)->conn,
		    policy_conn(world.right.gw->env.policy, "net"));
		end(&world);
	}
}

static void
same_in_rekey(unsigned version)
{
	struct world world;
	struct ike_sa *sa;

	for (unsigned moment = 0; moment < MOMENTS; moment++) {
		begin(&world, 200 + moment, version);
		up(&world);
		sa = gateway_ike(world.left.gw);
		if (moment % 4 < 2)
			sa->engine->child_rekey(sa->children);
		else
			sa->engine->rekey(sa);
		play_run(world.play, moment / 4 * EACH_MS);
		reload(&world, either(&world, moment), &usual);
		play_run(world.play, 60000);
		settle(&world, 1, 1);
		assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
		assert_int_equal(world.left.gw->events[EVENT_IKE_DOWN], 0);
		assert_int_equal(world.right.gw->events[EVENT_IKE_DOWN], 0);
		assert_int_equal(world.left.gw->events[EVENT_CHILD_DOWN], 0);
		assert_int_equal(world.right.gw->events[EVENT_CHILD_DOWN], 0);
		end(&world);
	}
}

/* Changed ------------------------------------------------------------------ */

/* Both files change, one after the other, in the handshake: it comes up by the
 * old or the new one, and at the next renewal the new one counts. */
static void
changed_in_handshake(unsigned version)
{
	struct file file = usual;
	struct world world;
	struct child_sa *child;

	file.esp = "aes256-sha512,aes128-sha256";
	for (unsigned moment = 0; moment < MOMENTS; moment++) {
		begin(&world, 300 + moment, version);
		assert_int_equal(gateway_up(world.left.gw, "net", 0), OK);
		play_run(world.play, moment / 2 * EACH_MS);
		reload(&world, either(&world, moment), &file);
		assert_int_equal(either(&world, moment)->difference.changed, 1);
		play_run(world.play, EACH_MS);
		reload(&world, either(&world, moment + 1), &file);
		play_run(world.play, 5000);
		settle(&world, 1, 1);
		assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
		child = gateway_child(world.left.gw);
		child->sa->engine->child_rekey(child);
		play_run(world.play, 60000);
		settle(&world, 1, 1);
		assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
		child = gateway_child(world.left.gw);
		assert_int_equal(child->suite.encr->id, ALG_AES256_CBC);
		end(&world);
	}
}

/* The peer's renewal takes the place of a child from before the change. */
static void
changed_and_renewed_by_peer(unsigned version)
{
	struct file file = usual;
	struct world world;
	struct child_sa *child;

	file.lifetime_ms = usual.lifetime_ms / 2;
	for (unsigned turn = 0; turn < 2; turn++) {
		begin(&world, 350 + turn, version);
		up(&world);
		reload(&world, either(&world, turn), &file);
		assert_int_equal(either(&world, turn)->difference.changed, 1);
		child = gateway_child(either(&world, turn + 1)->gw);
		child->sa->engine->child_rekey(child);
		play_run(world.play, 2000);
		/* Before the peer deletes the old one. */
		assert_int_equal(
		    gateway_child_count(either(&world, turn)->gw, "net"), 1);
		play_run(world.play, 60000);
		settle(&world, 1, 1);
		assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
		end(&world);
	}
}

/* Live SAs keep what they were made from until they are renewed. */
static void
changed_while_up(unsigned version)
{
	struct file file = usual;
	struct world world;
	struct child_sa *child;
	uint64_t serial;

	begin(&world, 400, version);
	up(&world);
	serial = gateway_ike(world.left.gw)->serial;
	child = gateway_child(world.left.gw);
	file.esp = "aes256-sha256";
	file.ike = "aes256-sha512-ecp256";
	file.lifetime_ms = 1800000;
	reload(&world, &world.left, &file);
	reload(&world, &world.right, &file);
	play_run(world.play, 60000);
	settle(&world, 1, 1);
	assert_int_equal(gateway_ike(world.left.gw)->serial, serial);
	assert_ptr_equal(gateway_child(world.left.gw), child);
	assert_int_equal(child->suite.encr->id, ALG_AES128_CBC);
	child->sa->engine->child_rekey(child);
	play_run(world.play, 60000);
	settle(&world, 1, 1);
	child = gateway_child(world.left.gw);
	child->sa->engine->rekey(child->sa);
	play_run(world.play, 60000);
	settle(&world, 1, 1);
	assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
	assert_int_equal(gateway_ike(world.left.gw)->suite.kex->id, ALG_ECP256);
	/* The IKE SA that follows it is the new connection's; and so are
	 * children from then on, however they are renewed. */
	child = gateway_child(world.left.gw);
	child->sa->engine->child_rekey(child);
	play_run(world.play, 60000);
	settle(&world, 1, 1);
	assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
	child = gateway_child(world.left.gw);
	assert_int_equal(child->suite.encr->id, ALG_AES256_CBC);
	end(&world);
}

/* One file only has changed: the other side's word counts as well, and when
 * they have nothing in common the renewal fails and the old SA serves on. */
static void
changed_at_one_end(unsigned version)
{
	struct file file = usual;
	struct world world;
	struct child_sa *child;

	begin(&world, 450, version);
	up(&world);
	file.esp = "aes256-sha512";
	reload(&world, &world.right, &file);
	child = gateway_child(world.left.gw);
	child->sa->engine->child_rekey(child);
	play_run(world.play, 20000);
	assert_int_equal(gateway_ike_count(world.left.gw), 1);
	assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
	assert_int_equal(world.left.gw->events[EVENT_CHILD_DOWN], 0);
	/* It becomes right again. */
	reload(&world, &world.right, &usual);
	child = gateway_child(world.left.gw);
	assert_non_null(child);
	child->sa->engine->child_rekey(child);
	play_run(world.play, 60000);
	settle(&world, 1, 1);
	assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
	end(&world);
}

/* Not allowed any more ----------------------------------------------------- */

/* Which of the two does it, or both. */
enum { LEFT = 1, RIGHT = 2, BOTH_ENDS = 3 };

static void
reload_at(struct world *world, unsigned ends, const struct file *file)
{
	if (ends & LEFT)
		reload(world, &world->left, file);
	if (ends & RIGHT)
		reload(world, &world->right, file);
}

/* Both begin with this file, and one of the two starts. */
static void
begin_with(
    struct world *world, uint64_t seed, unsigned version, struct file *file)
{
	struct file passive = *file;

	begin(world, seed, version);
	/* One after the other, so that they do not both begin. */
	passive.left_start = false;
	reload(world, &world->left, &passive);
	reload(world, &world->right, file);
	if (file->right_start)
		assert_true(play_until(world->play, both_up, world, 60000));
	if (file->left_start)
		reload(world, &world->left, file);
	if (file->left_start || file->right_start)
		assert_true(play_until(world->play, both_up, world, 60000));
	else
		assert_int_equal(gateway_up(world->left.gw, "net", 0), OK);
	play_run(world->play, 5000);
	settle(world, 1, 1);
	assert_true(traffic(world, "10.1.0.1", "10.2.0.1"));
	assert_true(traffic(world, "10.1.7.1", "10.2.7.1"));
}

/* For longer than it takes a responder's answer to arrive? Until then, what it
 * sends on the new SA finds nobody. */
static bool
interrupted(struct world *world, unsigned ms)
{
	unsigned lost = 0, longest = 0;

	for (; ms > 0; ms -= 5) {
		play_run(world->play, 5);
		lost = traffic(world, "10.1.0.1", "10.2.0.1") ? 0 : lost + 5;
		longest = lost > longest ? lost : longest;
	}
	return longest > 40;
}

/* RFC 7296 2.9.2: narrower selectors are no rekey's. Live children keep the
 * wide ones; at the next renewal, whoever begins it, they get a successor that
 * has the narrow ones, before they go. */
static void
narrowed(unsigned version, unsigned reloads, unsigned rekeys, unsigned starts,
    uint64_t seed, unsigned loss)
{
	struct file file = usual, narrow;
	struct world world;
	struct child_sa *child;
	struct node *node;
	uint64_t ike;
	bool gap;

	file.left_start = (starts & LEFT) != 0;
	file.right_start = (starts & RIGHT) != 0;
	begin_with(&world, seed, version, &file);
	ike = gateway_ike(world.left.gw)->serial;
	narrow = file;
	narrow.here = "10.1.0.0/24";
	narrow.there = "10.2.0.0/24";
	reload_at(&world, reloads, &narrow);
	play_run(world.play, 60000);
	settle(&world, 1, 1);
	assert_true(traffic(&world, "10.1.7.1", "10.2.7.1"));
	world.play->weather.loss_permille = loss;
	node = rekeys == LEFT ? &world.left : &world.right;
	child = gateway_child(node->gw);
	child->sa->engine->child_rekey(child);
	gap = interrupted(&world, 5000);
	play_run(world.play, loss > 0 ? 600000 : 60000);
	if (starts == 0) {
		settle(&world, 1, 0);
		end(&world);
		return;
	}
	settle(&world, 1, 1);
	assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
	assert_false(traffic(&world, "10.1.7.1", "10.2.7.1"));
	/* Who keeps it up, and whose renewal it was, makes it first and breaks
	 * then; and the IKE SA has nothing to do with it. */
	if ((starts & rekeys) != 0 && (reloads & rekeys) != 0 && loss == 0)
		assert_false(gap);
	if (loss == 0)
		assert_int_equal(gateway_ike(world.left.gw)->serial, ike);
	/* From now on it is rekeyed as it is. */
	world.play->weather.loss_permille = 0;
	child = gateway_child(node->gw);
	child->sa->engine->child_rekey(child);
	play_run(world.play, 60000);
	settle(&world, 1, 1);
	assert_int_equal(
	    node->gw->events[EVENT_STALE], (reloads & rekeys) != 0);
	end(&world);
}

static void
test_v2_narrowed(void **state)
{
	(void)state;
	for (unsigned reloads = LEFT; reloads <= BOTH_ENDS; reloads++)
		for (unsigned rekeys = LEFT; rekeys <= RIGHT; rekeys++)
			for (unsigned starts = 0; starts <= BOTH_ENDS; starts++)
				narrowed(2, reloads, rekeys, starts,
				    900 + 16 * reloads + 4 * rekeys + starts,
				    0);
	for (uint64_t seed = 1000; seed < 1020; seed++)
		narrowed(2, BOTH_ENDS, 1 + seed % 2, BOTH_ENDS, seed, 150);
}

/* IKEv1 renews by Quick Modes that are new ones anyway: the same holds, as far
 * as both agree. It narrows nothing: a peer with wide selectors has no way to
 * one with narrow ones. */
static void
test_v1_narrowed(void **state)
{
	unsigned rekeys, starts;

	(void)state;
	for (rekeys = LEFT; rekeys <= RIGHT; rekeys++) {
		for (starts = 0; starts <= BOTH_ENDS; starts++)
			narrowed(1, BOTH_ENDS, rekeys, starts,
			    1400 + 4 * rekeys + starts, 0);
		narrowed(1, rekeys, rekeys, rekeys, 1420 + rekeys, 0);
	}
	for (uint64_t seed = 1500; seed < 1520; seed++)
		narrowed(1, BOTH_ENDS, 1 + seed % 2, BOTH_ENDS, seed, 150);
}

static bool
has_ids(const struct gateway *gw, const char *local, const char *remote)
{
	const struct ike_sa *sa = gw->env.sadb->first;

	for (; sa != NULL; sa = sa->next)
		if (sa->state == IKE_ESTABLISHED &&
		    (!view_equal(ident_view(sa->id_local), view_text(local)) ||
		        !view_equal(
		            ident_view(sa->id_remote), view_text(remote))))
			return false;
	return true;
}

/* RFC 7296 2.18: a rekeyed IKE SA authenticates nobody. When the identities
 * have changed, a renewal is a new IKE SA, before the old one goes. */
static void
renamed(unsigned reloads, unsigned rekeys, unsigned starts, uint64_t seed,
    unsigned loss)
{
	struct file file = usual, other;
	struct world world;
	struct node *node;
	bool gap;

	file.left_start = (starts & LEFT) != 0;
	file.right_start = (starts & RIGHT) != 0;
	file.left = "left.example";
	file.right = "right.example";
	begin_with(&world, seed, 2, &file);
	other = file;
	other.left = "left.example.org";
	other.right = "right.example.org";
	reload_at(&world, reloads, &other);
	play_run(world.play, 60000);
	settle(&world, 1, 1);
	assert_true(has_ids(world.left.gw, "left.example", "right.example"));
	world.play->weather.loss_permille = loss;
	node = rekeys == LEFT ? &world.left : &world.right;
	gateway_ike(node->gw)->engine->rekey(gateway_ike(node->gw));
	gap = interrupted(&world, 10000);
	play_run(world.play, loss > 0 ? 600000 : 60000);
	if (reloads != BOTH_ENDS) {
		/* The ends do not know each other any more. Who had the peer's
		 * word for it only holds on as long as its lifetime allows. */
		assert_true(
		    has_ids(world.left.gw, "left.example", "right.example"));
		if (starts != 0 && (starts & rekeys) != 0)
			assert_false(gap);
		reload_at(&world, reloads ^ BOTH_ENDS, &other);
		if (starts == 0)
			settle(&world, 0, 0);
		else
			play_run(world.play, 1200000);
	}
	if (starts == 0) {
		settle(&world, 0, 0);
		end(&world);
		return;
	}
	settle(&world, 1, 1);
	assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
	assert_true(
	    has_ids(world.left.gw, "left.example.org", "right.example.org"));
	if (reloads == BOTH_ENDS && (starts & rekeys) != 0 && loss == 0)
		assert_false(gap);
	/* From now on it is rekeyed in-band. */
	world.play->weather.loss_permille = 0;
	reloads = node->gw->events[EVENT_IKE_UP];
	gateway_ike(node->gw)->engine->rekey(gateway_ike(node->gw));
	play_run(world.play, 60000);
	settle(&world, 1, 1);
	assert_int_equal(node->gw->events[EVENT_IKE_UP], reloads);
	end(&world);
}

static void
test_v2_renamed(void **state)
{
	(void)state;
	for (unsigned reloads = LEFT; reloads <= BOTH_ENDS; reloads++)
		for (unsigned rekeys = LEFT; rekeys <= RIGHT; rekeys++)
			for (unsigned starts = 0; starts <= BOTH_ENDS; starts++)
				renamed(reloads, rekeys, starts,
				    1100 + 16 * reloads + 4 * rekeys + starts,
				    0);
	for (uint64_t seed = 1200; seed < 1220; seed++)
		renamed(BOTH_ENDS, 1 + seed % 2, BOTH_ENDS, seed, 150);
}

/* Nobody asks for it: the renewals come in their time, and after them nothing
 * is left of the old terms; nor is traffic that both allow ever interrupted.
 * The responder knows no address of its peer's. */
static void
changed_terms_in_time(unsigned version)
{
	struct file file = usual, other;
	struct world world;
	unsigned minute;

	file.left_start = file.left_any = true;
	file.ike_lifetime_ms = 7200000;
	file.left = "left.example";
	file.right = "right.example";
	begin_with(&world, 1300, version, &file);
	other = file;
	other.here = "10.1.0.0/24";
	other.there = "10.2.0.0/24";
	other.left = "left.example.org";
	reload_at(&world, BOTH_ENDS, &other);
	for (minute = 0; minute < 150; minute++) {
		play_run(world.play, 60000);
		assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
		if (minute < 30)
			assert_true(traffic(&world, "10.1.7.1", "10.2.7.1"));
	}
	settle(&world, 1, 1);
	assert_true(
	    has_ids(world.left.gw, "left.example.org", "right.example"));
	assert_true(
	    has_ids(world.right.gw, "right.example", "left.example.org"));
	assert_false(traffic(&world, "10.1.7.1", "10.2.7.1"));
	end(&world);
}

/* A responder that cannot go to its peer closes what it may not renew, and
 * the peer begins anew. */
static void
test_v2_renamed_at_any(void **state)
{
	struct file file = usual, other;
	struct world world;

	(void)state;
	file.left_start = file.left_any = file.right_start = true;
	file.left = "left.example";
	file.right = "right.example";
	begin(&world, 1301, 2);
	reload(&world, &world.right, &file);
	reload(&world, &world.left, &file);
	assert_true(play_until(world.play, both_up, &world, 60000));
	other = file;
	other.left = "left.example.org";
	reload_at(&world, BOTH_ENDS, &other);
	play_run(world.play, 60000);
	gateway_ike(world.right.gw)->engine->rekey(gateway_ike(world.right.gw));
	play_run(world.play, 60000);
	settle(&world, 1, 1);
	assert_int_equal(world.right.gw->events[EVENT_STALE], 1);
	assert_int_equal(world.right.gw->events[EVENT_IKE_DOWN], 1);
	assert_true(
	    has_ids(world.right.gw, "right.example", "left.example.org"));
	assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
	end(&world);
}

static void
no_word(struct keeper_wait *wait, enum err err, const char *text)
{
	(void)wait;
	(void)err;
	(void)text;
}

/* Up at the administrator's word, and not to be rekeyed any more, for left has
 * another name now, which right does not know yet: left tries. */
static void
begin_unknown(
    struct world *world, uint64_t seed, struct file *file, struct file *other)
{
	static struct keeper_wait wait = { .done = no_word };

	*file = usual;
	file->dpd_ms = 20000;
	file->left = "left.example";
	file->right = "right.example";
	begin(world, seed, 2);
	reload_at(world, BOTH_ENDS, file);
	assert_int_equal(keeper_up(world->left.keeper, "net", &wait), OK);
	assert_true(play_until(world->play, both_up, world, 60000));
	play_run(world->play, 5000);
	settle(world, 1, 1);
	*other = *file;
	other->left = "left.example.org";
	reload(world, &world->left, other);
	gateway_ike(world->left.gw)->engine->rekey(gateway_ike(world->left.gw));
	play_run(world->play, 60000);
	assert_int_equal(world->left.gw->events[EVENT_STALE], 1);
	assert_string_equal(keeper_state(world->left.keeper, "net"), "waiting");
	assert_true(traffic(world, "10.1.0.1", "10.2.0.1"));
}

/* One more reload does not make it forget the successor. */
static void
test_v2_renamed_and_changed(void **state)
{
	struct file file, other;
	struct world world;

	(void)state;
	begin_unknown(&world, 1302, &file, &other);
	other.lifetime_ms /= 2;
	reload_at(&world, BOTH_ENDS, &other);
	play_run(world.play, 600000);
	settle(&world, 1, 1);
	assert_true(
	    has_ids(world.left.gw, "left.example.org", "right.example"));
	assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
	end(&world);
}

/* dpdaction=clear: with the peer goes the wish for a successor. */
static void
test_v2_renamed_and_dead(void **state)
{
	struct file file, other;
	struct world world;

	(void)state;
	begin_unknown(&world, 1303, &file, &other);
	world.play->weather.loss_permille = 1000;
	play_run(world.play, 1800000);
	assert_int_equal(world.left.gw->events[EVENT_PEER_DEAD], 1);
	assert_string_equal(keeper_state(world.left.keeper, "net"), "down");
	end(&world);
}

/* Gone --------------------------------------------------------------------- */

static void
gone_in_handshake(unsigned version)
{
	struct file none = usual, probing = usual;
	struct world world;

	none.net = false;
	/* IKEv1 has no word for one whose sixth message is on its way. */
	probing.dpd_ms = version == 1 ? 20000 : 0;
	for (unsigned moment = 0; moment < MOMENTS; moment++) {
		begin(&world, 500 + moment, version);
		reload(&world, &world.left, &probing);
		reload(&world, &world.right, &probing);
		assert_int_equal(gateway_up(world.left.gw, "net", 0), OK);
		play_run(world.play, moment / 2 * EACH_MS);
		reload(&world, either(&world, moment), &none);
		assert_int_equal(either(&world, moment)->difference.gone, 1);
		play_run(world.play, 600000);
		/* Nothing is up at either end, nor on its way. */
		settle(&world, 0, 0);
		assert_int_equal(world.left.gw->kernel.policy_count, 0);
		assert_int_equal(world.right.gw->kernel.policy_count, 0);
		/* Back again, all is as ever. */
		reload(&world, either(&world, moment), &usual);
		assert_int_equal(either(&world, moment)->difference.added, 1);
		up(&world);
		settle(&world, 1, 1);
		assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
		end(&world);
	}
}

static void
gone_in_rekey(unsigned version)
{
	struct file none = usual;
	struct world world;
	struct ike_sa *sa;

	none.net = false;
	for (unsigned moment = 0; moment < MOMENTS; moment++) {
		begin(&world, 600 + moment, version);
		up(&world);
		sa = gateway_ike(world.left.gw);
		if (moment % 4 < 2)
			sa->engine->child_rekey(sa->children);
		else
			sa->engine->rekey(sa);
		play_run(world.play, moment / 4 * EACH_MS);
		reload(&world, either(&world, moment), &none);
		play_run(world.play, 900000);
		settle(&world, 0, 0);
		end(&world);
	}
}

/* New ---------------------------------------------------------------------- */

static void
new_in_handshake(unsigned version)
{
	struct file both = usual;
	struct world world;

	both.lab = true;
	for (unsigned moment = 0; moment < MOMENTS; moment++) {
		begin(&world, 700 + moment, version);
		assert_int_equal(gateway_up(world.left.gw, "net", 0), OK);
		play_run(world.play, moment / 2 * EACH_MS);
		reload(&world, either(&world, moment), &both);
		assert_int_equal(either(&world, moment)->difference.same, 1);
		assert_int_equal(either(&world, moment)->difference.added, 1);
		play_run(world.play, 5000);
		settle(&world, 1, 1);
		assert_int_equal(world.left.gw->events[EVENT_IKE_UP], 1);
		assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
		/* Beside it, below the same IKE SA, once both have it. */
		reload(&world, either(&world, moment + 1), &both);
		assert_int_equal(gateway_up(world.left.gw, "lab", 0), OK);
		play_run(world.play, 5000);
		settle(&world, 1, 2);
		assert_true(traffic(&world, "10.3.0.1", "10.4.0.1"));
		/* And when it goes again, the first one stays. */
		reload(&world, either(&world, moment), &usual);
		assert_int_equal(either(&world, moment)->difference.gone, 1);
		play_run(world.play, 20000);
		settle(&world, 1, 1);
		assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
		assert_int_equal(world.left.gw->events[EVENT_IKE_DOWN], 0);
		end(&world);
	}
}

/* All of it ---------------------------------------------------------------- */

/* Files that change all the time, on a bad network; when they come to rest,
 * so does everything else. */
static void
chaos(unsigned version)
{
	struct file file;
	struct world world;
	unsigned up_again;

	for (uint64_t seed = 800; seed < 815; seed++) {
		begin(&world, seed, version);
		world.play->weather.loss_permille = 50;
		world.play->weather.duplicate_permille = 50;
		world.play->weather.reorder_permille = 100;
		for (unsigned i = 0; i < 100; i++) {
			struct node *node =
			    either(&world, (unsigned)play_below(world.play, 2));
			struct ike_sa *sa = gateway_ike(node->gw);
			const char *name =
			    play_below(world.play, 2) == 0 ? "net" : "lab";

			file = usual;
			file.dpd_ms = 20000; /* last words get lost */
			file.net = play_below(world.play, 6) > 0;
			file.lab = play_below(world.play, 3) > 0;
			if (play_below(world.play, 3) == 0)
				file.esp = "aes256-sha256,aes128-sha256";
			if (play_below(world.play, 4) == 0) {
				file.here = "10.1.0.0/24";
				file.there = "10.2.0.0/24";
			}
			if (play_below(world.play, 4) == 0) {
				file.left = "left.example";
				file.right = "right.example";
			}
			file.left_start = play_below(world.play, 2) == 0;
			file.right_start = play_below(world.play, 2) == 0;
			reload(&world, node, &file);
			if (policy_conn(node->gw->env.policy, name) != NULL)
				gateway_up(node->gw, name, 0);
			if (sa != NULL && play_below(world.play, 4) == 0)
				sa->engine->rekey(sa);
			if (gateway_child(node->gw) != NULL &&
			    play_below(world.play, 4) == 0)
				gateway_child(node->gw)
				    ->sa->engine->child_rekey(
				        gateway_child(node->gw));
			play_run(world.play, play_below(world.play, 500));
		}
		file = usual;
		file.net = false;
		reload(&world, &world.left, &file);
		reload(&world, &world.right, &file);
		play_run(world.play, 1800000);
		settle(&world, 0, 0);
		reload(&world, &world.left, &usual);
		reload(&world, &world.right, &usual);
		up_again = world.left.gw->events[EVENT_IKE_UP];
		assert_int_equal(gateway_up(world.left.gw, "net", 0), OK);
		assert_true(play_until(world.play, both_up, &world, 600000));
		play_run(world.play, 300000);
		settle(&world, 1, 1);
		assert_true(world.left.gw->events[EVENT_IKE_UP] > up_again);
		assert_true(traffic(&world, "10.1.0.1", "10.2.0.1"));
		end(&world);
	}
}

#define BOTH(name)                                                             \
	static void test_v1_##name(void **state)                               \
	{                                                                      \
		(void)state;                                                   \
		name(1);                                                       \
	}                                                                      \
	static void test_v2_##name(void **state)                               \
	{                                                                      \
		(void)state;                                                   \
		name(2);                                                       \
	}

BOTH(same_in_handshake)
BOTH(same_in_rekey)
BOTH(changed_in_handshake)
BOTH(changed_and_renewed_by_peer)
BOTH(changed_while_up)
BOTH(changed_at_one_end)
BOTH(changed_terms_in_time)
BOTH(gone_in_handshake)
BOTH(gone_in_rekey)
BOTH(new_in_handshake)
BOTH(chaos)

#define TESTS(name)                                                            \
	cmocka_unit_test(test_v1_##name), cmocka_unit_test(test_v2_##name)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TESTS(same_in_handshake),
		TESTS(same_in_rekey),
		TESTS(changed_in_handshake),
		TESTS(changed_and_renewed_by_peer),
		TESTS(changed_while_up),
		TESTS(changed_at_one_end),
		TESTS(narrowed),
		cmocka_unit_test(test_v2_renamed),
		cmocka_unit_test(test_v2_renamed_at_any),
		cmocka_unit_test(test_v2_renamed_and_changed),
		cmocka_unit_test(test_v2_renamed_and_dead),
		TESTS(changed_terms_in_time),
		TESTS(gone_in_handshake),
		TESTS(gone_in_rekey),
		TESTS(new_in_handshake),
		TESTS(chaos),
	};

	/* PLAY=name (with * and ?) runs some of them. */
	if (getenv("PLAY") != NULL)
		cmocka_set_test_filter(getenv("PLAY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
