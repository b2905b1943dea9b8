#include "daemon/espd.h"
