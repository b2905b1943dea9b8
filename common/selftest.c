#include "common/selftest.h"
