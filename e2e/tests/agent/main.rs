//! The process and the exporter in the Pods of OpenVPN servers, with a real OpenVPN in a network of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod certificates;
mod drain;
mod exporter;
mod failures;
mod network;
mod revocation;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    e2e::testing::harness::run(e2e::program_tests![
        exporter::clients_of_a_real_server_are_shown,
        exporter::the_exporter_reads_each_version_of_the_status_file,
        network::four_capabilities_are_enough,
        network::rules_and_forwarding_are_set_up_once,
        network::the_first_process_of_a_container_waits_for_orphans,
        revocation::a_revoked_client_is_cut_off_and_others_stay,
        revocation::a_client_that_does_not_listen_is_cut_off_as_well,
        revocation::a_client_with_a_new_certificate_comes_back,
        drain::sessions_end_in_the_last_third_and_the_pod_stays_ready,
        drain::the_drain_is_over_when_the_last_client_leaves,
        drain::a_second_signal_ends_the_drain,
        failures::the_reason_why_openvpn_ended_is_told,
        failures::what_is_missing_is_told,
        failures::a_server_with_a_silent_socket_ends_in_time,
    ])
}
