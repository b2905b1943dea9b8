#include "daemon/vaultd.h"
