#include "ikev2/rekey.h"
