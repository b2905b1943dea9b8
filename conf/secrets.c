/*
 * secrets: see the header. Two indexes by identity: the entries that name it,
 * and those of them that need nobody else's name beside it.
 */
#include "conf/secrets.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/map.h"

#define WEAK_BITS 64

/* Positions, in the file's order. */
struct list {
	uint32_t *at;
	size_t count, room;
};

/* What one identity is named by. */
struct naming {
	struct map_node node;
	struct ident *ident; /* a reference */
	struct list all;
	struct list alone; /* the other end may be anybody */
};

struct secrets {
	unsigned refs;
	uint32_t generation;
	struct secrets_entry *entry;
	size_t count, room;
	struct map by_ident;
	struct list everybody; /* both ends may be anybody */
	struct diags *diags;   /* while it is being read */
};

/* Entries ---------------------------------------------------------------- */

static bool
ident_is_addr(const struct ident *ident, const struct addr *addr)
{
	if (addr == NULL || addr->family == ADDR_NONE)
		return false;
	return (ident->type == ID_IPV4_ADDR || ident->type == ID_IPV6_ADDR) &&
	       view_equal(ident_view(ident), addr_view(addr));
}

static bool
selects(const struct ident *selector, const struct ident *ident,
    const struct addr *addr)
{
	return selector->type == ID_ANY ||
	       (ident != NULL && ident_equal(selector, ident)) ||
	       ident_is_addr(selector, addr);
}

bool
secret_permits(const struct secrets_entry *entry, const struct ident *local,
    const struct ident *remote, const struct addr *local_addr,
    const struct addr *remote_addr)
{
	unsigned ours = 0, theirs = 0, both = 0;

	for (size_t i = 0; i < entry->selector_count; i++) {
		const struct ident *selector = entry->selectors[i];
		bool our = selects(selector, local, local_addr);
		bool their = selects(selector, remote, remote_addr);

		ours += our;
		theirs += their;
		both += our && their;
	}
	if (entry->selector_count < 2)
		return entry->selector_count == 0 || ours + theirs > 0;
	/* One selector for each end, and not the same one for both. */
	return ours > 0 && theirs > 0 &&
	       !(ours == 1 && theirs == 1 && both == 1);
}

/* Letters in a row are likely words, and what repeats or counts is no secret:
 * an attacker's list has them. */
unsigned
secret_entropy(struct view psk)
{
	static const unsigned word_bits = 25, least_bits = 10; /* tenths */
	unsigned pool = 0, bits = 0, run = 0;
	bool lower = false, upper = false, digit = false, other = false;
	bool binary = false;
	unsigned seen[256] = { 0 };

	for (size_t i = 0; i < psk.len; i++) {
		uint8_t octet = psk.at[i];

		lower = lower || islower(octet);
		upper = upper || isupper(octet);
		digit = digit || isdigit(octet);
		other = other || ispunct(octet) || octet == ' ';
		binary = binary || octet < 0x20 || octet > 0x7e;
	}
	/* Tenths of bits: log2 of 26, 10, 33 and what they add up to. */
	pool = binary ? 80 : 0;
	if (!binary) {
		unsigned letters = (lower ? 26u : 0u) + (upper ? 26u : 0u);
		unsigned size =
		    letters + (digit ? 10u : 0u) + (other ? 33u : 0u);

		pool = size > 80   ? 64
		       : size > 60 ? 59
		       : size > 50 ? 57
		       : size > 33 ? 52
		       : size > 20 ? 47
		                   : 33;
	}
	for (size_t i = 0; i < psk.len; i++) {
		uint8_t octet = psk.at[i];
		int step = i == 0 ? 100 : octet - psk.at[i - 1];
		bool same =
		    i > 0 && ((islower(octet) && islower(psk.at[i - 1])) ||
		                 (isupper(octet) && isupper(psk.at[i - 1])));

		run = same ? run + 1 : 0;
		if ((step >= -1 && step <= 1) || ++seen[octet] > 3)
			bits += least_bits;
		else if (!binary && run >= 3)
			bits += word_bits;
		else
			bits += pool;
	}
	return bits / 10;
}

/* The index -------------------------------------------------------------- */

static bool
list_add(struct list *list, size_t at)
{
	if (list->count == list->room) {
		size_t room = list->room == 0 ? 1 : 2 * list->room;
		uint32_t *bigger = realloc(list->at, room * sizeof *bigger);

		if (bigger == NULL)
			return false;
		list->at = bigger;
		list->room = room;
	}
	/* The same identity twice in one entry. */
	if (list->count == 0 || list->at[list->count - 1] != at)
		list->at[list->count++] = (uint32_t)at;
	return true;
}

static struct naming *
naming_find(const struct secrets *secrets, const struct ident *ident)
{
	uint8_t key[IDENT_MAX + 1];
	struct map_node *node;

	if (ident == NULL || ident->type == ID_ANY)
		return NULL;
	node = map_find(&secrets->by_ident,
	    map_hash(&secrets->by_ident, view_of(key, ident_key(ident, key))));
	for (; node != NULL; node = map_next_same(node)) {
		struct naming *naming = map_entry(node, struct naming, node);

		if (ident_equal(naming->ident, ident))
			return naming;
	}
	return NULL;
}

static struct naming *
naming_of_addr(const struct secrets *secrets, const struct addr *addr)
{
	struct naming *naming;
	struct ident *ident;

	if (addr == NULL || addr->family == ADDR_NONE)
		return NULL;
	ident = ident_from_addr(addr);
	naming = naming_find(secrets, ident);
	ident_unref(ident);
	return naming;
}

static struct naming *
naming_get(struct secrets *secrets, struct ident *ident)
{
	struct naming *naming = naming_find(secrets, ident);
	uint8_t key[IDENT_MAX + 1];

	if (naming != NULL)
		return naming;
	naming = calloc(1, sizeof *naming);
	if (naming == NULL)
		return NULL;
	naming->ident = ident_ref(ident);
	map_insert(&secrets->by_ident, &naming->node,
	    map_hash(&secrets->by_ident, view_of(key, ident_key(ident, key))));
	return naming;
}

static bool
index_entry(struct secrets *secrets, size_t at)
{
	const struct secrets_entry *entry = &secrets->entry[at];
	size_t anys = 0;

	for (size_t i = 0; i < entry->selector_count; i++)
		anys += entry->selectors[i]->type == ID_ANY;
	if ((entry->selector_count < 2 && anys == entry->selector_count) ||
	    anys > 1)
		if (!list_add(&secrets->everybody, at))
			return false;
	for (size_t i = 0; i < entry->selector_count; i++) {
		struct naming *naming;

		if (entry->selectors[i]->type == ID_ANY)
			continue;
		naming = naming_get(secrets, entry->selectors[i]);
		if (naming == NULL || !list_add(&naming->all, at))
			return false;
		if ((entry->selector_count == 1 || anys > 0) &&
		    !list_add(&naming->alone, at))
			return false;
	}
	return true;
}

/* Making and ending ------------------------------------------------------ */

static void
entry_fini(struct secrets_entry *entry)
{
	secret_free(&entry->psk);
	for (size_t i = 0; i < entry->selector_count; i++)
		ident_unref(entry->selectors[i]);
	free(entry->selectors);
}

static struct secrets_entry *
entry_new(struct secrets *secrets)
{
	struct secrets_entry *entry;

	if (secrets->count == secrets->room) {
		size_t room = secrets->room == 0 ? 16 : 2 * secrets->room;

		entry = realloc(secrets->entry, room * sizeof *entry);
		if (entry == NULL)
			return NULL;
		secrets->entry = entry;
		secrets->room = room;
	}
	entry = &secrets->entry[secrets->count];
	memset(entry, 0, sizeof *entry);
	return entry;
}

static enum err
take_psk(void *arg, struct place place, struct ident *const *selectors,
    size_t selector_count, struct view psk)
{
	struct secrets *secrets = arg;
	struct secrets_entry *entry;

	if (secrets->count == SECRETS_MAX) {
		diags_add(secrets->diags, DIAG_ERROR, place,
		    "too many secrets: at most %d", SECRETS_MAX);
		return ERR_LIMIT;
	}
	entry = entry_new(secrets);
	if (entry == NULL)
		return ERR_NOMEM;
	entry->selectors = calloc(selector_count + 1, sizeof(struct ident *));
	if (entry->selectors == NULL || secret_set(&entry->psk, psk) != OK) {
		entry_fini(entry);
		return ERR_NOMEM;
	}
	for (size_t i = 0; i < selector_count; i++) {
		entry->selectors[i] = ident_ref(selectors[i]);
		entry->any = entry->any || selectors[i]->type == ID_ANY;
	}
	entry->selector_count = (uint8_t)selector_count;
	entry->line = place.line;
	entry->number = (uint64_t)secrets->generation << 32 |
	                (uint64_t)(secrets->count + 1);
	secrets->count++;
	if (secret_entropy(psk) < WEAK_BITS)
		diags_add(secrets->diags, DIAG_WARNING, place,
		    "this PSK can be guessed by whoever records a handshake: "
		    "use at least 64 random bits, for example the output of "
		    "openssl rand -base64 24");
	return index_entry(secrets, secrets->count - 1) ? OK : ERR_NOMEM;
}

static void
naming_free(struct map_node *node, void *arg)
{
	struct naming *naming = map_entry(node, struct naming, node);

	(void)arg;
	ident_unref(naming->ident);
	free(naming->all.at);
	free(naming->alone.at);
	free(naming);
}

struct secrets *
secrets_ref(struct secrets *secrets)
{
	if (secrets != NULL)
		secrets->refs++;
	return secrets;
}

void
secrets_unref(struct secrets *secrets)
{
	if (secrets == NULL || --secrets->refs > 0)
		return;
	for (size_t i = 0; i < secrets->count; i++)
		entry_fini(&secrets->entry[i]);
	free(secrets->entry);
	free(secrets->everybody.at);
	map_each(&secrets->by_ident, naming_free, NULL);
	map_fini(&secrets->by_ident);
	free(secrets);
}

struct secrets *
secrets_load(struct bundle *bundle, const char *path, uint32_t generation,
    struct diags *diags)
{
	/* The keys are the administrator's: no secret seed is needed. */
	static const uint64_t seed[2] = { 3, 4 };
	struct secrets *secrets = calloc(1, sizeof *secrets);
	enum err err;

	if (secrets == NULL)
		return NULL;
	secrets->refs = 1;
	secrets->generation = generation;
	secrets->diags = diags;
	map_init(&secrets->by_ident, seed);
	err = secretfile_read(bundle, path, diags, take_psk, secrets);
	secrets->diags = NULL;
	if (err == OK || err == ERR_LIMIT) {
		diags_sort(diags);
		return secrets;
	}
	secrets_unref(secrets);
	return NULL;
}

size_t
secrets_count(const struct secrets *secrets)
{
	return secrets == NULL ? 0 : secrets->count;
}

/* Looking up ------------------------------------------------------------- */

struct search {
	const struct secrets *secrets;
	const struct ident *local, *remote;
	const struct addr *local_addr, *remote_addr;
	const struct secrets_entry **found;
	size_t count, max;
};

static void
search_add(struct search *search, size_t at)
{
	const struct secrets_entry *entry = &search->secrets->entry[at];

	for (size_t i = 0; i < search->count; i++)
		if (search->found[i] == entry)
			return;
	if (search->count < search->max)
		search->found[search->count++] = entry;
}

/* Those of the list that fit. */
static void
search_list(struct search *search, const struct list *list)
{
	for (size_t i = 0; i < list->count && search->count < search->max; i++)
		if (secret_permits(&search->secrets->entry[list->at[i]],
		        search->local, search->remote, search->local_addr,
		        search->remote_addr))
			search_add(search, list->at[i]);
}

static bool
entry_names(const struct secrets_entry *entry, const struct ident *ident)
{
	for (size_t i = 0; i < entry->selector_count; i++)
		if (ident_equal(entry->selectors[i], ident))
			return true;
	return false;
}

/* Those that name both: of the two lists, the shorter one is walked. */
static void
search_pair(struct search *search, const struct naming *remote,
    const struct naming *local)
{
	const struct naming *few = remote, *many = local;

	if (remote == NULL || local == NULL)
		return;
	if (local->all.count < remote->all.count) {
		few = local;
		many = remote;
	}
	for (size_t i = 0; i < few->all.count && search->count < search->max;
	     i++) {
		const struct secrets_entry *entry =
		    &search->secrets->entry[few->all.at[i]];

		if (entry_names(entry, many->ident) &&
		    secret_permits(entry, search->local, search->remote,
		        search->local_addr, search->remote_addr))
			search_add(search, few->all.at[i]);
	}
}

static void
search_fitting(struct search *search)
{
	const struct naming *remote[2], *local[2];

	remote[0] = naming_find(search->secrets, search->remote);
	remote[1] = naming_of_addr(search->secrets, search->remote_addr);
	local[0] = naming_find(search->secrets, search->local);
	local[1] = naming_of_addr(search->secrets, search->local_addr);
	/* The identity is what the PSK is to prove: who has one for an address
	 * must not pass for somebody who has one for a name. */
	for (size_t i = 0; i < 2; i++) {
		for (size_t j = 0; j < 2; j++)
			search_pair(search, remote[i], local[j]);
		if (remote[i] != NULL)
			search_list(search, &remote[i]->alone);
	}
	for (size_t i = 0; i < 2; i++)
		if (local[i] != NULL)
			search_list(search, &local[i]->alone);
	search_list(search, &search->secrets->everybody);
}

/* Would some identity in place of those not known make it fit? */
static bool
may_fit(const struct search *search, const struct secrets_entry *entry)
{
	unsigned ours = 0, theirs = 0;

	if (entry->selector_count < 2)
		return true;
	for (size_t i = 0; i < entry->selector_count; i++) {
		ours += selects(
		    entry->selectors[i], search->local, search->local_addr);
		theirs += selects(
		    entry->selectors[i], search->remote, search->remote_addr);
	}
	return (search->local == NULL || ours > 0) &&
	       (search->remote == NULL || theirs > 0);
}

/* Entries for identities yet to come: first those that name one of the
 * addresses beside them. */
static void
search_possible(struct search *search)
{
	const struct secrets *secrets = search->secrets;
	const struct naming *half[2];

	half[0] = naming_of_addr(secrets, search->remote_addr);
	half[1] = naming_of_addr(secrets, search->local_addr);
	for (size_t j = 0; j < 2; j++)
		for (size_t i = 0; half[j] != NULL && i < half[j]->all.count &&
		                   search->count < search->max;
		     i++)
			if (may_fit(
			        search, &secrets->entry[half[j]->all.at[i]]))
				search_add(search, half[j]->all.at[i]);
	for (size_t i = 0; i < secrets->count && search->count < search->max;
	     i++)
		if (may_fit(search, &secrets->entry[i]))
			search_add(search, i);
}

const struct secrets_entry *
secrets_find_best(const struct secrets *secrets, const struct ident *local,
    const struct ident *remote, const struct addr *local_addr,
    const struct addr *remote_addr)
{
	const struct secrets_entry *found;
	struct search search = { secrets, local, remote, local_addr,
		remote_addr, &found, 0, 1 };

	if (secrets == NULL)
		return NULL;
	search_fitting(&search);
	return search.count == 0 ? NULL : found;
}

size_t
secrets_candidates(const struct secrets *secrets, const struct ident *local,
    const struct ident *remote, const struct addr *local_addr,
    const struct addr *remote_addr, const struct secrets_entry **found,
    size_t max)
{
	struct search search = { secrets, local, remote, local_addr,
		remote_addr, found, 0, max };

	if (secrets == NULL)
		return 0;
	search_fitting(&search);
	if (local == NULL || remote == NULL)
		search_possible(&search);
	return search.count;
}

const struct secrets_entry *
secrets_by_number(const struct secrets *secrets, uint64_t number)
{
	uint64_t position = number & UINT32_MAX;

	if (secrets == NULL || number >> 32 != secrets->generation ||
	    position == 0 || position > secrets->count)
		return NULL;
	return &secrets->entry[position - 1];
}
