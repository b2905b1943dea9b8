#ifndef DAEMON_KEYRING_H
#define DAEMON_KEYRING_H

#endif
