#include "daemon/keyring.h"
