package metrics

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gorminfra/infra/internal/hook"
)

// source is where the other parts' numbers are read: the hub.
type source interface {
	Meter(emit func(m *hook.Metric, value float64, labels ...string))
}

// partsCollector exports what the other parts emit. Which they are is known
// only when it is asked, since parts come and go, so it describes nothing in
// advance ("unchecked"). Prometheus' Registry cannot take such a collector off
// again: after Close it stays there, empty and with nothing behind it.
type partsCollector struct {
	constant prometheus.Labels
	dropped  *atomic.Uint64

	mu    sync.Mutex // guards the rest, and lets one scrape in at a time
	from  source     // nil after Close
	known map[*hook.Metric]*prometheus.Desc
	names map[string]*hook.Metric
}

func newPartsCollector(name string, from source, dropped *atomic.Uint64) *partsCollector {
	c := &partsCollector{
		constant: prometheus.Labels{"db": name},
		dropped:  dropped,
		from:     from,
		known:    make(map[*hook.Metric]*prometheus.Desc),
		names:    map[string]*hook.Metric{},
	}
	for _, name := range ownNames {
		c.names[name] = new(hook.Metric) // no part's metric equals it
	}
	return c
}

var _ prometheus.Collector = (*partsCollector)(nil)

// Describe implements prometheus.Collector.
func (c *partsCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. One wrong metric makes Prometheus
// lose the whole scrape, the program's other metrics included, so a number that
// does not fit is left out and counted.
func (c *partsCollector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from == nil {
		return
	}
	seen := make(map[string]bool)
	c.from.Meter(func(m *hook.Metric, value float64, labels ...string) {
		metric := c.metric(m, value, labels, seen)
		if metric == nil {
			c.dropped.Add(1)
			return
		}
		ch <- metric
	})
}

func (c *partsCollector) metric(m *hook.Metric, value float64, labels []string, seen map[string]bool) prometheus.Metric {
	desc := c.desc(m)
	if desc == nil {
		return nil
	}
	values := make([]string, len(labels))
	for i, v := range labels {
		values[i] = labelValue(v)
	}
	series := m.Name + "\xff" + strings.Join(values, "\xff") // never in valid UTF-8
	if seen[series] {
		return nil
	}
	kind := prometheus.GaugeValue
	if m.Counter {
		kind = prometheus.CounterValue
	}
	metric, err := prometheus.NewConstMetric(desc, kind, value, values...)
	if err != nil {
		return nil
	}
	seen[series] = true
	return metric
}

// desc returns the description of m, or nil when another metric has its name
// and is not the same.
func (c *partsCollector) desc(m *hook.Metric) *prometheus.Desc {
	desc, ok := c.known[m]
	if !ok {
		first, taken := c.names[m.Name]
		if !taken {
			first, c.names[m.Name] = m, m
		}
		if first.Help == m.Help && first.Counter == m.Counter && slices.Equal(first.Labels, m.Labels) {
			desc = prometheus.NewDesc(fullName(m.Name), m.Help, m.Labels, c.constant)
		}
		c.known[m] = desc
	}
	return desc
}

// silence ends it, waiting for a scrape under way.
func (c *partsCollector) silence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from, c.known, c.names = nil, nil, nil
}
