#ifndef IKEV1_KEY_H
#define IKEV1_KEY_H

#endif
