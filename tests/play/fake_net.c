#include "tests/play/fake_net.h"
