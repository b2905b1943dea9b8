#include "ikev2/sapay.h"
