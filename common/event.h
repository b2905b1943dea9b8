/*
 * event: what happened to SAs, and counters.
 */
#ifndef COMMON_EVENT_H
#define COMMON_EVENT_H

#include <stdint.h>

#include "common/err.h"

struct child_sa;
struct conn;
struct ike_sa;

enum event_kind {
	EVENT_IKE_UP,      /* established */
	EVENT_IKE_REKEYED, /* sa is the new one */
	EVENT_IKE_FAILED,  /* never came up; err and text say why */
	EVENT_IKE_DOWN,    /* was up, is gone; err OK: as somebody wished */
	EVENT_CHILD_UP,
	EVENT_CHILD_REKEYED, /* child is the new one */
	EVENT_CHILD_FAILED,  /* never came up */
	EVENT_CHILD_DOWN,
	EVENT_STALE,     /* sa, or child: to be made anew, not renewed; text */
	EVENT_PEER_DEAD, /* no answers; dpdaction decides. Before IKE_DOWN */
	EVENT_EXPLAIN    /* text: one block, offered beside configured */
};

struct event {
	enum event_kind kind;
	enum err err;
	const struct conn *conn;      /* may be NULL */
	const struct ike_sa *sa;      /* may be NULL */
	const struct child_sa *child; /* may be NULL */
	const char *text;             /* may be NULL */
	int by_peer;                  /* the peer closed or refused */
};

const char *event_text(enum event_kind kind); /* "ike-up", ... */

#define COUNTERS(X)                                                            \
	X(PACKETS_IN, "packets received")                                      \
	X(PACKETS_OUT, "packets sent")                                         \
	X(PACKETS_UNSENT, "packets the system refused to send")                \
	X(PACKETS_MALFORMED, "packets malformed")                              \
	X(PACKETS_STRANGE, "packets without an SA")                            \
	X(PACKETS_FORGED, "packets that failed authentication")                \
	X(PACKETS_REPEATED, "packets repeated by the peer")                    \
	X(RETRANSMITS, "requests retransmitted")                               \
	X(COOKIES_SENT, "cookies demanded")                                    \
	X(HALF_OPEN_REFUSED, "half-open SAs refused")                          \
	X(HALF_OPEN_EVICTED, "half-open SAs ended to make room")               \
	X(V1_IKE_UP, "IKEv1 SAs established")                                  \
	X(V2_IKE_UP, "IKEv2 SAs established")                                  \
	X(V1_IKE_FAILED, "IKEv1 negotiations failed")                          \
	X(V2_IKE_FAILED, "IKEv2 negotiations failed")                          \
	X(CHILD_UP, "child SAs established")                                   \
	X(CHILD_FAILED, "child SA negotiations failed")                        \
	X(CHILD_REKEYED, "child SAs rekeyed")                                  \
	X(IKE_REKEYED, "IKE SAs rekeyed")                                      \
	X(COLLISIONS, "rekey collisions resolved")                             \
	X(DPD_DEAD, "peers found dead")                                        \
	X(AGGRESSIVE_IGNORED, "Aggressive Mode requests ignored")              \
	X(WEAK_IKE, "IKE SAs with a weak algorithm")                           \
	X(WEAK_CHILD, "child SAs with a weak algorithm")                       \
	X(V1_WITHOUT_CONN, "IKEv1 packets that no connection accepts")

enum counter {
#define COUNTER_ENUM(name, text) COUNTER_##name,
	COUNTERS(COUNTER_ENUM)
#undef COUNTER_ENUM
	    COUNTER_COUNT
};

const char *counter_text(enum counter counter);

#endif
