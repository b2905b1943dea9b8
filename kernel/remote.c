#include "kernel/remote.h"
