#include "kernel/link.h"
