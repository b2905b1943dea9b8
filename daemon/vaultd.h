#ifndef DAEMON_VAULTD_H
#define DAEMON_VAULTD_H

#endif
