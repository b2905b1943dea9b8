#include "conf/secrets.h"
