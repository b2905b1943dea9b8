#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "conf/load.h"
#include "conf/secrets.h"
#include "daemon/keyring.h"

/* Chance that is none: every octet is the same. Counted, and may fail. */
struct chance {
	uint8_t octet;
	bool counting, fails;
	uint32_t count;
};

static bool
draw(void *arg, void *octets, size_t len)
{
	struct chance *chance = arg;
	uint8_t *at = octets;
	size_t i;

	if (chance->fails)
		return false;
	memset(octets, chance->octet, len);
	for (i = 0; chance->counting && i + 4 <= len; i += 4) {
		chance->count++;
		memcpy(at + i, &chance->count, 4);
	}
	return true;
}

static struct secrets *
secrets_of(const char *text, uint32_t generation)
{
	struct diags diags = { 0 };
	struct secrets *secrets;
	struct bundle bundle;

	bundle_init(&bundle, NULL, NULL);
	assert_int_equal(bundle_add(&bundle, "/s", "/s", view_text(text)), OK);
	secrets = secrets_load(&bundle, "/s", generation, &diags);
	assert_non_null(secrets);
	assert_int_equal(diags.errors, 0);
	diags_fini(&diags);
	bundle_fini(&bundle);
	return secrets;
}

static const char *const text = "@gw @alpha : PSK \"alpha secret\"\n"
                                "@gw @beta : PSK \"beta secret\"\n"
                                "10.0.0.1 192.0.2.7 : PSK \"by address\"\n"
                                "@gw %any : PSK \"for many\"\n";

struct scene {
	struct chance chance;
	struct keyring *keyring;
	struct ident *gw, *alpha, *beta, *gamma;
	struct addr here, there;
};

static struct ident *
fqdn(const char *name)
{
	struct ident *ident = ident_new(ID_FQDN, view_text(name));

	assert_non_null(ident);
	return ident;
}

static void
scene_open(struct scene *s)
{
	memset(s, 0, sizeof(*s));
	s->chance.octet = 0x44;
	s->keyring = keyring_new(draw, &s->chance);
	assert_non_null(s->keyring);
	s->gw = fqdn("gw");
	s->alpha = fqdn("alpha");
	s->beta = fqdn("beta");
	s->gamma = fqdn("gamma");
	assert_true(addr_parse(&s->here, "10.0.0.1"));
	assert_true(addr_parse(&s->there, "192.0.2.200"));
	keyring_use(s->keyring, secrets_of(text, 1));
}

static void
scene_close(struct scene *s)
{
	keyring_free(s->keyring);
	ident_unref(s->gw);
	ident_unref(s->alpha);
	ident_unref(s->beta);
	ident_unref(s->gamma);
}

static void
expect_octets(const uint8_t *octets, size_t len, const char *hex)
{
	char got[2 * PRF_MAX + 1];

	buf_hex(got, sizeof(got), view_of(octets, len));
	assert_string_equal(got, hex);
}

/* IKEv2 -------------------------------------------------------------------- */

/* A header alone as RealMessage, a nonce, a MACed ID. */
static size_t
signed_octets(uint8_t octets[400], size_t nonce)
{
	struct buf buf;

	buf_init(&buf, octets, 400);
	memset(buf_room(&buf, 16), 0x11, 16);
	buf_u8(&buf, 33);
	buf_u8(&buf, 0x20);
	buf_u8(&buf, 34);
	buf_u8(&buf, 0x08);
	buf_u32(&buf, 0);
	buf_u32(&buf, 28);
	memset(buf_room(&buf, nonce), 0x22, nonce);
	memset(buf_room(&buf, 32), 0x33, 32);
	return buf.len;
}

static void
psk_auth_known_answer(void **state)
{
	struct vault_psk_auth_answer answer;
	struct vault_psk_auth ask = { 0 };
	uint8_t octets[400];
	struct scene s;
	unsigned i;

	(void)state;
	scene_open(&s);
	ask.prf = alg_get(ALG_PRF_SHA256);
	ask.local = s.gw;
	ask.remote = s.alpha;
	ask.octets = view_of(octets, signed_octets(octets, 16));
	for (i = 0; i < 2; i++) { /* the second from the cache */
		assert_int_equal(
		    keyring_psk_auth(s.keyring, &ask, &answer), OK);
		/* HMAC(HMAC("alpha secret", "Key Pad for IKEv2"), octets),
		 * computed by another implementation. */
		expect_octets(answer.mac, 32,
		    "5e94753f762e744df628b0e03348098b"
		    "a913ae0d429998a46aebf59b09472728");
	}
	/* With other secrets the cache is not asked. */
	keyring_use(s.keyring, secrets_of("@gw @alpha : PSK \"new\"\n", 1));
	assert_int_equal(keyring_psk_auth(s.keyring, &ask, &answer), OK);
	assert_int_not_equal(answer.mac[0], 0x5e);
	ask.remote = s.gamma;
	assert_int_equal(
	    keyring_psk_auth(s.keyring, &ask, &answer), ERR_NO_SECRET);
	scene_close(&s);
}

static void
psk_auth_takes_framed_octets_only(void **state)
{
	struct vault_psk_auth_answer answer;
	struct vault_psk_auth ask = { 0 };
	uint8_t octets[400], zero[sizeof(answer)] = { 0 };
	struct scene s;
	size_t len, i;

	(void)state;
	scene_open(&s);
	ask.prf = alg_get(ALG_PRF_SHA256);
	ask.local = s.gw;
	ask.remote = s.alpha;
	len = signed_octets(octets, 16);
	for (i = 0; i < len; i++) {
		ask.octets = view_of(octets, i);
		assert_int_equal(
		    keyring_psk_auth(s.keyring, &ask, &answer), ERR_REFUSED);
		assert_memory_equal(&answer, zero, sizeof(answer));
	}
	ask.octets = view_text("Key Pad for IKEv2");
	assert_int_equal(
	    keyring_psk_auth(s.keyring, &ask, &answer), ERR_REFUSED);
	ask.octets = view_of(octets, len);
	octets[17] = 0x10; /* IKEv1 */
	assert_int_equal(
	    keyring_psk_auth(s.keyring, &ask, &answer), ERR_REFUSED);
	octets[17] = 0x20;
	octets[18] = 35; /* IKE_AUTH */
	assert_int_equal(
	    keyring_psk_auth(s.keyring, &ask, &answer), ERR_REFUSED);
	octets[18] = 34;
	octets[27] = 27; /* shorter than its own header */
	assert_int_equal(
	    keyring_psk_auth(s.keyring, &ask, &answer), ERR_REFUSED);
	octets[27] = 29; /* one octet taken from the nonce */
	assert_int_equal(
	    keyring_psk_auth(s.keyring, &ask, &answer), ERR_REFUSED);
	octets[27] = 28;
	octets[24] = 0xff;
	assert_int_equal(
	    keyring_psk_auth(s.keyring, &ask, &answer), ERR_REFUSED);
	octets[24] = 0;
	assert_int_equal(keyring_psk_auth(s.keyring, &ask, &answer), OK);
	ask.prf = alg_get(ALG_SHA256_128); /* no PRF */
	assert_int_equal(
	    keyring_psk_auth(s.keyring, &ask, &answer), ERR_REFUSED);
	ask.prf = NULL;
	assert_int_equal(
	    keyring_psk_auth(s.keyring, &ask, &answer), ERR_REFUSED);
	scene_close(&s);
}

/* IKEv1 -------------------------------------------------------------------- */

static void
nonces_are_drawn_and_dropped(void **state)
{
	struct vault_nonce_answer first, second, answer;
	struct vault_skeyid_answer keys;
	struct vault_skeyid ask = { 0 };
	uint8_t peer[16] = { 0 };
	struct scene s;
	unsigned i;

	(void)state;
	scene_open(&s);
	ask.prf = alg_get(ALG_PRF_SHA1);
	ask.local = s.gw;
	ask.remote = s.alpha;
	ask.peer_nonce = view_of(peer, 16);
	s.chance.counting = true;
	assert_int_equal(keyring_nonce(s.keyring, &first), OK);
	assert_int_equal(keyring_nonce(s.keyring, &second), OK);
	assert_int_not_equal(first.handle, second.handle);
	assert_memory_not_equal(first.nonce, second.nonce, VAULT_NONCE);
	keyring_nonce_drop(s.keyring, second.handle);
	ask.nonce = second.handle;
	assert_int_equal(keyring_skeyid(s.keyring, &ask, &keys), ERR_NOT_FOUND);
	ask.nonce = 0;
	assert_int_equal(keyring_skeyid(s.keyring, &ask, &keys), ERR_NOT_FOUND);
	/* first is the oldest: it goes when its place is needed. */
	for (i = 2; i < KEYRING_NONCES; i++)
		assert_int_equal(keyring_nonce(s.keyring, &answer), OK);
	ask.nonce = first.handle;
	assert_int_equal(keyring_nonce(s.keyring, &second), OK);
	assert_int_equal(keyring_skeyid(s.keyring, &ask, &keys), ERR_NOT_FOUND);
	ask.nonce = answer.handle;
	assert_int_equal(keyring_skeyid(s.keyring, &ask, &keys), OK);
	ask.nonce = second.handle;
	assert_int_equal(keyring_skeyid(s.keyring, &ask, &keys), OK);
	/* Without chance there is no nonce, and no vault. */
	s.chance.fails = true;
	for (i = 0; i < 1000; i++) {
		if (keyring_nonce(s.keyring, &answer) != OK)
			break;
	}
	assert_in_range(i, 0, 31);
	assert_int_equal(keyring_nonce(s.keyring, &answer), ERR_CRYPTO);
	assert_null(keyring_new(draw, &s.chance));
	scene_close(&s);
}

static void
skeyid_known_answer(void **state)
{
	static const struct {
		enum alg_id prf;
		bool initiator;
		const char *hex;
	} row[] = {
		{ ALG_PRF_SHA1, true,
		    "d3a0ada021b35602e582d0628562ec27e155f540" },
		{ ALG_PRF_SHA1, false,
		    "6b21e1d0d743461b5b9908e4ecea1f6367fb4508" },
		{ ALG_PRF_SHA256, true,
		    "f7570870515c5553ffebf75e8058d79b"
		    "8b5f3526ac64015d3c0512475e89f0ad" },
		{ ALG_PRF_SHA256, false,
		    "697c990abf2d4e2a57b9945389b3377c"
		    "fe73e6f5de5c2f1f4b6e682830e8cf98" },
	};
	struct vault_nonce_answer nonce;
	struct vault_skeyid_answer answer;
	struct vault_skeyid ask = { 0 };
	uint8_t peer[300];
	struct scene s;
	size_t i;

	(void)state;
	scene_open(&s);
	memset(peer, 0x55, sizeof(peer));
	ask.local = s.gw;
	ask.remote = s.alpha;
	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		assert_int_equal(keyring_nonce(s.keyring, &nonce), OK);
		ask.prf = alg_get(row[i].prf);
		ask.initiator = row[i].initiator;
		ask.nonce = nonce.handle;
		ask.peer_nonce = view_of(peer, 16);
		assert_int_equal(keyring_skeyid(s.keyring, &ask, &answer), OK);
		/* The one for both, and the one for anybody. */
		assert_int_equal(answer.count, 2);
		expect_octets(answer.item[0].skeyid, ask.prf->out, row[i].hex);
		assert_int_not_equal(answer.item[0].secret, 0);
		assert_int_not_equal(
		    answer.item[0].secret, answer.item[1].secret);
		/* Once is once. */
		assert_int_equal(
		    keyring_skeyid(s.keyring, &ask, &answer), ERR_NOT_FOUND);
	}
	/* RFC 2409 5: 8 to 256 octets. */
	for (i = 7; i <= 257; i = i == 8 ? 256 : i + 1) {
		assert_int_equal(keyring_nonce(s.keyring, &nonce), OK);
		ask.nonce = nonce.handle;
		ask.peer_nonce = view_of(peer, i);
		assert_int_equal(keyring_skeyid(s.keyring, &ask, &answer),
		    i == 7 || i == 257 ? ERR_REFUSED : OK);
		assert_int_equal(answer.count, i == 7 || i == 257 ? 0 : 2);
	}
	scene_close(&s);
}

static void
candidates_are_bounded(void **state)
{
	struct vault_nonce_answer nonce;
	struct vault_skeyid_answer answer;
	struct vault_skeyid ask = { 0 };
	uint8_t peer[16] = { 0 };
	char many[2000] = "";
	struct scene s;
	size_t i;

	(void)state;
	scene_open(&s);
	for (i = 0; i < 12; i++)
		snprintf(many + strlen(many), 100,
		    "@gw @road%zu : PSK \"secret number %zu\"\n", i, i);
	keyring_use(s.keyring, secrets_of(many, 1));
	assert_int_equal(keyring_nonce(s.keyring, &nonce), OK);
	ask.prf = alg_get(ALG_PRF_SHA256);
	ask.nonce = nonce.handle;
	ask.peer_nonce = view_of(peer, sizeof(peer));
	ask.local = s.gw; /* the remote identity is not known yet */
	ask.local_addr = s.here;
	ask.remote_addr = s.there;
	assert_int_equal(keyring_skeyid(s.keyring, &ask, &answer), OK);
	assert_int_equal(answer.count, VAULT_CANDIDATES);
	for (i = 1; i < VAULT_CANDIDATES; i++)
		assert_memory_not_equal(
		    answer.item[0].skeyid, answer.item[i].skeyid, 32);
	/* No secrets at all. */
	keyring_use(s.keyring, NULL);
	assert_int_equal(keyring_nonce(s.keyring, &nonce), OK);
	ask.nonce = nonce.handle;
	assert_int_equal(
	    keyring_skeyid(s.keyring, &ask, &answer), ERR_NO_SECRET);
	scene_close(&s);
}

/* The name of the PSK that is best for these ends. */
static uint64_t
secret_for(
    struct scene *s, const struct ident *remote, const struct addr *remote_addr)
{
	struct vault_nonce_answer nonce;
	struct vault_skeyid_answer answer;
	struct vault_skeyid ask = { 0 };
	uint8_t peer[16] = { 0 };

	assert_int_equal(keyring_nonce(s->keyring, &nonce), OK);
	ask.prf = alg_get(ALG_PRF_SHA256);
	ask.nonce = nonce.handle;
	ask.peer_nonce = view_of(peer, sizeof(peer));
	ask.local = s->gw;
	ask.remote = remote;
	ask.local_addr = s->here;
	ask.remote_addr = *remote_addr;
	assert_int_equal(keyring_skeyid(s->keyring, &ask, &answer), OK);
	return answer.item[0].secret;
}

static enum err
permits(struct scene *s, uint64_t secret, const struct ident *remote,
    const struct addr *remote_addr)
{
	struct vault_permits ask = { secret, s->gw, remote, s->here,
		*remote_addr };

	return keyring_permits(s->keyring, &ask);
}

static void
permits_by_selectors(void **state)
{
	uint64_t alpha, beta, many;
	struct scene s;

	(void)state;
	scene_open(&s);
	alpha = secret_for(&s, s.alpha, &s.there);
	beta = secret_for(&s, s.beta, &s.there);
	many = secret_for(&s, s.gamma, &s.there);
	assert_int_equal(permits(&s, alpha, s.alpha, &s.there), OK);
	assert_int_equal(permits(&s, alpha, s.beta, &s.there), ERR_REFUSED);
	assert_int_equal(permits(&s, beta, s.beta, &s.there), OK);
	assert_int_equal(permits(&s, many, s.gamma, &s.there), OK);
	/* Whoever knows the key that many share is not alpha. */
	assert_int_equal(permits(&s, many, s.alpha, &s.there), ERR_REFUSED);
	assert_int_equal(permits(&s, 0, s.alpha, &s.there), ERR_NOT_FOUND);
	assert_int_equal(
	    permits(&s, UINT64_MAX, s.alpha, &s.there), ERR_NOT_FOUND);
	assert_int_equal(permits(&s, alpha, NULL, &s.there), ERR_REFUSED);
	scene_close(&s);
}

static void
permits_across_a_reload(void **state)
{
	uint64_t alpha, beta;
	struct scene s;

	(void)state;
	scene_open(&s);
	alpha = secret_for(&s, s.alpha, &s.there);
	beta = secret_for(&s, s.beta, &s.there);
	keyring_use(s.keyring, secrets_of("@gw @delta : PSK \"delta secret\"\n"
	                                  "@gw @alpha : PSK \"alpha secret\"\n"
	                                  "@gw @beta : PSK \"other secret\"\n",
	                           2));
	/* The same PSK goes on; one that was changed does not. */
	assert_int_equal(permits(&s, alpha, s.alpha, &s.there), OK);
	assert_int_equal(permits(&s, beta, s.beta, &s.there), ERR_NOT_FOUND);
	assert_int_equal(permits(&s, alpha, s.gamma, &s.there), ERR_NOT_FOUND);
	keyring_forget(s.keyring);
	assert_int_equal(permits(&s, alpha, s.alpha, &s.there), ERR_NOT_FOUND);
	scene_close(&s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(psk_auth_known_answer),
		cmocka_unit_test(psk_auth_takes_framed_octets_only),
		cmocka_unit_test(nonces_are_drawn_and_dropped),
		cmocka_unit_test(skeyid_known_answer),
		cmocka_unit_test(candidates_are_bounded),
		cmocka_unit_test(permits_by_selectors),
		cmocka_unit_test(permits_across_a_reload),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
