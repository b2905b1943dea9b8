#include "ikev1/select.h"

#include <string.h>

#include "common/ident.h"

static bool
all_ports(const struct ts *ts)
{
	return ts->first_port == 0 && ts->last_port == 65535;
}

bool
v1_select_sayable(const struct ts *ts)
{
	return all_ports(ts) ||
	       (ts->first_port == ts->last_port && ts->proto != 0);
}

static void
put_mask(struct buf *buf, size_t len, unsigned bits)
{
	for (size_t i = 0; i < len; i++) {
		unsigned take = bits > 8 ? 8 : bits;

		buf_u8(buf, (uint8_t)(0xff00u >> take));
		bits -= take;
	}
}

bool
v1_select_write(struct buf *buf, const struct ts *ts)
{
	bool v4 = ts->first.family == ADDR_V4;
	int bits = addr_range_prefix(&ts->first, &ts->last);
	size_t len = addr_len(&ts->first);
	uint8_t type;

	if (!v1_select_sayable(ts))
		return false;
	if (addr_equal(&ts->first, &ts->last))
		type = v4 ? ID_IPV4_ADDR : ID_IPV6_ADDR;
	else if (bits >= 0)
		type = v4 ? ID_IPV4_ADDR_SUBNET : ID_IPV6_ADDR_SUBNET;
	else
		type = v4 ? ID_IPV4_ADDR_RANGE : ID_IPV6_ADDR_RANGE;
	buf_u8(buf, type);
	buf_u8(buf, ts->proto);
	buf_u16(buf, all_ports(ts) ? 0 : ts->first_port);
	buf_view(buf, addr_view(&ts->first));
	if (type == ID_IPV4_ADDR_SUBNET || type == ID_IPV6_ADDR_SUBNET)
		put_mask(buf, len, (unsigned)bits);
	else if (type == ID_IPV4_ADDR_RANGE || type == ID_IPV6_ADDR_RANGE)
		buf_view(buf, addr_view(&ts->last));
	return true;
}

/* A mask is ones, then zeroes; -1 for anything else. */
static int
mask_bits(struct view mask)
{
	unsigned bits = 0;
	bool ended = false;

	for (size_t i = 0; i < mask.len; i++)
		for (unsigned n = 0; n < 8; n++) {
			bool one = mask.at[i] & (0x80u >> n);

			if (one && ended)
				return -1;
			if (one)
				bits++;
			else
				ended = true;
		}
	return (int)bits;
}

static enum err
read_addresses(uint8_t type, struct view body, struct ts *ts)
{
	bool v6 = type == ID_IPV6_ADDR || type == ID_IPV6_ADDR_SUBNET ||
	          type == ID_IPV6_ADDR_RANGE;
	size_t len = v6 ? 16 : 4;
	struct view first, second;
	struct addr addr;
	int bits;

	if (!view_take(&body, len, &first) || !addr_from_view(&addr, first))
		return ERR_SHORT;
	ts->first = ts->last = addr;
	switch (type) {
	case ID_IPV4_ADDR:
	case ID_IPV6_ADDR:
		break;
	case ID_IPV4_ADDR_SUBNET:
	case ID_IPV6_ADDR_SUBNET:
		if (!view_take(&body, len, &second))
			return ERR_SHORT;
		bits = mask_bits(second);
		if (bits < 0)
			return ERR_SYNTAX;
		addr_prefix_range(&addr, (unsigned)bits, &ts->first, &ts->last);
		break;
	default:
		if (!view_take(&body, len, &second) ||
		    !addr_from_view(&ts->last, second))
			return ERR_SHORT;
		break;
	}
	return body.len == 0 ? OK : ERR_SYNTAX;
}

enum err
v1_select_read(struct view body, struct ts *ts)
{
	uint8_t type;
	uint16_t port;
	enum err err;

	memset(ts, 0, sizeof(*ts));
	if (!view_u8(&body, &type) || !view_u8(&body, &ts->proto) ||
	    !view_u16(&body, &port))
		return ERR_SHORT;
	if (type != ID_IPV4_ADDR && type != ID_IPV6_ADDR &&
	    (type < ID_IPV4_ADDR_SUBNET || type > ID_IPV6_ADDR_RANGE))
		return ERR_UNSUPPORTED;
	err = read_addresses(type, body, ts);
	if (err != OK)
		return err;
	/* RFC 2407 4.6.2: zero means all. */
	ts->first_port = port;
	ts->last_port = port == 0 ? 65535 : port;
	if ((ts->proto == 0 && port != 0) || !ts_valid(ts))
		return ERR_SYNTAX;
	return OK;
}

enum err
v1_select_of(const struct msg *msg, struct ts *initiator, struct ts *responder)
{
	const struct payload *ci = msg_payload(msg, KIND_ID, 0);
	const struct payload *cr = msg_payload(msg, KIND_ID, 1);
	enum err err;

	if (ci == NULL || cr == NULL)
		return ERR_NOT_FOUND;
	err = v1_select_read(ci->body, initiator);
	if (err == OK)
		err = v1_select_read(cr->body, responder);
	return err;
}

/* Addresses and identities fit already. What the SA was agreed with must be
 * what conn would have allowed. */
static bool
may_serve(const struct ike_sa *sa, const struct conn *conn)
{
	return conn == sa->conn || conn_same_peer(sa->conn, conn) ||
	       (conn->local.auth == sa->conn->local.auth &&
	           conn->remote.auth == sa->conn->remote.auth &&
	           proposals_allow(&conn->ike, &sa->suite));
}

size_t
v1_select_conns(struct ike_sa *sa, struct conn *found[static V1_CONNS])
{
	size_t count, kept = 0;

	if (sa->id_remote == NULL)
		return 0;
	count = policy_by_identity(sa->env->policy, &sa->local.addr,
	    &sa->remote.addr, 1, sa->id_local, sa->id_remote, found, V1_CONNS);
	for (size_t i = 0; i < count; i++) {
		struct conn *conn = found[i];

		if (!may_serve(sa, conn))
			continue;
		found[kept] = conn;
		if (conn == sa->conn) {
			found[kept] = found[0];
			found[0] = conn;
		}
		kept++;
	}
	return kept;
}

static void
replace_addr(struct ts *ts, const struct addr *addr)
{
	ts->first = ts->last = *addr;
}

void
v1_select_here(
    const struct ike_sa *sa, uint8_t mode, struct ts *local, struct ts *remote)
{
	if (mode == MODE_TRANSPORT && (sa->nat_local || sa->nat_remote)) {
		replace_addr(local, &sa->local.addr);
		replace_addr(remote, &sa->remote.addr);
	}
}

bool
v1_select_fits(struct ike_sa *sa, const struct conn *conn, struct ts *local,
    struct ts *remote)
{
	struct ts_list ours, theirs, one = { .count = 1 }, other = one;

	v1_select_here(sa, conn->mode, local, remote);
	conn_ts(&conn->local, &sa->local.addr, &ours);
	conn_ts(&conn->remote, &sa->remote.addr, &theirs);
	one.item[0] = *local;
	other.item[0] = *remote;
	return ts_list_within(&one, &ours) && ts_list_within(&other, &theirs);
}
