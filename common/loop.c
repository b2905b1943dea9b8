#include "common/loop.h"
