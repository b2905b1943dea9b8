/*
 * ledger: what of the data plane's tables is ours.
 *
 * Three kinds of entries. A pair: an inbound SA, or only its SPI, and the
 * outbound SA that belongs to it. A claim: one connection wants one pair of
 * selectors protected, in one direction or more; of several claims to the same
 * selectors the newest is in force, that is, stands in the data plane; a trap
 * only where no child claims them. A bond: which connection a child's reqid
 * belongs to, for as long as anything has that reqid. Some 110 octets for a
 * pair, 80 (IPv4) or 160 for a claim and 40 for a bond: as small as will do,
 * since there are as many as there are child SAs.
 */
#ifndef KERNEL_LEDGER_H
#define KERNEL_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/buf.h"
#include "common/map.h"
#include "kernel/kmsg.h"

/* Claims on one pair of selectors, at most: each request looks at them all, and
 * no more than one of them can be in force. */
#define CLAIMS_EACH 128

#define DIR_BIT(direction) ((uint8_t)(1u << (direction)))

/* An SA pair of ours, from the moment when its inbound SPI is allocated. */
struct owned {
	struct map_node by_in;  /* by spi_in */
	struct map_node by_out; /* by spi_out and remote, if has_out */
	uint32_t spi_in, spi_out;
	uint32_t conn, reqid; /* reqid: 0 until an SA of the pair is added */
	uint32_t id;          /* tells it from a later one with the same SPI */
	uint8_t mode;
	bool has_in, has_out;
	bool sure_out;      /* the back end said that it is there */
	struct addr local;  /* the inbound SA's destination */
	struct addr remote; /* the outbound SA's destination */
};

/* A claim of one reqid on one pair of selectors. */
struct claim {
	struct map_node node; /* by the pair */
	uint64_t order;       /* the highest is in force */
	uint32_t reqid, id;
	uint8_t dirs; /* DIR_BIT of each direction that is claimed */
	uint8_t sure; /* ... of each that the back end said is there */
	uint8_t mode;
	bool trap;
	uint8_t pair_len, len;
	uint8_t octets[]; /* the pair, local and remote tunnel address */
};

/* A child's reqid in use. */
struct bond {
	struct map_node node;
	uint32_t reqid, conn;
	uint32_t users; /* pairs and claims */
};

struct ledger {
	struct map by_in, by_out, claims, bonds;
	size_t pair_count, claim_count;
	uint32_t id;    /* the last given out */
	uint64_t order; /* of the newest claim */
};

void ledger_init(struct ledger *ledger, const uint64_t seed[static 2]);
void ledger_fini(struct ledger *ledger); /* forgets everything */
void ledger_forget(struct ledger *ledger);

/* A new pair, of which only the inbound SPI is there. NULL: no memory, or the
 * SPI is in use. */
struct owned *owned_new(struct ledger *ledger, uint32_t spi_in);
void owned_free(struct ledger *ledger, struct owned *owned);
struct owned *owned_find(const struct ledger *ledger, uint32_t spi_in);
/* By the outbound SA, which is there. */
struct owned *owned_find_out(
    const struct ledger *ledger, uint32_t spi, const struct addr *remote);
/* The outbound SA comes (spi_out and remote are set), or goes. */
void owned_insert_out(struct ledger *ledger, struct owned *owned);
void owned_remove_out(struct ledger *ledger, struct owned *owned);
/* The pair gets its reqid, which no other connection has. ERR_NOMEM. */
enum err
owned_set_reqid(struct ledger *ledger, struct owned *owned, uint32_t reqid);
/* The connection that has reqid, or 0. */
uint32_t bond_conn(const struct ledger *ledger, uint32_t reqid);
/* What the SA of sa->direction is called, into sa. */
void owned_name(const struct owned *owned, struct kmsg_sa *sa);

/* The key of a policy, its pair of selectors, ours first, written to buf
 * (KMSG_PAIR_OCTETS); and its hash. */
struct view pair_key(const struct kmsg_policy *policy, struct buf *buf);
uint64_t pair_hash(const struct ledger *ledger, struct view key);

struct claim *claim_find(const struct ledger *ledger, struct view key,
    uint64_t hash, uint32_t reqid, bool trap);
/* Is there room for another claim on this pair? CLAIMS_EACH can be. */
bool claim_fits(const struct ledger *ledger, struct view key, uint64_t hash);
struct claim *
claim_find_id(const struct ledger *ledger, uint64_t hash, uint32_t id);
/* The claim that is in force for this pair and direction, or NULL. */
struct claim *claim_in_force(const struct ledger *ledger, struct view key,
    uint64_t hash, uint8_t direction);
/* Makes old the newest claim, or puts one in its place where the mode or the
 * tunnel's addresses differ; makes one where old is NULL. NULL: no memory, and
 * old stays as it was. */
struct claim *claim_make(struct ledger *ledger, struct claim *old,
    struct view key, uint64_t hash, const struct kmsg_policy *policy);
/* Gives up one direction; frees a claim that has none left. */
void claim_drop(struct ledger *ledger, struct claim *claim, uint8_t direction);
/* The policy that a claim stands for. */
void claim_policy(
    const struct claim *claim, uint8_t direction, struct kmsg_policy *policy);

#endif
