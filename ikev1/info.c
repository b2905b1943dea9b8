#include "ikev1/info.h"
