/*
 * fake_kernel: a data plane that keeps SAs and policies in tables, answers
 * later and in order, and can be told to refuse.
 */
#ifndef TESTS_PLAY_FAKE_KERNEL_H
#define TESTS_PLAY_FAKE_KERNEL_H

#include "common/timer.h"
#include "kernel/kernel.h"

struct gateway;

#define FAKE_SAS      4096
#define FAKE_POLICIES 1024

struct fake_sa {
	struct kmsg_sa sa;
	struct kmsg_use use;
	uint64_t order, last_ms;
};

struct fake_kernel {
	struct kernel kernel;
	struct gateway *gateway;
	struct fake_sa *sa;
	size_t sa_count;
	struct kmsg_policy *policy;
	size_t policy_count;
	size_t spi_count; /* allocated, without an SA yet */
	uint32_t spi[64];
	uint64_t order, last_ms;
	size_t pending;
	struct kernel_ask *first;
	uint64_t added, removed;
	bool ready;

	/* The next refuse_count requests of refuse_op fail. */
	uint8_t refuse_op;
	unsigned refuse_count;
};

void fake_kernel_init(struct fake_kernel *kernel, struct gateway *gateway);
void fake_kernel_fini(struct fake_kernel *kernel);
void fake_kernel_forget(struct fake_kernel *kernel); /* drops all pending */
struct fake_sa *
fake_kernel_sa(struct fake_kernel *kernel, uint8_t direction, uint32_t spi);
/* Traffic for these addresses: the newest outbound SA, or an acquire (NULL). */
struct fake_sa *fake_kernel_send(
    struct fake_kernel *kernel, const struct addr *src, const struct addr *dst);
/* True if an inbound SA with this SPI and key takes the packet. */
bool fake_kernel_receive(struct fake_kernel *kernel, const struct kmsg_sa *sent,
    const struct addr *src, const struct addr *dst);

#endif
