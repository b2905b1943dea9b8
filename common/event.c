#include "common/event.h"
