#ifndef IKEV2_INIT_H
#define IKEV2_INIT_H

#endif
