//! Long descriptors: the walk, its faults and attributes, the ASID, and blocks in the TLB.

use super::*;

/// First-level table of TTBR0, and tables of the lower levels.
const T1: u64 = BASE + 0x4000;
const T2: u64 = BASE + 0x5000;
const T3: u64 = BASE + 0x6000;
/// Address space of 1 GiB `i` of the first level, 2 MiB `j` of the second, page `k` of the third.
const LVA: u32 = 1 << 30 | 5 << 21 | 7 << 12 | 0x123;

const TABLE: u64 = 3;
const BLOCK: u64 = 1;
const PAGE3: u64 = 3;
/// AF, MAIR index 1 (Normal), User, writable, inner shareable.
const OPEN: u64 = 1 << 10 | 1 << 2 | 1 << 6 | 3 << 8;
const AP_RO: u64 = 1 << 7;
const AP_USER: u64 = 1 << 6;
const NG: u64 = 1 << 11;

impl Rig {
    /// Long descriptors on, MAIR 0 Strongly-ordered, 1 Normal write-back, 2 Device, 3 Normal non-cacheable, then write-throughs.
    fn long() -> Rig {
        let mut rig = Rig::new();
        let c = &mut rig.cpu.cp15;
        c.ttbcr[0] = TTBCR_EAE;
        c.ttbr0[0] = T1;
        c.prrr[0] = 0x4404_ff00;
        c.nmrr[0] = 0xee77_aabb;
        // No domain allows anything: nobody asks.
        c.dacr[0] = 0;
        rig.cpu.update_context();
        rig
    }

    fn put64(&self, pa: u64, d: u64) {
        self.ram.write(pa, &d.to_le_bytes()).unwrap();
    }

    /// Maps `LVA` by a page, through table descriptors with the given extra bits.
    fn long_page(&mut self, d1: u64, d2: u64, d3: u64) {
        self.put64(T1 + 8, T2 | TABLE | d1);
        self.put64(T2 + 5 * 8, T3 | TABLE | d2);
        self.put64(T3 + 7 * 8, PAGE | PAGE3 | d3);
        self.cpu.mmu.flush_all(Reach::All);
    }

    fn par(&self, va: u32, access: Access, user: bool) -> u64 {
        self.cpu.address_translation(&self.ram, va, access, user, 0)
    }
}

#[test]
fn three_levels() {
    let mut rig = Rig::long();
    rig.long_page(0, 0, OPEN);
    assert_eq!(rig.get(LVA, Access::Write).unwrap().pa, PAGE | 0x123);
    assert_ne!(rig.cpu.mmu.write_addend(LVA), 0);
    // Blocks; bits below a block's size are not address. 40 bits of output.
    rig.put64(T2 + 6 * 8, 0x12_8060_0000 | 0x1f_f000 | BLOCK | OPEN);
    assert_eq!(rig.get(1 << 30 | 6 << 21 | 0x1a_bcde, Access::Read).unwrap().pa, 0x12_807a_bcde);
    rig.put64(T1 + 16, 0xff_4000_0000 | 0x3fff_f000 | BLOCK | OPEN);
    assert_eq!(rig.get(0xbfff_ffff, Access::Read).unwrap().pa, 0xff_7fff_ffff);
}

#[test]
fn which_table() {
    // (T0SZ, T1SZ): an address and whether TTBR1 serves it, `None` for neither (B3.6.4).
    let table: &[(u32, u32, u32, Option<bool>)] = &[
        (0, 0, 0, Some(false)),
        (0, 0, 0xffff_ffff, Some(false)),
        (1, 0, 0x7fff_ffff, Some(false)),
        (1, 0, 0x8000_0000, Some(true)),
        (0, 1, 0x7fff_ffff, Some(false)),
        (0, 1, 0x8000_0000, Some(true)),
        (2, 2, 0x3fff_ffff, Some(false)),
        (2, 2, 0x4000_0000, None),
        (2, 2, 0xbfff_ffff, None),
        (2, 2, 0xc000_0000, Some(true)),
        (7, 7, 0x01ff_ffff, Some(false)),
        (7, 7, 0x0200_0000, None),
        (7, 7, 0xfe00_0000, Some(true)),
        (0, 7, 0xfdff_ffff, Some(false)),
        (0, 3, 0xe000_0000, Some(true)),
        (3, 0, 0x2000_0000, Some(true)),
    ];
    for &(t0, t1, va, expect) in table {
        let mut rig = Rig::long();
        let what = format!("T0SZ {t0} T1SZ {t1} {va:#x}");
        // Tables at the smallest alignment that is allowed, with rubbish in the bits below it; ASID on top.
        let place = |size: u32| {
            let (level, bits) = if size < 2 { (1u32, 5 - size) } else { (2, 14 - size) };
            (BASE + 0x2_0000 + (1 << bits), level)
        };
        let high = expect == Some(true);
        let size = if high { t1 } else { t0 };
        let (at, level) = place(size);
        rig.cpu.cp15.ttbcr[0] = TTBCR_EAE | t0 | t1 << 16;
        let base = at | 7 | 0x00ab << 48;
        rig.cpu.cp15.ttbr0[0] = if high { 0 } else { base };
        rig.cpu.cp15.ttbr1[0] = if high { base } else { 0 };
        let shift = 39 - 9 * level;
        let index = (u64::from(va) & (0xffff_ffff >> size)) >> shift;
        rig.put64(at + index * 8, BASE & !((1 << shift) - 1) | BLOCK | OPEN);
        rig.cpu.update_context();
        let got = rig.kind(va, Access::Read);
        let fault = Some(FaultKind::Translation(1));
        assert_eq!(got, if expect.is_some() { None } else { fault }, "{what}");
        if expect.is_some() {
            rig.cpu.mmu.flush_all(Reach::All);
            rig.cpu.cp15.ttbcr[0] |= if high { 1 << 23 } else { 1 << 7 };
            assert_eq!(rig.kind(va, Access::Read), fault, "{what}: EPD");
        }
    }
}

#[test]
fn rights_add_up_over_the_levels() {
    let mut rig = Rig::long();
    let (no_user, read_only, xn, pxn) = (1u64 << 61, 1u64 << 62, 1u64 << 60, 1u64 << 59);
    let table: &[(u64, &str, &str)] = &[
        (OPEN, "rwx", "rwx"),
        (OPEN & !AP_USER, "rwx", "---"),
        (OPEN | AP_RO, "r-x", "r-x"),
        (OPEN & !AP_USER | AP_RO, "r-x", "---"),
        (OPEN | 1 << 54, "rw-", "rw-"),
        (OPEN | 1 << 53, "rw-", "rwx"),
        // The contiguous hint and the software bits mean nothing.
        (OPEN | 1 << 52 | 0xf << 55 | 1 << 5, "rwx", "rwx"),
    ];
    for &(d, privileged, user) in table {
        rig.long_page(0, 0, d);
        assert_eq!(rig.rights(LVA, Mode::Svc), privileged, "{d:#x}");
        assert_eq!(rig.rights(LVA, Mode::Usr), user, "{d:#x}");
    }
    for (bit, privileged, user) in
        [(no_user, "rwx", "---"), (read_only, "r-x", "r-x"), (xn, "rw-", "rw-"), (pxn, "rw-", "rwx")]
    {
        for (d1, d2) in [(bit, 0), (0, bit), (bit, bit)] {
            rig.long_page(d1, d2, OPEN);
            assert_eq!(rig.rights(LVA, Mode::Svc), privileged, "{bit:#x}");
            assert_eq!(rig.rights(LVA, Mode::Usr), user, "{bit:#x}");
        }
    }
    rig.sctlr(SCTLR_WXN, 0);
    rig.long_page(0, 0, OPEN);
    assert_eq!(rig.rights(LVA, Mode::Usr), "rw-");
    rig.long_page(read_only, 0, OPEN);
    assert_eq!(rig.rights(LVA, Mode::Usr), "r-x", "not writable by the table's word");
    rig.sctlr(SCTLR_UWXN, SCTLR_WXN);
    rig.long_page(0, 0, OPEN);
    assert_eq!((rig.rights(LVA, Mode::Svc), rig.rights(LVA, Mode::Usr)), ("rw-".into(), "rwx".into()));
    rig.long_page(no_user, 0, OPEN);
    assert_eq!(rig.rights(LVA, Mode::Svc), "rwx", "User cannot write it");
}

/// Table B3-24, by walks that end in each fault.
#[test]
fn faults_and_their_status() {
    let mut rig = Rig::long();
    let invalid: [fn(&mut Rig); 3] = [
        |r| r.put64(T1 + 8, 0),
        |r| r.put64(T2 + 40, 2),
        // At the third level 0b01 is reserved.
        |r| r.put64(T3 + 56, PAGE | 1 | OPEN),
    ];
    for (i, make) in invalid.iter().enumerate() {
        rig.long_page(0, 0, OPEN);
        make(&mut rig);
        let a = rig.get(LVA, Access::Write).unwrap_err();
        let level = i as u32 + 1;
        assert_eq!(a.dfsr_as(true), 1 << 9 | 1 << 11 | 0b000100 | level);
        assert_eq!(rig.par(LVA, Access::Write, false), u64::from((0b000100 | level) << 1 | 1 << 11 | 1));
    }
    let no_flag = OPEN & !(1 << 10) | AP_RO;
    for level in 1..=3u32 {
        rig.long_page(0, 0, no_flag);
        if level == 1 {
            rig.put64(T1 + 8, 0x8000_0000 | BLOCK | no_flag);
        } else if level == 2 {
            rig.put64(T2 + 40, 0x8000_0000 | BLOCK | no_flag);
        }
        let a = rig.get(LVA, Access::Write).unwrap_err();
        assert_eq!(a.dfsr_as(true), 1 << 9 | 1 << 11 | 0b001000 | level, "the access flag goes before permissions");
    }
    rig.long_page(0, 0, OPEN | AP_RO | 1 << 54);
    assert_eq!(rig.get(LVA, Access::Write).unwrap_err().dfsr_as(true), 1 << 9 | 1 << 11 | 0b001111);
    assert_eq!(rig.get(LVA, Access::Exec).unwrap_err().ifsr_as(true), 1 << 9 | 0b001111);
    rig.put64(T2 + 40, 0x1000_0000 | TABLE);
    rig.cpu.mmu.flush_all(Reach::All);
    assert_eq!(rig.get(LVA, Access::Read).unwrap_err().dfsr_as(true), 1 << 9 | 0b010111);
    rig.cpu.cp15.ttbr0[0] = 0x1000_0000;
    assert_eq!(rig.get(LVA, Access::Exec).unwrap_err().ifsr_as(true), 1 << 9 | 0b010101);
    let status = |kind| Abort { kind, va: 0, domain: 3, write: false }.dfsr_as(true);
    assert_eq!(status(FaultKind::Alignment), 1 << 9 | 0b100001);
    assert_eq!(status(FaultKind::External), 1 << 9 | 0b010000);
    assert_eq!(Abort::bkpt(0).ifsr_as(true), 1 << 9 | 0b100010);
    // An abort that is taken fills in the format of the bank that receives it.
    let a = Abort::alignment(5, true);
    rig.cpu.take_data_abort(a);
    assert_eq!(rig.cpu.cp15.dfsr[0], a.dfsr_as(true));
    rig.cpu.cp15.ttbcr[0] = 0;
    rig.cpu.take_data_abort(a);
    assert_eq!(rig.cpu.cp15.dfsr[0], a.dfsr());
}

#[test]
fn attributes() {
    let mut rig = Rig::long();
    let mair = [0x00u8, 0xff, 0x04, 0x44, 0xbb, 0xaa, 0x77, 0xee];
    use MemType::*;
    let types = [StronglyOrdered, Normal, Device, Normal, Normal, Normal, Normal, Normal];
    let inner = [0, 1, 0, 0, 2, 2, 1, 3];
    for n in 0..8u64 {
        for sh in [0u64, 2, 3] {
            rig.long_page(0, 0, OPEN & !(0x1c | 3 << 8) | n << 2 | sh << 8);
            assert_eq!(rig.get(LVA, Access::Read).unwrap().mem, types[n as usize]);
            let expect = u64::from(mair[n as usize]) << 56 | PAGE | 1 << 11 | sh << 7;
            assert_eq!(rig.par(LVA, Access::Read, true), expect, "index {n}");
            let regime = Regime::of(&rig.cpu.cp15, 0);
            let (leaf, _) = regime.translate(&rig.ram, LVA, Access::Read, false).unwrap();
            assert_eq!(leaf.attr.inner, inner[n as usize], "index {n}");
        }
    }
}

#[test]
fn asid_comes_from_a_ttbr() {
    let mut rig = Rig::long();
    rig.long_page(0, 0, OPEN | NG);
    let select = |rig: &mut Rig, ttbr0: u64, ttbr1: u64, a1: u32| {
        rig.cpu.cp15.ttbr0[0] = T1 | ttbr0 << 48;
        rig.cpu.cp15.ttbr1[0] = ttbr1 << 48;
        rig.cpu.cp15.ttbcr[0] = TTBCR_EAE | a1 << 22;
        rig.cpu.cp15.contextidr[0] = 0x77;
        rig.cpu.update_context();
    };
    select(&mut rig, 3, 4, 0);
    assert_eq!(rig.cpu.cp15.asid(0), 3);
    rig.get(LVA, Access::Read).unwrap();
    let first = (rig.cpu.mmu.context_id(), rig.cpu.mmu.read_addend(LVA));
    select(&mut rig, 5, 4, 0);
    assert_eq!(rig.cpu.mmu.read_addend(LVA), 0);
    select(&mut rig, 3, 9, 0);
    rig.cpu.cp15.dacr[0] = 0x1234;
    rig.cpu.update_context();
    assert_eq!((rig.cpu.mmu.context_id(), rig.cpu.mmu.read_addend(LVA)), first, "DACR selects nothing");
    select(&mut rig, 9, 3, 1);
    assert_eq!(rig.cpu.cp15.asid(0), 3);
    assert_ne!(rig.cpu.mmu.read_addend(LVA), 0);
    rig.cpu.mmu.flush_asid(Reach::All, 9);
    assert_ne!(rig.cpu.mmu.read_addend(LVA), 0);
    rig.cpu.mmu.flush_asid(Reach::All, 3);
    assert_eq!(rig.cpu.mmu.read_addend(LVA), 0);
}

#[test]
fn blocks_go_as_a_whole() {
    let mut rig = Rig::long();
    rig.long_page(0, 0, OPEN);
    rig.put64(T2 + 6 * 8, BASE | BLOCK | OPEN);
    rig.put64(T1 + 16, BASE | BLOCK | OPEN);
    let double = 1u32 << 30 | 6 << 21;
    let gib = 2u32 << 30;
    for (filled, hit, miss) in [
        (double + 0x1000, double + 0x1f_f000, double + 0x20_0000),
        (double + 0x10_1000, double + 0x2000, double - 0x1000),
        (gib + 0x1000, gib + 0x3fff_f000, gib - 0x1000),
        (LVA, LVA, LVA + 0x1000),
    ] {
        rig.get(filled, Access::Read).unwrap();
        rig.cpu.mmu.flush_va(Reach::All, miss, 0);
        assert_ne!(rig.cpu.mmu.read_addend(filled), 0, "{miss:#x} is no part of it");
        rig.cpu.mmu.flush_va(Reach::All, hit, 0);
        assert_eq!(rig.cpu.mmu.read_addend(filled), 0, "{filled:#x} by {hit:#x}");
    }
    // Global blocks go whatever the ASID, others only with theirs.
    rig.put64(T1 + 16, BASE | BLOCK | OPEN | NG);
    rig.get(gib + 0x1000, Access::Read).unwrap();
    rig.get(double, Access::Read).unwrap();
    rig.cpu.mmu.flush_va(Reach::All, gib + 0x2000, 6);
    rig.cpu.mmu.flush_va(Reach::All, double + 0x2000, 6);
    assert_ne!(rig.cpu.mmu.read_addend(gib + 0x1000), 0);
    assert_eq!(rig.cpu.mmu.read_addend(double), 0);
}

#[test]
fn big_endian_long_tables() {
    let mut rig = Rig::long();
    rig.put64(T1 + 8, (BASE | BLOCK | OPEN).swap_bytes());
    rig.sctlr(SCTLR_EE, 0);
    assert_eq!(rig.get(1 << 30 | 0x1234, Access::Read).unwrap().pa, BASE | 0x1234);
}
