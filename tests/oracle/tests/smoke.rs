//! The oracle itself works: known instructions give known results.

use reprise_oracle::case::{CODE, Case, DATA, Ending, Isa, State};
use reprise_oracle::unicorn::{ENDLESS, Uc};

fn case(isa: Isa, code: &[u32], width: u8) -> Case {
    let mut regs = [0; 16];
    regs[1] = 5;
    regs[2] = DATA;
    regs[3] = 0x1000;
    regs[15] = CODE;
    let t = if isa == Isa::T32 { 0x20 } else { 0 };
    let state = State { regs, cpsr: 0x10 | t, d: [0x3ff0_0000_0000_0000; 32], fpscr: 0 };
    Case {
        isa,
        code: code.to_vec(),
        width: vec![width; code.len()],
        at: CODE,
        state,
        data_seed: 1,
        loops: false,
        names: vec![],
    }
}

#[test]
fn unicorn_runs_cases() {
    let mut uc = Uc::new().expect("Unicorn");
    // add r0, r1, r1; adds r4, r0, #1
    let out = uc.run(&case(Isa::A32, &[0xe081_0001, 0xe290_4001], 4)).expect("run");
    assert_eq!(
        (out.ending, out.state.regs[0], out.state.regs[4], out.state.regs[15]),
        (Ending::Done, 10, 11, CODE + 8)
    );
    // vadd.f64 d0, d1, d2
    let out = uc.run(&case(Isa::A32, &[0xee31_0b02], 4)).expect("run");
    assert_eq!((out.ending, out.state.d[0]), (Ending::Done, 0x4000_0000_0000_0000));
    // adds r0, r1, #1 (T16)
    let out = uc.run(&case(Isa::T32, &[0x1c48], 2)).expect("run");
    assert_eq!((out.ending, out.state.regs[0], out.state.regs[15]), (Ending::Done, 6, CODE + 2));
    // svc, udf, a load from nowhere, a jump to nowhere
    assert_eq!(uc.run(&case(Isa::A32, &[0xef00_0001], 4)).expect("run").ending, Ending::Svc);
    assert_eq!(uc.run(&case(Isa::A32, &[0xe7f0_00f0], 4)).expect("run").ending, Ending::Undefined);
    assert_eq!(
        uc.run(&case(Isa::A32, &[0xe593_0004], 4)).expect("run").ending,
        Ending::DataAbort { addr: 0x1004, alignment: false }
    );
    // itt ne; movne r0, #7; movne r5, #9
    let out = uc.run(&case(Isa::T32, &[0xbf1c, 0x2007, 0x2509], 2)).expect("run");
    assert_eq!((out.ending, out.state.regs[0], out.state.regs[5]), (Ending::Done, 7, 9));
}

/// An UNPREDICTABLE branch that leads from an IT block to its IT, for ever: there Unicorn does not look whether it is to stop.
#[test]
fn unicorn_is_stopped() {
    // it eq for four; vmov; vclz; smlal r6, pc, r12, r0, to 10 bytes before it
    let mut endless = case(Isa::T32, &[0xbf01, 0xec5b_8a3a, 0xffb4_44a4, 0xfbcc_6f00], 4);
    endless.width[0] = 2;
    endless.state.cpsr |= 1 << 30;
    (endless.state.regs[0], endless.state.regs[6], endless.state.regs[12]) = (0x1c, 0x8006_0454, 0x8006_17ec);
    let mut uc = Uc::new().expect("Unicorn");
    assert_eq!(uc.run(&endless).expect("run").ending, Ending::Other(ENDLESS));
    // And works on.
    let out = uc.run(&case(Isa::A32, &[0xe081_0001], 4)).expect("run");
    assert_eq!((out.ending, out.state.regs[0]), (Ending::Done, 10));
}
