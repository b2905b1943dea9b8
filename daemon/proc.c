#include "daemon/proc.h"
