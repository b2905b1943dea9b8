#include "ikev2/frag.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

struct v2_frag {
	uint32_t id; /* of the message */
	uint16_t total, have;
	uint8_t first; /* type of the first payload */
	size_t octets;
	struct secret piece[V2_FRAGMENTS];
	bool seen[V2_FRAGMENTS];
};

void
v2_frag_free(struct v2_frag *frag)
{
	unsigned i;

	if (frag == NULL)
		return;
	for (i = 0; i < V2_FRAGMENTS; i++)
		secret_free(&frag->piece[i]);
	free(frag);
}

/* All pieces are there: msg gets the whole. */
static enum err
join(struct v2_frag *frag, struct msg *msg)
{
	/* One octet more, so that an empty message has memory of its own. */
	uint8_t *plain = malloc(frag->octets + 1);
	struct buf buf;
	unsigned i;

	if (plain == NULL)
		return ERR_NOMEM;
	buf_init(&buf, plain, frag->octets);
	for (i = 0; i < frag->total; i++)
		buf_view(&buf, secret_view(&frag->piece[i]));
	mem_wipe(msg->opened, msg->opened_len);
	free(msg->opened);
	msg->opened = plain;
	msg->opened_len = buf.len;
	return OK;
}

enum err
v2_frag_add(
    struct v2_frag **at, struct msg *msg, struct v2_sk_part *part, bool *whole)
{
	struct v2_frag *frag = *at;
	unsigned index = part->number - 1u;
	enum err err;

	*whole = false;
	if (part->number == 0 || part->number > part->total ||
	    part->total > V2_FRAGMENTS)
		return ERR_LONG;
	/* RFC 7383 2.6.1: a larger total means that the peer fragments anew,
	 * smaller; what came before is of no use. */
	if (frag != NULL &&
	    (frag->id != msg->header.id || part->total > frag->total)) {
		v2_frag_free(frag);
		frag = *at = NULL;
	}
	if (frag == NULL) {
		frag = *at = calloc(1, sizeof(*frag));
		if (frag == NULL)
			return ERR_NOMEM;
		frag->id = msg->header.id;
		frag->total = part->total;
	}
	if (part->total < frag->total || frag->seen[index])
		return OK;
	if (frag->octets + msg->opened_len > V2_FRAGMENT_SIZE)
		return ERR_LONG;
	err = secret_set(
	    &frag->piece[index], view_of(msg->opened, msg->opened_len));
	if (err != OK)
		return err;
	frag->seen[index] = true;
	frag->octets += msg->opened_len;
	frag->have++;
	if (part->number == 1)
		frag->first = part->first;
	if (frag->have < frag->total)
		return OK;
	err = join(frag, msg);
	if (err == OK) {
		part->first = frag->first;
		*whole = true;
	}
	v2_frag_free(frag);
	*at = NULL;
	return err;
}
