/*
 * fake_backend: a data plane that records what it is asked, keeps tables of
 * what that leads to, refuses when told and answers when told.
 */
#ifndef TESTS_FAKE_BACKEND_H
#define TESTS_FAKE_BACKEND_H

#include "kernel/kserve.h"

#define FAKE_RECORDS 4096
#define FAKE_ITEMS   256

struct fake_backend {
	struct kserve_backend backend;
	struct kmsg *record; /* what was asked, without keys */
	unsigned count;
	struct kmsg_answer held[FAKE_ITEMS];
	unsigned held_count;
	bool hold;     /* keep answers until fake_release() */
	bool prompt;   /* what is held is answered when settled */
	int refuse_at; /* the n-th request from now on, counted from 0; -1 */
	uint8_t refuse_op; /* every request of this op; 0: none */
	uint32_t next_spi;
	bool dies;     /* at the next removal all that is held fails */
	bool same_spi; /* draws the same one for ever */

	/* What is there. */
	struct kmsg_sa sa[FAKE_ITEMS];
	unsigned sas;
	uint32_t spi[FAKE_ITEMS];
	unsigned spis;
	struct kmsg_policy policy[FAKE_ITEMS];
	unsigned policies;
	/* Requests that a correct asker does not make. */
	unsigned strays;
	bool *gone; /* set when freed; or NULL */
};

struct fake_backend *fake_backend_new(void);
/* Gives out the oldest count answers (all: UINT_MAX). */
void fake_release(struct fake_backend *fake, unsigned count);
void fake_forget(struct fake_backend *fake); /* the records */
/* "spi add-in add-out pol-out ..." of what was recorded; static buffer of
 * fake's caller. */
char *fake_text(const struct fake_backend *fake, char *text, size_t size);
bool fake_empty(const struct fake_backend *fake);
const struct kmsg_policy *fake_policy(const struct fake_backend *fake,
    uint8_t direction, const struct ts *src, const struct ts *dst);

#endif
