#ifndef IKEV2_INFO_H
#define IKEV2_INFO_H

#endif
