#include "common/explain.h"
