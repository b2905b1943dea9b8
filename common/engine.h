/*
 * engine: what an engine, IKEv1 or IKEv2, offers to the rest.
 */
#ifndef COMMON_ENGINE_H
#define COMMON_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/net.h"
#include "common/sa.h"
#include "common/wire.h"

struct engine {
	uint8_t version;  /* 1 or 2 */
	const char *name; /* "IKEv1" */

	/* A datagram with a readable header of this major version. */
	void (*receive)(struct env *env, const struct packet *packet,
	    const struct wire_header *header);

	/* Begins an IKE SA for conn with its child. local and remote are
	 * resolved. On OK, events tell the rest; *sa is borrowed. */
	enum err (*initiate)(struct env *env, struct conn *conn,
	    const struct endpoint *local, const struct endpoint *remote,
	    struct ike_sa **sa);
	/* Begins a child of conn below an established SA. packet: selectors of
	 * the packet that caused it (acquire), each of family 0 if none. */
	enum err (*child)(
	    struct ike_sa *sa, struct conn *conn, const struct ts packet[2]);
	/* Closes with a Delete. */
	enum err (*close)(struct ike_sa *sa);
	enum err (*child_close)(struct child_sa *child);
	/* Rekeys now. */
	enum err (*rekey)(struct ike_sa *sa);
	enum err (*child_rekey)(struct child_sa *child);
	/* Asks whether the peer lives (RFC 7296 2.4, RFC 3706). */
	enum err (*probe)(struct ike_sa *sa);
	/* The kernel saw the peer's ESP come from a new address. */
	void (*mapping)(struct ike_sa *sa, const struct endpoint *remote);

	/* For sa.c and fsm.c. */
	void (*free)(struct ike_sa *sa); /* what lies beyond the common part */
	void (*exchange_free)(struct exchange *exchange);
};

/* Reads the header and hands the datagram to its engine; an unknown major
 * version is answered (RFC 7296 2.5) within limit's rate. */
void engine_dispatch(struct env *env, const struct packet *packet);

#endif
