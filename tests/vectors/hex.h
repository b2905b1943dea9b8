/*
 * Hexadecimal text of the vectors into octets.
 */
#ifndef TESTS_VECTORS_HEX_H
#define TESTS_VECTORS_HEX_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

struct octets {
	uint8_t at[1024];
	size_t len;
};

/* Aborts the test program on text that is not hexadecimal or too long. */
static inline struct octets
unhex(const char *text)
{
	struct octets octets = { { 0 }, strlen(text) / 2 };

	if (strlen(text) % 2 != 0 || octets.len > sizeof(octets.at))
		abort();
	for (size_t i = 0; i < octets.len; i++) {
		unsigned value;

		if (sscanf(text + 2 * i, "%2x", &value) != 1)
			abort();
		octets.at[i] = (uint8_t)value;
	}
	return octets;
}

static inline struct view
octets_view(const struct octets *octets)
{
	return view_of(octets->at, octets->len);
}

#endif
