#include "conf/lex.h"
