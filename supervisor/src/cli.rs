//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use reprise_machine::ClockMode;

use crate::failure::Failure;

const EXIT_CODES: &str = "\
Exit codes: 0 the machine ended, or was ended by Ctrl-a x, SIGINT or SIGTERM (a replay: it matched); 1 internal error; 2 usage;
3 bad machine file or image; 4 bad recording; 5 the replay diverged; 6 a process of the machine died.

On a terminal: Ctrl-a x quits, Ctrl-a h helps, Ctrl-a Ctrl-a sends Ctrl-a. The guest's console is stdin and stdout; messages go to stderr.";

/// Runs an ARM machine as isolated processes; records it, and replays it exactly.
#[derive(Debug, Parser)]
#[command(name = "supervisor", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Replay a recording.
    Replay(ReplayArgs),
    /// Make manual pages or completions.
    #[command(hide = true)]
    Generate(reprise_manual::Generate),
}

/// Options of a run.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The machine file: as given, or under configs/ here, beside the program or in the XDG configuration folder.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) config: Option<PathBuf>,
    /// Record, into this new directory or one of its own under $REPRISE_DIR (else the XDG data folder).
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    pub(crate) record: Option<Option<PathBuf>>,
    /// Record what devices read from the guest's memory with its bytes, not as a hash, so that `reprise-log replay-device` can run a device alone.
    #[arg(long, requires = "record")]
    pub(crate) log_dma_reads: bool,
    /// Recordings hold a copy of each disk whose image takes no more than this; of larger ones, where they are and their hash.
    #[arg(long, value_name = "SIZE", value_parser = reprise_machine::parse_size, default_value = "256M", requires = "record")]
    pub(crate) store_disks: u64,
    /// The kernel (a zImage, a 32-bit ARM ELF file, or code), or a bare-metal machine's image.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// The device tree blob. Default: made from the machine file, where that is possible.
    #[arg(long, value_name = "FILE")]
    pub(crate) dtb: Option<PathBuf>,
    /// The initial RAM disk.
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel's command line; replaces the machine file's.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) append: Option<String>,
    /// Number of cores, 1 to 4.
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// Size of the RAM, such as 512M.
    #[arg(long, value_name = "SIZE", value_parser = reprise_machine::parse_size)]
    pub(crate) memory: Option<u64>,
    /// A device's disk: an image file. snapshot=on keeps it as it is and forgets, at the end of all, what the guest writes. May be given for several devices.
    #[arg(long, value_name = "NAME=FILE[,format=raw|qcow2][,snapshot=on|off][,readonly]", value_parser = reprise_machine::parse_disk)]
    pub(crate) disk: Vec<(String, reprise_machine::Disk)>,
    /// A device's network: in user mode (the default), a tap interface of the host, or none. May be given for several devices.
    #[arg(long, value_name = "NAME=user[,hostfwd=tcp:127.0.0.1:2222-:22]...[,reach=all][,dns=ADDR]|tap:IFNAME|none", value_parser = crate::net::parse)]
    pub(crate) net: Vec<crate::net::NetArg>,
    /// The screen: a VNC server (display N is port 5900 + N), a screen that nobody watches (for `vmctl screendump`), or none: then the board is as its own
    /// device tree says.
    #[arg(long, value_name = "vnc=127.0.0.1:N|vnc=unix:PATH|headless|none", value_parser = crate::display::parse, default_value = "none")]
    pub(crate) display: crate::display::DisplayArg,
    /// Where a device's serial line leads: to a Unix socket, to named pipes PATH.in and PATH.out, to a file, or nowhere. DEVICE.PORT is a further port of a
    /// device, such as a named one of a virtio-console. May be given for several devices and ports.
    #[arg(long, value_name = "DEVICE[.PORT]=unix:PATH|pipe:PATH|file:PATH|null", value_parser = crate::line::parse)]
    pub(crate) serial: Vec<crate::line::SerialArg>,
    /// Change any value of the machine file, such as memory.size=1GiB or devices.uart0.config.clock_hz=24000000. VALUE is RON; what is none is text. May be given
    /// again and again.
    #[arg(long, value_name = "PATH=VALUE", value_parser = reprise_machine::parse_set)]
    pub(crate) set: Vec<reprise_machine::Assignment>,
    /// What guest time does while the guest idles: jump ahead, or wait. Default: realtime on a terminal, else warp.
    #[arg(long, value_enum)]
    pub(crate) clock: Option<ClockArg>,
    /// Write the device tree that the kernel would get to this file (as source text if its name ends with .dts), and exit.
    #[arg(long, value_name = "FILE")]
    pub(crate) dump_dtb: Option<PathBuf>,
    /// What to do when the guest reboots.
    #[arg(long, value_enum, default_value_t = Reboot::Exit)]
    pub(crate) reboot: Reboot,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Options of a replay.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The recording: a directory, or its name in the recordings' folder. Default: the latest one.
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Replay without any device process: the log stands in for them.
    #[arg(long)]
    pub(crate) cpu_only: bool,
    /// A device's disk, if its image is neither in the recording nor where it was: a file that holds what the disk did when recorded.
    #[arg(long, value_name = "NAME=FILE[,format=raw|qcow2]", value_parser = reprise_machine::parse_disk)]
    pub(crate) disk: Vec<(String, reprise_machine::Disk)>,
    /// Show the recorded machine's screen: a VNC server, to look at only.
    #[arg(long, value_name = "vnc=127.0.0.1:N|vnc=unix:PATH|headless|none", value_parser = crate::display::parse, default_value = "none")]
    pub(crate) display: crate::display::DisplayArg,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Options of both.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// The CPU engine [default: jit on x86-64, else interp].
    #[arg(long, value_enum)]
    pub(crate) engine: Option<EngineArg>,
    /// Let the JIT write a map of its code to /tmp/perf-PID.map, where `perf` looks for it.
    #[arg(long)]
    pub(crate) perf_map: bool,
    /// Write what the screen shows at the end to this file, a PNG.
    #[arg(long, value_name = "FILE")]
    pub(crate) screendump: Option<PathBuf>,
    /// Write a JSON object about the run to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Tests: end the machine after so many instructions.
    #[arg(long, value_name = "ICOUNT", hide = true)]
    pub(crate) stop_at: Option<u64>,
    /// Tests: random delays in every process, from this seed.
    #[arg(long, value_name = "SEED", hide = true)]
    pub(crate) jitter: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ClockArg {
    Warp,
    Realtime,
}

impl From<ClockArg> for ClockMode {
    fn from(arg: ClockArg) -> Self {
        match arg {
            ClockArg::Warp => Self::Warp,
            ClockArg::Realtime => Self::Realtime,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reboot {
    /// As for a power-off.
    Exit,
    /// Start the machine anew.
    Restart,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum EngineArg {
    /// The micro-op interpreter.
    Interp,
    /// The compiler to machine code.
    Jit,
    /// Both, compared after every few instructions; stops at the first one after which they differ.
    Lockstep,
}

impl CommonArgs {
    /// The engine asked for.
    pub(crate) fn engine(&self) -> Result<reprise_child::control::Engine, Failure> {
        use reprise_child::control::Engine;
        let compiles = cfg!(target_arch = "x86_64");
        match self.engine {
            None if compiles => Ok(Engine::Jit),
            None | Some(EngineArg::Interp) => Ok(Engine::Interp),
            Some(EngineArg::Lockstep) if compiles => Ok(Engine::Lockstep),
            Some(EngineArg::Jit) if compiles => Ok(Engine::Jit),
            Some(EngineArg::Jit | EngineArg::Lockstep) => {
                Err(Failure::usage("the JIT needs an x86-64 host; use --engine interp"))
            }
        }
    }
}
