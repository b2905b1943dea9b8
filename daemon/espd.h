#ifndef DAEMON_ESPD_H
#define DAEMON_ESPD_H

#endif
