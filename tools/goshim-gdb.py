"""gdb commands for programs whose threads are goroutines (libgoshim.so), live and in core files.

    info goroutines          what every goroutine does, waits for, and where
    goroutine ID|all CMD     any gdb command that only looks, in the context of a goroutine
    info goshim              processors, kernel threads, queues, timers
    goshim locks             locks that goroutines wait for, their owners, and deadlocks
    $goroutine(ID)           address of the runtime's record of a goroutine

Loaded by gdb itself when it finds libgoshim.so in the process, if installed; else by `source`. It needs no debug
information of the library: goshim_layout, which the library exports (core/layout.h), says where things are. A
parked goroutine's registers are on its stack, where the switch put them. An unwinder gives them to gdb as the
caller of the innermost frame of the selected thread, so frames of goroutines count from 1; nothing is
written, which is why it works on core files.
"""

import os
import struct
import time

import gdb
import gdb.unwinder

VERSION = 2
MAXFRAMES = 256
# What the switch leaves at the saved stack pointer: core/arch/x86_64/asm.S.
SAVED = {"r15": 8, "r14": 16, "r13": 24, "r12": 32, "rbx": 40, "rbp": 48, "rip": 56}
SAVEDSIZE = 64
# These would make a goroutine run, or change registers of a thread that is not its own.
RUNS = ("advance", "call", "continue", "c", "fg", "finish", "fin", "jump", "j", "kill", "next", "n", "nexti", "ni", "return",
        "reverse-", "run", "r", "signal", "start", "starti", "step", "s", "stepi", "si", "tbreak", "until", "u",
        "detach", "goroutine", "thread")


class Error(gdb.GdbError):
    pass


def read(address, size):
    try:
        return bytes(gdb.selected_inferior().read_memory(address, size))
    except gdb.MemoryError:
        raise Error(f"goshim: can't read {size} bytes at {address:#x}: not in the core file?")


def word(address, size=8):
    return int.from_bytes(read(address, size), "little")


def text(data):
    return data.split(b"\0")[0].decode(errors="replace")


class Layout:
    """goshim_layout of the process: fields, constants and addresses by name."""

    # struct Layout, LayoutEntry and LayoutAddress of core/layout.h.
    HEAD = struct.Struct("<8sIIIIQQQ")
    ENTRY = struct.Struct("<32sII")
    ADDRESS = struct.Struct("<24sQ")

    def __init__(self):
        try:
            at = int(gdb.parse_and_eval("(unsigned long)&goshim_layout"))
        except gdb.error:
            raise Error("goshim: libgoshim.so is not in this process (or gdb has not seen its libraries yet)")
        self.fields, self.constants, self.addresses = {}, {}, {}
        while at:
            magic, version, _, entries, addresses, entry, address, at = self.HEAD.unpack(read(at, self.HEAD.size))
            if text(magic) != "goshim":
                raise Error("goshim: no description of libgoshim.so in memory: the process had not started, or the "
                            "core file is cut short")
            if version != VERSION:
                raise Error(f"goshim: this libgoshim.so describes itself in version {version}, this script reads "
                            f"{VERSION}: use the script that was installed with the library")
            for name, value, size in self.ENTRY.iter_unpack(read(entry, entries * self.ENTRY.size)):
                (self.fields if size else self.constants)[text(name)] = (value, size) if size else value
            for name, value in self.ADDRESS.iter_unpack(read(address, addresses * self.ADDRESS.size)):
                self.addresses[text(name)] = value
        self.sizes = {}
        for name, (offset, size) in self.fields.items():
            kind = name.split(".")[0]
            self.sizes[kind] = max(self.sizes.get(kind, 0), offset + size)
        self.statuses = {value: name[1:] for name, value in self.constants.items() if name[0] == "G"}
        self.pstatuses = {value: name[1:] for name, value in self.constants.items() if name[0] == "P"}
        self.waits = {value: name for name, value in self.constants.items() if name.startswith("Wait")}
        reasons = read(self.addresses["waitreasons"], 24 * len(self.waits))
        self.reasons = [text(reasons[i:i + 24]) for i in range(0, len(reasons), 24)]


class Record:
    """A struct of the library's, read whole."""

    def __init__(self, layout, kind, address):
        self.layout, self.kind, self.address = layout, kind, address
        self.data = read(address, layout.sizes[kind])

    def __getattr__(self, name):
        offset, size = self.layout.fields[f"{self.kind}.{name}"]
        data = self.data[offset:offset + size]
        return text(data) if self.kind == "Thread" and name == "name" else int.from_bytes(data, "little")


class Goroutine(Record):
    def __init__(self, runtime, address):
        super().__init__(runtime.layout, "G", address)
        self.runtime = runtime

    @property
    def thread(self):
        """The host's record of it: a Thread."""
        if "hostrecord" not in self.__dict__:
            self.hostrecord = Record(self.layout, "Thread", self.host) if self.host else None
        return self.hostrecord

    @property
    def name(self):
        return self.thread.name if self.thread else ""

    @property
    def statusname(self):
        return self.layout.statuses.get(self.status, str(self.status))

    @property
    def wait(self):
        """The constant's name, if it waits."""
        waiting = self.status == self.layout.constants["Gwaiting"]
        return self.layout.waits.get(self.waitreason) if waiting else None

    @property
    def waitsince(self):
        return self.runtime.moment(self.since)

    @property
    def reason(self):
        return self.layout.reasons[self.waitreason] if self.wait else ""

    def lwp(self):
        """gdb's thread that runs it, or None: then its registers are saved on its stack."""
        if not self.m or self.status not in (self.layout.constants["Grunning"], self.layout.constants["Gsyscall"]):
            return None
        m = Record(self.layout, "M", self.m)
        if m.curg != self.address:
            return None
        for t in gdb.selected_inferior().threads():
            if m.tid in (t.ptid[1], t.ptid[2]):
                return t
        raise Error(f"goshim: goroutine {self.goid} runs on kernel thread {m.tid}, which gdb doesn't know")

    def registers(self):
        saved = read(self.sp, SAVEDSIZE)
        regs = {r: int.from_bytes(saved[at:at + 8], "little") for r, at in SAVED.items()}
        regs["rsp"] = self.sp + SAVEDSIZE
        return regs


class Runtime:
    """What the process is like now. Made anew for every command."""

    def __init__(self):
        self.layout = Layout()
        self.sched = Record(self.layout, "Sched", self.layout.addresses["sched"])
        if not self.sched.started:
            raise Error("goshim: the scheduler has not started: the program has made no thread yet")
        self.points = Record(self.layout, "TickPoints", self.layout.addresses["tickpoints"])

    def walk(self, kind, head):
        seen = set()
        while head:
            if head in seen:
                raise Error(f"goshim: the list of {kind} records is a loop: memory is damaged")
            seen.add(head)
            record = Goroutine(self, head) if kind == "G" else Record(self.layout, kind, head)
            yield record
            head = record.alllink

    def goroutines(self):
        dead = (self.layout.constants["Gidle"], self.layout.constants["Gdead"])
        return sorted((g for g in self.walk("G", self.sched.allg) if g.status not in dead), key=lambda g: g.goid)

    def goroutine(self, goid):
        for g in self.goroutines():
            if g.goid == goid:
                return g
        raise Error(f"goshim: no goroutine {goid}: `info goroutines` lists them")

    def ms(self):
        return sorted(self.walk("M", self.sched.allm), key=lambda m: m.id)

    def ps(self):
        for i in range(self.sched.gomaxprocs):
            yield Record(self.layout, "P", word(self.sched.allp + 8 * i))

    def now(self, goroutines):
        """In ns of CLOCK_MONOTONIC; in a core file the last time that anything is known of."""
        connection = gdb.selected_inferior().connection
        if connection and connection.type == "native":
            return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        return max((g.waitsince for g in goroutines), default=0)

    def moment(self, ticks):
        """When the CPU's counter was there, on that clock."""
        p = self.points
        n, ns = p.lastticks - p.startticks, p.lastns - p.startns
        return p.lastns + (round((ticks - p.lastticks) * ns / n) if n > 0 else 0)

    def byaddress(self, address):
        return Goroutine(self, address)


# --- frames ------------------------------------------------------------------


class FrameId:
    def __init__(self, sp, pc):
        self.sp, self.pc = sp, pc


class Unwinder(gdb.unwinder.Unwinder):
    """While `registers` is set, they are the caller's of the innermost frame."""

    def __init__(self):
        super().__init__("goshim")
        self.registers = None

    def __call__(self, pending):
        if self.registers is None or pending.level() != 0:
            return None
        values = {name: gdb.Value(value).cast(pending.read_register(name).type)
                  for name, value in self.registers.items()}
        # Below the caller's stack pointer, or gdb finds the frames in the wrong order.
        info = pending.create_unwind_info(FrameId(values["rsp"] - SAVEDSIZE, values["rip"]))
        for name, value in values.items():
            info.add_saved_register(name, value)
        return info


class HideInnermost:
    """A frame filter: without the thread's own frame, that only lent itself."""

    def __init__(self):
        self.name, self.enabled, self.priority = "goshim", True, 1000
        gdb.frame_filters[self.name] = self

    def filter(self, frames):
        if unwinder.registers is None:
            return frames
        return (f for f in frames if f.inferior_frame().level() > 0)


unwinder = Unwinder()
gdb.unwinder.register_unwinder(None, unwinder, replace=True)
HideInnermost()


class Context:
    """With it, the selected thread and frame are the goroutine's; after it, as before."""

    def __init__(self, g):
        self.g = g

    def __enter__(self):
        self.thread = gdb.selected_thread()
        self.frame = None
        try:
            self.frame = gdb.selected_frame().level()
        except gdb.error:
            pass
        t = self.g.lwp()
        if t:
            t.switch()
            gdb.newest_frame().select()
            return
        unwinder.registers = self.g.registers()
        gdb.invalidate_cached_frames()
        try:
            caller = gdb.newest_frame().older()
            if caller is None:
                raise Error(f"goshim: gdb can't unwind the stack of goroutine {self.g.goid}")
            caller.select()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        unwinder.registers = None
        gdb.invalidate_cached_frames()
        if self.thread and self.thread.is_valid():
            self.thread.switch()
            if self.frame:
                f = gdb.newest_frame()
                while f.level() < self.frame and f.older():
                    f = f.older()
                f.select()


def objectof(pc, known={}):
    """The base name of the library that pc is in; "" for the program."""
    if pc not in known:
        known[pc] = (gdb.solib_name(pc) or "").rpartition("/")[2]
    return known[pc]


def ours(pc):
    return objectof(pc).startswith("libgoshim")


def libcs(pc):
    return objectof(pc).startswith(("libc.so", "libc-", "ld-linux", "libpthread"))


def describe(frame):
    name = frame.name()
    sal = frame.find_sal()
    where = f"{name} ()" if name else f"{frame.pc():#x}"
    if sal.symtab:
        return f"{where} at {sal.symtab.filename}:{sal.line}"
    library = objectof(frame.pc()) or ("" if name else os.path.basename(gdb.current_progspace().filename or ""))
    return f"{where} from {library}" if library else where


class Places:
    """Where goroutines are. Ten thousand that wait alike are unwound once: a stack that has the same
    return addresses in the same places is the same."""

    def __init__(self):
        self.stacks = {}

    def of(self, g):
        if g.lwp():
            with Context(g):
                return self.interesting(gdb.newest_frame())
        saved = g.registers()
        for size, slots, place in self.stacks.get(saved["rip"], []):
            try:
                data = read(g.sp, size)
            except Error:
                continue
            if all(data[at:at + 8] == pc for at, pc in slots):
                return place
        with Context(g):
            place = self.interesting(gdb.selected_frame())
            self.remember(g, place, saved["rip"])
        return place

    def frames(self, frame):
        for _ in range(MAXFRAMES):
            if frame is None:
                return
            yield frame
            frame = frame.older()

    def interesting(self, frame):
        """The innermost frame of the program or its libraries."""
        best = None
        for f in self.frames(frame):
            if not ours(f.pc()):
                best = best or f
                if not libcs(f.pc()) and f.name() is not None:
                    best = f
                    break
        return describe(best or frame)

    def remember(self, g, place, rip):
        slots, size = [], SAVEDSIZE
        frame = gdb.selected_frame()
        for f in self.frames(frame):
            if f.type() == gdb.SIGTRAMP_FRAME:
                return
            older = f.older()
            if older is None:
                break
            at = int(older.read_register("rsp")) - 8 - g.sp
            if not 0 < at < 65536:
                return
            slots.append((at, older.pc().to_bytes(8, "little")))
            size = max(size, at + 8)
        self.stacks.setdefault(rip, []).append((size, slots, place))


# --- what goroutines wait for ----------------------------------------------------


def symbol(address, known={}):
    """The name of a static object, or the address."""
    if address not in known:
        out = gdb.execute(f"info symbol {address:#x}", to_string=True)
        name = out.partition(" in section ")[0].replace(" + ", "+") if " in section " in out else ""
        # What a stripped program has left are marks of the linker, not names of objects.
        marks = ("__bss_start", "_edata", "_end", "__data_start", "_DYNAMIC", "_GLOBAL_OFFSET_TABLE_")
        known[address] = name if name and not name.startswith(marks) else f"{address:#x}"
    return known[address]


def lockof(g):
    """(address of the lock as the program knows it, tid of its owner or 0) for a goroutine that waits for one."""
    obj = g.waitobj
    fields = g.layout.fields
    if g.wait == "WaitMutex":
        return obj, word(obj + fields["Mutex.owner"][0], 4)
    if g.wait == "WaitRWMutexR":
        lock = obj - fields["pthread_rwlock_t.readers"][0]
        return lock, word(lock + fields["pthread_rwlock_t.writer"][0], 4)
    if g.wait == "WaitRWMutexW":
        lock = obj - fields["pthread_rwlock_t.writer"][0]
        return lock, word(obj, 4)
    return obj, 0


def contended(g, address):
    """How often the lock that g waits for was waited for; None: its kind doesn't count."""
    record = {"WaitMutex": "Mutex", "WaitRWMutexR": "pthread_rwlock_t", "WaitRWMutexW": "pthread_rwlock_t"}.get(g.wait)
    return word(address + g.layout.fields[record + ".contended"][0], 4) if record else None


def handles(layout):
    """The permanent records of static locks."""
    todo = [word(layout.addresses["handles"])]
    while todo:
        at = todo.pop()
        if at:
            h = Record(layout, "Handle", at)
            todo += struct.unpack("<QQ", h.child.to_bytes(16, "little"))
            yield h


def waitsfor(g):
    if g.wait in ("WaitIORead", "WaitIOWrite", "WaitIOPoll"):
        return f"fd {g.waitobj}"
    if g.wait == "WaitJoin":
        thread = Record(g.layout, "Thread", g.waitobj - g.layout.fields["Thread.state"][0])
        return f"goroutine {Goroutine(g.runtime, thread.gp).goid}" if thread.gp else "a thread that ended"
    if not g.wait or not g.waitobj:
        return ""
    return symbol(lockof(g)[0])


def duration(ns):
    if ns < 0:
        return ""
    s = ns / 1e9
    if s < 1:
        return f"{s * 1000:.0f}ms"
    if s < 60:
        return f"{s:.1f}s"
    m = int(s // 60)
    return f"{m}m{int(s % 60)}s" if m < 60 else f"{m // 60}h{m % 60}m"


def table(rows):
    """Columns as wide as they need; the last one is as it comes."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]) - 1)]
    for r in rows:
        print("  ".join([c.ljust(w) for c, w in zip(r, widths)] + [r[-1]]).rstrip())


# --- commands ----------------------------------------------------------------------


class InfoGoroutines(gdb.Command):
    """List all goroutines: number, thread name, status with the reason for waiting, since when, what is
waited for, and where. The mark * is at the one that the selected thread runs. A function of the program's own
or of a library, not libc's, is shown as the place; `goroutine ID bt` shows all."""

    def __init__(self):
        super().__init__("info goroutines", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        if argument:
            raise Error("goshim: info goroutines takes no argument; `goroutine ID bt` looks at one")
        runtime = Runtime()
        all = runtime.goroutines()
        now = runtime.now(all)
        places = Places()
        selected = gdb.selected_thread()
        rows = [("  ID", "NAME", "STATUS", "SINCE", "WAITS FOR", "WHERE")]
        for g in all:
            t = g.lwp()
            mark = "*" if t and selected and t.ptid == selected.ptid else " "
            status = g.statusname + (f" [{g.reason}]" if g.reason else "") + (", locked" if g.lockedm else "")
            since = duration(now - g.waitsince) if g.wait else ""
            try:
                place = places.of(g)
            except gdb.error as e:
                place = f"? ({e})"
            rows.append((f"{mark} {g.goid}", g.name, status, since, waitsfor(g), place))
        table(rows)


class GoroutineCommand(gdb.Command):
    """goroutine ID|all COMMAND: run a gdb command in the context of one goroutine, or of each in turn.
Any command that looks will do: bt, bt full, frame, info locals, print. Frames of a goroutine that isn't
running count from 1. Commands that make the program run (finish, step, call) can't be had."""

    def __init__(self):
        super().__init__("goroutine", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        which, _, command = argument.strip().partition(" ")
        command = command.strip()
        if not which or not command:
            raise Error("goshim: goroutine ID|all COMMAND, for example: goroutine 1 bt")
        verb = command.split()[0].partition("/")[0]
        if verb in RUNS or verb.startswith("reverse-"):
            raise Error(f"goshim: {verb} would run the program, or change registers that are not the goroutine's: "
                        "select a thread and use it there")
        runtime = Runtime()
        if which != "all":
            if not which.isdigit():
                raise Error(f"goshim: {which}: a goroutine's number, or all")
            with Context(runtime.goroutine(int(which))):
                gdb.execute(command, from_tty)
            return
        for g in runtime.goroutines():
            print(f'\ngoroutine {g.goid} "{g.name}" [{g.reason or g.statusname}]:')
            try:
                with Context(g):
                    gdb.execute(command, from_tty)
            except gdb.error as e:
                print(f"  {e}")

    def complete(self, text, word):
        done = text.split()
        if len(done) > 1 or text.endswith(" "):
            return [c for c in ("bt", "bt full", "frame", "info locals", "info registers", "print", "up", "x/i $pc")
                    if c.startswith(word or "")]
        try:
            return [n for n in [str(g.goid) for g in Runtime().goroutines()] + ["all"] if n.startswith(text)]
        except gdb.error:
            return []


class InfoGoshim(gdb.Command):
    """Show the scheduler: processors with their queues and timers, kernel threads, sysmon."""

    def __init__(self):
        super().__init__("info goshim", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        runtime = Runtime()
        s, c = runtime.sched, runtime.layout.constants
        all = runtime.goroutines()
        count = lambda name: sum(1 for g in all if g.status == c[name])
        print(f"goroutines: {s.nglive} alive, {s.goidgen} made; {count('Grunning')} running, {count('Grunnable')} "
              f"runnable, {count('Gsyscall')} in system calls, {count('Gwaiting')} waiting")
        print(f"processors: {s.gomaxprocs}, {s.npidle} idle; kernel threads: {s.mcount}, {s.nmidle} idle, "
              f"{s.nmspinning} spinning; global queue: {s.runqsize}")
        print(f"sysmon: kernel thread {s.sysmontid}, {'asleep' if s.sysmonwait else 'awake'}; the network is "
              f"{'waited for by somebody' if s.lastpoll == 0 else 'polled now and then'}")
        ids = {g.address: str(g.goid) for g in all}
        ms = list(runtime.ms())
        numbers = {m.address: str(m.id) for m in ms}
        now = runtime.now(all)
        print("\nProcessors")
        rows = [("  P", "STATUS", "M", "QUEUE", "NEXT", "TIMERS", "FIRST TIMER", "SCHEDULED")]
        for p in runtime.ps():
            first = "" if p.timer0when >= 1 << 62 else f"in {duration(max(0, p.timer0when - now))}"
            rows.append((f"  {p.id}", runtime.layout.pstatuses.get(p.status, "?"), numbers.get(p.m, ""),
                         str((p.runqtail - p.runqhead) & 0xffffffff), ids.get(p.runnext, ""), str(p.ntimers), first,
                         str(p.schedtick)))
        table(rows)
        print("\nKernel threads")
        pids = {p.address: str(p.id) for p in runtime.ps()}
        rows = [("  M", "TID", "P", "GOROUTINE", "LOCKED", "STATE")]
        idle, at = set(), s.midle
        while at and at not in idle:
            idle.add(at)
            at = Record(runtime.layout, "M", at).schedlink
        for m in ms:
            if not m.tid:
                continue
            state = [word for word, is_so in (("spinning", m.spinning), ("idle", m.address in idle),
                                              ("its processor was taken", m.taken),
                                              (f"{m.locks} sections", m.locks and m.curg)) if is_so]
            rows.append((f"  {m.id}", str(m.tid), pids.get(m.p & ~1, ""), ids.get(m.curg, ""), ids.get(m.lockedg, ""),
                         ", ".join(state)))
        table(rows)


class Goshim(gdb.Command):
    """Commands about programs whose threads are goroutines of libgoshim.so."""

    def __init__(self):
        super().__init__("goshim", gdb.COMMAND_STATUS, gdb.COMPLETE_NONE, True)


class GoshimLocks(gdb.Command):
    """List locks that are or were waited for: by the name of the static object, or by address, with the
owner, how often somebody had to wait, and the waiters. Goroutines that wait for each other's locks in a circle are
named. Of locks that aren't static only those that have waiters now are known."""

    KINDS = {"WaitMutex": "mutex", "WaitRWMutexR": "rwlock", "WaitRWMutexW": "rwlock", "WaitSem": "semaphore",
             "WaitCond": "condition", "WaitBarrier": "barrier", "WaitOnce": "once", "WaitFutex": "futex"}

    def __init__(self):
        super().__init__("goshim locks", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        runtime = Runtime()
        all = runtime.goroutines()
        bytid = {g.thread.tid: g for g in all if g.thread}
        locks, waits = {}, {}
        now = runtime.now(all)
        for g in all:
            if g.wait not in self.KINDS:
                continue
            address, tid = lockof(g)
            owner = bytid.get(tid)
            lock = locks.setdefault(address, {"kind": self.KINDS[g.wait], "owner": owner, "tid": tid, "waiters": [],
                                              "contended": contended(g, address)})
            lock["waiters"].append(g)
            if owner:
                waits[g.goid] = owner.goid
        # Static ones, also those that nobody waits for now.
        for h in handles(runtime.layout):
            lock = locks.setdefault(h.addr, {"kind": self.KINDS.get(runtime.layout.waits.get(h.why), ""), "owner": None, "tid": 0, "waiters": [], "contended": 0})
            lock["contended"] = max(lock["contended"] or 0, h.contended)
        if not locks:
            print("No goroutine waits for a lock, and none has waited for a static one.")
            return
        rows = [("LOCK", "KIND", "OWNER", "CONTENDED", "WAITERS", "LONGEST", "GOROUTINES")]
        for address, lock in sorted(locks.items(), key=lambda l: (-len(l[1]["waiters"]), -(l[1]["contended"] or 0))):
            owner = lock["owner"]
            waiters = lock["waiters"]
            rows.append((symbol(address), lock["kind"],
                         f"goroutine {owner.goid}" if owner else f"thread {lock['tid']}" if lock["tid"] else "",
                         "" if lock["contended"] is None else str(lock["contended"]), str(len(waiters)),
                         duration(max(now - g.waitsince for g in waiters)) if waiters else "",
                         " ".join(str(g.goid) for g in waiters[:12]) + (" ..." if len(waiters) > 12 else "")))
        table(rows)
        for circle in circles(waits):
            print("\nDeadlock: " + ", ".join(f"goroutine {a} waits for {symbol(lockof(runtime.goroutine(a))[0])}, "
                                             f"which goroutine {waits[a]} has" for a in circle))


def circles(waits):
    """The cycles of a function from waiter to owner, each once."""
    found, seen = [], set()
    for start in sorted(waits):
        path = []
        at = start
        while at in waits and at not in seen:
            seen.add(at)
            path.append(at)
            at = waits[at]
        if at in path:
            found.append(path[path.index(at):])
    return found


class GoroutineFunction(gdb.Function):
    """$goroutine(ID): the address of the runtime's record of a goroutine, as an unsigned long."""

    def __init__(self):
        super().__init__("goroutine")

    def invoke(self, goid):
        kind = gdb.lookup_type("unsigned long")
        return gdb.Value(Runtime().goroutine(int(goid)).address).cast(kind)


for command in (InfoGoroutines, GoroutineCommand, InfoGoshim, Goshim, GoshimLocks, GoroutineFunction):
    command()
