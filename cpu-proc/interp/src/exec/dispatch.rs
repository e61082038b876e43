//! The loop itself: one operation after the other. The module above says what its unsafe code relies on.

use super::{CHAIN, Next, Run, STEP};
use crate::cache::{Code, CodePtr, jump_key};
use crate::lower::{X, XUop};
use reprise_arm::ir::{HELPERS, MemKind, Size, ZERO};
use reprise_arm::state::{FPEXC_EN, Flags};
use reprise_arm::translate::BlockMode;
use std::ptr::NonNull;

impl Run<'_> {
    #[allow(clippy::cognitive_complexity)]
    /// Runs from micro-op `at` of `code`; `left` is the budget left after the block if not what it is at its start.
    ///
    /// # Safety
    /// What the text of the module above says.
    pub(super) unsafe fn exec_loop<const MODE: u8>(&mut self, code: CodePtr, at: usize, left: Option<i64>) -> Next {
        // SAFETY: the module's text says what all of this relies on.
        unsafe {
            let cpu = self.cpu;
            let r = &raw mut (*cpu).regs as *mut u32;
            let fl = &raw mut (*cpu).flags;
            let (mut rt, mut wt) = (*cpu).mmu.fast_tables();
            let mut jkey = jump_key((*cpu).mmu.context_id(), BlockMode::of(&*cpu).pack() & !0xff);
            let mut cur: *const Code = code.as_ptr();
            let mut remaining = match left {
                Some(left) => left,
                None => (self.end - (*cpu).icount) as i64 - (*cur).n,
            };
            let mut ip: *const XUop = (*cur).uops.as_ptr().add(at);
            self.cur = cur;
            self.diverted = None;
            *r.add(usize::from(ZERO)) = 0;

            macro_rules! get {
                ($s:expr) => {
                    *r.add($s as usize)
                };
            }
            macro_rules! set {
                ($s:expr, $v:expr) => {{
                    let v: u32 = $v;
                    *r.add($s as usize) = v
                }};
            }
            macro_rules! nz {
                ($v:expr) => {{
                    let v: u32 = $v;
                    (*fl).n = v;
                    (*fl).z = v;
                }};
            }
            macro_rules! add_flags {
                ($a:expr, $b:expr) => {{
                    let (a, b): (u32, u32) = ($a, $b);
                    let (v, c) = a.overflowing_add(b);
                    *fl = Flags { n: v, z: v, c: u32::from(c), v: (a ^ v) & (b ^ v) };
                    v
                }};
            }
            macro_rules! sub_flags {
                ($a:expr, $b:expr) => {{
                    let (a, b): (u32, u32) = ($a, $b);
                    let v = a.wrapping_sub(b);
                    *fl = Flags { n: v, z: v, c: u32::from(a >= b), v: (a ^ b) & (a ^ v) };
                    v
                }};
            }
            // a + b + C with flags; subtraction is a + !b + C.
            macro_rules! adc_flags {
                ($a:expr, $b:expr) => {{
                    let (a, b): (u32, u32) = ($a, $b);
                    let wide = u64::from(a) + u64::from(b) + u64::from((*fl).c);
                    let v = wide as u32;
                    *fl = Flags { n: v, z: v, c: (wide >> 32) as u32, v: (a ^ v) & (b ^ v) };
                    v
                }};
            }
            // Before and after a call of a slow path: hand over what it needs, take back what it may have changed.
            macro_rules! slow {
                ($call:expr) => {{
                    self.cur = cur;
                    self.ip = ip;
                    self.remaining = remaining;
                    match $call {
                        Some(v) => {
                            remaining = self.remaining;
                            ip = self.ip;
                            (rt, wt) = (*cpu).mmu.fast_tables();
                            v
                        }
                        None => return Next::Event,
                    }
                }};
            }
            macro_rules! load {
                ($u:expr, $t:ty, $size:ident, $bytes:literal, $va:expr, |$v:ident| $conv:expr) => {{
                    let va: u32 = $va;
                    let e = *rt.add((va >> 12) as usize);
                    if e != 0 && in_page(va, $bytes) {
                        let $v = (e.wrapping_add(u64::from(va)) as *const $t).read_unaligned();
                        set!($u.d, $conv);
                    } else {
                        let $v = slow!(self.slow_load(va, MemKind::new(Size::$size))) as $t;
                        set!($u.d, $conv);
                    }
                }};
            }
            macro_rules! store {
                ($u:expr, $t:ty, $size:ident, $bytes:literal, $va:expr) => {{
                    let va: u32 = $va;
                    let e = *wt.add((va >> 12) as usize);
                    let v = get!($u.d);
                    if e != 0 && in_page(va, $bytes) {
                        (e.wrapping_add(u64::from(va)) as *mut $t).write_unaligned(v as $t);
                    } else {
                        slow!(self.slow_store(va, MemKind::new(Size::$size), v.into()));
                    }
                }};
            }
            macro_rules! at_imm {
                ($u:expr) => {
                    get!($u.a).wrapping_add($u.imm)
                };
            }
            macro_rules! at_reg {
                ($u:expr) => {
                    get!($u.a).wrapping_add(get!($u.b) << $u.imm)
                };
            }
            // Goes on in the block `$to` if the budget holds it.
            macro_rules! enter {
                ($to:expr, $else:block) => {{
                    let to: *const Code = $to;
                    let left = remaining - (*to).n;
                    if MODE == CHAIN && left >= 0 {
                        remaining = left;
                        cur = to;
                        ip = (*to).uops.as_ptr();
                        continue;
                    }
                    $else
                }};
            }
            macro_rules! leave {
                ($pc:expr, $next:expr) => {{
                    self.cur = cur;
                    self.remaining = remaining;
                    (*cpu).regs[15] = $pc;
                    let stopped = self.diverted.is_some();
                    self.finish();
                    return if stopped { Next::Event } else { $next };
                }};
            }
            macro_rules! exit {
                ($slot:expr) => {{
                    let slot: usize = $slot;
                    let e = (*cur).exits.get_unchecked(slot);
                    if let Some(to) = e.to.get() {
                        enter!(to.as_ptr(), { leave!(e.target, Next::Lookup(None)) });
                    }
                    let target = e.target;
                    if MODE == CHAIN && (*cpu).it == 0 {
                        if let Some(to) = self.cache.jump(target, jkey) {
                            let from = NonNull::new_unchecked(cur as *mut Code);
                            self.cache.link(from, slot, to);
                            enter!(to.as_ptr(), {});
                        }
                    }
                    leave!(target, Next::Lookup(Some((NonNull::new_unchecked(cur as *mut Code), slot))))
                }};
            }
            macro_rules! jump_to {
                ($pc:expr) => {{
                    let pc: u32 = $pc;
                    if MODE != CHAIN {
                        leave!(pc, Next::Lookup(None))
                    }
                    if let Some(to) = self.cache.jump(pc, jkey) {
                        enter!(to.as_ptr(), {});
                    }
                    leave!(pc, Next::Lookup(None))
                }};
            }
            macro_rules! cond {
                (eq) => {
                    (*fl).z == 0
                };
                (ne) => {
                    (*fl).z != 0
                };
                (cs) => {
                    (*fl).c != 0
                };
                (cc) => {
                    (*fl).c == 0
                };
                (mi) => {
                    ((*fl).n as i32) < 0
                };
                (pl) => {
                    ((*fl).n as i32) >= 0
                };
                (vs) => {
                    ((*fl).v as i32) < 0
                };
                (vc) => {
                    ((*fl).v as i32) >= 0
                };
                (hi) => {
                    (*fl).c != 0 && (*fl).z != 0
                };
                (ls) => {
                    (*fl).c == 0 || (*fl).z == 0
                };
                (ge) => {
                    (((*fl).n ^ (*fl).v) as i32) >= 0
                };
                (lt) => {
                    (((*fl).n ^ (*fl).v) as i32) < 0
                };
                (gt) => {
                    (*fl).z != 0 && (((*fl).n ^ (*fl).v) as i32) >= 0
                };
                (le) => {
                    (*fl).z == 0 || (((*fl).n ^ (*fl).v) as i32) < 0
                };
            }
            macro_rules! jump_if {
                ($c:expr) => {{
                    let slot = usize::from(!($c));
                    exit!(slot)
                }};
            }
            macro_rules! skip_unless {
                ($u:expr, $c:expr) => {
                    if !($c) {
                        ip = ip.add($u.imm as usize);
                    }
                };
            }

            loop {
                let u = &*ip;
                ip = ip.add(1);
                match u.op {
                    X::Nop => {}
                    X::MovImm => set!(u.d, u.imm),
                    X::Mov => set!(u.d, get!(u.a)),
                    X::Mvn => set!(u.d, !get!(u.a)),
                    X::Add => set!(u.d, get!(u.a).wrapping_add(get!(u.b))),
                    X::AddImm => set!(u.d, get!(u.a).wrapping_add(u.imm)),
                    X::AddLsl => set!(u.d, get!(u.a).wrapping_add(get!(u.b) << u.imm)),
                    X::Sub => set!(u.d, get!(u.a).wrapping_sub(get!(u.b))),
                    X::RsbImm => set!(u.d, u.imm.wrapping_sub(get!(u.a))),
                    X::Adc => set!(u.d, get!(u.a).wrapping_add(get!(u.b)).wrapping_add((*fl).c)),
                    X::Sbc => set!(u.d, get!(u.a).wrapping_add(!get!(u.b)).wrapping_add((*fl).c)),
                    X::And => set!(u.d, get!(u.a) & get!(u.b)),
                    X::AndImm => set!(u.d, get!(u.a) & u.imm),
                    X::Orr => set!(u.d, get!(u.a) | get!(u.b)),
                    X::OrrImm => set!(u.d, get!(u.a) | u.imm),
                    X::OrrLsl => set!(u.d, get!(u.a) | get!(u.b) << u.imm),
                    X::Eor => set!(u.d, get!(u.a) ^ get!(u.b)),
                    X::EorImm => set!(u.d, get!(u.a) ^ u.imm),
                    X::Bic => set!(u.d, get!(u.a) & !get!(u.b)),
                    X::AddS => set!(u.d, add_flags!(get!(u.a), get!(u.b))),
                    X::AddSImm => set!(u.d, add_flags!(get!(u.a), u.imm)),
                    X::SubS => set!(u.d, sub_flags!(get!(u.a), get!(u.b))),
                    X::SubSImm => set!(u.d, sub_flags!(get!(u.a), u.imm)),
                    X::AdcS => set!(u.d, adc_flags!(get!(u.a), get!(u.b))),
                    X::SbcS => set!(u.d, adc_flags!(get!(u.a), !get!(u.b))),
                    X::Cmp => {
                        sub_flags!(get!(u.a), get!(u.b));
                    }
                    X::CmpImm => {
                        sub_flags!(get!(u.a), u.imm);
                    }
                    X::Tst => nz!(get!(u.a) & get!(u.b)),
                    X::TstImm => nz!(get!(u.a) & u.imm),
                    X::SetNz => nz!(get!(u.a)),
                    X::SetC => (*fl).c = u.imm,
                    X::SetCBit => (*fl).c = get!(u.a) >> u.imm & 1,
                    X::SetNz64 => {
                        let (lo, hi) = (get!(u.a), get!(u.b));
                        (*fl).n = hi;
                        (*fl).z = lo | hi;
                    }
                    X::LslImm => set!(u.d, get!(u.a) << u.imm),
                    X::LsrImm => set!(u.d, get!(u.a) >> u.imm),
                    X::AsrImm => set!(u.d, (get!(u.a) as i32 >> u.imm) as u32),
                    X::RorImm => set!(u.d, get!(u.a).rotate_right(u.imm)),
                    X::Rrx => set!(u.d, get!(u.a) >> 1 | (*fl).c << 31),
                    X::Lsl => set!(u.d, lsl(get!(u.a), get!(u.b) & 0xff)),
                    X::Lsr => set!(u.d, lsr(get!(u.a), get!(u.b) & 0xff)),
                    X::Asr => set!(u.d, asr(get!(u.a), get!(u.b) & 0xff)),
                    X::Ror => set!(u.d, get!(u.a).rotate_right(get!(u.b) & 31)),
                    X::ShiftC => {
                        let (v, c) = shift_c(u.imm, get!(u.a), get!(u.b) & 0xff, (*fl).c);
                        (*fl).c = c;
                        set!(u.d, v);
                    }
                    X::Mul => set!(u.d, get!(u.a).wrapping_mul(get!(u.b))),
                    X::Umull => {
                        let p = u64::from(get!(u.a)) * u64::from(get!(u.b));
                        set!(u.d, p as u32);
                        set!(u.imm, (p >> 32) as u32);
                    }
                    X::Smull => {
                        let p = i64::from(get!(u.a) as i32) * i64::from(get!(u.b) as i32);
                        set!(u.d, p as u32);
                        set!(u.imm, (p >> 32) as u32);
                    }
                    X::Udiv => set!(u.d, get!(u.a).checked_div(get!(u.b)).unwrap_or(0)),
                    X::Sdiv => {
                        let (n, m) = (get!(u.a) as i32, get!(u.b) as i32);
                        set!(u.d, if m == 0 { 0 } else { n.wrapping_div(m) as u32 });
                    }
                    X::Clz => set!(u.d, get!(u.a).leading_zeros()),
                    X::Rbit => set!(u.d, get!(u.a).reverse_bits()),
                    X::Rev => set!(u.d, get!(u.a).swap_bytes()),
                    X::Rev16 => set!(u.d, get!(u.a).swap_bytes().rotate_right(16)),
                    X::Revsh => set!(u.d, (get!(u.a) as u16).swap_bytes() as i16 as u32),
                    X::Sxtb => set!(u.d, get!(u.a) as i8 as u32),
                    X::Sxth => set!(u.d, get!(u.a) as i16 as u32),
                    X::Ubfx => set!(u.d, get!(u.a) >> u.imm & u.aux),
                    X::Sbfx => set!(u.d, ((get!(u.a) << (32 - u.imm - u.aux)) as i32 >> (32 - u.aux)) as u32),
                    X::Bfi => set!(u.d, get!(u.a) & !u.aux | get!(u.b) << u.imm & u.aux),
                    X::Ld32 => load!(u, u32, Word, 4, at_imm!(u), |v| v),
                    X::Ld16 => load!(u, u16, Half, 2, at_imm!(u), |v| v.into()),
                    X::Ld16s => load!(u, u16, Half, 2, at_imm!(u), |v| v as i16 as u32),
                    X::Ld8 => load!(u, u8, Byte, 1, at_imm!(u), |v| v.into()),
                    X::Ld8s => load!(u, u8, Byte, 1, at_imm!(u), |v| v as i8 as u32),
                    X::Ld32R => load!(u, u32, Word, 4, at_reg!(u), |v| v),
                    X::Ld16R => load!(u, u16, Half, 2, at_reg!(u), |v| v.into()),
                    X::Ld16sR => load!(u, u16, Half, 2, at_reg!(u), |v| v as i16 as u32),
                    X::Ld8R => load!(u, u8, Byte, 1, at_reg!(u), |v| v.into()),
                    X::Ld8sR => load!(u, u8, Byte, 1, at_reg!(u), |v| v as i8 as u32),
                    X::St32 => store!(u, u32, Word, 4, at_imm!(u)),
                    X::St16 => store!(u, u16, Half, 2, at_imm!(u)),
                    X::St8 => store!(u, u8, Byte, 1, at_imm!(u)),
                    X::St32R => store!(u, u32, Word, 4, at_reg!(u)),
                    X::St16R => store!(u, u16, Half, 2, at_reg!(u)),
                    X::St8R => store!(u, u8, Byte, 1, at_reg!(u)),
                    X::LdX => {
                        let (va, kind) = (at_imm!(u), MemKind::unpack(u.aux));
                        let e = *rt.add((va >> 12) as usize);
                        let v =
                            if kind.size == Size::Dword && e != 0 && in_page(va, 8) && va & kind.required_mask() == 0 {
                                (e.wrapping_add(u64::from(va)) as *const u64).read_unaligned()
                            } else {
                                slow!(self.slow_load(va, kind))
                            };
                        set!(u.d, extend(v, kind));
                        if kind.size == Size::Dword {
                            set!(u.b, (v >> 32) as u32);
                        }
                    }
                    X::StX => {
                        let (va, kind) = (at_imm!(u), MemKind::unpack(u.aux));
                        let e = *wt.add((va >> 12) as usize);
                        let v = u64::from(get!(u.d)) | u64::from(get!(u.b)) << 32;
                        if kind.size == Size::Dword && e != 0 && in_page(va, 8) && va & kind.required_mask() == 0 {
                            (e.wrapping_add(u64::from(va)) as *mut u64).write_unaligned(v);
                        } else {
                            slow!(self.slow_store(va, kind, v));
                        }
                    }
                    X::Ldm => {
                        let va = get!(u.a).wrapping_add(u.aux);
                        let e = *rt.add((va >> 12) as usize);
                        let mut m = u.imm;
                        if e != 0 && va & 3 == 0 && in_page(va, 4 * u32::from(u.b)) {
                            let mut p = e.wrapping_add(u64::from(va)) as *const u32;
                            while m != 0 {
                                set!(m.trailing_zeros(), p.read());
                                p = p.add(1);
                                m &= m - 1;
                            }
                        } else {
                            let mut words = [0; 64];
                            slow!(self.slow_load_words(va, u.b.into(), &mut words));
                            let mut k = 0;
                            while m != 0 {
                                set!(m.trailing_zeros(), words[k]);
                                k += 1;
                                m &= m - 1;
                            }
                        }
                    }
                    X::Stm => {
                        let va = get!(u.a).wrapping_add(u.aux);
                        let e = *wt.add((va >> 12) as usize);
                        let mut m = u.imm;
                        if e != 0 && va & 3 == 0 && in_page(va, 4 * u32::from(u.b)) {
                            let mut p = e.wrapping_add(u64::from(va)) as *mut u32;
                            while m != 0 {
                                p.write(get!(m.trailing_zeros()));
                                p = p.add(1);
                                m &= m - 1;
                            }
                        } else {
                            let mut words = [0; 16];
                            let mut k = 0;
                            while m != 0 {
                                words[k] = get!(m.trailing_zeros());
                                k += 1;
                                m &= m - 1;
                            }
                            // A store of the PC slot must not leave its value where the PC is kept.
                            slow!(self.slow_store_words(va, &words[..k]));
                        }
                    }
                    X::LdmExt => {
                        let (va, n) = (get!(u.a).wrapping_add(u.aux), usize::from(u.b));
                        let e = *rt.add((va >> 12) as usize);
                        let ext = (&raw mut (*cpu).ext as *mut u32).add(u.imm as usize);
                        if e != 0 && va & 3 == 0 && in_page(va, 4 * n as u32) {
                            std::ptr::copy_nonoverlapping(e.wrapping_add(u64::from(va)) as *const u32, ext, n);
                        } else {
                            let mut words = [0; 64];
                            slow!(self.slow_load_words(va, n, &mut words));
                            std::ptr::copy_nonoverlapping(words.as_ptr(), ext, n);
                        }
                    }
                    X::StmExt => {
                        let (va, n) = (get!(u.a).wrapping_add(u.aux), usize::from(u.b));
                        let e = *wt.add((va >> 12) as usize);
                        let ext = (&raw const (*cpu).ext as *const u32).add(u.imm as usize);
                        if e != 0 && va & 3 == 0 && in_page(va, 4 * n as u32) {
                            std::ptr::copy_nonoverlapping(ext, e.wrapping_add(u64::from(va)) as *mut u32, n);
                        } else {
                            let mut words = [0; 64];
                            std::ptr::copy_nonoverlapping(ext, words.as_mut_ptr(), n);
                            slow!(self.slow_store_words(va, &words[..n]));
                        }
                    }
                    X::ExtGet => set!(u.d, *(&raw const (*cpu).ext as *const u32).add(u.imm as usize)),
                    X::ExtSet => *(&raw mut (*cpu).ext as *mut u32).add(u.imm as usize) = get!(u.a),
                    X::Ldrex => {
                        let va = at_imm!(u);
                        let v = slow!(self.load_exclusive(va, u));
                        set!(u.d, v as u32);
                        if MemKind::unpack(u.aux).size == Size::Dword {
                            set!(u.b, (v >> 32) as u32);
                        }
                    }
                    X::Strex => {
                        let va = get!(u.a);
                        let v = slow!(self.store_exclusive(va, u));
                        set!(u.d, v);
                    }
                    X::Clrex => (*cpu).excl.valid = false,
                    X::NeedFp => {
                        if (*cpu).fpexc & FPEXC_EN == 0 {
                            slow!(self.fp_is_off(u));
                        }
                    }
                    X::Helper => {
                        let f = HELPERS.get_unchecked(u.aux as usize >> 8).get_unchecked(u.aux as usize & 0xff).f;
                        let v = f(&mut *cpu, get!(u.a), get!(u.b), u.imm);
                        set!(u.d, v);
                    }
                    X::HelperK => {
                        let f = HELPERS.get_unchecked(u.aux as usize >> 8).get_unchecked(u.aux as usize & 0xff).f;
                        let v = f(&mut *cpu, u.imm, u.a.into(), u.b.into());
                        set!(u.d, v);
                    }
                    X::Sys => {
                        let v = slow!(self.system(u));
                        set!(u.d, v);
                        // The context may have changed; blocks that depend on it are left, but the key serves this one's own exits too.
                        jkey = jump_key((*cpu).mmu.context_id(), jkey as u32);
                    }
                    X::SkipEq => skip_unless!(u, cond!(eq)),
                    X::SkipNe => skip_unless!(u, cond!(ne)),
                    X::SkipCs => skip_unless!(u, cond!(cs)),
                    X::SkipCc => skip_unless!(u, cond!(cc)),
                    X::SkipMi => skip_unless!(u, cond!(mi)),
                    X::SkipPl => skip_unless!(u, cond!(pl)),
                    X::SkipVs => skip_unless!(u, cond!(vs)),
                    X::SkipVc => skip_unless!(u, cond!(vc)),
                    X::SkipHi => skip_unless!(u, cond!(hi)),
                    X::SkipLs => skip_unless!(u, cond!(ls)),
                    X::SkipGe => skip_unless!(u, cond!(ge)),
                    X::SkipLt => skip_unless!(u, cond!(lt)),
                    X::SkipGt => skip_unless!(u, cond!(gt)),
                    X::SkipLe => skip_unless!(u, cond!(le)),
                    X::JumpEq => jump_if!(cond!(eq)),
                    X::JumpNe => jump_if!(cond!(ne)),
                    X::JumpCs => jump_if!(cond!(cs)),
                    X::JumpCc => jump_if!(cond!(cc)),
                    X::JumpMi => jump_if!(cond!(mi)),
                    X::JumpPl => jump_if!(cond!(pl)),
                    X::JumpVs => jump_if!(cond!(vs)),
                    X::JumpVc => jump_if!(cond!(vc)),
                    X::JumpHi => jump_if!(cond!(hi)),
                    X::JumpLs => jump_if!(cond!(ls)),
                    X::JumpGe => jump_if!(cond!(ge)),
                    X::JumpLt => jump_if!(cond!(lt)),
                    X::JumpGt => jump_if!(cond!(gt)),
                    X::JumpLe => jump_if!(cond!(le)),
                    X::Jump => exit!(u.imm as usize),
                    X::JumpIfZero => jump_if!(get!(u.a) == 0),
                    X::JumpIfNotZero => jump_if!(get!(u.a) != 0),
                    X::JumpReg => {
                        let to = get!(u.a);
                        let thumb = to & 1 != 0;
                        if thumb != (*cpu).t {
                            (*cpu).t = thumb;
                            jkey ^= THUMB;
                        }
                        jump_to!(to & if thumb { !1 } else { !3 })
                    }
                    X::JumpRegSame => {
                        let to = get!(u.a);
                        jump_to!(to & if (*cpu).t { !1 } else { !3 })
                    }
                    X::Leave => leave!(u.imm, Next::Event),
                    X::LeavePc => leave!((*cpu).regs[15], Next::Event),
                    X::SetIt => (*cpu).it = u.imm as u8,
                    X::Undef | X::Svc | X::Smc | X::Bkpt | X::Wfi | X::Wfe | X::Stop => {
                        self.cur = cur;
                        self.remaining = remaining;
                        return self.special(ip, u);
                    }
                }
                if MODE == STEP && self.diverted.is_none() {
                    self.cur = cur;
                    return Next::Stepped;
                }
            }
        }
    }
}

/// The Thumb bit of [`BlockMode::pack`].
const THUMB: u64 = 1 << 8;

/// Whether `len` bytes at `va` lie in one 4 KiB page.
#[inline(always)]
fn in_page(va: u32, len: u32) -> bool {
    (va & 0xfff) + len <= 0x1000
}

fn lsl(v: u32, n: u32) -> u32 {
    v.checked_shl(n).unwrap_or(0)
}

fn lsr(v: u32, n: u32) -> u32 {
    v.checked_shr(n).unwrap_or(0)
}

fn asr(v: u32, n: u32) -> u32 {
    (v as i32 >> n.min(31)) as u32
}

/// A shift by a register with its carry out (ARM DDI 0406C A2.2.1); amount 0 leaves both alone.
fn shift_c(kind: u32, v: u32, n: u32, c: u32) -> (u32, u32) {
    let bit = |k: u32| if k < 32 { v >> k & 1 } else { 0 };
    match (kind, n) {
        (_, 0) => (v, c),
        (0, _) => (lsl(v, n), if n <= 32 { bit(32 - n) } else { 0 }),
        (1, _) => (lsr(v, n), bit(n - 1)),
        (2, _) => (asr(v, n), bit((n - 1).min(31))),
        _ => (v.rotate_right(n & 31), bit((n - 1) & 31)),
    }
}

/// The word that a load of `kind` puts in its (low) register.
fn extend(v: u64, kind: MemKind) -> u32 {
    match (kind.size, kind.signed) {
        (Size::Byte, true) => v as i8 as u32,
        (Size::Half, true) => v as i16 as u32,
        _ => v as u32,
    }
}
