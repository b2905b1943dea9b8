#include "kernel/install.h"
