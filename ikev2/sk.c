#include "ikev2/sk.h"
