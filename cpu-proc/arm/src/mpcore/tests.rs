use super::*;

/// 100 MHz: a tick is 10 ns.
const HZ: u32 = 100_000_000;

fn rig() -> MpCore {
    MpCore::new(2, HZ)
}

fn w(p: &mut MpCore, cpu: usize, now: u64, offset: u32, value: u32) {
    p.write(cpu, true, now, offset, 4, value.into());
}

fn r(p: &mut MpCore, cpu: usize, now: u64, offset: u32) -> u32 {
    p.read(cpu, true, now, offset, 4) as u32
}

/// The level of one of core `cpu`'s interrupts at `now`.
fn line(p: &mut MpCore, cpu: usize, now: u64, id: u32) -> bool {
    p.advance(now);
    p.lines(cpu).into_iter().find(|l| l.0 == id).unwrap().1
}

#[test]
fn scu_registers() {
    let mut p = rig();
    assert_eq!(r(&mut p, 0, 0, 0x04), 0x0000_0531, "two cores with 32 KiB caches");
    assert_eq!((r(&mut p, 0, 0, 0x00), r(&mut p, 0, 0, 0x50), r(&mut p, 0, 0, 0x54)), (0, 0xf, 0));
    for (at, mask) in [(0x00, 0x7f), (0x08, 0x0303), (0x40, 0xfff0_0000), (0x44, 0xfff0_0000), (0x54, 0xfff)] {
        w(&mut p, 0, 0, at, !0);
        assert_eq!(r(&mut p, 0, 0, at), mask, "{at:#x}");
    }
    // The power status is written a byte a core.
    w(&mut p, 0, 0, 0x08, 0);
    p.write(1, true, 0, 0x09, 1, 2);
    assert_eq!((p.read(0, true, 0, 0x09, 1), r(&mut p, 0, 0, 0x08)), (2, 0x0200));
    w(&mut p, 0, 0, 0x0c, !0);
    assert_eq!(r(&mut p, 0, 0, 0x0c), 0, "invalidate all");
    // A core that has no access can't write, and can't give itself access.
    w(&mut p, 0, 0, 0x50, 0b01);
    w(&mut p, 1, 0, 0x50, 0b11);
    w(&mut p, 1, 0, 0x00, 0);
    assert_eq!((r(&mut p, 1, 0, 0x50), r(&mut p, 1, 0, 0x00)), (0b01, 0x7f));
}

#[test]
fn non_secure_software_uses_what_it_may() {
    let mut p = rig();
    let (scu, global, private) = (0x40, 0x210, 0x600);
    let write = |p: &mut MpCore, at| {
        p.write(0, false, 0, at, 4, 0x0010_0000);
        (p.read(0, true, 0, at, 4) != 0, p.read(0, false, 0, at, 4) != 0)
    };
    assert_eq!([scu, global, private].map(|at| write(&mut p, at)), [(false, false); 3]);
    for (bit, at) in [(0, scu), (8, global), (4, private)] {
        p.write(0, false, 0, 0x54, 4, 1 << bit);
        assert_eq!(p.read(0, true, 0, 0x54, 4), 0, "only Secure software gives access");
        w(&mut p, 0, 0, 0x54, 1 << bit);
        assert_eq!(write(&mut p, at), (true, true), "{at:#x}");
        w(&mut p, 0, 0, 0x54, 0);
    }
}

#[test]
fn private_timer_once() {
    let mut p = rig();
    w(&mut p, 0, 1_000, 0x600, 50);
    assert_eq!((r(&mut p, 0, 2_000, 0x604), p.deadline()), (50, None), "not started");
    w(&mut p, 0, 2_005, 0x608, 0b101);
    assert_eq!(p.deadline(), Some(2_000 + 500), "ticks are those of one clock");
    assert_eq!(r(&mut p, 0, 2_105, 0x604), 40);
    assert!(!line(&mut p, 0, 2_499, PPI_PRIVATE) && line(&mut p, 0, 2_500, PPI_PRIVATE));
    assert!(!line(&mut p, 1, 2_500, PPI_PRIVATE), "each core has its own");
    assert_eq!((r(&mut p, 0, 9_000, 0x604), r(&mut p, 0, 9_000, 0x60c)), (0, 1));
    assert_eq!(p.deadline(), None);
    w(&mut p, 0, 9_000, 0x60c, 1);
    assert!(!line(&mut p, 0, 9_000, PPI_PRIVATE));
    assert_eq!((r(&mut p, 0, 9_000, 0x60c), p.deadline()), (0, None), "it has stopped");
    // Linux's next event: the counter, with the timer on.
    w(&mut p, 0, 9_000, 0x604, 7);
    assert_eq!((r(&mut p, 0, 9_030, 0x604), r(&mut p, 0, 9_030, 0x600)), (4, 50));
    assert_eq!(p.deadline(), Some(9_070));
}

#[test]
fn private_timer_again_and_again() {
    let mut p = rig();
    w(&mut p, 1, 0, 0x600, 9);
    w(&mut p, 1, 0, 0x608, 0b111);
    for (now, value) in [(0, 9), (10, 8), (90, 0), (100, 9), (190, 0), (200, 9), (1_000_090, 0), (1_000_100, 9)] {
        assert_eq!(r(&mut p, 1, now, 0x604), value, "at {now}");
    }
    w(&mut p, 1, 1_000_100, 0x60c, 1);
    assert_eq!(p.deadline(), Some(1_000_190));
    assert!(line(&mut p, 1, 1_000_190, PPI_PRIVATE));
    w(&mut p, 1, 1_000_190, 0x60c, 1);
    assert_eq!(p.deadline(), Some(1_000_290), "from zero, one whole period");
    assert_eq!(r(&mut p, 1, 1_000_210, 0x604), 8);
    // Without the interrupt the flag still comes, and shows at once when the interrupt is enabled.
    w(&mut p, 1, 1_000_210, 0x608, 0b011);
    assert_eq!(p.deadline(), None);
    assert!(!line(&mut p, 1, 1_000_900, PPI_PRIVATE));
    w(&mut p, 1, 1_000_900, 0x608, 0b111);
    assert!(line(&mut p, 1, 1_000_900, PPI_PRIVATE));
    // Stopped, it keeps its value.
    w(&mut p, 1, 1_000_920, 0x608, 0);
    let value = r(&mut p, 1, 1_000_920, 0x604);
    assert_eq!(r(&mut p, 1, 2_000_000, 0x604), value);
    assert_eq!(r(&mut p, 1, 2_000_000, 0x608), 0);
}

#[test]
fn prescaler_and_odd_times() {
    let mut p = rig();
    w(&mut p, 0, 3, 0x600, 4);
    w(&mut p, 0, 3, 0x608, 0xffff_0305);
    assert_eq!(r(&mut p, 0, 3, 0x608), 0x0305);
    // A step is 4 ticks: zero after 16 ticks, the first of which ends at 10 ns.
    assert_eq!(p.deadline(), Some(160));
    for (now, value) in [(39, 4), (40, 3), (79, 3), (80, 2), (159, 1), (160, 0)] {
        assert_eq!(r(&mut p, 0, now, 0x604), value, "at {now}");
    }
    // A frequency whose ticks are no whole ns: the deadline is the first ns that has the tick.
    let mut q = MpCore::new(1, 66_666_667);
    w(&mut q, 0, 0, 0x600, 1000);
    w(&mut q, 0, 0, 0x608, 0b101);
    let d = q.deadline().unwrap();
    assert!(!line(&mut q, 0, d - 1, PPI_PRIVATE) && line(&mut q, 0, d, PPI_PRIVATE));
}

#[test]
fn a_timer_without_a_load_value() {
    let mut p = rig();
    w(&mut p, 0, 0, 0x608, 0b101);
    assert_eq!((p.deadline(), r(&mut p, 0, 1_000, 0x60c)), (None, 0));
    w(&mut p, 0, 1_000, 0x608, 0b111);
    assert_eq!(p.deadline(), Some(1_010), "it reloads zero at every step");
    assert!(line(&mut p, 0, 1_010, PPI_PRIVATE));
}

#[test]
fn watchdog_as_a_timer() {
    let mut p = rig();
    w(&mut p, 0, 0, 0x620, 99);
    w(&mut p, 0, 0, 0x628, 0b101);
    assert_eq!(p.deadline(), Some(990));
    assert!(line(&mut p, 0, 990, PPI_WATCHDOG) && !line(&mut p, 0, 990, PPI_PRIVATE));
    assert_eq!((r(&mut p, 0, 990, 0x62c), r(&mut p, 0, 990, 0x630)), (1, 0));
    w(&mut p, 0, 990, 0x62c, 1);
    assert!(!line(&mut p, 0, 990, PPI_WATCHDOG) && !p.reset_request());
}

#[test]
fn watchdog_as_a_watchdog() {
    let mut p = rig();
    w(&mut p, 1, 0, 0x620, 99);
    w(&mut p, 1, 0, 0x628, 0b1001);
    assert_eq!((p.deadline(), r(&mut p, 1, 0, 0x628)), (Some(990), 0b1001));
    // Neither the counter nor the mode can be written; the load register refreshes.
    w(&mut p, 1, 500, 0x624, 1_000_000);
    w(&mut p, 1, 500, 0x628, 0b0001);
    assert_eq!((p.deadline(), r(&mut p, 1, 500, 0x628)), (Some(990), 0b1001));
    w(&mut p, 1, 500, 0x620, 99);
    assert_eq!(p.deadline(), Some(1_490));
    // Only the two keys, one right after the other, end the mode.
    for key in [KEY2, KEY1, 0, KEY2, KEY1] {
        w(&mut p, 1, 500, 0x634, key);
    }
    w(&mut p, 1, 500, 0x620, 99);
    w(&mut p, 1, 500, 0x634, KEY2);
    assert_eq!(r(&mut p, 1, 500, 0x628) & 8, 8);
    p.advance(1_489);
    assert!(!p.reset_request());
    p.advance(1_490);
    assert!(p.reset_request() && !line(&mut p, 1, 1_490, PPI_WATCHDOG));
    assert_eq!(r(&mut p, 1, 1_490, 0x630), 1);
    w(&mut p, 1, 1_490, 0x630, 1);
    assert!(!p.reset_request());
    w(&mut p, 1, 1_490, 0x634, KEY1);
    w(&mut p, 1, 1_490, 0x634, KEY2);
    assert_eq!(r(&mut p, 1, 1_490, 0x628) & 8, 0);
}

const KEY1: u32 = 0x1234_5678;
const KEY2: u32 = 0x8765_4321;

#[test]
fn global_timer_counts_for_all() {
    let mut p = rig();
    w(&mut p, 0, 0, 0x200, 0xffff_fff0);
    w(&mut p, 0, 0, 0x204, 7);
    assert_eq!(r(&mut p, 1, 1_000, 0x200), 0xffff_fff0, "not started");
    w(&mut p, 1, 1_000, 0x208, 0x0000_ff0f);
    assert_eq!((r(&mut p, 0, 1_000, 0x208), r(&mut p, 1, 1_000, 0x208)), (0xff01, 0xff0f), "partly banked");
    w(&mut p, 0, 1_000, 0x208, 1);
    assert_eq!((r(&mut p, 1, 1_160, 0x200), r(&mut p, 1, 1_160, 0x204)), (0, 8));
    assert_eq!(p.read(0, true, 1_170, 0x200, 8), 0x8_0000_0001);
}

#[test]
fn global_timer_comparators() {
    let mut p = rig();
    for cpu in 0..2 {
        w(&mut p, cpu, 0, 0x210, 100 + 50 * cpu as u32);
        w(&mut p, cpu, 0, 0x208, 0b0111);
    }
    assert_eq!(p.deadline(), Some(1_000));
    assert!(!line(&mut p, 0, 999, PPI_GLOBAL) && line(&mut p, 0, 1_000, PPI_GLOBAL));
    assert_eq!((p.deadline(), line(&mut p, 1, 1_499, PPI_GLOBAL)), (Some(1_500), false));
    assert!(line(&mut p, 1, 1_500, PPI_GLOBAL));
    // The counter is beyond the value: cleared, the event is there again. A later value ends that.
    w(&mut p, 0, 1_600, 0x20c, 1);
    assert_eq!(r(&mut p, 0, 1_600, 0x20c), 1);
    w(&mut p, 0, 1_600, 0x210, 1_000);
    w(&mut p, 0, 1_600, 0x20c, 1);
    assert_eq!((r(&mut p, 0, 1_600, 0x20c), p.deadline()), (0, Some(10_000)));
    // With auto-increment the value moves on, and clearing is enough.
    w(&mut p, 1, 2_000, 0x218, 40);
    w(&mut p, 1, 2_000, 0x208, 0b1111);
    assert_eq!(r(&mut p, 1, 2_000, 0x210), 230, "150, 190 and beyond the 200 that it is");
    w(&mut p, 1, 2_000, 0x20c, 1);
    assert_eq!((r(&mut p, 1, 2_000, 0x20c), p.deadline()), (0, Some(2_300)));
    assert!(line(&mut p, 1, 2_300, PPI_GLOBAL));
    assert_eq!((r(&mut p, 1, 2_300, 0x210), r(&mut p, 1, 2_300, 0x218)), (270, 40));
}

/// However often the counters are looked at, they come to the same.
#[test]
fn looking_changes_nothing() {
    let set_up = || {
        let mut p = rig();
        for (at, v) in [(0x600, 12), (0x608, 0x0207), (0x620, 77), (0x628, 0x0103), (0x210, 35), (0x218, 13)] {
            w(&mut p, 0, 40, at, v);
        }
        w(&mut p, 0, 40, 0x208, 0x040f);
        p
    };
    let (mut often, mut seldom) = (set_up(), set_up());
    for now in (41..20_000).step_by(7) {
        often.advance(now);
        if now % 5 == 0 {
            seldom.advance(now);
        }
        assert_eq!(often.at(now), seldom.at(now), "at {now}");
    }
    assert_ne!(often.at(20_000), set_up().at(100));
}

/// The next rise of a line is where `deadline` said, and nowhere before.
#[test]
fn lines_rise_at_deadlines_only() {
    let mut p = rig();
    for (at, v) in [(0x600, 33), (0x608, 0x0107), (0x620, 50), (0x628, 0x0007), (0x210, 90), (0x218, 71), (0x208, 0xf)]
    {
        w(&mut p, 0, 0, at, v);
    }
    let mut rises = 0;
    let mut due = p.deadline();
    for now in 1..30_000 {
        let before = p.lines(0);
        p.advance(now);
        let risen: Vec<u32> =
            p.lines(0).iter().zip(before).filter(|(new, old)| new.1 && !old.1).map(|(new, _)| new.0).collect();
        assert_eq!(!risen.is_empty(), due == Some(now), "at {now}: {risen:?}, due {due:?}");
        for id in risen {
            rises += 1;
            let status = match id {
                PPI_GLOBAL => 0x20c,
                PPI_PRIVATE => 0x60c,
                _ => 0x62c,
            };
            w(&mut p, 0, now, status, 1);
        }
        due = p.deadline();
    }
    assert!(rises > 100, "{rises}");
}

#[test]
fn save_and_restore() {
    let mut p = rig();
    w(&mut p, 0, 0, 0x600, 1000);
    w(&mut p, 0, 0, 0x608, 0b111);
    p.advance(3_333);
    let mut q = rig();
    q.restore(p.save()).unwrap();
    assert_eq!((q.at(9_999), q.deadline()), (p.at(9_999), p.deadline()));
    assert!(MpCore::new(1, HZ).restore(p.save()).is_err());
}
