/*
 * secretpath: which files may hold secrets. One rule for the parent, which
 * opens them for the vault, for orthrusd --check, and where all is one process.
 *
 * ipsec.secrets was named by root. What it includes is the word of whoever
 * parses it, and that must not turn into a way to read any file: it has to be
 * a regular file of root's (or of whoever runs us) that stands beside
 * ipsec.secrets or beneath (beside one in an etc: beneath ipsec.d only), or
 * whose name says .secrets.
 */
#ifndef CONF_SECRETPATH_H
#define CONF_SECRETPATH_H

#include <stdbool.h>

#include "conf/load.h"

/* Why path, a file or a pattern, may not be read for secrets, the path of
 * ipsec.secrets; NULL: it may. What a pattern matches is to be asked anew. */
const char *secretpath_problem(const char *secrets, const char *path);

/* Opens one file for reading, without blocking. -1: *problem says why not. */
int
secretpath_open(const char *secrets, const char *path, const char **problem);

/* May others than its owner read or write the file? */
bool secretpath_exposed(const char *path);

/* The bundle_reader of secrets; arg is the path of ipsec.secrets. It reads as
 * the daemon would that has given up to read other people's files. */
enum err secretpath_read(void *arg, struct bundle *bundle, const char *pattern);

#endif
