#include "kernel/xfrm.h"
