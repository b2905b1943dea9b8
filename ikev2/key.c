#include "ikev2/key.h"
