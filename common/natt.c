#include "common/natt.h"

#include "common/buf.h"
#include "common/prf.h"

enum err
natt_hash(const struct alg *hash, uint64_t spi_i, uint64_t spi_r,
    const struct endpoint *endpoint, uint8_t out[static NATT_HASH_MAX],
    size_t *len)
{
	uint8_t octets[8 + 8 + 16 + 2];
	struct buf buf;
	struct view view;
	enum err err;

	/* RFC 3947 3.2 and RFC 7296 2.23 hash the same fields. */
	buf_init(&buf, octets, sizeof(octets));
	buf_u64(&buf, spi_i);
	buf_u64(&buf, spi_r);
	buf_view(&buf, addr_view(&endpoint->addr));
	buf_u16(&buf, endpoint->port);
	view = buf_done(&buf);
	if (hash == NULL) {
		err = prf_sha1(&view, 1, out);
		*len = 20;
	} else {
		err = prf_hash(hash, &view, 1, out);
		*len = hash->out;
	}
	return err;
}
