#ifndef DAEMON_GATEWAY_H
#define DAEMON_GATEWAY_H

#endif
