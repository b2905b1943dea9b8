#ifndef DAEMON_TABLE_H
#define DAEMON_TABLE_H

#endif
