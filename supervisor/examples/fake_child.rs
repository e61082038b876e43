//! Stands in for cpu-proc, device-proc and log-daemon in the supervisor's own tests: it speaks the control protocol and does what
//! the environment variable `REPRISE_FAKE` tells it, as `name=what,name=what`.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use reprise_backends::stream;
use reprise_child::control::{
    BackendStart, CpuFinished, CpuStart, DeviceStart, DeviceState, EndReason, FromChild, LogFinished, LogStart, Mode,
    PluginInfo, Ready, RecordedEnd, Start, ToChild, Totals, Way,
};
use reprise_child::sandbox::{Stage, enter};
use reprise_child::{Child, ConfigFault, PluginFault};
use reprise_device::spec::PluginSpec;

fn main() -> ExitCode {
    reprise_child::run("fake-child", |child| match child.start.clone() {
        Start::Cpu(start) => cpu(child, &start),
        Start::Device(start) => device(child, &start),
        Start::Log(start) => log(child, &start),
        Start::BackendProc(start) => backend(child, &start.common.name),
    })
}

/// What this child is told to do.
fn orders(name: &str) -> String {
    let all = std::env::var("REPRISE_FAKE").unwrap_or_default();
    all.split(',')
        .filter_map(|o| o.split_once('='))
        .find(|(n, _)| *n == name)
        .map_or_else(String::new, |(_, what)| what.to_owned())
}

fn sandbox(child: &Child) -> anyhow::Result<()> {
    enter(Stage::Attached, &child.policy())?;
    Ok(enter(Stage::Loaded, &child.policy())?)
}

/// Waits for `Go`, and then does what kills.
fn wait_go(child: &mut Child, what: &str) -> anyhow::Result<()> {
    match child.control.receive()? {
        ToChild::Go => {}
        ToChild::Exit => std::process::exit(0),
        other => bail!("expected Go, got {other:?}"),
    }
    act(what)
}

fn act(what: &str) -> anyhow::Result<()> {
    match what {
        "abort" | "mortal" => std::process::abort(),
        "exit" => std::process::exit(3),
        "open" => drop(File::open("/etc/passwd")),
        "panic" => panic!("told to"),
        "fail" => bail!("told to fail"),
        _ => {}
    }
    Ok(())
}

/// Whether `Exit` came.
fn left(message: &ToChild) -> bool {
    *message == ToChild::Exit
}

fn cpu(mut child: Child, start: &CpuStart) -> anyhow::Result<()> {
    let what = orders("cpu");
    sandbox(&child)?;
    let id_registers = vec![("MIDR".to_owned(), 0x414f_c0f0)];
    child.control.send(&FromChild::Ready(Ready { id_registers, ..Ready::default() }))?;
    wait_go(&mut child, &what)?;
    let finished = |reason| CpuFinished {
        reason,
        text: String::new(),
        position: (1, 2, 0),
        icount: start.stop_at.unwrap_or(1234),
        vtime: 1_500_000_000,
        state_hash: [if what == "other" { 1 } else { 0x77 }; 32],
        expected_hash: None,
        figures: Vec::new(),
    };
    match what.as_str() {
        "wait" | "deaf" => {}
        "reset" => child.control.send(&FromChild::Finished(finished(EndReason::Reset)))?,
        "diverge" => child.control.send(&FromChild::Diverged { text: "expected 1, actual 2".into() })?,
        _ => child.control.send(&FromChild::Finished(finished(EndReason::Poweroff)))?,
    }
    loop {
        match child.control.receive()? {
            ToChild::Stop(_) if what != "deaf" => {
                child.control.send(&FromChild::Finished(finished(EndReason::Stopped)))?
            }
            message if left(&message) => return Ok(()),
            _ => {}
        }
    }
}

fn backend(mut child: Child, name: &str) -> anyhow::Result<()> {
    sandbox(&child)?;
    child.control.ready(Vec::new(), None)?;
    wait_go(&mut child, &orders(name))?;
    while !left(&child.control.receive()?) {}
    Ok(())
}

/// So many bytes of the console's input, which comes in packets.
fn bytes(input: &mut File, n: usize) -> anyhow::Result<Vec<u8>> {
    let mut got = Vec::new();
    let mut packet = [0; stream::HEADER + stream::PIECE];
    while got.len() < n {
        match input.read(&mut packet) {
            Ok(0) => bail!("the input ends"),
            Ok(len) => got.extend(stream::new_part(&packet[..len], got.len() as u64).unwrap_or_default()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
            Err(e) => return Err(e.into()),
        }
    }
    got.truncate(n);
    Ok(got)
}

fn device(mut child: Child, start: &DeviceStart) -> anyhow::Result<()> {
    let what = orders(&start.common.name);
    match what.as_str() {
        "bad-config" => return Err(ConfigFault { text: "no such baud rate".into(), at: (1, 2) }.into()),
        "bad-plugin" => return Err(PluginFault("the plugin has ABI version 99".into()).into()),
        _ => {}
    }
    // The descriptor's offset is shared with the other devices that have the same plugin.
    let mut plugin = [0; 64];
    // SAFETY: the start message says that the descriptor is this process's own.
    let length = unsafe { File::from_raw_fd(start.plugin) }.read_at(&mut plugin, 0)?;
    let plugin = String::from_utf8_lossy(&plugin[..length]).into_owned();
    let console = match start.backend {
        BackendStart::Console { input, output } => {
            // SAFETY: as above.
            let open = |fd| unsafe { File::from_raw_fd(fd) };
            Some((input.map(open), open(output)))
        }
        _ => None,
    };
    sandbox(&child)?;
    let spec = PluginSpec::new(&start.kind, "1", 0x1000).outputs(&["irq"]);
    let info = PluginInfo { abi: 1, kind: start.kind.clone(), version: "1".into() };
    child.control.ready(spec.to_bytes(), Some(info))?;
    if matches!(start.way, Way::Gone { .. }) {
        act(if what == "mortal" { "abort" } else { "" })?;
        child.control.send(&FromChild::Yielded { request: 1 })?;
        return stand_in(child);
    }
    // A successor goes on at once.
    if start.way == Way::Successor {
        act(&what)?
    } else {
        wait_go(&mut child, &what)?
    }
    let mut text = format!("plugin {}\n", plugin.trim());
    if let Some((input, mut output)) = console {
        if let (Some(mut input), "echo") = (input, what.as_str()) {
            text += &format!("got {}\n", String::from_utf8_lossy(&bytes(&mut input, 5)?));
        }
        output.write_all(&stream::packet(0, text.as_bytes()))?;
    }
    loop {
        match child.control.receive()? {
            ToChild::Save => {
                let output_hash = [text.len() as u8; 32];
                let state =
                    DeviceState { state: what.clone().into_bytes(), output_bytes: text.len() as u64, output_hash };
                child.control.send(&FromChild::State(state))?;
            }
            message if left(&message) => return Ok(()),
            _ => {}
        }
    }
}

/// In the place of a device that is gone.
fn stand_in(mut child: Child) -> anyhow::Result<()> {
    loop {
        match child.control.receive()? {
            ToChild::Save => {
                let state = DeviceState { state: Vec::new(), output_bytes: 0, output_hash: [0; 32] };
                child.control.send(&FromChild::State(state))?;
            }
            message if left(&message) => return Ok(()),
            _ => {}
        }
    }
}

fn log(mut child: Child, start: &LogStart) -> anyhow::Result<()> {
    let what = orders("log");
    sandbox(&child)?;
    let dir = Path::new(&start.dir_path);
    anyhow::ensure!(dir.join("manifest.ron").exists() && dir.join("segments").exists(), "the recording has not begun");
    child.control.ready(Vec::new(), None)?;
    wait_go(&mut child, &what)?;
    if what == "full" {
        child.control.send(&FromChild::LogFailed { text: "no space left on device".into() })?;
    }
    loop {
        match child.control.receive()? {
            ToChild::Swapped(swap) => {
                let (channel, request) = (swap.channel, swap.request);
                child.control.send(&FromChild::SwapNoted { channel, request })?;
            }
            ToChild::Finish(totals) => child.control.send(&FromChild::LogFinished(finish(start, dir, &totals)?))?,
            message if left(&message) => return Ok(()),
            _ => {}
        }
    }
}

/// The end of a recording is kept in a file of one's own.
fn finish(start: &LogStart, dir: &Path, totals: &Totals) -> anyhow::Result<LogFinished> {
    let file = dir.join("end");
    let mut finished = LogFinished { chunks: 1, bytes: 99, events: 7, ..LogFinished::default() };
    if start.common.mode == Mode::Record {
        std::fs::write(file, postcard::to_stdvec(totals)?)?;
    } else {
        let totals: Totals = postcard::from_bytes(&std::fs::read(file)?)?;
        let Totals { device_hash, console_hash, console_bytes } = totals;
        let state_hash = [0x77; 32];
        (finished.console_hash, finished.console_bytes) = (console_hash, console_bytes);
        finished.recorded = Some(RecordedEnd { icount: 1234, state_hash, device_hash, console_hash, console_bytes });
    }
    Ok(finished)
}
