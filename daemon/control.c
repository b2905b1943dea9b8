#include "daemon/control.h"
