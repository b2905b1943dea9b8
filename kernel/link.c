#include "kernel/link.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdlib.h>
#include <unistd.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

#include "common/loop.h"

#define DISCARD_PORT 9 /* any: nothing is sent */

struct link {
	struct loop *loop;
	struct nl_sock *sock;
	struct loop_watch *watch;
	bool pending;
	void (*changed)(void *arg);
	void *arg;
};

static bool
is_link_scope(const struct addr *addr)
{
	return addr->family == ADDR_V6 && addr->octets[0] == 0xfe &&
	       (addr->octets[1] & 0xc0) == 0x80;
}

static bool
own_addr(const struct ifaddrs *item, struct addr *addr)
{
	struct endpoint endpoint;
	unsigned len;

	if (item->ifa_addr == NULL || !(item->ifa_flags & IFF_UP))
		return false;
	len = item->ifa_addr->sa_family == AF_INET6
	          ? sizeof(struct sockaddr_in6)
	          : sizeof(struct sockaddr_in);
	if (!endpoint_from_sockaddr(&endpoint, item->ifa_addr, len))
		return false;
	*addr = endpoint.addr;
	return !is_link_scope(addr);
}

enum err
link_addresses(struct addr *list, size_t max, size_t *count)
{
	struct ifaddrs *all, *item;

	*count = 0;
	if (getifaddrs(&all) != 0)
		return ERR_IO;
	for (item = all; item && *count < max; item = item->ifa_next)
		if (own_addr(item, &list[*count]))
			++*count;
	freeifaddrs(all);
	return OK;
}

bool
link_is_own(const struct addr *addr)
{
	struct ifaddrs *all, *item;
	struct addr own;
	bool found = false;

	if (getifaddrs(&all) != 0)
		return false;
	for (item = all; item && !found; item = item->ifa_next)
		found = own_addr(item, &own) && addr_equal(&own, addr);
	freeifaddrs(all);
	return found;
}

/* The kernel chooses the source when a UDP socket is connected; no packet
 * leaves. */
bool
link_source(const struct addr *remote, struct addr *local)
{
	struct endpoint to = { *remote, DISCARD_PORT }, from;
	struct sockaddr_storage address;
	socklen_t len;
	bool found = false;
	int fd;

	if (remote->family != ADDR_V4 && remote->family != ADDR_V6)
		return false;
	fd = socket(remote->family == ADDR_V4 ? AF_INET : AF_INET6,
	    SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	len = endpoint_to_sockaddr(&to, &address);
	if (connect(fd, (struct sockaddr *)&address, len) == 0) {
		len = sizeof(address);
		found =
		    getsockname(fd, (struct sockaddr *)&address, &len) == 0 &&
		    endpoint_from_sockaddr(
		        &from, (struct sockaddr *)&address, len);
	}
	close(fd);
	if (found)
		*local = from.addr;
	return found;
}

/* What changed is of no interest, only that something did: whoever asks looks
 * anew. */
static void
link_readable(void *arg)
{
	struct link *link = arg;
	uint8_t octets[4096];
	ssize_t len;

	do {
		len = recv(nl_socket_get_fd(link->sock), octets, sizeof(octets),
		    MSG_DONTWAIT);
		if (len > 0 || (len < 0 && errno == ENOBUFS))
			link->pending = true;
	} while (len > 0 || (len < 0 && (errno == EINTR || errno == ENOBUFS)));
}

static void
link_tell(void *arg)
{
	struct link *link = arg;

	if (!link->pending)
		return;
	link->pending = false;
	link->changed(link->arg);
}

struct link *
link_new(struct loop *loop, void (*changed)(void *arg), void *arg)
{
	struct link *link = calloc(1, sizeof(*link));

	if (link == NULL)
		return NULL;
	link->loop = loop;
	link->changed = changed;
	link->arg = arg;
	link->sock = nl_socket_alloc();
	if (link->sock && nl_connect(link->sock, NETLINK_ROUTE) >= 0 &&
	    nl_socket_add_memberships(link->sock, RTNLGRP_IPV4_IFADDR,
	        RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
	        0) >= 0)
		link->watch = loop_watch(loop, nl_socket_get_fd(link->sock),
		    link_readable, NULL, link);
	if (link->watch && loop_flush(loop, link_tell, link))
		return link;
	link_free(link);
	return NULL;
}

void
link_free(struct link *link)
{
	if (link == NULL)
		return;
	loop_unflush(link->loop, link_tell, link);
	loop_unwatch(link->watch);
	nl_socket_free(link->sock);
	free(link);
}
