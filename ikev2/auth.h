#ifndef IKEV2_AUTH_H
#define IKEV2_AUTH_H

#endif
