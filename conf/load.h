#ifndef CONF_LOAD_H
#define CONF_LOAD_H

#endif
