#ifndef IKEV2_V2_H
#define IKEV2_V2_H

#endif
