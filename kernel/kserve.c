#include "kernel/kserve.h"
