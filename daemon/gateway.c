#include "daemon/gateway.h"
