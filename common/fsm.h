/*
 * fsm: the tables that decide what every message means.
 *
 * One row per message that may arrive, for an exchange, a role in it and a
 * state of it. The first row of a group whose `must` is seen and whose `not`
 * is not wins. Sets are checked before the first step runs, so a handler never
 * sees a missing or repeated payload. Only fsm assigns an exchange's state,
 * and only to a successor that the row permits. No row, no handler.
 */
#ifndef COMMON_FSM_H
#define COMMON_FSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/rexmit.h"
#include "common/sa.h"
#include "common/wire.h"

#define FSM_STEPS 12
#define FSM_NEXT  4

enum role { ROLE_INITIATOR, ROLE_RESPONDER }; /* in the exchange */

enum cover { COVER_CLEAR = 1, COVER_SEALED = 2, COVER_EITHER = 3 };

enum verdict {
	DONE,   /* go on with the next step */
	WAIT,   /* a job or request is out; fsm_resume() goes on */
	IGNORE, /* drop the message; nothing has changed */
	FAIL    /* x->error says why; the table's failed() decides */
};

/* Why something failed: for ourselves, for the peer, for a person. */
struct failure {
	enum err err;
	uint16_t notify; /* what to tell the peer; 0: nothing */
	uint8_t data[8]; /* of the notify */
	uint8_t data_len;
	char text[256]; /* for the log */
};

struct exchange;
struct rule;

typedef enum verdict
fsm_step(struct ike_sa *sa, struct exchange *x, struct msg *msg);

/* An exchange in progress. Engines embed it first in a struct of their own. */
struct exchange {
	struct ike_sa *sa;
	struct exchange *next;
	uint64_t serial;
	uint8_t type;   /* enum iana_exchange */
	uint8_t role;   /* enum role */
	uint8_t state;  /* the engine's; assigned by fsm only */
	uint8_t wanted; /* next state, set by a step; must be in rule->next.
	                 * FSM_FIRST_NEXT: rule->next[0] */
	uint32_t id;    /* message ID */
	const struct rule *rule; /* while steps run or wait */
	uint8_t step;
	bool waiting;
	bool ended; /* killed while steps ran */
	bool running;
	struct msg *msg; /* owned while steps run or wait */
	struct failure error;
	struct rexmit rexmit;
};
#define FSM_FIRST_NEXT 0xff

struct rule {
	const char *shows; /* "HDR, SK {IDr, AUTH, SAr2, TSi, TSr}" */
	const char *cites; /* "RFC 7296 1.2" */
	uint8_t exchange, role, state;
	uint32_t guard; /* IKE_STATE_BIT()s that the IKE SA may be in */
	uint8_t cover;  /* enum cover */
	uint8_t first;  /* enum kind that must lead, or KIND_NONE */
	kind_set must, may, many, not ; /* many: may stand more than once */
	kind_set pair;              /* none or exactly two (Quick Mode's IDs) */
	fsm_step *steps[FSM_STEPS]; /* NULL ends */
	uint8_t next[FSM_NEXT];     /* states that may follow */
	uint8_t next_count;
};

struct fsm {
	const struct rule *rules;
	size_t count;
	/* Payloads that may stand anywhere (Vendor ID, unknown status). */
	kind_set anywhere;
	/* No row fits, or its sets are broken; the message is dropped
	 * afterwards. err is ERR_WRONG_STATE (no row) or ERR_SYNTAX (sets). */
	void (*refused)(struct ike_sa *sa, struct exchange *x,
	    const struct msg *msg, enum err err, const char *text);
	/* A step answered FAIL. May kill exchange or SA. */
	void (*failed)(struct ike_sa *sa, struct exchange *x);
	/* A step answered IGNORE: a tentative exchange may be freed. */
	void (*ignored)(struct ike_sa *sa, struct exchange *x);
	/* All steps are done and the state is assigned. May kill either. */
	void (*moved)(struct ike_sa *sa, struct exchange *x);
};

/* Finds the row for a message, or NULL and why. Pure: used by tests to decide
 * the whole product of messages, states and roles. */
const struct rule *fsm_match(const struct fsm *fsm, const struct ike_sa *sa,
    const struct exchange *x, const struct msg *msg, enum err *err, char *text,
    size_t size);

/* Enters x into sa's list. The engine set type, role, id, state. */
void exchange_begin(struct ike_sa *sa, struct exchange *x);
struct exchange *
exchange_find(struct ike_sa *sa, uint8_t type, enum role role, uint32_t id);
struct exchange *exchange_by_serial(struct ike_sa *sa, uint64_t serial);
/* The live exchange that a ticket names; NULL if it or its SA has gone. */
struct exchange *exchange_by_ticket(struct env *env, struct ticket ticket);
/* Leaves the list; engine->exchange_free() follows, at once or, when one of
 * its steps is running, after it. Stops rexmit. */
void exchange_end(struct exchange *x);

/* Runs a message through the table. Takes msg over. While x waits, further
 * messages for it are dropped (and counted). True if a row took it. */
bool fsm_deliver(const struct fsm *fsm, struct exchange *x, struct msg *msg);
/* Runs the steps of a row that begins an exchange of ours, without a message:
 * rule->must is empty and steps get msg NULL. */
void
fsm_begin(const struct fsm *fsm, struct exchange *x, const struct rule *rule);
/* The awaited answer is in: goes on with the next step, or, unless err is OK,
 * takes the failed() path (x->error filled from err unless a caller did). */
void fsm_resume(const struct fsm *fsm, struct exchange *x, enum err err);

/* For steps: fills x->error and returns FAIL. */
enum verdict fsm_fail(struct exchange *x, enum err err, uint16_t notify,
    const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
