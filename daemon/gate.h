#ifndef DAEMON_GATE_H
#define DAEMON_GATE_H

#endif
