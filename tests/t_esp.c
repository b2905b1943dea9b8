#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/alg.h"
#include "common/policy.h"
#include "kernel/esp.h"

#define ROOM 2048

struct pair {
	struct esp_sa *out, *in;
	uint8_t octets[ESP_HEAD + ROOM + ESP_TAIL];
};

static struct kmsg_sa
request(enum alg_id encr, enum alg_id integ, bool esn, uint32_t window)
{
	struct kmsg_sa sa;
	size_t i;

	memset(&sa, 0, sizeof(sa));
	sa.spi = 0xc1020304;
	sa.mode = MODE_TUNNEL;
	sa.encr = (uint8_t)encr;
	sa.integ = (uint8_t)integ;
	sa.esn = esn;
	sa.replay_window = window;
	sa.encr_key_len = (uint8_t)alg_keymat(alg_get(encr));
	if (integ != ALG_NONE)
		sa.integ_key_len = (uint8_t)alg_keymat(alg_get(integ));
	for (i = 0; i < KMSG_KEY; i++)
		sa.key[i] = (uint8_t)(i * 7 + 1);
	return sa;
}

static void
open_pair(struct pair *pair, enum alg_id encr, enum alg_id integ, bool esn,
    uint32_t window)
{
	struct kmsg_sa sa = request(encr, integ, esn, window);

	sa.direction = KMSG_OUT;
	pair->out = esp_new(&sa);
	sa.direction = KMSG_IN;
	pair->in = esp_new(&sa);
	assert_non_null(pair->out);
	assert_non_null(pair->in);
}

static void
close_pair(struct pair *pair)
{
	esp_free(pair->out);
	esp_free(pair->in);
}

static struct view
seal(struct pair *pair, size_t len)
{
	uint8_t *payload = pair->octets + ESP_HEAD;
	struct view sealed;
	size_t i;

	for (i = 0; i < len; i++)
		payload[i] = (uint8_t)(i ^ 0x5a);
	assert_int_equal(esp_seal(pair->out, payload, len, 4, &sealed), OK);
	assert_int_equal(sealed.len, esp_sealed_len(pair->out, len));
	return sealed;
}

static enum err
open_copy(
    struct pair *pair, struct view sealed, struct view *payload, uint8_t *copy)
{
	uint8_t next_header;

	memcpy(copy, sealed.at, sealed.len);
	return esp_open(pair->in, copy, sealed.len, payload, &next_header);
}

static void
round_trip(enum alg_id encr, enum alg_id integ, bool esn)
{
	struct pair pair;
	struct view sealed, payload;
	uint8_t copy[sizeof(pair.octets)], next_header;
	size_t len, i;

	open_pair(&pair, encr, integ, esn, 32);
	for (len = 0; len <= 66; len++) {
		sealed = seal(&pair, len);
		memcpy(copy, sealed.at, sealed.len);
		assert_int_equal(
		    esp_open(pair.in, copy, sealed.len, &payload, &next_header),
		    OK);
		assert_int_equal(next_header, 4);
		assert_int_equal(payload.len, len);
		for (i = 0; i < len; i++)
			assert_int_equal(payload.at[i], (uint8_t)(i ^ 0x5a));
		/* A replay, then the same with every octet changed. */
		assert_int_equal(
		    open_copy(&pair, sealed, &payload, copy), ERR_EXISTS);
	}
	sealed = seal(&pair, 20);
	/* The SPI picked the SA already. A changed sequence number may also
	 * look like a replay. */
	for (i = 4; i < sealed.len; i++) {
		((uint8_t *)sealed.at)[i] ^= 1;
		assert_int_not_equal(
		    open_copy(&pair, sealed, &payload, copy), OK);
		((uint8_t *)sealed.at)[i] ^= 1;
	}
	for (i = 0; i < sealed.len; i++) {
		struct view cut = view_of(sealed.at, i);

		assert_int_not_equal(open_copy(&pair, cut, &payload, copy), OK);
	}
	assert_int_equal(open_copy(&pair, sealed, &payload, copy), OK);
	close_pair(&pair);
}

static void
every_suite(void **state)
{
	static const enum alg_id aead[] = { ALG_AES128_GCM16, ALG_AES192_GCM16,
		ALG_AES256_GCM16, ALG_CHACHA20_POLY1305 };
	static const enum alg_id cbc[] = { ALG_AES128_CBC, ALG_AES192_CBC,
		ALG_AES256_CBC, ALG_3DES_CBC };
	static const enum alg_id mac[] = { ALG_SHA1_96, ALG_SHA256_128,
		ALG_SHA384_192, ALG_SHA512_256 };
	size_t i, j;

	(void)state;
	for (i = 0; i < 4; i++) {
		round_trip(aead[i], ALG_NONE, false);
		round_trip(aead[i], ALG_NONE, true);
		for (j = 0; j < 4; j++) {
			round_trip(cbc[i], mac[j], false);
			round_trip(cbc[i], mac[j], true);
		}
	}
}

#define KEPT 200

/* Packets sealed in order and opened in another. */
static void
replay_window(void **state)
{
	static struct {
		uint8_t octets[256];
		size_t len;
	} kept[KEPT + 1];
	struct pair pair;
	struct view sealed, payload;
	uint8_t copy[256];
	size_t i;

	(void)state;
	open_pair(&pair, ALG_AES128_GCM16, ALG_NONE, false, 32);
	for (i = 1; i <= KEPT; i++) {
		sealed = seal(&pair, 40);
		memcpy(kept[i].octets, sealed.at, sealed.len);
		kept[i].len = sealed.len;
	}
#define OPEN(n)                                                                \
	open_copy(&pair, view_of(kept[n].octets, kept[n].len), &payload, copy)
	assert_int_equal(OPEN(100), OK);
	assert_int_equal(OPEN(69), OK);         /* 100 - 31: the last in */
	assert_int_equal(OPEN(68), ERR_EXISTS); /* 100 - 32: out */
	assert_int_equal(OPEN(69), ERR_EXISTS);
	assert_int_equal(OPEN(99), OK);
	assert_int_equal(OPEN(131), OK);
	assert_int_equal(OPEN(100), ERR_EXISTS); /* 131 - 31, seen */
	assert_int_equal(OPEN(101), OK);
	assert_int_equal(OPEN(99), ERR_EXISTS);
	/* A forged packet far ahead must not move the window. */
	kept[200].octets[30] ^= 1;
	assert_int_equal(OPEN(200), ERR_AUTH);
	assert_int_equal(OPEN(102), OK);
	kept[200].octets[30] ^= 1;
	assert_int_equal(OPEN(200), OK);
	assert_int_equal(OPEN(103), ERR_EXISTS);
	assert_int_equal(esp_errors(pair.in)->forged, 1);
	assert_int_equal(esp_errors(pair.in)->replays, 5);
	close_pair(&pair);

	open_pair(&pair, ALG_AES128_GCM16, ALG_NONE, false, 0);
	assert_int_equal(OPEN(7), OK);
	assert_int_equal(OPEN(7), OK); /* no window, no check */
	close_pair(&pair);
#undef OPEN
}

static void
lengths(void **state)
{
	struct pair pair;
	size_t len;

	(void)state;
	open_pair(&pair, ALG_AES256_CBC, ALG_SHA512_256, false, 32);
	for (len = 40; len < 1500; len++) {
		size_t most = esp_payload_max(pair.out, len);

		if (most == 0)
			continue;
		assert_true(esp_sealed_len(pair.out, most) <= len);
		assert_true(esp_sealed_len(pair.out, most + 1) > len);
	}
	close_pair(&pair);
}

static void
refuses(void **state)
{
	struct kmsg_sa sa = request(ALG_AES128_GCM16, ALG_NONE, false, 32);

	(void)state;
	sa.direction = KMSG_OUT;
	sa.encr_key_len--;
	assert_null(esp_new(&sa));
	sa.encr_key_len++;
	sa.integ = ALG_SHA1_96;
	assert_null(esp_new(&sa));
	sa = request(ALG_AES128_CBC, ALG_SHA1_96, false, 32);
	sa.integ = ALG_NONE;
	assert_null(esp_new(&sa)); /* encryption without a MAC */
	sa.integ = ALG_SHA1_96;
	sa.encr = ALG_PRF_SHA1;
	assert_null(esp_new(&sa));
	sa.encr = 255;
	assert_null(esp_new(&sa));
}

/* RFC 7634 appendix A. */
static void
chacha_vector(void **state)
{
	static const uint8_t sealed[] = { 0x01, 0x02, 0x03, 0x04, 0x00, 0x00,
		0x00, 0x05, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
		0x24, 0x03, 0x94, 0x28, 0xb9, 0x7f, 0x41, 0x7e, 0x3c, 0x13,
		0x75, 0x3a, 0x4f, 0x05, 0x08, 0x7b, 0x67, 0xc3, 0x52, 0xe6,
		0xa7, 0xfa, 0xb1, 0xb9, 0x82, 0xd4, 0x66, 0xef, 0x40, 0x7a,
		0xe5, 0xc6, 0x14, 0xee, 0x80, 0x99, 0xd5, 0x28, 0x44, 0xeb,
		0x61, 0xaa, 0x95, 0xdf, 0xab, 0x4c, 0x02, 0xf7, 0x2a, 0xa7,
		0x1e, 0x7c, 0x4c, 0x4f, 0x64, 0xc9, 0xbe, 0xfe, 0x2f, 0xac,
		0xc6, 0x38, 0xe8, 0xf3, 0xcb, 0xec, 0x16, 0x3f, 0xac, 0x46,
		0x9b, 0x50, 0x27, 0x73, 0xf6, 0xfb, 0x94, 0xe6, 0x64, 0xda,
		0x91, 0x65, 0xb8, 0x28, 0x29, 0xf6, 0x41, 0xe0, 0x76, 0xaa,
		0xa8, 0x26, 0x6b, 0x7f, 0xb0, 0xf7, 0xb1, 0x1b, 0x36, 0x99,
		0x07, 0xe1, 0xad, 0x43 };
	static const uint8_t head[] = { 0x45, 0x00, 0x00, 0x54, 0xa6, 0xf2,
		0x00, 0x00, 0x40, 0x01, 0xe7, 0x78, 0xc6, 0x33, 0x64, 0x05,
		0xc0, 0x00, 0x02, 0x05, 0x08, 0x00 };
	struct kmsg_sa sa = request(ALG_CHACHA20_POLY1305, ALG_NONE, false, 32);
	uint8_t copy[sizeof(sealed)], next_header = 0;
	struct view payload;
	struct esp_sa *in;
	uint8_t i;

	(void)state;
	sa.spi = 0x01020304;
	sa.direction = KMSG_IN;
	for (i = 0; i < 32; i++)
		sa.key[i] = (uint8_t)(0x80 + i);
	for (i = 0; i < 4; i++)
		sa.key[32 + i] = (uint8_t)(0xa0 + i);
	in = esp_new(&sa);
	assert_non_null(in);
	memcpy(copy, sealed, sizeof(sealed));
	assert_int_equal(
	    esp_open(in, copy, sizeof(copy), &payload, &next_header), OK);
	assert_int_equal(next_header, 4);
	assert_int_equal(payload.len, 84);
	assert_memory_equal(payload.at, head, sizeof(head));
	for (i = 36; i < 84; i++)
		assert_int_equal(payload.at[i], i - 28);
	esp_free(in);
}

/* Windows of every size that is and is not a power of two. */
static void
windows(void **state)
{
	static const uint32_t bits[] = { 1, 31, 32, 33, 63, 64, 65, 4095,
		4096 };
	struct view sealed, payload;
	uint8_t copy[256], first[256], second[256];
	size_t i, n, first_len, second_len;
	struct pair pair;

	(void)state;
	for (i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		open_pair(&pair, ALG_AES128_GCM16, ALG_NONE, false, bits[i]);
		sealed = seal(&pair, 40);
		memcpy(first, sealed.at, first_len = sealed.len);
		sealed = seal(&pair, 40);
		memcpy(second, sealed.at, second_len = sealed.len);
		for (n = 3; n <= bits[i] + 1; n++)
			sealed = seal(&pair, 40);
		if (bits[i] > 1) {
			assert_int_equal(
			    open_copy(&pair, sealed, &payload, copy), OK);
			/* number bits + 1 is the top: 2 is the last in */
			assert_int_equal(
			    open_copy(&pair, view_of(first, first_len),
			        &payload, copy),
			    ERR_EXISTS);
		}
		assert_int_equal(open_copy(&pair, view_of(second, second_len),
		                     &payload, copy),
		    OK);
		assert_int_equal(open_copy(&pair, view_of(second, second_len),
		                     &payload, copy),
		    ERR_EXISTS);
		close_pair(&pair);
	}
}

/* A packet with any number, as a peer could send it. */
static struct view
seal_at(struct pair *pair, uint64_t number)
{
	esp_begin_at(pair->out, number - 1);
	return seal(pair, 40);
}

/* RFC 4303 appendix A: the highest number seen is top, and the receiver must
 * find the high half of number out. */
static void
extended(enum alg_id encr, enum alg_id integ, uint32_t window, uint64_t top,
    int64_t distance)
{
	uint64_t number = top + (uint64_t)distance;
	struct view sealed, payload;
	enum err expected = OK;
	uint8_t copy[256];
	struct pair pair;

	if ((distance < 0 && (uint64_t)-distance >= top) ||
	    (distance > 0 && number < top))
		return;
	if (distance <= -(int64_t)window)
		expected = ERR_AUTH; /* it looks like one far ahead */
	open_pair(&pair, encr, integ, true, window);
	esp_begin_at(pair.in, top);
	sealed = seal_at(&pair, number);
	if (expected == OK) {
		assert_int_equal(open_copy(&pair, sealed, &payload, copy), OK);
		assert_int_equal(
		    open_copy(&pair, sealed, &payload, copy), ERR_EXISTS);
	} else {
		/* High half 0 has none before it. */
		assert_int_not_equal(
		    open_copy(&pair, sealed, &payload, copy), OK);
		/* And nothing has moved: what was in the window still is. */
		sealed = seal_at(&pair, top);
		assert_int_equal(open_copy(&pair, sealed, &payload, copy), OK);
	}
	close_pair(&pair);
}

static void
extended_numbers(void **state)
{
	static const uint32_t windows[] = { 1, 2, 32, 33, 64, 4096 };
	const int64_t wrap = 1ll << 32;
	size_t i, j, k, h;

	(void)state;
	for (i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
		int64_t n = windows[i];
		int64_t tops[] = { 1, 2, n - 1, n, n + 1, wrap - n - 1,
			wrap - n, wrap - n + 1, wrap - 2, wrap - 1 };
		int64_t far[] = { -n - 1, -n, -n + 1, -1, 0, 1, n - 1, n, n + 1,
			wrap / 2, wrap - n - 1, wrap - n };

		for (j = 0; j < sizeof(tops) / sizeof(tops[0]); j++)
			for (k = 0; k < sizeof(far) / sizeof(far[0]); k++)
				for (h = 0; h < 3; h++) {
					uint64_t top =
					    (uint64_t)(tops[j] +
					               (int64_t)h * wrap);

					if (top == 0)
						continue;
					extended(ALG_AES128_GCM16, ALG_NONE,
					    windows[i], top, far[k]);
					extended(ALG_AES128_CBC, ALG_SHA256_128,
					    windows[i], top, far[k]);
				}
	}
}

/* RFC 4303 3.3.3: a counter must not cycle. */
static void
exhausted(void **state)
{
	struct view sealed;
	uint8_t copy[256];
	struct pair pair;
	unsigned i;

	(void)state;
	open_pair(&pair, ALG_AES128_GCM16, ALG_NONE, false, 32);
	assert_false(esp_nears_end(pair.out));
	sealed = seal_at(&pair, 0xf0000000u);
	assert_true(esp_nears_end(pair.out));
	sealed = seal_at(&pair, UINT32_MAX);
	assert_int_equal(open_copy(&pair, sealed, &sealed, copy), OK);
	for (i = 0; i < 3; i++)
		assert_int_equal(
		    esp_seal(pair.out, pair.octets + ESP_HEAD, 40, 4, &sealed),
		    ERR_LIMIT);
	close_pair(&pair);
	open_pair(&pair, ALG_AES128_GCM16, ALG_NONE, true, 32);
	sealed = seal_at(&pair, UINT32_MAX);
	sealed = seal(&pair, 40);
	/* RFC 4106 3.1: the IV goes on, where the number sent is 0 again. */
	assert_memory_equal(sealed.at + 4,
	    ((const uint8_t[]){ 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0 }), 12);
	assert_false(esp_nears_end(pair.out));
	sealed = seal_at(&pair, UINT64_MAX);
	assert_int_equal(
	    esp_seal(pair.out, pair.octets + ESP_HEAD, 40, 4, &sealed),
	    ERR_LIMIT);
	close_pair(&pair);
}

/* RFC 3602 3: no IV of CBC follows from another. */
static void
ivs(void **state)
{
	static uint8_t seen[1000][16];
	struct view sealed;
	struct pair pair;
	size_t i, j;

	(void)state;
	open_pair(&pair, ALG_AES128_CBC, ALG_SHA256_128, false, 32);
	for (i = 0; i < 1000; i++) {
		sealed = seal(&pair, 40);
		memcpy(seen[i], sealed.at + 8, 16);
		for (j = 0; j < i; j++)
			assert_memory_not_equal(seen[i], seen[j], 16);
	}
	close_pair(&pair);
}

/* Octets of every length, in a buffer without room behind. */
static void
any_length(void **state)
{
	static const enum alg_id suites[][2] = { { ALG_AES128_GCM16, ALG_NONE },
		{ ALG_CHACHA20_POLY1305, ALG_NONE },
		{ ALG_AES256_CBC, ALG_SHA512_256 },
		{ ALG_3DES_CBC, ALG_SHA1_96 } };
	struct view payload;
	struct pair pair;
	size_t i, j, len;
	uint8_t *octets, next_header;

	(void)state;
	for (i = 0; i < sizeof(suites) / sizeof(suites[0]); i++) {
		open_pair(&pair, suites[i][0], suites[i][1], i % 2 == 0, 32);
		for (len = 8; len <= 65535;
		     len += len == 140 ? 65535 - 180 : 1) {
			octets = malloc(len);
			assert_non_null(octets);
			for (j = 0; j < len; j++)
				octets[j] = (uint8_t)(j * 11 + 3);
			assert_int_not_equal(esp_open(pair.in, octets, len,
			                         &payload, &next_header),
			    OK);
			free(octets);
		}
		/* None of them has moved the window. */
		payload = seal(&pair, 40);
		octets = malloc(payload.len);
		assert_non_null(octets);
		assert_int_equal(
		    open_copy(&pair, payload, &payload, octets), OK);
		free(octets);
		close_pair(&pair);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_suite),
		cmocka_unit_test(replay_window),
		cmocka_unit_test(windows),
		cmocka_unit_test(extended_numbers),
		cmocka_unit_test(exhausted),
		cmocka_unit_test(ivs),
		cmocka_unit_test(any_length),
		cmocka_unit_test(chacha_vector),
		cmocka_unit_test(lengths),
		cmocka_unit_test(refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
