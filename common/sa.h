/*
 * sa: the database of IKE SAs and child SAs, and what both engines do with
 * them. RFC 7296 2.6, 2.8, 2.9; RFC 2408 2.
 *
 * An IKE SA of either engine begins with a struct ike_sa, embedded first in
 * the engine's own struct. States are assigned here and nowhere else, and only
 * sa_establish() makes one ESTABLISHED, given a proof that authentication
 * made. An SA that is killed leaves the maps at once and is freed when the last
 * hold on it is released: handlers run under a hold (fsm takes it), so that an
 * SA never vanishes below them.
 */
#ifndef COMMON_SA_H
#define COMMON_SA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/env.h"
#include "common/err.h"
#include "common/event.h"
#include "common/ident.h"
#include "common/limit.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/policy.h"
#include "common/proposal.h"
#include "common/ticket.h"
#include "common/timer.h"
#include "common/ts.h"

struct engine;
struct exchange;

enum ike_state {
	IKE_NEW,         /* made, nothing agreed */
	IKE_HALF_OPEN,   /* keys are being or have been agreed, no identity */
	IKE_ESTABLISHED, /* authenticated */
	IKE_REKEYED,     /* replaced: its children have moved, it waits for its
	                  * Delete */
	IKE_CLOSING,     /* our Delete is out */
	IKE_DEAD         /* out of the maps, waits for the last hold to go */
};
#define IKE_STATE_BIT(state) (1u << (state))
const char *ike_state_text(enum ike_state state);

struct ike_sa {
	struct env *env;
	const struct engine *engine;
	uint64_t serial;
	uint64_t spi_i, spi_r; /* big-endian numbers; spi_r 0 until known */
	bool initiator; /* we began this IKE SA (also after a rekey of ours) */
	uint8_t state;  /* enum ike_state; assigned by sa.c only */
	unsigned holds;

	struct endpoint local, remote;
	bool natt;       /* messages go with the marker, on the NAT-T ports */
	bool nat_local;  /* we are behind NAT: keepalives */
	bool nat_remote; /* the peer is */
	bool encap;      /* ESP in UDP: either of both, or forceencaps */
	struct limit_entry half_open; /* a responder's place in the budget */

	struct conn *conn; /* owned reference; NULL until chosen */
	struct ident *id_local,
	    *id_remote; /* owned; remote NULL until proven */
	struct suite suite;
	bool weak;  /* a suite row above the modern tier */
	bool stale; /* it is not renewed: EVENT_STALE */

	struct child_sa *children; /* list by next */
	size_t child_count;
	struct exchange *exchanges; /* list by next */
	size_t exchange_count;

	uint64_t created_ms, established_ms, last_in_ms, last_out_ms;
	uint64_t rekey_at_ms, expire_at_ms; /* 0: never */
	struct timer rekey_timer, expire_timer, dpd_timer, keepalive_timer;

	struct map_node by_spi;  /* by our own SPI */
	struct map_node by_peer; /* half-open responder: peer and its SPI */
	struct map_node by_serial;
	struct map_node by_remote;  /* established: remote identity */
	struct ike_sa *next, *prev; /* all, oldest first */
};

enum child_state {
	CHILD_NEW,     /* being negotiated */
	CHILD_INBOUND, /* inbound installed, outbound not yet (responder) */
	CHILD_UP,      /* carries traffic both ways */
	CHILD_REKEYED, /* replaced, its Delete is expected */
	CHILD_CLOSING, /* our Delete is out, or the inbound half lingers */
	CHILD_DEAD
};
const char *child_state_text(enum child_state state);

struct child_sa {
	struct ike_sa *sa; /* changes when an IKE rekey moves the child */
	struct child_sa *next;
	uint64_t serial;
	struct conn *conn; /* owned reference */
	uint8_t state;     /* enum child_state */
	bool initiator;    /* we began the exchange that made it */
	uint8_t mode;      /* enum policy_mode */
	bool encap;
	bool stale;               /* it is not renewed: EVENT_STALE */
	uint32_t spi_in, spi_out; /* host order; 0 until known */
	uint32_t reqid; /* install's: in the data plane; 0 while not there */
	uint32_t replay_window;
	struct suite suite;              /* encr, integ, esn (kex: PFS used) */
	struct secret keys_in, keys_out; /* encr key + salt, then integ key;
	                                  * wiped once installed */
	struct ts_list ts_local, ts_remote;
	struct endpoint local, remote;             /* outer, as installed */
	struct endpoint natoa_local, natoa_remote; /* transport mode behind NAT:
	                                  * original addresses; family 0: none */
	uint64_t created_ms, rekey_at_ms, expire_at_ms;
	uint64_t lifetime_ms; /* as agreed (v1) or configured */
	struct timer rekey_timer, expire_timer;
	uint8_t installed; /* kernel/install.c's bits: what was asked for */
	struct addr policy_local, policy_remote; /* install's: between which
	                                  * outer addresses policies were made */
	uint64_t rekeyed_by; /* serial of the child that replaces it, or 0 */
	struct map_node by_serial, by_spi_in;
};

struct sadb {
	struct env *env;
	struct map by_spi, by_peer, by_serial, by_remote;
	struct map child_by_serial, child_by_spi;
	struct ike_sa *first, *last;
	size_t count, half_open, child_count;
};

enum err sadb_new(struct env *env); /* sets env->sadb */
/* Kills all SAs without a word to anybody. */
void sadb_free(struct sadb *sadb);

/* Sets the common fields of a zeroed SA, draws our SPI (unique here) and
 * enters the maps. The engine allocated sa and frees it in engine->free.
 * as_responder: spi_i is the peer's and enters by_peer. */
enum err sa_init(struct env *env, struct ike_sa *sa,
    const struct engine *engine, bool initiator, uint64_t peer_spi,
    const struct endpoint *local, const struct endpoint *remote, bool natt);

/* Enters a responder's half-open SA into limit's budget, until it is
 * established or ends. ERR_LIMIT: kill it. */
enum err sa_count_half_open(struct ike_sa *sa, enum limit_class class);
/* The SA that an entry of limit belongs to. */
struct ike_sa *sa_of_half_open(struct limit_entry *entry);

/* sa_init took our SPI for a rekey: set the peer's SPI (initiator: on the
 * answer). */
void sa_set_peer_spi(struct ike_sa *sa, uint64_t spi);
uint64_t sa_own_spi(const struct ike_sa *sa);
uint64_t sa_peer_spi(const struct ike_sa *sa);
/* IKEv2's IKE_SA_INIT retries keep SPIi; nothing is needed for them. */

struct ike_sa *sa_by_spi(struct sadb *sadb, uint64_t own_spi);
struct ike_sa *sa_by_peer(struct sadb *sadb, const struct endpoint *remote,
    uint64_t peer_spi, unsigned version);
/* By serial number: for answers that come late. sadb may be NULL, when it has
 * gone already: nothing is found. */
struct ike_sa *sa_by_serial(struct sadb *sadb, uint64_t serial);
/* Established SAs with this remote identity, one after the other: pass the
 * previous one, or NULL to begin. */
struct ike_sa *sa_by_remote(
    struct sadb *sadb, const struct ident *remote, struct ike_sa *previous);
/* The same with a choice of states, IKE_STATE_BIT()s; only SAs that were
 * established once have a remote identity. */
struct ike_sa *sa_by_remote_in(struct sadb *sadb, const struct ident *remote,
    uint32_t states, struct ike_sa *previous);
/* An established SA below which a child of conn may live (conn_same_peer), and
 * that is not stale. */
struct ike_sa *sa_for_conn(struct sadb *sadb, const struct conn *conn);

void sa_hold(struct ike_sa *sa);
void sa_release(struct ike_sa *sa); /* may free */

/* Assigns conn and takes a reference. */
void sa_set_conn(struct ike_sa *sa, struct conn *conn);
void sa_set_state(struct ike_sa *sa, enum ike_state state); /* not to
                                      * ESTABLISHED: that is a bug */

/* Proof of authentication. Made only by the functions that compare. */
struct auth_proof {
	uint64_t serial; /* of the SA it was made for */
	uint32_t magic;
};
/* Compares MACs in constant time; true, and a proof, if they are equal and at
 * least 16 octets long. */
bool proof_by_mac(struct auth_proof *proof, const struct ike_sa *sa,
    struct view expected, struct view received);
/* A rekeyed IKE SA inherits from the established SA that protected the
 * exchange (RFC 7296 2.18). False unless old is established, or was until it
 * was replaced. */
bool proof_by_rekey(struct auth_proof *proof, const struct ike_sa *sa,
    const struct ike_sa *old);

/* Makes sa ESTABLISHED: sets times, counts weak algorithms, leaves the half-
 * open budget, enters by_remote. ERR_BUG for a proof of another SA. Emits no
 * event: the engine does when its last message is out. */
enum err sa_establish(struct ike_sa *sa, const struct auth_proof *proof);

/* Arms rekey_timer and expire_timer from a lifetime: rekey at conn's margin
 * (not when conn says rekey=no), expiry at the lifetime. The engine set the
 * timers' fire functions. */
void sa_set_lifetime(struct ike_sa *sa, uint64_t lifetime_ms, bool rekey);

/* Takes the SA out of everything: children removed from the kernel and freed,
 * exchanges freed (engine->exchange_free), timers stopped, the event told
 * (IKE_FAILED or IKE_DOWN, according to whether it was established). */
void sa_kill(struct ike_sa *sa, enum err why, bool by_peer, const char *text);

/* Writes "office[7] 203.0.113.9: " and the line. */
void sa_log(const struct ike_sa *sa, enum log_level level, const char *format,
    ...) __attribute__((format(printf, 3, 4)));
void sa_event(struct ike_sa *sa, struct child_sa *child, enum event_kind kind,
    enum err err, bool by_peer, const char *text);

/* Children. child_new enters the map by serial and sa's list; conn is
 * referenced; endpoints, encap and mode come from sa and conn. */
struct child_sa *
child_new(struct ike_sa *sa, struct conn *conn, bool initiator);
/* Enters the map by inbound SPI. */
void child_set_spi_in(struct child_sa *child, uint32_t spi);
/* As sa_by_serial(). */
struct child_sa *child_by_serial(struct sadb *sadb, uint64_t serial);
struct child_sa *child_by_spi_in(struct sadb *sadb, uint32_t spi);
/* Among sa's children, by the SPI that the peer receives on (spi_out). */
struct child_sa *child_by_spi_out(struct ike_sa *sa, uint32_t spi);
void
child_set_lifetime(struct child_sa *child, uint64_t lifetime_ms, bool rekey);
/* Marks it up, counts, tells CHILD_UP or (rekeyed_from != NULL)
 * CHILD_REKEYED. */
void child_up(struct child_sa *child, const struct child_sa *rekeyed_from);
/* To another IKE SA (RFC 7296 2.8: children move on an IKE rekey). */
void child_move(struct child_sa *child, struct ike_sa *to);
/* Removes it from kernel, list and maps and frees it. event: CHILD_FAILED if it
 * was never up, CHILD_DOWN if it was, none for one that was rekeyed. */
void child_kill(
    struct child_sa *child, enum err why, bool by_peer, const char *text);
/* As child_kill, but the inbound half lives on for linger_ms. */
void child_linger(struct child_sa *child, uint64_t linger_ms);

struct ticket sa_ticket(const struct ike_sa *sa, const struct exchange *x,
    const struct child_sa *child);

#endif
