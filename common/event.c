#include "common/event.h"

const char *
event_text(enum event_kind kind)
{
	static const char *const names[] = {
		[EVENT_IKE_UP] = "ike-up",
		[EVENT_IKE_REKEYED] = "ike-rekeyed",
		[EVENT_IKE_FAILED] = "ike-failed",
		[EVENT_IKE_DOWN] = "ike-down",
		[EVENT_CHILD_UP] = "child-up",
		[EVENT_CHILD_REKEYED] = "child-rekeyed",
		[EVENT_CHILD_FAILED] = "child-failed",
		[EVENT_CHILD_DOWN] = "child-down",
		[EVENT_STALE] = "stale",
		[EVENT_PEER_DEAD] = "peer-dead",
		[EVENT_EXPLAIN] = "explain",
	};

	if ((unsigned)kind >= sizeof(names) / sizeof(names[0]))
		return "unknown";
	return names[kind];
}

const char *
counter_text(enum counter counter)
{
	static const char *const names[] = {
#define COUNTER_NAME(name, text) text,
		COUNTERS(COUNTER_NAME)
#undef COUNTER_NAME
	};

	if ((unsigned)counter >= COUNTER_COUNT)
		return "unknown";
	return names[counter];
}
