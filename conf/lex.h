#ifndef CONF_LEX_H
#define CONF_LEX_H

#endif
