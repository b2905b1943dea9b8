#include "kernel/tun.h"
