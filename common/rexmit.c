#include "common/rexmit.h"
