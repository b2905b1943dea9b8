#include "common/limit.h"
