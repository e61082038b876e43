//! What counts as a retired instruction, and when an epoch begins: the one definition (`docs/design.md`, "Time and position").
//!
//! An instruction retires when its effects are complete and the next instruction's address is known. Every way in which an instruction can
//! end is an [`End`]; engines ask it, so that they agree by construction.

use crate::state::Cpu;

/// How an instruction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// It completed: condition failed or passed, branch taken or not, IT, NOP and hints included.
    Completed,
    /// WFI or WFE, whether or not the core then waits.
    Wait,
    /// SVC: it retires, then its exception is entered.
    SupervisorCall,
    /// SMC that is not UNDEFINED: as SVC.
    MonitorCall,
    /// HVC or SMC that the machine's firmware takes: it retires, then the firmware answers.
    FirmwareCall,
    /// Undefined instruction, HVC without firmware included (there is no Hyp mode here).
    Undefined,
    /// The instruction could not be fetched.
    PrefetchAbort,
    /// BKPT: it is a prefetch abort of the debug class.
    Breakpoint,
    /// A load or store aborted.
    DataAbort,
    /// No instruction: an interrupt was taken between two.
    Interrupt,
}

impl End {
    /// Instructions that this end adds to `icount`: 1 or 0.
    pub const fn retired(self) -> u64 {
        match self {
            End::Completed | End::Wait | End::SupervisorCall | End::MonitorCall | End::FirmwareCall => 1,
            End::Undefined | End::PrefetchAbort | End::Breakpoint | End::DataAbort | End::Interrupt => 0,
        }
    }

    /// Whether an epoch begins with this instruction, given that it made an MMIO access that reached the bus.
    pub const fn begins_epoch(self, mmio: bool) -> bool {
        mmio && self.retired() == 1
    }
}

/// Begins the epoch of the instruction that is number `icount` (counted from 0 since reset), which made an MMIO access and retired.
pub fn commit_epoch(cpu: &mut Cpu, icount: u64) {
    cpu.epoch += 1;
    cpu.epoch_start = icount + 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;

    /// Pins the definition: a change here changes the meaning of every recording.
    #[test]
    fn what_retires() {
        let all = [
            (End::Completed, 1),
            (End::Wait, 1),
            (End::SupervisorCall, 1),
            (End::MonitorCall, 1),
            (End::FirmwareCall, 1),
            (End::Undefined, 0),
            (End::PrefetchAbort, 0),
            (End::Breakpoint, 0),
            (End::DataAbort, 0),
            (End::Interrupt, 0),
        ];
        for (end, n) in all {
            assert_eq!(end.retired(), n, "{end:?}");
            assert_eq!(end.begins_epoch(true), n == 1, "{end:?}");
            assert!(!end.begins_epoch(false), "{end:?}");
        }
    }

    #[test]
    fn the_accessing_instruction_is_number_zero_of_its_epoch() {
        let mut cpu = Cpu::new(Model::cortex_a15(0, 1, 0x2c00_0000, 100_000_000));
        cpu.icount = 10;
        commit_epoch(&mut cpu, 9);
        assert_eq!((cpu.pos().epoch, cpu.pos().count), (1, 0));
        cpu.icount = 12;
        assert_eq!(cpu.pos().count, 2);
    }
}
