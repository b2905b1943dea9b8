#ifndef IKEV2_SK_H
#define IKEV2_SK_H

#endif
