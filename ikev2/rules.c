#include "ikev2/rules.h"
