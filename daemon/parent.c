#include "daemon/parent.h"
