#include "ikev2/v2.h"
