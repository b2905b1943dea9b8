#include "common/worker.h"
