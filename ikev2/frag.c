#include "ikev2/frag.h"
