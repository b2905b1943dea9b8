#include "common/sa.h"
