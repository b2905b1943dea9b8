#include "tests/play/play.h"
