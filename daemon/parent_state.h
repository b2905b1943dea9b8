/*
 * parent_state: what the parent knows, for its parts (parent_gate,
 * parent_vault, parent_esp, parent_reload) only: nobody else includes this.
 */
#ifndef DAEMON_PARENT_STATE_H
#define DAEMON_PARENT_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/ipc.h"
#include "common/loop.h"
#include "common/policy.h"
#include "daemon/control.h"
#include "daemon/host.h"
#include "daemon/proc.h"
#include "daemon/setup.h"
#include "kernel/kserve.h"

/* A reload goes through both: first the secrets, then the policy. */
struct reload {
	bool under_way;
	uint64_t asker; /* serial of the control client; 0: SIGHUP */
	struct setup setup;
	struct policy *policy;
};

struct parent {
	const struct options *options;
	struct log *log;
	struct loop *loop;
	struct host host;
	struct procs *procs;
	struct proc *gate, *vault, *esp; /* esp: NULL unless userland */
	struct ipc *gate_link;
	struct vault_link *vault_link;
	int gate_vault; /* gate's end of its link to the vault; -1: given */
	struct kserve *kserve;
	struct setup setup; /* what is in force */
	struct policy *policy;
	struct reload reload;
	uint64_t load_serial; /* of the secrets that the vault reads */
	bool secrets_read;    /* by this vault */
	bool ready, stopping;
	unsigned failures;
	struct control_facts facts;
	struct timer stop_timer;
	struct timer load_timer; /* for the vault to have read its secrets */
	int ready_fd;
	int code;
};

/* parent.c */
void parent_start_gate(struct parent *parent);

/* parent_gate.c: gate has been started, fd is our end of its link. */
void parent_gate_started(struct parent *parent, int fd);
/* Gate is told what status shows. */
void parent_facts(struct parent *parent);
/* Sends the setup in force to gate, as the answer to asker. */
enum err parent_send_policy(struct parent *parent, uint64_t asker);

/* parent_vault.c: the vault has been started. */
void parent_vault_started(struct parent *parent, int fd);
/* Gate and vault get the ends of a new link; gate's is held back until the
 * vault has read its secrets. */
void parent_link_vault(struct parent *parent);
void parent_give_vault(struct parent *parent);
/* ERR_WRONG_STATE: there is no vault now; the next one reads them. */
enum err parent_load_secrets(struct parent *parent);
/* load_timer: it has not. */
void parent_vault_late(void *arg);

/* parent_esp.c: the userland data plane's process has been started. */
void parent_esp_started(struct parent *parent, int fd);
/* IKE that arrives there goes to gate from now on. */
void parent_esp_hear(struct parent *parent);

/* parent_reload.c: reads the files; answers asker (0: nobody). */
void parent_reload(struct parent *parent, uint64_t asker);
/* The secrets are in force: so is the rest now. */
void parent_reload_adopt(struct parent *parent);
/* Nothing changes, and why; text may have several lines. */
void
parent_reload_refuse(struct parent *parent, uint64_t asker, const char *text);
void parent_reload_end(struct parent *parent);

#endif
