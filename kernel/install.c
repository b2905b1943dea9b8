#include "kernel/install.h"

#include <stdlib.h>
#include <string.h>

#include "common/map.h"
#include "common/mem.h"
#include "common/timer.h"
#include "kernel/kernel.h"
#include "kernel/pairs.h"
#include "kernel/reqid.h"
#include "kernel/step.h"
#include "kernel/trap.h"

/* An inbound SA that outlives its child. */
struct linger {
	struct linger *next, *prev;
	struct env *env;
	struct timer timer;
	struct endpoint local, remote;
	uint32_t spi, reqid;
	uint8_t mode;
};

struct install *
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
	reqids_init(install, seed);
	env->kernel->install = install;
	return install;
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
	sa->conn = child->conn->reqid;
	sa->reqid = child->reqid;
	sa->spi = in ? child->spi_in : child->spi_out;
	sa->spi_in = child->spi_in;
	sa->src = in ? child->remote : child->local;
	sa->dst = in ? child->local : child->remote;
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
	pairs_list(child, !in, &sa->ts_src);
	pairs_list(child, in, &sa->ts_dst);
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

/* Taking back ----------------------------------------------------------- */

/* Policies first: a packet must not meet a policy without an SA. */
void
install_take_back(struct env *env, struct child_sa *child, uint8_t bits)
{
	struct install *install = env->kernel->install;

	bits &= child->installed;
	child->installed &= (uint8_t)~bits;
	if (bits & HAS_POLICIES)
		pairs_drop(env, child);
	if (bits & HAS_OUT)
		remove_sa(env, child, KMSG_SA_REMOVE, KMSG_OUT);
	if (bits & HAS_IN)
		remove_sa(env, child, KMSG_SA_REMOVE, KMSG_IN);
	else if (bits & HAS_SPI)
		remove_sa(env, child, KMSG_SPI_DROP, KMSG_IN);
	if (!(child->installed & (HAS_IN | HAS_POLICIES | HAS_OUT))) {
		reqid_leave(install, child->reqid);
		child->reqid = 0;
	}
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
	reqid_leave(install, linger->reqid);
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
	reqid_hold(install, child->reqid);
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
	install_take_back(env, child, 0xff);
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
		err = reqid_join(install, child);
		if (err == OK)
			err = add_sa(env, child, KMSG_IN, op);
		if (err == OK)
			op->bits |= HAS_IN;
	}
	if (err == OK && (bits & HAS_POLICIES)) {
		err = pairs_add(env, child, op);
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
		install_take_back(env, child, op->bits);
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

void
install_move(struct env *env, struct child_sa *child)
{
	struct install *install = install_get(env);
	struct kmsg request;
	struct op *op;
	enum err err = OK;

	if (install == NULL ||
	    (op = op_new(install, OP_MOVE, child->serial)) == NULL) {
		sa_log(child->sa, LOG_LEVEL_WARNING, MOVE_REFUSED,
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
		err = pairs_move(env, child, op);
	if (err != OK)
		sa_log(
		    child->sa, LOG_LEVEL_WARNING, MOVE_REFUSED, err_text(err));
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

/* The end --------------------------------------------------------------- */

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
	pairs_forget(install);
	traps_forget(install);
	free_lingers(env, install);
	reqids_forget(install);
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
		for (child = sa->children; child; child = child->next) {
			child->installed &= ASKED_SPI;
			child->reqid = 0;
		}
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
	reqids_fini(install);
	free(install);
	env->kernel->install = NULL;
}

size_t
install_pairs(const struct env *env)
{
	const struct install *install = env->kernel->install;

	return install ? install->pairs.count : 0;
}
