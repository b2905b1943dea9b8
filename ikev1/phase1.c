#include "ikev1/phase1.h"
