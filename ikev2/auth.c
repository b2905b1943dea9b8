#include "ikev2/auth.h"
