/*
 * policy: what the administrator wants, as the engines see it.
 *
 * A loaded configuration is one immutable, reference-counted struct policy of
 * reference-counted connections. A reload builds a whole new one; connections
 * that did not change are the same objects in both. conf/ builds it; engines,
 * kernel/ and daemon/ only read. Lookups are by map, not by walking.
 */
#ifndef COMMON_POLICY_H
#define COMMON_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/err.h"
#include "common/ident.h"
#include "common/proposal.h"
#include "common/ts.h"

enum policy_host {
	HOST_ANY,         /* %any, %any4, %any6 (family in addr) */
	HOST_ADDR,        /* one address */
	HOST_RANGE,       /* first..last: a subnet or range (responder only) */
	HOST_NAME,        /* looked up by dns; addr is the last answer */
	HOST_DEFAULTROUTE /* the address that routes to the peer */
};

enum policy_keyexchange { KEYEX_IKE = 0, KEYEX_IKEV1 = 1, KEYEX_IKEV2 = 2 };
enum policy_auto { AUTO_IGNORE, AUTO_ADD, AUTO_ROUTE, AUTO_START };
enum policy_mode { MODE_TUNNEL, MODE_TRANSPORT };
enum policy_dpd { DPD_NONE, DPD_CLEAR, DPD_HOLD, DPD_RESTART };
enum policy_frag { FRAG_NO, FRAG_YES, FRAG_ACCEPT, FRAG_FORCE };
enum policy_auth { AUTH_PSK = 1 };

#define HOSTS_MAX 8 /* alternatives in left= or right= */

struct conn_host {
	uint8_t kind; /* enum policy_host */
	struct addr addr, last;
	char *name; /* HOST_NAME; owned */
};

struct conn_end {
	uint8_t host_count;
	struct conn_host host[HOSTS_MAX];
	struct ident *id; /* NULL: the end's address (ours), any (theirs when
	                   * its host is not one address) */
	struct ts_list subnets; /* one dynamic selector where nothing is said */
	uint8_t auth;           /* enum policy_auth */
	uint16_t ike_port;      /* 500 */
};

#define LIFETIME_DEFAULT_MS 28800000ull /* RFC 2407 4.5: where none is stated */

struct conn {
	unsigned refs;
	char *name;
	char *source;        /* "ipsec.conf:12", for messages */
	uint8_t keyexchange; /* enum policy_keyexchange */
	uint8_t autostart;   /* enum policy_auto */
	uint8_t mode;        /* enum policy_mode */
	uint8_t dpd_action;  /* enum policy_dpd */
	uint8_t fragmentation;
	bool forceencaps, rekey;
	struct conn_end local, remote;
	struct proposals ike, esp;
	uint64_t ike_lifetime_ms, lifetime_ms, margin_ms;
	uint32_t rekeyfuzz_percent;
	uint32_t keyingtries;                  /* 0: for ever */
	uint64_t dpd_delay_ms, dpd_timeout_ms; /* delay 0: never asks */
	uint32_t replay_window;                /* packets, at most
	                                        * REPLAY_WINDOW_MAX; 0: off */
	uint32_t reqid; /* stable for a name as long as the process lives; 0 in
	                 * a policy that no gateway has taken over yet */
	char weak[128]; /* weak algorithms opted in, "" if none */
	size_t order;   /* position in the file: breaks ties */
};

struct policy {
	unsigned refs;
	size_t count;
	struct conn **conns;        /* in file order */
	struct policy_index *index; /* policy.c's own */
	bool uniqueids;
};

struct conn *conn_new(const char *name); /* with the defaults; refs 1 */
struct conn *conn_ref(const struct conn *conn);
void conn_unref(struct conn *conn);
bool conn_equal(const struct conn *a, const struct conn *b);
/* Same peer, same identities, same IKE parameters: children of one may live
 * below an IKE SA of the other. Under one name IKE parameters may differ: a
 * reload has changed them. */
bool conn_same_peer(const struct conn *a, const struct conn *b);
/* What old has become, for renewals: the connection that is in force under its
 * name, if it is for the same peer and allows version; otherwise old. Borrowed;
 * policy may be NULL. */
struct conn *
conn_now(const struct policy *policy, struct conn *old, unsigned version);
bool conn_allows(const struct conn *conn, unsigned version);

/* Takes the references in conns (count of them; the array itself is copied),
 * whose names differ from each other. Sets their order. NULL when out of
 * memory: the references are then the caller's still. */
struct policy *policy_new(struct conn **conns, size_t count);
struct policy *policy_ref(const struct policy *policy);
void policy_unref(struct policy *policy);
struct conn *policy_conn(const struct policy *policy, const char *name);

/* Connections that fit the addresses and version, the best fit first: exact
 * remote address, then name, range, any; among equals, exact local address,
 * then file order. auto=ignore never fits. Borrowed pointers, at most max;
 * returns their number. */
size_t policy_candidates(const struct policy *policy, const struct addr *local,
    const struct addr *remote, unsigned version, struct conn **found,
    size_t max);

/* policy_candidates() for a peer whose identity is not known yet: of those that
 * are alike in everything that counts until then (ends' addresses, version,
 * authentication, IKE proposals) only the first. Thousands that wait at %any
 * and differ in the peer's identity are looked at as one. */
size_t policy_distinct(const struct policy *policy, const struct addr *local,
    const struct addr *remote, unsigned version, struct conn **found,
    size_t max);

/* Narrows candidates, in place, to those that fit identities (either may be
 * NULL: not known), best first: both exact, remote exact, local exact, any.
 * Returns their number. Address end identities count as IDs of type address.
 * Looks at each of them: for many, policy_by_identity() is the way. */
size_t policy_identify(struct conn **found, size_t count,
    const struct ident *local, const struct addr *local_addr,
    const struct ident *remote, const struct addr *remote_addr);

/* Could addr be this end's? An end whose name has no address yet: no. */
bool conn_end_fits(const struct conn_end *end, const struct addr *addr);
/* Does the end name just this address, by itself or by a host name? */
bool conn_end_names(const struct conn_end *end, const struct addr *addr);

/* policy_candidates() and policy_identify() in one, through the index of
 * remote identities: complete where thousands of connections wait at %any and
 * differ in the peer's identity only. remote is not NULL; local may be. */
size_t
policy_by_identity(const struct policy *policy, const struct addr *local_addr,
    const struct addr *remote_addr, unsigned version, const struct ident *local,
    const struct ident *remote, struct conn **found, size_t max);

#define REPLAY_WINDOW_MAX 4096 /* what every data plane can do */

/* Numbers of kernel state that is ours: the connections' (conn->reqid), which
 * trap policies have, and the child SAs' (kernel/reqid). */
#define REQID_FIRST       0x4f000001u
#define REQID_CONN_LAST   0x4f7fffffu
#define REQID_CHILD_FIRST 0x4f800000u
#define REQID_LAST        0x4fffffffu

/* The connection of this name's difference between two policies. */
enum policy_change { CHANGE_SAME, CHANGE_CHANGED, CHANGE_GONE, CHANGE_NEW };
/* Calls visit (may be NULL) once per name: what is gone first, then next in its
 * order. old or next may be NULL. In next, connections that did not change are
 * replaced by old's objects (so that pointers compare). Gives reqids: a name
 * that lives on keeps its number, a new one gets the next number after the last
 * ever given along this chain of policies, from REQID_FIRST on. The same chain
 * of files gives the same numbers in every process. */
void policy_diff(struct policy *old, struct policy *next,
    void (*visit)(enum policy_change change, struct conn *old_conn,
        struct conn *new_conn, void *arg),
    void *arg);

/* Our identity towards a peer and the peer's as wanted; NULL end ids become
 * address identities. The caller owns the reference; NULL: out of memory. */
struct ident *conn_local_id(const struct conn *conn, const struct addr *addr);
/* NULL when any identity will do. */
struct ident *conn_remote_id(const struct conn *conn, const struct addr *addr);

/* The end's selectors with dynamic ones resolved. */
void conn_ts(
    const struct conn_end *end, const struct addr *addr, struct ts_list *list);

/* A rekey time: lifetime - margin - random(0..margin * fuzz). At least half of
 * lifetime where the margin is larger than that. random is 32 random bits. */
uint64_t
conn_rekey_ms(const struct conn *conn, uint64_t lifetime_ms, uint32_t random);

#endif
