#ifndef IKEV1_AUTH_H
#define IKEV1_AUTH_H

#endif
