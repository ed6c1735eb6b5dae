/* Claim, withdraw, reply and death: the protocol of csrc/shm/claim.hpp, ring.hpp and lane.cpp, for a model checker.
 *
 *   make model        (needs spin, a package of Debian, and a C compiler)
 *
 * One parent, one worker, TASKS tasks that all use the same slot, one after the other, because memory is reused at once. Each step of
 * a process here is one atomic access to shared memory, or a use of the slot; spin tries every order of them, and the worker's
 * death (SIGKILL) before each of its steps. Checked:
 *
 *   - a task is run at most once for each time that it was published, and not at all after it was withdrawn
 *   - a side does not use the slot while the other side does
 *   - every task ends exactly once: it is answered, withdrawn, or left by a dead worker; it counts as begun (a crash) only if the
 *     worker had claimed it
 *   - no side waits forever (spin reports an invalid end state)
 */
#define TASKS 3
#define RING 2 /* entries: fewer than tasks, so that they are written over */

mtype = { offered, claimed, withdrawn };

mtype state[RING]; /* the claim word of an entry: state and number of the task */
byte number[RING];
byte entry[RING]; /* the descriptor beside it */
byte write_pos, read_pos;
byte replies; /* result ring: how many were published; tasks are answered in order */
byte reply_of[TASKS + 1];

bool dead;

/* The true state, for the assertions. */
byte in_slot; /* 0: no side, 1: parent, 2: worker */
byte ran[TASKS + 1];
byte settled[TASKS + 1];
bool was_withdrawn[TASKS + 1];
bool begun[TASKS + 1];

inline enter(who) {
  atomic { assert(in_slot == 0); in_slot = who; }
}
inline leave(who) {
  atomic { assert(in_slot == who); in_slot = 0; }
}

proctype Worker() {
  byte read = 0; /* its own copy of read_pos: I5 of ring.hpp */
  byte task;
  bool ours;
  {
    do
    :: write_pos > read ->
       task = entry[read % RING];
       /* The compare-and-swap: the word must say "offered" and name the task that was read. */
#ifdef BROKEN /* a load and a store instead: spin must report an error */
       ours = (state[read % RING] == offered && number[read % RING] == task);
       if
       :: ours -> state[read % RING] = claimed; begun[task] = true
       :: else -> skip
       fi;
#else
       atomic {
         ours = (state[read % RING] == offered && number[read % RING] == task);
         if
         :: ours -> state[read % RING] = claimed; begun[task] = true
         :: else -> skip
         fi
       };
#endif
       read++;
       read_pos = read; /* the parent may write over the entry only from now on: C2 */
       if
       :: ours ->
          enter(2);
          assert(!was_withdrawn[task]);
          ran[task]++;
          leave(2);
          atomic { reply_of[replies] = task; replies++ }
       :: else -> skip
       fi
    :: read == TASKS -> break
    od
  } unless { dead };
  /* The task of a dead worker has no owner. */
  if
  :: dead -> atomic { if :: in_slot == 2 -> in_slot = 0 :: else -> skip fi }
  :: else -> skip
  fi
}

proctype Killer() {
  if
  :: dead = true
  :: skip
  fi
}

proctype Parent() {
  byte task = 1;
  byte at;
  byte taken = 0;
  bool ours;
  bool gone = false;
  do
  :: task > TASKS -> break
  :: else ->
     (write_pos - read_pos < RING || dead);
     if
     :: write_pos - read_pos >= RING -> break /* dead, and the ring is full: another worker gets the remaining tasks */
     :: else -> skip
     fi;
     enter(1); /* writes the feeds */
     leave(1);
     at = write_pos;
     entry[at % RING] = task;
     atomic { state[at % RING] = offered; number[at % RING] = task }; /* one store */
     write_pos = at + 1;
     /* Waits for the reply. At any time it may try to withdraw the task, or see that the worker is dead. */
     do
     :: replies > taken ->
        assert(reply_of[taken] == task);
        taken++;
        settled[task]++;
        break
     :: atomic {
          ours = (state[at % RING] == offered && number[at % RING] == task);
          if
          :: ours -> state[at % RING] = withdrawn; was_withdrawn[task] = true
          :: else -> skip
          fi
        };
        if
        :: ours -> settled[task]++; break
        :: else ->
           if /* the worker has claimed it: it answers or dies */
           :: replies > taken -> skip
           :: dead -> skip
           fi
        fi
     :: dead && in_slot != 2 -> /* the pidfd reports this when the process has ended */
        if
        :: replies > taken -> skip /* a reply that was published counts */
        :: else ->
           /* abandon(): a crash is counted only if the task had been claimed. */
           assert(!(begun[task]) || state[at % RING] == claimed);
           assert(begun[task] || state[at % RING] == offered);
           settled[task]++;
           gone = true;
           break
        fi
     od;
     enter(1); /* the parent owns the slot again, and may use it for the next task */
     leave(1);
     assert(settled[task] == 1 && ran[task] <= 1);
     task++;
     if
     :: gone -> break
     :: else -> skip
     fi
  od;
  if
  :: !gone && !dead -> (dead || read_pos == write_pos); assert(dead || task == TASKS + 1)
  :: else -> skip
  fi
}

init {
  atomic { run Parent(); run Worker(); run Killer() }
}
