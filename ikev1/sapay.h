#ifndef IKEV1_SAPAY_H
#define IKEV1_SAPAY_H

#endif
