//! CPU models: the values of identification registers and other things that differ between cores.

use serde::{Deserialize, Serialize};

/// Fixed properties of one core. All register values are as the guest reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Name in the machine file.
    pub name: String,
    /// Main ID register.
    pub midr: u32,
    /// Cache type register.
    pub ctr: u32,
    /// Multiprocessor affinity register.
    pub mpidr: u32,
    /// ID_PFR0, ID_PFR1.
    pub id_pfr: [u32; 2],
    /// ID_DFR0.
    pub id_dfr0: u32,
    /// ID_MMFR0-3.
    pub id_mmfr: [u32; 4],
    /// ID_ISAR0-5.
    pub id_isar: [u32; 6],
    /// Cache level ID register.
    pub clidr: u32,
    /// CCSIDR by CSSELR value: L1 data, L1 instruction, L2 unified.
    pub ccsidr: [u32; 3],
    /// SCTLR at reset.
    pub sctlr_reset: u32,
    /// ACTLR at reset.
    pub actlr_reset: u32,
    /// Debug ID register (CP14).
    pub dbgdidr: u32,
    /// L2CTLR: number of cores in bits 25:24, minus one.
    pub l2ctlr: u32,
    /// CBAR: base of the private peripherals (the GIC on Cortex-A15).
    pub cbar: u32,
    /// VFP: FPSID.
    pub fpsid: u32,
    /// VFP: MVFR0, MVFR1.
    pub mvfr: [u32; 2],
    /// PMCR identification and counter-number fields; PMCR.N event counters exist.
    pub pmcr: u32,
    /// PMCEID0: which common events are counted.
    pub pmceid0: u32,
    /// Generic timer present, at this frequency in Hz; 0 means no generic timer.
    pub cntfrq: u32,
    /// SCTLR bits that can be written.
    pub sctlr_writable: u32,
    /// ACTLR bits that can be written.
    pub actlr_writable: u32,
    /// Event number of the performance monitors that counts executed instructions.
    pub pmu_instructions: u32,
    /// Vectors at 0xffff0000 out of reset (the VINITHI input).
    pub vinithi: bool,
    /// The Security Extensions are there. A core without them is always in what is the Non-secure state of one with them.
    pub security: bool,
}

impl Model {
    /// SDIV and UDIV in both instruction sets, by ID_ISAR0 (ARM DDI 0406C B4.1.82). Here they come and go with the fused
    /// multiply-accumulates of VFPv4 and Advanced SIMDv2 and with the rest of what Cortex-A15 has and Cortex-A9 hasn't.
    #[inline]
    pub fn extended(&self) -> bool {
        self.id_isar[0] >> 24 & 0xf == 2
    }

    /// The Cortex-A9: private timers instead of the generic timer, and system registers of its own.
    pub fn is_a9(&self) -> bool {
        self.midr >> 4 & 0xfff == 0xc09
    }

    /// The model without the Security Extensions, as a hypervisor shows a core to its guest, or a machine without Secure software: ID_PFR1 and
    /// DBGDIDR (SE_imp, nSUHD_imp) say so.
    #[must_use]
    pub fn without_security(self) -> Model {
        let [pfr0, pfr1] = self.id_pfr;
        Model { id_pfr: [pfr0, pfr1 & !0xf0], dbgdidr: self.dbgdidr & !(1 << 12 | 1 << 14), security: false, ..self }
    }

    /// The identification registers by their architectural names (ARM DDI 0406C B4.1), as a recording's manifest lists them.
    pub fn id_registers(&self) -> Vec<(String, u32)> {
        let one = |name: &str, v: u32| (name.to_owned(), v);
        let many =
            |name: &str, v: &[u32]| v.iter().enumerate().map(|(i, v)| (format!("{name}{i}"), *v)).collect::<Vec<_>>();
        let mut all = vec![one("MIDR", self.midr), one("CTR", self.ctr), one("MPIDR", self.mpidr)];
        all.extend(many("ID_PFR", &self.id_pfr));
        all.push(one("ID_DFR0", self.id_dfr0));
        all.extend(many("ID_MMFR", &self.id_mmfr));
        all.extend(many("ID_ISAR", &self.id_isar));
        all.push(one("CLIDR", self.clidr));
        all.extend(many("CCSIDR", &self.ccsidr));
        all.extend([one("DBGDIDR", self.dbgdidr), one("FPSID", self.fpsid), one("CNTFRQ", self.cntfrq)]);
        all.extend(many("MVFR", &self.mvfr));
        all
    }

    /// The Large Physical Address Extension is there: ID_MMFR0.VMSA says so.
    pub fn has_lpae(&self) -> bool {
        self.id_mmfr[0] & 0xf >= 5
    }

    /// Cortex-A15 MPCore r4p0's identification as other emulators of the board show it (TRM DDI 0438, chapter 4), with the Security
    /// Extensions and without the Virtualization Extensions: ID_PFR1 says so.
    ///
    /// `cpu` is the affinity level 0 number, `cpus` the number of cores in the cluster (1-4), `periphbase` the address of the private
    /// peripherals, `cntfrq` the generic timer's frequency in Hz.
    pub fn cortex_a15(cpu: u32, cpus: u32, periphbase: u32, cntfrq: u32) -> Model {
        assert!((1..=4).contains(&cpus) && cpu < cpus, "a Cortex-A15 cluster has 1 to 4 cores");
        Model {
            name: "cortex-a15".to_owned(),
            midr: 0x414f_c0f0,
            ctr: 0x8444_c004,
            mpidr: 0x8000_0000 | cpu,
            id_pfr: [0x0000_1131, 0x0001_0011],
            id_dfr0: 0x0201_0555,
            id_mmfr: [0x1020_1105, 0x2000_0000, 0x0124_0000, 0x0210_2211],
            id_isar: [0x0210_1110, 0x1311_2111, 0x2123_2041, 0x1111_2131, 0x1001_1142, 0],
            clidr: 0x0a20_0023,
            ccsidr: [0x701f_e00a, 0x201f_e00a, 0x711f_e07a],
            sctlr_reset: 0x00c5_0078,
            actlr_reset: 0,
            dbgdidr: 0x3515_f021,
            l2ctlr: (cpus - 1) << 24,
            cbar: periphbase,
            fpsid: 0x4104_30f0,
            mvfr: [0x1011_0222, 0x1111_1111],
            pmcr: 0x410f_3000,
            pmceid0: 0x3002_0f01,
            cntfrq,
            sctlr_writable: 0x7218_3c27,
            actlr_writable: !0,
            pmu_instructions: 0x08,
            vinithi: false,
            security: true,
        }
    }

    /// Cortex-A9 MPCore r0p0's identification (TRM DDI 0388, chapter 4, and DDI 0407) with 32 KiB of each L1 cache, VFPv3-D32 and Advanced SIMDv1
    /// as other emulators of the board show them. Jazelle is trivial, which ID_PFR0 says.
    ///
    /// `cpu` is the affinity level 0 number, `cpus` the number of cores in the cluster (1-4), `periphbase` the address of the private
    /// peripherals.
    pub fn cortex_a9(cpu: u32, cpus: u32, periphbase: u32) -> Model {
        assert!((1..=4).contains(&cpus) && cpu < cpus, "a Cortex-A9 cluster has 1 to 4 cores");
        Model {
            name: "cortex-a9".to_owned(),
            midr: 0x410f_c090,
            ctr: 0x8003_8003,
            mpidr: 0x8000_0000 | cpu,
            id_pfr: [0x0000_1131, 0x0000_0011],
            id_dfr0: 0x0001_0444,
            id_mmfr: [0x0010_0103, 0x2000_0000, 0x0123_0000, 0x0000_2111],
            id_isar: [0x0010_1111, 0x1311_2111, 0x2123_2041, 0x1111_2131, 0x0011_1142, 0],
            clidr: 0x0920_0003,
            ccsidr: [0x701f_e019, 0x201f_e019, 0],
            sctlr_reset: 0x00c5_0078,
            actlr_reset: 0,
            dbgdidr: 0x3514_1000,
            l2ctlr: 0,
            cbar: periphbase,
            fpsid: 0x4103_3090,
            mvfr: [0x1111_0222, 0x0111_1111],
            pmcr: 0x4109_3000,
            pmceid0: 0,
            cntfrq: 0,
            // TE, AFE, TRE, EE, RR, V, I, Z, SW, C, A, M (TRM table 4-27).
            sctlr_writable: 0x7200_7c07,
            // Parity, allocation in one way, EXCL, SMP, line of zeros, L1 and L2 prefetch, FW (table 4-30).
            actlr_writable: 0x0000_03cf,
            pmu_instructions: 0x68,
            vinithi: false,
            security: true,
        }
    }
}
