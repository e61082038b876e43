//! The run loop: slices of instructions between positions at which something happens.
//!
//! At each position, in this order: timer outputs, due deadlines, journaled entries (each followed by the deadlines that it made due), the
//! turn, if it passes to another core, then the engine takes interrupts and runs. Recording chooses the positions of asynchronous effects; replaying takes them from the
//! script. Nothing else may differ between the two.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reprise_arm::bus::GuestRam;
use reprise_arm::cores::Cores;
use reprise_arm::engine::{Budget, Engine, StopReason};
use reprise_arm::gic::Gic;
use reprise_arm::psci;
use reprise_arm::state::Position;
use reprise_arm::timer::Timers;

use crate::board::{Board, Power};
use crate::clock::IdleMode;
use reprise_channel::{EndReason, Request, fold};

use crate::journal::{Anchor, Entry, Journal, Mark, Script, What};
use crate::link::Consumed;
use crate::port::Port;

/// Limits and habits of one run.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// What an idle core does with time.
    pub idle: IdleMode,
    /// Instructions between register anchors.
    pub anchor_every: u64,
    /// About how many instructions there are between two looks at the channels while a posted write's effects are expected, and for a
    /// while after any message.
    pub slice: u64,
    /// The same while nothing is expected: host input comes when it comes.
    pub long_slice: u64,
    /// Instructions between two looks at the control socket.
    pub control_every: u64,
    /// Messages between two progress entries.
    pub messages_per_progress: u64,
    /// End at this instruction count.
    pub stop_at: Option<u64>,
    /// While recording: move the looks at the channels about, by this seed, to show that it changes nothing.
    pub jitter: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            idle: IdleMode::Warp,
            anchor_every: 10_000_000,
            slice: 4096,
            long_slice: 65_536,
            control_every: 400_000,
            messages_per_progress: 512,
            stop_at: None,
            jitter: None,
        }
    }
}

/// What the outside world wants of the run loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// To go on.
    Run,
    /// To rest between two instructions: [`Host::pause`].
    Pause,
    /// To end here, in this way.
    End(EndReason),
}

/// The outside world, as far as the run loop needs it.
pub trait Host<P> {
    /// Lets the world see how far the guest is, and says what the machine is to do now. Must not block.
    fn look(&mut self, cores: &Cores, vtime: u64) -> Result<Order>;

    /// Says that the guest rests here, and waits until it is to go on or to end.
    fn pause(&mut self, _cores: &Cores, _vtime: u64) -> Result<()> {
        Ok(())
    }

    /// Tells the user something of devices.
    fn tell(&mut self, notes: &mut Vec<String>) -> Result<()> {
        notes.clear();
        Ok(())
    }

    /// Sleeps until a device offers input, the machine is to stop, or `limit` has passed (for ever if `None`).
    fn sleep(&mut self, board: &Board<P>, limit: Option<Duration>) -> Result<()>;
}

/// Slices for which a channel counts as busy after a message: a driver that writes register after register is soon back.
const BUSY_SLICES: u64 = 32;

/// After so many times [`Policy::messages_per_progress`] the engine need not reach the end of its slice first: a device may cause thousands of effects
/// with each instruction.
const FLOOD: u64 = 8;

/// The outputs of a core's generic timer, looked at only when they can have changed.
#[derive(Debug)]
struct TimerWatch {
    core: usize,
    /// The registers when it was last looked.
    seen: Timers,
    /// Guest time at which an output rises by itself, if the registers stay as they are; 0 before the first look.
    until: u64,
}

impl TimerWatch {
    fn new(core: usize) -> Self {
        Self { core, seen: Timers::default(), until: 0 }
    }

    /// Drives the timer's interrupts as they are at guest time `now`.
    #[inline]
    fn drive(&mut self, timers: &Timers, now: u64, gic: &mut Gic) {
        if now >= self.until || *timers != self.seen {
            for (ppi, level) in timers.lines(now).ppis() {
                gic.set_ppi(self.core, ppi, level);
            }
            self.until = timers.deadline(now).unwrap_or(u64::MAX);
            self.seen.clone_from(timers);
        }
    }

    /// The next rise, as of the last look.
    fn deadline(&self) -> Option<u64> {
        (self.until != u64::MAX).then_some(self.until)
    }
}

/// What drives the machine.
pub enum Mode<'a> {
    /// Nothing is recorded.
    Plain,
    /// Asynchronous effects are consumed as they come, and journaled.
    Record(&'a mut dyn Journal),
    /// Asynchronous effects are consumed where the script says.
    Replay(&'a mut dyn Script),
}

/// A replay that did not do what the recording did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// Where.
    pub pos: Position,
    /// Instructions retired.
    pub icount: u64,
    /// The core whose turn it is, where there are several.
    pub core: Option<usize>,
    /// Next instruction.
    pub pc: u32,
    /// What was compared.
    pub what: String,
    /// From the recording.
    pub expected: String,
    /// From the replay.
    pub actual: String,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { epoch, count, idle } = self.pos;
        let core = self.core.map_or_else(String::new, |n| format!("core {n}, "));
        writeln!(
            f,
            "diverged at instruction {} (epoch {epoch}, count {count}, idle {idle}), {core}pc {:#010x}: {}",
            self.icount, self.pc, self.what
        )?;
        write!(f, "  expected (recorded): {}\n  actual (replayed):   {}", self.expected, self.actual)
    }
}

impl std::error::Error for Divergence {}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why; [`EndReason::Limit`] if `cut`.
    pub reason: EndReason,
    /// A replay came to the end of a recording that has no end of its own: it was cut short.
    pub cut: bool,
    /// Where.
    pub pos: Position,
    /// Instructions retired.
    pub icount: u64,
    /// Guest time.
    pub vtime: u64,
    /// Journal entries written or followed.
    pub entries: u64,
    /// The state hash that a replayed recording ended with.
    pub recorded_hash: Option<[u8; 32]>,
}

/// A machine ready to run: [`Runner::power_on`], then [`Runner::run`].
pub struct Runner<'a, 'm, P> {
    /// The cores.
    pub cores: &'a mut Cores,
    /// Guest RAM.
    pub ram: &'a GuestRam,
    /// The engine.
    pub engine: &'a mut dyn Engine,
    /// All else.
    pub board: &'a mut Board<P>,
    /// The outside world.
    pub host: &'a mut dyn Host<P>,
    mode: Mode<'m>,
    policy: Policy,
    next_anchor: u64,
    next_control: u64,
    last_progress: (u64, u64),
    /// One for each core.
    timers: Vec<TimerWatch>,
    /// The board's traffic when the channels were last looked at, and until when they count as busy.
    seen_traffic: u64,
    busy_until: u64,
    /// A posted write's effects were not all there at the last look.
    expecting: bool,
    pending: Option<Entry>,
    script_done: bool,
    entries: u64,
    started: Instant,
    started_vtime: u64,
    rng: u64,
}

/// What a step of the loop decided.
enum Flow {
    Run,
    End(EndReason),
}

impl<'a, 'm, P: Port> Runner<'a, 'm, P> {
    /// Puts a machine together.
    pub fn new(
        cores: &'a mut Cores,
        ram: &'a GuestRam,
        engine: &'a mut dyn Engine,
        board: &'a mut Board<P>,
        host: &'a mut dyn Host<P>,
        mode: Mode<'m>,
        policy: Policy,
    ) -> Self {
        assert!(
            policy.slice > 0 && policy.long_slice > 0 && policy.anchor_every > 0 && policy.control_every > 0,
            "intervals are positive"
        );
        let icount = cores.cpu().icount;
        let vtime = board.clock.vtime(icount);
        board.core = cores.current();
        if matches!(mode, Mode::Record(_)) {
            board.leave_at = board.traffic + FLOOD * policy.messages_per_progress;
        }
        let timers = (0..cores.len()).map(TimerWatch::new).collect();
        Self {
            cores,
            ram,
            engine,
            board,
            host,
            mode,
            policy,
            next_anchor: (icount / policy.anchor_every + 1) * policy.anchor_every,
            next_control: icount,
            last_progress: (icount, 0),
            timers,
            seen_traffic: 0,
            busy_until: icount,
            expecting: false,
            pending: None,
            script_done: false,
            entries: 0,
            started: Instant::now(),
            started_vtime: vtime,
            rng: policy.jitter.unwrap_or(0) | 1,
        }
    }

    /// The position now.
    pub fn position(&self) -> Position {
        self.cores.cpu().pos()
    }

    /// Instructions retired.
    fn icount(&self) -> u64 {
        self.cores.cpu().icount
    }

    fn vtime(&self) -> u64 {
        self.board.clock.vtime(self.icount())
    }

    /// Resets every device, as the first thing that happens to the machine. A recording of which nothing is whole does not even have that.
    pub fn power_on(&mut self) -> Result<()> {
        self.fetch()?;
        if !self.script_done {
            self.board.reset_devices()?;
        }
        Ok(())
    }

    /// Runs until the machine ends. Divergence comes back as a [`Divergence`] inside the error.
    pub fn run(&mut self) -> Result<Outcome> {
        loop {
            self.board.settle_posts();
            if let Flow::End(reason) = self.at_position()? {
                return self.end(reason);
            }
            if !self.next_turn() {
                if let Flow::End(reason) = self.idle()? {
                    return self.end(reason);
                }
                continue;
            }
            let (until, enough) = self.horizon();
            if until <= self.icount() {
                self.stuck()?;
                continue;
            }
            self.board.exit_always = self.next_is_near_epoch();
            if self.run_turns(until, enough) == StopReason::Halt {
                return self.end(EndReason::Dead);
            }
            if let Some(e) = self.board.error.take() {
                return Err(e.into());
            }
        }
    }

    /// Lets the cores run, turn by turn, up to exactly `until`, or about `enough`, or until something asks for the run loop. Between turns
    /// nothing but the turn changes, so nothing else is looked at.
    fn run_turns(&mut self, until: u64, enough: u64) -> StopReason {
        loop {
            let now = self.icount();
            let budget = Budget { limit: until.min(self.cores.turn_end()) - now, enough: enough - now };
            let stop = self.engine.run(self.cores.cpu_mut(), self.ram, self.board, budget);
            self.answer_call();
            let yielded = self.cores.cpu_mut().take_yield();
            if yielded {
                self.cores.end_turn();
            }
            let now = self.icount();
            let over = match stop {
                StopReason::Wait => true,
                StopReason::Budget => now >= self.cores.turn_end(),
                // A WFE makes no access, so it is all that asked.
                StopReason::Exit => yielded,
                StopReason::Halt => false,
            };
            if !over || self.cores.len() == 1 || self.pmu_watched() || now >= until.min(enough) || !self.next_turn() {
                return stop;
            }
        }
    }

    /// Answers a call of the firmware, if that made the engine leave.
    fn answer_call(&mut self) {
        let power = match self.cores.answer_call() {
            None => return,
            Some(psci::Request::PowerOff) => Power::Off,
            Some(psci::Request::Reset) => Power::Reset,
        };
        self.board.power.get_or_insert(power);
    }

    /// Gives the turn to who is to run next. False if every core waits.
    fn next_turn(&mut self) -> bool {
        let gic = &self.board.gic;
        let going = self.cores.next_turn(|n| {
            let (irq, fiq) = gic.lines(n);
            irq || fiq
        });
        self.board.core = self.cores.current();
        going
    }

    /// Everything that is due at the present position.
    fn at_position(&mut self) -> Result<Flow> {
        self.end_burst()?;
        self.fire_due()?;
        match self.mode {
            Mode::Replay(_) => self.follow_script()?,
            Mode::Plain | Mode::Record(_) => self.poll()?,
        };
        if let Some(flow) = self.script_end()? {
            return Ok(flow);
        }
        if let Some(p) = self.board.power {
            return Ok(Flow::End(match p {
                Power::Off => EndReason::PowerOff,
                Power::Reset => EndReason::Reboot,
            }));
        }
        if self.policy.stop_at.is_some_and(|n| self.icount() >= n) {
            return Ok(Flow::End(EndReason::Limit));
        }
        if self.icount() >= self.next_control {
            self.next_control = self.icount() + self.policy.control_every;
            if let Flow::End(reason) = self.look()? {
                return Ok(Flow::End(reason));
            }
            if !self.board.notes.is_empty() {
                self.host.tell(&mut self.board.notes)?;
            }
            self.throttle()?;
        }
        self.anchor_and_progress()?;
        Ok(Flow::Run)
    }

    /// Sends writes that were gathered for a FIFO once nothing can be added to them any more. Before the journal is looked at, which may hold what
    /// they cause; and when every core waits, perhaps for just that. (That one of several cores waits is no reason: at which positions this
    /// loop comes round then is not the same in every run.)
    fn end_burst(&mut self) -> Result<()> {
        let Some(end) = self.board.burst_end() else { return Ok(()) };
        let gic = &self.board.gic;
        let interrupted = |n| {
            let (irq, fiq) = gic.lines(n);
            irq || fiq
        };
        if self.icount() >= end || self.cores.all_wait(interrupted) {
            self.board.end_burst()?;
        }
        Ok(())
    }

    /// Does what the outside world wants. A pause is no part of the execution: guest time stands still, what devices offer meanwhile waits in
    /// their channels, and the host's clock, where guest time follows it, is taken to have stood still too.
    fn look(&mut self) -> Result<Flow> {
        loop {
            match self.host.look(self.cores, self.vtime())? {
                Order::Run => return Ok(Flow::Run),
                Order::End(reason) => return Ok(Flow::End(reason)),
                Order::Pause => {
                    // Whoever reads the recording now finds all that has happened.
                    if matches!(self.mode, Mode::Record(_)) && self.messages() != self.last_progress.1 {
                        self.progress()?;
                    }
                    self.board.rest();
                    let began = Instant::now();
                    self.host.pause(self.cores, self.vtime())?;
                    self.started += began.elapsed();
                }
            }
        }
    }

    /// Timer outputs and due device timers, until nothing is due.
    fn fire_due(&mut self) -> Result<()> {
        let now = self.vtime();
        for (watch, cpu) in self.timers.iter_mut().zip(self.cores.all()) {
            watch.drive(&cpu.timer, now, &mut self.board.gic);
        }
        if self.board.next_deadline().is_some_and(|t| t <= now) {
            self.board.fire_due(now)?;
        }
        self.drive_pmu();
        Ok(())
    }

    /// The interrupts of the performance monitors, where they are connected.
    fn drive_pmu(&mut self) {
        if self.board.pmu_connected() {
            for (n, cpu) in self.cores.all_mut().iter_mut().enumerate() {
                self.board.drive_pmu(n, cpu.pmu_interrupt());
            }
        }
    }

    /// Some core's performance monitors may interrupt, so the next core's turn has a horizon of its own.
    fn pmu_watched(&self) -> bool {
        self.board.pmu_connected() && self.cores.all().iter().any(|c| c.cp15.pmu.may_interrupt())
    }

    /// The instruction count at which the next thing happens that is known beforehand, and that at which the channels want to be looked at.
    fn horizon(&mut self) -> (u64, u64) {
        let now = self.icount();
        let mut until = self.next_anchor;
        let mut enough = self.next_control.max(now + 1);
        if let Some(n) = self.policy.stop_at {
            until = until.min(n);
        }
        if let Some(t) = self.next_deadline() {
            until = until.min(self.board.clock.icount_at(t));
        }
        if let Some(n) = self.cores.cpu().cp15.pmu.next_overflow().filter(|_| self.board.pmu_connected()) {
            until = until.min(n);
        }
        match self.mode {
            Mode::Replay(_) => {
                let cpu = self.cores.cpu();
                if let Some(e) = self.pending.as_ref().filter(|e| e.pos.epoch == cpu.epoch) {
                    until = until.min(cpu.epoch_start + e.pos.count);
                }
            }
            Mode::Plain | Mode::Record(_) => {
                enough = enough.min(now + self.slice());
                if let Some(end) = self.board.burst_end() {
                    enough = enough.min(end.max(now + 1));
                }
            }
        }
        (until, enough)
    }

    /// Instructions until the next look at the channels: few while there is traffic, as a driver may wait for what a posted write does;
    /// many else, as a look costs as much as some hundred instructions. Where the looks lie is no part of the execution: what
    /// they find is journaled with its position.
    fn slice(&mut self) -> u64 {
        let now = self.icount();
        if self.board.traffic != self.seen_traffic {
            self.seen_traffic = self.board.traffic;
            self.busy_until = now + BUSY_SLICES * self.policy.slice;
        }
        let slice = if self.expecting || now < self.busy_until { self.policy.slice } else { self.policy.long_slice };
        if self.policy.jitter.is_none() {
            return slice;
        }
        1 + self.random() % (2 * slice)
    }

    fn random(&mut self) -> u64 {
        self.rng = fold(self.rng, 0x2545_f491_4f6c_dd1d);
        self.rng
    }

    fn next_deadline(&self) -> Option<u64> {
        let board = self.board.next_deadline();
        board.into_iter().chain(self.timers.iter().filter_map(TimerWatch::deadline)).min()
    }

    /// Whether the script's next entry can lie at the start of the next epoch, so that the run loop must see that start.
    fn next_is_near_epoch(&self) -> bool {
        self.pending.as_ref().is_some_and(|e| e.pos.epoch > self.cores.cpu().epoch)
    }

    // ---- recording ----

    /// Looks at every channel that may have something, consumes it here and journals it.
    fn poll(&mut self) -> Result<()> {
        self.expecting = false;
        let all = self.board.doomed.load(Ordering::Relaxed) > 0;
        for d in 0..self.board.links.len() {
            if self.board.links[d].must_poll() || all && !self.board.links[d].is_gone() {
                while self.consume_one(d)? {}
                self.admit(d)?;
                self.expecting |= self.board.links[d].outstanding.is_some();
            }
        }
        Ok(())
    }

    /// Consumes one effect that nothing waits for; journals it.
    fn consume_one(&mut self, device: usize) -> Result<bool> {
        let link = &mut self.board.links[device];
        let done = match link.outstanding {
            Some(seq) => link.port.passed(seq)?,
            None => true,
        };
        let number = link.effects;
        let Some((consumed, check)) = self.board.take_effect(device, u64::MAX)? else {
            if done {
                self.board.links[device].outstanding = None;
            }
            return Ok(false);
        };
        self.unasked(device, consumed)?;
        let pos = self.position();
        self.put(Entry { pos, what: What::Consumed { device, effect: number, check } })?;
        self.board.deliver_queued(self.vtime())?;
        self.fire_due()?;
        self.progress_if_due()?;
        Ok(true)
    }

    /// An answer that nobody waits for is a broken device.
    fn unasked(&mut self, device: usize, consumed: Consumed) -> Result<()> {
        if matches!(consumed, Consumed::Answer(_)) {
            bail!("channel {}: the device answered a request that was not made", self.board.links[device].name);
        }
        Ok(self.board.carry_on(device, consumed)?)
    }

    /// Admits the host input that a device's backend has offered.
    fn admit(&mut self, device: usize) -> Result<()> {
        while let Some((port, data)) = self.board.links[device].take_offer() {
            let (pos, vtime) = (self.position(), self.vtime());
            self.board.catch_up(device, vtime)?;
            let request = self.board.links[device].requests;
            self.put(Entry { pos, what: What::Host { device, request, port, data: data.clone() } })?;
            self.board.request(device, vtime, Request::Host { port, data: &data })?;
            self.fire_due()?;
            self.progress_if_due()?;
        }
        Ok(())
    }

    fn put(&mut self, entry: Entry) -> Result<()> {
        if let Mode::Record(j) = &mut self.mode {
            self.entries += 1;
            j.put(&entry)?;
        }
        Ok(())
    }

    fn anchor_and_progress(&mut self) -> Result<()> {
        if self.icount() >= self.next_anchor {
            self.next_anchor += self.policy.anchor_every;
            if matches!(self.mode, Mode::Record(_)) {
                let (pos, anchor) = (self.position(), self.anchor());
                self.put(Entry { pos, what: What::Anchor(anchor) })?;
                self.progress()?;
            }
        }
        self.progress_if_due()
    }

    /// A progress mark, if there were many messages since the last one.
    fn progress_if_due(&mut self) -> Result<()> {
        let due = self.messages() - self.last_progress.1 >= self.policy.messages_per_progress;
        if due && matches!(self.mode, Mode::Record(_)) { self.progress() } else { Ok(()) }
    }

    fn messages(&self) -> u64 {
        self.board.traffic + self.entries
    }

    fn anchor(&self) -> Anchor {
        let io = self.board.links.iter().fold(self.board.local_hash, |h, l| fold(h, l.hash));
        Anchor {
            icount: self.icount(),
            pc: self.cores.cpu().regs[15],
            cpsr: self.cores.cpu().cpsr(),
            regs: self.cores.register_hash(),
            io,
        }
    }

    fn progress_entry(&self) -> Entry {
        let marks =
            self.board.links.iter().map(|l| Mark { requests: l.requests, effects: l.effects, hash: l.hash }).collect();
        Entry { pos: self.position(), what: What::Progress { icount: self.icount(), vtime: self.vtime(), marks } }
    }

    fn progress(&mut self) -> Result<()> {
        let e = self.progress_entry();
        self.put(e)?;
        self.last_progress = (self.icount(), self.messages());
        self.board.leave_at = self.board.traffic + FLOOD * self.policy.messages_per_progress;
        Ok(())
    }

    // ---- replaying ----

    /// Makes the next entry of the script known.
    fn fetch(&mut self) -> Result<()> {
        if self.pending.is_none() && !self.script_done {
            if let Mode::Replay(s) = &mut self.mode {
                self.pending = s.next()?;
                self.script_done = self.pending.is_none();
            }
        }
        Ok(())
    }

    /// Does what the script says for the present position. Ends stay pending.
    fn follow_script(&mut self) -> Result<()> {
        loop {
            self.fetch()?;
            let Some(e) = &self.pending else { return Ok(()) };
            let pos = self.position();
            if e.pos > pos || matches!(e.what, What::End { .. }) && e.pos == pos {
                return Ok(());
            }
            if e.pos < pos {
                let (want, what) = (e.pos, format!("{:?}", e.what));
                return Err(self.diverged(
                    "the position of the next recorded entry",
                    format!("{what} at {want:?}"),
                    format!("already at {pos:?}"),
                ));
            }
            if matches!(e.what, What::Warp { .. }) {
                return Ok(());
            }
            let e = self.pending.take().expect("looked at above");
            self.entries += 1;
            self.follow(e)?;
        }
    }

    fn follow(&mut self, e: Entry) -> Result<()> {
        match e.what {
            What::Consumed { device, effect, check } => self.consume_scripted(device, effect, check),
            What::Host { device, request, port, data } => {
                let vtime = self.vtime();
                self.link(device)?;
                self.board.catch_up(device, vtime)?;
                let next = self.link(device)?.requests;
                self.same("the number of the request that carries host input", request, next)?;
                self.board.request(device, vtime, Request::Host { port, data: &data })?;
                self.fire_due()
            }
            What::Anchor(want) => {
                let got = self.anchor();
                self.same("the register anchor", want, got)
            }
            What::Progress { ref marks, .. } => {
                // The mark at the end of a recording: what was gathered there was sent, as nothing more came.
                let more = |d: usize| marks.get(d).is_some_and(|m| m.requests == self.board.links[d].requests + 1);
                if self.board.gathering().is_some_and(more) {
                    self.board.end_burst()?;
                }
                let got = self.progress_entry().what;
                self.same("the progress mark", e.what, got)
            }
            What::Warp { .. } | What::End { .. } => unreachable!("kept pending by follow_script"),
        }
    }

    fn link(&mut self, device: usize) -> Result<&mut crate::link::Link<P>> {
        self.board
            .links
            .get_mut(device)
            .with_context(|| format!("the recording names channel {device}, which the machine does not have"))
    }

    /// Consumes one effect where the recording consumed it; waits for a late one.
    fn consume_scripted(&mut self, device: usize, effect: u64, check: u64) -> Result<()> {
        let next = self.link(device)?.effects;
        self.same("the number of the effect consumed", effect, next)?;
        let (consumed, got) = loop {
            if let Some(c) = self.board.take_effect(device, u64::MAX)? {
                break c;
            }
            if let Err(e) = self.link(device)?.port.wait() {
                return Err(self.diverged(
                    "an effect of a device",
                    format!("effect {effect} of device {device}"),
                    e.to_string(),
                ));
            }
        };
        self.same("the effect of a device", check, got)?;
        self.unasked(device, consumed)?;
        self.board.deliver_queued(self.vtime())?;
        self.fire_due()
    }

    /// Whether the script ends here.
    fn script_end(&mut self) -> Result<Option<Flow>> {
        let Mode::Replay(_) = self.mode else { return Ok(None) };
        match &self.pending {
            Some(Entry { pos, what: What::End { reason, icount, .. } }) if *pos == self.position() => {
                let (reason, want) = (*reason, *icount);
                self.same("the instruction count at the end", want, self.icount())?;
                Ok(Some(Flow::End(reason)))
            }
            None if self.script_done => Ok(Some(Flow::End(EndReason::Limit))),
            _ => Ok(None),
        }
    }

    /// A recorded entry that can't happen where the recording has it: the core would have to wait here and does not.
    fn stuck(&mut self) -> Result<()> {
        let pos = self.position();
        match &self.pending {
            Some(e) if (e.pos.epoch, e.pos.count) == (pos.epoch, pos.count) => {
                let want = format!("{:?} at {:?}", e.what, e.pos);
                Err(self.diverged("an idle wait", want, "the core runs".into()))
            }
            _ => Ok(()),
        }
    }

    fn same<T: PartialEq + fmt::Debug>(&self, what: &str, want: T, got: T) -> Result<()> {
        if want == got { Ok(()) } else { Err(self.diverged(what, format!("{want:x?}"), format!("{got:x?}"))) }
    }

    fn diverged(&self, what: &str, expected: String, actual: String) -> anyhow::Error {
        let (pos, icount, pc) = (self.position(), self.icount(), self.cores.cpu().regs[15]);
        let core = (self.cores.len() > 1).then(|| self.cores.current());
        Divergence { pos, icount, core, pc, what: what.into(), expected, actual }.into()
    }

    // ---- idle ----

    /// Every core waits for an interrupt: guest time passes without instructions.
    fn idle(&mut self) -> Result<Flow> {
        match self.mode {
            Mode::Replay(_) => self.idle_replay(),
            Mode::Plain | Mode::Record(_) => self.idle_live(),
        }
    }

    fn warp(&mut self, ns: u64) {
        self.board.clock.add_warp(ns);
        self.cores.cpu_mut().note_warp();
    }

    /// Guest time to the next deadline, if there is one.
    fn to_deadline(&self) -> Option<u64> {
        self.next_deadline().map(|t| t.saturating_sub(self.vtime()))
    }

    fn idle_replay(&mut self) -> Result<Flow> {
        let here = self.pending.as_ref().filter(|e| e.pos == self.position()).map(|e| e.what.clone());
        match (here, self.to_deadline()) {
            (Some(What::Warp { ns }), left) => {
                self.pending = None;
                self.entries += 1;
                match (ns, left) {
                    (0, Some(left)) => self.warp(left),
                    (0, None) => {
                        return Err(self.diverged("an idle wait", "up to a deadline".into(), "no deadline".into()));
                    }
                    (ns, _) => self.warp(ns),
                }
                Ok(Flow::Run)
            }
            (None, Some(left)) if self.policy.idle == IdleMode::Warp => {
                self.warp(left);
                Ok(Flow::Run)
            }
            (here, left) => {
                let want = format!("{:?}", here.or(self.pending.as_ref().map(|e| e.what.clone())));
                Err(self.diverged("what ends an idle wait", want, format!("nothing to do, deadline {left:?}")))
            }
        }
    }

    fn idle_live(&mut self) -> Result<Flow> {
        // An offer that came while a device was asked something else is admitted before time passes.
        if self.drain()? || self.board.links.iter().any(|l| l.has_offer()) {
            return Ok(Flow::Run);
        }
        match (self.policy.idle, self.to_deadline()) {
            (IdleMode::Warp, Some(left)) => self.warp(left),
            (mode, left) => return self.idle_sleep(mode, left),
        }
        Ok(Flow::Run)
    }

    /// Waits until every posted write is done and consumes what they caused. True if there was anything.
    fn drain(&mut self) -> Result<bool> {
        let mut any = false;
        for d in 0..self.board.links.len() {
            if let Some(seq) = self.board.links[d].outstanding {
                self.board.links[d].port.wait_passed(seq)?;
                while self.consume_one(d)? {
                    any = true;
                }
            }
        }
        Ok(any)
    }

    /// Sleeps on the host's clock, or for input where guest time stands still.
    fn idle_sleep(&mut self, mode: IdleMode, left: Option<u64>) -> Result<Flow> {
        let ahead = match mode {
            IdleMode::Warp => 0,
            IdleMode::Realtime => (self.vtime() - self.started_vtime).saturating_sub(self.elapsed()),
        };
        let limit = match (mode, left) {
            (IdleMode::Realtime, Some(left)) => {
                let behind = self.elapsed().saturating_sub(self.vtime() - self.started_vtime);
                Some((left + ahead).saturating_sub(behind))
            }
            _ => None,
        };
        if limit != Some(0) {
            if matches!(self.mode, Mode::Record(_)) && self.messages() != self.last_progress.1 {
                self.progress()?;
            }
            // The world sees where the guest rests.
            if let Flow::End(reason) = self.look()? {
                return Ok(Flow::End(reason));
            }
            self.board.rest();
            self.host.sleep(self.board, limit.map(Duration::from_nanos))?;
            if let Flow::End(reason) = self.look()? {
                return Ok(Flow::End(reason));
            }
        }
        if mode == IdleMode::Realtime {
            let passed = self.elapsed().saturating_sub(self.vtime() - self.started_vtime);
            let (add, entry) = match left {
                Some(left) if left <= passed || limit == Some(0) => (left, 0),
                _ => (passed, passed),
            };
            if add > 0 {
                let pos = self.position();
                self.put(Entry { pos, what: What::Warp { ns: entry } })?;
                self.warp(add);
            }
        }
        Ok(Flow::Run)
    }

    fn elapsed(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Keeps a realtime machine from running ahead of the host's clock. Only a delay: nothing to record.
    fn throttle(&mut self) -> Result<()> {
        if self.policy.idle == IdleMode::Realtime && !matches!(self.mode, Mode::Replay(_)) {
            let ahead = (self.vtime() - self.started_vtime).saturating_sub(self.elapsed());
            if ahead > 2_000_000 {
                self.host.sleep(self.board, Some(Duration::from_nanos(ahead)))?;
            }
        }
        Ok(())
    }

    // ---- the end ----

    /// Brings everything to rest and writes or checks the last progress entry. The caller journals the end with its state hash.
    fn end(&mut self, reason: EndReason) -> Result<Outcome> {
        self.board.end_burst()?;
        let mut recorded_hash = None;
        let mut cut = false;
        match self.mode {
            Mode::Plain => {}
            Mode::Record(_) => self.progress()?,
            Mode::Replay(_) => {
                self.fetch()?;
                match self.pending.take() {
                    Some(Entry { pos, what: What::End { reason: want, state_hash, .. } }) => {
                        self.same("the reason and place of the end", (want, pos), (reason, self.position()))?;
                        recorded_hash = Some(state_hash);
                    }
                    Some(e) if reason != EndReason::Stopped => {
                        return Err(self.diverged(
                            "the end of the execution",
                            format!("{:?} at {:?}", e.what, e.pos),
                            format!("{reason:?}"),
                        ));
                    }
                    Some(_) => {}
                    None => cut = self.script_done,
                }
            }
        }
        for link in &mut self.board.links {
            if let Some(seq) = link.outstanding {
                link.port.wait_passed(seq)?;
            }
        }
        Ok(Outcome {
            reason,
            cut,
            pos: self.position(),
            icount: self.icount(),
            vtime: self.vtime(),
            entries: self.entries,
            recorded_hash,
        })
    }

    /// Journals the end. Called after [`Runner::run`] with the hash of the final state.
    pub fn put_end(&mut self, outcome: &Outcome, state_hash: [u8; 32]) -> Result<()> {
        let what = What::End { reason: outcome.reason, icount: outcome.icount, vtime: outcome.vtime, state_hash };
        self.put(Entry { pos: outcome.pos, what })
    }
}
