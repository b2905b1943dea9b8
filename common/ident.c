#include "common/ident.h"
