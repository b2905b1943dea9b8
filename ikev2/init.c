#include "ikev2/init.h"
