#include "common/kex.h"
