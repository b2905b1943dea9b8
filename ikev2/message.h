/*
 * message: IKEv2's datagrams, in and out: which SA and exchange one belongs
 * to, whether it is new or a repeat, its encryption, and the answers that need
 * no SA. RFC 7296 2.1 to 2.3, 2.11, 2.21, 2.23; RFC 7383.
 */
#ifndef IKEV2_MESSAGE_H
#define IKEV2_MESSAGE_H

#include "ikev2/internal.h"

/* engine->receive. */
void v2_receive(struct env *env, const struct packet *packet,
    const struct wire_header *header);

/* The peer is at another address now: from the kernel, or from a message. Does
 * what RFC 7296 2.23 allows. */
void v2_follow(struct v2_sa *v2, const struct endpoint *local,
    const struct endpoint *remote, bool natt);

/* One notify, or (0) the IKE SA's Delete, in a sealed request that nobody
 * repeats: a last word to a peer whose SA goes away here (RFC 7296 2.21.2). */
void v2_last_word(struct v2_sa *v2, uint16_t notify);

#endif
