#include "ikev1/rules.h"
