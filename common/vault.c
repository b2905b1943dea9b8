#include "common/vault.h"
