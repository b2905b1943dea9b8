/*
 * err: the results that fallible functions return.
 *
 * OK is 0. Lower layers return a code and do not log; whoever decides what the
 * failure means logs it once, with err_text() for the words.
 */
#ifndef COMMON_ERR_H
#define COMMON_ERR_H

enum err {
	OK = 0,
	ERR_NOMEM,       /* memory is exhausted */
	ERR_SHORT,       /* fewer octets than the format needs */
	ERR_LONG,        /* more octets or items than the bound allows */
	ERR_SYNTAX,      /* a field has a value that the format forbids */
	ERR_UNSUPPORTED, /* well-formed, but nothing that we do */
	ERR_CRYPTO,      /* the crypto library refused or failed */
	ERR_AUTH,        /* a MAC, hash or credential is wrong */
	ERR_NO_SECRET,   /* no credential fits these identities */
	ERR_NO_PROPOSAL, /* none of the offered proposals is acceptable */
	ERR_KE,          /* the public value breaks RFC 6989, or its group */
	ERR_TS,          /* no traffic selector is acceptable */
	ERR_NO_CONN,     /* no connection fits the peer */
	ERR_NOT_FOUND,   /* the thing named is not there (any more) */
	ERR_EXISTS,      /* the thing named is there already */
	ERR_REFUSED,     /* policy or kernel said no */
	ERR_LIMIT,       /* a budget is used up */
	ERR_WRONG_STATE, /* not in this state */
	ERR_IO,          /* the system refused an operation; errno says why */
	ERR_TIMEOUT,     /* no answer in time */
	ERR_CANCELLED,   /* given up before the end, by us */
	ERR_PEER,        /* the peer reported an error */
	ERR_BUG,         /* an invariant of ours does not hold */
	ERR_COUNT
};

/* A few lower-case words for a person ("no acceptable proposal"); static. */
const char *err_text(enum err err);

#endif
