#include "kernel/none.h"

#include <stdlib.h>
#include <string.h>

#define DRAWS 16 /* of an SPI below 256, one in 2^24 */

struct none {
	struct kserve_backend backend;
	bool (*random)(void *arg, void *octets, size_t len);
	void *arg;
};

/* RFC 4303 2.1: 1 to 255 are reserved. Whether the SPI is free kserve knows. */
static enum err
draw(struct none *none, uint32_t *spi)
{
	unsigned i;

	for (i = 0; i < DRAWS; i++)
		if (none->random(none->arg, spi, sizeof(*spi)) && *spi >= 256)
			return OK;
	return ERR_IO;
}

static void
none_execute(struct kserve_backend *backend, const struct kmsg *request)
{
	struct none *none = (struct none *)(void *)backend;
	struct kmsg_answer answer;

	memset(&answer, 0, sizeof(answer));
	answer.sequence = request->sequence;
	answer.op = request->op;
	answer.use.idle_ms = UINT64_MAX;
	if (request->op == KMSG_SPI)
		answer.err = (uint8_t)draw(none, &answer.spi);
	backend->answer(backend->arg, &answer);
}

static void
none_free(struct kserve_backend *backend)
{
	free(backend);
}

struct kserve_backend *
none_new(bool (*random)(void *arg, void *octets, size_t len), void *arg)
{
	static const struct kserve_backend_ops ops = { none_execute, none_free,
		NULL };
	struct none *none = calloc(1, sizeof(*none));

	if (none == NULL)
		return NULL;
	none->backend.ops = &ops;
	none->backend.name = "none";
	none->random = random;
	none->arg = arg;
	return &none->backend;
}
