#ifndef DAEMON_KEEPER_H
#define DAEMON_KEEPER_H

#endif
