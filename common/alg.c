#include "common/alg.h"
