#ifndef CONF_SECRETS_H
#define CONF_SECRETS_H

#endif
