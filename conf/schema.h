#ifndef CONF_SCHEMA_H
#define CONF_SCHEMA_H

#endif
