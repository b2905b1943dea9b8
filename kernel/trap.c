/* Trap policies: see kernel/install.h. */
#include <stdlib.h>
#include <string.h>

#include "kernel/kernel.h"
#include "kernel/step.h"
#include "kernel/trap.h"

struct trap {
	struct map_node node; /* by reqid */
	struct conn *conn;
	struct addr local, remote;
};

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
	policy->conn = policy->reqid = trap->conn->reqid;
	policy->tunnel_src = trap->local;
	policy->tunnel_dst = trap->remote;
	for (i = 0; err == OK && i < local.count; i++)
		for (j = 0; err == OK && j < remote.count; j++) {
			policy->src = local.item[i];
			policy->dst = remote.item[j];
			if (policy->src.first.family !=
			    policy->dst.first.family)
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

static void
free_trap(struct map_node *node, void *arg)
{
	struct install *install = arg;
	struct trap *trap = map_entry(node, struct trap, node);

	map_remove(&install->traps, node);
	conn_unref(trap->conn);
	free(trap);
}

void
traps_forget(struct install *install)
{
	map_each(&install->traps, free_trap, install);
}
