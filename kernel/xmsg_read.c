/* Reading what the kernel says. */
#include "kernel/xmsg_parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <netinet/in.h>
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netlink/attr.h>
#include <netlink/msg.h>

#include "common/policy.h"
#include "kernel/selector.h"

/* SAs ------------------------------------------------------------------- */

bool
xmsg_read_state(const struct nlmsghdr *state, struct xfrm_usersa_info *info,
    struct nlattr *attrs[])
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

	if (!xmsg_read_state(state, &info, NULL) ||
	    ntohl(info.id.spi) < XMSG_SPI_MIN)
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

	if (!xmsg_read_state(state, &info, attrs))
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

/* Orphans --------------------------------------------------------------- */

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
	*removal = xmsg_new(XFRM_MSG_DELPOLICY, NLM_F_ACK, sizeof(*id), &id);
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
	if (!xmsg_read_state(item, &info, NULL) || !is_ours(info.reqid) ||
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
