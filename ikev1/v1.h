#ifndef IKEV1_V1_H
#define IKEV1_V1_H

#endif
