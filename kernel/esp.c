#include "kernel/esp.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "common/alg.h"

#define SPI_AND_SEQUENCE 8
#define TRAILER          2 /* pad length, next header */
#define AEAD_ALIGN       4 /* RFC 4303 2.4 */
#define NONCE            12
#define IV_POOL          256
#define MAC_MAX          64
/* Without extended numbers: when a new SA is asked for. */
#define NEAR_END 0xf0000000u

struct esp_sa {
	const struct alg *encr, *integ;
	uint32_t spi;
	bool esn;
	EVP_CIPHER_CTX *cipher;
	EVP_MAC_CTX *mac;
	uint8_t salt[4];
	bool outbound;

	uint64_t sequence;    /* outbound: last used; inbound: highest seen */
	uint32_t window_bits; /* 0: no check */
	uint32_t window_size; /* bits that there are: a power of two */

	uint8_t *ivs; /* outbound CBC: random octets in stock */
	size_t ivs_left;

	uint64_t octets, packets, last_ms;
	struct esp_errors errors;
	/* Inbound: bit n % window_size for sequence number n. */
	uint64_t window[];
};

/* Fetched once a thread: SAs come by the thousand. */
static EVP_CIPHER *
fetch_cipher(const struct alg *encr)
{
	static _Thread_local EVP_CIPHER *cache[ALG_COUNT];

	if (cache[encr->id] == NULL)
		cache[encr->id] = EVP_CIPHER_fetch(NULL, encr->openssl, NULL);
	return cache[encr->id];
}

static EVP_MAC *
fetch_hmac(void)
{
	static _Thread_local EVP_MAC *cache;

	if (cache == NULL)
		cache = EVP_MAC_fetch(NULL, "HMAC", NULL);
	return cache;
}

static bool
key_mac(struct esp_sa *sa, const uint8_t *key, size_t len)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(
		    OSSL_MAC_PARAM_DIGEST, NULL, 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC *hmac = fetch_hmac();
	char digest[32];
	size_t n = strlen(sa->integ->openssl);

	if (hmac == NULL || n >= sizeof(digest))
		return false;
	memcpy(digest, sa->integ->openssl, n + 1);
	params[0] =
	    OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0);
	sa->mac = EVP_MAC_CTX_new(hmac);
	return sa->mac != NULL && EVP_MAC_init(sa->mac, key, len, params) == 1;
}

static bool
key_cipher(struct esp_sa *sa, const uint8_t *key)
{
	EVP_CIPHER *cipher = fetch_cipher(sa->encr);
	int encrypt = sa->outbound ? 1 : 0;
	bool good;

	sa->cipher = EVP_CIPHER_CTX_new();
	good = cipher != NULL && sa->cipher != NULL &&
	       EVP_CipherInit_ex2(
	           sa->cipher, cipher, key, NULL, encrypt, NULL) == 1 &&
	       EVP_CIPHER_CTX_set_padding(sa->cipher, 0) == 1;
	return good;
}

/* Room for a window of so many packets. */
static size_t
window_octets(uint32_t bits)
{
	size_t octets = 8;

	while (octets * 8 < bits && octets * 8 < ESP_WINDOW_MAX)
		octets *= 2;
	return octets;
}

struct esp_sa *
esp_new(const struct kmsg_sa *request)
{
	bool outbound = request->direction == KMSG_OUT;
	size_t size = outbound ? 0 : window_octets(request->replay_window);
	struct esp_sa *sa = calloc(1, sizeof(*sa) + size);
	size_t key_len;

	if (sa == NULL)
		return NULL;
	sa->window_size = (uint32_t)size * 8;
	sa->spi = request->spi;
	sa->esn = request->esn;
	sa->encr = alg_get((enum alg_id)request->encr);
	sa->integ = alg_get((enum alg_id)request->integ);
	sa->outbound = outbound;
	sa->window_bits = request->replay_window;
	if (sa->window_bits > ESP_WINDOW_MAX)
		sa->window_bits = ESP_WINDOW_MAX;
	if (sa->encr == NULL || sa->encr->kind != ALG_ENCR ||
	    alg_is_aead(sa->encr) != (sa->integ == NULL) ||
	    (sa->integ != NULL && sa->integ->kind != ALG_INTEG) ||
	    request->encr_key_len != alg_keymat(sa->encr) ||
	    request->integ_key_len !=
	        (sa->integ == NULL ? 0 : alg_keymat(sa->integ)) ||
	    request->encr_key_len + request->integ_key_len > KMSG_KEY)
		goto refused;
	key_len = request->encr_key_len - sa->encr->salt;
	memcpy(sa->salt, request->key + key_len, sa->encr->salt);
	if (!key_cipher(sa, request->key))
		goto refused;
	if (sa->integ != NULL &&
	    !key_mac(sa, request->key + request->encr_key_len,
	        request->integ_key_len))
		goto refused;
	if (sa->outbound && sa->integ != NULL) {
		sa->ivs = malloc(IV_POOL);
		if (sa->ivs == NULL)
			goto refused;
	}
	return sa;
refused:
	esp_free(sa);
	return NULL;
}

void
esp_free(struct esp_sa *sa)
{
	if (sa == NULL)
		return;
	EVP_CIPHER_CTX_free(sa->cipher);
	EVP_MAC_CTX_free(sa->mac);
	free(sa->ivs);
	OPENSSL_cleanse(sa, sizeof(*sa));
	free(sa);
}

static size_t
alignment(const struct esp_sa *sa)
{
	return sa->encr->block > AEAD_ALIGN ? sa->encr->block : AEAD_ALIGN;
}

static size_t
icv_len(const struct esp_sa *sa)
{
	return sa->integ == NULL ? sa->encr->icv : sa->integ->icv;
}

size_t
esp_head_len(const struct esp_sa *sa)
{
	return SPI_AND_SEQUENCE + (size_t)sa->encr->iv;
}

size_t
esp_sealed_len(const struct esp_sa *sa, size_t len)
{
	size_t align = alignment(sa);

	return SPI_AND_SEQUENCE + sa->encr->iv +
	       (len + TRAILER + align - 1) / align * align + icv_len(sa);
}

size_t
esp_payload_max(const struct esp_sa *sa, size_t len)
{
	size_t align = alignment(sa);
	size_t fixed = SPI_AND_SEQUENCE + sa->encr->iv + icv_len(sa);

	if (len < fixed + align)
		return 0;
	return (len - fixed) / align * align - TRAILER;
}

/* Cipher calls ---------------------------------------------------------- */

static void
put_u32(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 24);
	at[1] = (uint8_t)(value >> 16);
	at[2] = (uint8_t)(value >> 8);
	at[3] = (uint8_t)value;
}

static uint32_t
get_u32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 |
	       (uint32_t)at[2] << 8 | at[3];
}

/* RFC 4106 5, RFC 7634 2.1: SPI and sequence number, the high half of an
 * extended one between them. */
static int
make_aad(const struct esp_sa *sa, uint64_t sequence, uint8_t aad[12])
{
	put_u32(aad, sa->spi);
	if (!sa->esn) {
		put_u32(aad + 4, (uint32_t)sequence);
		return 8;
	}
	put_u32(aad + 4, (uint32_t)(sequence >> 32));
	put_u32(aad + 8, (uint32_t)sequence);
	return 12;
}

static bool
aead_run(struct esp_sa *sa, uint64_t sequence, const uint8_t *iv, uint8_t *text,
    size_t len, uint8_t *tag)
{
	uint8_t nonce[NONCE], aad[12];
	int n, aad_len = make_aad(sa, sequence, aad);
	int icv = sa->encr->icv;

	memcpy(nonce, sa->salt, sizeof(sa->salt));
	memcpy(nonce + sizeof(sa->salt), iv, NONCE - sizeof(sa->salt));
	if (EVP_CipherInit_ex2(sa->cipher, NULL, NULL, nonce, -1, NULL) != 1)
		return false;
	if (!sa->outbound && EVP_CIPHER_CTX_ctrl(sa->cipher,
	                         EVP_CTRL_AEAD_SET_TAG, icv, tag) != 1)
		return false;
	if (EVP_CipherUpdate(sa->cipher, NULL, &n, aad, aad_len) != 1 ||
	    EVP_CipherUpdate(sa->cipher, text, &n, text, (int)len) != 1 ||
	    EVP_CipherFinal_ex(sa->cipher, text + n, &n) != 1)
		return false;
	return !sa->outbound || EVP_CIPHER_CTX_ctrl(sa->cipher,
	                            EVP_CTRL_AEAD_GET_TAG, icv, tag) == 1;
}

static bool
cbc_run(struct esp_sa *sa, const uint8_t *iv, uint8_t *text, size_t len)
{
	int n;

	return EVP_CipherInit_ex2(sa->cipher, NULL, NULL, iv, -1, NULL) == 1 &&
	       EVP_CipherUpdate(sa->cipher, text, &n, text, (int)len) == 1;
}

/* RFC 4303 2.2.1: with extended numbers, the high half goes after the packet
 * for the MAC and is not sent. */
static bool
mac_run(struct esp_sa *sa, uint64_t sequence, const uint8_t *packet, size_t len,
    uint8_t mac[MAC_MAX])
{
	uint8_t high[4];
	size_t n;

	if (EVP_MAC_init(sa->mac, NULL, 0, NULL) != 1 ||
	    EVP_MAC_update(sa->mac, packet, len) != 1)
		return false;
	put_u32(high, (uint32_t)(sequence >> 32));
	if (sa->esn && EVP_MAC_update(sa->mac, high, 4) != 1)
		return false;
	return EVP_MAC_final(sa->mac, mac, &n, MAC_MAX) == 1;
}

/* Outbound -------------------------------------------------------------- */

/* RFC 3602 3: a CBC IV is unpredictable. RFC 4106 3.1, RFC 7634 2: a counter's
 * is unique, and the sequence number is. */
static bool
make_iv(struct esp_sa *sa, uint64_t sequence, uint8_t *iv)
{
	if (sa->integ == NULL) {
		put_u32(iv, (uint32_t)(sequence >> 32));
		put_u32(iv + 4, (uint32_t)sequence);
		return true;
	}
	if (sa->ivs_left < sa->encr->iv) {
		if (RAND_bytes(sa->ivs, IV_POOL) != 1)
			return false;
		sa->ivs_left = IV_POOL;
	}
	sa->ivs_left -= sa->encr->iv;
	memcpy(iv, sa->ivs + sa->ivs_left, sa->encr->iv);
	return true;
}

/* RFC 4303 3.3.3: without extended numbers, the counter must not cycle. */
static bool
next_sequence(struct esp_sa *sa, uint64_t *sequence)
{
	uint64_t last = sa->esn ? UINT64_MAX : UINT32_MAX;

	if (sa->sequence >= last)
		return false;
	*sequence = ++sa->sequence;
	return true;
}

enum err
esp_seal(struct esp_sa *sa, uint8_t *payload, size_t len, uint8_t next_header,
    struct view *sealed)
{
	size_t align = alignment(sa), pad, total;
	uint8_t *packet = payload - sa->encr->iv - SPI_AND_SEQUENCE;
	uint8_t mac[MAC_MAX];
	uint64_t sequence;
	size_t i;

	if (!next_sequence(sa, &sequence))
		return ERR_LIMIT;
	/* RFC 4303 2.4: padding 1, 2, 3 ... */
	pad = (align - (len + TRAILER) % align) % align;
	for (i = 0; i < pad; i++)
		payload[len + i] = (uint8_t)(i + 1);
	payload[len + pad] = (uint8_t)pad;
	payload[len + pad + 1] = next_header;
	total = len + pad + TRAILER;

	put_u32(packet, sa->spi);
	put_u32(packet + 4, (uint32_t)sequence);
	if (!make_iv(sa, sequence, packet + SPI_AND_SEQUENCE))
		return ERR_CRYPTO;
	if (sa->integ == NULL) {
		if (!aead_run(sa, sequence, packet + SPI_AND_SEQUENCE, payload,
		        total, payload + total))
			return ERR_CRYPTO;
	} else {
		if (!cbc_run(sa, packet + SPI_AND_SEQUENCE, payload, total) ||
		    !mac_run(sa, sequence, packet,
		        SPI_AND_SEQUENCE + sa->encr->iv + total, mac))
			return ERR_CRYPTO;
		memcpy(payload + total, mac, sa->integ->icv);
	}
	*sealed = view_of(
	    packet, SPI_AND_SEQUENCE + sa->encr->iv + total + icv_len(sa));
	return OK;
}

bool
esp_nears_end(const struct esp_sa *sa)
{
	return !sa->esn && sa->sequence >= NEAR_END;
}

void
esp_begin_at(struct esp_sa *sa, uint64_t sequence)
{
	sa->sequence = sequence;
}

/* Inbound --------------------------------------------------------------- */

/* RFC 4303 appendix A2.2: the high half of an extended number is guessed from
 * where the low half falls beside the window. */
static uint64_t
extend(const struct esp_sa *sa, uint32_t low)
{
	uint32_t top_low = (uint32_t)sa->sequence;
	uint32_t high = (uint32_t)(sa->sequence >> 32);
	uint32_t width =
	    sa->window_bits == 0 ? ESP_WINDOW_MAX : sa->window_bits;
	uint32_t bottom = top_low - width + 1;

	if (!sa->esn)
		return low;
	if (top_low >= width - 1) {
		/* The window lies within one subspace. */
		if (low < bottom)
			high++;
	} else if (low >= bottom && high > 0) {
		/* It spans two, and low falls into the older one. */
		high--;
	}
	return (uint64_t)high << 32 | low;
}

/* RFC 4303 3.4.3. Nothing is changed here. */
static bool
window_allows(const struct esp_sa *sa, uint64_t sequence)
{
	uint64_t bit = sequence % sa->window_size;

	if (sequence == 0)
		return false;
	if (sa->window_bits == 0 || sequence > sa->sequence)
		return true;
	if (sa->sequence - sequence >= sa->window_bits)
		return false;
	return (sa->window[bit / 64] & (1ull << (bit % 64))) == 0;
}

static void
window_move(struct esp_sa *sa, uint64_t sequence)
{
	uint64_t n, bit;

	if (sequence > sa->sequence) {
		n = sequence - sa->sequence;
		if (n >= sa->window_size) {
			memset(sa->window, 0, sa->window_size / 8);
		} else {
			for (; n > 0; n--) {
				bit = (sequence - n + 1) % sa->window_size;
				sa->window[bit / 64] &= ~(1ull << (bit % 64));
			}
		}
		sa->sequence = sequence;
	}
	bit = sequence % sa->window_size;
	sa->window[bit / 64] |= 1ull << (bit % 64);
}

/* RFC 4303 2.4: the receiver checks the padding's content; it is covered by
 * the ICV, so a mistake here is the sender's. */
static bool
strip_trailer(const uint8_t *text, size_t total, struct view *payload,
    uint8_t *next_header)
{
	size_t pad = text[total - TRAILER], i;

	if (pad + TRAILER > total)
		return false;
	for (i = 0; i < pad; i++)
		if (text[total - TRAILER - pad + i] != (uint8_t)(i + 1))
			return false;
	*next_header = text[total - 1];
	*payload = view_of(text, total - TRAILER - pad);
	return true;
}

enum err
esp_open(struct esp_sa *sa, uint8_t *packet, size_t len, struct view *payload,
    uint8_t *next_header)
{
	size_t head = SPI_AND_SEQUENCE + (size_t)sa->encr->iv;
	size_t icv = icv_len(sa), total;
	uint8_t mac[MAC_MAX], *text = packet + head;
	uint64_t sequence;
	bool good;

	if (len < head + icv + alignment(sa) ||
	    (len - head - icv) % alignment(sa) != 0) {
		sa->errors.malformed++;
		return ERR_SHORT;
	}
	total = len - head - icv;
	sequence = extend(sa, get_u32(packet + 4));
	if (!window_allows(sa, sequence)) {
		sa->errors.replays++;
		return ERR_EXISTS;
	}
	if (sa->integ == NULL)
		good = aead_run(sa, sequence, packet + SPI_AND_SEQUENCE, text,
		    total, text + total);
	else
		good = mac_run(sa, sequence, packet, head + total, mac) &&
		       CRYPTO_memcmp(mac, text + total, icv) == 0 &&
		       cbc_run(sa, packet + SPI_AND_SEQUENCE, text, total);
	if (!good) {
		sa->errors.forged++;
		return ERR_AUTH;
	}
	window_move(sa, sequence);
	if (!strip_trailer(text, total, payload, next_header)) {
		sa->errors.malformed++;
		return ERR_SYNTAX;
	}
	return OK;
}

/* Use ------------------------------------------------------------------- */

void
esp_used(struct esp_sa *sa, size_t octets, uint64_t now_ms)
{
	sa->octets += octets;
	sa->packets++;
	sa->last_ms = now_ms;
}

void
esp_use(const struct esp_sa *sa, uint64_t now_ms, struct kmsg_use *use)
{
	use->octets = sa->octets;
	use->packets = sa->packets;
	use->idle_ms = sa->packets == 0 ? UINT64_MAX : now_ms - sa->last_ms;
}

const struct esp_errors *
esp_errors(const struct esp_sa *sa)
{
	return &sa->errors;
}
