/*
 * trap: install's trap policies, install_trap() and install_untrap().
 */
#ifndef KERNEL_TRAP_H
#define KERNEL_TRAP_H

struct install;

/* Forgets all traps, without a request. */
void traps_forget(struct install *install);

#endif
