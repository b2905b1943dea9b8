#include "common/prf.h"
