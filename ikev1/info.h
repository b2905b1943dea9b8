/*
 * info: Informational exchanges: notifies, deletes, dead peer detection.
 *
 * Every message is sealed and led by a HASH(1), and is looked at only after
 * that was verified (RFC 2409 5.7). What comes in the clear is logged, at a
 * limited rate, and changes nothing; a hint that the peer has lost its state
 * leads to a question under protection at most. RFC 2408 3.14, 3.15; RFC 2407
 * 4.6.3; RFC 3706.
 */
#ifndef IKEV1_INFO_H
#define IKEV1_INFO_H

#include "common/fsm.h"
#include "ikev1/state.h"

/* A protected notify; spi 0: none (ESP), or the cookies (PROTO_IKE).
 * Unanswered, so sent four times where little else goes on; without keys
 * nothing is sent. */
void v1_info_notify(struct v1_sa *v1, enum ipsec_protocol protocol,
    uint32_t spi, uint16_t type);
/* An unprotected one, before there are keys; within limit's rate. */
void v1_info_refuse(struct ike_sa *sa, uint16_t type);

/* Deletes, sent four times because nobody answers them. spis: our inbound
 * ones, at most V1_DELETE_MAX. */
#define V1_DELETE_MAX 64
void
v1_info_delete_children(struct v1_sa *v1, const uint32_t *spis, size_t count);
/* Of the ISAKMP SA; v1_life_deleted() follows when it has been sent for the
 * last time. */
enum err v1_info_delete_sa(struct v1_sa *v1);

/* RFC 3706. Begins the watch, as the connection and the peer want it. */
void v1_info_dpd_begin(struct v1_sa *v1);
/* Asks now. ERR_UNSUPPORTED when the peer did not announce DPD. */
enum err v1_info_probe(struct ike_sa *sa);
void v1_info_dpd(void *arg); /* the timer's */
/* A fresh, authenticated message came: the peer lives. */
void v1_info_alive(struct v1_sa *v1);

fsm_step v1_info_deletes, v1_info_there, v1_info_ack, v1_info_contact,
    v1_info_errors, v1_info_status, v1_info_unprotected;

#endif
