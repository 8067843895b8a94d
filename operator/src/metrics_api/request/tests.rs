#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::prelude::*;

use super::*;

const ALL: Groups = Groups { custom: true, external: true };

#[test]
fn the_paths_of_an_autoscaler_are_parsed() {
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/media/maskproviders.vpn.beebs.dev/one/vpno_x";
    let query = "metricLabelSelector=tag%3Deu%2Creserve%3D2";
    let request = Request::parse(ALL, path, query).unwrap();
    let Request::Custom { version: "v1beta2", query } = &request else { panic!("{request:?}") };
    let CustomQuery { namespace, resource, objects, metric, selector } = query;
    assert_eq!((&**namespace, &**resource, &**metric), ("media", "maskproviders.vpn.beebs.dev", "vpno_x"));
    assert_eq!(objects, &Objects::Named("one".to_owned()));
    assert_eq!(selector, &Selector::parse("tag=eu,reserve=2").unwrap());
    let Attributes::Resource { resource, subresource, name, verb: "get", .. } = request.attributes(path) else {
        panic!()
    };
    assert_eq!((&*resource, &*subresource, &*name), ("maskproviders.vpn.beebs.dev", "vpno_x", "one"));

    let path = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/media/pods/*/clients";
    let Request::Custom { query, .. } = Request::parse(ALL, path, "labelSelector=app%3Da").unwrap() else { panic!() };
    let Objects::Selected(selector) = query.objects else { panic!() };
    assert_eq!(selector, Selector::parse("app=a").unwrap());

    let path = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/media/metrics/vpno_masks";
    let request = Request::parse(ALL, path, "").unwrap();
    assert!(matches!(&request, Request::Custom { query, .. } if query.resource == "namespaces"));
    let Attributes::Resource { resource, name, .. } = request.attributes(path) else { panic!() };
    assert_eq!((&*resource, &*name), ("metrics", "vpno_masks"));

    let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/media/vpno_tag_slots_free";
    let request = Request::parse(ALL, path, "labelSelector=tag%3Deu").unwrap();
    assert!(matches!(&request, Request::External { metric, .. } if metric == "vpno_tag_slots_free"));
    assert!(matches!(request.attributes(path), Attributes::Resource { verb: "list", .. }));
}

/// With a path as the attribute, everybody would have permission: `system:discovery` allows all of `/apis/*`.
#[test]
fn objects_without_a_namespace_need_permission_for_a_resource() {
    let path = "/apis/custom.metrics.k8s.io/v1beta1/nodes/*/load";
    let request = Request::parse(ALL, path, "labelSelector=a%3Db").unwrap();
    let Attributes::Resource { verb: "get", namespace, resource, subresource, name, .. } = request.attributes(path)
    else {
        panic!("{request:?}")
    };
    assert_eq!((&*namespace, &*resource, &*name, &*subresource), ("", "nodes", "*", "load"));
}

#[test]
fn only_what_is_served_is_found() {
    for path in [
        "/",
        "/apis/apps",
        "/apis/custom.metrics.k8s.io/v1",
        "/apis/external.metrics.k8s.io/v1beta2",
        "/apis/custom.metrics.k8s.io/v1beta1/namespaces/media/pods",
        "/metrics",
        "/openapi/v3/apis/apps/v1",
    ] {
        assert_eq!(Request::parse(ALL, path, ""), Err(Unknown::NotFound), "{path}");
    }
    let external = "/apis/external.metrics.k8s.io/v1beta1/namespaces/media/x";
    assert_eq!(Request::parse(Groups { custom: true, external: false }, external, ""), Err(Unknown::NotFound));
    let bad = Request::parse(ALL, external, "labelSelector=a%20b");
    assert!(matches!(bad, Err(Unknown::BadRequest(_))), "{bad:?}");
}

proptest! {
    #[test]
    fn no_path_panics(path in "(/[a-z.*%0-9]{0,12}){0,8}|\\PC*", query in "\\PC*") {
        let _ = Request::parse(ALL, &path, &query);
    }
}
