#include "ikev1/sk.h"
