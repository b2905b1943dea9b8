/*
 * esp: the ESP transform of one SA, one direction, for the userland data
 * plane. RFC 4303; RFC 3602, 4106, 7634, 2404, 4868.
 *
 * Contexts are keyed when the SA is made; a packet costs no allocation. An SA
 * belongs to one thread. A sequence number is never used twice: a sealed
 * packet that is not sent is lost, and an SA whose process died is never made
 * again with the same key.
 */
#ifndef KERNEL_ESP_H
#define KERNEL_ESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "kernel/kmsg.h"

#define ESP_HEAD 24 /* octets in front of the payload: SPI, sequence, IV */
#define ESP_TAIL 64 /* octets behind it: padding, trailer, ICV */

#define ESP_WINDOW_MAX 4096 /* packets */

struct esp_sa;

/* For KMSG_SA_ADD's request; keys are taken into contexts, not kept. NULL:
 * out of memory, or what the crypto library refuses. */
struct esp_sa *esp_new(const struct kmsg_sa *request);
void esp_free(struct esp_sa *sa); /* accepts NULL */

/* Octets in front of the payload: SPI, sequence number, IV. */
size_t esp_head_len(const struct esp_sa *sa);
/* Octets that a payload of len octets grows to: SPI to ICV. */
size_t esp_sealed_len(const struct esp_sa *sa, size_t len);
/* The largest payload whose packet is at most len octets; 0 if none. */
size_t esp_payload_max(const struct esp_sa *sa, size_t len);

/* Seals in place: len octets of payload at packet, with ESP_HEAD octets of
 * room in front and ESP_TAIL behind. *sealed is the whole ESP packet, which
 * begins within the room in front. ERR_LIMIT when the sequence numbers are
 * used up, ERR_CRYPTO. */
enum err esp_seal(struct esp_sa *sa, uint8_t *payload, size_t len,
    uint8_t next_header, struct view *sealed);

/* RFC 4303 3.3.3: the sequence numbers will be used up soon, it is time for a
 * new SA. Never of one with extended numbers. */
bool esp_nears_end(const struct esp_sa *sa);

/* As if number sequence had just been used (outbound) or was the highest seen
 * (inbound). For tests: nobody waits for 2^32 packets. */
void esp_begin_at(struct esp_sa *sa, uint64_t sequence);

/* Opens in place. *payload lies within packet. The window is looked at before
 * decryption and moved after the ICV verified. ERR_SHORT, ERR_SYNTAX
 * (trailer), ERR_AUTH, ERR_EXISTS (a replay, or older than the window). */
enum err esp_open(struct esp_sa *sa, uint8_t *packet, size_t len,
    struct view *payload, uint8_t *next_header);

/* Traffic so far, by octets of payload. now_ms is kept by esp_used(). */
void esp_used(struct esp_sa *sa, size_t octets, uint64_t now_ms);
void esp_use(const struct esp_sa *sa, uint64_t now_ms, struct kmsg_use *use);

struct esp_errors {
	uint64_t replays, forged, malformed;
};
const struct esp_errors *esp_errors(const struct esp_sa *sa);

#endif
