//! All of a machine's devices at work at once, recorded while seeded delays shake every process, and replayed under others: the virtio disk, the SD card, both
//! network cards, the display and the keyboard of one Linux.

use reprise_tests::network::{Board, Host};
use reprise_tests::{LONG_GUARD, Rig, Run, exit, md5, prefix, slow};
use std::fs;
use std::path::{Path, PathBuf};
use xtask::console::Console;

/// Bytes that go each way over each network card.
const SENT: usize = 1 << 20;
/// Lines at the top where the kernel's console shows what is typed.
const TYPED: usize = 32;
const WIDTH: usize = 640;
const HEIGHT: usize = 480;

/// What the machine works with.
struct Work {
    config: PathBuf,
    disk: PathBuf,
    card: PathBuf,
    host: Host,
}

impl Work {
    fn new(rig: &Rig) -> Self {
        let board = prefix().join("share/reprise/configs/machines/vexpress.ron");
        let config = rig.path("machine.ron");
        fs::write(&config, xtask::torture::with_network(&board).expect("a board")).expect("written");
        let disk = rig.image("disk.img", 8 << 20);
        let card = rig.image("card.img", 2 << 20);
        Self { config, disk, card, host: Host::new(rig, SENT) }
    }

    /// Records a life of the machine under delays of this seed.
    fn record(&self, rig: &Rig, seed: u64) -> Run {
        let name = format!("seed{seed}");
        let (recording, report) = (rig.path(&name), rig.path(&format!("{name}.json")));
        let mut c =
            self.host.machine(rig, &Board::A15(self.config.clone()), "vt.global_cursor_default=0 run=everything");
        for (device, image) in [("blk0", &self.disk), ("sd0", &self.card)] {
            c.arg("--disk").arg(format!("{device}={},format=raw,snapshot=on", image.display()));
        }
        for device in ["eth0", "net0"] {
            c.arg("--net").arg(format!("{device}=user,dns=none"));
        }
        c.args(["--display", "headless", "--jitter", &seed.to_string(), "--screendump"]).arg(picture(&recording));
        c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
        let mut console = Console::start(&mut c, false).expect("start");
        console.expect("LISTENS", LONG_GUARD).expect("it works");
        // While disks and networks are busy.
        rig.vmctl(&["send-key", "shift-a", "--text", "b"]);
        console.expect("RUN everything END rc=0", LONG_GUARD).expect("it is done");
        let ended = console.wait(LONG_GUARD).expect("it powers off");
        let report = xtask::demo::report(&report).expect("a report");
        Run { recording, ended, report }.ended(exit::OK)
    }

    /// All of the work was done, and done right.
    fn check(&self, run: &Run) {
        let text = run.ended.text();
        for (part, image) in [("disk", &self.disk), ("card", &self.card)] {
            assert!(text.contains(&format!("{part} {}  -", md5(image))), "{part} is as on the host: {text}");
            let sums: Vec<&str> = text
                .lines()
                .filter_map(|l| l.trim().strip_prefix(part)?.trim().split_once("  m/"))
                .map(|(sum, _)| sum)
                .collect();
            assert!(sums.len() == 4 && sums.iter().all(|s| *s == sums[0]), "{part} keeps what is written: {text}");
        }
        for card in ["eth0 ", "eth1 "] {
            self.host.check(run, card);
        }
        // EV_KEY, the key's code, pressed or not; behind 8 bytes of time.
        for (code, down) in [(42, 1), (30, 1), (30, 0), (42, 0), (48, 1), (48, 0)] {
            let event = format!("01 00 {code:02x} 00 {down:02x} 00 00 00");
            assert!(text.lines().any(|l| l.starts_with("keys ") && l.trim_end().ends_with(&event)), "{event}: {text}");
        }
        self.shows_the_disk(&picture(&run.recording));
    }

    /// The picture is what the disk began with, in pixels of 5, 6 and 5 bits.
    fn shows_the_disk(&self, picture: &Path) {
        let file = std::io::BufReader::new(fs::File::open(picture).expect("a picture"));
        let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
        let mut bytes = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut bytes).expect("pixels");
        assert_eq!((info.width as usize, info.height as usize), (WIDTH, HEIGHT));
        let drawn = fs::read(&self.disk).expect("readable");
        let field = |pixel: u16, shift: u32, max: u32| ((u32::from(pixel) >> shift & max) * 255 / max) as u8;
        for n in TYPED * WIDTH..WIDTH * HEIGHT {
            let pixel = u16::from_le_bytes([drawn[2 * n], drawn[2 * n + 1]]);
            let expected = [field(pixel, 11, 31), field(pixel, 5, 63), field(pixel, 0, 31)];
            assert_eq!(bytes[3 * n..3 * n + 3], expected, "pixel {} of line {}", n % WIDTH, n / WIDTH);
        }
    }
}

/// The last picture of a recording's machine.
fn picture(recording: &Path) -> PathBuf {
    recording.with_extension("png")
}

#[test]
fn everything_at_once_replays_exactly_under_other_delays() {
    let rig = Rig::new();
    let work = Work::new(&rig);
    for seed in 1..=if slow() { 10 } else { 2 } {
        let run = work.record(&rig, seed);
        work.check(&run);
        let shown = fs::read(picture(&run.recording)).expect("a picture");
        for (how, other) in [(&[][..], 100 + seed), (&["--cpu-only"][..], 200 + seed)] {
            let (again, other) = (rig.path("again.png"), other.to_string());
            let args = [how, &["--jitter", &other, "--screendump", again.to_str().expect("text")]].concat();
            let replay = rig.replay(&run.recording, &args).exact(&run);
            assert!(
                fs::read(&again).expect("a picture") == shown,
                "seed {seed}: the replay {how:?} shows another picture"
            );
            if how.is_empty() {
                assert_eq!(replay.report["device_hash"], run.report["device_hash"], "seed {seed}");
            }
        }
        println!("seed {seed}: {} instructions, exact", run.report["instructions"]);
        fs::remove_dir_all(&run.recording).expect("it can go");
    }
}
