#ifndef DAEMON_CONTROL_H
#define DAEMON_CONTROL_H

#endif
