#include "common/fsm.h"
