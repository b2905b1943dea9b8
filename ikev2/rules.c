#include "ikev2/rules.h"

#include "ikev2/auth.h"
#include "ikev2/child.h"
#include "ikev2/grant.h"
#include "ikev2/info.h"
#include "ikev2/init.h"
#include "ikev2/internal.h"
#include "ikev2/rekey.h"

#define FRESH (IKE_STATE_BIT(IKE_NEW) | IKE_STATE_BIT(IKE_HALF_OPEN))
#define HALF  IKE_STATE_BIT(IKE_HALF_OPEN)
#define UP    IKE_STATE_BIT(IKE_ESTABLISHED)
/* What is on its way out still answers, and still hears answers. */
#define LATE (UP | IKE_STATE_BIT(IKE_REKEYED) | IKE_STATE_BIT(IKE_CLOSING))

#define NEXT(...)                                                              \
	.next = { __VA_ARGS__ },                                               \
	.next_count = sizeof((uint8_t[]){ __VA_ARGS__ })

#define ERRORS                                                                 \
	(KIND_BIT(N_ERROR) | KIND_BIT(N_INVALID_KE) |                          \
	    KIND_BIT(N_NO_PROPOSAL) | KIND_BIT(N_INVALID_SYNTAX) |             \
	    KIND_BIT(N_AUTH_FAILED) | KIND_BIT(N_TS_UNACCEPTABLE) |            \
	    KIND_BIT(N_TEMPORARY_FAILURE) | KIND_BIT(N_CHILD_NOT_FOUND) |      \
	    KIND_BIT(N_NO_ADDITIONAL_SAS) | KIND_BIT(N_SINGLE_PAIR) |          \
	    KIND_BIT(N_INVALID_SPI) | KIND_BIT(N_INVALID_IKE_SPI) |            \
	    KIND_BIT(N_INVALID_MAJOR) | KIND_BIT(N_CRITICAL))

#define NAT (KIND_BIT(N_NAT_SOURCE) | KIND_BIT(N_NAT_DESTINATION))

enum row {
	BEGIN_INIT,
	BEGIN_AUTH,
	BEGIN_PROBE,
	BEGIN_CHILD,
	BEGIN_CHILD_REKEY,
	BEGIN_CHILD_DELETE,
	BEGIN_REKEY,
	BEGIN_DELETE,
	ROWS_BEGIN
};

static const struct rule rules[] = {
	/* What we begin. No message may find these: V2_START is left before
	 * anything is sent. */
	[BEGIN_INIT] = {
	    .shows = "-> HDR, [N(COOKIE)], SAi1, KEi, Ni, N(NAT_DETECTION)",
	    .cites = "RFC 7296 1.2",
	    .exchange = EXCH_IKE_SA_INIT, .role = ROLE_INITIATOR,
	    .state = V2_START, .guard = HALF, .cover = COVER_CLEAR,
	    .steps = { v2_init_i_begin, v2_init_i_send },
	    NEXT(V2_AWAIT_INIT),
	},
	[BEGIN_AUTH] = {
	    .shows = "-> HDR, SK {IDi, [IDr], AUTH, SAi2, TSi, TSr}",
	    .cites = "RFC 7296 1.2",
	    .exchange = EXCH_IKE_AUTH, .role = ROLE_INITIATOR,
	    .state = V2_START, .guard = HALF, .cover = COVER_SEALED,
	    .steps = { v2_auth_i_begin, v2_auth_i_send },
	    NEXT(V2_AWAIT_AUTH),
	},
	[BEGIN_PROBE] = {
	    .shows = "-> HDR, SK {}",
	    .cites = "RFC 7296 2.4",
	    .exchange = EXCH_INFORMATIONAL, .role = ROLE_INITIATOR,
	    .state = V2_START, .guard = UP, .cover = COVER_SEALED,
	    .steps = { v2_info_i_send },
	    NEXT(V2_AWAIT_INFO),
	},
	[BEGIN_CHILD] = {
	    .shows = "-> HDR, SK {SA, Ni, [KEi], TSi, TSr}",
	    .cites = "RFC 7296 1.3.1",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_INITIATOR,
	    .state = V2_START, .guard = UP, .cover = COVER_SEALED,
	    .steps = { v2_child_i_begin, v2_child_i_send },
	    NEXT(V2_AWAIT_CHILD),
	},
	[BEGIN_CHILD_REKEY] = {
	    .shows = "-> HDR, SK {N(REKEY_SA), SA, Ni, [KEi], TSi, TSr}",
	    .cites = "RFC 7296 1.3.3",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_INITIATOR,
	    .state = V2_START, .guard = UP, .cover = COVER_SEALED,
	    .steps = { v2_child_i_begin, v2_child_i_send },
	    NEXT(V2_AWAIT_REKEY),
	},
	[BEGIN_CHILD_DELETE] = {
	    .shows = "-> HDR, SK {D(ESP)}",
	    .cites = "RFC 7296 1.4.1",
	    .exchange = EXCH_INFORMATIONAL, .role = ROLE_INITIATOR,
	    .state = V2_START, .guard = UP, .cover = COVER_SEALED,
	    .steps = { v2_info_i_send },
	    NEXT(V2_AWAIT_INFO),
	},
	[BEGIN_REKEY] = {
	    .shows = "-> HDR, SK {SA, Ni, KEi}",
	    .cites = "RFC 7296 1.3.2",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_INITIATOR,
	    .state = V2_START, .guard = UP, .cover = COVER_SEALED,
	    .steps = { v2_rekey_i_begin, v2_rekey_i_send },
	    NEXT(V2_AWAIT_HEIR),
	},
	[BEGIN_DELETE] = {
	    .shows = "-> HDR, SK {D(IKE)}",
	    .cites = "RFC 7296 1.4.1",
	    .exchange = EXCH_INFORMATIONAL, .role = ROLE_INITIATOR,
	    .state = V2_START, .guard = LATE, .cover = COVER_SEALED,
	    .steps = { v2_info_i_send },
	    NEXT(V2_AWAIT_INFO),
	},

	/* IKE_SA_INIT */
	{
	    .shows = "HDR, [N(COOKIE)], SAi1, KEi, Ni, [N(NAT_DETECTION)]",
	    .cites = "RFC 7296 1.2, 2.6",
	    .exchange = EXCH_IKE_SA_INIT, .role = ROLE_RESPONDER,
	    .state = V2_IDLE, .guard = FRESH, .cover = COVER_CLEAR,
	    .must = KIND_BIT(SA) | KIND_BIT(KE) | KIND_BIT(NONCE),
	    .may = KIND_BIT(N_COOKIE) | KIND_BIT(N_FRAGMENTATION) | NAT,
	    .many = NAT,
	    .steps = { v2_init_r_begin, v2_init_r_answer },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, N(COOKIE)",
	    .cites = "RFC 7296 2.6",
	    .exchange = EXCH_IKE_SA_INIT, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_INIT, .guard = HALF, .cover = COVER_CLEAR,
	    .must = KIND_BIT(N_COOKIE), .not = KIND_BIT(SA),
	    .steps = { v2_init_i_cookie, v2_init_i_send },
	    NEXT(V2_AWAIT_INIT),
	},
	{
	    .shows = "HDR, N(INVALID_KE_PAYLOAD)",
	    .cites = "RFC 7296 1.2",
	    .exchange = EXCH_IKE_SA_INIT, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_INIT, .guard = HALF, .cover = COVER_CLEAR,
	    .must = KIND_BIT(N_INVALID_KE), .not = KIND_BIT(SA),
	    .steps = { v2_init_i_group, v2_init_i_send },
	    NEXT(V2_AWAIT_INIT),
	},
	{
	    .shows = "HDR, SAr1, KEr, Nr, [N(NAT_DETECTION)]",
	    .cites = "RFC 7296 1.2",
	    .exchange = EXCH_IKE_SA_INIT, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_INIT, .guard = HALF, .cover = COVER_CLEAR,
	    .must = KIND_BIT(SA) | KIND_BIT(KE) | KIND_BIT(NONCE),
	    .may = KIND_BIT(N_FRAGMENTATION) | NAT,
	    .many = NAT,
	    .steps = { v2_init_i_accept, v2_init_i_keys },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, N(error), which nobody vouches for",
	    .cites = "RFC 7296 2.21.1",
	    .exchange = EXCH_IKE_SA_INIT, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_INIT, .guard = HALF, .cover = COVER_CLEAR,
	    .may = ERRORS, .many = ERRORS, .not = KIND_BIT(SA),
	    .steps = { v2_init_i_error },
	    NEXT(V2_AWAIT_INIT),
	},

	/* IKE_AUTH */
	{
	    .shows = "HDR, SK {IDi, [N(INITIAL_CONTACT)], [IDr], AUTH, SAi2, "
	             "TSi, TSr}",
	    .cites = "RFC 7296 1.2, 2.15",
	    .exchange = EXCH_IKE_AUTH, .role = ROLE_RESPONDER,
	    .state = V2_IDLE, .guard = HALF, .cover = COVER_SEALED,
	    .must = KIND_BIT(IDI) | KIND_BIT(AUTH) | KIND_BIT(SA) |
	            KIND_BIT(TSI) | KIND_BIT(TSR),
	    .may = KIND_BIT(IDR) | KIND_BIT(N_INITIAL_CONTACT) |
	           KIND_BIT(N_TRANSPORT),
	    .steps = { v2_auth_r_identify, v2_auth_r_verify, v2_grant_choose,
	        v2_grant_install, v2_auth_r_answer },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {IDi, [IDr], SAi2, TSi, TSr}: without AUTH",
	    .cites = "RFC 7296 2.16",
	    .exchange = EXCH_IKE_AUTH, .role = ROLE_RESPONDER,
	    .state = V2_IDLE, .guard = HALF, .cover = COVER_SEALED,
	    .must = KIND_BIT(IDI), .not = KIND_BIT(AUTH),
	    .may = KIND_BIT(IDR) | KIND_BIT(SA) | KIND_BIT(TSI) |
	           KIND_BIT(TSR),
	    .steps = { v2_auth_r_without },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {IDr, AUTH, SAr2, TSi, TSr | N(error)}",
	    .cites = "RFC 7296 1.2, 2.15",
	    .exchange = EXCH_IKE_AUTH, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_AUTH, .guard = HALF, .cover = COVER_SEALED,
	    .must = KIND_BIT(IDR) | KIND_BIT(AUTH),
	    .may = KIND_BIT(SA) | KIND_BIT(TSI) | KIND_BIT(TSR) |
	           KIND_BIT(N_TRANSPORT) | KIND_BIT(N_INITIAL_CONTACT) |
	           ERRORS,
	    .many = ERRORS,
	    .steps = { v2_auth_i_check, v2_auth_i_establish, v2_child_i_accept,
	        v2_child_i_install, v2_child_i_done, v2_auth_i_finish },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {N(AUTHENTICATION_FAILED)}, or another error",
	    .cites = "RFC 7296 2.21.2",
	    .exchange = EXCH_IKE_AUTH, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_AUTH, .guard = HALF, .cover = COVER_SEALED,
	    .may = ERRORS, .many = ERRORS, .not = KIND_BIT(AUTH),
	    .steps = { v2_auth_i_refused },
	    NEXT(V2_DONE),
	},

	/* CREATE_CHILD_SA: what the peer begins */
	{
	    .shows = "HDR, SK {N(REKEY_SA), SA, Ni, [KEi], TSi, TSr}",
	    .cites = "RFC 7296 1.3.3, 2.8.1, 2.25.1",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_RESPONDER,
	    .state = V2_IDLE, .guard = LATE, .cover = COVER_SEALED,
	    .must = KIND_BIT(N_REKEY_SA) | KIND_BIT(SA) | KIND_BIT(NONCE) |
	            KIND_BIT(TSI) | KIND_BIT(TSR),
	    .may = KIND_BIT(KE) | KIND_BIT(N_TRANSPORT),
	    .steps = { v2_grant_guard, v2_grant_choose, v2_grant_install,
	        v2_grant_respond },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {SA, Ni, [KEi], TSi, TSr}",
	    .cites = "RFC 7296 1.3.1, 2.25.1",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_RESPONDER,
	    .state = V2_IDLE, .guard = LATE, .cover = COVER_SEALED,
	    .must = KIND_BIT(SA) | KIND_BIT(NONCE) | KIND_BIT(TSI) |
	            KIND_BIT(TSR),
	    .not = KIND_BIT(N_REKEY_SA),
	    .may = KIND_BIT(KE) | KIND_BIT(N_TRANSPORT),
	    .steps = { v2_grant_guard, v2_grant_choose, v2_grant_install,
	        v2_grant_respond },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {SA, Ni, KEi}",
	    .cites = "RFC 7296 1.3.2, 2.8.2, 2.25.2",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_RESPONDER,
	    .state = V2_IDLE, .guard = LATE, .cover = COVER_SEALED,
	    .must = KIND_BIT(SA) | KIND_BIT(NONCE) | KIND_BIT(KE),
	    .not = KIND_BIT(N_REKEY_SA) | KIND_BIT(TSI) | KIND_BIT(TSR),
	    .steps = { v2_rekey_r_choose, v2_rekey_r_answer },
	    NEXT(V2_DONE),
	},

	/* CREATE_CHILD_SA: answers */
	{
	    .shows = "HDR, SK {SA, Nr, [KEr], TSi, TSr}",
	    .cites = "RFC 7296 1.3.1",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_CHILD, .guard = LATE, .cover = COVER_SEALED,
	    .must = KIND_BIT(SA) | KIND_BIT(NONCE) | KIND_BIT(TSI) |
	            KIND_BIT(TSR),
	    .may = KIND_BIT(KE) | KIND_BIT(N_TRANSPORT),
	    .steps = { v2_child_i_accept, v2_child_i_install,
	        v2_child_i_done },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {N(INVALID_KE_PAYLOAD)}",
	    .cites = "RFC 7296 1.3",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_CHILD, .guard = LATE, .cover = COVER_SEALED,
	    .must = KIND_BIT(N_INVALID_KE), .not = KIND_BIT(SA),
	    .steps = { v2_child_i_group },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {N(error)}",
	    .cites = "RFC 7296 1.3, 2.25",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_CHILD, .guard = LATE, .cover = COVER_SEALED,
	    .may = ERRORS, .many = ERRORS, .not = KIND_BIT(SA),
	    .steps = { v2_child_i_refused },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {SA, Nr, [KEr], TSi, TSr}",
	    .cites = "RFC 7296 1.3.3, 2.8.1",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_REKEY, .guard = LATE, .cover = COVER_SEALED,
	    .must = KIND_BIT(SA) | KIND_BIT(NONCE) | KIND_BIT(TSI) |
	            KIND_BIT(TSR),
	    .may = KIND_BIT(KE) | KIND_BIT(N_TRANSPORT),
	    .steps = { v2_child_i_accept, v2_child_i_install,
	        v2_child_i_done },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {N(INVALID_KE_PAYLOAD)}",
	    .cites = "RFC 7296 1.3",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_REKEY, .guard = LATE, .cover = COVER_SEALED,
	    .must = KIND_BIT(N_INVALID_KE), .not = KIND_BIT(SA),
	    .steps = { v2_child_i_group },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {N(CHILD_SA_NOT_FOUND | TEMPORARY_FAILURE | ...)}",
	    .cites = "RFC 7296 2.25, 2.25.1",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_REKEY, .guard = LATE, .cover = COVER_SEALED,
	    .may = ERRORS, .many = ERRORS, .not = KIND_BIT(SA),
	    .steps = { v2_child_i_refused },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {SA, Nr, KEr}",
	    .cites = "RFC 7296 1.3.2, 2.8.2, 2.18",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_HEIR, .guard = LATE, .cover = COVER_SEALED,
	    .must = KIND_BIT(SA) | KIND_BIT(NONCE) | KIND_BIT(KE),
	    .steps = { v2_rekey_i_accept, v2_rekey_i_done },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {N(INVALID_KE_PAYLOAD)}",
	    .cites = "RFC 7296 1.3",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_HEIR, .guard = LATE, .cover = COVER_SEALED,
	    .must = KIND_BIT(N_INVALID_KE), .not = KIND_BIT(SA),
	    .steps = { v2_rekey_i_group },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {N(TEMPORARY_FAILURE | ...)}",
	    .cites = "RFC 7296 2.8.2, 2.25.2",
	    .exchange = EXCH_CREATE_CHILD_SA, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_HEIR, .guard = LATE, .cover = COVER_SEALED,
	    .may = ERRORS, .many = ERRORS, .not = KIND_BIT(SA),
	    .steps = { v2_rekey_i_refused },
	    NEXT(V2_DONE),
	},

	/* INFORMATIONAL */
	{
	    .shows = "HDR, SK {[N], [D]}",
	    .cites = "RFC 7296 1.4, 2.25",
	    .exchange = EXCH_INFORMATIONAL, .role = ROLE_RESPONDER,
	    .state = V2_IDLE, .guard = LATE, .cover = COVER_SEALED,
	    .may = KIND_BIT(DELETE) | ERRORS,
	    .many = KIND_BIT(DELETE) | ERRORS,
	    .steps = { v2_info_r_answer },
	    NEXT(V2_DONE),
	},
	{
	    .shows = "HDR, SK {[N], [D]}",
	    .cites = "RFC 7296 1.4, 1.4.1",
	    .exchange = EXCH_INFORMATIONAL, .role = ROLE_INITIATOR,
	    .state = V2_AWAIT_INFO, .guard = LATE, .cover = COVER_SEALED,
	    .may = KIND_BIT(DELETE) | ERRORS,
	    .many = KIND_BIT(DELETE) | ERRORS,
	    .steps = { v2_info_i_answer },
	    NEXT(V2_DONE),
	},
};

const struct fsm v2_fsm = {
	.rules = rules,
	.count = sizeof(rules) / sizeof(rules[0]),
	.anywhere = KIND_BIT(VID) | KIND_BIT(N_STATUS),
	.refused = v2_refused,
	.failed = v2_failed,
	.ignored = v2_ignored,
	.moved = v2_moved,
};

const struct rule *
v2_rules_begin(unsigned want)
{
	static const uint8_t row[] = {
		[WANT_PROBE] = BEGIN_PROBE,
		[WANT_CHILD] = BEGIN_CHILD,
		[WANT_CHILD_REKEY] = BEGIN_CHILD_REKEY,
		[WANT_CHILD_DELETE] = BEGIN_CHILD_DELETE,
		[WANT_REKEY] = BEGIN_REKEY,
		[WANT_DELETE] = BEGIN_DELETE,
	};

	return &rules[row[want]];
}

const struct rule *
v2_rules_begin_init(void)
{
	return &rules[BEGIN_INIT];
}

const struct rule *
v2_rules_begin_auth(void)
{
	return &rules[BEGIN_AUTH];
}
