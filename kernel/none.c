#include "kernel/none.h"
