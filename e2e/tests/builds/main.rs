//! What users build: the container images and `vpn-types`. These tests use all CPUs and no cluster.

mod image;
mod servers;
mod types;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut tests = e2e::plain_tests![
        image::it_is_an_image_of_the_operator,
        image::the_binary_needs_nothing_but_itself_and_knows_no_path_of_the_machine,
        image::it_is_the_same_each_time,
        image::the_dockerfile_says_the_same,
        servers::the_dockerfile_says_the_same,
        types::vpn_types_builds_alone_without_the_operator,
    ];
    tests.extend(e2e::node_tests![servers::it_has_what_a_server_needs]);
    e2e::testing::harness::run(tests)
}
