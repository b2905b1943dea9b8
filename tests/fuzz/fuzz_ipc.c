/* What one of our processes may be told by another that has fallen: octet 0
 * says which message it is. What is read is written and read again. */
#include "tests/fuzz/fuzz.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/ipc.h"
#include "common/loop.h"
#include "common/vaultmsg.h"
#include "conf/load.h"
#include "kernel/kmsg.h"

static void
request(struct view octets)
{
	uint8_t packed[KMSG_OCTETS], again[KMSG_OCTETS];
	struct kmsg kmsg, second;
	struct buf buf, other;

	if (kmsg_get(octets, &kmsg) != OK)
		return;
	HOLDS(kmsg.op > KMSG_NONE && kmsg.op < KMSG_OPS);
	buf_init(&buf, packed, sizeof(packed));
	kmsg_put(&buf, &kmsg);
	HOLDS(!buf.full && kmsg_get(buf_done(&buf), &second) == OK);
	buf_init(&other, again, sizeof(again));
	kmsg_put(&other, &second);
	HOLDS(view_equal(buf_done(&buf), buf_done(&other)));
}

static void
answer(struct view octets)
{
	uint8_t packed[KMSG_ANSWER_OCTETS];
	struct kmsg_answer given, second;
	struct buf buf;

	if (kmsg_answer_get(octets, &given) != OK)
		return;
	HOLDS(memchr(given.text, 0, sizeof(given.text)) != NULL);
	HOLDS(given.err < ERR_COUNT);
	buf_init(&buf, packed, sizeof(packed));
	kmsg_answer_put(&buf, &given);
	HOLDS(!buf.full && kmsg_answer_get(buf_done(&buf), &second) == OK);
}

static void
event(struct view octets)
{
	uint8_t packed[KMSG_EVENT_OCTETS];
	struct kmsg_event given, second;
	struct buf buf;

	if (kmsg_event_get(octets, &given) != OK)
		return;
	buf_init(&buf, packed, sizeof(packed));
	kmsg_event_put(&buf, &given);
	HOLDS(!buf.full && kmsg_event_get(buf_done(&buf), &second) == OK);
}

static void
vault(struct view octets, unsigned which)
{
	uint8_t packed[VAULTMSG_MAX];
	struct vault_psk_auth auth;
	struct vault_skeyid skeyid;
	struct vault_permits permits;
	struct buf buf;

	buf_init(&buf, packed, sizeof(packed));
	if (which == 0 && vaultmsg_get_psk_auth(octets, &auth) == OK) {
		vaultmsg_put_psk_auth(&buf, &auth);
		HOLDS(!buf.full);
		vaultmsg_done(auth.local, auth.remote);
	}
	if (which == 1 && vaultmsg_get_skeyid(octets, &skeyid) == OK) {
		vaultmsg_put_skeyid(&buf, &skeyid);
		HOLDS(!buf.full);
		vaultmsg_done(skeyid.local, skeyid.remote);
	}
	if (which == 2 && vaultmsg_get_permits(octets, &permits) == OK) {
		vaultmsg_put_permits(&buf, &permits);
		HOLDS(!buf.full);
		vaultmsg_done(permits.local, permits.remote);
	}
}

static void
unpack(struct view octets)
{
	struct bundle bundle, second;
	uint8_t *packed;
	size_t len;

	if (bundle_unpack(&bundle, octets) == OK) {
		HOLDS(bundle_pack(&bundle, &packed, &len) == OK);
		HOLDS(bundle_unpack(&second, view_of(packed, len)) == OK);
		HOLDS(second.count == bundle.count);
		bundle_fini(&second);
		free(packed);
	}
	bundle_fini(&bundle);
}

/* A link: one datagram, octet by octet as the other process likes. */
static enum err
take(void *arg, const struct ipc_frame *frame)
{
	uint64_t *sum = arg;

	for (size_t i = 0; i < frame->body.len; i++)
		*sum += frame->body.at[i];
	return OK;
}

static void
closed(void *arg, enum err err, const char *why)
{
	(void)arg;
	(void)err;
	HOLDS(why != NULL);
}

static void
stop(void *arg)
{
	loop_stop(arg);
}

static void
link_read(struct view octets)
{
	static const struct ipc_permit rows[] = {
		{ 1, IPC_IN, 0, 64, 0, take },
		{ 2, IPC_IN, 8, IPC_BODY, 1, take },
		{ 3, IPC_IN | IPC_FD, 0, 16, 0, take },
		{ 4, IPC_IN | IPC_ONCE, 0, 16, 0, take },
		{ 5, IPC_OUT, 0, 16, 0, NULL },
	};
	struct loop *loop = loop_new();
	struct timer timer;
	struct ipc *ipc;
	uint64_t sum = 0;
	int pair[2];

	HOLDS(loop != NULL && ipc_pair(pair) == OK);
	ipc = ipc_new(
	    loop, pair[0], rows, sizeof(rows) / sizeof(rows[0]), closed, &sum);
	HOLDS(ipc != NULL);
	if (octets.len > 0 && octets.len <= IPC_DATAGRAM)
		send(pair[1], octets.at, octets.len, MSG_DONTWAIT);
	close(pair[1]);
	timer_init(&timer, stop, loop);
	timer_set(loop_timers(loop), &timer, 0);
	loop_run(loop);
	ipc_free(ipc);
	timer_stop(loop_timers(loop), &timer);
	loop_free(loop);
}

int
LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
	struct view rest = view_of(octets, len);
	uint8_t which;

	if (!view_u8(&rest, &which))
		return 0;
	switch (which % 8) {
	case 0:
		request(rest);
		break;
	case 1:
		answer(rest);
		break;
	case 2:
		event(rest);
		break;
	case 3:
	case 4:
	case 5:
		vault(rest, which % 8 - 3);
		break;
	case 6:
		unpack(rest);
		break;
	default:
		link_read(rest);
		break;
	}
	return 0;
}
