#include "daemon/single.h"
