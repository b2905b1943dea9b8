/*
 * userland: the back end whose ESP is ours, in a process of its own.
 *
 * This end lives in the parent, which has the privileges: it opens the TUN
 * device and the sockets and keeps them open, draws SPIs, makes routes, and
 * hands requests on to the process (kernel/plane), in order. When that dies its
 * SAs are gone for good: a key whose counter was lost is never used again
 * (RFC 4106 2, RFC 4303 3.3.3), so KEVENT_LOST makes gate negotiate anew.
 */
#ifndef KERNEL_USERLAND_H
#define KERNEL_USERLAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/ipc.h"
#include "common/log.h"
#include "kernel/kserve.h"
#include "kernel/outer.h"

struct loop;

/* Frames between the parent and the process (ipc; range IPC_ESP). The serial of
 * a request counts from 1, and so do the answers. */
enum userland_frame {
	/* to the process */
	UFRAME_START = IPC_ESP, /* struct userland_start, descriptors. Once */
	UFRAME_REQUEST,         /* kmsg_put() */
	UFRAME_LEVEL,           /* uint32_t: enum log_level */
	/* from it */
	UFRAME_ANSWER, /* kmsg_answer_put() */
	UFRAME_EVENT,  /* kmsg_event_put() */
	UFRAME_STRAY   /* struct userland_stray and octets: IKE's */
};

/* Descriptors: the device, then the sockets whose bit is set. */
struct userland_start {
	uint32_t sockets; /* bits 1 << enum outer_way */
	uint16_t natt_port;
};

struct userland_stray {
	struct endpoint local, remote;
};
#define USERLAND_STRAY_MAX (IPC_BODY - sizeof(struct userland_stray))

/* Opens the device and routes. Sockets are opened by userland_sockets(), after
 * IKE's. random fills octets (see struct env). NULL: why (size octets) says
 * what failed. */
struct kserve_backend *userland_new(struct loop *loop, struct log *log,
    bool (*random)(void *arg, void *octets, size_t len), void *random_arg,
    char *why, size_t size);

/* IKE's sockets are open, with share and ROUTE_MARK. ERR_IO: why. */
enum err userland_sockets(struct kserve_backend *backend, uint16_t natt_port,
    bool v4, bool v6, char *why, size_t size);

/* What arrived at the process but belongs to IKE; view valid during the call. */
void userland_stray(struct kserve_backend *backend,
    void (*stray)(void *arg, const struct endpoint *local,
        const struct endpoint *remote, struct view octets),
    void *arg);

/* A process runs: fd is our end of its link and becomes ours. broken is called
 * from the loop when the link has ended; why is NULL when the process simply
 * went. */
enum err userland_serve(struct kserve_backend *backend, int fd,
    void (*broken)(void *arg, const char *why), void *arg);
/* It is no more. What was asked is answered with ERR_CANCELLED. */
void userland_ended(struct kserve_backend *backend);

void userland_level(struct kserve_backend *backend, enum log_level level);

#endif
