#include "common/proposal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/buf.h"

/* ESN is not an algorithm, but a transform type; its place follows theirs. */
#define KIND_ESN ALG_KINDS

/* Lists of alternatives --------------------------------------------------- */

const struct alg *
proposal_alg(const struct proposal *proposal, enum alg_kind kind, size_t at)
{
	return at < proposal->count[kind]
	           ? alg_get((enum alg_id)proposal->alg[kind][at])
	           : NULL;
}

static bool
has_alg(const struct proposal *proposal, const struct alg *alg)
{
	for (uint8_t i = 0; i < proposal->count[alg->kind]; i++)
		if (proposal->alg[alg->kind][i] == alg->id)
			return true;
	return false;
}

/* Once is enough. False if there is no room. */
static bool
add_alg(struct proposal *proposal, const struct alg *alg)
{
	uint8_t *count = &proposal->count[alg->kind];

	if (has_alg(proposal, alg))
		return true;
	if (*count == PROPOSAL_ALTERNATIVES)
		return false;
	proposal->alg[alg->kind][(*count)++] = alg->id;
	return true;
}

static void
drop_kind(struct proposal *proposal, unsigned kind)
{
	proposal->count[kind] = 0;
	memset(proposal->alg[kind], 0, sizeof(proposal->alg[kind]));
}

static bool
is_aead_proposal(const struct proposal *proposal)
{
	return proposal->count[ALG_ENCR] > 0 &&
	       alg_is_aead(proposal_alg(proposal, ALG_ENCR, 0));
}

/* Parsing ----------------------------------------------------------------- */

#define WORD_MAX 32 /* octets of a name, with NUL */

struct parser {
	struct proposals *proposals;
	enum ipsec_protocol protocol;
	const char *text;
	size_t at;     /* where the present word begins */
	size_t opened; /* where the present proposal begins */
	const char *problem;
	struct proposal open; /* the present proposal, AEAD mixed with others */
};

static bool
fail(struct parser *parser, size_t at, const char *problem)
{
	parser->at = at;
	parser->problem = problem;
	return false;
}

/* Names that people will look for in vain. */
static bool
is_refused_name(const char *word)
{
	static const char *const names[] = { "des", "md5", "md5_128", "prfmd5",
		"modp768", "dh1", "dh22", "dh23", "dh24", "modp1024s160",
		"modp2048s224", "modp2048s256" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcasecmp(word, names[i]) == 0)
			return true;
	return false;
}

static bool
unknown_word(struct parser *parser, const char *word)
{
	if (is_refused_name(word))
		return fail(parser, parser->at,
		    "expected one such as aes256, sha256 or modp2048: this "
		    "algorithm is too weak to be supported");
	if (parser->protocol == PROTO_IKE)
		return fail(parser, parser->at,
		    "expected an algorithm of IKE: a cipher (aes256), a hash "
		    "(sha256), a PRF (prfsha256) or a group (modp2048)");
	return fail(parser, parser->at,
	    "expected an algorithm of ESP: a cipher (aes256), a hash "
	    "(sha256), a group for PFS (modp2048), esn or noesn");
}

static bool
take_word(struct parser *parser, const char *word)
{
	static const uint8_t order[] = { ALG_ENCR, ALG_INTEG, ALG_KEX,
		ALG_PRF };
	const struct alg *alg = NULL;

	if (*word == '\0')
		return fail(parser, parser->at,
		    "expected an algorithm, found "
		    "nothing");
	if (parser->protocol != PROTO_IKE) {
		if (strcasecmp(word, "esn") == 0) {
			parser->open.esn |= ESN_YES;
			return true;
		}
		if (strcasecmp(word, "noesn") == 0) {
			parser->open.esn |= ESN_NO;
			return true;
		}
	}
	/* "sha256" names an INTEG and a PRF: here the former is meant. */
	for (size_t i = 0; i < sizeof(order) && alg == NULL; i++)
		alg = alg_by_name((enum alg_kind)order[i], word);
	if (alg == NULL)
		return unknown_word(parser, word);
	if (alg->kind == ALG_PRF && parser->protocol != PROTO_IKE)
		return fail(parser, parser->at,
		    "expected a cipher, a hash or a group: ESP has no PRF");
	if (!add_alg(&parser->open, alg))
		return fail(parser, parser->at,
		    "expected at most 12 algorithms of a kind");
	return true;
}

/* Takes the ciphers of one sort (AEAD or not) into a proposal of their own:
 * RFC 7296 3.3 wants them apart, because one sort needs an INTEG. */
static bool
close_half(struct parser *parser, bool aead)
{
	const struct proposal *open = &parser->open;
	struct proposal half = *open;

	drop_kind(&half, ALG_ENCR);
	for (uint8_t i = 0; i < open->count[ALG_ENCR]; i++)
		if (alg_is_aead(proposal_alg(open, ALG_ENCR, i)) == aead)
			(void)add_alg(&half, proposal_alg(open, ALG_ENCR, i));
	if (half.count[ALG_ENCR] == 0)
		return true;
	/* A hash beside an AEAD names the PRF and nothing else. */
	if (aead)
		drop_kind(&half, ALG_INTEG);
	else if (half.count[ALG_INTEG] == 0)
		return fail(parser, parser->opened,
		    "expected a hash (sha256) beside a cipher that is no "
		    "AEAD");
	if (parser->proposals->count == PROPOSALS_MAX)
		return fail(
		    parser, parser->opened, "expected at most 16 proposals");
	parser->proposals->item[parser->proposals->count++] = half;
	return true;
}

static bool
close_proposal(struct parser *parser)
{
	struct proposal *open = &parser->open;
	bool aead_first;

	if (open->count[ALG_ENCR] == 0)
		return fail(parser, parser->opened,
		    "expected a cipher (aes256) in the proposal");
	if (parser->protocol == PROTO_IKE && open->count[ALG_KEX] == 0)
		return fail(parser, parser->opened,
		    "expected a group (modp2048, ecp256, curve25519) in the "
		    "IKE proposal");
	if (parser->protocol == PROTO_IKE && open->count[ALG_PRF] == 0) {
		if (open->count[ALG_INTEG] == 0 && is_aead_proposal(open))
			return fail(parser, parser->opened,
			    "expected a PRF (prfsha256) beside an AEAD "
			    "cipher");
		for (uint8_t i = 0; i < open->count[ALG_INTEG]; i++) {
			const struct alg *prf =
			    alg_prf_of_integ(proposal_alg(open, ALG_INTEG, i));

			if (prf != NULL)
				(void)add_alg(open, prf);
		}
	}
	if (parser->protocol != PROTO_IKE && open->esn == ESN_NONE)
		open->esn = ESN_NO;
	/* The order of the two halves is that of their first ciphers. */
	aead_first = is_aead_proposal(open);
	return close_half(parser, aead_first) &&
	       close_half(parser, !aead_first);
}

static void
open_proposal(struct parser *parser, size_t at)
{
	memset(&parser->open, 0, sizeof(parser->open));
	parser->open.protocol = (uint8_t)parser->protocol;
	parser->opened = at;
}

static bool
is_space(char c)
{
	return c == ' ' || c == '\t';
}

/* Words up to len octets of the text. */
static bool
parse_words(struct parser *parser, size_t len)
{
	size_t at = 0;

	while (at < len && is_space(parser->text[at]))
		at++;
	open_proposal(parser, at);
	for (;;) {
		char word[WORD_MAX];
		size_t end = at, word_end;

		while (end < len && parser->text[end] != '-' &&
		       parser->text[end] != ',')
			end++;
		word_end = end;
		while (word_end > at && is_space(parser->text[word_end - 1]))
			word_end--;
		parser->at = at;
		if (word_end - at >= sizeof(word))
			return unknown_word(parser, "");
		memcpy(word, parser->text + at, word_end - at);
		word[word_end - at] = '\0';
		if (!take_word(parser, word))
			return false;
		if (end == len)
			return close_proposal(parser);
		at = end + 1;
		if (parser->text[end] == '-')
			continue;
		while (at < len && is_space(parser->text[at]))
			at++;
		if (!close_proposal(parser))
			return false;
		open_proposal(parser, at);
	}
}

enum err
proposals_parse(struct proposals *proposals, enum ipsec_protocol protocol,
    const char *text, bool *strict, size_t *at, const char **problem)
{
	struct proposals read;
	struct parser parser = { .protocol = protocol, .text = text };
	size_t len = strlen(text);
	bool bang = false;

	memset(&read, 0, sizeof(read));
	parser.proposals = &read;
	while (len > 0 && is_space(text[len - 1]))
		len--;
	if (len > 0 && text[len - 1] == '!') {
		bang = true;
		len--;
	}
	if (!parse_words(&parser, len)) {
		*at = parser.at;
		*problem = parser.problem;
		return ERR_SYNTAX;
	}
	*proposals = read;
	*strict = bang;
	return OK;
}

void
proposals_default(struct proposals *proposals, enum ipsec_protocol protocol)
{
	static const uint8_t ids[] = { ALG_AES256_GCM16, ALG_AES128_GCM16,
		ALG_CHACHA20_POLY1305, ALG_AES256_CBC, ALG_AES128_CBC,
		ALG_SHA256_128, ALG_SHA384_192, ALG_SHA512_256, ALG_CURVE25519,
		ALG_ECP256, ALG_ECP384, ALG_ECP521, ALG_MODP3072, ALG_MODP4096,
		ALG_MODP2048 };
	struct parser parser = { .protocol = protocol, .text = "" };

	memset(proposals, 0, sizeof(*proposals));
	parser.proposals = proposals;
	open_proposal(&parser, 0);
	for (size_t i = 0; i < sizeof(ids); i++) {
		const struct alg *alg = alg_get((enum alg_id)ids[i]);

		if (alg->kind != ALG_KEX || protocol == PROTO_IKE)
			(void)add_alg(&parser.open, alg);
	}
	if (protocol != PROTO_IKE)
		parser.open.esn = ESN_NO | ESN_YES;
	(void)close_proposal(&parser);
}

/* Sifting ----------------------------------------------------------------- */

/* Takes out what is not usable. False if a kind has nothing left. */
static bool
limit_proposal(struct proposal *proposal, const struct alg_set *usable)
{
	for (unsigned kind = 0; kind < ALG_KINDS; kind++) {
		struct proposal before = *proposal;

		drop_kind(proposal, kind);
		for (uint8_t i = 0; i < before.count[kind]; i++)
			if (alg_set_has(usable, proposal_alg(&before, kind, i)))
				(void)add_alg(
				    proposal, proposal_alg(&before, kind, i));
		if (before.count[kind] > 0 && proposal->count[kind] == 0)
			return false;
	}
	return true;
}

void
proposals_limit(struct proposals *proposals, const struct alg_set *usable)
{
	struct proposals kept;

	memset(&kept, 0, sizeof(kept));
	for (uint8_t i = 0; i < proposals->count; i++) {
		struct proposal *proposal = &proposals->item[i];

		if (limit_proposal(proposal, usable))
			kept.item[kept.count++] = *proposal;
	}
	*proposals = kept;
}

/* Text -------------------------------------------------------------------- */

/* A list of words in bounded text: what does not fit becomes "...". */
struct words {
	struct buf buf;
	const char *gap;
	bool started;
};

static void
words_init(struct words *words, char *text, size_t size, const char *gap)
{
	buf_init(&words->buf, text, size - 1);
	words->gap = gap;
	words->started = false;
}

static void
words_add(struct words *words, const char *word)
{
	struct buf *buf = &words->buf;

	if (buf->cap - buf->len <
	    strlen(word) + (words->started ? strlen(words->gap) : 0))
		buf->full = true;
	if (words->started)
		buf_view(buf, view_text(words->gap));
	buf_view(buf, view_text(word));
	words->started = true;
}

static void
words_end(struct words *words)
{
	struct buf *buf = &words->buf;

	if (buf->full && buf->cap >= 3) {
		if (buf->len > buf->cap - 3)
			buf->len = buf->cap - 3;
		memcpy(buf->at + buf->len, "...", 3);
		buf->len += 3;
	}
	buf->at[buf->len] = '\0';
}

bool
proposals_weak(const struct proposals *proposals, char *text, size_t size)
{
	struct words words;
	uint64_t named = 0;

	words_init(&words, text, size, ", ");
	for (uint8_t i = 0; i < proposals->count; i++) {
		const struct proposal *proposal = &proposals->item[i];

		for (unsigned kind = 0; kind < ALG_KINDS; kind++) {
			for (uint8_t k = 0; k < proposal->count[kind]; k++) {
				const struct alg *alg =
				    proposal_alg(proposal, kind, k);
				uint64_t bit = (uint64_t)1 << alg->id;

				if (alg->tier == TIER_MODERN || (named & bit))
					continue;
				named |= bit;
				words_add(&words, alg->name);
			}
		}
	}
	words_end(&words);
	return named != 0;
}

/* Are the PRFs those that the hashes bring along? Then nobody names them. */
static bool
is_usual_prf(const struct proposal *proposal)
{
	uint8_t count = proposal->count[ALG_PRF];

	if (count != proposal->count[ALG_INTEG])
		return false;
	for (uint8_t i = 0; i < count; i++)
		if (alg_prf_of_integ(proposal_alg(proposal, ALG_INTEG, i)) !=
		    proposal_alg(proposal, ALG_PRF, i))
			return false;
	return true;
}

/* The order in which the kinds are written. */
static const uint8_t kinds_written[ALG_KINDS] = { ALG_ENCR, ALG_INTEG, ALG_PRF,
	ALG_KEX };

static void
add_proposal(struct words *words, const struct proposal *proposal)
{
	for (unsigned n = 0; n < ALG_KINDS; n++) {
		unsigned kind = kinds_written[n];

		if (kind == ALG_PRF && is_usual_prf(proposal))
			continue;
		for (uint8_t i = 0; i < proposal->count[kind]; i++)
			words_add(words, proposal_alg(proposal, kind, i)->name);
	}
	if (proposal->esn == (ESN_NO | ESN_YES))
		words_add(words, "noesn");
	if (proposal->esn & ESN_YES)
		words_add(words, "esn");
}

char *
proposal_text(const struct proposal *proposal, char *text, size_t size)
{
	struct words words;

	words_init(&words, text, size, "-");
	add_proposal(&words, proposal);
	words_end(&words);
	return text;
}

char *
proposals_text(const struct proposals *proposals, char *text, size_t size)
{
	struct words words;

	words_init(&words, text, size, "-");
	for (uint8_t i = 0; i < proposals->count; i++) {
		words.gap = ", ";
		/* The comma stands before the first word only. */
		if (words.started)
			buf_view(&words.buf, view_text(words.gap));
		words.gap = "-";
		words.started = false;
		add_proposal(&words, &proposals->item[i]);
	}
	words_end(&words);
	return text;
}

char *
suite_text(const struct suite *suite, char text[static SUITE_TEXT])
{
	struct words words;

	words_init(&words, text, SUITE_TEXT, "-");
	if (suite->encr != NULL)
		words_add(&words, suite->encr->name);
	if (suite->integ != NULL)
		words_add(&words, suite->integ->name);
	if (suite->prf != NULL &&
	    (suite->integ == NULL ||
	        alg_prf_of_integ(suite->integ) != suite->prf))
		words_add(&words, suite->prf->name);
	if (suite->kex != NULL)
		words_add(&words, suite->kex->name);
	if (suite->esn)
		words_add(&words, "esn");
	words_end(&words);
	return text;
}

static const char *const kind_names[] = {
	[ALG_ENCR] = "encr",
	[ALG_PRF] = "prf",
	[ALG_INTEG] = "integ",
	[ALG_KEX] = "group",
	[KIND_ESN] = "esn",
};

/* Is it the transform "none", which means that the kind is left out? */
static bool
is_none(const struct transform *transform)
{
	return transform->number == 0 && transform->kind != KIND_ESN &&
	       transform->alg == NULL;
}

static void
add_transform(struct words *words, const struct transform *transform)
{
	const char *broken = transform->broken ? "?" : "";
	char text[64];

	if (transform->kind == KIND_ESN && transform->number <= 1)
		snprintf(text, sizeof(text), "%s%s",
		    transform->number == 1 ? "esn" : "noesn", broken);
	else if (transform->kind <= KIND_ESN && is_none(transform))
		snprintf(text, sizeof(text), "%s#none%s",
		    kind_names[transform->kind], broken);
	else if (transform->alg != NULL)
		snprintf(
		    text, sizeof(text), "%s%s", transform->alg->name, broken);
	else if (transform->key_bits != 0)
		snprintf(text, sizeof(text), "%s#%u/%u%s",
		    transform->kind <= KIND_ESN ? kind_names[transform->kind]
		                                : "other",
		    transform->number, transform->key_bits, broken);
	else
		snprintf(text, sizeof(text), "%s#%u%s",
		    transform->kind <= KIND_ESN ? kind_names[transform->kind]
		                                : "other",
		    transform->number, broken);
	words_add(words, text);
}

static uint8_t
offer_count(const struct offer *offer)
{
	return offer->count < OFFER_TRANSFORMS ? offer->count
	                                       : OFFER_TRANSFORMS;
}

char *
offer_text(const struct offer *offer, char *text, size_t size)
{
	struct words words;

	words_init(&words, text, size, "-");
	for (uint8_t i = 0; i < offer_count(offer); i++)
		add_transform(&words, &offer->transform[i]);
	words_end(&words);
	return text;
}

/* Fitting ----------------------------------------------------------------- */

enum kex_mode {
	KEX_STRICT,   /* a group exactly where ours has one */
	KEX_OPTIONAL, /* see proposals_choose() */
	KEX_IGNORED   /* RFC 7296 1.2: IKE_AUTH's child has none */
};

/* Bits of what does not fit: 1 << enum alg_kind, and: */
#define MISFIT(kind)    (1U << (kind))
#define MISFIT_OTHER    (1U << 5) /* a kind that nobody here knows */
#define MISFIT_PROTOCOL (1U << 6)

/* What an offer holds of one kind. */
struct held {
	bool any;  /* transforms other than "none" */
	bool none; /* "none" itself */
};

static struct held
offer_holds(const struct offer *offer, unsigned kind)
{
	struct held held = { false, false };

	for (uint8_t i = 0; i < offer_count(offer); i++) {
		const struct transform *transform = &offer->transform[i];

		if (transform->kind != kind)
			continue;
		if (is_none(transform) && !transform->broken)
			held.none = true;
		else
			held.any = true;
	}
	return held;
}

static bool
offer_has(const struct offer *offer, const struct alg *alg)
{
	for (uint8_t i = 0; i < offer_count(offer); i++) {
		const struct transform *transform = &offer->transform[i];

		if (transform->kind == alg->kind && transform->alg != NULL &&
		    transform->alg->id == alg->id && !transform->broken)
			return true;
	}
	return false;
}

/* The first of our alternatives that is offered, or NULL. */
static const struct alg *
common_alg(
    const struct proposal *ours, const struct offer *offer, unsigned kind)
{
	for (uint8_t i = 0; i < ours->count[kind]; i++)
		if (offer_has(offer, proposal_alg(ours, kind, i)))
			return proposal_alg(ours, kind, i);
	return NULL;
}

/* Exactly one of a kind: one in common, or none on both sides. */
static bool
fit_kind(const struct proposal *ours, const struct offer *offer, unsigned kind,
    const struct alg **alg)
{
	struct held held = offer_holds(offer, kind);

	*alg = common_alg(ours, offer, kind);
	if (ours->count[kind] == 0)
		return !held.any || held.none;
	return *alg != NULL;
}

static const struct alg *
first_modern_group(const struct offer *offer)
{
	for (uint8_t i = 0; i < offer_count(offer); i++) {
		const struct transform *transform = &offer->transform[i];

		if (transform->kind == ALG_KEX && transform->alg != NULL &&
		    !transform->broken && transform->alg->tier == TIER_MODERN)
			return transform->alg;
	}
	return NULL;
}

static bool
fit_kex(const struct proposal *ours, const struct offer *offer,
    enum kex_mode mode, const struct alg **kex)
{
	struct held held = offer_holds(offer, ALG_KEX);

	*kex = NULL;
	if (mode == KEX_IGNORED)
		return true;
	if (mode == KEX_STRICT)
		return fit_kind(ours, offer, ALG_KEX, kex);
	/* Interop: Apple and Windows rekey children without a group. */
	*kex = common_alg(ours, offer, ALG_KEX);
	if (*kex != NULL || !held.any || held.none)
		return true;
	if (ours->count[ALG_KEX] == 0)
		*kex = first_modern_group(offer);
	return *kex != NULL;
}

/* RFC 7296 3.3.3 wants the transform in every ESP proposal; where there is
 * none (IKEv1, sloppy peers), short numbers are meant. */
static bool
fit_esn(const struct proposal *ours, const struct offer *offer, bool *esn)
{
	uint8_t offered = 0;
	bool any = false;

	for (uint8_t i = 0; i < offer_count(offer); i++) {
		const struct transform *transform = &offer->transform[i];

		if (transform->kind != KIND_ESN)
			continue;
		any = true;
		if (transform->number <= 1 && !transform->broken)
			offered |= transform->number == 1 ? ESN_YES : ESN_NO;
	}
	if (!any)
		offered = ESN_NO;
	*esn = (offered & ours->esn & ESN_YES) != 0;
	return (offered & ours->esn) != 0;
}

static bool
holds_others(const struct offer *offer)
{
	for (uint8_t i = 0; i < offer_count(offer); i++)
		if (offer->transform[i].kind > KIND_ESN &&
		    offer->transform[i].number != 0)
			return true;
	return false;
}

/* Fits one offer to one proposal: 0 and the suite, or what keeps them apart. */
static unsigned
fit(const struct proposal *ours, const struct offer *offer, enum kex_mode mode,
    struct suite *suite)
{
	unsigned misfits = 0;

	memset(suite, 0, sizeof(*suite));
	if (ours->protocol != offer->protocol)
		return MISFIT_PROTOCOL;
	if (!fit_kind(ours, offer, ALG_ENCR, &suite->encr))
		misfits |= MISFIT(ALG_ENCR);
	if (!fit_kind(ours, offer, ALG_PRF, &suite->prf))
		misfits |= MISFIT(ALG_PRF);
	if (!fit_kind(ours, offer, ALG_INTEG, &suite->integ))
		misfits |= MISFIT(ALG_INTEG);
	if (!fit_kex(ours, offer, mode, &suite->kex))
		misfits |= MISFIT(ALG_KEX);
	if (ours->protocol != PROTO_IKE && !fit_esn(ours, offer, &suite->esn))
		misfits |= MISFIT(KIND_ESN);
	/* RFC 7296 3.3.6: a type that we do not know, of which we would have
	 * to choose, makes the proposal unacceptable. */
	if (holds_others(offer))
		misfits |= MISFIT_OTHER;
	return misfits;
}

enum err
proposals_choose(const struct proposals *ours, const struct offer *offers,
    size_t count, bool kex_optional, bool first_child, struct choice *choice)
{
	enum kex_mode mode = first_child    ? KEX_IGNORED
	                     : kex_optional ? KEX_OPTIONAL
	                                    : KEX_STRICT;

	for (uint8_t i = 0; i < ours->count; i++) {
		for (size_t k = 0; k < count; k++) {
			struct suite suite;

			if (fit(&ours->item[i], &offers[k], mode, &suite) != 0)
				continue;
			choice->suite = suite;
			choice->chosen = k;
			return OK;
		}
	}
	return ERR_NO_PROPOSAL;
}

/* RFC 7296 2.7: an answer has exactly one transform of each type. */
static bool
is_single(const struct offer *answer)
{
	uint8_t seen = 0;

	if (answer->count > OFFER_TRANSFORMS)
		return false;
	for (uint8_t i = 0; i < answer->count; i++) {
		const struct transform *transform = &answer->transform[i];
		uint8_t bit;

		if (transform->kind > KIND_ESN || transform->broken)
			return false;
		bit = (uint8_t)(1U << transform->kind);
		if (seen & bit)
			return false;
		seen |= bit;
	}
	return true;
}

enum err
proposals_accept(const struct proposals *ours, const struct offer *answer,
    bool first_child, struct suite *suite)
{
	enum kex_mode mode = first_child ? KEX_IGNORED : KEX_STRICT;

	if (!is_single(answer))
		return ERR_NO_PROPOSAL;
	for (uint8_t i = 0; i < ours->count; i++)
		if (fit(&ours->item[i], answer, mode, suite) == 0)
			return OK;
	return ERR_NO_PROPOSAL;
}

/* Suites ------------------------------------------------------------------ */

static bool
same_alg(const struct alg *a, const struct alg *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return a->id == b->id;
}

bool
suite_equal(const struct suite *a, const struct suite *b)
{
	return same_alg(a->encr, b->encr) && same_alg(a->prf, b->prf) &&
	       same_alg(a->integ, b->integ) && same_alg(a->kex, b->kex) &&
	       a->esn == b->esn;
}

static bool
allows(const struct proposal *proposal, unsigned kind, const struct alg *alg)
{
	return alg == NULL ? proposal->count[kind] == 0
	                   : has_alg(proposal, alg);
}

/* As in proposals_choose(): children may do without a group, and with one
 * where none is configured. */
static bool
allows_kex(const struct proposal *proposal, const struct alg *kex)
{
	if (proposal->protocol == PROTO_IKE)
		return allows(proposal, ALG_KEX, kex);
	if (kex == NULL)
		return true;
	return proposal->count[ALG_KEX] == 0 ? kex->tier == TIER_MODERN
	                                     : has_alg(proposal, kex);
}

bool
proposals_allow(const struct proposals *proposals, const struct suite *suite)
{
	for (uint8_t i = 0; i < proposals->count; i++) {
		const struct proposal *proposal = &proposals->item[i];
		uint8_t esn = suite->esn ? ESN_YES : ESN_NO;

		if (allows(proposal, ALG_ENCR, suite->encr) &&
		    allows(proposal, ALG_PRF, suite->prf) &&
		    allows(proposal, ALG_INTEG, suite->integ) &&
		    allows_kex(proposal, suite->kex) &&
		    (proposal->protocol == PROTO_IKE ||
		        (proposal->esn & esn) != 0))
			return true;
	}
	return false;
}

/* Explaining -------------------------------------------------------------- */

static unsigned
bits_set(unsigned bits)
{
	unsigned count = 0;

	for (; bits != 0; bits &= bits - 1)
		count++;
	return count;
}

/* How far apart a pair is, for the search of the nearest. */
static unsigned
distance(unsigned misfits)
{
	return misfits & MISFIT_PROTOCOL ? ALG_KINDS + 3 : bits_set(misfits);
}

static const char *
protocol_text(uint8_t protocol)
{
	static const char *const names[] = { "none", "IKE", "AH", "ESP" };

	return protocol < sizeof(names) / sizeof(names[0]) ? names[protocol]
	                                                   : "unknown";
}

/* Everything that is offered of one kind. */
static void
add_offered(struct words *words, const struct offer *offer, unsigned kind)
{
	bool any = false;

	words->started = false;
	words->gap = ", ";
	for (uint8_t i = 0; i < offer_count(offer); i++) {
		const struct transform *transform = &offer->transform[i];

		if (transform->kind == kind ||
		    (kind > KIND_ESN && transform->kind > KIND_ESN)) {
			add_transform(words, transform);
			any = true;
		}
	}
	if (!any)
		words_add(words, "none");
}

static void
add_allowed(struct words *words, const struct proposal *ours, unsigned kind)
{
	words->started = false;
	words->gap = ", ";
	if (kind == KIND_ESN) {
		if (ours->esn & ESN_NO)
			words_add(words, "noesn");
		if (ours->esn & ESN_YES)
			words_add(words, "esn");
		return;
	}
	if (kind > KIND_ESN || ours->count[kind] == 0) {
		words_add(words, "none");
		return;
	}
	for (uint8_t i = 0; i < ours->count[kind]; i++)
		words_add(words, proposal_alg(ours, kind, i)->name);
}

static void
put_text(struct words *words, const char *text)
{
	words->started = false;
	words_add(words, text);
}

static void
explain_pair(const struct proposal *ours, const struct offer *offer,
    unsigned misfits, struct words *words)
{
	static const char *const titles[] = { "encryption", "PRF", "integrity",
		"group", "sequence numbers", "other transforms" };
	bool first = true;

	if (misfits & MISFIT_PROTOCOL) {
		put_text(words, "protocol: offered ");
		put_text(words, protocol_text(offer->protocol));
		put_text(words, "; allowed ");
		put_text(words, protocol_text(ours->protocol));
		return;
	}
	for (unsigned kind = 0; kind <= KIND_ESN + 1; kind++) {
		if (!(misfits & MISFIT(kind)))
			continue;
		if (!first)
			put_text(words, ". ");
		first = false;
		put_text(words, titles[kind]);
		put_text(words, ": offered ");
		add_offered(words, offer, kind);
		put_text(words, "; allowed ");
		add_allowed(words, ours, kind);
	}
}

unsigned
proposals_explain(const struct proposals *ours, const struct offer *offers,
    size_t count, bool first_child, char *text, size_t size)
{
	const struct proposal *near_ours = NULL;
	const struct offer *near_offer = NULL;
	unsigned near = 0;
	struct words words;

	for (uint8_t i = 0; i < ours->count; i++) {
		const struct proposal *proposal = &ours->item[i];
		enum kex_mode mode = first_child ? KEX_IGNORED
		                     : proposal->protocol == PROTO_IKE
		                         ? KEX_STRICT
		                         : KEX_OPTIONAL;

		for (size_t k = 0; k < count; k++) {
			struct suite suite;
			unsigned misfits =
			    fit(proposal, &offers[k], mode, &suite);

			if (near_ours != NULL &&
			    distance(misfits) >= distance(near))
				continue;
			near = misfits;
			near_ours = proposal;
			near_offer = &offers[k];
		}
	}
	words_init(&words, text, size, ", ");
	if (near_ours != NULL)
		explain_pair(near_ours, near_offer, near, &words);
	else
		put_text(&words,
		    count == 0 ? "nothing was offered" : "nothing is allowed");
	words_end(&words);
	return near_ours != NULL ? distance(near) : ALG_KINDS + 3;
}
