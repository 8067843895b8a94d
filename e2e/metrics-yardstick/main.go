// A metrics API made of the library that prometheus-adapter and KEDA are made
// of, to compare the documents of vpn-operator with. It is the test adapter of
// the library, whose custom metrics are written over HTTP. What is fixed there
// is given here: the metrics in discovery, and the external metrics.
package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/emicklei/go-restful/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics/v1beta1"

	"sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
	fake "sigs.k8s.io/custom-metrics-apiserver/test-adapter/provider"
)

// offered is what the server offers besides the values that are written.
type offered struct {
	provider.MetricsProvider `json:"-"`
	// Custom has the names in discovery, such as pods/requests.
	Custom   []string                      `json:"custom"`
	External []v1beta1.ExternalMetricValue `json:"external"`
}

func (o *offered) ListAllMetrics() []provider.CustomMetricInfo {
	var all []provider.CustomMetricInfo
	for _, name := range o.Custom {
		resource, metric, _ := strings.Cut(name, "/")
		all = append(all, provider.CustomMetricInfo{
			GroupResource: schema.ParseGroupResource(resource),
			Namespaced:    resource != "namespaces",
			Metric:        metric,
		})
	}
	return all
}

// GetMetricByName finds the metrics of namespaces, too. The test adapter writes
// them as if namespaces were in a namespace, and reads them as if not.
func (o *offered) GetMetricByName(ctx context.Context, name types.NamespacedName, info provider.CustomMetricInfo,
	selector labels.Selector) (*custom_metrics.MetricValue, error) {
	if err := o.check(info); err != nil {
		return nil, err
	}
	if info.GroupResource.Resource == "namespaces" {
		info.Namespaced = true
	}
	return o.MetricsProvider.GetMetricByName(ctx, name, info, selector)
}

func (o *offered) GetMetricBySelector(ctx context.Context, namespace string, objects labels.Selector,
	info provider.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValueList, error) {
	if err := o.check(info); err != nil {
		return nil, err
	}
	return o.MetricsProvider.GetMetricBySelector(ctx, namespace, objects, info, selector)
}

// check fails for a metric that is not offered, as prometheus-adapter does.
func (o *offered) check(info provider.CustomMetricInfo) error {
	if slices.Contains(o.Custom, info.GroupResource.String()+"/"+info.Metric) {
		return nil
	}
	return provider.NewMetricNotFoundError(info.GroupResource, info.Metric)
}

func (o *offered) ListAllExternalMetrics() []provider.ExternalMetricInfo {
	var all []provider.ExternalMetricInfo
	known := map[string]bool{}
	for _, value := range o.External {
		if !known[value.MetricName] {
			known[value.MetricName] = true
			all = append(all, provider.ExternalMetricInfo{Metric: value.MetricName})
		}
	}
	return all
}

func (o *offered) GetExternalMetric(_ context.Context, _ string, selector labels.Selector,
	info provider.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	found, known := []external_metrics.ExternalMetricValue{}, false
	for _, value := range o.External {
		if value.MetricName != info.Metric {
			continue
		}
		known = true
		if selector.Matches(labels.Set(value.MetricLabels)) {
			found = append(found, external_metrics.ExternalMetricValue{
				MetricName:   value.MetricName,
				MetricLabels: value.MetricLabels,
				Timestamp:    metav1.Now(),
				Value:        value.Value,
			})
		}
	}
	if !known {
		// As prometheus-adapter does.
		return nil, provider.NewMetricNotFoundError(schema.GroupResource{Resource: "namespaces"}, info.Metric)
	}
	return &external_metrics.ExternalMetricValueList{Items: found}, nil
}

func main() {
	adapter := &cmd.AdapterBase{Name: "metrics-yardstick"}
	file := adapter.Flags().String("offered", "", "JSON with the custom metrics in discovery and the external metrics")
	write := adapter.Flags().String("write-address", "", "where values of custom metrics are written over HTTP")
	if err := adapter.Flags().Parse(os.Args[1:]); err != nil {
		klog.Fatal(err)
	}
	all := &offered{}
	text, err := os.ReadFile(*file)
	if err == nil {
		err = json.Unmarshal(text, all)
	}
	if err != nil {
		klog.Fatal(err)
	}
	client, err := adapter.DynamicClient()
	if err != nil {
		klog.Fatal(err)
	}
	mapper, err := adapter.RESTMapper()
	if err != nil {
		klog.Fatal(err)
	}
	values, service := fake.NewFakeProvider(client, mapper)
	all.MetricsProvider = values
	adapter.WithCustomMetrics(all)
	adapter.WithExternalMetrics(all)

	container := restful.NewContainer()
	container.Add(service)
	go func() { klog.Fatal(http.ListenAndServe(*write, container)) }()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := adapter.Run(ctx); err != nil {
		klog.Fatal(err)
	}
}
