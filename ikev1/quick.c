#include "ikev1/quick.h"
