/*
 * rules: which message may arrive in which state, and what it leads to. The
 * table is v1_fsm (ikev1/state.h); here are its rows without a message.
 */
#ifndef IKEV1_RULES_H
#define IKEV1_RULES_H

#include "common/fsm.h"

const struct rule *v1_rule_main_begin(void);
const struct rule *v1_rule_quick_begin(void);

#endif
