/* SPDX-License-Identifier: Apache-2.0
 *
 * The protocol of attach, detach and crash for one volume, for spin(1). tests/model/run
 * checks it, and checks that it can fail: each -D MUTANT_... breaks one rule and must
 * violate the property that the rule is for. -D IMMEDIATE is a driver whose unmap asks
 * nobody (SCSI, NVMe), without it one whose unmap the kernel puts off (loop).
 *
 * States, steps and plans are those of storage/plan.c by name; tests/model/run compares.
 *
 * In it: the agent's core (one event at a time, as atomic steps; ends at any point), its
 * journal (a queue of rows, group commit in order, any write may fail, a crash keeps any
 * first part of the queue), two volume workers (all that can be alive: one that works, and
 * one that waits for the lock; any may be killed at any point; with the agent gone a
 * worker does what it was told and ends), the kernel (device, mount, super block,
 * exclusive open, unmap that is put off), holders that come and go, a reboot, and PUT,
 * DELETE and forget at any time.
 *
 * Left out:
 * - time. A timer may fire at any moment; IN_UNMOUNT only makes it fire sooner.
 * - numbers. A recorded diskseq is `now` (of the device that is there, or was last), `old`
 *   (of one before that) or `none`: then the device is found by its token. There is one
 *   token at a time. Mount ids go the same way, and are left out.
 * - other volumes, other agents on this kernel, other users of the same loop number, and
 *   who unmounts behind our back.
 * - what is on the device: identify, check and format pass. Lost writes. mkfs, and that it
 *   keeps the lock when its worker is killed.
 * - a worker whose channel is closed and whose command would change nothing (inspect,
 *   claim, gone) ends without it.
 * - spawn, messages, deadlines: a worker that hangs is one that does not move.
 * - who the holders are. The scan of an immediate unmap sees who has it open when it
 *   looks; who opens it after that look is documented as not protected.
 * - a device that serves errors for ever, because its mooring-lun has ended or was fenced
 *   (`fenced`): a PUT is then a DELETE and an attach behind it. wedged: shown instead of
 *   the state while a worker does not move; nothing is decided by it but that a PUT is
 *   refused.
 *
 * `calm` is for what must happen in the end: from some moment on nothing fails, crashes
 * or asks any more, nobody new takes hold, and who holds lets go.
 */

/* clang-format off */
mtype:state = { absent, attaching, attached, detaching, failed, wedged, lost_by_reboot,
                fenced, orphan };
mtype:step = { none, inspect, map, identify, check, format, mount, unmount, drain, claim,
               unmap };

hidden mtype:step attach_plan[6] = { map, identify, check, format, mount, none };
hidden mtype:step mend_plan[7] = { inspect, map, identify, check, format, mount, none };
hidden mtype:step detach_plan[6] = { inspect, unmount, drain, claim, unmap, none };

/* An operation. undo: of an attach, half done; it ends in `failed`. */
mtype:kind = { idle, attach, mend, detach, undo };
/* Records of the journal. row: no one waits for it. */
mtype:event = { attach_intent, mend_asked, detach_intent, mend_intent, unmapping, the_end, row };
/* What a worker is told besides the steps (numbers of their own), and its answers. */
#define keep 101
#define gone 102
mtype:answer = { ok, not_done, busy, is_gone, bound, nothing, is_mapped, is_mounted,
                 is_other };
mtype:phase = { asleep, waiting, serving };
mtype:request = { nobody, put, delete };

#define NUMBER_NONE 0
#define NUMBER_NOW 1
#define NUMBER_OLD 2

#define NO_WORKER 2
#define FREE 0 /* of the scan and of holders */
#define OPEN 1
#define COPY 2
#define LATE 2
#define ASKED 1

/* --- what is to be proven ---
 * With ONLY=N the others are not looked at: for the mutants. */
#ifndef ONLY
#define ONLY 0
#endif
#define PROVE(number, property, condition) \
    property = (condition); \
    assert(property || (ONLY != 0 && ONLY != number)); \
    property = 1

/* The exclusive open is in hand, and neither file system nor (immediate: as far as the
 * scan could see) anybody who has the device open loses it. */
bit never_unmapped_while_held = 1;
bit claim_before_unmap = 1;
/* The border of no return is in the journal first; or the undo of a half-done attach,
 * which is undone again after a crash. */
bit unmapping_durable_before_unmap = 1;
/* Whatever changes the kernel: the journal says before that something may be there. */
bit recorded_before_done = 1;
bit one_worker_at_a_time = 1;
/* Said is what is true and durable; no later row says that the detach still runs, and
 * nothing is mapped again that nobody asked for. */
bit released_stays_released = 1;
/* What is mapped or mounted is in the journal. */
bit nothing_forgotten = 1;
/* What the journal calls attached is there, and does not go with its last user. */
bit attached_is_there = 1;
/* An undo, which does not care about lost writes, is for attaches that never ended. */
bit attached_is_never_undone = 1;
/* No crash leaves the journal with another number than the device has: nobody would dare
 * to touch that device any more. */
bit recorded_is_found = 1;
bit told_to_one_who_is_there = 1;

/* --- the kernel: survives the agent --- */
bit k_mapped;      /* the device of this attachment */
bit k_autoclear;   /* it goes with its last user */
bit k_mount;       /* our mount */
byte k_claim = NO_WORKER;  /* who has it open exclusively */
byte k_holder;     /* of the file system: OPEN pins our mount, COPY its super block only */
byte k_opener;     /* plain open of the device: OPEN, or LATE: after the scan's look */

/* --- the journal: survives the agent --- */
typedef volume {
    mtype:state state;
    unsigned diskseq : 2;
    bit mending;   /* an attach of what was attached before: goes on after a crash */
    bit residue;   /* failed: something may be left */
    bit forgotten; /* its detach was given up */
    bit operation; /* the row names an operation that runs */
};
volume j;
bit j_boot = 1; /* the row is of this boot */
#define QUEUE 2
volume q[QUEUE];
mtype:event q_event[QUEUE];
byte q_length;

/* --- the agent: lost with it --- */
bit up;
volume m; /* mending and operation are made for each row */
bit m_unsaved; /* the journal has an older row */
mtype:kind o_kind = idle;
mtype:step o_step = none;
byte o_worker = NO_WORKER; /* the others' channels are closed */
bit o_spawn;   /* needs a worker: a new one, or the next after one died */
bit o_durable, o_busy, o_on_durable;
bit o_unwritten;  /* what is next waits until the journal can be written */
bit o_ending;
bit o_called_off; /* with ending: by a request */
bit o_before;     /* a refused intent makes the volume what it was */
mtype:state o_end_state = absent;
mtype:state o_prior = absent;
bit o_forget;  /* what `forgotten` becomes with the end */
bit o_mapped, o_mounted;
bit o_asked;   /* the unmap was asked for, the kernel has put it off */
bit o_held;    /* the last look said busy; a timer runs */
byte o_gate;   /* ASKED: a scan is to tell whether an immediate unmap may go ahead */
mtype:request o_then = nobody;

/* --- workers --- */
mtype:phase w_phase[2] = asleep; /* serving: it has the lock */
byte w_command[2];

bit calm;

/* For the length of one event. What it leads to is done at its end, in come_of_it(). */
bit go;       /* the step at hand is done */
bit failing;  /* the operation has failed */
bit cancelling;
mtype:state ending_as = wedged; /* the operation ends; wedged: it does not */
byte i;
bit good;
mtype:answer answer = ok;
mtype:request then = nobody;
mtype:event event = row;

/* What was seen, for the properties. */
bit g_unmapping;      /* the last intent is followed by a durable `unmapping` */
bit g_attached;       /* our mount is one that was said to be attached */
bit g_said_released;  /* somebody was told so, and no new attach was asked for */
bit g_detach_asked;   /* a detach was, and did not come to its end */
bit g_scanned;        /* the scan found nobody, under the claim in hand */

#define RESIDUE(v) ((v.state == attaching || v.state == attached || v.state == detaching || \
                     v.state == orphan) || \
                    (v.state == failed && (v.diskseq != NUMBER_NONE || v.residue)))
#define SUPER_BLOCK (k_mount || k_holder != FREE)

/* ------------------------------------------------------------------ kernel ------- */

inline maybe_gone() {
    if
    :: k_mapped && k_autoclear && !SUPER_BLOCK && k_opener == FREE && k_claim == NO_WORKER ->
        k_mapped = 0;
        k_autoclear = 0
    :: else
    fi
}

inline close_claim() {
    k_claim = NO_WORKER;
    g_scanned = 0;
    if
    :: k_opener == LATE -> k_opener = OPEN
    :: else
    fi;
    maybe_gone()
}

/* What was `now` in any record is `old` from now on. */
#define AGE(number) number = (number == NUMBER_NOW -> NUMBER_OLD : number)

inline new_diskseq() {
    AGE(q[0].diskseq);
    AGE(q[1].diskseq);
    AGE(j.diskseq);
    AGE(m.diskseq)
}

/* ------------------------------------------------------------------ journal ------ */

inline append_row(new_state, is_mending, is_running, ev) {
    assert(q_length < QUEUE);
    q[q_length].state = new_state;
    q[q_length].diskseq = m.diskseq;
    q[q_length].mending = (is_mending && new_state == attaching);
    q[q_length].residue = (m.residue && new_state == failed);
    q[q_length].forgotten = (o_forget || m.forgotten);
    q[q_length].operation = (is_running && new_state == attaching);
    q_event[q_length] = ev;
    q_length++
}

/* mr_volume_to_row() and is_mending() in storage/volume.c */
inline append(ev) {
    if
    :: o_ending -> append_row(o_end_state, (o_end_state == attaching), 0, ev)
    :: else -> append_row(m.state, (o_kind == mend), (o_kind != idle), ev)
    fi
}

inline shift_queue() {
    q[0].state = q[1].state;
    q[0].diskseq = q[1].diskseq;
    q[0].mending = q[1].mending;
    q[0].residue = q[1].residue;
    q[0].forgotten = q[1].forgotten;
    q[0].operation = q[1].operation;
    q_event[0] = q_event[1];
    q[1].state = absent;
    q[1].diskseq = NUMBER_NONE;
    q[1].mending = 0;
    q[1].residue = 0;
    q[1].forgotten = 0;
    q[1].operation = 0;
    q_event[1] = row;
    q_length--
}

inline commit_first() {
    j.state = q[0].state;
    j.diskseq = q[0].diskseq;
    j.mending = q[0].mending;
    j.residue = q[0].residue;
    j.forgotten = q[0].forgotten;
    j.operation = q[0].operation;
    j_boot = 1;
    if
    :: q_event[0] == unmapping -> g_unmapping = 1
    :: q_event[0] == detach_intent || q_event[0] == mend_intent -> g_unmapping = 0
    :: else
    fi;
    if
    :: j.state == attached -> g_attached = 1
    :: else
    fi;
    g_unmapping = (g_unmapping && j.state == detaching);
    PROVE(7, nothing_forgotten, (!k_mapped && !k_mount) || RESIDUE(j));
    PROVE(8, attached_is_there, j.state != attached || q_event[0] != the_end ||
          (k_mapped && k_mount && !k_autoclear && j.diskseq == NUMBER_NOW));
    g_detach_asked = (g_detach_asked && j.state != absent);
    PROVE(6, released_stays_released, j.state != detaching || g_detach_asked)
}

/* ------------------------------------------------------------------ workers ------ */

/* What a worker that nobody listens to finds is lost, and so is of no interest. */
inline do_inspect() {
    if
    :: !k_mapped -> answer = nothing
    :: k_mapped && m.diskseq == NUMBER_OLD -> answer = is_other
    :: k_mapped && m.diskseq != NUMBER_OLD ->
        answer = (k_mount -> is_mounted : is_mapped)
    fi
}

inline do_map() {
    PROVE(4, recorded_before_done, RESIDUE(j) && j.state != attached);
    if
    :: k_mapped -> answer = not_done /* the source is in use */
    :: else ->
        new_diskseq();
        k_mapped = 1;
        k_autoclear = 0;
        PROVE(6, released_stays_released, !g_said_released);
        answer = ok
    fi
}

inline do_keep() {
    if
    :: k_mapped ->
#ifndef MUTANT_NO_KEEP
        k_autoclear = 0;
#endif
        answer = ok
    :: else -> answer = is_gone
    fi
}

inline do_mount() {
    PROVE(4, recorded_before_done, RESIDUE(j) && j.state != attached);
    if
    :: k_mapped && !k_mount && k_claim == NO_WORKER ->
        k_mount = 1;
        answer = ok
    :: else -> answer = not_done
    fi
}

inline do_unmount() {
    PROVE(4, recorded_before_done, RESIDUE(j) && j.state != attached);
    if
    :: k_mount && k_holder == OPEN -> answer = busy
    :: else ->
        k_mount = 0;
        g_attached = 0;
        maybe_gone();
        answer = ok
    fi
}

inline do_claim() {
    if
    :: !k_mapped -> answer = is_gone
    :: k_mapped && k_claim == id -> answer = ok
    :: k_mapped && k_claim != id && (SUPER_BLOCK || k_claim != NO_WORKER) ->
#ifdef MUTANT_NO_CLAIM
        answer = ok
#else
        answer = busy
#endif
    :: k_mapped && !SUPER_BLOCK && k_claim == NO_WORKER ->
        k_claim = id;
        answer = ok
    fi
}

/* The worker refuses without the claim; that it is not even asked is proven, too. */
inline do_unmap() {
    if
    :: !k_mapped -> answer = is_gone
    :: else ->
        PROVE(2, claim_before_unmap, k_claim == id);
        PROVE(3, unmapping_durable_before_unmap,
              g_unmapping || (j.state == attaching && !j.mending));
#ifdef IMMEDIATE
        PROVE(1, never_unmapped_while_held, !SUPER_BLOCK && k_opener != OPEN);
        k_mapped = 0;
#else
        PROVE(1, never_unmapped_while_held, !SUPER_BLOCK);
        k_autoclear = 1;
#endif
        close_claim();
        answer = (k_mapped -> bound : is_gone)
    fi
}

inline do_gone() {
    if
    :: k_mapped -> answer = bound
    :: else -> answer = is_gone
    fi
}

inline perform() {
    PROVE(5, one_worker_at_a_time, w_phase[1 - id] != serving);
    if
    :: w_command[id] == inspect -> do_inspect()
    :: w_command[id] == map -> do_map()
    :: w_command[id] == keep -> do_keep()
    :: w_command[id] == mount -> do_mount()
    :: w_command[id] == unmount -> do_unmount()
    :: w_command[id] == claim -> do_claim()
    :: w_command[id] == unmap -> do_unmap()
    :: w_command[id] == gone -> do_gone()
    :: !calm -> answer = not_done /* whatever it was, it failed, and did nothing */
    fi;
    w_command[id] = 0
}

/* Its end closes the claim first, the lock last. */
inline worker_ends(n) {
    w_command[n] = 0;
    w_phase[n] = asleep;
    if
    :: k_claim == n -> close_claim()
    :: else
    fi
}

/* ------------------------------------------------------------------ the core ----- */

#define READY (o_worker != NO_WORKER && w_phase[o_worker] == serving)
#define IS_ATTACH (o_kind == attach || o_kind == mend)

/* Without a command, or with one that would leave no trace, the worker ends without doing
 * anything. */
#define LEAVES_NO_TRACE(c) (c == 0 || c == inspect || c == claim || c == gone)

inline hang_up() {
    if
    :: o_worker != NO_WORKER && LEAVES_NO_TRACE(w_command[o_worker]) -> worker_ends(o_worker)
    :: else
    fi;
    o_worker = NO_WORKER;
    o_unwritten = 0;
    o_spawn = 0;
    o_busy = 0;
    o_gate = FREE
}

inline forget_operation() {
    o_kind = idle;
    o_step = none;
    o_durable = 0;
    o_on_durable = 0;
    o_ending = 0;
    o_called_off = 0;
    o_before = 0;
    o_end_state = absent;
    o_prior = absent;
    o_forget = 0;
    o_mapped = 0;
    o_mounted = 0;
    o_asked = 0;
    o_held = 0;
    o_then = nobody
}

inline send(what) {
    PROVE(11, told_to_one_who_is_there, o_worker != NO_WORKER);
    o_busy = 1;
    w_command[o_worker] = what
}

/* mr_operation_start() */
inline start(the_kind, the_event) {
    o_kind = the_kind;
    o_spawn = 1;
#ifdef MUTANT_INTENT_AFTER
    o_durable = 1;
#else
    o_durable = (the_event == row);
#endif
    if
    :: the_event != row -> append(the_event)
    :: else
    fi
}

inline clear_facts() {
    m.diskseq = NUMBER_NONE;
    m.residue = 0
}

/* mr_operation_end_unrecorded(). Its record, if one is on its way, concerns nobody. */
inline end_unrecorded() {
    hang_up();
    m.state = o_prior;
    forget_operation();
    if
    :: q_length > 0 && q_event[0] == mend_asked -> q_event[0] = row
    :: q_length > 1 && q_event[1] == mend_asked -> q_event[1] = row
    :: else
    fi
}

/* Nothing was done, and no record says that something will be. */
#ifdef MUTANT_MEND_INTENT_FORGOTTEN
#define ONLY_LOOKED ((o_step == none || o_step == inspect) && o_prior != attaching)
#else
#define ONLY_LOOKED ((o_step == none || o_step == inspect) && m.state != attaching)
#endif

/* mr_operation_fail() */
inline fail() {
    if
    :: o_ending || o_kind == idle
    :: !o_ending && o_kind == attach -> /* start_undo() */
        o_kind = undo;
        o_step = none;
        o_on_durable = 0;
        o_durable = 1;
        o_spawn = (o_worker == NO_WORKER);
        go = (READY && !o_busy)
    :: !o_ending && o_kind == mend && ONLY_LOOKED -> end_unrecorded()
    :: !o_ending && (o_kind == detach || o_kind == undo || (o_kind == mend && !ONLY_LOOKED)) ->
        m.residue = 1;
        ending_as = (m.forgotten -> orphan : failed)
    fi
}

/* mr_operation_end() */
inline end_operation() {
    hang_up();
    o_ending = 1;
    o_end_state = ending_as;
    ending_as = wedged;
    o_on_durable = 0;
    o_held = 0;
#ifdef MUTANT_SAID_BEFORE_DURABLE
    if
    :: o_end_state == absent ->
        g_said_released = 1;
        PROVE(6, released_stays_released, j.state == absent)
    :: else
    fi;
#endif
    append(the_end)
}

/* --- steps --- */

/* mr_detach_finish(). A forgotten volume that is taken down is not forgotten any more. */
inline finish_detach() {
    clear_facts();
    m.forgotten = 0;
    ending_as = (o_kind == undo -> failed : absent)
}

/* The border of no return. */
inline begin_claim() {
    if
    :: o_kind == undo -> go = 1 /* a half-done attach is undone again at the next start */
    :: else ->
        append(unmapping);
#ifdef MUTANT_RECORD_AFTER
        go = 1
#else
        o_on_durable = 1
#endif
    fi
}

inline begin_detach_step() {
    if
    :: o_step == inspect -> send(inspect)
    :: o_step == unmount && o_mounted ->
        PROVE(9, attached_is_never_undone, o_kind != undo || !g_attached);
        send(unmount)
    :: o_step == unmount && !o_mounted -> go = 1
    :: o_step == drain && !o_asked && o_mapped && o_gate == FREE -> send(claim)
    :: o_step == drain && o_gate == ASKED /* claimed already */
    :: o_step == drain && !o_asked && !o_mapped -> go = 1
    :: o_step == claim && o_mapped -> begin_claim()
    :: o_step == claim && !o_mapped -> go = 1
    :: o_step == unmap && !o_mapped && m.diskseq == NUMBER_NONE -> go = 1
    :: o_step == unmap && o_mapped && !o_asked -> send(unmap)
    :: o_step == unmap && !o_mapped && m.diskseq != NUMBER_NONE ->
        o_asked = 1; /* its helper may be on its way out */
        send(gone)
    :: o_step == drain && o_asked -> send(gone)
    :: o_step == none -> finish_detach()
    fi
}

inline begin_attach_step() {
    if
    :: o_step == inspect -> send(inspect)
    :: o_step == map && o_mapped -> send(keep)
    :: o_step == map && !o_mapped -> send(map)
    :: o_step == identify -> /* in passing: could only fail, as `mount` can */
        append(row);
        go = 1
    :: o_step == check || o_step == format -> go = 1
    :: o_step == mount -> send(mount)
    fi
}

#define PLAN(n) (o_kind == attach -> attach_plan[n] : \
                 (o_kind == mend -> mend_plan[n] : detach_plan[n]))

/* The one behind o_step in the plan; the first behind none. */
inline next_step() {
    do
    :: o_step != none && PLAN(i) != o_step -> i++
    :: else -> break
    od;
    i = (o_step == none -> 0 : i + 1);
    o_step = PLAN(i);
    i = 0
}

/* mr_operation_advance() */
inline advance() {
    do
    :: go ->
        go = 0;
        next_step();
        if
        :: IS_ATTACH -> begin_attach_step()
        :: else -> begin_detach_step()
        fi
    :: else -> break
    od
}

#ifdef MUTANT_DEAD_IS_READY
bit was_ready;
#define GO_READY was_ready
#else
#define GO_READY READY
#endif
#define GO_WHEN_READY (GO_READY && o_durable && !o_busy && o_step == none && !o_ending)

/* --- a detach that another request calls off (detach.c, cancel.c) --- */

#ifdef MUTANT_INTENT_UNHEARD
#define INTENDED 1
#else
#define INTENDED o_durable
#endif
#define MUST_ANSWER (!READY || !INTENDED || (o_step == claim && !o_unwritten) || o_step == unmap || \
                     (o_step == unmount && o_busy))

inline cancel() {
    if
    :: o_then == nobody || o_ending || ending_as != wedged || o_kind == idle || IS_ATTACH || \
       MUST_ANSWER
    :: else ->
        m.residue = 1;
        o_called_off = 1;
        ending_as = (o_then == put -> attaching : failed)
    fi
}

inline come_of_it() {
    if
    :: failing -> fail()
    :: else
    fi;
    failing = 0;
    advance();
    if
    :: cancelling -> cancel()
    :: else
    fi;
    cancelling = 0;
    answer = ok;
    if
    :: ending_as != wedged -> end_operation()
    :: else
    fi
}

/* --- answers --- */

inline attach_inspected() {
    PROVE(10, recorded_is_found, answer != is_other);
    if
    :: answer == is_mounted ->
        m.diskseq = NUMBER_NOW;
        if
        :: o_prior == attached -> end_unrecorded()
        :: else -> ending_as = attached
        fi
    :: answer == is_mapped || answer == nothing ->
        o_mapped = (answer == is_mapped);
        m.diskseq = (answer == is_mapped -> NUMBER_NOW : NUMBER_NONE);
        m.state = attaching;
        m.residue = 0;
        /* Durable before anything is done: after a crash the old number would be looked
         * for, and what was made meanwhile not be found. */
#ifdef MUTANT_MEND_UNRECORDED
        go = 1
#else
        append(mend_intent);
        o_on_durable = 1
#endif
    :: else -> failing = 1
    fi
}

inline attach_answered() {
    if
    :: answer == not_done -> failing = 1
    :: answer != not_done && o_step == inspect -> attach_inspected()
    :: o_step == map && answer == is_gone -> /* its last user was faster */
        o_mapped = 0;
        m.diskseq = NUMBER_NONE;
#ifdef MUTANT_GONE_UNRECORDED
        send(map)
#else
        o_step = inspect; /* the next is `map`, again */
        append(mend_intent);
        o_on_durable = 1
#endif
    :: o_step == map && answer == ok ->
        o_mapped = 0; /* does not matter any more */
        m.diskseq = NUMBER_NOW;
        go = 1
    :: o_step == mount && answer == ok -> ending_as = attached
    fi
}

inline detach_answered() {
    if
    :: answer == not_done || answer == is_other ->
        PROVE(10, recorded_is_found, answer != is_other);
        failing = 1
    :: answer == nothing || answer == is_mapped || answer == is_mounted ->
        o_mapped = (answer != nothing);
        o_mounted = (answer == is_mounted);
#ifdef MUTANT_JOURNAL_BELIEVED
        o_mapped = (m.diskseq != NUMBER_NONE);
#endif
        m.diskseq = (o_mapped -> NUMBER_NOW : m.diskseq);
        go = 1
    :: answer == busy -> o_held = 1
    :: o_step == unmount && answer == ok ->
        o_mounted = 0;
        o_held = 0;
        go = 1
    :: o_step == drain && !o_asked && answer == ok ->
#ifdef IMMEDIATE
        o_gate = ASKED
#else
        o_held = 0;
        go = 1
#endif
    :: o_step == drain && !o_asked && answer == is_gone ->
        o_held = 0;
        go = 1
    :: (o_step == unmap || o_asked) && answer == is_gone ->
        o_held = 0;
        o_step = unmap; /* it may have waited in `drain` */
        go = 1
    :: (o_step == unmap || o_asked) && answer == bound ->
        o_asked = 1;
        o_step = drain;
        o_held = 1
    fi
}

inline answered() {
    o_busy = 0;
    if
    :: IS_ATTACH -> attach_answered()
    :: else ->
        detach_answered();
        cancelling = 1
    fi
}

inline died() {
    o_worker = NO_WORKER;
    o_busy = 0;
#ifndef MUTANT_GATE_OUTLIVES_CLAIM
    o_gate = FREE;
#endif
    o_on_durable = 0;
    o_unwritten = 0;
    if
    :: IS_ATTACH -> failing = 1
    :: else -> o_spawn = !o_ending && o_kind != idle
    fi
}

/* --- requests, and what starts when another operation has ended --- */

inline start_detach() {
    o_prior = m.state;
    m.state = detaching;
    g_detach_asked = 1;
    start(detach, detach_intent)
}

/* Nothing of it exists: the end is all there is to do. */
inline end_at_once() {
    o_kind = detach;
    o_prior = m.state;
    o_before = 1;
    finish_detach()
}

inline start_attach() {
    o_prior = m.state;
    o_before = 1;
    clear_facts();
    m.state = attaching;
    g_said_released = 0;
    PROVE(7, nothing_forgotten, !k_mapped && !k_mount);
    start(attach, attach_intent)
}

inline ask_put() {
    if
    :: m.forgotten || o_kind == attach || o_kind == mend || (o_kind == undo && !o_held)
    :: !m.forgotten && o_kind == idle && RESIDUE(m) && m.state == attached ->
        o_prior = attached;
        start(mend, row) /* to look at it promises nothing */
    :: !m.forgotten && o_kind == idle && RESIDUE(m) && m.state != attached ->
        o_prior = m.state;
        start(mend, mend_asked)
    :: !m.forgotten && o_kind == idle && !RESIDUE(m) -> start_attach()
    :: !m.forgotten && (o_kind == detach || (o_kind == undo && o_held)) -> then = put
    fi
}

inline ask_delete() {
    if
    :: (o_kind == idle && m.state == absent) || o_kind == attach || o_kind == mend || \
       o_kind == detach || (o_kind == undo && !o_held)
    :: o_kind == idle && RESIDUE(m) -> start_detach()
    :: o_kind == idle && m.state != absent && !RESIDUE(m) ->
        end_at_once()
    :: o_kind == undo && o_held -> then = delete
    fi
}

inline ask_forget() {
    if
    :: o_kind == detach && !o_ending && o_then == nobody && !MUST_ANSWER ->
        o_forget = 1;
        o_called_off = 1;
        m.residue = 1;
        ending_as = orphan
    :: else
    fi
}

/* then_start(): what was asked for while another operation is in the way. */
inline queue_then() {
    if
    :: then != nobody && o_then == nobody ->
        o_then = then;
        cancelling = 1;
        /* The record of the new operation has the volume's row as it is, or, behind the
         * end of the other, as it will be: no news. */
#ifdef MUTANT_QUEUED_UNDOES_END
        if
        :: o_ending -> append_row(m.state, (o_end_state == attaching), 0, row)
        :: else
        fi
#endif
    :: else
    fi;
    then = nobody
}

/* refused() in record.c: nothing was done, and the volume is as it was. A record behind
 * the intent may have been written. */
inline refused() {
    then = o_then;
    m.residue = (o_prior == attaching || m.residue);
    o_prior = (o_prior == attaching -> failed : o_prior);
    m_unsaved = (m_unsaved || o_prior != absent);
    end_unrecorded();
    go_on()
}

/* mr_cancel_go_on() */
inline go_on() {
    if
    :: then == nobody || m.forgotten
    :: then == put && !m.forgotten && RESIDUE(m) ->
        o_prior = m.state;
        start(mend, row)
    :: then == put && !m.forgotten && RESIDUE(m) && !calm -> /* its own row was not written */
        o_prior = m.state;
        start(mend, mend_asked)
    :: then == put && !m.forgotten && !RESIDUE(m) -> start_attach()
    :: then == delete && !m.forgotten && RESIDUE(m) -> start_detach()
    :: then == delete && !m.forgotten && !RESIDUE(m) -> end_at_once()
    fi;
    then = nobody
}

inline finish() {
    then = o_then;
    m.state = o_end_state;
    m.forgotten = (o_forget || m.forgotten);
    m.residue = (m.residue && m.state == failed);
    m_unsaved = !good;
    if
    :: m.state == absent ->
        g_said_released = 1;
        PROVE(6, released_stays_released, good && !k_mapped && !k_mount && j.state == absent)
    :: else
    fi;
    forget_operation();
    go_on()
}

/* on_end_durable() in record.c */
inline ended() {
    if
    :: good -> finish()
    :: !good && o_before -> refused()
    :: !good && !o_before && o_called_off ->
        o_ending = 0; /* go_on_after_all(): other records may have called it ended */
        o_called_off = 0;
        o_forget = 0;
        o_then = nobody;
        m_unsaved = 1;
        o_spawn = 1
    :: !good && !o_before && !o_called_off && (o_end_state == attached || o_end_state == absent) ->
        o_unwritten = 1 /* what is not in the journal is not said */
    :: !good && !o_before && !o_called_off && o_end_state != attached && o_end_state != absent ->
        finish() /* but a failure is, at once */
    fi
}

/* Of a record it hears in the order of the records. */
inline told() {
    if
    :: event == the_end -> ended()
    :: event == attach_intent || event == detach_intent || event == mend_asked ->
        if
        :: o_kind == idle
        :: o_ending
#ifndef MUTANT_INTENT_UNHEARD
           ->
            o_durable = (o_durable || good); /* should it go on after all */
            o_before = (o_before && !good)
#endif
        :: !o_ending && o_kind != idle && good ->
            o_durable = 1;
            o_before = 0;
            if
            :: o_kind == mend
            :: else ->
                m.residue = 0; /* any way to `failed` sets it */
                o_prior = absent
            fi;
            go = GO_WHEN_READY
        :: !o_ending && o_kind != idle && !good -> refused()
        fi
    :: (event == unmapping || event == mend_intent) && o_on_durable && !o_ending ->
        o_on_durable = 0;
        go = good;
        o_unwritten = !good
    :: event == row && !good -> m_unsaved = 1
    :: else
    fi
}

/* mr_operation_write_again() */
inline write_again() {
    o_unwritten = 0;
    if
    :: o_ending -> append(the_end)
    :: !o_ending && o_step == claim ->
#ifdef IMMEDIATE
        o_step = drain; /* who has come meanwhile is not in the way of the claim */
        o_gate = ASKED
#else
        begin_claim()
#endif
    :: !o_ending && o_step == inspect -> send(inspect)
    fi
}

/* --- after a start --- */

inline resume() {
    if
    :: RESIDUE(m) && !j_boot -> /* another boot */
        clear_facts();
        m.forgotten = 0;
        m.state = lost_by_reboot;
        append(row)
    :: RESIDUE(m) && j_boot && m.state == attaching ->
        o_prior = attaching;
        start((j.mending -> mend : undo), row);
#ifdef MUTANT_RESUMED_UNDOES_MENDING
        if /* a row of its own, before the operation is the volume's */
        :: !j.operation -> append_row(attaching, 0, 1, row)
        :: else
        fi
#endif
    :: RESIDUE(m) && j_boot && m.state == detaching ->
        start(detach, row)
    :: else
    fi
}

/* ------------------------------------------------------------------ processes ----
 * What the core hears it hears in the same atomic step. It could do so later, but what can
 * come in between can as well come before (PUT, the next timer), or is the same as if the
 * other did it unheard (the agent ends, the worker is killed).
 */

proctype journal() {
end:
    do
    :: atomic { up && q_length > 0 ->
        event = q_event[0];
        if
        :: good = 1;
            commit_first()
        :: !calm -> good = 0
        fi;
        shift_queue();
        told();
        come_of_it();
        event = row;
        good = 0
       }
    od
}

proctype worker(byte id) {
end:
    do
    :: atomic {
        if
#ifdef MUTANT_NO_LOCK
        :: w_phase[id] == waiting && q_length < QUEUE ->
#else
        :: w_phase[id] == waiting && w_phase[1 - id] != serving && q_length < QUEUE ->
#endif
            w_phase[id] = serving;
#ifdef MUTANT_DEAD_IS_READY
            was_ready = (was_ready || o_worker == id);
#endif
            go = (o_worker == id && GO_WHEN_READY)
        :: w_command[id] != 0 && q_length < QUEUE ->
            perform();
            if
            :: o_worker == id -> answered()
            :: else -> worker_ends(id)
            fi
        :: w_command[id] != 0 && q_length < QUEUE && !calm -> /* killed before it could answer */
            perform();
            worker_ends(id);
            if
            :: o_worker == id -> died()
            :: else
            fi
        :: w_phase[id] != asleep && q_length < QUEUE && !calm -> /* killed before it did anything */
            worker_ends(id);
            if
            :: o_worker == id -> died()
            :: else
            fi
        fi;
        come_of_it()
       }
    od
}

proctype core() {
end:
    do
    :: atomic { !up -> /* the start: the lock on the state directory keeps it alone */
        up = 1;
        m.state = j.state;
        m.diskseq = j.diskseq;
        m.residue = j.residue;
        m.forgotten = j.forgotten;
        PROVE(8, attached_is_there, j.state != attached || !j_boot ||
              (k_mapped && k_mount && j.diskseq == NUMBER_NOW));
        resume()
       }
    /* A worker for it: also the next one after one died. */
    :: atomic { up && o_spawn && (w_phase[0] == asleep || w_phase[1] == asleep) ->
        o_spawn = 0;
        o_busy = 0;
        o_step = none;
        o_worker = (w_phase[0] == asleep -> 0 : 1);
        w_phase[o_worker] = waiting;
#ifdef MUTANT_DEAD_IS_READY
        was_ready = 0
#endif
       }
    /* unsaved.c: what could not be written is. */
    :: atomic { up && m_unsaved && (o_kind == idle || o_durable) && q_length == 0 ->
        m_unsaved = 0;
        append(row)
       }
    :: atomic { up && o_unwritten && !o_busy && q_length == 0 ->
        write_again();
        come_of_it()
       }
    :: atomic {
        if
        /* Timers: the step at hand once more. */
#ifndef MUTANT_NO_SECOND_LOOK
        :: up && o_held && READY && !o_busy && o_gate == FREE && !o_ending && q_length < QUEUE &&
           (o_step == unmount || o_step == drain) -> begin_detach_step()
#endif
        /* The scan looks. Only who opens it later is not seen. */
        :: up && o_gate == ASKED && o_step == drain && q_length < QUEUE && k_opener == FREE ->
            o_gate = FREE;
            o_held = 0;
            g_scanned = 1;
            go = 1
        :: up && o_gate == ASKED && o_step == drain && q_length < QUEUE && k_opener != FREE ->
            o_gate = FREE;
            o_held = 1;
#ifdef MUTANT_UNMAP_ON_TIMER
            go = 1
#endif
        :: up && q_length < QUEUE && !calm -> ask_put()
        :: up && q_length < QUEUE && !calm -> ask_delete()
        :: up && q_length < QUEUE && !calm -> ask_forget()
        fi;
        queue_then();
        come_of_it()
       }
    od
}

/* ------------------------------------------------------------------ the world ---- */

inline lose_agent() {
    do
    :: q_length > 0 -> /* what was on its way may have come to the disk */
        commit_first();
        shift_queue()
    :: q_length > 0 ->
        do
        :: q_length > 0 -> shift_queue()
        :: else -> break
        od
    :: q_length == 0 -> break
    od;
    hang_up();
    forget_operation();
    m.state = absent;
    clear_facts();
    m.forgotten = 0;
    m_unsaved = 0;
    up = 0
}

inline lose_worker(n) {
    w_phase[n] = asleep;
    w_command[n] = 0
}

proctype chaos() {
end:
    do
    :: atomic { up && !calm -> lose_agent() }
#ifndef NO_REBOOT
    :: atomic { !calm ->
        lose_agent();
        lose_worker(0);
        lose_worker(1);
        k_claim = NO_WORKER;
        k_mapped = 0;
        k_mount = 0;
        k_autoclear = 0;
        k_holder = FREE;
        k_opener = FREE;
        g_scanned = 0;
        g_attached = 0;
        j_boot = 0
       }
#endif
    :: atomic { !calm -> calm = 1 }
    od
}

proctype holders() {
end:
    do
    :: atomic { !calm && k_mount && k_holder == FREE -> k_holder = OPEN }
    :: atomic { !calm && k_mount && k_holder == FREE -> k_holder = COPY }
    :: atomic { k_holder != FREE -> k_holder = FREE; maybe_gone() }
    :: atomic { !calm && k_mapped && k_opener == FREE ->
        k_opener = (g_scanned -> LATE : OPEN)
       }
    :: atomic { k_opener != FREE -> k_opener = FREE; maybe_gone() }
    od
}

init {
    atomic {
        j.state = absent;
        m.state = absent;
        q[0].state = absent;
        q[1].state = absent;
        q_event[0] = row;
        q_event[1] = row;
        run journal();
        run worker(0);
        run worker(1);
        run core();
        run chaos();
        run holders()
    }
}

/* ------------------------------------------------------------------ in the end --- */

#define AT_REST (up && o_kind == idle && q_length == 0 && !m_unsaved && \
                 w_phase[0] == asleep && w_phase[1] == asleep && m.state == j.state)
#define IN_ORDER ((m.state == attached && k_mapped && k_mount && !k_autoclear) || \
                  ((m.state == absent || m.state == lost_by_reboot) && !k_mapped && !k_mount) || \
                  (m.state == orphan) || \
                  (m.state == failed && (RESIDUE(m) || (!k_mapped && !k_mount))))

#ifdef LIVENESS
ltl comes_to_rest { (<> calm) -> (<> (calm && AT_REST && IN_ORDER)) }
ltl detach_ends { [] ((calm && o_kind == detach && !o_ending && o_then == nobody) -> \
                      <> (m.state == absent)) }
#endif
