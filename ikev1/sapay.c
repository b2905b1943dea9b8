#include "ikev1/sapay.h"
