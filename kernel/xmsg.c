#include "kernel/xmsg.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <netinet/in.h>
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/udp.h>
#include <linux/xfrm.h>
#include <netlink/attr.h>
#include <netlink/msg.h>

#include "common/alg.h"
#include "common/mem.h"
#include "common/policy.h"
#include "kernel/selector.h"

#define MESSAGE    2048   /* the largest is an SA with a window of 4096 */
#define SPI_MIN    0x100u /* RFC 4303 2.1 */
#define WINDOW_OLD 32     /* packets that the state without bitmap has */
#define WINDOW_MAX XFRMA_REPLAY_ESN_MAX
/* Packets on an SA without ESN after which the kernel asks for a new one. */
#define SOFT_PACKETS 0xf0000000u

void
xmsg_free(struct nl_msg *msg)
{
	struct nlmsghdr *header;

	if (msg == NULL)
		return;
	header = nlmsg_hdr(msg);
	mem_wipe(nlmsg_data(header), (size_t)nlmsg_datalen(header));
	nlmsg_free(msg);
}

/* A message with len octets of zeroed payload, which *payload points to. */
static struct nl_msg *
message(int type, int flags, size_t len, void *payload)
{
	struct nl_msg *msg = nlmsg_alloc_size(MESSAGE);
	struct nlmsghdr *header;
	void *at;

	if (msg == NULL)
		return NULL;
	header = nlmsg_put(msg, 0, 0, type, (int)len, NLM_F_REQUEST | flags);
	if (header == NULL) {
		nlmsg_free(msg);
		return NULL;
	}
	at = nlmsg_data(header);
	memset(at, 0, len);
	memcpy(payload, &at, sizeof(at));
	return msg;
}

static uint16_t
either_family(const struct addr *a, const struct addr *b)
{
	uint16_t family = selector_family(a);

	return family != 0 ? family : selector_family(b);
}

/* SAs ------------------------------------------------------------------- */

static void
no_limits(struct xfrm_lifetime_cfg *lft)
{
	lft->soft_byte_limit = lft->hard_byte_limit = XFRM_INF;
	lft->soft_packet_limit = lft->hard_packet_limit = XFRM_INF;
}

struct nl_msg *
xmsg_spi(const struct kmsg_sa *sa)
{
	struct xfrm_userspi_info *spi;
	struct nl_msg *msg = message(XFRM_MSG_ALLOCSPI, 0, sizeof(*spi), &spi);

	if (msg == NULL)
		return NULL;
	selector_addr_put(&sa->src.addr, &spi->info.saddr);
	selector_addr_put(&sa->dst.addr, &spi->info.id.daddr);
	spi->info.id.proto = IPPROTO_ESP;
	spi->info.family = selector_family(&sa->dst.addr);
	spi->info.mode =
	    sa->mode == MODE_TUNNEL ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT;
	spi->info.reqid = sa->reqid;
	spi->min = SPI_MIN;
	spi->max = UINT32_MAX;
	return msg;
}

static bool
put_encap(struct nl_msg *msg, const struct kmsg_sa *sa)
{
	struct xfrm_encap_tmpl encap;

	memset(&encap, 0, sizeof(encap));
	encap.encap_type = UDP_ENCAP_ESPINUDP;
	encap.encap_sport = htons(sa->src.port);
	encap.encap_dport = htons(sa->dst.port);
	return nla_put(msg, XFRMA_ENCAP, sizeof(encap), &encap) == 0;
}

static bool
put_aead(
    struct nl_msg *msg, const struct alg *alg, const uint8_t *key, size_t len)
{
	struct xfrm_algo_aead *aead;
	struct nlattr *at =
	    nla_reserve(msg, XFRMA_ALG_AEAD, (int)(sizeof(*aead) + len));

	if (at == NULL)
		return false;
	aead = nla_data(at);
	memset(aead, 0, sizeof(*aead));
	snprintf(aead->alg_name, sizeof(aead->alg_name), "%s", alg->xfrm);
	aead->alg_key_len = (unsigned)(8 * len);
	aead->alg_icv_len = 8u * alg->icv;
	memcpy(aead->alg_key, key, len);
	return true;
}

static bool
put_crypt(
    struct nl_msg *msg, const struct alg *alg, const uint8_t *key, size_t len)
{
	struct xfrm_algo *crypt;
	struct nlattr *at =
	    nla_reserve(msg, XFRMA_ALG_CRYPT, (int)(sizeof(*crypt) + len));

	if (at == NULL)
		return false;
	crypt = nla_data(at);
	memset(crypt, 0, sizeof(*crypt));
	snprintf(crypt->alg_name, sizeof(crypt->alg_name), "%s", alg->xfrm);
	crypt->alg_key_len = (unsigned)(8 * len);
	memcpy(crypt->alg_key, key, len);
	return true;
}

static bool
put_auth(
    struct nl_msg *msg, const struct alg *alg, const uint8_t *key, size_t len)
{
	struct xfrm_algo_auth *auth;
	struct nlattr *at =
	    nla_reserve(msg, XFRMA_ALG_AUTH_TRUNC, (int)(sizeof(*auth) + len));

	if (at == NULL)
		return false;
	auth = nla_data(at);
	memset(auth, 0, sizeof(*auth));
	snprintf(auth->alg_name, sizeof(auth->alg_name), "%s", alg->xfrm);
	auth->alg_key_len = (unsigned)(8 * len);
	auth->alg_trunc_len = 8u * alg->icv;
	memcpy(auth->alg_key, key, len);
	return true;
}

static enum err
put_algorithms(struct nl_msg *msg, const struct kmsg_sa *sa)
{
	const struct alg *encr = alg_get(sa->encr), *integ = alg_get(sa->integ);
	const uint8_t *key = sa->key;
	bool fits;

	if (encr == NULL || encr->xfrm == NULL ||
	    (integ != NULL && integ->xfrm == NULL) ||
	    (integ == NULL) != alg_is_aead(encr))
		return ERR_UNSUPPORTED;
	if (integ == NULL)
		return put_aead(msg, encr, key, sa->encr_key_len) ? OK
		                                                  : ERR_NOMEM;
	fits = put_crypt(msg, encr, key, sa->encr_key_len) &&
	       put_auth(msg, integ, key + sa->encr_key_len, sa->integ_key_len);
	return fits ? OK : ERR_NOMEM;
}

/* With ESN the kernel takes no window of 0, neither way: outbound it means
 * nothing, inbound the widest comes nearest to none. */
static uint32_t
window_of(const struct kmsg_sa *sa)
{
	if (sa->direction == KMSG_OUT)
		return sa->esn ? 1 : 0;
	if (sa->esn && sa->replay_window == 0)
		return WINDOW_MAX;
	return sa->replay_window < WINDOW_MAX ? sa->replay_window : WINDOW_MAX;
}

static bool
put_window(
    struct nl_msg *msg, struct xfrm_usersa_info *info, const struct kmsg_sa *sa)
{
	uint32_t window = window_of(sa), words = (window + 31) / 32;
	struct xfrm_replay_state_esn *esn;
	size_t len = sizeof(*esn) + 4 * (size_t)words;
	struct nlattr *at;

	if (!sa->esn && window <= WINDOW_OLD) {
		info->replay_window = (uint8_t)window;
		return true;
	}
	if (sa->esn)
		info->flags |= XFRM_STATE_ESN;
	at = nla_reserve(msg, XFRMA_REPLAY_ESN_VAL, (int)len);
	if (at == NULL)
		return false;
	esn = nla_data(at);
	memset(esn, 0, len);
	esn->bmp_len = words;
	esn->replay_window = window;
	return true;
}

/* A tunnel for one pair of selectors carries them. What needs more than one
 * takes any (AF_UNSPEC: also the other family), and its policies decide. */
static void
set_selector(struct xfrm_usersa_info *info, const struct kmsg_sa *sa)
{
	struct xfrm_selector list[SELECTOR_MAX];
	size_t count;

	if (sa->mode != MODE_TUNNEL) {
		info->sel.family = info->family;
		return;
	}
	if (sa->ts_src.count == 1 && sa->ts_dst.count == 1 &&
	    selector_expand(
	        &sa->ts_src.item[0], &sa->ts_dst.item[0], list, &count) == OK &&
	    count == 1) {
		info->sel = list[0];
		return;
	}
	info->flags |= XFRM_STATE_AF_UNSPEC;
}

static void
set_info(struct xfrm_usersa_info *info, const struct kmsg_sa *sa)
{
	selector_addr_put(&sa->src.addr, &info->saddr);
	selector_addr_put(&sa->dst.addr, &info->id.daddr);
	info->id.spi = htonl(sa->spi);
	info->id.proto = IPPROTO_ESP;
	info->family = selector_family(&sa->dst.addr);
	info->mode =
	    sa->mode == MODE_TUNNEL ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT;
	info->reqid = sa->reqid;
	set_selector(info, sa);
	no_limits(&info->lft);
	info->lft.hard_add_expires_seconds = (sa->hard_ms + 999) / 1000;
	/* RFC 4303 3.3.3: a counter must not cycle. The kernel drops at the
	 * end; this makes it ask for a new SA in time. */
	if (sa->direction == KMSG_OUT && !sa->esn)
		info->lft.soft_packet_limit = SOFT_PACKETS;
}

struct nl_msg *
xmsg_sa(const struct kmsg_sa *sa, bool update, enum err *err)
{
	struct xfrm_usersa_info *info;
	struct nl_msg *msg = message(update ? XFRM_MSG_UPDSA : XFRM_MSG_NEWSA,
	    NLM_F_ACK, sizeof(*info), &info);

	*err = ERR_NOMEM;
	if (msg == NULL)
		return NULL;
	set_info(info, sa);
	*err = put_algorithms(msg, sa);
	if (*err == OK && !put_window(msg, info, sa))
		*err = ERR_NOMEM;
	if (*err == OK && sa->encap && !put_encap(msg, sa))
		*err = ERR_NOMEM;
	if (*err == OK)
		return msg;
	xmsg_free(msg);
	return NULL;
}

static struct nl_msg *
by_name(int type, int flags, const struct addr *dst, uint32_t spi)
{
	struct xfrm_usersa_id *id;
	struct nl_msg *msg = message(type, flags, sizeof(*id), &id);

	if (msg == NULL)
		return NULL;
	selector_addr_put(dst, &id->daddr);
	id->spi = htonl(spi);
	id->family = selector_family(dst);
	id->proto = IPPROTO_ESP;
	return msg;
}

struct nl_msg *
xmsg_sa_delete(const struct addr *dst, uint32_t spi)
{
	return by_name(XFRM_MSG_DELSA, NLM_F_ACK, dst, spi);
}

struct nl_msg *
xmsg_sa_get(const struct addr *dst, uint32_t spi)
{
	return by_name(XFRM_MSG_GETSA, 0, dst, spi);
}

/* Reading an SA --------------------------------------------------------- */

static bool
read_state(const struct nlmsghdr *state, struct xfrm_usersa_info *info,
    struct nlattr *attrs[XFRMA_MAX + 1])
{
	struct nlmsghdr *header = (struct nlmsghdr *)(uintptr_t)state;

	if (state->nlmsg_type != XFRM_MSG_NEWSA ||
	    !nlmsg_valid_hdr(header, sizeof(*info)))
		return false;
	memcpy(info, nlmsg_data(header), sizeof(*info));
	return attrs == NULL ||
	       nlmsg_parse(header, sizeof(*info), attrs, XFRMA_MAX, NULL) >= 0;
}

enum err
xmsg_read_spi(const struct nlmsghdr *state, uint32_t *spi)
{
	struct xfrm_usersa_info info;

	if (!read_state(state, &info, NULL) || ntohl(info.id.spi) < SPI_MIN)
		return ERR_SYNTAX;
	*spi = ntohl(info.id.spi);
	return OK;
}

enum err
xmsg_read_use(
    const struct nlmsghdr *state, uint64_t now_s, struct kmsg_use *use)
{
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_usersa_info info;
	uint64_t last_s;

	if (!read_state(state, &info, attrs))
		return ERR_SYNTAX;
	use->octets = info.curlft.bytes;
	use->packets = info.curlft.packets;
	use->idle_ms = UINT64_MAX;
	if (use->packets == 0)
		return OK;
	last_s = info.curlft.use_time; /* the first use */
	if (attrs[XFRMA_LASTUSED] &&
	    nla_len(attrs[XFRMA_LASTUSED]) >= (int)sizeof(last_s))
		memcpy(
		    &last_s, nla_data(attrs[XFRMA_LASTUSED]), sizeof(last_s));
	use->idle_ms = now_s > last_s ? 1000 * (now_s - last_s) : 0;
	return OK;
}

/* Moving an SA ---------------------------------------------------------- */

bool
xmsg_same_addresses(const struct nlmsghdr *state, const struct kmsg_sa *sa)
{
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_usersa_info info;
	struct addr src, dst;

	return read_state(state, &info, attrs) &&
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
	if (err == OK && sa->encap && !put_encap(msg, sa))
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
	if (!read_state(state, &old, attrs))
		return NULL;
	*err = ERR_NOMEM;
	msg = message(in_place ? XFRM_MSG_UPDSA : XFRM_MSG_NEWSA, NLM_F_ACK,
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

/* Policies -------------------------------------------------------------- */

static uint8_t
policy_dir(uint8_t direction)
{
	switch (direction) {
	case KMSG_IN:
		return XFRM_POLICY_IN;
	case KMSG_FWD:
		return XFRM_POLICY_FWD;
	default:
		return XFRM_POLICY_OUT;
	}
}

struct nl_msg *
xmsg_policy(
    const struct kmsg_policy *policy, const struct xfrm_selector *selector)
{
	struct xfrm_userpolicy_info *info;
	struct xfrm_user_tmpl tmpl;
	/* NEWPOLICY fails where somebody else's policy is. */
	struct nl_msg *msg =
	    message(policy->replace ? XFRM_MSG_UPDPOLICY : XFRM_MSG_NEWPOLICY,
	        NLM_F_ACK, sizeof(*info), &info);

	if (msg == NULL)
		return NULL;
	info->sel = *selector;
	no_limits(&info->lft);
	info->priority = selector_priority(selector);
	info->dir = policy_dir(policy->direction);
	info->action = XFRM_POLICY_ALLOW;
	info->share = XFRM_SHARE_ANY;
	memset(&tmpl, 0, sizeof(tmpl));
	tmpl.id.proto = IPPROTO_ESP;
	tmpl.reqid = policy->reqid;
	tmpl.family = either_family(&policy->tunnel_dst, &policy->tunnel_src);
	tmpl.mode = policy->mode == MODE_TUNNEL ? XFRM_MODE_TUNNEL
	                                        : XFRM_MODE_TRANSPORT;
	/* In transport mode the packet's own addresses are the outer ones. */
	if (policy->mode == MODE_TUNNEL) {
		selector_addr_put(&policy->tunnel_src, &tmpl.saddr);
		selector_addr_put(&policy->tunnel_dst, &tmpl.id.daddr);
	}
	tmpl.aalgos = tmpl.ealgos = tmpl.calgos = UINT32_MAX;
	if (nla_put(msg, XFRMA_TMPL, sizeof(tmpl), &tmpl) == 0)
		return msg;
	xmsg_free(msg);
	return NULL;
}

struct nl_msg *
xmsg_policy_delete(uint8_t direction, const struct xfrm_selector *selector)
{
	struct xfrm_userpolicy_id *id;
	struct nl_msg *msg =
	    message(XFRM_MSG_DELPOLICY, NLM_F_ACK, sizeof(*id), &id);

	if (msg == NULL)
		return NULL;
	id->sel = *selector;
	id->dir = policy_dir(direction);
	return msg;
}

/* Orphans --------------------------------------------------------------- */

struct nl_msg *
xmsg_dump(bool policies)
{
	void *payload;

	return message(policies ? XFRM_MSG_GETPOLICY : XFRM_MSG_GETSA,
	    NLM_F_DUMP, 0, &payload);
}

static bool
is_ours(uint32_t reqid)
{
	return reqid >= REQID_FIRST && reqid <= REQID_LAST;
}

static bool
orphan_policy(const struct nlmsghdr *item, struct nl_msg **removal)
{
	struct nlmsghdr *header = (struct nlmsghdr *)(uintptr_t)item;
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_userpolicy_info info;
	struct xfrm_user_tmpl tmpl;
	struct xfrm_userpolicy_id *id;

	if (!nlmsg_valid_hdr(header, sizeof(info)) ||
	    nlmsg_parse(header, sizeof(info), attrs, XFRMA_MAX, NULL) < 0 ||
	    attrs[XFRMA_TMPL] == NULL ||
	    nla_len(attrs[XFRMA_TMPL]) < (int)sizeof(tmpl))
		return false;
	memcpy(&info, nlmsg_data(header), sizeof(info));
	memcpy(&tmpl, nla_data(attrs[XFRMA_TMPL]), sizeof(tmpl));
	if (!is_ours(tmpl.reqid))
		return false;
	*removal = message(XFRM_MSG_DELPOLICY, NLM_F_ACK, sizeof(*id), &id);
	if (*removal == NULL)
		return false;
	id->sel = info.sel;
	id->index = info.index;
	id->dir = info.dir;
	return true;
}

bool
xmsg_orphan(const struct nlmsghdr *item, struct nl_msg **removal)
{
	struct xfrm_usersa_info info;
	struct addr dst;

	*removal = NULL;
	if (item->nlmsg_type == XFRM_MSG_NEWPOLICY)
		return orphan_policy(item, removal);
	if (!read_state(item, &info, NULL) || !is_ours(info.reqid) ||
	    info.id.proto != IPPROTO_ESP ||
	    !selector_addr_get(&info.id.daddr, info.family, &dst))
		return false;
	*removal = xmsg_sa_delete(&dst, ntohl(info.id.spi));
	return *removal != NULL;
}

/* What the kernel reports ----------------------------------------------- */

static bool
read_acquire(struct nlmsghdr *header, struct kmsg_event *event)
{
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_user_acquire acquire;
	struct xfrm_user_tmpl tmpl;

	if (!nlmsg_valid_hdr(header, sizeof(acquire)) ||
	    nlmsg_parse(header, sizeof(acquire), attrs, XFRMA_MAX, NULL) < 0 ||
	    attrs[XFRMA_TMPL] == NULL ||
	    nla_len(attrs[XFRMA_TMPL]) < (int)sizeof(tmpl))
		return false;
	memcpy(&acquire, nlmsg_data(header), sizeof(acquire));
	memcpy(&tmpl, nla_data(attrs[XFRMA_TMPL]), sizeof(tmpl));
	if (!is_ours(tmpl.reqid) ||
	    selector_packet(
	        &acquire.sel, &event->packet[0], &event->packet[1]) != OK)
		return false;
	event->kind = KEVENT_ACQUIRE;
	event->reqid = tmpl.reqid;
	return true;
}

static bool
read_expire(struct nlmsghdr *header, struct kmsg_event *event)
{
	struct xfrm_user_expire expire;

	if (!nlmsg_valid_hdr(header, sizeof(expire)))
		return false;
	memcpy(&expire, nlmsg_data(header), sizeof(expire));
	if (!is_ours(expire.state.reqid) ||
	    expire.state.id.proto != IPPROTO_ESP || expire.state.id.spi == 0 ||
	    !selector_addr_get(&expire.state.id.daddr, expire.state.family,
	        &event->remote.addr))
		return false;
	event->kind = KEVENT_EXPIRE;
	event->hard = expire.hard != 0;
	event->reqid = expire.state.reqid;
	event->spi = ntohl(expire.state.id.spi);
	return true;
}

static bool
read_mapping(struct nlmsghdr *header, struct kmsg_event *event)
{
	struct xfrm_user_mapping mapping;

	if (!nlmsg_valid_hdr(header, sizeof(mapping)))
		return false;
	memcpy(&mapping, nlmsg_data(header), sizeof(mapping));
	if (!is_ours(mapping.reqid) ||
	    !selector_addr_get(
	        &mapping.new_saddr, mapping.id.family, &event->remote.addr))
		return false;
	event->kind = KEVENT_MAPPING;
	event->reqid = mapping.reqid;
	event->spi = ntohl(mapping.id.spi);
	event->remote.port = ntohs(mapping.new_sport);
	return true;
}

bool
xmsg_read_event(const struct nlmsghdr *message_in, struct kmsg_event *event)
{
	struct nlmsghdr *header = (struct nlmsghdr *)(uintptr_t)message_in;

	memset(event, 0, sizeof(*event));
	switch (header->nlmsg_type) {
	case XFRM_MSG_ACQUIRE:
		return read_acquire(header, event);
	case XFRM_MSG_EXPIRE:
		return read_expire(header, event);
	case XFRM_MSG_MAPPING:
		return read_mapping(header, event);
	default:
		return false;
	}
}

/* Refusals -------------------------------------------------------------- */

static enum err
err_of(int number)
{
	switch (number) {
	case 0:
		return OK;
	case ESRCH:
	case ENOENT:
		return ERR_NOT_FOUND;
	case EEXIST:
		return ERR_EXISTS;
	case ENOMEM:
	case ENOBUFS:
		return ERR_NOMEM;
	case EPROTONOSUPPORT:
	case ENOPROTOOPT:
	case EOPNOTSUPP:
	case ENOSYS:
		return ERR_UNSUPPORTED;
	default:
		return ERR_REFUSED;
	}
}

static const char *
words_of(int number)
{
	switch (number) {
	case EEXIST:
		return "one that is not ours is there already";
	case EPERM:
		return "we lack the capability NET_ADMIN";
	case ENOSYS:
		return "the kernel does not have the algorithm";
	case ENOENT: /* of a policy; or of an algorithm's module */
		return "the kernel does not have it, or not the algorithm";
	case EPROTONOSUPPORT:
	case ENOPROTOOPT:
		return "the kernel cannot do ESP";
	default:
		return strerror(number);
	}
}

enum err
xmsg_read_error(
    const struct nlmsghdr *answer, int *number, char *text, size_t size)
{
	struct nlmsghdr *header = (struct nlmsghdr *)(uintptr_t)answer;
	struct nlattr *attrs[NLMSGERR_ATTR_MAX + 1];
	struct nlmsgerr refusal;
	char said[80] = "";

	text[0] = '\0';
	*number = EINVAL;
	if (!nlmsg_valid_hdr(header, sizeof(refusal)))
		return ERR_SYNTAX;
	memcpy(&refusal, nlmsg_data(header), sizeof(refusal));
	*number =
	    refusal.error < 0 && refusal.error > -4096 ? -refusal.error : 0;
	if (*number == 0)
		return refusal.error == 0 ? OK : ERR_SYNTAX;
	/* Only with NETLINK_CAP_ACK do the attributes begin here. */
	if ((header->nlmsg_flags & NLM_F_CAPPED) &&
	    (header->nlmsg_flags & NLM_F_ACK_TLVS) &&
	    nlmsg_parse(
	        header, sizeof(refusal), attrs, NLMSGERR_ATTR_MAX, NULL) >= 0 &&
	    attrs[NLMSGERR_ATTR_MSG])
		nla_strlcpy(said, attrs[NLMSGERR_ATTR_MSG], sizeof(said));
	if (said[0])
		snprintf(text, size, "%s (the kernel says: %s)",
		    words_of(*number), said);
	else
		snprintf(text, size, "%s", words_of(*number));
	return err_of(*number);
}
