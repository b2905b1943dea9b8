/*
 * fuzz: what the fuzz targets share. Each is a program with libFuzzer's main();
 * tests/fuzz/seeds writes what they begin with.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* An invariant: its breach is a finding, as a crash is. */
#define HOLDS(condition)                                                       \
	do {                                                                   \
		if (!(condition)) {                                            \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, \
			    __LINE__, #condition);                             \
			abort();                                               \
		}                                                              \
	} while (0)

/* libFuzzer's entry; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len);

/* A gateway of both versions, its peer, and an input that is a script: the
 * first octet says how far they have come, then each step has a head of three
 * octets (what, length) and so many octets. See engine.c. */
enum fuzz_stage {
	FUZZ_STRANGER,    /* nothing has happened */
	FUZZ_HALF_OPEN,   /* the peer has begun */
	FUZZ_ANSWERED,    /* the gateway has begun */
	FUZZ_ESTABLISHED, /* both are up */
	FUZZ_STAGES
};
enum fuzz_step {
	FUZZ_DATAGRAM, /* as it stands, to the gateway */
	FUZZ_NAMED,    /* with the SPIs of its newest SA */
	FUZZ_SEALED,   /* the payloads of the peer's next sealed message; the
	                * octet before them is the first one's type */
	FUZZ_ACT,      /* the peer does something: first octet */
	FUZZ_WAIT,     /* some time passes: first octet, in 100 ms */
	FUZZ_STEPS
};
void fuzz_engine(unsigned version, const uint8_t *octets, size_t len);

#endif
