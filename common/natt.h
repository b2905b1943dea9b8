/*
 * natt: NAT traversal common to both versions: detection hashes, what they
 * mean, and when a peer's address may be followed. RFC 3947, RFC 3948,
 * RFC 7296 2.23.
 */
#ifndef COMMON_NATT_H
#define COMMON_NATT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/alg.h"
#include "common/err.h"

#define NATT_KEEPALIVE_MS 20000 /* RFC 3948 4 */
#define NATT_HASH_MAX     64

/* HASH(SPIi | SPIr | address | port). hash NULL: SHA-1, as IKEv2 wants;
 * else the PRF row whose hash phase 1 negotiated. out receives *len octets. */
enum err natt_hash(const struct alg *hash, uint64_t spi_i, uint64_t spi_r,
    const struct endpoint *endpoint, uint8_t out[static NATT_HASH_MAX],
    size_t *len);

#endif
