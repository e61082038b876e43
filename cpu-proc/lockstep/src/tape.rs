//! The bus of a run, taped for the reference.

use reprise_arm::bus::{After, At, Bus, BusFault, GuestRam, RamWrite};

/// One access, and the interrupt lines after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    at: At,
    pa: u64,
    size: u8,
    /// What is written; `None` for a read.
    write: Option<u64>,
    /// What came back: the value (0 for a write) and what to do.
    answer: Result<(u64, After), BusFault>,
    lines: (bool, bool),
}

/// The accesses of one run.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    accesses: Vec<Access>,
    lines: (bool, bool),
    /// What devices wrote to RAM: how many accesses came before, where, and what.
    dma: Vec<(usize, u64, Vec<u8>)>,
}

impl Tape {
    /// Begins a new run with these interrupt lines.
    pub(crate) fn clear(&mut self, lines: (bool, bool)) {
        self.accesses.clear();
        self.dma.clear();
        self.lines = lines;
    }
}

/// The real bus with a tape running.
pub(crate) struct Tap<'a> {
    bus: &'a mut dyn Bus,
    tape: &'a mut Tape,
}

impl<'a> Tap<'a> {
    pub(crate) fn new(bus: &'a mut dyn Bus, tape: &'a mut Tape) -> Self {
        Self { bus, tape }
    }

    fn note(&mut self, at: At, pa: u64, size: u8, write: Option<u64>, answer: Result<(u64, After), BusFault>) {
        let lines = self.bus.lines();
        self.tape.accesses.push(Access { at, pa, size, write, answer, lines });
    }
}

impl Bus for Tap<'_> {
    fn read(&mut self, at: At, pa: u64, size: u8) -> Result<(u64, After), BusFault> {
        let answer = self.bus.read(at, pa, size);
        self.note(at, pa, size, None, answer);
        answer
    }

    fn write(&mut self, at: At, pa: u64, size: u8, value: u64) -> Result<After, BusFault> {
        let answer = self.bus.write(at, pa, size, value);
        self.note(at, pa, size, Some(value), answer.map(|after| (0, after)));
        answer
    }

    fn take_dma_writes(&mut self, ram: &GuestRam, out: &mut Vec<RamWrite>) {
        let old = out.len();
        self.bus.take_dma_writes(ram, out);
        for &(pa, len) in &out[old..] {
            let mut bytes = vec![0; len as usize];
            ram.read(pa, &mut bytes).expect("a device has written there");
            self.tape.dma.push((self.tape.accesses.len(), pa, bytes));
        }
    }

    fn vtime(&self, icount: u64) -> u64 {
        self.bus.vtime(icount)
    }

    fn lines(&self) -> (bool, bool) {
        self.bus.lines()
    }
}

/// A tape for a bus. Only guest time, which is a function of the instruction count, comes from the real one.
pub(crate) struct Playback<'a> {
    tape: &'a Tape,
    bus: &'a dyn Bus,
    next: usize,
    /// Writes of devices that were taken over.
    dma: usize,
    wrong: Option<String>,
}

impl<'a> Playback<'a> {
    pub(crate) fn new(tape: &'a Tape, bus: &'a dyn Bus) -> Self {
        Self { tape, bus, next: 0, dma: 0, wrong: None }
    }

    /// An access that was not the taped one.
    pub(crate) fn wrong(&self) -> Option<String> {
        match self.tape.accesses.get(self.next) {
            _ if self.wrong.is_some() => self.wrong.clone(),
            Some(left) => Some(format!("the subject made an access that the reference did not: {}", text(left))),
            None => None,
        }
    }

    /// Nothing was wrong and nothing is left.
    pub(crate) fn finished(&self) -> bool {
        self.wrong.is_none() && self.next == self.tape.accesses.len()
    }

    /// Nothing was wrong so far.
    pub(crate) fn good(&self) -> bool {
        self.wrong.is_none()
    }

    /// Accesses made.
    pub(crate) fn made(&self) -> usize {
        self.next
    }

    fn access(&mut self, at: At, pa: u64, size: u8, write: Option<u64>) -> Result<(u64, After), BusFault> {
        let value_mask = if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
        let cut = |v: Option<u64>| v.map(|v| v & value_mask);
        match self.tape.accesses.get(self.next) {
            Some(a) if self.wrong.is_none() && (a.at, a.pa, a.size, cut(a.write)) == (at, pa, size, cut(write)) => {
                self.next += 1;
                a.answer
            }
            other => {
                let mine = Access { at, pa, size, write, answer: Err(BusFault), lines: (false, false) };
                let taped = other.map_or("none".into(), text);
                self.wrong.get_or_insert(format!("accesses differ: taped {taped}; now {}", text(&mine)));
                Err(BusFault)
            }
        }
    }
}

fn text(a: &Access) -> String {
    let what = a.write.map_or("read".into(), |v| format!("write of {v:#x}"));
    format!("{what}, {} bytes at {:#x}, instruction {} (pc {:#010x})", a.size, a.pa, a.at.icount, a.at.pc)
}

impl Bus for Playback<'_> {
    fn read(&mut self, at: At, pa: u64, size: u8) -> Result<(u64, After), BusFault> {
        self.access(at, pa, size, None)
    }

    fn write(&mut self, at: At, pa: u64, size: u8, value: u64) -> Result<After, BusFault> {
        self.access(at, pa, size, Some(value)).map(|(_, after)| after)
    }

    fn take_dma_writes(&mut self, ram: &GuestRam, out: &mut Vec<RamWrite>) {
        for (before, pa, bytes) in &self.tape.dma[self.dma..] {
            if *before > self.next {
                break;
            }
            ram.write(*pa, bytes).expect("a device has written there");
            out.push((*pa, bytes.len() as u32));
            self.dma += 1;
        }
    }

    fn vtime(&self, icount: u64) -> u64 {
        self.bus.vtime(icount)
    }

    fn lines(&self) -> (bool, bool) {
        match self.next {
            0 => self.tape.lines,
            n => self.tape.accesses[n - 1].lines,
        }
    }
}
