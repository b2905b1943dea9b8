#include "common/proposal.h"
