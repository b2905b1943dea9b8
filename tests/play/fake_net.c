#include "tests/play/fake_net.h"

#include <stdlib.h>
#include <string.h>

#include "tests/play/play.h"

static bool
unlucky(struct play *play, unsigned permille)
{
	return permille > 0 && play_below(play, 1000) < permille;
}

static struct gateway *
gateway_at(struct play *play, const struct addr *addr)
{
	size_t i;

	for (i = 0; i < play->gateway_count; i++)
		if (addr_equal(&play->gateway[i]->addr, addr))
			return play->gateway[i];
	return NULL;
}

static void
unlink_flying(struct flying *flying)
{
	if (flying->prev != NULL)
		flying->prev->next = flying->next;
	else
		flying->play->flying = flying->next;
	if (flying->next != NULL)
		flying->next->prev = flying->prev;
}

/* From outside, a NAT lets in what answers a mapping (by port only: full
 * cone); the destination becomes the inside endpoint. */
static bool
nat_in(struct play *play, struct flying *flying)
{
	struct fake_nat *nat;
	bool outside = false;
	size_t i, j;

	for (i = 0; i < play->nat_count; i++) {
		nat = &play->nat[i];
		if (!addr_equal(&nat->outside, &flying->dst.addr))
			continue;
		for (j = 0; j < nat->count; j++) {
			if (nat->mapping[j].port != flying->dst.port)
				continue;
			flying->dst = nat->mapping[j].inside;
			return true;
		}
		outside = true; /* several may share one address */
	}
	return !outside;
}

static void
nat_out(struct play *play, struct endpoint *src)
{
	struct fake_nat *nat;
	size_t i, j;

	for (i = 0; i < play->nat_count; i++) {
		nat = &play->nat[i];
		if (!addr_equal(&nat->inside, &src->addr))
			continue;
		for (j = 0; j < nat->count; j++)
			if (endpoint_equal(&nat->mapping[j].inside, src))
				break;
		if (j == nat->count) {
			if (nat->count == FAKE_MAPPINGS)
				nat->count = j = 0;
			nat->mapping[j].inside = *src;
			nat->mapping[j].port = nat->next_port++;
			nat->count++;
		}
		src->addr = nat->outside;
		src->port = nat->mapping[j].port;
		return;
	}
}

static void
arrive(void *arg)
{
	struct flying *flying = arg;
	struct play *play = flying->play;
	struct gateway *gw;
	struct packet packet;

	unlink_flying(flying);
	if (nat_in(play, flying)) {
		gw = gateway_at(play, &flying->dst.addr);
		if (gw != NULL && !gw->net.silent && !flying->keepalive) {
			gw->net.received++;
			packet.local = flying->dst;
			packet.remote = flying->src;
			packet.natt = flying->natt;
			packet.octets = view_of(flying->octets, flying->len);
			engine_dispatch(&gw->env, &packet);
		}
	}
	free(flying);
}

static void
launch(struct play *play, const struct packet *packet, bool keepalive,
    uint64_t delay_ms)
{
	struct flying *flying = malloc(sizeof(*flying) + packet->octets.len);

	if (flying == NULL)
		abort();
	flying->play = play;
	flying->src = packet->local;
	flying->dst = packet->remote;
	flying->natt = packet->natt;
	flying->keepalive = keepalive;
	flying->len = packet->octets.len;
	if (flying->len > 0)
		memcpy(flying->octets, packet->octets.at, flying->len);
	flying->prev = NULL;
	flying->next = play->flying;
	if (play->flying != NULL)
		play->flying->prev = flying;
	play->flying = flying;
	timer_init(&flying->timer, arrive, flying);
	timer_set(&play->timers, &flying->timer, delay_ms);
}

static void
transmit(struct gateway *gw, struct packet *packet, bool keepalive)
{
	struct play *play = gw->play;
	const struct net_weather *weather = &play->weather;
	uint64_t delay;
	unsigned copies, i;

	nat_out(play, &packet->local);
	copies = unlucky(play, weather->duplicate_permille) ? 2 : 1;
	for (i = 0; i < copies; i++) {
		if (unlucky(play, weather->loss_permille))
			continue;
		delay = weather->delay_min_ms +
		        play_below(play, (uint64_t)weather->delay_max_ms -
		                             weather->delay_min_ms + 1);
		if (unlucky(play, weather->reorder_permille))
			delay += play_below(play, weather->reorder_ms + 1);
		launch(play, packet, keepalive, delay);
	}
}

static void
fake_send(struct net *net, const struct endpoint *local,
    const struct endpoint *remote, bool natt, struct view octets)
{
	struct fake_net *fake = (struct fake_net *)net;
	struct gateway *gw = fake->gateway;
	struct play *play = gw->play;
	struct packet packet = { *local, *remote, natt, octets };
	uint8_t *copy;

	fake->sent++;
	play->packets++;
	play->octets_sent += octets.len;
	if (fake->silent)
		return;
	copy = mem_dup(octets.at, octets.len);
	if (copy == NULL)
		abort();
	packet.octets.at = copy;
	if (play->tap == NULL ||
	    play->tap(play, gw, &packet, copy, play->tap_arg))
		transmit(gw, &packet, false);
	free(copy);
}

static void
fake_keepalive(struct net *net, const struct endpoint *local,
    const struct endpoint *remote)
{
	struct fake_net *fake = (struct fake_net *)net;
	struct packet packet = { *local, *remote, true, { NULL, 0 } };

	fake->keepalives++;
	if (!fake->silent)
		transmit(fake->gateway, &packet, true);
}

static bool
fake_source(struct net *net, const struct addr *remote, struct addr *local)
{
	struct fake_net *fake = (struct fake_net *)net;

	if (fake->gateway->addr.family != remote->family)
		return false;
	*local = fake->gateway->addr;
	return true;
}

static uint16_t
fake_port(const struct net *net, bool natt)
{
	(void)net;
	return natt ? NATT_PORT : IKE_PORT;
}

static void
fake_free(struct net *net)
{
	(void)net;
}

void
fake_net_init(struct fake_net *net, struct gateway *gateway)
{
	static const struct net_ops ops = {
		.send = fake_send,
		.keepalive = fake_keepalive,
		.source = fake_source,
		.port = fake_port,
		.free = fake_free,
	};

	memset(net, 0, sizeof(*net));
	net->net.ops = &ops;
	net->gateway = gateway;
}

struct fake_nat *
play_nat(struct play *play, const char *inside, const char *outside)
{
	struct fake_nat *nat;

	if (play->nat_count == FAKE_NATS)
		abort();
	nat = &play->nat[play->nat_count++];
	memset(nat, 0, sizeof(*nat));
	if (!addr_parse(&nat->inside, inside) ||
	    !addr_parse(&nat->outside, outside))
		abort();
	nat->next_port = 20001;
	return nat;
}

void
fake_nat_rebind(struct fake_nat *nat)
{
	nat->count = 0;
}

void
play_inject(struct play *play, const struct endpoint *src,
    const struct endpoint *dst, bool natt, struct view octets)
{
	struct packet packet = { *src, *dst, natt, octets };

	launch(play, &packet, false, 1);
}

void
play_drop_flying(struct play *play)
{
	struct flying *flying;

	while ((flying = play->flying) != NULL) {
		timer_stop(&play->timers, &flying->timer);
		unlink_flying(flying);
		free(flying);
	}
}
