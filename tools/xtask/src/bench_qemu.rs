//! `cargo xtask bench qemu`: the same kernel, initramfs and work on Reprise and on QEMU, in alternation.
//!
//! A run is one boot with all the benchmarks in a row. The guest prints a line before and after each; when such a line comes out of
//! the console, the CPU time that the whole process tree has used so far is read. Reprise's `ns_per_insn` is 1, so the guest's own clock
//! counts instructions in it.

use crate::chart::{self, Bar};
use crate::console::Console;
use crate::demo::{APPEND, linux_args};
use crate::guest::{self, Guest};
use crate::{cputime, install, paths};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The programs of the guest's `kbench`, as `run=` names them.
pub const KBALL: &[&str] = &[
    "kb-sieve",
    "kb-matf",
    "kb-matd",
    "kb-memcpy",
    "kb-chase",
    "kb-crc",
    "kb-fib",
    "kb-qsort",
    "kb-mark",
    "kb-nbody",
    "kb-syscall",
    "kb-fork",
    "kb-pipe",
    "kb-fault",
    "kb-signal",
];

/// Keeps a hung machine from hanging the benchmark; nothing is measured by it.
const GUARD: Duration = Duration::from_secs(1800);
/// The name of what happens up to GUEST READY.
const BOOT: &str = "boot";

/// What to compare, and with what.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Only these benchmarks, by comma; `kball` is all of them, `boot` alone none.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// The CPU engine, as the supervisor's option of that name.
    #[arg(long)]
    pub engine: Option<String>,
    /// Compare with QEMU's own recording too: `-icount shift=3,rr=record`.
    #[arg(long)]
    pub qemu_record: bool,
    /// Compare recording with not recording, too.
    #[arg(long)]
    pub plain: bool,
    /// Replay each recording, and compare.
    #[arg(long)]
    pub replay: bool,
    /// Don't run QEMU: only what compares Reprise with itself.
    #[arg(long)]
    pub no_qemu: bool,
}

/// What is run. The order is that of a round; each second round has the recording and its counterparts the other way about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum System {
    Recording,
    Qemu,
    QemuRecord,
    Plain,
    Replay,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Qemu => "qemu",
            Self::QemuRecord => "qemu-record",
            Self::Plain => "not-recording",
            Self::Replay => "replay",
        }
    }
}

/// Two systems whose CPU times are divided.
struct Pair {
    what: &'static str,
    over: System,
    under: System,
}

const PAIRS: &[Pair] = &[
    Pair { what: "recording : QEMU plain", over: System::Recording, under: System::Qemu },
    Pair { what: "recording : QEMU rr=record", over: System::Recording, under: System::QemuRecord },
    Pair { what: "recording : not recording", over: System::Recording, under: System::Plain },
    Pair { what: "replay : recording", over: System::Replay, under: System::Recording },
];

/// One run of one system.
#[derive(Debug, Clone, Default)]
struct Run {
    /// CPU seconds by benchmark, and [`BOOT`].
    cpu: BTreeMap<String, f64>,
    /// What kbench printed: checksum, and microseconds of guest time.
    sums: BTreeMap<String, (String, f64)>,
}

type Round = BTreeMap<System, Run>;

/// Compares; prints, and writes `qemu.txt`, `qemu.json` and `qemu.svg` into `bench` in cargo's target folder.
///
/// # Errors
/// A run fails, a checksum differs between two systems, or QEMU is neither there nor to be had.
pub fn bench(o: &Options, rounds: u32) -> Result<()> {
    let names = names(&o.only)?;
    let systems = systems(o);
    let qemu = if o.no_qemu { PathBuf::new() } else { qemu()? };
    let prefix = install::stage()?;
    let guest = guest::ensure(&guest::default_dir(), true)?;
    let dir = paths::target_dir().join("bench");
    fs::create_dir_all(&dir)?;
    let rig = Rig { supervisor: prefix.join("bin/supervisor"), qemu, guest, dir, engine: o.engine.clone(), names };
    let mut done: Vec<Round> = Vec::new();
    for n in 0..rounds {
        done.push(rig.round(n, rounds, &systems)?);
        rig.report(&done, &systems)?;
    }
    print!("{}", fs::read_to_string(rig.dir.join("qemu.txt"))?);
    println!("\nwritten: qemu.txt, qemu.json and qemu.svg in {}", rig.dir.display());
    Ok(())
}

fn names(only: &[String]) -> Result<Vec<String>> {
    let all = || KBALL.iter().map(|n| (*n).to_owned());
    if only.is_empty() {
        return Ok(all().collect());
    }
    let mut names = Vec::new();
    for n in only {
        let full = if n.starts_with("kb") { n.clone() } else { format!("kb-{n}") };
        match n.as_str() {
            BOOT => {}
            "kball" => names.extend(all()),
            _ if KBALL.contains(&full.as_str()) => names.push(full),
            _ => bail!("no benchmark {n:?}; there are boot, kball, {}", KBALL.join(", ")),
        }
    }
    Ok(names)
}

fn systems(o: &Options) -> Vec<System> {
    let mut s = vec![System::Recording];
    let optional = [
        (!o.no_qemu, System::Qemu),
        (o.qemu_record && !o.no_qemu, System::QemuRecord),
        (o.plain, System::Plain),
        (o.replay, System::Replay),
    ];
    s.extend(optional.iter().filter(|(wanted, _)| *wanted).map(|(_, s)| *s));
    s
}

/// `qemu-system-arm`; installed with apt if it is missing and we may.
pub(crate) fn qemu() -> Result<PathBuf> {
    let name = "qemu-system-arm";
    if let Some(p) = paths::tool(name) {
        return Ok(p);
    }
    let may = nix::unistd::geteuid().is_root() && paths::tool("apt-get").is_some();
    ensure!(may, "there is no {name}: install it (Debian's package is {name}), or compare without it: --no-qemu");
    eprintln!("bench: installing {name}");
    let mut c = Command::new("apt-get");
    let status =
        c.args(["install", "-y", "--no-install-recommends", "-qq", name]).status().context("starting apt-get")?;
    ensure!(status.success(), "apt-get could not install {name}: install it, or compare without it: --no-qemu");
    paths::tool(name).with_context(|| format!("{name} was installed but is not on PATH"))
}

/// What all runs share.
struct Rig {
    supervisor: PathBuf,
    qemu: PathBuf,
    guest: Guest,
    dir: PathBuf,
    engine: Option<String>,
    names: Vec<String>,
}

impl Rig {
    fn round(&self, n: u32, of: u32, systems: &[System]) -> Result<Round> {
        let mut order = systems.to_vec();
        if n % 2 == 1 {
            // So that neither always runs first; a replay needs its recording.
            order.reverse();
            order.sort_by_key(|s| *s == System::Replay);
        }
        let mut round = Round::new();
        for s in order {
            eprint!("bench: round {} of {of}: {:<14}", n + 1, s.name());
            let run = self.run(s).with_context(|| format!("measuring {}", s.name()))?;
            eprintln!("{:.2} s of CPU time", run.cpu.values().sum::<f64>());
            round.insert(s, run);
        }
        same_sums(&round)?;
        Ok(round)
    }

    fn append(&self) -> String {
        let run = if self.names.is_empty() { "none".into() } else { self.names.join(",") };
        format!("{APPEND} run={run}")
    }

    fn command(&self, system: System) -> Result<Command> {
        let recording = self.dir.join("recording");
        let initrd = self.guest.bench_initrd.clone().context("the guest has no initramfs with kbench")?;
        let mut c = Command::new(&self.supervisor);
        match system {
            System::Recording | System::Plain => {
                let guest = Guest { initrd, ..self.guest.clone() };
                c.args(linux_args(&guest, &self.append())).args(["--clock", "warp"]);
                if system == System::Recording {
                    if recording.exists() {
                        fs::remove_dir_all(&recording)?;
                    }
                    c.arg(format!("--record={}", recording.display()));
                }
            }
            System::Replay => {
                c.arg("replay").arg(&recording);
            }
            System::Qemu | System::QemuRecord => {
                c = Command::new(&self.qemu);
                c.args("-M vexpress-a15 -cpu cortex-a15 -smp 1 -m 512 -nic none -no-reboot".split(' '));
                c.args("-display none -monitor none -serial stdio".split(' '));
                c.arg("-kernel").arg(&self.guest.kernel).arg("-dtb").arg(&self.guest.dtb).arg("-initrd").arg(initrd);
                c.arg("-append").arg(self.append());
                if system == System::QemuRecord {
                    let log = self.dir.join("qemu.rr");
                    c.arg("-icount").arg(format!("shift=3,rr=record,rrfile={}", log.display()));
                }
                return Ok(c);
            }
        }
        if let Some(e) = &self.engine {
            c.args(["--engine", e]);
        }
        Ok(c)
    }

    fn run(&self, system: System) -> Result<Run> {
        let mut console = Console::start(&mut self.command(system)?, false)?;
        console.close_input();
        let pid = console.pid();
        let mut run = Run::default();
        console.expect("GUEST READY", GUARD)?;
        run.cpu.insert(BOOT.into(), cputime::of_tree(pid)?);
        for name in &self.names {
            console.expect(&format!("RUN {name} BEGIN"), GUARD)?;
            let before = cputime::of_tree(pid)?;
            console.expect(&format!("RUN {name} END rc=0"), GUARD)?;
            run.cpu.insert(name.clone(), cputime::of_tree(pid)? - before);
        }
        let ended = console.wait(GUARD)?;
        ensure!(ended.status.success(), "it ended with {}:\n{}", ended.status, ended.stderr);
        run.sums = sums(&ended.text());
        for name in &self.names {
            ensure!(run.sums.contains_key(name), "{name} printed no checksum");
        }
        Ok(run)
    }

    fn report(&self, rounds: &[Round], systems: &[System]) -> Result<()> {
        let items: Vec<String> = std::iter::once(BOOT.to_owned()).chain(self.names.iter().cloned()).collect();
        let r = Report::new(rounds, systems, &items);
        fs::write(self.dir.join("qemu.txt"), r.text(&self.engine))?;
        fs::write(self.dir.join("qemu.json"), serde_json::to_string_pretty(&r.json(&self.engine))?)?;
        fs::write(self.dir.join("qemu.svg"), r.svg(&self.engine))?;
        Ok(())
    }
}

/// kbench's lines on the console: `kbench sieve n=50 sum=01234567 t_us=89`.
fn sums(console: &str) -> BTreeMap<String, (String, f64)> {
    let line = |l: &str| {
        let mut words = l.trim().strip_prefix("kbench ")?.split_whitespace();
        let name = words.next()?;
        let mut value = |key: &str| words.find_map(|w| w.strip_prefix(key).map(str::to_owned));
        let sum = value("sum=")?;
        Some((format!("kb-{name}"), (sum, value("t_us=")?.parse().ok()?)))
    };
    console.lines().filter_map(line).collect()
}

fn same_sums(round: &Round) -> Result<()> {
    let Some(first) = round.get(&System::Recording) else { return Ok(()) };
    for (system, run) in round {
        for (name, (sum, _)) in &run.sums {
            let expected = first.sums.get(name).map(|s| &s.0);
            ensure!(
                expected == Some(sum),
                "{name} computed {sum} on {}, but {} on {}",
                system.name(),
                expected.map_or("nothing", |s| s.as_str()),
                System::Recording.name()
            );
        }
    }
    Ok(())
}

/// What a pair of systems shows on one piece of work: median, smallest and largest of the rounds' ratios.
type Ratio = Bar;

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n % 2 == 1 { values[n / 2] } else { (values[n / 2 - 1] + values[n / 2]) / 2.0 }
}

/// Everything measured, by pair and by work.
struct Report<'a> {
    rounds: &'a [Round],
    systems: &'a [System],
    items: &'a [String],
    /// For each of [`PAIRS`] that was measured, the ratio of each of `items`.
    pairs: Vec<(&'static Pair, Vec<Ratio>)>,
}

impl<'a> Report<'a> {
    fn new(rounds: &'a [Round], systems: &'a [System], items: &'a [String]) -> Self {
        let measured = PAIRS.iter().filter(|p| systems.contains(&p.over) && systems.contains(&p.under));
        let pairs = measured.map(|p| (p, items.iter().map(|i| ratio(rounds, p, i)).collect())).collect();
        Self { rounds, systems, items, pairs }
    }

    fn ratios(&self, what: &str) -> Option<&[Ratio]> {
        self.pairs.iter().find(|(p, _)| p.what == what).map(|(_, r)| r.as_slice())
    }

    /// A pair's ratio of one piece of work.
    fn of(&self, pair: &str, item: &str) -> Option<f64> {
        let at = self.items.iter().position(|i| i == item)?;
        Some(self.ratios(pair)?[at].value)
    }

    /// The geometric mean of a pair's `kb-*` ratios, and of the boot's too if `boot`.
    fn mean(&self, pair: &str, boot: bool) -> Option<f64> {
        let all = self.items.iter().zip(self.ratios(pair)?).filter(|(i, _)| boot || *i != BOOT);
        let logs: Vec<f64> = all.map(|(_, r)| r.value.ln()).collect();
        (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
    }

    fn cpu(&self, system: System, item: &str) -> f64 {
        let mut v: Vec<f64> = self.rounds.iter().map(|r| r[&system].cpu[item]).collect();
        median(&mut v)
    }

    /// Millions of instructions for each CPU second while recording, by the guest's clock. Work that sleeps has none.
    fn mips(&self, item: &str) -> Option<f64> {
        let micros = self.rounds[0][&System::Recording].sums.get(item)?.1;
        Some(micros / 1e3 / self.cpu(System::Recording, item))
    }

    /// The figures that were set as targets: what, the limit, and what was measured.
    fn targets(&self) -> Vec<(String, f64, Option<f64>)> {
        let plain = "recording : QEMU plain";
        let mut t = vec![(format!("boot, {plain}"), 0.5, self.of(plain, BOOT))];
        for name in KBALL {
            let limit = match *name {
                "kb-chase" => 1.1,
                "kb-syscall" | "kb-signal" | "kb-fault" => 0.15,
                "kb-matf" | "kb-matd" | "kb-nbody" => 0.25,
                // 2.2 times as fast.
                "kb-mark" => 1.0 / 2.2,
                _ => 1.0,
            };
            t.push((format!("{name}, {plain}"), limit, self.of(plain, name)));
        }
        for (pair, limit, boot) in [
            (plain, 0.4, false),
            ("recording : QEMU rr=record", 0.28, false),
            ("recording : not recording", 1.03, true),
            ("replay : recording", 1.0, true),
        ] {
            // A mean of some of the benchmarks says nothing about that of all.
            let all = KBALL.iter().all(|n| self.items.iter().any(|i| i == n));
            let mean = if all { self.mean(pair, boot) } else { None };
            t.push((format!("geometric mean, {pair}"), limit, mean));
        }
        t
    }

    fn heading(&self, engine: &Option<String>) -> String {
        let engine = engine.as_deref().unwrap_or("the default engine");
        format!("CPU seconds of the whole process tree, {engine}, {} round(s); {}", self.rounds.len(), host())
    }

    fn text(&self, engine: &Option<String>) -> String {
        let mut s = format!("{}\n\n{:<12}", self.heading(engine), "");
        for system in self.systems {
            let _ = write!(s, "{:>15}", system.name());
        }
        let _ = writeln!(s, "{:>10}", "MIPS");
        for item in self.items {
            let _ = write!(s, "{item:<12}");
            for &system in self.systems {
                let _ = write!(s, "{:>15.3}", self.cpu(system, item));
            }
            let _ = writeln!(s, "{:>10}", self.mips(item).map_or(String::new(), |m| format!("{m:.0}")));
        }
        for (pair, ratios) in &self.pairs {
            let _ = writeln!(s, "\n{} (median of the rounds' ratios; smallest, largest)", pair.what);
            for (item, r) in self.items.iter().zip(ratios) {
                let _ = writeln!(s, "  {item:<12}{:>8.3}   {:.3} to {:.3}", r.value, r.low, r.high);
            }
            if let Some(m) = self.mean(pair.what, false) {
                let _ = writeln!(s, "  {:<12}{m:>8.3}", "kb-* mean");
            }
        }
        s.push_str("\ntargets\n");
        for (what, limit, value) in self.targets() {
            let verdict = match value {
                None => "-       not measured".into(),
                Some(v) => format!("{v:<8.3}{}", if v <= limit { "met" } else { "MISSED" }),
            };
            let _ = writeln!(s, "  {what:<52} <= {limit:<6.3} {verdict}");
        }
        s
    }

    fn json(&self, engine: &Option<String>) -> Value {
        let run = |r: &Run| json!({ "cpu_seconds": r.cpu, "checksums": r.sums.iter().map(|(k, v)| (k.clone(), v.0.clone())).collect::<BTreeMap<_, _>>() });
        let rounds: Vec<Value> =
            self.rounds.iter().map(|r| r.iter().map(|(s, x)| (s.name().to_owned(), run(x))).collect()).collect();
        let ratios: Value = self
            .pairs
            .iter()
            .map(|(p, rs)| {
                let by_item: serde_json::Map<String, Value> = self
                    .items
                    .iter()
                    .zip(rs)
                    .map(|(i, r)| (i.clone(), json!({ "median": r.value, "low": r.low, "high": r.high })))
                    .collect();
                (p.what.to_owned(), json!({ "work": by_item, "geometric_mean": self.mean(p.what, false) }))
            })
            .collect();
        let targets: Vec<Value> = self
            .targets()
            .into_iter()
            .map(
                |(what, limit, v)| json!({ "what": what, "limit": limit, "measured": v, "met": v.map(|v| v <= limit) }),
            )
            .collect();
        let mips: BTreeMap<&String, Option<f64>> = self.items.iter().map(|i| (i, self.mips(i))).collect();
        json!({ "host": host(), "engine": engine, "rounds": rounds, "ratios": ratios, "mips": mips, "targets": targets })
    }

    fn svg(&self, engine: &Option<String>) -> String {
        let series: Vec<&str> = self.pairs.iter().map(|(p, _)| p.what).collect();
        let row = |(i, name): (usize, &String)| chart::Row {
            name: name.clone(),
            bars: self.pairs.iter().map(|(_, r)| Some(r[i])).collect(),
        };
        let mut rows: Vec<chart::Row> = self.items.iter().enumerate().map(row).collect();
        let mean = |p: &Pair| self.mean(p.what, false).map(|value| Bar { value, low: value, high: value });
        rows.push(chart::Row { name: "kb-* mean".into(), bars: self.pairs.iter().map(|(p, _)| mean(p)).collect() });
        chart::svg("Reprise and QEMU: ratio of CPU time, less is better", &self.heading(engine), &series, &rows)
    }
}

fn ratio(rounds: &[Round], p: &Pair, item: &str) -> Ratio {
    let mut v: Vec<f64> = rounds.iter().map(|r| r[&p.over].cpu[item] / r[&p.under].cpu[item]).collect();
    let value = median(&mut v);
    Ratio { value, low: v[0], high: v[v.len() - 1] }
}

/// The host's CPU, as it names itself.
fn host() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, m)| m.trim().to_owned()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} core(s)", model.unwrap_or_else(|| std::env::consts::ARCH.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(boot: f64, mark: f64) -> Run {
        let cpu = [(BOOT.to_owned(), boot), ("kb-mark".to_owned(), mark)].into_iter().collect();
        Run { cpu, sums: sums("x\r\nkbench mark     n=70000 sum=0000abcd t_us=830000\r\n") }
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians() {
        let rounds: Vec<Round> = [(1.0, 2.0), (4.0, 16.0), (3.0, 3.0)]
            .iter()
            .map(|&(a, b)| [(System::Recording, run(1.0, a)), (System::Qemu, run(4.0, b))].into_iter().collect())
            .collect();
        let items = [BOOT.to_owned(), "kb-mark".to_owned()];
        let r = Report::new(&rounds, &[System::Recording, System::Qemu], &items);
        assert_eq!(r.of("recording : QEMU plain", "kb-mark"), Some(0.5));
        assert_eq!(r.mean("recording : QEMU plain", false), Some(0.5));
        assert!(r.mean("replay : recording", true).is_none());
        // 830 ms of guest time are 830 M instructions; the median run took 3 s.
        assert!((r.mips("kb-mark").expect("it ran") - 276.7).abs() < 0.1);
        let targets = r.targets();
        let met = |what: &str| targets.iter().find(|t| t.0.starts_with(what)).map(|t| t.2.map(|v| v <= t.1));
        assert_eq!(met("boot"), Some(Some(true)));
        assert_eq!(met("kb-mark"), Some(Some(false)), "0.5 is more than 1/2.2");
        assert_eq!(met("kb-fib"), Some(None));
    }

    #[test]
    fn another_checksum_is_an_error_that_names_both() {
        let mut round: Round =
            [(System::Recording, run(1.0, 1.0)), (System::Qemu, run(1.0, 1.0))].into_iter().collect();
        same_sums(&round).expect("the same");
        round.get_mut(&System::Qemu).expect("there").sums.insert("kb-mark".into(), ("1".into(), 1.0));
        let e = same_sums(&round).expect_err("they differ").to_string();
        assert!(e.contains("kb-mark") && e.contains("0000abcd"), "{e}");
    }

    #[test]
    fn names_may_be_short_and_kball_is_all() {
        let of = |s: &str| names(&[s.to_owned()]);
        assert_eq!(of("fib").expect("known"), ["kb-fib"]);
        assert_eq!(of("kball").expect("known").len(), 15);
        assert!(of("boot").expect("known").is_empty());
        assert!(of("nonsense").is_err());
    }
}
