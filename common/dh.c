#include "common/dh.h"
