#include "conf/setter.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD 256 /* octets of one item of a list, with NUL */

/* What went wrong -------------------------------------------------------- */

static enum err wrong(struct option_use *use, size_t at, size_t len,
    const char *format, ...) __attribute__((format(printf, 4, 5)));

static enum err
wrong(struct option_use *use, size_t at, size_t len, const char *format, ...)
{
	va_list args;

	use->at = at;
	use->len = len;
	va_start(args, format);
	vsnprintf(use->expected, sizeof use->expected, format, args);
	va_end(args);
	return ERR_SYNTAX;
}

/* Words ------------------------------------------------------------------ */

/* The next word of a list separated by single blanks; false at its end. */
static bool
word_next(const char **list, const char **word, size_t *len)
{
	*word = *list;
	*len = strcspn(*list, " ");
	*list += *len + ((*list)[*len] == ' ');
	return *len > 0;
}

int
setter_find_word(const char *list, const char *value)
{
	const char *word;
	size_t len;

	for (int i = 0; word_next(&list, &word, &len); i++)
		if (strlen(value) == len && strncmp(word, value, len) == 0)
			return i;
	return -1;
}

/* "ignore, add, route or start". */
static void
words_text(const char *list, char *text, size_t size)
{
	const char *word;
	size_t len, used = 0;

	text[0] = '\0';
	for (bool first = true; word_next(&list, &word, &len); first = false) {
		const char *between = first ? "" : *list ? ", " : " or ";

		used += (size_t)snprintf(text + used, size - used, "%s%.*s",
		    between, (int)len, word);
		if (used >= size)
			return;
	}
}

static void *
target(const struct option_use *use)
{
	return (char *)use->conn + use->option->offset;
}

enum err
setter_word(struct option_use *use)
{
	int number = setter_find_word(use->option->values, use->value);
	char words[200];

	if (number < 0) {
		words_text(use->option->values, words, sizeof words);
		return wrong(use, 0, 0, "%s", words);
	}
	*(uint8_t *)target(use) = (uint8_t)number;
	return OK;
}

static int
bool_parse(const char *value)
{
	if (setter_find_word("yes true 1", value) >= 0)
		return 1;
	return setter_find_word("no false 0", value) >= 0 ? 0 : -1;
}

enum err
setter_bool(struct option_use *use)
{
	int flag = bool_parse(use->value);

	if (flag < 0)
		return wrong(use, 0, 0, "yes or no");
	*(bool *)target(use) = flag > 0;
	return OK;
}

enum err
setter_uniqueids(struct option_use *use)
{
	char words[200];

	switch (setter_find_word(use->option->values, use->value)) {
	case 0:
	case 3:
		*use->uniqueids = true;
		return OK;
	case 4:
		*use->uniqueids = true;
		snprintf(use->note, sizeof use->note,
		    "uniqueids=keep is taken as yes: the newer SA stays");
		return OK;
	case 1:
	case 2:
		*use->uniqueids = false;
		return OK;
	default:
		words_text(use->option->values, words, sizeof words);
		return wrong(use, 0, 0, "%s", words);
	}
}

/* Numbers ---------------------------------------------------------------- */

/* Decimal digits, at most ten of them. Returns how many; 0: no number. */
static size_t
digits(const char *text, uint64_t *number)
{
	size_t len = 0;

	*number = 0;
	for (; isdigit((unsigned char)text[len]); len++) {
		if (len == 10)
			return 0;
		*number = *number * 10 + (uint64_t)(text[len] - '0');
	}
	return len;
}

static enum err
wrong_number(struct option_use *use, const char *also)
{
	return wrong(use, 0, 0, "%sa number from %llu to %llu%s", also,
	    (unsigned long long)use->option->min,
	    (unsigned long long)use->option->max,
	    use->option->type == TYPE_PERCENT ? " and %" : "");
}

static bool
number_parse(const struct option_use *use, uint64_t *number)
{
	size_t len = digits(use->value, number);

	if (len > 0 && use->option->type == TYPE_PERCENT &&
	    use->value[len] == '%')
		len++;
	return len > 0 && use->value[len] == '\0' &&
	       *number >= use->option->min && *number <= use->option->max;
}

enum err
setter_number(struct option_use *use)
{
	uint64_t number;

	if (!number_parse(use, &number))
		return wrong_number(use, "");
	*(uint32_t *)target(use) = (uint32_t)number;
	return OK;
}

enum err
setter_tries(struct option_use *use)
{
	uint64_t number = 0;

	if (strcmp(use->value, "%forever") != 0 && !number_parse(use, &number))
		return wrong_number(use, "%forever or ");
	use->conn->keyingtries = (uint32_t)number;
	return OK;
}

enum err
setter_replay(struct option_use *use)
{
	uint64_t number = 32;

	if (strcmp(use->value, "-1") != 0 && !number_parse(use, &number))
		return wrong_number(use, "-1 (the default) or ");
	if (number == 0)
		snprintf(use->note, sizeof use->note,
		    "replay_window=0: packets that somebody sends again are "
		    "taken again");
	use->conn->replay_window = (uint32_t)number;
	return OK;
}

enum err
setter_port(struct option_use *use)
{
	uint64_t number;

	if (!number_parse(use, &number))
		return wrong_number(use, "");
	use->end->ike_port = (uint16_t)number;
	return OK;
}

static void
time_text(uint64_t seconds, char *text, size_t size)
{
	static const struct {
		unsigned seconds;
		char letter;
	} unit[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };
	size_t i = 0;

	while (seconds % unit[i].seconds != 0)
		i++;
	if (seconds == 0)
		i = 3;
	snprintf(text, size, "%llu%c",
	    (unsigned long long)(seconds / unit[i].seconds), unit[i].letter);
}

enum err
setter_time(struct option_use *use)
{
	static const char units[] = "smhd";
	static const uint64_t factor[] = { 1, 60, 3600, 86400 };
	uint64_t seconds;
	size_t len = digits(use->value, &seconds);
	const char *unit = NULL;
	char least[24], most[24];

	if (len > 0 && use->value[len] != '\0')
		unit = strchr(units, use->value[len]);
	if (unit != NULL) {
		seconds *= factor[unit - units];
		len++;
	}
	if (len == 0 || use->value[len] != '\0')
		return wrong(use, 0, 0,
		    "a time such as 90s, 20m, 3h or 1d (bare numbers are "
		    "seconds)");
	if (seconds < use->option->min || seconds > use->option->max) {
		time_text(use->option->min, least, sizeof least);
		time_text(use->option->max, most, sizeof most);
		return wrong(use, 0, 0, "a time from %s to %s", least, most);
	}
	*(uint64_t *)target(use) = seconds * 1000;
	return OK;
}

/* auto= has been set by now: its row stands before. */
enum err
setter_close(struct option_use *use)
{
	bool kept = use->conn->autostart == AUTO_ROUTE ||
	            use->conn->autostart == AUTO_START;
	char words[200];

	switch (setter_find_word(use->option->values, use->value)) {
	case 0:
	case 1:
		return OK;
	case 2:
		/* Without it, traffic would leave in the clear. */
		return kept ? OK
		            : wrong(use, 0, 0,
		                  "none or clear, or beside it auto=route, "
		                  "which "
		                  "holds traffic until there is an SA again");
	case 3:
		if (!kept)
			snprintf(use->note, sizeof use->note,
			    "closeaction=restart: with auto=add, a connection "
			    "that the peer closes stays closed; auto=start "
			    "negotiates anew");
		return OK;
	default:
		words_text(use->option->values, words, sizeof words);
		return wrong(use, 0, 0, "%s", words);
	}
}

/* Algorithms ------------------------------------------------------------- */

/* Is it one of the names ("sha1, modp1024")? */
static bool
weak_noted(const char *names, const char *name, size_t len)
{
	for (;;) {
		size_t span = strcspn(names, ",");

		if (span == len && strncmp(names, name, len) == 0)
			return true;
		if (names[span] == '\0')
			return false;
		names += span + 2;
	}
}

/* Adds the names that are not there yet. */
static void
weak_note(struct conn *conn, const char *names)
{
	for (;;) {
		size_t len = strcspn(names, ","), used = strlen(conn->weak);

		if (!weak_noted(conn->weak, names, len))
			snprintf(conn->weak + used, sizeof conn->weak - used,
			    "%s%.*s", used > 0 ? ", " : "", (int)len, names);
		if (names[len] == '\0')
			return;
		names += len + 2;
	}
}

enum err
setter_suites(struct option_use *use)
{
	bool is_ike = strcmp(use->option->name, "ike") == 0;
	struct proposals *proposals =
	    is_ike ? &use->conn->ike : &use->conn->esp;
	const char *problem = "an algorithm";
	char weak[100];
	bool strict;
	enum err err;

	err = proposals_parse(proposals, is_ike ? PROTO_IKE : PROTO_ESP,
	    use->value, &strict, &use->at, &problem);
	if (err == ERR_NOMEM)
		return err;
	if (err != OK)
		return wrong(use, use->at, strcspn(use->value + use->at, "-,!"),
		    "%s", problem);
	if (proposals_weak(proposals, weak, sizeof weak)) {
		weak_note(use->conn, weak);
		snprintf(use->note, sizeof use->note,
		    "%s allows weak algorithms: %s", use->option->name, weak);
	}
	return OK;
}

/* Ends ------------------------------------------------------------------- */

/* Takes the next item of a list separated by commas, without blanks around it,
 * into item. False at the end. *at is the octet where the item begins. */
static bool
item_next(const char *list, size_t *next, size_t *at, char item[static WORD])
{
	size_t len;

	if (list[*next] == '\0')
		return false;
	*next += strspn(list + *next, " ");
	*at = *next;
	len = strcspn(list + *next, ",");
	*next += len + (list[*next + len] == ',');
	while (len > 0 && list[*at + len - 1] == ' ')
		len--;
	snprintf(
	    item, WORD, "%.*s", (int)(len < WORD ? len : WORD - 1), list + *at);
	return true;
}

/* RFC 1123 2.1, with the underscores that people use. */
static bool
is_host_name(const char *name)
{
	size_t len = strlen(name), label = 0;

	if (len == 0 || len > 253)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char octet = (unsigned char)name[i];

		if (octet == '.') {
			if (label == 0)
				return false;
			label = 0;
		} else if (!isalnum(octet) && octet != '-' && octet != '_') {
			return false;
		} else if (++label > 63) {
			return false;
		}
	}
	/* What is all numbers was meant to be an address or a range. */
	return strspn(name, "0123456789.-") < len;
}

static struct conn_host *
host_add(struct conn_end *end, enum policy_host kind)
{
	struct conn_host *host;

	if (end->host_count == HOSTS_MAX)
		return NULL;
	host = &end->host[end->host_count++];
	memset(host, 0, sizeof *host);
	host->kind = (uint8_t)kind;
	return host;
}

static bool
prefix_parse(const char *item, const char *slash, struct conn_host *host)
{
	char text[ADDR_TEXT];
	struct addr addr;
	uint64_t bits;
	size_t len = digits(slash + 1, &bits);

	if ((size_t)(slash - item) >= sizeof text || len == 0 ||
	    slash[1 + len] != '\0')
		return false;
	snprintf(text, sizeof text, "%.*s", (int)(slash - item), item);
	if (!addr_parse(&addr, text) || bits > addr_len(&addr) * 8)
		return false;
	addr_prefix_range(&addr, (unsigned)bits, &host->addr, &host->last);
	return true;
}

static bool
range_parse(const char *item, const char *dash, struct conn_host *host)
{
	char text[ADDR_TEXT];

	if ((size_t)(dash - item) >= sizeof text)
		return false;
	snprintf(text, sizeof text, "%.*s", (int)(dash - item), item);
	return addr_parse(&host->addr, text) &&
	       addr_parse(&host->last, dash + 1) &&
	       host->addr.family == host->last.family &&
	       addr_compare(&host->addr, &host->last) <= 0;
}

static enum err
host_named(struct conn_end *end, const char *item)
{
	bool allow_any = item[0] == '%';
	const char *name = item + allow_any;
	struct conn_host *host;

	/* %ani, %group: a word misspelled or unknown, not a host for anybody. */
	if (!is_host_name(name) || (allow_any && strchr(name, '.') == NULL))
		return ERR_SYNTAX;
	host = host_add(end, HOST_NAME);
	if (host == NULL)
		return ERR_LIMIT;
	host->name = strdup(name);
	if (host->name == NULL)
		return ERR_NOMEM;
	/* "%name": that is where to call, but anybody may call from anywhere. */
	if (allow_any && host_add(end, HOST_ANY) == NULL)
		return ERR_LIMIT;
	return OK;
}

/* OK, ERR_LIMIT, ERR_SYNTAX or ERR_NOMEM. */
static enum err
host_parse(struct conn_end *end, const char *item)
{
	static const char anys[] = "%any %any4 %any6 %defaultroute";
	static const uint8_t family[] = { ADDR_NONE, ADDR_V4, ADDR_V6 };
	const char *slash = strchr(item, '/'), *dash = strchr(item, '-');
	struct conn_host host = { .kind = HOST_RANGE }, *added;
	int any = setter_find_word(anys, item);

	if (any == 3) {
		host.kind = HOST_DEFAULTROUTE;
	} else if (any >= 0) {
		host.kind = HOST_ANY;
		host.addr.family = family[any];
	} else if (addr_parse(&host.addr, item)) {
		host.kind = HOST_ADDR;
		if (addr_is_any(&host.addr))
			host.kind = HOST_ANY;
	} else if (slash != NULL) {
		if (!prefix_parse(item, slash, &host))
			return ERR_SYNTAX;
	} else if (dash == NULL || !range_parse(item, dash, &host)) {
		return host_named(end, item);
	}
	added = host_add(end, (enum policy_host)host.kind);
	if (added == NULL)
		return ERR_LIMIT;
	*added = host;
	return OK;
}

enum err
setter_hosts(struct option_use *use)
{
	struct conn_end *end = use->end;
	char item[WORD];
	size_t next = 0, at;

	for (size_t i = 0; i < end->host_count; i++)
		free(end->host[i].name);
	end->host_count = 0;
	while (item_next(use->value, &next, &at, item)) {
		enum err err = host_parse(end, item);

		if (err == ERR_NOMEM)
			return err;
		if (err == ERR_LIMIT)
			return wrong(use, at, strlen(item), "at most %d hosts",
			    HOSTS_MAX);
		if (err != OK)
			return wrong(use, at, strlen(item),
			    "an address, subnet, range, host name, %%any, "
			    "%%any4, %%any6 or %%defaultroute");
	}
	return OK;
}

enum err
setter_allow_any(struct option_use *use)
{
	int flag = bool_parse(use->value);

	if (flag < 0)
		return wrong(use, 0, 0, "yes or no");
	if (flag > 0 && host_add(use->end, HOST_ANY) == NULL)
		return wrong(use, 0, 0, "at most %d hosts", HOSTS_MAX);
	return OK;
}

enum err
setter_id(struct option_use *use)
{
	const char *problem = "an identity";
	size_t at = 0;
	struct ident *id;
	enum err err;

	/* Words of other dialects, with a meaning that is not ours. */
	if (setter_find_word("%fromcert %none %null %myid", use->value) >= 0)
		return wrong(use, 0, 0,
		    "an address, a domain name, user@domain, @name, @#hex or "
		    "%%any");
	if (use->value[0] == '%' && strcmp(use->value, "%any") != 0) {
		at = 1;
		snprintf(use->note, sizeof use->note,
		    "the %% in front of the identity is left out of account: "
		    "the identity that we expect is sent all the same");
	}
	err = ident_parse(&id, use->value + at, &problem);
	if (err == ERR_NOMEM)
		return err;
	if (err != OK)
		return wrong(use, at, 0, "%s", problem);
	ident_unref(use->end->id);
	use->end->id = id;
	return OK;
}

enum err
setter_subnets(struct option_use *use)
{
	struct ts_list *list = &use->end->subnets;
	char item[WORD];
	size_t next = 0, at;

	list->count = 0;
	while (item_next(use->value, &next, &at, item)) {
		const char *problem = "a subnet";
		struct ts ts;

		if (ts_parse(&ts, item, &problem) != OK)
			return wrong(use, at, strlen(item), "%s", problem);
		if (ts_list_add(list, &ts) != OK)
			return wrong(use, at, strlen(item),
			    "at most %d subnets a side", TS_MAX);
	}
	return OK;
}

enum err
setter_auth(struct option_use *use)
{
	bool both = use->option->section == SECTION_CONN;

	if (setter_find_word(both ? "psk secret" : "psk", use->value) < 0)
		return wrong(use, 0, 0,
		    "psk: other ways to authenticate are not done yet, and "
		    "none takes their place");
	if (both) {
		use->conn->local.auth = AUTH_PSK;
		use->conn->remote.auth = AUTH_PSK;
	} else {
		use->end->auth = AUTH_PSK;
	}
	return OK;
}
