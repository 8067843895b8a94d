//! The operator as users run it: the chart, installed with helm, with the image of this checkout, on a node that runs
//! containers.

mod life;

use std::process::ExitCode;

fn main() -> ExitCode {
    e2e::testing::harness::run(e2e::node_tests![life::from_install_to_uninstall])
}
