/*
 * info: INFORMATIONAL: Delete, liveness, errors. RFC 7296 1.4, 1.4.1, 2.4,
 * 2.21, 2.25.
 */
#ifndef IKEV2_INFO_H
#define IKEV2_INFO_H

#include "ikev2/internal.h"

fsm_step v2_info_i_send, v2_info_i_answer, v2_info_r_answer;

#endif
