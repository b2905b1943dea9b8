#include "conf/schema.h"
