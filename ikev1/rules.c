#include "ikev1/rules.h"

#include <string.h>

#include "ikev1/auth.h"
#include "ikev1/info.h"
#include "ikev1/phase1.h"
#include "ikev1/quick.h"
#include "ikev1/state.h"

#define K(name)  KIND_BIT(name)
#define IN(name) IKE_STATE_BIT(IKE_##name)
#define LIVE     (IN(ESTABLISHED) | IN(REKEYED))
#define ERRORS                                                                 \
	(K(N_ERROR) | K(N_NO_PROPOSAL) | K(N_AUTH_FAILED) | K(N_INVALID_SPI) | \
	    K(N_INVALID_IKE_SPI) | K(N_INVALID_MAJOR) | K(N_INVALID_ID))
#define STATUSES                                                               \
	(K(N_RESPONDER_LIFETIME) | K(N_REPLAY_STATUS) | K(N_INITIAL_CONTACT))

/* HASH is verified when a message is opened, before the table is asked: what
 * is sealed here, in phase 2, is authentic. In phase 1 it is so from the fifth
 * message on. */
static const struct rule rules[] = {
	/* Main Mode, initiator */
	{ .shows = "(begins: HDR, SA, VID...)",
	    .cites = "RFC 2409 5.4",
	    .exchange = EXCH_IDENTITY_PROTECTION,
	    .role = ROLE_INITIATOR,
	    .state = V1_MAIN_BEGIN,
	    .guard = 0, /* never by a message */
	    .steps = { v1_main_offer },
	    .next = { V1_MAIN_SENT1 },
	    .next_count = 1 },
	{ .shows = "HDR, SA, VID...",
	    .cites = "RFC 2409 5.4, RFC 2408 4.2",
	    .exchange = EXCH_IDENTITY_PROTECTION,
	    .role = ROLE_INITIATOR,
	    .state = V1_MAIN_SENT1,
	    .guard = IN(HALF_OPEN),
	    .cover = COVER_CLEAR,
	    .first = KIND_SA,
	    .must = K(SA),
	    .steps = { v1_main_take_answer, v1_main_generate, v1_main_send3 },
	    .next = { V1_MAIN_SENT3 },
	    .next_count = 1 },
	{ .shows = "HDR, KE, Nr, [NAT-D, NAT-D...]",
	    .cites = "RFC 2409 5.4, RFC 3947 3.2",
	    .exchange = EXCH_IDENTITY_PROTECTION,
	    .role = ROLE_INITIATOR,
	    .state = V1_MAIN_SENT3,
	    .guard = IN(HALF_OPEN),
	    .cover = COVER_CLEAR,
	    .must = K(KE) | K(NONCE),
	    .may = K(NATD) | K(CERTREQ),
	    .many = K(NATD) | K(CERTREQ),
	    .steps = { v1_main_take4, v1_main_send5 },
	    .next = { V1_MAIN_SENT5 },
	    .next_count = 1 },
	{ .shows = "HDR*, IDir, HASH_R, [N(INITIAL-CONTACT)]",
	    .cites = "RFC 2409 5.4, RFC 2407 4.6.3.3",
	    .exchange = EXCH_IDENTITY_PROTECTION,
	    .role = ROLE_INITIATOR,
	    .state = V1_MAIN_SENT5,
	    .guard = IN(HALF_OPEN),
	    .cover = COVER_SEALED,
	    .must = K(ID) | K(HASH),
	    .may = STATUSES,
	    .many = STATUSES,
	    .steps = { v1_auth_identify, v1_auth_proven, v1_main_finish },
	    .next = { V1_MAIN_DONE },
	    .next_count = 1 },
	/* Main Mode, responder */
	{ .shows = "HDR, SA, VID...",
	    .cites = "RFC 2409 5.4, RFC 2408 4.2",
	    .exchange = EXCH_IDENTITY_PROTECTION,
	    .role = ROLE_RESPONDER,
	    .state = V1_MAIN_BEGIN,
	    .guard = IN(NEW),
	    .cover = COVER_CLEAR,
	    .first = KIND_SA,
	    .must = K(SA),
	    .steps = { v1_main_choose },
	    .next = { V1_MAIN_SENT2 },
	    .next_count = 1 },
	{ .shows = "HDR, KE, Ni, [NAT-D, NAT-D...]",
	    .cites = "RFC 2409 5.4, RFC 3947 3.2",
	    .exchange = EXCH_IDENTITY_PROTECTION,
	    .role = ROLE_RESPONDER,
	    .state = V1_MAIN_SENT2,
	    .guard = IN(HALF_OPEN),
	    .cover = COVER_CLEAR,
	    .must = K(KE) | K(NONCE),
	    .may = K(NATD) | K(CERTREQ),
	    .many = K(NATD) | K(CERTREQ),
	    .steps = { v1_main_take3, v1_main_send4 },
	    .next = { V1_MAIN_SENT4 },
	    .next_count = 1 },
	{ .shows = "HDR*, IDii, HASH_I, [N(INITIAL-CONTACT)]",
	    .cites = "RFC 2409 5.4, RFC 2407 4.6.3.3",
	    .exchange = EXCH_IDENTITY_PROTECTION,
	    .role = ROLE_RESPONDER,
	    .state = V1_MAIN_SENT4,
	    .guard = IN(HALF_OPEN),
	    .cover = COVER_SEALED,
	    .must = K(ID) | K(HASH),
	    .may = STATUSES,
	    .many = STATUSES,
	    .steps = { v1_auth_identify, v1_auth_proven, v1_main_finish },
	    .next = { V1_MAIN_DONE },
	    .next_count = 1 },

	/* Quick Mode, initiator */
	{ .shows = "(begins: HDR*, HASH(1), SA, Ni, [KE], IDci, IDcr)",
	    .cites = "RFC 2409 5.5",
	    .exchange = EXCH_QUICK,
	    .role = ROLE_INITIATOR,
	    .state = V1_QUICK_BEGIN,
	    .guard = 0,
	    .steps = { v1_quick_prepare, v1_quick_send1 },
	    .next = { V1_QUICK_SENT1 },
	    .next_count = 1 },
	{ .shows = "HDR*, HASH(2), SA, Nr, [KE], [IDci, IDcr], "
	           "[NAT-OA, NAT-OA], [N(RESPONDER-LIFETIME)]",
	    .cites = "RFC 2409 5.5, RFC 2407 4.6.3.1, RFC 3947 5",
	    .exchange = EXCH_QUICK,
	    .role = ROLE_INITIATOR,
	    .state = V1_QUICK_SENT1,
	    .guard = LIVE,
	    .cover = COVER_SEALED,
	    .first = KIND_HASH,
	    .must = K(HASH) | K(SA) | K(NONCE),
	    .may = K(KE) | K(NATOA) | STATUSES,
	    .many = K(NATOA) | STATUSES,
	    .pair = K(ID),
	    .steps = { v1_quick_take2, v1_quick_install, v1_quick_send3 },
	    .next = { V1_QUICK_DONE },
	    .next_count = 1 },
	/* Quick Mode, responder */
	{ .shows = "HDR*, HASH(1), SA, Ni, [KE], [IDci, IDcr], "
	           "[NAT-OA, NAT-OA]",
	    .cites = "RFC 2409 5.5, RFC 3947 5",
	    .exchange = EXCH_QUICK,
	    .role = ROLE_RESPONDER,
	    .state = V1_QUICK_BEGIN,
	    .guard = LIVE,
	    .cover = COVER_SEALED,
	    .first = KIND_HASH,
	    .must = K(HASH) | K(SA) | K(NONCE),
	    .may = K(KE) | K(NATOA) | STATUSES,
	    .many = K(NATOA) | STATUSES,
	    .pair = K(ID),
	    .steps = { v1_quick_take1, v1_quick_inbound, v1_quick_send2 },
	    .next = { V1_QUICK_SENT2 },
	    .next_count = 1 },
	{ .shows = "HDR*, HASH(3)",
	    .cites = "RFC 2409 5.5",
	    .exchange = EXCH_QUICK,
	    .role = ROLE_RESPONDER,
	    .state = V1_QUICK_SENT2,
	    .guard = LIVE,
	    .cover = COVER_SEALED,
	    .first = KIND_HASH,
	    .must = K(HASH),
	    .may = STATUSES,
	    .many = STATUSES,
	    .steps = { v1_quick_outbound, v1_quick_up },
	    .next = { V1_QUICK_DONE },
	    .next_count = 1 },

	/* Informational, under protection */
	{ .shows = "HDR*, HASH(1), D...",
	    .cites = "RFC 2409 5.7, RFC 2408 3.15",
	    .exchange = EXCH_INFORMATIONAL_V1,
	    .role = ROLE_RESPONDER,
	    .state = V1_INFO_BEGIN,
	    .guard = LIVE | IN(CLOSING),
	    .cover = COVER_SEALED,
	    .first = KIND_HASH,
	    .must = K(HASH) | K(DELETE),
	    .may = ERRORS | STATUSES,
	    .many = K(DELETE) | ERRORS | STATUSES,
	    .steps = { v1_info_deletes },
	    .next = { V1_INFO_DONE },
	    .next_count = 1 },
	{ .shows = "HDR*, HASH(1), N(R-U-THERE)",
	    .cites = "RFC 3706 5.3",
	    .exchange = EXCH_INFORMATIONAL_V1,
	    .role = ROLE_RESPONDER,
	    .state = V1_INFO_BEGIN,
	    .guard = LIVE,
	    .cover = COVER_SEALED,
	    .first = KIND_HASH,
	    .must = K(HASH) | K(N_R_U_THERE),
	    .steps = { v1_info_there },
	    .next = { V1_INFO_DONE },
	    .next_count = 1 },
	{ .shows = "HDR*, HASH(1), N(R-U-THERE-ACK)",
	    .cites = "RFC 3706 5.3",
	    .exchange = EXCH_INFORMATIONAL_V1,
	    .role = ROLE_RESPONDER,
	    .state = V1_INFO_BEGIN,
	    .guard = LIVE,
	    .cover = COVER_SEALED,
	    .first = KIND_HASH,
	    .must = K(HASH) | K(N_R_U_THERE_ACK),
	    .steps = { v1_info_ack },
	    .next = { V1_INFO_DONE },
	    .next_count = 1 },
	{ .shows = "HDR*, HASH(1), N(INITIAL-CONTACT)",
	    .cites = "RFC 2407 4.6.3.3",
	    .exchange = EXCH_INFORMATIONAL_V1,
	    .role = ROLE_RESPONDER,
	    .state = V1_INFO_BEGIN,
	    .guard = LIVE,
	    .cover = COVER_SEALED,
	    .first = KIND_HASH,
	    .must = K(HASH) | K(N_INITIAL_CONTACT),
	    .may = ERRORS | STATUSES,
	    .many = ERRORS | STATUSES,
	    .steps = { v1_info_contact },
	    .next = { V1_INFO_DONE },
	    .next_count = 1 },
	{ .shows = "HDR*, HASH(1), N...",
	    .cites = "RFC 2409 5.7, RFC 2408 3.14",
	    .exchange = EXCH_INFORMATIONAL_V1,
	    .role = ROLE_RESPONDER,
	    .state = V1_INFO_BEGIN,
	    .guard = LIVE | IN(HALF_OPEN),
	    .cover = COVER_SEALED,
	    .first = KIND_HASH,
	    .must = K(HASH),
	    .may = ERRORS | STATUSES,
	    .many = ERRORS | STATUSES,
	    .not = K(DELETE) | K(N_R_U_THERE) | K(N_R_U_THERE_ACK),
	    .steps = { v1_info_errors },
	    .next = { V1_INFO_DONE },
	    .next_count = 1 },
	/* Informational, from anybody */
	{ .shows = "HDR, N or D",
	    .cites = "RFC 2408 4.8: logged, never believed",
	    .exchange = EXCH_INFORMATIONAL_V1,
	    .role = ROLE_RESPONDER,
	    .state = V1_INFO_BEGIN,
	    .guard = LIVE | IN(HALF_OPEN) | IN(CLOSING),
	    .cover = COVER_CLEAR,
	    .may = K(DELETE) | K(HASH) | ERRORS | STATUSES,
	    .many = K(DELETE) | K(HASH) | ERRORS | STATUSES,
	    .steps = { v1_info_unprotected },
	    .next = { V1_INFO_DONE },
	    .next_count = 1 },
};

static const struct rule *
beginning(uint8_t exchange)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].exchange == exchange &&
		    rules[i].role == ROLE_INITIATOR && rules[i].guard == 0)
			return &rules[i];
	return NULL;
}

const struct rule *
v1_rule_main_begin(void)
{
	return beginning(EXCH_IDENTITY_PROTECTION);
}

const struct rule *
v1_rule_quick_begin(void)
{
	return beginning(EXCH_QUICK);
}

static void
refused(struct ike_sa *sa, struct exchange *x, const struct msg *msg,
    enum err err, const char *text)
{
	char payloads[256];

	sa_log(sa, LOG_LEVEL_DEBUG, "dropped %s: %s",
	    msg_text(msg, payloads, sizeof(payloads)), text);
	env_count(sa->env, err == ERR_SYNTAX ? COUNTER_PACKETS_MALFORMED
	                                     : COUNTER_PACKETS_STRANGE);
	/* What began with this message ends with it. Under protection the
	 * peer is told (RFC 2408 5.1). */
	if (x->type == EXCH_QUICK && x->role == ROLE_RESPONDER &&
	    x->state == V1_QUICK_BEGIN)
		v1_info_notify(v1_sa(sa), PROTO_ESP, 0, N1_PAYLOAD_MALFORMED);
	if (x->role == ROLE_RESPONDER &&
	    (x->state == V1_QUICK_BEGIN || x->state == V1_INFO_BEGIN))
		exchange_end(x);
}

static void
failed(struct ike_sa *sa, struct exchange *x)
{
	if (x->type == EXCH_IDENTITY_PROTECTION) {
		v1_main_failed(v1_sa(sa), v1_exchange(x));
	} else if (x->type == EXCH_QUICK) {
		v1_quick_failed(v1_sa(sa), v1_exchange(x));
	} else {
		sa_log(sa, LOG_LEVEL_DEBUG, "informational: %s", x->error.text);
		exchange_end(x);
	}
}

static void
ignored(struct ike_sa *sa, struct exchange *x)
{
	env_count(sa->env, COUNTER_PACKETS_REPEATED);
	if (x->type == EXCH_INFORMATIONAL_V1)
		exchange_end(x);
}

static void
moved(struct ike_sa *sa, struct exchange *base)
{
	struct v1_exchange *x = v1_exchange(base);

	/* Its repeats are known from now on. */
	if (x->arriving) {
		memcpy(x->digest, x->arrived, V1_DIGEST);
		x->digested = true;
		x->arriving = false;
	}
	if (base->type == EXCH_IDENTITY_PROTECTION)
		v1_main_moved(v1_sa(sa), x);
	else if (base->type == EXCH_QUICK)
		v1_quick_moved(v1_sa(sa), x);
	else
		exchange_end(base);
}

const struct fsm v1_fsm = {
	.rules = rules,
	.count = sizeof(rules) / sizeof(rules[0]),
	.anywhere = K(VID) | K(N_STATUS),
	.refused = refused,
	.failed = failed,
	.ignored = ignored,
	.moved = moved,
};
