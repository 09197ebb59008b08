/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_STORAGE_PROTOCOL_H
#define MR_STORAGE_PROTOCOL_H

/* clang-format off */
/*
 * Messages between the agent's core and mooring-worker: JSON documents (base/msg.h) over the
 * socketpair at MR_WORKER_CHANNEL_FD. One command at a time; each gets exactly one reply,
 * events may come before it.
 *
 * Start: `mooring-worker volume LOCKFILE` with the channel at fd 3 and the checker's inotify at
 * fd 4. It takes a blocking flock on LOCKFILE (created if absent, st_ino re-checked, never
 * unlinked) and sends {"event": "ready"}. When the channel closes it finishes the command at hand
 * and exits.
 *
 * Command {"cmd": NAME, ...}; reply {"reply": NAME, "ok": true, ...} or
 * {"reply": NAME, "ok": false, "error": mr_err_to_json()}.
 *
 *   inspect   token, driver, runtime_dir, identity?, mount?
 *             -> found, identity?, mounted ("present"|"absent"|"unknown": our mount id in the own
 *             table), on_top. Reads only. A recorded identity that is still there is the answer;
 *             else the token is searched. When mount has no id yet but root and path (a half-done
 *             attach), a mount of the found device on top of root/path comes back as `mount`.
 *   map       token, spec (with secrets), config {file_roots, runtime_dir, libexec_dir,
 *             initiator_name, iscsi_timeout_ms} -> identity. An error of code source-in-use carries
 *             `source_key`. Undone by itself when it fails.
 *   identify  identity -> identity (size and block size read back; a difference: device-mismatch)
 *   check     identity, fs_type -> content ("blank"|"formatted"|"unknown"), fs_type?, fs_uuid?,
 *             detail ("ext4 file system, UUID ...", "non-zero byte at offset ...")
 *   format    identity, fs_type, fs_uuid, deadline_ms -> nothing. mkfs with that UUID, ended by
 *             SIGKILL past the deadline, then fsync; the caller decided that the device is blank.
 *   mount     identity, fs_type, fs_uuid ("" = any), root, path, options, read_only
 *             -> mount, fs_uuid
 *   unmount   identity, mount, accept_data_loss, arm, sync, operation
 *             -> result ("unmounted"|"busy"|"absent"), detail, and, when armed, before umount2:
 *             {"event": "armed", "wd": N}. data-not-written when syncfs failed, also to an earlier
 *             worker of the same operation, which died (worker/flush.h). Covered by another
 *             mount: busy.
 *   claim     identity, driver, budget_ms (0 = one try; else back-off 0.1 ms x1.5, cap 20 ms)
 *             -> result ("claimed"|"busy"|"gone"), tries, unmap ("deferred"|"immediate": whether
 *             the kernel keeps the mapping for users that the claim cannot see). The claim stays
 *             in the worker until unmap or the end of the channel.
 *   keep      identity, driver -> result ("kept"|"gone"). Takes an unmap back that the kernel has
 *             put off (loop: AUTOCLEAR): the device stays mapped when its last user goes.
 *   unmap     driver, token, runtime_dir, identity, mount? -> result ("gone"|"bound"), evidence
 *             {exclusive_open, diskseq, gone, ...}. Needs the claim (device-held without it) unless
 *             the device is gone already. Once gone, the directories made for `mount` are removed.
 *   gone      as unmap, without doing anything to the device: is it gone by now? Without a
 *             diskseq nothing is mapped: is what the driver keeps beside a device gone?
 *
 * Scan: `mooring-worker scan` with the channel at fd 3 and the checker's fanotify group at fd 4
 * (absent when the kernel has no mount events). One command, no lock:
 *   {"cmd": "scan", "deadline_ms": N, "targets": [{volume, major, minor, diskseq, node, mount_path,
 *   own_mount: mount record or null, held: bool}]}; one message per target {"scan": volume,
 *   "complete": bool, "holders": [...]} with rows as in the Holders document (id, kind, certain,
 *   pid, start_time, tid, comm, uid, user, cgroup, container, runtime, unit, mount_ns, mount_id,
 *   processes, path, device, actions, remedy), then {"done": true, "elapsed_ms": N}, and it exits.
 *   held: the device is known to be held; only then candidates that cannot be told from innocent
 *   ones (certain: false) are named, and only when no certain holder was found. Layers of an
 *   overlay are paths: certain in our own namespace, and where a copy of the volume is mounted at
 *   that path, or when our own namespace has the same overlay; else it is a candidate. A namespace
 *   gets at most 20 rows for its mounts (ours 75, all foreign ones together 75). Mount namespaces
 *   with a copy get a FAN_MNT_DETACH mark, so that the end of the copy wakes the core.
 *
 * Action: `mooring-worker action` with the channel at fd 3 and the checker's inotify at fd 4. One
 * command, no lock (the volume's worker may hang in the kernel), then it exits:
 *   examine   identity, fs_type, read_only -> frozen ("yes"|"no"|"unknown"). Joins the live super
 *             block by a detached mount; also adds a new IN_UNMOUNT watch:
 *             {"event": "armed", "wd": N}. Only while the device is known to be held by a file
 *             system and our own mount is gone.
 *   act       action (mr_action_name()), identity, driver, token, runtime_dir, fs_type, read_only,
 *             mount (record, or null when our own mount is gone), mount_path (where the volume is
 *             or was mounted, text), spare [mount records of other volumes, at the path of a row],
 *             holders (rows of the last scan), signal ("TERM"|"KILL")
 *             -> results [{holder (row id or null), done, detail}]. Each row is checked against
 *             the kernel again before anything is done to it. Refused: a mount of ours or of
 *             `spare`, and what would take one along (shared propagation); an overlay that cannot
 *             be tied to the volume; a process that only keeps a mount namespace open.
 *
 * Survey: `mooring-worker survey` with the channel at fd 3. Commands until the channel closes, no
 * lock. Changes nothing. What is in the journal is compared by sysfs, procfs and mount tables
 * alone, which no mute server or device can make hang.
 *   look      targets [{volume, identity, mount}] (as many as fit MR_MSG_MAX / 2)
 *             -> volumes [{volume, found, mounted ("present"|"absent"|"unknown")}], in the same
 *             order. found: the recorded device is there with the recorded diskseq (the token is
 *             not searched); null when that cannot be told.
 *   search    runtime_dir, roots [resolved mount roots], tokens [all that the journal knows],
 *             diskseqs [of all devices that the journal knows], deadline_ms
 *             -> complete, orphans [{token, driver ("file"|"iscsi"), identity (or null: nothing is
 *             mapped), backing_file (or null), server {pid, start_time, socket, state} (or null),
 *             source (object for the spec, or null), mounts [{mount (a record), mount_id, path,
 *             fs_type}] (of the device, in the own namespace; `mount` is null when it is below no
 *             root), fuse_mounts [{mount_id, path}]}]. Whatever carries the mark of this runtime
 *             directory (mr_mark()) and neither token nor diskseq is known. Past the deadline, or
 *             when a device could not be asked: complete false. state: what the server says
 *             (mr_link_state_name()), "mute", or "incompatible" (lun/control.h).
 *
 * Probe: `mooring-worker probe` with the channel at fd 3. One command, no lock, then it exits. Maps,
 * mounts and changes nothing; may be killed at any time.
 *   discover  portal, initiator_name, libexec_dir, deadline_ms -> complete, targets [{name, portals,
 *             complete, luns [{lun, size_bytes, block_size, serial, wwn, thin, write_protected,
 *             vendor, product, error?}], error?}]. Only disks are listed.
 *   preflight token (of no attachment), spec (with secrets), config (as of `map`), root and path of the
 *             mount, mapped (the source, by the volume that is asked for: then it is neither looked
 *             for other users, nor at the mount path) -> as far as it comes, also with an error:
 *             portals [{portal, reachable, connect_ms, login_ms, error}], credentials ("accepted"|
 *             "refused"|"not-needed"|"unknown"), serial, wwn, thin (these for iSCSI only), size_bytes,
 *             block_size, write_protected, source_key, content, fs_type, fs_uuid, label, detail,
 *             mount_error. Its error is that of `map` or `check`.
 */
/* clang-format on */

#define MR_WORKER_CHANNEL_FD 3
#define MR_WORKER_INOTIFY_FD 4
#define MR_SCAN_FANOTIFY_FD 4   /* of a scan, in its place */
#define MR_SCAN_HOLDERS_MAX 200 /* rows per target; more sets complete: false */

#endif
