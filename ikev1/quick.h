/*
 * quick: Quick Mode (RFC 2409 5.5, RFC 2407 4.4 and 4.5, RFC 3947 5).
 *
 * Any number at once, each with a message ID, an IV and a child of its own. A
 * Quick Mode carries one selector a side: a connection with several gets one
 * Quick Mode for each pair. Order of installation: the responder's inbound SA
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
/* No answer after the last try. */
void v1_quick_timeout(struct v1_exchange *x);
/* The exchange that negotiates a child, or NULL. */
struct v1_exchange *v1_quick_of(const struct child_sa *child);

fsm_step v1_quick_prepare, v1_quick_send1, v1_quick_take2, v1_quick_install,
    v1_quick_send3;
fsm_step v1_quick_take1, v1_quick_inbound, v1_quick_send2, v1_quick_outbound,
    v1_quick_up;

/* The table's callbacks for Quick Mode. */
void v1_quick_moved(struct v1_sa *v1, struct v1_exchange *x);
void v1_quick_failed(struct v1_sa *v1, struct v1_exchange *x);

#endif
