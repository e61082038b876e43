//! Names of system calls, for messages.

/// A system call's number.
pub type Syscall = i64;

macro_rules! names {
    ($($name:ident)*) => {
        &[$((paste_sys!($name), stringify!($name))),*]
    };
}

macro_rules! paste_sys {
    ($name:ident) => {
        libc::$name
    };
}

/// Those that a process would try first when it tries to leave its sandbox, and those that a library may have begun to use.
const NAMES: &[(Syscall, &str)] = names! {
    SYS_accept4 SYS_bind SYS_bpf SYS_brk SYS_chdir SYS_chroot SYS_clone SYS_clone3 SYS_close SYS_close_range SYS_connect
    SYS_copy_file_range SYS_dup SYS_dup3 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_eventfd2 SYS_execve SYS_execveat
    SYS_faccessat SYS_faccessat2 SYS_fallocate SYS_fchmod SYS_fchmodat SYS_fchownat SYS_fcntl SYS_fdatasync SYS_flock SYS_fstat SYS_fsync SYS_ftruncate
    SYS_getcwd SYS_getdents64 SYS_getpeername SYS_getrandom SYS_getsockopt SYS_io_uring_enter SYS_io_uring_setup SYS_ioctl SYS_ioprio_set SYS_keyctl
    SYS_kill SYS_linkat SYS_listen SYS_lseek SYS_madvise SYS_membarrier SYS_memfd_create SYS_mkdirat SYS_mlock SYS_mmap SYS_mount
    SYS_mprotect SYS_mremap SYS_msync SYS_munmap SYS_openat SYS_openat2 SYS_perf_event_open SYS_personality SYS_pidfd_getfd SYS_pidfd_open
    SYS_pidfd_send_signal SYS_pipe2 SYS_pivot_root SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64 SYS_prlimit64 SYS_process_vm_readv
    SYS_process_vm_writev SYS_ptrace SYS_pwrite64 SYS_pwritev SYS_readlinkat SYS_recvmsg SYS_remap_file_pages SYS_renameat2
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_setscheduler SYS_seccomp
    SYS_sendfile SYS_sendmsg SYS_sendto SYS_set_tid_address SYS_setns SYS_setpgid SYS_setpriority SYS_setresuid SYS_setrlimit SYS_setsid
    SYS_setsockopt SYS_setuid SYS_shmat SYS_shmget SYS_shutdown SYS_socket SYS_socketpair SYS_splice SYS_statx SYS_symlinkat SYS_sysinfo SYS_tgkill
    SYS_timer_create SYS_timerfd_create SYS_tkill SYS_truncate SYS_umount2 SYS_uname SYS_unlinkat SYS_unshare SYS_userfaultfd SYS_utimensat
    SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
};

#[cfg(target_arch = "x86_64")]
const OLD_NAMES: &[(Syscall, &str)] = names! {
    SYS_access SYS_chmod SYS_creat SYS_epoll_create SYS_epoll_wait SYS_fork SYS_link SYS_lstat SYS_mkdir SYS_newfstatat SYS_open SYS_pipe
    SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select SYS_stat SYS_symlink SYS_unlink SYS_vfork
};
#[cfg(not(target_arch = "x86_64"))]
const OLD_NAMES: &[(Syscall, &str)] = &[];

/// A system call's name, as `openat (257)`; its number alone if the name isn't known here.
pub fn syscall_name(number: Syscall) -> String {
    match NAMES.iter().chain(OLD_NAMES).find(|(n, _)| *n == number) {
        Some((_, name)) => format!("{} ({number})", name.strip_prefix("SYS_").unwrap_or(name)),
        None => format!("number {number}"),
    }
}
