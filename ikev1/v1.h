/*
 * v1: the IKEv1 engine (RFC 2407, 2408, 2409, 3706, 3947, 3948).
 *
 * Main Mode with pre-shared keys, Quick Mode with and without PFS,
 * Informational, dead peer detection and NAT traversal. Aggressive Mode and
 * New Group Mode are answered by silence.
 */
#ifndef IKEV1_V1_H
#define IKEV1_V1_H

#include "common/engine.h"

extern const struct engine v1_engine;

#endif
