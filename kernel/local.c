#include "kernel/local.h"
