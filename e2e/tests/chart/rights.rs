//! The permissions of the controllers and of users.

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlane, ControlPlaneOptions, Framework, Layout, Operator, OperatorOptions, operator,
    pods::usage::owned_pod, testing::framework::local_cluster, wait::TIMEOUT,
};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::{Api, api::PostParams};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};
use vpn_types::{MaskProvider, OpenVPNClient, OpenVPNServer};

use crate::{ALONE, Release, kinds, values};

/// Whether a user may do something: `verb resource[.group][:subresource][/name] [namespace]`. Without a namespace: in
/// all namespaces.
async fn may(cluster: &Cluster, user: &str, what: &str) -> Result<bool> {
    let mut words = what.split(' ');
    let (verb, resource, namespace) = (words.next(), words.next().unwrap_or_default(), words.next());
    let (resource, name) = resource.split_once('/').map_or((resource, None), |(resource, name)| (resource, Some(name)));
    let (resource, part) = resource.split_once(':').map_or((resource, None), |(resource, part)| (resource, Some(part)));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let review: SubjectAccessReview = serde_json::from_value(json!({
        "spec": {
            "user": user,
            "resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "subresource": part, "name": name,
                "namespace": namespace,
            },
        },
    }))?;
    let reviews: Api<SubjectAccessReview> = Api::all(cluster.client()?);
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.context("no answer")?.allowed)
}

/// Waits until the API server has seen the rules that allow this.
async fn until_allowed(cluster: &Cluster, user: &str, what: &str) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !may(cluster, user, what).await? {
        ensure!(Instant::now() < deadline, "{user} may not {what}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn check(cluster: &Cluster, user: &str, allowed: &[&str], denied: &[&str]) -> Result<()> {
    for what in allowed {
        ensure!(may(cluster, user, what).await?, "{user} may not {what}");
    }
    for what in denied {
        ensure!(!may(cluster, user, what).await?, "{user} may {what}");
    }
    Ok(())
}

#[tokio::test]
async fn controllers_may_do_no_more_than_they_have_to() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    operator::install(cluster).await?;
    let user = |part: &str| format!("system:serviceaccount:vpn-operator:vpn-operator-{part}");
    let lease = |part: &str| format!("update leases.coordination.k8s.io/vpn-operator{part} vpn-operator");
    for part in ["masks", "consumers", "reservations", "providers", "pods", "all"] {
        let own = if part == "all" { lease("") } else { lease(&format!("-{part}")) };
        let other = if part == "masks" { lease("-consumers") } else { lease("-masks") };
        let never = [
            "create maskproviders.vpn.beebs.dev",
            "delete maskproviders.vpn.beebs.dev",
            "create deployments.apps",
            "create serviceaccounts",
            "create clusterroles.rbac.authorization.k8s.io",
            "update customresourcedefinitions.apiextensions.k8s.io",
            "create pods:exec",
            "get nodes",
            "update leases.coordination.k8s.io default",
            &other,
        ];
        check(cluster, &user(part), &[&own, "get maskconsumers.vpn.beebs.dev"], &never).await?;
    }
    for part in ["masks", "reservations"] {
        check(cluster, &user(part), &[], &["list secrets", "create secrets", "list pods", "delete pods"]).await?;
    }
    check(cluster, &user("consumers"), &["create secrets", "delete pods"], &["create pods", "get pods:log"]).await?;
    let verifies = ["create pods", "get pods:log", "create masks.vpn.beebs.dev", "watch secrets"];
    check(cluster, &user("providers"), &verifies, &["create secrets", "delete secrets", "get secrets"]).await?;
    injection(cluster, &user("pods"), &user("webhook")).await
}

/// The pods controller and the webhook.
async fn injection(cluster: &Cluster, pods: &str, webhook: &str) -> Result<()> {
    let may = [
        "watch pods",
        "patch pods",
        "delete pods",
        "patch pods:status",
        "create pods:eviction",
        "list replicasets.apps",
        "create masks.vpn.beebs.dev",
        "delete masks.vpn.beebs.dev",
        "patch maskconsumers.vpn.beebs.dev:status",
        "watch maskproviders.vpn.beebs.dev",
    ];
    let never = [
        "get secrets",
        "create secrets",
        "create pods",
        "get pods:log",
        "delete replicasets.apps",
        "patch masks.vpn.beebs.dev:status",
        "patch maskconsumers.vpn.beebs.dev",
        "delete maskconsumers.vpn.beebs.dev",
        "list maskreservations.vpn.beebs.dev",
        "patch maskproviders.vpn.beebs.dev:status",
        "patch mutatingwebhookconfigurations.admissionregistration.k8s.io/vpn-operator-webhook",
    ];
    check(cluster, pods, &may, &never).await?;
    let may = [
        "watch namespaces",
        "get masks.vpn.beebs.dev",
        "patch mutatingwebhookconfigurations.admissionregistration.k8s.io/vpn-operator-webhook",
        "update secrets/vpn-operator-webhook vpn-operator",
        // For the first certificate. RBAC cannot limit it to a name.
        "create secrets vpn-operator",
    ];
    let never = [
        "patch namespaces",
        "list masks.vpn.beebs.dev",
        "create masks.vpn.beebs.dev",
        "get pods",
        "create pods",
        "create mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "patch mutatingwebhookconfigurations.admissionregistration.k8s.io/other",
        "get secrets/vpn-operator-metrics-api vpn-operator",
        "list secrets vpn-operator",
        "delete secrets/vpn-operator-webhook vpn-operator",
        "get secrets/vpn-operator-webhook default",
        "create secrets default",
        "update leases.coordination.k8s.io/vpn-operator-pods vpn-operator",
    ];
    check(cluster, webhook, &may, &never).await
}

#[tokio::test]
async fn rights_end_at_the_named_namespaces() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let f = Framework::new(cluster, "bounded").await?;
    let (apps, accounts) = (format!("{}-apps", f.name()), format!("{}-accounts", f.name()));
    for namespace in [&apps, &accounts] {
        cluster.run_kubectl(&["create", "namespace", namespace]).await?;
    }
    let release = Release { cluster, name: "rights" };
    kinds::apply(cluster).await?;
    let secrets = format!("--set=rbac.secretNamespaces={{{apps},{accounts}}}");
    let providers = format!("--set=rbac.providerNamespaces={{{accounts}}}");
    release.upgrade(&[&secrets, &providers]).await?;
    let user = |part: &str| format!("system:serviceaccount:rights:rights-{part}");
    let inside = |what: &str| [format!("{what} {apps}"), format!("{what} {accounts}")];
    for what in inside("create secrets").iter().chain(&inside("delete secrets")) {
        check(cluster, &user("consumers"), &[what], &[]).await?;
    }
    let outside = ["create secrets", "create secrets default", "get secrets default"];
    check(cluster, &user("consumers"), &["watch secrets"], &outside).await?;
    let outside =
        ["watch secrets", "list secrets default", "create pods default", "create masks.vpn.beebs.dev default"];
    check(
        cluster,
        &user("providers"),
        &[&format!("watch secrets {accounts}"), &format!("create pods {accounts}")],
        &outside,
    )
    .await?;
    check(cluster, &user("providers"), &[], &[&format!("create pods {apps}")]).await?;
    release.remove().await?;
    kinds::apply(cluster).await
}

#[tokio::test]
async fn people_see_and_ask_but_do_not_decide() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    kinds::apply(cluster).await?;
    let release = Release { cluster, name: "people" };
    release.upgrade(&[&values("published"), "--set=prometheus.podMonitors=false"]).await?;
    let f = Framework::new(cluster, "people").await?;
    for role in ["view", "edit", "admin"] {
        let (bound, user) = (format!("--clusterrole={role}"), format!("--user={role}-user"));
        f.kubectl(&["create", "rolebinding", role, &bound, &user]).await?;
    }
    cluster
        .run_kubectl(&[
            "create",
            "clusterrolebinding",
            "accounts-user",
            "--clusterrole=people-provider-admin",
            "--user=accounts-user",
        ])
        .await?;
    let all = ["masks", "maskconsumers", "maskreservations", "maskproviders"];
    let here = |verb: &str, kind: &str| format!("{verb} {kind}.vpn.beebs.dev {}", f.name());
    // The controller manager aggregates roles shortly after their parts exist.
    until_allowed(cluster, "admin-user", &here("create", "masks")).await?;
    for user in ["view-user", "edit-user", "admin-user"] {
        for kind in all {
            check(cluster, user, &[&here("list", kind)], &[&format!("list {kind}.vpn.beebs.dev")]).await?;
        }
        for verb in ["create", "update", "patch", "delete"] {
            let ask = here(verb, "masks");
            let (may, may_not): (&[&str], &[&str]) = if user == "view-user" { (&[], &[&ask]) } else { (&[&ask], &[]) };
            check(cluster, user, may, may_not).await?;
            for kind in ["maskreservations", "maskconsumers", "maskproviders"] {
                check(cluster, user, &[], &[&here(verb, kind)]).await?;
            }
        }
        for kind in all {
            let what = format!("patch {kind}.vpn.beebs.dev:status {}", f.name());
            check(cluster, user, &[], &[&what]).await?;
        }
    }
    let accounts = ["create maskproviders.vpn.beebs.dev", "patch maskproviders.vpn.beebs.dev:scale"];
    check(cluster, "accounts-user", &accounts, &["create masks.vpn.beebs.dev", "get secrets"]).await?;
    cluster.run_kubectl(&["delete", "clusterrolebinding", "accounts-user"]).await?;
    release.remove().await?;
    kinds::apply(cluster).await
}

/// With this admission plugin, setting `blockOwnerDeletion` requires the permission to update the owner's finalizers.
#[tokio::test]
async fn they_are_enough_where_owner_references_are_guarded() -> Result<()> {
    let Some(_) = local_cluster().await? else { return Ok(()) };
    let plugin = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".to_owned();
    let options = ControlPlaneOptions { apiserver_args: vec![plugin], ..ControlPlaneOptions::default() };
    let cluster = Cluster::Local(Box::new(ControlPlane::start(options).await?));
    let options = OperatorOptions::new(Layout::FourProcesses).servers();
    let operator = Operator::start_with(&cluster, options).await?;
    Framework::run(&cluster, &operator, "guarded", async |f| {
        let spec = json!({"replicas": 1, "provider": {"maxSlots": 1, "verify": {"skip": true}}});
        let server = json!({"metadata": {"name": "home"}, "spec": spec});
        f.create::<OpenVPNServer>(serde_json::from_value(server)?).await?;
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;
        f.wait_for_reason::<MaskProvider>("home", "Available").await?;
        f.delete::<OpenVPNServer>("home").await?;
        f.wait_until_all::<OpenVPNClient>("no client", <[_]>::is_empty).await?;
        f.create_provider("vpn", 1).await?;
        let consumer = f.create_active_mask("mine").await?;
        // A user with the role `edit` starts the Pod that uses the slot, as in the README.
        f.kubectl(&["create", "rolebinding", "user", "--clusterrole=edit", "--user=somebody"]).await?;
        until_allowed(&cluster, "somebody", &format!("create pods {}", f.name())).await?;
        let somebody = cluster.user("somebody", None).await?.client()?;
        let pods = Api::namespaced(somebody, f.name());
        let pod = owned_pod("user", &consumer, 1)?;
        pods.create(&PostParams::default(), &pod).await?;
        f.clear(TIMEOUT).await
    })
    .await?;
    operator.stop().await?;
    cluster.stop().await
}
