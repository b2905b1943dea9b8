#include "tests/play/fake_vault.h"
