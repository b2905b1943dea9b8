/* An SA that goes to other addresses, with its counters. */
#include "kernel/xmsg_parts.h"

#include <string.h>

#include <netinet/in.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netlink/attr.h>
#include <netlink/msg.h>

#include "kernel/selector.h"

bool
xmsg_same_addresses(const struct nlmsghdr *state, const struct kmsg_sa *sa)
{
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_usersa_info info;
	struct addr src, dst;

	return xmsg_read_state(state, &info, attrs) &&
	       selector_addr_get(&info.saddr, info.family, &src) &&
	       selector_addr_get(&info.id.daddr, info.family, &dst) &&
	       addr_equal(&src, &sa->src.addr) &&
	       addr_equal(&dst, &sa->dst.addr) &&
	       (attrs[XFRMA_ENCAP] != NULL) == sa->encap;
}

/* Key octets of an algorithm attribute. header: octets before the key;
 * at_bits: where the key's length in bits stands. */
static struct view
key_of(const struct nlattr *attr, size_t header, size_t at_bits)
{
	const uint8_t *data = nla_data(attr);
	size_t len = (size_t)nla_len(attr);
	unsigned bits;

	if (len < header)
		return view_of(NULL, 0);
	memcpy(&bits, data + at_bits, sizeof(bits));
	if ((bits + 7) / 8 > len - header)
		return view_of(NULL, 0);
	return view_of(data + header, (bits + 7) / 8);
}

/* A kernel in lockdown shows zeroes. */
static bool
is_shown(struct view key)
{
	size_t i;
	uint8_t any = 0;

	for (i = 0; i < key.len; i++)
		any |= key.at[i];
	return any != 0;
}

static enum err
check_keys(struct nlattr *const attrs[])
{
	struct view key;

	if (attrs[XFRMA_ALG_AEAD])
		key =
		    key_of(attrs[XFRMA_ALG_AEAD], sizeof(struct xfrm_algo_aead),
		        offsetof(struct xfrm_algo_aead, alg_key_len));
	else if (attrs[XFRMA_ALG_CRYPT])
		key = key_of(attrs[XFRMA_ALG_CRYPT], sizeof(struct xfrm_algo),
		    offsetof(struct xfrm_algo, alg_key_len));
	else
		return ERR_SYNTAX;
	return is_shown(key) ? OK : ERR_REFUSED;
}

static bool
copy_attr(struct nl_msg *msg, struct nlattr *const attrs[], int type)
{
	const struct nlattr *attr = attrs[type];

	return attr == NULL ||
	       nla_put(msg, type, nla_len(attr), nla_data(attr)) == 0;
}

/* The counters of the new state. */
static enum err
put_replay(struct nl_msg *msg, struct nlattr *const attrs[], bool jump)
{
	struct xfrm_replay_state_esn esn;
	struct xfrm_replay_state old;
	struct nlattr *attr = attrs[XFRMA_REPLAY_ESN_VAL];
	uint64_t next;

	if (attr) {
		if (nla_len(attr) < (int)sizeof(esn))
			return ERR_SYNTAX;
		memcpy(&esn, nla_data(attr), sizeof(esn));
		next = ((uint64_t)esn.oseq_hi << 32 | esn.oseq) +
		       (jump ? XMSG_MOVE_JUMP : 0);
		esn.oseq = (uint32_t)next;
		esn.oseq_hi = (uint32_t)(next >> 32);
		if (nla_put(msg, XFRMA_REPLAY_ESN_VAL, nla_len(attr),
		        nla_data(attr)) != 0)
			return ERR_NOMEM;
		attr = nlmsg_find_attr(nlmsg_hdr(msg),
		    sizeof(struct xfrm_usersa_info), XFRMA_REPLAY_ESN_VAL);
		memcpy(nla_data(attr), &esn, sizeof(esn));
		return OK;
	}
	attr = attrs[XFRMA_REPLAY_VAL];
	if (attr == NULL || nla_len(attr) < (int)sizeof(old))
		return ERR_SYNTAX;
	memcpy(&old, nla_data(attr), sizeof(old));
	if (jump && old.oseq > UINT32_MAX - 2 * XMSG_MOVE_JUMP)
		return ERR_LIMIT;
	old.oseq += jump ? XMSG_MOVE_JUMP : 0;
	return nla_put(msg, XFRMA_REPLAY_VAL, sizeof(old), &old) == 0
	           ? OK
	           : ERR_NOMEM;
}

/* A state that is made anew has lived already. */
static void
age(struct xfrm_usersa_info *info, uint64_t now_s)
{
	struct xfrm_lifetime_cfg *lft = &info->lft;
	uint64_t lived =
	    now_s > info->curlft.add_time ? now_s - info->curlft.add_time : 0;

	if (lft->hard_add_expires_seconds != 0)
		lft->hard_add_expires_seconds =
		    lft->hard_add_expires_seconds > lived
		        ? lft->hard_add_expires_seconds - lived
		        : 1;
	if (lft->soft_packet_limit != XFRM_INF)
		lft->soft_packet_limit =
		    lft->soft_packet_limit > info->curlft.packets
		        ? lft->soft_packet_limit - info->curlft.packets
		        : 1;
	memset(&info->curlft, 0, sizeof(info->curlft));
}

static enum err
put_moved(struct nl_msg *msg, struct nlattr *attrs[], const struct kmsg_sa *sa,
    bool in_place)
{
	static const int copied[] = { XFRMA_ALG_AEAD, XFRMA_ALG_CRYPT,
		XFRMA_ALG_AUTH_TRUNC, XFRMA_SA_EXTRA_FLAGS, XFRMA_MARK,
		XFRMA_SET_MARK, XFRMA_SET_MARK_MASK, XFRMA_IF_ID,
		XFRMA_TFCPAD };
	size_t i;
	enum err err;

	err = check_keys(attrs);
	for (i = 0; err == OK && i < sizeof(copied) / sizeof(copied[0]); i++)
		if (!copy_attr(msg, attrs, copied[i]))
			err = ERR_NOMEM;
	if (err == OK && sa->encap && !xmsg_put_encap(msg, sa))
		err = ERR_NOMEM;
	if (err == OK)
		err = put_replay(
		    msg, attrs, !in_place && sa->direction == KMSG_OUT);
	return err;
}

struct nl_msg *
xmsg_sa_moved(const struct nlmsghdr *state, const struct kmsg_sa *sa,
    bool in_place, uint64_t now_s, enum err *err)
{
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_usersa_info old, *info;
	struct nl_msg *msg;

	*err = ERR_SYNTAX;
	if (!xmsg_read_state(state, &old, attrs))
		return NULL;
	*err = ERR_NOMEM;
	msg = xmsg_new(in_place ? XFRM_MSG_UPDSA : XFRM_MSG_NEWSA, NLM_F_ACK,
	    sizeof(*info), &info);
	if (msg == NULL)
		return NULL;
	*info = old;
	if (!in_place)
		age(info, now_s);
	selector_addr_put(&sa->src.addr, &info->saddr);
	selector_addr_put(&sa->dst.addr, &info->id.daddr);
	info->family = selector_family(&sa->dst.addr);
	*err = put_moved(msg, attrs, sa, in_place);
	if (*err == OK)
		return msg;
	xmsg_free(msg);
	return NULL;
}
