//! How an end waits: spin for a while, then sleep on a shared futex, and give up when told to.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::error::{ChannelError, CloseReason, Problem, RingName};
use crate::jitter;
use crate::layout::{LEFT, Links};
use crate::ring::{MAX_WATCHES, Space, Target, sleep_until};
use crate::segment::{Segment, wake_local};

/// No sleep lasts longer than this before the waiter looks round again, whatever wake it may have missed.
const SLICE: Duration = Duration::from_secs(1);
/// The same where a flag is to be looked at that wakes nobody.
const STOP_SLICE: Duration = Duration::from_millis(100);
/// The same for a wait for more than the kernel watches at once.
const CROWDED_SLICE: Duration = Duration::from_millis(1);

/// A bell in a process's own memory: another thread, or a signal handler, rings it to get a waiter out of its sleep.
#[derive(Debug, Default)]
pub struct Doorbell {
    rings: AtomicU32,
    heard: AtomicU32,
}

impl Doorbell {
    /// A silent bell.
    #[must_use]
    pub const fn new() -> Self {
        Self { rings: AtomicU32::new(0), heard: AtomicU32::new(0) }
    }

    /// Rings it. Async-signal-safe.
    pub fn ring(&self) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        wake_local(&self.rings);
    }

    /// Whether it rang since the last call that said so. A wait that ends with [`Waited::Rung`] has taken the ring.
    pub fn take(&self) -> bool {
        let rings = self.rings.load(Ordering::SeqCst);
        self.heard.swap(rings, Ordering::SeqCst) != rings
    }
}

/// What ends a wait early. Whatever is given here, a wait also ends when the supervisor closes the channel or the other end leaves it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Abort<'a> {
    stop: Option<&'a AtomicBool>,
    doorbell: Option<&'a Doorbell>,
    deadline: Option<Instant>,
}

impl<'a> Abort<'a> {
    /// Only the end of the channel ends the wait.
    pub const NEVER: Abort<'static> = Abort { stop: None, doorbell: None, deadline: None };

    /// Ends the wait within `time` from now.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self::default().or_after(time)
    }

    /// Ends the wait at a time of the host.
    #[must_use]
    pub fn at(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..Self::default() }
    }

    /// Also ends within `time` from now.
    #[must_use]
    pub fn or_after(self, time: Duration) -> Self {
        Self { deadline: Instant::now().checked_add(time), ..self }
    }

    /// Also ends when the flag is set: at once if a signal to the waiting thread set it, else within 100 ms.
    #[must_use]
    pub fn or_stop(self, stop: &'a AtomicBool) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// Also ends at once when the bell rings.
    #[must_use]
    pub fn or_rung(self, doorbell: &'a Doorbell) -> Self {
        Self { doorbell: Some(doorbell), ..self }
    }

    /// Why the wait is over, or how long it may sleep.
    fn look(&self) -> Result<Duration, Waited> {
        if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(Waited::Stopped);
        }
        if self.doorbell.is_some_and(Doorbell::take) {
            return Err(Waited::Rung);
        }
        let most = if self.stop.is_some() { STOP_SLICE } else { SLICE };
        let Some(deadline) = self.deadline else { return Ok(most) };
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(Waited::TimedOut),
            left => Ok(left.min(most)),
        }
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// What was waited for is there.
    Ready,
    /// The deadline passed.
    TimedOut,
    /// The stop flag is set.
    Stopped,
    /// The bell rang.
    Rung,
}

/// How long an end spins before it sleeps. A sleep costs tens of microseconds, a spin a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpinPolicy {
    /// Longest time to spin in one wait; zero sleeps at once.
    pub limit: Duration,
    /// Spin only while cpu-proc names this channel as the active one ([`CpuPort::set_active`](crate::CpuPort::set_active)).
    pub only_active: bool,
}

impl SpinPolicy {
    /// Sleeps at once.
    pub const SLEEP: Self = Self { limit: Duration::ZERO, only_active: false };

    /// For cpu-proc: long enough for a sleeping device to wake and answer.
    #[must_use]
    pub fn cpu() -> Self {
        Self { limit: Duration::from_micros(200), only_active: false }.fitting()
    }

    /// For a device: while it is the active one, long enough to catch the next access of a driver that is at work.
    #[must_use]
    pub fn device() -> Self {
        Self { limit: Duration::from_micros(50), only_active: true }.fitting()
    }

    /// Two spinners need two cores.
    fn fitting(self) -> Self {
        // Asking reads files of the system, and a CPU process has many channels.
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores = *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
        if cores > 1 { self } else { Self::SLEEP }
    }
}

/// The words by which two ends know whether it makes sense to spin for each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Company {
    /// The word that is 0 while another channel is the active one, for a policy that looks at it.
    pub(crate) active: Option<usize>,
    /// Where this end notes on which core it waits, plus one.
    pub(crate) own: usize,
    /// Where the other end does.
    pub(crate) other: usize,
}

impl Company {
    /// Whether the other end last waited on the core on which this one runs: then spinning would keep it from its work. Notes the own core.
    fn shares_core(&self, space: &Segment) -> bool {
        // SAFETY: the call reads the number of the core and touches nothing of ours.
        let core = unsafe { libc::sched_getcpu() };
        // A failure gives -1: no core, which is nobody's.
        let core = u64::try_from(core + 1).unwrap_or(0);
        space.word(self.own).store(core, Ordering::Relaxed);
        core != 0 && space.word(self.other).load(Ordering::Relaxed) == core
    }

    fn elsewhere(&self, space: &Segment) -> bool {
        self.active.is_some_and(|word| space.word(word).load(Ordering::Relaxed) == 0)
    }
}

/// A cursor of some port and the value that its owner wants it to reach. Made by the ports' `on_...` methods.
#[derive(Clone, Copy, Debug)]
pub struct Interest<'a> {
    pub(crate) target: Target<'a, Segment>,
    pub(crate) links: &'a Links,
    pub(crate) ring: RingName,
}

impl Interest<'_> {
    /// Whether waiting for it would end at once.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.target.ready().is_ok()
    }

    /// An error if the channel ended.
    fn look(&self) -> Result<(), ChannelError> {
        self.links.look(self.target.space).map_err(|problem| self.links.error(self.ring, problem))
    }
}

impl Links {
    /// An error if the supervisor closed the channel or the other end left it.
    pub(crate) fn look(&self, space: &Segment) -> Result<(), Problem> {
        if let Some(reason) = CloseReason::from_word(space.word(self.closed).load(Ordering::Acquire)) {
            return Err(Problem::Closed(reason));
        }
        if self.peers.iter().any(|&word| space.word(word).load(Ordering::Acquire) >= LEFT) {
            return Err(Problem::PeerLeft);
        }
        Ok(())
    }
}

enum Ended {
    By(Waited),
    Error(ChannelError),
}

/// Waits until one of the interests is ready; with none, until `abort` says so. A tap's interest is one word to watch, another's up to three; the
/// kernel watches 128 at once. With more, the wait looks round every millisecond instead.
///
/// # Errors
/// If one of the channels was closed, or its other end left, and nothing is ready.
pub fn wait_many(interests: &[Interest<'_>], spin: &SpinPolicy, abort: &Abort<'_>) -> Result<Waited, ChannelError> {
    let targets = interests.iter().map(|interest| interest.target).collect::<Vec<_>>();
    wait(&targets, interests, spin, None, abort, || {})
}

/// Waits for one interest. `company` says when not to spin, `armed` runs before the first sleep.
pub(crate) fn wait_one(
    interest: Interest<'_>,
    spin: &SpinPolicy,
    company: Option<&Company>,
    abort: &Abort<'_>,
    armed: impl FnOnce(),
) -> Result<Waited, ChannelError> {
    let target = [interest.target];
    wait(&target, &[interest], spin, company, abort, armed)
}

fn wait(
    targets: &[Target<'_, Segment>],
    interests: &[Interest<'_>],
    spin: &SpinPolicy,
    company: Option<&Company>,
    abort: &Abort<'_>,
    armed: impl FnOnce(),
) -> Result<Waited, ChannelError> {
    jitter::point();
    if spin_until(targets, spin, company) {
        return Ok(Waited::Ready);
    }
    // A ring between here and the sleep changes the count, so the sleep does not begin.
    let extra = abort.doorbell.map(|bell| (&bell.rings, bell.rings.load(Ordering::SeqCst)));
    let crowded = targets.iter().map(Target::watches).sum::<usize>() > MAX_WATCHES;
    let slice = if crowded { CROWDED_SLICE } else { SLICE };
    let check = || {
        jitter::point();
        for interest in interests {
            if let Err(error) = interest.look() {
                // What the other end said before it went is still good.
                let ready = interests.iter().any(Interest::ready);
                return Err(if ready { Ended::By(Waited::Ready) } else { Ended::Error(error) });
            }
        }
        abort.look().map(|left| Some(left.min(slice))).map_err(Ended::By)
    };
    match sleep_until(targets, extra, armed, check) {
        Ok(()) => Ok(Waited::Ready),
        Err(Ended::By(how)) => Ok(how),
        Err(Ended::Error(error)) => Err(error),
    }
}

/// Looks round every so many spins: reading the clock costs as much as a few of them.
const SPINS_PER_LOOK: u32 = 32;

#[inline]
fn spin_until(targets: &[Target<'_, Segment>], spin: &SpinPolicy, company: Option<&Company>) -> bool {
    let company = company.zip(targets.first().map(|target| target.space));
    let mut since = None;
    loop {
        for _ in 0..SPINS_PER_LOOK {
            if targets.iter().any(Target::poll) {
                return true;
            }
            if spin.limit.is_zero() {
                return false;
            }
            std::hint::spin_loop();
        }
        if since.get_or_insert_with(Instant::now).elapsed() >= spin.limit {
            return false;
        }
        if company
            .is_some_and(|(company, space)| spin.only_active && company.elsewhere(space) || company.shares_core(space))
        {
            return false;
        }
    }
}
