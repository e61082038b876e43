//! `reprise-log replay-device`: one plugin alone, fed what was recorded for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::Usage;
use anyhow::{Context, Result, bail};
use log_daemon::verify::Expected;
use reprise_channel::{Event, Request, Slot, burst};
use reprise_child::control::{DiskImage as Image, DiskMode, DiskStart};
use reprise_child::sandbox::{Policy, Role, Stage, enter};
use reprise_device::abi::REPRISE_ABI_VERSION;
use reprise_device::host::{Disks, Effect, Instance, NoDisks, Plugin};
use reprise_device::{Event as DeviceEvent, VTime, dma};
use reprise_machine::{DiskFormat, Machine};
use reprise_recording::{ChannelRecords, DiskImage, Message, Output, Recording, Status, Swap, dma::DIGEST};
use reprise_storage::{BLOCK, Disk, DiskFile, DiskFiles, detect, look};

/// What to run.
#[derive(clap::Args, Debug)]
pub(crate) struct DeviceArgs {
    /// The recording: a directory, or a name in the recordings' folder
    pub(crate) dir: PathBuf,
    /// The device
    pub(crate) device: String,
    /// Run this plugin instead of the recorded one
    #[arg(long, value_name = "FILE")]
    pub(crate) plugin: Option<PathBuf>,
    /// The device's disk, if its image is neither in the recording nor where it was
    #[arg(long, value_name = "FILE")]
    pub(crate) disk: Option<PathBuf>,
}

/// Runs the device; true if all that it did was recorded so. It runs in this process, which can't open anything any more.
pub(crate) fn run(r: &Recording, args: &DeviceArgs, out: &mut dyn Write) -> Result<bool> {
    let machine = Machine::from_text(&r.manifest().machine).map_err(anyhow::Error::msg).context("its machine")?;
    let names = || machine.devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(channel) = machine.devices.iter().position(|d| d.name == args.device) else {
        return Err(Usage(format!("the machine has no device {}; there are {}", args.device, names())).into());
    };
    let device = &machine.devices[channel];
    let (records, cut) = records(r, channel as u16)?;
    if records.requests.iter().any(|m| m.flags & DIGEST != 0) {
        let what = "what this device read from the guest's memory was recorded as a hash only";
        return Err(Usage(format!("{what}; record with --log-dma-reads, or replay the whole machine")).into());
    }
    // From there on another plugin was asked, or none, or it had another configuration.
    let another = |s: &Swap| args.plugin.is_none() || s.hash == [0; 32] || s.config.is_some();
    let swap = r.swaps()?.into_iter().find(|s| usize::from(s.channel) == channel && another(s));
    let until = swap.map_or(u64::MAX, |s| s.request);
    let plugin = library(r, args)?;
    let mut disk = match r.manifest().disks.iter().find(|d| d.device == args.device) {
        Some(d) => Some(open_disk(r, d, args.disk.as_deref(), device.disk.as_ref().is_some_and(|d| d.readonly))?),
        None => None,
    };
    out.flush()?;
    let policy = Policy {
        role: Role::Device,
        address_space: 16 << 30,
        descriptors: 64,
        disk: disk.as_ref().map(|d| d.1.clone()).unwrap_or_default(),
    };
    enter(Stage::Attached, &policy)?;
    // SAFETY: its code can do nothing to this host but compute, in the sandbox; what it does to this process spoils an answer at worst.
    let plugin = unsafe { Plugin::load(Path::new(&format!("/proc/self/fd/{}", plugin.as_raw_fd()))) }?;
    enter(Stage::Loaded, &policy)?;
    let instance = plugin.create(&device.config).context("the plugin refuses the recorded configuration")?;
    let disk = disk.take().map(|(files, _)| Disk::open(files)).transpose()?;
    let mut run = Run { instance, disk, channel, effects: 0, output: BTreeMap::new() };
    run.all(records, until, cut, out)
}

/// All that was recorded of a channel, and whether the recording was cut off.
fn records(r: &Recording, channel: u16) -> Result<(ChannelRecords, bool)> {
    let mut all = ChannelRecords::default();
    let mut chunks = r.chunks();
    for chunk in &mut chunks {
        if let Some(c) = chunk?.channels.remove(&channel) {
            all.requests.extend(c.requests);
            all.effects.extend(c.effects);
            all.output.extend(c.output);
        }
    }
    let cut = !matches!(chunks.status(), Status::Complete(_));
    Ok((all, cut))
}

/// The plugin's library in a file that nobody else has.
fn library(r: &Recording, args: &DeviceArgs) -> Result<File> {
    let bytes = match &args.plugin {
        Some(path) => std::fs::read(path).with_context(|| path.display().to_string())?,
        None => {
            let plugin = r.manifest().plugins.iter().find(|p| p.device == args.device);
            let plugin = plugin.with_context(|| format!("the recording has no plugin of {}", args.device))?;
            if plugin.abi != REPRISE_ABI_VERSION {
                let what = format!("the recorded plugin is of ABI version {}, this program's is", plugin.abi);
                return Err(Usage(format!("{what} {REPRISE_ABI_VERSION}; give a rebuilt one with --plugin")).into());
            }
            r.read_input(&plugin.hash)?
        }
    };
    let mut file = File::from(nix::sys::memfd::memfd_create("plugin", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&bytes)?;
    file.rewind()?;
    Ok(file)
}

/// The recorded disk, with an overlay that takes what the device writes; and the descriptors that it needs.
fn open_disk(
    r: &Recording,
    d: &DiskImage,
    given: Option<&Path>,
    read_only: bool,
) -> Result<(DiskFiles, Vec<(i32, bool)>)> {
    let stored = r.input_path(&d.hash);
    // A packed recording has it although the manifest does not say so.
    let stored_there = d.stored || stored.is_file();
    let path = given.unwrap_or(if stored_there { &stored } else { Path::new(&d.name) });
    let open = || -> Result<(DiskFile, DiskFormat)> {
        let file = File::open(path).with_context(|| format!("the disk image {}", path.display()))?;
        let file = DiskFile::new(file.into(), path.display().to_string());
        let raw = (given.is_none() && stored_there).then_some(DiskFormat::Raw);
        let format = detect(&file, raw)?;
        if look(&file, format, false)?.1.is_some() {
            bail!(
                "{} is based on another file; merge them with `qemu-img convert`, and give the result",
                path.display()
            );
        }
        Ok((file, format))
    };
    let hash = reprise_storage::image_hash(DiskFiles::to_read(&d.device, vec![open()?]), |_, _| ())?;
    if crate::show::hex(&hash) != d.hash {
        let what = format!("{} does not hold what the disk of {} did when recorded", path.display(), d.device);
        return Err(Usage(format!("{what}; give a copy of it with --disk FILE")).into());
    }
    let (file, format) = open()?;
    let dup = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
    let image = dup(std::os::fd::AsFd::as_fd(&file))?;
    let mut fds: Vec<OwnedFd> = vec![image];
    let mode = if read_only { DiskMode::ReadOnly } else { DiskMode::Snapshot };
    if !read_only {
        let overlay = nix::sys::memfd::memfd_create("overlay", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
        nix::unistd::ftruncate(&overlay, d.size.next_multiple_of(BLOCK) as i64)?;
        fds.push(overlay);
    }
    let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let start = DiskStart {
        name: d.device.clone(),
        images: vec![Image { fd: raw[0], name: d.name.clone(), format }],
        mode,
        overlay: raw.get(1).copied(),
        journal: None,
    };
    let policy = start.files();
    let fds = std::cell::RefCell::new(fds.into_iter().map(|fd| (fd.as_raw_fd(), fd)).collect::<BTreeMap<_, _>>());
    let own = |fd| fds.borrow_mut().remove(&fd).expect("each is asked for once");
    Ok((DiskFiles::new(&start, own)?, policy))
}

/// A device's disk as the plugin's host wants it.
struct OneDisk<'a>(&'a mut Disk);

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

impl Disks for OneDisk<'_> {
    fn size(&self, disk: u32) -> Option<u64> {
        (disk == 0).then(|| self.0.len())
    }
    fn read_only(&self, _: u32) -> bool {
        self.0.read_only()
    }
    fn read(&mut self, _: u32, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
        self.0.read(offset, buffer).map_err(text)
    }
    fn write(&mut self, _: u32, offset: u64, data: &[u8]) -> Result<(), String> {
        self.0.write(offset, data).map_err(text)
    }
    fn discard(&mut self, _: u32, offset: u64, len: u64) -> Result<(), String> {
        self.0.discard(offset, len).map_err(text)
    }
    fn flush(&mut self, _: u32) -> Result<(), String> {
        self.0.flush().map(drop).map_err(text)
    }
    fn unchanged(&self, disk: u32, offset: u64, len: u64) -> bool {
        disk == 0 && self.0.unchanged(offset, len)
    }
}

/// A device that is running.
struct Run {
    instance: Instance,
    disk: Option<Disk>,
    channel: usize,
    effects: u64,
    /// By port.
    output: BTreeMap<u64, Vec<u8>>,
}

impl Run {
    fn all(&mut self, mut records: ChannelRecords, until: u64, cut: bool, out: &mut dyn Write) -> Result<bool> {
        let requests: Vec<Message> = std::mem::take(&mut records.requests);
        let outputs: Vec<Output> = std::mem::take(&mut records.output);
        let mut expected = Expected::default();
        expected.add(records);
        let began = std::time::Instant::now();
        let mut done = 0u64;
        for m in requests.iter().take_while(|m| m.number < until) {
            for effect in self.step(m)? {
                match expected.effect(self.channel, effect) {
                    Ok(true) => {}
                    // The recording ends with an effect that the CPU took; what the device had said beyond that is not in it.
                    Ok(false) => return self.report(done, None, cut, &outputs, began, out),
                    Err(d) => {
                        writeln!(out, "different: at request {}, {}", m.number, d.what)?;
                        writeln!(out, "  recorded: {}\n  now:      {}", d.expected, d.actual)?;
                        return Ok(false);
                    }
                }
            }
            done += 1;
        }
        let swapped = (until != u64::MAX).then_some(until);
        self.report(done, swapped, cut, &outputs, began, out)
    }

    fn report(
        &self,
        done: u64,
        swapped: Option<u64>,
        cut: bool,
        outputs: &[Output],
        began: std::time::Instant,
        out: &mut dyn Write,
    ) -> Result<bool> {
        let mut recorded: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        outputs.iter().for_each(|o| recorded.entry(o.port).or_default().extend_from_slice(&o.data));
        for (port, bytes) in &self.output {
            let want = recorded.get(port).map_or(&[][..], Vec::as_slice);
            let at = bytes.iter().zip(want).position(|(a, b)| a != b);
            if let Some(at) =
                at.or((!cut && swapped.is_none() && bytes.len() != want.len()).then_some(bytes.len().min(want.len())))
            {
                let show = |b: &[u8]| crate::show::text(&b[at.min(b.len())..]);
                writeln!(out, "different: output of port {port}, from byte {at} on")?;
                writeln!(out, "  recorded: {}\n  now:      {}", show(want), show(bytes))?;
                return Ok(false);
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        writeln!(out, "the same: {done} requests, {} effects, in {seconds:.3} s", self.effects)?;
        if let Some(request) = swapped {
            writeln!(
                out,
                "up to request {request}, from which on another plugin served; give one with --plugin to go on"
            )?;
        }
        Ok(true)
    }

    /// One request; the effects, with the answer as the last.
    fn step(&mut self, m: &Message) -> Result<Vec<Message>> {
        let slot = Slot { arena_len: m.data.len() as u32, ..log_daemon::convert::slot(m) };
        let request = Request::parse(&slot, &m.data).map_err(|e| anyhow::anyhow!("request {}: {e}", m.number))?;
        let mut more = Vec::new();
        let event = match request {
            Request::Burst { offset, size, data } => {
                let write = |(now, value): (u64, u32)| {
                    (VTime(now), DeviceEvent::Write { tag: m.number, offset, size, value: value.into() })
                };
                more.extend(burst::stores(m.vtime, data).map(write));
                more.remove(0).1
            }
            Request::Reset => DeviceEvent::Reset,
            Request::Read { offset, size } => DeviceEvent::Read { tag: m.number, offset, size },
            Request::Write { offset, size, value, .. } => DeviceEvent::Write { tag: m.number, offset, size, value },
            Request::Line { pin, level } => DeviceEvent::Line { pin, level },
            Request::Timer { id } => DeviceEvent::Timer(id),
            Request::DmaDone { tag, data } => DeviceEvent::DmaDone { tag: tag.into(), data },
            Request::Host { port, data } => DeviceEvent::Host { port: port as u32, data },
            Request::Popped { queue, count } => DeviceEvent::Popped { queue: queue as u16, count },
        };
        let mut said = Vec::new();
        let mut answer = request.is_synchronous().then_some(Event::Ack.to_slot(m.number));
        let mut put = |event: &Event<'_>| {
            let slot = event.to_slot(m.number);
            let data = if slot.arena_len == 0 { &[][..] } else { event.data() };
            said.push((slot, data.to_vec()));
        };
        let output = &mut self.output;
        let mut effect = |e: Effect<'_>| match e {
            Effect::Reply { value, .. } => answer = Some(Event::Reply { value }.to_slot(m.number)),
            Effect::Line { pin, level } => put(&Event::SetLine { pin, level }),
            Effect::Arm { id, at } => put(&Event::Arm { id, vtime: at.0 }),
            Effect::Disarm { id } => put(&Event::Disarm { id }),
            Effect::Publish { shadow, value } => put(&Event::Publish { reg: shadow.into(), value }),
            Effect::Dma { tag, reads, writes } => {
                let data = dma::encode(tag, reads, writes).expect("the host side has checked the limits");
                put(&Event::Dma { tag: tag as u32, data: &data });
            }
            Effect::Queue { queue, values } => {
                let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                put(&Event::Queue { queue: queue.into(), data: &data });
            }
            Effect::QueueClear { queue } => put(&Event::QueueClear { queue: queue.into() }),
            Effect::HostOut { port, data } => output.entry(port.into()).or_default().extend_from_slice(data),
            Effect::HostWant { .. } => {}
        };
        for (now, event) in std::iter::once((VTime(m.vtime), event)).chain(more) {
            let stepped = match &mut self.disk {
                Some(disk) => self.instance.step_with(now, event, &mut OneDisk(disk), &mut effect),
                None => self.instance.step_with(now, event, &mut NoDisks, &mut effect),
            };
            stepped.with_context(|| format!("request {}", m.number))?;
        }
        said.extend(answer.map(|slot| (slot, Vec::new())));
        let number = self.effects;
        self.effects += said.len() as u64;
        let message =
            |(i, (slot, data)): (usize, (Slot, Vec<u8>))| log_daemon::convert::message(&slot, &data, number + i as u64);
        Ok(said.into_iter().enumerate().map(message).collect())
    }
}
