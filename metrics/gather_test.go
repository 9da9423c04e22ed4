package metrics

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// histogramCounts are the numbers of observations of c's histograms by the
// values of those labels.
func histogramCounts(t *testing.T, c prometheus.Collector, labels ...string) map[string]uint64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			values := make([]string, len(labels))
			for _, l := range m.GetLabel() {
				if i := slices.Index(labels, l.GetName()); i >= 0 {
					values[i] = l.GetValue()
				}
			}
			counts[strings.Join(values, " ")] += m.GetHistogram().GetSampleCount()
		}
	}
	return counts
}

// labelPairs writes histogramCounts as "label label:count, …", sorted.
func labelPairs(t *testing.T, c prometheus.Collector, labels ...string) string {
	t.Helper()
	var all []string
	for k, n := range histogramCounts(t, c, labels...) {
		all = append(all, fmt.Sprintf("%s:%d", k, n))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func total(t *testing.T, c prometheus.Collector) uint64 {
	t.Helper()
	return histogramCounts(t, c)[""]
}
