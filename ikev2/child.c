#include "ikev2/child.h"
