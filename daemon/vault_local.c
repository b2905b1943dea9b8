#include "daemon/vault_local.h"
