#ifndef IKEV1_SK_H
#define IKEV1_SK_H

#endif
