/*
 * secrets: ipsec.secrets, for the vault process alone.
 *
 * An immutable, reference-counted snapshot of pre-shared keys with the
 * identities that they are for. An entry without selectors is for everybody;
 * with one, for connections where either end is it; with more, for pairs of
 * them. %any and %any6 select every identity.
 *
 * Which one is best (common/vault.h): the remote identity named together with
 * the local end, or alone; then the remote address, likewise; then the local
 * end, then neither. Of the local end, too, the identity comes before the
 * address, and the file's order decides among equals. All lookups go through
 * an index: their cost does not depend on the number of entries.
 */
#ifndef CONF_SECRETS_H
#define CONF_SECRETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/ident.h"
#include "common/mem.h"
#include "conf/diag.h"
#include "conf/load.h"
#include "conf/secretfile.h"

#define SECRETS_MAX 200000

struct secrets;

/* One PSK; lives as long as its snapshot. */
struct secrets_entry {
	struct secret psk;
	uint64_t number; /* generation << 32 | position, never 0 */
	unsigned line;   /* in its file, for messages */
	uint8_t selector_count;
	bool any; /* one selector is %any */
	struct ident **selectors;
};

/* Parses path and what it includes. Bad lines are reported (never with a word
 * of what they contain beyond the kind) and the lines after them are read; the
 * result has one reference and what could be read. generation tells this
 * snapshot's numbers from another's. NULL only when memory is short, or when
 * bundle->missing names a text still to be fetched. The caller finishes the
 * bundle, which wipes its texts. */
struct secrets *secrets_load(struct bundle *bundle, const char *path,
    uint32_t generation, struct diags *diags);
struct secrets *secrets_ref(struct secrets *secrets);
void secrets_unref(struct secrets *secrets); /* wipes with the last one */
size_t secrets_count(const struct secrets *secrets);

/* Identities may be NULL where they are not known, addresses of family 0. */
const struct secrets_entry *secrets_find_best(const struct secrets *secrets,
    const struct ident *local, const struct ident *remote,
    const struct addr *local_addr, const struct addr *remote_addr);

/* All that may turn out right, best first, at most max; returns their number.
 * Where an identity is not known, entries that wait for some other identity
 * come after those that fit already. */
size_t secrets_candidates(const struct secrets *secrets,
    const struct ident *local, const struct ident *remote,
    const struct addr *local_addr, const struct addr *remote_addr,
    const struct secrets_entry **found, size_t max);

/* NULL when the number is another snapshot's. */
const struct secrets_entry *
secrets_by_number(const struct secrets *secrets, uint64_t number);

/* Do the entry's own selectors allow these ends? */
bool secret_permits(const struct secrets_entry *entry,
    const struct ident *local, const struct ident *remote,
    const struct addr *local_addr, const struct addr *remote_addr);

/* A cautious guess at how many bits an attacker must try: letters in words
 * count little, repetitions and sequences next to nothing. */
unsigned secret_entropy(struct view psk);

#endif
