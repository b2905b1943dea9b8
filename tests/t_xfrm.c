/* What is said to the kernel, checked without one; and with one, where it does
 * ESP and we may ask. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <linux/udp.h>
#include <linux/xfrm.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>

#include "common/alg.h"
#include "common/loop.h"
#include "common/policy.h"
#include "kernel/link.h"
#include "kernel/selector.h"
#include "kernel/xfrm.h"
#include "kernel/xmsg.h"

static struct addr
addr(const char *text)
{
	struct addr made;

	assert_true(addr_parse(&made, text));
	return made;
}

static struct ts
ts(const char *text)
{
	const char *problem = NULL;
	struct ts made;

	assert_int_equal(ts_parse(&made, text, &problem), OK);
	return made;
}

/* Selectors -------------------------------------------------------------- */

static size_t
expand(const char *src, const char *dst, struct xfrm_selector *list)
{
	struct ts a = ts(src), b = ts(dst);
	size_t count;

	assert_int_equal(selector_expand(&a, &b, list, &count), OK);
	return count;
}

static enum err
refused(const char *src, const char *dst)
{
	struct xfrm_selector list[SELECTOR_MAX];
	struct ts a = ts(src), b = ts(dst);
	size_t count;

	return selector_expand(&a, &b, list, &count);
}

static void
selectors(void **state)
{
	struct xfrm_selector list[SELECTOR_MAX];
	char text[INET6_ADDRSTRLEN];

	(void)state;
	assert_int_equal(
	    expand("10.1.0.0/16[tcp/80]", "0.0.0.0/0[tcp]", list), 1);
	assert_int_equal(list[0].family, AF_INET);
	assert_int_equal(list[0].prefixlen_s, 16);
	assert_int_equal(list[0].prefixlen_d, 0);
	assert_int_equal(list[0].proto, IPPROTO_TCP);
	assert_int_equal(ntohs(list[0].sport), 80);
	assert_int_equal(list[0].sport_mask, 0xffff);
	assert_int_equal(list[0].dport_mask, 0);
	assert_string_equal(
	    inet_ntop(AF_INET, &list[0].saddr, text, sizeof(text)), "10.1.0.0");

	assert_int_equal(expand("2001:db8::/32", "2001:db8:1::1", list), 1);
	assert_int_equal(list[0].family, AF_INET6);
	assert_int_equal(list[0].prefixlen_s, 32);
	assert_int_equal(list[0].prefixlen_d, 128);

	/* .1 to .6 is .1, .2-.3, .4-.5, .6. */
	assert_int_equal(expand("10.0.0.1-10.0.0.6", "10.9.0.0/24", list), 4);
	assert_int_equal(list[0].prefixlen_s, 32);
	assert_int_equal(list[1].prefixlen_s, 31);
	assert_int_equal(list[2].prefixlen_s, 31);
	assert_string_equal(
	    inet_ntop(AF_INET, &list[3].saddr, text, sizeof(text)), "10.0.0.6");
	/* Up to the last address of all. */
	assert_int_equal(
	    expand("255.255.255.254-255.255.255.255", "10.9.0.0/24", list), 1);
	assert_int_equal(list[0].prefixlen_s, 31);
	/* The worst range of one side alone is too much. */
	assert_int_equal(
	    refused("0.0.0.1-255.255.255.254", "10.9.0.0/24"), ERR_LONG);
	assert_int_equal(refused("10.0.0.0/8", "2001:db8::1"), ERR_UNSUPPORTED);
}

/* Every address of a range is in exactly one of its prefixes. */
static void
ranges_are_exact(void **state)
{
	struct xfrm_selector list[SELECTOR_MAX];
	char src[64];
	unsigned first, last, at, hits;
	size_t i, count;

	(void)state;
	for (first = 0; first < 32; first++)
		for (last = first; last < 32; last++) {
			snprintf(src, sizeof(src), "10.0.0.%u-10.0.0.%u", first,
			    last);
			count = expand(src, "10.9.0.1", list);
			for (at = 0; at < 32; at++) {
				uint32_t want = 0x0a000000 | at;

				hits = 0;
				for (i = 0; i < count; i++) {
					uint32_t mask =
					    0xffffffffu
					    << (32 - list[i].prefixlen_s);

					hits +=
					    (ntohl(list[i].saddr.a4) ^ want) &
					            mask
					        ? 0u
					        : 1u;
				}
				assert_int_equal(
				    hits, at >= first && at <= last);
			}
		}
}

static void
ports(void **state)
{
	struct xfrm_selector list[SELECTOR_MAX];
	struct ts src = ts("10.0.0.1[udp]"), dst = ts("10.0.0.2[udp]");
	unsigned hits, port;
	size_t i, count;

	(void)state;
	src.first_port = 1000;
	src.last_port = 1009;
	assert_int_equal(selector_expand(&src, &dst, list, &count), OK);
	for (port = 990; port < 1020; port++) {
		hits = 0;
		for (i = 0; i < count; i++)
			hits += ((htons((uint16_t)port) ^ list[i].sport) &
			            list[i].sport_mask) == 0;
		assert_int_equal(hits, port >= 1000 && port <= 1009);
	}
	src.first_port = 1;
	src.last_port = 65534; /* 30 blocks */
	assert_int_equal(selector_expand(&src, &dst, list, &count), OK);
	assert_int_equal(count, 30);
	dst.first_port = 1;
	assert_int_equal(selector_expand(&src, &dst, list, &count), ERR_LONG);
	dst.first_port = 65535; /* OPAQUE */
	dst.last_port = 0;
	assert_int_equal(
	    selector_expand(&src, &dst, list, &count), ERR_UNSUPPORTED);
}

static void
icmp(void **state)
{
	struct xfrm_selector list[SELECTOR_MAX];
	struct ts src = ts("10.0.0.1[icmp]"), dst = ts("10.0.0.2[icmp]");
	struct ts back[2];
	size_t count;

	(void)state;
	assert_int_equal(selector_expand(&src, &dst, list, &count), OK);
	assert_int_equal(list[0].sport_mask | list[0].dport_mask, 0);
	src.first_port = 8 << 8;
	src.last_port = 8 << 8 | 255;
	assert_int_equal(selector_expand(&src, &dst, list, &count), OK);
	assert_int_equal(count, 1);
	assert_int_equal(ntohs(list[0].sport), 8);
	assert_int_equal(list[0].sport_mask, 0xffff);
	assert_int_equal(list[0].dport_mask, 0);
	src.first_port = src.last_port = 3 << 8 | 4;
	assert_int_equal(selector_expand(&src, &dst, list, &count), OK);
	assert_int_equal(ntohs(list[0].sport), 3);
	assert_int_equal(ntohs(list[0].dport), 4);
	assert_int_equal(selector_packet(&list[0], &back[0], &back[1]), OK);
	assert_int_equal(back[0].first_port, 3 << 8 | 4);
	assert_int_equal(back[1].last_port, 3 << 8 | 4);
	src.last_port = 9 << 8;
	assert_int_equal(
	    selector_expand(&src, &dst, list, &count), ERR_UNSUPPORTED);
}

static void
priorities(void **state)
{
	static const char *const narrow_first[][2] = {
		{ "10.1.1.1[tcp/80]", "10.2.2.2[tcp/99]" },
		{ "10.1.1.1[tcp/80]", "10.2.2.2[tcp]" },
		{ "10.1.1.1[tcp]", "10.2.2.2[tcp]" },
		{ "10.1.1.1", "10.2.2.2" },
		{ "10.1.1.0/24", "10.2.2.2" },
		{ "10.1.1.0/24", "10.2.2.0/24" },
		{ "10.1.0.0/16", "0.0.0.0/0" },
		{ "0.0.0.0/0", "0.0.0.0/0" },
	};
	struct xfrm_selector list[SELECTOR_MAX];
	uint32_t priority, before = 0;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(narrow_first) / sizeof(narrow_first[0]); i++) {
		assert_int_equal(
		    expand(narrow_first[i][0], narrow_first[i][1], list), 1);
		priority = selector_priority(&list[0]);
		assert_true(priority > before);
		before = priority;
	}
}

/* Messages ---------------------------------------------------------------- */

static void
base_sa(struct kmsg_sa *sa)
{
	unsigned i;

	memset(sa, 0, sizeof(*sa));
	sa->spi = 0xc0ffee01;
	sa->direction = KMSG_IN;
	sa->mode = MODE_TUNNEL;
	sa->reqid = REQID_FIRST + 6;
	sa->src.addr = addr("198.51.100.1");
	sa->dst.addr = addr("192.0.2.1");
	sa->src.port = 61000;
	sa->dst.port = 4500;
	sa->encr = ALG_AES256_GCM16;
	sa->encr_key_len = 36;
	for (i = 0; i < KMSG_KEY; i++)
		sa->key[i] = (uint8_t)(i + 1);
	sa->replay_window = 32;
	sa->hard_ms = 3600001;
	sa->ts_src.count = sa->ts_dst.count = 1;
	sa->ts_src.item[0] = ts("10.2.0.0/16");
	sa->ts_dst.item[0] = ts("10.1.0.0/16");
}

static struct nl_msg *
sa_message(const struct kmsg_sa *sa, bool update, struct nlattr **attrs,
    struct xfrm_usersa_info *info)
{
	enum err err;
	struct nl_msg *msg = xmsg_sa(sa, update, &err);

	assert_int_equal(err, OK);
	assert_non_null(msg);
	assert_int_equal(
	    nlmsg_parse(nlmsg_hdr(msg), sizeof(*info), attrs, XFRMA_MAX, NULL),
	    0);
	memcpy(info, nlmsg_data(nlmsg_hdr(msg)), sizeof(*info));
	return msg;
}

static void
sa_with_aead(void **state)
{
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_algo_aead *aead;
	struct xfrm_usersa_info info;
	struct kmsg_sa sa;
	struct nl_msg *msg;

	(void)state;
	base_sa(&sa);
	msg = sa_message(&sa, true, attrs, &info);
	assert_int_equal(nlmsg_hdr(msg)->nlmsg_type, XFRM_MSG_UPDSA);
	assert_int_equal(
	    nlmsg_hdr(msg)->nlmsg_flags, NLM_F_REQUEST | NLM_F_ACK);
	assert_int_equal(ntohl(info.id.spi), 0xc0ffee01);
	assert_int_equal(info.id.proto, IPPROTO_ESP);
	assert_int_equal(info.family, AF_INET);
	assert_int_equal(info.mode, XFRM_MODE_TUNNEL);
	assert_int_equal(info.reqid, REQID_FIRST + 6);
	assert_memory_equal(&info.saddr, sa.src.addr.octets, 4);
	assert_memory_equal(&info.id.daddr, sa.dst.addr.octets, 4);
	assert_int_equal(info.replay_window, 32);
	assert_true(info.lft.hard_add_expires_seconds == 3601);
	assert_true(info.lft.hard_byte_limit == XFRM_INF);
	assert_true(info.lft.soft_packet_limit == XFRM_INF);
	assert_int_equal(info.flags, 0);
	assert_int_equal(info.sel.prefixlen_s, 16);
	assert_int_equal(info.sel.family, AF_INET);
	aead = nla_data(attrs[XFRMA_ALG_AEAD]);
	assert_string_equal(aead->alg_name, "rfc4106(gcm(aes))");
	assert_int_equal(aead->alg_key_len, 288);
	assert_int_equal(aead->alg_icv_len, 128);
	assert_memory_equal(aead->alg_key, sa.key, 36);
	assert_null(attrs[XFRMA_ALG_CRYPT]);
	assert_null(attrs[XFRMA_ENCAP]);
	assert_null(attrs[XFRMA_REPLAY_ESN_VAL]);
	xmsg_free(msg);
	sa.direction = KMSG_OUT;
	msg = sa_message(&sa, false, attrs, &info);
	assert_int_equal(nlmsg_hdr(msg)->nlmsg_type, XFRM_MSG_NEWSA);
	assert_int_equal(info.replay_window, 0);
	assert_true(info.lft.soft_packet_limit < UINT32_MAX);
	xmsg_free(msg);
}

static void
sa_with_auth_and_encap(void **state)
{
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_algo *crypt;
	struct xfrm_algo_auth *auth;
	struct xfrm_encap_tmpl *encap;
	struct xfrm_usersa_info info;
	struct kmsg_sa sa;
	struct nl_msg *msg;

	(void)state;
	base_sa(&sa);
	sa.encr = ALG_AES256_CBC;
	sa.encr_key_len = 32;
	sa.integ = ALG_SHA512_256;
	sa.integ_key_len = 64;
	sa.encap = true;
	sa.mode = MODE_TRANSPORT;
	msg = sa_message(&sa, true, attrs, &info);
	crypt = nla_data(attrs[XFRMA_ALG_CRYPT]);
	assert_string_equal(crypt->alg_name, "cbc(aes)");
	assert_int_equal(crypt->alg_key_len, 256);
	assert_memory_equal(crypt->alg_key, sa.key, 32);
	auth = nla_data(attrs[XFRMA_ALG_AUTH_TRUNC]);
	assert_string_equal(auth->alg_name, "hmac(sha512)");
	assert_int_equal(auth->alg_key_len, 512);
	assert_int_equal(auth->alg_trunc_len, 256);
	assert_memory_equal(auth->alg_key, sa.key + 32, 64);
	encap = nla_data(attrs[XFRMA_ENCAP]);
	assert_int_equal(encap->encap_type, UDP_ENCAP_ESPINUDP);
	assert_int_equal(ntohs(encap->encap_sport), 61000);
	assert_int_equal(ntohs(encap->encap_dport), 4500);
	assert_int_equal(info.mode, XFRM_MODE_TRANSPORT);
	assert_int_equal(info.sel.family, AF_INET);
	assert_int_equal(info.sel.prefixlen_s, 0);
	xmsg_free(msg);
}

static void
windows(void **state)
{
	static const struct {
		uint8_t direction;
		bool esn;
		uint32_t asked, window;
		bool bitmap;
	} row[] = {
		{ KMSG_IN, false, 0, 0, false },
		{ KMSG_IN, false, 32, 32, false },
		{ KMSG_IN, false, 33, 33, true },
		{ KMSG_IN, false, 4096, 4096, true },
		{ KMSG_IN, false, 4097, 4096, true },
		{ KMSG_IN, true, 1, 1, true },
		{ KMSG_IN, true, 0, 4096, true },
		{ KMSG_OUT, false, 512, 0, false },
		{ KMSG_OUT, true, 512, 1, true },
	};
	struct xfrm_replay_state_esn *esn;
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_usersa_info info;
	struct kmsg_sa sa;
	struct nl_msg *msg;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		base_sa(&sa);
		sa.direction = row[i].direction;
		sa.esn = row[i].esn;
		sa.replay_window = row[i].asked;
		msg = sa_message(&sa, false, attrs, &info);
		assert_int_equal(
		    (info.flags & XFRM_STATE_ESN) != 0, row[i].esn);
		assert_int_equal(
		    attrs[XFRMA_REPLAY_ESN_VAL] != NULL, row[i].bitmap);
		if (row[i].bitmap) {
			esn = nla_data(attrs[XFRMA_REPLAY_ESN_VAL]);
			assert_int_equal(esn->replay_window, row[i].window);
			assert_int_equal(
			    esn->bmp_len, (row[i].window + 31) / 32);
			assert_int_equal(nla_len(attrs[XFRMA_REPLAY_ESN_VAL]),
			    sizeof(*esn) + 4 * (size_t)esn->bmp_len);
		} else {
			assert_int_equal(info.replay_window, row[i].window);
		}
		xmsg_free(msg);
	}
}

static void
sa_selectors(void **state)
{
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_usersa_info info;
	struct kmsg_sa sa;
	struct nl_msg *msg;

	(void)state;
	base_sa(&sa);
	sa.ts_src.item[1] = ts("2001:db8::/64");
	sa.ts_src.count = 2;
	msg = sa_message(&sa, false, attrs, &info);
	assert_int_equal(
	    info.flags & XFRM_STATE_AF_UNSPEC, XFRM_STATE_AF_UNSPEC);
	assert_int_equal(info.sel.family, 0);
	xmsg_free(msg);
	/* Inner IPv6 in outer IPv4. */
	base_sa(&sa);
	sa.ts_src.item[0] = ts("2001:db8:2::/64");
	sa.ts_dst.item[0] = ts("2001:db8:1::/64");
	msg = sa_message(&sa, false, attrs, &info);
	assert_int_equal(info.family, AF_INET);
	assert_int_equal(info.sel.family, AF_INET6);
	xmsg_free(msg);
}

static void
no_such_algorithm(void **state)
{
	struct kmsg_sa sa;
	enum err err;

	(void)state;
	base_sa(&sa);
	sa.encr = ALG_AES256_CBC; /* without integrity */
	assert_null(xmsg_sa(&sa, false, &err));
	assert_int_equal(err, ERR_UNSUPPORTED);
	sa.encr = ALG_NONE;
	assert_null(xmsg_sa(&sa, false, &err));
	assert_int_equal(err, ERR_UNSUPPORTED);
}

static void
policy_messages(void **state)
{
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_selector list[SELECTOR_MAX];
	struct xfrm_userpolicy_info *info;
	struct xfrm_userpolicy_id *id;
	struct xfrm_user_tmpl *tmpl;
	struct kmsg_policy policy = { .direction = KMSG_FWD };
	struct nl_msg *msg;

	(void)state;
	policy.reqid = REQID_FIRST;
	policy.tunnel_src = addr("2001:db8::1");
	policy.tunnel_dst = addr("2001:db8::2");
	assert_int_equal(expand("10.2.0.0/16", "10.1.0.0/16", list), 1);
	msg = xmsg_policy(&policy, &list[0]);
	assert_int_equal(nlmsg_hdr(msg)->nlmsg_type, XFRM_MSG_NEWPOLICY);
	assert_int_equal(
	    nlmsg_parse(nlmsg_hdr(msg), sizeof(*info), attrs, XFRMA_MAX, NULL),
	    0);
	info = nlmsg_data(nlmsg_hdr(msg));
	assert_int_equal(info->dir, XFRM_POLICY_FWD);
	assert_int_equal(info->action, XFRM_POLICY_ALLOW);
	assert_memory_equal(&info->sel, &list[0], sizeof(list[0]));
	assert_int_equal(
	    nla_len(attrs[XFRMA_TMPL]), sizeof(struct xfrm_user_tmpl));
	tmpl = nla_data(attrs[XFRMA_TMPL]);
	assert_int_equal(tmpl->family, AF_INET6);
	assert_int_equal(tmpl->id.proto, IPPROTO_ESP);
	assert_int_equal(tmpl->reqid, REQID_FIRST);
	assert_int_equal(tmpl->mode, XFRM_MODE_TUNNEL);
	assert_int_equal(tmpl->optional, 0);
	assert_memory_equal(&tmpl->saddr, policy.tunnel_src.octets, 16);
	assert_memory_equal(&tmpl->id.daddr, policy.tunnel_dst.octets, 16);
	xmsg_free(msg);

	policy.replace = true;
	policy.mode = MODE_TRANSPORT;
	msg = xmsg_policy(&policy, &list[0]);
	assert_int_equal(nlmsg_hdr(msg)->nlmsg_type, XFRM_MSG_UPDPOLICY);
	assert_int_equal(
	    nlmsg_parse(nlmsg_hdr(msg), sizeof(*info), attrs, XFRMA_MAX, NULL),
	    0);
	tmpl = nla_data(attrs[XFRMA_TMPL]);
	assert_int_equal(tmpl->mode, XFRM_MODE_TRANSPORT);
	assert_int_equal(tmpl->id.daddr.a6[0], 0);
	xmsg_free(msg);

	msg = xmsg_policy_delete(KMSG_OUT, &list[0]);
	assert_int_equal(nlmsg_hdr(msg)->nlmsg_type, XFRM_MSG_DELPOLICY);
	id = nlmsg_data(nlmsg_hdr(msg));
	assert_int_equal(id->dir, XFRM_POLICY_OUT);
	assert_memory_equal(&id->sel, &list[0], sizeof(list[0]));
	xmsg_free(msg);
}

/* As the kernel would report it. */
static struct nl_msg *
state_of(const struct kmsg_sa *sa, uint32_t oseq)
{
	struct xfrm_replay_state replay = { .oseq = oseq, .seq = 9 };
	uint64_t last = 1000;
	enum err err;
	struct nl_msg *msg = xmsg_sa(sa, false, &err);
	struct xfrm_usersa_info *info;

	assert_non_null(msg);
	info = nlmsg_data(nlmsg_hdr(msg));
	info->curlft.bytes = 4321;
	info->curlft.packets = 12;
	info->curlft.add_time = 900;
	info->curlft.use_time = 950;
	if (!sa->esn)
		assert_int_equal(
		    nla_put(msg, XFRMA_REPLAY_VAL, sizeof(replay), &replay), 0);
	assert_int_equal(nla_put(msg, XFRMA_LASTUSED, sizeof(last), &last), 0);
	return msg;
}

static void
use_and_spi(void **state)
{
	struct kmsg_sa sa;
	struct kmsg_use use;
	struct nl_msg *msg;
	uint32_t spi;

	(void)state;
	base_sa(&sa);
	msg = state_of(&sa, 0);
	assert_int_equal(xmsg_read_spi(nlmsg_hdr(msg), &spi), OK);
	assert_int_equal(spi, 0xc0ffee01);
	assert_int_equal(xmsg_read_use(nlmsg_hdr(msg), 1007, &use), OK);
	assert_true(use.octets == 4321 && use.packets == 12);
	assert_true(use.idle_ms == 7000);
	assert_int_equal(xmsg_read_use(nlmsg_hdr(msg), 10, &use), OK);
	assert_true(use.idle_ms == 0);
	nlmsg_hdr(msg)->nlmsg_len = NLMSG_HDRLEN + 20;
	assert_int_equal(xmsg_read_use(nlmsg_hdr(msg), 1007, &use), ERR_SYNTAX);
	assert_int_equal(xmsg_read_spi(nlmsg_hdr(msg), &spi), ERR_SYNTAX);
	nlmsg_free(msg);
}

static void
moved(void **state)
{
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_replay_state replay;
	struct xfrm_usersa_info info;
	struct xfrm_encap_tmpl *encap;
	struct kmsg_sa sa, to;
	struct nl_msg *was, *msg;
	enum err err;

	(void)state;
	base_sa(&sa);
	sa.direction = KMSG_OUT;
	sa.encap = true;
	was = state_of(&sa, 77);
	to = sa;
	to.dst.port = 1234;
	assert_true(xmsg_same_addresses(nlmsg_hdr(was), &to));
	to.dst.addr = addr("203.0.113.9");
	assert_false(xmsg_same_addresses(nlmsg_hdr(was), &to));
	msg = xmsg_sa_moved(nlmsg_hdr(was), &to, false, 1000, &err);
	assert_non_null(msg);
	assert_int_equal(
	    nlmsg_parse(nlmsg_hdr(msg), sizeof(info), attrs, XFRMA_MAX, NULL),
	    0);
	memcpy(&info, nlmsg_data(nlmsg_hdr(msg)), sizeof(info));
	assert_int_equal(nlmsg_hdr(msg)->nlmsg_type, XFRM_MSG_NEWSA);
	assert_memory_equal(&info.id.daddr, to.dst.addr.octets, 4);
	/* 100 s of 3601 have passed. */
	assert_true(info.lft.hard_add_expires_seconds == 3501);
	assert_true(info.curlft.packets == 0);
	encap = nla_data(attrs[XFRMA_ENCAP]);
	assert_int_equal(ntohs(encap->encap_dport), 1234);
	memcpy(&replay, nla_data(attrs[XFRMA_REPLAY_VAL]), sizeof(replay));
	assert_int_equal(replay.oseq, 77 + XMSG_MOVE_JUMP);
	assert_int_equal(replay.seq, 9);
	assert_memory_equal(
	    ((struct xfrm_algo_aead *)nla_data(attrs[XFRMA_ALG_AEAD]))->alg_key,
	    sa.key, 36);
	xmsg_free(msg);
	nlmsg_free(was);

	/* A counter at its end is not led past it. */
	was = state_of(&sa, UINT32_MAX - XMSG_MOVE_JUMP);
	assert_null(xmsg_sa_moved(nlmsg_hdr(was), &to, false, 1000, &err));
	assert_int_equal(err, ERR_LIMIT);
	nlmsg_free(was);
	/* A kernel in lockdown. */
	memset(sa.key, 0, sizeof(sa.key));
	was = state_of(&sa, 1);
	assert_null(xmsg_sa_moved(nlmsg_hdr(was), &to, false, 1000, &err));
	assert_int_equal(err, ERR_REFUSED);
	nlmsg_free(was);
}

static void
moved_esn(void **state)
{
	struct nlattr *attrs[XFRMA_MAX + 1];
	struct xfrm_replay_state_esn *esn;
	struct xfrm_usersa_info info;
	struct kmsg_sa sa;
	struct nl_msg *was, *msg;
	struct nlattr *attr;
	enum err err;

	(void)state;
	base_sa(&sa);
	sa.direction = KMSG_OUT;
	sa.esn = true;
	was = state_of(&sa, 0);
	attr =
	    nlmsg_find_attr(nlmsg_hdr(was), sizeof(info), XFRMA_REPLAY_ESN_VAL);
	esn = nla_data(attr);
	esn->oseq = UINT32_MAX - 1;
	esn->oseq_hi = 4;
	msg = xmsg_sa_moved(nlmsg_hdr(was), &sa, false, 1000, &err);
	assert_non_null(msg);
	assert_int_equal(
	    nlmsg_parse(nlmsg_hdr(msg), sizeof(info), attrs, XFRMA_MAX, NULL),
	    0);
	esn = nla_data(attrs[XFRMA_REPLAY_ESN_VAL]);
	assert_int_equal(esn->oseq, XMSG_MOVE_JUMP - 2);
	assert_int_equal(esn->oseq_hi, 5);
	xmsg_free(msg);
	/* Inbound nothing jumps. */
	sa.direction = KMSG_IN;
	msg = xmsg_sa_moved(nlmsg_hdr(was), &sa, false, 1000, &err);
	assert_int_equal(
	    nlmsg_parse(nlmsg_hdr(msg), sizeof(info), attrs, XFRMA_MAX, NULL),
	    0);
	esn = nla_data(attrs[XFRMA_REPLAY_ESN_VAL]);
	assert_int_equal(esn->oseq_hi, 4);
	xmsg_free(msg);
	nlmsg_free(was);
}

static struct nl_msg *
report(int type, const void *payload, size_t len)
{
	struct nl_msg *msg = nlmsg_alloc();
	struct nlmsghdr *header = nlmsg_put(msg, 0, 0, type, (int)len, 0);

	assert_non_null(header);
	memcpy(nlmsg_data(header), payload, len);
	return msg;
}

static void
reports(void **state)
{
	struct xfrm_user_expire expire;
	struct xfrm_user_mapping mapping;
	struct xfrm_user_acquire acquire;
	struct xfrm_user_tmpl tmpl;
	struct kmsg_event event;
	struct nl_msg *msg;
	struct addr a = addr("192.0.2.1"), b = addr("203.0.113.4");
	struct xfrm_selector list[SELECTOR_MAX];
	unsigned len;

	(void)state;
	memset(&expire, 0, sizeof(expire));
	selector_addr_put(&a, &expire.state.id.daddr);
	expire.state.family = AF_INET;
	expire.state.id.spi = htonl(0x1234);
	expire.state.id.proto = IPPROTO_ESP;
	expire.state.reqid = REQID_FIRST;
	expire.hard = 1;
	msg = report(XFRM_MSG_EXPIRE, &expire, sizeof(expire));
	assert_true(xmsg_read_event(nlmsg_hdr(msg), &event));
	assert_int_equal(event.kind, KEVENT_EXPIRE);
	assert_int_equal(event.spi, 0x1234);
	assert_true(event.hard && addr_equal(&event.remote.addr, &a));
	for (len = NLMSG_HDRLEN; len < NLMSG_HDRLEN + sizeof(expire);
	     len += 4) {
		nlmsg_hdr(msg)->nlmsg_len = len;
		assert_false(xmsg_read_event(nlmsg_hdr(msg), &event));
	}
	nlmsg_free(msg);
	expire.state.reqid = 1; /* somebody else's */
	msg = report(XFRM_MSG_EXPIRE, &expire, sizeof(expire));
	assert_false(xmsg_read_event(nlmsg_hdr(msg), &event));
	nlmsg_free(msg);

	memset(&mapping, 0, sizeof(mapping));
	mapping.id.family = AF_INET;
	mapping.id.spi = htonl(0x99);
	mapping.reqid = REQID_LAST;
	selector_addr_put(&b, &mapping.new_saddr);
	mapping.new_sport = htons(4711);
	msg = report(XFRM_MSG_MAPPING, &mapping, sizeof(mapping));
	assert_true(xmsg_read_event(nlmsg_hdr(msg), &event));
	assert_int_equal(event.kind, KEVENT_MAPPING);
	assert_int_equal(event.remote.port, 4711);
	assert_true(addr_equal(&event.remote.addr, &b));
	nlmsg_free(msg);

	memset(&acquire, 0, sizeof(acquire));
	memset(&tmpl, 0, sizeof(tmpl));
	assert_int_equal(
	    expand("10.1.0.5[tcp/1000]", "10.2.0.7[tcp/22]", list), 1);
	acquire.sel = list[0];
	tmpl.reqid = REQID_FIRST + 2;
	msg = report(XFRM_MSG_ACQUIRE, &acquire, sizeof(acquire));
	assert_false(xmsg_read_event(nlmsg_hdr(msg), &event));
	assert_int_equal(nla_put(msg, XFRMA_TMPL, sizeof(tmpl), &tmpl), 0);
	assert_true(xmsg_read_event(nlmsg_hdr(msg), &event));
	assert_int_equal(event.kind, KEVENT_ACQUIRE);
	assert_int_equal(event.reqid, REQID_FIRST + 2);
	assert_int_equal(event.packet[1].first_port, 22);
	assert_int_equal(event.packet[1].last_port, 22);
	assert_int_equal(event.packet[0].proto, IPPROTO_TCP);
	nlmsg_free(msg);
}

static void
orphans(void **state)
{
	struct xfrm_userpolicy_info info;
	struct xfrm_user_tmpl tmpl;
	struct nl_msg *msg, *removal;
	struct kmsg_sa sa;
	enum err err;

	(void)state;
	base_sa(&sa);
	msg = xmsg_sa(&sa, false, &err);
	assert_true(xmsg_orphan(nlmsg_hdr(msg), &removal));
	assert_int_equal(nlmsg_hdr(removal)->nlmsg_type, XFRM_MSG_DELSA);
	xmsg_free(removal);
	xmsg_free(msg);
	sa.reqid = REQID_FIRST - 1;
	msg = xmsg_sa(&sa, false, &err);
	assert_false(xmsg_orphan(nlmsg_hdr(msg), &removal));
	xmsg_free(msg);

	memset(&info, 0, sizeof(info));
	memset(&tmpl, 0, sizeof(tmpl));
	info.index = 77;
	info.dir = XFRM_POLICY_FWD;
	msg = report(XFRM_MSG_NEWPOLICY, &info, sizeof(info));
	assert_false(xmsg_orphan(nlmsg_hdr(msg), &removal));
	tmpl.reqid = REQID_LAST;
	assert_int_equal(nla_put(msg, XFRMA_TMPL, sizeof(tmpl), &tmpl), 0);
	assert_true(xmsg_orphan(nlmsg_hdr(msg), &removal));
	assert_int_equal(
	    ((struct xfrm_userpolicy_id *)nlmsg_data(nlmsg_hdr(removal)))
	        ->index,
	    77);
	xmsg_free(removal);
	nlmsg_free(msg);
}

static void
refusals(void **state)
{
	static const char said[] = "Requested type not found";
	struct nlmsgerr error;
	struct nl_msg *msg;
	char text[120];
	int number;

	(void)state;
	memset(&error, 0, sizeof(error));
	msg = report(NLMSG_ERROR, &error, sizeof(error));
	assert_int_equal(
	    xmsg_read_error(nlmsg_hdr(msg), &number, text, sizeof(text)), OK);
	nlmsg_free(msg);
	error.error = -93; /* EPROTONOSUPPORT */
	msg = report(NLMSG_ERROR, &error, sizeof(error));
	assert_int_equal(
	    xmsg_read_error(nlmsg_hdr(msg), &number, text, sizeof(text)),
	    ERR_UNSUPPORTED);
	assert_string_equal(text, "the kernel cannot do ESP");
	nlmsg_hdr(msg)->nlmsg_flags = NLM_F_CAPPED | NLM_F_ACK_TLVS;
	assert_int_equal(
	    nla_put(msg, NLMSGERR_ATTR_MSG, sizeof(said), said), 0);
	assert_int_equal(
	    xmsg_read_error(nlmsg_hdr(msg), &number, text, sizeof(text)),
	    ERR_UNSUPPORTED);
	assert_non_null(strstr(text, said));
	nlmsg_hdr(msg)->nlmsg_len = NLMSG_HDRLEN + 4;
	assert_int_equal(
	    xmsg_read_error(nlmsg_hdr(msg), &number, text, sizeof(text)),
	    ERR_SYNTAX);
	nlmsg_free(msg);
}

/* Own addresses ----------------------------------------------------------- */

static void
own_addresses(void **state)
{
	struct addr list[64], local, loopback = addr("127.0.0.1");
	struct addr nobody = addr("203.0.113.254");
	size_t count;

	(void)state;
	assert_int_equal(link_addresses(list, 64, &count), OK);
	if (!link_is_own(&loopback))
		skip(); /* no loopback here */
	assert_true(count > 0);
	assert_false(link_is_own(&nobody));
	assert_int_equal(link_addresses(list, 1, &count), OK);
	assert_int_equal(count, 1);
	assert_true(link_source(&loopback, &local));
	assert_true(addr_equal(&local, &loopback));
}

static unsigned changes;

static void
changed(void *arg)
{
	changes++;
	loop_stop(arg);
}

static void
stop(void *arg)
{
	loop_stop(arg);
}

static void
address_changes(void **state)
{
	struct loop *loop;
	struct link *watch;
	struct timer timer;

	(void)state;
	if (unshare(CLONE_NEWNET) != 0) {
		print_message("skipped: no network namespace: not root\n");
		skip();
	}
	loop = loop_new();
	assert_non_null(loop);
	watch = link_new(loop, changed, loop);
	assert_non_null(watch);
	timer_init(&timer, stop, loop);
	assert_int_equal(system("ip link set lo up"), 0);
	timer_set(loop_timers(loop), &timer, 5000);
	loop_run(loop);
	assert_int_equal(changes, 1); /* two addresses and routes, one call */
	link_free(watch);
	loop_free(loop);
}

/* A real kernel ----------------------------------------------------------- */

static struct kmsg_answer last_answer;
static unsigned answers;

static void
take_answer(void *arg, const struct kmsg_answer *answer)
{
	(void)arg;
	last_answer = *answer;
	answers++;
}

static void
take_event(void *arg, const struct kmsg_event *event)
{
	(void)arg;
	(void)event;
}

static void
quiet(struct log *log, enum log_level level, const char *line)
{
	(void)log;
	(void)level;
	(void)line;
}

static void
a_real_kernel(void **state)
{
	char why[120];
	struct log log = { .write = quiet };
	struct loop *loop;
	struct timer timer;
	struct kserve_backend *backend;
	struct kmsg request = { .op = KMSG_SPI };

	(void)state;
	/* A network namespace of our own: nobody's SAs are in danger. */
	if (unshare(CLONE_NEWNET) != 0) {
		print_message("skipped: no network namespace: not root\n");
		skip();
	}
	if (!xfrm_probe(why, sizeof(why))) {
		print_message("skipped: %s\n", why);
		skip();
	}
	loop = loop_new();
	assert_non_null(loop);
	timer_init(&timer, stop, loop);
	backend = xfrm_new(loop, &log, why, sizeof(why));
	assert_non_null(backend);
	backend->answer = take_answer;
	backend->event = take_event;
	base_sa(&request.sa);
	request.sa.spi = 0;
	backend->ops->execute(backend, &request);
	timer_set(loop_timers(loop), &timer, 10);
	loop_run(loop);
	assert_int_equal(answers, 1);
	assert_int_equal(last_answer.err, OK);
	base_sa(&request.sa);
	request.sa.spi = last_answer.spi;
	request.op = KMSG_SA_ADD;
	backend->ops->execute(backend, &request);
	request.op = KMSG_SA_QUERY;
	backend->ops->execute(backend, &request);
	timer_set(loop_timers(loop), &timer, 10);
	loop_run(loop);
	assert_int_equal(answers, 3);
	assert_int_equal(last_answer.err, OK);
	request.op = KMSG_SA_REMOVE;
	backend->ops->execute(backend, &request);
	request.op = KMSG_SA_QUERY;
	backend->ops->execute(backend, &request);
	timer_set(loop_timers(loop), &timer, 10);
	loop_run(loop);
	assert_int_equal(answers, 5);
	assert_int_equal(last_answer.err, ERR_NOT_FOUND);
	backend->ops->free(backend);
	loop_free(loop);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(selectors),
		cmocka_unit_test(ranges_are_exact),
		cmocka_unit_test(ports),
		cmocka_unit_test(icmp),
		cmocka_unit_test(priorities),
		cmocka_unit_test(sa_with_aead),
		cmocka_unit_test(sa_with_auth_and_encap),
		cmocka_unit_test(windows),
		cmocka_unit_test(sa_selectors),
		cmocka_unit_test(no_such_algorithm),
		cmocka_unit_test(policy_messages),
		cmocka_unit_test(use_and_spi),
		cmocka_unit_test(moved),
		cmocka_unit_test(moved_esn),
		cmocka_unit_test(reports),
		cmocka_unit_test(orphans),
		cmocka_unit_test(refusals),
		cmocka_unit_test(own_addresses),
		cmocka_unit_test(address_changes),
		cmocka_unit_test(a_real_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
