#include "common/vaultmsg.h"
