/*
 * setter: values of ipsec.conf on their way into a connection. The rows of
 * conf/schema name what stands here.
 */
#ifndef CONF_SETTER_H
#define CONF_SETTER_H

#include "conf/schema.h"

/* Where value stands in a list of words with a blank between them; -1: it is
 * not there. */
int setter_find_word(const char *list, const char *value);

/* Each checks use->value and sets. OK, ERR_SYNTAX (see struct option_use) or
 * ERR_NOMEM. These go by the row's type, values, min, max and offset: */
enum err setter_word(struct option_use *use);
enum err setter_bool(struct option_use *use);
enum err setter_number(struct option_use *use); /* percentages, too */
enum err setter_time(struct option_use *use);

/* And these are one option's each: */
enum err setter_uniqueids(struct option_use *use);
enum err setter_tries(struct option_use *use);
enum err setter_replay(struct option_use *use);
enum err setter_close(struct option_use *use);
enum err setter_suites(struct option_use *use); /* ike, esp */
enum err setter_hosts(struct option_use *use);  /* left, right */
enum err setter_allow_any(struct option_use *use);
enum err setter_id(struct option_use *use);
enum err setter_subnets(struct option_use *use);
enum err setter_port(struct option_use *use);
enum err setter_auth(struct option_use *use); /* authby, leftauth */

#endif
