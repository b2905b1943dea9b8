#include <stdlib.h>
#include <string.h>

#include "daemon/parent_state.h"

void
parent_reload_end(struct parent *parent)
{
	setup_fini(&parent->reload.setup);
	policy_unref(parent->reload.policy);
	memset(&parent->reload, 0, sizeof(parent->reload));
}

void
parent_reload_refuse(struct parent *parent, uint64_t asker, const char *text)
{
	size_t len = strlen(text);

	log_write(parent->log, LOG_LEVEL_WARNING,
	    "not reloaded, the configuration in force stays:\n%s", text);
	if (asker != 0 && parent->gate_link != NULL)
		ipc_send(parent->gate_link, PROC_RELOADED, asker, text,
		    len < PROC_TEXT ? len : PROC_TEXT);
}

void
parent_reload_adopt(struct parent *parent)
{
	struct reload *reload = &parent->reload;
	struct policy *next = reload->policy;
	enum err err;

	policy_diff(parent->policy, next, NULL, NULL);
	err = kserve_policy(parent->kserve, next);
	if (err != OK) {
		parent_reload_refuse(parent, reload->asker, err_text(err));
		parent_reload_end(parent);
		return;
	}
	policy_unref(parent->policy);
	parent->policy = policy_ref(next);
	setup_fini(&parent->setup);
	parent->setup = reload->setup;
	memset(&reload->setup, 0, sizeof(reload->setup));
	if (parent->gate_link != NULL)
		parent_send_policy(parent, reload->asker);
	parent_reload_end(parent);
}

void
parent_reload(struct parent *parent, uint64_t asker)
{
	struct reload *reload = &parent->reload;
	struct diags diags = { 0 };
	char *text;

	if (reload->under_way || parent->stopping) {
		parent_reload_refuse(parent, asker, "a reload is under way");
		return;
	}
	reload->under_way = true;
	reload->asker = asker;
	setup_read(&reload->setup, parent->options->conf, false, &diags,
	    &reload->policy);
	if (reload->policy == NULL) {
		text = setup_diags_text(&diags);
		parent_reload_refuse(
		    parent, asker, text != NULL ? text : err_text(ERR_NOMEM));
		free(text);
		parent_reload_end(parent);
	} else {
		setup_log_diags(parent->log, &diags);
		/* Without a vault the next one reads them. */
		if (parent_load_secrets(parent) != OK)
			parent_reload_adopt(parent);
	}
	diags_fini(&diags);
}
