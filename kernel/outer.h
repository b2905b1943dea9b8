/*
 * outer: ESP packets on the wire, over IP protocol 50 and over UDP on the
 * NAT-T port (RFC 4303, RFC 3948), in batches.
 *
 * The parent opens the sockets and keeps them open: without a listener the
 * system would answer ESP with an ICMP error. The NAT-T port is shared with
 * IKE: a classic BPF program on the group of both sockets gives what begins
 * with the non-ESP marker to the first, everything else to the second, which is
 * ours. A buffer that the system has put together from several datagrams may
 * mix both kinds all the same: what belongs to IKE is handed over.
 *
 * Packets of one SA that follow each other and have the same size leave as one
 * (UDP_SEGMENT), and come in as one (UDP_GRO).
 */
#ifndef KERNEL_OUTER_H
#define KERNEL_OUTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/addr.h"
#include "common/buf.h"
#include "common/err.h"

struct loop;
struct outer;

enum outer_way {
	OUTER_RAW4,
	OUTER_RAW6,
	OUTER_NATT4,
	OUTER_NATT6,
	OUTER_WAYS,
	OUTER_PROBE4 = OUTER_WAYS, /* UDP, bound to nothing: path MTU */
	OUTER_PROBE6,
	OUTER_SOCKETS
};

struct outer_sockets {
	int fd[OUTER_SOCKETS]; /* by enum outer_way; -1: there is none */
	uint16_t natt_port;
};

/* Opens all, with privileges. mark: of all that they send. To be called after
 * IKE's sockets have been opened with share, whose NAT-T ports are natt4 and
 * natt6 (-1: without that family): the group's order counts. ERR_IO with errno,
 * *what (static) names the step; nothing is left open then. */
enum err outer_open(struct outer_sockets *sockets, uint16_t natt_port,
    uint32_t mark, bool v4, bool v6, const char **what);
void outer_close(struct outer_sockets *sockets);

struct outer_packet {
	struct endpoint local, remote; /* ports: 0 unless encap */
	bool encap;
	uint8_t tos;     /* of the outer header */
	uint8_t *octets; /* SPI and on; may be changed */
	size_t len;
};

struct outer_events {
	/* ESP. The octets stay as they are until settled(). */
	void (*receive)(void *arg, const struct outer_packet *packet);
	/* IKE, without its marker. */
	void (*stray)(void *arg, const struct outer_packet *packet);
	/* All of a batch has been received. */
	void (*settled)(void *arg);
	void *arg;
};

/* Takes the sockets over, also on failure. NULL: out of memory. */
struct outer *outer_new(struct loop *loop, const struct outer_sockets *sockets,
    const struct outer_events *events);
void outer_free(struct outer *outer); /* accepts NULL */

/* Where an SA sends to. */
struct outer_path {
	struct sockaddr_storage to;
	unsigned to_len;
	struct addr from;
	enum outer_way way;
};
void outer_path(struct outer_path *path, const struct endpoint *src,
    const struct endpoint *dst, bool encap);

/* Octets of IP and UDP headers before ESP. */
size_t outer_overhead(const struct outer_path *path);
/* What the system knows of the path's MTU; 0: nothing. */
size_t outer_mtu(struct outer *outer, const struct outer_path *path);

/* Room for one packet of len octets (at most 65,535), to be filled and then
 * sent by outer_send() before the next is asked for. */
uint8_t *outer_room(struct outer *outer, size_t len);
/* Queues what was written there; path must stay until outer_flush(). */
void outer_send(struct outer *outer, const struct outer_path *path, uint8_t tos,
    size_t len);
/* Sends what is queued. What the system refuses is lost. */
void outer_flush(struct outer *outer);

struct outer_stats {
	uint64_t sent, calls, lost, received, strays;
};
struct outer_stats outer_stats(const struct outer *outer);

#endif
