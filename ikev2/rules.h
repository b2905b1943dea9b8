/*
 * rules: the table of every message of IKEv2 that is looked at. RFC 7296 1.2
 * to 1.4, 2.8, 2.21, 2.25.
 */
#ifndef IKEV2_RULES_H
#define IKEV2_RULES_H

#include "common/fsm.h"

extern const struct fsm v2_fsm;

/* The row that begins what we want (enum v2_want). */
const struct rule *v2_rules_begin(unsigned want);
/* The rows that begin IKE_SA_INIT and IKE_AUTH. */
const struct rule *v2_rules_begin_init(void);
const struct rule *v2_rules_begin_auth(void);

#endif
