/*
 * frag: puts the fragments of a message together again. RFC 7383 2.6.
 *
 * Only fragments whose ICV verified come here, so that what is held is the
 * peer's; caps bound it all the same. One reassembly a direction: the window
 * is one message.
 */
#ifndef IKEV2_FRAG_H
#define IKEV2_FRAG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/wire.h"
#include "ikev2/sk.h"

#define V2_FRAGMENTS     64    /* of one message, at most */
#define V2_FRAGMENT_SIZE 65535 /* octets of plaintext, all together */
/* ... from a peer whose identity is not proven: whoever can do a key exchange
 * gets so much of our memory. */
#define V2_FRAGMENT_STRANGER 16384

struct v2_frag;

/* Adds the opened fragment of msg to *frag (made when there is none). When the
 * last one is in, *whole becomes true, msg->opened is the whole plaintext,
 * part->first its first payload's type, and *frag is gone. A repeated
 * fragment, and one of a smaller total, changes nothing; a larger total begins
 * anew (RFC 7383 2.6.1). ERR_LONG beyond the caps, ERR_NOMEM: dropped. */
enum err v2_frag_add(struct v2_frag **frag, struct msg *msg,
    struct v2_sk_part *part, bool *whole);

/* Wipes; accepts NULL. */
void v2_frag_free(struct v2_frag *frag);

#endif
