#include "kernel/route.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

#include "common/env.h"
#include "common/loop.h"
#include "common/map.h"
#include "kernel/link.h"

#define PROTOCOL 0x6f  /* RTA_PROTOCOL, FRA_PROTOCOL: marks what is ours */
#define OWN_MAX  256   /* addresses of this host that we look at */
#define OWN_MS   1000  /* for so long we believe to know them */
#define VOID_MS  30000 /* void routes stay so long */
#define RULES    64    /* of a predecessor, at most */
#define MEND_MS  200   /* so long after somebody took what is ours away */

/* One route: a prefix that at least one policy wants. */
struct prefix {
	struct map_node node;
	struct addr addr;
	uint8_t bits;
	uint32_t users;
	struct ts local; /* where its source is from */
};

struct route {
	struct loop *loop;
	struct log *log;
	struct nl_sock *sock;
	struct loop_watch *watch;
	int index;
	struct map prefixes;
	struct timer void_timer;
	/* What others do to our device and our rules. */
	struct nl_sock *ear;
	struct loop_watch *ear_watch;
	struct timer mend_timer;
	struct addr own[OWN_MAX];
	size_t own_count;
	uint64_t own_ms; /* when they were read; 0: never */
};

static int
family_of(const struct addr *addr)
{
	return addr->family == ADDR_V6 ? AF_INET6 : AF_INET;
}

/* Messages -------------------------------------------------------------- */

static struct nl_msg *
rule_message(int type, int flags, int family)
{
	struct fib_rule_hdr header;
	struct nl_msg *msg = nlmsg_alloc_simple(type, flags);

	if (msg == NULL)
		return NULL;
	memset(&header, 0, sizeof(header));
	header.family = (uint8_t)family;
	header.action = FR_ACT_TO_TBL;
	header.flags = FIB_RULE_INVERT; /* what does not carry the mark */
	if (nlmsg_append(msg, &header, sizeof(header), NLMSG_ALIGNTO) != 0 ||
	    nla_put_u32(msg, FRA_PRIORITY, ROUTE_PRIORITY) != 0 ||
	    nla_put_u32(msg, FRA_FWMARK, ROUTE_MARK) != 0 ||
	    nla_put_u32(msg, FRA_TABLE, ROUTE_TABLE) != 0 ||
	    nla_put_u8(msg, FRA_PROTOCOL, PROTOCOL) != 0) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

/* Asks and waits: at start and at the end only. 0 or a negative NLE_. */
static int
rule_ask(struct nl_sock *sock, int type, int flags, int family)
{
	struct nl_msg *msg = rule_message(type, flags | NLM_F_ACK, family);

	return msg ? nl_send_sync(sock, msg) : -NLE_NOMEM;
}

static void
rules_remove(struct nl_sock *sock)
{
	unsigned i;

	for (i = 0; i < RULES; i++)
		if (rule_ask(sock, RTM_DELRULE, 0, AF_INET) != 0)
			break;
	for (i = 0; i < RULES; i++)
		if (rule_ask(sock, RTM_DELRULE, 0, AF_INET6) != 0)
			break;
}

static bool
put_addr(struct nl_msg *msg, int type, const struct addr *addr)
{
	return nla_put(msg, type, (int)addr_len(addr), addr->octets) == 0;
}

/* No acknowledgement is asked for: the system speaks up when it refuses. */
static void
route_tell(struct route *route, int type, const struct prefix *prefix,
    const struct addr *source)
{
	int flags = type == RTM_NEWROUTE ? NLM_F_CREATE | NLM_F_REPLACE : 0;
	struct nl_msg *msg = nlmsg_alloc_simple(type, flags);
	struct rtmsg header;

	if (msg == NULL)
		return;
	memset(&header, 0, sizeof(header));
	header.rtm_family = (uint8_t)family_of(&prefix->addr);
	header.rtm_dst_len = prefix->bits;
	header.rtm_table = RT_TABLE_UNSPEC;
	header.rtm_protocol = PROTOCOL;
	header.rtm_scope =
	    prefix->addr.family == ADDR_V6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
	header.rtm_type = RTN_UNICAST;
	if (nlmsg_append(msg, &header, sizeof(header), NLMSG_ALIGNTO) == 0 &&
	    nla_put_u32(msg, RTA_TABLE, ROUTE_TABLE) == 0 &&
	    nla_put_u32(msg, RTA_OIF, (uint32_t)route->index) == 0 &&
	    put_addr(msg, RTA_DST, &prefix->addr) &&
	    (source == NULL || put_addr(msg, RTA_PREFSRC, source)))
		(void)nl_send_auto(route->sock, msg);
	nlmsg_free(msg);
}

/* Which source ---------------------------------------------------------- */

static bool
is_within(const struct addr *addr, const struct ts *ts)
{
	return addr->family == ts->first.family &&
	       addr_compare(addr, &ts->first) >= 0 &&
	       addr_compare(addr, &ts->last) <= 0;
}

static const struct addr *
own_within(struct route *route, const struct ts *local)
{
	uint64_t now = loop_timers(route->loop)->now_ms;
	size_t i;

	if (route->own_ms == 0 || now - route->own_ms >= OWN_MS) {
		if (link_addresses(route->own, OWN_MAX, &route->own_count) !=
		    OK)
			route->own_count = 0;
		route->own_ms = now;
	}
	for (i = 0; i < route->own_count; i++)
		if (is_within(&route->own[i], local))
			return &route->own[i];
	return NULL;
}

/* Prefixes -------------------------------------------------------------- */

static uint64_t
prefix_hash(const struct route *route, const struct addr *addr, uint8_t bits)
{
	uint8_t octets[18];

	memcpy(octets, addr->octets, 16);
	octets[16] = addr->family;
	octets[17] = bits;
	return map_hash(&route->prefixes, view_of(octets, sizeof(octets)));
}

static struct prefix *
prefix_find(struct route *route, const struct addr *addr, uint8_t bits)
{
	struct map_node *node;
	struct prefix *prefix;

	for (node = map_find(&route->prefixes, prefix_hash(route, addr, bits));
	     node; node = map_next_same(node)) {
		prefix = map_entry(node, struct prefix, node);
		if (prefix->bits == bits && addr_equal(&prefix->addr, addr))
			return prefix;
	}
	return NULL;
}

static enum err
prefix_use(struct route *route, const struct addr *addr, uint8_t bits,
    const struct ts *local)
{
	struct prefix *prefix = prefix_find(route, addr, bits);

	if (prefix == NULL) {
		prefix = calloc(1, sizeof(*prefix));
		if (prefix == NULL)
			return ERR_NOMEM;
		prefix->addr = *addr;
		prefix->bits = bits;
		map_insert(&route->prefixes, &prefix->node,
		    prefix_hash(route, addr, bits));
	}
	if (prefix->users++ == 0) {
		prefix->local = *local;
		route_tell(
		    route, RTM_NEWROUTE, prefix, own_within(route, local));
	}
	return OK;
}

static void
prefix_drop(struct route *route, struct prefix *prefix)
{
	route_tell(route, RTM_DELROUTE, prefix, NULL);
	map_remove(&route->prefixes, &prefix->node);
	free(prefix);
}

/* The next prefix of the range first..last: the largest that begins at first.
 * Moves *first behind it; false when that was the end. */
static bool
take_prefix(
    struct addr *first, const struct addr *last, struct addr *at, uint8_t *bits)
{
	unsigned most = (unsigned)addr_len(first) * 8, n;
	struct addr low, high = *first;

	for (n = 0; n < most; n++) {
		addr_prefix_range(first, n, &low, &high);
		if (addr_equal(&low, first) && addr_compare(&high, last) <= 0)
			break;
	}
	if (n == most)
		high = *first;
	*at = *first;
	*bits = (uint8_t)n;
	*first = high;
	return addr_compare(&high, last) < 0 && addr_next(first);
}

enum err
route_add(struct route *route, const struct ts *local, const struct ts *remote)
{
	struct addr first = remote->first, at;
	enum err err = OK;
	uint8_t bits;
	bool more;

	do {
		more = take_prefix(&first, &remote->last, &at, &bits);
		err = prefix_use(route, &at, bits, local);
	} while (more && err == OK);
	return err;
}

void
route_remove(struct route *route, const struct ts *remote)
{
	struct addr first = remote->first, at;
	struct prefix *prefix;
	uint8_t bits;
	bool more;

	do {
		more = take_prefix(&first, &remote->last, &at, &bits);
		prefix = prefix_find(route, &at, bits);
		if (prefix && prefix->users > 0 && --prefix->users == 0)
			prefix_drop(route, prefix);
	} while (more);
}

/* From any address: which one is best is known again with the next policy. */
static void
tell_again(struct map_node *node, void *arg)
{
	route_tell(
	    arg, RTM_NEWROUTE, map_entry(node, struct prefix, node), NULL);
}

void
route_device(struct route *route, int index)
{
	route->index = index;
	map_each(&route->prefixes, tell_again, route);
}

static void
make_void(struct map_node *node, void *arg)
{
	(void)arg;
	map_entry(node, struct prefix, node)->users = 0;
}

static void
drop_void(struct map_node *node, void *arg)
{
	struct prefix *prefix = map_entry(node, struct prefix, node);

	if (prefix->users == 0)
		prefix_drop(arg, prefix);
}

static void
void_due(void *arg)
{
	struct route *route = arg;

	map_each(&route->prefixes, drop_void, route);
}

void
route_void(struct route *route)
{
	map_each(&route->prefixes, make_void, NULL);
	timer_set(loop_timers(route->loop), &route->void_timer, VOID_MS);
}

/* Strict interfaces ----------------------------------------------------- */

#define CONF "/proc/sys/net/ipv4/conf"

/* '0' where it cannot be read. */
static char
filter_of(const char *name)
{
	char path[sizeof(CONF) + 300], value = '0';
	int fd;

	snprintf(path, sizeof(path), CONF "/%s/rp_filter", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return '0';
	if (read(fd, &value, 1) != 1)
		value = '0';
	close(fd);
	return value;
}

bool
route_strict(const struct route *route, char name[static 16])
{
	char all = filter_of("all"), own;
	bool found = false;
	struct dirent *entry;
	DIR *folder = opendir(CONF);
	unsigned index;

	while (folder && !found && (entry = readdir(folder)) != NULL) {
		index = if_nametoindex(entry->d_name);
		if (index == 0 || index == (unsigned)route->index ||
		    strcmp(entry->d_name, "lo") == 0)
			continue;
		/* The larger of both counts; 2 is the loose way. */
		own = filter_of(entry->d_name);
		found = (own > all ? own : all) == '1' &&
		        if_indextoname(index, name) != NULL;
	}
	if (folder)
		closedir(folder);
	return found;
}

/* Mending --------------------------------------------------------------- */

static void
mend_prefix(struct map_node *node, void *arg)
{
	struct prefix *prefix = map_entry(node, struct prefix, node);

	route_tell(arg, RTM_NEWROUTE, prefix, own_within(arg, &prefix->local));
}

/* A manager of networks may remove rules that it does not know, and a device
 * that goes down takes its routes along: traffic would then follow the main
 * table, in the clear. */
static void
mend(void *arg)
{
	static const int families[] = { AF_INET, AF_INET6 };
	struct route *route = arg;
	struct nl_msg *msg;
	size_t i;

	for (i = 0; i < 2; i++) {
		msg = rule_message(
		    RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, families[i]);
		if (msg != NULL)
			(void)nl_send_auto(route->sock, msg);
		nlmsg_free(msg);
	}
	route->own_ms = 0; /* addresses may have gone with the device */
	map_each(&route->prefixes, mend_prefix, route);
}

static void
mend_soon(struct route *route, const char *why)
{
	if (timer_armed(&route->mend_timer))
		return;
	log_write(route->log, LOG_LEVEL_WARNING,
	    "%s: rules and routes to the userland data plane are made anew",
	    why);
	timer_set(loop_timers(route->loop), &route->mend_timer, MEND_MS);
}

static bool
is_our_rule(struct nlmsghdr *header)
{
	struct nlattr *priority, *table;

	priority =
	    nlmsg_find_attr(header, sizeof(struct fib_rule_hdr), FRA_PRIORITY);
	table = nlmsg_find_attr(header, sizeof(struct fib_rule_hdr), FRA_TABLE);
	return priority != NULL && nla_len(priority) == 4 &&
	       nla_get_u32(priority) == ROUTE_PRIORITY && table != NULL &&
	       nla_len(table) == 4 && nla_get_u32(table) == ROUTE_TABLE;
}

static int
on_news(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *header = nlmsg_hdr(msg);
	const struct ifinfomsg *info = nlmsg_data(header);
	struct route *route = arg;

	if (header->nlmsg_type == RTM_DELRULE &&
	    nlmsg_valid_hdr(header, sizeof(struct fib_rule_hdr))) {
		if (is_our_rule(header))
			mend_soon(route, "somebody removed a rule of ours");
	} else if (header->nlmsg_type == RTM_NEWLINK &&
	           nlmsg_valid_hdr(header, sizeof(*info))) {
		if (info->ifi_index == route->index &&
		    (info->ifi_change & IFF_UP) && (info->ifi_flags & IFF_UP))
			mend_soon(route, "the device is up again");
	}
	return NL_OK;
}

static void
ear_readable(void *arg)
{
	struct route *route = arg;

	if (nl_recvmsgs_default(route->ear) == -NLE_NOMEM)
		mend_soon(route, "the system's news were too many");
}

/* Without it all works as long as nobody meddles. */
static void
listen_to_news(struct route *route)
{
	route->ear = nl_socket_alloc();
	if (route->ear == NULL)
		return;
	nl_socket_disable_seq_check(route->ear);
	nl_socket_modify_cb(
	    route->ear, NL_CB_VALID, NL_CB_CUSTOM, on_news, route);
	if (nl_connect(route->ear, NETLINK_ROUTE) != 0 ||
	    nl_socket_add_memberships(route->ear, RTNLGRP_LINK,
	        RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, 0) != 0 ||
	    nl_socket_set_nonblocking(route->ear) != 0)
		return;
	route->ear_watch = loop_watch(route->loop, nl_socket_get_fd(route->ear),
	    ear_readable, NULL, route);
}

/* What the system says -------------------------------------------------- */

static int
on_error(struct sockaddr_nl *from, struct nlmsgerr *error, void *arg)
{
	struct route *route = arg;

	(void)from;
	/* What is gone already was to go; what is there was to be. */
	if (error->error != -ESRCH && error->error != -EEXIST)
		log_write(route->log, LOG_LEVEL_WARNING,
		    "the system refused a route to the userland data plane: %s",
		    strerror(-error->error));
	return NL_SKIP;
}

static void
readable(void *arg)
{
	struct route *route = arg;

	(void)nl_recvmsgs_default(route->sock);
}

/* Beginning and end ----------------------------------------------------- */

static void
free_prefix(struct map_node *node, void *arg)
{
	(void)arg;
	free(map_entry(node, struct prefix, node));
}

struct route *
route_new(struct loop *loop, struct log *log, int index, char *why, size_t size)
{
	struct route *route = calloc(1, sizeof(*route));
	uint64_t seed[2] = { 0, 0 };
	int err = -NLE_NOMEM;

	if (route == NULL)
		goto fail;
	(void)!env_random_openssl(NULL, seed, sizeof(seed));
	route->loop = loop;
	route->log = log;
	route->index = index;
	map_init(&route->prefixes, seed);
	timer_init(&route->void_timer, void_due, route);
	timer_init(&route->mend_timer, mend, route);
	route->sock = nl_socket_alloc();
	if (route->sock == NULL)
		goto fail;
	err = nl_connect(route->sock, NETLINK_ROUTE);
	if (err != 0)
		goto fail;
	rules_remove(route->sock);
	err = rule_ask(
	    route->sock, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, AF_INET);
	if (err != 0)
		goto fail;
	err = rule_ask(
	    route->sock, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, AF_INET6);
	if (err != 0)
		log_write(log, LOG_LEVEL_DEBUG, "no rule for IPv6: %s",
		    nl_geterror(err));
	nl_socket_disable_seq_check(route->sock);
	nl_socket_modify_err_cb(route->sock, NL_CB_CUSTOM, on_error, route);
	err = nl_socket_set_nonblocking(route->sock);
	if (err != 0)
		goto fail;
	err = -NLE_NOMEM;
	route->watch = loop_watch(
	    loop, nl_socket_get_fd(route->sock), readable, NULL, route);
	if (route->watch == NULL)
		goto fail;
	listen_to_news(route);
	return route;
fail:
	snprintf(why, size, "rules for routes: %s", nl_geterror(err));
	route_free(route);
	return NULL;
}

void
route_free(struct route *route)
{
	struct nl_sock *sock;

	if (route == NULL)
		return;
	loop_unwatch(route->watch);
	loop_unwatch(route->ear_watch);
	timer_stop(loop_timers(route->loop), &route->void_timer);
	timer_stop(loop_timers(route->loop), &route->mend_timer);
	nl_socket_free(route->sock);
	nl_socket_free(route->ear);
	/* A fresh one, which may wait for its answers. */
	sock = nl_socket_alloc();
	if (sock && nl_connect(sock, NETLINK_ROUTE) == 0)
		rules_remove(sock);
	nl_socket_free(sock);
	map_each(&route->prefixes, free_prefix, NULL);
	map_fini(&route->prefixes);
	free(route);
}
