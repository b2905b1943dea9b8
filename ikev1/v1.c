#include "ikev1/v1.h"
