#include "kernel/install.h"

#include <stdlib.h>
#include <string.h>

#include "common/map.h"
#include "common/mem.h"
#include "common/timer.h"
#include "kernel/kernel.h"

/* child->installed: what was asked for and not taken back. */
#define ASKED_SPI      1 /* the answer is on its way */
#define HAS_SPI        2
#define HAS_IN         4
#define HAS_POLICIES   8
#define HAS_OUT        16
#define EVERY_PAIR     (TS_MAX * TS_MAX)
#define ENDS_OCTETS    34
#define WITH_MOVE_TEXT "the data plane refused to follow the peer: %s"

/* One pair of selectors below one reqid, and how many children want it. */
struct pair {
	struct map_node node;
	uint64_t ends; /* hash of the outer addresses that were asked for */
	uint32_t reqid, users;
	bool mixed; /* children with other outer addresses share it */
	uint8_t len;
	uint8_t octets[];
};

enum op_kind { OP_SPI, OP_INSTALL, OP_MOVE, OP_QUERY, OP_TRAP };

/* One step of ours: several requests, answered once. Names its child by serial
 * number, because the child may go before the answer comes. */
struct op {
	struct op *next, *prev; /* under way; next: spare */
	uint64_t child;
	struct ticket ticket;
	install_done *done;
	install_use_done *use_done;
	struct install_use use;
	uint32_t spi;
	unsigned left; /* answers that are still to come */
	uint8_t kind;  /* enum op_kind */
	uint8_t bits;  /* what it set in child->installed */
	bool given_up; /* the caller knows of the failure already */
	uint8_t err;
	char text[120];
};

struct trap {
	struct map_node node; /* by reqid */
	struct conn *conn;
	struct addr local, remote;
};

struct linger {
	struct linger *next, *prev;
	struct env *env;
	struct timer timer;
	struct endpoint local, remote;
	uint32_t spi, reqid;
	uint8_t mode;
};

struct install {
	struct map pairs, traps;
	struct op *under_way, *spare;
	struct linger *lingers;
};

#define PUSH(list, item)                                                       \
	do {                                                                   \
		(item)->prev = NULL;                                           \
		(item)->next = (list);                                         \
		if (list)                                                      \
			(list)->prev = (item);                                 \
		(list) = (item);                                               \
	} while (0)

#define UNLINK(list, item)                                                     \
	do {                                                                   \
		if ((item)->prev)                                              \
			(item)->prev->next = (item)->next;                     \
		else                                                           \
			(list) = (item)->next;                                 \
		if ((item)->next)                                              \
			(item)->next->prev = (item)->prev;                     \
	} while (0)

static struct install *
install_get(struct env *env)
{
	struct install *install = env->kernel->install;
	uint64_t seed[2] = { 0, 0 };

	if (install)
		return install;
	install = calloc(1, sizeof(*install));
	if (install == NULL)
		return NULL;
	/* Without chance the seed stays 0: slower under attack, not wrong. */
	(void)!env_random(env, seed, sizeof(seed));
	map_init(&install->pairs, seed);
	map_init(&install->traps, seed);
	env->kernel->install = install;
	return install;
}

/* Steps ----------------------------------------------------------------- */

static struct op *
op_new(struct install *install, uint8_t kind, uint64_t child)
{
	struct op *op = install->spare;

	if (op) {
		install->spare = op->next;
		memset(op, 0, sizeof(*op));
	} else {
		op = calloc(1, sizeof(*op));
		if (op == NULL)
			return NULL;
	}
	op->kind = kind;
	op->child = child;
	PUSH(install->under_way, op);
	return op;
}

static void
op_free(struct install *install, struct op *op)
{
	UNLINK(install->under_way, op);
	op->next = install->spare;
	install->spare = op;
}

static void
op_answer(struct env *env, void *arg, const struct kmsg_answer *answer);

static enum err
ask(struct env *env, struct op *op, const struct kmsg *request)
{
	struct kernel *kernel = env->kernel;
	enum err err;

	err = kernel->ops->submit(kernel, request, op ? op_answer : NULL, op);
	if (err == OK && op)
		op->left++;
	return err;
}

/* A request that takes something back. */
static void
ask_removal(struct env *env, const struct kmsg *request)
{
	enum err err = ask(env, NULL, request);

	if (err != OK)
		env_log(env, LOG_LEVEL_ERROR,
		    "cannot ask the data plane to %s: %s",
		    kmsg_op_text(request->op), err_text(err));
}

/* The caller is told of the failure by the return value: answers to what was
 * asked already are swallowed. */
static void
op_give_up(struct install *install, struct op *op)
{
	if (op->left == 0)
		op_free(install, op);
	else
		op->given_up = true;
}

/* Requests -------------------------------------------------------------- */

static void
sa_name(struct kmsg *request, uint8_t op, const struct child_sa *child,
    uint8_t direction)
{
	struct kmsg_sa *sa = &request->sa;
	bool in = direction == KMSG_IN;

	memset(request, 0, sizeof(*request));
	request->op = op;
	sa->direction = direction;
	sa->mode = child->mode;
	sa->encap = child->encap;
	sa->reqid = child->reqid;
	sa->spi = in ? child->spi_in : child->spi_out;
	sa->spi_in = child->spi_in;
	sa->src = in ? child->remote : child->local;
	sa->dst = in ? child->local : child->remote;
}

/* RFC 7296 2.23.1, RFC 3947 5.2: behind a NAT the peers of a transport mode
 * SA negotiate addresses that packets do not bear here. */
static struct ts
natted(const struct child_sa *child, const struct ts *ts, bool local)
{
	const struct addr *before =
	    local ? &child->natoa_local.addr : &child->natoa_remote.addr;
	struct ts here = *ts;

	if (child->mode == MODE_TRANSPORT && before->family != ADDR_NONE &&
	    addr_equal(&ts->first, before) && addr_equal(&ts->last, before))
		here.first = here.last =
		    local ? child->local.addr : child->remote.addr;
	here.dynamic = false;
	return here;
}

static void
list_natted(const struct child_sa *child, bool local, struct ts_list *list)
{
	const struct ts_list *from =
	    local ? &child->ts_local : &child->ts_remote;
	uint8_t i;

	list->count = from->count;
	for (i = 0; i < from->count && i < TS_MAX; i++)
		list->item[i] = natted(child, &from->item[i], local);
}

static enum err
add_sa(
    struct env *env, struct child_sa *child, uint8_t direction, struct op *op)
{
	bool in = direction == KMSG_IN;
	struct secret *keys = in ? &child->keys_in : &child->keys_out;
	const struct suite *suite = &child->suite;
	struct kmsg request;
	struct kmsg_sa *sa = &request.sa;
	size_t encr_len, integ_len;
	enum err err;

	if (suite->encr == NULL || child->spi_in == 0 ||
	    (!in && child->spi_out == 0))
		return ERR_BUG;
	sa_name(&request, KMSG_SA_ADD, child, direction);
	encr_len = alg_keymat(suite->encr);
	integ_len = suite->integ ? alg_keymat(suite->integ) : 0;
	if (keys->len != encr_len + integ_len || keys->len > KMSG_KEY)
		return ERR_BUG;
	sa->esn = suite->esn;
	sa->encr = suite->encr->id;
	sa->integ = suite->integ ? suite->integ->id : ALG_NONE;
	sa->replay_window = child->replay_window;
	sa->hard_ms = child->lifetime_ms;
	sa->natoa_src = in ? child->natoa_remote : child->natoa_local;
	sa->natoa_dst = in ? child->natoa_local : child->natoa_remote;
	sa->encr_key_len = (uint8_t)encr_len;
	sa->integ_key_len = (uint8_t)integ_len;
	memcpy(sa->key, keys->octets, keys->len);
	list_natted(child, !in, &sa->ts_src);
	list_natted(child, in, &sa->ts_dst);
	err = ask(env, op, &request);
	mem_wipe(sa->key, sizeof(sa->key));
	if (err == OK)
		secret_free(keys); /* the request holds a copy */
	return err;
}

static void
remove_sa(struct env *env, const struct child_sa *child, uint8_t op,
    uint8_t direction)
{
	struct kmsg request;

	sa_name(&request, op, child, direction);
	ask_removal(env, &request);
}

/* Policies -------------------------------------------------------------- */

/* The index-th pair of child's selectors that is of one family. */
static bool
child_pair(const struct child_sa *child, unsigned index, struct ts *local,
    struct ts *remote)
{
	unsigned side = child->ts_remote.count;

	if (side == 0 || index / side >= child->ts_local.count)
		return false;
	*local = natted(child, &child->ts_local.item[index / side], true);
	*remote = natted(child, &child->ts_remote.item[index % side], false);
	return true;
}

static bool
same_family(const struct ts *a, const struct ts *b)
{
	return a->first.family == b->first.family;
}

static uint64_t
hash_ends(const struct install *install, const struct child_sa *child)
{
	uint8_t octets[ENDS_OCTETS];
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	kmsg_put_addr(&buf, &child->local.addr);
	kmsg_put_addr(&buf, &child->remote.addr);
	return map_hash(&install->pairs, buf_done(&buf));
}

static struct pair *
pair_find(struct install *install, uint32_t reqid, const struct ts *local,
    const struct ts *remote, bool create)
{
	uint8_t octets[4 + KMSG_PAIR_OCTETS];
	struct map_node *node;
	struct pair *pair;
	struct view key;
	struct buf buf;
	uint64_t hash;

	buf_init(&buf, octets, sizeof(octets));
	buf_u32(&buf, reqid);
	kmsg_put_pair(&buf, local, remote);
	key = buf_done(&buf);
	hash = map_hash(&install->pairs, key);
	for (node = map_find(&install->pairs, hash); node;
	     node = map_next_same(node)) {
		pair = map_entry(node, struct pair, node);
		if (view_equal(key, view_of(pair->octets, pair->len)))
			return pair;
	}
	if (!create)
		return NULL;
	pair = calloc(1, sizeof(*pair) + key.len);
	if (pair == NULL)
		return NULL;
	pair->reqid = reqid;
	pair->len = (uint8_t)key.len;
	memcpy(pair->octets, key.at, key.len);
	map_insert(&install->pairs, &pair->node, hash);
	return pair;
}

static void
pair_free(struct install *install, struct pair *pair)
{
	map_remove(&install->pairs, &pair->node);
	free(pair);
}

/* The requests for one pair: out, in and (tunnels) forward. */
static enum err
ask_policies(struct env *env, struct op *op, uint8_t what,
    const struct child_sa *child, const struct ts *local,
    const struct ts *remote)
{
	struct kmsg request;
	struct kmsg_policy *policy = &request.policy;
	enum err err;

	request.op = what;
	request.sequence = 0;
	memset(policy, 0, sizeof(*policy));
	policy->mode = child->mode;
	policy->reqid = child->reqid;
	policy->direction = KMSG_OUT;
	policy->src = *local;
	policy->dst = *remote;
	policy->tunnel_src = child->local.addr;
	policy->tunnel_dst = child->remote.addr;
	err = ask(env, op, &request);
	policy->direction = KMSG_IN;
	policy->src = *remote;
	policy->dst = *local;
	policy->tunnel_src = child->remote.addr;
	policy->tunnel_dst = child->local.addr;
	if (err == OK)
		err = ask(env, op, &request);
	policy->direction = KMSG_FWD;
	if (err == OK && child->mode == MODE_TUNNEL)
		err = ask(env, op, &request);
	return err;
}

/* Another child that wants this pair, when the one whose outer addresses are
 * in force goes. Rare (two peers with the same selectors), so it may search. */
static const struct child_sa *
other_user(struct env *env, const struct child_sa *child,
    const struct ts *local, const struct ts *remote)
{
	const struct ike_sa *sa;
	const struct child_sa *other;
	struct ts l, r;
	unsigned i;

	for (sa = env->sadb->first; sa; sa = sa->next)
		for (other = sa->children; other; other = other->next) {
			if (other == child || other->reqid != child->reqid ||
			    !(other->installed & HAS_POLICIES))
				continue;
			for (i = 0; child_pair(other, i, &l, &r); i++)
				if (ts_equal(&l, local) && ts_equal(&r, remote))
					return other;
		}
	return NULL;
}

static void
drop_pair(struct env *env, const struct child_sa *child, const struct ts *local,
    const struct ts *remote)
{
	struct install *install = env->kernel->install;
	struct pair *pair;
	const struct child_sa *other;
	uint64_t ends;

	pair = pair_find(install, child->reqid, local, remote, false);
	if (pair == NULL)
		return; /* the data plane was lost in between */
	if (--pair->users == 0) {
		pair_free(install, pair);
		if (ask_policies(env, NULL, KMSG_POLICY_REMOVE, child, local,
		        remote) != OK)
			env_log(env, LOG_LEVEL_ERROR,
			    "cannot ask the data plane to remove policies");
		return;
	}
	ends = hash_ends(install, child);
	if (!pair->mixed || pair->ends != ends)
		return;
	other = other_user(env, child, local, remote);
	if (other == NULL)
		return;
	pair->ends = hash_ends(install, other);
	(void)ask_policies(env, NULL, KMSG_POLICY_ADD, other, local, remote);
}

static void
drop_policies(struct env *env, struct child_sa *child, unsigned limit)
{
	struct ts local, remote;
	unsigned i;

	for (i = 0; i < limit && child_pair(child, i, &local, &remote); i++)
		if (same_family(&local, &remote))
			drop_pair(env, child, &local, &remote);
}

static enum err
add_policies(struct env *env, struct child_sa *child, struct op *op)
{
	struct install *install = env->kernel->install;
	uint64_t ends = hash_ends(install, child);
	struct ts local, remote;
	struct pair *pair;
	unsigned i, pairs = 0;
	enum err err = OK;

	for (i = 0; err == OK && child_pair(child, i, &local, &remote); i++) {
		if (!same_family(&local, &remote))
			continue;
		pair = pair_find(install, child->reqid, &local, &remote, true);
		if (pair == NULL) {
			err = ERR_NOMEM;
			break;
		}
		if (pair->users++ > 0 && pair->ends != ends)
			pair->mixed = true;
		pair->ends = ends;
		pairs++;
		err = ask_policies(
		    env, op, KMSG_POLICY_ADD, child, &local, &remote);
	}
	if (err == OK && pairs == 0)
		err = ERR_TS;
	if (err != OK)
		drop_policies(env, child, i);
	return err;
}

/* Taking back ----------------------------------------------------------- */

/* Policies first: a packet must not meet a policy without an SA. */
static void
take_back(struct env *env, struct child_sa *child, uint8_t bits)
{
	bits &= child->installed;
	child->installed &= (uint8_t)~bits;
	if (bits & HAS_POLICIES)
		drop_policies(env, child, EVERY_PAIR);
	if (bits & HAS_OUT)
		remove_sa(env, child, KMSG_SA_REMOVE, KMSG_OUT);
	if (bits & HAS_IN)
		remove_sa(env, child, KMSG_SA_REMOVE, KMSG_IN);
	else if (bits & HAS_SPI)
		remove_sa(env, child, KMSG_SPI_DROP, KMSG_IN);
}

static void
linger_end(void *arg)
{
	struct linger *linger = arg;
	struct install *install = linger->env->kernel->install;
	struct kmsg request;

	memset(&request, 0, sizeof(request));
	request.op = KMSG_SA_REMOVE;
	request.sa.direction = KMSG_IN;
	request.sa.mode = linger->mode;
	request.sa.spi = request.sa.spi_in = linger->spi;
	request.sa.reqid = linger->reqid;
	request.sa.src = linger->remote;
	request.sa.dst = linger->local;
	ask_removal(linger->env, &request);
	UNLINK(install->lingers, linger);
	free(linger);
}

static bool
linger_start(struct env *env, struct child_sa *child, uint64_t linger_ms)
{
	struct install *install = env->kernel->install;
	struct linger *linger = calloc(1, sizeof(*linger));

	if (linger == NULL)
		return false;
	linger->env = env;
	linger->local = child->local;
	linger->remote = child->remote;
	linger->spi = child->spi_in;
	linger->reqid = child->reqid;
	linger->mode = child->mode;
	timer_init(&linger->timer, linger_end, linger);
	timer_set(env->timers, &linger->timer, linger_ms);
	PUSH(install->lingers, linger);
	return true;
}

void
install_remove(struct env *env, struct child_sa *child, uint64_t linger_ms)
{
	if (env->kernel == NULL || env->kernel->install == NULL)
		return;
	if (linger_ms > 0 && (child->installed & HAS_IN) &&
	    linger_start(env, child, linger_ms))
		child->installed &= (uint8_t) ~(HAS_IN | HAS_SPI);
	take_back(env, child, 0xff);
}

/* Answers --------------------------------------------------------------- */

static void
spi_answer(struct env *env, struct op *op, struct child_sa *child,
    const struct kmsg_answer *answer)
{
	bool wanted = child && (child->installed & ASKED_SPI);
	struct kmsg request;

	if (wanted)
		child->installed &= (uint8_t)~ASKED_SPI;
	if (answer->err != OK)
		return;
	if (wanted) {
		child->installed |= HAS_SPI;
		child_set_spi_in(child, answer->spi);
		return;
	}
	memset(&request, 0, sizeof(request));
	request.op = KMSG_SPI_DROP;
	request.sa.direction = KMSG_IN;
	request.sa.spi = request.sa.spi_in = answer->spi;
	ask_removal(env, &request);
	op->err = ERR_CANCELLED;
}

static void
query_answer(struct op *op, const struct kmsg_answer *answer)
{
	if (answer->err != OK)
		return;
	/* Inbound was asked first, and successes keep their order. */
	if (op->bits == 0) {
		op->bits = HAS_IN;
		op->use.octets_in = answer->use.octets;
		op->use.packets_in = answer->use.packets;
		op->use.idle_in_ms = answer->use.idle_ms;
	} else {
		op->use.octets_out = answer->use.octets;
		op->use.packets_out = answer->use.packets;
	}
}

/* All answers are there. The step's memory is given back before the caller
 * hears of it, since the caller may begin the next. */
static void
op_end(struct env *env, struct op *op, struct child_sa *child)
{
	struct op ended = *op;

	op_free(env->kernel->install, op);
	if (ended.given_up)
		return;
	if (ended.err != OK && ended.kind == OP_INSTALL && child)
		take_back(env, child, ended.bits);
	if (ended.err != OK && ended.kind == OP_MOVE && child)
		sa_log(
		    child->sa, LOG_LEVEL_WARNING, WITH_MOVE_TEXT, ended.text);
	if (ended.err != OK && ended.kind == OP_TRAP)
		env_log(env, LOG_LEVEL_WARNING,
		    "the data plane refused a trap policy: %s", ended.text);
	if (ended.done)
		ended.done(env, ended.ticket, ended.err,
		    ended.err == OK ? NULL : ended.text);
	if (ended.use_done)
		ended.use_done(env, ended.ticket, ended.err,
		    ended.err == OK ? &ended.use : NULL);
}

static void
op_answer(struct env *env, void *arg, const struct kmsg_answer *answer)
{
	struct op *op = arg;
	struct child_sa *child = NULL;

	if (op->child != 0)
		child = child_by_serial(env->sadb, op->child);
	/* Taken back in between, and perhaps begun anew: not this step's. */
	if (child && op->kind == OP_INSTALL && child->spi_in != op->spi)
		child = NULL;
	if (answer->err != OK && op->err == OK) {
		op->err = answer->err;
		memcpy(op->text, answer->text, sizeof(op->text));
		op->text[sizeof(op->text) - 1] = '\0';
		if (op->text[0] == '\0')
			strncpy(op->text, err_text(answer->err),
			    sizeof(op->text) - 1);
	}
	if (op->kind == OP_SPI)
		spi_answer(env, op, child, answer);
	else if (op->kind == OP_QUERY)
		query_answer(op, answer);
	if (--op->left == 0)
		op_end(env, op, child);
}

/* Asking ---------------------------------------------------------------- */

enum err
install_spi(struct env *env, struct child_sa *child, struct ticket ticket,
    install_done *done)
{
	struct install *install = install_get(env);
	struct kmsg request;
	struct op *op;
	enum err err;

	if (install == NULL ||
	    (op = op_new(install, OP_SPI, child->serial)) == NULL)
		return ERR_NOMEM;
	op->ticket = ticket;
	op->done = done;
	sa_name(&request, KMSG_SPI, child, KMSG_IN);
	err = ask(env, op, &request);
	if (err != OK)
		op_free(install, op);
	else
		child->installed |= ASKED_SPI;
	return err;
}

/* bits: HAS_IN (with HAS_POLICIES), HAS_OUT. */
static enum err
install_step(struct env *env, struct child_sa *child, uint8_t bits,
    struct ticket ticket, install_done *done)
{
	struct install *install = install_get(env);
	struct op *op;
	enum err err = OK;

	if (install == NULL ||
	    (op = op_new(install, OP_INSTALL, child->serial)) == NULL)
		return ERR_NOMEM;
	op->ticket = ticket;
	op->done = done;
	op->spi = child->spi_in;
	if (bits & HAS_IN) {
		err = add_sa(env, child, KMSG_IN, op);
		if (err == OK)
			op->bits |= HAS_IN;
	}
	if (err == OK && (bits & HAS_POLICIES)) {
		err = add_policies(env, child, op);
		if (err == OK)
			op->bits |= HAS_POLICIES;
	}
	if (err == OK && (bits & HAS_OUT)) {
		err = add_sa(env, child, KMSG_OUT, op);
		if (err == OK)
			op->bits |= HAS_OUT;
	}
	child->installed |= op->bits;
	if (err != OK) {
		take_back(env, child, op->bits);
		op_give_up(install, op);
	}
	return err;
}

enum err
install_inbound(struct env *env, struct child_sa *child, struct ticket ticket,
    install_done *done)
{
	return install_step(env, child, HAS_IN | HAS_POLICIES, ticket, done);
}

enum err
install_outbound(struct env *env, struct child_sa *child, struct ticket ticket,
    install_done *done)
{
	return install_step(env, child, HAS_OUT, ticket, done);
}

enum err
install_both(struct env *env, struct child_sa *child, struct ticket ticket,
    install_done *done)
{
	return install_step(
	    env, child, HAS_IN | HAS_POLICIES | HAS_OUT, ticket, done);
}

static enum err
move_policies(struct env *env, struct child_sa *child, struct op *op)
{
	struct install *install = env->kernel->install;
	uint64_t ends = hash_ends(install, child);
	struct ts local, remote;
	struct pair *pair;
	unsigned i;
	enum err err = OK;

	for (i = 0; err == OK && child_pair(child, i, &local, &remote); i++) {
		if (!same_family(&local, &remote))
			continue;
		pair = pair_find(install, child->reqid, &local, &remote, false);
		if (pair == NULL || pair->ends == ends)
			continue; /* only the port has changed */
		if (pair->users > 1)
			pair->mixed = true;
		pair->ends = ends;
		err = ask_policies(
		    env, op, KMSG_POLICY_ADD, child, &local, &remote);
	}
	return err;
}

void
install_move(struct env *env, struct child_sa *child)
{
	struct install *install = install_get(env);
	struct kmsg request;
	struct op *op;
	enum err err = OK;

	if (install == NULL ||
	    (op = op_new(install, OP_MOVE, child->serial)) == NULL) {
		sa_log(child->sa, LOG_LEVEL_WARNING, WITH_MOVE_TEXT,
		    err_text(ERR_NOMEM));
		return;
	}
	if (child->installed & HAS_IN) {
		sa_name(&request, KMSG_SA_MOVE, child, KMSG_IN);
		err = ask(env, op, &request);
	}
	if (err == OK && (child->installed & HAS_OUT)) {
		sa_name(&request, KMSG_SA_MOVE, child, KMSG_OUT);
		err = ask(env, op, &request);
	}
	if (err == OK && (child->installed & HAS_POLICIES))
		err = move_policies(env, child, op);
	if (err != OK)
		sa_log(child->sa, LOG_LEVEL_WARNING, WITH_MOVE_TEXT,
		    err_text(err));
	if (err != OK || op->left == 0)
		op_give_up(install, op);
}

enum err
install_query(struct env *env, const struct child_sa *child,
    struct ticket ticket, install_use_done *done)
{
	struct install *install = install_get(env);
	struct kmsg request;
	struct op *op;
	enum err err;

	if (!(child->installed & HAS_IN))
		return ERR_WRONG_STATE;
	if (install == NULL ||
	    (op = op_new(install, OP_QUERY, child->serial)) == NULL)
		return ERR_NOMEM;
	op->ticket = ticket;
	op->use_done = done;
	op->use.idle_in_ms = UINT64_MAX;
	sa_name(&request, KMSG_SA_QUERY, child, KMSG_IN);
	err = ask(env, op, &request);
	if (err == OK && (child->installed & HAS_OUT)) {
		sa_name(&request, KMSG_SA_QUERY, child, KMSG_OUT);
		err = ask(env, op, &request);
	}
	if (err != OK)
		op_give_up(install, op);
	return err;
}

/* Traps ----------------------------------------------------------------- */

static struct trap *
trap_find(struct install *install, uint32_t reqid)
{
	struct map_node *node;
	struct trap *trap;

	for (node = map_find(
	         &install->traps, map_hash_u64(&install->traps, reqid));
	     node; node = map_next_same(node)) {
		trap = map_entry(node, struct trap, node);
		if (trap->conn->reqid == reqid)
			return trap;
	}
	return NULL;
}

/* *pairs: how many requests were made. */
static enum err
ask_trap(struct env *env, struct op *op, uint8_t what, const struct trap *trap,
    unsigned *pairs)
{
	struct ts_list local, remote;
	struct kmsg request;
	struct kmsg_policy *policy = &request.policy;
	unsigned i, j;
	enum err err = OK;

	*pairs = 0;
	conn_ts(&trap->conn->local, &trap->local, &local);
	conn_ts(&trap->conn->remote, &trap->remote, &remote);
	request.op = what;
	request.sequence = 0;
	memset(policy, 0, sizeof(*policy));
	policy->direction = KMSG_OUT;
	policy->mode = trap->conn->mode;
	policy->trap = true;
	policy->reqid = trap->conn->reqid;
	policy->tunnel_src = trap->local;
	policy->tunnel_dst = trap->remote;
	for (i = 0; err == OK && i < local.count; i++)
		for (j = 0; err == OK && j < remote.count; j++) {
			policy->src = local.item[i];
			policy->dst = remote.item[j];
			if (!same_family(&policy->src, &policy->dst))
				continue;
			err = ask(env, op, &request);
			if (err == OK)
				++*pairs;
		}
	return err;
}

static void
trap_end(struct env *env, struct install *install, struct trap *trap)
{
	unsigned pairs;
	enum err err;

	err = ask_trap(env, NULL, KMSG_POLICY_REMOVE, trap, &pairs);
	if (err != OK)
		env_log(env, LOG_LEVEL_ERROR,
		    "cannot ask the data plane to remove the traps of %s: %s",
		    trap->conn->name, err_text(err));
	map_remove(&install->traps, &trap->node);
	conn_unref(trap->conn);
	free(trap);
}

enum err
install_trap(struct env *env, struct conn *conn, const struct addr *local,
    const struct addr *remote)
{
	struct install *install = install_get(env);
	struct trap *trap;
	struct op *op;
	unsigned pairs;
	enum err err;

	if (install == NULL)
		return ERR_NOMEM;
	install_untrap(env, conn);
	trap = calloc(1, sizeof(*trap));
	op = op_new(install, OP_TRAP, 0);
	if (trap == NULL || op == NULL) {
		free(trap);
		if (op)
			op_free(install, op);
		return ERR_NOMEM;
	}
	trap->conn = conn_ref(conn);
	trap->local = *local;
	trap->remote = *remote;
	map_insert(&install->traps, &trap->node,
	    map_hash_u64(&install->traps, conn->reqid));
	err = ask_trap(env, op, KMSG_POLICY_ADD, trap, &pairs);
	if (err == OK && pairs == 0)
		err = ERR_TS;
	if (err != OK) {
		trap_end(env, install, trap);
		op_give_up(install, op);
	}
	return err;
}

void
install_untrap(struct env *env, struct conn *conn)
{
	struct install *install = env->kernel->install;
	struct trap *trap;

	if (install == NULL)
		return;
	trap = trap_find(install, conn->reqid);
	if (trap)
		trap_end(env, install, trap);
}

/* The end --------------------------------------------------------------- */

static void
free_pair(struct map_node *node, void *arg)
{
	struct install *install = arg;

	pair_free(install, map_entry(node, struct pair, node));
}

static void
free_trap(struct map_node *node, void *arg)
{
	struct install *install = arg;
	struct trap *trap = map_entry(node, struct trap, node);

	map_remove(&install->traps, node);
	conn_unref(trap->conn);
	free(trap);
}

static void
free_lingers(struct env *env, struct install *install)
{
	struct linger *linger;

	while ((linger = install->lingers) != NULL) {
		timer_stop(env->timers, &linger->timer);
		UNLINK(install->lingers, linger);
		free(linger);
	}
}

static void
forget(struct env *env, struct install *install)
{
	map_each(&install->pairs, free_pair, install);
	map_each(&install->traps, free_trap, install);
	free_lingers(env, install);
}

void
install_lost(struct env *env)
{
	struct install *install = env->kernel->install;
	struct ike_sa *sa;
	struct child_sa *child;

	if (install == NULL)
		return;
	forget(env, install);
	if (env->sadb == NULL)
		return;
	for (sa = env->sadb->first; sa; sa = sa->next)
		for (child = sa->children; child; child = child->next)
			child->installed &= ASKED_SPI;
}

void
install_free(struct env *env)
{
	struct install *install = env->kernel ? env->kernel->install : NULL;
	struct op *op;

	if (install == NULL)
		return;
	forget(env, install);
	while ((op = install->under_way) != NULL)
		op_free(install, op);
	while ((op = install->spare) != NULL) {
		install->spare = op->next;
		free(op);
	}
	map_fini(&install->pairs);
	map_fini(&install->traps);
	free(install);
	env->kernel->install = NULL;
}

size_t
install_pairs(const struct env *env)
{
	const struct install *install = env->kernel->install;

	return install ? install->pairs.count : 0;
}
