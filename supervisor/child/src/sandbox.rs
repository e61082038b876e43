//! The sandbox of a child process: resource limits, landlock, and a seccomp list of allowed system calls, in two stages.
//!
//! | | from [`Stage::Attached`] on | from [`Stage::Loaded`] on |
//! |---|---|---|
//! | when | the segments are mapped; no foreign code has run yet | the plugin is loaded |
//! | files | cpu-proc: none. device-proc: reading, for the loader; its disk's, by offset. log-daemon: its recording's directory | device-proc: its disk's, by offset; holes in those it writes |
//! | memory | nothing shared can be mapped; new executable pages only for the loader, never writable ones | no new executable pages, no page becomes writable |
//! | processes | no fork, exec, ptrace, signals to others; threads only in cpu-proc and log-daemon | no threads |
//! | sockets | backend-proc with a display: accepting; with a network: making TCP, UDP and ICMP echo sockets of IPv4, connecting and accepting, never binding | the same |
//! | always denied | all other sockets, truncating, allocating file space, punching holes into shared memory (`MADV_REMOVE`), taking other processes' memory or descriptors |
//!
//! A page that another process owns is mapped read-only; a device-proc can't change that at any stage, as `mprotect` to a writable page
//! is denied from `Attached` on. A device-proc therefore starts its threads *before* `Attached`; cpu-proc and log-daemon before `Loaded`. Filters hold for
//! all threads of the process.
//!
//! What a child needs beyond the list it must do before: `std::thread::available_parallelism` reads files, for instance.
//!
//! A forbidden call never happens: the kernel raises SIGSYS, whose handler tells the supervisor which one it was, and the process exits with
//! [`VIOLATION_EXIT`].

use std::collections::BTreeMap;
use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::control::{BackendRole, DiskStart, Fd, FromChild, LogDisk, Mode, Start};
use crate::socket::CONTROL_FD;
use crate::syscalls::Syscall;

/// Exit code of a process that made a forbidden system call: 128 + SIGSYS.
pub const VIOLATION_EXIT: i32 = 159;

/// How far a child's start-up has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The segments are mapped.
    Attached,
    /// The plugin is loaded, all threads are started.
    Loaded,
}

/// What kind of child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// cpu-proc.
    Cpu,
    /// device-proc.
    Device,
    /// log-daemon.
    Log {
        /// The recording's directory.
        dir: String,
        /// It is written to, not only read.
        write: bool,
    },
    /// backend-proc with a network: connections to anywhere, and no files.
    Net,
    /// backend-proc with a display: it accepts viewers, and reads guest memory by offset.
    Display,
}

/// What a child may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its kind.
    pub role: Role,
    /// The most address space, in bytes.
    pub address_space: u64,
    /// The most descriptors.
    pub descriptors: u64,
    /// Descriptors of a disk's files that may be read by offset; true: written too.
    pub disk: Vec<(Fd, bool)>,
}

impl Policy {
    /// The policy that fits a start message.
    pub fn for_start(start: &Start) -> Self {
        const GIB: u64 = 1 << 30;
        let channels = |n: usize, m: u64| n as u64 * m;
        let images = |disks: &[LogDisk]| disks.iter().map(|d| d.start.images.len() as u64).sum::<u64>();
        match start {
            // RAM, its aliases and twice the arenas, with room for the engine's own tables and the TLB of each further core.
            Start::Cpu(s) => Self {
                role: Role::Cpu,
                address_space: 8 * GIB
                    + 2 * GIB * u64::from(s.machine.cpu.count.saturating_sub(1))
                    + 2 * s.machine.memory.size
                    + channels(s.channels.len(), 4 * u64::from(s.machine.limits.arena)),
                descriptors: 64 + 2 * s.channels.len() as u64,
                disk: Vec::new(),
            },
            Start::Device(s) => Self {
                role: Role::Device,
                address_space: 4 * GIB,
                descriptors: 64 + 2 * s.ends.len() as u64,
                disk: s.disk.as_ref().map(DiskStart::files).unwrap_or_default(),
            },
            Start::BackendProc(s) => match &s.role {
                // A network's connections are limited, each with its buffers and a descriptor.
                BackendRole::Net(_) => {
                    Self { role: Role::Net, address_space: 4 * GIB, descriptors: 1024, disk: Vec::new() }
                }
                BackendRole::Display(s) => {
                    Self { role: Role::Display, address_space: 4 * GIB, descriptors: 64, disk: vec![(s.ram, false)] }
                }
            },
            Start::Log(s) => Self {
                role: Role::Log { dir: s.dir_path.clone(), write: s.common.mode == Mode::Record },
                address_space: 16 * GIB,
                descriptors: 64 + 2 * s.channels.len() as u64 + images(&s.disks),
                disk: Vec::new(),
            },
        }
    }
}

/// Why a sandbox can't be entered.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox can't be entered: {what}: {why}")]
pub struct SandboxError {
    what: &'static str,
    why: String,
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |e| SandboxError { what, why: e.to_string() }
}

/// Enters a stage; there is no way back. Stages come in order, `Attached` first.
///
/// # Errors
/// The kernel has no seccomp. Without landlock the sandbox is entered all the same, and that is logged at debug level.
pub fn enter(stage: Stage, policy: &Policy) -> Result<(), SandboxError> {
    if stage == Stage::Attached {
        // A second malloc arena would need mprotect to grow.
        // SAFETY: sets a number inside malloc.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
        limits(policy)?;
        catch_violations()?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(failed("no_new_privs"))?;
    restrict_files(stage, &policy.role).map_err(failed("landlock"))?;
    install(&without_clone3()?)?;
    install(&filter(stage, policy)?)
}

fn install(program: &BpfProgram) -> Result<(), SandboxError> {
    seccompiler::apply_filter_all_threads(program).map_err(failed("seccomp"))
}

fn limits(policy: &Policy) -> Result<(), SandboxError> {
    let lower = |resource, to: u64| -> nix::Result<()> {
        let (_, hard) = getrlimit(resource)?;
        setrlimit(resource, to.min(hard), to.min(hard))
    };
    lower(Resource::RLIMIT_CORE, 0).map_err(failed("RLIMIT_CORE"))?;
    lower(Resource::RLIMIT_NOFILE, policy.descriptors).map_err(failed("RLIMIT_NOFILE"))?;
    lower(Resource::RLIMIT_AS, policy.address_space).map_err(failed("RLIMIT_AS"))
}

/// Landlock, as far as the kernel has it.
fn restrict_files(stage: Stage, role: &Role) -> Result<(), landlock::RulesetError> {
    let abi = ABI::V6;
    let set = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    // A network may connect to any port, which no landlock rule can say.
    let net = if *role == Role::Net { AccessNet::BindTcp.into() } else { AccessNet::from_all(abi) };
    let set = set.handle_access(AccessFs::from_all(abi))?.handle_access(net)?.scope(Scope::from_all(abi))?;
    let mut set = set.create()?;
    let read = AccessFs::from_read(abi) & !AccessFs::Execute;
    let rule = match (stage, role) {
        // The loader maps libraries executable, which landlock does not count as executing a file.
        (Stage::Attached, Role::Device) => Some(("/", read)),
        (_, Role::Log { dir, write: true }) => Some((dir.as_str(), AccessFs::from_all(abi) & !AccessFs::Execute)),
        (_, Role::Log { dir, write: false }) => Some((dir.as_str(), read)),
        _ => None,
    };
    if let Some((path, access)) = rule {
        match PathFd::new(path) {
            Ok(fd) => set = set.add_rule(PathBeneath::new(fd, access))?,
            Err(e) => tracing::debug!("no landlock rule for {path}: {e}"),
        }
    }
    let status = set.restrict_self()?;
    if status.ruleset != RulesetStatus::FullyEnforced {
        tracing::debug!("landlock is {:?} on this kernel", status.ruleset);
    }
    Ok(())
}

/// `clone3` passes its flags in memory, where a filter can't see them; without it the C library falls back to `clone`.
fn without_clone3() -> Result<BpfProgram, SandboxError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))
}

fn compile(rules: Rules, mismatch: SeccompAction, on_match: SeccompAction) -> Result<BpfProgram, SandboxError> {
    let arch = std::env::consts::ARCH.try_into().map_err(failed("seccomp"))?;
    let filter = SeccompFilter::new(rules, mismatch, on_match, arch).map_err(failed("seccomp"))?;
    filter.try_into().map_err(failed::<seccompiler::BackendError>("seccomp"))
}

type Rules = BTreeMap<Syscall, Vec<SeccompRule>>;

/// A condition on one 32-bit argument.
fn arg(index: u8, op: SeccompCmpOp, value: u64) -> SeccompCondition {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value).expect("an argument's index is at most 5")
}

/// A condition on one 64-bit argument.
fn pointer_is_null(index: u8) -> SeccompCondition {
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
        .expect("an argument's index is at most 5")
}

fn all(conditions: Vec<SeccompCondition>) -> SeccompRule {
    SeccompRule::new(conditions).expect("there is a condition")
}

/// What every child may always call, whatever the arguments.
const PLAIN: &[Syscall] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_ppoll,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_getcpu,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Which of its own pages are there: the lockstep engine compares only those.
    libc::SYS_mincore,
    libc::SYS_recvfrom,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(target_arch = "x86_64")]
const PLAIN_OLD: &[Syscall] = &[libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const PLAIN_OLD: &[Syscall] = &[];

/// What looking at files takes.
const LOOK: &[Syscall] = &[
    libc::SYS_pread64,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
];
#[cfg(target_arch = "x86_64")]
const LOOK_OLD: &[Syscall] = &[libc::SYS_stat, libc::SYS_lstat, libc::SYS_readlink, libc::SYS_access];
#[cfg(not(target_arch = "x86_64"))]
const LOOK_OLD: &[Syscall] = &[];

/// What reading and writing a recording takes; landlock keeps it to the recording's directory.
const FILES: &[Syscall] = &[libc::SYS_getdents64, libc::SYS_flock];
const WRITE_FILES: &[Syscall] = &[
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_pwrite64,
    libc::SYS_fchmod,
];
#[cfg(target_arch = "x86_64")]
const WRITE_FILES_OLD: &[Syscall] = &[libc::SYS_mkdir, libc::SYS_rename, libc::SYS_unlink];
#[cfg(not(target_arch = "x86_64"))]
const WRITE_FILES_OLD: &[Syscall] = &[];

const PROT_EXEC: u64 = libc::PROT_EXEC as u64;
const PROT_WRITE: u64 = libc::PROT_WRITE as u64;
/// The bits of mmap's flags that say shared or private.
const MAP_TYPE: u64 = 0xf;

fn filter(stage: Stage, policy: &Policy) -> Result<BpfProgram, SandboxError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let role = &policy.role;
    let mut rules: Rules = PLAIN.iter().chain(PLAIN_OLD).map(|&n| (n, Vec::new())).collect();
    let private = || arg(3, MaskedEq(MAP_TYPE), libc::MAP_PRIVATE as u64);
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_mmap, vec![all(vec![arg(2, MaskedEq(PROT_EXEC), 0), private()])]);
    // MADV_REMOVE frees the pages of a shared mapping for everyone.
    rules.insert(libc::SYS_madvise, vec![all(vec![arg(2, Ne, libc::MADV_REMOVE as u64)])]);
    // The control socket is connected: no address.
    rules.insert(libc::SYS_sendto, vec![all(vec![pointer_is_null(4)])]);
    rules.insert(libc::SYS_tgkill, vec![all(vec![arg(0, Eq, own)])]);
    rules.insert(libc::SYS_prlimit64, vec![all(vec![arg(0, Eq, 0), pointer_is_null(2)])]);
    rules.insert(libc::SYS_ioctl, [libc::TCGETS, libc::FIONREAD].iter().map(|&n| all(vec![arg(1, Eq, n)])).collect());
    let fcntl = [libc::F_GETFL, libc::F_SETFL, libc::F_GETFD, libc::F_SETFD, libc::F_DUPFD_CLOEXEC];
    rules.insert(libc::SYS_fcntl, fcntl.iter().map(|&n| all(vec![arg(1, Eq, n as u64)])).collect());
    // A thread that has just started may still be about to name itself.
    rules.insert(libc::SYS_prctl, vec![all(vec![arg(0, Eq, libc::PR_SET_NAME as u64)])]);
    let early = stage == Stage::Attached;
    let writable_later = early && *role != Role::Device;
    let denied = if writable_later { PROT_EXEC } else { PROT_EXEC | PROT_WRITE };
    rules.insert(libc::SYS_mprotect, vec![all(vec![arg(2, MaskedEq(denied), 0)])]);
    if writable_later {
        let thread = libc::CLONE_THREAD as u64 | libc::CLONE_VM as u64;
        rules.insert(libc::SYS_clone, vec![all(vec![arg(0, MaskedEq(thread), thread)])]);
    }
    if early {
        rules.insert(libc::SYS_rt_sigaction, Vec::new());
        // The way to the next stage.
        rules.insert(libc::SYS_seccomp, Vec::new());
        rules.entry(libc::SYS_prctl).or_default().push(all(vec![arg(0, Eq, libc::PR_SET_NO_NEW_PRIVS as u64)]));
        for call in [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self] {
            rules.insert(call, Vec::new());
        }
    }
    add_files(&mut rules, early, role);
    add_disk(&mut rules, &policy.disk);
    match role {
        Role::Net => add_sockets(&mut rules),
        // Viewers come to a socket that was inherited.
        Role::Display => drop(rules.insert(libc::SYS_accept4, Vec::new())),
        _ => {}
    }
    if early && *role == Role::Device {
        let executable = arg(2, MaskedEq(PROT_EXEC | PROT_WRITE), PROT_EXEC);
        rules.get_mut(&libc::SYS_mmap).expect("set above").push(all(vec![executable, private()]));
    }
    compile(rules, SeccompAction::Trap, SeccompAction::Allow)
}

fn add_files(rules: &mut Rules, early: bool, role: &Role) {
    let mut add = |list: &[Syscall]| rules.extend(list.iter().map(|&n| (n, Vec::new())));
    match role {
        Role::Device if early => {
            add(LOOK);
            add(LOOK_OLD);
            open_read_only(rules);
        }
        Role::Log { write, .. } => {
            for list in [LOOK, LOOK_OLD, FILES] {
                add(list);
            }
            if *write {
                add(WRITE_FILES);
                add(WRITE_FILES_OLD);
                add(&[libc::SYS_openat]);
            } else {
                open_read_only(rules);
            }
        }
        _ => {}
    }
}

/// A disk's files by offset. A range that a guest gives back becomes a hole, so that it reads as zeros; the file's size stays.
fn add_disk(rules: &mut Rules, files: &[(Fd, bool)]) {
    use SeccompCmpOp::Eq;
    let hole = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u64;
    let is = |fd: Fd| arg(0, Eq, fd as u64);
    let mut add = |call: Syscall, conditions: Vec<SeccompCondition>| match rules.get(&call) {
        // Allowed for every file already.
        Some(all) if all.is_empty() => {}
        _ => rules.entry(call).or_default().push(all(conditions)),
    };
    for &(fd, write) in files {
        add(libc::SYS_pread64, vec![is(fd)]);
        if write {
            add(libc::SYS_pwrite64, vec![is(fd)]);
            add(libc::SYS_fdatasync, vec![is(fd)]);
            add(libc::SYS_fallocate, vec![is(fd), arg(1, Eq, hole)]);
        }
    }
}

/// Sockets of IPv4 that connect and are connected to. Those that listen are inherited: nothing here binds.
fn add_sockets(rules: &mut Rules) {
    use SeccompCmpOp::{Eq, MaskedEq};
    // The bits of a socket's type that are no flags (`SOCK_TYPE_MASK` in the kernel's `linux/net.h`).
    const TYPE: u64 = 0xf;
    let socket = |kind: i32, protocol: i32| {
        let (kind, protocol) = (kind as u64, protocol as u64);
        all(vec![arg(0, Eq, libc::AF_INET as u64), arg(1, MaskedEq(TYPE), kind), arg(2, Eq, protocol)])
    };
    let kinds = [(libc::SOCK_STREAM, 0), (libc::SOCK_DGRAM, 0), (libc::SOCK_DGRAM, libc::IPPROTO_ICMP)];
    rules.insert(libc::SYS_socket, kinds.map(|(kind, protocol)| socket(kind, protocol)).to_vec());
    for call in [
        libc::SYS_recvmsg,
        libc::SYS_connect,
        libc::SYS_accept4,
        libc::SYS_getpeername,
        libc::SYS_shutdown,
        libc::SYS_sendto,
    ] {
        rules.insert(call, Vec::new());
    }
    let option = |level: i32, name: i32| all(vec![arg(1, Eq, level as u64), arg(2, Eq, name as u64)]);
    rules.insert(libc::SYS_getsockopt, vec![option(libc::SOL_SOCKET, libc::SO_ERROR)]);
    let settable = [(libc::SOL_SOCKET, libc::SO_LINGER), (libc::IPPROTO_TCP, libc::TCP_NODELAY)];
    rules.insert(libc::SYS_setsockopt, settable.map(|(level, name)| option(level, name)).to_vec());
}

/// `openat` that makes no file and can't write.
fn open_read_only(rules: &mut Rules) {
    let flags = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
    rules.insert(libc::SYS_openat, vec![all(vec![arg(2, SeccompCmpOp::MaskedEq(flags), libc::O_RDONLY as u64)])]);
}

/// The start of a SIGSYS's `siginfo_t` (`struct { ... } _sigsys` in the kernel's `asm-generic/siginfo.h`, 64-bit).
#[repr(C)]
struct SigsysInfo {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    pad: libc::c_int,
    call_addr: *const libc::c_void,
    syscall: libc::c_int,
    arch: libc::c_uint,
}

fn catch_violations() -> Result<(), SandboxError> {
    // SAFETY: the struct is plain data, all zero is a valid value of it.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = violation as extern "C" fn(libc::c_int, *const SigsysInfo, *mut libc::c_void) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    // SAFETY: `action` is whole, and the handler makes async-signal-safe calls only.
    let result = unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) };
    if result != 0 {
        return Err(failed("sigaction")(io::Error::last_os_error()));
    }
    Ok(())
}

/// Tells the supervisor, and ends the process. Only async-signal-safe calls that the filter allows.
extern "C" fn violation(_: libc::c_int, info: *const SigsysInfo, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo_t, larger than what is read of it.
    let syscall = unsafe { (*info).syscall } as u32;
    let mut packet = [0; 16];
    let (length, body) = packet.split_at_mut(4);
    // Encoding into a slice neither allocates nor fails for so small a message.
    let used = postcard::to_slice(&FromChild::Violation { syscall }, body).map_or(0, |bytes| bytes.len());
    length.copy_from_slice(&(used as u32).to_le_bytes());
    // SAFETY: the bytes are on the stack; a closed descriptor is an error that nobody waits for.
    unsafe {
        libc::send(CONTROL_FD, packet.as_ptr().cast(), 4 + used, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
        libc::_exit(VIOLATION_EXIT);
    }
}
