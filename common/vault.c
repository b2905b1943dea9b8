/*
 * The vault in another process. Each request keeps its encoded octets until it
 * is answered, so that a vault that died costs nothing but time. Its serial
 * names the slot where it waits and how often that slot has been used.
 *
 * IKEv1 nonces are asked for in advance, VAULT_POOL at a time: a responder
 * needs one in the middle of a handshake and should not wait for it.
 */
#include "common/vault.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/env.h"
#include "common/ipc.h"
#include "common/loop.h"
#include "common/vaultmsg.h"

#define VAULT_POOL     32
#define VAULT_POOL_LOW 16 /* ask for more from here on */
#define SLOT_BITS      13
#define SLOT_MASK      (VAULT_UNDER_WAY - 1)
_Static_assert(VAULT_UNDER_WAY == 1 << SLOT_BITS, "slots and serials");

/* A request that waits for its answer. */
struct asked {
	uint16_t type;
	uint64_t serial;
	struct ticket ticket;
	union {
		vault_psk_auth_done *psk_auth;
		vault_nonce_done *nonce;
		vault_skeyid_done *skeyid;
		vault_permits_done *permits;
	} done;
	struct asked *next; /* among those who wait for a nonce */
	size_t len;
	uint8_t octets[]; /* the request's body */
};

struct slot {
	struct asked *asked; /* NULL: free */
	uint32_t used;       /* how often */
	uint32_t next_free;
};

struct remote {
	struct vault vault; /* first: what callers see */
	struct env *env;
	struct loop *loop;
	struct ipc *ipc; /* NULL: waiting for a new one */
	void (*lost)(struct env *env, enum err err, const char *why);
	size_t count; /* requests under way, also for nonces */

	struct slot *slot;  /* VAULT_UNDER_WAY */
	uint32_t free_slot; /* VAULT_UNDER_WAY: none */

	struct vault_nonce_answer pool[VAULTMSG_NONCES]; /* a ring */
	unsigned pool_at, pool_count;
	uint64_t refill; /* serial of the last time we asked for more */
	bool refilling;  /* and it is not answered */
	struct asked *first, **last; /* who waits for a nonce */
	struct timer deliver;
};

static struct remote *
remote_of(struct vault *vault)
{
	return (struct remote *)(void *)vault;
}

static void
asked_free(struct remote *remote, struct asked *asked)
{
	mem_wipe(asked, sizeof(*asked) + asked->len);
	free(asked);
	remote->count--;
}

static struct asked *
asked_new(
    struct remote *remote, uint16_t type, size_t len, struct ticket ticket)
{
	struct asked *asked = malloc(sizeof(*asked) + len);

	if (!asked)
		return NULL;
	memset(asked, 0, sizeof(*asked));
	asked->type = type;
	asked->len = len;
	asked->ticket = ticket;
	remote->count++;
	return asked;
}

/* Without a link it waits for the next one: it is under way all the same. */
static enum err
transmit(struct remote *remote, const struct asked *asked)
{
	if (!remote->ipc)
		return OK;
	switch (ipc_send(remote->ipc, asked->type, asked->serial, asked->octets,
	    asked->len)) {
	case OK:
	case ERR_WRONG_STATE: /* the vault has died, the news is on its way */
		return OK;
	case ERR_LIMIT:
		return ERR_LIMIT;
	default:
		return ERR_NOMEM;
	}
}

static void
slot_free(struct remote *remote, uint64_t serial)
{
	struct slot *slot = &remote->slot[serial & SLOT_MASK];

	slot->asked = NULL;
	slot->next_free = remote->free_slot;
	remote->free_slot = (uint32_t)(serial & SLOT_MASK);
}

/* Gives it a slot and sends it, or frees it. */
static enum err
submit(struct remote *remote, struct asked *asked)
{
	uint32_t at = remote->free_slot;
	struct slot *slot = &remote->slot[at];
	enum err err;

	remote->free_slot = slot->next_free;
	slot->asked = asked;
	slot->used++;
	asked->serial = (uint64_t)slot->used << SLOT_BITS | at;
	err = transmit(remote, asked);
	if (err) {
		slot_free(remote, asked->serial);
		asked_free(remote, asked);
	}
	return err;
}

/* The request that an answer belongs to, taken out of its slot. NULL: there is
 * none of this type and serial. */
static struct asked *
answered(struct remote *remote, uint16_t type, uint64_t serial)
{
	struct slot *slot = &remote->slot[serial & SLOT_MASK];
	struct asked *asked = slot->asked;

	if (!asked || asked->serial != serial || asked->type != type)
		return NULL;
	slot_free(remote, serial);
	return asked;
}

/* Nonces ------------------------------------------------------------------ */

static void
refill(struct remote *remote)
{
	uint32_t count = VAULT_POOL;

	if (!remote->ipc || remote->refilling ||
	    remote->pool_count > VAULT_POOL_LOW)
		return;
	if (ipc_send(remote->ipc, VAULT_NONCES, ++remote->refill, &count,
	        sizeof(count)) == OK)
		remote->refilling = true;
}

/* As many as there are nonces. */
static void
deliver(void *arg)
{
	struct remote *remote = arg;

	while (remote->first && remote->pool_count) {
		struct asked *asked = remote->first;
		struct vault_nonce_answer answer =
		    remote->pool[remote->pool_at];

		remote->pool_at = (remote->pool_at + 1) % VAULTMSG_NONCES;
		remote->pool_count--;
		remote->first = asked->next;
		if (!remote->first)
			remote->last = &remote->first;
		asked->done.nonce(remote->env, asked->ticket, OK, &answer);
		mem_wipe(&answer, sizeof(answer));
		asked_free(remote, asked);
	}
	refill(remote);
}

static enum err
remote_nonce(struct vault *vault, struct ticket ticket, vault_nonce_done *done)
{
	struct remote *remote = remote_of(vault);
	struct asked *asked;

	if (remote->count >= VAULT_UNDER_WAY)
		return ERR_LIMIT;
	asked = asked_new(remote, VAULT_NONCES, 0, ticket);
	if (!asked)
		return ERR_NOMEM;
	asked->done.nonce = done;
	*remote->last = asked;
	remote->last = &asked->next;
	if (remote->pool_count)
		timer_set(remote->env->timers, &remote->deliver, 0);
	refill(remote);
	return OK;
}

/* The vault has no chance to offer: whoever waits is told. */
static void
no_nonces(struct remote *remote, enum err err)
{
	static const struct vault_nonce_answer none;
	struct asked *asked = remote->first, *next;

	remote->first = NULL;
	remote->last = &remote->first;
	for (; asked; asked = next) {
		next = asked->next;
		asked->done.nonce(remote->env, asked->ticket, err, &none);
		asked_free(remote, asked);
	}
}

static enum err
on_nonces(void *arg, const struct ipc_frame *frame)
{
	const size_t before = offsetof(struct vaultmsg_nonces, item);
	struct remote *remote = arg;
	struct vaultmsg_nonces answer;
	unsigned i, at;

	memcpy(&answer, frame->body.at, before);
	if (!remote->refilling || frame->serial != remote->refill ||
	    answer.err >= ERR_COUNT || answer.count > VAULT_POOL ||
	    frame->body.len != before + answer.count * sizeof(answer.item[0]))
		return ERR_SYNTAX;
	remote->refilling = false;
	for (i = 0; i < answer.count; i++) {
		at = (remote->pool_at + remote->pool_count) % VAULTMSG_NONCES;
		memcpy(&remote->pool[at],
		    frame->body.at + before + i * sizeof(answer.item[0]),
		    sizeof(answer.item[0]));
		remote->pool_count++;
	}
	if (remote->pool_count)
		deliver(remote);
	else
		no_nonces(
		    remote, answer.err ? (enum err)answer.err : ERR_CRYPTO);
	return OK;
}

static void
remote_nonce_drop(struct vault *vault, uint64_t handle)
{
	struct remote *remote = remote_of(vault);

	/* If it is lost, the vault forgets the nonce by itself in time. */
	if (remote->ipc)
		(void)ipc_send(
		    remote->ipc, VAULT_NONCE_DROP, 0, &handle, sizeof(handle));
}

/* Requests ---------------------------------------------------------------- */

static size_t
ends_len(const struct ident *local, const struct ident *remote)
{
	return 2 * 17 + 2 * 3 + (local ? local->len : 0u) +
	       (remote ? remote->len : 0u);
}

/* The encoded request becomes as long as it is, and goes. */
static enum err
finish(struct remote *remote, struct asked *asked, const struct buf *buf)
{
	if (buf->full) {
		asked_free(remote, asked);
		return ERR_LONG;
	}
	asked->len = buf->len;
	return submit(remote, asked);
}

static enum err
remote_psk_auth(struct vault *vault, const struct vault_psk_auth *ask,
    struct ticket ticket, vault_psk_auth_done *done)
{
	struct remote *remote = remote_of(vault);
	struct asked *asked;
	struct buf buf;

	if (remote->count >= VAULT_UNDER_WAY)
		return ERR_LIMIT;
	if (ask->octets.len > VAULT_OCTETS)
		return ERR_LONG;
	asked = asked_new(remote, VAULT_PSK_AUTH,
	    1 + ends_len(ask->local, ask->remote) + ask->octets.len, ticket);
	if (!asked)
		return ERR_NOMEM;
	asked->done.psk_auth = done;
	buf_init(&buf, asked->octets, asked->len);
	vaultmsg_put_psk_auth(&buf, ask);
	return finish(remote, asked, &buf);
}

static enum err
on_psk_auth(void *arg, const struct ipc_frame *frame)
{
	struct remote *remote = arg;
	struct asked *asked = answered(remote, VAULT_PSK_AUTH, frame->serial);
	struct vaultmsg_psk_auth answer;

	memcpy(&answer, frame->body.at, sizeof(answer));
	if (!asked)
		return ERR_SYNTAX;
	if (answer.err >= ERR_COUNT)
		answer.err = ERR_BUG;
	asked->done.psk_auth(
	    remote->env, asked->ticket, (enum err)answer.err, &answer.answer);
	asked_free(remote, asked);
	return OK;
}

static enum err
remote_skeyid(struct vault *vault, const struct vault_skeyid *ask,
    struct ticket ticket, vault_skeyid_done *done)
{
	struct remote *remote = remote_of(vault);
	struct asked *asked;
	struct buf buf;

	if (remote->count >= VAULT_UNDER_WAY)
		return ERR_LIMIT;
	if (ask->peer_nonce.len < 8 || ask->peer_nonce.len > 256)
		return ERR_LONG; /* RFC 2409 5 */
	asked = asked_new(remote, VAULT_SKEYID,
	    10 + ends_len(ask->local, ask->remote) + ask->peer_nonce.len,
	    ticket);
	if (!asked)
		return ERR_NOMEM;
	asked->done.skeyid = done;
	buf_init(&buf, asked->octets, asked->len);
	vaultmsg_put_skeyid(&buf, ask);
	return finish(remote, asked, &buf);
}

static enum err
on_skeyid(void *arg, const struct ipc_frame *frame)
{
	struct remote *remote = arg;
	struct asked *asked = answered(remote, VAULT_SKEYID, frame->serial);
	struct vaultmsg_skeyid answer;

	if (!asked)
		return ERR_SYNTAX;
	memcpy(&answer, frame->body.at, sizeof(answer));
	if (answer.err >= ERR_COUNT || answer.answer.count > VAULT_CANDIDATES) {
		answer.err = ERR_BUG;
		answer.answer.count = 0;
	}
	asked->done.skeyid(
	    remote->env, asked->ticket, (enum err)answer.err, &answer.answer);
	mem_wipe(&answer, sizeof(answer));
	asked_free(remote, asked);
	return OK;
}

static enum err
remote_permits(struct vault *vault, const struct vault_permits *ask,
    struct ticket ticket, vault_permits_done *done)
{
	struct remote *remote = remote_of(vault);
	struct asked *asked;
	struct buf buf;

	if (remote->count >= VAULT_UNDER_WAY)
		return ERR_LIMIT;
	asked = asked_new(remote, VAULT_PERMITS,
	    8 + ends_len(ask->local, ask->remote), ticket);
	if (!asked)
		return ERR_NOMEM;
	asked->done.permits = done;
	buf_init(&buf, asked->octets, asked->len);
	vaultmsg_put_permits(&buf, ask);
	return finish(remote, asked, &buf);
}

static enum err
on_permits(void *arg, const struct ipc_frame *frame)
{
	struct remote *remote = arg;
	struct asked *asked = answered(remote, VAULT_PERMITS, frame->serial);
	uint32_t answer;

	if (!asked)
		return ERR_SYNTAX;
	memcpy(&answer, frame->body.at, sizeof(answer));
	if (answer >= ERR_COUNT)
		answer = ERR_BUG;
	asked->done.permits(remote->env, asked->ticket, (enum err)answer);
	asked_free(remote, asked);
	return OK;
}

/* The link ---------------------------------------------------------------- */

static const struct ipc_permit rows[] = {
	{ VAULT_PSK_AUTH, IPC_OUT, 0, VAULTMSG_MAX, 0, NULL },
	{ VAULT_PSK_AUTH_ANSWER, IPC_IN, sizeof(struct vaultmsg_psk_auth),
	    sizeof(struct vaultmsg_psk_auth), 0, on_psk_auth },
	{ VAULT_NONCES, IPC_OUT, 4, 4, 0, NULL },
	{ VAULT_NONCES_ANSWER, IPC_IN, offsetof(struct vaultmsg_nonces, item),
	    sizeof(struct vaultmsg_nonces), 0, on_nonces },
	{ VAULT_NONCE_DROP, IPC_OUT, 8, 8, 0, NULL },
	{ VAULT_SKEYID, IPC_OUT, 0, VAULTMSG_MAX, 0, NULL },
	{ VAULT_SKEYID_ANSWER, IPC_IN, sizeof(struct vaultmsg_skeyid),
	    sizeof(struct vaultmsg_skeyid), 0, on_skeyid },
	{ VAULT_PERMITS, IPC_OUT, 0, VAULTMSG_MAX, 0, NULL },
	{ VAULT_PERMITS_ANSWER, IPC_IN, 4, 4, 0, on_permits },
};

/* The vault has gone: its nonces have, too. */
static void
unlink_vault(struct remote *remote)
{
	ipc_free(remote->ipc);
	remote->ipc = NULL;
	mem_wipe(remote->pool, sizeof(remote->pool));
	remote->pool_count = 0;
	remote->refilling = false;
}

static void
on_closed(void *arg, enum err err, const char *why)
{
	struct remote *remote = arg;

	unlink_vault(remote);
	if (remote->lost)
		remote->lost(remote->env, err, why);
}

/* It will not be answered. */
static void
refuse(struct remote *remote, struct asked *asked, enum err err)
{
	static const struct vault_psk_auth_answer no_mac;
	static const struct vault_skeyid_answer no_skeyid;

	switch (asked->type) {
	case VAULT_PSK_AUTH:
		asked->done.psk_auth(remote->env, asked->ticket, err, &no_mac);
		break;
	case VAULT_SKEYID:
		asked->done.skeyid(remote->env, asked->ticket, err, &no_skeyid);
		break;
	default:
		asked->done.permits(remote->env, asked->ticket, err);
		break;
	}
	asked_free(remote, asked);
}

enum err
vault_remote_relink(struct vault *vault, int fd)
{
	struct remote *remote = remote_of(vault);
	uint32_t i;

	unlink_vault(remote);
	remote->ipc = ipc_new(remote->loop, fd, rows,
	    sizeof(rows) / sizeof(rows[0]), on_closed, remote);
	if (!remote->ipc)
		return ERR_NOMEM;
	for (i = 0; i < VAULT_UNDER_WAY; i++) {
		struct asked *asked = remote->slot[i].asked;
		enum err err = asked ? transmit(remote, asked) : OK;

		if (err) {
			slot_free(remote, asked->serial);
			refuse(remote, asked, err);
		}
	}
	refill(remote);
	return OK;
}

static void
remote_free(struct vault *vault)
{
	struct remote *remote = remote_of(vault);
	struct asked *asked;
	uint32_t i;

	timer_stop(remote->env->timers, &remote->deliver);
	ipc_free(remote->ipc);
	for (i = 0; remote->slot && i < VAULT_UNDER_WAY; i++) {
		if (remote->slot[i].asked)
			asked_free(remote, remote->slot[i].asked);
	}
	while ((asked = remote->first)) {
		remote->first = asked->next;
		asked_free(remote, asked);
	}
	free(remote->slot);
	mem_wipe(remote, sizeof(*remote));
	free(remote);
}

struct vault *
vault_remote_new(struct env *env, struct loop *loop, int fd,
    void (*lost)(struct env *env, enum err err, const char *why))
{
	static const struct vault_ops ops = { remote_psk_auth, remote_nonce,
		remote_nonce_drop, remote_skeyid, remote_permits, remote_free };
	struct remote *remote = calloc(1, sizeof(*remote));
	uint32_t i;

	if (!remote)
		goto fail;
	remote->vault.ops = &ops;
	remote->env = env;
	remote->loop = loop;
	remote->lost = lost;
	remote->last = &remote->first;
	timer_init(&remote->deliver, deliver, remote);
	remote->slot = calloc(VAULT_UNDER_WAY, sizeof(*remote->slot));
	if (!remote->slot)
		goto fail;
	for (i = 0; i < VAULT_UNDER_WAY; i++)
		remote->slot[i].next_free = i + 1;
	if (fd >= 0 && vault_remote_relink(&remote->vault, fd) != OK) {
		remote_free(&remote->vault);
		return NULL;
	}
	return &remote->vault;
fail:
	free(remote);
	if (fd >= 0)
		close(fd);
	return NULL;
}
