package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/internal/testbed"
)

const reads = 200

type scenario struct {
	ctx     context.Context
	cluster *testbed.Cluster
	a, b    instance
}

func (s *scenario) seed() error {
	if err := s.a.db.AutoMigrate(&Account{}); err != nil {
		return err
	}
	rows := make([]Account, accounts)
	for i := range rows {
		rows[i].Balance = 100
	}
	return s.a.db.Create(&rows).Error
}

// nodes runs uncached reads, each in a scope of its own as requests are, and
// returns how many ran on each node.
func (s *scenario) nodes(i instance) (map[string]int, error) {
	seen := make(map[string]int)
	for n := range reads {
		ctx, sc := i.plugin.Begin(s.ctx, "read")
		var account Account
		err := i.db.WithContext(cachehook.Skip(ctx)).First(&account, 1+n%accounts).Error
		for node, count := range sc.End().Nodes {
			seen[node] += count
		}
		if err != nil {
			return nil, err
		}
	}
	return seen, nil
}

// until repeats the reads until they went where want says, for at most 15 s.
func (s *scenario) until(want func(map[string]int) bool) error {
	for end := time.Now().Add(15 * time.Second); ; {
		seen, err := s.nodes(s.a)
		if err != nil {
			return err
		}
		if want(seen) {
			fmt.Printf("   %d reads: %s\n", reads, list(seen))
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("reads still go to %s", list(seen))
		}
	}
}

func list(seen map[string]int) string {
	var parts []string
	for _, node := range slices.Sorted(maps.Keys(seen)) {
		parts = append(parts, fmt.Sprintf("%s %d", node, seen[node]))
	}
	return strings.Join(parts, ", ")
}

func (s *scenario) spread() error {
	return s.until(func(seen map[string]int) bool {
		return seen["replica1"] > 0 && seen["replica2"] > 0 && seen["primary"] == 0
	})
}

// readBack writes while one replica does not replay, and reads each write back
// in the same scope.
func (s *scenario) readBack() error {
	if err := s.cluster.Replica(0).PauseReplay(s.ctx); err != nil {
		return err
	}
	fmt.Printf("   replay paused on replica1\n")
	seen := make(map[string]int)
	for n := range reads {
		ctx, sc := s.a.plugin.Begin(s.ctx, "transfer")
		db := s.a.db.WithContext(cachehook.Skip(ctx))
		if err := db.Model(&Account{}).Where("id = ?", 1).Update("balance", n).Error; err != nil {
			return err
		}
		var account Account
		if err := db.First(&account, 1).Error; err != nil {
			return err
		}
		for node, count := range sc.End().Nodes {
			seen[node] += count
		}
		if account.Balance != int64(n) {
			return fmt.Errorf("wrote %d and read %d", n, account.Balance)
		}
	}
	fmt.Printf("   %d writes, each read back at once: 0 stale (statements on %s)\n", reads, list(seen))
	return nil
}

func (s *scenario) moveAway() error {
	if err := s.until(func(seen map[string]int) bool { return seen["replica1"] == 0 && seen["replica2"] > 0 }); err != nil {
		return err
	}
	for _, n := range s.a.plugin.Resolver().Nodes() {
		fmt.Printf("   %-9s staleness %v\n", n.Name, n.Staleness.Round(time.Millisecond))
	}
	return nil
}

func (s *scenario) comeBack() error {
	if err := s.cluster.Replica(0).ResumeReplay(s.ctx); err != nil {
		return err
	}
	return s.until(func(seen map[string]int) bool { return seen["replica1"] > 0 })
}

// invalidation fills the cache of b, writes on a, and reads on b.
func (s *scenario) invalidation() error {
	var before, after Account
	// Both instances have to know that the table is cached, before it is.
	for end := time.Now().Add(5 * time.Second); s.b.plugin.Cache().Stats().L1Hits == 0; {
		before = Account{}
		if err := s.b.db.WithContext(s.ctx).First(&before, 7).Error; err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("b did not serve the account from its memory: %+v", s.b.plugin.Cache().Stats())
		}
	}
	hits := s.b.plugin.Cache().Stats().L1Hits
	if err := s.a.db.Model(&Account{}).Where("id = ?", 7).Update("balance", 4711).Error; err != nil {
		return err
	}
	written := time.Now()
	for after.Balance != 4711 {
		after = Account{}
		if err := s.b.db.WithContext(s.ctx).First(&after, 7).Error; err != nil {
			return err
		}
		if time.Since(written) > 5*time.Second {
			return fmt.Errorf("b still serves the old account")
		}
	}
	fmt.Printf("   b served account 7 from memory with %d (%d hits so far)\n", before.Balance, hits)
	fmt.Printf("   a wrote 4711; b read it %v later, without a TTL passing\n", time.Since(written).Round(10*time.Microsecond))
	return nil
}
