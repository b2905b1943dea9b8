#include "daemon/dispatch.h"
