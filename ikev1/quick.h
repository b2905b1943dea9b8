/*
 * quick: Quick Mode (RFC 2409 5.5, RFC 2407 4.4 and 4.5, RFC 3947 5).
 *
 * Any number of the peer's at once and two of ours, each with a message ID, an
 * IV and a child of its own; more of ours wait for their turn. A Quick Mode
 * carries one selector a side: a connection with several gets one Quick Mode
 * for each pair. Order of installation: the responder's inbound SA
 * before QM2 and outbound SA on QM3, the initiator's both before QM3.
 */
#ifndef IKEV1_QUICK_H
#define IKEV1_QUICK_H

#include "common/fsm.h"
#include "ikev1/state.h"

/* The engine's operations. */
enum err
v1_quick_conn(struct ike_sa *sa, struct conn *conn, const struct ts packet[2]);
enum err v1_quick_rekey(struct child_sa *child);

/* The peer refused a Quick Mode of ours: that of the child with this inbound
 * SPI, or, with spi 0 or an unknown one, the only one that awaits QM2. */
void v1_quick_refused(struct v1_sa *v1, uint32_t spi, const char *text);
/* It has waited for its turn: begins it, if nothing stands in the way. */
void v1_quick_turn(struct v1_exchange *x);
/* One is through or has ended: the next gets its turn in a moment. */
void v1_quick_pass_on(struct v1_sa *v1);
/* No answer after the last try. */
void v1_quick_timeout(struct v1_exchange *x);
/* The exchange that negotiates a child, or NULL. */
struct v1_exchange *v1_quick_of(const struct child_sa *child);

/* Steps. The initiator's are in quick.c, the responder's in answer.c. */
fsm_step v1_quick_prepare, v1_quick_send1, v1_quick_take2, v1_quick_install,
    v1_quick_send3;
fsm_step v1_quick_take1, v1_quick_inbound, v1_quick_send2, v1_quick_outbound,
    v1_quick_up;

/* The table's callbacks for Quick Mode. */
void v1_quick_moved(struct v1_sa *v1, struct v1_exchange *x);
void v1_quick_failed(struct v1_sa *v1, struct v1_exchange *x);

/* For answer.c ----------------------------------------------------------- */

/* The child being negotiated, or NULL when it has gone; what to say then. */
struct child_sa *v1_quick_child(const struct v1_exchange *x);
enum verdict v1_quick_gone(struct exchange *base);
struct view v1_quick_nonce_i(const struct v1_quick *quick);
struct view v1_quick_nonce_r(const struct v1_quick *quick);
/* One more answer is awaited (WAIT), or its submission failed (FAIL). */
enum verdict v1_quick_await(struct v1_exchange *x, enum err submitted);
/* The answers: install_done, and dh's. */
void v1_quick_installed(
    struct env *env, struct ticket ticket, enum err err, const char *text);
void v1_quick_exchanged(
    struct env *env, struct ticket ticket, struct dh_result *result);
/* RFC 2409 5.5: KEYMAT of each direction, by the receiver's SPI. */
enum err v1_quick_keys(
    struct v1_sa *v1, const struct v1_quick *quick, struct child_sa *child);
/* The peer's nonce into `into` (V1_NONCE_MAX octets) and a check of its public
 * value, which must come with a group and not without one. */
enum verdict v1_quick_take_nonce(struct v1_exchange *x, const struct msg *msg,
    const struct alg *group, uint8_t *into, uint16_t *len);
/* RFC 3947 5.2. initiator: of the exchange, are we? */
void v1_quick_natoa_write(
    struct v1_out *out, const struct child_sa *child, bool initiator);
void v1_quick_natoa_read(
    const struct msg *msg, struct child_sa *child, bool initiator);
enum verdict
v1_quick_seal(struct v1_exchange *x, struct v1_out *out, bool timed);

#endif
