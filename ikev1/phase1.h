#ifndef IKEV1_PHASE1_H
#define IKEV1_PHASE1_H

#endif
