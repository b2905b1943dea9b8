#include "kernel/kmsg.h"

#include <string.h>

#include "common/alg.h"
#include "common/mem.h"
#include "common/policy.h"

/* What of struct kmsg_sa an op carries. */
#define SA_FULL(op) ((op) == KMSG_SA_ADD)

const char *
kmsg_op_text(uint8_t op)
{
	static const char *const text[KMSG_OPS] = {
		[KMSG_NONE] = "nothing",
		[KMSG_SPI] = "allocate SPI",
		[KMSG_SPI_DROP] = "give SPI back",
		[KMSG_SA_ADD] = "add SA",
		[KMSG_SA_REMOVE] = "remove SA",
		[KMSG_SA_MOVE] = "move SA",
		[KMSG_SA_QUERY] = "query SA",
		[KMSG_POLICY_ADD] = "add policy",
		[KMSG_POLICY_REMOVE] = "remove policy",
	};

	return op < KMSG_OPS ? text[op] : "unknown request";
}

const char *
kmsg_direction_text(uint8_t direction)
{
	switch (direction) {
	case KMSG_IN:
		return "inbound";
	case KMSG_OUT:
		return "outbound";
	case KMSG_FWD:
		return "forward";
	default:
		return "unknown";
	}
}

/* Parts ----------------------------------------------------------------- */

void
kmsg_put_addr(struct buf *buf, const struct addr *addr)
{
	buf_u8(buf, addr->family);
	buf_put(buf, addr->octets, addr_len(addr));
}

enum err
kmsg_get_addr(struct view *octets, struct addr *addr)
{
	memset(addr, 0, sizeof(*addr));
	if (!view_u8(octets, &addr->family))
		return ERR_SHORT;
	if (addr->family != ADDR_NONE && addr->family != ADDR_V4 &&
	    addr->family != ADDR_V6)
		return ERR_SYNTAX;
	if (!view_copy(octets, addr->octets, addr_len(addr)))
		return ERR_SHORT;
	return OK;
}

static void
put_endpoint(struct buf *buf, const struct endpoint *endpoint)
{
	kmsg_put_addr(buf, &endpoint->addr);
	buf_u16(buf, endpoint->port);
}

static enum err
get_endpoint(struct view *octets, struct endpoint *endpoint)
{
	enum err err = kmsg_get_addr(octets, &endpoint->addr);

	if (err == OK && !view_u16(octets, &endpoint->port))
		err = ERR_SHORT;
	return err;
}

void
kmsg_put_ts(struct buf *buf, const struct ts *ts)
{
	buf_u8(buf, ts->first.family);
	buf_put(buf, ts->first.octets, addr_len(&ts->first));
	buf_put(buf, ts->last.octets, addr_len(&ts->first));
	buf_u8(buf, ts->proto);
	buf_u16(buf, ts->first_port);
	buf_u16(buf, ts->last_port);
}

/* A selector that is resolved: dynamic ones do not travel. */
static enum err
get_ts(struct view *octets, struct ts *ts)
{
	enum err err = kmsg_get_addr(octets, &ts->first);

	if (err != OK)
		return err;
	if (ts->first.family == ADDR_NONE)
		return ERR_SYNTAX;
	memset(&ts->last, 0, sizeof(ts->last));
	ts->last.family = ts->first.family;
	ts->dynamic = false;
	if (!view_copy(octets, ts->last.octets, addr_len(&ts->first)) ||
	    !view_u8(octets, &ts->proto) ||
	    !view_u16(octets, &ts->first_port) ||
	    !view_u16(octets, &ts->last_port))
		return ERR_SHORT;
	return ts_valid(ts) ? OK : ERR_SYNTAX;
}

void
kmsg_put_pair(struct buf *buf, const struct ts *local, const struct ts *remote)
{
	kmsg_put_ts(buf, local);
	kmsg_put_ts(buf, remote);
}

enum err
kmsg_get_pair(struct view *octets, struct ts *local, struct ts *remote)
{
	enum err err = get_ts(octets, local);

	return err == OK ? get_ts(octets, remote) : err;
}

static void
put_list(struct buf *buf, const struct ts_list *list)
{
	uint8_t i, count = list->count > TS_MAX ? 0 : list->count;

	buf_u8(buf, count);
	for (i = 0; i < count; i++)
		kmsg_put_ts(buf, &list->item[i]);
}

static enum err
get_list(struct view *octets, struct ts_list *list)
{
	enum err err;
	uint8_t i, count;

	if (!view_u8(octets, &count))
		return ERR_SHORT;
	if (count > TS_MAX)
		return ERR_LONG;
	for (i = 0; i < count; i++) {
		err = get_ts(octets, &list->item[i]);
		if (err != OK)
			return err;
	}
	list->count = count;
	return OK;
}

static enum err
get_bool(struct view *octets, bool *value)
{
	uint8_t octet;

	if (!view_u8(octets, &octet))
		return ERR_SHORT;
	if (octet > 1)
		return ERR_SYNTAX;
	*value = octet == 1;
	return OK;
}

/* Requests -------------------------------------------------------------- */

static void
put_sa(struct buf *buf, uint8_t op, const struct kmsg_sa *sa)
{
	size_t key_len = (size_t)sa->encr_key_len + sa->integ_key_len;

	buf_u32(buf, sa->spi);
	buf_u32(buf, sa->spi_in);
	buf_u32(buf, sa->conn);
	buf_u32(buf, sa->reqid);
	buf_u8(buf, sa->direction);
	buf_u8(buf, sa->mode);
	buf_u8(buf, sa->encap);
	put_endpoint(buf, &sa->src);
	put_endpoint(buf, &sa->dst);
	if (op == KMSG_SA_MOVE) {
		kmsg_put_addr(buf, &sa->old_src.addr);
		kmsg_put_addr(buf, &sa->old_dst.addr);
	}
	if (!SA_FULL(op))
		return;
	buf_u8(buf, sa->esn);
	buf_u8(buf, sa->encr);
	buf_u8(buf, sa->integ);
	buf_u32(buf, sa->replay_window);
	buf_u64(buf, sa->hard_ms);
	put_endpoint(buf, &sa->natoa_src);
	put_endpoint(buf, &sa->natoa_dst);
	buf_u8(buf, sa->encr_key_len);
	buf_u8(buf, sa->integ_key_len);
	if (key_len > KMSG_KEY)
		buf->full = true;
	else
		buf_put(buf, sa->key, key_len);
	put_list(buf, &sa->ts_src);
	put_list(buf, &sa->ts_dst);
}

static enum err
get_sa_full(struct view *octets, struct kmsg_sa *sa)
{
	size_t key_len;
	enum err err = get_bool(octets, &sa->esn);

	if (err != OK)
		return err;
	if (!view_u8(octets, &sa->encr) || !view_u8(octets, &sa->integ) ||
	    !view_u32(octets, &sa->replay_window) ||
	    !view_u64(octets, &sa->hard_ms))
		return ERR_SHORT;
	if (sa->encr >= ALG_COUNT || sa->integ >= ALG_COUNT)
		return ERR_SYNTAX;
	err = get_endpoint(octets, &sa->natoa_src);
	if (err == OK)
		err = get_endpoint(octets, &sa->natoa_dst);
	if (err != OK)
		return err;
	if (!view_u8(octets, &sa->encr_key_len) ||
	    !view_u8(octets, &sa->integ_key_len))
		return ERR_SHORT;
	key_len = (size_t)sa->encr_key_len + sa->integ_key_len;
	if (key_len > KMSG_KEY)
		return ERR_LONG;
	if (!view_copy(octets, sa->key, key_len))
		return ERR_SHORT;
	err = get_list(octets, &sa->ts_src);
	return err == OK ? get_list(octets, &sa->ts_dst) : err;
}

static enum err
get_sa(struct view *octets, uint8_t op, struct kmsg_sa *sa)
{
	enum err err;

	if (!view_u32(octets, &sa->spi) || !view_u32(octets, &sa->spi_in) ||
	    !view_u32(octets, &sa->conn) || !view_u32(octets, &sa->reqid) ||
	    !view_u8(octets, &sa->direction) || !view_u8(octets, &sa->mode))
		return ERR_SHORT;
	if ((sa->direction != KMSG_IN && sa->direction != KMSG_OUT) ||
	    (sa->mode != MODE_TUNNEL && sa->mode != MODE_TRANSPORT))
		return ERR_SYNTAX;
	err = get_bool(octets, &sa->encap);
	if (err == OK)
		err = get_endpoint(octets, &sa->src);
	if (err == OK)
		err = get_endpoint(octets, &sa->dst);
	if (err == OK && op == KMSG_SA_MOVE)
		err = kmsg_get_addr(octets, &sa->old_src.addr);
	if (err == OK && op == KMSG_SA_MOVE)
		err = kmsg_get_addr(octets, &sa->old_dst.addr);
	if (err == OK && SA_FULL(op))
		err = get_sa_full(octets, sa);
	return err;
}

static void
put_policy(struct buf *buf, const struct kmsg_policy *policy)
{
	buf_u8(buf, policy->direction);
	buf_u8(buf, policy->mode);
	buf_u8(buf, policy->trap);
	buf_u32(buf, policy->conn);
	buf_u32(buf, policy->reqid);
	kmsg_put_ts(buf, &policy->src);
	kmsg_put_ts(buf, &policy->dst);
	kmsg_put_addr(buf, &policy->tunnel_src);
	kmsg_put_addr(buf, &policy->tunnel_dst);
}

static enum err
get_policy(struct view *octets, struct kmsg_policy *policy)
{
	enum err err;

	if (!view_u8(octets, &policy->direction) ||
	    !view_u8(octets, &policy->mode))
		return ERR_SHORT;
	if (policy->direction < KMSG_IN || policy->direction > KMSG_FWD ||
	    (policy->mode != MODE_TUNNEL && policy->mode != MODE_TRANSPORT))
		return ERR_SYNTAX;
	err = get_bool(octets, &policy->trap);
	if (err == OK && (!view_u32(octets, &policy->conn) ||
	                     !view_u32(octets, &policy->reqid)))
		err = ERR_SHORT;
	if (err == OK)
		err = kmsg_get_pair(octets, &policy->src, &policy->dst);
	if (err == OK)
		err = kmsg_get_addr(octets, &policy->tunnel_src);
	if (err == OK)
		err = kmsg_get_addr(octets, &policy->tunnel_dst);
	return err;
}

static bool
is_policy(uint8_t op)
{
	return op == KMSG_POLICY_ADD || op == KMSG_POLICY_REMOVE;
}

void
kmsg_put(struct buf *buf, const struct kmsg *request)
{
	buf_u8(buf, request->op);
	if (is_policy(request->op))
		put_policy(buf, &request->policy);
	else
		put_sa(buf, request->op, &request->sa);
}

enum err
kmsg_get(struct view octets, struct kmsg *request)
{
	enum err err;

	memset(request, 0, sizeof(*request));
	if (!view_u8(&octets, &request->op))
		return ERR_SHORT;
	if (request->op == KMSG_NONE || request->op >= KMSG_OPS)
		return ERR_SYNTAX;
	if (is_policy(request->op))
		err = get_policy(&octets, &request->policy);
	else
		err = get_sa(&octets, request->op, &request->sa);
	if (err == OK && octets.len > 0)
		err = ERR_LONG;
	return err;
}

/* Answers and events ---------------------------------------------------- */

void
kmsg_answer_put(struct buf *buf, const struct kmsg_answer *answer)
{
	size_t len = strnlen(answer->text, sizeof(answer->text) - 1);

	buf_u8(buf, answer->op);
	buf_u8(buf, answer->err);
	buf_u32(buf, answer->spi);
	if (answer->op == KMSG_SA_QUERY) {
		buf_u64(buf, answer->use.octets);
		buf_u64(buf, answer->use.packets);
		buf_u64(buf, answer->use.idle_ms);
	}
	buf_u8(buf, (uint8_t)len);
	buf_put(buf, answer->text, len);
}

enum err
kmsg_answer_get(struct view octets, struct kmsg_answer *answer)
{
	uint8_t len;

	memset(answer, 0, sizeof(*answer));
	if (!view_u8(&octets, &answer->op) || !view_u8(&octets, &answer->err) ||
	    !view_u32(&octets, &answer->spi))
		return ERR_SHORT;
	if (answer->op >= KMSG_OPS || answer->err >= ERR_COUNT)
		return ERR_SYNTAX;
	if (answer->op == KMSG_SA_QUERY &&
	    (!view_u64(&octets, &answer->use.octets) ||
	        !view_u64(&octets, &answer->use.packets) ||
	        !view_u64(&octets, &answer->use.idle_ms)))
		return ERR_SHORT;
	if (!view_u8(&octets, &len))
		return ERR_SHORT;
	if (len >= sizeof(answer->text))
		return ERR_LONG;
	if (!view_copy(&octets, answer->text, len))
		return ERR_SHORT;
	return octets.len > 0 ? ERR_LONG : OK;
}

void
kmsg_event_put(struct buf *buf, const struct kmsg_event *event)
{
	buf_u8(buf, event->kind);
	buf_u8(buf, event->hard);
	buf_u32(buf, event->reqid);
	buf_u32(buf, event->spi);
	put_endpoint(buf, &event->remote);
	if (event->kind == KEVENT_ACQUIRE)
		kmsg_put_pair(buf, &event->packet[0], &event->packet[1]);
}

enum err
kmsg_event_get(struct view octets, struct kmsg_event *event)
{
	enum err err;

	memset(event, 0, sizeof(*event));
	if (!view_u8(&octets, &event->kind))
		return ERR_SHORT;
	if (event->kind < KEVENT_ACQUIRE || event->kind > KEVENT_LOST)
		return ERR_SYNTAX;
	err = get_bool(&octets, &event->hard);
	if (err == OK && (!view_u32(&octets, &event->reqid) ||
	                     !view_u32(&octets, &event->spi)))
		err = ERR_SHORT;
	if (err == OK)
		err = get_endpoint(&octets, &event->remote);
	if (err == OK && event->kind == KEVENT_ACQUIRE)
		err = kmsg_get_pair(
		    &octets, &event->packet[0], &event->packet[1]);
	if (err == OK && octets.len > 0)
		err = ERR_LONG;
	return err;
}
