/*
 * selftest: known answers for every row of the registry, at start.
 */
#ifndef COMMON_SELFTEST_H
#define COMMON_SELFTEST_H

#include "common/alg.h"

/* Runs a known-answer test for each row (keys and outputs from the RFCs; for
 * groups, a fixed private key's public value or a derivation from published
 * vectors). usable receives the rows that passed. failed, if not NULL, is
 * called once for each row that did not. Takes some ten milliseconds. */
void selftest_run(struct alg_set *usable,
    void (*failed)(const struct alg *alg, void *arg), void *arg);

#endif
