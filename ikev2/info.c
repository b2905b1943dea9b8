#include "ikev2/info.h"
