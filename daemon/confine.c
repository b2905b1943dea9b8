#include "daemon/confine.h"
