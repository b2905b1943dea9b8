#include "daemon/keeper.h"
