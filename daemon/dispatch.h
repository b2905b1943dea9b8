#ifndef DAEMON_DISPATCH_H
#define DAEMON_DISPATCH_H

#endif
