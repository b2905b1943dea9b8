#include "common/ts.h"
