/*
 * schema: see the header. The table comes last: what its setters do stands
 * above it.
 */
#include "conf/schema.h"

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

/* Its position in the list, or -1. */
static int
word_find(const char *list, const char *value)
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

static enum err
set_word(struct option_use *use)
{
	int number = word_find(use->option->values, use->value);
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
	if (word_find("yes true 1", value) >= 0)
		return 1;
	return word_find("no false 0", value) >= 0 ? 0 : -1;
}

static enum err
set_bool(struct option_use *use)
{
	int flag = bool_parse(use->value);

	if (flag < 0)
		return wrong(use, 0, 0, "yes or no");
	*(bool *)target(use) = flag > 0;
	return OK;
}

static enum err
set_uniqueids(struct option_use *use)
{
	char words[200];

	switch (word_find(use->option->values, use->value)) {
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

static enum err
set_number(struct option_use *use)
{
	uint64_t number;

	if (!number_parse(use, &number))
		return wrong_number(use, "");
	*(uint32_t *)target(use) = (uint32_t)number;
	return OK;
}

static enum err
set_tries(struct option_use *use)
{
	uint64_t number = 0;

	if (strcmp(use->value, "%forever") != 0 && !number_parse(use, &number))
		return wrong_number(use, "%forever or ");
	use->conn->keyingtries = (uint32_t)number;
	return OK;
}

static enum err
set_replay(struct option_use *use)
{
	uint64_t number = 32;

	if (strcmp(use->value, "-1") != 0 && !number_parse(use, &number))
		return wrong_number(use, "-1 (the default) or ");
	use->conn->replay_window = (uint32_t)number;
	return OK;
}

static enum err
set_port(struct option_use *use)
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

static enum err
set_time(struct option_use *use)
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
static enum err
set_close(struct option_use *use)
{
	bool kept = use->conn->autostart == AUTO_ROUTE ||
	            use->conn->autostart == AUTO_START;
	char words[200];

	switch (word_find(use->option->values, use->value)) {
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

static enum err
set_suites(struct option_use *use)
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
	int any = word_find(anys, item);

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

static enum err
set_hosts(struct option_use *use)
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

static enum err
set_allow_any(struct option_use *use)
{
	int flag = bool_parse(use->value);

	if (flag < 0)
		return wrong(use, 0, 0, "yes or no");
	if (flag > 0 && host_add(use->end, HOST_ANY) == NULL)
		return wrong(use, 0, 0, "at most %d hosts", HOSTS_MAX);
	return OK;
}

static enum err
set_id(struct option_use *use)
{
	const char *problem = "an identity";
	size_t at = 0;
	struct ident *id;
	enum err err;

	/* Words of other dialects, with a meaning that is not ours. */
	if (word_find("%fromcert %none %null %myid", use->value) >= 0)
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

static enum err
set_subnets(struct option_use *use)
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

static enum err
set_auth(struct option_use *use)
{
	bool both = use->option->section == SECTION_CONN;

	if (word_find(both ? "psk secret" : "psk", use->value) < 0)
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

/* The table -------------------------------------------------------------- */

#define HOUR       3600
#define DAY        86400
#define OF(member) .set = NULL, .offset = offsetof(struct conn, member)

#define DONE_CONN                                                              \
	.section = SECTION_CONN, .dialects = DIALECT_STRONGSWAN,               \
	.status = OPTION_DONE
#define DONE_END                                                               \
	.section = SECTION_END, .dialects = DIALECT_STRONGSWAN,                \
	.status = OPTION_DONE, .aliases = ""

/* name, section, values that need no warning, status, what is missing. */
#define OTHER(key, part, quiet, state, text)                                   \
	{                                                                      \
		.name = key, .aliases = "", .section = SECTION_##part,         \
		.dialects = DIALECT_STRONGSWAN, .status = OPTION_##state,      \
		.type = TYPE_TEXT, .values = quiet, .fallback = "",            \
		.help = text                                                   \
	}
#define WITHOUT(key, part, quiet, text) OTHER(key, part, quiet, WITHOUT, text)
#define REFUSED(key, part, quiet, text) OTHER(key, part, quiet, REFUSED, text)
#define GONE(key, part)                 OTHER(key, part, "", GONE, "")

const struct option options[] = {
	{ .name = "uniqueids",
	    .aliases = "",
	    .section = SECTION_SETUP,
	    .dialects = DIALECT_STRONGSWAN,
	    .status = OPTION_DONE,
	    .type = TYPE_WORD,
	    .values = "yes no never replace keep",
	    .fallback = "yes",
	    .set = set_uniqueids,
	    .help = "Whether a peer has one IKE SA at a time: a new one with "
	            "the same identities replaces the old one.\n"
	            ".Cm replace\nand\n.Cm keep\nmean\n.Cm yes ;\n"
	            ".Cm never\nmeans\n.Cm no ." },

	{ .name = "also",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_TEXT,
	    .values = "section",
	    .fallback = "",
	    .help = "The settings of another\n.Ic conn\nsection, as if they "
	            "stood here; what this section says itself wins, and of "
	            "several\n.Cm also\nthe later one wins.\nMay be given "
	            "more than once." },
	{ .name = "auto",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_WORD,
	    .values = "ignore add route start",
	    .fallback = "ignore",
	    OF(autostart),
	    .help = "What happens when the file is loaded:\n.Cm add\nwaits "
	            "for the peer or for a command,\n.Cm route\nnegotiates "
	            "when traffic wants to pass,\n.Cm start\nnegotiates at "
	            "once.\n.Cm ignore\nleaves the connection alone; sections "
	            "that serve\n.Cm also\nonly have no need for more." },
	{ .name = "keyexchange",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_WORD,
	    .values = "ike ikev1 ikev2",
	    .fallback = "ike",
	    OF(keyexchange),
	    .help = "The version of IKE.\n.Cm ike\naccepts both and "
	            "initiates IKEv2." },
	{ .name = "type",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_WORD,
	    .values = "tunnel transport",
	    .fallback = "tunnel",
	    OF(mode),
	    .help = "The mode of the child SAs: from network to network, or "
	            "between the two hosts themselves." },
	{ .name = "authby",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_TEXT,
	    .values = "psk | secret",
	    .fallback = "",
	    .set = set_auth,
	    .help = "How both ends authenticate.\nPre-shared keys are the "
	            "only way so far, and a connection has to say so: where "
	            "nothing is said, public keys are meant, and the "
	            "connection is refused." },
	{ .name = "",
	    DONE_END,
	    .type = TYPE_TEXT,
	    .values = "host[,host...]",
	    .fallback = "%any",
	    .set = set_hosts,
	    .help = "The address of this end: an address, a host name, a "
	            "subnet, a range\n.Pq Li 192.0.2.1-192.0.2.9 ,\n"
	            ".Cm %any , %any4 , %any6 ,\n.Cm %defaultroute\n"
	            "(the address that leads to the peer) or a list of these, "
	            "separated by commas.\nThe first address or name is the "
	            "one that is called; all are accepted.\nA\n.Cm %\nin "
	            "front of a name with a dot accepts the peer from any "
	            "address.\n"
	            "The end with an address of this host is the local one; "
	            "where neither or both have one,\n.Cm left\nis." },
	{ .name = "allowany",
	    DONE_END,
	    .type = TYPE_BOOL,
	    .values = "yes | no",
	    .fallback = "no",
	    .set = set_allow_any,
	    .help = "Accepts this end from any address, like a\n.Cm %\nin "
	            "front of its name." },
	{ .name = "id",
	    DONE_END,
	    .type = TYPE_TEXT,
	    .values = "identity",
	    .fallback = "",
	    .set = set_id,
	    .help = "How this end is known: an address, a name\n"
	            ".Pq Li vpn.example.org No or Li @vpn.example.org ,\n"
	            "a user\n.Pq Li carol@example.org ,\na key ID in "
	            "hexadecimal\n.Pq Li @#0badcafe\nor\n.Cm %any .\n"
	            "The default is what stands in\n.Cm left\nor\n.Cm right ;\n"
	            "for a peer that may come from several addresses, any "
	            "identity that its key permits." },
	{ .name = "subnet",
	    DONE_END,
	    .type = TYPE_TEXT,
	    .values = "subnet[,subnet...]",
	    .fallback = "%dynamic",
	    .set = set_subnets,
	    .help = "The networks behind this end, each with an optional "
	            "protocol and port:\n"
	            ".Li 10.0.0.0/24,10.2.0.0/16[tcp/80] .\n"
	            ".Cm %dynamic\nstands for the end's own address." },
	{ .name = "auth",
	    DONE_END,
	    .type = TYPE_TEXT,
	    .values = "psk",
	    .fallback = "",
	    .set = set_auth,
	    .help = "How this end authenticates; wins over\n.Cm authby ." },
	{ .name = "ikeport",
	    DONE_END,
	    .type = TYPE_NUMBER,
	    .values = "number",
	    .fallback = "500",
	    .min = 1,
	    .max = 65535,
	    .set = set_port,
	    .help = "The UDP port of the other end's IKE.\nOurs are 500 and "
	            "4500 always." },
	{ .name = "ike",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_TEXT,
	    .values = "suite[,suite...]",
	    .fallback = "",
	    .set = set_suites,
	    .help = "Algorithms of the IKE SA, in order of preference, such "
	            "as\n.Li aes256-sha256-modp2048,aes128gcm16-prfsha256-"
	            "curve25519 .\nWhat is written is used and nothing "
	            "else, with or without a final\n.Cm \\&! :\n"
	            "nothing weak comes in by default, and nothing surprises "
	            "the peer.\nWhere the option is missing, the modern "
	            "algorithms are used." },
	{ .name = "esp",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_TEXT,
	    .values = "suite[,suite...]",
	    .fallback = "",
	    .set = set_suites,
	    .help = "Algorithms of the child SAs, as in\n.Cm ike .\nA "
	            "Diffie-Hellman group means perfect forward secrecy;\n"
	            ".Li esn\nand\n.Li noesn\nchoose extended sequence "
	            "numbers." },
	{ .name = "ikelifetime",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_TIME,
	    .values = "time",
	    .fallback = "3h",
	    .min = 10,
	    .max = 31 * DAY,
	    OF(ike_lifetime_ms),
	    .help = "How long an IKE SA lives before it is replaced." },
	{ .name = "lifetime",
	    .aliases = "keylife",
	    DONE_CONN,
	    .type = TYPE_TIME,
	    .values = "time",
	    .fallback = "1h",
	    .min = 10,
	    .max = 31 * DAY,
	    OF(lifetime_ms),
	    .help = "How long a child SA lives before it is replaced." },
	{ .name = "margintime",
	    .aliases = "rekeymargin",
	    DONE_CONN,
	    .type = TYPE_TIME,
	    .values = "time",
	    .fallback = "9m",
	    .min = 0,
	    .max = 31 * DAY,
	    OF(margin_ms),
	    .help = "How long before its end an SA is replaced." },
	{ .name = "rekeyfuzz",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_PERCENT,
	    .values = "percentage",
	    .fallback = "100%",
	    .min = 0,
	    .max = 1000,
	    OF(rekeyfuzz_percent),
	    .help = "By how much of itself\n.Cm margintime\nis lengthened at "
	            "most, at random, so that not all SAs are replaced at "
	            "once." },
	{ .name = "rekey",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_BOOL,
	    .values = "yes | no",
	    .fallback = "yes",
	    OF(rekey),
	    .help = "Whether we replace SAs before their end.\nThe peer may "
	            "do so in any case." },
	{ .name = "keyingtries",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_NUMBER,
	    .values = "number | %forever",
	    .fallback = "3",
	    .min = 0,
	    .max = 1000000,
	    .set = set_tries,
	    .help = "How often a negotiation is begun anew before we give "
	            "up; 0 and\n.Cm %forever\nnever do." },
	{ .name = "dpdaction",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_WORD,
	    .values = "none clear hold restart",
	    .fallback = "none",
	    OF(dpd_action),
	    .help = "What happens when the peer does not answer any more:\n"
	            ".Cm clear\ncloses the connection,\n.Cm hold\nwaits for "
	            "traffic to negotiate anew,\n.Cm restart\nnegotiates at "
	            "once.\n.Cm none\nnever asks whether the peer is alive." },
	{ .name = "closeaction",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_WORD,
	    .values = "none clear hold restart",
	    .fallback = "none",
	    .set = set_close,
	    .help = "What happens when the peer closes the connection is a "
	            "matter of\n.Cm auto :\n.Cm route\nholds traffic and "
	            "negotiates when there is some,\n.Cm start\nnegotiates "
	            "anew,\n.Cm add\nleaves it closed.\n.Cm hold\nand\n"
	            ".Cm restart\nare what these two do anyway;\n.Cm hold\n"
	            "without them is refused." },
	{ .name = "dpddelay",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_TIME,
	    .values = "time",
	    .fallback = "30s",
	    .min = 0,
	    .max = DAY,
	    OF(dpd_delay_ms),
	    .help = "How long the peer may be silent before it is asked "
	            "whether it is alive; 0 never asks." },
	{ .name = "dpdtimeout",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_TIME,
	    .values = "time",
	    .fallback = "150s",
	    .min = 1,
	    .max = DAY,
	    OF(dpd_timeout_ms),
	    .help = "IKEv1: how long a peer may leave the questions "
	            "unanswered.\nIn IKEv2 the retransmissions of one question "
	            "decide." },
	{ .name = "fragmentation",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_WORD,
	    .values = "no yes accept force",
	    .fallback = "yes",
	    OF(fragmentation),
	    .help = "Whether large IKE messages travel in fragments of their "
	            "own.\n.Cm accept\nunderstands fragments and sends none;\n"
	            ".Cm force\nsends them where the peer said nothing, "
	            "too." },
	{ .name = "forceencaps",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_BOOL,
	    .values = "yes | no",
	    .fallback = "no",
	    OF(forceencaps),
	    .help = "ESP in UDP although no NAT is on the way." },
	{ .name = "replay_window",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_NUMBER,
	    .values = "number | -1",
	    .fallback = "32",
	    .min = 0,
	    .max = REPLAY_WINDOW_MAX,
	    .set = set_replay,
	    .help = "How many packets may overtake one another before the "
	            "late ones are dropped; 0 switches the protection against "
	            "replayed packets off." },

	WITHOUT("charondebug", SETUP, "", "orthrus log LEVEL sets the level"),
	WITHOUT("cachecrls", SETUP, "no", "there are no CRLs"),
	WITHOUT("strictcrlpolicy", SETUP, "no", "there are no CRLs"),

	REFUSED("aggressive", CONN, "no",
	    "Aggressive Mode gives the key to whoever cares to guess it, and "
	    "is never done"),
	REFUSED("ah", CONN, "", "AH is not done"),
	REFUSED("xauth", CONN, "", "XAUTH is not done yet"),
	REFUSED("sha256_96", CONN, "no", "truncation to 96 bits is not done"),
	REFUSED("installpolicy", CONN, "yes", "policies are always installed"),
	REFUSED("mediation", CONN, "no", "mediation is not done"),
	REFUSED("mediated_by", CONN, "", "mediation is not done"),
	REFUSED("me_peerid", CONN, "", "mediation is not done"),
	REFUSED("mark", CONN, "", "marks are not done yet"),
	REFUSED("mark_in", CONN, "", "marks are not done yet"),
	REFUSED("mark_out", CONN, "", "marks are not done yet"),
	REFUSED("eap_identity", CONN, "", "EAP is not done yet"),
	REFUSED("aaa_identity", CONN, "", "EAP is not done yet"),
	REFUSED("xauth_identity", CONN, "", "XAUTH is not done yet"),
	WITHOUT("compress", CONN, "no", "packets are not compressed"),
	WITHOUT("mobike", CONN, "no",
	    "a peer that moves is followed by NAT traversal alone"),
	WITHOUT("reauth", CONN, "no",
	    "IKEv2 SAs are rekeyed without authenticating anew"),
	WITHOUT("modeconfig", CONN, "pull", "Mode Config is not done yet"),
	WITHOUT("inactivity", CONN, "", "idle child SAs stay"),
	WITHOUT("ikedscp", CONN, "000000", "IKE packets have DSCP 0"),
	REFUSED("lifebytes", CONN, "0", "SAs are not renewed by volume"),
	REFUSED("lifepackets", CONN, "0", "SAs are not renewed by volume"),
	WITHOUT("marginbytes", CONN, "", "margintime alone decides"),
	WITHOUT("marginpackets", CONN, "", "margintime alone decides"),
	WITHOUT("reqid", CONN, "0", "numbers are given by the daemon"),
	REFUSED("tfc", CONN, "0", "packets are not padded"),

	REFUSED("sourceip", END, "", "virtual addresses are not done yet"),
	REFUSED("protoport", END, "",
	    "write leftsubnet=10.0.0.0/24[tcp/80] instead"),
	REFUSED("auth2", END, "", "a second authentication is not done yet"),
	REFUSED("id2", END, "", "a second authentication is not done yet"),
	REFUSED("groups", END, "", "groups of certificates are not done yet"),
	REFUSED("groups2", END, "", "groups of certificates are not done yet"),
	REFUSED("certpolicy", END, "", "certificates are not done yet"),
	REFUSED("subnetwithin", END, "", "write leftsubnet instead"),
	WITHOUT("dns", END, "", "no DNS servers are handed out"),
	WITHOUT("firewall", END, "no", "no firewall rules are made"),
	WITHOUT("hostaccess", END, "no", "no firewall rules are made"),
	WITHOUT("updown", END, "", "no script is run"),
	WITHOUT("cert", END, "", "a pre-shared key authenticates"),
	WITHOUT("cert2", END, "", "a pre-shared key authenticates"),
	WITHOUT("sendcert", END, "never no", "no certificates are sent"),
	WITHOUT("ca", END, "", "a pre-shared key authenticates"),
	WITHOUT("ca2", END, "", "a pre-shared key authenticates"),
	WITHOUT("sigkey", END, "", "a pre-shared key authenticates"),
	WITHOUT("rsasigkey", END, "", "a pre-shared key authenticates"),

	GONE("interfaces", SETUP),
	GONE("dumpdir", SETUP),
	GONE("charonstart", SETUP),
	GONE("plutostart", SETUP),
	GONE("klipsdebug", SETUP),
	GONE("plutodebug", SETUP),
	GONE("prepluto", SETUP),
	GONE("postpluto", SETUP),
	GONE("plutostderrlog", SETUP),
	GONE("fragicmp", SETUP),
	GONE("packetdefault", SETUP),
	GONE("hidetos", SETUP),
	GONE("overridemtu", SETUP),
	GONE("crlcheckinterval", SETUP),
	GONE("nocrsend", SETUP),
	GONE("nat_traversal", SETUP),
	GONE("keep_alive", SETUP),
	GONE("force_keepalive", SETUP),
	GONE("virtual_private", SETUP),
	GONE("pkcs11module", SETUP),
	GONE("pkcs11initargs", SETUP),
	GONE("pkcs11keepstate", SETUP),
	GONE("pkcs11proxy", SETUP),
	GONE("pfs", CONN),
	GONE("pfsgroup", CONN),
	GONE("eap", CONN),
	GONE("nexthop", END),
};

const size_t option_count = sizeof options / sizeof options[0];

/* Looking rows up -------------------------------------------------------- */

/* Which end a keyword speaks of: 0 left, 1 right, 2 neither; *rest is what
 * follows. */
static unsigned
side_of(const char *name, const char **rest)
{
	if (strncmp(name, "left", 4) == 0) {
		*rest = name + 4;
		return 0;
	}
	if (strncmp(name, "right", 5) == 0) {
		*rest = name + 5;
		return 1;
	}
	*rest = name;
	return 2;
}

const struct option *
option_find(bool setup, enum dialect dialect, const char *name, unsigned *end)
{
	const char *rest;
	unsigned side = side_of(name, &rest);
	unsigned section = setup       ? SECTION_SETUP
	                   : side == 2 ? SECTION_CONN
	                               : SECTION_END;

	*end = side == 1;
	if (setup)
		rest = name;
	for (size_t i = 0; i < option_count; i++) {
		const struct option *option = &options[i];

		if (option->section != section ||
		    (option->dialects & dialect) == 0)
			continue;
		if (strcmp(option->name, rest) == 0 ||
		    (rest[0] != '\0' && word_find(option->aliases, rest) >= 0))
			return option;
	}
	return NULL;
}

const char *
option_similar(
    bool setup, enum dialect dialect, const char *name, char *text, size_t size)
{
	static const char *const sides[] = { "left", "right" };
	unsigned best = (unsigned)strlen(name) / 3 + 1;

	if (best > 4)
		best = 4;
	text[0] = '\0';
	for (size_t i = 0; i < option_count; i++) {
		const struct option *option = &options[i];
		bool is_end = option->section == SECTION_END;

		if ((option->dialects & dialect) == 0 ||
		    (option->section == SECTION_SETUP) != setup ||
		    option->status == OPTION_GONE)
			continue;
		for (size_t side = 0; side < (is_end ? 2 : 1); side++) {
			char candidate[64];
			unsigned distance;

			option_name(option, is_end ? sides[side] : "",
			    candidate, sizeof candidate);
			distance = lex_distance(name, candidate);
			if (distance < best) {
				best = distance;
				snprintf(text, size, "%s", candidate);
			}
		}
	}
	return text[0] == '\0' ? NULL : text;
}

enum err
option_set(struct option_use *use)
{
	use->expected[0] = '\0';
	use->note[0] = '\0';
	use->at = 0;
	use->len = 0;
	if (use->option->set != NULL)
		return use->option->set(use);
	switch (use->option->type) {
	case TYPE_WORD:
		return set_word(use);
	case TYPE_BOOL:
		return set_bool(use);
	case TYPE_TIME:
		return set_time(use);
	case TYPE_NUMBER:
	case TYPE_PERCENT:
		return set_number(use);
	default:
		return OK; /* also=: conf has seen to it */
	}
}

bool
option_is_quiet(const struct option *option, const char *value)
{
	return word_find(option->values, value) >= 0;
}

char *
option_name(
    const struct option *option, const char *side, char *text, size_t size)
{
	if (option->section != SECTION_END)
		side = "";
	else if (side == NULL)
		side = "left|right";
	snprintf(text, size, "%s%s", side, option->name);
	return text;
}
