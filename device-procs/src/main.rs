//! `device-proc`: the process of one device. It is started by `supervisor`, never by hand.
//!
//! It attaches its channel, locks itself in, loads the one plugin from an inherited descriptor, narrows the sandbox once more, and says what
//! the plugin is. From then on it takes requests from the channel, lets the plugin step, and sends back what comes of it; a backend joins the
//! plugin's port 0 to the outside, and further ports may have ends of their own.
//!
//! *Waiting.* With nothing to do, the process sleeps on one futex: the request ring's, together with a bell in its own memory. A second
//! thread blocks in `poll` on the control socket and the ends' descriptors and rings that bell. Idle therefore costs nothing, and input
//! reaches the device two wake-ups after it came (about 0.1 ms). Only the device that cpu-proc is using spins, and not for long
//! ([`reprise_channel::SpinPolicy::device`]).

mod ends;
mod estate;
mod gone;
mod media;
mod output;
mod serve;
mod watch;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use reprise_backends::{Backend, Null, Packets, Random, Rtc, Stream};
use reprise_channel::{DevicePort, Role, jitter};
use reprise_child::control::{BackendStart, DeviceStart, Fd, PluginInfo, PluginSwap, Start, Way};
use reprise_child::sandbox::{self, Stage};
use reprise_child::{Child, ConfigFault, PluginFault, PortFault};
use reprise_device::ConfigError;
use reprise_device::abi::REPRISE_ABI_VERSION;
use reprise_device::host::{Instance, MakeError, Plugin};
use reprise_device::spec::{Framing, PluginSpec, Port};

use reprise_storage::DiskFiles;

use crate::ends::End;
use crate::estate::Estate;
use crate::gone::Gone;
use crate::media::Media;
use crate::serve::{BACKEND_PORT, CABLE_PORT, Later, Parts, Plugins, Server};
use crate::watch::Watcher;

fn main() -> ExitCode {
    prepare_process();
    reprise_child::run("device-proc", body)
}

/// What must be so before there is a second thread.
fn prepare_process() {
    // A plugin's panic is caught and reported. With a backtrace its message would need files, which the sandbox denies.
    for name in ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"] {
        // SAFETY: there is only one thread.
        unsafe { std::env::remove_var(name) };
    }
    // A second arena would need `mprotect` to grow, which the sandbox denies.
    // SAFETY: sets a number inside malloc.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

fn body(child: Child) -> anyhow::Result<()> {
    let Start::Device(start) = child.start.clone() else {
        anyhow::bail!("this is device-proc, not what it is started as")
    };
    let name = &start.common.name;
    if let Some(seed) = start.common.jitter {
        jitter::enable(seed);
    }
    let mut port = DevicePort::attach(&start.segment, Role::Device).with_context(|| format!("{name}: its channel"))?;
    if matches!(start.way, Way::Standby | Way::Gone { .. }) {
        port.stand_by();
    }
    let backend = backend_of(&start.backend).with_context(|| format!("{name}: its backend"))?;
    let further: Vec<Stream> = start.ends.iter().map(|e| Stream::new(Some(own(e.input)), own(e.output))).collect();
    let estate = start.estate.map(|fd| Estate::map(&own(fd))).transpose().with_context(|| name.clone())?;
    let mut disks = Media::new(start.disk.as_ref().map(|d| DiskFiles::new(d, own)).transpose()?);
    let descriptors = |b: &dyn Backend| (b.input_fd(), b.output_fd());
    let watched = further.iter().map(|end| descriptors(end));
    let watched: Vec<_> = std::iter::once(descriptors(&*backend)).chain(watched).collect();
    let watcher = Watcher::start(child.control.raw(), &watched)
        .with_context(|| format!("{name}: the thread that waits for input"))?;
    sandbox::enter(Stage::Attached, &child.policy())?;
    if start.way == (Way::Gone { plugin: false }) {
        sandbox::enter(Stage::Loaded, &child.policy())?;
        child.control.ready(Vec::new(), None)?;
        let estate = estate.context("a device that is gone has left an estate")?;
        return Gone::bare(port, estate, child.control, watcher)?.run();
    }
    let plugin = load(&start, start.plugin, &start.plugin_file)?;
    // The next one last.
    let later = |s: &PluginSwap| {
        let plugin = s.plugin.map(|fd| load(&start, fd, &s.plugin_file)).transpose()?;
        Ok(Later { from: s.request, plugin, config: s.config.clone() })
    };
    let later = start.swaps.iter().rev().map(later).collect::<anyhow::Result<Vec<_>>>()?;
    sandbox::enter(Stage::Loaded, &child.policy())?;
    if start.way == Way::Fresh {
        disks.open()?;
    }
    let device = create(&plugin, &start)?;
    let ports = start.ends.iter().map(|end| port_of(device.spec(), &start.common.name, &end.port));
    let ports = ports.collect::<Result<Vec<u32>, PortFault>>()?;
    let spec = device.spec().to_bytes();
    let info =
        PluginInfo { abi: REPRISE_ABI_VERSION, kind: plugin.kind().to_owned(), version: device.spec().version.clone() };
    child.control.ready(spec, Some(info))?;
    let plugins = Plugins { plugin, later, config: start.config.clone() };
    let replaceable = estate.is_some() && !start.common.mode.is_replay();
    let (name, control, watch) = (name.clone(), child.control, watcher);
    let further = further.into_iter().map(|end| Box::new(end) as Box<dyn Backend>);
    let ends = std::iter::once((BACKEND_PORT, backend)).chain(ports.into_iter().zip(further));
    let ends = ends.map(|(port, backend)| End::new(port, backend, device.spec())).collect();
    Server::new(Parts { name, port, device, plugins, disks, estate, ends, control, watch, replaceable }).run(start.way)
}

/// A descriptor that the start message names.
fn own(fd: Fd) -> OwnedFd {
    // SAFETY: the supervisor gave this process the descriptor for exactly this, and the start message names it once and is used once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn backend_of(start: &BackendStart) -> io::Result<Box<dyn Backend>> {
    Ok(match *start {
        BackendStart::None | BackendStart::Null | BackendStart::Packets { fd: None } => Box::new(Null),
        BackendStart::Packets { fd: Some(fd) } => Box::new(Packets::new(own(fd))?),
        BackendStart::Console { input, output } => Box::new(Stream::new(input.map(own), own(output))),
        BackendStart::Rtc { date } => Box::new(Rtc::new(date.map(u64::from))),
        BackendStart::Random { offers } => Box::new(Random::new(offers)),
    })
}

/// The port that is to lead out by this name.
fn port_of(spec: &PluginSpec, device: &str, name: &str) -> Result<u32, PortFault> {
    let ports = || spec.ports.iter().enumerate();
    let leads =
        |(i, p): &(usize, &Port)| *i as u32 != BACKEND_PORT && p.framing == Framing::Bytes && p.name != CABLE_PORT;
    if let Some((i, _)) = ports().filter(leads).find(|(_, p)| p.name == name) {
        return Ok(i as u32);
    }
    let what = match ports().find(|(_, p)| p.name == name) {
        Some((i, _)) if i as u32 == BACKEND_PORT => format!("{name} is where {device} itself leads; say {device}=..."),
        Some(_) => format!("the port {name} of {device} takes no plain bytes"),
        None => format!("{device} has no port {name}"),
    };
    let others: Vec<&str> = ports().filter(leads).map(|(_, p)| p.name.as_str()).collect();
    let fix = match others.as_slice() {
        [] => format!("no other port of {device} can lead out"),
        names => format!("the ports of {device} that can lead out so are {}", names.join(", ")),
    };
    Err(PortFault(format!("{what}; {fix}")))
}

fn load(start: &DeviceStart, fd: Fd, file: &str) -> anyhow::Result<Plugin> {
    let path = PathBuf::from(format!("/proc/self/fd/{fd}"));
    // SAFETY: the file is the plugin that the machine names, held in a sealed memfd. Whatever its code does, it does in this process's sandbox.
    let plugin = unsafe { Plugin::load(&path) };
    let blame = |what: &dyn std::fmt::Display| PluginFault(format!("{}: plugin {file}: {what}", start.common.name));
    let plugin = plugin.map_err(|e| blame(&e.to_string().replace(&path.display().to_string(), "the file")))?;
    if plugin.kind() != start.kind {
        return Err(blame(&format_args!("it is a \"{}\", not a \"{}\"", plugin.kind(), start.kind)).into());
    }
    Ok(plugin)
}

fn create(plugin: &Plugin, start: &DeviceStart) -> anyhow::Result<Instance> {
    let device = plugin.create(&start.config).map_err(|e| match e {
        MakeError::Config(ConfigError { message, at }) => anyhow::Error::new(ConfigFault { text: message, at }),
        MakeError::Spec(text) => anyhow::Error::new(PluginFault(text)),
    })?;
    let window = device.spec().window;
    if window > start.window {
        let text = format!(
            "{}: plugin {} decodes {window:#x} bytes, but the machine gives it {:#x}: make `size` larger",
            start.common.name, start.kind, start.window
        );
        return Err(PluginFault(text).into());
    }
    Ok(device)
}
