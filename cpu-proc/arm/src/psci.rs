//! The firmware of a machine that has one: the Power State Coordination Interface (ARM DEN 0022D, PSCI 1.0), called by HVC or SMC with the
//! register use of the SMC Calling Convention (ARM DEN 0028).
//!
//! There is no firmware code. A call is an instruction like any other: it retires, begins no epoch, and makes the engine leave. What it asks for is
//! done between two instructions by [`Cores::answer_call`], which alone sees every core; so it is the same whatever engine runs, and a
//! recording needs no word about it.

use serde::{Deserialize, Serialize};

use crate::cores::Cores;
use crate::mmu::Reach;
use crate::psr::PSR_T;
use crate::state::Cpu;

/// The instruction that calls the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conduit {
    /// HVC, which is UNDEFINED otherwise, as there is no Hyp mode.
    Hvc,
    /// SMC, which no Monitor sees then.
    Smc,
}

/// What the firmware asks of the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SYSTEM_OFF.
    PowerOff,
    /// SYSTEM_RESET.
    Reset,
}

/// Function identifiers (DEN 0022D 5.1). They are those for 32-bit callers, which all callers here are.
pub mod function {
    /// PSCI_VERSION.
    pub const VERSION: u32 = 0x8400_0000;
    /// CPU_SUSPEND.
    pub const CPU_SUSPEND: u32 = 0x8400_0001;
    /// CPU_OFF.
    pub const CPU_OFF: u32 = 0x8400_0002;
    /// CPU_ON.
    pub const CPU_ON: u32 = 0x8400_0003;
    /// AFFINITY_INFO.
    pub const AFFINITY_INFO: u32 = 0x8400_0004;
    /// MIGRATE_INFO_TYPE.
    pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    /// SYSTEM_OFF.
    pub const SYSTEM_OFF: u32 = 0x8400_0008;
    /// SYSTEM_RESET.
    pub const SYSTEM_RESET: u32 = 0x8400_0009;
    /// PSCI_FEATURES.
    pub const FEATURES: u32 = 0x8400_000a;
}

/// Return codes (DEN 0022D 5.2.2).
pub mod code {
    /// SUCCESS; of AFFINITY_INFO: ON.
    pub const SUCCESS: u32 = 0;
    /// NOT_SUPPORTED.
    pub const NOT_SUPPORTED: u32 = -1i32 as u32;
    /// INVALID_PARAMETERS.
    pub const INVALID_PARAMETERS: u32 = -2i32 as u32;
    /// ALREADY_ON.
    pub const ALREADY_ON: u32 = -4i32 as u32;
    /// AFFINITY_INFO: OFF.
    pub const OFF: u32 = 1;
    /// MIGRATE_INFO_TYPE: no Trusted OS, or one that need not be migrated.
    pub const NO_MIGRATION: u32 = 2;
}

/// PSCI 1.0.
const VERSION: u32 = 0x0001_0000;
/// Bits of CPU_SUSPEND's power_state that must be zero in the original format (DEN 0022D 5.4.2): 31:26 and 23:17.
const POWER_STATE_ZERO: u32 = 0xfcfe_0000;
/// Affinity fields of MPIDR, as CPU_ON and AFFINITY_INFO name a core.
const AFFINITY: u32 = 0x00ff_ffff;

impl Cpu {
    /// HVC is a call of the firmware; else it is UNDEFINED. SMC likewise, which else goes to Monitor mode.
    #[inline]
    pub fn calls_firmware(&self, by: Conduit) -> bool {
        self.firmware == Some(by)
    }

    /// The instruction that calls the firmware has been executed: the engine must leave behind it.
    pub fn call_firmware(&mut self) {
        self.called = true;
        if self.regs[0] == function::CPU_OFF {
            // A core comes out of reset with an empty TLB. It is emptied here, by the core's own instruction, so that an engine that follows
            // another one does the same.
            let own = Reach::Core(self.core());
            self.mmu.flush_all(own);
        }
    }

    /// The reset that CPU_ON gives a core, and where it starts (DEN 0022D 5.6, 6.4): `entry` with bit 0 set means Thumb; r0 is `context`.
    fn power_on(&mut self, entry: u32, context: u32) {
        let mut new = Cpu::new(self.model.clone());
        (new.firmware, new.shares) = (self.firmware, self.shares);
        new.set_timeline(self.timeline());
        std::mem::swap(&mut new.mmu, &mut self.mmu);
        std::mem::swap(&mut new.undef_notes, &mut self.undef_notes);
        let thumb = if entry & 1 != 0 { PSR_T } else { 0 };
        new.set_cpsr(new.cpsr() | thumb);
        (new.regs[0], new.regs[15]) = (context, entry & !1);
        *self = new;
    }
}

impl Cores {
    /// Does what the core whose turn it is has called the firmware for, if it has since this was asked last, and puts the answer into its
    /// registers. To be called at once when an engine has left, before anything else looks at the cores.
    pub fn answer_call(&mut self) -> Option<Request> {
        if !std::mem::take(&mut self.cpu_mut().called) {
            return None;
        }
        let mut args = [0; 4];
        args.copy_from_slice(&self.cpu().regs[..4]);
        let [name, a, b, c] = args;
        let answer = match name {
            function::SYSTEM_OFF => return Some(Request::PowerOff),
            function::SYSTEM_RESET => return Some(Request::Reset),
            function::CPU_OFF => {
                self.cpu_mut().off = true;
                self.end_turn();
                return None;
            }
            function::VERSION => VERSION,
            function::CPU_SUSPEND => self.suspend(a),
            function::CPU_ON => self.turn_on(a, b, c),
            function::AFFINITY_INFO => self.affinity_info(a, b),
            function::MIGRATE_INFO_TYPE => code::NO_MIGRATION,
            function::FEATURES => features(a),
            _ => code::NOT_SUPPORTED,
        };
        self.cpu_mut().regs[0] = answer;
        None
    }

    /// CPU_SUSPEND: a standby state, which is WFI. A powerdown state may be treated as one (DEN 0022D 5.4.5), and is.
    fn suspend(&mut self, power_state: u32) -> u32 {
        if power_state & POWER_STATE_ZERO != 0 {
            return code::INVALID_PARAMETERS;
        }
        self.cpu_mut().waiting = true;
        code::SUCCESS
    }

    /// CPU_ON: the core comes out of reset at once; it runs when its turn comes.
    fn turn_on(&mut self, target: u32, entry: u32, context: u32) -> u32 {
        match self.find(target) {
            None => code::INVALID_PARAMETERS,
            // An ARM instruction is word-aligned.
            Some(_) if entry & 3 == 2 => code::INVALID_PARAMETERS,
            Some(n) if !self.all()[n].off => code::ALREADY_ON,
            Some(n) => {
                self.all_mut()[n].power_on(entry, context);
                code::SUCCESS
            }
        }
    }

    /// AFFINITY_INFO: of one core, or whether any core below a higher affinity level is on.
    fn affinity_info(&self, target: u32, level: u32) -> u32 {
        if level > 3 {
            return code::INVALID_PARAMETERS;
        }
        let known = AFFINITY << (8 * level) & AFFINITY;
        let below = self.all().iter().filter(|c| (c.model.mpidr ^ target) & known == 0);
        match below.map(|c| !c.off).reduce(|a, b| a || b) {
            None => code::INVALID_PARAMETERS,
            Some(true) => code::SUCCESS,
            Some(false) => code::OFF,
        }
    }

    /// The core of an MPIDR.
    fn find(&self, target: u32) -> Option<usize> {
        self.all().iter().position(|c| c.model.mpidr & AFFINITY == target)
    }
}

/// PSCI_FEATURES: 0 for what there is, which for CPU_SUSPEND also says: original format of power_state, no OS-initiated mode.
fn features(name: u32) -> u32 {
    use function::{
        AFFINITY_INFO, CPU_OFF, CPU_ON, CPU_SUSPEND, FEATURES, MIGRATE_INFO_TYPE, SYSTEM_OFF, SYSTEM_RESET,
    };
    let there = [
        function::VERSION,
        CPU_SUSPEND,
        CPU_OFF,
        CPU_ON,
        AFFINITY_INFO,
        MIGRATE_INFO_TYPE,
        SYSTEM_OFF,
        SYSTEM_RESET,
        FEATURES,
    ];
    if there.contains(&name) { code::SUCCESS } else { code::NOT_SUPPORTED }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;
    use crate::psr::Mode;

    fn machine(n: u32) -> Cores {
        let cpu = |i| {
            let mut c = Cpu::new(Model::cortex_a15(i, n, 0x0800_0000, 62_500_000).without_security());
            (c.firmware, c.off) = (Some(Conduit::Hvc), i > 0);
            c
        };
        if n == 1 { Cores::from(cpu(0)) } else { Cores::new((0..n).map(cpu).collect(), 1000) }
    }

    /// The answer of a call by the core whose turn it is.
    fn call(c: &mut Cores, args: [u32; 4]) -> u32 {
        let cpu = c.cpu_mut();
        cpu.regs[..4].copy_from_slice(&args);
        cpu.call_firmware();
        assert_eq!(c.answer_call(), None);
        assert_eq!(c.answer_call(), None, "one call, one answer");
        assert_eq!(c.cpu().regs[1..4], args[1..], "r1 to r3 stay");
        c.cpu().regs[0]
    }

    #[test]
    fn what_is_there() {
        let mut c = machine(1);
        assert_eq!(call(&mut c, [function::VERSION, 1, 2, 3]), 0x1_0000);
        assert_eq!(call(&mut c, [function::MIGRATE_INFO_TYPE, 0, 0, 0]), 2);
        for f in (0..=4).chain([6, 8, 9, 10]) {
            assert_eq!(call(&mut c, [function::FEATURES, 0x8400_0000 + f, 0, 0]), 0, "function {f}");
        }
        for f in [0x8400_0005, 0x8400_0007, 0x8400_000e, 0xc400_0003, 0x8000_0000, 0] {
            assert_eq!(call(&mut c, [function::FEATURES, f, 0, 0]), code::NOT_SUPPORTED, "{f:#x}");
            assert_eq!(call(&mut c, [f, 1, 2, 3]), code::NOT_SUPPORTED, "{f:#x}");
        }
    }

    #[test]
    fn cores_go_on_and_off() {
        let mut c = machine(3);
        assert!(c.next_turn(|_| true));
        c.cpu_mut().icount = 1000;
        assert!(c.next_turn(|_| true));
        assert_eq!(c.current(), 0, "a core that is off has no turn, whatever interrupts");
        let info = |c: &mut Cores, n| call(c, [function::AFFINITY_INFO, n, 0, 0]);
        assert_eq!([0, 1, 2, 3].map(|n| info(&mut c, n)), [0, 1, 1, code::INVALID_PARAMETERS]);
        let off = c.register_hash();
        assert_eq!(call(&mut c, [function::CPU_ON, 1, 0x4000_0101, 77]), 0);
        assert_ne!(c.register_hash(), off, "who is on is part of the anchors");
        assert_eq!(call(&mut c, [function::CPU_ON, 1, 0x4000_0101, 77]), code::ALREADY_ON);
        assert_eq!(call(&mut c, [function::CPU_ON, 0, 0x4000_0101, 77]), code::ALREADY_ON);
        assert_eq!(call(&mut c, [function::CPU_ON, 3, 0x4000_0101, 77]), code::INVALID_PARAMETERS);
        assert_eq!(call(&mut c, [function::CPU_ON, 0x8000_0001, 0x4000_0101, 77]), code::INVALID_PARAMETERS);
        assert_eq!(call(&mut c, [function::CPU_ON, 2, 0x4000_0102, 77]), code::INVALID_PARAMETERS);
        assert_eq!([0, 1, 2].map(|n| info(&mut c, n)), [0, 0, 1]);
        c.end_turn();
        assert!(c.next_turn(|_| false));
        let new = c.cpu();
        assert_eq!((c.current(), new.icount), (1, 1000), "on the one timeline");
        assert_eq!((new.regs[0], new.regs[15], new.t, new.mode), (77, 0x4000_0100, true, Mode::Svc));
        assert!(new.a && new.i && new.f && !new.is_secure() && new.shares && new.firmware.is_some());
        // It dirties itself, goes off and comes back clean.
        c.cpu_mut().cp15.sctlr[1] |= 1;
        c.cpu_mut().regs[5] = 5;
        c.cpu_mut().regs[0] = function::CPU_OFF;
        c.cpu_mut().call_firmware();
        assert_eq!(c.answer_call(), None);
        assert!(c.next_turn(|_| true));
        assert_eq!((c.current(), info(&mut c, 1)), (0, 1));
        assert_eq!(call(&mut c, [function::CPU_ON, 1, 0x4000_0200, 0]), 0);
        let again = &c.all()[1];
        assert_eq!((again.regs[5], again.cp15.sctlr[1] & 1, again.regs[15], again.t), (0, 0, 0x4000_0200, false));
    }

    #[test]
    fn affinity_levels() {
        let mut c = machine(2);
        let info = |c: &mut Cores, target, level| call(c, [function::AFFINITY_INFO, target, level, 0]);
        assert_eq!(info(&mut c, 0, 1), 0, "the cluster has a core that is on");
        assert_eq!(info(&mut c, 1, 1), 0, "lower fields don't matter");
        assert_eq!(info(&mut c, 0x100, 1), code::INVALID_PARAMETERS);
        assert_eq!(info(&mut c, 0x100, 2), 0);
        assert_eq!(info(&mut c, 0, 4), code::INVALID_PARAMETERS);
        c.all_mut()[0].off = true;
        assert_eq!(info(&mut c, 0, 1), code::OFF);
    }

    #[test]
    fn suspend_is_a_wait() {
        let mut c = machine(1);
        assert_eq!(call(&mut c, [function::CPU_SUSPEND, 1 << 26, 0, 0]), code::INVALID_PARAMETERS);
        assert!(!c.cpu().waiting);
        assert_eq!(call(&mut c, [function::CPU_SUSPEND, 1 << 16, 0x4000_0000, 0]), 0);
        assert!(!c.next_turn(|_| false));
        assert!(c.next_turn(|_| true) && !c.cpu().waiting);
    }

    #[test]
    fn the_system_ends() {
        let mut c = machine(1);
        for (f, request) in [(function::SYSTEM_OFF, Request::PowerOff), (function::SYSTEM_RESET, Request::Reset)] {
            c.cpu_mut().regs[0] = f;
            c.cpu_mut().call_firmware();
            assert_eq!(c.answer_call(), Some(request));
            assert_eq!(c.cpu().regs[0], f, "nobody waits for an answer");
        }
    }

    #[test]
    fn the_power_block_of_the_state_hash() {
        let bytes = |c: &mut Cores| {
            let mut out = Vec::new();
            c.hash(&mut |b| out.extend_from_slice(b));
            out
        };
        let mut c = machine(2);
        let before = bytes(&mut c);
        assert_eq!(before.len(), 2 * 1006 + 20 + 10, "docs/state-hash.md names the sizes");
        assert_eq!(before[before.len() - 2..], [0, 1]);
        c.all_mut()[1].off = false;
        assert_ne!(bytes(&mut c), before);
    }
}
