#ifndef IKEV2_CHILD_H
#define IKEV2_CHILD_H

#endif
