#ifndef IKEV2_KEY_H
#define IKEV2_KEY_H

#endif
