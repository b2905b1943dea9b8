#include "kernel/esp.h"
