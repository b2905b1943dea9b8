#include "ikev1/key.h"
