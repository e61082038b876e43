//! Manual pages and completions, as they are installed.

use reprise_tests::{Rig, prefix};
use std::fs;
use std::process::Command;

const PROGRAMS: [&str; 3] = ["supervisor", "reprise-log", "vmctl"];

/// The commands that a program's help lists.
fn commands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let names = list.lines().take_while(|l| l.starts_with("  ")).filter(|l| !l.starts_with("   "));
    names.filter_map(|l| l.split_whitespace().next()).filter(|n| *n != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_and_option_has_its_page() {
    let rig = Rig::new();
    let pages = prefix().join("share/man/man1");
    for program in PROGRAMS {
        let help = |args: &[&str]| {
            let out = rig.output(rig.program(program).args(args).arg("--help"));
            String::from_utf8(out.stdout).expect("text")
        };
        let top = help(&[]);
        let all = commands(&top);
        assert!(!all.is_empty() && all.iter().all(|n| n != "generate"), "{all:?}");
        let mut pairs = vec![(program.to_owned(), top)];
        pairs.extend(all.iter().map(|command| (format!("{program}-{command}"), help(&[command]))));
        for (page, help) in pairs {
            // A dash is written so that it stays one.
            let text = fs::read_to_string(pages.join(format!("{page}.1"))).expect("a page").replace("\\-", "-");
            for option in help.split_whitespace().filter(|w| w.starts_with("--") && w.len() > 3) {
                let option =
                    option.trim_end_matches([',', ';', '.', ')']).split(['=', '[']).next().expect("a first part");
                assert!(text.contains(option), "{option} is not on the page of {page}");
            }
        }
    }
}

#[test]
fn completions_are_where_shells_look() {
    let share = prefix().join("share");
    for program in PROGRAMS {
        let bash = share.join("bash-completion/completions").join(program);
        let status = Command::new("bash").arg("-n").arg(&bash).status().expect("bash");
        assert!(status.success(), "{}", bash.display());
        for file in [format!("zsh/site-functions/_{program}"), format!("fish/vendor_completions.d/{program}.fish")] {
            assert!(fs::read_to_string(share.join(&file)).expect("installed").contains(program), "{file}");
        }
    }
    assert!(
        fs::read_to_string(share.join("bash-completion/completions/vmctl"))
            .expect("installed")
            .contains("device-state")
    );
}
