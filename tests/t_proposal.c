#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/proposal.h"

static struct proposals
parse(enum ipsec_protocol protocol, const char *text)
{
	struct proposals proposals;
	const char *problem = NULL;
	bool strict;
	size_t at = 0;

	if (proposals_parse(
	        &proposals, protocol, text, &strict, &at, &problem) != OK)
		fail_msg("%s at %zu: %s", text, at, problem);
	return proposals;
}

static void
test_parse(void **state)
{
	static const struct {
		enum ipsec_protocol protocol;
		const char *text, *printed;
	} rows[] = {
		{ PROTO_IKE, "aes256-sha256-modp2048",
		    "aes256-sha256-modp2048" },
		{ PROTO_IKE, "AES256-SHA2_256-DH14", "aes256-sha256-modp2048" },
		{ PROTO_IKE, " aes-sha1-modp1024 ,\t3des-sha1-modp1024 ! ",
		    "aes128-sha1-modp1024, 3des-sha1-modp1024" },
		{ PROTO_IKE, "aes256-sha256-prfsha512-ecp256",
		    "aes256-sha256-prfsha512-ecp256" },
		/* The PRF that the hash brings along need not be named. */
		{ PROTO_IKE, "aes256-sha256-prfsha256-x25519",
		    "aes256-sha256-curve25519" },
		{ PROTO_IKE, "aes128gcm16-prfsha256-ecp256",
		    "aes128gcm16-prfsha256-ecp256" },
		/* Beside an AEAD a hash names the PRF. */
		{ PROTO_IKE, "aes128gcm16-sha384-ecp256",
		    "aes128gcm16-prfsha384-ecp256" },
		/* RFC 7296 3.3: AEAD and others in proposals of their own. */
		{ PROTO_IKE, "aes256-aes256gcm16-aes128-sha256-modp2048",
		    "aes256-aes128-sha256-modp2048, "
		    "aes256gcm16-prfsha256-modp2048" },
		{ PROTO_IKE, "aes256-aes256-sha256-sha256-modp2048-modp2048",
		    "aes256-sha256-modp2048" },
		{ PROTO_ESP, "aes256-sha256", "aes256-sha256" },
		{ PROTO_ESP, "aes256-sha256-noesn", "aes256-sha256" },
		{ PROTO_ESP, "aes256-sha256-esn", "aes256-sha256-esn" },
		{ PROTO_ESP, "aes256-sha256-esn-noesn-modp2048",
		    "aes256-sha256-modp2048-noesn-esn" },
		{ PROTO_ESP, "aes256gcm16", "aes256gcm16" },
		{ PROTO_ESP, "chacha20poly1305-ecp256",
		    "chacha20poly1305-ecp256" },
		{ PROTO_ESP, "aes128gcm16-sha256", "aes128gcm16" },
	};
	char text[512];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct proposals read = parse(rows[i].protocol, rows[i].text);
		struct proposals again;

		assert_string_equal(
		    proposals_text(&read, text, sizeof(text)), rows[i].printed);
		for (uint8_t k = 0; k < read.count; k++)
			assert_int_equal(
			    read.item[k].protocol, rows[i].protocol);
		/* What is printed can be read again. */
		again = parse(rows[i].protocol, text);
		assert_memory_equal(&again, &read, sizeof(read));
	}
}

static void
test_strict(void **state)
{
	struct proposals proposals;
	const char *problem;
	bool strict = false;
	size_t at;

	(void)state;
	assert_int_equal(proposals_parse(&proposals, PROTO_ESP,
	                     "aes256-sha256!", &strict, &at, &problem),
	    OK);
	assert_true(strict);
	assert_int_equal(proposals_parse(&proposals, PROTO_ESP, "aes256-sha256",
	                     &strict, &at, &problem),
	    OK);
	assert_false(strict);
}

static void
test_parse_errors(void **state)
{
	static const struct {
		enum ipsec_protocol protocol;
		const char *text;
		size_t at;
		const char *expected; /* in the problem */
	} rows[] = {
		{ PROTO_IKE, "", 0, "found nothing" },
		{ PROTO_IKE, "!", 0, "found nothing" },
		{ PROTO_IKE, "aes256-sha256-modp2048,", 23, "found nothing" },
		{ PROTO_IKE, "aes256--modp2048", 7, "found nothing" },
		{ PROTO_IKE, "aes256-sha256-modp2048!,aes128", 14, "expected" },
		{ PROTO_IKE, "aes256-sha257-modp2048", 7, "hash" },
		{ PROTO_IKE, "aes256-md5-modp2048", 7, "too weak" },
		{ PROTO_IKE, "des-sha256-modp2048", 0, "too weak" },
		{ PROTO_IKE, "aes256-sha256-modp768", 14, "too weak" },
		{ PROTO_IKE, "aes256-sha256", 0, "group" },
		{ PROTO_IKE, "aes256-sha256-modp2048, aes128-sha256", 24,
		    "group" },
		{ PROTO_IKE, "sha256-modp2048", 0, "cipher" },
		{ PROTO_IKE, "aes256-modp2048", 0, "hash" },
		{ PROTO_IKE, "aes256-prfsha256-modp2048", 0, "hash" },
		{ PROTO_IKE, "aes256gcm16-modp2048", 0, "PRF" },
		{ PROTO_IKE, "aes256gcm16-aes128-modp2048", 0, "PRF" },
		{ PROTO_IKE, "aes256-sha256-modp2048-esn", 23, "expected" },
		{ PROTO_ESP, "aes256", 0, "hash" },
		{ PROTO_ESP, "sha256", 0, "cipher" },
		{ PROTO_ESP, "aes256-prfsha256", 7, "PRF" },
		{ PROTO_ESP, "aes256-sha256-blah", 14, "esn" },
		{ PROTO_ESP,
		    "aes256-a_name_that_is_longer_than_any_algorithm_has", 7,
		    "expected" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct proposals proposals;
		const char *problem = NULL;
		bool strict;
		size_t at = 999;

		if (proposals_parse(&proposals, rows[i].protocol, rows[i].text,
		        &strict, &at, &problem) != ERR_SYNTAX)
			fail_msg("'%s' was taken", rows[i].text);
		assert_int_equal(at, rows[i].at);
		assert_non_null(problem);
		if (strstr(problem, rows[i].expected) == NULL)
			fail_msg("'%s': %s", rows[i].text, problem);
	}
}

/* 16 proposals are taken, 17 are not. */
static void
test_parse_bounds(void **state)
{
	struct proposals proposals;
	const char *problem;
	char text[1024] = "";
	bool strict;
	size_t at;

	(void)state;
	for (unsigned i = 1; i <= PROPOSALS_MAX + 1; i++) {
		strcat(text, i > 1 ? ",aes256-sha256" : "aes256-sha256");
		assert_int_equal(proposals_parse(&proposals, PROTO_ESP, text,
		                     &strict, &at, &problem),
		    i <= PROPOSALS_MAX ? OK : ERR_SYNTAX);
		if (i <= PROPOSALS_MAX)
			assert_int_equal(proposals.count, i);
	}
}

static void
test_default(void **state)
{
	struct proposals ike, esp, again;
	char text[1024], weak[64];

	(void)state;
	proposals_default(&ike, PROTO_IKE);
	proposals_default(&esp, PROTO_ESP);
	assert_string_equal(proposals_text(&ike, text, sizeof(text)),
	    "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha256-prfsha384-"
	    "prfsha512-curve25519-ecp256-ecp384-ecp521-modp3072-modp4096-"
	    "modp2048, aes256-aes128-sha256-sha384-sha512-curve25519-ecp256-"
	    "ecp384-ecp521-modp3072-modp4096-modp2048");
	again = parse(PROTO_IKE, text);
	assert_memory_equal(&again, &ike, sizeof(ike));
	assert_string_equal(proposals_text(&esp, text, sizeof(text)),
	    "aes256gcm16-aes128gcm16-chacha20poly1305-noesn-esn, "
	    "aes256-aes128-sha256-sha384-sha512-noesn-esn");
	again = parse(PROTO_ESP, text);
	assert_memory_equal(&again, &esp, sizeof(esp));
	/* Nothing but the modern tier is ever proposed by default. */
	assert_false(proposals_weak(&ike, weak, sizeof(weak)));
	assert_false(proposals_weak(&esp, weak, sizeof(weak)));
	assert_string_equal(weak, "");
}

static void
test_weak_and_limit(void **state)
{
	struct proposals proposals =
	    parse(PROTO_IKE, "aes256-sha1-sha256-modp2048,3des-sha1-modp1024,"
	                     "aes128gcm16-prfsha256-ecp256");
	struct alg_set usable = { .bits = UINT64_MAX };
	char text[128];

	(void)state;
	assert_true(proposals_weak(&proposals, text, sizeof(text)));
	assert_string_equal(text, "prfsha1, sha1, 3des, modp1024");
	assert_true(proposals_weak(&proposals, text, 12));
	assert_string_equal(text, "prfsha1...");
	proposals_limit(&proposals, &usable);
	assert_int_equal(proposals.count, 3);
	/* One of two hashes goes; a proposal without a cipher vanishes. */
	usable.bits &= ~((uint64_t)1 << ALG_SHA1_96);
	usable.bits &= ~((uint64_t)1 << ALG_PRF_SHA1);
	usable.bits &= ~((uint64_t)1 << ALG_3DES_CBC);
	proposals_limit(&proposals, &usable);
	assert_string_equal(proposals_text(&proposals, text, sizeof(text)),
	    "aes256-sha256-modp2048, aes128gcm16-prfsha256-ecp256");
	usable.bits = 0;
	proposals_limit(&proposals, &usable);
	assert_int_equal(proposals.count, 0);
}

/* Offers ------------------------------------------------------------------ */

static void
add_number(struct offer *offer, unsigned kind, uint16_t number, uint16_t bits)
{
	struct transform *transform = &offer->transform[offer->count++];

	transform->kind = (uint8_t)kind;
	transform->number = number;
	transform->key_bits = bits;
	transform->broken = false;
	transform->alg = kind < ALG_KINDS
	                     ? alg_by_ikev2((enum alg_kind)kind, number, bits)
	                     : NULL;
}

/* What a peer with this policy sends, one offer a proposal. */
static size_t
offers_of(enum ipsec_protocol protocol, const char *text, struct offer *offers)
{
	struct proposals proposals = parse(protocol, text);

	for (uint8_t i = 0; i < proposals.count; i++) {
		const struct proposal *from = &proposals.item[i];

		memset(&offers[i], 0, sizeof(offers[i]));
		offers[i].number = (uint8_t)(i + 1);
		offers[i].protocol = (uint8_t)protocol;
		for (unsigned kind = 0; kind < ALG_KINDS; kind++)
			for (uint8_t k = 0; k < from->count[kind]; k++)
				add_number(&offers[i], kind,
				    proposal_alg(from, kind, k)->ikev2,
				    proposal_alg(from, kind, k)->key_attr
				        ? proposal_alg(from, kind, k)->key_bits
				        : 0);
		if (from->esn & ESN_NO)
			add_number(&offers[i], ALG_KINDS, 0, 0);
		if (from->esn & ESN_YES)
			add_number(&offers[i], ALG_KINDS, 1, 0);
	}
	return proposals.count;
}

static void
test_choose(void **state)
{
	static const struct {
		enum ipsec_protocol protocol;
		const char *ours, *theirs;
		bool optional, first;
		const char *suite; /* NULL: none */
		size_t chosen;
	} rows[] = {
		{ PROTO_IKE, "aes256-sha256-modp2048", "aes256-sha256-modp2048",
		    false, false, "aes256-sha256-modp2048", 0 },
		/* Our order counts, of proposals and of algorithms. */
		{ PROTO_IKE, "aes256-aes128-sha256-modp2048-ecp256",
		    "aes128-aes256-sha256-ecp256-modp2048", false, false,
		    "aes256-sha256-modp2048", 0 },
		{ PROTO_IKE,
		    "aes256-sha256-ecp256,aes128gcm16-prfsha256-ecp256",
		    "aes128gcm16-prfsha256-ecp256,aes256-sha256-ecp256", false,
		    false, "aes256-sha256-ecp256", 1 },
		{ PROTO_IKE, "aes256-sha256-modp2048", "aes256-sha256-ecp256",
		    false, false, NULL, 0 },
		{ PROTO_IKE, "aes256-sha256-modp2048", "aes192-sha256-modp2048",
		    false, false, NULL, 0 },
		{ PROTO_IKE, "aes256-sha256-modp2048",
		    "aes256-sha256-prfsha512-modp2048", false, false, NULL, 0 },
		{ PROTO_IKE, "aes128gcm16-prfsha256-ecp256",
		    "aes128gcm16-prfsha256-ecp256", false, false,
		    "aes128gcm16-prfsha256-ecp256", 0 },
		/* No mixing of two proposals. */
		{ PROTO_IKE, "aes256-sha256-ecp256",
		    "aes256-sha256-modp2048,aes128-sha256-ecp256", false, false,
		    NULL, 0 },
		{ PROTO_ESP, "aes256-sha256", "aes256-sha256", false, false,
		    "aes256-sha256", 0 },
		{ PROTO_ESP, "aes256-sha256-esn-noesn",
		    "aes256-sha256-noesn-esn", false, false,
		    "aes256-sha256-esn", 0 },
		{ PROTO_ESP, "aes256-sha256-esn-noesn", "aes256-sha256", false,
		    false, "aes256-sha256", 0 },
		{ PROTO_ESP, "aes256-sha256", "aes256-sha256-esn", false, false,
		    NULL, 0 },
		/* Groups of children: strict, optional, first. */
		{ PROTO_ESP, "aes256-sha256-modp2048", "aes256-sha256", false,
		    false, NULL, 0 },
		{ PROTO_ESP, "aes256-sha256", "aes256-sha256-modp2048", false,
		    false, NULL, 0 },
		{ PROTO_ESP, "aes256-sha256-modp2048", "aes256-sha256", true,
		    false, "aes256-sha256", 0 },
		{ PROTO_ESP, "aes256-sha256",
		    "aes256-sha256-modp1024-ecp256-modp2048", true, false,
		    "aes256-sha256-ecp256", 0 },
		{ PROTO_ESP, "aes256-sha256", "aes256-sha256-modp1024", true,
		    false, NULL, 0 },
		{ PROTO_ESP, "aes256-sha256-modp2048",
		    "aes256-sha256-ecp256-modp2048", true, false,
		    "aes256-sha256-modp2048", 0 },
		{ PROTO_ESP, "aes256-sha256-modp2048", "aes256-sha256-ecp256",
		    true, false, NULL, 0 },
		{ PROTO_ESP, "aes256-sha256-modp2048", "aes256-sha256-ecp256",
		    true, true, "aes256-sha256", 0 },
		{ PROTO_ESP, "aes256-sha256-modp2048", "aes256-sha256", false,
		    true, "aes256-sha256", 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct proposals ours = parse(rows[i].protocol, rows[i].ours);
		struct offer offers[4];
		size_t count =
		    offers_of(rows[i].protocol, rows[i].theirs, offers);
		struct choice choice = { .chosen = 99 };
		char text[SUITE_TEXT];
		enum err err = proposals_choose(&ours, offers, count,
		    rows[i].optional, rows[i].first, &choice);

		if (rows[i].suite == NULL) {
			assert_int_equal(err, ERR_NO_PROPOSAL);
			continue;
		}
		if (err != OK)
			fail_msg("%s and %s", rows[i].ours, rows[i].theirs);
		assert_string_equal(
		    suite_text(&choice.suite, text), rows[i].suite);
		assert_int_equal(choice.chosen, rows[i].chosen);
		assert_true(proposals_allow(&ours, &choice.suite));
	}
}

/* Numbers that mean "none", numbers that nobody knows, void transforms. */
static void
test_choose_oddities(void **state)
{
	struct proposals gcm = parse(PROTO_ESP, "aes128gcm16");
	struct proposals cbc = parse(PROTO_ESP, "aes128-sha256-ecp256");
	struct offer offer;
	struct choice choice;

	(void)state;
	offers_of(PROTO_ESP, "aes128gcm16", &offer);
	add_number(&offer, ALG_INTEG, 0, 0);
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 1, false, false, &choice), OK);
	assert_null(choice.suite.integ);
	/* An AEAD with a real INTEG beside it, RFC 7296 3.3. */
	offers_of(PROTO_ESP, "aes128gcm16", &offer);
	add_number(&offer, ALG_INTEG, 12, 0);
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 1, false, false, &choice),
	    ERR_NO_PROPOSAL);
	/* Group "none" counts as no group. */
	offers_of(PROTO_ESP, "aes128gcm16", &offer);
	add_number(&offer, ALG_KEX, 0, 0);
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 1, false, false, &choice), OK);
	offers_of(PROTO_ESP, "aes128-sha256-modp2048", &offer);
	assert_int_equal(
	    proposals_choose(&cbc, &offer, 1, true, false, &choice),
	    ERR_NO_PROPOSAL);
	add_number(&offer, ALG_KEX, 0, 0);
	assert_int_equal(
	    proposals_choose(&cbc, &offer, 1, true, false, &choice), OK);
	assert_null(choice.suite.kex);
	/* No ESN transform: short sequence numbers. */
	offers_of(PROTO_ESP, "aes128gcm16", &offer);
	offer.count--;
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 1, false, false, &choice), OK);
	assert_false(choice.suite.esn);
	/* An ESN that does not exist. */
	add_number(&offer, ALG_KINDS, 2, 0);
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 1, false, false, &choice),
	    ERR_NO_PROPOSAL);
	/* Unknown numbers beside known ones do no harm. */
	offers_of(PROTO_ESP, "aes128gcm16", &offer);
	add_number(&offer, ALG_ENCR, 1234, 0);
	add_number(&offer, ALG_ENCR, 20, 129);
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 1, false, false, &choice), OK);
	/* RFC 7296 3.3.6: a broken transform is void, the rest is not. */
	offer.transform[0].broken = true;
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 1, false, false, &choice),
	    ERR_NO_PROPOSAL);
	add_number(&offer, ALG_ENCR, 20, 128);
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 1, false, false, &choice), OK);
	/* A transform type that we do not know voids the proposal. */
	add_number(&offer, ALG_KINDS + 1, 1, 0);
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 1, false, false, &choice),
	    ERR_NO_PROPOSAL);
	/* Another protocol; no offers; no proposals. */
	offers_of(PROTO_ESP, "aes128gcm16", &offer);
	offer.protocol = PROTO_AH;
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 1, false, false, &choice),
	    ERR_NO_PROPOSAL);
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 0, false, false, &choice),
	    ERR_NO_PROPOSAL);
	gcm.count = 0;
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 1, false, false, &choice),
	    ERR_NO_PROPOSAL);
}

/* A count that lies must not lead beyond the array. */
static void
test_lying_count(void **state)
{
	struct proposals gcm = parse(PROTO_ESP, "aes128gcm16");
	struct offer offer;
	struct choice choice;
	struct suite suite;
	char text[64];

	(void)state;
	offers_of(PROTO_ESP, "aes128gcm16", &offer);
	while (offer.count < OFFER_TRANSFORMS)
		add_number(&offer, ALG_ENCR, 1000, 0);
	offer.count = 255;
	assert_int_equal(
	    proposals_choose(&gcm, &offer, 1, false, false, &choice), OK);
	assert_int_equal(
	    proposals_accept(&gcm, &offer, false, &suite), ERR_NO_PROPOSAL);
	offer_text(&offer, text, sizeof(text));
	assert_string_equal(text + strlen(text) - 3, "...");
}

static void
test_accept(void **state)
{
	struct proposals ours =
	    parse(PROTO_IKE, "aes256-aes128-sha256-modp2048-ecp256");
	struct proposals child = parse(PROTO_ESP, "aes256-sha256-modp2048");
	struct offer answer;
	struct suite suite;
	char text[SUITE_TEXT];

	(void)state;
	offers_of(PROTO_IKE, "aes128-sha256-ecp256", &answer);
	assert_int_equal(proposals_accept(&ours, &answer, false, &suite), OK);
	assert_string_equal(suite_text(&suite, text), "aes128-sha256-ecp256");
	/* RFC 7296 2.7: exactly one of each, and one that we proposed. */
	offers_of(PROTO_IKE, "aes128-aes256-sha256-ecp256", &answer);
	assert_int_equal(
	    proposals_accept(&ours, &answer, false, &suite), ERR_NO_PROPOSAL);
	offers_of(PROTO_IKE, "aes192-sha256-ecp256", &answer);
	assert_int_equal(
	    proposals_accept(&ours, &answer, false, &suite), ERR_NO_PROPOSAL);
	offers_of(PROTO_IKE, "aes128-sha256-ecp384", &answer);
	assert_int_equal(
	    proposals_accept(&ours, &answer, false, &suite), ERR_NO_PROPOSAL);
	offers_of(PROTO_IKE, "aes128-sha256-ecp256", &answer);
	answer.transform[0].broken = true;
	assert_int_equal(
	    proposals_accept(&ours, &answer, false, &suite), ERR_NO_PROPOSAL);
	answer.count = 0;
	assert_int_equal(
	    proposals_accept(&ours, &answer, false, &suite), ERR_NO_PROPOSAL);

	/* A child without the group that we asked for: only in IKE_AUTH. */
	offers_of(PROTO_ESP, "aes256-sha256", &answer);
	assert_int_equal(
	    proposals_accept(&child, &answer, false, &suite), ERR_NO_PROPOSAL);
	assert_int_equal(proposals_accept(&child, &answer, true, &suite), OK);
	assert_null(suite.kex);
	offers_of(PROTO_ESP, "aes256-sha256-modp2048", &answer);
	assert_int_equal(proposals_accept(&child, &answer, false, &suite), OK);
	assert_string_equal(suite_text(&suite, text), "aes256-sha256-modp2048");
}

static void
test_suites(void **state)
{
	struct proposals ike = parse(PROTO_IKE, "aes256-sha256-modp2048");
	struct proposals esp = parse(PROTO_ESP, "aes256-sha256");
	struct suite a = { .encr = alg_get(ALG_AES256_CBC),
		.prf = alg_get(ALG_PRF_SHA256),
		.integ = alg_get(ALG_SHA256_128),
		.kex = alg_get(ALG_MODP2048) };
	struct suite b = a;

	(void)state;
	assert_true(suite_equal(&a, &b));
	assert_true(proposals_allow(&ike, &a));
	b.kex = alg_get(ALG_ECP256);
	assert_false(suite_equal(&a, &b));
	assert_false(proposals_allow(&ike, &b));
	b.kex = NULL;
	assert_false(suite_equal(&a, &b));
	assert_false(proposals_allow(&ike, &b));
	b.prf = NULL;
	assert_true(proposals_allow(&esp, &b));
	b.kex = alg_get(ALG_ECP256);
	assert_true(proposals_allow(&esp, &b));
	b.kex = alg_get(ALG_MODP1024);
	assert_false(proposals_allow(&esp, &b));
	b.kex = NULL;
	b.esn = true;
	assert_false(proposals_allow(&esp, &b));
	b.esn = false;
	b.integ = NULL;
	assert_false(proposals_allow(&esp, &b));
}

static void
test_offer_text(void **state)
{
	struct offer offer;
	char text[128];

	(void)state;
	memset(&offer, 0, sizeof(offer));
	assert_string_equal(offer_text(&offer, text, sizeof(text)), "");
	add_number(&offer, ALG_ENCR, 20, 256);
	add_number(&offer, ALG_ENCR, 20, 512);
	add_number(&offer, ALG_ENCR, 99, 0);
	add_number(&offer, ALG_INTEG, 0, 0);
	add_number(&offer, ALG_KEX, 1024, 0);
	offer.transform[4].broken = true;
	add_number(&offer, ALG_KINDS, 0, 0);
	add_number(&offer, ALG_KINDS, 1, 0);
	add_number(&offer, ALG_KINDS, 7, 0);
	add_number(&offer, 77, 3, 0);
	assert_string_equal(offer_text(&offer, text, sizeof(text)),
	    "aes256gcm16-encr#20/512-encr#99-integ#none-group#1024?-noesn-"
	    "esn-esn#7-other#3");
	for (size_t size = 1; size < 60; size++) {
		text[size] = '!';
		offer_text(&offer, text, size);
		assert_int_equal(text[size], '!');
		if (size > 3)
			assert_string_equal(text + strlen(text) - 3, "...");
	}
}

static void
test_explain(void **state)
{
	static const struct {
		enum ipsec_protocol protocol;
		const char *ours, *theirs;
		bool first;
		unsigned differ;
		const char *text;
	} rows[] = {
		{ PROTO_IKE, "aes256-sha256-modp2048-ecp256",
		    "aes256-sha256-modp1024", false, 1,
		    "group: offered modp1024; allowed modp2048, ecp256" },
		{ PROTO_IKE, "aes256-sha256-modp2048",
		    "3des-sha256-modp1024,3des-sha1-modp1024", false, 2,
		    "encryption: offered 3des; allowed aes256. group: offered "
		    "modp1024; allowed modp2048" },
		{ PROTO_IKE,
		    "aes256gcm16-prfsha256-ecp256,aes128-sha1-modp1024",
		    "aes256-sha1-modp1024", false, 1,
		    "encryption: offered aes256; allowed aes128" },
		{ PROTO_IKE, "aes256-sha256-modp2048", "aes256-sha256-modp2048",
		    false, 0, "" },
		{ PROTO_ESP, "aes256-sha256", "aes256gcm16-esn", false, 3,
		    "encryption: offered aes256gcm16; allowed aes256. "
		    "integrity: offered none; allowed sha256. sequence "
		    "numbers: offered esn; allowed noesn" },
		{ PROTO_ESP, "aes256gcm16", "aes256gcm16-modp1024", false, 1,
		    "group: offered modp1024; allowed none" },
		{ PROTO_ESP, "aes256gcm16", "aes256gcm16-modp1024", true, 0,
		    "" },
	};
	struct proposals ours = parse(PROTO_ESP, "aes256-sha256");
	struct offer offers[4];
	char text[256];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct proposals allowed =
		    parse(rows[i].protocol, rows[i].ours);
		size_t count =
		    offers_of(rows[i].protocol, rows[i].theirs, offers);

		assert_int_equal(proposals_explain(&allowed, offers, count,
		                     rows[i].first, text, sizeof(text)),
		    rows[i].differ);
		assert_string_equal(text, rows[i].text);
	}
	assert_true(
	    proposals_explain(&ours, offers, 0, false, text, sizeof(text)) > 0);
	assert_string_equal(text, "nothing was offered");
	offers[0].protocol = PROTO_AH;
	assert_true(
	    proposals_explain(&ours, offers, 1, false, text, sizeof(text)) > 0);
	assert_string_equal(text, "protocol: offered AH; allowed ESP");
	assert_true(proposals_explain(&ours, offers, 1, false, text, 24) > 0);
	assert_string_equal(text, "protocol: offered AH...");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_strict),
		cmocka_unit_test(test_parse_errors),
		cmocka_unit_test(test_parse_bounds),
		cmocka_unit_test(test_default),
		cmocka_unit_test(test_weak_and_limit),
		cmocka_unit_test(test_choose),
		cmocka_unit_test(test_choose_oddities),
		cmocka_unit_test(test_lying_count),
		cmocka_unit_test(test_accept),
		cmocka_unit_test(test_suites),
		cmocka_unit_test(test_offer_text),
		cmocka_unit_test(test_explain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
