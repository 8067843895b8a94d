//! The operator's output for OpenVPN, checked by third-party programs: `openssl`, and real servers and clients.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod authorities;
mod certificates;
mod connections;
mod fixtures;
mod keystores;
mod lines;

use std::process::ExitCode;

fn main() -> ExitCode {
    e2e::testing::harness::run(e2e::program_tests![
        authorities::keys_of_each_format_can_sign,
        authorities::keys_that_cannot_sign_are_refused,
        authorities::a_name_that_cannot_be_written_again_is_refused,
        authorities::a_list_of_revoked_certificates_is_that_of_a_ca_with_any_key_identifier,
        authorities::a_bundle_trusts_each_of_its_authorities,
        certificates::openssl_accepts_certificates_for_what_they_are_for,
        certificates::openssl_reads_what_was_asked_for,
        certificates::openssl_reads_the_same_serial,
        certificates::openssl_refuses_a_revoked_certificate,
        certificates::a_key_that_openssl_made_gets_a_certificate,
        certificates::a_key_that_is_weak_or_unknown_gets_no_certificate,
        certificates::the_end_of_a_certificate_is_that_of_its_ca_if_that_comes_first,
        connections::clients_connect_by_udp_and_by_tcp,
        connections::a_revoked_client_is_refused_without_a_restart,
        connections::the_directory_of_revoked_certificates_never_expires,
        connections::a_key_that_stays_on_the_device_connects,
        connections::a_client_gets_its_own_address_and_others_do_not,
        connections::a_client_without_the_shared_key_is_not_answered,
        connections::a_certificate_of_another_kind_or_authority_is_refused,
        connections::a_client_refuses_a_server_with_another_name_or_kind,
        connections::the_shared_key_is_the_one_that_openvpn_makes,
        connections::as_many_clients_connect_as_there_may_be,
        connections::clients_of_a_ca_that_another_one_signed_connect,
        keystores::a_server_with_all_files_of_a_user_honors_the_list_of_revoked_certificates,
        lines::a_server_starts_with_the_lines_that_are_accepted,
    ])
}
