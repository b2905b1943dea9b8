#include "kernel/kmsg.h"
