#include "kernel/spd.h"
