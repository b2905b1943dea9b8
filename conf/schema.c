/*
 * schema: see the header. What the table's setters do stands in conf/setter.
 */
#include "conf/schema.h"

#include <stdio.h>
#include <string.h>

#include "conf/setter.h"

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
	    .set = setter_uniqueids,
	    .help = "Whether a peer has one IKE SA at a time: a new one with "
	            "the same identities replaces the old one, in IKEv2 if the "
	            "peer says so (INITIAL_CONTACT).\n"
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
	    .set = setter_auth,
	    .help = "How both ends authenticate.\nPre-shared keys are the "
	            "only way so far, and a connection has to say so: where "
	            "nothing is said, public keys are meant, and the "
	            "connection is refused." },
	{ .name = "",
	    DONE_END,
	    .type = TYPE_TEXT,
	    .values = "host[,host...]",
	    .fallback = "%any",
	    .set = setter_hosts,
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
	    .set = setter_allow_any,
	    .help = "Accepts this end from any address, like a\n.Cm %\nin "
	            "front of its name." },
	{ .name = "id",
	    DONE_END,
	    .type = TYPE_TEXT,
	    .values = "identity",
	    .fallback = "",
	    .set = setter_id,
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
	    .set = setter_subnets,
	    .help = "The networks behind this end, each with an optional "
	            "protocol and port:\n"
	            ".Li 10.0.0.0/24,10.2.0.0/16[tcp/80] .\n"
	            ".Cm %dynamic\nstands for the end's own address." },
	{ .name = "auth",
	    DONE_END,
	    .type = TYPE_TEXT,
	    .values = "psk",
	    .fallback = "",
	    .set = setter_auth,
	    .help = "How this end authenticates; wins over\n.Cm authby ." },
	{ .name = "ikeport",
	    DONE_END,
	    .type = TYPE_NUMBER,
	    .values = "number",
	    .fallback = "500",
	    .min = 1,
	    .max = 65535,
	    .set = setter_port,
	    .help = "The UDP port of the other end's IKE.\nOurs are 500 and "
	            "4500 always." },
	{ .name = "ike",
	    .aliases = "",
	    DONE_CONN,
	    .type = TYPE_TEXT,
	    .values = "suite[,suite...]",
	    .fallback = "",
	    .set = setter_suites,
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
	    .set = setter_suites,
	    .help =
	        "Algorithms of the child SAs, as in\n.Cm ike .\nA "
	        "Diffie-Hellman group means perfect forward secrecy,\nwhich "
	        "we ask for; a peer that renews without it is not "
	        "refused, as old\nclients do so.\n"
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
	    .set = setter_tries,
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
	    .set = setter_close,
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
	    .set = setter_replay,
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
	REFUSED("xauth", CONN, "client server", "XAUTH is not done yet"),
	REFUSED("sha256_96", CONN, "no", "truncation to 96 bits is not done"),
	REFUSED("installpolicy", CONN, "yes", "policies are always installed"),
	REFUSED("mediation", CONN, "no", "mediation is not done"),
	REFUSED("mediated_by", CONN, "", "mediation is not done"),
	REFUSED("me_peerid", CONN, "", "mediation is not done"),
	REFUSED("mark", CONN, "0", "marks are not done yet"),
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
	WITHOUT("inactivity", CONN, "0", "idle child SAs stay"),
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
		    (rest[0] != '\0' &&
		        setter_find_word(option->aliases, rest) >= 0))
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
		return setter_word(use);
	case TYPE_BOOL:
		return setter_bool(use);
	case TYPE_TIME:
		return setter_time(use);
	case TYPE_NUMBER:
	case TYPE_PERCENT:
		return setter_number(use);
	default:
		return OK; /* also=: conf has seen to it */
	}
}

bool
option_is_quiet(const struct option *option, const char *value)
{
	return setter_find_word(option->values, value) >= 0;
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
