/*
 * kserve: the privileged end of the data plane's requests.
 *
 * Whoever asks (gate) may have fallen to an attacker. So every request is held
 * against the loaded policy: an SA or policy must belong to a connection, lie
 * between addresses that the connection allows, protect nothing outside its
 * subnets and use algorithms that it permits; and only what was made through
 * here can be removed, moved or asked about. What passes goes to a back end,
 * in order. What is owned is remembered, about 250 octets for each SA pair
 * with its policies, so that all of it can be taken back when the asker dies.
 *
 * Two connections, or children of one, may claim the same selectors: the newest
 * claim is in force, and when it goes the one before is put back; a trap is in
 * force where no child is. A child's reqid belongs to one connection at a time.
 *
 * Owns its back end. One asker at a time. RFC 4301 4.4.
 */
#ifndef KERNEL_KSERVE_H
#define KERNEL_KSERVE_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/log.h"
#include "common/policy.h"
#include "common/timer.h"
#include "kernel/kmsg.h"

struct ipc;
struct kserve;
struct kserve_backend;
struct loop;

#define KSERVE_PAIRS_MAX    (1u << 18) /* SA pairs, at most */
#define KSERVE_POLICIES_MAX (1u << 20)

/* What executes. */
struct kserve_backend_ops {
	/* Executes a request that has been checked; the octets are the
	 * caller's. Requests take effect in the order in which they come.
	 * Each is answered by one call of answer with its sequence, in this
	 * order, also from inside execute. addresses of the SA are filled in
	 * for every op; for KMSG_SA_MOVE old_src and old_dst too. An answer's
	 * text says what was refused in words. KMSG_SPI: draw one at random,
	 * at least 256, that no SA to dst has. KMSG_SPI_DROP and removals of
	 * what is not there (any more) are successes. */
	void (*execute)(struct kserve_backend *, const struct kmsg *request);
	void (*free)(struct kserve_backend *);
	/* Answers what it can answer at once; NULL where nothing but ours can
	 * be in the data plane. */
	void (*settle)(struct kserve_backend *);
};

struct kserve_backend {
	const struct kserve_backend_ops *ops;
	const char *name; /* "xfrm" */
	/* Set by kserve_new(). */
	void (*answer)(void *arg, const struct kmsg_answer *answer);
	/* KEVENT_LOST: everything that was installed is gone. */
	void (*event)(void *arg, const struct kmsg_event *event);
	void *arg;
};

/* Who asks. Answers may come from inside kserve_request(). */
struct kserve_client {
	void (*answer)(void *arg, const struct kmsg_answer *answer);
	void (*event)(void *arg, const struct kmsg_event *event);
	void *arg;
};

/* Takes the back end over, also on failure. NULL: out of memory. */
struct kserve *kserve_new(
    struct timers *timers, struct log *log, struct kserve_backend *backend);
/* Takes back what is owned, then frees. Accepts NULL. */
void kserve_free(struct kserve *kserve);

/* Requests are checked against policy from now on (and for PERMIT_GRACE_MS
 * against the one before, too). What then is still there of connections that
 * have gone is taken back, at the latest after twice that time. Its connections
 * must have reqids. ERR_NOMEM leaves the old one in force. */
enum err kserve_policy(struct kserve *kserve, const struct policy *policy);

/* NULL: nobody; answers and events are dropped. */
void kserve_client(struct kserve *kserve, const struct kserve_client *client);

/* Uses request as working memory and wipes its keys. */
void kserve_request(struct kserve *kserve, struct kmsg *request);

/* The asker is gone: takes back everything, in order, without answers. */
void kserve_clear(struct kserve *kserve);

/* Serves remote.h's asker on a link of its own: fd is our end and becomes
 * kserve's. When the link closes, everything is taken back. A second call
 * replaces the first (and takes back too). ERR_NOMEM. */
enum err kserve_serve(struct kserve *kserve, struct loop *loop, int fd);

struct kserve_stats {
	size_t pairs, policies;     /* owned now; SPIs count as pairs */
	uint64_t executed, refused; /* requests: by the back end; by us */
};
struct kserve_stats kserve_stats(const struct kserve *kserve);

#endif
