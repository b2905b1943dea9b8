#include "common/env.h"
