#ifndef IKEV2_REKEY_H
#define IKEV2_REKEY_H

#endif
