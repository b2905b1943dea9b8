/*
 * gateway: assembles what an IKE gateway consists of, for a process of its own
 * (gate) or for all in one (--no-privsep).
 *
 * gateway_new() makes the common part and env; the caller then sets env.vault
 * and env.kernel, which differ, and calls gateway_start().
 */
#ifndef DAEMON_GATEWAY_H
#define DAEMON_GATEWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/env.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/net.h"
#include "daemon/control.h"
#include "daemon/keeper.h"

struct dns;

struct gateway {
	struct env env;    /* event_arg is this gateway */
	struct loop *loop; /* borrowed */
	struct keeper *keeper;
	struct control *control; /* NULL until gateway_start() */
	struct dns *dns;
	bool ending; /* everybody is going: no need to tell */
	/* Called for each datagram on the NAT-T port that is not IKE; or NULL */
	void (*stray)(struct env *env, const struct packet *packet);
};

struct gateway_config {
	struct net_sockets sockets; /* become the gateway's */
	unsigned threads;           /* of the pool; 0: see workers_new() */
	int listener;               /* of the control socket; or -1 */
	struct control_host host;
};

/* Self-tests, net, workers, SA database, limits, engines, keeper. log is
 * borrowed. On failure says on log what is missing. */
enum err gateway_new(struct gateway **made, struct loop *loop, struct log *log,
    const struct gateway_config *config);
/* env.vault and env.kernel are set by now, and are the gateway's. Opens the
 * control socket. */
enum err
gateway_start(struct gateway *gateway, const struct gateway_config *config);
/* Everything, also kernel and vault. Sends nothing to peers. Accepts NULL. */
void gateway_free(struct gateway *gateway);

/* Texts of resolv.conf and hosts, for the look-up of names; either may be
 * NULL. */
void
gateway_names(struct gateway *gateway, const char *resolv, const char *hosts);

/* Takes a policy into force, less what failed the self-tests, and says on log
 * (and in text, at most size octets, "3 unchanged, 1 new") what changed. */
void gateway_policy(
    struct gateway *gateway, struct policy *next, char *text, size_t size);

#endif
