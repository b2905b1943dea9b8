/*
 * tun: the device through which the userland data plane meets the system's IP
 * stack, and the offloads that make it fast.
 *
 * Packets come and go with a virtio header in front. The system hands over TCP
 * (and, where it can, UDP) packets of up to 64 KiB without checksums, which we
 * cut into segments ourselves; towards the system, segments of one TCP flow
 * that follow each other leave as one.
 */
#ifndef KERNEL_TUN_H
#define KERNEL_TUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "kernel/inner.h"

#define TUN_NAME   "orthrus%d"
#define TUN_MTU    1400
#define TUN_HEADER 10    /* octets of the virtio header */
#define TUN_PACKET 65535 /* octets of a packet, at most */

/* Opens a device and takes it up: needs CAP_NET_ADMIN and /dev/net/tun. name
 * (16 octets) and *index are set. Not blocking, close-on-exec. The device lasts
 * as long as the descriptor, wherever it is. ERR_IO with errno. */
enum err tun_open(int *fd, char name[static 16], int *index);

/* Is the device still there? Whoever may can remove it. */
bool tun_alive(int fd);

/* Cutting --------------------------------------------------------------- */

/* One packet of the system's, before it is cut. */
struct tun_cut {
	const uint8_t *packet;
	struct inner inner;
	size_t header;  /* octets that each segment repeats */
	size_t segment; /* octets of payload in each; the last has less */
	size_t count;   /* segments; 1: goes as it is */
	size_t at;      /* of the next */
	bool checksum;  /* its checksum is to be completed */
	uint16_t checksum_start, checksum_offset;
};

/* What was read from the device: virtio header and packet. packet must not
 * change while it is being cut. ERR_SHORT, ERR_SYNTAX, ERR_LONG,
 * ERR_UNSUPPORTED. */
enum err tun_cut(struct tun_cut *cut, const uint8_t *octets, size_t len);
/* Octets of the largest segment. */
size_t tun_cut_max(const struct tun_cut *cut);
/* Octets of the next segment; 0 when there is none. */
size_t tun_cut_next(const struct tun_cut *cut);
/* Writes it with all its checksums; to has room for tun_cut_next(). */
void tun_cut_write(struct tun_cut *cut, uint8_t *to);

/* Joining --------------------------------------------------------------- */

struct tun_join;

/* fd is borrowed. NULL: out of memory. */
struct tun_join *tun_join_new(int fd);
void tun_join_free(struct tun_join *join); /* accepts NULL */
/* Takes a packet on its way to the system. Its octets must stay as they are
 * until tun_join_flush(), and may be changed by it. */
void
tun_join_add(struct tun_join *join, uint8_t *packet, const struct inner *inner);
/* Writes what is held back. */
void tun_join_flush(struct tun_join *join);

struct tun_joined {
	uint64_t packets, writes, lost;
};
struct tun_joined tun_join_stats(const struct tun_join *join);

#endif
