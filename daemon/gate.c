#include "daemon/gate.h"
