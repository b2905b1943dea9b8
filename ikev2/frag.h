#ifndef IKEV2_FRAG_H
#define IKEV2_FRAG_H

#endif
