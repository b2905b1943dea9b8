#include "daemon/table.h"
