//! Walker and TLB against tables written down from the manual, and against a model.

use super::*;
use crate::models::Model;
use crate::psr::Mode;

mod long;

const BASE: u64 = 0x8000_0000;
const RAM_SIZE: usize = 4 << 20;
/// First-level table.
const TTB: u64 = BASE + 0x4000;
/// Second-level table.
const L2: u64 = BASE + 0x8000;
/// A virtual address in the part of the space that TTBR0 serves for every N, and its page's target.
const VA: u32 = 0x0012_3456;
const PAGE: u64 = BASE + 0x10_0000;

struct Rig {
    cpu: Cpu,
    ram: GuestRam,
    _mem: Vec<u64>,
}

impl Rig {
    fn new() -> Rig {
        let mut mem = vec![0u64; RAM_SIZE / 8 + 512];
        let at = mem.as_mut_ptr().cast::<u8>();
        // SAFETY: `_mem` keeps the allocation, which has a page to spare for rounding up.
        let ram = unsafe { GuestRam::new(at.add(at.align_offset(4096)), BASE, RAM_SIZE as u64) };
        let mut cpu = Cpu::new(Model::cortex_a15(0, 1, 0x2c00_0000, 62_500_000));
        cpu.cp15.ttbr0[0] = TTB;
        cpu.cp15.dacr[0] = 0x5555_5555;
        cpu.cp15.sctlr[0] |= SCTLR_M;
        cpu.update_context();
        Rig { cpu, ram, _mem: mem }
    }

    fn put(&self, pa: u64, word: u32) {
        self.ram.write(pa, &word.to_le_bytes()).unwrap();
    }

    fn l1(&self, va: u32, d: u32) {
        self.put(TTB + u64::from(va >> 20) * 4, d);
    }

    /// A small page at `va` in domain 0.
    fn map(&self, va: u32, d: u32) {
        self.l1(va, L2 as u32 | 1);
        self.put(L2 + u64::from(va >> 12 & 0xff) * 4, d);
    }

    fn sctlr(&mut self, on: u32, off: u32) {
        self.cpu.cp15.sctlr[0] = self.cpu.cp15.sctlr[0] & !off | on;
        self.cpu.mmu.flush_all(Reach::All);
        self.cpu.update_context();
    }

    fn asid(&mut self, asid: u32) {
        self.cpu.cp15.contextidr[0] = asid;
        self.cpu.update_context();
    }

    fn dacr(&mut self, dacr: u32) {
        self.cpu.cp15.dacr[0] = dacr;
        self.cpu.update_context();
    }

    fn get(&mut self, va: u32, access: Access) -> Result<Phys, Abort> {
        self.cpu.translate(&self.ram, va, access, View::Current)
    }

    fn kind(&mut self, va: u32, access: Access) -> Option<FaultKind> {
        self.get(va, access).err().map(|a| a.kind)
    }

    /// "rwx" of a mode, by walking afresh.
    fn rights(&mut self, va: u32, mode: Mode) -> String {
        self.cpu.set_mode(mode);
        let mut out = String::new();
        for (access, c) in [(Access::Read, 'r'), (Access::Write, 'w'), (Access::Exec, 'x')] {
            self.cpu.mmu.flush_all(Reach::All);
            match self.get(va, access) {
                Ok(_) => out.push(c),
                Err(a) => {
                    assert!(matches!(a.kind, FaultKind::Permission(_)), "{a:?}");
                    out.push('-');
                }
            }
        }
        out
    }
}

/// Small-page descriptor.
fn small(pa: u64, ap: u32, tex: u32, cb: u32) -> u32 {
    pa as u32 | 2 | (ap & 3) << 4 | (ap >> 2) << 9 | tex << 6 | cb << 2
}

/// Section descriptor.
fn section(pa: u64, ap: u32, tex: u32, cb: u32) -> u32 {
    pa as u32 | 2 | (ap & 3) << 10 | (ap >> 2) << 15 | tex << 12 | cb << 2
}

const XN_SMALL: u32 = 1;
const NG_SMALL: u32 = 1 << 11;
const NORMAL: u32 = 0b11;

/// Table B3-8: AP, PL1, PL0; 0b100 is reserved. Instruction fetches need read access.
const AP_PLAIN: [(u32, &str, &str); 8] = [
    (0b000, "---", "---"),
    (0b001, "rwx", "---"),
    (0b010, "rwx", "r-x"),
    (0b011, "rwx", "rwx"),
    (0b100, "---", "---"),
    (0b101, "r-x", "---"),
    (0b110, "r-x", "r-x"),
    (0b111, "r-x", "r-x"),
];

/// Table B3-9: AP[2:1] with AP[0] as the access flag, set.
const AP_AFE: [(u32, &str, &str); 4] =
    [(0b001, "rwx", "---"), (0b011, "rwx", "rwx"), (0b101, "r-x", "---"), (0b111, "r-x", "r-x")];

fn each_descriptor(rig: &Rig, ap: u32, extra_small: u32, extra_section: u32, kind: usize) {
    match kind {
        0 => rig.map(VA, small(PAGE, ap, 0, NORMAL) | extra_small),
        _ => rig.l1(VA, section(PAGE, ap, 0, NORMAL) | extra_section),
    }
}

#[test]
fn access_permissions() {
    let mut rig = Rig::new();
    for kind in 0..2 {
        for (ap, privileged, user) in AP_PLAIN {
            each_descriptor(&rig, ap, 0, 0, kind);
            assert_eq!(rig.rights(VA, Mode::Svc), privileged, "AP {ap:03b} kind {kind} PL1");
            assert_eq!(rig.rights(VA, Mode::Usr), user, "AP {ap:03b} kind {kind} PL0");
        }
    }
    rig.sctlr(SCTLR_AFE, 0);
    for kind in 0..2 {
        for (ap, privileged, user) in AP_AFE {
            each_descriptor(&rig, ap, 0, 0, kind);
            assert_eq!(rig.rights(VA, Mode::Svc), privileged, "AFE AP {ap:03b} kind {kind} PL1");
            assert_eq!(rig.rights(VA, Mode::Usr), user, "AFE AP {ap:03b} kind {kind} PL0");
            each_descriptor(&rig, ap & 6, 0, 0, kind);
            rig.cpu.mmu.flush_all(Reach::All);
            let level = if kind == 0 { 2 } else { 1 };
            assert_eq!(rig.kind(VA, Access::Read), Some(FaultKind::AccessFlag(level)));
        }
    }
}

#[test]
fn execute_never() {
    let mut rig = Rig::new();
    let (xn_section, pxn_section) = (1 << 4, 1);
    for kind in 0..2 {
        each_descriptor(&rig, 3, XN_SMALL, xn_section, kind);
        assert_eq!(rig.rights(VA, Mode::Svc), "rw-");
        assert_eq!(rig.rights(VA, Mode::Usr), "rw-");
        each_descriptor(&rig, 3, 0, pxn_section, kind);
        if kind == 0 {
            rig.l1(VA, L2 as u32 | 1 | 1 << 2);
        }
        assert_eq!(rig.rights(VA, Mode::Svc), "rw-", "PXN");
        assert_eq!(rig.rights(VA, Mode::Usr), "rwx");
    }
    rig.map(VA, small(PAGE, 3, 0, NORMAL));
    rig.sctlr(SCTLR_WXN, 0);
    assert_eq!(rig.rights(VA, Mode::Svc), "rw-");
    assert_eq!(rig.rights(VA, Mode::Usr), "rw-");
    rig.map(VA, small(PAGE, 2, 0, NORMAL));
    assert_eq!(rig.rights(VA, Mode::Svc), "rw-", "writable for PL1 only");
    assert_eq!(rig.rights(VA, Mode::Usr), "r-x");
    rig.sctlr(SCTLR_UWXN, SCTLR_WXN);
    assert_eq!(rig.rights(VA, Mode::Svc), "rwx");
    rig.map(VA, small(PAGE, 3, 0, NORMAL));
    assert_eq!(rig.rights(VA, Mode::Svc), "rw-", "User could have written it");
    assert_eq!(rig.rights(VA, Mode::Usr), "rwx");
}

/// Table B3-10 as (TEX, CB, type, inner, outer): S, D (shareable device), d (non-shareable device), N; cacheability 0 NC, 1 WBWA, 2 WT, 3 WB.
const TEX_PLAIN: [(u32, u32, char, u32, u32); 24] = [
    (0, 0, 'S', 0, 0),
    (0, 1, 'D', 0, 0),
    (0, 2, 'N', 2, 2),
    (0, 3, 'N', 3, 3),
    (1, 0, 'N', 0, 0),
    (1, 3, 'N', 1, 1),
    (2, 0, 'd', 0, 0),
    (4, 0, 'N', 0, 0),
    (4, 1, 'N', 1, 0),
    (4, 2, 'N', 2, 0),
    (4, 3, 'N', 3, 0),
    (5, 0, 'N', 0, 1),
    (5, 1, 'N', 1, 1),
    (5, 2, 'N', 2, 1),
    (5, 3, 'N', 3, 1),
    (6, 0, 'N', 0, 2),
    (6, 1, 'N', 1, 2),
    (6, 2, 'N', 2, 2),
    (6, 3, 'N', 3, 2),
    (7, 0, 'N', 0, 3),
    (7, 1, 'N', 1, 3),
    (7, 2, 'N', 2, 3),
    (7, 3, 'N', 3, 3),
    // Reserved: strictest.
    (1, 1, 'S', 0, 0),
];

/// PAR.Inner (B4.1.112) of a type and inner cacheability.
fn par_inner(kind: char, inner: u32) -> u32 {
    match (kind, inner) {
        ('S', _) => 0b001,
        ('D' | 'd', _) => 0b011,
        (_, 0) => 0b000,
        (_, 1) => 0b101,
        (_, 2) => 0b110,
        _ => 0b111,
    }
}

#[test]
fn attributes_without_remap() {
    let mut rig = Rig::new();
    for (tex, cb, kind, inner, outer) in TEX_PLAIN {
        for s in [0, 1 << 10] {
            rig.map(VA, small(PAGE, 3, tex, cb) | s);
            rig.cpu.mmu.flush_all(Reach::All);
            let mem = rig.get(VA, Access::Read).unwrap().mem;
            let expect = match kind {
                'S' => MemType::StronglyOrdered,
                'N' => MemType::Normal,
                _ => MemType::Device,
            };
            assert_eq!(mem, expect, "TEX {tex:03b} CB {cb:02b}");
            let par = rig.cpu.address_translation(&rig.ram, VA, Access::Read, false, 0) as u32;
            let shareable = kind == 'S' || kind == 'D' || kind == 'N' && s != 0;
            assert_eq!(par >> 4 & 7, par_inner(kind, inner), "TEX {tex:03b} CB {cb:02b} inner");
            assert_eq!(par >> 2 & 3, outer, "TEX {tex:03b} CB {cb:02b} outer");
            assert_eq!(par >> 7 & 1 != 0, shareable, "TEX {tex:03b} CB {cb:02b} S {s:#x}");
            assert_eq!(par & !0xfff, PAGE as u32);
            let fast = rig.cpu.mmu.read_addend(VA) != 0;
            assert_eq!(fast, kind == 'N', "only Normal memory is on the fast path");
        }
    }
}

#[test]
fn attributes_with_remap() {
    let mut rig = Rig::new();
    rig.sctlr(SCTLR_TRE, 0);
    // A type for each of the eight encodings, cacheabilities that differ, DS1/NS1 set, DS0/NS0 clear, NOS for odd ones.
    let types = [0, 1, 2, 2, 2, 1, 2, 2];
    let prrr = (0..8).map(|n| types[n] << (2 * n)).sum::<u32>() | 1 << 17 | 1 << 19 | 0xaa << 24;
    let nmrr = 0b11_10_01_00_11_10_01_00 | 0b00_01_10_11_00_01_10_11 << 16;
    rig.cpu.cp15.prrr[0] = prrr;
    rig.cpu.cp15.nmrr[0] = nmrr;
    for n in 0..8u32 {
        for s in [0u32, 1] {
            // TEX[2:1] are for software.
            for software in [0, 2, 6] {
                rig.map(VA, small(PAGE, 3, n >> 2 | software, n & 3) | s << 10);
                rig.cpu.mmu.flush_all(Reach::All);
                let phys = rig.get(VA, Access::Write).unwrap();
                let par = rig.cpu.address_translation(&rig.ram, VA, Access::Write, false, 0) as u32;
                let (kind, mem) = [('S', MemType::StronglyOrdered), ('D', MemType::Device), ('N', MemType::Normal)]
                    [types[n as usize] as usize];
                assert_eq!(phys.mem, mem, "encoding {n}");
                let (inner, outer) = if kind == 'N' { (n % 4, 3 - n % 4) } else { (0, 0) };
                assert_eq!(par >> 4 & 7, par_inner(kind, inner), "encoding {n}");
                assert_eq!(par >> 2 & 3, outer, "encoding {n}");
                assert_eq!(par >> 7 & 1, if kind == 'S' { 1 } else { s }, "encoding {n} S {s}");
                assert_eq!(par >> 10 & 1, if kind == 'S' { 0 } else { n & 1 }, "encoding {n} NOS");
            }
        }
    }
}

#[test]
fn sizes() {
    let mut rig = Rig::new();
    rig.map(VA, small(PAGE, 3, 0, NORMAL));
    assert_eq!(rig.get(VA, Access::Read).unwrap().pa, PAGE | 0x456);
    // A large page is repeated sixteen times; bits 15:12 of the address come from the page.
    let large = 0x8012_0000 | 1 | 3 << 4 | 3 << 2;
    rig.l1(0x30_0000, L2 as u32 | 1);
    for i in 0x30..0x40 {
        rig.put(L2 + i * 4, large);
    }
    assert_eq!(rig.get(0x33_5678, Access::Read).unwrap().pa, 0x8012_5678);
    rig.l1(0x4000_0000, section(PAGE, 3, 0, NORMAL));
    assert_eq!(rig.get(0x400a_bcde, Access::Read).unwrap().pa, PAGE | 0xa_bcde);
    // A supersection at PA 0x12_8000_0000: outside RAM, 40 bits.
    for i in 0..16 {
        rig.l1(0x5000_0000 + (i << 20), 0x8000_0000 | 1 << 18 | 3 << 10 | 2 << 20 | 1 << 5 | 2);
    }
    let phys = rig.get(0x50ab_cdef, Access::Read).unwrap();
    assert_eq!((phys.pa, phys.host.is_null()), (0x12_80ab_cdef, true));
    let par = rig.cpu.address_translation(&rig.ram, 0x50ab_cdef, Access::Read, false, 0);
    assert_eq!((par & 3, par >> 24, par >> 16 & 0xff), (2, 0x80, 0x12), "PAR of a supersection");
    // Its bits 8:5 are address, not domain: it is in domain 0.
    rig.dacr(0x5555_5551);
    assert!(rig.get(0x5000_0000, Access::Read).is_ok());
}

#[test]
fn table_split() {
    let mut rig = Rig::new();
    // TTBR1's table: high addresses of every N; a fault everywhere in TTBR0's.
    let ttb1 = BASE + 0x1_0000;
    rig.cpu.cp15.ttbr1[0] = ttb1;
    rig.put(ttb1 + 0xfff * 4, section(PAGE, 3, 0, NORMAL));
    for n in 0..8u32 {
        rig.cpu.cp15.ttbcr[0] = n;
        rig.cpu.mmu.flush_all(Reach::All);
        let high = rig.kind(0xfff0_0000, Access::Read);
        assert_eq!(high.is_some(), n == 0, "N {n}");
        // TTBR0's table shrinks with N and may lie at any multiple of its size.
        let base = BASE + 0x4000 + (0x4000 >> n);
        rig.cpu.cp15.ttbr0[0] = base | 0x4a;
        let top = ((1u64 << (32 - n)) - 1) as u32;
        let at = (base & !((0x4000 >> n) - 1)) + u64::from(top >> 20) * 4;
        rig.put(at, section(PAGE, 3, 0, NORMAL));
        rig.cpu.mmu.flush_all(Reach::All);
        assert!(rig.get(top, Access::Read).is_ok(), "N {n}: the last address of TTBR0");
        rig.cpu.cp15.ttbcr[0] = n | 1 << 4;
        rig.cpu.mmu.flush_all(Reach::All);
        assert_eq!(rig.kind(top, Access::Read), Some(FaultKind::Translation(1)), "PD0");
        if n > 0 {
            assert!(rig.get(0xfff0_0000, Access::Read).is_ok());
            rig.cpu.cp15.ttbcr[0] = n | 1 << 5;
            rig.cpu.mmu.flush_all(Reach::All);
            assert_eq!(rig.kind(0xfff0_0000, Access::Read), Some(FaultKind::Translation(1)), "PD1");
        }
        rig.put(at, 0);
        rig.cpu.cp15.ttbr0[0] = TTB;
    }
}

#[test]
fn domains() {
    let mut rig = Rig::new();
    for domain in 0..16u32 {
        for field in 0..4 {
            rig.dacr(field << (2 * domain));
            for kind in 0..2 {
                // No access for anyone by AP, and XN: only a manager gets through.
                each_descriptor(&rig, 0, XN_SMALL, 1 << 4, kind);
                if kind == 0 {
                    rig.l1(VA, L2 as u32 | 1 | domain << 5);
                } else {
                    rig.l1(VA, section(PAGE, 0, 0, NORMAL) | 1 << 4 | domain << 5);
                }
                let level = 2 - kind as u8;
                for access in [Access::Read, Access::Write, Access::Exec] {
                    rig.cpu.mmu.flush_all(Reach::All);
                    let got = rig.get(VA, access);
                    let expect = match field {
                        0 | 2 => Some(FaultKind::Domain(level)),
                        1 => Some(FaultKind::Permission(level)),
                        _ => None,
                    };
                    assert_eq!(got.err().map(|a| a.kind), expect, "domain {domain} field {field} {access:?}");
                    if let Err(a) = got {
                        assert_eq!(u32::from(a.domain), domain);
                    }
                }
            }
        }
    }
}

/// Table B3-23: FS[4] in bit 10, FS[3:0] below; Domain in 7:4; WnR in 11.
#[test]
fn fault_status() {
    let f = |kind| Abort { kind, va: 0x1234, domain: 5, write: true };
    let table = [
        (FaultKind::Alignment, 0b00001),
        (FaultKind::WalkExternal(1), 0b01100),
        (FaultKind::WalkExternal(2), 0b01110),
        (FaultKind::Translation(1), 0b00101),
        (FaultKind::Translation(2), 0b00111),
        (FaultKind::AccessFlag(1), 0b00011),
        (FaultKind::AccessFlag(2), 0b00110),
        (FaultKind::Domain(1), 0b01001),
        (FaultKind::Domain(2), 0b01011),
        (FaultKind::Permission(1), 0b01101),
        (FaultKind::Permission(2), 0b01111),
        (FaultKind::Debug, 0b00010),
        (FaultKind::External, 0b01000),
    ];
    for (kind, fs) in table {
        assert_eq!(f(kind).dfsr(), fs | 5 << 4 | 1 << 11, "{kind:?}");
        assert_eq!(f(kind).ifsr(), fs, "{kind:?}");
    }
    assert_eq!(Abort::alignment(0x1001, false).dfsr(), 1);
}

#[test]
fn fault_priorities() {
    let mut rig = Rig::new();
    rig.dacr(0);
    rig.l1(VA, 5 << 5); // bits beside the type are ignored
    let a = rig.get(VA, Access::Write).unwrap_err();
    assert_eq!((a.kind, a.domain, a.write, a.va), (FaultKind::Translation(1), 0, true, VA));
    // Second level: the translation fault goes before the domain's.
    rig.l1(VA, L2 as u32 | 1 | 5 << 5);
    rig.put(L2 + u64::from(VA >> 12 & 0xff) * 4, 0);
    let a = rig.get(VA, Access::Read).unwrap_err();
    assert_eq!((a.kind, a.domain, a.write), (FaultKind::Translation(2), 5, false));
    // The access flag goes before the domain, the domain before permissions.
    rig.sctlr(SCTLR_AFE, 0);
    rig.put(L2 + u64::from(VA >> 12 & 0xff) * 4, small(PAGE, 0, 0, 0));
    assert_eq!(rig.kind(VA, Access::Read), Some(FaultKind::AccessFlag(2)));
    rig.put(L2 + u64::from(VA >> 12 & 0xff) * 4, small(PAGE, 5, 0, 0));
    assert_eq!(rig.kind(VA, Access::Write), Some(FaultKind::Domain(2)));
    rig.dacr(1 << 10);
    assert_eq!(rig.kind(VA, Access::Write), Some(FaultKind::Permission(2)));
    // Tables outside RAM.
    rig.l1(VA, 0x1000_0000 | 1 | 5 << 5);
    let a = rig.get(VA, Access::Read).unwrap_err();
    assert_eq!((a.kind, a.domain), (FaultKind::WalkExternal(2), 5));
    rig.cpu.cp15.ttbr0[0] = 0x1000_0000;
    assert_eq!(rig.kind(VA, Access::Read), Some(FaultKind::WalkExternal(1)));
    let par = rig.cpu.address_translation(&rig.ram, VA, Access::Read, false, 0);
    assert_eq!(par, 0b01100 << 1 | 1);
}

#[test]
fn big_endian_tables() {
    let mut rig = Rig::new();
    rig.put(TTB + u64::from(VA >> 20) * 4, section(PAGE, 3, 0, NORMAL).swap_bytes());
    rig.sctlr(SCTLR_EE, 0);
    assert_eq!(rig.get(VA, Access::Read).unwrap().pa, PAGE | u64::from(VA & 0xf_ffff));
}

#[test]
fn mmu_off() {
    let mut rig = Rig::new();
    rig.sctlr(0, SCTLR_M);
    rig.cpu.set_mode(Mode::Usr);
    let p = rig.get(0x8000_1234, Access::Write).unwrap();
    assert_eq!((p.pa, p.mem, p.host.is_null()), (0x8000_1234, MemType::StronglyOrdered, false));
    assert_eq!(rig.get(0x8000_1234, Access::Exec).unwrap().mem, MemType::Normal);
    assert!(rig.get(0x1000, Access::Read).unwrap().host.is_null());
    assert_eq!(rig.cpu.mmu.read_addend(0x8000_1234), 0);
    assert_eq!(rig.cpu.mmu.entries(), 0);
    rig.cpu.mmu.protect_code_page(0x8000_1000);
    assert!(rig.get(0x8000_1234, Access::Write).unwrap().code);
}

// ---- TLB --------------------------------------------------------------------------------------------------------------------------

#[test]
fn fast_path_reaches_the_byte() {
    let mut rig = Rig::new();
    rig.map(VA, small(PAGE, 3, 0, NORMAL));
    rig.ram.write(PAGE + 0x456, &[0x5a]).unwrap();
    assert_eq!(rig.cpu.mmu.read_addend(VA), 0);
    let slow = rig.get(VA, Access::Read).unwrap();
    let addend = rig.cpu.mmu.read_addend(VA);
    assert_eq!(addend.wrapping_add(u64::from(VA)), slow.host as u64);
    // SAFETY: the address lies in the rig's RAM, as the line above has shown.
    assert_eq!(unsafe { *(addend.wrapping_add(u64::from(VA)) as *const u8) }, 0x5a);
    assert_eq!(rig.cpu.mmu.write_addend(VA), 0, "a load opens no store path");
    rig.get(VA, Access::Write).unwrap();
    assert_eq!(rig.cpu.mmu.write_addend(VA), addend);
    rig.sctlr(SCTLR_A, 0);
    rig.get(VA, Access::Read).unwrap();
    assert_eq!(rig.cpu.mmu.read_addend(VA), 0, "SCTLR.A: nothing on the fast path");
    rig.map(VA, small(0x1000, 3, 0, NORMAL));
    rig.sctlr(0, SCTLR_A);
    assert!(rig.get(VA, Access::Read).unwrap().host.is_null());
    assert_eq!(rig.cpu.mmu.read_addend(VA), 0, "nothing but RAM on the fast path");
}

#[test]
fn privilege_and_dacr_select_tables_without_a_flush() {
    let mut rig = Rig::new();
    rig.map(VA, small(PAGE, 1, 0, NORMAL));
    rig.get(VA, Access::Read).unwrap();
    let kernel = rig.cpu.mmu.context_id();
    let addend = rig.cpu.mmu.read_addend(VA);
    rig.cpu.set_mode(Mode::Usr);
    assert_ne!(rig.cpu.mmu.context_id(), kernel);
    assert_eq!(rig.cpu.mmu.read_addend(VA), 0);
    assert_eq!(rig.kind(VA, Access::Read), Some(FaultKind::Permission(2)));
    rig.cpu.set_mode(Mode::Irq);
    assert_eq!((rig.cpu.mmu.context_id(), rig.cpu.mmu.read_addend(VA)), (kernel, addend));
    assert_eq!(
        rig.cpu.translate(&rig.ram, VA, Access::Read, View::User).unwrap_err().kind,
        FaultKind::Permission(2),
        "LDRT has User's rights"
    );
    rig.dacr(0x5555_5554);
    assert_eq!(rig.cpu.mmu.read_addend(VA), 0);
    assert_eq!(rig.kind(VA, Access::Read), Some(FaultKind::Domain(2)));
    rig.dacr(0x5555_5555);
    assert_eq!((rig.cpu.mmu.context_id(), rig.cpu.mmu.read_addend(VA)), (kernel, addend));
}

/// Linux's switch of address spaces: TTBR0 to the kernel's table, then CONTEXTIDR, then TTBR0 to the new table, with no TLBI.
#[test]
fn reserved_asid_dance() {
    let mut rig = Rig::new();
    let (kernel_va, other) = (0xc010_0000, BASE + 0x2_0000);
    // Process 1: TTB; process 2: `other`; the kernel's own table at `swapper`. All share the kernel section.
    let swapper = BASE + 0x3_0000;
    for t in [TTB, other, swapper] {
        rig.put(t + u64::from(kernel_va >> 20) * 4, section(PAGE, 1, 0, NORMAL));
    }
    rig.map(VA, small(PAGE, 3, 0, NORMAL) | NG_SMALL);
    rig.put(other + u64::from(VA >> 20) * 4, (L2 + 0x400) as u32 | 1);
    rig.put(L2 + 0x400 + u64::from(VA >> 12 & 0xff) * 4, small(PAGE + 0x1000, 3, 0, NORMAL) | NG_SMALL);
    rig.asid(1);
    assert_eq!(rig.get(VA, Access::Read).unwrap().pa & !0xfff, PAGE);
    let first = (rig.cpu.mmu.context_id(), rig.cpu.mmu.read_addend(VA));
    let to = |rig: &mut Rig, ttb: u64, asid: u32| {
        rig.cpu.cp15.ttbr0[0] = swapper;
        assert!(rig.get(kernel_va, Access::Read).is_ok());
        rig.asid(asid);
        assert!(rig.get(kernel_va, Access::Read).is_ok());
        rig.cpu.cp15.ttbr0[0] = ttb;
    };
    to(&mut rig, other, 2);
    assert_eq!(rig.cpu.mmu.read_addend(VA), 0, "process 1's entry is out of sight");
    assert_eq!(rig.get(VA, Access::Read).unwrap().pa & !0xfff, PAGE + 0x1000);
    to(&mut rig, TTB, 1);
    assert_eq!((rig.cpu.mmu.context_id(), rig.cpu.mmu.read_addend(VA)), first, "nothing was lost");
    // What the architecture allows and Linux avoids: with the ASID unchanged the old entry lives on until it is invalidated.
    rig.cpu.cp15.ttbr0[0] = other;
    assert_eq!(rig.get(VA, Access::Read).unwrap().pa & !0xfff, PAGE);
    rig.cpu.mmu.flush_va(Reach::All, VA, 1);
    assert_eq!(rig.get(VA, Access::Read).unwrap().pa & !0xfff, PAGE + 0x1000);
}

#[test]
fn invalidation_is_precise() {
    let mut rig = Rig::new();
    let (local, global) = (0x10_0000u32, 0x10_1000u32);
    rig.map(local, small(PAGE, 3, 0, NORMAL) | NG_SMALL);
    rig.map(global, small(PAGE + 0x1000, 3, 0, NORMAL));
    let fill = |rig: &mut Rig| {
        for asid in [1, 2] {
            rig.asid(asid);
            rig.get(local, Access::Read).unwrap();
            rig.get(global, Access::Read).unwrap();
        }
    };
    let seen = |rig: &mut Rig| {
        let mut out = Vec::new();
        for asid in [1, 2] {
            rig.asid(asid);
            out.push((rig.cpu.mmu.read_addend(local) != 0, rig.cpu.mmu.read_addend(global) != 0));
        }
        out
    };
    fill(&mut rig);
    assert_eq!(seen(&mut rig), [(true, true), (true, true)]);
    rig.cpu.mmu.flush_asid(Reach::All, 1);
    assert_eq!(seen(&mut rig), [(false, true), (true, true)]);
    fill(&mut rig);
    rig.cpu.mmu.flush_va(Reach::All, local, 1);
    assert_eq!(seen(&mut rig), [(false, true), (true, true)]);
    fill(&mut rig);
    rig.cpu.mmu.flush_va(Reach::All, global, 1);
    assert_eq!(seen(&mut rig), [(true, false), (true, false)], "global entries go in every context");
    fill(&mut rig);
    rig.cpu.mmu.flush_va_all(Reach::All, local);
    assert_eq!(seen(&mut rig), [(false, true), (false, true)]);
    fill(&mut rig);
    rig.cpu.mmu.flush_all(Reach::All);
    assert_eq!(rig.cpu.mmu.entries(), 0);
}

/// Cores that share the TLB don't see each other's entries; local maintenance removes the core's own, the Inner Shareable kind everybody's.
#[test]
fn cores_have_entries_of_their_own() {
    let mut rig = Rig::new();
    let (local, global) = (0x10_0000u32, 0x10_1000u32);
    rig.map(local, small(PAGE, 3, 0, NORMAL) | NG_SMALL);
    rig.map(global, small(PAGE + 0x1000, 3, 0, NORMAL));
    rig.cpu.mmu.set_cores(2);
    rig.asid(1);
    let on = |rig: &mut Rig, core: u32| {
        rig.cpu.model.mpidr = 0x8000_0000 | core;
        rig.cpu.update_context();
    };
    let fill = |rig: &mut Rig| {
        for core in [0, 1] {
            on(rig, core);
            rig.get(local, Access::Exec).unwrap();
            rig.get(local, Access::Write).unwrap();
            rig.get(global, Access::Read).unwrap();
        }
    };
    let seen = |rig: &mut Rig| {
        [0, 1].map(|core| {
            on(rig, core);
            (rig.cpu.mmu.write_addend(local) != 0, rig.cpu.mmu.read_addend(global) != 0)
        })
    };
    on(&mut rig, 0);
    rig.get(local, Access::Exec).unwrap();
    rig.get(local, Access::Write).unwrap();
    rig.get(global, Access::Read).unwrap();
    assert_eq!(seen(&mut rig), [(true, true), (false, false)]);
    fill(&mut rig);
    let ids = [0, 1].map(|core| {
        on(&mut rig, core);
        rig.cpu.mmu.context_id()
    });
    assert_ne!(ids[0], ids[1]);
    type Flush = fn(&mut Mmu, Reach);
    let flushes: [(Flush, (bool, bool)); 4] = [
        (|m, r| m.flush_all(r), (false, false)),
        (|m, r| m.flush_asid(r, 1), (false, true)),
        (|m, r| m.flush_va(r, 0x10_1000, 1), (true, false)),
        (|m, r| m.flush_va_all(r, 0x10_0000), (false, true)),
    ];
    for (flush, gone) in flushes {
        fill(&mut rig);
        flush(&mut rig.cpu.mmu, Reach::Core(1));
        assert_eq!(seen(&mut rig), [(true, true), gone]);
        fill(&mut rig);
        flush(&mut rig.cpu.mmu, Reach::All);
        assert_eq!(seen(&mut rig), [gone, gone]);
    }
    fill(&mut rig);
    rig.cpu.mmu.protect_code_page(PAGE);
    assert_eq!(seen(&mut rig).map(|s| s.0), [false, false], "a page with code is protected from every core");
}

/// An entry of a large mapping goes when any address of it is invalidated, also one that was never used.
#[test]
fn large_mappings_go_as_a_whole() {
    let mut rig = Rig::new();
    rig.l1(0x4000_0000, section(PAGE, 3, 0, NORMAL));
    for i in 0..16 {
        rig.l1(0x5000_0000 + (i << 20), BASE as u32 | 1 << 18 | 3 << 10 | NORMAL << 2 | 2);
        rig.put(L2 + 0x40 + u64::from(i) * 4, 0x8012_0000 | 1 | 3 << 4 | NORMAL << 2);
    }
    rig.l1(0x10_0000, L2 as u32 | 1);
    rig.map(0x10_0000, small(PAGE, 3, 0, NORMAL));
    for (filled, hit, miss) in [
        (0x4000_5000u32, 0x400f_0000u32, 0x4010_0000u32),
        (0x5030_1000, 0x5000_0000, 0x5100_0000),
        (0x11_2000, 0x11_f000, 0x10_0000),
    ] {
        rig.get(filled, Access::Read).unwrap();
        rig.cpu.mmu.flush_va(Reach::All, miss, 0);
        assert_ne!(rig.cpu.mmu.read_addend(filled), 0, "{miss:#x} is no part of it");
        rig.cpu.mmu.flush_va(Reach::All, hit, 0);
        assert_eq!(rig.cpu.mmu.read_addend(filled), 0, "{filled:#x} by {hit:#x}");
    }
}

#[test]
fn context_ids() {
    let mut rig = Rig::new();
    let (code, data) = (0x10_0000u32, 0x10_1000u32);
    rig.map(code, small(PAGE, 3, 0, NORMAL));
    rig.map(data, small(PAGE + 0x1000, 3, 0, NORMAL));
    rig.asid(1);
    rig.get(code, Access::Exec).unwrap();
    rig.get(data, Access::Write).unwrap();
    let id = rig.cpu.mmu.context_id();
    rig.cpu.mmu.flush_va(Reach::All, data, 1);
    assert_eq!(rig.cpu.mmu.context_id(), id, "no instruction was fetched through it");
    rig.cpu.mmu.flush_va(Reach::All, code, 1);
    assert_ne!(rig.cpu.mmu.context_id(), id);
    let id = rig.cpu.mmu.context_id();
    rig.get(code, Access::Exec).unwrap();
    rig.asid(2);
    let other = rig.cpu.mmu.context_id();
    assert_ne!(other, id);
    rig.asid(1);
    assert_eq!(rig.cpu.mmu.context_id(), id);
    rig.asid(2);
    rig.cpu.mmu.flush_va(Reach::All, code, 7);
    rig.asid(1);
    assert_ne!(rig.cpu.mmu.context_id(), id, "the entry is global: it went whatever the ASID");
    // A walk that finds another mapping than the one code was fetched through (after a fault, say) says so too.
    rig.get(code, Access::Exec).unwrap();
    let id = rig.cpu.mmu.context_id();
    rig.map(code, small(PAGE + 0x2000, 6, 0, NORMAL) | XN_SMALL);
    assert!(rig.get(code, Access::Exec).is_ok(), "stale, but nobody invalidated it");
    rig.cpu.set_mode(Mode::Svc);
    rig.map(code, small(PAGE + 0x2000, 3, 0, NORMAL));
    rig.cpu.mmu.flush_va(Reach::All, code, 1);
    assert_eq!(rig.get(code, Access::Exec).unwrap().pa, PAGE + 0x2000);
    assert_ne!(rig.cpu.mmu.context_id(), id);
}

#[test]
fn eviction_is_of_the_least_recent() {
    let mut rig = Rig::new();
    rig.map(VA, small(PAGE, 3, 0, NORMAL) | NG_SMALL);
    let contexts = CONTEXTS as u32;
    for asid in 0..contexts {
        rig.asid(asid);
        rig.get(VA, Access::Exec).unwrap();
        rig.get(VA, Access::Read).unwrap();
    }
    rig.asid(0);
    let kept = (rig.cpu.mmu.context_id(), rig.cpu.mmu.read_addend(VA));
    assert_ne!(kept.1, 0);
    rig.asid(1);
    let lost = rig.cpu.mmu.context_id();
    rig.asid(0);
    for asid in contexts..contexts + 2 {
        rig.asid(asid);
        rig.get(VA, Access::Read).unwrap();
    }
    rig.asid(0);
    assert_eq!((rig.cpu.mmu.context_id(), rig.cpu.mmu.read_addend(VA)), kept, "used last");
    for asid in [2, 3] {
        rig.asid(asid);
        assert_eq!(rig.cpu.mmu.read_addend(VA), 0, "ASID {asid} was the oldest");
    }
    rig.asid(1);
    assert_eq!(rig.cpu.mmu.context_id(), lost);
}

#[test]
fn code_pages_leave_the_store_path() {
    let mut rig = Rig::new();
    let alias = 0x10_4000u32;
    rig.map(VA, small(PAGE, 3, 0, NORMAL));
    rig.map(alias, small(PAGE, 3, 0, NORMAL));
    for asid in [1, 2] {
        rig.asid(asid);
        rig.get(VA, Access::Write).unwrap();
        rig.get(alias, Access::Write).unwrap();
    }
    rig.cpu.mmu.protect_code_page(PAGE | 0x123);
    for asid in [1, 2] {
        rig.asid(asid);
        assert_eq!((rig.cpu.mmu.write_addend(VA), rig.cpu.mmu.write_addend(alias)), (0, 0));
    }
    assert!(rig.get(VA, Access::Write).unwrap().code);
    assert_eq!(rig.cpu.mmu.write_addend(VA), 0, "kept out");
    assert!(!rig.get(VA, Access::Read).unwrap().code);
    assert_ne!(rig.cpu.mmu.read_addend(VA), 0);
    rig.cpu.mmu.unprotect_code_page(PAGE);
    assert!(!rig.get(VA, Access::Write).unwrap().code);
    assert_ne!(rig.cpu.mmu.write_addend(VA), 0);
}

/// Random mappings, invalidated as a careful kernel does it: the TLB never shows anything but what a walk finds, and the fast path never
/// more than the slow one.
#[test]
fn a_careful_kernel_sees_no_tlb() {
    let mut rig = Rig::new();
    let mut x = 7u64;
    let mut rand = |n: u64| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 33) % n
    };
    let modes = [Mode::Svc, Mode::Usr];
    rig.l1(0x10_0000, L2 as u32 | 1);
    for step in 0..60_000 {
        let va = 0x10_0000 + (rand(16) as u32) * 0x1000;
        match rand(12) {
            0 => {
                let ng = if rand(2) == 0 { NG_SMALL } else { 0 };
                let d = small(BASE + 0x10_0000 + rand(64) * 0x1000, rand(8) as u32, 0, NORMAL) | ng;
                let d = if rand(6) == 0 { 0 } else { d };
                rig.put(L2 + u64::from(va >> 12 & 0xff) * 4, d);
                match rand(2) {
                    0 => rig.cpu.mmu.flush_va_all(Reach::All, va),
                    _ => rig.cpu.mmu.flush_all(Reach::All),
                }
            }
            1 => rig.asid(rand(90) as u32),
            2 => rig.dacr([0x5555_5555, 0x5555_5557, 0x5555_5554][rand(3) as usize]),
            3 => rig.cpu.set_mode(modes[rand(2) as usize]),
            4 => rig.cpu.mmu.protect_code_page(BASE + 0x10_0000 + rand(64) * 0x1000),
            5 => rig.cpu.mmu.unprotect_code_page(BASE + 0x10_0000 + rand(64) * 0x1000),
            _ => {
                let access = [Access::Read, Access::Write, Access::Exec][rand(3) as usize];
                let user = !rig.cpu.is_privileged();
                let walk = Regime::of(&rig.cpu.cp15, 0).translate(&rig.ram, va, access, user).map(|(l, _)| l.pa);
                let (fast_r, fast_w) = (rig.cpu.mmu.read_addend(va), rig.cpu.mmu.write_addend(va));
                let got = rig.get(va, access);
                assert_eq!(got.map(|p| p.pa), walk, "step {step}");
                for (fast, kind) in [(fast_r, Access::Read), (fast_w, Access::Write)] {
                    if fast != 0 {
                        let p = rig.get(va, kind).expect("the fast path allows what the slow one does");
                        assert_eq!(p.host as u64, fast.wrapping_add(u64::from(va)), "step {step}");
                        assert!(!p.code, "step {step}");
                    }
                }
            }
        }
    }
}
