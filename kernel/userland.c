#include "kernel/userland.h"
