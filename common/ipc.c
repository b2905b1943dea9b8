#include "common/ipc.h"
