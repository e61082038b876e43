//! The Distributor's registers (ARM IHI 0048B 4.3).

use super::regs::*;
use super::{Bits, Gic};

/// A bank of one bit per interrupt.
#[derive(Clone, Copy)]
enum Bank {
    Group,
    Enable,
    Pend,
    Active,
}

/// Which of the bank's two registers.
#[derive(Clone, Copy, PartialEq)]
enum Op {
    Assign,
    Set,
    Clear,
}

/// The bit bank at an offset, and its word number.
fn bit_bank(offset: u32) -> Option<(Bank, Op, usize)> {
    let w = (offset as usize & 0x7f) / 4;
    Some(match offset & !0x7f {
        GICD_IGROUPR => (Bank::Group, Op::Assign, w),
        GICD_ISENABLER => (Bank::Enable, Op::Set, w),
        GICD_ICENABLER => (Bank::Enable, Op::Clear, w),
        GICD_ISPENDR => (Bank::Pend, Op::Set, w),
        GICD_ICPENDR => (Bank::Pend, Op::Clear, w),
        GICD_ISACTIVER => (Bank::Active, Op::Set, w),
        GICD_ICACTIVER => (Bank::Active, Op::Clear, w),
        _ => return None,
    })
}

impl Gic {
    /// Reads the Distributor at `offset` (aligned to `size`, 1, 2 or 4) as core `cpu` in the given security state does.
    pub fn dist_read(&mut self, cpu: usize, secure: bool, offset: u32, size: u8) -> u32 {
        let shift = (offset & 3) * 8;
        let mask = if size >= 4 { !0 } else { (1 << (8 * u32::from(size))) - 1 };
        self.dist_word(cpu, self.view(secure), offset & !3) >> shift & mask
    }

    fn dist_word(&self, cpu: usize, secure: bool, offset: u32) -> u32 {
        if let Some((bank, _, w)) = bit_bank(offset) {
            return self.read_bits(cpu, secure, bank, w);
        }
        let bytes = |f: &dyn Fn(u32) -> u8| (0..4).fold(0, |v, i| v | u32::from(f(i)) << (8 * i));
        match offset {
            GICD_CTLR if secure => self.s.ctlr,
            GICD_CTLR => self.s.ctlr >> 1 & 1,
            GICD_TYPER => {
                (self.cfg.spis as u32 / 32) | (self.cfg.cpus as u32 - 1) << 5 | u32::from(self.cfg.security) << 10
            }
            GICD_IIDR => self.cfg.dist_iidr,
            GICD_IPRIORITYR..0x800 => bytes(&|i| self.read_priority(cpu, secure, offset - GICD_IPRIORITYR + i)),
            GICD_ITARGETSR..0xc00 => bytes(&|i| self.read_target(cpu, secure, offset - GICD_ITARGETSR + i)),
            GICD_ICFGR..0xd00 => self.read_config(cpu, secure, (offset - GICD_ICFGR) * 4),
            GICD_PPISR..0xd80 => {
                let w = (offset - GICD_PPISR) as usize / 4;
                let visible = self.visible(cpu, secure, w);
                // PPIs start at bit 0 of their register: ID 16.
                if w == 0 { (self.s.level.word(cpu, 0) & visible) >> 16 } else { self.s.level.word(cpu, w) & visible }
            }
            GICD_CPENDSGIR..0xf30 if self.cfg.version > 1 => bytes(&|i| self.read_sgi(cpu, secure, (offset & 0xf) + i)),
            GICD_PIDR4..0x1000 => self.dist_id((offset - GICD_PIDR4) as usize / 4),
            _ => 0,
        }
    }

    /// The identification registers: a PL390 is behind version 1 (PIDR1 0xb3, PIDR2 0x1b).
    fn dist_id(&self, n: usize) -> u32 {
        match (self.cfg.version, n) {
            (1, 5) => 0xb3,
            (1, 6) => 0x1b,
            _ => u32::from(DIST_ID[n]),
        }
    }

    /// Writes the Distributor at `offset` (aligned to `size`, 1, 2 or 4). Registers with one byte per interrupt take single bytes; a narrow
    /// write to any other register writes zeros to the rest of it.
    pub fn dist_write(&mut self, cpu: usize, secure: bool, offset: u32, size: u8, value: u32) {
        let secure = self.view(secure);
        let sgi_bytes = self.cfg.version > 1 && matches!(offset, GICD_CPENDSGIR..0xf30);
        let byte_wise = sgi_bytes || matches!(offset, GICD_IPRIORITYR..GICD_ICFGR);
        if byte_wise {
            for i in 0..u32::from(size.min(4)) {
                self.write_byte(cpu, secure, offset + i, (value >> (8 * i)) as u8);
            }
        } else {
            let mask = if size >= 4 { !0 } else { (1 << (8 * u32::from(size))) - 1 };
            self.write_word(cpu, secure, offset & !3, (value & mask) << ((offset & 3) * 8));
        }
        self.update();
    }

    fn write_byte(&mut self, cpu: usize, secure: bool, offset: u32, value: u8) {
        match offset {
            GICD_IPRIORITYR..0x800 => self.write_priority(cpu, secure, offset - GICD_IPRIORITYR, value),
            GICD_ITARGETSR..0xc00 => self.write_target(cpu, secure, offset - GICD_ITARGETSR, value),
            GICD_SPENDSGIR..0xf30 => self.write_sgi(cpu, secure, offset & 0xf, value, true),
            _ => self.write_sgi(cpu, secure, offset & 0xf, value, false),
        }
    }

    fn write_word(&mut self, cpu: usize, secure: bool, offset: u32, value: u32) {
        if let Some((bank, op, w)) = bit_bank(offset) {
            self.write_bits(cpu, secure, bank, op, w, value);
            return;
        }
        match offset {
            GICD_CTLR if secure => self.s.ctlr = value & 3,
            GICD_CTLR => self.s.ctlr = self.s.ctlr & 1 | (value & 1) << 1,
            GICD_ICFGR..0xd00 => self.write_config(cpu, secure, (offset - GICD_ICFGR) * 4, value),
            GICD_SGIR => self.send_sgi(cpu, secure, value),
            _ => {}
        }
    }

    /// Interrupts of word `w` that the access may see: Secure software sees all, Non-secure software Group 1 only.
    fn visible(&self, cpu: usize, secure: bool, w: usize) -> u32 {
        if secure { !0 } else { self.s.group1.word(cpu, w) }
    }

    fn sees(&self, cpu: usize, secure: bool, id: u32) -> bool {
        secure || self.s.group1.get(cpu, id)
    }

    fn exists(&self, id: u32) -> bool {
        (id as usize) < 32 + self.cfg.spis
    }

    fn read_bits(&self, cpu: usize, secure: bool, bank: Bank, w: usize) -> u32 {
        let v = match bank {
            Bank::Group if !secure => return 0,
            Bank::Group => self.s.group1.word(cpu, w),
            Bank::Enable => self.s.enabled.word(cpu, w),
            Bank::Pend => self.pending_word(cpu, w),
            Bank::Active => self.s.active.word(cpu, w),
        };
        v & self.visible(cpu, secure, w)
    }

    fn write_bits(&mut self, cpu: usize, secure: bool, bank: Bank, op: Op, w: usize, value: u32) {
        if matches!(bank, Bank::Group) && !secure {
            return;
        }
        let mut value = value & self.visible(cpu, secure, w);
        // SGIs can't be enabled, disabled or made pending through the bit banks.
        let sgi_fixed = w == 0 && matches!(bank, Bank::Enable | Bank::Pend);
        if sgi_fixed {
            value &= 0xffff_0000;
        }
        let s = &mut self.s;
        let bits: &mut Bits = match bank {
            Bank::Group => &mut s.group1,
            Bank::Enable => &mut s.enabled,
            Bank::Pend => &mut s.latch,
            Bank::Active => &mut s.active,
        };
        if let Some(word) = bits.word_mut(cpu, w) {
            match op {
                Op::Assign => *word = value,
                Op::Set => *word |= value,
                Op::Clear => *word &= !value,
            }
        }
    }

    fn read_priority(&self, cpu: usize, secure: bool, id: u32) -> u8 {
        match (secure, self.sees(cpu, secure, id)) {
            (true, _) => self.priority(cpu, id),
            // The Non-secure view is the lower half of the range, shifted up (IHI 0048B 3.8.1).
            (false, true) => self.priority(cpu, id) << 1,
            (false, false) => 0,
        }
    }

    fn write_priority(&mut self, cpu: usize, secure: bool, id: u32, value: u8) {
        if !self.exists(id) || !self.sees(cpu, secure, id) {
            return;
        }
        let value = if secure { value } else { 0x80 | value >> 1 } & self.priority_mask();
        match id {
            0..32 => self.s.priority_banked[cpu][id as usize] = value,
            _ => self.s.priority_shared[id as usize - 32] = value,
        }
    }

    /// RAZ/WI with a single core; IDs 0-31 read as the reading core (IHI 0048B 4.3.12).
    fn read_target(&self, cpu: usize, secure: bool, id: u32) -> u8 {
        if self.cfg.cpus == 1 || !self.exists(id) || !self.sees(cpu, secure, id) {
            return 0;
        }
        if id < 32 { 1 << cpu } else { self.s.target[id as usize - 32] }
    }

    fn write_target(&mut self, cpu: usize, secure: bool, id: u32, value: u8) {
        if self.cfg.cpus > 1 && id >= 32 && self.exists(id) && self.sees(cpu, secure, id) {
            self.s.target[id as usize - 32] = value & ((1u32 << self.cfg.cpus) - 1) as u8;
        }
    }

    /// Sixteen interrupts from `first`, two bits each: 0b10 is edge-triggered.
    fn read_config(&self, cpu: usize, secure: bool, first: u32) -> u32 {
        let edge = |id| self.sees(cpu, secure, id) && self.s.edge.get(cpu, id);
        (0..16).fold(0, |v, i| v | u32::from(edge(first + i)) << (2 * i + 1))
    }

    /// SGIs and PPIs have a fixed configuration on the Cortex-A15 and the Cortex-A9.
    fn write_config(&mut self, cpu: usize, secure: bool, first: u32, value: u32) {
        for i in 0..16 {
            let id = first + i;
            if id >= 32 && self.exists(id) && self.sees(cpu, secure, id) {
                self.s.edge.set(cpu, id, value >> (2 * i + 1) & 1 != 0);
            }
        }
    }

    /// GICD_SGIR (IHI 0048B 4.3.15). A Secure write reaches the group that NSATT names, a Non-secure one Group 1.
    fn send_sgi(&mut self, cpu: usize, secure: bool, value: u32) {
        let id = value & 0xf;
        let all = (1u32 << self.cfg.cpus) - 1;
        let targets = match value >> 24 & 3 {
            0 => value >> 16 & all,
            1 => all & !(1 << cpu),
            2 => 1 << cpu,
            _ => 0,
        };
        let group1 = !secure || value >> 15 & 1 != 0;
        for target in (0..self.cfg.cpus).filter(|t| targets >> t & 1 != 0) {
            if !self.cfg.security || self.s.group1.get(target, id) == group1 {
                self.s.sgi[target][id as usize] |= 1 << cpu;
                self.s.latch.set(target, id, true);
            }
        }
    }

    fn read_sgi(&self, cpu: usize, secure: bool, id: u32) -> u8 {
        if self.sees(cpu, secure, id) { self.s.sgi[cpu][id as usize] } else { 0 }
    }

    fn write_sgi(&mut self, cpu: usize, secure: bool, id: u32, sources: u8, set: bool) {
        if !self.sees(cpu, secure, id) {
            return;
        }
        let sources = sources & ((1u32 << self.cfg.cpus) - 1) as u8;
        let pending = &mut self.s.sgi[cpu][id as usize];
        *pending = if set { *pending | sources } else { *pending & !sources };
        let on = *pending != 0;
        self.s.latch.set(cpu, id, on);
    }
}
