//! A device process that behaves until the machine runs and then writes nonsense into its channel's shared memory. The tests put it in the
//! place of `device-proc`; for every device but `uart0` it becomes the real one, which lies beside it as `device-proc.real`.

use anyhow::{Context, bail};
use nix::sys::socket::{MsgFlags, recv};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use reprise_child::Child;
use reprise_child::control::{PluginInfo, Start, ToChild};
use reprise_device::host::Plugin;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The control socket.
const CONTROL: i32 = 3;

fn main() -> ExitCode {
    let mut first = vec![0; 1 << 20];
    let n = recv(CONTROL, &mut first, MsgFlags::MSG_PEEK).unwrap_or(0);
    if !first[..n].windows(5).any(|w| w == b"uart0") {
        let mut real = std::env::current_exe().expect("this program has a place");
        real.set_file_name("device-proc.real");
        let error = Command::new(real).args(std::env::args_os().skip(1)).exec();
        eprintln!("hostile-device: {error}");
        return ExitCode::from(1);
    }
    reprise_child::run("hostile-device", hostile)
}

fn hostile(mut child: Child) -> anyhow::Result<()> {
    let Start::Device(start) = child.start.clone() else { bail!("a device's start message") };
    // SAFETY: the plugin is the project's own.
    let plugin = unsafe { Plugin::load(format!("/proc/self/fd/{}", start.plugin).as_ref()) }?;
    let device = plugin.create(&start.config).map_err(|e| anyhow::anyhow!("{e}"))?;
    let spec = device.spec().to_bytes();
    let info = PluginInfo { abi: 1, kind: start.kind.clone(), version: "hostile".into() };
    child.control.ready(spec, Some(info))?;
    let ToChild::Go = child.control.receive()? else { bail!("Go") };
    scribble(&start.segment)
}

/// Writes random words to random places of the segment, for as long as the machine lets it.
fn scribble(segment: &str) -> anyhow::Result<()> {
    let path = format!("/dev/shm/{}", segment.trim_start_matches('/'));
    let file = OpenOptions::new().read(true).write(true).open(&path).with_context(|| path.clone())?;
    let words = file.metadata()?.len() as usize / 8;
    // SAFETY: a fresh shared mapping of the whole file, which nobody shrinks while it is attached.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            words * 8,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            std::os::fd::AsRawFd::as_raw_fd(&file),
            0,
        )
    };
    anyhow::ensure!(base != libc::MAP_FAILED, "mmap");
    let seed = std::env::var("HOSTILE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut rng = SmallRng::seed_from_u64(seed);
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        for _ in 0..1000 {
            let at =
                if rng.random_bool(0.5) { rng.random_range(0..words.min(4096)) } else { rng.random_range(0..words) };
            let value: u64 = match rng.random_range(0..4) {
                0 => rng.random_range(0..64),
                1 => u64::MAX - rng.random_range(0..64),
                2 => rng.random::<u64>() & 0xff_0000_00ff,
                _ => rng.random(),
            };
            // SAFETY: inside the mapping; a racing reader copies bytes and checks them, which is what this program is for.
            unsafe { base.cast::<u64>().add(at).write_volatile(value) };
        }
        std::thread::yield_now();
    }
    Ok(())
}
