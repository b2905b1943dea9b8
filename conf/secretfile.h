/*
 * secretfile: the text of ipsec.secrets, entry by entry.
 *
 *   selector ... : PSK "value"      also 'value', 0xHEX, 0sBASE64, 0tTEXT, word
 *   include PATTERN
 *
 * An entry begins on a line of its own and goes on over indented lines until
 * its value. # in front of a word begins a comment. A bad line is reported and
 * left; the next one is read as ever. Messages never show what stood there.
 */
#ifndef CONF_SECRETFILE_H
#define CONF_SECRETFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/ident.h"
#include "conf/diag.h"
#include "conf/load.h"

#define SECRET_SELECTORS 64  /* of one entry */
#define SECRET_OCTETS    512 /* of one PSK */

/* One PSK. Selectors are borrowed (take references), psk lasts until the call
 * returns. What is returned other than OK ends the reading. */
typedef enum err secretfile_psk(void *arg, struct place place,
    struct ident *const *selectors, size_t selector_count, struct view psk);

/* Reads path and what it includes from bundle. OK also when lines were bad;
 * ERR_NOMEM; ERR_NOT_FOUND when a text is missing (bundle->missing). */
enum err secretfile_read(struct bundle *bundle, const char *path,
    struct diags *diags, secretfile_psk *psk, void *arg);

/* The kinds of entries, for the manual: PSK first; the others are left out
 * with a warning. NULL behind the last. */
extern const char *const secretfile_kinds[];

#endif
