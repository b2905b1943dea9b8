#include "common/vaultmsg.h"

/* An identity that is not known; no identity type has this number. */
#define NO_IDENT 0xff

static void
put_ident(struct buf *buf, const struct ident *ident)
{
	if (!ident) {
		buf_u8(buf, NO_IDENT);
		return;
	}
	buf_u8(buf, ident->type);
	buf_u16(buf, ident->len);
	buf_put(buf, ident->octets, ident->len);
}

static void
put_addr(struct buf *buf, const struct addr *addr)
{
	buf_u8(buf, addr->family);
	buf_view(buf, addr_view(addr));
}

static void
put_ends(struct buf *buf, const struct ident *local, const struct ident *remote,
    const struct addr *local_addr, const struct addr *remote_addr)
{
	put_ident(buf, local);
	put_ident(buf, remote);
	put_addr(buf, local_addr);
	put_addr(buf, remote_addr);
}

void
vaultmsg_put_psk_auth(struct buf *buf, const struct vault_psk_auth *ask)
{
	buf_u8(buf, ask->prf->id);
	put_ends(
	    buf, ask->local, ask->remote, &ask->local_addr, &ask->remote_addr);
	buf_view(buf, ask->octets);
}

void
vaultmsg_put_skeyid(struct buf *buf, const struct vault_skeyid *ask)
{
	buf_u8(buf, ask->prf->id);
	buf_u64(buf, ask->nonce);
	buf_u8(buf, ask->initiator);
	put_ends(
	    buf, ask->local, ask->remote, &ask->local_addr, &ask->remote_addr);
	buf_view(buf, ask->peer_nonce);
}

void
vaultmsg_put_permits(struct buf *buf, const struct vault_permits *ask)
{
	buf_u64(buf, ask->secret);
	put_ends(
	    buf, ask->local, ask->remote, &ask->local_addr, &ask->remote_addr);
}

/* Reading ----------------------------------------------------------------- */

static enum err
get_ident(struct view *from, const struct ident **ident)
{
	struct view value;
	uint16_t len;
	uint8_t type;

	*ident = NULL;
	if (!view_u8(from, &type))
		return ERR_SHORT;
	if (type == NO_IDENT)
		return OK;
	if (!view_u16(from, &len) || !view_take(from, len, &value))
		return ERR_SHORT;
	if (type > ID_KEY_ID || len > IDENT_MAX)
		return ERR_SYNTAX;
	*ident = ident_new(type, value);
	return *ident ? OK : ERR_SYNTAX;
}

static enum err
get_addr(struct view *from, struct addr *addr)
{
	struct view value;
	uint8_t family;

	*addr = (struct addr){ 0 };
	if (!view_u8(from, &family))
		return ERR_SHORT;
	if (family == ADDR_NONE)
		return OK;
	if (family != ADDR_V4 && family != ADDR_V6)
		return ERR_SYNTAX;
	if (!view_take(from, family == ADDR_V4 ? 4 : 16, &value))
		return ERR_SHORT;
	return addr_from_view(addr, value) ? OK : ERR_SYNTAX;
}

static enum err
get_ends(struct view *from, const struct ident **local,
    const struct ident **remote, struct addr *local_addr,
    struct addr *remote_addr)
{
	enum err err;

	*remote = NULL;
	err = get_ident(from, local);
	if (!err)
		err = get_ident(from, remote);
	if (!err)
		err = get_addr(from, local_addr);
	if (!err)
		err = get_addr(from, remote_addr);
	if (err) {
		vaultmsg_done(*local, *remote);
		*local = *remote = NULL;
	}
	return err;
}

static enum err
get_prf(struct view *from, const struct alg **prf)
{
	uint8_t id;

	if (!view_u8(from, &id))
		return ERR_SHORT;
	*prf = id < ALG_COUNT ? alg_get(id) : NULL;
	return *prf && (*prf)->kind == ALG_PRF ? OK : ERR_SYNTAX;
}

enum err
vaultmsg_get_psk_auth(struct view octets, struct vault_psk_auth *ask)
{
	enum err err;

	*ask = (struct vault_psk_auth){ 0 };
	err = get_prf(&octets, &ask->prf);
	if (!err)
		err = get_ends(&octets, &ask->local, &ask->remote,
		    &ask->local_addr, &ask->remote_addr);
	if (err)
		return err;
	if (octets.len > VAULT_OCTETS) {
		vaultmsg_done(ask->local, ask->remote);
		return ERR_LONG;
	}
	ask->octets = octets;
	return OK;
}

enum err
vaultmsg_get_skeyid(struct view octets, struct vault_skeyid *ask)
{
	uint8_t initiator;
	enum err err;

	*ask = (struct vault_skeyid){ 0 };
	err = get_prf(&octets, &ask->prf);
	if (err)
		return err;
	if (!view_u64(&octets, &ask->nonce) || !view_u8(&octets, &initiator))
		return ERR_SHORT;
	if (initiator > 1)
		return ERR_SYNTAX;
	ask->initiator = initiator;
	err = get_ends(&octets, &ask->local, &ask->remote, &ask->local_addr,
	    &ask->remote_addr);
	if (err)
		return err;
	ask->peer_nonce = octets;
	return OK;
}

enum err
vaultmsg_get_permits(struct view octets, struct vault_permits *ask)
{
	enum err err;

	*ask = (struct vault_permits){ 0 };
	if (!view_u64(&octets, &ask->secret))
		return ERR_SHORT;
	err = get_ends(&octets, &ask->local, &ask->remote, &ask->local_addr,
	    &ask->remote_addr);
	if (err)
		return err;
	if (octets.len) {
		vaultmsg_done(ask->local, ask->remote);
		return ERR_LONG;
	}
	return OK;
}

void
vaultmsg_done(const struct ident *local, const struct ident *remote)
{
	ident_unref((struct ident *)(uintptr_t)local);
	ident_unref((struct ident *)(uintptr_t)remote);
}
