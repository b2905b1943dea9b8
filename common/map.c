#include "common/map.h"
