use super::regs::*;
use super::*;

/// A controller with everything on: both groups forwarded, mask open, every SPI to core 0.
fn open(cpus: usize) -> Gic {
    let mut g = Gic::new(GicConfig::cortex_a15(cpus, 160));
    g.dist_write(0, true, GICD_CTLR, 4, 3);
    for cpu in 0..cpus {
        g.cpu_write(cpu, true, GICC_CTLR, 4, CTLR_GRP0 | CTLR_GRP1);
        g.cpu_write(cpu, true, GICC_PMR, 4, 0xff);
    }
    for id in 32..192 {
        g.dist_write(0, true, GICD_ITARGETSR + id, 1, 1);
    }
    g
}

fn enable(g: &mut Gic, id: u32, priority: u32) {
    g.dist_write(0, true, GICD_ISENABLER + id / 32 * 4, 4, 1 << (id % 32));
    g.dist_write(0, true, GICD_IPRIORITYR + id, 1, priority);
}

fn make_edge(g: &mut Gic, id: u32) {
    let at = GICD_ICFGR + id / 16 * 4;
    let old = g.dist_read(0, true, at, 4);
    g.dist_write(0, true, at, 4, old | 2 << (2 * (id % 16)));
}

fn iar(g: &mut Gic, cpu: usize) -> u32 {
    g.cpu_read(cpu, true, GICC_IAR, 4)
}

fn eoi(g: &mut Gic, cpu: usize, v: u32) {
    g.cpu_write(cpu, true, GICC_EOIR, 4, v);
}

fn rpr(g: &mut Gic) -> u32 {
    g.cpu_read(0, true, GICC_RPR, 4)
}

#[test]
fn identification() {
    let mut g = Gic::new(GicConfig::cortex_a15(2, 160));
    assert_eq!(g.dist_read(0, true, GICD_TYPER, 4), 5 | 1 << 5 | 1 << 10);
    assert_eq!(g.dist_read(0, true, 0xfe8, 4), 0x2b, "PIDR2 says GICv2");
    assert_eq!(g.dist_read(0, true, 0xffc, 4), 0xb1);
    assert_eq!(g.cpu_read(0, true, GICC_IIDR, 4) >> 16 & 0xf, 2, "architecture version");
    assert_eq!(g.dist_read(0, true, GICD_ISENABLER, 4), 0xffff, "SGIs are always enabled");
    assert_eq!(g.dist_read(0, true, GICD_ICFGR, 4), 0xaaaa_aaaa, "SGIs are edges");
    g.dist_write(0, true, GICD_IPRIORITYR + 40, 1, 0xff);
    assert_eq!(g.dist_read(0, true, GICD_IPRIORITYR + 40, 1), 0xf8, "five bits of priority");
    g.dist_write(0, true, GICD_IPRIORITYR + 192, 4, 0xffff_ffff);
    assert_eq!(g.dist_read(0, true, GICD_IPRIORITYR + 192, 4), 0, "no such interrupt");
}

#[test]
fn level_is_pending_until_the_line_drops() {
    let mut g = open(1);
    enable(&mut g, 37, 0xa0);
    g.set_spi(5, true);
    assert_eq!(g.lines(0), (true, false));
    assert_eq!(iar(&mut g, 0), 37);
    assert_eq!(g.lines(0), (false, false), "active");
    assert_eq!(iar(&mut g, 0), SPURIOUS);
    eoi(&mut g, 0, 37);
    assert_eq!(g.lines(0), (true, false), "still high: pends again");
    assert_eq!(iar(&mut g, 0), 37);
    g.set_spi(5, false);
    eoi(&mut g, 0, 37);
    assert_eq!(g.lines(0), (false, false));
    g.set_spi(5, true);
    g.set_spi(5, false);
    assert_eq!(g.lines(0), (false, false), "a level leaves nothing behind");
}

#[test]
fn edge_is_latched_and_pends_while_active() {
    let mut g = open(1);
    enable(&mut g, 40, 0x80);
    make_edge(&mut g, 40);
    g.set_spi(8, true);
    g.set_spi(8, false);
    assert_eq!(iar(&mut g, 0), 40);
    g.set_spi(8, true);
    assert_eq!(g.dist_read(0, true, GICD_ISPENDR + 4, 4), 1 << 8, "active and pending");
    assert!(!g.lines(0).0);
    eoi(&mut g, 0, 40);
    assert_eq!(iar(&mut g, 0), 40);
    eoi(&mut g, 0, 40);
    assert_eq!(iar(&mut g, 0), SPURIOUS, "the line is still high, but that was one edge");
}

#[test]
fn software_pending_and_its_clearing() {
    let mut g = open(1);
    enable(&mut g, 50, 0x80);
    g.dist_write(0, true, GICD_ISPENDR + 4, 4, 1 << 18);
    assert!(g.lines(0).0);
    g.dist_write(0, true, GICD_ICPENDR + 4, 4, 1 << 18);
    assert!(!g.lines(0).0);
    g.set_spi(18, true);
    g.dist_write(0, true, GICD_ICPENDR + 4, 4, 1 << 18);
    assert!(g.lines(0).0, "a level can't be cleared by software");
    g.dist_write(0, true, GICD_ICENABLER + 4, 4, 1 << 18);
    assert!(!g.lines(0).0);
    assert_eq!(g.dist_read(0, true, GICD_ICENABLER + 4, 4) & 1 << 18, 0);
}

#[test]
fn preemption_by_group_priority() {
    let mut g = open(1);
    for (id, p) in [(32, 0xa0), (33, 0xa0), (34, 0x40), (35, 0x48)] {
        enable(&mut g, id, p);
    }
    g.set_spi(0, true);
    g.set_spi(1, true);
    assert_eq!(iar(&mut g, 0), 32, "same priority: lowest ID");
    assert_eq!(rpr(&mut g), 0xa0);
    assert!(!g.lines(0).0, "equal priority does not preempt");
    g.set_spi(2, true);
    g.set_spi(3, true);
    assert!(g.lines(0).0);
    assert_eq!(iar(&mut g, 0), 34);
    assert_eq!(rpr(&mut g), 0x40);
    assert_eq!(iar(&mut g, 0), SPURIOUS);
    g.set_spi(2, false);
    eoi(&mut g, 0, 34);
    assert_eq!(rpr(&mut g), 0xa0, "back to the preempted one");
    assert_eq!(iar(&mut g, 0), 35);
    g.set_spi(3, false);
    eoi(&mut g, 0, 35);
    g.set_spi(0, false);
    eoi(&mut g, 0, 32);
    assert_eq!(rpr(&mut g), 0xff);
    assert_eq!(iar(&mut g, 0), 33);
}

#[test]
fn binary_point_joins_priorities() {
    let mut g = open(1);
    enable(&mut g, 32, 0x48);
    enable(&mut g, 33, 0x40);
    g.cpu_write(0, true, GICC_BPR, 4, 0);
    assert_eq!(g.cpu_read(0, true, GICC_BPR, 4), 2, "five bits need at least 2");
    g.cpu_write(0, true, GICC_BPR, 4, 5); // group priority is bits 7:6
    g.set_spi(0, true);
    assert_eq!(iar(&mut g, 0), 32);
    assert_eq!(rpr(&mut g), 0x40);
    g.set_spi(1, true);
    assert!(!g.lines(0).0, "0x40 and 0x48 are one group");
    g.set_spi(0, false);
    eoi(&mut g, 0, 32);
    g.set_spi(0, true);
    assert_eq!(iar(&mut g, 0), 33, "the subpriority still orders them");
}

#[test]
fn mask() {
    let mut g = open(1);
    enable(&mut g, 32, 0xa0);
    g.set_spi(0, true);
    g.cpu_write(0, true, GICC_PMR, 4, 0xa0);
    assert!(!g.lines(0).0, "the priority must be higher than the mask");
    assert_eq!(g.cpu_read(0, true, GICC_HPPIR, 4), 32, "but it is pending");
    g.cpu_write(0, true, GICC_PMR, 4, 0xa8);
    assert!(g.lines(0).0);
    g.cpu_write(0, true, GICC_CTLR, 4, 0);
    assert!(!g.lines(0).0);
    assert_eq!(iar(&mut g, 0), SPURIOUS);
}

#[test]
fn end_modes_and_orders() {
    let mut g = open(1);
    enable(&mut g, 32, 0xa0);
    enable(&mut g, 33, 0x50);
    g.cpu_write(0, true, GICC_CTLR, 4, CTLR_GRP0 | CTLR_EOIMODE_S);
    g.set_spi(0, true);
    assert_eq!(iar(&mut g, 0), 32);
    eoi(&mut g, 0, 32);
    assert_eq!(rpr(&mut g), 0xff, "dropped");
    assert!(!g.lines(0).0, "still active");
    g.cpu_write(0, true, GICC_DIR, 4, 32);
    assert!(g.lines(0).0, "deactivated, and the line is high");
    // Ended in the wrong order: priorities drop from the top, activity by number.
    g.cpu_write(0, true, GICC_CTLR, 4, CTLR_GRP0);
    g.cpu_write(0, true, GICC_DIR, 4, 32);
    assert_eq!(iar(&mut g, 0), 32);
    g.set_spi(1, true);
    assert_eq!(iar(&mut g, 0), 33);
    eoi(&mut g, 0, 32);
    assert_eq!(rpr(&mut g), 0xa0);
    assert_eq!(g.dist_read(0, true, GICD_ISACTIVER + 4, 4), 1 << 1, "33 is still active");
    g.set_spi(1, false);
    eoi(&mut g, 0, 33);
    assert_eq!(rpr(&mut g), 0xff);
    eoi(&mut g, 0, SPURIOUS);
    assert_eq!(iar(&mut g, 0), 32);
}

#[test]
fn groups_and_fiq() {
    let mut g = open(1);
    enable(&mut g, 32, 0x20);
    enable(&mut g, 33, 0xa0);
    g.dist_write(0, true, GICD_IGROUPR + 4, 4, 1 << 1);
    g.cpu_write(0, true, GICC_CTLR, 4, CTLR_GRP0 | CTLR_GRP1 | CTLR_FIQEN);
    g.set_spi(1, true);
    assert_eq!(g.lines(0), (true, false), "Group 1 is an IRQ");
    assert_eq!(iar(&mut g, 0), SPURIOUS_GROUP1, "Secure read without AckCtl");
    assert_eq!(g.cpu_read(0, true, GICC_HPPIR, 4), SPURIOUS_GROUP1);
    g.set_spi(0, true);
    assert_eq!(g.lines(0), (false, true), "Group 0 is a FIQ");
    assert_eq!(g.cpu_read(0, false, GICC_IAR, 4), SPURIOUS, "not for Non-secure eyes");
    assert_eq!(iar(&mut g, 0), 32);
    g.cpu_write(0, false, GICC_EOIR, 4, 32);
    assert_eq!(rpr(&mut g), 0x20, "a Non-secure end of a Secure interrupt is ignored");
    assert_eq!(g.cpu_read(0, false, GICC_RPR, 4), 0, "Secure priorities look like the highest");
    g.set_spi(0, false);
    eoi(&mut g, 0, 32);
    assert_eq!(g.cpu_read(0, true, GICC_AIAR, 4), 33);
    assert_eq!(g.cpu_read(0, false, GICC_RPR, 4), 0x40, "0xa0 in the Non-secure view");
    assert_eq!(g.cpu_read(0, true, GICC_NSAPR, 4), 1 << 20);
    assert_eq!(g.cpu_read(0, false, GICC_APR, 4), 1 << 4);
    g.set_spi(1, false);
    g.cpu_write(0, true, GICC_AEOIR, 4, 33);
    assert_eq!(rpr(&mut g), 0xff);
    g.cpu_write(0, true, GICC_CTLR, 4, CTLR_GRP0 | CTLR_GRP1 | CTLR_ACKCTL);
    g.set_spi(1, true);
    assert_eq!(iar(&mut g, 0), 33, "AckCtl lets the Secure read take it");
}

#[test]
fn nonsecure_views() {
    let mut g = open(1);
    enable(&mut g, 32, 0x20);
    g.dist_write(0, true, GICD_IGROUPR + 4, 4, 1 << 1);
    g.dist_write(0, false, GICD_ISENABLER + 4, 4, 3);
    assert_eq!(g.dist_read(0, true, GICD_ISENABLER + 4, 4), 3);
    assert_eq!(g.dist_read(0, false, GICD_ISENABLER + 4, 4), 2);
    g.dist_write(0, false, GICD_ICENABLER + 4, 4, 3);
    assert_eq!(g.dist_read(0, true, GICD_ISENABLER + 4, 4), 1, "Group 0 stays");
    g.dist_write(0, false, GICD_IPRIORITYR + 33, 1, 0x40);
    assert_eq!(g.dist_read(0, true, GICD_IPRIORITYR + 33, 1), 0xa0);
    assert_eq!(g.dist_read(0, false, GICD_IPRIORITYR + 33, 1), 0x40);
    g.dist_write(0, false, GICD_IPRIORITYR + 32, 1, 0xff);
    assert_eq!(g.dist_read(0, true, GICD_IPRIORITYR + 32, 1), 0x20);
    assert_eq!(g.dist_read(0, false, GICD_CTLR, 4), 1);
    g.dist_write(0, false, GICD_CTLR, 4, 0);
    assert_eq!(g.dist_read(0, true, GICD_CTLR, 4), 1);
    g.cpu_write(0, true, GICC_PMR, 4, 0x40);
    g.cpu_write(0, false, GICC_PMR, 4, 0xf0);
    assert_eq!(g.cpu_read(0, true, GICC_PMR, 4), 0x40);
    g.cpu_write(0, true, GICC_PMR, 4, 0xf8);
    g.cpu_write(0, false, GICC_PMR, 4, 0xa0);
    assert_eq!(g.cpu_read(0, true, GICC_PMR, 4), 0xd0);
    assert_eq!(g.cpu_read(0, false, GICC_PMR, 4), 0xa0);
    g.cpu_write(0, false, GICC_CTLR, 4, 1 | 3 << 5 | 1 << 9);
    assert_eq!(g.cpu_read(0, false, GICC_CTLR, 4), 1 | 3 << 5 | 1 << 9);
    assert_eq!(g.cpu_read(0, true, GICC_CTLR, 4), CTLR_GRP0 | CTLR_GRP1 | CTLR_BYPASS1 | CTLR_EOIMODE_NS);
    assert_eq!(g.cpu_read(0, false, GICC_BPR, 4), 3);
    g.cpu_write(0, true, GICC_CTLR, 4, CTLR_CBPR);
    g.cpu_write(0, true, GICC_BPR, 4, 4);
    assert_eq!(g.cpu_read(0, false, GICC_BPR, 4), 5);
}

#[test]
fn software_interrupts_remember_their_source() {
    let mut g = open(2);
    g.dist_write(0, true, GICD_SGIR, 4, 2 << 16 | 3); // from core 0 to core 1
    g.dist_write(1, true, GICD_SGIR, 4, 2 << 24 | 3); // from core 1 to itself
    assert_eq!(g.lines(0), (false, false));
    assert_eq!(g.dist_read(1, true, GICD_CPENDSGIR + 3, 1), 3);
    assert_eq!(iar(&mut g, 1), 3, "from core 0");
    assert!(!g.lines(1).0);
    eoi(&mut g, 1, 3);
    assert_eq!(iar(&mut g, 1), 3 | 1 << 10, "from core 1");
    eoi(&mut g, 1, 3 | 1 << 10);
    assert_eq!(iar(&mut g, 1), SPURIOUS);
    g.dist_write(1, true, GICD_SGIR, 4, 1 << 24 | 7);
    assert_eq!(g.cpu_read(0, true, GICC_HPPIR, 4), 7 | 1 << 10);
    g.dist_write(0, true, GICD_CPENDSGIR + 7, 1, 2);
    assert!(!g.lines(0).0);
    g.dist_write(0, true, GICD_SPENDSGIR + 7, 1, 1);
    assert_eq!(iar(&mut g, 0), 7);
    g.dist_write(0, true, GICD_SGIR, 4, 1 << 16 | 1 << 15 | 2);
    assert!(!g.lines(0).0, "NSATT asks for Group 1");
}

#[test]
fn targets() {
    let mut g = open(2);
    enable(&mut g, 60, 0x80);
    g.dist_write(0, true, GICD_ITARGETSR + 60, 1, 0xfe);
    assert_eq!(g.dist_read(0, true, GICD_ITARGETSR + 60, 1), 2);
    g.set_spi(28, true);
    assert_eq!((g.lines(0).0, g.lines(1).0), (false, true));
    assert_eq!(g.dist_read(1, true, GICD_ITARGETSR, 4), 0x0202_0202);
    let mut g = open(1);
    enable(&mut g, 60, 0x80);
    g.dist_write(0, true, GICD_ITARGETSR + 60, 1, 1);
    assert_eq!(g.dist_read(0, true, GICD_ITARGETSR + 60, 1), 0, "no target lists with one core");
    g.set_spi(28, true);
    assert!(g.lines(0).0);
}

#[test]
fn private_interrupts_are_private() {
    let mut g = open(2);
    g.dist_write(1, true, GICD_ISENABLER, 4, 1 << 27);
    g.set_ppi(0, 27, true);
    assert_eq!((g.lines(0).0, g.lines(1).0), (false, false));
    g.set_ppi(1, 27, true);
    assert_eq!((g.lines(0).0, g.lines(1).0), (false, true));
    assert_eq!(g.dist_read(1, true, GICD_PPISR, 4), 1 << 11);
    assert_eq!(iar(&mut g, 1), 27);
}

#[test]
fn save_restore() {
    let mut g = open(2);
    enable(&mut g, 33, 0x60);
    g.set_spi(1, true);
    assert_eq!(iar(&mut g, 0), 33);
    let saved = g.save();
    let mut h = Gic::new(GicConfig::cortex_a15(2, 160));
    h.restore(saved.clone()).unwrap();
    assert_eq!(h.save(), saved);
    eoi(&mut h, 0, 33);
    assert!(h.lines(0).0);
    assert!(Gic::new(GicConfig::cortex_a15(1, 160)).restore(saved).is_err());
}

/// Any sequence of accesses keeps the invariants and never panics.
#[test]
fn random_accesses() {
    let mut g = open(2);
    let mut x = 1u64;
    for _ in 0..200_000 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (cpu, secure) = ((x >> 60) as usize & 1, x >> 59 & 1 != 0);
        let size = [1u8, 2, 4, 4][(x >> 56) as usize & 3];
        let (offset, value) = ((x >> 40) as u32 & 0xfff & !(u32::from(size) - 1), (x >> 8) as u32);
        match x >> 53 & 7 {
            0 => g.dist_write(cpu, secure, offset, size, value),
            1 => drop(g.dist_read(cpu, secure, offset, size)),
            2 => g.cpu_write(cpu, secure, offset & 0xff, size, value),
            3 => drop(g.cpu_read(cpu, secure, offset & 0xff, size)),
            4 => g.set_spi(value % 200, value & 0x100 != 0),
            5 => g.set_ppi(cpu, 16 + value % 16, value & 0x100 != 0),
            6 => drop(iar(&mut g, cpu)),
            _ => g.cpu_write(cpu, secure, GICC_DIR, 4, value),
        }
        for c in 0..2 {
            assert!(g.lines(c) != (true, true), "one candidate, one line");
            let by_scan = g.signalled(c).is_some();
            assert_eq!(g.lines(c).0 || g.lines(c).1, by_scan);
        }
    }
    assert_eq!(g.dist_read(0, true, GICD_ISENABLER, 4) & 0xffff, 0xffff);
}

/// Cortex-A9's controller: version 1, with edge-triggered private timers.
#[test]
fn cortex_a9_is_a_version_1() {
    let mut g = Gic::new(GicConfig::cortex_a9(4, 64));
    let dist = |g: &mut Gic, at| g.dist_read(1, true, at, 4);
    assert_eq!(dist(&mut g, GICD_TYPER), 0x462);
    assert_eq!(dist(&mut g, GICD_IIDR), 0x0102_043b);
    assert_eq!([0xfe0, 0xfe4, 0xfe8].map(|at| dist(&mut g, at)), [0x90, 0xb3, 0x1b]);
    // IDs 27, 29 and 30 are edge-triggered whatever is written.
    g.dist_write(1, true, GICD_ICFGR + 4, 4, 0);
    assert_eq!(dist(&mut g, GICD_ICFGR + 4), 0x2880_0000);
    assert_eq!(g.cpu_read(1, true, GICC_IIDR, 4), 0x3901_243b);
    g.cpu_write(1, true, GICC_CTLR, 4, !0);
    assert_eq!(g.cpu_read(1, true, GICC_CTLR, 4), 0x1f, "no EOImode");
    g.dist_write(1, true, GICD_CTLR, 4, 3);
    g.cpu_write(1, true, GICC_PMR, 4, 0xff);
    enable(&mut g, 40, 0);
    g.dist_write(1, true, GICD_ISENABLER, 4, 1 << 29);
    g.set_ppi(1, 29, true);
    g.set_ppi(1, 29, false);
    assert_eq!((iar(&mut g, 1), iar(&mut g, 0)), (29, SPURIOUS), "the edge is kept, for its core only");
    assert_eq!(g.cpu_read(1, true, GICC_APR, 4), 0, "no such register");
    g.cpu_write(1, true, GICC_DIR, 4, 29);
    g.dist_write(1, true, GICD_SPENDSGIR, 4, !0);
    assert_eq!(dist(&mut g, GICD_ISACTIVER) & 1 << 29, 1 << 29);
    assert_eq!((dist(&mut g, GICD_ISPENDR), dist(&mut g, GICD_SPENDSGIR)), (0, 0));
    eoi(&mut g, 1, 29);
    assert_eq!(dist(&mut g, GICD_ISACTIVER), 0);
}

/// Without the Security Extensions there is one view, whatever security state an access comes from, and groups are only groups.
#[test]
fn without_security_there_is_one_view() {
    let mut g = Gic::new(GicConfig { security: false, ..GicConfig::cortex_a15(2, 64) });
    assert_eq!(g.dist_read(0, false, GICD_TYPER, 4), 0x22, "no SecurityExtn");
    g.dist_write(0, false, GICD_CTLR, 4, 3);
    assert_eq!(g.dist_read(0, false, GICD_CTLR, 4), 3, "both groups");
    for cpu in 0..2 {
        g.cpu_write(cpu, false, GICC_PMR, 4, 0xf0);
        assert_eq!(g.cpu_read(cpu, false, GICC_PMR, 4), 0xf0, "no half of the priorities is kept away");
        g.cpu_write(cpu, false, GICC_CTLR, 4, 0xb);
    }
    g.dist_write(0, false, GICD_ISENABLER + 4, 4, 3);
    g.dist_write(0, false, GICD_ITARGETSR + 32, 4, 0x0101);
    g.dist_write(0, false, GICD_IGROUPR + 4, 4, 2);
    g.set_spi(0, true);
    assert_eq!(g.lines(0), (false, true), "Group 0 with FIQEn is an FIQ");
    assert_eq!(g.cpu_read(0, false, GICC_IAR, 4), 32);
    g.cpu_write(0, false, GICC_EOIR, 4, 32);
    g.set_spi(0, false);
    g.set_spi(1, true);
    assert_eq!(g.lines(0), (true, false), "Group 1");
    assert_eq!(g.cpu_read(0, false, GICC_IAR, 4), SPURIOUS_GROUP1, "AckCtl is clear");
    assert_eq!(g.cpu_read(0, false, GICC_AIAR, 4), 33);
    // An SGI goes out whatever its group and GICD_SGIR.NSATT.
    for (group, nsatt) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        g.dist_write(1, false, GICD_IGROUPR, 4, group << 5);
        g.dist_write(0, false, GICD_SGIR, 4, 2 << 16 | nsatt << 15 | 5);
        assert!(g.dist_read(1, false, GICD_ISPENDR, 4) & 1 << 5 != 0, "group {group}, NSATT {nsatt}");
        g.dist_write(1, false, GICD_CPENDSGIR + 4, 4, 0xffff_ffff);
    }
}
