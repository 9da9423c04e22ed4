// Command histories proves what the plugin promises on histories of real work:
//
//	go run -C bench ./histories -area routing|cache [-redis sentinel|cluster] [-ops N] [-seed S] [-faults LIST] [-json]
//
// It starts servers and several processes of a program that uses the plugin, lets
// them write and read at random while servers are paused, cut off, killed, frozen
// and promoted and processes are killed, and checks what they saw. For routing: a session reads its own
// writes and never goes back, no acknowledged write is lost, none happens twice,
// and no read is older than it may be. For the cache see package cached.
//
// It exits with 1 when a promise was broken, and also when the run shows nothing:
// too few reads came from replicas or from the cache, a fault met no traffic, or
// the time was over; and with 2 when it could not run to its end.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"

	"github.com/gorminfra/infra/bench/histories/cached"
	"github.com/gorminfra/infra/bench/histories/run"
)

const (
	exitViolation = 1 // or no proof
	exitFailed    = 2
)

// The areas.
const (
	routing = "routing"
	cache   = "cache"
)

// settings of a run.
type settings struct {
	area     string
	ops      int64
	seed     uint64
	names    string  // of faults, as given
	faults   []fault // of routing
	limit    time.Duration
	workers  int
	sessions int
	replicas int
	keep     string
	redis    string // its form, for the cache
}

func main() {
	for env, work := range map[string]func(string) error{workerEnv: runWorker, cached.WorkerEnv: cached.RunWorker} {
		if text := os.Getenv(env); text != "" {
			if err := work(text); err != nil {
				fmt.Fprintln(os.Stderr, "histories: worker:", err)
				os.Exit(exitViolation)
			}
			return
		}
	}
	os.Exit(prove(os.Args[1:], os.Stdout, os.Stderr))
}

// prove lets a history happen as the arguments say, and returns how the program is
// to exit. Whatever becomes of it, its seed is told.
func prove(args []string, out, errOut io.Writer) int {
	s, asJSON, err := parse(args, errOut)
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(errOut, "histories:", err)
		}
		return exitFailed
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	show := showRouting
	if s.area == cache {
		show = showCache
	}
	good, err := show(ctx, s, asJSON, out)
	if err != nil {
		fmt.Fprintf(errOut, "histories: seed %d: %v\n", s.seed, err)
		return exitFailed
	}
	if !good {
		return exitViolation
	}
	return 0
}

// showRouting reports whether the run counts and found nothing.
func showRouting(ctx context.Context, s settings, asJSON bool, out io.Writer) (good bool, err error) {
	if s.faults, err = run.Choose(faults, s.names); err != nil {
		return false, err
	}
	h, happened, err := play(ctx, s)
	if err != nil {
		return false, err
	}
	found, early := check(h)
	sum := summarize(s, h, happened, found)
	sum.Early = early
	show(out, sum, asJSON, sum.print)
	return len(sum.found) == 0 && len(sum.NoProof) == 0, nil
}

// showCache is showRouting for the cache.
func showCache(ctx context.Context, s settings, asJSON bool, out io.Writer) (good bool, err error) {
	sum, err := cached.Run(ctx, cached.Settings{
		Ops: s.ops, Seed: s.seed, Faults: s.names, Limit: s.limit, Workers: s.workers,
		Readers: s.sessions, Replicas: s.replicas, Keep: s.keep, Redis: s.redis,
	})
	if err != nil {
		return false, err
	}
	show(out, sum, asJSON, sum.Print)
	return len(sum.Violations) == 0 && len(sum.NoProof) == 0, nil
}

func show(out io.Writer, sum any, asJSON bool, write func(io.Writer)) {
	if !asJSON {
		write(out)
		return
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	_ = enc.Encode(sum)
}

func parse(args []string, help io.Writer) (s settings, asJSON bool, err error) {
	flags := flag.NewFlagSet("histories", flag.ContinueOnError)
	flags.SetOutput(help)
	flags.StringVar(&s.area, "area", routing, "what to prove: routing or cache")
	flags.Int64Var(&s.ops, "ops", 20_000, "to run for: read-backs of own writes for routing, operations for the cache; every fault happens at least once")
	flags.Uint64Var(&s.seed, "seed", 0, "of everything that is drawn; 0 draws one")
	flags.StringVar(&s.names, "faults", "", "what happens meanwhile, a list, or none; default all that the area has")
	flags.DurationVar(&s.limit, "limit", 0, "end by then; default a minute and a second for each 1000 of -ops")
	flags.IntVar(&s.workers, "workers", 3, "processes; the first of them opens no scopes")
	flags.IntVar(&s.sessions, "sessions", 0, "at a time in each; default 16 for routing, 6 that read for the cache")
	flags.IntVar(&s.replicas, "replicas", 3, "of the cluster")
	flags.StringVar(&s.keep, "keep", "", "folder to leave the operations' logs in")
	flags.StringVar(&s.redis, "redis", cached.Sentinel, "of the cache: sentinel, a master and its replica, or cluster, three of both")
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON")
	if err := flags.Parse(args); err != nil {
		return s, false, err
	}
	if s.sessions == 0 {
		if s.sessions = 16; s.area == cache {
			s.sessions = 6
		}
	}
	switch {
	case s.area != routing && s.area != cache:
		return s, false, fmt.Errorf("-area is %q: must be routing or cache", s.area)
	case s.ops < 1 || s.workers < 2 || s.sessions < 1:
		return s, false, errors.New("-ops and -sessions must be at least 1, -workers at least 2")
	case s.replicas < 2 || s.replicas > 8:
		return s, false, fmt.Errorf("-replicas is %d: must be between 2 and 8", s.replicas)
	}
	if s.seed == 0 {
		s.seed = rand.Uint64()>>32 + 1
	}
	if s.limit == 0 {
		s.limit = time.Minute + time.Duration(s.ops)*time.Millisecond
	}
	return s, asJSON, nil
}
