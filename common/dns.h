/*
 * dns: host names to addresses, without blocking anyone.
 *
 * Questions and answers are packed and read by libldns; datagrams go over the
 * loop (UDP to the servers of resolv.conf, TCP after truncation). Order, tries
 * and timeouts as resolv.conf(5) says. hosts(5) is looked at first.
 */
#ifndef COMMON_DNS_H
#define COMMON_DNS_H

#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/err.h"

struct dns;
struct env;
struct loop;

#define DNS_ADDRS 8

/* resolv and hosts are file texts (the process has no files). NULL: none. */
struct dns *dns_new(
    struct env *env, struct loop *loop, const char *resolv, const char *hosts);
void dns_free(struct dns *dns); /* questions under way are never answered */

/* Servers are asked on this port instead of 53: for tests. */
void dns_port(struct dns *dns, uint16_t port);

/* Asks for A and AAAA (family 0) or one of them. done is called once, never
 * from inside: OK and at least one address, or ERR_NOT_FOUND, ERR_TIMEOUT,
 * ERR_IO. ttl_s: how long the answer holds. addrs are valid during the call,
 * IPv4 first. ERR_SYNTAX (this is no host name), ERR_LIMIT (too many questions
 * under way) or ERR_NOMEM: done will not be called. */
enum err dns_resolve(struct dns *dns, const char *name, uint8_t family,
    void (*done)(void *arg, enum err err, const struct addr *addrs,
        size_t count, uint32_t ttl_s),
    void *arg);
/* done will not be called for this arg any more. */
void dns_cancel(struct dns *dns, void *arg);

#endif
