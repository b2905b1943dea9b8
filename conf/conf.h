#ifndef CONF_CONF_H
#define CONF_CONF_H

#endif
