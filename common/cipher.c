#include "common/cipher.h"
