//! `cargo xtask torture`: a machine whose processes are killed while Linux works, and whether anybody notices.
//!
//! Linux boots on the Versatile Express with a disk and a network in user mode. It writes a file system and reads it back, reads the rest of the disk,
//! renews its address, fetches a file from this host and has one sent back, and shows a file on the console, round by round, with the sums of
//! all that passed. Meanwhile a second thread kills the machine's processes, all but the supervisor and the CPU's, at seeded moments. Then:
//! each round has shown what it shows in an undisturbed run, the recording's replays are exact, and nothing is left or has grown.
//!
//! What a machine does between two kills is up to the host's timing, so a seed gives the same kind of run again, not the same run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::console::{Console, Ended};
use crate::demo::{APPEND, linux_args};
use crate::guest::{self, Guest};
use crate::process::{self, Child};
use crate::{demo, install, paths};

/// Keeps a hung machine from hanging the run; nothing is measured by it.
const GUARD: Duration = Duration::from_secs(300);
/// The disk: a file system lies on its first 4 MiB.
const DISK: usize = 12 << 20;
/// What the guest fetches.
const DATA: usize = 1 << 20;
/// The most kills in one life of a machine: recordings stay of a size that is replayed soon.
const KILLS_IN_A_LIFE: usize = 40;
/// Between two kills, at most.
const PAUSE: Duration = Duration::from_millis(300);
/// KiB that a supervisor may have grown by: what its allocator keeps.
const GROWTH: u64 = 4 << 10;

/// How much.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many processes are killed.
    #[arg(long, default_value_t = 200)]
    pub kills: usize,
    /// End sooner, after so many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Who is killed, and when.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Lives of machines.
    pub lives: usize,
    /// Kills, by what was killed.
    pub kills: BTreeMap<String, usize>,
    /// From the time that a death was noticed until the successor did its work: microseconds, by the kind of process.
    pub recoveries: BTreeMap<String, Vec<u64>>,
}

impl Tally {
    /// All kills.
    pub fn killed(&self) -> usize {
        self.kills.values().sum()
    }
}

/// Tortures machines until enough processes were killed.
///
/// # Errors
/// Somebody noticed, or a machine could not be run.
pub fn torture(options: &Options) -> Result<()> {
    let prefix = install::stage()?;
    let guest = guest::ensure(&guest::default_dir(), false)?;
    let dir = paths::target_dir().join("torture");
    let _ = fs::remove_dir_all(&dir);
    let began = Instant::now();
    let rack = Rack::new(&prefix, &guest, &dir)?;
    let calm = rack.calm()?;
    let mut tally = Tally::default();
    let over = |tally: &Tally| {
        tally.killed() >= options.kills || options.seconds.is_some_and(|s| began.elapsed() >= Duration::from_secs(s))
    };
    while !over(&tally) {
        let kills = (options.kills - tally.killed()).min(KILLS_IN_A_LIFE);
        let seed = options.seed.wrapping_add(tally.lives as u64);
        rack.life(&calm, seed, kills, &mut tally)
            .with_context(|| format!("life {} (seed {seed}); its files are in {}", tally.lives + 1, dir.display()))?;
        println!("torture: {} kills in {} lives, nobody noticed", tally.killed(), tally.lives);
    }
    report(&tally, began.elapsed());
    Ok(())
}

fn report(tally: &Tally, took: Duration) {
    println!("{} kills in {} lives of a machine, {:.0} s", tally.killed(), tally.lives, took.as_secs_f64());
    for (name, kills) in &tally.kills {
        println!("  {kills:>5} {name}");
    }
    println!("missed for, in ms:{:>10}{:>10}{:>10}{:>10}", "number", "median", "90 %", "longest");
    for (kind, times) in &tally.recoveries {
        let mut times = times.clone();
        times.sort_unstable();
        let ms = |at: usize| times[at.min(times.len() - 1)] as f64 / 1000.0;
        let (median, most, longest) = (ms(times.len() / 2), ms(times.len() * 9 / 10), ms(times.len() - 1));
        println!("  {kind:<16}{:>10}{median:>10.1}{most:>10.1}{longest:>10.1}", times.len());
    }
}

/// What all machines have in common.
#[derive(Debug)]
pub struct Rack {
    supervisor: PathBuf,
    guest: Guest,
    dir: PathBuf,
    machine: PathBuf,
    image: PathBuf,
    server: Server,
    /// The sums of what the guest reads.
    sums: [String; 2],
}

/// An undisturbed life.
#[derive(Debug)]
pub struct Calm {
    boot: String,
    round: String,
    descriptors: usize,
    processes: Vec<String>,
    memory: u64,
}

impl Rack {
    /// Prepares a folder.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new(prefix: &Path, guest: &Guest, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir.join("run"))?;
        let dir = &dir.canonicalize()?;
        let image = dir.join("disk.img");
        let disk = noise(1, DISK);
        fs::write(&image, &disk)?;
        let data = noise(2, DATA);
        let sums = [sum(dir, &disk[4 << 20..])?, sum(dir, &data)?];
        let machine = dir.join("machine.ron");
        fs::write(&machine, with_network(&prefix.join("share/reprise/configs/machines/vexpress.ron"))?)?;
        let guest = Guest { initrd: guest.virtio_initrd.clone(), ..guest.clone() };
        let server = Server::start(data)?;
        let supervisor = prefix.join("bin/supervisor");
        Ok(Self { supervisor, guest, dir: dir.clone(), machine, image, server, sums })
    }

    fn command(&self) -> Command {
        let mut c = Command::new(&self.supervisor);
        c.env("XDG_RUNTIME_DIR", self.dir.join("run")).env_remove("RUST_LOG").env("RUST_BACKTRACE", "0");
        c
    }

    fn machine(&self, name: &str) -> Result<(Console, PathBuf, PathBuf)> {
        let (recording, report) = (self.dir.join(name), self.dir.join(format!("{name}.json")));
        for old in [&recording, &report] {
            let _ = fs::remove_dir_all(old);
            let _ = fs::remove_file(old);
        }
        let mut args = linux_args(&self.guest, APPEND);
        args[1] = self.machine.display().to_string();
        let mut c = self.command();
        c.args(args).args(["--clock", "realtime", "--net", "net0=user,dns=none"]);
        c.arg("--disk").arg(format!("blk0={},format=raw,snapshot=on", self.image.display()));
        c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
        Ok((Console::start(&mut c, false)?, recording, report))
    }

    /// A life without a death.
    ///
    /// # Errors
    /// Something goes wrong all the same.
    pub fn calm(&self) -> Result<Calm> {
        let (mut console, recording, report) = self.machine("calm")?;
        let pid = console.pid();
        let boot = self.boot(&mut console)?;
        let round = self.round(&mut console)?;
        for sum in &self.sums {
            ensure!(round.contains(sum), "the guest reads something else than {sum}:\n{round}");
        }
        ensure!(self.round(&mut console)? == round, "a round is not like the one before");
        let processes = names(pid);
        let calm =
            Calm { boot, round, descriptors: process::descriptors(pid), processes, memory: process::own_memory(pid) };
        self.replays(&end(console)?, &recording, &report)?;
        Ok(calm)
    }

    /// A life in which so many processes are killed.
    ///
    /// # Errors
    /// Somebody noticed.
    pub fn life(&self, calm: &Calm, seed: u64, kills: usize, tally: &mut Tally) -> Result<()> {
        let (mut console, recording, report) = self.machine("shaken")?;
        let killer = Killer::start(console.pid(), seed, kills);
        let lived = self.live(calm, &mut console, &killer);
        let killed = killer.end();
        let ended = lived.and_then(|()| {
            self.nothing_leaks(calm, console.pid())?;
            end(console)
        });
        fs::write(self.dir.join("kills"), killed.iter().map(|k| format!("{k}\n")).collect::<String>())?;
        let ended = ended.with_context(|| format!("after the deaths of {}", killed.join(", ")))?;
        fs::write(self.dir.join("console"), &ended.stdout)?;
        self.replays(&ended, &recording, &report)?;
        let uuid = uuid(&recording)?;
        let left: Vec<String> = process::segments().into_iter().filter(|s| s.contains(&uuid)).collect();
        ensure!(left.is_empty(), "segments are left: {left:?}");
        tally.lives += 1;
        for name in killed {
            *tally.kills.entry(name).or_default() += 1;
        }
        let report = demo::report(&report)?;
        for r in report["recoveries"].as_array().context("the report has no recoveries")? {
            let kind = kind(r["process"].as_str().unwrap_or_default());
            tally.recoveries.entry(kind.to_owned()).or_default().push(r["us"].as_u64().unwrap_or(0));
        }
        Ok(())
    }

    /// Works until the killer has had enough.
    fn live(&self, calm: &Calm, console: &mut Console, killer: &Killer) -> Result<()> {
        let boot = self.boot(console)?;
        ensure!(boot == calm.boot, "it boots otherwise:\n{boot}\ninstead of\n{}", calm.boot);
        loop {
            let last = killer.is_done();
            let round = self.round(console)?;
            ensure!(round == calm.round, "a round is otherwise:\n{round}\ninstead of\n{}", calm.round);
            if last {
                return Ok(());
            }
        }
    }

    /// What the console shows until the work can begin, without the time it took.
    fn boot(&self, console: &mut Console) -> Result<String> {
        console.expect("GUEST READY", GUARD)?;
        let boot = String::from_utf8_lossy(&console.output()).into_owned();
        // What a posted write does is seen a little earlier or later, so the kernel's times differ.
        let boot = timeless(boot.split("GUEST READY").next().unwrap_or_default());
        console.expect("# ", GUARD)?;
        let start = typed(console, "/bench/run torture-start")?;
        Ok(boot + &start)
    }

    /// What one round of work shows.
    fn round(&self, console: &mut Console) -> Result<String> {
        typed(console, &format!("/bench/run torture {}", self.server.port))
    }

    /// A moment after the last death all is as it is without any.
    fn nothing_leaks(&self, calm: &Calm, pid: u32) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(20);
        while (names(pid), process::descriptors(pid)) != (calm.processes.clone(), calm.descriptors) {
            if Instant::now() > until {
                let (processes, descriptors) = (names(pid), process::descriptors(pid));
                bail!(
                    "{descriptors} descriptors instead of {}, processes {processes:?} instead of {:?}",
                    calm.descriptors,
                    calm.processes
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let memory = process::own_memory(pid);
        ensure!(
            memory <= calm.memory + GROWTH,
            "the supervisor has {memory} KiB of its own, {} when calm",
            calm.memory
        );
        Ok(())
    }

    /// The replays of a recording, with devices and without, are exact.
    fn replays(&self, ended: &Ended, recording: &Path, report: &Path) -> Result<()> {
        ensure!(ended.status.success(), "the machine ended with {}:\n{}", ended.status, ended.stderr);
        let recorded = demo::report(report)?;
        for args in [&[][..], &["--cpu-only"]] {
            let file = self.dir.join("replay.json");
            let mut c = self.command();
            c.arg("replay").arg(recording).args(args).arg("--report").arg(&file);
            let mut console = Console::start(&mut c, false)?;
            console.close_input();
            let replay = console.wait(GUARD)?;
            ensure!(replay.status.success(), "replay {args:?}: {}:\n{}", replay.status, replay.stderr);
            ensure!(replay.stdout == ended.stdout, "replay {args:?} shows something else");
            let replayed = demo::report(&file)?;
            ensure!(replayed["verdict"] == "exact", "replay {args:?} is {}", replayed["verdict"]);
            for key in ["instructions", "state_hash", "console_hash", "console_bytes", "guest_ns"] {
                ensure!(replayed[key] == recorded[key], "replay {args:?}: {key} differs");
            }
        }
        Ok(())
    }
}

/// A console's text without the kernel's time stamps.
fn timeless(text: &str) -> String {
    let line = |l: &str| match l.split_once("] ") {
        Some((time, rest)) if time.starts_with('[') => format!("{rest}\n"),
        _ => format!("{l}\n"),
    };
    text.lines().map(line).collect()
}

/// Types a command and gives what it shows, with itself, until the next prompt.
fn typed(console: &mut Console, command: &str) -> Result<String> {
    let from = console.output().len();
    // The prompt is not in the work's own output.
    console.send(format!("{command}; echo DO''NE rc=$?\n"))?;
    console.expect("DONE rc=", GUARD)?;
    console.expect("# ", GUARD)?;
    // The shell asks the terminal where its cursor is, a moment behind the prompt.
    let shown = String::from_utf8_lossy(&console.output()[from..]).replace("\x1b[6n", "");
    ensure!(shown.contains("DONE rc=0"), "{command} fails:\n{shown}\nand the machine says\n{}", console.messages());
    Ok(shown)
}

fn end(mut console: Console) -> Result<Ended> {
    console.send("poweroff -f\n")?;
    let pids: Vec<Child> = process::children(console.pid());
    let ended = console.wait(GUARD)?;
    for child in pids {
        ensure!(!process::alive(child.pid), "{} lives on", child.command);
    }
    Ok(ended)
}

/// The uuid of the machine that was recorded, after which its segments are called.
fn uuid(recording: &Path) -> Result<String> {
    let manifest = fs::read_to_string(recording.join("manifest.ron"))?;
    let uuid = manifest.lines().find_map(|l| l.trim().strip_prefix("uuid: \"")?.strip_suffix("\","));
    Ok(uuid.context("the manifest has no uuid")?.to_owned())
}

/// The command lines of a machine's processes.
fn names(supervisor: u32) -> Vec<String> {
    let alive = process::children(supervisor).into_iter().filter(|c| process::alive(c.pid));
    let mut all: Vec<String> = alive.map(|c| c.command.trim().to_owned()).collect();
    all.sort();
    all
}

/// What kind of process has this name in messages.
fn kind(process: &str) -> &str {
    match process {
        "log" => "log-daemon",
        p if p.ends_with(" net") => "backend-proc",
        _ => "device-proc",
    }
}

/// The Versatile Express with a virtio network card, `net0`, which no real board has.
///
/// # Errors
/// There is no such file, or it has no list of devices.
pub fn with_network(board: &Path) -> Result<String> {
    let text = fs::read_to_string(board).with_context(|| format!("reading {}", board.display()))?;
    let card = r#"devices: [
        (
            name: "net0", plugin: "virtio-net", at: 0x1c130200, size: 0x200,
            lines: { "irq": spi(43) }, dma: ram, backend: net,
        ),"#;
    ensure!(text.matches("devices: [").count() == 1, "{} has one list of devices", board.display());
    Ok(text.replace("devices: [", card))
}

/// Bytes that can't be guessed from each other, always the same.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill(bytes.as_mut_slice());
    bytes
}

/// What md5sum says of these bytes.
fn sum(dir: &Path, bytes: &[u8]) -> Result<String> {
    let file = dir.join("sum");
    fs::write(&file, bytes)?;
    let out = Command::new("md5sum").arg(&file).output().context("md5sum")?;
    Ok(String::from_utf8_lossy(&out.stdout).split_whitespace().next().context("a sum")?.to_owned())
}

/// Kills a machine's processes.
#[derive(Debug)]
struct Killer {
    thread: JoinHandle<Vec<String>>,
    killed: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    kills: usize,
}

impl Killer {
    fn start(supervisor: u32, seed: u64, kills: usize) -> Self {
        let (killed, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (killed.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut names = Vec::new();
            while names.len() < kills && !stopped.load(Ordering::Relaxed) && process::alive(supervisor) {
                std::thread::sleep(Duration::from_micros(random.random_range(0..PAUSE.as_micros() as u64)));
                let Some(victim) = victim(supervisor, &mut random) else { continue };
                // It may be gone by itself by now.
                if kill(Pid::from_raw(victim.pid as i32), Signal::SIGKILL).is_ok() {
                    names.push(victim.command.trim().to_owned());
                    counter.store(names.len(), Ordering::Relaxed);
                }
            }
            names
        });
        Self { thread, killed, stop, kills }
    }

    fn is_done(&self) -> bool {
        self.killed.load(Ordering::Relaxed) >= self.kills || self.thread.is_finished()
    }

    /// Who was killed.
    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// One process of a machine: as often one that is at work as one of all the others.
fn victim(supervisor: u32, random: &mut SmallRng) -> Option<Child> {
    const BUSY: &[&str] = &["[blk0]", "[net0]", "[uart0]", "[log]", "[net0 net]"];
    let all = process::children(supervisor);
    let (busy, others): (Vec<Child>, Vec<Child>) = all
        .into_iter()
        // Between fork and exec a child looks like its parent.
        .filter(|c| c.command.contains('[') && !c.command.starts_with("cpu-proc") && process::alive(c.pid))
        .partition(|c| BUSY.iter().any(|b| c.command.contains(b)));
    let list = if random.random_bool(0.75) || others.is_empty() { busy } else { others };
    if list.is_empty() { None } else { Some(list[random.random_range(0..list.len())].clone()) }
}

/// An HTTP server on loopback: a file to fetch, and an echo.
#[derive(Debug)]
struct Server {
    port: u16,
}

impl Server {
    /// Starts it; it ends with this process.
    fn start(data: Vec<u8>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port of loopback")?;
        let port = listener.local_addr()?.port();
        let data = Arc::new(data);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let data = data.clone();
                // A peer that is killed is no matter.
                std::thread::spawn(move || answer(&connection, &data).unwrap_or_default());
            }
        });
        Ok(Self { port })
    }
}

fn answer(connection: &TcpStream, data: &[u8]) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(connection);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((_, n)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            length = n.trim().parse().unwrap_or(0);
        }
    }
    let mut body = Vec::new();
    if first.starts_with("POST") {
        reader.take(length).read_to_end(&mut body)?;
        if body.len() as u64 != length {
            return Ok(());
        }
    }
    let content = if first.starts_with("POST") { &body[..] } else { data };
    let mut out = connection;
    write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len())?;
    out.write_all(content)
}
