#include "common/err.h"

static const char *const texts[ERR_COUNT] = {
	[OK] = "no error",
	[ERR_NOMEM] = "out of memory",
	[ERR_SHORT] = "too few octets",
	[ERR_LONG] = "too long",
	[ERR_SYNTAX] = "bad syntax",
	[ERR_UNSUPPORTED] = "not supported",
	[ERR_CRYPTO] = "crypto library failed",
	[ERR_AUTH] = "authentication failed",
	[ERR_NO_SECRET] = "no secret for these identities",
	[ERR_NO_PROPOSAL] = "no acceptable proposal",
	[ERR_KE] = "bad public value or wrong group",
	[ERR_TS] = "no acceptable traffic selector",
	[ERR_NO_CONN] = "no connection fits",
	[ERR_NOT_FOUND] = "not found",
	[ERR_EXISTS] = "exists already",
	[ERR_REFUSED] = "refused",
	[ERR_LIMIT] = "limit reached",
	[ERR_WRONG_STATE] = "not possible in this state",
	[ERR_IO] = "system error",
	[ERR_TIMEOUT] = "no answer in time",
	[ERR_CANCELLED] = "cancelled",
	[ERR_PEER] = "the peer reported an error",
	[ERR_BUG] = "internal error",
};

const char *
err_text(enum err err)
{
	if ((unsigned)err >= ERR_COUNT)
		return "unknown error";
	return texts[err];
}
