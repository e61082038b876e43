//! Runs a case on Unicorn (a fork of QEMU 5.0's translator).

use crate::case::{CODE, CODE_SIZE, Case, DATA, DATA_SIZE, Ending, FILLER, Isa, Outcome, SLOT, State};
use anyhow::{Result, anyhow};
use unicorn_engine::{Arch, ArmCpuModel, HookType, MemType, Mode, Prot, RegisterARM, RegisterARMCP, Unicorn, uc_error};

/// What the hooks saw.
#[derive(Default)]
struct Seen {
    bad_access: Option<(u32, bool)>,
    interrupt: Option<u32>,
    /// Stretches of code that it has entered.
    blocks: u32,
}

/// More of them than any case has that ends.
const MAX_BLOCKS: u32 = 4000;

/// How a case ends that Unicorn would run for ever.
pub const ENDLESS: &str = "does not stop";

/// One Unicorn engine, reused from case to case.
pub struct Uc {
    uc: Unicorn<'static, Seen>,
    regs: Vec<i32>,
    /// Where the last case lay: when they begin again at the start of the window, all translations are forgotten.
    last_at: u32,
}

fn err(what: &str) -> impl Fn(uc_error) -> anyhow::Error + '_ {
    move |e| anyhow!("Unicorn: {what}: {e:?}")
}

/// r0-r12, sp, lr, pc, then CPSR, FPSCR, then D0-D31.
fn register_ids() -> Vec<i32> {
    let r0: i32 = RegisterARM::R0.into();
    let d0: i32 = RegisterARM::D0.into();
    let mut ids: Vec<i32> = (0..13).map(|i| r0 + i).collect();
    ids.extend([RegisterARM::SP.into(), RegisterARM::LR.into(), RegisterARM::PC.into()].map(|r: i32| r));
    ids.extend([RegisterARM::CPSR.into(), RegisterARM::FPSCR.into()].map(|r: i32| r));
    ids.extend((0..32).map(|i| d0 + i));
    ids
}

impl Uc {
    /// A Cortex-A15 with the case's memory map, VFP on.
    ///
    /// # Errors
    /// Unicorn refuses something.
    pub fn new() -> Result<Self> {
        let mut uc = Unicorn::new_with_data(Arch::ARM, Mode::ARM, Seen::default()).map_err(err("open"))?;
        uc.ctl_set_cpu_model(ArmCpuModel::CORTEX_A15 as i32).map_err(err("model"))?;
        uc.mem_map(u64::from(CODE), u64::from(CODE_SIZE), Prot::READ | Prot::EXEC).map_err(err("map"))?;
        uc.mem_map(u64::from(DATA), u64::from(DATA_SIZE), Prot::READ | Prot::WRITE).map_err(err("map"))?;
        for slot in (0..u64::from(CODE_SIZE)).step_by(SLOT) {
            uc.mem_write(u64::from(CODE) + slot, &FILLER).map_err(err("code"))?;
        }
        let cpacr = RegisterARMCP { cp: 15, is64: 0, sec: 0, crn: 1, crm: 0, opc1: 0, opc2: 2, val: 0xf << 20 };
        uc.reg_write_arm_coproc(&cpacr).map_err(err("CPACR"))?;
        uc.reg_write(RegisterARM::FPEXC, 1 << 30).map_err(err("FPEXC"))?;
        uc.add_mem_hook(HookType::MEM_INVALID, 1, 0, |uc, kind, addr, _size, _value| {
            let fetch = matches!(kind, MemType::FETCH_UNMAPPED | MemType::FETCH_PROT);
            uc.get_data_mut().bad_access.get_or_insert((addr as u32, fetch));
            false
        })
        .map_err(err("hook"))?;
        uc.add_intr_hook(|uc, number| {
            uc.get_data_mut().interrupt.get_or_insert(number);
            let _ = uc.emu_stop();
        })
        .map_err(err("hook"))?;
        uc.add_block_hook(1, 0, |uc, _, _| {
            let seen = uc.get_data_mut();
            seen.blocks += 1;
            if seen.blocks == MAX_BLOCKS {
                // In an IT block it never looks whether it is to stop, and an UNPREDICTABLE branch may lead from one into one for ever. It does look before
                // it translates.
                let _ = uc.emu_stop();
                let _ = uc.ctl_flush_tb();
            }
        })
        .map_err(err("hook"))?;
        Ok(Self { uc, regs: register_ids(), last_at: 0 })
    }

    fn load(&mut self, case: &Case) -> Result<()> {
        if case.at <= self.last_at {
            self.uc.ctl_flush_tb().map_err(err("flush"))?;
        }
        self.last_at = case.at;
        // An earlier case may have jumped here.
        self.uc.ctl_remove_cache(u64::from(case.at), u64::from(case.at) + SLOT as u64).map_err(err("forget"))?;
        let mut data = vec![0; DATA_SIZE as usize];
        case.data(&mut data);
        self.uc.mem_write(u64::from(DATA), &data).map_err(err("data"))?;
        self.uc.mem_write(u64::from(case.at), &case.bytes()).map_err(err("code"))?;
        let s = &case.state;
        let mut values: Vec<u64> = s.regs.iter().map(|r| u64::from(*r)).collect();
        values.push(u64::from(s.cpsr));
        values.push(u64::from(s.fpscr));
        values.extend_from_slice(&s.d);
        // CPSR first: it selects the mode whose sp and lr are written.
        self.uc.reg_write(RegisterARM::CPSR, u64::from(s.cpsr)).map_err(err("CPSR"))?;
        self.uc.reg_write_batch(&self.regs, &values, self.regs.len() as i32).map_err(err("registers"))
    }

    /// Runs `case` and says what came out.
    ///
    /// # Errors
    /// Unicorn failed in a way that is no result.
    pub fn run(&mut self, case: &Case) -> Result<Outcome> {
        self.load(case)?;
        *self.uc.get_data_mut() = Seen::default();
        let begin = u64::from(case.at) | u64::from(case.isa == Isa::T32);
        // Several instructions run straight on to the end; counting them would count an IT block wrong. But Unicorn knows where it
        // is, after a fault, only while it counts.
        let (until, count) = (u64::from(case.at + case.len()), if case.code.len() == 1 { 1 } else { 1000 });
        let end = self.uc.emu_start(begin, until, 0, count);
        let seen = std::mem::take(self.uc.get_data_mut());
        let ending = match (seen.bad_access, seen.interrupt, end) {
            _ if seen.blocks >= MAX_BLOCKS => Ending::Other(ENDLESS),
            (Some((_, true)), _, _) => Ending::PrefetchAbort,
            (Some((addr, false)), _, _) => Ending::DataAbort { addr, alignment: false },
            (None, Some(1), _) => Ending::Undefined,
            (None, Some(2), _) => Ending::Svc,
            (None, Some(3 | 7), _) => Ending::PrefetchAbort,
            (None, Some(4), _) => Ending::DataAbort { addr: 0, alignment: true },
            (None, Some(_), _) => Ending::Other("another exception"),
            (None, None, Ok(())) => Ending::Done,
            (None, None, Err(uc_error::INSN_INVALID)) => Ending::Undefined,
            (None, None, Err(uc_error::EXCEPTION)) => Ending::Other("an exception without a number"),
            (None, None, Err(e)) => return Err(err("run")(e)),
        };
        let mut ids = self.regs.clone();
        let values = self.uc.reg_read_batch(&mut ids, self.regs.len() as i32).map_err(err("read"))?;
        self.uc.mem_write(u64::from(case.at), &FILLER).map_err(err("code"))?;
        let mut regs = [0; 16];
        regs.iter_mut().zip(&values).for_each(|(r, v)| *r = *v as u32);
        let mut d = [0; 32];
        d.copy_from_slice(&values[18..50]);
        let mut data = vec![0; DATA_SIZE as usize];
        self.uc.mem_read(u64::from(DATA), &mut data).map_err(err("data"))?;
        Ok(Outcome {
            ending,
            state: State { regs, cpsr: values[16] as u32, fpscr: values[17] as u32, d },
            data,
            retired: 0,
        })
    }
}
