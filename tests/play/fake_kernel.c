#include "tests/play/fake_kernel.h"
