//! The level 2 cache controller L2C-310, alias PL310 (TRM DDI 0246, r3p3). Caches are invisible here, so this is its register file: what is
//! configured reads back, and maintenance is complete at once.

use serde::{Deserialize, Serialize};

/// Size of the register block.
pub const SIZE: u64 = 0x1000;

const CACHE_ID: u32 = 0x000;
const CACHE_TYPE: u32 = 0x004;
const CONTROL: u32 = 0x100;
const AUX: u32 = 0x104;
const TAG_LATENCY: u32 = 0x108;
const DATA_LATENCY: u32 = 0x10c;
const EVENT_CONTROL: u32 = 0x200;
const EVENT_CONFIG1: u32 = 0x204;
const EVENT_CONFIG0: u32 = 0x208;
const INT_MASK: u32 = 0x214;
const LOCKDOWN: u32 = 0x900;
const LOCKDOWN_END: u32 = 0x940;
const LOCK_LINE: u32 = 0x950;
const FILTER_START: u32 = 0xc00;
const FILTER_END: u32 = 0xc04;
const DEBUG: u32 = 0xf40;
const PREFETCH: u32 = 0xf60;
const POWER: u32 = 0xf80;

/// Implementer ARM, part L2C-310, release r3p2.
const ID: u32 = 0x4100_00c8;
/// Lockdown by master and by line are there; the sizes come from the auxiliary control register.
const TYPE: u32 = 0x1c00_0000;

/// Instruction and data prefetch: the same two bits in the auxiliary and the prefetch control register (TRM 3.3.14).
const PREFETCH_ON: u32 = 3 << 28;

/// What distinguishes one implementation from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2Config {
    /// Bytes of a way: 16 KiB to 512 KiB, a power of two.
    pub way_size: u32,
    /// Ways: 8 or 16.
    pub ways: u32,
}

impl L2Config {
    /// The auxiliary control register out of reset (TRM 3.3.4): round-robin replacement, way size, associativity.
    fn aux(&self) -> u32 {
        let code = self.way_size.trailing_zeros() - 13;
        1 << 25 | code << 17 | u32::from(self.ways == 16) << 16
    }
}

/// Everything that changes: what is saved and hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2State {
    /// Control register: bit 0 is the enable.
    pub control: u32,
    /// Auxiliary control register.
    pub aux: u32,
    /// Tag and data RAM latency control registers.
    pub latency: [u32; 2],
    /// Event counter control, and configuration of counters 0 and 1. The counters stand still.
    pub event: [u32; 3],
    /// Interrupt mask register. No interrupt ever comes.
    pub int_mask: u32,
    /// Lockdown registers: data and instructions for each of eight masters.
    pub lockdown: [u32; 16],
    /// Lockdown by line enable.
    pub lock_line: u32,
    /// Address filtering start and end.
    pub filter: [u32; 2],
    /// Debug control register.
    pub debug: u32,
    /// Prefetch control register.
    pub prefetch: u32,
    /// Power control register.
    pub power: u32,
}

/// The controller.
#[derive(Debug, Clone)]
pub struct L2c310 {
    cfg: L2Config,
    s: L2State,
}

impl L2c310 {
    /// A controller out of reset.
    ///
    /// # Panics
    /// If the configuration is outside the limits that [`L2Config`] names.
    pub fn new(cfg: L2Config) -> L2c310 {
        let size = cfg.way_size;
        assert!(size.is_power_of_two() && (16 << 10..=512 << 10).contains(&size), "ways of 16 KiB to 512 KiB");
        assert!(matches!(cfg.ways, 8 | 16), "8 or 16 ways");
        let s = L2State {
            control: 0,
            aux: cfg.aux(),
            latency: [0x777; 2],
            event: [0; 3],
            int_mask: 0,
            lockdown: [0; 16],
            lock_line: 0,
            filter: [0; 2],
            debug: 0,
            prefetch: 0,
            power: 0,
        };
        L2c310 { cfg, s }
    }

    /// The state, to look at and for checkpoints.
    pub fn state(&self) -> &L2State {
        &self.s
    }

    /// Takes over a saved state.
    pub fn restore(&mut self, state: L2State) {
        self.s = state;
    }

    fn enabled(&self) -> bool {
        self.s.control & 1 != 0
    }

    /// The cache type register (TRM 3.3.2): way size and associativity, for data and for instructions.
    fn cache_type(&self) -> u32 {
        let sizes = (self.s.aux >> 17 & 7) << 2 | (self.s.aux >> 16 & 1);
        TYPE | sizes << 18 | sizes << 6
    }

    /// Reads the word at `offset` (a multiple of 4).
    pub fn read(&self, offset: u32) -> u32 {
        let s = &self.s;
        match offset {
            CACHE_ID => ID,
            CACHE_TYPE => self.cache_type(),
            CONTROL => s.control,
            AUX => s.aux,
            TAG_LATENCY => s.latency[0],
            DATA_LATENCY => s.latency[1],
            EVENT_CONTROL => s.event[0],
            EVENT_CONFIG1 => s.event[2],
            EVENT_CONFIG0 => s.event[1],
            INT_MASK => s.int_mask,
            LOCKDOWN..LOCKDOWN_END => s.lockdown[(offset - LOCKDOWN) as usize / 4],
            LOCK_LINE => s.lock_line,
            FILTER_START => s.filter[0],
            FILTER_END => s.filter[1],
            DEBUG => s.debug,
            PREFETCH => s.prefetch,
            POWER => s.power,
            // Counters, interrupt status; and maintenance, which is never busy.
            _ => 0,
        }
    }

    /// Writes the word at `offset` (a multiple of 4). The registers that configure the cache ignore Non-secure writes, unless the auxiliary control
    /// register's bits 26 and 27 open lockdown and interrupts to them; those that lay it out ignore writes while it is on (the
    /// TRM answers some of these with an error).
    pub fn write(&mut self, secure: bool, offset: u32, value: u32) {
        let lockdown_open = secure || self.s.aux >> 26 & 1 != 0;
        let int_open = secure || self.s.aux >> 27 & 1 != 0;
        let off = secure && !self.enabled();
        let ways = (1 << self.cfg.ways) - 1;
        let s = &mut self.s;
        match offset {
            CONTROL if secure => s.control = value & 1,
            AUX if off => {
                s.aux = value & 0x7fff_3c01;
                s.prefetch = s.prefetch & !PREFETCH_ON | value & PREFETCH_ON;
            }
            TAG_LATENCY if off => s.latency[0] = value & 0x777,
            DATA_LATENCY if off => s.latency[1] = value & 0x777,
            // Bits 2:1 reset the counters, which are zero.
            EVENT_CONTROL => s.event[0] = value & 1,
            EVENT_CONFIG1 => s.event[2] = value & 0x3f,
            EVENT_CONFIG0 => s.event[1] = value & 0x3f,
            INT_MASK if int_open => s.int_mask = value & 0x1ff,
            LOCKDOWN..LOCKDOWN_END if lockdown_open => s.lockdown[(offset - LOCKDOWN) as usize / 4] = value & ways,
            LOCK_LINE if lockdown_open => s.lock_line = value & 1,
            FILTER_START if secure => s.filter[0] = value & 0xfff0_0001,
            FILTER_END if secure => s.filter[1] = value & 0xfff0_0000,
            DEBUG if secure => s.debug = value & 7,
            PREFETCH if secure => {
                s.prefetch = value & 0x79a0_001f;
                s.aux = s.aux & !PREFETCH_ON | value & PREFETCH_ON;
            }
            POWER if secure => s.power = value & 3,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The V2P-CA9's: 512 KiB in 8 ways.
    fn tile() -> L2c310 {
        L2c310::new(L2Config { way_size: 64 << 10, ways: 8 })
    }

    #[test]
    fn identification_and_layout() {
        let mut c = tile();
        assert_eq!(c.read(CACHE_ID), 0x4100_00c8);
        assert_eq!(c.read(AUX), 0x0206_0000);
        assert_eq!(c.read(CACHE_TYPE), 0x1c30_0300);
        let big = L2c310::new(L2Config { way_size: 128 << 10, ways: 16 });
        assert_eq!((big.read(AUX), big.read(CACHE_TYPE)), (0x0209_0000, 0x1c44_0440));
        // Like the kernel's driver: early BRESP, prefetch, the way size it found; then the cache goes on and the layout is fixed.
        c.write(true, AUX, 0x7246_0001);
        assert_eq!(c.read(AUX), 0x7246_0001);
        assert_eq!(c.read(PREFETCH), 0x3000_0000);
        c.write(true, CONTROL, 0xffff_ffff);
        assert_eq!(c.read(CONTROL), 1);
        for at in [AUX, TAG_LATENCY, DATA_LATENCY, CACHE_ID, CACHE_TYPE] {
            let before = c.read(at);
            c.write(true, at, !before);
            assert_eq!(c.read(at), before, "{at:#x}");
        }
    }

    #[test]
    fn maintenance_is_never_busy() {
        let mut c = tile();
        c.write(true, CONTROL, 1);
        // Sync, then invalidate, clean, clean and invalidate: by address, by index, by way.
        for at in [0x730, 0x770, 0x77c, 0x7b0, 0x7b8, 0x7bc, 0x7f0, 0x7f8, 0x7fc] {
            let before = c.state().clone();
            c.write(true, at, 0xffff_ffff);
            assert_eq!(c.read(at), 0, "{at:#x}");
            assert_eq!(*c.state(), before);
        }
    }

    #[test]
    fn registers_keep_their_bits() {
        let mut c = tile();
        for (at, mask) in [
            (TAG_LATENCY, 0x777),
            (DATA_LATENCY, 0x777),
            (EVENT_CONTROL, 1),
            (EVENT_CONFIG0, 0x3f),
            (EVENT_CONFIG1, 0x3f),
            (INT_MASK, 0x1ff),
            (LOCKDOWN, 0xff),
            (LOCKDOWN + 0x3c, 0xff),
            (LOCK_LINE, 1),
            (FILTER_START, 0xfff0_0001),
            (FILTER_END, 0xfff0_0000),
            (DEBUG, 7),
            (PREFETCH, 0x79a0_001f),
            (POWER, 3),
        ] {
            c.write(true, at, !0);
            assert_eq!(c.read(at), mask, "{at:#x}");
        }
        // The event counters, the raw and masked status and the clear register stay zero.
        for at in [0x20c, 0x210, 0x218, 0x21c, 0x220] {
            c.write(true, at, !0);
            assert_eq!(c.read(at), 0, "{at:#x}");
        }
    }

    #[test]
    fn non_secure_software_configures_nothing_unless_it_may() {
        let mut c = tile();
        let before = c.state().clone();
        for at in (0x100..0x1000).step_by(4).filter(|at| !(0x200..0x20c).contains(at)) {
            c.write(false, at, !0);
        }
        assert_eq!(*c.state(), before);
        c.write(true, AUX, 3 << 26);
        c.write(false, LOCKDOWN, !0);
        c.write(false, INT_MASK, !0);
        assert_eq!((c.read(LOCKDOWN), c.read(INT_MASK)), (0xff, 0x1ff));
    }
}
