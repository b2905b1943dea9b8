/*
 * bound: what a responder's handshake must cost, whoever writes the gateway.
 *
 * For each kind, one after the other and nothing else: key generation, key
 * agreement, and every PRF, MAC, hash and cipher that the responder of a PSK
 * handshake with one child computes, by bare OpenSSL calls in their cheapest
 * form, everything that can be fetched or allocated beforehand being there
 * already. Sizes are those of our own messages with aes128-sha256. Then what
 * it costs a process to receive a datagram and send it back.
 *
 * Prints lines of "NAME MICROSECONDS" of CPU: one for each kind, "echo" (eight
 * datagrams in flight) and "echo-one" (one).
 */
#include <arpa/inet.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BATCHES  7      /* the median counts */
#define BATCH_US 120000 /* of CPU, at least */

#define FLIGHT      8
#define DATAGRAMS   60000
#define DATAGRAM    300 /* octets */
#define BLOCK       64  /* SHA-256 */
#define DIGEST      32
#define NONCE       32
#define PUBLIC_MAX  256
#define MESSAGE_MAX 512

static void
must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "bound: %s failed\n", what);
	exit(1);
}

static double
cpu_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* All that is there before the first handshake. */
struct crypto {
	EVP_MD *sha256, *sha1;
	EVP_MD_CTX *digest, *digest_sha1;
	EVP_CIPHER *aes;
	EVP_CIPHER_CTX *cipher;
};

struct group {
	const char *type, *name; /* name: NULL for X25519 */
	EVP_PKEY_CTX *generate;
	EVP_PKEY *peer;
	uint8_t peer_public[PUBLIC_MAX];
	size_t peer_len;
	bool padded; /* MODP */
};

static void
crypto_init(struct crypto *c)
{
	c->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	c->sha1 = EVP_MD_fetch(NULL, "SHA1", NULL);
	c->aes = EVP_CIPHER_fetch(NULL, "AES-128-CBC", NULL);
	c->digest = EVP_MD_CTX_new();
	c->digest_sha1 = EVP_MD_CTX_new();
	c->cipher = EVP_CIPHER_CTX_new();
	must(c->sha256 != NULL && c->sha1 != NULL && c->aes != NULL &&
	         c->digest != NULL && c->digest_sha1 != NULL &&
	         c->cipher != NULL,
	    "fetching");
	must(EVP_CipherInit_ex2(c->cipher, c->aes, NULL, NULL, 1, NULL) == 1 &&
	         EVP_CIPHER_CTX_set_padding(c->cipher, 0) == 1,
	    "AES");
}

static void
crypto_fini(struct crypto *c)
{
	EVP_MD_CTX_free(c->digest);
	EVP_MD_CTX_free(c->digest_sha1);
	EVP_CIPHER_CTX_free(c->cipher);
	EVP_MD_free(c->sha256);
	EVP_MD_free(c->sha1);
	EVP_CIPHER_free(c->aes);
}

static void
group_init(struct group *group)
{
	OSSL_PARAM params[2] = { OSSL_PARAM_END, OSSL_PARAM_END };

	if (group->name != NULL)
		params[0] =
		    OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME,
		        (char *)(uintptr_t)group->name, 0);
	group->generate = EVP_PKEY_CTX_new_from_name(NULL, group->type, NULL);
	must(group->generate != NULL &&
	         EVP_PKEY_keygen_init(group->generate) == 1 &&
	         EVP_PKEY_CTX_set_params(group->generate, params) == 1 &&
	         EVP_PKEY_keygen(group->generate, &group->peer) == 1 &&
	         EVP_PKEY_get_octet_string_param(group->peer,
	             OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, group->peer_public,
	             sizeof(group->peer_public), &group->peer_len) == 1,
	    group->type);
}

static void
group_fini(struct group *group)
{
	EVP_PKEY_CTX_free(group->generate);
	EVP_PKEY_free(group->peer);
}

/* Draws a pair, writes its public value, takes the peer's, derives. Returns
 * the secret's length. */
static size_t
agree(struct group *group, uint8_t *public, uint8_t *shared)
{
	static const unsigned int one = 1;
	OSSL_PARAM params[2] = { OSSL_PARAM_END, OSSL_PARAM_END };
	EVP_PKEY_CTX *ctx;
	EVP_PKEY *own = NULL;
	size_t len = PUBLIC_MAX, public_len;

	if (group->padded)
		params[0] = OSSL_PARAM_construct_uint(
		    OSSL_EXCHANGE_PARAM_PAD, (unsigned int *)(uintptr_t)&one);
	must(EVP_PKEY_keygen(group->generate, &own) == 1 &&
	         EVP_PKEY_get_octet_string_param(own,
	             OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, public, PUBLIC_MAX,
	             &public_len) == 1 &&
	         EVP_PKEY_set1_encoded_public_key(
	             group->peer, group->peer_public, group->peer_len) == 1,
	    "key generation");
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
	must(ctx != NULL && EVP_PKEY_derive_init_ex(ctx, params) == 1 &&
	         EVP_PKEY_derive_set_peer_ex(ctx, group->peer, 0) == 1 &&
	         EVP_PKEY_derive(ctx, shared, &len) == 1,
	    "derivation");
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(own);
	return len;
}

static void
sha256(struct crypto *c, const uint8_t *text, size_t len, uint8_t *out)
{
	must(EVP_DigestInit_ex2(c->digest, c->sha256, NULL) == 1 &&
	         EVP_DigestUpdate(c->digest, text, len) == 1 &&
	         EVP_DigestFinal_ex(c->digest, out, NULL) == 1,
	    "SHA-256");
}

static void
sha1(struct crypto *c, const uint8_t *text, size_t len, uint8_t *out)
{
	must(EVP_DigestInit_ex2(c->digest_sha1, c->sha1, NULL) == 1 &&
	         EVP_DigestUpdate(c->digest_sha1, text, len) == 1 &&
	         EVP_DigestFinal_ex(c->digest_sha1, out, NULL) == 1,
	    "SHA-1");
}

/* HMAC of text, cheaper over the digest than by EVP_MAC. */
static void
prf(struct crypto *c, const uint8_t key[DIGEST], const uint8_t *text,
    size_t len, uint8_t out[DIGEST])
{
	uint8_t pad[BLOCK];

	memset(pad, 0x36, sizeof(pad));
	for (size_t i = 0; i < DIGEST; i++)
		pad[i] ^= key[i];
	must(EVP_DigestInit_ex2(c->digest, c->sha256, NULL) == 1 &&
	         EVP_DigestUpdate(c->digest, pad, BLOCK) == 1 &&
	         EVP_DigestUpdate(c->digest, text, len) == 1 &&
	         EVP_DigestFinal_ex(c->digest, out, NULL) == 1,
	    "HMAC");
	for (size_t i = 0; i < BLOCK; i++)
		pad[i] ^= 0x36 ^ 0x5c;
	must(EVP_DigestInit_ex2(c->digest, c->sha256, NULL) == 1 &&
	         EVP_DigestUpdate(c->digest, pad, BLOCK) == 1 &&
	         EVP_DigestUpdate(c->digest, out, DIGEST) == 1 &&
	         EVP_DigestFinal_ex(c->digest, out, NULL) == 1,
	    "HMAC");
}

/* rounds of prf+ or of KEYMAT over a seed of len octets: all but the first
 * have the block before in front. */
static void
expand(struct crypto *c, const uint8_t key[DIGEST], uint8_t *text, size_t len,
    unsigned rounds, uint8_t out[DIGEST])
{
	prf(c, key, text, len, out);
	while (--rounds > 0) {
		memcpy(text, out, DIGEST);
		prf(c, key, text, DIGEST + len, out);
	}
}

static void
aes(struct crypto *c, const uint8_t *key, uint8_t *text, int len, int encrypt)
{
	int done;

	must(
	    EVP_CipherInit_ex2(c->cipher, NULL, key, key, encrypt, NULL) == 1 &&
	        EVP_CipherUpdate(c->cipher, text, &done, text, len) == 1,
	    "AES");
}

/* The responder's IKE_SA_INIT and IKE_AUTH (RFC 7296). */
static void
handshake_v2(struct crypto *c, struct group *group)
{
	uint8_t text[MESSAGE_MAX] = { 0 }, public[PUBLIC_MAX];
	uint8_t shared[PUBLIC_MAX], key[DIGEST] = { 0 }, out[DIGEST];
	size_t len = agree(group, public, shared);

	/* 2.23: two hashes received, two sent. */
	for (int i = 0; i < 4; i++)
		sha1(c, text, 8 + 8 + 4 + 2, out);
	/* 2.14: SKEYSEED; five keys of 32 and two of 16 octets. */
	prf(c, key, shared, len, key);
	expand(c, key, text, 2 * NONCE + 16 + 1, 6, out);
	/* IKE_AUTH request: opened. */
	prf(c, key, text, 300, out);
	aes(c, key, text, 240, 0);
	/* 2.15: both ways MACedID, the padded secret, AUTH over the first
	 * message, a nonce and MACedID. */
	for (int i = 0; i < 2; i++) {
		prf(c, key, text, 12, out);
		prf(c, key, text, 17, out);
		prf(c, out, text, 200 + group->peer_len + NONCE + DIGEST, out);
	}
	/* 2.17: the child's keys, twice 16 + 32 octets. */
	expand(c, key, text, 2 * NONCE + 1, 3, out);
	/* The response: sealed. */
	aes(c, key, text, 192, 1);
	prf(c, key, text, 240, out);
}

/* The responder's Main Mode and Quick Mode without PFS (RFC 2409). */
static void
handshake_v1(struct crypto *c, struct group *group)
{
	uint8_t text[2 * PUBLIC_MAX + 256] = { 0 }, public[PUBLIC_MAX];
	uint8_t shared[PUBLIC_MAX + DIGEST + 17] = { 0 };
	uint8_t key[DIGEST] = { 0 }, out[DIGEST];
	size_t len = agree(group, public, shared);

	/* RFC 3947 3.2: two hashes received, two sent. */
	for (int i = 0; i < 4; i++)
		sha256(c, text, 8 + 8 + 4 + 2, out);
	/* 5: SKEYID, SKEYID_d, _a, _e; appendix B: the first IV. */
	prf(c, key, text, 2 * NONCE, key);
	prf(c, key, shared, len + 17, out);
	prf(c, key, shared, DIGEST + len + 17, out);
	prf(c, key, shared, DIGEST + len + 17, out);
	sha256(c, text, 2 * group->peer_len, out);
	/* MM5 opened, HASH_I and HASH_R, MM6 sealed. */
	aes(c, key, text, 64, 0);
	for (int i = 0; i < 2; i++)
		prf(c, key, text, 2 * group->peer_len + 16 + 56 + 8, out);
	aes(c, key, text, 64, 1);
	/* 5.5: the IV of the exchange; QM1 opened, QM2 sealed, QM3 opened. */
	sha256(c, text, 16 + 4, out);
	aes(c, key, text, 176, 0);
	prf(c, key, text, 4 + 136, out);
	aes(c, key, text, 176, 1);
	prf(c, key, text, 4 + NONCE + 136, out);
	aes(c, key, text, 48, 0);
	prf(c, key, text, 1 + 4 + 2 * NONCE, out);
	/* KEYMAT of both directions, 16 + 32 octets each. */
	for (int i = 0; i < 2; i++)
		expand(c, key, text, 1 + 4 + 2 * NONCE, 2, out);
}

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double
measure(struct crypto *c, struct group *group,
    void (*handshake)(struct crypto *, struct group *))
{
	double us[BATCHES];

	for (int i = 0; i < 20; i++)
		handshake(c, group);
	for (int batch = 0; batch < BATCHES; batch++) {
		double begin = cpu_us(), spent;
		unsigned count = 0;

		do {
			for (int i = 0; i < 20; i++)
				handshake(c, group);
			count += 20;
			spent = cpu_us() - begin;
		} while (spent < BATCH_US);
		us[batch] = spent / count;
	}
	qsort(us, BATCHES, sizeof(us[0]), compare);
	return us[BATCHES / 2];
}

/* Buffers for FLIGHT datagrams at once. */
struct batch {
	struct mmsghdr message[FLIGHT];
	struct iovec vector[FLIGHT];
	struct sockaddr_in peer[FLIGHT];
	uint8_t octets[FLIGHT][2048];
};

static void
batch_init(struct batch *batch)
{
	memset(batch, 0, sizeof(*batch));
	for (int i = 0; i < FLIGHT; i++) {
		batch->vector[i].iov_base = batch->octets[i];
		batch->message[i].msg_hdr.msg_iov = &batch->vector[i];
		batch->message[i].msg_hdr.msg_iovlen = 1;
		batch->message[i].msg_hdr.msg_name = &batch->peer[i];
	}
}

/* How many came; 0 when time is up. */
static int
receive(int fd, struct batch *batch)
{
	int count;

	for (int i = 0; i < FLIGHT; i++) {
		batch->vector[i].iov_len = sizeof(batch->octets[i]);
		batch->message[i].msg_hdr.msg_namelen = sizeof(batch->peer[i]);
	}
	count = recvmmsg(fd, batch->message, FLIGHT, MSG_WAITFORONE, NULL);
	for (int i = 0; i < count; i++)
		batch->vector[i].iov_len = batch->message[i].msg_len;
	return count > 0 ? count : 0;
}

static int
socket_on_loopback(struct sockaddr_in *bound)
{
	struct timeval patience = { 1, 0 };
	socklen_t len = sizeof(*bound);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memset(bound, 0, sizeof(*bound));
	bound->sin_family = AF_INET;
	bound->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(fd >= 0 &&
	         bind(fd, (struct sockaddr *)bound, sizeof(*bound)) == 0 &&
	         getsockname(fd, (struct sockaddr *)bound, &len) == 0 &&
	         setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience,
	             sizeof(patience)) == 0,
	    "a socket");
	return fd;
}

/* The echoing side: its CPU time for each datagram goes to the pipe. */
static void
serve(int fd, int report)
{
	static struct batch batch;
	double begin = cpu_us();
	unsigned done = 0;
	int count;

	batch_init(&batch);
	while (done < DATAGRAMS) {
		count = receive(fd, &batch);
		must(count > 0, "receiving");
		must(sendmmsg(fd, batch.message, (unsigned)count, 0) == count,
		    "sending");
		done += (unsigned)count;
	}
	begin = (cpu_us() - begin) / done;
	must(write(report, &begin, sizeof(begin)) == sizeof(begin), "a pipe");
}

static double
echo(int flight)
{
	static struct batch batch;
	struct sockaddr_in server, client;
	int fd = socket_on_loopback(&server);
	int own = socket_on_loopback(&client);
	int ends[2], status, count;
	unsigned sent = 0;
	double us = 0;
	pid_t child;

	must(pipe(ends) == 0, "a pipe");
	child = fork();
	must(child >= 0, "fork");
	if (child == 0) {
		serve(fd, ends[1]);
		_exit(0);
	}
	close(ends[1]);
	must(connect(own, (struct sockaddr *)&server, sizeof(server)) == 0,
	    "connect");
	batch_init(&batch);
	for (; sent < (unsigned)flight; sent++)
		must(send(own, batch.octets[0], DATAGRAM, 0) == DATAGRAM,
		    "sending");
	/* Each answer is sent again as the next question. */
	while ((count = receive(own, &batch)) > 0 && sent < DATAGRAMS) {
		for (int i = 0; i < count; i++)
			batch.message[i].msg_hdr.msg_namelen = 0;
		must(sendmmsg(own, batch.message, (unsigned)count, 0) == count,
		    "sending");
		sent += (unsigned)count;
	}
	must(read(ends[0], &us, sizeof(us)) == sizeof(us), "the echo");
	must(waitpid(child, &status, 0) == child, "waitpid");
	close(ends[0]);
	close(fd);
	close(own);
	return us;
}

int
main(void)
{
	static struct {
		const char *name;
		void (*handshake)(struct crypto *, struct group *);
		struct group group;
	} kinds[] = {
		{ "v2-psk-x25519", handshake_v2, { .type = "X25519" } },
		{ "v2-psk-p256", handshake_v2,
		    { .type = "EC", .name = "P-256" } },
		{ "v2-psk-modp2048", handshake_v2,
		    { .type = "DH", .name = "modp_2048", .padded = true } },
		{ "v1-psk-modp2048", handshake_v1,
		    { .type = "DH", .name = "modp_2048", .padded = true } },
		{ "v1-psk-p256", handshake_v1,
		    { .type = "EC", .name = "P-256" } },
	};
	struct crypto crypto;

	crypto_init(&crypto);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		group_init(&kinds[i].group);
		printf("%s %.1f\n", kinds[i].name,
		    measure(&crypto, &kinds[i].group, kinds[i].handshake));
		fflush(stdout);
		group_fini(&kinds[i].group);
	}
	crypto_fini(&crypto);
	printf("echo %.2f\n", echo(FLIGHT));
	fflush(stdout);
	printf("echo-one %.2f\n", echo(1));
	return 0;
}
