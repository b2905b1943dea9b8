#ifndef IKEV2_SAPAY_H
#define IKEV2_SAPAY_H

#endif
