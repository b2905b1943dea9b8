#include <string.h>

#include "daemon/parent_state.h"
#include "kernel/userland.h"

/* We do not look into it: it goes where it should have gone. */
static void
esp_stray(void *arg, const struct endpoint *local,
    const struct endpoint *remote, struct view octets)
{
	struct parent *parent = arg;
	struct proc_stray from;
	uint8_t *room;

	memset(&from, 0, sizeof(from));
	from.local = *local;
	from.remote = *remote;
	if (parent->gate_link == NULL || sizeof(from) + octets.len > IPC_BODY ||
	    ipc_queued(parent->gate_link) > IPC_EXTRA ||
	    ipc_room(parent->gate_link, PROC_STRAY, 0,
	        sizeof(from) + octets.len, &room) != OK)
		return;
	memcpy(room, &from, sizeof(from));
	memcpy(room + sizeof(from), octets.at, octets.len);
}

static void
esp_broken(void *arg, const char *why)
{
	struct parent *parent = arg;

	(void)why; /* logged already */
	if (!parent->stopping)
		proc_kill(parent->esp);
}

void
parent_esp_started(struct parent *parent, int fd)
{
	enum err err =
	    userland_serve(parent->host.userland, fd, esp_broken, parent);

	if (err == OK)
		return;
	log_write(parent->log, LOG_LEVEL_ERROR, "esp cannot be set up: %s",
	    err_text(err));
	proc_kill(parent->esp);
}

void
parent_esp_hear(struct parent *parent)
{
	userland_stray(parent->host.userland, esp_stray, parent);
}
