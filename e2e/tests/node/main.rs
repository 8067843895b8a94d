//! Tests that need a node that runs containers.

mod crashes;
mod credential_files;
mod enrollment;
mod failures;
mod gates;
mod injection;
mod own_clients;
mod pods;
mod scaling;
mod servers;
mod slots;
mod teardown;
mod verification;
mod vpn;
mod workloads;

use std::process::ExitCode;

use anyhow::Result;
use e2e::{Cluster, Framework, cluster::shared};

fn main() -> ExitCode {
    e2e::testing::harness::run(e2e::node_tests![
        pods::a_pod_runs,
        pods::a_service_leads_to_its_pod,
        pods::no_way_leads_outside,
        vpn::traffic_leaves_by_the_vpn,
        vpn::the_app_starts_when_the_tunnel_is_up,
        vpn::a_server_that_starts_late_is_found,
        vpn::a_server_that_vanishes_is_noticed_and_found_again,
        vpn::a_server_that_says_goodbye_is_noticed_at_once,
        failures::each_failure_says_what_it_is,
        failures::without_the_right_to_change_the_network,
        verification::a_good_account_becomes_ready,
        verification::each_failure_has_its_reason,
        verification::a_refused_password_is_told_at_once_and_heals,
        verification::too_many_devices_do_not_condemn_an_account,
        verification::what_is_in_the_way_is_named,
        verification::a_verified_account_is_verified_again,
        verification::who_has_a_slot_of_a_bad_account_may_lose_it,
        verification::an_evicted_pod_is_told_and_tried_again,
        verification::odd_secrets,
        slots::each_device_has_its_key,
        crashes::a_container_that_is_always_started_again_keeps_the_slot,
        crashes::one_that_crashed_before_keeps_it_too,
        crashes::a_sidecar_that_crashes_keeps_the_slot,
        crashes::a_container_with_the_credentials_in_its_environment_keeps_the_slot,
        crashes::a_crashing_pod_of_a_consumer_ends_before_the_slot_changes_hands,
        failures::a_killed_container_finds_its_rule_in_the_way,
        workloads::a_deployment_behind_the_vpn,
        workloads::a_stateful_set_behind_the_vpn,
        workloads::a_job_behind_the_vpn,
        injection::replicas_behind_the_vpn,
        injection::pods_of_one_mask_behind_the_vpn,
        injection::files_are_where_gluetun_reads_them,
        credential_files::an_openvpn_configuration_that_no_variable_names,
        credential_files::a_wireguard_configuration,
        own_clients::pods_with_a_client_of_their_own_take_turns,
        own_clients::pods_with_a_client_of_their_own_share_a_mask,
        gates::a_gate_that_is_removed_by_hand_lets_nothing_run,
        injection::a_job_behind_the_vpn,
        injection::a_copy_is_no_second_device,
        servers::ten_devices_reach_the_cluster_through_their_replicas,
        servers::a_revoked_client_is_cut_off_on_every_replica,
        servers::masks_connect_through_a_server,
        servers::a_replica_that_ends_lets_its_clients_go,
        servers::a_device_comes_back_whatever_happens_to_the_server,
        scaling::the_replica_with_the_fewest_clients_goes_first,
        scaling::an_autoscaler_scales_the_deployment_on_clients,
        scaling::an_autoscaler_scales_the_server_on_clients,
        scaling::a_workload_follows_a_metric_that_is_set_by_hand,
        enrollment::the_commands_of_the_old_chart_work_in_its_pods,
        teardown::nothing_is_left_at_the_end,
        teardown::nothing_is_left_when_the_owner_is_killed,
    ])
}

/// Runs a test in its own namespace of the shared cluster.
async fn test(prefix: &str, body: impl AsyncFnOnce(&Cluster, &Framework) -> Result<()>) -> Result<()> {
    let cluster = shared::cluster_with_node().await?;
    let f = Framework::new(cluster, prefix).await?;
    f.dump_on_error(body(cluster, &f)).await
}
