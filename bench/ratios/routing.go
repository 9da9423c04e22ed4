package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"

	"github.com/gorminfra/infra/resolver"
)

// routing is the resolver alone: what it costs, and how fast it acts.
func routing(ctx context.Context) (rows []row, err error) {
	decision, err := decisionRow(ctx)
	if err != nil {
		return nil, err
	}
	cost, err := routingCost(ctx)
	if err != nil {
		return nil, err
	}
	rows = append(append(rows, decision), cost...)
	for _, part := range []func(context.Context) ([]row, error){tokenCost, connects, failures, promotions} {
		more, err := part(ctx)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

var benchmarkLine = regexp.MustCompile(`(?m)^BenchmarkDecide\S*\s+\d+\s+([\d.]+) ns/op.*?(\d+) allocs/op`)

// decisionRow runs the package's own benchmark: a decision is no public call.
func decisionRow(ctx context.Context) (row, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "github.com/gorminfra/infra/resolver", "-run", "^$", "-bench", "^BenchmarkDecide$",
		"-benchmem", "-benchtime", "100ms", "-count", "11")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return row{}, fmt.Errorf("run BenchmarkDecide: %w: %s", err, bytes.TrimSpace(out))
	}
	var times []float64
	allocs := 0.0
	for _, m := range benchmarkLine.FindAllSubmatch(out, -1) {
		t, errTime := strconv.ParseFloat(string(m[1]), 64)
		a, errAllocs := strconv.ParseFloat(string(m[2]), 64)
		if err := errors.Join(errTime, errAllocs); err != nil {
			return row{}, err
		}
		times, allocs = append(times, t), max(allocs, a)
	}
	if len(times) == 0 {
		return row{}, fmt.Errorf("BenchmarkDecide told nothing: %s", bytes.TrimSpace(out))
	}
	v := medianOf(times)
	r := counted("one decision", "nothing", "ns", v, 40, false)
	r.Ours, r.OursAllocs = v.median, allocs
	r.Pass = r.Pass && allocs == 0
	return r, nil
}

// routingCost is what a read pays for being routed to one of two replicas.
func routingCost(ctx context.Context) (rows []row, err error) {
	bare, err := openNull()
	if err != nil {
		return nil, err
	}
	peer, err := openNull()
	if err != nil {
		return nil, err
	}
	if err := peer.Use(dbresolver.Register(dbresolver.Config{Replicas: []gorm.Dialector{nullReplica(), nullReplica()}})); err != nil {
		return nil, err
	}
	ours, err := openNull()
	if err != nil {
		return nil, err
	}
	r := resolver.New(quietResolver(resolver.Node{Dialector: nullReplica()}, resolver.Node{Dialector: nullReplica()}))
	if err := ours.Use(r); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := onReplicas(ctx, r, ours); err != nil {
		return nil, err
	}
	plain := first(ctx, bare)
	return []row{
		atMostAbove("routing, First, null driver", "bare GORM", measure(first(ctx, ours), plain), 300),
		atMostAbove("dbresolver's routing, for comparison", "bare GORM", measure(first(ctx, peer), plain), 250),
	}, nil
}

func quietResolver(replicas ...resolver.Node) resolver.Config {
	return resolver.Config{Replicas: replicas, Logger: slog.New(slog.DiscardHandler)}
}

// onReplicas waits until reads go to replicas.
func onReplicas(ctx context.Context, r *resolver.Resolver, db *gorm.DB) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := r.Ready(ctx); err != nil {
		return err
	}
	return until(ctx, "reads to go to replicas", func() bool {
		before := served(r)
		for range 20 {
			var it item
			if db.WithContext(ctx).First(&it, 7).Error != nil {
				return false
			}
		}
		return served(r) >= before+20
	})
}

// served is how many reads the replicas got.
func served(r *resolver.Resolver) (n uint64) {
	for _, node := range r.Nodes() {
		if !node.Primary {
			n += node.Decisions["replica"]
		}
	}
	return n
}

// until polls for something that comes by itself.
func until(ctx context.Context, what string, ok func() bool) error {
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}
