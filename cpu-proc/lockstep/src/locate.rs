//! Finding the first instruction after which two engines differ.

use crate::ram::undo;
use crate::report::{self, Report, Step};
use crate::tape::{Playback, Tape};
use crate::{Difference, Finding, Lockstep, Twin, state_bytes};
use reprise_arm::bus::{Bus, GuestRam};
use reprise_arm::engine::{Budget, Engine};
use reprise_arm::state::Cpu;
use reprise_arm::statehash::CpuState;

/// Everything that runs a piece of the run again.
struct Again<'a, S, R> {
    subject: &'a mut S,
    reference: &'a mut R,
    twin: &'a mut Twin,
    tape: &'a Tape,
    cpu: &'a mut Cpu,
    ram: &'a GuestRam,
    bus: &'a dyn Bus,
    before: &'a CpuState,
}

impl<S: Engine, R: Engine> Lockstep<S, R> {
    /// Says in full what differs. Core and RAM are not fit to run on afterwards.
    pub(crate) fn locate(
        &mut self,
        cpu: &mut Cpu,
        ram: &GuestRam,
        bus: &dyn Bus,
        finding: &Finding,
        difference: Difference,
        wrong: Option<String>,
    ) -> String {
        let every = self.config.all_ram_every;
        let Self { subject, reference, twin, tape, .. } = self;
        let twin = twin.as_mut().expect("a run was compared");
        let names = (subject.name(), reference.name());
        if let Difference::Elsewhere(pa) = difference {
            return report::elsewhere(names.0, names.1, pa, ram, &twin.ram, Some((cpu.icount, every)));
        }
        let mut report = Report {
            names,
            before: finding.before.clone(),
            subject: finding.after.clone(),
            reference: twin.cpu.save(),
            wrong,
            ram: ram_difference(ram, twin),
            steps: Vec::new(),
            place: report::Place::Unknown,
            ended: (finding.after.pc(), twin.cpu.regs[15]),
        };
        undo(twin.ram.view(), twin.cpu.mmu.stored_pages());
        let mut again = Again { subject, reference, twin, tape, cpu, ram, bus, before: &finding.before };
        if again.reproduces(finding) {
            again.scan(finding.retired, &mut report);
        } else {
            again.trace(finding.retired, &mut report);
        }
        report.to_string()
    }
}

/// The first difference in what the reference stored to.
fn ram_difference(ram: &GuestRam, twin: &Twin) -> Option<(u64, u8, u8)> {
    let pages = twin.cpu.mmu.stored_pages();
    let at = pages.iter().find_map(|(pa, _)| twin.ram.page_difference(ram, *pa))?;
    Some(report::bytes_at(at, ram, &twin.ram))
}

impl<S: Engine, R: Engine> Again<'_, S, R> {
    /// Brings the subject back to the state before the run, and all RAM too.
    fn rewind(&mut self) {
        self.twin.ram.give_back(self.ram);
        self.restart();
    }

    /// The same if RAM is as it was already.
    fn restart(&mut self) {
        self.cpu.restore(self.before.clone()).expect("a state that was saved");
        self.cpu.mmu.log_stores();
    }

    /// Whether the subject comes to the same state again: as its caches are, or with empty ones.
    fn reproduces(&mut self, finding: &Finding) -> bool {
        let (mut want, mut got) = (Vec::new(), Vec::new());
        self.cpu.restore(finding.after.clone()).expect("a state that was saved");
        state_bytes(self.cpu, &mut want);
        for flush in [false, true] {
            if flush {
                self.subject.flush();
            }
            self.rewind();
            let mut play = Playback::new(self.tape, self.bus);
            self.subject.run(self.cpu, self.ram, &mut play, finding.budget);
            state_bytes(self.cpu, &mut got);
            if got == want {
                self.rewind();
                return true;
            }
        }
        self.rewind();
        false
    }

    /// Takes the reference one instruction on, and notes it.
    fn step(&mut self, play: &mut Playback<'_>, report: &mut Report) {
        let step = Step::next(&self.twin.cpu, self.twin.ram.view());
        self.reference.run(&mut self.twin.cpu, self.twin.ram.view(), play, Budget::exactly(1));
        report.steps.push((step, self.twin.cpu.save()));
    }

    fn reset_reference(&mut self) {
        self.reference.flush();
        self.twin.cpu.restore(self.before.clone()).expect("a state that was saved");
        self.twin.cpu.mmu.log_stores();
    }

    /// Runs the subject for one instruction more each time, beside a reference that goes on by one.
    fn scan(&mut self, n: u64, report: &mut Report) {
        self.reset_reference();
        let mut reference = Playback::new(self.tape, self.bus);
        for k in 1..=n {
            self.step(&mut reference, report);
            self.restart();
            let mut play = Playback::new(self.tape, self.bus);
            self.subject.run(self.cpu, self.ram, &mut play, Budget::exactly(k));
            let accesses = play.made() == reference.made() && play.good() && reference.good();
            let memory = self.memory_difference();
            if !accesses || memory.is_some() || !self.same_state() {
                report.place = report::Place::After(k);
                report.subject = self.cpu.save();
                report.reference = self.twin.cpu.save();
                report.ram = memory.map(|at| report::bytes_at(at, self.ram, &self.twin.ram));
                report.wrong = if accesses { None } else { report.wrong.take() };
                return;
            }
            undo(self.ram, self.cpu.mmu.stored_pages());
        }
        report.place = report::Place::BeforeNext;
    }

    /// The reference's way through the run alone.
    fn trace(&mut self, n: u64, report: &mut Report) {
        self.reset_reference();
        let mut play = Playback::new(self.tape, self.bus);
        for _ in 0..n {
            self.step(&mut play, report);
        }
    }

    fn same_state(&self) -> bool {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        state_bytes(self.cpu, &mut a);
        state_bytes(&self.twin.cpu, &mut b);
        a == b
    }

    fn memory_difference(&self) -> Option<u64> {
        let pages = self.cpu.mmu.stored_pages().iter().chain(self.twin.cpu.mmu.stored_pages());
        pages.map(|(pa, _)| *pa).find_map(|pa| self.twin.ram.page_difference(self.ram, pa))
    }
}
