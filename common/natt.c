#include "common/natt.h"
