/*
 * v2: the IKEv2 engine. RFC 7296, RFC 7383, RFC 6989, RFC 5282, RFC 7634.
 *
 * Everything that may arrive is decided by the table in rules.c; init, auth,
 * child, rekey and info hold its steps; task keeps what we want to ask until
 * the window is free; v2.c receives, sends and watches message IDs.
 */
#ifndef IKEV2_V2_H
#define IKEV2_V2_H

#include "common/engine.h"

extern const struct engine v2_engine;

#endif
