/*
 * net: datagrams of IKE, in and out.
 *
 * The real one reads and writes in batches (recvmmsg, sendmmsg; what is sent
 * in one turn of the loop leaves at its end), on sockets for ports 500 and
 * 4500 over IPv4 and IPv6 that the parent opened, and knows the local address
 * of each packet (IP_PKTINFO). It strips and adds the non-ESP marker
 * (RFC 3948 2.2); one-octet keepalives are dropped here. Addresses are
 * authenticated by nothing: see natt.
 */
#ifndef COMMON_NET_H
#define COMMON_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/buf.h"
#include "common/err.h"

struct env;
struct loop;
struct net;

struct packet {
	struct endpoint local, remote;
	bool natt;          /* came with the marker, on the NAT-T port */
	struct view octets; /* without the marker; valid during the call */
};

struct net_ops {
	/* Sends octets, adding the marker when natt. Loss is silent. */
	void (*send)(struct net *, const struct endpoint *local,
	    const struct endpoint *remote, bool natt, struct view octets);
	/* RFC 3948 2.3: one octet 0xff. */
	void (*keepalive)(struct net *, const struct endpoint *local,
	    const struct endpoint *remote);
	/* The address that the system would send from; false if no route. */
	bool (*source)(
	    struct net *, const struct addr *remote, struct addr *local);
	/* The ports we listen on (500 and 4500, or the tests' own). */
	uint16_t (*port)(const struct net *, bool natt);
	void (*free)(struct net *);
};

struct net {
	const struct net_ops *ops;
};

static inline void
net_send(struct net *net, const struct endpoint *local,
    const struct endpoint *remote, bool natt, struct view octets)
{
	net->ops->send(net, local, remote, natt, octets);
}

static inline uint16_t
net_port(const struct net *net, bool natt)
{
	return net->ops->port(net, natt);
}

/* Sockets that are open already; -1: there is none. Each is not blocking. */
struct net_sockets {
	int ike4, ike6, natt4, natt6;
	int probe4, probe6; /* UDP, bound to nothing: for source() */
	uint16_t ike_port, natt_port;
};

/* How the parent opens them. */
struct net_listen {
	struct addr addr4, addr6;     /* to bind to; family 0: every address */
	bool no4, no6;                /* leave a family out */
	uint16_t ike_port, natt_port; /* 0: any free one */
	bool encap; /* the kernel does ESP: what comes without the marker on the
	              * NAT-T port is its (UDP_ENCAP_ESPINUDP) */
	bool bypass;   /* IPsec policies do not apply to IKE itself
	              * (IP_XFRM_POLICY); needs CAP_NET_ADMIN */
	bool share;    /* the NAT-T port is shared with the userland data plane
	              * (SO_REUSEPORT) */
	uint32_t mark; /* SO_MARK, so that the userland data plane's routes do
	                * not apply; 0: none. Needs CAP_NET_ADMIN */
};

/* Opens what listen asks for and sets *sockets, with the ports that were
 * bound. A system without IPv6 gets none. ERR_IO with errno, and *what
 * (static) names the step that failed; nothing is left open then. */
enum err net_sockets_open(struct net_sockets *sockets,
    const struct net_listen *listen, const char **what);
void net_sockets_close(struct net_sockets *sockets);
/* They hear everybody again, if a process that had them connected one to some
 * peer. Of ports that were asked for (not 0); one that is shared does not find
 * its place in the group back. */
void net_sockets_hear_all(const struct net_sockets *sockets);

/* The real one, over sockets, which net owns from then on (also on failure).
 * receive is called once per datagram, from the loop; stray, if not NULL, gets
 * what arrives on the NAT-T port without a marker (ESP, for the userland data
 * plane). What the system refuses to send is lost and counted. Addresses of
 * link scope do not work: an endpoint has no scope. NULL when out of memory. */
struct net *
net_new(struct env *env, struct loop *loop, const struct net_sockets *sockets,
    void (*receive)(struct env *env, const struct packet *packet),
    void (*stray)(struct env *env, const struct packet *packet));

static inline void
net_free(struct net *net)
{
	if (net)
		net->ops->free(net);
}

#endif
