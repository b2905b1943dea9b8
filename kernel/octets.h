/*
 * octets: numbers in network order within packets that the userland data plane
 * has in hand. Whoever calls has seen that the octets are there: lengths are
 * inner_parse()'s business. What is read from peers' messages and from other
 * processes goes through common/buf.
 */
#ifndef KERNEL_OCTETS_H
#define KERNEL_OCTETS_H

#include <stddef.h>
#include <stdint.h>

static inline uint16_t
get_u16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

/* The low 16 bits of value. */
static inline void
put_u16(uint8_t *at, size_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

#endif
