#ifndef IKEV1_INFO_H
#define IKEV1_INFO_H

#endif
