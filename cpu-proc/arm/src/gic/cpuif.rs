//! The CPU interface's registers (ARM IHI 0048B 4.4), acknowledge, priority drop and deactivation (3.2).

use super::regs::*;
use super::{Candidate, Gic, SPURIOUS, SPURIOUS_GROUP1};

/// Through which view an interrupt is acknowledged or ended: the plain registers or the aliased ones (GICC_AIAR, GICC_AEOIR, GICC_AHPPIR),
/// which always speak of Group 1.
#[derive(Clone, Copy, PartialEq)]
enum Alias {
    No,
    Yes,
}

impl Gic {
    /// Reads the CPU interface of core `cpu` at `offset` (aligned to `size`, 1, 2 or 4). Reading GICC_IAR or GICC_AIAR acknowledges.
    pub fn cpu_read(&mut self, cpu: usize, secure: bool, offset: u32, size: u8) -> u32 {
        let mask = if size >= 4 { !0 } else { (1 << (8 * u32::from(size))) - 1 };
        self.cpu_word(cpu, self.view(secure), offset & !3) >> ((offset & 3) * 8) & mask
    }

    /// A register that came with version 2 of the architecture.
    fn is_absent(&self, offset: u32) -> bool {
        let of_v2 = matches!(offset, GICC_AIAR | GICC_AEOIR | GICC_AHPPIR | GICC_APR..0xf0 | GICC_DIR);
        self.cfg.version < 2 && of_v2
    }

    fn cpu_word(&mut self, cpu: usize, secure: bool, offset: u32) -> u32 {
        if self.is_absent(offset) {
            return 0;
        }
        let c = &self.s.cpu[cpu];
        match offset {
            GICC_CTLR if secure => c.ctlr,
            GICC_CTLR => {
                (c.ctlr >> 1 & 1) | (c.ctlr & CTLR_BYPASS1) >> 2 | u32::from(c.ctlr & CTLR_EOIMODE_NS != 0) << 9
            }
            GICC_PMR => self.priority_view(secure, u32::from(c.pmr)),
            GICC_BPR if secure => u32::from(c.bpr),
            GICC_BPR if c.ctlr & CTLR_CBPR != 0 => u32::from(c.bpr + 1).min(7),
            GICC_BPR => u32::from(c.abpr),
            GICC_ABPR if secure => u32::from(c.abpr),
            GICC_IAR => self.acknowledge(cpu, secure, Alias::No),
            GICC_AIAR if secure => self.acknowledge(cpu, secure, Alias::Yes),
            GICC_RPR => match self.running(cpu) {
                0x100 => 0xff,
                p => self.priority_view(secure, p),
            },
            GICC_HPPIR => self.highest_pending(cpu, secure, Alias::No),
            GICC_AHPPIR if secure => self.highest_pending(cpu, secure, Alias::Yes),
            GICC_APR..GICC_NSAPR if secure => c.apr[(offset - GICC_APR) as usize / 4],
            // Non-secure software sees its own half of the levels in GICC_APR0 up (IHI 0048B 4.4.14).
            GICC_APR..GICC_NSAPR => self.ns_apr(cpu, (offset - GICC_APR) as usize / 4),
            GICC_NSAPR..0xf0 if secure => c.nsapr[(offset - GICC_NSAPR) as usize / 4],
            GICC_IIDR => self.cfg.cpu_iidr,
            _ => 0,
        }
    }

    /// Writes the CPU interface of core `cpu` at `offset` (aligned to `size`, 1, 2 or 4; a narrow write sets the rest to zero).
    pub fn cpu_write(&mut self, cpu: usize, secure: bool, offset: u32, size: u8, value: u32) {
        let mask = if size >= 4 { !0 } else { (1 << (8 * u32::from(size))) - 1 };
        let value = (value & mask) << ((offset & 3) * 8);
        self.write_cpu_word(cpu, self.view(secure), offset & !3, value);
        self.update();
    }

    fn write_cpu_word(&mut self, cpu: usize, secure: bool, offset: u32, mut value: u32) {
        if self.is_absent(offset) {
            return;
        }
        if offset == GICC_CTLR && self.cfg.version < 2 {
            value &= if secure { 0x1f } else { 1 };
        }
        let min_bpr = self.cfg.min_bpr();
        let levels = self.levels(offset);
        let mask = self.priority_mask();
        let c = &mut self.s.cpu[cpu];
        match offset {
            GICC_CTLR if secure => c.ctlr = value & CTLR_WRITABLE,
            GICC_CTLR => {
                let new = (value & 1) << 1 | (value & 3 << 5) << 2 | (value >> 9 & 1) << 10;
                c.ctlr = c.ctlr & !(CTLR_GRP1 | CTLR_BYPASS1 | CTLR_EOIMODE_NS) | new;
            }
            GICC_PMR if secure => c.pmr = value as u8 & mask,
            // A mask in the Secure half is out of Non-secure reach.
            GICC_PMR if c.pmr & 0x80 != 0 => c.pmr = (0x80 | (value as u8) >> 1) & mask,
            GICC_BPR if secure => c.bpr = (value as u8 & 7).max(min_bpr),
            GICC_BPR if c.ctlr & CTLR_CBPR == 0 => c.abpr = (value as u8 & 7).max(min_bpr + 1),
            GICC_ABPR if secure => c.abpr = (value as u8 & 7).max(min_bpr + 1),
            GICC_EOIR => self.end(cpu, secure, Alias::No, value),
            GICC_AEOIR if secure => self.end(cpu, secure, Alias::Yes, value),
            GICC_DIR => self.deactivate_request(cpu, secure, value),
            GICC_APR..GICC_NSAPR if secure => c.apr[(offset - GICC_APR) as usize / 4] = value & levels,
            GICC_APR..GICC_NSAPR => self.set_ns_apr(cpu, (offset - GICC_APR) as usize / 4, value),
            GICC_NSAPR..0xf0 if secure => {
                c.nsapr[(offset - GICC_NSAPR) as usize / 4] = value & levels;
            }
            _ => {}
        }
    }

    /// Bits of an APR word that stand for a priority level.
    fn levels(&self, offset: u32) -> u32 {
        let words = (1usize << self.cfg.priority_bits.min(7)).div_ceil(32);
        if (offset as usize >> 2 & 3) >= words {
            0
        } else if self.cfg.priority_bits < 5 {
            (1 << (1 << self.cfg.priority_bits)) - 1
        } else {
            !0
        }
    }

    /// Active priorities of Group 1 in the Non-secure view: the upper half of the levels, moved down.
    fn ns_apr(&self, cpu: usize, w: usize) -> u32 {
        let half = 1usize << (self.cfg.priority_bits.min(7) - 1);
        let bit = |n: usize| {
            let level = half + 32 * w + n;
            u32::from(32 * w + n < half && self.s.cpu[cpu].nsapr[level / 32] >> (level % 32) & 1 != 0) << n
        };
        (0..32).map(bit).sum()
    }

    fn set_ns_apr(&mut self, cpu: usize, w: usize, value: u32) {
        let half = 1usize << (self.cfg.priority_bits.min(7) - 1);
        for n in (0..32).filter(|n| 32 * w + n < half) {
            let level = half + 32 * w + n;
            let word = &mut self.s.cpu[cpu].nsapr[level / 32];
            *word = *word & !(1 << (level % 32)) | (value >> n & 1) << (level % 32);
        }
    }

    /// A priority as GICC_PMR and GICC_RPR show it: Non-secure software sees the lower half of the range only (IHI 0048B 3.8.1).
    fn priority_view(&self, secure: bool, priority: u32) -> u32 {
        match (secure, priority & 0x80 != 0) {
            (true, _) => priority,
            (false, true) => priority << 1 & 0xff,
            (false, false) => 0,
        }
    }

    /// What a read of IAR or HPPIR tells about a candidate (IHI 0048B tables 3-7 and 3-8); `Err` is a special ID.
    fn disclose(&self, cpu: usize, secure: bool, alias: Alias, best: Option<Candidate>) -> Result<Candidate, u32> {
        let c = best.ok_or(SPURIOUS)?;
        let ack_ctl = self.s.cpu[cpu].ctlr & CTLR_ACKCTL != 0;
        match (secure, alias, c.group1) {
            (true, Alias::No, true) if !ack_ctl => Err(SPURIOUS_GROUP1),
            (true, Alias::Yes, false) | (false, _, false) => Err(SPURIOUS),
            _ => Ok(c),
        }
    }

    /// The core that sent a pending SGI, in bits 12:10 of IAR and HPPIR; the lowest one if there are several.
    fn source(&self, cpu: usize, id: u32) -> u32 {
        if id < 16 { self.s.sgi[cpu][id as usize].trailing_zeros() & 7 } else { 0 }
    }

    fn highest_pending(&self, cpu: usize, secure: bool, alias: Alias) -> u32 {
        match self.disclose(cpu, secure, alias, self.candidate(cpu)) {
            Ok(c) => c.id | self.source(cpu, c.id) << 10,
            Err(special) => special,
        }
    }

    /// GICC_IAR: the interrupt becomes active and its group priority runs.
    fn acknowledge(&mut self, cpu: usize, secure: bool, alias: Alias) -> u32 {
        let c = match self.disclose(cpu, secure, alias, self.signalled(cpu)) {
            Ok(c) => c,
            Err(special) => return special,
        };
        let source = self.source(cpu, c.id);
        let mut still = false;
        if c.id < 16 {
            let sources = &mut self.s.sgi[cpu][c.id as usize];
            *sources &= sources.wrapping_sub(1);
            still = *sources != 0;
        }
        self.s.latch.set(cpu, c.id, still);
        self.s.active.set(cpu, c.id, true);
        let level = self.level(self.group_priority(cpu, c.priority, c.group1));
        let iface = &mut self.s.cpu[cpu];
        let apr = if c.group1 { &mut iface.nsapr } else { &mut iface.apr };
        apr[level / 32] |= 1 << (level % 32);
        self.update();
        c.id | source << 10
    }

    /// GICC_EOIR: drops the running priority and, unless GICC_CTLR.EOImode separates the two, deactivates.
    ///
    /// A Non-secure write that names a Group 0 interrupt is ignored. A Secure one may end either group.
    fn end(&mut self, cpu: usize, secure: bool, alias: Alias, value: u32) {
        let id = value & 0x3ff;
        if id as usize >= 32 + self.cfg.spis {
            return;
        }
        let group1 = self.s.group1.get(cpu, id);
        if !group1 && (!secure || alias == Alias::Yes) {
            return;
        }
        let iface = &mut self.s.cpu[cpu];
        let apr = if group1 { &mut iface.nsapr } else { &mut iface.apr };
        if let Some(word) = apr.iter_mut().find(|w| **w != 0) {
            *word &= *word - 1;
        }
        let mode = if secure { CTLR_EOIMODE_S } else { CTLR_EOIMODE_NS };
        if iface.ctlr & mode == 0 {
            self.s.active.set(cpu, id, false);
        }
    }

    /// GICC_DIR: only meaningful while EOImode separates deactivation, UNPREDICTABLE (ignored) otherwise.
    fn deactivate_request(&mut self, cpu: usize, secure: bool, value: u32) {
        let id = value & 0x3ff;
        let mode = if secure { CTLR_EOIMODE_S } else { CTLR_EOIMODE_NS };
        let split = self.s.cpu[cpu].ctlr & mode != 0;
        if split && (id as usize) < 32 + self.cfg.spis && (secure || self.s.group1.get(cpu, id)) {
            self.s.active.set(cpu, id, false);
        }
    }
}
