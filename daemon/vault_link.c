#include "daemon/vault_link.h"
