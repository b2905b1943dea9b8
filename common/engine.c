#include "common/engine.h"

#include <string.h>

#include "common/limit.h"

/*
 * RFC 7296 2.5: a higher major version is dropped, and INVALID_MAJOR_VERSION
 * is sent, unprotected, in a message of the highest version that we speak.
 * SPIs, exchange type and message ID are the request's (1.5).
 */
static void
refuse_version(struct env *env, const struct packet *packet,
    const struct wire_header *asked)
{
	struct wire_header header = *asked;
	struct view none = { NULL, 0 };
	struct wire_out out;
	uint8_t octets[WIRE_HEADER + 16];
	struct buf buf;

	if ((asked->flags & FLAG_RESPONSE) != 0 ||
	    !limit_answer(env->limit, &packet->remote.addr))
		return;
	header.major = 2;
	header.minor = 0;
	header.flags = FLAG_RESPONSE;
	if ((asked->flags & FLAG_INITIATOR) == 0)
		header.flags |= FLAG_INITIATOR;
	buf_init(&buf, octets, sizeof(octets));
	wire_start(&out, &buf, &header);
	wire_notify_v2(&out, 0, none, N_INVALID_MAJOR_VERSION, none);
	wire_finish(&out);
	/* Whoever asked may be somebody else: never more than was asked. */
	if (!buf.full && buf.len <= packet->octets.len)
		net_send(env->net, &packet->local, &packet->remote,
		    packet->natt, buf_done(&buf));
}

void
engine_dispatch(struct env *env, const struct packet *packet)
{
	char peer[ENDPOINT_TEXT];
	struct wire_header header;
	const struct engine *engine = NULL;
	enum err err;

	env_count(env, COUNTER_PACKETS_IN);
	err = wire_header_read(packet->octets, &header);
	if (err != OK) {
		env_count(env, COUNTER_PACKETS_MALFORMED);
		if (limit_log(env->limit))
			env_log(env, LOG_LEVEL_DEBUG,
			    "%s: %zu octets that are no IKE message (%s)",
			    endpoint_text(&packet->remote, peer),
			    packet->octets.len, err_text(err));
		return;
	}
	if (header.major < sizeof(env->engine) / sizeof(env->engine[0]))
		engine = env->engine[header.major];
	if (engine != NULL) {
		engine->receive(env, packet, &header);
		return;
	}
	env_count(env, COUNTER_PACKETS_MALFORMED);
	if (header.major > 2)
		refuse_version(env, packet, &header);
	if (limit_log(env->limit))
		env_log(env, LOG_LEVEL_DEBUG, "%s: IKE version %u.%u",
		    endpoint_text(&packet->remote, peer), header.major,
		    header.minor);
}
