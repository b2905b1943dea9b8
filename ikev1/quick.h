#ifndef IKEV1_QUICK_H
#define IKEV1_QUICK_H

#endif
