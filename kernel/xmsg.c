#include "kernel/xmsg_parts.h"

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

#define MESSAGE    2048 /* the largest is an SA with a window of 4096 */
#define WINDOW_OLD 32   /* packets that the state without bitmap has */
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

struct nl_msg *
xmsg_new(int type, int flags, size_t len, void *payload)
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
	struct nl_msg *msg = xmsg_new(XFRM_MSG_ALLOCSPI, 0, sizeof(*spi), &spi);

	if (msg == NULL)
		return NULL;
	selector_addr_put(&sa->src.addr, &spi->info.saddr);
	selector_addr_put(&sa->dst.addr, &spi->info.id.daddr);
	spi->info.id.proto = IPPROTO_ESP;
	spi->info.family = selector_family(&sa->dst.addr);
	spi->info.mode =
	    sa->mode == MODE_TUNNEL ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT;
	spi->info.reqid = sa->reqid;
	spi->min = XMSG_SPI_MIN;
	spi->max = UINT32_MAX;
	return msg;
}

bool
xmsg_put_encap(struct nl_msg *msg, const struct kmsg_sa *sa)
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
	struct nl_msg *msg = xmsg_new(update ? XFRM_MSG_UPDSA : XFRM_MSG_NEWSA,
	    NLM_F_ACK, sizeof(*info), &info);

	*err = ERR_NOMEM;
	if (msg == NULL)
		return NULL;
	set_info(info, sa);
	*err = put_algorithms(msg, sa);
	if (*err == OK && !put_window(msg, info, sa))
		*err = ERR_NOMEM;
	if (*err == OK && sa->encap && !xmsg_put_encap(msg, sa))
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
	struct nl_msg *msg = xmsg_new(type, flags, sizeof(*id), &id);

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
	    xmsg_new(policy->replace ? XFRM_MSG_UPDPOLICY : XFRM_MSG_NEWPOLICY,
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
	    xmsg_new(XFRM_MSG_DELPOLICY, NLM_F_ACK, sizeof(*id), &id);

	if (msg == NULL)
		return NULL;
	id->sel = *selector;
	id->dir = policy_dir(direction);
	return msg;
}

struct nl_msg *
xmsg_dump(bool policies)
{
	void *payload;

	return xmsg_new(policies ? XFRM_MSG_GETPOLICY : XFRM_MSG_GETSA,
	    NLM_F_DUMP, 0, &payload);
}
