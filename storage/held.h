/* SPDX-License-Identifier: Apache-2.0
 *
 * Who holds what is to be detached, and what is done about it on request. Part of
 * engine_internal.h, which includes it. Core thread only.
 */
#ifndef MR_STORAGE_HELD_H
#define MR_STORAGE_HELD_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct mr_operation;
struct mr_volume;

/* --- holders.c --- */
/* Keeps first_seen of rows known before, notes who came and, if the look was complete,
 * who left; makes `unowned` when held and nobody was found. */
void mr_holders_update(struct mr_volume *volume, struct json_object *rows, bool complete,
                       bool known_held);
/* This process has ended: what it held itself, it holds no more. */
void mr_holders_exited(struct mr_operation *op, pid_t pid, int64_t start_time);
/* As far as we know, is our own mount there? */
bool mr_holders_own_mount(const struct mr_volume *volume);
/* The rows of the last update that a scan found. New reference. */
struct json_object *mr_holders_scanned(const struct mr_volume *volume);
/* What a scan is to look for: one of `targets` in protocol.h. */
struct json_object *mr_holders_target(const struct mr_volume *volume);
/* The Holders document. */
struct json_object *mr_holders_document(const struct mr_volume *volume, bool complete,
                                        bool known_held);
/* The row with this id, borrowed, or NULL. */
struct json_object *mr_holders_find(struct json_object *rows, const char *id);
/* All that this detach has waited for has let go now. */
void mr_holders_released(struct mr_operation *op);
/* Starts the periodic scans of a held detach; stops them. */
void mr_holders_watch(struct mr_operation *op);
void mr_holders_unwatch(struct mr_operation *op);

/* --- examine.c --- */
/* When nobody can be named, or no watch is armed: asks a worker whether the file system
 * is frozen, and arms a watch. At most once in a (growing) while. */
void mr_examine(struct mr_operation *op);
void mr_examine_end(struct mr_operation *op);

/* --- exits.c --- */
/* Watches the processes of these rows. */
void mr_exits_watch(struct mr_operation *op, struct json_object *rows);
void mr_exits_forget(struct mr_operation *op);

/* --- actions.c --- */
/* After a start: says in the history that the end of an action is not known. */
void mr_act_note_lost(struct mr_volume *volume);
/* Is an action at work on this attachment, or one left behind that may come back? */
bool mr_act_may_touch(const struct mr_volume *volume);
/* The agent stops: all of the volume's. */
void mr_act_stop(struct mr_volume *volume);

#endif
