//! The signal handler that notes where a thread is, and the timer that calls it.
//!
//! The handler may interrupt any code, the allocator and the C library included. So it takes no lock, allocates nothing,
//! walks the stack by frame pointers alone, and asks the kernel before it follows one: a stack that makes no sense ends
//! early instead of ending the process.
#![expect(
    unsafe_code,
    reason = "a signal handler, a process-wide timer and the registers of interrupted code have no safe interface"
)]

use nix::{
    errno::Errno,
    libc::{self, c_int, c_void},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd::gettid,
};
use std::{
    ptr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

/// How many frames of a stack are kept.
const DEPTH: usize = 128;

/// No stack is larger than this, in bytes: what lies further away is not a frame.
const STACK: usize = 8 << 20;

/// Room for what is noted between two collections, 2 MiB: some thousand samples.
const WORDS: usize = 1 << 18;

/// What precedes a sample's frames: how many they are, and which thread it was.
const HEADER: usize = 2;

static NOTES: Notes = Notes {
    open: AtomicBool::new(false),
    inside: AtomicUsize::new(0),
    used: AtomicUsize::new(0),
    lost: AtomicUsize::new(0),
    words: [const { AtomicUsize::new(0) }; WORDS],
};

/// What the handler has written and nobody has collected. Zeros need no memory until they are written.
struct Notes {
    /// Whether the handler may write.
    open: AtomicBool,
    /// How many threads are in the handler.
    inside: AtomicUsize,
    /// How many words are taken; more than there are when samples were lost.
    used: AtomicUsize,
    lost: AtomicUsize,
    words: [AtomicUsize; WORDS],
}

/// The running timer. There must be only one. Dropped, it stops.
pub(super) struct Armed(());

impl Armed {
    /// Has a running thread interrupted `frequency` times for each second of CPU time that the process uses.
    pub(super) fn new(frequency: u32) -> Result<Self, Errno> {
        readable()?;
        let handler = SigAction::new(
            SigHandler::SigAction(on_signal),
            // Calls into the kernel that can be taken up again are.
            SaFlags::SA_SIGINFO | SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        // SAFETY: the handler calls only what may be called from one (see above). It stays for good: a signal that is
        // still on its way when the timer has stopped would otherwise end the process.
        unsafe { sigaction(Signal::SIGPROF, &handler) }?;
        NOTES.lost.store(0, Ordering::SeqCst);
        NOTES.used.store(0, Ordering::SeqCst);
        NOTES.open.store(true, Ordering::SeqCst);
        let armed = Self(());
        timer(Duration::from_secs(1) / frequency.max(1))?;
        Ok(armed)
    }

    /// Gives what was noted since the last time to `sample`: thread and addresses, leaf first. Returns how many samples
    /// found no room. Nothing is noted meanwhile.
    pub(super) fn collect(&self, mut sample: impl FnMut(usize, &[usize])) -> usize {
        close();
        let end = NOTES.used.swap(0, Ordering::SeqCst).min(WORDS);
        let mut frames = Vec::with_capacity(DEPTH);
        let mut at = 0;
        while at + HEADER < end {
            let length = NOTES.words[at].load(Ordering::Relaxed);
            // Here the room ended.
            if length == 0 {
                break;
            }
            let thread = NOTES.words[at + 1].load(Ordering::Relaxed);
            let words = &NOTES.words[at + HEADER..at + HEADER + length];
            frames.clear();
            frames.extend(words.iter().map(|word| word.load(Ordering::Relaxed)));
            sample(thread, &frames);
            at += HEADER + length;
        }
        let lost = NOTES.lost.swap(0, Ordering::SeqCst);
        NOTES.open.store(true, Ordering::SeqCst);
        lost
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        // It cannot fail: the arguments are right.
        let _stopped = timer(Duration::ZERO);
        close();
    }
}

/// Lets no handler write any more, and waits for those that do.
fn close() {
    NOTES.open.store(false, Ordering::SeqCst);
    while NOTES.inside.load(Ordering::SeqCst) > 0 {
        thread::yield_now();
    }
}

/// Has the kernel send `SIGPROF` for every `interval` of CPU time; zero stops it.
fn timer(interval: Duration) -> Result<(), Errno> {
    let interval = libc::timeval {
        tv_sec: libc::time_t::try_from(interval.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(interval.subsec_micros()),
    };
    let timer = libc::itimerval {
        it_interval: interval,
        it_value: interval,
    };
    // SAFETY: `timer` lives until the call returns; what was set before is not asked for.
    let result = unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) };
    Errno::result(result).map(drop)
}

/// Whether the kernel tells memory from none in the way that the handler asks.
fn readable() -> Result<(), Errno> {
    let word = 1_usize;
    // The first page is never mapped.
    if is_readable(ptr::from_ref(&word).addr()) && !is_readable(align_of::<usize>()) {
        Ok(())
    } else {
        Err(Errno::EFAULT)
    }
}

extern "C" fn on_signal(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = Errno::last_raw();
    NOTES.inside.fetch_add(1, Ordering::SeqCst);
    if NOTES.open.load(Ordering::SeqCst) {
        // SAFETY: the kernel gives a handler that was installed with SA_SIGINFO a valid context, or, never seen, none.
        if let Some(context) = unsafe { context.cast::<libc::ucontext_t>().as_ref() } {
            note(&Registers::of(context));
        }
    }
    NOTES.inside.fetch_sub(1, Ordering::SeqCst);
    Errno::set_raw(errno);
}

/// Where the interrupted code was.
struct Registers {
    instruction: usize,
    stack: usize,
    frame: usize,
}

impl Registers {
    #[cfg(target_arch = "x86_64")]
    fn of(context: &libc::ucontext_t) -> Self {
        let register = |name: c_int| context.uc_mcontext.gregs[name as usize] as usize;
        Self {
            instruction: register(libc::REG_RIP),
            stack: register(libc::REG_RSP),
            frame: register(libc::REG_RBP),
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn of(context: &libc::ucontext_t) -> Self {
        Self {
            instruction: context.uc_mcontext.pc as usize,
            stack: context.uc_mcontext.sp as usize,
            frame: context.uc_mcontext.regs[29] as usize,
        }
    }
}

fn note(registers: &Registers) {
    let mut frames = [0; DEPTH];
    let length = walk(registers, &mut frames);
    let start = NOTES.used.fetch_add(HEADER + length, Ordering::SeqCst);
    if start + HEADER + length > WORDS {
        NOTES.lost.fetch_add(1, Ordering::SeqCst);
        if let Some(word) = NOTES.words.get(start) {
            word.store(0, Ordering::Relaxed);
        }
        return;
    }
    let thread = gettid().as_raw().unsigned_abs() as usize;
    NOTES.words[start].store(length, Ordering::Relaxed);
    NOTES.words[start + 1].store(thread, Ordering::Relaxed);
    for (word, frame) in NOTES.words[start + HEADER..].iter().zip(&frames[..length]) {
        word.store(*frame, Ordering::Relaxed);
    }
}

/// The addresses of the stack, leaf first. A frame is where the frame pointer points to: the caller's frame pointer,
/// then the address to return to.
fn walk(registers: &Registers, frames: &mut [usize; DEPTH]) -> usize {
    frames[0] = registers.instruction;
    let mut length = 1;
    let mut lowest = registers.stack;
    let mut frame = registers.frame;
    while length < DEPTH {
        // Code without frame pointers uses the register for something else.
        let plausible =
            frame >= lowest && frame - registers.stack < STACK && frame.is_multiple_of(align_of::<usize>());
        let Some([caller, return_to]) = plausible.then(|| read_words(frame)).flatten() else {
            break;
        };
        if return_to == 0 {
            break;
        }
        frames[length] = return_to;
        length += 1;
        lowest = frame + 2 * size_of::<usize>();
        frame = caller;
    }
    length
}

/// The two words at an address, if there are any.
fn read_words(address: usize) -> Option<[usize; 2]> {
    let second = address.checked_add(size_of::<usize>())?;
    if !(is_readable(address) && is_readable(second)) {
        return None;
    }
    // SAFETY: both are aligned and can be read, and the interrupted thread, whose stack this is, stands still.
    let read = |address| unsafe { ptr::with_exposed_provenance::<usize>(address).read_volatile() };
    Some([read(address), read(second)])
}

/// Whether there is a word to read at an address, which must be aligned. Other ways to have the kernel look
/// (`process_vm_readv`) are closed in containers; this call every thread makes: the kernel reads the set of signals at the
/// address, fails with `EFAULT` where there is nothing, and only then with `EINVAL`, for what is to be done is nonsense.
fn is_readable(address: usize) -> bool {
    const NONSENSE: c_int = -1;
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: the kernel checks the address itself, and changes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            NONSENSE,
            address,
            nothing,
            size_of::<usize>(),
        )
    };
    result == -1 && Errno::last() == Errno::EINVAL
}
