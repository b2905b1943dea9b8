/*
 * task: what we want of a peer, kept until the window of one request is free,
 * and the timers that want something. RFC 7296 2.3, 2.4, 2.8, 2.25.
 */
#ifndef IKEV2_TASK_H
#define IKEV2_TASK_H

#include "ikev2/internal.h"

/* Queues and, if the window is free, begins. What is queued already is not
 * queued twice. conn: WANT_CHILD. packet may be NULL. ERR_LIMIT beyond
 * V2_TASKS, ERR_NOMEM, ERR_WRONG_STATE. */
enum err v2_task_add(struct v2_sa *v2, enum v2_want want,
    struct child_sa *child, struct conn *conn, const struct ts packet[2]);
/* Queues the Delete of a child that is not (or no longer) in the database. */
enum err v2_task_delete_spi(struct v2_sa *v2, uint32_t spi_in);

/* The peer asked for patience (TEMPORARY_FAILURE, 2.25), or for another group
 * (delay_ms 0): queues task again. Takes it over. */
void v2_task_again(struct v2_sa *v2, struct v2_task *task, uint64_t delay_ms);
void v2_task_free(struct v2_task *task); /* accepts NULL */
void v2_tasks_free(struct v2_sa *v2);
/* The children of one IKE SA have moved to another: what concerns them too. */
void v2_tasks_move(struct v2_sa *from, struct v2_sa *to);
/* Is this wanted (of this child)? */
bool v2_task_queued(const struct v2_sa *v2, enum v2_want want, uint64_t child);

/* Begins what is next, if the window is free. */
void v2_pump(struct v2_sa *v2);

/* Timers' functions; arg is the SA (child timers: the child). */
void v2_tick(void *arg);
void v2_rekey_due(void *arg);
void v2_expired(void *arg);
void v2_dpd_due(void *arg);
void v2_keepalive_due(void *arg);
void v2_child_rekey_due(void *arg);
void v2_child_expired(void *arg);
/* Sees to it that v2_tick() comes within delay_ms. */
void v2_tick_in(struct v2_sa *v2, uint64_t delay_ms);

/* engine's verbs. */
enum err v2_close(struct ike_sa *sa);
/* As v2_close(), when no rekey of ours is to be waited for. */
enum err v2_close_now(struct ike_sa *sa);
enum err v2_child_close(struct child_sa *child);

#endif
