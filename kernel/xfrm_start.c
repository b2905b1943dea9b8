/* What the back end does once: is there a data plane, and what has a dead
 * predecessor left in it? Both block for as long as the kernel takes. */
#include "kernel/xfrm_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

#include "common/alg.h"
#include "kernel/xmsg.h"

#define DUMP_TRIES 4

/* Orphans --------------------------------------------------------------- */

struct orphans {
	struct nl_msg **removal;
	size_t count, size;
};

static int
collect(struct nl_msg *msg, void *arg)
{
	struct orphans *orphans = arg;
	struct nl_msg *removal, **grown;
	size_t size;

	if (!xmsg_orphan(nlmsg_hdr(msg), &removal))
		return NL_OK;
	if (orphans->count == orphans->size) {
		size = orphans->size ? 2 * orphans->size : 64;
		grown =
		    realloc(orphans->removal, size * sizeof(struct nl_msg *));
		if (grown == NULL) {
			xmsg_free(removal);
			return NL_OK;
		}
		orphans->removal = grown;
		orphans->size = size;
	}
	orphans->removal[orphans->count++] = removal;
	return NL_OK;
}

/* Blocks, but only the kernel answers. *removed counts up. False: the kernel's
 * tables changed below the dump, which may lack something. */
static bool
remove_orphans(struct nl_sock *sock, bool policies, size_t *removed)
{
	struct orphans orphans = { NULL, 0, 0 };
	struct nl_msg *dump = xmsg_dump(policies);
	bool whole = false;
	size_t i;

	if (dump == NULL)
		return false;
	nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, collect, &orphans);
	if (nl_send_auto(sock, dump) >= 0)
		whole = nl_recvmsgs_default(sock) >= 0;
	xmsg_free(dump);
	for (i = 0; i < orphans.count; i++) {
		if (nl_send_auto(sock, orphans.removal[i]) >= 0 &&
		    nl_wait_for_ack(sock) >= 0)
			++*removed;
		xmsg_free(orphans.removal[i]);
	}
	free(orphans.removal);
	return whole;
}

bool
xfrm_clear_orphans(struct log *log, char *why, size_t size)
{
	struct nl_sock *sock = xfrm_socket(why, size);
	size_t sas = 0, policies = 0;
	unsigned tries;
	bool whole = false;

	if (sock == NULL)
		return false;
	for (tries = 0; tries < DUMP_TRIES && !whole; tries++) {
		whole = remove_orphans(sock, true, &policies);
		whole = remove_orphans(sock, false, &sas) && whole;
	}
	if (!whole)
		log_write(log, LOG_LEVEL_WARNING,
		    "the kernel's tables could not be read to the end: SAs or "
		    "policies of a predecessor may be left");
	if (sas + policies > 0)
		log_write(log, LOG_LEVEL_INFO,
		    "removed what a predecessor left in the kernel: %zu SAs, "
		    "%zu policies",
		    sas, policies);
	nl_socket_free(sock);
	return true;
}

/* Can this kernel do it ------------------------------------------------- */

static void
probe_sa(struct kmsg_sa *sa)
{
	memset(sa, 0, sizeof(*sa));
	sa->direction = KMSG_IN;
	sa->encr = ALG_AES256_CBC;
	sa->integ = ALG_SHA256_128;
	sa->encr_key_len = sa->integ_key_len = 32;
	/* Any key does: the SA sees no packet. Not all zeroes, which the
	 * kernel might refuse. */
	memset(sa->key, 0x5a, 64);
	sa->src.addr.family = sa->dst.addr.family = ADDR_V4;
	sa->src.addr.octets[0] = sa->dst.addr.octets[0] = 127;
	sa->src.addr.octets[3] = sa->dst.addr.octets[3] = 1;
	sa->ts_src.count = sa->ts_dst.count = 1;
	sa->ts_src.item[0] = sa->ts_dst.item[0] = ts_from_addr(&sa->src.addr);
	sa->hard_ms = 10000;
}

static enum err
probe(struct xfrm *xfrm, char *text)
{
	struct kmsg_sa sa;
	enum err err;
	struct nl_msg *msg;

	probe_sa(&sa);
	err = xfrm_transact(xfrm, xmsg_spi(&sa), true, text);
	if (err == OK)
		err = xmsg_read_spi(
		    (struct nlmsghdr *)(void *)xfrm->receive, &sa.spi);
	if (err != OK)
		return err;
	msg = xmsg_sa(&sa, true, &err);
	if (msg)
		err = xfrm_transact(xfrm, msg, false, text);
	(void)xfrm_transact(xfrm, xmsg_sa_delete(&sa.dst.addr, sa.spi), false,
	    (char[XFRM_TEXT]){ "" });
	return err;
}

bool
xfrm_probe(char *why, size_t size)
{
	struct xfrm *xfrm = calloc(1, sizeof(*xfrm));
	char text[XFRM_TEXT];
	bool can = false;
	enum err err;

	snprintf(why, size, "no memory");
	if (xfrm == NULL)
		return false;
	xfrm->receive = malloc(XFRM_RECEIVE);
	if (xfrm->receive)
		xfrm->ask = xfrm_socket(why, size);
	if (xfrm->ask) {
		err = probe(xfrm, text);
		/* Loading modules may have taken longer than the kernel keeps
		 * an SPI: they are there now. */
		if (err == ERR_NOT_FOUND)
			err = probe(xfrm, text);
		can = err == OK;
		if (!can)
			snprintf(why, size, "%s", text);
	}
	nl_socket_free(xfrm->ask);
	free(xfrm->receive);
	free(xfrm);
	return can;
}
