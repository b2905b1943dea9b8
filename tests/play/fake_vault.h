#ifndef PLAY_FAKE_VAULT_H
#define PLAY_FAKE_VAULT_H

#endif
