#ifndef IKEV1_RULES_H
#define IKEV1_RULES_H

#endif
