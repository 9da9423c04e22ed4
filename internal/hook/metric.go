package hook

// Metric describes one number of a part's state. Parts declare theirs once, in
// package variables; the pointer is the metric's identity.
type Metric struct {
	// Name is in snake case, without the namespace and with its unit as
	// Prometheus wants it: "cache_hits_total", "replica_lag_seconds".
	Name string
	Help string
	// Counter: it only grows. Otherwise it is a gauge.
	Counter bool
	// Labels are the names of the labels, of few values each: never a user, an
	// SQL text or a raw path.
	Labels []string
}

// Meter is an optional ability of a part: its numbers, read when somebody asks.
// Parts do not know who reads them.
type Meter interface {
	// Meter calls emit for each number, labels in the order of m.Labels. It does
	// not block on I/O and may be called at any time from any goroutine.
	Meter(emit func(m *Metric, value float64, labels ...string))
}

// Meter lets every registered part that is a [Meter] emit its numbers.
func (h *Hub) Meter(emit func(m *Metric, value float64, labels ...string)) {
	for _, m := range h.stages.Load().meters {
		m.Meter(emit)
	}
}
