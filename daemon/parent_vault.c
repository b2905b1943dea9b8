#include <unistd.h>

#include "daemon/parent_state.h"
#include "daemon/vault_link.h"

#define LOAD_MS 10000u /* for the vault to read its secrets */

void
parent_link_vault(struct parent *parent)
{
	int pair[2];

	if (parent->vault_link == NULL || ipc_pair(pair) != OK)
		return;
	if (vault_link_gate(parent->vault_link, pair[0]) != OK) {
		close(pair[0]);
		close(pair[1]);
		return;
	}
	close(pair[0]);
	if (parent->gate_vault >= 0)
		close(parent->gate_vault);
	parent->gate_vault = pair[1];
}

void
parent_give_vault(struct parent *parent)
{
	if (parent->gate_link == NULL || parent->gate_vault < 0 ||
	    !parent->secrets_read)
		return;
	ipc_send_fds(
	    parent->gate_link, PROC_VAULT, 0, NULL, 0, &parent->gate_vault, 1);
	close(parent->gate_vault);
	parent->gate_vault = -1;
}

enum err
parent_load_secrets(struct parent *parent)
{
	enum err err;

	if (parent->vault_link == NULL)
		return ERR_WRONG_STATE;
	err = vault_link_load(parent->vault_link, ++parent->load_serial);
	if (err == OK)
		timer_set(
		    loop_timers(parent->loop), &parent->load_timer, LOAD_MS);
	return err;
}

/* Without an answer gate would never start, or a reload never end. */
void
parent_vault_late(void *arg)
{
	struct parent *parent = arg;

	log_write(parent->log, LOG_LEVEL_ERROR,
	    "the vault has not read its secrets in %u s: it is ended",
	    LOAD_MS / 1000);
	proc_kill(parent->vault);
}

static void
secrets_loaded(void *arg, uint64_t serial, const struct vaultd_loaded *loaded)
{
	struct parent *parent = arg;
	const char *text = loaded->text;

	if (serial != parent->load_serial)
		return;
	timer_stop(loop_timers(parent->loop), &parent->load_timer);
	if (text[0] != '\0')
		log_write(parent->log,
		    loaded->errors > 0 ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING,
		    "%s", text);
	if (loaded->err == OK)
		log_write(
		    parent->log, LOG_LEVEL_INFO, "%u secrets", loaded->count);
	parent->secrets_read = true;
	parent_give_vault(parent);
	if (parent->gate == NULL)
		parent_start_gate(parent);
	if (!parent->reload.under_way)
		return;
	if (loaded->err == OK) {
		parent_reload_adopt(parent);
	} else {
		parent_reload_refuse(parent, parent->reload.asker,
		    text[0] != '\0' ? text : err_text((enum err)loaded->err));
		parent_reload_end(parent);
	}
}

/* It has been logged. What is wrong with the gate will not mend, and without the
 * vault it is of no use. */
static void
gate_broke(void *arg)
{
	struct parent *parent = arg;

	if (!parent->stopping && parent->gate != NULL)
		proc_kill(parent->gate);
}

static void
vault_closed(void *arg, enum err err, const char *why)
{
	struct parent *parent = arg;

	if (err == ERR_REFUSED)
		log_write(parent->log, LOG_LEVEL_ERROR,
		    "vault broke the rules of its link: %s", why);
	vault_link_free(parent->vault_link);
	parent->vault_link = NULL;
	if (!parent->stopping)
		proc_kill(parent->vault);
}

void
parent_vault_started(struct parent *parent, int fd)
{
	const struct vault_link_events events = { secrets_loaded, gate_broke,
		vault_closed, parent };

	parent->vault_link =
	    vault_link_new(parent->loop, fd, parent->options->secrets, &events);
	parent->secrets_read = false;
	if (parent->vault_link == NULL)
		return;
	parent_link_vault(parent);
	parent_load_secrets(parent);
}
