#include "tests/play/fake_workers.h"
