package limithook

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// The instant at which a request passes, among admissions and leases of one account
// with a limit below what is charged, against a list of both kept by hand.
func TestL01RetryInstantAmongLeasesAgreesWithAModel(t *testing.T) {
	t.Parallel()
	const window, now = 1000, 1_000_000_000_000_000
	server := newClockedRedis(t)
	server.set(now)
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 9))
		key := fmt.Sprint("{", digest(t.Name(), 4), seed, ".", namespaces.Add(1), "}")
		var log, leases []any
		var at []int64 // of each unit that has not expired
		instants := func(from, to int64) []int64 {
			all := make([]int64, r.IntN(12))
			for i := range all {
				all[i] = from + r.Int64N(to-from)
			}
			slices.Sort(all)
			return all
		}
		for _, v := range instants(now-window*3/2, now) {
			log = append(log, v)
			if v > now-window {
				at = append(at, v)
			}
		}
		sum := r.IntN(9)
		for _, v := range instants(now-window*3/2, now+100) {
			n := 1 + r.IntN(5)
			leases = append(leases, v, sum, sum+n)
			sum += n
			for range n {
				if v > now-window {
					at = append(at, v)
				}
			}
		}
		slices.Sort(at)
		keys := []string{key + "log", key + "lease", key + "epoch"}
		for i, entries := range [][]any{log, leases} {
			if len(entries) == 0 {
				continue
			}
			if err := server.client.RPush(t.Context(), keys[i], entries...).Err(); err != nil {
				t.Fatal(err)
			}
			server.client.Expire(t.Context(), keys[i], time.Minute)
		}
		for range 8 {
			limit := 1 + r.IntN(12)
			cost := 1 + r.IntN(limit)
			got, err := server.script.Run(t.Context(), server.client, keys, 0, cost, limit, window, 0, 0, 0).Int64Slice()
			want := []int64{0, int64(limit - len(at)), 0}
			if over := len(at) + cost - limit; over > 0 {
				want[0] = at[over-1] + window - now
			}
			if len(at) > 0 {
				want[2] = at[0] + window - now
			}
			if err != nil || !slices.Equal(got[:3], want) {
				t.Fatalf("seed %d, limit %d, cost %d: %v, want %v of\n%v\n%v; %v", seed, limit, cost, got, want, log, leases, err)
			}
		}
	}
}

// Many were admitted under a limit that is then lowered: to find when the first of the
// lower one passes must not take as long as there are admissions.
func TestL05LoweringAVeryLargeLimitCostsRedisLittle(t *testing.T) {
	t.Parallel()
	for name, lease := range map[string]Lease{"logs": {Max: 1}, "leases too": {Max: 16}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, l := mortal(t, Config{Global: Per(1_000_000, time.Hour), OnRedisFailure: Closed, Timeout: 30 * time.Second, Lease: lease})
			const before = 300_000
			for range before / 10_000 {
				if err := l.AllowN(as("a"), 10_000); err != nil {
					t.Fatal(err)
				}
				for range 3 { // leases among them
					if err := l.Allow(as("a")); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := l.SetLimits(Limit{}, Per(10, time.Hour)); err != nil {
				t.Fatal(err)
			}
			if _, err := server.Do(t.Context(), "config", "resetstat"); err != nil {
				t.Fatal(err)
			}
			d, err := l.Decide(as("a"), 1)
			if err != nil || d.Allowed || d.Remaining != 0 || d.RetryAfter < 50*time.Minute {
				t.Fatalf("%+v, %v", d, err)
			}
			stats, err := server.Do(t.Context(), "info", "commandstats")
			if err != nil {
				t.Fatal(err)
			}
			text, _ := stats.(string)
			calls := 0
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "cmdstat_lrange") {
					t.Errorf("the log was read: %s", line)
				}
				if strings.HasPrefix(line, "cmdstat_lindex") {
					calls++
				}
			}
			if calls == 0 {
				t.Errorf("not asked: %s", text)
			}
		})
	}
}
