#ifndef IKEV2_RULES_H
#define IKEV2_RULES_H

#endif
