#ifndef DAEMON_PROC_H
#define DAEMON_PROC_H

#endif
