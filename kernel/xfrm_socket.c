/* The sockets of the back end, and what the kernel reports by itself. */
#include "kernel/xfrm_state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

#include "common/loop.h"
#include "kernel/xmsg.h"

#define BUFFER    (1 << 20) /* of the sockets: room for every answer */
#define HEAR_TURN 256       /* reports read in one turn of the loop */
#define LOST_MS   60000     /* between two lines that some were lost */

struct nl_sock *
xfrm_socket(char *why, size_t size)
{
	struct nl_sock *sock = nl_socket_alloc();
	int error, on = 1, octets = BUFFER;

	if (sock == NULL) {
		snprintf(why, size, "no memory");
		return NULL;
	}
	nl_socket_disable_auto_ack(sock);
	error = nl_connect(sock, NETLINK_XFRM);
	if (error < 0) {
		snprintf(why, size, "no netlink socket for XFRM: %s",
		    nl_geterror(error));
		nl_socket_free(sock);
		return NULL;
	}
	/* Without these answers have fewer words, and less room. */
	(void)setsockopt(nl_socket_get_fd(sock), SOL_NETLINK, NETLINK_EXT_ACK,
	    &on, sizeof(on));
	(void)setsockopt(nl_socket_get_fd(sock), SOL_NETLINK, NETLINK_CAP_ACK,
	    &on, sizeof(on));
	(void)setsockopt(nl_socket_get_fd(sock), SOL_SOCKET, SO_RCVBUFFORCE,
	    &octets, sizeof(octets));
	return sock;
}

int
xfrm_read(struct nl_sock *sock, uint8_t *octets)
{
	struct sockaddr_nl from;
	socklen_t from_len;
	ssize_t len;

	for (;;) {
		from_len = sizeof(from);
		len = recvfrom(nl_socket_get_fd(sock), octets, XFRM_RECEIVE,
		    MSG_DONTWAIT, (struct sockaddr *)&from, &from_len);
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			return errno == ENOBUFS ? -1 : 0;
		/* Other processes may send to us; only the kernel counts. */
		if (len > 0 && from_len == sizeof(from) && from.nl_pid == 0)
			return (int)len;
	}
}

enum err
xfrm_transact(
    struct xfrm *xfrm, struct nl_msg *msg, bool wants_state, char *text)
{
	struct sockaddr_nl to = { .nl_family = AF_NETLINK };
	struct nlmsghdr *header = msg ? nlmsg_hdr(msg) : NULL;
	struct nlmsghdr *reply = (struct nlmsghdr *)(void *)xfrm->receive;
	enum err err = ERR_IO;
	int len, number;

	snprintf(text, XFRM_TEXT, "%s", msg ? "no answer" : "no memory");
	if (msg == NULL)
		return ERR_NOMEM;
	header->nlmsg_seq = ++xfrm->sequence;
	header->nlmsg_pid = nl_socket_get_local_port(xfrm->ask);
	if (sendto(nl_socket_get_fd(xfrm->ask), header,
	        NLMSG_ALIGN(header->nlmsg_len), 0, (struct sockaddr *)&to,
	        sizeof(to)) < 0)
		snprintf(text, XFRM_TEXT, "%s", strerror(errno));
	while ((len = xfrm_read(xfrm->ask, xfrm->receive)) != 0) {
		if (len < 0 || !nlmsg_ok(reply, len) ||
		    reply->nlmsg_seq != xfrm->sequence)
			continue;
		if (reply->nlmsg_type == NLMSG_ERROR)
			err = xmsg_read_error(reply, &number, text, XFRM_TEXT);
		else if (wants_state)
			err = OK;
		break;
	}
	xmsg_free(msg);
	return err;
}

/* Reports --------------------------------------------------------------- */

static void
note_loss(struct ear *ear)
{
	struct xfrm *xfrm = ear->xfrm;
	uint64_t now_ms = loop_timers(xfrm->loop)->now_ms;

	if (now_ms < ear->quiet_ms)
		return;
	ear->quiet_ms = now_ms + LOST_MS;
	log_write(xfrm->log, LOG_LEVEL_WARNING,
	    "the kernel reports too much, some of it was lost: %s",
	    ear == &xfrm->ear[EAR_EXPIRIES]
	        ? "SAs that expire"
	        : "packets from new addresses, or without an SA");
}

/* What is lost here heals by itself: acquires and mapping changes are reported
 * again, and expiries by time are known to those who wait for them, too. */
static void
hear(void *arg)
{
	struct ear *ear = arg;
	struct xfrm *xfrm = ear->xfrm;
	struct kmsg_event event;
	struct nlmsghdr *header;
	unsigned i;
	int len;

	for (i = 0; i < HEAR_TURN; i++) {
		len = xfrm_read(ear->sock, xfrm->receive);
		if (len == 0)
			return;
		if (len < 0)
			note_loss(ear);
		for (header = (struct nlmsghdr *)(void *)xfrm->receive;
		     len > 0 && nlmsg_ok(header, len);
		     header = nlmsg_next(header, &len))
			if (xmsg_read_event(header, &event))
				xfrm->backend.event(xfrm->backend.arg, &event);
	}
}

static bool
listen_to(struct xfrm *xfrm, unsigned which, int group, int more, char *why,
    size_t size)
{
	struct ear *ear = &xfrm->ear[which];
	int error;

	ear->xfrm = xfrm;
	ear->sock = xfrm_socket(why, size);
	if (ear->sock == NULL)
		return false;
	nl_socket_disable_seq_check(ear->sock);
	error = nl_socket_add_memberships(ear->sock, group, more, 0);
	if (error >= 0)
		error = nl_socket_set_nonblocking(ear->sock);
	if (error < 0) {
		snprintf(why, size, "cannot hear the kernel: %s",
		    nl_geterror(error));
		return false;
	}
	ear->watch = loop_watch(
	    xfrm->loop, nl_socket_get_fd(ear->sock), hear, NULL, ear);
	return ear->watch != NULL;
}

bool
xfrm_listen(struct xfrm *xfrm, char *why, size_t size)
{
	return listen_to(xfrm, EAR_EXPIRIES, XFRMNLGRP_EXPIRE, 0, why, size) &&
	       listen_to(xfrm, EAR_OTHERS, XFRMNLGRP_ACQUIRE, XFRMNLGRP_MAPPING,
	           why, size);
}

void
xfrm_unlisten(struct xfrm *xfrm)
{
	unsigned i;

	for (i = 0; i < EARS; i++) {
		loop_unwatch(xfrm->ear[i].watch);
		nl_socket_free(xfrm->ear[i].sock);
	}
}
