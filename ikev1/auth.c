#include "ikev1/auth.h"
