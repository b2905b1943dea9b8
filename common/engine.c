#include "common/engine.h"
