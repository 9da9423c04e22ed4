package resolver

import (
	"strings"
	"time"

	"github.com/gorminfra/infra/internal/hook"
)

// The numbers, each with the label node.
var (
	metricLag         = gauge("replica_lag_seconds", "How far the replica may be behind the primary.")
	metricUp          = gauge("node_up", "Whether the node is in rotation (1) or not (0).")
	metricInFlight    = gauge("node_in_flight", "Statements outside transactions that are on the node now.")
	metricLatency     = gauge("node_latency_seconds", "Moving average of the time of reads on the node.")
	metricEjections   = counter("node_ejections_total", "How often the node was put out of rotation.")
	metricProbes      = counter("node_probes_total", "Probes of the node.")
	metricProbeErrors = counter("node_probe_errors_total", "Probes of the node that got no answer.")
	metricConnErrors  = counter("node_connection_errors_total", "Attempts of statements that failed by the connection.")
	metricDecisions   = &hook.Metric{
		Name:    "routing_decisions_total",
		Help:    "Statements and transactions sent to the node, by the reason of the choice: " + strings.Join(reasonNames[:], ", ") + ".",
		Counter: true, Labels: []string{"node", "reason"},
	}
	metricPrimary     = gauge("node_primary", "Whether writes go to the node (1) or not (0).")
	metricFailovers   = &hook.Metric{Name: "failovers_total", Help: "How often another node became the primary.", Counter: true}
	metricFailoverGap = &hook.Metric{
		Name: "failover_seconds_total", Help: "Time between the last answer of a primary and its successor's first, over all failovers.", Counter: true,
	}
	metricDraining = gauge("node_draining", "Whether the node takes no new work (1) or does (0).")
	metricSpilled  = &hook.Metric{Name: "spilled_reads", Help: "Reads that are on the primary now because no replica is fit."}
	metricRefused  = &hook.Metric{
		Name: "refused_reads_total", Help: "Reads that found no fit replica and no place on the primary, by priority.",
		Counter: true, Labels: []string{"priority"},
	}
	metricGroup = &hook.Metric{
		Name: "group_rotation", Help: "Replicas of the group that take reads now.", Labels: []string{"group"},
	}
	metricPoolMax    = gauge("pool_max_connections", "Most connections that the node's pool opens; 0: no bound.")
	metricPoolInUse  = gauge("pool_in_use_connections", "Connections of the node's pool in use.")
	metricPoolIdle   = gauge("pool_idle_connections", "Idle connections of the node's pool.")
	metricPoolWaits  = counter("pool_waits_total", "How often a connection of the node's pool was waited for.")
	metricPoolWaited = counter("pool_wait_seconds_total", "Time for which connections of the node's pool were waited for.")
)

func gauge(name, help string) *hook.Metric {
	return &hook.Metric{Name: name, Help: help, Labels: []string{"node"}}
}

func counter(name, help string) *hook.Metric {
	return &hook.Metric{Name: name, Help: help, Counter: true, Labels: []string{"node"}}
}

// Meter implements hook.Meter.
func (a *router) Meter(emit func(m *hook.Metric, value float64, labels ...string)) {
	watched := len(a.r.replicas()) > 0 || len(a.r.groups.far) > 0
	if watched {
		s := a.r.Stats()
		emit(metricSpilled, float64(s.Spilled))
		for priority, n := range s.Refused {
			emit(metricRefused, float64(n), priority)
		}
		for _, g := range s.Groups {
			emit(metricGroup, float64(g.Rotation), g.Name)
		}
		var count uint64
		var gap time.Duration
		for _, home := range a.r.homes() {
			home.mu.Lock()
			count, gap = count+home.failovers, gap+home.failoverTime
			home.mu.Unlock()
		}
		emit(metricFailovers, float64(count))
		emit(metricFailoverGap, gap.Seconds())
	}
	for _, s := range a.r.Nodes() {
		if watched {
			up := 0.0
			if s.Up {
				up = 1
			}
			emit(metricUp, up, s.Name)
			draining := 0.0
			if s.Draining {
				draining = 1
			}
			emit(metricDraining, draining, s.Name)
			if s.Primary {
				emit(metricPrimary, 1, s.Name)
			} else {
				emit(metricPrimary, 0, s.Name)
			}
			emit(metricProbes, float64(s.Probes), s.Name)
			emit(metricProbeErrors, float64(s.ProbeErrors), s.Name)
			emit(metricEjections, float64(s.Ejections), s.Name)
			emit(metricLatency, s.Latency.Seconds(), s.Name)
			if !s.Primary && s.Staleness >= 0 {
				emit(metricLag, s.Staleness.Seconds(), s.Name)
			}
		}
		emit(metricInFlight, float64(s.InFlight), s.Name)
		emit(metricConnErrors, float64(s.ConnectionErrors), s.Name)
		for why, n := range s.Decisions {
			emit(metricDecisions, float64(n), s.Name, why)
		}
		if s.Pool == (PoolStatus{}) {
			continue
		}
		emit(metricPoolMax, float64(s.Pool.Max), s.Name)
		emit(metricPoolInUse, float64(s.Pool.InUse), s.Name)
		emit(metricPoolIdle, float64(s.Pool.Idle), s.Name)
		emit(metricPoolWaits, float64(s.Pool.Waits), s.Name)
		emit(metricPoolWaited, s.Pool.Waited.Seconds(), s.Name)
	}
}
