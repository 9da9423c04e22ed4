// Package cached proves the contract of the cache on histories of real work.
//
// Several processes that use the plugin, each with its own memory, a Redis under a
// sentinel or a Redis Cluster and a Postgres cluster between them, write and read rows at
// random while servers, connections and processes fail. Each row has a version
// that every write makes one higher, so that what a reader saw tells which writes
// it missed. A checker that knows what the cache promises to whom holds each read
// against the writes that had returned before it began.
package cached

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/bench/histories/run"
)

// Settings of a run.
type Settings struct {
	Ops      int64  // operations to run for; every fault happens at least once
	Seed     uint64 // of everything that is drawn
	Faults   string // a list, empty for all, or none
	Redis    string // its form; empty is [Sentinel]
	Limit    time.Duration
	Workers  int
	Readers  int // at a time in each worker
	Replicas int
	Keep     string // folder to leave the logs in

	faults []fault
}

// Run lets a history happen and checks it. An error says that it could not run to
// its end.
func Run(ctx context.Context, s Settings) (*Summary, error) {
	var err error
	s.Redis = cmp.Or(s.Redis, Sentinel)
	if _, ok := forms[s.Redis]; !ok {
		return nil, fmt.Errorf("-redis is %q: must be %s or %s", s.Redis, Sentinel, Cluster)
	}
	if s.faults, err = run.Choose(faultsOf(s.Redis), s.Faults); err != nil {
		return nil, err
	}
	switch {
	case s.Ops < 1 || s.Readers < 1:
		return nil, errors.New("-ops and -sessions must be at least 1")
	case s.Workers < 3:
		return nil, fmt.Errorf("-workers is %d: must be at least 3, which promise different things", s.Workers)
	}
	redis.SetLogger(silent{})
	p, err := play(ctx, s)
	if err != nil {
		return nil, err
	}
	return p.summarize(check(p.h)), nil
}
