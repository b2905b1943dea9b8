/*
 * ticket: names an exchange for work that ends later.
 *
 * Serial numbers are never used twice in a process's life, so an answer that
 * comes after its SA or exchange has gone finds nothing, and is dropped.
 */
#ifndef COMMON_TICKET_H
#define COMMON_TICKET_H

#include <stdint.h>

struct ticket {
	uint64_t sa;       /* struct ike_sa's serial; 0: none */
	uint64_t exchange; /* struct exchange's serial; 0: none */
	uint64_t child;    /* struct child_sa's serial; 0: none */
};

#endif
